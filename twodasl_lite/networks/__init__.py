"""Networks: regressors from a photo and a landmark map to coefficients, and the critic that scores them.

May import ``base``, ``geometry`` and ``faces``. See chapters 8, 13 and 14.

* :mod:`~twodasl_lite.networks.regressors`: every regressor by its name.
* :mod:`~twodasl_lite.networks.resnet`: the released 4-channel ResNet-50 and its smaller siblings.
* :mod:`~twodasl_lite.networks.lite`: a small regressor for CPUs.
* :mod:`~twodasl_lite.networks.normalisation`: batch, group and frozen normalisation.
* :mod:`~twodasl_lite.networks.critic`: the critic.
* :mod:`~twodasl_lite.networks.weights`: reading and writing weights: released ones, ImageNet's and our own.
* :mod:`~twodasl_lite.networks.onnx`: export for other programs.
* :mod:`~twodasl_lite.networks.prediction`: from pictures to faces, with a detector's landmarks or without.
* :mod:`~twodasl_lite.networks.trained`: what comes trained with the package, each with its card.
"""

from twodasl_lite.networks.critic import Critic
from twodasl_lite.networks.lite import LiteRegressor
from twodasl_lite.networks.normalisation import NORM_KINDS, FrozenBatchNorm2d, NormKind, measure_statistics
from twodasl_lite.networks.onnx import export_onnx
from twodasl_lite.networks.regressors import REGRESSORS, count_parameters, make_regressor
from twodasl_lite.networks.resnet import IN_CHANNELS, NUM_OUTPUTS, ResNet
from twodasl_lite.networks.weights import (
    TrainedRegressor,
    load_imagenet,
    load_regressor,
    load_released,
    save_regressor,
    unwrap,
)

__all__ = [
    "IN_CHANNELS",
    "NORM_KINDS",
    "NUM_OUTPUTS",
    "REGRESSORS",
    "Critic",
    "FrozenBatchNorm2d",
    "LiteRegressor",
    "NormKind",
    "ResNet",
    "TrainedRegressor",
    "count_parameters",
    "export_onnx",
    "load_imagenet",
    "load_regressor",
    "load_released",
    "make_regressor",
    "measure_statistics",
    "save_regressor",
    "unwrap",
]
