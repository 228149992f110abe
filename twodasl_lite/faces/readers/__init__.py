"""Published face models: one reader per family, one entry point.

May import ``base``, ``geometry``, ``faces.build``, ``faces.embedded`` and ``faces.model``. See chapter 5.

:func:`read_face_model` recognises a file by its content, not by its name, and returns a
:class:`~twodasl_lite.faces.MorphableModel` in this package's conventions: x to the viewer's right, y up, z towards
the viewer, triangles counter-clockwise, millimetres (or the unit asked for), colours sRGB in [0, 1], 68 iBUG landmarks.
The meaning of the coefficients depends on the format: ``shape_std`` and ``expression_std`` give one standard deviation,
and the model's ``source`` describes it in words. No reader executes anything that a file contains.
"""

from __future__ import annotations

import os

from twodasl_lite.base.errors import InputTypeError, TwodaslError, ValueRangeError
from twodasl_lite.faces.model import MorphableModel
from twodasl_lite.faces.readers.formats import FORMATS, FaceModelFormat, format_of, recognise
from twodasl_lite.faces.readers.markup import LandmarkChoice
from twodasl_lite.faces.readers.whitening import convert_pose, read_whitening
from twodasl_lite.geometry.coefficients import CoefficientLayout

__all__ = ["FORMATS", "FaceModelFormat", "convert_pose", "read_face_model", "read_whitening", "recognise"]


def read_face_model(
    path: str | os.PathLike[str],
    *,
    kind: str | None = None,
    layout: CoefficientLayout | None = None,
    landmarks: LandmarkChoice = None,
    units: str = "mm",
    **options: object,
) -> MorphableModel:
    """Read a face model of any known kind.

    Args:
        path: A file or folder, see :data:`FORMATS`.
        kind: Kind of the model; recognised by its content if omitted.
        layout: Reduce the model to these numbers of coefficients, keeping those of largest energy.
        landmarks: 68 vertices, a mapping from some landmarks to vertices, or a file with either; by default those that
            come with the format, with missing ones derived by registration.
        units: Unit of length of the result: ``"mm"``, ``"cm"``, ``"m"`` or ``"um"``. Models saved by this package keep
            theirs.
        options: Further arguments of the kind's reader, for instance ``vertices="front"`` for ``"bfm2009"``.

    Raises:
        FileFormatError: If the file is missing, damaged, or of no known kind.
        InputTypeError: If the kind's reader has no such option.
        ValueRangeError: If an option's value, the unit or the layout does not fit.
        MissingDependencyError: If the kind needs a package that is not installed.

    Example:
        >>> read_face_model("01_MorphableModel.mat", vertices="front")  # doctest: +SKIP
        MorphableModel('Basel Face Model 2009', 35,709 vertices, ...)
    """
    entry = format_of(kind) if kind is not None else recognise(path)
    given = dict(options)
    if landmarks is not None:
        given["landmarks"] = landmarks
    if units != "mm" or "units" in entry.options:
        given["units"] = units
    unknown = sorted(set(given) - set(entry.options))
    if unknown:
        raise InputTypeError(
            f"{', '.join(unknown)}: found an option that {entry.kind!r} does not have; "
            f"expected any of {', '.join(entry.options) or 'none'}"
        )
    model = entry.read(path, **given)
    try:
        return model if layout is None else model.with_layout(layout)
    except TwodaslError as error:
        raise ValueRangeError(f"{os.fspath(path)}, layout: {error}") from error
