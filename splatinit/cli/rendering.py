"""``splatinit render``: from the name of a path to files."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from .. import environment, paths, pipeline
from ..config import Choice
from ..errors import ConfigError
from ..io.cameras import read_cameras
from ..io.video import codec, even_size, write_frames, write_video
from ..progress import Progress
from ..registry import nearest
from ..types import Camera, Gaussians, Scene

if TYPE_CHECKING:
    from ..nerf import Field

MOVING = ("through", "orbit")
VIEWS = ("test", "train", "all")
# Where neither scene nor file says how large: the usual small video.
DEFAULT_SIZE = (960, 540)
PNG_THREADS = 4  # at most: beyond that the engine, which feeds them, is the limit


class Subject(Protocol):
    """What is drawn."""

    def images(self, cameras: Sequence[Camera], background: tuple[float, float, float] | None) -> Generator[np.ndarray]:
        """[h, w, 3] uint8 of each camera."""
        ...

    def around(self, frames: int) -> list[Camera]:
        """A turn around it, where no scene is known."""
        ...


@dataclass(frozen=True)
class Splat:
    """Gaussians, drawn by the backend ``raster``."""

    gaussians: Gaussians
    raster: Choice

    def images(self, cameras, background):
        return pipeline.render(self.gaussians, cameras, raster=self.raster, background=background)

    def around(self, frames):
        width, height = DEFAULT_SIZE
        return paths.around_gaussians(self.gaussians, frames, width=width, height=height)


@dataclass(frozen=True)
class RadianceField:
    """The field of an ``nerf`` start."""

    field: Field

    def images(self, cameras, background):
        return pipeline.render_field(self.field, cameras, background=background)

    def around(self, frames):
        raise ConfigError(
            "A radiance field alone cannot be orbited: which part of it is the scene, its cameras tell.",
            hint="Name the scene as well: splatinit render field.safetensors SCENE --field",
        )


def render_to_files(
    subject: Subject,
    scene: Scene | None,
    *,
    path: str,
    out: Path | None,
    frames: int,
    fps: int,
    max_size: int | None,
    progress: Progress,
) -> list[Path]:
    """Draw ``subject`` along ``path`` and write a video or PNG files; returns what was written.

    Raises ConfigError for a path that does not exist, or that needs a scene where there is none.
    """
    names, cameras = choose_cameras(subject, scene, path, frames)
    if max_size is not None:
        cameras = [_scaled(camera, max_size) for camera in cameras]
    views = names is not None
    stem = Path(path).stem if path.endswith(".json") else path
    out = out or Path(f"render-{stem}" if views else f"render-{stem}.mp4")
    film = out.suffix.lower() == ".mp4"
    sizes = {(camera.width, camera.height) for camera in cameras}
    if film and len(sizes) > 1:
        raise ConfigError("These views have different sizes, and a video has one.", hint="Give a folder as --out.")
    if out.suffix and not film:
        raise ConfigError(f"--out {out}: expected a name ending in .mp4, or a folder.", path=out)
    background = None if scene is None else scene.background
    threads = environment.wanted_threads() or environment.cores()
    pace = Pace(progress, len(cameras))
    # Closed in any case, so that after an error or Ctrl-C nothing goes on being drawn.
    with closing(subject.images(cameras, background)) as images:
        if film:
            write_video(out, pace.told(images), fps, threads=threads)
            written = [out]
        else:
            files = [out / name for name in _png_names(names or [f"{index:05d}" for index in range(len(cameras))])]
            written = write_frames(files, pace.told(images), threads=min(threads, PNG_THREADS))
    pace.finish(cameras[0])
    if film:
        width, height = cameras[0].width, cameras[0].height
        progress.note(f"video codec: {codec()}")
        if even_size(height, width) != (height, width):
            progress.note(f"A video has even sides: the last row or column of {width}×{height} px is left out.")
    return written


class Pace:
    """Tells how many frames are done, and how many a second."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total = progress, total
        self._began = time.perf_counter()
        progress.start("render", total)

    def told(self, images: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for done, image in enumerate(images, 1):
            yield image
            self._progress.advance(done, **{"frames/s": f"{self._rate(done):.1f}"})

    def finish(self, camera: Camera) -> None:
        """To be called when the last frame is encoded and on the disk."""
        size = f"{camera.width}×{camera.height}"
        self._progress.finish(f"{self._total} frames of {size}, {self._rate(self._total):.1f} frames/s")

    def _rate(self, done: int) -> float:
        return done / max(time.perf_counter() - self._began, 1e-9)


def _png_names(names: list[str]) -> list[Path]:
    """Names of views as names of PNG files; where two views differ in their suffix alone, it is kept."""
    short = [Path(name).with_suffix(".png") for name in names]
    return short if len(set(short)) == len(names) else [Path(f"{name}.png") for name in names]


def choose_cameras(
    subject: Subject, scene: Scene | None, path: str, frames: int
) -> tuple[list[str] | None, list[Camera]]:
    """The cameras that ``path`` means, and their names where they are views of the scene."""
    if path.endswith(".json"):
        return None, read_cameras(Path(path))
    if scene is None:
        if path == "orbit":
            return None, subject.around(frames)
        raise ConfigError(
            f"--path {path} follows the cameras of a scene, and none is given.",
            hint="Name the scene as well, or use --path orbit or a JSON file of cameras.",
        )
    by_name = {view.name: view for view in scene.views}
    if path in MOVING:
        cameras = [view.camera for view in scene.views]
        return None, (paths.orbit if path == "orbit" else paths.interpolate)(cameras, frames)
    if path in VIEWS:
        views = {"test": scene.test, "train": scene.train, "all": scene.views}[path]
    elif path in by_name:
        views = (by_name[path],)
    else:
        raise ConfigError(
            f"--path {path}: neither a kind of path, nor a view of {scene.root}, nor a .json file.",
            hint=nearest(path, [*MOVING, *VIEWS, *by_name]),
        )
    if not views:
        raise ConfigError(f"--path {path}: the scene has no such views.")
    return [view.name for view in views], [view.camera for view in views]


def _scaled(camera: Camera, max_size: int) -> Camera:
    factor = max_size / max(camera.width, camera.height)
    return camera.resized(max(1, round(camera.width * factor)), max(1, round(camera.height * factor)))
