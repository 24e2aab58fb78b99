"""Executors: who does the runs of a sweep, and where.

To add one: write ``sweep/NAME.py`` with a function ``work(ledger, config, stop)`` that does what is left in a
:class:`splatinit.sweep.ledger.Ledger` until ``stop()`` is true, with the frozen config dataclass of its settings (the
options of ``splatinit sweep``), and add its spec below. A run is the same process with every executor
(:mod:`splatinit.sweep.worker`), and so is what it leaves.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..progress import Progress, Silent
from ..registry import Registry, Spec
from .folder import SweepFolder
from .ledger import Ledger, Outcome
from .plan import SweepPlan
from .store import collect, require_arrow

EXECUTORS: Registry[Spec] = Registry("executor")
EXECUTORS.register(
    Spec(
        name="local",
        impl="splatinit.sweep.local:work",
        config="splatinit.sweep.local:LocalConfig",
        summary="processes of this machine, as many at a time as cores and memory allow",
    )
)
EXECUTORS.register(
    Spec(
        name="ray",
        impl="splatinit.sweep.on_ray:work",
        config="splatinit.sweep.on_ray:RayConfig",
        summary="tasks of a Ray cluster of any size, GPUs shared by fractions, lost ones tried again",
        source="Ray: Moritz et al. 2018, arXiv:1712.05889; ray >= 2.40",
        status="complete for clusters whose nodes share the sweep's folder",
        needs=("ray",),
        extra="ray",
    )
)


def run_sweep(
    plan: SweepPlan,
    root: Path,
    *,
    executor: str = "local",
    jobs: int | None = None,
    retry_failed: bool = False,
    progress: Progress = Silent(),
    stop: Callable[[], bool] = lambda: False,
    **settings: Any,
) -> Outcome:
    """Do what is left of ``plan`` in the sweep folder ``root``, and write its tables.

    Args:
        executor: one of EXECUTORS; ``settings`` are further fields of its config (ray: address, gpus_per_run).
        jobs: runs at a time; None: as many as the executor finds room for.
        retry_failed: try again what failed before; without it, such runs stay failed.
        progress: one note per run that ended.
        stop: asked all the time; once true, workers write their checkpoints and the call returns.

    Raises ConfigError for an unknown executor, a setting that it has not or that does not fit; MissingExtra without
    pyarrow or what the executor needs; OutputError where ``root`` cannot be written.
    """
    require_arrow()
    config = _config(executor, {"jobs": jobs, **settings})
    work = EXECUTORS.load(executor)
    folder = SweepFolder(Path(root))
    folder.write_plan(plan)
    began = time.perf_counter()
    ledger = Ledger(folder, plan, retry_failed=retry_failed, progress=progress)
    work(ledger, config, stop)
    ledger.outcome.notes += collect(folder).notes
    ledger.outcome.seconds = time.perf_counter() - began
    return ledger.outcome


def _config(executor: str, settings: Mapping[str, Any]) -> Any:
    """The executor's config with those settings that are not None."""
    config = EXECUTORS.config_class(executor)
    given = {key: value for key, value in settings.items() if value is not None}
    known = [field.name for field in dataclasses.fields(config)]
    strange = [f"--{key.replace('_', '-')}" for key in given if key not in known]
    if strange:
        raise ConfigError(
            f"{' and '.join(strange)}: the executor '{executor}' has no such option.",
            hint="Leave it out, or choose another one with --executor; `splatinit list` shows all.",
        )
    return config(**given)
