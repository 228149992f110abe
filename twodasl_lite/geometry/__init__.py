"""The words of the field: 62 numbers, the camera, 68 landmarks, photos and their crops, a batch of them.

May import ``base``. See chapters 3 and 4.

* :mod:`~twodasl_lite.geometry.coefficients`: pose, shape and expression, packed, and whitened for networks.
* :mod:`~twodasl_lite.geometry.camera`: weak perspective, angles, the frames of crop and photo.
* :mod:`~twodasl_lite.geometry.landmarks`: 68 points and their subsets; files of them; the map that a network sees.
* :mod:`~twodasl_lite.geometry.photos`: photos as arrays: read, crop, look up colours.
* :mod:`~twodasl_lite.geometry.face_batch`: the structure in which every source hands out its pictures.
"""
