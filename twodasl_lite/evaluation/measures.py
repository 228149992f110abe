"""Names of the measures in logs and tables, as figures and tables for people show them. See chapter 15."""

from __future__ import annotations

MEASURE_TITLES = {
    "landmarks_2d": "68 landmarks, 2D",
    "landmarks_3d": "68 landmarks, 3D",
    "vertices_3d": "all vertices, 3D",
    "landmarks_2d_without_detector": "68 landmarks, 2D, without a detector",
    "landmarks_3d_without_detector": "68 landmarks, 3D, without a detector",
    "vertices_3d_without_detector": "all vertices, 3D, without a detector",
}
"""Name of each measure in logs and tables to its title in figures."""
