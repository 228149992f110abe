"""Pictures that are drawn: synthetic worlds whose answers are known.

May import ``base``, ``geometry``, ``render`` and ``faces``. See chapter 7.

* :mod:`~twodasl_lite.worlds.world`: what kinds of pictures there are, as small TOML files beside it.
* :mod:`~twodasl_lite.worlds.synthetic`: the pictures, made on the spot.
* :mod:`~twodasl_lite.worlds.lighting`, :mod:`~twodasl_lite.worlds.backgrounds`,
  :mod:`~twodasl_lite.worlds.wardrobe`, :mod:`~twodasl_lite.worlds.occluders`,
  :mod:`~twodasl_lite.worlds.degradation`: lamps, what is behind, hair and clothes, glasses and hands, what cameras do.
* :mod:`~twodasl_lite.worlds.detector`: a landmark detector's noise, simulated.
* :mod:`~twodasl_lite.worlds.draws`: random numbers that depend on a picture's number alone.
* :mod:`~twodasl_lite.worlds.profiling`: a labelled photo turned to a larger yaw.
"""
