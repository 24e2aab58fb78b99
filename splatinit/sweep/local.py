"""The executor ``local``: each run of a plan in a process of its own on this machine, several at a time.

A run that dies takes nothing along: it becomes a failed row with its reason, and the next one begins. What is finished
is what the run folders say, and their locks let one process work in each, so a sweep may be killed anywhere, and two
drivers may work on one: whoever finds a run taken goes on to the next, and at the end waits for what others still do.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ..io.locks import is_held
from ..progress import Progress, Silent
from .folder import KeptRun, SweepFolder
from .plan import PlannedRun, SweepPlan
from .posing import find_poses
from .processes import how_it_ended, start_worker
from .shares import share_out, whole_machine
from .store import collect, is_finished, require_arrow
from .worker import Exit, job_line, write_failure

_POLL = 0.05  # s between two looks at the workers
_PATIENCE = 0.5  # s between two looks at what other processes do


@dataclass
class Outcome:
    """What became of a sweep: its runs by how they ended; ``stopped`` where it was asked to end early."""

    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)  # run → reason
    reused: int = 0  # of the done ones: finished before
    stopped: bool = False
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)


@dataclass
class _Worker:
    run: PlannedRun
    process: subprocess.Popen
    alone: bool
    began: float


def run_sweep(
    plan: SweepPlan,
    root: Path,
    *,
    jobs: int | None = None,
    retry_failed: bool = False,
    progress: Progress = Silent(),
    stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Do what is left of ``plan`` in the sweep folder ``root``, and write its tables.

    Args:
        jobs: runs at a time; None: as many as cores and memory allow (:func:`share_out`).
        retry_failed: try again what failed before; without it, such runs stay failed.
        progress: one note per run that ended.
        stop: asked all the time; once true, workers write their checkpoints and the call returns.

    Raises ConfigError for ``jobs`` below 1, MissingExtra without pyarrow, OutputError where ``root`` cannot be written.
    """
    require_arrow()
    folder = SweepFolder(Path(root))
    folder.write_plan(plan)
    driver = _Driver(folder, plan, jobs, retry_failed, progress)
    began = time.perf_counter()
    try:
        driver.pose(stop)
        driver.work(stop)
    finally:
        driver.end_workers()
    driver.outcome.notes += collect(folder).notes
    driver.outcome.seconds = time.perf_counter() - began
    return driver.outcome


class _Driver:
    """Starts workers and hears how they ended."""

    def __init__(
        self, folder: SweepFolder, plan: SweepPlan, jobs: int | None, retry_failed: bool, progress: Progress
    ) -> None:
        self.folder, self.progress, self.outcome = folder, progress, Outcome()
        self.by_hash = {run.hash: run for run in plan.runs}
        self.poses = {name: folder.poses(run) for name, run in self.by_hash.items()}
        self.waiting: list[PlannedRun] = []
        self.alone: list[PlannedRun] = []  # had no room beside others
        self.elsewhere: dict[str, float] = {}  # hash of a run that another process does → when to look again
        self.workers: list[_Worker] = []
        for name, run in self.by_hash.items():
            if self._finished(run):
                self.outcome.done.append(name)
                self.outcome.reused += 1
                continue
            failure = folder.failure(name)
            if failure is not None and retry_failed:
                folder.failed(name).unlink(missing_ok=True)
            elif failure is not None:
                self.outcome.failed[name] = failure["error"]
                continue
            self.waiting.append(run)
        self.shares = share_out([run.config for run in self.waiting], jobs)

    def pose(self, stop: Callable[[], bool]) -> None:
        """Have the poses of all that waits; runs whose photos have none fail alike, without being tried."""
        wanted: dict[Path, PlannedRun] = {}
        for run in self.waiting:
            wanted.setdefault(self.poses[run.hash], run)
        failed = find_poses(self.folder, wanted, stop, self.progress)
        self.progress.start("sweep", len(self.by_hash))
        for run in [run for run in self.waiting if self.poses[run.hash] in failed]:
            self.waiting.remove(run)
            why = failed[self.poses[run.hash]]
            write_failure(self.folder, run.hash, why["error"], why["kind"], why["stage"])
            self._note_failed(run, why["error"])

    def work(self, stop: Callable[[], bool]) -> None:
        """Until nothing is left, or ``stop`` is true."""
        while self.waiting or self.alone or self.workers or self.elsewhere:
            if stop():
                self.outcome.stopped = True
                return
            self._start_what_fits()
            for worker in [worker for worker in self.workers if worker.process.poll() is not None]:
                self.workers.remove(worker)
                self._ended(worker)
            self._look_elsewhere()
            time.sleep(_POLL)

    # ------------------------------------------------------------------------------------------------------- starting
    def _start_what_fits(self) -> None:
        while self.waiting and len(self.workers) < self.shares.jobs and not any(each.alone for each in self.workers):
            self._start(self.waiting.pop(0))
        if self.alone and not self.waiting and not self.workers:
            self._start(self.alone.pop(0), alone=True)

    def _start(self, run: PlannedRun, *, alone: bool = False) -> None:
        if self._held(run):
            self._leave_to_others(run)
            return
        if self._finished(run):
            self._done(run)
            return
        failure = self.folder.failure(run.hash)
        if failure is not None:  # in the hands of another process, since this one began
            self._note_failed(run, failure["error"])
            return
        shares = whole_machine() if alone else self.shares
        job = job_line(self.folder, run.path, run.config.expand(), self.poses[run.hash])
        process = start_worker(job, self.folder.log(run.hash), shares)
        self.workers.append(_Worker(run, process, alone, time.perf_counter()))

    # --------------------------------------------------------------------------------------------------------- ending
    def _ended(self, worker: _Worker) -> None:
        worker.process.stdin.close()
        run, code = worker.run, worker.process.returncode
        if self._finished(run):
            self._done(run, time.perf_counter() - worker.began)
        elif code == Exit.IN_USE:
            self._leave_to_others(run)
        elif code == Exit.STOPPED:
            self.waiting.insert(0, run)
        else:
            self._failed(worker)

    def _failed(self, worker: _Worker) -> None:
        run, code = worker.run, worker.process.returncode
        failure = self.folder.failure(run.hash)
        if code != Exit.FAILED or failure is None:
            reason = how_it_ended(code, self.folder.log(run.hash))
            write_failure(self.folder, run.hash, reason, "", "")
            self._note_failed(run, reason)
            return
        if failure["kind"] in ("OutOfMemory", "MemoryError") and not worker.alone and self.shares.jobs > 1:
            self.folder.failed(run.hash).unlink(missing_ok=True)
            self.alone.append(run)
            self.progress.note(f"{run.name}: no memory beside others; it is done alone at the end.")
            return
        self._note_failed(run, failure["error"])

    def _note_failed(self, run: PlannedRun, reason: str) -> None:
        self.outcome.failed[run.hash] = reason
        self.progress.note(f"failed: {run.name}: {reason.splitlines()[0]}")
        self._advance()

    def _done(self, run: PlannedRun, seconds: float | None = None) -> None:
        self.folder.failed(run.hash).unlink(missing_ok=True)
        self.outcome.done.append(run.hash)
        how = "by another process" if seconds is None else f"in {seconds:.0f} s"
        self.progress.note(f"done: {run.name} {how}")
        self._advance()

    def _advance(self) -> None:
        self.progress.advance(len(self.outcome.done) + len(self.outcome.failed), failed=len(self.outcome.failed))

    def end_workers(self) -> None:
        """Ask all workers to stop, and wait for their checkpoints."""
        for worker in self.workers:
            worker.process.stdin.close()
        for worker in self.workers:
            worker.process.wait()
            if self._finished(worker.run):
                self._done(worker.run, time.perf_counter() - worker.began)
        self.workers.clear()

    # ------------------------------------------------------------------------------------------------- other processes
    def _leave_to_others(self, run: PlannedRun) -> None:
        self.elsewhere[run.hash] = time.monotonic() + _PATIENCE

    def _look_elsewhere(self) -> None:
        now = time.monotonic()
        for name in [name for name, when in self.elsewhere.items() if now >= when]:
            run = self.by_hash[name]
            if self._held(run):
                self._leave_to_others(run)
                continue
            del self.elsewhere[name]
            failure = self.folder.failure(name)
            if self._finished(run):
                self._done(run)
            elif failure is not None:
                self._note_failed(run, failure["error"])
            else:
                self.waiting.append(run)  # whoever did it was stopped or killed

    def _held(self, run: PlannedRun) -> bool:
        return is_held(self.folder.claim(run.hash)) or is_held(self.folder.run(run.hash).root)

    def _finished(self, run: PlannedRun) -> bool:
        return is_finished(self.folder, KeptRun(run.hash, run.scene, run.path, run.label, run.config.expand()))
