"""The executor ``local``: each run of a plan in a process of its own on this machine, several at a time.

A run that dies takes nothing along: it becomes a failed row with its reason, and the next one begins.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

from .ledger import Ledger
from .plan import PlannedRun
from .posing import find_poses
from .processes import start_worker
from .shares import Shares, share_out, whole_machine

_POLL = 0.05  # s between two looks at the workers


@dataclass(frozen=True)
class LocalConfig:
    """Processes of this machine.

    Attributes:
        jobs: runs at a time; None: as many as cores and memory allow (:func:`splatinit.sweep.shares.share_out`).
    """

    jobs: int | None = None


def work(ledger: Ledger, config: LocalConfig, stop: Callable[[], bool]) -> None:
    """Do what is left, until ``stop`` is true: workers then write checkpoints. Raises ConfigError for jobs below 1."""
    pool = _Pool(ledger, share_out([run.config for run in ledger.waiting], config.jobs))
    try:
        pool.pose(stop)
        pool.work(stop)
    finally:
        pool.end_workers()


@dataclass
class _Worker:
    run: PlannedRun
    process: subprocess.Popen
    alone: bool
    began: float


class _Pool:
    """Starts workers and hears how they ended."""

    def __init__(self, ledger: Ledger, shares: Shares) -> None:
        self.ledger, self.shares = ledger, shares
        self.workers: list[_Worker] = []

    def pose(self, stop: Callable[[], bool]) -> None:
        """Have the poses of all that waits."""
        found = find_poses(self.ledger.folder, self.ledger.unposed(), stop, self.ledger.progress)
        self.ledger.begin()
        for poses, why in found.items():
            self.ledger.cannot_pose(poses, why)

    def work(self, stop: Callable[[], bool]) -> None:
        """Until nothing is left, or ``stop`` is true."""
        while self.ledger.left or self.workers:
            if stop():
                self.ledger.outcome.stopped = True
                return
            self._start_what_fits()
            for worker in [worker for worker in self.workers if worker.process.poll() is not None]:
                self.workers.remove(worker)
                self._ended(worker)
            self.ledger.look_elsewhere()
            time.sleep(_POLL)

    def _start_what_fits(self) -> None:
        waiting, alone = self.ledger.waiting, self.ledger.alone
        while waiting and len(self.workers) < self.shares.jobs and not any(each.alone for each in self.workers):
            self._start(waiting.pop(0))
        if alone and not waiting and not self.workers:
            self._start(alone.pop(0), alone=True)

    def _start(self, run: PlannedRun, *, alone: bool = False) -> None:
        if self.ledger.free(run):
            shares = whole_machine() if alone else self.shares
            process = start_worker(self.ledger.job(run), self.ledger.folder.log(run.hash), shares)
            self.workers.append(_Worker(run, process, alone, time.perf_counter()))

    def _ended(self, worker: _Worker) -> None:
        worker.process.stdin.close()
        seconds, roomy = time.perf_counter() - worker.began, worker.alone or self.shares.jobs == 1
        self.ledger.ended(worker.run, worker.process.returncode, seconds, roomy=roomy)

    def end_workers(self) -> None:
        """Ask all workers to stop, and wait for their checkpoints."""
        for worker in self.workers:
            worker.process.stdin.close()
        for worker in self.workers:
            worker.process.wait()
            if self.ledger.finished(worker.run):
                self.ledger.done(worker.run, time.perf_counter() - worker.began)
        self.workers.clear()
