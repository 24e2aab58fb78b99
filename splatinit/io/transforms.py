"""Where another tool's points belong, as text: a 4×4 matrix, or pairs of points."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import ConfigError, FormatError

_PAIRS_LIMIT = 1_000_000  # bytes
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
    strange = next((word for word in words if not _is_number(word)), None)
    if strange is not None or len(data) == _LIMIT:
        raise FormatError(
            f"{path}: '{(strange or words[-1])[:40]}' is not a number; expected the 16 numbers of a 4×4 transform, row "
            "by row.",
            path=path,
        )
    return as_affine([float(word) for word in words], str(path))


def read_pairs(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of points from a text file: a line each of x y z and x' y' z', as two arrays [n, 3] float64.

    Numbers are set apart by blanks, tabs, commas or semicolons; what follows a # is a comment. Raises FormatError:
    not readable, longer than a million bytes, or a line that is not six finite numbers.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            data = file.read(_PAIRS_LIMIT + 1)
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror}).", path=path) from error
    if len(data) > _PAIRS_LIMIT:
        raise FormatError(
            f"{path}: longer than {_PAIRS_LIMIT} bytes; expected a few lines of x y z x' y' z'.", path=path
        )
    rows = []
    for number, line in enumerate(data.decode("utf-8-sig", "replace").split("\n"), start=1):
        words = line.partition("#")[0].replace(",", " ").replace(";", " ").split()
        if not words:
            continue
        numbers = [float(word) for word in words if _is_number(word)]
        if len(words) != 6 or len(numbers) != 6 or not np.isfinite(numbers).all():
            raise FormatError(
                f"{path}: line {number} is '{' '.join(words)[:80]}'; expected six numbers: x y z in the file and x y z "
                "in the scene.",
                path=path,
            )
        rows.append(numbers)
    table = np.array(rows, np.float64).reshape(-1, 6)
    return table[:, :3], table[:, 3:]


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
    with np.errstate(all="ignore"):  # the smallest numbers there are, which may leave no number of it
        volume = abs(np.linalg.det(matrix[:3, :3] / size)) if size > 0 else 0.0
    if not volume >= 1e-9:
        raise ConfigError(f"{where}: the transform is singular: it flattens the points; expected one with an inverse.")
    return matrix


def _is_number(word: str) -> bool:
    if not word.isascii() or "_" in word:  # Python's float takes 1_000 and other alphabets' digits
        return False
    try:
        float(word)
    except ValueError:
        return False
    return True
