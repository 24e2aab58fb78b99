"""One run of a sweep, or the poses for many, in a process of its own: ``python -m splatinit.sweep.worker``.

The job is one line of JSON on standard input, which then stays open: its end, or a line more, asks the worker to stop,
so that a driver that was killed takes its workers along. A training stops after its checkpoint; elsewhere the process
ends at once, which is safe, because whatever lies under its final name is complete.

The exit code says how it went (see :class:`Exit`); the reason of a failure goes to ``failed/<hash>.json`` first.
"""

from __future__ import annotations

import _thread
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterable
from contextlib import suppress
from enum import IntEnum
from pathlib import Path
from typing import Any

from ..data.benchmarks import located
from ..errors import FolderInUse, SplatinitError
from ..io.atomic import write_json
from ..io.locks import hold
from .folder import KeptRun, SweepFolder, frozen_config
from .plan import run_hash
from .store import is_finished

GRACE = 2.0  # s after which a worker that was asked to stop ends, unless it trains: then a checkpoint comes first


class Exit(IntEnum):
    """How a worker ended."""

    DONE = 0
    FAILED = 3  # failed/<hash>.json says why
    IN_USE = 4  # another process does this run
    STOPPED = 5


def job_line(sweep: SweepFolder, path: str, config: dict[str, Any], poses: Path) -> str:
    """What a worker that does a run reads first; ``config`` is the expanded one."""
    return json.dumps({"sweep": str(sweep.root), **_task(path, config, poses)}) + "\n"


def posing_line(sweep: SweepFolder, tasks: Iterable[tuple[str, dict[str, Any], Path]], failures: Path) -> str:
    """What a worker that finds poses reads first: of each scene its path, an expanded config, and where they go.

    Why some could not be found will be in the file ``failures``: poses' folder → what :func:`write_failure` keeps.
    """
    tasks = [_task(*task) for task in tasks]
    return json.dumps({"sweep": str(sweep.root), "pose": tasks, "failures": str(failures)}) + "\n"


def _task(path: str, config: dict[str, Any], poses: Path) -> dict[str, Any]:
    return {"path": path, "config": config, "poses": str(poses)}


class _Told:
    """The progress of a worker: plain lines for its log, and the stage that it is in."""

    def __init__(self) -> None:
        self.stage = "start"
        self._began = time.perf_counter()

    def start(self, stage: str, total: int | None = None) -> None:
        self.stage, self._began = stage, time.perf_counter()

    def advance(self, done: int, **fields: float | int | str) -> None: ...

    def finish(self, summary: str = "") -> None:
        print(f"{self.stage}: {summary} ({time.perf_counter() - self._began:.1f} s)", flush=True)

    def note(self, text: str) -> None:
        print(f"note: {text}", flush=True)


class _Stop:
    """Whether somebody asked this process to stop."""

    def __init__(self, told: _Told) -> None:
        self.asked = threading.Event()
        self._told = told
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a driver in the background passes on "ignored"
        threading.Thread(target=self._watch, daemon=True).start()

    def __call__(self) -> bool:
        return self.asked.is_set()

    def _watch(self) -> None:
        os.read(sys.stdin.fileno(), 1)
        self.asked.set()
        if self._told.stage == "train":
            return
        _thread.interrupt_main()  # lets go of locks and scratch folders, where it is heard
        time.sleep(GRACE)
        if self._told.stage != "train":
            os._exit(Exit.STOPPED)


def main() -> int:
    """Do what standard input says."""
    job = json.loads(_line(sys.stdin.fileno()))
    told = _Told()
    stop = _Stop(told)
    try:
        return _pose(job, told) if "pose" in job else _run(job, told, stop)
    except KeyboardInterrupt:
        return Exit.STOPPED


def _pose(job: dict[str, Any], told: _Told) -> Exit:
    from ..pipeline import share_poses

    _begin_log()
    failures = {}
    for task in job["pose"]:
        try:
            config = frozen_config(task["config"], str(SweepFolder(Path(job["sweep"])).plan))
            share_poses(located(task["path"]), Path(task["poses"]), config=config, progress=told)
        except Exception as error:  # the other scenes' poses are wanted whatever it is
            failures[task["poses"]] = _reason(error, told.stage)
            write_json(Path(job["failures"]), failures)
    return Exit.DONE


def _run(job: dict[str, Any], told: _Told, stop: _Stop) -> Exit:
    sweep, run = SweepFolder(Path(job["sweep"])), run_hash(job["path"], job["config"])
    try:
        with hold(sweep.claim(run)):
            return _claimed(sweep, run, job, told, stop)
    except FolderInUse:
        return Exit.IN_USE


def _claimed(sweep: SweepFolder, run: str, job: dict[str, Any], told: _Told, stop: _Stop) -> Exit:
    """Do the run, which no other worker has now."""
    if is_finished(sweep, KeptRun(run, "", job["path"], "", job["config"])):
        return Exit.DONE  # by another one, while this one started
    if sweep.failure(run) is not None:
        return Exit.FAILED
    _begin_log()
    try:
        from ..pipeline import run as whole_line

        config = frozen_config(job["config"], str(sweep.plan))
        result = whole_line(
            located(job["path"]), sweep.run(run).root, config=config, poses=Path(job["poses"]), progress=told, stop=stop
        )
    except FolderInUse as error:
        if error.context["path"] == sweep.run(run).root:
            return Exit.IN_USE
        return _failed(sweep, run, told.stage, error)
    except Exception as error:  # a bug must not end the sweep either
        if stop():
            return Exit.STOPPED  # some library made an error of its own of the interrupt
        return _failed(sweep, run, told.stage, error)
    if result.interrupted:
        return Exit.STOPPED
    sweep.failed(run).unlink(missing_ok=True)
    return Exit.DONE


def _begin_log() -> None:
    """Forget what an earlier process for this run printed."""
    with suppress(OSError):  # not a file: somebody looks on
        os.ftruncate(sys.stdout.fileno(), 0)


def _line(handle: int) -> bytes:
    """One line, and not a byte more: what follows it is for the thread that watches."""
    found = bytearray()
    while (byte := os.read(handle, 1)) not in (b"", b"\n"):
        found += byte
    return bytes(found)


def _failed(sweep: SweepFolder, run: str, stage: str, error: Exception) -> Exit:
    write_json(sweep.failed(run), _reason(error, stage))
    return Exit.FAILED


def _reason(error: Exception, stage: str) -> dict[str, str]:
    traceback.print_exception(error)
    if isinstance(error, SplatinitError):
        text = str(error)
    elif isinstance(error, MemoryError):
        text = "There was not enough memory."
    else:
        text = f"{type(error).__name__}: {error}"
    return {"error": text, "kind": type(error).__name__, "stage": stage}


def write_failure(sweep: SweepFolder, run: str, error: str, kind: str, stage: str) -> None:
    """Keep why the run with this hash failed. ``kind``: the name of the error's class; ``stage``: where it came."""
    write_json(sweep.failed(run), {"error": error, "kind": kind, "stage": stage})


if __name__ == "__main__":
    sys.exit(main())
