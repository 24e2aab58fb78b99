"""Arguments and options that several commands share, and the settings that the options are short for."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ConfigError

if TYPE_CHECKING:
    from ..config import RunConfig

SceneArgument = Annotated[
    Path,
    typer.Argument(
        metavar="SCENE",
        show_default=False,
        help="Folder of photos, a video, or a scene with poses: COLMAP, nerfstudio, instant-ngp, Blender, LLFF, IDR or "
        "NeuS, … ([cyan]splatinit list[/] shows all). The format is detected and said.",
    ),
]
SettingsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        show_default=False,
        help="Any setting, e.g. [cyan]init.count=50000 train.ssim_weight=0.1[/]. "
        "[cyan]splatinit list --settings[/] shows them all.",
    ),
]
InitOption = Annotated[
    str | None,
    typer.Option(
        "--init",
        "-i",
        metavar="NAME",
        show_default="sfm",
        help="Where the Gaussians start: [cyan]sfm[/] (the points that structure from motion left), [cyan]random[/], "
        "…; several together as [cyan]sfm+random[/]. Short for [cyan]init.name=NAME[/].",
    ),
]
PointsOption = Annotated[
    str | None,
    typer.Option(
        "--points",
        metavar="N",
        show_default="the initializer's",
        help="How many points to start from ([cyan]50000[/], [cyan]200k[/], [cyan]1.5M[/]), where the initializer "
        "takes a number: [cyan]dense[/], [cyan]random[/], [cyan]nerf[/], [cyan]depth[/], [cyan]file[/]. "
        "Short for [cyan]init.count=N[/].",
    ),
]
NerfSecondsOption = Annotated[
    float | None,
    typer.Option(
        "--nerf-seconds",
        metavar="SECONDS",
        show_default="1000 steps",
        help="With [cyan]--init nerf[/]: how long its radiance field is fitted. Short for "
        "[cyan]init.fit_seconds=SECONDS[/]; the clock ends no two fits alike, [cyan]init.fit_steps=N[/] does.",
    ),
]
ConfigOption = Annotated[
    list[str] | None,
    typer.Option(
        "--config",
        "-c",
        metavar="PRESET",
        show_default=False,
        help="A preset by name ([cyan]splatinit list[/]) or a YAML file, such as another run's config.yaml. May be "
        "repeated; later ones win, and KEY=VALUE wins over all.",
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="DIR",
        show_default="runs/<scene>-<init>",
        help="Run folder. One that holds an unfinished run of the same settings is resumed; one of other settings is "
        "refused, never mixed.",
    ),
]
MaxSizeOption = Annotated[
    int | None,
    typer.Option(
        "--max-size", metavar="PX", show_default="1600", help="Reduce photos whose longer side is larger than this."
    ),
]
DownscaleOption = Annotated[
    float | None,
    typer.Option(
        "--downscale",
        metavar="N",
        show_default=False,
        help="Reduce photos by this factor instead (a folder images_N is used where it exists).",
    ),
]
FormatOption = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="NAME",
        show_default="detected",
        help="Read the scene as this, where its folder holds several descriptions.",
    ),
]
MasksOption = Annotated[
    str | None,
    typer.Option(
        "--masks",
        metavar="USE",
        show_default="as the format has it",
        help="What masked pixels are: [cyan]ignore[/] (unknown, never looked at), [cyan]alpha[/] (transparent, the "
        "object stands alone), or [cyan]off[/] (masks are not read).",
    ),
]
FramesOption = Annotated[
    int | None,
    typer.Option(
        "--frames", metavar="N", show_default=False, help="Of a video: take the sharpest frame of each of N windows."
    ),
]
FpsOption = Annotated[
    float | None,
    typer.Option("--fps", metavar="X", show_default="2", help="Of a video: take so many frames a second instead."),
]
OutsideOption = Annotated[
    bool,
    typer.Option("--allow-outside", help="Let the scene's files name images outside its folder; off for safety."),
]
StepsOption = Annotated[
    int | None,
    typer.Option(
        "--steps",
        metavar="N",
        show_default="7000",
        help="Training steps. All schedules are fractions of them. 30 000 is the field's full length.",
    ),
]
SeedOption = Annotated[
    int | None,
    typer.Option("--seed", metavar="N", show_default="0", help="Same seed, same splat.ply, bit for bit."),
]
BackendOption = Annotated[
    str | None,
    typer.Option("--backend", metavar="NAME", show_default="cpu", help="Rasterizer: [cyan]cpu[/], [cyan]cuda[/] …"),
]
ProfileOption = Annotated[
    bool, typer.Option("--profile", help="Also say where the time of the training went, stage by stage.")
]
PairSceneArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="SCENE",
        show_default=False,
        help="The scene. Not needed for a run folder, which knows its own.",
    ),
]
TargetArgument = Annotated[
    Path, typer.Argument(metavar="RUN_OR_PLY", show_default=False, help="A run folder, or any 3DGS splat.ply.")
]


def reading_settings(
    max_size: int | None = None,
    downscale: float | None = None,
    format: str | None = None,
    masks: str | None = None,
    frames: int | None = None,
    fps: float | None = None,
    allow_outside: bool = False,
) -> list[str]:
    """The options about reading that are short for settings, as key=value."""
    named = {
        "max_size": max_size,
        "downscale": downscale,
        "format": format,
        "masks": masks,
        "frames": frames,
        "fps": fps,
        "allow_outside": "true" if allow_outside else None,
    }
    return [f"data.{key}={value}" for key, value in named.items() if value is not None]


def run_settings(
    *, init: str | None = None, steps: int | None = None, seed: int | None = None, backend: str | None = None
) -> list[str]:
    """The options about the run that are short for settings, as key=value."""
    named = {"init.name": init, "train.steps": steps, "seed": seed, "raster.backend": backend}
    return [f"{key}={value}" for key, value in named.items() if value is not None]


_UNITS = {"k": 1_000, "m": 1_000_000}


def point_count(text: str) -> int:
    """What ``--points`` means: 50000, 50_000, 200k, 1.5M. Raises ConfigError for what is no number of points."""
    digits, unit = (text[:-1], _UNITS[text[-1].lower()]) if text[-1:].lower() in _UNITS else (text, 1)
    plain = digits.replace("_", "").replace(".", "", 1)
    number = Decimal(digits.replace("_", "")) * unit if plain.isascii() and plain.isdigit() else Decimal(0)
    if number < 1 or number != int(number):
        raise ConfigError(
            f"--points: got '{text}'; expected a number of points, 1 or more.",
            hint="For example --points 50000, --points 200k or --points 1.5M.",
        )
    return int(number)


def run_config(
    presets: Sequence[str] | None,
    options: Sequence[str],
    settings: Sequence[str] | None,
    points: str | None = None,
    nerf_seconds: float | None = None,
) -> RunConfig:
    """The config of what was typed: presets, then the options and settings as key=value, then the two options."""
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
