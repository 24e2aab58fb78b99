"""One process at a time in an output folder.

The lock is the kernel's (flock on ``.splatinit.lock``), which ends with its holder however that dies, so that a stale
one is taken over by itself. Where the file system knows no such locks, the file itself is the lock, and the process
number in it tells whether its holder still lives. The file says who holds it and goes when the folder is released.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from ..errors import FolderInUse
from .atomic import guard, told, unguard

NAME = ".splatinit.lock"
# What flock says on file systems that have no locks (some network and FUSE ones).
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)


@contextmanager
def hold(folder: Path) -> Iterator[tuple[str, ...]]:
    """Hold ``folder``, made if absent, for this block; yields notes for the user (a dead process's lock taken over).

    While it is held, :mod:`splatinit.io.atomic` writes nothing below it once it is moved, removed or unmounted.

    Raises:
        FolderInUse: another process holds it, or another part of this one.
        OutputError: it cannot be made or written to.
    """
    path = Path(folder) / NAME
    with told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, before = _take(path)
    try:
        with told(path):
            os.ftruncate(handle, 0)
            os.write(handle, json.dumps(_owner()).encode())
            guard(path.parent)
        yield () if before is None else (f"Taken over from {_who(before)}, which ended without releasing it.",)
    finally:
        unguard(path.parent)
        with suppress(OSError):  # a disk that is gone must not hide the error that says so
            if _same_file(handle, path):
                path.unlink()  # before the lock ends, so that nobody can hold the file that goes
        os.close(handle)


@contextmanager
def hold_when_free(folder: Path, seconds: float = 0.1) -> Iterator[tuple[str, ...]]:
    """As :func:`hold`, but waits while another process holds it, and looks again every ``seconds``."""
    while True:
        with ExitStack() as stack:
            try:
                notes = stack.enter_context(hold(folder))
            except FolderInUse as error:
                if error.context["pid"] == os.getpid():
                    raise  # it would wait for itself
            else:
                yield notes
                return
        time.sleep(seconds)


def is_held(folder: Path) -> bool:
    """Whether a process holds ``folder`` now. Somebody who takes it in this very moment may be told that it is in use,
    so this is for those who can come again."""
    path = Path(folder) / NAME
    try:
        handle = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        if _flock(handle):
            return False
        owner = _read(path)
        return owner is not None and _may_live(owner)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)


def _take(path: Path) -> tuple[int, dict[str, Any] | None]:
    """The open lock file, locked, and what a holder that died left in it."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            by_kernel = _flock(handle)
            # Its holder may have released and removed this very file in between, and another process made the next.
            if by_kernel and _same_file(handle, path):
                return os.dup(handle), _read(path)
        except BlockingIOError:
            raise _in_use(path) from None
        finally:
            os.close(handle)
        if not by_kernel:
            return _take_by_name(path)


def _flock(handle: int) -> bool:
    """Lock an open file; False where the system or the file system has no such locks."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # not Unix
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        raise
    return True


def _take_by_name(path: Path) -> tuple[int, dict[str, Any] | None]:
    """The lock where there are no locks: whoever makes the file holds it, until its process is gone."""
    before = _read(path)
    if before is not None and _may_live(before):
        raise _in_use(path)
    path.unlink(missing_ok=True)
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), before
    except FileExistsError:
        raise _in_use(path) from None


def _may_live(owner: dict[str, Any]) -> bool:
    """Whether the process that wrote this may still run; other machines' processes, and Windows', cannot be asked."""
    if owner["host"] != socket.gethostname() or sys.platform == "win32":
        return True
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # it is another user's
    return True


def _in_use(path: Path) -> FolderInUse:
    owner = _read(path)
    mine = owner is not None and (owner["pid"], owner["host"]) == (os.getpid(), socket.gethostname())
    who = "this very process" if mine else "another process" if owner is None else _who(owner)
    return FolderInUse(
        f"Output folder {path.parent} is in use by {who}.",
        hint=f"Wait until it ends, or choose another --out. If it no longer runs, remove {path}.",
        path=path.parent,
        pid=owner["pid"] if owner else None,
    )


def _owner() -> dict[str, Any]:
    started = datetime.now().astimezone().isoformat(timespec="seconds")
    command = " ".join(["splatinit" if i == 0 else part for i, part in enumerate(sys.argv)])
    return {"pid": os.getpid(), "host": socket.gethostname(), "started": started, "command": command[:200]}


def _who(owner: dict[str, Any]) -> str:
    return f"process {owner['pid']} on {owner['host']} (started {owner['started'][11:16]}, {owner['command']})"


def _read(path: Path) -> dict[str, Any] | None:
    """Who holds the lock; None when nobody says so (just made, or its holder died before it could write)."""
    try:
        owner = json.loads(path.read_bytes())
        return {"pid": int(owner["pid"]), **{key: str(owner[key]) for key in ("host", "started", "command")}}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _same_file(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except OSError:
        return False
