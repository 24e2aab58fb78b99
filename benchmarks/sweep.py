"""What a sweep costs beyond its runs, and whether several at a time are worth it.

    python benchmarks/sweep.py SCENE [--steps 300] [--max-size 160] [--inits sfm,random] [--seeds 2] [--jobs 1,2]

The same sweep is done anew in a fresh folder for each number of jobs. What is measured:

    wall s          of the whole sweep, from the plan to the tables, its processes' starts among them.
    poses s         of the poses that runs share, each found once, with all cores.
    run s           of one run's stages (read, init, train, eval), the mean over runs: what a run itself takes.
    overhead s/run  (jobs × (wall − poses) − the sum of the runs' stages) / runs: starting Python and torch, locks,
                    seals, tables, waiting. With jobs > 1 it holds idle time at the end too.
    by hand         the same of one `splatinit run`, above the table: its wall time beyond its stages, which is what
                    any process costs. The sweep's own overhead is the difference.
    ratio           wall seconds of the first number of jobs over these: above 1, several at a time are faster.

The renders of all must be the same, whatever the number of jobs; where they are not, it exits 1.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from splatinit import environment
from splatinit.io.runs import RunFolder
from splatinit.progress import Silent
from splatinit.sweep import SweepFolder, SweepPlan, make_plan
from splatinit.sweep.executors import run_sweep
from splatinit.sweep.store import read_table


def by_hand(plan: SweepPlan) -> float:
    """Seconds of one `splatinit run` beyond its stages; of a start that needs no points, so that posing is reading."""
    import yaml

    run = plan.runs[-1]
    with tempfile.TemporaryDirectory() as work:
        config, folder = Path(work) / "config.yaml", RunFolder(Path(work) / "run")
        config.write_text(yaml.safe_dump(run.config.expand()))
        words = ["run", run.path, "--config", str(config), "-o", str(folder.root)]
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "splatinit", *words], check=True, capture_output=True)
        wall = time.perf_counter() - began
        read = json.loads(folder.env.read_text())["sessions"][-1]["seconds_read"]
        return wall - read - sum(facts["seconds"] for facts in folder.record().values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scene", type=Path)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--max-size", type=int, default=160)
    parser.add_argument("--inits", default="sfm,random")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--jobs", default="1,2")
    asked = parser.parse_args()

    settings = {"train.steps": asked.steps, "data.max_size": asked.max_size}
    inits = [name if name == "sfm" else {name: {"count": 10_000}} for name in asked.inits.split(",")]
    plan = make_plan([asked.scene], name="bench", inits=inits, seeds=asked.seeds, settings=settings)
    console = Console()
    console.print(f"{environment.processor()}, {environment.cores()} cores; {len(plan.runs)} runs of {asked.scene}")
    console.print(f"by hand: {min(by_hand(plan) for _ in range(3)):.1f} s beyond the stages of a run")
    table = Table("jobs", "wall s", "poses s", "run s", "overhead s/run", "ratio", header_style="dim")
    first, pictures = None, set()
    for jobs in map(int, asked.jobs.split(",")):
        with tempfile.TemporaryDirectory() as work:
            outcome = run_sweep(plan, Path(work), jobs=jobs, progress=Silent())
            folder = SweepFolder(Path(work))
            rows = read_table(folder, "runs").to_pylist()
        # Of each of the folders that runs share; a run's own row says what its poses cost whoever found them.
        poses = sum({folder.poses(run): row["seconds_pose"] for run, row in zip(plan.runs, rows, strict=True)}.values())
        if outcome.failed or len(rows) != len(plan.runs):
            print(f"jobs {jobs}: {outcome.failed}", file=sys.stderr)
            return 1
        stages = sum(row[f"seconds_{stage}"] for row in rows for stage in ("read", "init", "train", "eval"))
        first = first or outcome.seconds
        pictures.add(tuple(row["renders_hash"] for row in rows))
        overhead = (jobs * (outcome.seconds - poses) - stages) / len(rows)
        cells = (outcome.seconds, poses, stages / len(rows), overhead)
        table.add_row(str(jobs), *(f"{cell:.1f}" for cell in cells), f"{first / outcome.seconds:.2f}")
    console.print(table)
    if len(pictures) > 1:
        print("the renders depend on the number of jobs", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
