"""Training pictures of faces: synthetic worlds with exact ground truth, and real datasets.

* :mod:`~twodasl_lite.geometry.face_batch`: the structure that every source returns.
* :mod:`~twodasl_lite.worlds.synthetic`: pictures rendered on the fly, in a labelled and a wild world
  (:mod:`~twodasl_lite.worlds.world`).
* :mod:`~twodasl_lite.worlds.detector`: the simulated noise of a landmark detector.
* :mod:`~twodasl_lite.datasets.stream`: endless mini-batches for training, with exact resume.
* :mod:`~twodasl_lite.datasets.shards`: datasets on disk: written once, checked, resumable.
* :mod:`~twodasl_lite.datasets.annotations`: from the annotations of 300W-LP and AFLW2000-3D to coefficients.
* :mod:`~twodasl_lite.datasets.w300lp`, :mod:`~twodasl_lite.datasets.tddfa`: real pictures with 3D labels.
* :mod:`~twodasl_lite.datasets.aflw`, :mod:`~twodasl_lite.datasets.aflw2000`: real pictures with sparse landmarks, and
  the test set.
* :mod:`~twodasl_lite.worlds.profiling`: a labelled photo turned to a larger yaw.
"""
