"""The face: the linear morphable model, how it is built from scans, the embedded model, and readers for published ones.

``load_face_model()`` returns the embedded face, or the file that ``TWODASL_FACE_MODEL`` names;
``read_face_model(path)`` reads any known format.
"""

from twodasl_lite.faces.embedded.recipe import generate_face_model
from twodasl_lite.faces.load import load_face_model
from twodasl_lite.faces.model import MorphableModel
from twodasl_lite.faces.readers import read_face_model, read_whitening

__all__ = ["MorphableModel", "generate_face_model", "load_face_model", "read_face_model", "read_whitening"]
