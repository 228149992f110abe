"""Pictures of faces to learn from: synthetic worlds with known answers, and real sets.

* :mod:`~twodasl_lite.data.faces`: the structure that every source returns.
* :mod:`~twodasl_lite.data.synthetic`: pictures made on the spot, in a labelled and a wild world
  (:mod:`~twodasl_lite.data.worlds`).
* :mod:`~twodasl_lite.data.detector`: a landmark detector's noise, simulated.
* :mod:`~twodasl_lite.data.stream`: endless batches for training, with exact resume.
* :mod:`~twodasl_lite.data.shards`: sets of pictures on disk, written once, checked, resumed.
* :mod:`~twodasl_lite.data.annotations`: from the annotations of 300W-LP and AFLW2000-3D to coefficients.
* :mod:`~twodasl_lite.data.w300lp`, :mod:`~twodasl_lite.data.tddfa`: real pictures with 3D labels.
* :mod:`~twodasl_lite.data.aflw`, :mod:`~twodasl_lite.data.aflw2000`: real pictures with sparse landmarks, and to test
  on.
* :mod:`~twodasl_lite.data.profiling`: a labelled photo turned to a larger yaw.
"""
