"""Constants are made once, and what tracing makes is not kept."""

from __future__ import annotations

import torch

from twodasl_lite.base.constants import constant, constant_like
from twodasl_lite.geometry.landmarks import subset_18


def test_constants_are_shared():
    assert constant((1.0, 2.0)) is constant((1.0, 2.0))
    assert constant((1, 2), dtype=torch.int64).dtype == torch.int64
    like = torch.zeros(2, dtype=torch.float64)
    torch.testing.assert_close(constant_like(like, 0.5, -0.5), torch.tensor([0.5, -0.5], dtype=torch.float64))


def test_what_an_export_traces_is_not_kept():
    """A traced tensor has no values: whoever asked for the same constant later would get nothing but an error."""

    class Network(torch.nn.Module):
        def forward(self, points: torch.Tensor) -> torch.Tensor:
            return subset_18(points) * constant_like(points, 0.125, 0.375)

    points = torch.rand(2, 68, 2)
    traced = torch.export.export(Network(), (points,)).module()
    torch.testing.assert_close(traced(points), Network()(points))
    assert type(constant_like(points, 0.125, 0.375)) is torch.Tensor
    assert float(constant_like(points, 0.125, 0.375).sum()) == 0.5
