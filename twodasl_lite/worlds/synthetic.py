"""Pictures with exact ground truth, rendered on the fly: two worlds from one generator.

The labelled world is narrow and comes with 3D ground truth; the wild one is wide and comes only with a detector's 18
points, as photographs from the web would. Every picture is a function of the world, its seed and its index, whatever
the batch, the worker or the machine. Pictures of a world under another seed, with ``truth=True``, are its test set.
See chapter 7.

There is one definition of the pictures and two ways to compute them. On a CPU, few are drawn at a time, so that they
stay in a core's cache, and each step is done only for those that need it. On a GPU, many are drawn at once, with every
step for all of them, so that the program never waits for the GPU and can train a network meanwhile. The pictures agree
up to rounding.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Iterator
from typing import Literal, cast, get_args

import torch
from torch.profiler import record_function

from twodasl_lite.base.errors import InputTypeError, TwodaslError, ValueRangeError
from twodasl_lite.faces.decode import decode, decode_landmarks
from twodasl_lite.faces.model import MorphableModel
from twodasl_lite.geometry.camera import CROP_SIZE, euler_to_matrix
from twodasl_lite.geometry.coefficients import Coefficients, Whitening
from twodasl_lite.geometry.face_batch import FaceBatch
from twodasl_lite.geometry.landmarks import SUBSET_18
from twodasl_lite.geometry.photos import BOX_MARGIN
from twodasl_lite.render import (
    Fragments,
    MeshNormals,
    linear_to_srgb,
    rasterize,
    refine,
    srgb_to_linear,
    vertex_normals,
    visible_in,
)
from twodasl_lite.render.screen import Backend
from twodasl_lite.render.threads import side_by_side
from twodasl_lite.worlds import backgrounds
from twodasl_lite.worlds.degradation import degrade
from twodasl_lite.worlds.detector import detect, scaled
from twodasl_lite.worlds.draws import Draws, Pick, Recipe
from twodasl_lite.worlds.lighting import Lights, cast_shadows, draw_lights, shade_vertices
from twodasl_lite.worlds.occluders import Props
from twodasl_lite.worlds.wardrobe import Look, Wardrobe
from twodasl_lite.worlds.world import World, load_world

TEST_SEED = 2**31
"""Added to a world's seed, it gives the seed of the held-out pictures, which no training on that seed has seen."""

_EYELID = 2.0  # pixels of the crop by which a landmark may lie behind the drawn surface and still be visible
_LARGEST_INDEX = 2**48
_AT_ONCE = 16  # pictures that a core makes at a time
_AT_ONCE_GPU = 256  # pictures that a GPU makes at a time: 4 GB of its memory at most
_CHEEKS = [1, 2, 14, 15, 29, 31, 35]  # landmarks that show the skin's colour


Program = Literal["cpu", "gpu"]
"""``"cpu"``: few pictures at a time, each step only where needed; ``"gpu"``: many, each step for all, no waiting."""


class SyntheticFaces:
    """One world of pictures.

    Args:
        model: Face model with colours and with expressions as components (``load_face_model(CoefficientLayout())``).
        world: ``"labelled"``, ``"wild"``, a ``.toml`` file, or a :class:`~twodasl_lite.worlds.world.World`.
        seed: Seed of all randomness.
        device: Device on which pictures are made and stay.
        program: Program that makes them, ``"cpu"`` or ``"gpu"``; by default whichever suits the device. The pictures
            agree up to rounding; the option exists to compare the two.
        backend: Rendering backend, see :func:`~twodasl_lite.render.rasterize`.

    Raises:
        InputTypeError: If an argument is of the wrong type.
        TwodaslError: If the model has no colours, or blendshapes for expressions.
        ValueRangeError: If there is no such world.

    Example:
        >>> from twodasl_lite.geometry.coefficients import CoefficientLayout
        >>> from twodasl_lite.faces import load_face_model
        >>> faces = SyntheticFaces(load_face_model(CoefficientLayout()), "labelled")
        >>> faces.batch(0, 4).images.shape
        torch.Size([4, 3, 120, 120])
    """

    def __init__(
        self,
        model: MorphableModel,
        world: World | str | os.PathLike[str],
        seed: int = 0,
        device: torch.device | str = "cpu",
        *,
        program: Program | None = None,
        backend: Backend = "auto",
    ) -> None:
        _check_model(model)
        if program not in (None, *get_args(Program)):
            raise ValueRangeError(f"program: found {program!r}; expected one of {get_args(Program)}, or None")
        if model.albedo_mean is None:
            raise TwodaslError(f"model: found {model.name!r}, which has no colours; expected one with albedo_mean")
        self.world, self.seed, self.device = load_world(world), seed, torch.device(device)
        self.model = model.to(self.device)
        Draws(seed, torch.zeros(1, dtype=torch.long))  # checks the seed
        self.program: Program = program or ("cpu" if self.device.type == "cpu" else "gpu")
        self.backend: Backend = backend
        self._recipe = Recipe()
        self._bank: torch.Tensor | None = None
        self._wardrobe = Wardrobe(self.model)
        self._props = Props(self.device) if any(dataclasses.astuple(self.world.occluders)) else None
        parts = [self.model.triangles]
        if self._props is not None:
            parts.append(self._props.triangles + self.model.num_vertices)
        self._triangles = torch.cat(parts)
        self._cheeks = self.model.landmarks[_CHEEKS]
        self._ends = torch.tensor([(members[0], members[-1]) for members in SUBSET_18], device=self.device)
        self._normals: MeshNormals | None = None
        if self.program == "gpu":
            size = self.model.num_vertices + (0 if self._props is None else self._props.size)
            self._normals = MeshNormals(self._triangles, size)

    # ----------------------------------------------------------------------------------------------- what is drawn
    def _draws(self, start: int, count: int) -> Draws:
        for name, value, least in (("start", start, 0), ("count", count, 1)):
            if isinstance(value, bool) or not hasattr(value, "__index__"):
                raise InputTypeError(f"{name}: found {type(value).__name__}; expected a whole number")
            if not least <= value < _LARGEST_INDEX:
                raise ValueRangeError(f"{name}: found {value}; expected {least} or more, below {_LARGEST_INDEX}")
        return self._drawn(torch.arange(start, start + count, device=self.device))

    def _drawn(self, pictures: torch.Tensor) -> Draws:
        """The random numbers of pictures ``(B,)``."""
        return Draws(self.seed, pictures, self._recipe, whole=self.program == "gpu")

    def coefficients(self, start: int, count: int) -> torch.Tensor:
        """Raw coefficients ``(count, D)`` of pictures ``start`` to ``start + count - 1``, without drawing any."""
        with torch.no_grad():
            return draw_coefficients(self.model, self.world, self._draws(start, count))[0].pack()

    def skin(self, start: int, count: int) -> torch.Tensor:
        """The colours ``(count, 3)`` of the cheeks, sRGB in [0, 1], before lighting."""
        with torch.no_grad():
            few = self._draws(start, count).pictures.split(_AT_ONCE)
            return torch.cat([self._albedo(self._drawn(index))[:, self._cheeks].mean(dim=1) for index in few])

    def batch(self, start: int, count: int, *, truth: bool | None = None) -> FaceBatch:
        """Pictures ``start`` to ``start + count - 1``.

        Args:
            start: Index of the first picture.
            count: Number of pictures.
            truth: Whether to include landmarks, visibility, coefficients and yaw; by default as the world says.

        Returns:
            The batch, on the generator's device.

        Raises:
            InputTypeError: If start or count is not a whole number.
            ValueRangeError: If start is negative or count below 1.
        """
        draws = self._draws(start, count)
        truth = self.world.labelled if truth is None else truth
        self._textures()  # once, before the threads
        at_once = _AT_ONCE if self.program == "cpu" else _AT_ONCE_GPU
        shares = draws.pictures.split(at_once)
        made: list[FaceBatch] = [FaceBatch(*(draws.pictures,) * 3)] * len(shares)

        def work(share: int) -> None:
            made[share] = self._make(self._drawn(shares[share]), truth)

        if self.program == "cpu":
            # Few at a time, in separate threads, so that the working set stays in a core's cache.
            side_by_side(work, len(shares))
        else:
            for share in range(len(shares)):
                work(share)
        return made[0] if len(made) == 1 else FaceBatch.cat(made)

    @torch.no_grad()
    def _make(self, draws: Draws, truth: bool) -> FaceBatch:
        """The pictures of these random numbers."""
        check = self.program == "cpu"
        with _exact_products(self.device):
            with record_function("sampling"):
                coefficients, yaw = draw_coefficients(self.model, self.world, draws)
            with record_function("decoding"):
                whole = _padded(coefficients.pack())
                vertices = decode(whole, self.model).float()[: draws.size]
                landmarks = decode_landmarks(whole, self.model).float()[: draws.size]  # (B, 68, 3)
            images, fragments = self._draw(draws, coefficients, vertices, landmarks)
            with record_function("degradation"):
                images = degrade(images, draws, self.world.degradation)
            with record_function("landmarks"):
                extent = landmarks[..., :2].amax(dim=1) - landmarks[..., :2].amin(dim=1)
                points = self._eighteen(landmarks[..., :2])
                size, noise = extent.prod(dim=-1).sqrt(), scaled(self.world.detector.error)
                detected, reported = detect(points, yaw, size, draws, noise, check=check)
                faces = FaceBatch(images, detected, reported)
                if not truth:
                    return faces
                fine = self.world.supersample
                visible = visible_in(fragments, refine(landmarks, fine), _EYELID * fine, check=check)
                return faces._replace(
                    landmarks=landmarks, visible=visible, coefficients=coefficients.pack().float(), yaw=yaw
                )

    # ------------------------------------------------------------------------------------------------- how it looks
    def _albedo(self, draws: Draws) -> torch.Tensor:
        """The vertices' own colours ``(B, V, 3)``, sRGB in [0, 1]."""
        scale = self.world.person.albedo_scale * cast(torch.Tensor, self.model.albedo_std)
        colours = draws.normal("albedo", len(scale), clip=self.world.person.clip).to(self.model.mean) * scale
        return self.model.decode_albedo(_padded(colours)).float()[: draws.size]

    def _draw(
        self, draws: Draws, coefficients: Coefficients, vertices: torch.Tensor, landmarks: torch.Tensor
    ) -> tuple[torch.Tensor, Fragments]:
        """Pictures ``(B, 3, S, S)`` sRGB in [0, 1] before degradation, and what their subpixels show."""
        world = self.world
        with record_function("colours"):
            albedo = _nearly_linear(self._albedo(draws))
            skin = albedo[:, self._cheeks].mean(dim=1)
        with record_function("occluders"):
            scaled = coefficients.pose[..., :3].float()
            look = Look(vertices, albedo, torch.ones_like(vertices[..., 0]))
            look = self._wardrobe.dress(draws, world, scaled, look)
            if self._props is not None:
                axes = torch.nn.functional.normalize(scaled, dim=-1)
                props = self._props.place(draws, world.occluders, landmarks, axes, skin)
                look = Look(*(torch.cat(parts, dim=1) for parts in zip(look, props, strict=True)))
        with record_function("light"):
            lights = draw_lights(draws, world.lighting)
            normals = self._mesh_normals(look.vertices)
            lit = self._lit(draws, lights, look) if world.lighting.shadows else None
            colour = shade_vertices(lights, normals, look.albedo, look.gloss, lit)
        with record_function("rendering"):
            fine = world.supersample
            size = CROP_SIZE * fine
            fragments = rasterize(
                *(refine(look.vertices, fine), self._triangles, size, size),
                backend=self.backend,
                check=self.program == "cpu",
            )
            face, alpha = average_colours(colour, self._triangles, fragments, fine, whole=draws.whole)
        with record_function("background"):
            scene = srgb_to_linear(self._background(draws))
            images = linear_to_srgb(face + (1 - alpha) * scene)
        return images, fragments

    def _eighteen(self, points: torch.Tensor) -> torch.Tensor:
        """:func:`~twodasl_lite.geometry.landmarks.subset_18` of ``(B, 68, 2)`` points."""
        return (points[:, self._ends[:, 0]] + points[:, self._ends[:, 1]]) / 2

    def _mesh_normals(self, vertices: torch.Tensor) -> torch.Tensor:
        """Normals ``(B, V, 3)``."""
        if self._normals is not None:
            return self._normals(vertices)
        return vertex_normals(vertices, self._triangles)

    def _lit(self, draws: Draws, lights: Lights, look: Look) -> torch.Tensor:
        """Share of the main lamp's light that reaches each vertex, ``(B, V)``."""

        def changed(_: Draws, pick: Pick) -> torch.Tensor:
            return cast_shadows(
                *(pick(look.vertices), self._triangles, pick(lights.directions[:, 0]), self.model.num_vertices),
                backend=self.backend,
                check=self.program == "cpu",
            ).to(look.gloss)

        return draws.change(lights.shadows, torch.ones_like(look.gloss), changed)

    def _textures(self) -> torch.Tensor:
        """The textures that clutter is cut from, made on first use."""
        if self._bank is None:
            needed = self.world.background.clutter > 0
            self._bank = backgrounds.texture_bank(self.seed, self.device) if needed else torch.empty(0)
            if self.device.type == "cuda":  # another CUDA stream may use them next
                torch.cuda.current_stream(self.device).synchronize()
        return self._bank

    def _background(self, draws: Draws) -> torch.Tensor:
        """``(B, 3, S, S)`` sRGB."""
        settings = self.world.background
        behind = backgrounds.plain(draws, CROP_SIZE)
        if not settings.clutter:
            return behind

        def changed(draws: Draws, _: Pick) -> torch.Tensor:
            contrast = draws.between("clutter contrast", settings.contrast)
            return backgrounds.cluttered(draws, self._textures(), CROP_SIZE, contrast)

        return draws.change(draws.chance("clutter", settings.clutter), behind, changed)


@contextlib.contextmanager
def _exact_products(device: torch.device) -> Iterator[None]:
    """Matrix products in full single precision, whatever a trainer allows its network on a GPU."""
    if device.type != "cuda":
        yield
        return
    with _without_tf32(), torch.autocast("cuda", enabled=False):
        yield


@contextlib.contextmanager
def _without_tf32() -> Iterator[None]:
    """No TF32 in matrix products, whichever of PyTorch's two settings allowed it."""
    matmul = torch.backends.cuda.matmul
    name: str
    exact: bool | str
    try:
        name, exact, before = "allow_tf32", False, matmul.allow_tf32
    except RuntimeError:  # set through the newer one, PyTorch refuses to tell it by the older name
        name, exact, before = "fp32_precision", "ieee", matmul.fp32_precision
    setattr(matmul, name, exact)
    try:
        yield
    finally:
        setattr(matmul, name, before)


def _padded(rows: torch.Tensor) -> torch.Tensor:
    """Pad to a multiple of :data:`_AT_ONCE` rows by repeating the last one.

    Matrix products round differently for different numbers of rows. For a fixed number each row is always the same, so
    that a picture does not change by a grey value here and there with the number of pictures made together.
    """
    missing = -len(rows) % _AT_ONCE
    return torch.cat([rows, rows[-1:].expand(missing, -1)]) if missing else rows


def _nearly_linear(colours: torch.Tensor) -> torch.Tensor:
    """SRGB to linear light by a polynomial: within 0.003 of the exact value, and six times as fast."""
    return colours * (0.012522878 + colours * (0.682171111 + colours * 0.305306011))


def average_colours(
    colours: torch.Tensor, triangles: torch.Tensor, fragments: Fragments, factor: int, *, whole: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Vertex colours to pixels, each the mean over its ``factor`` squared subpixels.

    The same as :func:`~twodasl_lite.render.interpolate` followed by the mean, in one pass: a pixel is a weighted sum of
    ``3 factor^2`` vertices.

    Args:
        colours: ``(B, V, 3)`` linear light.
        triangles: ``(T, 3)`` vertex indices.
        fragments: Fragments of pictures ``factor`` times as fine.
        factor: Subpixels per pixel and direction.
        whole: Whether to process every pixel, including those that show nothing, which avoids waiting for a GPU.

    Returns:
        ``(B, 3, S, S)`` colours times coverage, and ``(B, 1, S, S)`` coverage.
    """
    batch, height, width = (fragments.triangle.shape[0], *(side // factor for side in fragments.triangle.shape[1:]))
    fine, row = width * factor, height * width
    subpixels = (fragments.covered[:, y::factor, x::factor].int() for y in range(factor) for x in range(factor))
    counts = cast(torch.Tensor, sum(subpixels))
    alpha = counts.float() / factor**2  # (B, S, S)
    if whole:
        return _average_everywhere(colours, triangles, fragments, factor), alpha.reshape(batch, 1, height, width)
    pixels = counts.reshape(-1).nonzero()[:, 0]  # (N,), those that show anything
    line = torch.div(pixels, width, rounding_mode="floor")
    corner = line * (fine * factor) + (pixels - line * width) * factor  # its first subpixel
    offsets = torch.tensor([y * fine + x for y in range(factor) for x in range(factor)], device=pixels.device)
    inner = (corner[:, None] + offsets).reshape(-1)  # (N f f,)
    triangle = fragments.triangle.reshape(-1).index_select(0, inner).clamp_(min=0)
    # Weights of subpixels that show nothing are zero.
    weights = fragments.barycentric.reshape(-1, 3).index_select(0, inner).reshape(len(pixels), -1)  # (N, 3 f f)
    image = torch.div(pixels, row, rounding_mode="floor")
    corners = triangles.index_select(0, triangle).reshape(len(pixels), -1).add_((image * colours.shape[1])[:, None])
    summed = torch.nn.functional.embedding_bag(
        corners, colours.reshape(-1, 3), per_sample_weights=weights.to(colours), mode="sum"
    ).div_(factor**2)
    result = colours.new_zeros(batch * row, 3).index_copy_(0, pixels, summed)
    picture = result.reshape(batch, height, width, 3).permute(0, 3, 1, 2)
    return picture, alpha.reshape(batch, 1, height, width)


def _average_everywhere(
    colours: torch.Tensor, triangles: torch.Tensor, fragments: Fragments, factor: int
) -> torch.Tensor:
    """``(B, 3, S, S)`` colours times coverage; see :func:`average_colours`."""
    batch, height, width = (fragments.triangle.shape[0], *(side // factor for side in fragments.triangle.shape[1:]))

    def by_pixel(values: torch.Tensor) -> torch.Tensor:
        """``(B, f H, f W, ...)`` to ``(B H W, f f ...)``."""
        squares = values.reshape(batch, height, factor, width, factor, -1).transpose(2, 3)
        return squares.reshape(batch * height * width, -1)

    triangle = by_pixel(fragments.triangle).clamp_(min=0)  # (N, f f)
    corners = triangles.index_select(0, triangle.reshape(-1)).reshape(batch, -1)
    corners += torch.arange(batch, device=corners.device)[:, None] * colours.shape[1]
    summed = torch.nn.functional.embedding_bag(
        *(corners.reshape(len(triangle), -1), colours.reshape(-1, 3)),
        per_sample_weights=by_pixel(fragments.barycentric).to(colours),
        mode="sum",
    )
    return summed.div_(factor**2).reshape(batch, height, width, 3).permute(0, 3, 1, 2)


def _check_model(model: object) -> None:
    if not isinstance(model, MorphableModel):
        raise InputTypeError(f"model: found {type(model).__name__}; expected a MorphableModel")
    if model.expression_kind != "components":
        raise TwodaslError(
            f"model: found {model.name!r}, whose expressions are blendshapes; expected components, as of "
            "model.with_layout(CoefficientLayout())"
        )


def draw_coefficients(model: MorphableModel, world: World, draws: Draws) -> tuple[Coefficients, torch.Tensor]:
    """Random faces, posed and placed in a crop as the world specifies.

    The crop is sqrt(2) times as large as the longer side of the landmarks' box, as everywhere in this package; the
    depth is fixed by the convention that the landmarks' mean depth is zero.

    Args:
        model: The face model.
        world: World that says how widely they vary.
        draws: Random numbers of B pictures, on the model's device.

    Returns:
        Raw coefficients of B faces, in the model's dtype, and their yaw ``(B,)`` in degrees.
    """
    person, turn, box = world.person, world.pose, world.box
    shape = draws.normal("shape", model.num_shape, clip=person.clip).to(model.mean)
    expression = draws.normal("expression", model.num_expression, clip=person.clip).to(model.mean)
    shape = shape * model.shape_std * person.shape_scale
    expression = expression * model.expression_std * person.expression_scale

    # A truncated normal number from one uniform number: the quantile function between the two limits.
    def bounded(purpose: str, mean: float, spread: float, limit: float) -> torch.Tensor:
        if spread == 0:
            return torch.full_like(draws.uniform(purpose), max(-limit, min(limit, mean)))
        low, high = (math.erf((bound - mean) / spread / 2**0.5) for bound in (-limit, limit))
        value = mean + spread * 2**0.5 * torch.erfinv(draws.between(purpose, (low, high)).clamp(-1 + 1e-6, 1 - 1e-6))
        return value.clamp(-limit, limit)

    yaw = bounded("yaw", 0.0, turn.yaw_spread, turn.yaw_limit)
    uniform = draws.between("uniform yaw", (-turn.yaw_limit, turn.yaw_limit))
    yaw = torch.where(draws.chance("yaw is uniform", turn.yaw_uniform), uniform, yaw)
    pitch = bounded("pitch", turn.pitch_mean, turn.pitch_spread, turn.pitch_limit)
    roll = bounded("roll", 0.0, turn.roll_spread, turn.roll_limit)
    angles = torch.deg2rad(torch.stack([pitch, yaw, roll], dim=-1))
    rotation = euler_to_matrix(angles, check=False).to(model.mean)

    landmarks = model.decode_landmarks(_padded(shape), _padded(expression))[: draws.size]
    turned = landmarks @ rotation.transpose(-1, -2)  # (B, 68, 3)
    low, high = turned.amin(dim=1), turned.amax(dim=1)
    margin = BOX_MARGIN * torch.exp(box.size_spread * draws.normal("box size", clip=2.5)).to(turned)
    scale = CROP_SIZE / (margin * (high - low)[:, :2].amax(dim=-1))  # (B,)
    shift = CROP_SIZE * box.shift_spread * draws.normal("box shift", 2, clip=2.5).to(turned)
    middle = (CROP_SIZE + 1) / 2 + shift - scale[:, None] * (low + high)[:, :2] / 2  # 1-based, y up
    depth = -scale * turned[..., 2].mean(dim=1)
    pose = torch.cat([scale[:, None, None] * rotation, torch.cat([middle, depth[:, None]], dim=-1)[..., None]], dim=-1)
    return Coefficients(pose, shape, expression), yaw


def whitening_of(
    model: MorphableModel, world: World | str | os.PathLike[str] = "wild", count: int = 20_000, seed: int = 0
) -> Whitening:
    """Mean and standard deviation of a world's coefficients, estimated without drawing a picture.

    Args:
        model: The face model; it needs no colours.
        world: The world, see :class:`SyntheticFaces`.
        count: Number of faces to estimate from.
        seed: Seed of the draw.

    Raises:
        InputTypeError: If an argument is of the wrong type.
        ShapeError: If there are fewer than two faces.
        TwodaslError: If the model's expressions are blendshapes.
        ValueRangeError: If there is no such world.
    """
    _check_model(model)
    if isinstance(count, bool) or not hasattr(count, "__index__") or count < 0:
        raise ValueRangeError(f"count: found {count!r}; expected a whole number of faces, 2 or more")
    draws = Draws(seed, torch.arange(count, device=model.mean.device))
    with torch.no_grad():
        return Whitening.from_samples(draw_coefficients(model, load_world(world), draws)[0].pack())
