"""NumPy's .npy and .npz files from strangers: numbers only, never larger than the file or than expected.

``np.load`` believes what a header claims and allocates it before it reads; here the claim is held against the bytes.
"""

from __future__ import annotations

import ast
import io
import math
import os
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np

from ..errors import FormatError

# Of one file with the cameras of a scene: 100 000 photos need a tenth of it.
MAX_BYTES = 256 << 20
_LONGEST_HEADER = 10_000  # bytes; parsing much longer literals can exhaust the interpreter's stack


def read_npy(path: Path) -> np.ndarray:
    """The array of a .npy file, as float64. Raises FormatError, naming the file: see :func:`parse_npy`."""
    return parse_npy(_bytes_of(path), str(path), path)


def npy_shape(path: Path) -> tuple[int, ...]:
    """The shape of the array of numbers in a .npy file, from its header. Raises FormatError as :func:`parse_npy`."""
    try:
        with open(path, "rb") as file:
            head = file.read(_LONGEST_HEADER + 12)
            size = file.seek(0, os.SEEK_END)
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror}).", path=path) from error
    shape, _, _, _ = _checked_header(head, size, str(path), path)
    return shape


def parse_npy(data: bytes, where: str, path: Path) -> np.ndarray:
    """The array in the bytes of a .npy file, as float64.

    Raises FormatError, naming ``where``: not an array of numbers, or not as many bytes as its header promises.
    """
    shape, columns_first, dtype, offset = _checked_header(data, len(data), where, path)
    array = np.frombuffer(data, dtype, offset=offset).reshape(shape, order="F" if columns_first else "C")
    with np.errstate(all="ignore"):  # a signalling NaN warns when it is converted; callers ask for finite numbers
        return array.astype(np.float64)


def _checked_header(data: bytes, size: int, where: str, path: Path) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """:func:`_header` of the beginning ``data`` of a file of ``size`` bytes that holds what it promises."""
    try:
        shape, columns_first, dtype, offset = _header(data)
    # The header is a Python literal, so that its damage surfaces as whatever the parser meets first.
    except (ValueError, LookupError, SyntaxError, TypeError, ArithmeticError, RecursionError, MemoryError) as error:
        raise FormatError(f"{where}: not an array of NumPy (.npy): its header cannot be read.", path=path) from error
    if dtype.kind not in "iuf":
        raise FormatError(f"{where}: holds {dtype} {list(shape)}; expected an array of numbers.", path=path)
    promised, there = math.prod(shape) * dtype.itemsize, size - offset
    if promised != there:
        raise FormatError(
            f"{where}: {there} bytes after offset {offset}; expected {promised} for the {list(shape)} {dtype} that its "
            "header promises.",
            hint="The file is truncated or damaged: copy it again.",
            path=path,
        )
    return shape, columns_first, dtype, offset


def _header(data: bytes) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Shape, whether columns come first, dtype, and where the numbers begin (NumPy's format 1.0 to 3.0).

    NumPy's own function tries damaged headers again as Python 2 would have written them, with a warning or whatever
    that second parser raises.
    """
    length_bytes = {1: 2, 2: 4, 3: 4}[data[6]]
    start = 8 + length_bytes
    length = int.from_bytes(data[8:start], "little")
    if data[:6] != b"\x93NUMPY" or length > _LONGEST_HEADER or start + length > len(data):
        raise ValueError
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = ast.literal_eval(data[start : start + length].decode("latin-1").strip())
        shape, columns_first, described = header["shape"], header["fortran_order"], header["descr"]
        if not isinstance(described, str) or not isinstance(shape, tuple) or not isinstance(columns_first, bool):
            raise TypeError
        if not all(type(side) is int and side >= 0 for side in shape) or len(shape) > 8:
            raise ValueError
        return shape, columns_first, np.dtype(described), start + length


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a .npz file by name, as float64.

    Raises FormatError, naming the file and the array: not an archive, a damaged or encrypted member, one that is no
    array of numbers, or more than 256 MB of content promised.
    """
    arrays: dict[str, np.ndarray] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(_bytes_of(path))) as archive:
            members = archive.infolist()
            promised = sum(member.file_size for member in members)
            if promised > MAX_BYTES:
                raise FormatError(
                    f"{path}: promises {promised} bytes of content; expected at most {MAX_BYTES}.",
                    hint="No camera file is that large: it is damaged, or made to fill your memory.",
                    path=path,
                )
            for member in members:
                name = member.filename.removesuffix(".npy")
                if name in arrays:
                    raise FormatError(f"{path}: holds '{name}' twice.", path=path)
                arrays[name] = parse_npy(archive.read(member), f"{path}, '{name}'", path)
    # Encryption is a RuntimeError, an unknown compression a NotImplementedError, a name in no encoding a ValueError.
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError, OverflowError) as error:
        raise FormatError(
            f"{path}: not an archive of NumPy arrays (.npz), or damaged ({error}).",
            hint="The file is truncated or damaged: copy it again.",
            path=path,
        ) from error
    return arrays


def _bytes_of(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise FormatError(f"{path}: {size} bytes; expected at most {MAX_BYTES} of a camera file.", path=path)
        return path.read_bytes()
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror}).", path=path) from error


__all__ = ["MAX_BYTES", "npy_shape", "parse_npy", "read_npy", "read_npz"]
