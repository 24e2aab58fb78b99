"""How long a sweep will take: from runs of it that are finished, else from a short probe."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import FormatError
from ..io.runs import RunFolder
from .folder import SweepFolder
from .plan import PlannedRun, SweepPlan, run_hash
from .posing import find_poses
from .processes import start_worker, wait_for
from .shares import Shares, share_out
from .store import gather
from .worker import job_line

PROBE_STEPS = 60
# A step takes longer as densification adds Gaussians: twice the first ones on average (fox, 7000 steps of adc: 73 in
# place of 34 ms).
_GROWTH = 2.0
# Starting a process and reading photos, s a run: what the stages do not count.
_START = 3.0


@dataclass(frozen=True)
class Estimate:
    """What is left of a sweep.

    Attributes:
        runs: left to be done.
        seconds: they will take, about; None where nothing is known yet.
        shares: how the machine is shared out among them.
        basis: where the seconds come from, in words.
    """

    runs: int
    seconds: float | None
    shares: Shares
    basis: str


@dataclass(frozen=True)
class _Cost:
    """Seconds of one run: ``fixed`` and ``per_step``."""

    fixed: float
    per_step: float

    def of(self, run: PlannedRun) -> float:
        train = run.config.train
        if train.seconds is not None:  # the start's share of the fixed cost is part of it
            return self.fixed + train.seconds
        return self.fixed + self.per_step * train.steps


def estimate(
    plan: SweepPlan,
    root: Path,
    *,
    jobs: int | None = None,
    retry_failed: bool = False,
    probe: bool = True,
    stop: Callable[[], bool] = lambda: False,
) -> Estimate:
    """How long the rest of ``plan`` will take in the sweep folder ``root``.

    Each run is expected to take what a finished one of its scene and variant took, or the nearest that there is. Where
    none is finished, ``probe`` trains PROBE_STEPS steps of the first run; its poses are kept for the sweep.
    """
    folder = SweepFolder(Path(root))
    rows = [row for row in gather(folder).tables["runs"] if row["status"] == "done"] if folder.plan.is_file() else []
    done = {row["run"] for row in rows}
    left = [
        run
        for run in plan.runs
        if run.hash not in done and (retry_failed or folder.failure(run.hash) is None)  # as run_sweep chooses
    ]
    shares = share_out([run.config for run in left], jobs)
    if not left:
        return Estimate(0, 0.0, shares, "nothing is left")
    if rows:
        seconds = sum(_nearest_cost(run, rows).of(run) for run in left)
        return Estimate(len(left), seconds / shares.jobs, shares, f"from {len(rows)} finished runs")
    cost = _probed(folder, left[0], shares, stop) if probe else None
    if cost is None:
        return Estimate(len(left), None, shares, "no run is finished yet")
    seconds = sum(cost.of(run) for run in left)
    steps = min(PROBE_STEPS, left[0].config.train.steps)
    return Estimate(len(left), seconds / shares.jobs, shares, f"roughly, from {steps} steps of {left[0].name}")


def _nearest_cost(run: PlannedRun, rows: Sequence[Mapping[str, Any]]) -> _Cost:
    """The median cost of the finished runs that are most like ``run``."""
    for key in (("scene", "label"), ("label",), ("scene",), ()):
        alike = [row for row in rows if all(row[name] == getattr(run, name) for name in key)]
        if alike:
            break
    fixed = [sum(row[f"seconds_{stage}"] for stage in ("init", "eval")) for row in alike]
    steps = [row["seconds_train"] / max(1, row["steps"]) for row in alike]
    return _Cost(_START + statistics.median(fixed), statistics.median(steps))


def _probed(folder: SweepFolder, run: PlannedRun, shares: Shares, stop: Callable[[], bool]) -> _Cost | None:
    """The cost of a run by its first steps; None where the probe failed: the sweep itself will say why."""
    if find_poses(folder, {folder.poses(run): run}, stop):
        return None
    place = SweepFolder(folder.root / "probe")
    config = run.config.expand()
    steps = min(PROBE_STEPS, run.config.train.steps)
    config["train"] = config["train"] | {"steps": steps, "seconds": None}
    # One run alone, with the threads that it will have.
    job = job_line(place, run.path, config, folder.poses(run))
    process = start_worker(job, place.log(run_hash(run.path, config)), replace(shares, jobs=1))
    wait_for(process, stop)
    try:
        record = RunFolder(place.runs / run_hash(run.path, config)).record()
    except FormatError:
        record = {}
    shutil.rmtree(place.root, ignore_errors=True)
    if "eval" not in record:
        return None
    growth = 1.0 if run.config.densify.name in ("none", "prune") else _GROWTH
    fixed = record["init"]["seconds"] + record["eval"]["seconds"]
    return _Cost(_START + fixed, growth * record["train"]["seconds"] / steps)
