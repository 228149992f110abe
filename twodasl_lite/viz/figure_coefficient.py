"""Which coefficient matters: one of the 62 numbers is wrong, and the three coefficient losses rate the error.

Below, the three losses are shown as maps over any two coefficients, with the path that gradient descent takes in each.

The script (``static/coefficient_figure.js``) computes PDC, VDC and WPDC and their gradients from the moments of the
face model (:class:`~twodasl_lite.losses.VertexMoments`), so that its numbers are those of the package. See chapter 9.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from twodasl_lite.base.checks import check_choice
from twodasl_lite.base.errors import ShapeError, ValueRangeError
from twodasl_lite.faces import MorphableModel
from twodasl_lite.faces.decode import decode
from twodasl_lite.geometry.camera import CROP_SIZE
from twodasl_lite.geometry.coefficients import Coefficients, Whitening
from twodasl_lite.losses import PDC, VDC, WPDC
from twodasl_lite.losses.labelled import component_weights, linear_part
from twodasl_lite.viz.interactive import (
    InteractiveFigure,
    check_whitened,
    floats,
    model_header,
    still_picture,
    surface,
)
from twodasl_lite.viz.palette import OKABE_ITO

SHOWN = ("weights", "pdc", "vdc", "wpdc", "errors")
LOSSES = ("pdc", "vdc", "wpdc")
COLOURS = ("one", "all")
ERROR_LIMIT = 3.0
"""Range of the slider on either side of zero, in standard deviations."""
DESCENT_STEPS = 10
"""Number of gradient descent steps per press of the button."""
MAP_POINTS = 33
"""Points along each side of a map over two coefficients; the map covers the range of the sliders."""
PATH_STEPS = 24
"""Number of gradient descent steps in a map."""


class CoefficientFigure(InteractiveFigure):
    """The figure that :func:`coefficient_figure` returns."""

    kind = "coefficient_figure"
    script_class = "CoefficientFigure"

    def __init__(self, model: MorphableModel, whitening: Whitening, target: torch.Tensor, face_names, **state) -> None:
        self._truth = check_whitened("target", target, model.layout.size)
        self._losses = {"pdc": PDC(), "vdc": VDC(model, whitening), "wpdc": WPDC(model, whitening)}
        self._model, self._whitening = model, whitening
        moments = self._losses["wpdc"].moments
        raw = self._raw(self._truth)
        face = Coefficients.unpack(raw, model.layout)
        with torch.no_grad():
            weights = component_weights(face, 1.0).to(model.mean)
            coordinates = moments.coordinate_norms(weights)
            row = torch.cat([coordinates, torch.full_like(coordinates[:, :1], moments.count**0.5)], dim=-1)
            components = moments.component_norms(linear_part(face.pose).to(model.mean))
            reach = torch.cat([row, row, row, components], dim=-1).double().cpu()  # (F, D) pixels per raw unit
            size = self._losses["vdc"]._size(linear_part(face.pose).to(model.mean), weights).double().cpu()
        if len(face_names) != len(raw):
            raise ShapeError(f"face_names: found {len(face_names)}; expected {len(raw)}, one per face")
        generator = torch.Generator().manual_seed(0)
        signs = 1.0 - 2.0 * torch.randint(0, 2, (model.layout.size,), generator=generator).double()
        spread = moments.spread_root.double().cpu()
        header = model_header(model, whitening) | {
            "faces": list(face_names),
            "count": moments.count,
            "faceSizes": floats(size),
            "signs": floats(signs),
            "steps": self._step_sizes(),
            "descentSteps": DESCENT_STEPS,
            "mapPoints": MAP_POINTS,
            "pathSteps": PATH_STEPS,
            "limit": ERROR_LIMIT,
        }
        arrays = {
            "truth": self._truth.numpy(),
            "reach": reach.numpy(),
            "gram": (spread @ spread.T).numpy(),
            "centroid": moments.centroid.double().cpu().numpy(),
        }
        state["errors"] = floats(signs * state.pop("others"))
        state["errors"][state["coefficient"]] = state.pop("error")
        super().__init__("Which coefficient matters", header, arrays, state, self._still(state), surface(model))

    def _raw(self, whitened: torch.Tensor) -> torch.Tensor:
        return self._whitening.unwhiten(whitened.to(self._whitening.mean)).double().cpu()

    def _step_sizes(self) -> list[dict[str, float]]:
        """Step size of gradient descent for each face and loss: the largest that cannot overshoot near the truth."""
        vdc, result = self._losses["vdc"], []
        for truth in self._truth.to(self._model.mean):
            hessian = torch.func.hessian(lambda c, t=truth: vdc(c[None], t[None])[0])(truth)
            result.append({"pdc": 0.25, "wpdc": 0.25, "vdc": float(1 / torch.linalg.eigvalsh(hessian.double())[-1])})
        return result

    def set(self, **changes: Any) -> None:
        """Move controls of the live figure.

        Raises:
            ValueRangeError: If the figure lacks one of these controls, or both coefficients would be the same.
        """
        wanted = self.state | changes
        if wanted["coefficient"] == wanted["second"]:
            raise ValueRangeError(f"second: found {wanted['second']}, the same as the first; expected another one")
        super().set(**changes)

    def _off_by(self, state: Mapping[str, Any], offsets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Prediction and truth ``(N, D)`` for errors ``(N, 2)`` of the two chosen coefficients."""
        truth = self._truth[state["face"]].to(self._model.mean)
        rest = torch.tensor(state["errors"]).to(truth)
        chosen = torch.zeros(2, len(rest)).to(truth)
        for row, index in enumerate((state["coefficient"], state["second"])):
            rest[index], chosen[row, index] = 0.0, 1.0
        return truth + rest + offsets @ chosen, truth.expand(len(offsets), -1)

    @torch.no_grad()
    def maps(self, state: Mapping[str, Any] | None = None) -> dict[str, torch.Tensor]:
        """Each loss over the errors of the two chosen coefficients; all other errors stay fixed.

        Args:
            state: State of the controls; the current one by default.

        Returns:
            Name of the loss to ``(MAP_POINTS, MAP_POINTS)``: rows are errors of the second coefficient, columns of the
            first, from ``-ERROR_LIMIT`` to ``ERROR_LIMIT``.
        """
        state = self.state if state is None else state
        axis = torch.linspace(-ERROR_LIMIT, ERROR_LIMIT, MAP_POINTS).to(self._model.mean)
        predicted, truth = self._off_by(state, torch.cartesian_prod(axis, axis).flip(1))
        return {name: loss(predicted, truth).reshape(MAP_POINTS, -1) for name, loss in self._losses.items()}

    def paths(self, state: Mapping[str, Any] | None = None) -> dict[str, torch.Tensor]:
        """Gradient descent on each loss in the two chosen coefficients alone, from their current errors.

        The step size is half of what the largest curvature allows: that curvature is 2 for PDC and at most 2 for WPDC,
        and for VDC that of the map where both coefficients are right.

        Args:
            state: State of the controls; the current one by default.

        Returns:
            Name of the loss to errors ``(1 + PATH_STEPS, 2)``.
        """
        state = self.state if state is None else state
        start = torch.tensor([state["errors"][state[key]] for key in ("coefficient", "second")]).to(self._model.mean)
        vdc = self._losses["vdc"]
        curvature = torch.func.hessian(lambda at: vdc(*self._off_by(state, at[None]))[0])(torch.zeros_like(start))
        steepest = float(torch.linalg.eigvalsh(curvature.double())[-1])
        rates = {"pdc": 0.25, "vdc": 0.5 / steepest if steepest > 0 else 0.0, "wpdc": 0.25}
        result = {}
        for name, loss in self._losses.items():
            path = [start]
            for _ in range(PATH_STEPS):
                at = path[-1].clone().requires_grad_()
                (slope,) = torch.autograd.grad(loss(*self._off_by(state, at[None])).sum(), at)
                path.append(path[-1] - rates[name] * slope)
            result[name] = torch.stack(path)
        return result

    def numbers(self, state: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """PDC, VDC, WPDC, their gradients and WPDC's weights, computed by the package.

        Args:
            state: State of the controls; the current one by default.

        Returns:
            ``"pdc"``, ``"vdc"``, ``"wpdc"``: loss values; ``"gradients"``: name to 62 numbers; ``"weights"``: 62
            numbers; ``"moved"``: mean displacement of the vertices in pixels, as the colours show it; ``"maps"`` and
            ``"paths"``: results of :meth:`maps` and :meth:`paths`, flat.
        """
        state = self.state if state is None else state
        truth = self._truth[state["face"]][None].to(self._model.mean)
        predicted = (truth + torch.tensor(state["errors"]).to(truth)).requires_grad_()
        numbers: dict[str, Any] = {"gradients": {}}
        for name, loss in self._losses.items():
            value = loss(predicted, truth)
            (gradient,) = torch.autograd.grad(value.sum(), predicted)
            numbers[name] = float(value.detach())
            numbers["gradients"][name] = floats(gradient)
        numbers["weights"] = floats(self._losses["wpdc"].weights(predicted.detach(), truth))
        if state["colour"] == "one":
            only = truth.clone()
            only[0, state["coefficient"]] += state["errors"][state["coefficient"]]
            off = self._moved(truth, only)
        else:
            off = self._moved(truth, predicted.detach())
        numbers["maps"] = {name: floats(values) for name, values in self.maps(state).items()}
        numbers["paths"] = {name: floats(path) for name, path in self.paths(state).items()}
        return numbers | {"moved": float(off.mean())}

    def _moved(self, truth: torch.Tensor, predicted: torch.Tensor) -> torch.Tensor:
        """Error of each vertex after centring the depths, ``(V,)`` in pixels."""
        move = [decode(self._whitening.unwhiten(w), self._model)[0].double() for w in (predicted, truth)]
        move = move[0] - move[1]
        move[:, 2] -= move[:, 2].mean()
        return move.norm(dim=-1)

    def _still(self, state: dict[str, Any]) -> bytes:
        from twodasl_lite.viz.figures import colour_by, shaded_mesh

        truth = self._truth[state["face"]][None].to(self._model.mean)
        predicted = truth + torch.tensor(state["errors"]).to(truth)
        numbers = self.numbers(state)
        vertices = decode(self._whitening.unwhiten(predicted), self._model)[0]

        def draw(figure) -> None:
            upper, lower = figure.subfigures(2, 1, height_ratios=[1.25, 1])
            left, right = upper.subplots(1, 2, width_ratios=[1, 1.7])
            colours, mappable = colour_by(self._moved(truth, predicted).numpy())
            shaded_mesh(left, vertices, self._model.triangles, colours, frame="pixels", lit=False)
            left.set(xlim=(0, CROP_SIZE), ylim=(CROP_SIZE, 0), xticks=[], yticks=[])
            upper.colorbar(mappable, ax=left, location="bottom", label="off by, pixels", shrink=0.8)
            names = self._model.layout.names
            groups = [OKABE_ITO["blue"]] * 12 + [OKABE_ITO["green"]] * self._model.num_shape
            groups += [OKABE_ITO["vermilion"]] * self._model.num_expression
            right.bar(np.arange(len(names)), numbers["weights"], color=groups)
            right.set(xlabel="pose (blue), shape (green), expression (red)", ylabel="WPDC's weight", xticks=[])
            values = ", ".join(f"{name.upper()} {numbers[name]:.3g}" for name in LOSSES)
            right.set_title(f"{names[state['coefficient']]}: {values}", fontsize=10)
            axis = np.linspace(-ERROR_LIMIT, ERROR_LIMIT, MAP_POINTS)
            maps, paths = self.maps(state), self.paths(state)
            for ax, name in zip(lower.subplots(1, len(LOSSES), sharey=True), LOSSES, strict=True):
                ax.contourf(axis, axis, maps[name].sqrt().numpy(), 10, cmap="viridis")
                ax.plot(*paths[name].T, "o-", color=OKABE_ITO["orange"], markersize=2.5, linewidth=1)
                ax.plot(0, 0, "+", color="white", markersize=9)
                ax.set(title=name.upper(), xlabel=f"{names[state['coefficient']]}, σ", aspect="equal")
            lower.axes[0].set_ylabel(f"{names[state['second']]}, σ")

        return still_picture(draw, (8.5, 6.6))


def _index(argument: str, given: int | str, names: Sequence[str]) -> int:
    if isinstance(given, str):
        if given not in names:
            raise ValueRangeError(f"{argument}: found {given!r}; expected one of {names[0]}, ..., {names[-1]}")
        return names.index(given)
    if not 0 <= given < len(names):
        raise ValueRangeError(f"{argument}: found {given}; expected 0 to {len(names) - 1}")
    return int(given)


def coefficient_figure(
    model: MorphableModel,
    whitening: Whitening,
    target: torch.Tensor | None = None,
    face_names: Sequence[str] | None = None,
    *,
    coefficient: int | str = "pose[0,2]",
    error: float = 1.0,
    others: float = 0.25,
    second: int | str | None = None,
    show: str = "weights",
    colour: str = "one",
) -> CoefficientFigure:
    """One of the 62 coefficients is wrong: which vertices move, and how PDC, VDC and WPDC rate the error.

    The reader picks a coefficient (in a list or by its bar), changes its error and that of the 61 others, looks at
    WPDC's weights and the three gradients as bars, and lets gradient descent on one of the losses repair the face.
    Below are the three losses over two coefficients, with contour lines and the path of descent from the current error.

    Args:
        model: Face model, for instance ``load_face_model(CoefficientLayout())``.
        whitening: Whitening of the model's coefficients.
        target: True coefficients of one or several faces to choose from, ``(F, D)`` or ``(D,)`` whitened; the average
            vector by default.
        face_names: Names of the faces, for instance ``["from the front", "half profile"]``.
        coefficient: Coefficient that is wrong at first, index or name.
        error: Error of that coefficient in standard deviations.
        others: Error of all other coefficients in standard deviations, with fixed random signs.
        second: The other coefficient of the maps, index or name; by default ``"pose[0,3]"``, the shift to the right (or
            ``"pose[0,2]"`` if that is ``coefficient``).
        show: Content of the bars: ``"weights"``, ``"pdc"``, ``"vdc"``, ``"wpdc"`` (gradients) or ``"errors"``.
        colour: Meaning of the vertex colours: the displacement due to this coefficient's error (``"one"``) or to all
            errors (``"all"``).

    Returns:
        The figure, displayed when it is the last line of a cell; ``figure.numbers()`` returns the package's numbers for
        the current controls.

    Raises:
        ShapeError: If a shape does not match.
        ValueRangeError: If a name is unknown or an error is out of range.

    Example:
        >>> coefficient_figure(model, whitening, target[:3], ["a", "b", "c"])  # doctest: +SKIP
    """
    coefficient = _index("coefficient", coefficient, model.layout.names)
    if second is None:
        second = "pose[0,2]" if model.layout.names[coefficient] == "pose[0,3]" else "pose[0,3]"
    second = _index("second", second, model.layout.names)
    if second == coefficient:
        raise ValueRangeError(f"second: found {second}, the same as coefficient; expected another one")
    for name, value, limit in (("error", error, ERROR_LIMIT), ("others", others, 1.0)):
        if not abs(value) <= limit:
            raise ValueRangeError(f"{name}: found {value}; expected at most {limit}")
    for name, value, allowed in (("show", show, SHOWN), ("colour", colour, COLOURS)):
        check_choice(name, value, allowed)
    if target is None:
        target = torch.zeros(1, model.layout.size)
    faces = 1 if target.ndim == 1 else len(target)
    state = {
        "face": 0,
        "coefficient": coefficient,
        "second": second,
        "error": float(error),
        "others": float(others),
        "show": show,
        "loss": "wpdc",
        "colour": colour,
        "angles": [0.0, 0.0, 0.0],
    }
    names_of_faces = list(face_names) if face_names is not None else [f"face {k + 1}" for k in range(faces)]
    return CoefficientFigure(model, whitening, target, names_of_faces, **state)
