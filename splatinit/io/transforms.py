"""Affine transforms that other tools wrote down: a 4×4 matrix as text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import ConfigError, FormatError

_LIMIT = 1 << 16  # bytes; sixteen numbers take less than a thousandth of it


def read_affine(path: Path) -> np.ndarray:
    """A transform [4, 4] from a text file: 16 numbers by rows, or 12 without the last row 0 0 0 1.

    Numbers are set apart by blanks, line ends, commas, semicolons or brackets, so that the matrices of CloudCompare,
    MeshLab, numpy.savetxt and JSON all read. Raises FormatError for another content, ConfigError as :func:`as_affine`.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            data = file.read(_LIMIT)
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror}).", path=path) from error
    words = re.split(r"[\s,;\[\]()]+", data.decode("ascii", "replace").strip(" \t\r\n,;[]()"))
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        shown = next(word for word in words if not _is_number(word))[:40]
        raise FormatError(
            f"{path}: '{shown}' is not a number; expected the 16 numbers of a 4×4 transform, row by row.", path=path
        ) from None
    return as_affine(numbers, str(path))


def as_affine(numbers: Sequence[float], where: str) -> np.ndarray:
    """Numbers by rows as a transform [4, 4] float64. Raises ConfigError, naming ``where``, for what is none."""
    if len(numbers) not in (12, 16):
        raise ConfigError(
            f"{where}: a transform of {len(numbers)} numbers; expected 16 (a 4×4 matrix row by row), or the first 12."
        )
    matrix = np.eye(4)
    matrix.reshape(-1)[: len(numbers)] = numbers
    if not np.isfinite(matrix).all():
        raise ConfigError(f"{where}: the transform has a number that is not finite.")
    if not np.allclose(matrix[3], (0, 0, 0, 1), atol=1e-9):
        last = " ".join(f"{number:g}" for number in matrix[3])
        raise ConfigError(
            f"{where}: the last row of the transform is {last}; expected 0 0 0 1.",
            hint="Numbers column by column look like this: transpose the matrix.",
        )
    size = np.abs(matrix[:3, :3]).max()
    if size == 0 or abs(np.linalg.det(matrix[:3, :3] / size)) < 1e-9:
        raise ConfigError(f"{where}: the transform is singular: it flattens the points; expected one with an inverse.")
    return matrix


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
