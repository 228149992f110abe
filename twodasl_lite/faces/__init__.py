"""The face: linear morphable models, from coefficients to pixels and, by fitting, back.

May import ``base``, ``geometry`` and ``render``. See chapters 1 to 5.

* :mod:`~twodasl_lite.faces.model`: mean, shape, expression and colours as one module.
* :mod:`~twodasl_lite.faces.build`, :mod:`~twodasl_lite.faces.register`: how a model is made from scans; landmarks found
  on another model.
* :mod:`~twodasl_lite.faces.embedded`: the face that comes with the package, generated from measurements.
* :mod:`~twodasl_lite.faces.readers`: face models of other people.
* :mod:`~twodasl_lite.faces.load`: which of them it is: ``TWODASL_FACE_MODEL``, or else the embedded one.
* :mod:`~twodasl_lite.faces.decode`: from 62 numbers to vertices and landmarks in pixels, the one road everybody takes.
* :mod:`~twodasl_lite.faces.fitting`, :mod:`~twodasl_lite.faces.least_squares`: the way back, without a network.
* :mod:`~twodasl_lite.faces.texture`, :mod:`~twodasl_lite.faces.unwrap`: a photo's colours on the mesh.
"""

from twodasl_lite.faces.embedded.recipe import generate_face_model
from twodasl_lite.faces.load import load_face_model
from twodasl_lite.faces.model import MorphableModel
from twodasl_lite.faces.readers import read_face_model, read_whitening

__all__ = ["MorphableModel", "generate_face_model", "load_face_model", "read_face_model", "read_whitening"]
