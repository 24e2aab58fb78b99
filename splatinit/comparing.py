"""One scene from several starts: planned, run, told. What ``splatinit compare`` does, as a function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .progress import Progress, Silent

if TYPE_CHECKING:
    from .sweep import SweepFolder, SweepPlan
    from .sweep.ledger import Outcome


@dataclass(frozen=True)
class Compared:
    """What became of a comparison.

    Attributes:
        plan: its runs.      folder: where they and the tables ``results/*.parquet`` are.
        outcome: which runs are done, which failed and why, and whether it was stopped.
        page: the HTML page; None where no run is done.
    """

    plan: SweepPlan
    folder: SweepFolder
    outcome: Outcome
    page: Path | None


def compare(
    scene: str | Path,
    inits: Sequence[str] | None = None,
    *,
    out: str | Path | None = None,
    jobs: int | None = None,
    executor: str = "local",
    address: str | None = None,
    gpus_per_run: float | None = None,
    retry_failed: bool = False,
    progress: Progress = Silent(),
    stop: Callable[[], bool] = lambda: False,
    **asked: Any,
) -> Compared:
    """Start, train and score ``scene`` from each of ``inits`` (None: sfm, random, dense and nerf), and make the page.

    Given again, with other starts too, it does only what is missing.

    Args:
        out: folder of the comparison; ``sweeps/<scene>`` if None.
        jobs: runs at a time; None: as many as cores and memory allow.
        executor: who does the runs (:data:`splatinit.sweep.executors.EXECUTORS`); ``address`` and ``gpus_per_run``
            are for ``ray`` (:class:`splatinit.sweep.on_ray.RayConfig`).
        retry_failed: try again what failed before.
        stop: asked all the time; once true, checkpoints are written and the call returns.
        asked: ``seeds``, ``budget`` ("7000steps" or "2m"), ``points``, ``presets``, ``settings`` and ``name`` of
            :func:`splatinit.sweep.comparison.plan_comparison`.

    Raises ConfigError for what cannot be meant, MissingExtra where a package or part is not installed (before anything
    runs), OutputError where ``out`` cannot be written. A run that fails raises nothing: ``outcome.failed`` says why.
    """
    from .report.page import write_report
    from .report.tables import require_packages
    from .sweep import SweepFolder
    from .sweep.comparison import USUAL, plan_comparison
    from .sweep.executors import run_sweep

    require_packages()  # before the hours, not after them
    plan = plan_comparison(scene, USUAL if inits is None else inits, **asked)
    folder = SweepFolder(Path(out) if out is not None else Path("sweeps") / plan.name)
    outcome = run_sweep(
        plan,
        folder.root,
        executor=executor,
        jobs=jobs,
        address=address,
        gpus_per_run=gpus_per_run,
        retry_failed=retry_failed,
        progress=progress,
        stop=stop,
    )
    return Compared(plan, folder, outcome, write_report(folder.root).path if outcome.done else None)
