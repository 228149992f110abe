"""A batch of training pictures, with everything that is known about them.

Every source of pictures (synthetic worlds, shards, 300W-LP) returns this structure, and every consumer takes it. Points
are in pixels of the 120x120 crop: 0-based, pixel centres at integers, x right, y down, z towards the viewer.
See chapter 7.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from twodasl_lite.base.errors import ShapeError, TwodaslError
from twodasl_lite.geometry.landmarks import MapKind, flip_landmarks, flip_visible, landmark_map
from twodasl_lite.geometry.photos import IMAGE_CENTRE, IMAGE_RANGE


class FaceBatch(NamedTuple):
    """Pictures and what is known about them; ``None`` where a source does not provide it.

    Attributes:
        images: ``(B, 3, 120, 120)`` uint8 RGB.
        detected: ``(B, 18, 2)`` the points that a detector reports, NaN where it reports none.
        detected_visible: ``(B, 18)`` booleans: whether each point is reported.
        landmarks: ``(B, 68, 3)`` true landmarks; their mean depth is zero.
        visible: ``(B, 68)`` booleans: neither the face itself nor anything in front of it hides the landmark, and it
            lies in the picture.
        coefficients: ``(B, D)`` raw coefficients (:class:`~twodasl_lite.geometry.coefficients.Coefficients`, packed).
        yaw: ``(B,)`` degrees.
        marked: ``(B, 21, 2)`` AFLW's points (:data:`~twodasl_lite.geometry.landmarks.SUBSET_21`) as people marked them,
            NaN where they did not: the 2D labels of a photograph, besides what a detector sees in it.
    """

    images: torch.Tensor
    detected: torch.Tensor
    detected_visible: torch.Tensor
    landmarks: torch.Tensor | None = None
    visible: torch.Tensor | None = None
    coefficients: torch.Tensor | None = None
    yaw: torch.Tensor | None = None
    marked: torch.Tensor | None = None

    @property
    def size(self) -> int:
        """Number of pictures B; ``len`` gives the length of the tuple."""
        return self.images.shape[0]

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> FaceBatch:
        return FaceBatch._make(None if part is None else change(part) for part in self)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> FaceBatch:
        """The batch on another device."""
        return self._each(lambda part: part.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> FaceBatch:
        """The batch in page-locked memory, from which it can be copied to a GPU while the GPU is busy."""
        return self._each(lambda part: part.pin_memory())

    def take(self, index: torch.Tensor | slice | Sequence[int]) -> FaceBatch:
        """Some of the faces, in the order of ``index``: indices, a slice, or ``(B,)`` booleans."""
        return self._each(lambda part: part[index])

    def without_truth(self) -> FaceBatch:
        """Only the pictures and the detector's points, which is all that in-the-wild photographs come with."""
        return FaceBatch(self.images, self.detected, self.detected_visible)

    def inputs(self, kind: MapKind = "binary") -> torch.Tensor:
        """The regressor's input (Tu et al. 2019, section 3.2): normalised RGB and the map of the detected points.

        Args:
            kind: Form of the map, see :func:`~twodasl_lite.geometry.landmarks.landmark_map`.

        Returns:
            ``(B, 4, H, W)`` floats.
        """
        pixels = (self.images.to(self.detected.dtype) - IMAGE_CENTRE) / IMAGE_RANGE  # (B, 3, H, W)
        return torch.cat([pixels, landmark_map(self.detected, self.detected_visible, pixels.shape[-1], kind)], dim=1)

    def flip(self) -> FaceBatch:
        """The mirrored pictures.

        The coefficients become ``None``: which coefficients give the mirrored face depends on the model. Everything
        else is mirrored, though among the 18 detected points the middles of the eyes only approximately
        (:func:`~twodasl_lite.geometry.landmarks.flip_landmarks`).
        """
        width = self.images.shape[-1]
        # The visibility of the 18 points is passed as a second coordinate, which a flip leaves unchanged.
        seen = torch.stack([torch.zeros_like(self.detected[..., 0]), self.detected_visible.to(self.detected)], dim=-1)
        return FaceBatch(
            self.images.flip(-1),
            flip_landmarks(self.detected, width),
            flip_landmarks(seen, width)[..., 1] > 0,
            None if self.landmarks is None else flip_landmarks(self.landmarks, width),
            None if self.visible is None else flip_visible(self.visible),
            None,
            None if self.yaw is None else -self.yaw,
            None if self.marked is None else flip_landmarks(self.marked, width),
        )

    @staticmethod
    def cat(batches: Sequence[FaceBatch]) -> FaceBatch:
        """Concatenate several batches.

        Raises:
            ShapeError: If there are none.
            TwodaslError: If some batches have a field that others lack.
        """
        if not batches:
            raise ShapeError("batches: found none; expected at least one")
        parts = []
        for name, values in zip(FaceBatch._fields, zip(*batches, strict=True), strict=True):
            known = [value for value in values if value is not None]
            if known and len(known) != len(values):
                raise TwodaslError(
                    f"batches: found {name} in {len(known)} of {len(values)}; expected it in all or none "
                    "(without_truth() makes labelled pictures like the others)"
                )
            parts.append(torch.cat(known) if known else None)
        return FaceBatch._make(parts)
