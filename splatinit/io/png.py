"""What decoders of PNG forgive, and a reader of photos must not; and its EXIF tags, without decoding it.

That is wrong checksums, colours without a palette, and pixels that the header promises and the file does not hold.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from PIL import Image

_CHECKED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT")
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
_BLOCK = 1 << 20  # bytes


def check(image: Image.Image, all_rows: bool) -> None:
    """Look at a PNG that is about to be decoded.

    Args:
        image: opened from a path, decoded only where it has a palette or not ``all_rows``.
        all_rows: unpack the file to count its pixels. Else this is done only where the last row is black, as decoders
            leave what the file does not hold.

    Raises ValueError: see :func:`check_chunks`, :func:`check_rows`; or a pixel's colour is not in the palette.
    """
    path = Path(image.filename)
    check_chunks(path)
    if image.mode == "P":
        colours = 0 if image.palette is None else len(image.palette.palette) // 3
        used = image.getextrema()[1]
        if used >= colours:
            raise ValueError(f"a pixel has colour {used} of a palette of {colours}")
    if all_rows or image.crop((0, image.height - 1, image.width, image.height)).getbbox(alpha_only=False) is None:
        check_rows(path)


def check_chunks(path: Path) -> None:
    """Raise ValueError where a checksum is wrong, the header or palette is there twice, or the end is missing."""
    with open(path, "rb") as file:
        seen = set()
        for kind, offset, length in _chunks(file):
            if kind in seen and kind in (b"IHDR", b"PLTE", b"tRNS"):
                raise ValueError(f"its chunk {kind.decode()} stands twice")
            if kind == b"PLTE" and (length % 3 or not 3 <= length <= 768):
                raise ValueError(f"its palette has {length} bytes; expected 3 a colour, and 1 to 256 colours")
            seen.add(kind)
            if kind not in _CHECKED:
                continue
            file.seek(offset)
            if kind == b"IHDR" and (length != 13 or file.read(13)[10:] not in (b"\0\0\0", b"\0\0\1")):
                raise ValueError("its compression, filtering or interlacing is unknown")
            file.seek(offset)
            crc = zlib.crc32(kind)
            while length > 0 and (block := file.read(min(length, _BLOCK))):
                crc, length = zlib.crc32(block, crc), length - len(block)
            if length or file.read(4) != crc.to_bytes(4, "big"):
                raise ValueError(f"the checksum of its chunk {kind.decode()} at byte {offset - 8} is wrong")
    if b"IEND" not in seen:
        raise ValueError("its end is missing")


def check_rows(path: Path) -> None:
    """Raise ValueError where it holds fewer pixels than its header promises."""
    unpacker, there, promised = zlib.decompressobj(), 0, 0
    with open(path, "rb") as file:
        for kind, offset, length in _chunks(file):
            file.seek(offset)
            if kind == b"IHDR":
                width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", file.read(13))
                bits = width * depth * _CHANNELS.get(colour, 1)
                # Every row begins with one byte for its filter; an interlaced file holds seven smaller images.
                promised = height * bits // 8 if interlaced else height * (1 + (bits + 7) // 8)
            elif kind == b"IDAT":
                packed = file.read(length)
                while packed and there < promised:
                    there += len(unpacker.decompress(packed, _BLOCK))
                    packed = unpacker.unconsumed_tail
    if there < promised:
        raise ValueError(f"its pixels end after {there} of {promised} bytes")


def exif_of(image: Image.Image) -> Image.Exif:
    """The EXIF tags of an opened PNG, wherever they stand in it (Pillow would decode it to look behind its pixels)."""
    if "exif" in image.info or "Raw profile type exif" in image.info:
        return image.getexif()
    exif = Image.Exif()
    with open(image.filename, "rb") as file:
        for kind, offset, length in _chunks(file):
            if kind == b"eXIf":
                file.seek(offset)
                exif.load(b"Exif\0\0" + file.read(length))
    return exif


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Kind, offset of the content and its length in bytes, of each chunk up to IEND or the end of the file."""
    size = file.seek(0, os.SEEK_END)
    at = 8
    while at + 12 <= size:
        file.seek(at)
        head = file.read(8)
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        yield kind, at + 8, length
        if kind == b"IEND":
            return
        at += 12 + length
