"""The commands that compare: many runs, their table and their page."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ConfigError
from .base import command
from .console import make_console, watched


@command("sweep", "Comparing")
def sweep(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", show_default=False, help="A sweep file, such as configs/sweeps/tiny.yaml.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", show_default="sweeps/<name>", help="The sweep's folder."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Start even very many runs without asking.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan and how long it will take, and start nothing but a probe.")
    ] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try again what failed before.")] = False,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs", "-j", metavar="N", show_default="what cores and memory allow", help="Runs at a time.", min=1
        ),
    ] = None,
) -> None:
    """Scenes × starts × seeds with one trainer, planned, resumable, into one table.

    Each run is a process of its own and an ordinary run folder; one that fails becomes a row with its reason, and the
    others go on. Given again after Ctrl-C, kill -9 or a power cut, the command does what is left. Runs of one scene
    share their poses. Times in the table are those of runs side by side: use --jobs 1 to compare speed.

    Exit code: 0 where all runs are done; 1 where some failed; 2 where the plan is refused.

    [bold]Examples[/]

      splatinit sweep configs/sweeps/tiny.yaml --dry-run     [dim]how many runs, how long[/]
      splatinit sweep configs/sweeps/tiny.yaml
      splatinit results sweeps/tiny --where scene=fox
    """
    from ..sweep import SweepFolder, read_plan
    from ..sweep.estimate import PROBE_STEPS, estimate
    from ..sweep.local import run_sweep
    from ..sweep.plan import MANY_RUNS
    from ..sweep.store import require_arrow
    from .sweeping import show_outcome, show_plan

    require_arrow()
    plan = read_plan(file)
    root = out or Path("sweeps") / plan.name
    console = make_console()
    # A probe is worth its seconds where they are few beside those of the sweep.
    probe = dry_run or sum(run.config.train.steps for run in plan.runs) > 100 * PROBE_STEPS

    def look(progress: Any, stop: Any) -> Any:
        progress.start("estimate")
        found = estimate(plan, root, jobs=jobs, retry_failed=retry_failed, probe=probe)
        progress.finish(found.basis)
        return found

    if len(plan.runs) > MANY_RUNS and not (yes or dry_run):
        _ask_for_many(len(plan.runs), file)
    expected, _ = watched(look)
    show_plan(console, plan, expected)
    if dry_run:
        return
    outcome, signum = watched(
        lambda progress, stop: run_sweep(plan, root, jobs=jobs, retry_failed=retry_failed, progress=progress, stop=stop)
    )
    show_outcome(console, plan, outcome, SweepFolder(root))
    if outcome.stopped:
        make_console(stderr=True).print("Stopped; checkpoints are written. The same command goes on from there.")
        raise typer.Exit(128 + (signum or signal.SIGINT))
    if outcome.failed:
        raise typer.Exit(1)


def _ask_for_many(runs: int, file: Path) -> None:
    """Have the user's word for so many runs. Raises ConfigError where nobody can be asked, Exit for a no."""
    if not sys.stdin.isatty():
        raise ConfigError(
            f"{file} plans {runs} runs, and nobody is there to ask whether that is meant.", hint="Give --yes to start."
        )
    if not typer.confirm(f"{file} plans {runs} runs. Start them?"):
        raise typer.Exit(1)


@command("results", "Comparing")
def results(
    folder: Annotated[Path, typer.Argument(metavar="SWEEP", show_default=False, help="A sweep's folder.")],
    csv: Annotated[bool, typer.Option("--csv", help="Every column, comma-separated.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="A table for GitHub.")] = False,
    latex: Annotated[bool, typer.Option("--latex", help="A tabular with booktabs' rules.")] = False,
    where: Annotated[
        list[str] | None,
        typer.Option(
            "--where",
            "-w",
            metavar="KEY=VALUE",
            show_default=False,
            help="Only runs for which this holds: a column (scene=fox) or a setting (init.count=5000). Repeatable.",
        ),
    ] = None,
) -> None:
    """The table of a sweep's runs, finished or failed, also while it runs.

    Everything is in SWEEP/results as Parquet: runs, views, steps and starts, each read by pandas.read_parquet.

    [bold]Examples[/]

      splatinit results sweeps/tiny
      splatinit results sweeps/tiny --where init=dense --where seed=0 --markdown
    """
    from ..sweep import SweepFolder
    from ..sweep.store import TABLES, collect, read_table
    from .sweeping import as_csv, as_latex, as_markdown, filtered, show_results

    if csv + markdown + latex > 1:
        raise ConfigError("--csv, --markdown and --latex are given together; expected one form.")
    sweep_folder, notes = SweepFolder(folder), []
    if sweep_folder.plan.is_file() or not sweep_folder.results.is_dir():
        found = collect(sweep_folder)
        rows, notes = found.tables["runs"], found.notes
    else:  # the tables alone were brought here
        rows = read_table(sweep_folder, "runs").to_pylist()
    rows = filtered(rows, where or ())
    if csv:
        typer.echo(as_csv(rows, list(TABLES["runs"])), nl=False)
    elif markdown or latex:
        typer.echo(as_markdown(rows) if markdown else as_latex(rows), nl=False)
    else:
        show_results(make_console(), rows, notes)


# ------------------------------------------------------------------------------------------------------------ knowing


@command("report", "Comparing")
def report(
    sweep: Annotated[
        Path, typer.Argument(metavar="SWEEP", show_default=False, help="The folder of a sweep, with its results/.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE", show_default="SWEEP/report.html", help="Where the page is written."
        ),
    ] = None,
) -> None:
    """One HTML page of a sweep: who wins, by how much, how sure that is, and pictures and points to look at.

    The page opens from disk without a network. It carries small pictures; full size is linked from the run folders, so
    keep it beside them.

    [bold]Examples[/]

      splatinit report sweeps/tiny
      splatinit report sweeps/tiny --out tiny.html
    """
    from ..report.page import write_report
    from .tables import show_report

    show_report(make_console(), write_report(sweep, out))
