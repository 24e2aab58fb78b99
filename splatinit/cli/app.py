"""The commands. Each turns what was typed into a config, calls the pipeline, and shows what came out.

Nothing here imports torch before a command needs it, so that ``--help`` answers at once.
"""

from __future__ import annotations

import functools
import inspect
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape

from .. import __version__, environment
from ..errors import ConfigError, NoPoses, SplatinitError
from ..io.atomic import HINTS
from .console import Stopped, make_console, watched
from .options import (
    BackendOption,
    ConfigOption,
    DownscaleOption,
    FormatOption,
    FpsOption,
    FramesOption,
    InitOption,
    MasksOption,
    MaxSizeOption,
    NerfSecondsOption,
    OutOption,
    OutsideOption,
    PairSceneArgument,
    PointsOption,
    ProfileOption,
    SceneArgument,
    SeedOption,
    SettingsArgument,
    StepsOption,
    TargetArgument,
    point_count,
    reading_settings,
    run_settings,
)

if TYPE_CHECKING:
    from ..config import RunConfig
    from ..nerf import Field
    from ..pipeline import RunResult
    from ..types import Gaussians, Scene

OVERVIEW = f"""
[bold]splatinit[/] {__version__}: photos in, Gaussian splat out, from any starting point cloud.

The line: folder → [b]read[/] → [b]pose[/] → [b]init[/] → seed → [b]train[/] → [b]eval[/]. Everything after the start
is the same for every initializer, so that scores compare where the Gaussians began.

[bold]Examples[/]

  splatinit demo                         [dim]the line on a scene drawn by splatinit[/]
  splatinit run photos/                  [dim]SfM, training, scores: runs/photos-sfm[/]
  splatinit run scene/ -i random         [dim]another start[/]
  splatinit run scene/ -c quick seed=1   [dim]a preset, and any setting as key=value[/]
  splatinit sweep configs/sweeps/tiny.yaml
                                         [dim]scenes × starts × seeds, in one table[/]
  splatinit check photos/                [dim]before the minutes: is it worth it?[/]
  splatinit list                         [dim]all parts and presets; --settings: all keys[/]
  splatinit doctor                       [dim]what works on this machine[/]
"""


def paragraphs(text: str) -> str:
    """Help text with the lines of each paragraph joined, so that the terminal wraps them; indented ones stay."""
    blocks = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(block if block.startswith("  ") else " ".join(block.split("\n")) for block in blocks)


app = typer.Typer(
    name="splatinit",
    help=paragraphs(OVERVIEW),
    rich_markup_mode="rich",
    no_args_is_help=True,
    add_completion=False,
    # An error that is not the user's is a bug: a plain traceback is what a report needs.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


# ------------------------------------------------------------------------------------------------------------ errors
def command(name: str, panel: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Registers a function as the command ``name``, with its docstring as help and its errors told in words."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        return app.command(name, help=paragraphs(function.__doc__ or ""), rich_help_panel=panel)(guarded(function))

    return register


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """``command`` with what a user can cause told in words: exit 2, or 128 + the signal that stopped it."""

    @functools.wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except SplatinitError as error:
            _fail(error.message, error.hint)
        except Stopped as stopped:
            make_console(stderr=True).print(stopped.told(), markup=False, soft_wrap=True)
            raise typer.Exit(128 + stopped.signum) from None
        except KeyboardInterrupt:  # before or after anything was watched
            raise typer.Exit(128 + signal.SIGINT) from None
        except OSError as error:
            if error.errno not in HINTS:  # a missing file among them: that it was looked for is a bug
                raise
            place = f" ({error.filename})" if error.filename else ""
            _fail(f"{os.strerror(error.errno)}{place}.", HINTS[error.errno])

    return wrapper


def _fail(message: str, hint: str | None) -> None:
    console = make_console(stderr=True)
    console.print(f"[bold red]error[/] {escape(message)}", soft_wrap=True)
    if hint:
        console.print(f"      {escape(hint)}", soft_wrap=True)
    raise typer.Exit(2)


# --------------------------------------------------------------------------------------------------------- the line
@command("run", "The line")
def run(
    scene: SceneArgument,
    settings: SettingsArgument = None,
    init: InitOption = None,
    points: PointsOption = None,
    nerf_seconds: NerfSecondsOption = None,
    config: ConfigOption = None,
    out: OutOption = None,
    max_size: MaxSizeOption = None,
    downscale: DownscaleOption = None,
    format: FormatOption = None,
    masks: MasksOption = None,
    frames: FramesOption = None,
    fps: FpsOption = None,
    allow_outside: OutsideOption = False,
    steps: StepsOption = None,
    seed: SeedOption = None,
    backend: BackendOption = None,
    profile: ProfileOption = False,
) -> None:
    """The whole line: photos or a scene in; a trained splat, pictures and scores out.

    Photos without poses go through COLMAP first. A run that was killed goes on where its last checkpoint was, to the
    same result, when the same command is given again.

    [bold]Examples[/]

      splatinit run photos/ --max-size 800
      splatinit run scene/ --init random --points 50k init.volume=cameras
      splatinit run scene/ -c quick -o runs/try1 train.random_background=false

    Leaves in the run folder: splat.ply (for any 3DGS viewer), eval/ (metrics.json, renders, error maps),
    init/points.ply, scene/sparse/0 (COLMAP), train.jsonl, env.json and config.yaml (every setting, itself usable as
    --config).
    """
    options = [
        *reading_settings(max_size, downscale, format, masks, frames, fps, allow_outside),
        *run_settings(init=init, steps=steps, seed=seed, backend=backend),
    ]
    _run_and_show(scene, out, _config(config, options, settings, points, nerf_seconds), profile)


@command("init", "The line")
def init(
    scene: SceneArgument,
    settings: SettingsArgument = None,
    init: InitOption = None,
    points: PointsOption = None,
    nerf_seconds: NerfSecondsOption = None,
    config: ConfigOption = None,
    out: OutOption = None,
    max_size: MaxSizeOption = None,
    downscale: DownscaleOption = None,
    format: FormatOption = None,
    masks: MasksOption = None,
    frames: FramesOption = None,
    fps: FpsOption = None,
    allow_outside: OutsideOption = False,
    seed: SeedOption = None,
    images: Annotated[
        bool,
        typer.Option(
            "--images", help="Also write the photos, undistorted and at the working size: a complete COLMAP dataset."
        ),
    ] = False,
) -> None:
    """Only the start: an initial point cloud, for our trainer or any other.

    Writes DIR/init/points.ply (x y z, normals, red green blue) and DIR/init/sparse/0, a COLMAP model whose points3D
    are that cloud, with points3D.ply beside it as 3DGS's own trainer reads it. The cameras are pinholes at the
    working size.

    [bold]Examples[/]

      splatinit init photos/ --images -o out                 [dim]then, elsewhere: train.py -s out/init[/]
      splatinit init scene/ --init random --points 10k
      splatinit train scene/ out/init/points.ply             [dim]ours[/]
    """
    from .. import pipeline
    from .tables import show_start

    reading = reading_settings(max_size, downscale, format, masks, frames, fps, allow_outside)
    chosen = _config(config, [*reading, *run_settings(init=init, seed=seed)], settings, points, nerf_seconds)
    result, _ = watched(
        lambda progress, stop: pipeline.start(scene, out, config=chosen, with_images=images, progress=progress),
    )
    show_start(make_console(), result, with_images=images)


@command("train", "The line")
def train(
    scene: SceneArgument,
    start: Annotated[
        Path,
        typer.Argument(
            metavar="START",
            show_default=False,
            help="The points to start from: a cloud (.ply .pcd .xyz .las), a mesh (.ply .obj .glb), a COLMAP model "
            "folder, or a run folder (its init/points.ply).",
        ),
    ],
    settings: SettingsArgument = None,
    config: ConfigOption = None,
    out: OutOption = None,
    max_size: MaxSizeOption = None,
    downscale: DownscaleOption = None,
    format: FormatOption = None,
    masks: MasksOption = None,
    frames: FramesOption = None,
    fps: FpsOption = None,
    allow_outside: OutsideOption = False,
    steps: StepsOption = None,
    seed: SeedOption = None,
    backend: BackendOption = None,
    profile: ProfileOption = False,
) -> None:
    """Train from points that you bring (laser scan, dense stereo, another tool, `splatinit init`) and score them.

    The points must be in the coordinates of the scene's cameras. The same as
    [cyan]splatinit run SCENE --init file init.path=START[/].

    [bold]Examples[/]

      splatinit train scene/ scan.ply --steps 3000
      splatinit train scene/ scan.las init.offset=500000,5000000,0
      splatinit train scene/ runs/scene-random -o runs/again
    """
    from ..pipeline import scene_name

    points = start_file(start)
    options = [
        *reading_settings(max_size, downscale, format, masks, frames, fps, allow_outside),
        *run_settings(init="file", steps=steps, seed=seed, backend=backend),
        f"init.path={points.resolve()}",
    ]
    stem = start.resolve().stem if start.is_file() and start.stem != "points" else _run_name(points)
    folder = out or Path("runs") / f"{scene_name(scene)}-{stem}"
    _run_and_show(scene, folder, _config(config, options, settings), profile)


@command("eval", "The line")
def evaluate(
    target: TargetArgument,
    scene: PairSceneArgument = None,
    settings: SettingsArgument = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            show_default=False,
            help="Where metrics.json, renders, error maps and the contact sheet go. A run folder's own eval/ by "
            "default; for a .ply nothing is written.",
        ),
    ] = None,
    config: ConfigOption = None,
    max_size: MaxSizeOption = None,
    downscale: DownscaleOption = None,
    format: FormatOption = None,
    masks: MasksOption = None,
    allow_outside: OutsideOption = False,
    backend: BackendOption = None,
) -> None:
    """Score a splat on the test views of a scene: PSNR, SSIM, LPIPS, per image and mean.

    The split and the size belong to the scene: every 8th photo, or what its files say.

    [bold]Examples[/]

      splatinit eval runs/fox-sfm
      splatinit eval other_tool.ply scene/ --max-size 800 -o scores/
    """
    from .. import pipeline
    from ..io.runs import find_run
    from .tables import show_scores

    scene, settings = _scene_or_setting(scene, settings)
    reading = reading_settings(max_size, downscale, format, masks, allow_outside=allow_outside)
    typed = [*reading, *run_settings(backend=backend), *(settings or [])]
    into_run = target.is_dir() and out is None
    if into_run and (typed or config or scene):
        raise ConfigError(
            f"{target} has its own scores; other settings or another scene would mix with them.",
            hint="Give --out DIR for these.",
        )
    chosen = _saved_or_new_config(target, config, typed)

    def work(progress: Any, stop: Any) -> Any:
        gaussians = _load_gaussians(target)
        if into_run:
            return pipeline.score_again(find_run(target), gaussians, progress)
        ruler = _load_scene(target, scene, chosen, progress)
        return pipeline.evaluate(ruler, gaussians, chosen.eval, raster=chosen.raster, out_dir=out, progress=progress)

    report, _ = watched(work)
    show_scores(make_console(), report, target / "eval" if into_run else out)


@command("render", "The line")
def render(
    target: TargetArgument,
    scene: PairSceneArgument = None,
    path: Annotated[
        str,
        typer.Option(
            "--path",
            "-p",
            metavar="PATH",
            help="Where the camera goes: [cyan]through[/] (smoothly through the scene's cameras), [cyan]orbit[/] (once "
            "around what they look at), [cyan]test[/], [cyan]train[/] or [cyan]all[/] (those views), one view's name, "
            "or a JSON file (ours or nerfstudio's camera_path).",
        ),
    ] = "through",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE_OR_DIR",
            show_default="render-<path>.mp4, or a folder for views",
            help="A video if it ends in .mp4, else a folder of PNG files.",
        ),
    ] = None,
    frames: Annotated[int, typer.Option("--frames", metavar="N", help="Length of through and orbit.", min=1)] = 150,
    fps: Annotated[int, typer.Option("--fps", metavar="N", help="Frames a second of the video.", min=1)] = 30,
    max_size: Annotated[
        int | None,
        typer.Option(
            "--max-size",
            metavar="PX",
            show_default="as the cameras",
            help="Longer side of the images; larger than the cameras' size is fine.",
            min=1,
        ),
    ] = None,
    field: Annotated[
        bool,
        typer.Option(
            "--field",
            help="Draw the radiance field that a run with [cyan]--init nerf[/] drew its points from, in place of the "
            "splat.",
        ),
    ] = False,
    backend: BackendOption = None,
) -> None:
    """Draw a splat along a camera path or from given views, to MP4 or PNG.

    A run folder knows its scene. A .ply alone can be orbited, or follow a JSON file of cameras. With --field, the
    target is a run folder or a field.safetensors, and the field is drawn.

    [bold]Examples[/]

      splatinit render runs/fox-sfm                              [dim]a flight through its cameras[/]
      splatinit render runs/fox-sfm -p test -o renders/          [dim]the test views as PNG[/]
      splatinit render any.ply -p orbit --frames 240 -o turn.mp4 [dim]a turn around a splat without its scene[/]
    """
    from .rendering import RadianceField, Splat, render_to_files
    from .tables import show_files

    chosen = _saved_or_new_config(target, None, run_settings(backend=backend))

    def work(progress: Any, stop: Any) -> Any:
        subject = RadianceField(_load_field(target)) if field else Splat(_load_gaussians(target), chosen.raster)
        posed = _load_scene(target, scene, chosen, progress) if target.is_dir() or scene is not None else None
        return render_to_files(
            subject,
            posed,
            path=path,
            out=out,
            frames=frames,
            fps=fps,
            max_size=max_size,
            progress=progress,
        )

    written, _ = watched(work, resumes=False)
    show_files(make_console(), written)


# ---------------------------------------------------------------------------------------------------------- comparing
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
@command("demo", "Knowing")
def demo(
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Holds the drawn scene and one run per start.")
    ] = Path("runs/demo"),
    steps: Annotated[int, typer.Option("--steps", metavar="N", help="Training steps of each run.", min=1)] = 1500,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of all runs.")] = 0,
) -> None:
    """The whole line in minutes, on a scene that splatinit draws itself: what difference does the start make?

    Draws a small yard with exact poses and known geometry, starts from SfM-like, random and dense points and from a
    radiance field, trains all with the same settings, and compares points with the true surface and renders with
    photos. Nothing is downloaded.
    """
    from ..demo import run_demo
    from .tables import show_demo

    result, signum = watched(lambda progress, stop: run_demo(out, steps=steps, seed=seed, progress=progress, stop=stop))
    if result is None:
        make_console(stderr=True).print("Stopped; a checkpoint is written. The same command goes on from there.")
        raise typer.Exit(128 + (signum or signal.SIGINT))
    show_demo(make_console(), result)


@command("check", "Knowing")
def check(
    scene: SceneArgument,
    settings: SettingsArgument = None,
    json: Annotated[
        str | None,
        typer.Option(
            "--json",
            metavar="FILE",
            show_default=False,
            help="Also write the findings as JSON; [cyan]-[/] prints them instead of the page.",
        ),
    ] = None,
    max_size: MaxSizeOption = None,
    downscale: DownscaleOption = None,
    format: FormatOption = None,
    masks: MasksOption = None,
    frames: FramesOption = None,
    fps: FpsOption = None,
    allow_outside: OutsideOption = False,
) -> None:
    """Is this scene worth the minutes? A page of findings, and what to do about each.

    Looks at files, sizes, exposure, blur, poses, overlap and points, and measures how well matched features fit the
    given poses: a wrong axis convention, an inverted matrix, a shifted order or a single bad pose is named. Nothing is
    trained and nothing of the scene is changed; of large scenes an even sample is decoded.

    Exit code: 0 where the scene can be used, with or without warnings (!); 1 where a finding (✗) would spoil the
    result; 2 where the scene cannot be read.

    [bold]Examples[/]

      splatinit check photos/
      splatinit check scene/ --json report.json
      splatinit check scene/ --format photos         [dim]as if it had no poses[/]
    """
    from json import dumps

    from ..checks import check as check_scene
    from ..io.atomic import write_json
    from .checking import show_check

    reading = reading_settings(max_size, downscale, format, masks, frames, fps, allow_outside)
    chosen = _config(None, reading, settings)
    report, _ = watched(lambda progress, stop: check_scene(scene, chosen.data, progress=progress))
    if json == "-":
        typer.echo(dumps(report.to_json(), indent=1, allow_nan=False))
    else:
        show_check(make_console(), report)
        if json is not None:
            write_json(Path(json), report.to_json())
    if report.level == "fail":
        raise typer.Exit(1)


@command("convert", "Knowing")
def convert(
    scene: SceneArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT", show_default=False, help="New folder, absent or empty.")],
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help="[cyan]colmap[/] or [cyan]nerfstudio[/].")],
    settings: SettingsArgument = None,
    pose: Annotated[
        bool,
        typer.Option(
            "--pose",
            help="Compute what the scene lacks: poses by structure from motion, or points by triangulating features.",
        ),
    ] = False,
    max_size: Annotated[
        int | None,
        typer.Option(
            "--max-size", metavar="PX", show_default="full size", help="Reduce photos whose longer side is larger."
        ),
    ] = None,
    downscale: DownscaleOption = None,
    format: FormatOption = None,
    masks: MasksOption = None,
    frames: FramesOption = None,
    fps: FpsOption = None,
    allow_outside: OutsideOption = False,
) -> None:
    """Any scene as a data set for other tools: COLMAP's folders, or nerfstudio's transforms.json.

    Lossless for pinhole cameras: photos are copied byte for byte, and poses, intrinsics, split and the positions of
    points keep every digit. Photos with lens distortion or EXIF rotation become undistorted, upright PNG files, with
    a mask where the lens saw nothing. SCENE may also be a run folder: its photos with the poses that the run found.

    [bold]Examples[/]

      splatinit convert scene/ out/ --to nerfstudio
      splatinit convert photos/ out/ --to colmap --pose      [dim]SfM here, training elsewhere[/]
      splatinit convert clip.mp4 out/ --to colmap --pose --frames 120
    """
    from ..convert import convert as convert_scene
    from .tables import show_converted

    reading = reading_settings(max_size, downscale, format, masks, frames, fps, allow_outside)
    is_run = (scene / "config.yaml").is_file()
    if is_run and (reading or settings or pose):
        raise ConfigError(
            f"{scene} is a run: it is converted as it was read, so that its poses fit.",
            hint="Leave out the other options, or convert the scene itself.",
        )

    def work(progress: Any, stop: Any) -> Any:
        typed = [*reading, *(settings or ())]
        posed = _run_scene(scene, progress) if is_run else _whole_scene(scene, typed, pose, progress)
        return convert_scene(posed, out, to, progress=progress)

    result, _ = watched(work)
    show_converted(make_console(), result)


@command("report", "Knowing")
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


@command("list", "Knowing")
def list_parts(
    part: Annotated[
        str | None,
        typer.Argument(metavar="PART", show_default=False, help="One part or section, with its settings explained."),
    ] = None,
    settings: Annotated[
        bool, typer.Option("--settings", help="Every key of every part, with its default and its meaning.")
    ] = False,
) -> None:
    """Every replaceable part with its source, state and needs, and the presets.

    Parts are chosen by name; a preset is a file of settings. Both are found by themselves when they are added.

    [bold]Examples[/]

      splatinit list
      splatinit list random          [dim]one part and its settings[/]
      splatinit list train           [dim]one section[/]
    """
    from .listing import show_all_settings, show_part, show_parts

    console = make_console()
    if part is not None:
        show_part(console, part)
    elif settings:
        show_all_settings(console)
    else:
        show_parts(console)


@command("data", "Knowing")
def data(
    action: Annotated[
        Literal["list", "fetch", "verify"], typer.Argument(metavar="ACTION", help="list, fetch or verify.")
    ],
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            show_default=False,
            help="A benchmark, or one of its scenes: [cyan]mipnerf360[/], [cyan]mipnerf360/garden[/]. None: all; for "
            "[cyan]fetch[/], at least one.",
        ),
    ] = None,
    to: Annotated[
        Path, typer.Option("--to", metavar="DIR", help="The data folder; scenes lie in DIR/BENCHMARK/SCENE.")
    ] = Path("data"),
    keep: Annotated[
        bool, typer.Option("--keep", help="With [cyan]fetch[/]: keep the archives, in DIR/.archives.")
    ] = False,
) -> None:
    """The public benchmark scenes: what there is, fetching it, and whether it is whole.

    list: each benchmark's scenes with source, licence, size and protocol, and which are here. fetch: downloads (resumed
    after an interrupt, verified where a checksum is known), unpacks, and keeps nothing half done. verify: compares
    folders with the registry, and with what was unpacked; exit code 1 where one is damaged or absent.

    [bold]Examples[/]

      splatinit data list
      splatinit data fetch tanks_and_temples          [dim]two scenes, 0.7 GB[/]
      splatinit data verify mipnerf360/garden --to /mnt/data
    """
    from ..data.benchmarks import benchmarks, find_scenes
    from ..data.fetch import fetch, folder_of, verify
    from .tables import show_benchmarks, show_places, show_scene_states

    scenes = find_scenes(names or [])
    if action == "fetch":
        if not names:
            raise ConfigError(
                "data fetch: got no name; expected a benchmark or a scene.",
                hint=f"One or more of {', '.join(benchmarks())}.",
            )
        fetched, _ = watched(lambda progress, stop: fetch(scenes, to, keep=keep, progress=progress))
        show_places(make_console(), {scene.key: path for scene, path in zip(scenes, fetched, strict=True)})
    elif action == "verify":
        states, _ = watched(lambda progress, stop: [verify(scene, to) for scene in scenes])
        show_scene_states(make_console(), states)
        if any(state.state in ("absent", "damaged") for state in states):
            raise typer.Exit(1)
    else:
        show_benchmarks(make_console(), scenes, benchmarks(), {s.key for s in scenes if folder_of(s, to).is_dir()})


@command("doctor", "Knowing")
def doctor() -> None:
    """What works on this machine: engines, threads, SIMD, memory, packages, LPIPS weights."""
    from ..doctor import examine
    from .tables import show_findings

    show_findings(make_console(), examine())


# ----------------------------------------------------------------------------------------------------------- plumbing
def _config(
    presets: Sequence[str] | None,
    options: Sequence[str],
    settings: Sequence[str] | None,
    points: str | None = None,
    nerf_seconds: float | None = None,
) -> RunConfig:
    from ..config import SECTIONS, build_config, field_types, load_preset, parse_overrides

    layers = [load_preset(name) for name in presets or ()]
    typed = [*options, *(settings or ())]
    chosen = build_config(*layers, parse_overrides(typed))
    if nerf_seconds is not None:
        typed.append(f"{_nerf_key(chosen, nerf_seconds)}={nerf_seconds!r}")
        chosen = build_config(*layers, parse_overrides(typed))
    if points is None:
        return chosen
    # Presets choose the initializer too, so that only a whole config tells which it is.
    section = SECTIONS["init"]
    if "count" not in field_types(section.config_class(chosen.init.name)):
        takers = [name for name in section.names() if "count" in field_types(section.config_class(name))]
        raise ConfigError(
            f"--points: got {points} for the initializer '{chosen.init.name}', whose points are as many as there are; "
            "expected an initializer that takes a number.",
            hint=f"Leave --points out, or choose --init {' or '.join(takers)}.",
        )
    each = getattr(chosen.init.settings, "per_reference", None)
    if each is not None:
        raise ConfigError(
            f"--points: got {points} beside init.per_reference={each}; expected one of them.",
            hint="Leave --points out, or add init.per_reference=none.",
        )
    return build_config(*layers, parse_overrides([*typed, f"init.count={point_count(points)}"]))


def _nerf_key(chosen: RunConfig, seconds: float) -> str:
    """The setting that ``--nerf-seconds`` is short for. Raises ConfigError where no field is fitted."""
    if chosen.init.name == "nerf":
        return "init.fit_seconds"
    if "nerf" in getattr(chosen.init.settings, "of", ()):
        return "init.nerf.fit_seconds"
    raise ConfigError(
        f"--nerf-seconds: got {seconds:g} for the initializer '{chosen.init.name}', which fits no radiance field.",
        hint="Leave --nerf-seconds out, or choose --init nerf.",
    )


def _run_and_show(scene: Path, out: Path | None, config: RunConfig, profile: bool) -> None:
    from .. import pipeline
    from .tables import show_profile, show_runs

    result, signum = watched(
        lambda progress, stop: pipeline.run(scene, out, config=config, progress=progress, stop=stop),
    )
    exit_if_stopped(result, signum)
    show_runs(make_console(), [result])
    if profile and result.profile is not None:
        show_profile(make_console(), result.profile)


def exit_if_stopped(result: RunResult, signum: int | None) -> None:
    """Say how to go on, and exit as a process that was stopped by this signal does."""
    if not result.interrupted:
        return
    of = f" of {result.config.train.steps}" if result.config.train.seconds is None else ""
    make_console(stderr=True).print(
        f"Stopped after step {result.steps_done}{of}; a checkpoint is in "
        f"{escape(str(result.folder.checkpoints))}.\nThe same command goes on from there.",
        soft_wrap=True,
    )
    raise typer.Exit(128 + (signum or signal.SIGINT))


def start_file(start: Path) -> Path:
    """The file or COLMAP folder of points that START of ``splatinit train`` means. Raises ConfigError."""
    from ..io.colmap_model import model_suffix

    files = (start, start / "init" / "points.ply", start / "points.ply")
    folders = (start / "sparse" / "0", start)
    for found in (*filter(Path.is_file, files), *filter(model_suffix, folders)):
        return found
    raise ConfigError(
        f"{start}: no points to start from; expected a .ply, a run folder, or a COLMAP model with points3D.",
        hint="`splatinit init SCENE` makes some.",
        path=start,
    )


def _run_name(points: Path) -> str:
    """A name for the run that starts from ``points``, where the file's own name says nothing."""
    folder = points.resolve().parent
    return folder.parent.name if folder.name in ("init", "sparse") else folder.name


def _scene_or_setting(scene: Path | None, settings: list[str] | None) -> tuple[Path | None, list[str] | None]:
    """A run folder needs no SCENE, so its place may be taken by the first KEY=VALUE."""
    if scene is not None and "=" in str(scene) and not scene.exists():
        return None, [str(scene), *(settings or [])]
    return scene, settings


def _saved_or_new_config(target: Path, presets: Sequence[str] | None, typed: Sequence[str]) -> RunConfig:
    """The config of a run folder, or the defaults for a .ply, under what was typed."""
    from ..config import Layer, build_config, load_preset, parse_overrides, read_yaml
    from ..io.runs import find_run

    layers = []
    if target.is_dir():
        file = find_run(target).config
        layers.append(Layer(str(file), read_yaml(file)))
    layers += [load_preset(name) for name in presets or ()]
    return build_config(*layers, parse_overrides(typed))


def _load_gaussians(target: Path) -> Gaussians:
    from ..io.runs import find_run
    from ..io.splat import read_splat_ply

    file = find_run(target).splat if target.is_dir() else target
    if not file.is_file():
        hint = "The run is not finished: give its `splatinit run` command again." if target.is_dir() else None
        raise ConfigError(f"{file} does not exist.", hint=hint, path=file)
    return read_splat_ply(file)


def _load_field(target: Path) -> Field:
    from .. import pipeline
    from ..io.runs import find_run

    file = find_run(target).field if target.is_dir() else target
    if not file.is_file():
        hint = "Runs with --init nerf keep one, once their start is finished." if target.is_dir() else None
        raise ConfigError(f"{file} does not exist.", hint=hint, path=file)
    return pipeline.load_field(file)


def _load_scene(target: Path, scene: Path | None, config: RunConfig, progress: Any) -> Scene:
    """The run's own scene, or ``scene`` where it is given."""
    from .. import pipeline
    from ..io.runs import find_run

    if scene is None:
        if not target.is_dir():
            raise ConfigError(
                f"{target} is a splat without its scene.", hint="Name the scene as well: splatinit eval SPLAT SCENE."
            )
        return pipeline.saved_scene(find_run(target), progress)
    return pipeline.given_cameras(pipeline.read(scene, config.data), progress)


def _run_scene(run: Path, progress: Any) -> Scene:
    """The scene of a run folder, with the poses and points that it found."""
    from .. import pipeline
    from ..io.runs import find_run

    return pipeline.saved_scene(find_run(run), progress)


def _whole_scene(scene: Path, typed: Sequence[str], pose: bool, progress: Any) -> Scene:
    """A scene at full size, with the poses and points that came with it; ``pose`` computes what is missing."""
    from .. import pipeline
    from ..config import Layer, build_config, parse_overrides

    given = {"poser.name": "given", "poser.triangulate": False}
    defaults = Layer("convert", {"data.max_size": None, **({} if pose else given)})
    config = build_config(defaults, parse_overrides(typed))
    progress.start("read")
    images = pipeline.read(scene, config.data, progress=progress)
    progress.finish(pipeline.describe_images(images))
    for text in images.notes:
        progress.note(text)
    try:
        posed = pipeline.pose(images, pipeline.resolve_poser(config, images), progress=progress)
    except NoPoses as error:
        hint = "Give --pose, so that structure from motion finds them."
        raise NoPoses(error.message, hint=hint) from error
    for text in posed.notes[len(images.notes) :]:
        progress.note(text)
    return posed


def _version(wanted: bool) -> None:
    if wanted:
        make_console().print(f"splatinit {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Replaced by OVERVIEW in the help; here for --version."""


def main() -> None:
    """Entry point of the ``splatinit`` command."""
    environment.shorten_thread_spin()
    app()
