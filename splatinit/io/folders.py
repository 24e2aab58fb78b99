"""Whole folders that appear at once or not at all, the space they need, and the folder for what can be made again."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import OutputError
from .atomic import HINTS, fsync_folder

_MARK = ".partial-"  # between the name of a folder and what makes its temporary name unique
_ABANDONED = 3600.0  # s without a change after which an unfinished folder belongs to nobody


def cache_folder(kind: str) -> Path:
    """Where things of this kind are kept that can be made again: below SPLATINIT_CACHE, else in the user's cache."""
    named = os.environ.get("SPLATINIT_CACHE")
    if named:
        return Path(named).expanduser() / kind
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "splatinit" / kind


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside ``path`` to fill; when the block succeeds, its files are synced and it becomes
    ``path``, which must be absent or an empty folder then.

    A block that fails leaves nothing; a killed process leaves a hidden folder, which the next call for ``path``
    removes once nothing in it has changed for an hour.

    Raises OutputError where the folder cannot be written, or where another process made ``path`` meanwhile.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name[:40]}{_MARK}", dir=path.parent))
        yield temporary
        for folder, _, files in os.walk(temporary):
            for name in files:
                with open(os.path.join(folder, name), "rb+") as file:
                    os.fsync(file.fileno())
            fsync_folder(Path(folder))
        # mkdtemp makes folders private; the result should have the permissions of any other new folder.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o777 & ~mask)
        if path.is_dir():
            path.rmdir()  # raises unless it is empty
        os.rename(temporary, path)
        fsync_folder(path.parent)
    except OSError as error:
        raise _told(error, path, temporary) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def require_space(folder: Path, size: float, what: str, hint: str) -> None:
    """Raise OutputError, with both numbers, unless the disk of ``folder`` (which may not exist yet) has ``size`` bytes
    free for ``what``."""
    existing = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    free = shutil.disk_usage(existing).free
    if free < size:
        raise OutputError(
            f"{folder}: {what} takes about {_gigabytes(size)}, but its disk has {_gigabytes(free)} free.",
            hint=hint,
            path=folder,
        )


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def _told(error: OSError, path: Path, temporary: Path | None) -> OSError | OutputError:
    """The error as an OutputError where it is about this folder; one that names a file elsewhere stays as it is."""
    if error.filename is not None:
        named = Path(os.fsdecode(error.filename))
        ours = [place for place in (temporary, path) if place is not None]
        if not (path.is_relative_to(named) or any(named.is_relative_to(place) for place in ours)):
            return error
    if path.is_dir() and any(path.iterdir()):
        return OutputError(
            f"{path} could not be put in place: it was filled by somebody else meanwhile.",
            hint="Give the same command again with another folder.",
            path=path,
        )
    reason = os.strerror(error.errno) if error.errno else str(error)
    return OutputError(f"{path} could not be written: {reason}.", hint=HINTS.get(error.errno or 0), path=path)


def _remove_abandoned(path: Path) -> None:
    for folder in path.parent.iterdir():
        if not folder.name.startswith(f".{path.name[:40]}{_MARK}"):
            continue
        with suppress(OSError):
            newest = max(os.stat(place).st_mtime for place, _, _ in os.walk(folder))
            if time.time() - newest > _ABANDONED:
                shutil.rmtree(folder, ignore_errors=True)
