"""PCD, the file of the Point Cloud Library (format 0.5 to 0.7): text, binary, or compressed by LZF."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import FormatError
from .ply import Pick, every
from .pointcloud import RawPoints

_HEADER_LIMIT = 1 << 16  # bytes
_KINDS = {"F": "f", "U": "u", "I": "i"}
_SIZES = {"F": (4, 8), "U": (1, 2, 4, 8), "I": (1, 2, 4, 8)}
_TRUNCATED = "The file is truncated or damaged: copy or export it again."
_WORDS = {"VERSION", "FIELDS", "SIZE", "TYPE", "COUNT", "WIDTH", "HEIGHT", "VIEWPOINT", "POINTS", "DATA"}
_MOST = 1 << 16  # numbers of one field
# LZF makes at most 264 bytes of 3.
_EXPANSION = 88


@dataclass(frozen=True)
class _Header:
    """``dtype`` of one point, with a name per field and repeated fields as arrays; ``start``: byte after the header."""

    dtype: np.dtype
    total: int
    encoding: str
    start: int


def read_pcd(path: Path, pick: Pick = every) -> RawPoints:
    """The points of a PCD file, those that ``pick`` chooses: x y z of any number type, ``rgb`` or ``rgba`` packed into
    four bytes, ``normal_x`` to ``normal_z``. Other fields and the viewpoint are left out.

    Memory is taken for the points that are picked; of a compressed file for all of it.

    Raises FormatError: not such a file, truncated or damaged, without x y z.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            head = file.read(_HEADER_LIMIT)
        size = path.stat().st_size
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror}).", path=path) from error
    header = _header(path, head)
    missing = [name for name in "xyz" if name not in header.dtype.names]
    if missing:
        raise FormatError(
            f"{path}: its points have no {' '.join(missing)} (found {' '.join(header.dtype.names)}).", path=path
        )
    read = {"ascii": _text, "binary": _binary, "binary_compressed": _compressed}[header.encoding]
    columns = read(path, header, size, pick)
    rgb = normal = None
    packed = next((columns[name] for name in ("rgb", "rgba") if name in columns), None)
    if packed is not None and packed.ndim == 1 and packed.dtype.itemsize == 4:
        bits = np.ascontiguousarray(packed).view(np.uint32)
        rgb = np.stack([(bits >> shift & 255) for shift in (16, 8, 0)], axis=1) / np.float32(255)
    names = ("normal_x", "normal_y", "normal_z")
    if all(name in columns for name in names):
        with np.errstate(invalid="ignore", over="ignore"):
            normal = _stacked(path, columns, names).astype(np.float32)
            normal = normal if normal.any() else None
    return RawPoints(_stacked(path, columns, ("x", "y", "z")), header.total, rgb=rgb, normal=normal)


def _stacked(path: Path, columns: dict[str, np.ndarray], names: tuple[str, ...]) -> np.ndarray:
    for name in names:
        if columns[name].ndim != 1:
            raise FormatError(
                f"{path}: its field {name} holds {columns[name].shape[1]} numbers a point; expected one.", path=path
            )
    with np.errstate(invalid="ignore"):  # of a signalling NaN
        return np.stack([columns[name].astype(np.float64) for name in names], axis=1)


def _header(path: Path, head: bytes) -> _Header:
    fields: dict[str, list[str]] = {}
    start = 0
    for line in head.split(b"\n"):
        start += len(line) + 1
        words = line.decode("ascii", "replace").split()
        if words and not words[0].startswith("#"):
            fields[words[0]] = words[1:]
            if words[0] == "DATA":
                break
    try:
        (encoding,) = fields["DATA"]
        names, sizes, types = fields["FIELDS"], [int(word) for word in fields["SIZE"]], fields["TYPE"]
        counts = [int(word) for word in fields.get("COUNT", ["1"] * len(names))]
        extent = [int(fields[name][0]) for name in ("WIDTH", "HEIGHT")]
        total = int(fields["POINTS"][0])
        rows = [
            (name, f"<{_KINDS[kind]}{size}", (count,) if count > 1 else ())
            for name, kind, size, count in zip(names, types, sizes, counts, strict=True)
            if size in _SIZES[kind] and 1 <= count <= _MOST
        ]
        if set(fields) - _WORDS or len(rows) != len(names) or encoding not in ("ascii", "binary", "binary_compressed"):
            raise ValueError
    except (KeyError, IndexError, ValueError):
        raise FormatError(
            f"{path}: not a PCD file: its header has no FIELDS, SIZE, TYPE, WIDTH, HEIGHT, POINTS and DATA that go "
            "together.",
            path=path,
        ) from None
    if total < 0 or total != extent[0] * extent[1]:
        raise FormatError(
            f"{path}: the header promises {total} points in {extent[0]} columns and {extent[1]} rows.",
            hint=_TRUNCATED,
            path=path,
        )
    # Padding is called "_", and may be there several times.
    seen = [name for name in names if name != "_"]
    if len(set(seen)) < len(seen):
        raise FormatError(f"{path}: a field is there twice: {' '.join(names)}.", path=path)
    dtype = np.dtype([(f"_{k}" if row[0] == "_" else row[0], *row[1:]) for k, row in enumerate(rows)])
    return _Header(dtype, total, encoding, start)


def _too_few(path: Path, total: int, have: int) -> FormatError:
    return FormatError(
        f"{path}: the header promises {total} points, but {'only ' if have < total else ''}{have} follow it.",
        hint=_TRUNCATED,
        path=path,
    )


def _wanted(header: _Header, pick: Pick) -> np.ndarray | slice:
    rows = pick(header.total)
    return slice(None) if rows is None else rows


def _text(path: Path, header: _Header, size: int, pick: Pick) -> dict[str, np.ndarray]:
    have = sum(1 for _ in _lines(path, header.start))
    if have != header.total:
        raise _too_few(path, header.total, have)
    wanted = np.zeros(header.total, bool)
    wanted[_wanted(header, pick)] = True
    table = np.empty(int(wanted.sum()), header.dtype)
    counts = [int(np.prod(header.dtype[name].shape)) for name in header.dtype.names]
    place = 0
    for index, words in enumerate(_lines(path, header.start)):
        if not wanted[index]:
            continue
        try:
            if len(words) != sum(counts) or any(b"_" in word for word in words):
                raise ValueError
            at = 0
            with np.errstate(over="ignore"):
                for name, count in zip(header.dtype.names, counts, strict=True):
                    kind = header.dtype[name].base
                    convert = float if kind.kind == "f" else int
                    values = [convert(word) for word in words[at : at + count]]
                    table[name][place] = values if header.dtype[name].shape else values[0]
                    at += count
        except (ValueError, OverflowError):
            shown = b" ".join(words)[:80].decode("ascii", "replace")
            raise FormatError(
                f"{path}: point {index} is not {sum(counts)} numbers as the header says: {shown!r}.",
                hint=_TRUNCATED,
                path=path,
            ) from None
        place += 1
    return {name: table[name] for name in header.dtype.names}


def _lines(path: Path, start: int) -> Iterator[list[bytes]]:
    with open(path, "rb") as file:
        file.seek(start)
        for line in file:
            words = line.split()
            if words:
                yield words


def _binary(path: Path, header: _Header, size: int, pick: Pick) -> dict[str, np.ndarray]:
    left = size - header.start - header.total * header.dtype.itemsize
    # Some writers fill up the last page with zeros.
    if left < 0 or left > 0 and (left > _HEADER_LIMIT or _tail(path, left).strip(b"\0")):
        raise _too_few(path, header.total, (size - header.start) // header.dtype.itemsize)
    if header.total == 0:
        return {name: np.empty(0, header.dtype[name]) for name in header.dtype.names}
    table = np.memmap(path, header.dtype, "r", header.start, (header.total,))
    rows = _wanted(header, pick)
    return {name: np.array(table[name][rows]) for name in header.dtype.names}


def _tail(path: Path, count: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(-count, 2)
        return file.read()


def _compressed(path: Path, header: _Header, size: int, pick: Pick) -> dict[str, np.ndarray]:
    with open(path, "rb") as file:
        file.seek(header.start)
        sizes = file.read(8)
        packed, whole = struct.unpack("<II", sizes) if len(sizes) == 8 else (0, -1)
        expected = header.total * header.dtype.itemsize
        data = b""
        if whole == expected <= _EXPANSION * packed and packed <= size - header.start - 8:
            data = _unpacked(file.read(packed), expected)
    if whole != expected or len(data) != expected:
        raise FormatError(
            f"{path}: {header.total} points take {expected} bytes, but {len(data)} could be unpacked.",
            hint=_TRUNCATED,
            path=path,
        )
    rows, columns, at = _wanted(header, pick), {}, 0
    for name in header.dtype.names:  # one field after the other, each of all points
        kind = header.dtype[name]
        column = np.frombuffer(data, kind.base, header.total * int(np.prod(kind.shape)), at)
        at += column.nbytes
        columns[name] = column.reshape(-1, *kind.shape)[rows].copy()
    return columns


def _unpacked(data: bytes, most: int) -> bytes:
    """What LZF packed (Lehmann's liblzf: runs of literals, and copies of what came before); empty where it cannot be,
    or would be more than ``most`` bytes."""
    out, at, end = bytearray(), 0, len(data)
    while at < end and len(out) <= most:
        control = data[at]
        at += 1
        if control < 32:
            out += data[at : at + control + 1]
            at += control + 1
            continue
        length, need = (control >> 5) + 2, 1
        if length == 9:
            need = 2
        if at + need > end:
            return b""
        if need == 2:
            length += data[at]
            at += 1
        back = ((control & 31) << 8) + data[at] + 1
        at += 1
        first = len(out) - back
        if first < 0:
            return b""
        out += out[first : first + length] if back >= length else (out[first:] * (length // back + 1))[:length]
    return bytes(out) if at == end and len(out) <= most else b""
