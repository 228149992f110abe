"""Evaluation: errors of individual faces, by yaw bin and over a test set, with confidence intervals.

May import ``base``, ``geometry``, ``render``, ``faces``, ``worlds``, ``datasets`` and ``networks``. See chapters 15 and
16.

* :mod:`~twodasl_lite.evaluation.landmark_errors`: the normalised mean error of landmarks or vertices, in 2D and 3D.
* :mod:`~twodasl_lite.evaluation.reconstruction`: the error of the shape alone, after a rigid alignment.
* :mod:`~twodasl_lite.evaluation.bins`, :mod:`~twodasl_lite.evaluation.tables`: yaw bins, the balanced mean, tables.
* :mod:`~twodasl_lite.evaluation.curves`: cumulative error distribution, area under it, failure rate.
* :mod:`~twodasl_lite.evaluation.intervals`: confidence intervals over pictures and seeds; paired differences.

Errors are fractions, never per cent.

* :mod:`~twodasl_lite.evaluation.benchmark`, :mod:`~twodasl_lite.evaluation.predictions`: AFLW2000-3D with a network or
  with predictions from a file; :mod:`~twodasl_lite.evaluation.release_meshes`: the meshes that came with 2DASL.
"""

from twodasl_lite.evaluation.bins import BIN_NAMES, NUM_BINS, balanced_mean, bin_means, yaw_bins
from twodasl_lite.evaluation.curves import Curve, auc, ced, failure_rate
from twodasl_lite.evaluation.intervals import Difference, Interval, bootstrap_interval, paired_difference
from twodasl_lite.evaluation.landmark_errors import bounding_box, box_size, nme, point_distances
from twodasl_lite.evaluation.reconstruction import Alignment, icp, reconstruction_error, rigid_rotation
from twodasl_lite.evaluation.tables import Table, markdown, summarise

__all__ = [
    "BIN_NAMES",
    "NUM_BINS",
    "Alignment",
    "Curve",
    "Difference",
    "Interval",
    "Table",
    "auc",
    "balanced_mean",
    "bin_means",
    "bootstrap_interval",
    "bounding_box",
    "box_size",
    "ced",
    "failure_rate",
    "icp",
    "markdown",
    "nme",
    "paired_difference",
    "point_distances",
    "reconstruction_error",
    "rigid_rotation",
    "summarise",
    "yaw_bins",
]
