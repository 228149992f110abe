"""Heads from measurements: the template, its identities, expressions and colours.

Everything here is generated: no scan, photograph or other model's data goes in, only published anthropometric
means and standard deviations. Explained in chapter 2.
"""

from twodasl_lite.morphable.anthropometric.albedo import albedo_model
from twodasl_lite.morphable.anthropometric.expressions import expression_blendshapes
from twodasl_lite.morphable.anthropometric.scans import draw_scans
from twodasl_lite.morphable.anthropometric.template import Template, build_template

__all__ = ["Template", "albedo_model", "build_template", "draw_scans", "expression_blendshapes"]
