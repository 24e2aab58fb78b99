"""One process in a folder: the second is refused by name, a dead one's lock is taken over, nothing is left behind."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from splatinit.errors import FolderInUse, OutputError
from splatinit.io import locks
from splatinit.io.atomic import write_text
from splatinit.io.locks import NAME, hold

HOLDER = """
import sys, time
from splatinit.io.locks import hold
with hold(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(params=["kernel", "name"])
def way(request, monkeypatch) -> str:
    """Both kinds of lock: the kernel's, and the file's where a file system has no other."""
    if request.param == "name":
        fcntl = pytest.importorskip("fcntl")

        def refuse(handle: int, how: int) -> None:
            raise OSError(errno.ENOLCK, "no locks here")

        monkeypatch.setattr(fcntl, "flock", refuse)
    return request.param


def owner(**changes: object) -> str:
    value = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "started": "2026-01-02T10:31:00",
        "command": "splatinit x",
    }
    return json.dumps(value | changes)


def test_the_second_is_refused_and_nothing_is_left(tmp_path, way):
    folder = tmp_path / "a" / "run"
    with hold(folder) as notes:
        assert notes == () and json.loads((folder / NAME).read_text())["pid"] == os.getpid()
        with pytest.raises(FolderInUse, match=f"Output folder {folder} is in use by this very process"), hold(folder):
            pytest.fail("held twice")
        with hold(tmp_path / "other"):
            pass
    assert list(folder.iterdir()) == []
    with hold(folder):
        pass


def test_a_living_process_is_named_and_a_killed_one_taken_over(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "held\n"
        who = rf"in use by process {child.pid} on {re.escape(socket.gethostname())} \(started \d\d:\d\d, splatinit"
        with pytest.raises(FolderInUse, match=who) as refused, hold(tmp_path):
            pytest.fail("two at once")
        assert refused.value.pid == child.pid and f"remove {tmp_path / NAME}" in refused.value.hint
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert (tmp_path / NAME).exists()
    with hold(tmp_path) as notes:
        assert f"Taken over from process {child.pid}" in notes[0]


def test_without_locks_of_the_kernel_the_process_in_the_file_decides(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_flock", lambda handle: False)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / NAME).write_text(owner(pid=dead.pid))
    with hold(tmp_path) as notes:
        assert f"process {dead.pid}" in notes[0]
    (tmp_path / NAME).write_text(owner(pid=dead.pid, host="elsewhere"))  # nobody here can tell whether it lives
    with pytest.raises(FolderInUse, match=rf"process {dead.pid} on elsewhere \(started 10:31, splatinit x\)"):
        hold(tmp_path).__enter__()
    (tmp_path / NAME).write_text(owner(pid=1))
    with pytest.raises(FolderInUse, match="process 1 on"):
        hold(tmp_path).__enter__()
    (tmp_path / NAME).write_text("torn")
    with hold(tmp_path) as notes:
        assert notes == ()


def test_other_errors_of_the_file_system_are_told(tmp_path, monkeypatch):
    def broken(handle: int) -> bool:
        raise OSError(errno.EIO, "broken")

    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="could not be written"), hold(tmp_path / "file"):
        pass
    monkeypatch.setattr(locks, "_flock", broken)
    with pytest.raises(OutputError, match=f"{NAME} could not be written: Input/output error"), hold(tmp_path / "run"):
        pass


@pytest.mark.parametrize("fate", ["moved", "removed", "another"])
def test_nothing_is_written_where_a_held_folder_has_vanished(tmp_path, fate):
    folder = tmp_path / "mount" / "run"
    with hold(folder):
        write_text(folder / "deep" / "a.txt", "before")
        folder.rename(tmp_path / "moved")
        if fate == "another":  # as when a disk is unmounted and its mount point shows what is below
            folder.mkdir()
        before = sorted(Path(tmp_path).rglob("*"))
        with pytest.raises(OutputError, match=f"Output folder {folder} has vanished") as error:
            write_text(folder / "deep" / "a.txt", "after")
        assert sorted(Path(tmp_path).rglob("*")) == before and "Bring it back" in error.value.hint
        write_text(tmp_path / "elsewhere.txt", "")
    assert (tmp_path / "moved" / "deep" / "a.txt").read_text() == "before"
