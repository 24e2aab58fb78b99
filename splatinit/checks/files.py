"""Every file, without decoding every file: unreadable, truncated, identical."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..errors import FormatError, SplatinitError
from ..io.images import _UNREADABLE, list_images, open_image, probe_image
from ..types import Photo

_TAIL = 64  # bytes; cameras pad with zeros, and editors append little
_CHUNK = 1 << 20


def unreadable_images(folder: Path) -> dict[Path, str]:
    """All image files in and below a folder whose header cannot be read, with the reason."""
    broken = {}
    for path in list_images(folder, recursive=True):
        try:
            probe_image(path)
        except FormatError as error:
            broken[path] = error.message
    return broken


def with_all_files(folder: Path, error: SplatinitError) -> SplatinitError:
    """The reader's error; where unreadable images caused it, one that names all of them, not only the first."""
    named = error.context.get("path")
    if not isinstance(error, FormatError) or not isinstance(named, Path) or not folder.is_dir():
        return error
    broken = unreadable_images(folder)
    if named not in broken or len(broken) < 2:
        return error
    names = [path.relative_to(folder).as_posix() for path in broken]
    shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    return FormatError(
        f"{folder}: {len(names)} image files cannot be read: {shown}.",
        hint="Replace or remove these files; copying may have failed.",
        paths=tuple(broken),
    )


def looks_cut(path: Path) -> bool:
    """The file does not end as its format does. A hint, not a proof: phones append videos to JPEG files."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(12)
        file.seek(max(0, size - _TAIL))
        tail = file.read()
    if start[:2] == b"\xff\xd8":
        return not tail.rstrip(b"\0").endswith(b"\xff\xd9")
    if start[:8] == b"\x89PNG\r\n\x1a\n":
        return b"IEND" not in tail
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return int.from_bytes(start[4:8], "little") + 8 > size
    return False


def damaged(photos: Sequence[Photo], workers: int) -> dict[str, str]:
    """Names of photos that cannot be decoded to the end, with the reason; decodes only what looks cut."""

    def reason(photo: Photo) -> str | None:
        path = photo.path
        try:
            if not path.is_file() or not looks_cut(path):
                return None
            with open_image(path) as image:
                image.load()
        except _UNREADABLE as error:
            return str(error)
        return None

    with ThreadPoolExecutor(max_workers=workers) as pool:
        found = zip(photos, pool.map(reason, photos), strict=True)
        return {photo.name: text for photo, text in found if text is not None}


def identical(photos: Iterable[Photo]) -> list[list[str]]:
    """Groups of names whose files have the same bytes; reads only files of equal size."""
    by_size: dict[int, list[Photo]] = {}
    for photo in photos:
        if photo.path.is_file():
            by_size.setdefault(photo.path.stat().st_size, []).append(photo)
    groups: dict[bytes, list[str]] = {}
    for same in by_size.values():
        if len(same) < 2 or len({photo.path.resolve() for photo in same}) < 2:
            continue
        for photo in same:
            groups.setdefault(_digest(photo.path), []).append(photo.name)
    return [group for group in groups.values() if len(group) > 1]


def _digest(path: Path) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.digest()
