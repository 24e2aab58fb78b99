"""Text and JSON files, read strictly: what a tolerant parser would guess about is refused with its place."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FormatError

# Line ends of other alphabets and control characters split or hide what an editor shows as one line.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 text file (with or without a BOM), without their ends.

    Raises FormatError: not to be read, not UTF-8, or a control character in it, with its line.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: cannot be read as text ({error}).", path=path) from error
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror}).", path=path) from error
    lines = text.replace("\r\n", "\n").split("\n")
    found = _CONTROL.search(text.replace("\r\n", "\n"))
    if found is not None:
        number = text.replace("\r\n", "\n").count("\n", 0, found.start()) + 1
        raise FormatError(
            f"{path}, line {number}: holds the control character {found[0]!r}; expected plain text.", path=path
        )
    return lines


def read_json(path: Path) -> Any:
    """A JSON file. NaN and Infinity are read (Python writes them), and left to the checks of the values.

    Raises FormatError: not to be read, not JSON (with line and column), nested too deep, or a key that stands twice in
    one object (JSON leaves open which of them counts).
    """
    twice: list[str] = []

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            seen: set[str] = set()
            twice.append(next(key for key, _ in pairs if key in seen or seen.add(key)))
        return found

    try:
        data = json.loads(path.read_bytes().decode("utf-8-sig"), object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise FormatError(
            f"{path}, line {error.lineno}, column {error.colno}: not valid JSON ({error.msg}).", path=path
        ) from error
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        raise FormatError(f"{path}: not a JSON text file ({error}).", path=path) from error
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror}).", path=path) from error
    if twice:
        raise FormatError(f"{path}: the key '{twice[0]}' stands twice in one object; expected it once.", path=path)
    return data


def to_floats(words: Sequence[str]) -> list[float]:
    """Numbers of a text file. ValueError also for what only Python takes for one: 1_000, digits of other scripts."""
    _refuse_python(words)
    return [float(word) for word in words]


def to_ints(words: Sequence[str]) -> list[int]:
    """Whole numbers of a text file; ValueError as in :func:`to_floats`."""
    _refuse_python(words)
    return [int(word) for word in words]


def _refuse_python(words: Sequence[str]) -> None:
    joined = "".join(words)
    if "_" in joined or not joined.isascii():
        raise ValueError


def to_array(value: Any) -> np.ndarray:
    """[...] float64 of a JSON value: a number, or lists in lists of numbers.

    Raises ValueError for texts, truth values and null, which numpy would take for numbers, and for ragged lists.
    """
    left = [value]
    while left:
        each = left.pop()
        if isinstance(each, list):
            left += each
        elif isinstance(each, bool) or not isinstance(each, int | float):
            raise ValueError(f"expected numbers, got {str(each)[:40]!r}")
    try:
        return np.array(value, dtype=np.float64)
    except (OverflowError, RecursionError, TypeError) as error:
        raise ValueError(str(error)) from error
