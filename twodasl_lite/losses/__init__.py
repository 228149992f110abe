"""The losses of 2DASL, each a small module that can be used on its own.

May import ``base``, ``geometry`` and ``faces``. See chapters 9 to 13.

Every loss takes a batch and returns one number per sample, ``(B,)``; the training loop takes the mean. The coefficient
losses need labelled pictures; the landmark losses, the critic and the prior do not. Distances are in *face sizes*,
``sqrt(w h)`` of the box around the target's landmarks, so that the weights of a sum do not depend on the resolution.

The translation's depth, ``pose[2,3]``, cannot be observed, so no loss depends on it.
"""

from twodasl_lite.losses.catalogue import LOSS_NAMES, LOSS_TITLES, SELF_SUPERVISED, SUPERVISED
from twodasl_lite.losses.cycle import CycleConsistency
from twodasl_lite.losses.distances import DISTANCES, FACE_SIZE_FLOOR, HUBER_DELTA, centre_depth, face_size
from twodasl_lite.losses.landmarks_2d import LandmarkConsistency2D
from twodasl_lite.losses.landmarks_3d import LandmarkConsistency3D
from twodasl_lite.losses.moments import VertexMoments
from twodasl_lite.losses.pdc import PDC
from twodasl_lite.losses.prior import CoefficientPrior
from twodasl_lite.losses.self_critic import CRITIC_FORMS, SelfCritic, normalise_landmarks
from twodasl_lite.losses.total import Total, WeightedSum
from twodasl_lite.losses.vdc import VDC
from twodasl_lite.losses.wpdc import WPDC

__all__ = [
    "CRITIC_FORMS",
    "DISTANCES",
    "FACE_SIZE_FLOOR",
    "HUBER_DELTA",
    "LOSS_NAMES",
    "LOSS_TITLES",
    "PDC",
    "SELF_SUPERVISED",
    "SUPERVISED",
    "VDC",
    "WPDC",
    "CoefficientPrior",
    "CycleConsistency",
    "LandmarkConsistency2D",
    "LandmarkConsistency3D",
    "SelfCritic",
    "Total",
    "VertexMoments",
    "WeightedSum",
    "centre_depth",
    "face_size",
    "normalise_landmarks",
]
