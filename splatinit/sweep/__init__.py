"""Sweeps: the same trainer over scenes × starts × seeds, planned, run so that it can be killed, and kept in tables.

    plan.py      a sweep file → an ordered list of runs, each with its frozen config
    folder.py    what lies where in a sweep's folder
    ledger.py    what is left of them, and what became of those that were tried
    executors.py who does them: the registry, and run_sweep
    local.py     in processes on this machine, as many as shares.py says   on_ray.py    in tasks of a Ray cluster
    posing.py    finds the poses first                                     estimate.py  how long it will take
    worker.py    what one process does                                     processes.py starting and ending it
    store.py     run folders → the tables ``results/*.parquet``

Each run is an ordinary run folder, as ``splatinit run`` makes it. Nothing is known of a sweep beyond its folder: what
is finished is what the run folders say, so that whatever is killed, the same command goes on.
"""

from .folder import SweepFolder
from .plan import PlannedRun, SweepPlan, expand, make_plan, read_plan

__all__ = ["PlannedRun", "SweepFolder", "SweepPlan", "expand", "make_plan", "read_plan"]
