"""Unpacking what others packed: nothing lands outside its folder, nothing grows without bound."""

from __future__ import annotations

import errno
import gzip
import os
import shutil
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from ..errors import FormatError, OutputError
from ..io.atomic import told
from ..progress import Progress

MOST_FILES = 100_000  # and folders
# Photos hardly shrink in an archive: one that unpacks to more than this is a bomb, or is not of photos.
MOST_GROWTH = 5.0
ALLOWANCE = 64 * 2**20  # bytes beyond that, for small archives of text
_BLOCK = 1 << 20
# At once into memory: a zip's list of members, a tar's long name. 160 bytes for each of MOST_FILES.
_MOST_AT_ONCE = 16 * 2**20
_HEADER = 1024  # bytes of a tar beside a member's own, mostly
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others take as much memory as a file asks for
# What zipfile and tarfile raise for damaged files; for encrypted ones it is a RuntimeError.
_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, struct.error, EOFError, RuntimeError, ValueError)


@dataclass(frozen=True)
class _Member:
    """A file, or a folder (``open`` is None) of no size."""

    name: str
    size: int
    open: Callable[[], IO[bytes]] | None


class _Bounded:
    """A file that refuses to give much at once, or from beyond a place: what an archive claims is not to be trusted
    with memory or time."""

    def __init__(self, file: IO[bytes], end: int | None = None) -> None:
        self._file, self._end = file, end
        self.seek, self.tell, self.close, self.flush = file.seek, file.tell, file.close, file.flush

    def seekable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        asked = -1 if size is None or size < 0 else size
        if asked > _MOST_AT_ONCE:
            raise ValueError(f"one entry claims {asked} bytes of names")
        data = self._file.read(_MOST_AT_ONCE + 1 if asked < 0 else asked)
        if len(data) > _MOST_AT_ONCE or (self._end is not None and self._file.tell() > self._end):
            raise ValueError("it goes on far beyond its members")
        return data


def look_at(archive: Path) -> None:
    """Raise the FormatError that :func:`unpack` would, as far as it shows without unpacking anything."""
    with _opened(archive):
        pass


def unpack(archive: Path, folders: Mapping[str, Path], progress: Progress) -> None:
    """Unpack the folders of ``archive`` that are named by the keys of ``folders`` into the new folders of its values.

    The whole archive is looked at before anything is written: every member must be a file or a folder with a relative
    path, without "..", once; links and devices are refused, wherever they lead.

    Raises:
        FormatError: no zip or tar file, a damaged one, one with such a member, or one that grows too large; or one
            without a file below a key.
        OutputError: there is no room for it.
    """
    with _opened(archive) as members:
        chosen = _chosen(archive, members, folders)
        _require_room(archive, chosen)
        total = sum(member.size for _, member in chosen)
        progress.start("unpack", len(chosen))
        for done, (path, member) in enumerate(chosen, 1):
            with told(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                _write(archive, member, path)
            progress.advance(done)
        progress.finish(f"{len(chosen)} files, {total / 1e6:.1f} MB")


def _chosen(archive: Path, members: list[_Member], folders: Mapping[str, Path]) -> list[tuple[Path, _Member]]:
    """Where each member goes that lies below a key of ``folders``."""
    found: list[tuple[Path, _Member]] = []
    for prefix, folder in folders.items():
        below = [(PurePosixPath(m.name), m) for m in members if PurePosixPath(m.name).is_relative_to(prefix)]
        if not below:
            raise FormatError(f"{archive}: holds no file in a folder '{prefix}'.", path=archive)
        found += [(folder / path.relative_to(prefix), member) for path, member in below]
    return found


def _require_room(archive: Path, chosen: list[tuple[Path, _Member]]) -> None:
    wanted: dict[int, int] = {}
    places: dict[int, Path] = {}
    for path, member in chosen:
        folder = next(each for each in path.parents if each.exists())
        disk = os.stat(folder).st_dev
        wanted[disk], places[disk] = wanted.get(disk, 0) + member.size, folder
    for disk, folder in places.items():
        room = shutil.disk_usage(folder).free
        if wanted[disk] > room:
            raise OutputError(
                f"{archive} unpacks to {wanted[disk] / 1e9:.1f} GB, and the disk of {folder} has {room / 1e9:.1f} GB "
                "left.",
                hint="Free some space, or choose another folder with --to.",
                path=archive,
            )


def _write(archive: Path, member: _Member, path: Path) -> None:
    """One file; no more of it than its archive has promised."""
    left = member.size
    with member.open() as source, open(path, "xb") as target:
        while block := source.read(_BLOCK):
            left -= len(block)
            if left < 0:
                break
            target.write(block)
    if left != 0:
        raise FormatError(f"{archive}, '{member.name}': is not as long as the archive says.", path=archive)


@contextmanager
def _opened(archive: Path) -> Iterator[list[_Member]]:
    """The files of a zip or tar archive, each of them checked."""
    most = MOST_GROWTH * archive.stat().st_size + ALLOWANCE
    end = int(most) + _HEADER * MOST_FILES
    try:
        with open(archive, "rb") as file:
            if zipfile.is_zipfile(_Bounded(file)):
                with zipfile.ZipFile(_Bounded(file)) as zipped:
                    _check_count(file, zipped)
                    yield _checked(archive, _zip_members(archive, zipped), most)
                return
            file.seek(0)
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            plain = _Bounded(gzip.GzipFile(fileobj=file) if packed else file, end)
            try:
                tarred = tarfile.TarFile(fileobj=plain)
            except tarfile.TarError as error:
                if packed:
                    raise
                raise FormatError(
                    f"{archive}: is neither a zip nor a tar file.",
                    hint="A web page may have been saved in its place: delete it, and fetch it again.",
                    path=archive,
                ) from error
            with tarred:
                members = _checked(archive, _tar_members(archive, tarred), most)
                while packed and plain.read(_BLOCK):  # up to gzip's checksum
                    pass
                yield members
    except OSError as error:
        # zipfile seeks to places before the file's begin, gzip has errors of its own.
        if error.errno not in (None, errno.EINVAL):
            raise
        raise _damaged(archive, error) from error
    except _DAMAGE as error:
        raise _damaged(archive, error) from error


def _check_count(file: IO[bytes], zipped: zipfile.ZipFile) -> None:
    """zipfile does not compare how many members there are with how many there should be."""
    file.seek(max(0, file.seek(0, os.SEEK_END) - 66_000))  # the end record, with the longest comment
    tail = file.read()
    place = tail.rfind(b"PK\5\6") + 10
    said, found = int.from_bytes(tail[place : place + 2], "little"), len(zipped.infolist())
    if said not in (0xFFFF, found % 2**16):  # 0xFFFF: another record says it
        raise zipfile.BadZipFile(f"it lists {found} members and says {said}")


def _zip_members(archive: Path, zipped: zipfile.ZipFile) -> Iterator[_Member]:
    for info in zipped.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        # What was packed elsewhere than on Unix has no kind.
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _refused(archive, info.filename, "a link or a device; expected files and folders")
        if info.compress_type not in _METHODS:
            why = f"packed by method {info.compress_type}; expected stored or deflated"
            raise _refused(archive, info.filename, why)
        opener = None if info.orig_filename.endswith("/") else lambda info=info: zipped.open(info)
        if opener is not None:
            opener().close()  # compares its name with the one before its bytes: of members that nobody wants, too
        yield _Member(info.orig_filename, 0 if opener is None else info.file_size, opener)


def _tar_members(archive: Path, tarred: tarfile.TarFile) -> Iterator[_Member]:
    for info in tarred:
        if not (info.isreg() or info.isdir()):
            raise _refused(archive, info.name, "a link or a device; expected files and folders")
        if info.size < 0:
            raise _refused(archive, info.name, f"of {info.size} bytes")
        opener = None if info.isdir() else lambda info=info: tarred.extractfile(info)
        yield _Member(info.name, 0 if opener is None else info.size, opener)


def _check_name(archive: Path, member: _Member) -> None:
    name, path = member.name, PurePosixPath(member.name)
    # Backslashes and colons lead elsewhere on Windows. A folder may be the archive's own, ".".
    nowhere = not path.parts and member.open is not None
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or "\0" in name or nowhere:
        raise _refused(archive, name, "a path that leads out of its folder; expected relative ones")


def _checked(archive: Path, members: Iterator[_Member], most: float) -> list[_Member]:
    """The files among ``members``, which may have ``most`` bytes together."""
    files: dict[str, _Member] = {}
    folders: dict[str, str] = {}  # that files lie in → the last of them
    total = 0
    for count, member in enumerate(members, 1):
        _check_name(archive, member)
        if count > MOST_FILES:
            raise FormatError(f"{archive}: holds more than {MOST_FILES} files.", path=archive)
        if member.open is None:
            continue
        path = PurePosixPath(member.name)
        key = _on_any_disk(path)
        if key in files:
            twice = files[key].name
            why = "there twice" if PurePosixPath(twice) == path else f"the same file as '{twice}' on many disks"
            raise _refused(archive, member.name, f"{why}; expected each file once")
        files[key] = member
        folders |= {_on_any_disk(folder): member.name for folder in path.parents}
        total += member.size
        if total > most:
            raise FormatError(
                f"{archive}: unpacks to more than {most / 1e6:.0f} MB, {MOST_GROWTH:g} times its own size and "
                f"{ALLOWANCE / 1e6:.0f} MB; photos do not shrink like that.",
                path=archive,
            )
    for key in files.keys() & folders.keys():
        raise _refused(archive, files[key].name, f"a file, and a folder for '{folders[key]}'; expected one of them")
    return list(files.values())


def _on_any_disk(path: PurePosixPath) -> str:
    """What a disk takes a path for that tells neither capitals nor ways to write an accent apart."""
    return unicodedata.normalize("NFC", str(path)).casefold()


def _damaged(archive: Path, error: Exception) -> FormatError:
    return FormatError(
        f"{archive}: is damaged, or cannot be unpacked ({error}).", hint="Delete it and fetch it again.", path=archive
    )


def _refused(archive: Path, name: str, why: str) -> FormatError:
    return FormatError(f"{archive}: '{name}' is {why}.", hint="Nothing was unpacked.", path=archive)
