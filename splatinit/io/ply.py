"""The vertex table of PLY files (Turk 1994): ASCII and binary, read defensively; written as binary little endian."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import FormatError
from .atomic import atomic_path

_TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}
_NAMES = {"u1": "uchar", "i4": "int", "f4": "float", "f8": "double"}
_HEADER_LIMIT = 1 << 20  # bytes; a header longer than this is a binary file that merely starts like a PLY
_ORDER = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": "="}


@dataclass
class _Element:
    """``fields``: name and kind; a list has two kinds, of its length and of its items."""

    name: str
    count: int
    fields: list[tuple[str, str | tuple[str, str]]]

    @property
    def has_lists(self) -> bool:
        return any(isinstance(kind, tuple) for _, kind in self.fields)


Pick = Callable[[int], np.ndarray | None]
"""How many there are → the numbers, ascending, of those that are wanted; None for all."""


def every(total: int) -> None:
    """The Pick that takes all."""


def read_vertices(path: Path, pick: Pick = every) -> np.ndarray:
    """The ``vertex`` element as a structured array [n] with the file's property names, native byte order.

    ``pick`` chooses the rows that are kept. Beside them, memory is taken for the file as it is on disk.

    Raises:
        FormatError: not a PLY file, a header that is wrong or promises more than the file holds, or no vertices.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror}).", path=path) from error
    format, elements, start = _header(path, data)
    names = [element.name for element in elements]
    if names.count("vertex") != 1:
        found = f"{names.count('vertex')} elements" if names.count("vertex") else "no element"
        raise FormatError(f"{path}: has {found} 'vertex'; expected one.", path=path)
    index = names.index("vertex")
    before, vertex, after = elements[:index], elements[index], elements[index + 1 :]
    if any(element.has_lists and element.count for element in before):
        raise FormatError(f"{path}: lists stand before the vertices; expected the vertices first.", path=path)
    if vertex.has_lists:
        raise FormatError(f"{path}: the vertices have list properties; expected numbers only.", path=path)
    if not vertex.fields:
        raise FormatError(f"{path}: the vertices have no properties.", path=path)
    order = _ORDER[format]
    dtype = np.dtype([(name, order + kind) for name, kind in vertex.fields])
    if format == "ascii":
        counts = [sum(element.count for element in part) for part in (before, after)]
        return _ascii(path, memoryview(data)[start:], counts[0], vertex.count, counts[1], dtype, pick)
    for element in before:
        start = _end_of(path, data, start, element, order)
    have = max(0, len(data) - start)
    if vertex.count * dtype.itemsize > have:
        raise FormatError(
            f"{path}: the header promises {vertex.count} vertices of {dtype.itemsize} bytes, but only {have} bytes "
            f"follow it ({have // dtype.itemsize} vertices).",
            hint="The file is truncated: copy or export it again.",
            path=path,
        )
    end = start + vertex.count * dtype.itemsize
    for element in after:
        end = _end_of(path, data, end, element, order)
    if end < len(data):
        raise FormatError(
            f"{path}: {len(data) - end} bytes follow the {vertex.count} vertices"
            + (f" and the {' and '.join(element.name for element in after)} data" if after else "")
            + " of the header; expected the end of the file.",
            path=path,
        )
    found = np.frombuffer(data, dtype, vertex.count, start)
    rows = pick(vertex.count)
    if rows is not None:
        found = found[rows]
    # A plain copy where the order of bytes is ours: astype goes field by field.
    return found.copy() if dtype.isnative else found.astype(dtype.newbyteorder("="))


def has_faces(path: Path) -> bool:
    """Whether the header promises faces. Raises FormatError for a file that is no PLY."""
    path = Path(path)
    try:
        with open(path, "rb") as file:
            head = file.read(_HEADER_LIMIT)
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror}).", path=path) from error
    _, elements, _ = _header(path, head)
    return any(element.name == "face" and element.count for element in elements)


def read_triangles(path: Path) -> np.ndarray:
    """The ``face`` element as vertex numbers [m, 3] int64; polygons of more corners are cut into fans.

    Call :func:`read_vertices` first: it checks that the file is whole. Raises FormatError where there are no faces, a
    face has fewer than three corners, or names a vertex that does not exist.
    """
    path = Path(path)
    data = path.read_bytes()
    format, elements, start = _header(path, data)
    names = [element.name for element in elements]
    face = next((element for element in elements if element.name == "face"), None)
    lists = [field for field, kind in (face.fields if face else ()) if isinstance(kind, tuple)]
    corners = next((name for name in ("vertex_indices", "vertex_index") if name in lists), None)
    if face is None or face.count == 0 or corners is None:
        raise FormatError(
            f"{path}: has no faces (element 'face' with a list 'vertex_indices'); expected a mesh.",
            hint="A cloud of points is no mesh: give it as points.",
            path=path,
        )
    place = names.index("face")
    if format == "ascii":
        lines = [line for line in data[start:].splitlines() if line.strip()]
        first = sum(element.count for element in elements[:place])
        rows = [_ascii_list(path, face, corners, line) for line in lines[first : first + face.count]]
    else:
        order = _ORDER[format]
        for element in elements[:place]:
            start = _end_of(path, data, start, element, order)
        rows = _binary_lists(data, start, face, corners, order)
    triangles = np.concatenate([_fan(path, polygons) for polygons in _by_length(rows)])
    count = elements[names.index("vertex")].count
    if triangles.min() < 0 or triangles.max() >= count:
        raise FormatError(
            f"{path}: the faces name vertices {triangles.min()} to {triangles.max()}; expected 0 to {count - 1}.",
            hint="The file is damaged: export it again.",
            path=path,
        )
    return triangles


def _by_length(rows: np.ndarray | list[np.ndarray]) -> list[np.ndarray]:
    """Lists as tables [m, c], one for each length c."""
    if isinstance(rows, np.ndarray):
        return [rows]
    lengths = np.array([len(row) for row in rows])
    return [np.stack([rows[i] for i in np.nonzero(lengths == c)[0]]) for c in np.unique(lengths)]


def _fan(path: Path, polygons: np.ndarray) -> np.ndarray:
    """Polygons [m, c] → triangles [m (c − 2), 3]."""
    m, c = polygons.shape
    if c < 3:
        raise FormatError(f"{path}: a face has {c} corners; expected at least 3.", path=path)
    polygons = polygons.astype(np.int64)
    first = np.broadcast_to(polygons[:, :1], (m, c - 2))
    return np.stack([first, polygons[:, 1:-1], polygons[:, 2:]], axis=2).reshape(-1, 3)


def _binary_lists(data: bytes, at: int, element: _Element, name: str, order: str) -> np.ndarray | list[np.ndarray]:
    """The list ``name`` of each record: one table where all records look alike, else one array each."""

    def record(at: int) -> np.dtype:
        parts = []
        for number, (field, kind) in enumerate(element.fields):
            if not isinstance(kind, tuple):
                parts.append((f"f{number}", order + kind))
                continue
            length = np.dtype(order + kind[0])
            items = int(np.frombuffer(data, length, 1, at + np.dtype(parts).itemsize)[0])
            parts += [(f"n{number}", length), (name if field == name else f"f{number}", order + kind[1], (items,))]
        return np.dtype(parts)

    layout = record(at)
    if at + element.count * layout.itemsize <= len(data):
        table = np.frombuffer(data, layout, element.count, at)
        lengths = [part for part in layout.names if part.startswith("n")]
        if all((table[part] == table[part][0]).all() for part in lengths):
            return table[name]
    rows = []
    for _ in range(element.count):
        layout = record(at)
        rows.append(np.frombuffer(data, layout, 1, at)[name][0])
        at += layout.itemsize
    return rows


def _ascii_list(path: Path, element: _Element, name: str, line: bytes) -> np.ndarray:
    words, place = line.split(), 0
    try:
        for field, kind in element.fields:
            if not isinstance(kind, tuple):
                place += 1
                continue
            items = int(words[place])
            if field == name and 0 <= items < len(words) - place:
                return np.array([int(word) for word in words[place + 1 : place + 1 + items]], np.int64)
            place += 1 + items
        raise ValueError
    except (ValueError, IndexError) as error:
        shown = line[:80].decode("ascii", "replace")
        raise FormatError(f"{path}: a face is not a list of vertex numbers: {shown!r}.", path=path) from error


def _end_of(path: Path, data: bytes, start: int, element: _Element, order: str) -> int:
    """Where an element that is not read ends: a wrong number of vertices shows only in what follows them."""
    lists = [kind for _, kind in element.fields if isinstance(kind, tuple)]
    smallest = sum(np.dtype(kind[0] if isinstance(kind, tuple) else kind).itemsize for _, kind in element.fields)

    def too_short() -> FormatError:
        return FormatError(
            f"{path}: the header promises {element.count} × '{element.name}', but the file ends within them.",
            hint="The file is truncated, or a count in its header is wrong: copy or export it again.",
            path=path,
        )

    if start + element.count * smallest > len(data):
        raise too_short()
    if not lists:
        return start + element.count * smallest
    if element.count == 0:
        return start

    def record(at: int) -> tuple[np.dtype, list[int]]:
        """The layout of the record that stands at ``at``, with the lengths of its lists."""
        parts, lengths = [], []
        for number, (_, kind) in enumerate(element.fields):
            if not isinstance(kind, tuple):
                parts.append((f"f{number}", order + kind))
                continue
            spot = at + np.dtype(parts).itemsize
            length = np.dtype(order + kind[0])
            if spot + length.itemsize > len(data):
                raise too_short()
            items = int(np.frombuffer(data, length, 1, spot)[0])
            if not 0 <= items <= len(data):
                raise too_short()
            lengths.append(items)
            parts += [(f"n{number}", length), (f"f{number}", order + kind[1], (items,))]
        return np.dtype(parts), lengths

    # Nearly always, all lists of a mesh are of one length, and the whole element is a table.
    layout, lengths = record(start)
    if start + element.count * layout.itemsize <= len(data):
        table = np.frombuffer(data, layout, element.count, start)
        counts = [table[name] for name in layout.names if name.startswith("n")]
        if all((column == length).all() for column, length in zip(counts, lengths, strict=True)):
            return start + element.count * layout.itemsize
    at = start
    for _ in range(element.count):
        at += record(at)[0].itemsize
        if at > len(data):
            raise too_short()
    return at


def _header(path: Path, data: bytes) -> tuple[str, list[_Element], int]:
    """Format, elements in order, and where the data begin."""

    def wrong(what: str) -> FormatError:
        return FormatError(f"{path}: not a valid PLY file: {what}.", path=path)

    if not data.startswith((b"ply\n", b"ply\r")):
        raise wrong("it does not begin with 'ply'")
    marker = data.find(b"\nend_header", 0, _HEADER_LIMIT) + 1
    newline = data.find(b"\n", marker)
    if marker == 0 or newline < 0 or data[marker:newline].strip() != b"end_header":
        raise wrong("its header has no end")
    format: str | None = None
    elements: list[_Element] = []
    for raw in data[:marker].splitlines()[1:]:
        words = raw.decode("ascii", "replace").split()
        if not words or words[0] in ("comment", "obj_info"):
            continue
        if words[0] == "format" and len(words) == 3 and words[1] in _ORDER and words[2] == "1.0" and format is None:
            format = words[1]
        elif words[0] == "element" and len(words) == 3 and words[2].isascii() and words[2].isdigit():
            elements.append(_Element(words[1], int(words[2]), []))
        elif words[0] == "property" and elements and (kind := _kind(words[1:-1])) is not None:
            if words[-1] in dict(elements[-1].fields):
                raise wrong(f"the property '{words[-1]}' is there twice")
            elements[-1].fields.append((words[-1], kind))
        else:
            raise wrong(f"the header line '{' '.join(words)[:80]}' is not understood")
    if format is None:
        raise wrong("its header names no known format")
    return format, elements, newline + 1


def _kind(words: list[str]) -> str | tuple[str, str] | None:
    """What a property holds: a number, or with ``list`` a list of them; None where it is not understood."""
    if len(words) == 1:
        return _TYPES.get(words[0])
    if len(words) == 3 and words[0] == "list" and words[1] in _TYPES and words[2] in _TYPES:
        length = _TYPES[words[1]]
        return (length, _TYPES[words[2]]) if length[0] in "iu" else None
    return None


def _ascii(path: Path, data: memoryview, skip: int, count: int, more: int, dtype: np.dtype, pick: Pick) -> np.ndarray:
    # Line by line, twice: a list of all lines takes several times the memory of the file.
    total = sum(1 for line in _lines(data) if line.strip())
    if skip + count > total:
        raise FormatError(
            f"{path}: the header promises {count} vertices, but only {max(0, total - skip)} lines follow it.",
            hint="The file is truncated: copy or export it again.",
            path=path,
        )
    if total != skip + count + more:
        raise FormatError(
            f"{path}: {total} lines follow the header, which promises {skip + count + more} ({count} vertices).",
            hint="The file is damaged, or a count in its header is wrong: copy or export it again.",
            path=path,
        )
    rows = pick(count)
    wanted = np.ones(count, bool)
    if rows is not None:
        wanted[:] = False
        wanted[rows] = True
    table = np.empty((int(wanted.sum()), len(dtype.names)))
    place, index = 0, -skip
    for line in _lines(data):
        words = line.split()
        if not words:
            continue
        if 0 <= index < count and wanted[index]:
            try:
                # Python's float also takes 1_000 for a number.
                if len(words) != len(dtype.names) or b"_" in line:
                    raise ValueError
                table[place] = [float(word) for word in words]
            except ValueError as error:
                shown = line[:80].decode("ascii", "replace").rstrip("\r\n")
                raise FormatError(
                    f"{path}: vertex {index} is not {len(dtype.names)} numbers: {shown!r}.", path=path
                ) from error
            place += 1
        index += 1
    vertices = np.empty(len(table), dtype)
    for column, name in enumerate(dtype.names):
        if dtype[name].kind in "iu":
            limits = np.iinfo(dtype[name])
            values = table[:, column]
            if not ((values >= limits.min) & (values <= limits.max) & (values == np.rint(values))).all():
                raise FormatError(f"{path}: '{name}' has a value that its type {dtype[name]} cannot hold.", path=path)
        with np.errstate(over="ignore"):  # beyond float32 becomes inf, which the callers' checks report
            vertices[name] = table[:, column]
    return vertices


def _lines(data: memoryview) -> Iterator[bytes]:
    """The lines of a text as bytes.splitlines cuts them (after \\n, \\r or both), a block of it at a time."""
    start, block = 0, 1 << 22
    while start < len(data):
        part = bytes(data[start : start + block])
        if start + len(part) < len(data):
            # Up to the last whole line; a longer line than the block is looked at in a larger one.
            end = part.rfind(b"\n") + 1 or part.rfind(b"\r", 0, -1) + 1
            if end == 0:
                block *= 2
                continue
            part = part[:end]
        yield from part.splitlines()
        start, block = start + len(part), 1 << 22


def write_vertices(path: Path, vertices: np.ndarray) -> None:
    """Write a structured array [n] as the ``vertex`` element of a binary little-endian PLY, atomically."""
    dtype = vertices.dtype.newbyteorder("<")
    properties = "".join(f"property {_NAMES[vertices.dtype[name].str[1:]]} {name}\n" for name in vertices.dtype.names)
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(vertices)}\n{properties}end_header\n"
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(header.encode())
        # Not tofile: its error on a full disk does not say why.
        file.write(np.ascontiguousarray(vertices.astype(dtype, copy=False)).view(np.uint8).data)


def columns(vertices: np.ndarray, names: tuple[str, ...], dtype: type = np.float32) -> np.ndarray | None:
    """[n, len(names)] of these properties as ``dtype`` (float32 or float64), or None where one is absent."""
    if any(name not in vertices.dtype.names for name in names):
        return None
    if all(vertices.dtype[name] == np.float32 for name in vertices.dtype.names):
        # One table, as splats are: rows are read once, in place of 59 times.
        table = vertices.view(np.float32).reshape(len(vertices), len(vertices.dtype.names))
        return table[:, [vertices.dtype.names.index(name) for name in names]].astype(dtype, copy=False)
    with np.errstate(over="ignore", invalid="ignore"):  # not finite as float32: the callers' checks report it
        return np.stack([vertices[name].astype(dtype) for name in names], axis=1)
