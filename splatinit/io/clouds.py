"""Point clouds of other tools by the ending of their name: PLY, PCD, text, LAS and LAZ (laspy)."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ..errors import FormatError, MissingExtra
from .las import read_las
from .pcd import read_pcd
from .ply import Pick, every
from .pointcloud import RawPoints, read_ply_raw

# Columns of a text file → what stands in them, after x y z: an intensity, which is left out, and three numbers.
_TEXT = {3: (), 4: ("intensity",), 6: ("three",), 7: ("intensity", "three")}
_NAME, _NUMBER = re.compile(rb"[A-Za-z_\"/][!-~]*"), re.compile(rb"(?i)nan$|inf(inity)?$")
_TRUNCATED = "The file is truncated or damaged: copy or export it again."


def require_package(package: str, extra: str, what: str) -> None:
    """Raise MissingExtra, with the command that installs ``extra``, where ``package`` is absent that ``what`` needs."""
    if importlib.util.find_spec(package) is None:
        raise MissingExtra(
            f"{what} needs {package}, which is not installed.",
            hint=f'Install it: pip install "splatinit[{extra}]"',
            missing=[package],
        )


def require_reader(path: Path) -> None:
    """Raise MissingExtra where the package that reads files like ``path`` is absent."""
    suffix = Path(path).suffix.lower()
    if suffix in (".las", ".laz"):
        require_package("laspy", "las", f"{path}: reading {suffix} files")
    if suffix == ".laz":
        require_package("lazrs", "las", f"{path}: reading {suffix} files")


def read_cloud(path: Path, pick: Pick = every) -> RawPoints:
    """The points of a file, those that ``pick`` chooses. Memory is taken for these; for PLY and compressed PCD also for
    the file as it is.

    Raises:
        FormatError: unknown by its ending, or not what its ending says: truncated, damaged, of another layout.
        MissingExtra: the package that reads it is absent.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in CLOUDS:
        raise FormatError(
            f"{path}: a point cloud cannot be known by the ending '{suffix}'; expected one of {', '.join(CLOUDS)}.",
            path=path,
        )
    require_reader(path)
    return CLOUDS[suffix](path, pick)


# --------------------------------------------------------------------------------------------------------------- text
def read_xyz(path: Path, pick: Pick = every) -> RawPoints:
    """Lines of numbers: x y z, then r g b (0 to 255, or 0 to 1) or a normal, with or without an intensity before them.

    Set apart by blanks, tabs, commas or semicolons. Lines of # or // are comments; a first line of names, or with the
    number of points alone (.pts), is left out. Three numbers are normals where one is negative or all have length 1.

    Raises FormatError: not readable, a line that does not hold as many numbers as the first, colours out of range.
    """
    path = Path(path)
    total = sum(1 for _ in _text_lines(path))
    promised = _promised(path)
    if promised is not None and promised != total:
        raise FormatError(
            f"{path}: its first line promises {promised} points, but {total} follow.", hint=_TRUNCATED, path=path
        )
    rows = pick(total)
    wanted = np.ones(total, bool)
    if rows is not None:
        wanted[:] = False
        wanted[rows] = True
    table: np.ndarray | None = None
    place = 0
    for index, (number, words) in enumerate(_text_lines(path)):
        if table is None:
            if len(words) not in _TEXT:
                raise FormatError(
                    f"{path}: line {number} has {len(words)} numbers; expected 3 (x y z), 6 (x y z r g b or a normal), "
                    "or 4 or 7 with an intensity after x y z.",
                    path=path,
                )
            table = np.empty((int(wanted.sum()), len(words)))
        if not wanted[index]:
            continue
        try:
            if len(words) != table.shape[1] or any(b"_" in word for word in words):
                raise ValueError
            table[place] = [float(word) for word in words]
        except ValueError:
            shown = b" ".join(words)[:80].decode("ascii", "replace")
            raise FormatError(
                f"{path}: line {number} is not {table.shape[1]} numbers as the first: {shown!r}.",
                hint=_TRUNCATED,
                path=path,
            ) from None
        place += 1
    if table is None:
        return RawPoints(np.zeros((0, 3)), 0)
    rgb = normal = None
    if "three" in _TEXT[table.shape[1]]:
        rgb, normal = _colours_or_normals(path, table[:, -3:])
    return RawPoints(table[:, :3].copy(), total, rgb=rgb, normal=normal)


def _text_lines(path: Path) -> Iterator[tuple[int, list[bytes]]]:
    """Number and words of each line that holds a point."""
    first = True
    for number, words in _filled_lines(path):
        # Only the first line may be of another kind: names, or the number of points.
        other = first and (_is_count(words) or all(_NAME.fullmatch(word) and not _NUMBER.match(word) for word in words))
        first = False
        if not other:
            yield number, words


def _filled_lines(path: Path) -> Iterator[tuple[int, list[bytes]]]:
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                words = line.replace(b",", b" ").replace(b";", b" ").split()
                if words and not words[0].startswith((b"#", b"//")):
                    yield number, words
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror}).", path=path) from error


def _promised(path: Path) -> int | None:
    """The number of points that the first line says, as in .pts files; None where it says none."""
    _, words = next(_filled_lines(path), (0, []))
    return int(words[0]) if _is_count(words) else None


def _is_count(words: list[bytes]) -> bool:
    return len(words) == 1 and words[0].isdigit() and len(words[0]) < 16


def _colours_or_normals(path: Path, values: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
    known = values[np.isfinite(values).all(axis=1)]
    low, high = (known.min(), known.max()) if len(known) else (0.0, 0.0)
    with np.errstate(over="ignore"):
        lengths = np.linalg.norm(known, axis=1)
    if low >= -1.001 and high <= 1.001 and (low < 0 or (np.abs(lengths - 1) < 1e-3).all()):
        return None, values.astype(np.float32)
    if low < 0 or high > 255:
        raise FormatError(
            f"{path}: the numbers after x y z range from {low:g} to {high:g}; expected colours from 0 to 255 or from "
            "0 to 1, or normals.",
            path=path,
        )
    with np.errstate(over="ignore"):  # beside a number that is not finite
        return (values / (255.0 if high > 1 else 1.0)).astype(np.float32), None


CLOUDS: dict[str, Callable[[Path, Pick], RawPoints]] = {
    ".ply": read_ply_raw,
    ".pcd": read_pcd,
    ".xyz": read_xyz,
    ".pts": read_xyz,
    ".las": read_las,
    ".laz": read_las,
}
