"""Evaluation: errors of individual faces, by yaw bin and over a test set, with confidence intervals.

* :mod:`~twodasl_lite.evaluation.landmark_errors`: the normalised mean error of landmarks or vertices, in 2D and 3D.
* :mod:`~twodasl_lite.evaluation.reconstruction`: the error of the shape alone, after a rigid alignment.
* :mod:`~twodasl_lite.evaluation.bins`, :mod:`~twodasl_lite.evaluation.tables`: yaw bins, the balanced mean, tables.
* :mod:`~twodasl_lite.evaluation.curves`: cumulative error distribution, area under it, failure rate.
* :mod:`~twodasl_lite.evaluation.intervals`: confidence intervals over pictures and seeds; paired differences.

Errors are fractions, never per cent. See chapter 15.
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
