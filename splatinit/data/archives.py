"""Unpacking what others packed: nothing lands outside its folder, nothing grows without bound."""

from __future__ import annotations

import errno
import shutil
import stat
import struct
import tarfile
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

MOST_FILES = 100_000
# Photos hardly shrink in an archive: one that unpacks to more than this is a bomb, or is not of photos.
MOST_GROWTH = 5.0
ALLOWANCE = 64 * 2**20  # bytes beyond that, for small archives of text
_BLOCK = 1 << 20
# What zipfile and tarfile raise for damaged files; for encrypted ones it is a RuntimeError.
_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, struct.error, EOFError, RuntimeError, ValueError)


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    open: Callable[[], IO[bytes]]


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
        total = sum(member.size for _, member in chosen)
        room = shutil.disk_usage(archive.parent).free
        if total > room:
            raise OutputError(
                f"{archive} unpacks to {total / 1e9:.1f} GB, and its disk has {room / 1e9:.1f} GB left.",
                hint="Free some space, or choose another folder with --to.",
                path=archive,
            )
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
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as zipped:
                yield _checked(archive, _zip_members(archive, zipped))
        elif tarfile.is_tarfile(archive):
            with tarfile.open(archive) as tarred:
                yield _checked(archive, _tar_members(archive, tarred))
        else:
            raise FormatError(f"{archive}: is neither a zip nor a tar file.", path=archive)
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # zipfile seeks to places before the file's begin
            raise
        raise _damaged(archive, error) from error
    except _DAMAGE as error:
        raise _damaged(archive, error) from error


def _zip_members(archive: Path, zipped: zipfile.ZipFile) -> Iterator[_Member]:
    for info in zipped.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        # What was packed elsewhere than on Unix has no kind.
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _refused(archive, info.filename, "a link or a device; expected files and folders")
        _check_name(archive, info.orig_filename)
        if not info.is_dir():
            yield _Member(info.filename, info.file_size, lambda info=info: zipped.open(info))


def _tar_members(archive: Path, tarred: tarfile.TarFile) -> Iterator[_Member]:
    for info in tarred:
        if not (info.isreg() or info.isdir()):
            raise _refused(archive, info.name, "a link or a device; expected files and folders")
        _check_name(archive, info.name)
        if info.isreg():
            yield _Member(info.name, info.size, lambda info=info: tarred.extractfile(info))


def _check_name(archive: Path, name: str) -> None:
    path = PurePosixPath(name)
    # Backslashes and colons lead elsewhere on Windows.
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or "\0" in name or not path.parts:
        raise _refused(archive, name, "a path that leads out of its folder; expected relative ones")


def _checked(archive: Path, members: Iterator[_Member]) -> list[_Member]:
    most = MOST_GROWTH * archive.stat().st_size + ALLOWANCE
    found: dict[PurePosixPath, _Member] = {}
    total = 0
    for member in members:
        path = PurePosixPath(member.name)
        if path in found:
            raise _refused(archive, member.name, "there twice; expected each file once")
        found[path] = member
        total += member.size
        if len(found) > MOST_FILES:
            raise FormatError(f"{archive}: holds more than {MOST_FILES} files.", path=archive)
        if total > most:
            raise FormatError(
                f"{archive}: unpacks to more than {most / 1e6:.0f} MB, {MOST_GROWTH:g} times its own size and "
                f"{ALLOWANCE / 1e6:.0f} MB; photos do not shrink like that.",
                path=archive,
            )
    return list(found.values())


def _damaged(archive: Path, error: Exception) -> FormatError:
    return FormatError(
        f"{archive}: is damaged, or cannot be unpacked ({error}).", hint="Delete it and fetch it again.", path=archive
    )


def _refused(archive: Path, name: str, why: str) -> FormatError:
    return FormatError(f"{archive}: '{name}' is {why}.", hint="Nothing was unpacked.", path=archive)
