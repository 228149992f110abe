"""Pictures of meshes."""
from twodasl_lite.render.rasterizer import rasterize, interpolate, Fragments
