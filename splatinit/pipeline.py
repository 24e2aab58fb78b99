"""The composition root: the line folder → ImageSet → Scene → Initialization → Gaussians → trained → Report, once.

Each stage is a function that can be called by itself (they are what ``import splatinit`` offers); :func:`run` calls
one after the other inside a run folder and re-uses what is already there. Every stage writes first and reads back
what it wrote, so that a resumed run continues from exactly the numbers that an uninterrupted one had.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import device as devices
from . import environment
from .config import (
    Choice,
    Layer,
    RunConfig,
    build_config,
    field_types,
    is_combined,
    load_preset,
    read_yaml,
    settings_from_keywords,
)
from .densify import DENSIFIERS
from .distributed import ALONE, Group, join
from .errors import FormatError, NoImages
from .initializers import INITIALIZERS, needs_points, require_packages
from .io import runs
from .posers import POSERS, choose_poser
from .progress import Progress, Silent
from .raster import make_rasterizer
from .registry import Registry
from .stopwatch import Profile
from .types import Camera, DepthPrior, Gaussians, ImageSet, Initialization, PointCloud, Scene

if TYPE_CHECKING:
    import torch

    from .evaluation import EvalReport
    from .nerf import Field
    from .training import TrainResult


def never() -> bool:
    """The ``stop`` of a run that nobody interrupts."""
    return False


# ------------------------------------------------------------------------------------------------------- the stages
def read(path: Path | str, config: Any = None, *, progress: Progress = Silent(), **settings: Any) -> ImageSet:
    """Folder (or video) → ImageSet.

    ``settings`` are the fields of :class:`splatinit.io.read.ReadConfig` (max_size, downscale, …).
    Raises NoImages for fewer than two photos: nothing can be reconstructed from one.
    """
    from .io.read import ReadConfig, read_images

    images = read_images(Path(path), config or settings_from_keywords(ReadConfig, settings, "read"), progress)
    if len(images.photos) < 2:
        raise NoImages(
            f"{path} holds {len(images.photos)} photo; a scene needs at least two, and a good one twenty or more.",
            hint="Give the folder that holds all photos of the scene.",
        )
    return images


def pose(
    images: ImageSet,
    poser: str | Choice = "auto",
    *,
    work_dir: Path | None = None,
    progress: Progress = Silent(),
    **settings: Any,
) -> Scene:
    """ImageSet → Scene. ``auto`` takes the poses that came with the photos, and runs COLMAP where none came.

    ``settings`` are the fields of the poser's config; ``work_dir`` caches what is costly.
    """
    name = poser.name if isinstance(poser, Choice) else poser
    choice = poser if name != "auto" else choose_poser(images)
    return _make(POSERS, choice, settings).pose(images, work_dir=work_dir, progress=progress)


def initialize(
    scene: Scene,
    init: str | Choice = "sfm",
    *,
    seed: int = 0,
    work_dir: Path | None = None,
    progress: Progress = Silent(),
    **settings: Any,
) -> Initialization:
    """Scene → Initialization, by the initializer called ``init``; ``settings`` are the fields of its config.

    ``a+b`` is the union of several, whose settings are given by name: ``initialize(scene, "sfm+random",
    random={"count": 5000})``. ``work_dir`` keeps what takes long, so that the same call goes on after an interrupt.
    """
    made = _make(INITIALIZERS, init, settings)
    start = made.initialize(scene, seed=seed, progress=progress, work_dir=work_dir)
    start.points.check("initialization")
    return start


def seed(start: Initialization | PointCloud, config: Any = None, **settings: Any) -> Gaussians:
    """Points → Gaussians. ``settings`` are the fields of :class:`splatinit.seeding.SeedConfig`."""
    from .seeding import SeedConfig, seed_gaussians

    points = start.points if isinstance(start, Initialization) else start
    return seed_gaussians(points, config or settings_from_keywords(SeedConfig, settings, "seed"))


def train(
    scene: Scene,
    gaussians: Gaussians,
    config: Any = None,
    *,
    raster: str | Choice = "cpu",
    densify: str | Choice = "adc",
    seed: int = 0,
    depth_priors: Mapping[str, DepthPrior] | None = None,
    checkpoints: Path | None = None,
    log: Callable[[dict], None] | None = None,
    during: Sequence[float] = (),
    spent: float = 0.0,
    progress: Progress = Silent(),
    stop: Callable[[], bool] = never,
    profile: bool = False,
    group: Group = ALONE,
    **settings: Any,
) -> TrainResult:
    """Gaussians → trained Gaussians (``.gaussians`` of the result). ``settings`` are the fields of TrainConfig.

    With ``checkpoints``, a training that was interrupted goes on from the newest one to the same numbers. ``log`` also
    hears the mean PSNR over the test views after the fractions of the training in ``during`` (see
    :class:`splatinit.evaluation.EvalConfig`). ``spent``: seconds of TrainConfig.seconds that the start has taken.
    ``profile``: see :func:`splatinit.training.train`. The Gaussians of the result are on the host, whatever ``raster``.
    ``group``: the processes that call this together, under torchrun (:func:`splatinit.distributed.join`).
    """
    from .evaluation import mean_psnr
    from .training import Measurement, TrainConfig
    from .training import train as optimise

    environment.use_threads()
    rasterizer, drawing = group.rasterizer(make_rasterizer(_name(raster))), _raster_settings(raster)
    if profile and devices.device_of(rasterizer).type == "cuda" and hasattr(rasterizer, "options"):
        rasterizer.options["timings"] = 1  # of its stages, for which our engine waits at each step
    config = config or settings_from_keywords(TrainConfig, settings, "train")
    measurement = Measurement(
        tuple(during),
        lambda now: mean_psnr(scene, now, rasterizer=rasterizer, settings=drawing),
    )
    return optimise(
        scene,
        gaussians,
        rasterizer=rasterizer,
        settings=drawing,
        densifier=_make(DENSIFIERS, densify, {}),
        config=config,
        seed=seed,
        checkpoints=checkpoints,
        log=log,
        depth_priors=depth_priors or {},
        measurement=measurement,
        spent=spent,
        progress=progress,
        stop=stop,
        profile=profile,
        group=group,
    )


def evaluate(
    scene: Scene,
    gaussians: Gaussians,
    config: Any = None,
    *,
    raster: str | Choice = "cpu",
    out_dir: Path | None = None,
    progress: Progress = Silent(),
    **settings: Any,
) -> EvalReport:
    """Scores on the scene's test views; with ``out_dir``, also metrics.json, renders, error maps and a contact sheet.

    ``settings`` are the fields of :class:`splatinit.evaluation.EvalConfig`.
    """
    from .evaluation import EvalConfig
    from .evaluation import evaluate as score

    environment.use_threads()
    return score(
        scene,
        gaussians,
        rasterizer=make_rasterizer(_name(raster)),
        settings=_raster_settings(raster),
        config=config or settings_from_keywords(EvalConfig, settings, "evaluate"),
        out_dir=out_dir,
        progress=progress,
    )


def render(
    gaussians: Gaussians,
    cameras: Sequence[Camera],
    *,
    raster: str | Choice = "cpu",
    background: tuple[float, float, float] | None = None,
    progress: Progress = Silent(),
) -> Iterator[np.ndarray]:
    """The images [h, w, 3] uint8 that ``cameras`` see, one after the other; over black without a ``background``.

    A few images are drawn ahead in a thread of their own (see :mod:`splatinit.frames`), so leave ``gaussians`` alone
    while they come. Raises BackendError where the backend gave colours that are not finite.
    """
    from . import frames

    environment.use_threads()
    rasterizer, settings = make_rasterizer(_name(raster)), _raster_settings(raster)
    gaussians = devices.moved(gaussians, devices.device_of(rasterizer))

    def draw(camera: Camera) -> np.ndarray:
        return frames.draw(gaussians, camera, rasterizer=rasterizer, settings=settings, background=background)

    progress.start("render", len(cameras))
    with closing(frames.drawn_ahead(draw, cameras)) as images:
        for done, image in enumerate(images, 1):
            yield image
            progress.advance(done)
    progress.finish(f"{len(cameras)} images")


def load_field(path: Path | str) -> Field:
    """A radiance field that a run with ``nerf`` kept (``init/field.safetensors``). Raises FormatError."""
    from .nerf import load_field as load

    return load(Path(path))


def render_field(
    field: Field,
    cameras: Sequence[Camera],
    *,
    background: tuple[float, float, float] | None = None,
    progress: Progress = Silent(),
) -> Iterator[np.ndarray]:
    """As :func:`render`, of a radiance field (:func:`load_field`)."""
    from . import frames
    from .nerf import picture

    environment.use_threads()
    colour = np.array(background or (0.0, 0.0, 0.0), dtype=np.float32)
    progress.start("render", len(cameras))
    for done, camera in enumerate(cameras, 1):
        seen = picture(field, camera)
        yield frames.quantised(seen.rgb.numpy() + (1 - seen.opacity.numpy())[..., None] * colour)
        progress.advance(done)
    progress.finish(f"{len(cameras)} images")


def _name(part: str | Choice) -> str:
    return part.name if isinstance(part, Choice) else part


def _make(registry: Registry[Any], part: str | Choice, settings: Mapping[str, Any]) -> Any:
    """The part itself, built with its config (or with nothing when it has none)."""
    name, of = registry.split(_name(part))
    implementation = registry.load(name)
    config = part.settings if isinstance(part, Choice) else None
    if config is None:
        settings = {"of": of, **settings} if of else settings
        config = settings_from_keywords(registry.config_class(name), settings, f"{registry.kind} '{name}'", registry)
    return implementation() if config is None else implementation(config)


def _raster_settings(raster: str | Choice) -> Any:
    from .raster import RasterSettings

    return raster.settings if isinstance(raster, Choice) else RasterSettings()


# --------------------------------------------------------------------------------------------------------- the line
@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a run left.

    Attributes:
        folder: the run folder; ``folder.splat`` is the trained scene, ``folder.eval`` holds the pictures.
        config: every setting that was in force.
        scene, start, gaussians: what the stages gave; ``gaussians`` and ``report`` are None when the run was stopped.
        report: the scores.
        leads: False in a process that only trained along with another one, which has the rest.
        seconds: stage → seconds it took when it was computed (not when it was re-used).
        profile: where the seconds of the training went; None when it was stopped.
        steps_done: updates made in all.
        interrupted: whether ``stop`` ended the training; the same call goes on from its checkpoint.
        reused: the stages whose results were already there.
    """

    folder: runs.RunFolder
    config: RunConfig
    scene: Scene
    start: Initialization
    gaussians: Gaussians | None = None
    report: EvalReport | None = None
    leads: bool = True
    seconds: Mapping[str, float] = field(default_factory=dict)
    profile: Profile | None = None
    steps_done: int = 0
    interrupted: bool = False
    reused: tuple[str, ...] = ()


class _Stages:
    """Computes a stage or re-uses it, and remembers how long it took and what it left."""

    def __init__(self, folder: runs.RunFolder, progress: Progress) -> None:
        self.folder, self.progress = folder, progress
        self.reused: list[str] = []
        try:
            folder.record()
        except FormatError as error:
            progress.note(f"{error.message} All stages are computed again; training goes on from its checkpoints.")
            folder.stages.unlink()

    def kept(self, name: str) -> bool:
        """Whether ``name`` was finished before and its files are still as it left them."""
        if name not in self.folder.record():
            return False
        damage = self.folder.damage(name)
        if damage is not None:
            self.progress.note(f"{damage}: '{name}' is done again.")
            self.folder.forget_stage(name)
            return False
        self.reused.append(name)
        return True

    def do(self, name: str, compute: Callable[[], tuple[list[Path], Mapping[str, Any]]]) -> None:
        """Have the stage's files: nothing to do where they are kept, else ``compute`` makes them, and facts to note."""
        if self.kept(name):
            return
        began = time.perf_counter()
        files, facts = compute()
        self.folder.finish_stage(name, files, **{"seconds": time.perf_counter() - began} | dict(facts))


def run(
    images: Path | str,
    out: Path | str | None = None,
    *,
    init: str | None = None,
    settings: Mapping[str, Any] | None = None,
    config: RunConfig | None = None,
    poses: Path | None = None,
    progress: Progress = Silent(),
    stop: Callable[[], bool] = never,
    profile: bool = False,
) -> RunResult:
    """The whole line: photos (or a scene with poses) in, a trained and scored splat out.

    Args:
        images: folder of photos, or a COLMAP, nerfstudio or Blender scene.
        out: run folder; ``runs/<scene>-<init>`` if None. One that holds an unfinished run of the same settings and
            photos is resumed; any other is refused.
        init: name of the initializer, short for ``settings={"init.name": ...}``.
        settings: any keys, as on the command line: ``{"train.steps": 2000, "data.max_size": 800}``.
        config: a config from :func:`splatinit.config.build_config` in place of ``init`` and ``settings``.
        poses: folder where runs of the same photos share what the poser found; the first of them fills it, others
            wait for that. Only cameras and points are copied from it into ``out``, no photos.
        progress: receives the course of all stages.
        stop: asked between training steps; once it is true, a checkpoint is written and the run returns.
        profile: see :func:`splatinit.training.train`.

    Started by torchrun in several processes, the first goes the whole line, and the others train along with it, silent
    but for errors (see :mod:`splatinit.distributed`): they read scene and start from the run folder, on a disk that all
    see.

    Raises SplatinitError for everything a user can cause, and has then written nothing over; FolderInUse while another
    process works in ``out``.
    """
    config = config or make_config(init, settings)
    group = join(config.raster.name)
    if not group.leads:
        root = Path(out) if out is not None else default_out(images, config)
        return _follow(group, runs.RunFolder(root), config, stop)
    with _Line.open(images, out, config, progress, poses, group) as line:
        # Some initializers may be told how many points to make: what training has no memory for need not be made.
        planned = getattr(line.config.init.settings, "count", None) or 0
        line.foresee(planned, lambda fits: f"Use init.count={fits} or fewer.")
        start = line.start()
        trained = line.train(start, stop, profile)
        group.leave()
        if not trained or stop():
            return line.result(start, interrupted=True)
        from .io.splat import read_splat_ply

        gaussians = read_splat_ply(line.folder.splat)
        report = line.evaluate(gaussians)
        return line.result(start, gaussians=gaussians, report=report)


def start(
    images: Path | str,
    out: Path | str | None = None,
    *,
    config: RunConfig,
    with_images: bool = False,
    progress: Progress = Silent(),
) -> RunResult:
    """The line up to the initial points, written as ``init/points.ply`` and as a COLMAP model for other trainers.

    ``with_images`` adds the photos, undistorted and at the working size, so that ``init/`` is a complete COLMAP
    dataset. :func:`run` with the same settings goes on from here.
    """
    with _Line.open(images, out, config, progress) as line:
        begun = line.start()
        export_model(line.scene, begun.points, line.folder, with_images=with_images, progress=progress)
        return line.result(begun)


def share_poses(images: Path | str, poses: Path, *, config: RunConfig, progress: Progress = Silent()) -> None:
    """Find the poses that :func:`run` with this ``config`` takes from the folder ``poses``, before any of the runs."""
    from .posers.sharing import fill

    environment.use_threads()
    found, poser = _read_aloud(images, config, progress)
    fill(poses, lambda work_dir: pose(found, poser, work_dir=work_dir, progress=progress))


def make_config(init: str | None = None, settings: Mapping[str, Any] | None = None, *presets: str) -> RunConfig:
    """A run's config from Python values: presets by name, then ``settings`` by dotted key, then ``init``."""
    layers = [load_preset(name) for name in presets]
    # One layer: a later one that chose the initializer would drop what ``settings`` say about it.
    chosen = {} if init is None else {"init.name": init}
    layers.append(Layer("settings", dict(settings or {}) | chosen))
    return build_config(*layers)


@dataclass
class _Line:
    """One run on its way through the stages."""

    config: RunConfig
    folder: runs.RunFolder
    stages: _Stages
    scene: Scene
    progress: Progress
    device: torch.device  # that the Gaussians will be trained on
    group: Group = ALONE
    steps_done: int = 0

    @classmethod
    @contextmanager
    def open(
        cls,
        path: Path | str,
        out: Path | str | None,
        config: RunConfig,
        progress: Progress,
        poses: Path | None = None,
        group: Group = ALONE,
    ) -> Iterator[_Line]:
        """Read and pose the photos, and hold the folder for the block.

        Whatever can be refused is refused before the folder is touched.
        """
        environment.use_threads()
        require_packages(config.init.name, config.init.settings)
        DENSIFIERS.load(config.densify.name)
        rasterizer = make_rasterizer(config.raster.name)
        note = getattr(rasterizer, "note", None)
        if note is not None:
            progress.note(note)
        began = time.perf_counter()
        images, poser = _read_aloud(path, config, progress)
        seconds = time.perf_counter() - began
        device = devices.device_of(rasterizer)
        session = environment.session(config.seed, config.raster.name, str(device)) | {"seconds_read": seconds}
        root = Path(out) if out is not None else default_out(path, config)
        with runs.take_run(root, config.expand(), _inputs(images, config), session) as folder:
            for text in folder.notes:
                progress.note(text)
            stages = _Stages(folder, progress)
            yield cls(
                config,
                folder,
                stages,
                _posed(images, poser, stages, poses),
                progress,
                device,
                group,
            )

    def start(self) -> Initialization:
        from .quality import measure, summary

        def compute() -> tuple[list[Path], dict[str, Any]]:
            began = time.perf_counter()
            begun = initialize(
                self.scene,
                self.config.init,
                seed=self.config.seed,
                work_dir=self.folder.start_work,
                progress=self.progress,
            )
            seconds = time.perf_counter() - began
            self.progress.start("quality")
            quality, notes = measure(self.scene, begun.points)
            self.progress.finish(summary(quality))
            for text in notes:
                self.progress.note(text)
            begun = dataclasses.replace(begun, quality=quality, notes=(*begun.notes, *notes))
            # What making the start took; its quality is looked at for people.
            return self.folder.write_start(begun), {"points": len(begun.points), "seconds": seconds}

        self.stages.do("init", compute)
        return self.folder.read_start()

    def foresee(self, count: int, how: Callable[[int], str]) -> None:
        """Raise OutOfMemory unless ``count`` Gaussians can be trained here (see :mod:`splatinit.memory`)."""
        from .training import memory_needs

        if "train" not in self.folder.record():
            needs = memory_needs(self.scene, self.config.seeding.sh_degree, self.config.train, self.device)
            share = self.group.share(count)
            needs.require(share, lambda fits: how(fits * self.group.size), given=False)

    def train(self, begun: Initialization, stop: Callable[[], bool], profile: bool = False) -> bool:
        """Have ``splat.ply``; False when ``stop`` came first."""
        from .io.splat import write_splat_ply

        if not self.group.wait_for_start(not self.stages.kept("train")):
            return True
        self.foresee(len(begun.points), lambda fits: f"Start from at most {fits} points.")
        idle = environment.gpus() if self.config.raster.name == "cpu" else None
        if idle:
            self.progress.note(
                f"Training on the CPU; '{idle[0]}' could be used, too: --backend cuda (needs: splatinit doctor)."
            )
        result = train(
            self.scene,
            seed(begun, self.config.seeding),
            self.config.train,
            raster=self.config.raster,
            densify=self.config.densify,
            seed=self.config.seed,
            depth_priors=begun.depth_priors,
            checkpoints=self.folder.checkpoints,
            log=runs.TrainLog(self.folder.train_log),
            during=self.config.eval.during,
            spent=self.folder.record()["init"]["seconds"],
            progress=self.progress,
            stop=stop,
            profile=profile,
            group=self.group,
        )
        self.steps_done = result.steps_done
        if result.interrupted:
            return False
        write_splat_ply(self.folder.splat, result.gaussians)
        self.folder.finish_stage(
            "train",
            [self.folder.splat],
            seconds=result.seconds,
            steps=result.steps_done,
            gaussians=len(result.gaussians),
            peak_memory_mb=result.peak_memory_mb,
            profile=dataclasses.asdict(result.profile),
        )
        return True

    def evaluate(self, gaussians: Gaussians) -> EvalReport:
        return _scores(self.stages, self.scene, gaussians, self.config, self.progress)

    def result(self, begun: Initialization, **more: Any) -> RunResult:
        record = self.folder.record()
        seconds = {name: facts["seconds"] for name, facts in record.items() if "seconds" in facts}
        return RunResult(
            folder=self.folder,
            config=self.config,
            scene=self.scene,
            start=begun,
            seconds=seconds,
            profile=Profile(**record["train"]["profile"]) if "profile" in record.get("train", {}) else None,
            reused=tuple(self.stages.reused),
            steps_done=record.get("train", {}).get("steps", self.steps_done),
            **more,
        )


def _follow(group: Group, folder: runs.RunFolder, config: RunConfig, stop: Callable[[], bool]) -> RunResult:
    """Train along with the process that leads, from what it has left in the run folder."""
    environment.use_threads()
    trains = group.wait_for_start()
    scene, begun = saved_scene(folder), folder.read_start()
    steps, interrupted = 0, False
    if trains:
        result = train(
            scene,
            seed(begun, config.seeding),
            config.train,
            raster=config.raster,
            densify=config.densify,
            seed=config.seed,
            depth_priors=begun.depth_priors,
            checkpoints=folder.checkpoints,
            during=config.eval.during,
            stop=stop,
            group=group,
        )
        steps, interrupted = result.steps_done, result.interrupted
    group.leave()
    return RunResult(
        folder=folder, config=config, scene=scene, start=begun, leads=False, steps_done=steps, interrupted=interrupted
    )


def _read_aloud(path: Path | str, config: RunConfig, progress: Progress) -> tuple[ImageSet, Choice]:
    """The photos, told about, and the poser for them."""
    progress.start("read")
    images = read(path, config.data, progress=progress)
    progress.finish(describe_images(images))
    for text in images.notes:
        progress.note(text)
    poser = resolve_poser(config, images)
    POSERS.load(poser.name)
    return images, poser


def _posed(images: ImageSet, poser: Choice, stages: _Stages, shared: Path | None) -> Scene:
    """The stage "pose"; the poser keeps its result in the folder by itself, or in one that runs share."""
    from .posers.base import kept_files
    from .posers.sharing import shared_result
    from .posers.steps import forget_steps

    folder, progress = stages.folder.scene, stages.progress

    def posed(work_dir: Path = folder) -> Scene:
        return pose(images, poser, work_dir=work_dir, progress=progress)

    def compute() -> tuple[list[Path], dict[str, Any]]:
        facts: dict[str, Any] = {"poser": poser.name}
        if shared is not None:
            # What it cost whoever computed it: a run that found it ready has spared that, but its start has not.
            facts["seconds"] = shared_result(shared, folder, posed)
        posed()
        return kept_files(folder), facts

    stages.do("pose", compute)
    forget_steps(folder)
    scene = posed()
    for text in scene.notes:
        if text not in images.notes:
            progress.note(text)
    return scene


def _scores(stages: _Stages, scene: Scene, gaussians: Gaussians, config: RunConfig, progress: Progress) -> EvalReport:
    """The stage "eval"."""
    from .evaluation import EvalReport, files_of

    folder = stages.folder.eval

    def compute() -> tuple[list[Path], dict[str, Any]]:
        report = evaluate(scene, gaussians, config.eval, raster=config.raster, out_dir=folder, progress=progress)
        return files_of(report, folder), {}

    stages.do("eval", compute)
    return EvalReport.from_json(runs.read_json(folder / "metrics.json"))


def given_cameras(images: ImageSet, progress: Progress = Silent()) -> Scene:
    """The scene with the poses that its files hold, and no points computed: what scoring and drawing need.

    Raises NoPoses where the files hold none: a splat fits only the cameras that it was trained with.
    """
    return pose(images, "given", progress=progress, triangulate=False)


def resolve_poser(config: RunConfig, images: ImageSet) -> Choice:
    """The poser that will run, with settings. Triangulation is left out when the initializer wants no points."""
    name = config.poser.name
    if name == "auto":
        name = choose_poser(images)
    settings = config.poser.settings
    cls = POSERS.config_class(name)
    if settings is None and cls is not None:
        settings = cls()
    if "triangulate" in field_types(cls) and not needs_points(config.init.name, config.init.settings):
        settings = dataclasses.replace(settings, triangulate=False)
    return Choice(name, settings)


def default_out(path: Path | str, config: RunConfig) -> Path:
    """``runs/<scene>-<init>`` under the current folder."""
    return Path("runs") / f"{scene_name(path)}-{config.init.label}"


def scene_name(path: Path | str) -> str:
    """What outputs of a scene are called after: its folder's name, or its file's (a video) without the suffix."""
    place = Path(path).resolve()
    return place.stem if place.is_file() else place.name


def describe_images(images: ImageSet) -> str:
    """One line on what was read: number, format and working size of the photos."""
    sizes = {images.sizes[photo.name] for photo in images.photos}
    width, height = images.sizes[images.photos[0].name]
    size = f"{width}×{height}" if len(sizes) == 1 else f"{len(sizes)} sizes up to {max(max(s) for s in sizes)} px"
    poses = f"{len(images.cameras)} with poses" if images.cameras else "no poses"
    return f"{len(images.photos)} photos ({images.format}), {size}, {poses}"


def _inputs(images: ImageSet, config: RunConfig) -> dict[str, str]:
    """What the run reads: its scene (place and fingerprint), and every file that a setting names."""
    inputs = {"scene": str(images.root.resolve()), "photos": runs.fingerprint_images(images)}
    return inputs | _files({"init": config.init.settings})


def _files(settings: Mapping[str, Any]) -> dict[str, str]:
    """Fingerprints of the files that settings name, by key; ``settings``: by the first part of their keys."""
    found = {}
    for prefix, config in settings.items():
        for name in field_types(type(config) if config is not None else None):
            value = getattr(config, name)
            if isinstance(value, Path):
                found[f"{prefix}.{name}"] = runs.fingerprint_path(value)
        if is_combined(type(config)):
            found |= _files({f"{prefix}.{name}": part for name, part in config.parts.items()})
    return found


# -------------------------------------------------------------------------------------------- what exists already
def saved_config(folder: runs.RunFolder) -> RunConfig:
    """The config of an existing run."""
    return build_config(Layer(str(folder.config), read_yaml(folder.config)))


def saved_scene(folder: runs.RunFolder, progress: Progress = Silent()) -> Scene:
    """The scene of an existing run: its photos are read again, its poses come from the run's cache."""
    config = saved_config(folder)
    images = read(runs.read_json(folder.env)["inputs"]["scene"], config.data, progress=progress)
    return pose(images, resolve_poser(config, images), work_dir=folder.scene, progress=progress)


def score_again(folder: runs.RunFolder, gaussians: Gaussians, progress: Progress = Silent()) -> EvalReport:
    """Evaluate a finished run anew, into its own ``eval/``. Raises FolderInUse while another process works there."""
    with runs.held_run(folder) as notes:
        for text in notes:
            progress.note(text)
        stages = _Stages(folder, progress)
        scene = saved_scene(folder, progress)
        if "eval" in folder.record():
            folder.forget_stage("eval")
        return _scores(stages, scene, gaussians, saved_config(folder), progress)


def export_model(
    scene: Scene, points: PointCloud, folder: runs.RunFolder, *, with_images: bool, progress: Progress = Silent()
) -> None:
    """``init/sparse/0`` (cameras, images, points3D as .bin, and points3D.ply), and the photos if asked for."""
    from .io.colmap_model import write_model
    from .io.images import write_png
    from .io.pointcloud import write_ply_points

    views = list(scene.views)
    if with_images:
        from .decoding import each_decoded
        from .evaluation import file_names

        # The photos become PNG, losslessly, so their names in the model change with them; flat, because some trainers
        # look only at the last part of a name.
        names = file_names([view.name for view in views], flat=True)
        progress.start("photos", len(views))
        for done, (view, pixels) in enumerate(each_decoded(views), 1):
            layers = pixels.rgb if pixels.alpha is None else np.dstack([pixels.rgb, pixels.alpha])
            write_png(folder.start_images / names[view.name], layers)
            progress.advance(done)
        views = [dataclasses.replace(view, name=names[view.name]) for view in views]
        progress.finish(f"{len(views)} undistorted photos")
    write_model(folder.start_model, views, points)
    write_ply_points(folder.start_model / "points3D.ply", points)
