"""``splatinit render``: from the name of a path to files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from .. import paths, pipeline
from ..config import Choice
from ..errors import ConfigError
from ..io.cameras import read_cameras
from ..io.images import write_png
from ..io.video import codec, write_video
from ..progress import Progress
from ..registry import nearest
from ..types import Camera, Gaussians, Scene

MOVING = ("through", "orbit")
VIEWS = ("test", "train", "all")
# Where neither scene nor file says how large: the usual small video.
DEFAULT_SIZE = (960, 540)


def render_to_files(
    gaussians: Gaussians,
    scene: Scene | None,
    *,
    path: str,
    out: Path | None,
    frames: int,
    fps: int,
    max_size: int | None,
    raster: Choice,
    progress: Progress,
) -> list[Path]:
    """Draw ``gaussians`` along ``path`` and write a video or PNG files; returns what was written.

    Raises ConfigError for a path that does not exist, or that needs a scene where there is none.
    """
    names, cameras = choose_cameras(gaussians, scene, path, frames)
    if max_size is not None:
        cameras = [_scaled(camera, max_size) for camera in cameras]
    views = names is not None
    stem = Path(path).stem if path.endswith(".json") else path
    out = out or Path(f"render-{stem}" if views else f"render-{stem}.mp4")
    background = None if scene is None else scene.background
    images = pipeline.render(gaussians, cameras, raster=raster, background=background, progress=progress)
    if out.suffix.lower() == ".mp4":
        if len({(camera.width, camera.height) for camera in cameras}) > 1:
            raise ConfigError("These views have different sizes, and a video has one.", hint="Give a folder as --out.")
        write_video(out, images, fps)
        progress.note(f"video codec: {codec()}")
        return [out]
    if out.suffix:
        raise ConfigError(f"--out {out}: expected a name ending in .mp4, or a folder.", path=out)
    return _write_images(out, names or [f"{index:05d}" for index in range(len(cameras))], images)


def _write_images(out: Path, names: list[str], images: Iterable[np.ndarray]) -> list[Path]:
    written = []
    for name, image in zip(names, images, strict=True):
        file = out / Path(name).with_suffix(".png")
        write_png(file, image)
        written.append(file)
    return written


def choose_cameras(
    gaussians: Gaussians, scene: Scene | None, path: str, frames: int
) -> tuple[list[str] | None, list[Camera]]:
    """The cameras that ``path`` means, and their names where they are views of the scene."""
    if path.endswith(".json"):
        return None, read_cameras(Path(path))
    if scene is None:
        if path == "orbit":
            width, height = DEFAULT_SIZE
            return None, paths.around_gaussians(gaussians, frames, width=width, height=height)
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
