"""The commands that compare: many runs, their table and their page."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigError
from .base import command
from .console import make_console, watched
from .options import (
    ConfigOption,
    DownscaleOption,
    FormatOption,
    FpsOption,
    FramesOption,
    MasksOption,
    MaxSizeOption,
    OutsideOption,
    SceneArgument,
    SettingsArgument,
    point_count,
    reading_settings,
)

if TYPE_CHECKING:
    from ..sweep.ledger import Outcome

JobsOption = Annotated[
    int | None,
    typer.Option(
        "--jobs", "-j", metavar="N", show_default="what cores and memory allow", help="Runs at a time.", min=1
    ),
]
ExecutorOption = Annotated[
    str,
    typer.Option(
        "--executor",
        "-x",
        metavar="NAME",
        help="Who does the runs: [cyan]local[/], processes of this machine, or [cyan]ray[/], a Ray cluster.",
    ),
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="HOST:PORT",
        show_default="RAY_ADDRESS, or a new cluster of this machine alone",
        help="With [cyan]ray[/]: the cluster's head node; [cyan]auto[/]: the cluster that this machine belongs to.",
    ),
]
GpusOption = Annotated[
    float | None,
    typer.Option(
        "--gpus-per-run",
        metavar="SHARE",
        show_default="1",
        help="With [cyan]ray[/]: of a GPU, for backends that use one; [cyan]0.5[/] puts two runs on each.",
    ),
]
RetryOption = Annotated[bool, typer.Option("--retry-failed", help="Try again what failed before.")]


@command("compare", "Comparing")
def compare(
    scene: SceneArgument,
    settings: SettingsArgument = None,
    inits: Annotated[
        str,
        typer.Option(
            "--inits",
            "-i",
            metavar="A,B,…",
            help="The starts: initializers, several together as [cyan]sfm+random[/], or presets: [cyan]init/frusta[/].",
        ),
    ] = "sfm,random,dense,nerf",
    seeds: Annotated[int, typer.Option("--seeds", metavar="N", help="Runs of each start.", min=1)] = 1,
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget",
            "-b",
            metavar="STEPS_OR_TIME",
            show_default="7000steps",
            help="What each run has: [cyan]7000steps[/], or [cyan]2m[/], [cyan]90s[/] for making the start and "
            "training together.",
        ),
    ] = None,
    points: Annotated[
        str | None,
        typer.Option(
            "--points",
            metavar="N",
            show_default="the initializers'",
            help="How many points to start from, for all that take a number.",
        ),
    ] = None,
    config: ConfigOption = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", show_default="sweeps/<scene>", help="Folder of the comparison."),
    ] = None,
    max_size: MaxSizeOption = None,
    downscale: DownscaleOption = None,
    format: FormatOption = None,
    masks: MasksOption = None,
    frames: FramesOption = None,
    fps: FpsOption = None,
    allow_outside: OutsideOption = False,
    retry_failed: RetryOption = False,
    jobs: JobsOption = None,
    executor: ExecutorOption = "local",
    address: AddressOption = None,
    gpus_per_run: GpusOption = None,
) -> None:
    """One scene from several starts, with the same trainer and budget: a table and a page.

    Poses are found once and shared. With a number of steps the question is what a start is worth; with a time, whether
    it is worth what making it takes. Given again, also with one start more, only what is missing is run. A setting of
    one start begins with its name: random.volume=cameras.

    Exit code: 0 where all runs are done; 1 where some failed; 2 where the comparison is refused.

    [bold]Examples[/]

      splatinit compare photos/ --max-size 480
      splatinit compare photos/ --inits sfm,dense,nerf --seeds 3 --budget 2m
      splatinit compare scene/ -i sfm,init/frusta,sfm+random -b 3000steps -c quick --points 30k
    """
    from ..comparing import compare as compare_starts
    from ..config import parse_overrides
    from .sweeping import show_comparison, show_outcome
    from .tables import show_places

    reading = reading_settings(max_size, downscale, format, masks, frames, fps, allow_outside)
    asked = {
        "inits": [name.strip() for name in inits.split(",") if name.strip()],
        "seeds": seeds,
        "budget": budget,
        "points": None if points is None else point_count(points),
        "presets": config or (),
        "settings": parse_overrides([*reading, *(settings or ())]).values,
    }
    how = {"out": out, "retry_failed": retry_failed, "executor": executor}
    how |= {"jobs": jobs, "address": address, "gpus_per_run": gpus_per_run}
    found, signum = watched(lambda progress, stop: compare_starts(scene, **asked, **how, progress=progress, stop=stop))
    console = make_console()
    show_outcome(console, found.plan, found.outcome, found.folder)
    if found.page is not None:
        show_comparison(console, found.plan, found.folder)
        show_places(console, {"page": found.page})
    _exit_as(found.outcome, signum)


@command("sweep", "Comparing")
def sweep(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", show_default=False, help="A sweep file, or the name of one that is ready.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", show_default="sweeps/<name>", help="The sweep's folder."),
    ] = None,
    scene: Annotated[
        list[str] | None,
        typer.Option("--scene", metavar="NAME", show_default="all", help="Only this one of the file; may be repeated."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Start even very many runs without asking.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan and how long it will take, and start nothing but a probe.")
    ] = False,
    retry_failed: RetryOption = False,
    jobs: JobsOption = None,
    executor: ExecutorOption = "local",
    address: AddressOption = None,
    gpus_per_run: GpusOption = None,
) -> None:
    """Scenes × starts × seeds with one trainer, planned, resumable, into one table.

    Each run is a process of its own and an ordinary run folder; one that fails becomes a row with its reason, and the
    others go on. Given again after Ctrl-C, kill -9 or a power cut, the command does what is left. Runs of one scene
    share their poses. Times in the table are those of runs side by side: use --jobs 1 to compare speed.

    Exit code: 0 where all runs are done; 1 where some failed; 2 where the plan is refused.

    [bold]Examples[/]

      splatinit sweep configs/sweeps/tiny.yaml --dry-run     [dim]how many runs, how long[/]
      splatinit sweep mipnerf360 --scene garden              [dim]of configs/sweeps/mipnerf360.yaml[/]
      splatinit results sweeps/tiny --where scene=fox
    """
    from ..sweep import SweepFolder, read_plan
    from ..sweep.estimate import PROBE_STEPS, estimate
    from ..sweep.executors import EXECUTORS, run_sweep
    from ..sweep.plan import MANY_RUNS
    from ..sweep.store import require_arrow
    from .sweeping import show_outcome, show_plan

    require_arrow()
    EXECUTORS.load(executor)  # before the estimate's seconds, not after them
    plan = read_plan(file, scenes=scene or ())
    root = out or Path("sweeps") / plan.name
    console = make_console()
    # A probe is worth its seconds where they are few beside those of the sweep.
    many_steps = sum(run.config.train.steps for run in plan.runs) > 100 * PROBE_STEPS
    probe = dry_run or (many_steps and executor == "local")

    def look(progress: Any, stop: Any) -> Any:
        progress.start("estimate")
        here = jobs if executor == "local" else 1  # of others it is not known how many they do at a time
        found = estimate(plan, root, jobs=here, retry_failed=retry_failed, probe=probe)
        progress.finish(found.basis)
        return found

    if len(plan.runs) > MANY_RUNS and not (yes or dry_run):
        _ask_for_many(len(plan.runs), file)
    expected, _ = watched(look)
    show_plan(console, plan, expected, executor)
    if dry_run:
        return
    how = {"executor": executor, "jobs": jobs, "address": address, "gpus_per_run": gpus_per_run}
    outcome, signum = watched(
        lambda progress, stop: run_sweep(plan, root, **how, retry_failed=retry_failed, progress=progress, stop=stop)
    )
    show_outcome(console, plan, outcome, SweepFolder(root))
    _exit_as(outcome, signum)


def _exit_as(outcome: Outcome, signum: int | None) -> None:
    """Exit as a sweep that was stopped, or of which runs failed; return where all are done."""
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
    summary: Annotated[
        bool, typer.Option("--summary", "-s", help="One line a scene, one column a start: the means over seeds.")
    ] = False,
    metric: Annotated[
        str,
        typer.Option(
            "--metric", metavar="NAME", help="Of the summary: psnr, ssim, lpips_vgg, gaussians, seconds_train, …"
        ),
    ] = "psnr",
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
      splatinit results sweeps/tiny --summary --latex
    """
    from ..sweep import SweepFolder
    from ..sweep.store import TABLES, collect, read_table
    from .summary import show_summary, summarize_sweep, summary_csv, summary_latex, summary_markdown
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
    if summary:
        found = summarize_sweep(rows, metric, f"sweep {rows[0]['sweep'] if rows else folder.name}")
        forms = {summary_csv: csv, summary_markdown: markdown, summary_latex: latex}
        form = next((form for form, wanted in forms.items() if wanted), None)
        show_summary(make_console(), found) if form is None else typer.echo(form(found), nl=False)
    elif csv:
        typer.echo(as_csv(rows, list(TABLES["runs"])), nl=False)
    elif markdown or latex:
        typer.echo(as_markdown(rows) if markdown else as_latex(rows), nl=False)
    else:
        show_results(make_console(), rows, notes)


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

    The page opens from disk without a network. It carries small pictures; those at full size it takes from the run
    folders, where it lies beside them. Made while the sweep still runs, it has what is done until then.

    [bold]Examples[/]

      splatinit report sweeps/tiny
      splatinit report sweeps/tiny --out tiny.html
    """
    from ..report.page import write_report
    from ..report.tables import require_packages
    from ..sweep import SweepFolder
    from ..sweep.store import collect
    from .tables import show_report

    require_packages()
    folder = SweepFolder(sweep)
    notes = collect(folder).notes if folder.plan.is_file() else []
    show_report(make_console(), write_report(sweep, out), notes)
