"""The commands that tell: demo, check, convert, list, data, doctor."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..errors import ConfigError, NoPoses
from .base import command
from .console import make_console, watched
from .options import (
    DownscaleOption,
    FormatOption,
    FpsOption,
    FramesOption,
    MasksOption,
    MaxSizeOption,
    OutsideOption,
    SceneArgument,
    SettingsArgument,
    reading_settings,
    run_config,
)

if TYPE_CHECKING:
    from ..types import Scene


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
    chosen = run_config(None, reading, settings)
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
        Path | None,
        typer.Option(
            "--to",
            metavar="DIR",
            show_default="SPLATINIT_DATA, or data",
            help="The data folder; scenes lie in DIR/BENCHMARK/SCENE.",
        ),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="With [cyan]fetch[/]: keep the archives, in DIR/.archives.")
    ] = False,
) -> None:
    """The public benchmark scenes: what there is, fetching it, and whether it is whole.

    list: each benchmark's scenes with source, licence, size and protocol, and which are here. fetch: downloads (resumed
    after an interrupt, verified where a checksum is known), unpacks, and keeps nothing half done. verify: compares
    folders with the registry, and with what was unpacked; exit code 1 where one is damaged or absent.

    Scenes that lie elsewhere already are found there: DIR/BENCHMARK may be a link to such a folder, and what
    SPLATINIT_DATA names is the data folder of this command and of sweeps.

    [bold]Examples[/]

      splatinit data list
      splatinit data fetch tanks_and_temples          [dim]two scenes, 0.7 GB[/]
      splatinit data verify mipnerf360/garden --to /mnt/data
    """
    from ..data.benchmarks import benchmarks, data_folder, find_scenes
    from ..data.fetch import count, fetch, verify
    from .tables import show_benchmarks, show_places, show_scene_states

    scenes, root = find_scenes(names or []), data_folder() if to is None else to
    if action == "fetch":
        if not names:
            raise ConfigError(
                "data fetch: got no name; expected a benchmark or a scene.",
                hint=f"One or more of {', '.join(benchmarks())}.",
            )
        fetched, _ = watched(lambda progress, stop: fetch(scenes, root, keep=keep, progress=progress))
        show_places(make_console(), {scene.key: path for scene, path in zip(scenes, fetched, strict=True)})
    elif action == "verify":
        states, _ = watched(lambda progress, stop: [verify(scene, root) for scene in scenes])
        show_scene_states(make_console(), states)
        if any(state.state in ("absent", "damaged") for state in states):
            raise typer.Exit(1)
    else:
        show_benchmarks(make_console(), root, benchmarks(), [count(scene, root) for scene in scenes])


@command("doctor", "Knowing")
def doctor() -> None:
    """What works on this machine: engines, threads, SIMD, memory, packages, LPIPS weights."""
    from ..doctor import examine
    from .tables import show_findings

    show_findings(make_console(), examine())


# ----------------------------------------------------------------------------------------------------------- plumbing
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
