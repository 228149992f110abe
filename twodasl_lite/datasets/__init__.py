"""Pictures that are read: real sets, and sets of pictures on disk and in streams.

May import ``base``, ``geometry``, ``render``, ``faces`` and ``worlds``. See chapters 7, 15 and 16.

* :mod:`~twodasl_lite.datasets.aflw2000`: the benchmark; :mod:`~twodasl_lite.datasets.aflw`: faces with sparse points.
* :mod:`~twodasl_lite.datasets.w300lp`, :mod:`~twodasl_lite.datasets.tddfa`: pictures with 3D labels, both
  :mod:`~twodasl_lite.datasets.real`; :mod:`~twodasl_lite.datasets.annotations`: from their annotations to coefficients.
* :mod:`~twodasl_lite.datasets.packed`: photographs to learn from and to be measured on, in one file.
* :mod:`~twodasl_lite.datasets.stream`: endless batches for training, with exact resume.
* :mod:`~twodasl_lite.datasets.shards`, :mod:`~twodasl_lite.datasets.drawn`: sets of pictures on disk, written once,
  checked, resumed; a synthetic world as their source. :mod:`~twodasl_lite.datasets.pool`: many processes for such work.
* :mod:`~twodasl_lite.datasets.examples`: the one photograph that comes along.
"""
