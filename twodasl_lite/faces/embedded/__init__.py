"""Heads from measurements: the template, its identities, expressions and colours.

May import ``base``, ``geometry``, ``faces.build`` and ``faces.model``. See chapter 2.

Everything here is generated: no scan, photograph or other model's data goes in, only published anthropometric
means and standard deviations.

The template is made as a character artist would: a control cage with edge loops around eyes, mouth and ears
(``cage_face``, ``cage_head``, ``half_cage``, ``cage``), subdivided (``subdivision``) and sculpted (``sculpt``), with
eyeballs and teeth (``organs``). Identities are drawn from measurements (``anthropometry``, ``scans``,
``shape_fields``).
Left and right in names, such as ``eyeBlink_L``, are the person's own.

The module ``recipe`` makes a face model of them, as Basel's was made.
"""

from twodasl_lite.faces.embedded.albedo import albedo_model
from twodasl_lite.faces.embedded.expressions import expression_blendshapes
from twodasl_lite.faces.embedded.scans import draw_scans
from twodasl_lite.faces.embedded.template import Template, build_template

__all__ = ["Template", "albedo_model", "build_template", "draw_scans", "expression_blendshapes"]
