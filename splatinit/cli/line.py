"""The commands of the line: run, init, train, eval, render."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from ..errors import ConfigError
from .base import command
from .console import make_console, watched
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
    reading_settings,
    run_config,
    run_settings,
)

if TYPE_CHECKING:
    from ..config import RunConfig
    from ..nerf import Field
    from ..pipeline import RunResult
    from ..types import Gaussians, Scene


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
    _run_and_show(scene, out, run_config(config, options, settings, points, nerf_seconds), profile)


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
    chosen = run_config(config, [*reading, *run_settings(init=init, seed=seed)], settings, points, nerf_seconds)
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
    _run_and_show(scene, folder, run_config(config, options, settings), profile)


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


# ----------------------------------------------------------------------------------------------------------- plumbing
def _run_and_show(scene: Path, out: Path | None, config: RunConfig, profile: bool) -> None:
    from .. import pipeline
    from .tables import show_profile, show_runs

    result, signum = watched(
        lambda progress, stop: pipeline.run(scene, out, config=config, progress=progress, stop=stop, profile=profile),
    )
    exit_if_stopped(result, signum)
    if not result.leads:
        return
    show_runs(make_console(), [result])
    if profile and result.profile is not None:
        show_profile(make_console(), result.profile)


def exit_if_stopped(result: RunResult, signum: int | None) -> None:
    """Say how to go on, and exit as a process that was stopped by this signal does."""
    if not result.interrupted:
        return
    of = f" of {result.config.train.steps}" if result.config.train.seconds is None else ""
    if result.leads:
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
