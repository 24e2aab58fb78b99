"""What is left of a sweep and what became of it: what all executors have in common.

What is finished is what the run folders say, and their locks let one process work in each, so a sweep may be killed
anywhere, and several drivers may work on one, with whichever executor: whoever finds a run taken goes on to the next,
and at the end waits for what others still do.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..io.locks import is_held
from ..progress import Progress, Silent
from .folder import KeptRun, SweepFolder
from .plan import PlannedRun, SweepPlan
from .processes import how_it_ended
from .store import is_finished
from .worker import Exit, job_line, write_failure

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


class Ledger:
    """The runs of a plan, each in one place: waiting, alone, in the hands of an executor, elsewhere, done or failed.

    Attributes:
        waiting: to be done, in order.
        alone: had no memory beside others; to be done at the end, with as much as there is.
        by_hash: all runs.     poses: hash → where the run's poses lie.
        outcome: what is known so far.
    """

    def __init__(
        self, folder: SweepFolder, plan: SweepPlan, *, retry_failed: bool = False, progress: Progress = Silent()
    ) -> None:
        self.folder, self.progress, self.outcome = folder, progress, Outcome()
        self.by_hash = {run.hash: run for run in plan.runs}
        self.poses = {name: folder.poses(run) for name, run in self.by_hash.items()}
        self.waiting: list[PlannedRun] = []
        self.alone: list[PlannedRun] = []
        self._elsewhere: dict[str, float] = {}  # hash of a run that another process does → when to look again
        for name, run in self.by_hash.items():
            if self.finished(run):
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

    @property
    def left(self) -> bool:
        """Whether anything is to be done, here or by another process, beyond what executors have in hand."""
        return bool(self.waiting or self.alone or self._elsewhere)

    # ---------------------------------------------------------------------------------------------------------- before
    def begin(self) -> None:
        """Tell that the runs themselves begin."""
        self.progress.start("sweep", len(self.by_hash))

    def unposed(self) -> dict[Path, PlannedRun]:
        """Where the poses of all that waits will lie → the first run that needs them."""
        wanted: dict[Path, PlannedRun] = {}
        for run in self.waiting:
            wanted.setdefault(self.poses[run.hash], run)
        return wanted

    def cannot_pose(self, poses: Path, why: Mapping[str, str]) -> None:
        """The photos have no poses, and this is why: the runs that wait for them fail alike, without being tried."""
        for run in [run for run in self.waiting if self.poses[run.hash] == poses]:
            self.waiting.remove(run)
            self.fail(run, **why)

    def free(self, run: PlannedRun) -> bool:
        """Whether a run that was taken from ``waiting`` is still to be done; if not, what became of it is noted."""
        if self.held(run):
            self._leave_to_others(run)
            return False
        return not self._settled(run)

    def job(self, run: PlannedRun) -> str:
        """What a worker that does ``run`` reads."""
        return job_line(self.folder, run.path, run.config.expand(), self.poses[run.hash])

    # ----------------------------------------------------------------------------------------------------------- after
    def ended(self, run: PlannedRun, code: int, seconds: float, *, roomy: bool) -> None:
        """The worker process for ``run`` ended with this exit code after so long.

        roomy: nothing was beside it, so that more memory is not to be had.
        """
        if self.finished(run):
            self.done(run, seconds)
        elif code == Exit.IN_USE:
            self._leave_to_others(run)
        elif code == Exit.STOPPED:
            self.waiting.insert(0, run)
        else:
            self._failed(run, code, roomy)

    def done(self, run: PlannedRun, seconds: float | None = None) -> None:
        """Note it; ``seconds`` None: another process did it."""
        self.folder.failed(run.hash).unlink(missing_ok=True)
        self.outcome.done.append(run.hash)
        how = "by another process" if seconds is None else f"in {seconds:.0f} s"
        self.progress.note(f"done: {run.name} {how}")
        self._advance()

    def fail(self, run: PlannedRun, error: str, kind: str = "", stage: str = "") -> None:
        """Keep why it failed, and note it."""
        write_failure(self.folder, run.hash, error, kind, stage)
        self._note_failed(run, error)

    def _failed(self, run: PlannedRun, code: int, roomy: bool) -> None:
        failure = self.folder.failure(run.hash)
        if code != Exit.FAILED or failure is None:
            self.fail(run, how_it_ended(code, self.folder.log(run.hash)))
            return
        if failure["kind"] in ("OutOfMemory", "MemoryError") and not roomy:
            self.folder.failed(run.hash).unlink(missing_ok=True)
            self.alone.append(run)
            self.progress.note(f"{run.name}: no memory beside others; it is done alone at the end.")
            return
        self._note_failed(run, failure["error"])

    def _note_failed(self, run: PlannedRun, reason: str) -> None:
        self.outcome.failed[run.hash] = reason
        self.progress.note(f"failed: {run.name}: {reason.splitlines()[0]}")
        self._advance()

    def _advance(self) -> None:
        self.progress.advance(len(self.outcome.done) + len(self.outcome.failed), failed=len(self.outcome.failed))

    # ------------------------------------------------------------------------------------------------- other processes
    def look_elsewhere(self) -> None:
        """See what became of the runs that other processes do: they are done, failed, or waiting again."""
        now = time.monotonic()
        for name in [name for name, when in self._elsewhere.items() if now >= when]:
            run = self.by_hash[name]
            if self.held(run):
                self._leave_to_others(run)
                continue
            del self._elsewhere[name]
            if not self._settled(run):
                self.waiting.append(run)  # whoever did it was stopped or killed

    def _settled(self, run: PlannedRun) -> bool:
        """Whether another process has ended this run since this one began; it is noted then."""
        if self.finished(run):
            self.done(run)
            return True
        failure = self.folder.failure(run.hash)
        if failure is not None:
            self._note_failed(run, failure["error"])
        return failure is not None

    def _leave_to_others(self, run: PlannedRun) -> None:
        self._elsewhere[run.hash] = time.monotonic() + _PATIENCE

    def held(self, run: PlannedRun) -> bool:
        """Whether a process works on the run now."""
        return is_held(self.folder.claim(run.hash)) or is_held(self.folder.run(run.hash).root)

    def finished(self, run: PlannedRun) -> bool:
        """Whether the run is done, as its folder says."""
        return is_finished(self.folder, KeptRun(run.hash, run.scene, run.path, run.label, run.config.expand()))
