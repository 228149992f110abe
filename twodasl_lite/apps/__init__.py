"""What it is good for: a photo becomes a mesh, two faces trade places, and the command ``twodasl``.

May import ``base``, ``geometry``, ``render``, ``faces``, ``worlds``, ``datasets``, ``losses``, ``networks``,
``evaluation``, ``training``, ``viz`` and ``course``. See chapters 16 and 17.

* :mod:`~twodasl_lite.apps.reconstruction`: from a photo to faces; :mod:`~twodasl_lite.apps.tracking`: through a video.
* :mod:`~twodasl_lite.apps.detection`, :mod:`~twodasl_lite.apps.face_search`: where the faces are, with a detector and
  without one; :mod:`~twodasl_lite.apps.landmark_files`: points that somebody placed.
* :mod:`~twodasl_lite.apps.transfer`: one face's expression for another; one face in another's place.
* :mod:`~twodasl_lite.apps.export`: meshes and networks as files for other programs.
* :mod:`~twodasl_lite.apps.cli`, :mod:`~twodasl_lite.apps.commands`: words from a person become calls.
"""
