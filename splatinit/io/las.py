"""Surveyors' point clouds: LAS (ASPRS 1.0 to 1.4), and LAZ, packed by LASzip (Isenburg 2013); through laspy and lazrs.

Both take the numbers of a header as they stand, and memory and hours with them: what is read here is held against the
size of the file first.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import FormatError
from .ply import Pick, every
from .pointcloud import RawPoints

_TOGETHER = 1_000_000  # points that are decoded together: 30 to 70 MB
# A chunk of LAZ is unpacked as a whole where threads share the work; a larger one is unpacked as its points are read.
_LARGE_CHUNK = 128 << 20  # bytes
_CHUNKED, _LAYERED = 2, 3  # LASzip's compressors; its first, of one chunk without a table, is of before 2011
_CHUNKS_DIFFER = 0xFFFFFFFF
# Layers of an item by its kind: points, colours, colours with infrared, wave packets; of bytes as many as they are.
_LAYERS = {10: 9, 11: 1, 12: 2, 13: 1}
# A million points that are all equal take a byte for 90 to 140 of them (point formats 0, 2, 6 and 7).
_EXPANSION = 1024
_TRUNCATED = "The file is truncated or damaged: copy or export it again."


def read_las(path: Path, pick: Pick = every) -> RawPoints:
    """LAS or LAZ: whole numbers times scale plus offset, in float64, a million points at a time.

    Colours of 16 bits are scaled by 65535, or by 255 where no value is larger (many writers fill 8 of the 16 bits).
    All-zero colours are none. Raises FormatError: not such a file, truncated or damaged.
    """
    import laspy

    path = Path(path)
    _check_header(path)
    try:
        with laspy.open(path) as file:
            header = file.header
        total = int(header.point_count)
        how = {}
        if not header.are_points_compressed:
            _check_size(path, header.offset_to_point_data, header.point_format.size, total)
        elif _check_chunks(path, header, total) > _LARGE_CHUNK:
            how["laz_backend"] = laspy.LazBackend.Lazrs
        with laspy.open(path, **how) as file:
            rows = pick(total)
            count = total if rows is None else len(rows)
            xyz = np.empty((count, 3))
            coloured = "red" in header.point_format.dimension_names
            colours = np.empty((count, 3), np.uint16) if coloured else None
            done = passed = 0
            for chunk in file.chunk_iterator(_TOGETHER):
                if rows is None:
                    index = np.arange(len(chunk))
                else:
                    end = np.searchsorted(rows, passed + len(chunk))
                    index = rows[done:end] - passed
                part = slice(done, done + len(index))
                for axis, values in enumerate((chunk.x, chunk.y, chunk.z)):
                    xyz[part, axis] = np.asarray(values)[index]
                if colours is not None:
                    for axis, values in enumerate((chunk.red, chunk.green, chunk.blue)):
                        colours[part, axis] = np.asarray(values)[index]
                done, passed = done + len(index), passed + len(chunk)
    except FormatError:
        raise
    # Whatever laspy and its decoders trip over in a damaged file: each has errors of its own, and Python's beside.
    except BaseException as error:
        kind = type(error).__name__
        # What lazrs raises of a defect of its own is not an Exception, and its class is not to be had by name.
        if not isinstance(error, Exception) and kind != "PanicException":
            raise
        raise FormatError(
            f"{path}: not a readable {path.suffix.lower()} file ({kind}: {error}).", hint=_TRUNCATED, path=path
        ) from error
    if passed != total:
        raise FormatError(
            f"{path}: the header promises {total} points, but only {passed} follow.", hint=_TRUNCATED, path=path
        )
    rgb = None
    if colours is not None and colours.any():
        rgb = colours.astype(np.float32) / np.float32(65535 if colours.max() > 255 else 255)
    return RawPoints(xyz, total, rgb=rgb)


def _check_header(path: Path) -> None:
    """What laspy takes as it stands in a damaged header: four thousand million records keep it busy for an hour."""
    try:
        with open(path, "rb") as file:
            head = file.read(375)
        size = path.stat().st_size
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror}).", path=path) from error
    least = {0: 227, 1: 227, 2: 227, 3: 235, 4: 375}.get(head[25] if len(head) > 25 else -1, 1 << 16)
    wrong = "the signature, the version or the length of the header"
    if len(head) >= least and head[:4] == b"LASF" and head[24] == 1:
        length, start, records = struct.unpack_from("<HII", head, 94)
        numbers = struct.unpack_from("<6d", head, 131)
        later, more = struct.unpack_from("<QI", head, 235) if least == 375 else (0, 0)
        if not least <= length <= start <= size:
            wrong = "where the points begin"
        elif 54 * records > start - length or more and 60 * more > size - later:
            wrong = "the number of variable length records"
        elif head[104] & 64:  # beside the sign of compression; laspy leaves it out
            wrong = "the format of the points"
        elif not (np.isfinite(numbers).all() and all(numbers[:3])):
            wrong = "the scale or the offset of the coordinates"
        else:
            return
    raise _impossible(path, wrong)


def _check_size(path: Path, start: int, each: int, total: int) -> None:
    size = path.stat().st_size
    if start + total * each > size:
        raise FormatError(
            f"{path}: the header promises {total} points of {each} bytes, but the file ends after "
            f"{max(0, size - start) // each}.",
            hint=_TRUNCATED,
            path=path,
        )


def _check_chunks(path: Path, header: object, total: int) -> int:
    """Hold what LASzip's record and its table of chunks say against each other and the file.

    Returns the bytes that a chunk unpacks to. Raises FormatError where they cannot be right.
    """
    import lazrs

    each, start = header.point_format.size, header.offset_to_point_data
    record = bytes(header.vlrs[header.vlrs.index("LasZipVlr")].record_data)
    points, layers, layered = _laszip_record(path, record, each)
    if total == 0:  # some writers leave a chunk of none
        return 0
    with open(path, "rb") as file:
        table = _table_of_chunks(path, file, start)
        (chunks,) = struct.unpack("<4xI", file.read(8))
        room = table - start - 8
        # Each chunk begins with a point that is not packed.
        possible = 0 < chunks * each <= room and total <= _EXPANSION * room
        if points is not None:
            possible = possible and points > 0 and chunks == -(-total // points)
        if not possible:
            raise _impossible(path, "the number of points or of chunks")
        file.seek(start)
        listed = lazrs.read_chunk_table(file, lazrs.LazVlr(record))
        lengths = [length for _, length in listed]
        # The table lists a last chunk of a fixed size as a full one.
        held = [count for count, _ in listed] if points is None else _filled(total, points, chunks)
        if sum(held) != total or sum(lengths) > room or len(listed) != chunks:
            raise _impossible(path, "the table of chunks")
        at = start + 8
        for count, length in zip(held, lengths, strict=True):
            if length < each or count > _EXPANSION * length:
                raise _impossible(path, "the table of chunks")
            if layered:
                _check_layers(path, file, at + each, layers, length - each)
            at += length
    return each * (max(held) if points is None else points)


def _laszip_record(path: Path, record: bytes, each: int) -> tuple[int | None, int, bool]:
    """Points of a chunk (None: they differ), layers of a chunk, and whether it is packed in layers."""
    compressor, points, items = struct.unpack_from("<H10xI16xH", record.ljust(34, b"\0"))
    if len(record) >= 34 and compressor not in (_CHUNKED, _LAYERED):
        raise FormatError(
            f"{path}: its points are packed by LASzip's compressor {compressor}; expected 2 or 3 (in chunks).",
            hint=f"Write it anew by laszip, las2las or pdal, or as .las. {_TRUNCATED}",
            path=path,
        )
    kinds = list(struct.iter_unpack("<3H", record[34:])) if len(record) == 34 + 6 * items else []
    if len(record) < 34 or sum(size for _, size, _ in kinds) != each:
        raise _impossible(path, "the record of LASzip")
    layers = sum(_LAYERS.get(kind, size) for kind, size, _ in kinds)
    return None if points == _CHUNKS_DIFFER else points, layers, compressor == _LAYERED


def _table_of_chunks(path: Path, file: BinaryIO, start: int) -> int:
    """Where the table of chunks begins; ``file`` is left there."""
    end = file.seek(0, 2)
    (table,) = struct.unpack("<q", _bytes_at(file, start, 8))
    if table == -1 and end >= 8:  # of a writer that could not go back: it stands at the very end
        (table,) = struct.unpack("<q", _bytes_at(file, end - 8, 8))
    if not start + 8 <= table <= end - 8:
        raise _impossible(path, "where the table of chunks begins")
    file.seek(table)
    return table


def _check_layers(path: Path, file: BinaryIO, at: int, layers: int, room: int) -> None:
    """Hold the lengths of a chunk's layers against its own: lazrs takes memory for each before it reads them."""
    head = 4 + 4 * layers
    lengths = np.frombuffer(_bytes_at(file, at, head), "<u4")[1:] if room >= head else np.zeros(0, np.uint32)
    if room < head or head + int(lengths.sum(dtype=np.uint64)) > room:
        raise _impossible(path, "the length of a layer")


def _filled(total: int, points: int, chunks: int) -> list[int]:
    """How many points chunks of a fixed size hold: all but the last are full."""
    return [points] * (chunks - 1) + [total - points * (chunks - 1)]


def _bytes_at(file: BinaryIO, at: int, count: int) -> bytes:
    """Bytes of a file, with zeros for what is beyond its end."""
    file.seek(at)
    return file.read(count).ljust(count, b"\0")


def _impossible(path: Path, what: str) -> FormatError:
    return FormatError(
        f"{path}: not a readable {path.suffix.lower()} file: {what} cannot be right.", hint=_TRUNCATED, path=path
    )
