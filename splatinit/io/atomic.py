"""Writing so that a crash leaves either the old file or the new one: temporary file, fsync, rename.

The one place that writes into users' folders, and so the one that says what went wrong when a disk is full, read-only
or gone, and that refuses to write where a folder held by this process (see :mod:`splatinit.io.locks`) has vanished:
its path may by then lead to another disk.
"""

from __future__ import annotations

import errno
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import OutputError

_MARK = ".tmp-"  # between the stem and what makes a temporary name unique
_TEMPORARY = re.compile(r"\..*\.tmp-[a-z0-9_]{8}(\.[^.]*)?")
_STEM = 40  # characters of a name that its temporary one repeats: together they must not become too long

# errno → what to do about it, for failures that lie with the disk and not with the program
_AGAIN = "then give the same command again: nothing that was finished is lost."
_FULL = f"Free some space on that disk, {_AGAIN}"
_LOST = f"Look whether the disk or network share is still connected and healthy, {_AGAIN}"
_DENIED = "Choose another --out, or make the folder writable."
HINTS: dict[int, str] = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), _FULL),
    errno.EFBIG: "Raise the limit on file sizes (ulimit -f), or choose another disk.",
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _DENIED),
    **dict.fromkeys((errno.EIO, errno.ENODEV, errno.ENXIO, errno.ETIMEDOUT), _LOST),
    **{getattr(errno, name): _LOST for name in ("ESTALE", "ENOTCONN", "EHOSTDOWN") if hasattr(errno, name)},
    **dict.fromkeys((errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP), "Choose another --out."),
    errno.ENAMETOOLONG: "Choose a shorter --out.",
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), f"Raise the limit on open files (ulimit -n), {_AGAIN}"),
}
_WRITE_HINTS = {**HINTS, errno.ENOENT: _LOST}  # a folder that was made a moment ago is gone

_guarded: dict[Path, tuple[int, int]] = {}  # folder that this process holds → (device, inode)


# ------------------------------------------------------------------------------------------------------------ writing
@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` to write to; renamed to ``path`` (after fsync) if the block succeeds.

    The temporary name keeps the suffix of ``path``, because many writers choose the format by it.

    Raises OutputError, with the reason in words, where the file cannot be written; what was at ``path`` is then as it
    was. Errors of the block that come from elsewhere pass unchanged.
    """
    path = Path(path)
    with told(path):
        _refuse_vanished(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem[:_STEM]}{_MARK}", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            # mkstemp makes files private; the result should have the permissions of any other new file.
            mask = os.umask(0)
            os.umask(mask)
            os.chmod(temporary, 0o666 & ~mask)
            os.replace(temporary, path)
            fsync_folder(path.parent)
        finally:
            with suppress(OSError):  # a disk that is gone must not hide the error that says so
                temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """JSON with sorted-by-insertion keys and no NaN (NaN is not JSON: callers write null)."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def append_text(path: Path, text: str) -> None:
    """Add to the end of a log. Not atomic: a crash may leave part of ``text``, which the log's reader must expect."""
    with told(path):
        _refuse_vanished(path)
        with open(path, "a", encoding="utf-8") as file:
            file.write(text)


def fsync_folder(folder: Path) -> None:
    """Make renames in it durable; not every platform can open a folder, and there the rename is all there is."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_leftovers(paths: Iterable[Path]) -> list[Path]:
    """Remove the temporary files of killed processes among ``paths``; returns what was removed.

    Only for folders that this process holds: elsewhere such a file may be one that is just being written.
    """
    found = [path for path in paths if is_temporary(path)]
    for path in found:
        path.unlink(missing_ok=True)
    return found


def is_temporary(path: Path, of: Path | None = None) -> bool:
    """Whether a file is named as :func:`atomic_path` names one before it is complete: for any path, or for ``of``."""
    if of is not None and not (path.suffix == of.suffix and path.name.startswith(f".{of.stem[:_STEM]}{_MARK}")):
        return False
    return _TEMPORARY.fullmatch(path.name) is not None and path.is_file()


# ----------------------------------------------------------------------------------------------------------- failures
@contextmanager
def told(path: Path) -> Iterator[None]:
    """Turns errors of writing ``path`` into OutputError. An error that names a file elsewhere is not about it."""
    try:
        yield
    except OSError as error:
        here = error.filename is None or Path(os.fsdecode(error.filename)).parent == path.parent
        below = error.filename is not None and path.is_relative_to(os.fsdecode(error.filename))  # while making folders
        if error.errno not in _WRITE_HINTS or not (here or below):
            raise
        raise OutputError(
            f"{path} could not be written: {os.strerror(error.errno)}.",
            hint=_WRITE_HINTS[error.errno],
            path=path,
            errno=error.errno,
        ) from error


def guard(folder: Path) -> None:
    """From now on, write nothing below ``folder`` unless it is still the one that it is now."""
    status = os.stat(folder)
    _guarded[folder.absolute()] = (status.st_dev, status.st_ino)


def unguard(folder: Path) -> None:
    """End what :func:`guard` began."""
    _guarded.pop(folder.absolute(), None)


def _refuse_vanished(path: Path) -> None:
    absolute = path.absolute()
    for folder, identity in list(_guarded.items()):
        if not absolute.is_relative_to(folder):
            continue
        try:
            status = os.stat(folder)
            found = (status.st_dev, status.st_ino)
        except FileNotFoundError:
            found = None
        if found != identity:
            raise OutputError(
                f"Output folder {folder} has vanished: it was moved or removed, or its disk is no longer mounted.",
                hint=f"Bring it back, {_AGAIN}",
                path=folder,
                errno=errno.ENOENT,
            )
