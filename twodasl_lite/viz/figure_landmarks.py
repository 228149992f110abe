"""2D landmark consistency: landmarks to drag, the loss and its gradient, and the depth that the loss cannot see.

The script (``static/landmark_figure.js``) decodes the 68 landmarks from the unrounded model and computes the loss and
its gradient as :class:`~twodasl_lite.losses.LandmarkConsistency2D` does. See chapter 10.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from twodasl_lite.base.checks import check_choice, check_shape
from twodasl_lite.base.errors import ShapeError, ValueRangeError
from twodasl_lite.faces import MorphableModel
from twodasl_lite.faces.decode import decode, decode_landmarks
from twodasl_lite.geometry.camera import CROP_SIZE
from twodasl_lite.geometry.coefficients import Whitening
from twodasl_lite.geometry.landmarks import LANDMARK_NAMES, NUM_SUBSET, SUBSET_18, subset_18
from twodasl_lite.losses import DISTANCES, FACE_SIZE_FLOOR, HUBER_DELTA, LandmarkConsistency2D, centre_depth
from twodasl_lite.viz.interactive import (
    InteractiveFigure,
    check_whitened,
    floats,
    landmark_basis,
    model_header,
    picture_data,
    still_picture,
    surface,
)
from twodasl_lite.viz.palette import OKABE_ITO

NOISE_LIMIT = 6.0
"""Maximum of the noise slider, a standard deviation in pixels per axis."""
DELTA_LIMITS = (0.01, 0.3)
DESCENT_STEPS = 200
_SIDE_VIEW = -75.0  # degrees


def point_names() -> list[str]:
    """Names of the 18 points that a detector reports."""
    named = [" and ".join(LANDMARK_NAMES[i].replace("_", " ") for i in members) for members in SUBSET_18]
    return [name if " and " not in name else f"between {name}" for name in named]


class LandmarkFigure(InteractiveFigure):
    """The figure that :func:`landmark_consistency_figure` returns."""

    kind = "landmark_figure"
    script_class = "LandmarkFigure"

    def __init__(self, model: MorphableModel, whitening: Whitening, truth, begin, image, seed: int, **state) -> None:
        size = model.layout.size
        self._model, self._whitening = model, whitening
        self._truth = check_whitened("coefficients", truth, size)
        start = check_whitened("start", begin, size)
        for name, value in (("coefficients", self._truth), ("start", start)):
            if len(value) != 1:
                raise ShapeError(f"{name}: found {len(value)} faces; expected one")
        if image is not None:
            check_shape("image", image, (3, CROP_SIZE, CROP_SIZE))
        with torch.no_grad():
            self._landmarks = self._decode(self._truth)[0].double().cpu()  # (68, 3)
        generator = torch.Generator().manual_seed(seed)
        self._noise = torch.randn(NUM_SUBSET, 2, generator=generator, dtype=torch.float64)
        header = model_header(model, whitening) | {
            "subset": [[members[0], members[-1]] for members in SUBSET_18],
            "pointNames": point_names(),
            "floor": FACE_SIZE_FLOOR,
            "step": self._step_size(),
            "descentSteps": DESCENT_STEPS,
            "noiseLimit": NOISE_LIMIT,
            "deltaLimits": list(DELTA_LIMITS),
            "image": None if image is None else picture_data(image),
        }
        arrays = {
            "basis": landmark_basis(model),
            "truth": self._landmarks.numpy(),
            "noise": self._noise.numpy(),
        }
        state |= {
            "predicted": floats(start),
            "drag": [0.0] * (2 * NUM_SUBSET),
            "hidden": [],
            "chosen": 0,
            "face": True,
            "angles": [0.0, _SIDE_VIEW, 0.0],
        }
        super().__init__("2D landmark consistency", header, arrays, state, self._still(state), surface(model))

    def _decode(self, whitened: torch.Tensor) -> torch.Tensor:
        mean = self._whitening.mean
        return decode_landmarks(self._whitening.unwhiten(whitened.to(mean)), self._model)

    def _step_size(self) -> float:
        """Step size of gradient descent that cannot overshoot near the truth, from the Jacobian of the 18 points."""
        truth = self._truth[0].to(self._whitening.mean)
        jacobian = torch.func.jacrev(lambda c: subset_18(self._decode(c[None])[0, :, :2]).flatten())(truth).double()
        size = (self._landmarks[:, :2].amax(0) - self._landmarks[:, :2].amin(0)).prod().sqrt()
        curvature = 2 * torch.linalg.matrix_norm(jacobian.cpu(), 2) ** 2 / (NUM_SUBSET * size**2)
        return float(0.7 / curvature)

    def observed(self, state: Mapping[str, Any] | None = None) -> torch.Tensor:
        """The noisy landmarks ``(18, 2)`` in pixels for the given state of the controls."""
        state = self.state if state is None else state
        drag = torch.tensor(state["drag"], dtype=torch.float64).reshape(NUM_SUBSET, 2)
        return subset_18(self._landmarks[:, :2]) + state["noise"] * self._noise + drag

    def numbers(self, state: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The loss and its gradient, computed by the package.

        Args:
            state: State of the controls; the current one by default.

        Returns:
            ``"loss"``; ``"gradient"``: 62 numbers; ``"points"``: 18 predicted points, flat; ``"off_2d"``: mean distance
            of the visible points in pixels; ``"off_depth"``: root mean square error of the 68 centred depths.
        """
        state = self.state if state is None else state
        predicted = torch.tensor([state["predicted"]]).to(self._whitening.mean).requires_grad_()
        seen = torch.ones(1, NUM_SUBSET, dtype=torch.bool)
        seen[0, [int(i) for i in state["hidden"]]] = False
        observed = self.observed(state)[None].to(predicted)
        landmarks = self._decode(predicted)
        points = subset_18(landmarks[..., :2])
        loss = LandmarkConsistency2D(state["distance"], state["delta"])(points, observed, seen)
        (gradient,) = torch.autograd.grad(loss.sum(), predicted)
        with torch.no_grad():
            off = (points - observed).norm(dim=-1)[seen]
            depth = centre_depth(landmarks[0].double().cpu() - self._landmarks)[:, 2]
        return {
            "loss": float(loss.detach()),
            "gradient": floats(gradient),
            "points": floats(points.detach()),
            "off_2d": float(off.mean()) if len(off) else 0.0,
            "off_depth": float(depth.square().mean().sqrt()),
        }

    def _still(self, state: dict[str, Any]) -> bytes:
        from twodasl_lite.viz.figures import draw_landmarks, shaded_mesh, turn

        numbers, observed = self.numbers(state), self.observed(state)
        predicted = torch.tensor([state["predicted"]]).to(self._whitening.mean)
        vertices = decode(self._whitening.unwhiten(predicted), self._model)[0]
        points = torch.tensor(numbers["points"]).reshape(NUM_SUBSET, 2)

        def draw(figure) -> None:
            left, right = figure.subplots(1, 2)
            shaded_mesh(left, vertices, self._model.triangles, frame="pixels")
            for a, b in zip(points, observed, strict=True):
                left.plot([a[0], b[0]], [a[1], b[1]], color=OKABE_ITO["orange"], linewidth=1.5, zorder=6)
            left.plot(*points.T, "o", color=OKABE_ITO["blue"], markersize=4, zorder=7, label="predicted")
            left.plot(*observed.T, "o", color=OKABE_ITO["vermilion"], mfc="none", zorder=8, label="detected")
            left.legend(fontsize="small", loc="lower right")
            left.set_title(f"loss {numbers['loss']:.4f}", fontsize=10)
            middle = torch.tensor([CROP_SIZE / 2, CROP_SIZE / 2, float(vertices[:, 2].mean())])
            flip = torch.tensor([1.0, -1.0, 1.0])

            def side(points_3d):  # y points down in pixels, but turn() expects it up
                return torch.as_tensor(turn(((points_3d - middle) * flip).numpy(), yaw=_SIDE_VIEW)) * flip + middle

            shaded_mesh(right, side(vertices), self._model.triangles, frame="pixels")
            truth = self._landmarks - self._landmarks[:, 2].mean() * torch.tensor([0, 0, 1.0])
            depth = float(self._decode(predicted)[0, :, 2].mean())
            truth = side((truth + torch.tensor([0, 0, depth])).float())
            draw_landmarks(right, truth, colour=OKABE_ITO["vermilion"], size=2)
            right.set_title(f"from the side; true landmarks; depth off by {numbers['off_depth']:.1f} px", fontsize=10)
            for ax in (left, right):
                ax.set(xlim=(-8, CROP_SIZE + 8), ylim=(CROP_SIZE + 8, -8), xticks=[], yticks=[])

        return still_picture(draw, (8, 4.2))


def landmark_consistency_figure(
    model: MorphableModel,
    whitening: Whitening,
    coefficients: torch.Tensor,
    *,
    start: torch.Tensor | None = None,
    image: torch.Tensor | None = None,
    noise: float = 1.5,
    distance: str = "squared",
    delta: float = HUBER_DELTA,
    seed: int = 0,
) -> LandmarkFigure:
    """Landmarks to drag and to make noisy, the 2D loss and its pull, and the depth that it cannot see.

    The reader drags the 18 detected points (or moves the selected one with the arrow keys), raises their noise, hides
    some, switches to Huber's distance, lets gradient descent move the 62 numbers, and looks at the result from the
    side, where the true landmarks show the depth that the loss does not constrain.

    Args:
        model: Face model.
        whitening: Whitening of the model's coefficients.
        coefficients: True face, ``(D,)`` or ``(1, D)`` whitened.
        start: Initial prediction, ``(D,)`` whitened; the average face by default.
        image: Picture of the face, ``(3, 120, 120)`` uint8, as an optional background.
        noise: Initial standard deviation of the detector noise in pixels; its pattern is fixed.
        distance: ``"squared"`` or ``"huber"``.
        delta: Distance at which Huber's loss becomes linear, in face sizes.
        seed: Seed of the noise pattern.

    Returns:
        The figure, displayed when it is the last line of a cell; ``figure.numbers()`` returns the package's numbers for
        the current controls.

    Raises:
        ShapeError: If a shape does not match.
        ValueRangeError: If a number is out of range or a name is unknown.

    Example:
        >>> landmark_consistency_figure(model, whitening, truth[0], image=batch.images[0])  # doctest: +SKIP
    """
    if not 0 <= noise <= NOISE_LIMIT:
        raise ValueRangeError(f"noise: found {noise}; expected 0 to {NOISE_LIMIT}")
    check_choice("distance", distance, DISTANCES)
    if not DELTA_LIMITS[0] <= delta <= DELTA_LIMITS[1]:
        raise ValueRangeError(f"delta: found {delta}; expected {DELTA_LIMITS[0]} to {DELTA_LIMITS[1]}")
    begin = torch.zeros(model.layout.size) if start is None else start
    state = {"noise": float(noise), "distance": distance, "delta": float(delta), "picture": False}
    return LandmarkFigure(model, whitening, coefficients, begin, image, seed, **state)
