"""Decoding speed: ``MorphableModel.decode`` against a bare matrix product of the same size, in the same run.

A model of the Basel Face Model's size (53,215 vertices, 40 + 10 components) decodes a batch of 32 faces. The bare
product, (32, 50) times (50, 159,645) into fresh memory, is the cost that no implementation can avoid. The two are timed
in turn, so that other load on the machine affects both; the median of the ratios is the result. Landmarks alone are
timed too: decoding them must not touch the dense vertices.

    python benchmarks/decode_speed.py
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch

from twodasl_lite.faces import MorphableModel

VERTICES, NUM_SHAPE, NUM_EXPRESSION, BATCH = 53_215, 40, 10, 32
LIMIT = 1.3


def make_model() -> MorphableModel:
    """Random numbers in the shape of the Basel Face Model; speed does not depend on the values."""
    generator = torch.Generator().manual_seed(0)
    return MorphableModel(
        torch.randn(VERTICES, 3, generator=generator),
        torch.randn(VERTICES, 3, NUM_SHAPE, generator=generator),
        torch.randn(VERTICES, 3, NUM_EXPRESSION, generator=generator),
        torch.zeros(0, 3, dtype=torch.long),
        torch.randint(VERTICES, (68,), generator=generator),
    )


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = make_model()
    shape, expression = torch.randn(BATCH, NUM_SHAPE), torch.randn(BATCH, NUM_EXPRESSION)
    weights = torch.cat([shape, expression], dim=1)
    matrix = model.basis.flatten(0, 1).T

    def bare() -> torch.Tensor:
        return weights @ matrix

    def dense() -> torch.Tensor:
        return model.decode(shape, expression)

    def sparse() -> torch.Tensor:
        return model.decode_landmarks(shape, expression)

    with torch.inference_mode():
        for call in (bare, dense, sparse):
            call()
        times = [(seconds(bare), seconds(dense), seconds(sparse)) for _ in range(options.rounds)]
    ratio = statistics.median(b / a for a, b, _ in times)
    medians = [1000 * statistics.median(column) for column in zip(*times, strict=True)]
    print(
        f"{VERTICES:,} vertices x {NUM_SHAPE + NUM_EXPRESSION} components, batch {BATCH}, {options.threads} thread(s)"
    )
    print(f"bare matrix product   {medians[0]:8.2f} ms")
    print(f"decode                {medians[1]:8.2f} ms   {ratio:.2f} x the bare product (at most {LIMIT})")
    print(f"decode_landmarks      {medians[2]:8.3f} ms   {medians[0] / medians[2]:.0f} x faster than the bare product")
    return 0 if ratio <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
