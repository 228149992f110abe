"""The face: the linear morphable model, how it is built from scans, and the embedded one.

``load_face_model()`` returns the embedded face, or the file that ``TWODASL_FACE_MODEL`` names.
"""

from twodasl_lite.morphable.embedded import generate_face_model, load_face_model
from twodasl_lite.morphable.model import MorphableModel

__all__ = ["MorphableModel", "generate_face_model", "load_face_model"]
