"""The chain of looks: from landmarks to a face, back to landmarks and so on, step by step, with the drift of each look.

::

    x -> X1 = D(G(I, M(x))) -> x1 = P(X1) -> X2 = D(G(I, M(x1))) -> x2 = P(X2) -> ...

The given networks compute every chain beforehand; the script (``static/chain_figure.js``) shows the chains and computes
the losses between their steps. Used in the chapters on 3D consistency and the cycle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from twodasl_lite.base.errors import ValueRangeError
from twodasl_lite.faces import MorphableModel
from twodasl_lite.faces.decode import constrain, decode_landmarks
from twodasl_lite.geometry.camera import CROP_SIZE, PoseForm
from twodasl_lite.geometry.coefficients import Whitening
from twodasl_lite.geometry.face_batch import FaceBatch
from twodasl_lite.geometry.landmarks import EDGES, GAUSSIAN_SIGMA, MAP_KINDS, NUM_SUBSET, SUBSET_18, MapKind, subset_18
from twodasl_lite.losses import FACE_SIZE_FLOOR, CycleConsistency, LandmarkConsistency2D, LandmarkConsistency3D
from twodasl_lite.viz.interactive import InteractiveFigure, floats, picture_data, still_picture
from twodasl_lite.viz.palette import OKABE_ITO


class ChainFigure(InteractiveFigure):
    """The figure that :func:`chain_figure` returns.

    Attributes:
        begins: Landmarks at the start of each chain, ``(N, F, 18, 2)``, NaN where missing.
        faces: Landmarks after each look, ``(R, M, N, F, L, 68, 3)``, by regressor, map, noise, face and look.
        gradients: Gradient of the cycle loss, ``(R, M, N, F, 18, 2)`` per pixel, with respect to the points x1 that the
            second look sees, as it comes back through the map.
    """

    kind = "chain_figure"
    script_class = "ChainFigure"

    def __init__(
        self, regressors, batch: FaceBatch, model, whitening, noises, kinds, pose, looks, seed, face_names
    ) -> None:
        base = batch.detected if batch.landmarks is None else subset_18(batch.landmarks[..., :2])
        generator = torch.Generator().manual_seed(seed)
        pattern = torch.randn(batch.size, NUM_SUBSET, 2, generator=generator)
        self.begins = torch.stack([base + noise * pattern.to(base) for noise in noises]).float().cpu()
        self._truth = None if batch.landmarks is None else batch.landmarks.float().cpu()
        chains, gradients = [], []
        for network in regressors.values():
            made = [
                [_chain(network, batch, points, model, whitening, kind, pose, looks) for points in self.begins]
                for kind in kinds
            ]
            chains.append(torch.stack([torch.stack([chain for chain, _ in row]) for row in made]))
            gradients.append(torch.stack([torch.stack([slope for _, slope in row]) for row in made]))
        self.faces, self.gradients = torch.stack(chains), torch.stack(gradients)
        header = {
            "regressors": list(regressors),
            "kinds": list(kinds),
            "noises": [float(noise) for noise in noises],
            "looks": looks,
            "faceNames": list(face_names),
            "pictures": [picture_data(picture) for picture in batch.images],
            "subset": [[members[0], members[-1]] for members in SUBSET_18],
            "edges": [[int(a), int(b)] for a, b in EDGES],
            "floor": FACE_SIZE_FLOOR,
            "sigma": GAUSSIAN_SIGMA,
            "truth": self._truth is not None,
        }
        arrays = {"begins": self.begins, "faces": self.faces, "gradients": self.gradients}
        if self._truth is not None:
            arrays["truth"] = self._truth
        state = {"regressor": len(regressors) - 1, "face": 0, "kind": 0, "noise": len(noises) // 2, "step": 0}
        state |= {"turn": -60.0, "slope": True}
        super().__init__("The chain of looks", header, arrays, state, self._still(state, batch))

    def _chosen(self, state: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """The chosen chain's initial landmarks ``(18, 2)`` and its faces ``(L, 68, 3)``."""
        place = tuple(state[name] for name in ("regressor", "kind", "noise", "face"))
        return self.begins[place[2], place[3]], self.faces[place]

    def numbers(self, state: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Losses and drift of the chosen chain, computed by the package.

        Args:
            state: State of the controls; the current one by default.

        Returns:
            ``"landmarks_2d"``, ``"landmarks_3d"``, ``"cycle"``: losses of the first two looks; ``"drift"``: mean
            distance in pixels between the 18 points before and after each look; ``"errors"``: mean distance in pixels
            from the true 18 points, for the input and then after each look (empty without ground truth);
            ``"slope"``: norm of the cycle loss's gradient at x1.
        """
        state = self.state if state is None else state
        begin, faces = self._chosen(state)
        points = subset_18(faces[..., :2])  # (L, 18, 2)
        path = torch.cat([begin[None], points])
        seen = torch.isfinite(begin).all(dim=-1)
        errors: list[float] = []
        if self._truth is not None:
            errors = floats((path - subset_18(self._truth[state["face"], :, :2])).norm(dim=-1)[:, seen].mean(dim=-1))
        place = tuple(state[name] for name in ("regressor", "kind", "noise", "face"))
        return {
            "landmarks_2d": float(LandmarkConsistency2D()(points[:1], begin[None])),
            "landmarks_3d": float(LandmarkConsistency3D()(faces[1:2], faces[:1])),
            "cycle": float(CycleConsistency()(points[1:2], begin[None])),
            "drift": floats((path[1:] - path[:-1]).norm(dim=-1)[:, seen].mean(dim=-1)),
            "errors": errors,
            "slope": float(self.gradients[place].norm()),
        }

    def _still(self, state: dict[str, Any], batch: FaceBatch) -> bytes:
        from twodasl_lite.viz.figures import draw_landmarks

        begin, faces = self._chosen(state)
        path = [begin, *subset_18(faces[..., :2])]
        picture = batch.images[state["face"]].permute(1, 2, 0).cpu().numpy()

        def draw(figure) -> None:
            panels = figure.subplots(1, 5)
            for k, ax in enumerate(panels):
                ax.imshow(picture)
                ax.set(xlim=(0, CROP_SIZE), ylim=(CROP_SIZE, 0), xticks=[], yticks=[])
                look = (k + 1) // 2
                if k % 2:
                    draw_landmarks(ax, faces[look - 1, :, :2], colour=OKABE_ITO["sky"], size=1.5)
                    ax.set_title(f"$X_{look}$")
                else:
                    ax.plot(*path[look].T, "o", color=OKABE_ITO["vermilion"], markeredgecolor="white", markersize=4)
                    ax.set_title(f"$x_{look}$" if look else "$x$")

        return still_picture(draw, (9, 2.1))


def _chain(network, batch, points, model, whitening, kind, pose, looks) -> tuple[torch.Tensor, torch.Tensor]:
    """Faces after each look ``(F, L, 68, 3)``, and the gradient ``(F, 18, 2)`` of the cycle loss at x1."""
    device = next(network.parameters()).device
    training = network.training
    network.eval()
    on = batch.to(device)

    def look(at: torch.Tensor) -> torch.Tensor:
        seen = torch.isfinite(at).all(dim=-1)
        inputs = _inputs(on, at, seen, kind)
        whitened = network(inputs).float().to(whitening.mean)
        return decode_landmarks(constrain(whitening.unwhiten(whitened), pose), model).to(at)

    try:
        begin = points.to(device)
        with torch.no_grad():
            faces = [look(begin)]
        first = subset_18(faces[0][..., :2]).detach().requires_grad_()
        second = look(first)
        loss = CycleConsistency()(subset_18(second[..., :2]), begin).sum()
        (slope,) = torch.autograd.grad(loss, first, allow_unused=True)  # no gradient passes through a binary map
        faces.append(second.detach())
        with torch.no_grad():
            for _ in range(looks - 2):
                faces.append(look(subset_18(faces[-1][..., :2])))
    finally:
        network.train(training)
    slope = torch.zeros_like(first) if slope is None else slope
    return torch.stack(faces, dim=1).cpu(), slope.detach().cpu()


def _inputs(batch: FaceBatch, points: torch.Tensor, seen: torch.Tensor, kind: MapKind) -> torch.Tensor:
    return batch._replace(detected=points, detected_visible=seen).inputs(kind)


def chain_figure(
    regressors: Mapping[str, nn.Module],
    batch: FaceBatch,
    model: MorphableModel,
    whitening: Whitening,
    *,
    noises: Sequence[float] = (0.0, 1.0, 2.0, 4.0),
    kinds: Sequence[MapKind] = MAP_KINDS,
    pose: PoseForm = "free",
    looks: int = 4,
    seed: int = 0,
    face_names: Sequence[str] | None = None,
) -> ChainFigure:
    """Step through x, X1, x1, X2, x2, ... on one or several faces, with the drift of each look.

    The reader chooses a network, a face, a map and a noise level, steps through the chain, turns the 3D landmarks, and
    sees how far the points drift, how much of the input noise is left after each look, and the gradient that comes back
    through a Gaussian map but not through a binary one.

    Args:
        regressors: Name to network with whitened outputs, for instance ``{"before training": a, "after": b}``.
        batch: Up to ten faces; with ``landmarks``, chains start at the true points plus noise and errors are shown,
            otherwise they start at the detected points plus noise.
        model: Face model.
        whitening: Whitening of the model's coefficients.
        noises: Standard deviations of the noise levels to choose from, in pixels; all share one noise pattern.
        kinds: Maps to choose from: ``"binary"``, ``"gaussian"``.
        pose: Reading of the networks' 12 pose numbers, see :func:`~twodasl_lite.geometry.camera.constrain_pose`.
        looks: Number of passes through the network, at least 2.
        seed: Seed of the noise.
        face_names: Names of the faces.

    Returns:
        The figure, displayed when it is the last line of a cell; ``figure.numbers()`` returns the package's numbers for
        the current controls.

    Raises:
        ValueRangeError: If there is nothing to choose from, or too much for a page.

    Example:
        >>> networks = {"before training": untrained, "after": trained}  # doctest: +SKIP
        >>> chain_figure(networks, faces.take(slice(4)), model, whitening)  # doctest: +SKIP
    """
    if not regressors or not noises or not kinds:
        raise ValueRangeError("regressors, noises, kinds: found an empty one; expected at least one entry each")
    if looks < 2:
        raise ValueRangeError(f"looks: found {looks}; expected 2 or more")
    if not 1 <= batch.size <= 10:
        raise ValueRangeError(f"batch: found {batch.size} faces; expected 1 to 10")
    names = [f"face {k + 1}" for k in range(batch.size)] if face_names is None else list(face_names)
    if len(names) != batch.size:
        raise ValueRangeError(f"face_names: found {len(names)}; expected {batch.size}")
    return ChainFigure(regressors, batch, model, whitening, noises, kinds, pose, looks, seed, names)
