"""From a mesh to a picture: a z-buffer, lighting, visibility and other images.

May import ``base``. See chapter 6.

* :mod:`~twodasl_lite.render.rasterizer`: which triangle each pixel shows; values between the vertices.
* :mod:`~twodasl_lite.render.shading`: normals, lamps, spherical harmonics.
* :mod:`~twodasl_lite.render.visibility`: which vertices the viewer sees.
* :mod:`~twodasl_lite.render.images`: colour, depth, normal and coordinate pictures, without jagged edges, over a photo.

There are three backends: torch, on any device; numba, compiled for the CPU (``pip install "twodasl_lite[render]"``);
and Triton, compiled for CUDA, which comes with torch there.
"""

from twodasl_lite.render.images import (
    Picture,
    coordinate_code,
    coordinate_image,
    depth_image,
    normal_image,
    over,
    reduce_picture,
    refine,
    render,
)
from twodasl_lite.render.rasterizer import Fragments, barycentric_of, interpolate, numba_available, rasterize
from twodasl_lite.render.shading import (
    Harmonics,
    Lamps,
    Light,
    MeshNormals,
    harmonic_basis,
    linear_to_srgb,
    shade,
    srgb_to_linear,
    vertex_normals,
)
from twodasl_lite.render.visibility import visible_in, visible_vertices

__all__ = [
    "Fragments",
    "Harmonics",
    "Lamps",
    "Light",
    "MeshNormals",
    "Picture",
    "barycentric_of",
    "coordinate_code",
    "coordinate_image",
    "depth_image",
    "harmonic_basis",
    "interpolate",
    "linear_to_srgb",
    "normal_image",
    "numba_available",
    "over",
    "rasterize",
    "reduce_picture",
    "refine",
    "render",
    "shade",
    "srgb_to_linear",
    "vertex_normals",
    "visible_in",
    "visible_vertices",
]
