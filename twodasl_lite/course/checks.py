"""Checkers for exercises, which say what is wrong with an answer without giving the solution away.

A checker either returns or raises :class:`CheckFailed`. The message names the mistake if it is a known one: a missing
square root, y running the wrong way, degrees for radians, a transposed matrix, image pixels for crop pixels. It never
shows the expected values, only shapes, units and ranges.

Tensors follow the package's conventions (:mod:`twodasl_lite.geometry.camera`): pixels count from 0, y runs down.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch

from twodasl_lite.geometry.camera import CROP_SIZE
from twodasl_lite.geometry.landmarks import GROUPS, NUM_LANDMARKS

__all__ = [
    "CheckFailed",
    "angles",
    "close",
    "crop_landmarks",
    "from_scratch",
    "gradient",
    "tensor",
]

RELATIVE_TOLERANCE = 1e-3
"""Largest admissible error relative to the largest expected value; far above rounding, but below any real mistake."""

_PACKAGE = __name__.partition(".")[0]
_CROP_MARGIN = 60.0  # pixels: a turned head may reach outside the crop, an image is larger than this
_FACTORS = {
    2.0: "by a factor of 2",
    10.0: "by a factor of 10: are those millimetres where centimetres are asked for, or the other way round?",
    100.0: "by a factor of 100: percent and fractions, or mm² and cm²?",
    1000.0: "by a factor of 1,000: millimetres and micrometres?",
    180 / math.pi: "by a factor of 57.3: degrees and radians are mixed up",
}


class CheckFailed(AssertionError):
    """An answer is wrong; the message says how."""


# -------------------------------------------------------------------------------------------------- shape and kind
def tensor(name: str, found: object, shape: Sequence[int | None] | None = None, *, finite: bool = True) -> torch.Tensor:
    """Check that an answer is a tensor of numbers of a certain shape.

    Args:
        name: Name of the answer in the exercise.
        found: The student's answer.
        shape: Expected shape, in which ``None`` stands for any size; by default the shape is not checked.
        finite: Whether NaN and infinity are mistakes.

    Returns:
        The answer as a tensor.

    Raises:
        CheckFailed: If the answer is anything else.

    Example:
        >>> tensor("areas", torch.zeros(2), (2,)).shape
        torch.Size([2])
    """
    if found is None:
        raise CheckFailed(f"{name}: found None. Does your function end with `return`?")
    if found is NotImplemented or found is ...:
        raise CheckFailed(f"{name}: found {found!r}, the placeholder. Write your answer in its place.")
    if isinstance(found, bool) or not isinstance(found, (int, float, list, tuple, torch.Tensor)):
        if type(found).__module__ == "numpy":
            found = torch.as_tensor(found)
        else:
            raise CheckFailed(f"{name}: found {type(found).__name__}; expected a tensor of numbers.")
    try:
        value = found if isinstance(found, torch.Tensor) else torch.as_tensor(found)
    except (TypeError, ValueError, RuntimeError):
        raise CheckFailed(f"{name}: found a {type(found).__name__} that is not an array of numbers.") from None
    if shape is not None:
        _check_shape(name, tuple(value.shape), tuple(shape))
    if finite and value.is_floating_point() and not bool(torch.isfinite(value).all()):
        bad = ~torch.isfinite(value)
        raise CheckFailed(
            f"{name}: {int(bad.sum())} of {value.numel()} values are NaN or infinite. Is something divided by zero, or "
            "does a point that was never seen (NaN) take part?"
        )
    return value


def _check_shape(name: str, found: tuple[int, ...], expected: tuple[int | None, ...]) -> None:
    if len(found) == len(expected) and all(e is None or f == e for f, e in zip(found, expected, strict=True)):
        return
    words = (
        "(" + ", ".join("any" if size is None else str(size) for size in expected) + ("," * (len(expected) == 1)) + ")"
    )
    message = f"{name}: found shape {found}; expected {words}."
    if not found and len(expected) == 1:
        message += " That is a single number: over which axis should the sum or the mean go?"
    elif len(found) < len(expected) and found == tuple(expected)[len(expected) - len(found) :]:
        message += " The batch axis is missing: the task asks for one answer per face."
    elif len(found) == len(expected) > 1 and sorted(found) == sorted(size or 0 for size in expected):
        message += " The axes are in another order."
    elif len(found) == len(expected) + 1 and 1 in found:
        message += " There is an axis of length 1 too many."
    raise CheckFailed(message)


# ----------------------------------------------------------------------------------------------------------- values
def close(
    name: str,
    found: object,
    expected: torch.Tensor,
    *,
    unit: str = "",
    points: bool = False,
    tolerance: float | None = None,
) -> None:
    """Check that an answer equals the expected one, within a tolerance.

    Args:
        name: Name of the answer in the exercise.
        found: The student's answer.
        expected: The correct answer.
        unit: Unit for the message, such as ``"mm"``.
        points: Whether the last axis holds x, y (and z), so that mistakes about axes can be named.
        tolerance: Largest admissible error; by default :data:`RELATIVE_TOLERANCE` times the largest expected magnitude.

    Raises:
        CheckFailed: If the answer is wrong; the message names a known mistake or gives the size of the largest error.

    Example:
        >>> close("size", torch.tensor([25.0, 4.0]), torch.tensor([5.0, 2.0]), unit="mm")
        Traceback (most recent call last):
        ...
        twodasl_lite.course.checks.CheckFailed: size: these are squares of what is asked for: is a square root missing?
    """
    expected = torch.as_tensor(expected).detach().double()
    value = tensor(name, found, tuple(expected.shape)).detach().double()
    largest = float(expected.abs().max()) if expected.numel() else 0.0
    allowed = RELATIVE_TOLERANCE * max(largest, 1e-6) if tolerance is None else tolerance
    if expected.numel() == 0 or float((value - expected).abs().max()) <= allowed:
        return
    cause = _diagnose(value, expected, points=points)
    if cause is None:
        error = (value - expected).abs()
        where = tuple(int(k) for k in torch.unravel_index(error.argmax(), error.shape)) if error.dim() else ()
        share = float((error > allowed).double().mean())
        place = f" at index {where if len(where) > 1 else where[0]}" if where else ""
        cause = (
            f"off by {float(error.max()):.3g}{' ' + unit if unit else ''}{place}; {share:.0%} of the values are wrong."
        )
    raise CheckFailed(f"{name}: {cause}")


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    scale = max(float(b.abs().max()), 1e-12)
    return a.shape == b.shape and bool(torch.isfinite(a).all()) and float((a - b).abs().max()) <= 2e-3 * scale


def _diagnose(found: torch.Tensor, expected: torch.Tensor, *, points: bool) -> str | None:
    """The name of a well-known mistake that turns the expected values into those found."""
    if not bool(found.any()):
        return "all values are zero."
    named: list[tuple[Callable[[torch.Tensor], torch.Tensor], str]] = [
        (lambda e: -e, "the sign is the opposite."),
        (lambda e: e.square(), "these are squares of what is asked for: is a square root missing?"),
        (lambda e: e.abs().sqrt(), "a square root too many: these are the square roots of what is asked for."),
    ]
    if expected.dim() >= 2 and expected.shape[-1] == expected.shape[-2]:
        named.insert(0, (lambda e: e.transpose(-1, -2), "rows and columns are exchanged: this is the transpose."))
    named += [(partial(torch.mul, other=factor), f"too large {text}") for factor, text in _FACTORS.items()]
    named += [(partial(torch.div, other=factor), f"too small {text}") for factor, text in _FACTORS.items()]
    if points:
        cause = _diagnose_points(found, expected)
        if cause:
            return cause
    for change, cause in named:
        if _same(found, change(expected)):
            return cause
    spread = float((expected - expected.mean()).abs().max())
    if expected.numel() > 2 and spread > 1e-6:
        ratio = float((found * expected).sum() / expected.square().sum())
        if _same(found, expected * ratio):
            much = "too large" if abs(ratio) > 1 else "too small"
            return f"all values are {much} by the same factor, {ratio:.4g}."
        shift = float((found - expected).mean())
        if float((found - expected - shift).abs().max()) < 1e-3 * spread:
            return f"all values are off by the same amount, {shift:.4g}."
    return None


def _diagnose_points(found: torch.Tensor, expected: torch.Tensor) -> str | None:
    """The name of a mistake about axes, for points whose last axis is x, y (and z)."""
    if expected.shape[-1] not in (2, 3) or expected.numel() < 3 * expected.shape[-1]:
        return None
    f, e = found.reshape(-1, expected.shape[-1]), expected.reshape(-1, expected.shape[-1])
    spread = float((e - e.mean(dim=0)).abs().max())
    if spread < 1e-6:
        return None

    def constant(values: torch.Tensor) -> bool:
        return float((values - values.mean()).abs().max()) < 1e-3 * spread

    right = [float((f[:, k] - e[:, k]).abs().max()) < 1e-3 * spread for k in range(e.shape[1])]
    if constant(f[:, 1] + e[:, 1]) and not constant(e[:, 1]) and (right[0] or constant(f[:, 0] - e[:, 0])):
        return "y runs the wrong way: in pixels it grows downwards, in the model and in the crop frame upwards."
    if constant(f[:, 0] + e[:, 0]) and not constant(e[:, 0]) and (right[1] or constant(f[:, 1] - e[:, 1])):
        return "x runs the wrong way: it grows to the right."
    if _same(f[:, [1, 0]], e[:, :2]) and not _same(f[:, :2], e[:, :2]):
        return "x and y are exchanged: a point is (x, y), an image is indexed [row y, column x]."
    if all(constant(f[:, k] - e[:, k]) for k in range(e.shape[1])):
        shifts = [float((f[:, k] - e[:, k]).mean()) for k in range(e.shape[1])]
        parts = [
            f"{axis} by {shift:+.3g}" for axis, shift in zip("xyz", shifts, strict=False) if abs(shift) > 1e-3 * spread
        ]
        return f"all points are shifted: {', '.join(parts)}. From which number do these coordinates count?"
    if all(right[:2]) and not all(right):
        return "x and y are right, but the depth z is not."
    return None


# -------------------------------------------------------------------------------------------- units of measurement
def crop_landmarks(name: str, found: object, count: int = NUM_LANDMARKS) -> torch.Tensor:
    """Check that landmarks are in pixels of the crop: 0 to 120, y down.

    Args:
        name: Name of the landmarks in the exercise.
        found: Landmarks, ``(..., count, 2)`` or ``(..., count, 3)``; NaN where a landmark is unknown.
        count: Number of landmarks.

    Returns:
        The landmarks as a tensor.

    Raises:
        CheckFailed: If they look like pixels of a whole image, like numbers between -1 and 1, like millimetres of the
            model, or upside down.
    """
    value = tensor(name, found, finite=False).detach().double()
    if value.dim() < 2 or value.shape[-2] != count or value.shape[-1] not in (2, 3):
        raise CheckFailed(f"{name}: found shape {tuple(value.shape)}; expected (..., {count}, 2 or 3).")
    seen = value[..., :2].reshape(-1, 2)
    seen = seen[torch.isfinite(seen).all(dim=1)]
    if not len(seen):
        raise CheckFailed(f"{name}: no landmark has coordinates; all are NaN.")
    low, high = float(seen.min()), float(seen.max())
    expected = f"expected crop pixels 0-{CROP_SIZE}"
    if high > CROP_SIZE + _CROP_MARGIN:
        raise CheckFailed(f"{name} look like image pixels {max(low, 0):.0f}-{high:.0f}; {expected}.")
    if low >= -1.5 and high <= 1.5:
        raise CheckFailed(f"{name} look like normalised coordinates, {low:.2f} to {high:.2f}; {expected}.")
    if low < -_CROP_MARGIN / 2 and abs(float(seen.mean())) < CROP_SIZE / 4:
        raise CheckFailed(f"{name} look like millimetres of the model, {low:.0f} to {high:.0f}; {expected}.")
    if count == NUM_LANDMARKS:
        brows = value[..., [*GROUPS["left_brow"], *GROUPS["right_brow"]], 1].nanmean()
        mouth = value[..., GROUPS["outer_lip"], 1].nanmean()
        if float(brows) > float(mouth):
            raise CheckFailed(f"{name} are upside down: the mouth lies above the brows. In pixels y runs down.")
    return torch.as_tensor(found)


def angles(name: str, found: object, unit: str = "degrees") -> torch.Tensor:
    """Check that angles of heads are in the required unit.

    Args:
        name: Name of the angles in the exercise.
        found: Angles of several heads.
        unit: ``"degrees"`` or ``"radians"``.

    Returns:
        The angles as a tensor.

    Raises:
        CheckFailed: If the angles appear to be in the other unit.
    """
    value = tensor(name, found)
    largest = float(value.detach().abs().max()) if value.numel() else 0.0
    if unit == "degrees" and 0 < largest <= math.pi / 2 + 0.1 and value.numel() > 1:
        raise CheckFailed(f"{name}: the largest is {largest:.2f}. These look like radians; expected degrees.")
    if unit == "radians" and largest > 2 * math.pi:
        raise CheckFailed(f"{name}: the largest is {largest:.0f}. These look like degrees; expected radians.")
    return value


# ------------------------------------------------------------------------------------------------------- behaviour
def gradient(name: str, function: Callable[[torch.Tensor], torch.Tensor], point: torch.Tensor) -> torch.Tensor:
    """Check that an answer is differentiable: a gradient must reach the input, and it must be finite.

    Args:
        name: Name of the answer in the exercise.
        function: Function from a tensor like ``point`` to a tensor.
        point: Point at which the gradient is taken.

    Returns:
        The gradient of the sum of the function's values.

    Raises:
        CheckFailed: If no gradient arrives, or it is not finite.
    """
    leaf = point.detach().clone().requires_grad_()
    value = tensor(name, function(leaf))
    if not value.requires_grad:
        raise CheckFailed(
            f"{name}: no gradient arrives. Something breaks the graph: .item(), float(), .detach(), numpy, or "
            "making a new tensor from numbers."
        )
    (result,) = torch.autograd.grad(value.sum(), leaf, allow_unused=True)
    if result is None:
        raise CheckFailed(f"{name}: the value does not depend on its input.")
    if not bool(torch.isfinite(result).all()):
        raise CheckFailed(
            f"{name}: the gradient is NaN or infinite. A square root or a norm has no gradient at zero, and the "
            "gradient of a masked NaN is still NaN: replace it before you compute with it."
        )
    return result


@contextmanager
def from_scratch(*parts: str) -> Iterator[None]:
    """A context in which the package may not do the work: the answer has to be the student's own code.

    Args:
        parts: Modules or subpackages that may not be used, such as ``"losses"``; the whole package by default.

    Raises:
        CheckFailed: On exit, if one of their functions was called.

    Example:
        >>> with from_scratch("camera"):
        ...     pass
    """
    forbidden = tuple(f"{_PACKAGE}.{part}" for part in parts) or (_PACKAGE,)
    used: list[str] = []

    def watch(frame, event, argument) -> None:
        if event == "call" and not used:
            module = frame.f_globals.get("__name__", "")
            if module != __name__ and any(module == part or module.startswith(part + ".") for part in forbidden):
                used.append(f"{module}.{frame.f_code.co_name}")

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        yield
    finally:
        sys.setprofile(before)
    if used:
        raise CheckFailed(f"{used[0]} was called. This exercise asks for your own code.")
