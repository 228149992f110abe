"""Applications of two reconstructed faces: transferring an expression, and swapping faces.

All faces of one model share their triangles: vertex 1,234 is the same spot on every nose. So an expression is
transferred by copying its coefficients, and a face by looking up, for each pixel of one picture, the pixel of the other
that shows the same spot. Tu et al. 2019 show both. Both can do harm: use them only with pictures of people who agreed,
and disclose what was done. See chapter 17.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch

from twodasl_lite.base.checks import check_number, check_tensor
from twodasl_lite.base.errors import ShapeError, ValueRangeError
from twodasl_lite.faces.texture import seen_vertices
from twodasl_lite.geometry.coefficients import Coefficients
from twodasl_lite.geometry.photos import as_photo
from twodasl_lite.render import interpolate, rasterize

FEATHER = 0.06
"""Width of the seam in which the two pictures are blended, over the longer side of the face."""
_FAINTEST = 2.0  # grey levels: a standard deviation below this is noise and must not be amplified


def retarget_expression(source: Coefficients, target: Coefficients, amount: float = 1.0) -> Coefficients:
    """The target's face and pose with the source's expression.

    Args:
        source: Coefficients that provide the expression.
        target: Coefficients that provide pose and shape; of the same model.
        amount: 0 keeps the target's expression, 1 takes the source's; values in between interpolate.

    Returns:
        Coefficients of the target's batch shape.

    Raises:
        ShapeError: If the two differ in the number of expression coefficients, or their batches do not match.
        ValueRangeError: If the amount is not finite.
    """
    if source.expression.shape[-1] != target.expression.shape[-1]:
        raise ShapeError(
            f"source: found {source.expression.shape[-1]} expression coefficients; "
            f"expected the target's {target.expression.shape[-1]}"
        )
    check_number("amount", amount)
    try:
        wanted = source.expression.to(target.expression).expand_as(target.expression)
    except RuntimeError as error:
        raise ShapeError(
            f"source: found shape {tuple(source.expression.shape)}; expected {tuple(target.expression.shape)}, or one "
            "for all"
        ) from error
    return target._replace(expression=torch.lerp(target.expression, wanted, amount))


def swap_faces(
    source_photo: np.ndarray,
    source_vertices: torch.Tensor,
    target_photo: np.ndarray,
    target_vertices: torch.Tensor,
    triangles: torch.Tensor,
    *,
    feather: float = FEATHER,
    match_colours: bool = True,
) -> np.ndarray:
    """Put the face of one photo over that of another.

    Each pixel that the target's mesh covers takes its colour from the same spot of the source's mesh. Colours are
    matched by mean and standard deviation in CIELAB, after Reinhard et al. (2001), and blended over a seam. Where the
    source does not show the face (its hidden half), the target stays. To change the expression in a photo, pass the
    photo twice, and as target vertices the face with the new expression.

    Args:
        source_photo: Photo that provides the face, ``(H, W, 3)`` uint8 RGB.
        source_vertices: Its mesh, ``(V, 3)``, in its pixels.
        target_photo: Photo that receives the face, ``(h, w, 3)`` uint8 RGB.
        target_vertices: Its mesh, ``(V, 3)``, in its pixels.
        triangles: Triangles of both meshes, ``(T, 3)``; for instance :func:`twodasl_lite.faces.texture.face_triangles`.
        feather: Width of the seam over the longer side of the target's face, 0 or more.
        match_colours: Whether to match the source's colours to the target's.

    Returns:
        ``(h, w, 3)`` uint8, a new picture.

    Raises:
        ShapeError: If the meshes differ in their number of vertices.
        ValueRangeError: If the feather is negative or the target's face lies outside its photo.
    """
    source_photo, target_photo = as_photo(source_photo, "source_photo"), as_photo(target_photo, "target_photo")
    source = check_tensor("source_vertices", source_vertices, ("V", 3)).cpu()
    target = check_tensor("target_vertices", target_vertices, (len(source), 3)).cpu()
    triangles = torch.as_tensor(triangles).cpu()
    if not feather >= 0:
        raise ValueRangeError(f"feather: found {feather}; expected 0 or more")
    window, placed, side = _window(target, triangles, target_photo)
    height, width = target_photo[window].shape[:2]
    fragments = rasterize(placed[None], triangles, height, width, cull="back")
    seen = seen_vertices(source, triangles, *source_photo.shape[:2]).to(source)
    looked_up = interpolate(torch.cat([source[:, :2], seen[:, None]], dim=1), triangles, fragments)[0].numpy()
    place, trust = looked_up[..., :2].astype(np.float32), looked_up[..., 2]
    found = cv2.remap(source_photo, place[..., 0], place[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    alpha = _soft_mask(fragments.covered[0].numpy() & (trust > 0.5), feather * side)
    under = target_photo[window]
    if match_colours:
        found = _matched(found, under, alpha > 0.5)
    result = target_photo.copy()
    mixed = alpha[..., None] * found + (1 - alpha[..., None]) * under
    result[window] = np.clip(np.round(mixed), 0, 255).astype(np.uint8)
    return result


def _window(
    vertices: torch.Tensor, triangles: torch.Tensor, photo: np.ndarray
) -> tuple[tuple[slice, slice], torch.Tensor, float]:
    """Rows and columns that the mesh covers, the vertices relative to them, and the mesh's longer side in pixels."""
    used = vertices[triangles.unique()]
    low, high = used[:, :2].amin(dim=0).floor(), used[:, :2].amax(dim=0).ceil()
    height, width = photo.shape[:2]
    left, top = int(low[0].clamp(0, width)), int(low[1].clamp(0, height))
    right, bottom = int((high[0] + 1).clamp(0, width)), int((high[1] + 1).clamp(0, height))
    if right <= left or bottom <= top:
        raise ValueRangeError(
            f"target_vertices: found x {low[0]:g} to {high[0]:g}, y {low[1]:g} to {high[1]:g}; expected a face in the "
            f"{width}x{height} photo"
        )
    placed = vertices - vertices.new_tensor([left, top, 0])
    return (slice(top, bottom), slice(left, right)), placed, float((high - low).max())


def _soft_mask(mask: np.ndarray, seam: float) -> np.ndarray:
    """0 outside a mask, 1 inside, with a smooth ramp over ``seam`` pixels from its edge inwards."""
    if seam < 1:
        return mask.astype(np.float32)
    # The frame of zeros gives a face that the photo's border cuts a seam there, too.
    inside = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    t = np.clip(inside / seam, 0, 1)
    return (t * t * (3 - 2 * t)).astype(np.float32)


def _matched(colours: np.ndarray, like: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Colours ``(H, W, 3)`` with the mean and standard deviation of others, in CIELAB over a mask ``(H, W)``."""
    if not where.any():
        return colours
    own, wanted = (cv2.cvtColor(picture, cv2.COLOR_RGB2LAB).astype(np.float32) for picture in (colours, like))
    mean, target = own[where].mean(axis=0), wanted[where].mean(axis=0)
    spread, target_spread = own[where].std(axis=0), wanted[where].std(axis=0)
    ratio = np.where(spread > _FAINTEST, target_spread / np.maximum(spread, _FAINTEST), 1.0)
    matched = (own - mean) * ratio + target
    return cv2.cvtColor(np.clip(np.round(matched), 0, 255).astype(np.uint8), cv2.COLOR_LAB2RGB)
