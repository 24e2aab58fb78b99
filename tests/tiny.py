"""A tiny scene in memory: a few views of a known set of Gaussians, for tests of the trainer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from splatinit import native
from splatinit.raster import make_rasterizer
from splatinit.raster.base import Rasterizer, RasterSettings
from splatinit.types import Camera, Gaussians, Pixels, Scene, View

SETTINGS = RasterSettings()


@dataclass(frozen=True)
class MemoryPhoto:
    name: str
    pixels: Pixels

    @property
    def width(self) -> int:
        return self.pixels.rgb.shape[1]

    @property
    def height(self) -> int:
        return self.pixels.rgb.shape[0]

    @property
    def path(self) -> Path:
        return Path(self.name)

    @property
    def has_alpha(self) -> bool:
        return self.pixels.alpha is not None

    @property
    def has_mask(self) -> bool:
        return self.pixels.mask is not None

    @property
    def has_depth(self) -> bool:
        return False

    def load(self, width: int, height: int) -> Pixels:
        assert (width, height) == (self.width, self.height)
        return self.pixels


def rasterizer() -> Rasterizer:
    """The native engine where it is built, else the reference: the trainer must not care."""
    return make_rasterizer("cpu" if native.available() else "reference")


@contextmanager
def threads(count: int) -> Iterator[None]:
    """One thread is faster on tiny images, by far where other processes want the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    if native.available():
        native_before = native.build_info()["threads"]
        native.set_threads(count)
    yield
    torch.set_num_threads(before)
    if native.available():
        native.set_threads(native_before)


def camera(angle: float, width: int = 28, height: int = 24) -> Camera:
    """Four units from the origin, at ``angle`` (rad) around the y axis, looking at it."""
    c, s = np.cos(angle), np.sin(angle)
    pose = np.eye(4)
    pose[:3, :3] = [[c, 0, s], [0, 1, 0], [-s, 0, c]]
    pose[2, 3] = 4.0
    return Camera(np.array([[30.0, 0, width / 2], [0, 30.0, height / 2], [0, 0, 1]]), pose, width, height)


def random_model(n: int, seed: int, *, spread: float = 0.8, sh_degree: int = 1) -> Gaussians:
    rng = np.random.default_rng(seed)
    k = (sh_degree + 1) ** 2 - 1
    numbers = {
        "means": rng.uniform(-spread, spread, (n, 3)),
        "quats": rng.normal(size=(n, 4)),
        "log_scales": np.log(rng.uniform(0.1, 0.3, (n, 3))),
        "logit_opacities": rng.uniform(0, 3, n),
        "sh0": rng.uniform(-1.5, 1.5, (n, 1, 3)),
        "shN": np.zeros((n, k, 3)),
    }
    return Gaussians(**{name: torch.from_numpy(value.astype(np.float32)) for name, value in numbers.items()})


def scene(*, alpha: bool = False, views: int = 6, seed: int = 5) -> Scene:
    """Views in a ring around 12 Gaussians, rendered by the reference; the last is the test view."""
    truth, oracle = random_model(12, seed), make_rasterizer("reference")
    posed = []
    for i in range(views):
        cam = camera(2 * np.pi * i / views)
        with torch.no_grad():
            render = oracle.render(truth, cam, settings=SETTINGS)
        cover = render.alpha[..., None]
        rgb = torch.where(cover > 0, render.rgb / cover.clamp_min(1e-6), 0.0) if alpha else render.rgb
        to8 = lambda x: (x.clamp(0, 1) * 255).round().to(torch.uint8).numpy()  # noqa: E731
        photo = MemoryPhoto(f"{i:02d}.png", Pixels(to8(rgb), to8(render.alpha) if alpha else None))
        posed.append(View(photo.name, cam, photo))
    background = (1.0, 1.0, 1.0) if alpha else None
    return Scene(Path("tiny"), tuple(posed[:-1]), tuple(posed[-1:]), background=background)
