"""The photos and depth priors of a scene as the training wants them: decoded, cached, at the size of their view."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from .draws import hash64
from .errors import ShapeError
from .raster.base import Rasterizer, RasterSettings
from .types import DepthPrior, Gaussians, Scene, View

if TYPE_CHECKING:
    import torch

    from .training import TrainConfig


class Targets:
    """The photos as the loss wants them, from a cache of 8-bit pixels."""

    def __init__(self, scene: Scene, config: TrainConfig, seed: int, device: torch.device) -> None:
        import torch

        self._views, self._seed, self._device = scene.train, seed, device
        self._random = config.random_background
        self._fixed = torch.tensor(scene.background or (0.0, 0.0, 0.0), device=device)
        self._cache: dict[int, tuple[torch.Tensor, torch.Tensor | None]] = {}
        self._room = config.image_cache_mb * 2**20

    def get(self, index: int, step: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Target [h, w, 3] of a view, and the background [3] it was composed over (None: opaque, over black)."""
        import torch

        # 8 bit to float by a conversion of its own, and the colour repeated over a row: torch is ten times slower where
        # it converts within an operation or broadcasts along an axis of three.
        rgb, alpha = self._cache.get(index) or self._decode(index)
        target = rgb.float().mul_(1 / 255)
        if alpha is None:
            return target, None
        background = self._fixed
        if self._random:
            bits = hash64(self._seed, "background", step)
            background = torch.tensor([(bits >> shift & 0xFFFF) / 0xFFFF for shift in (0, 16, 32)])
            background = background.to(self._device)
        height, width, _ = target.shape
        row = background.repeat(width)
        target = torch.lerp(row, target.view(height, -1), alpha.float().mul_(1 / 255).view(height, -1))
        return target.view(height, width, 3), background

    def _decode(self, index: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Colour and, for photos with alpha, alpha repeated over the channels: [h, w, 3] uint8 each.

        What is decoded first stays in the cache: with a random order, no other choice hits more often.
        """
        import torch

        rgb, alpha = decoded(self._views[index])
        size = rgb.nbytes
        entry = (torch.from_numpy(rgb).to(self._device), None)
        if alpha is not None:
            alpha = np.repeat(alpha[..., None], 3, axis=2)
            size += alpha.nbytes
            entry = (entry[0], torch.from_numpy(alpha).to(self._device))
        if size <= self._room:
            self._room -= size
            self._cache[index] = entry
        return entry


def decoded(view: View) -> tuple[np.ndarray, np.ndarray | None]:
    """Writable, contiguous uint8 rgb [h, w, 3] and alpha [h, w]; opaque images have no alpha."""
    pixels = view.pixels()
    size = (view.camera.height, view.camera.width)
    if pixels.rgb.shape != (*size, 3):
        raise ShapeError(f"Photo '{view.name}': decoded to {list(pixels.rgb.shape)}, its camera says {[*size, 3]}.")
    alpha = None if pixels.alpha is None or (pixels.alpha == 255).all() else pixels.alpha
    return np.require(pixels.rgb, np.uint8, "CWO"), None if alpha is None else np.require(alpha, np.uint8, "CWO")


class Priors:
    """Depth priors at the working size of their views."""

    def __init__(self, priors: Mapping[str, DepthPrior], device: torch.device) -> None:
        self._priors, self._device = priors, device
        self._ready: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def get(self, view: View) -> tuple[torch.Tensor, torch.Tensor] | None:
        """(depth, confidence) [h, w], or None for a view without a prior."""
        if view.name not in self._ready:
            prior = self._priors.get(view.name)
            if prior is None:
                return None
            self._ready[view.name] = tuple(self._fit(a, view) for a in (prior.depth, prior.confidence))
        return self._ready[view.name]

    def _fit(self, array: np.ndarray, view: View) -> torch.Tensor:
        """Nearest neighbour, because a depth between foreground and background exists nowhere."""
        import torch

        height, width = array.shape
        rows = ((np.arange(view.camera.height) + 0.5) * (height / view.camera.height)).astype(np.int64)
        columns = ((np.arange(view.camera.width) + 0.5) * (width / view.camera.width)).astype(np.int64)
        return torch.from_numpy(np.ascontiguousarray(array[rows][:, columns], dtype=np.float32)).to(self._device)


class HeldOut:
    """One test view, rendered now and then for the eyes of the user; the training does not depend on it."""

    def __init__(self, scene: Scene, rasterizer: Rasterizer, settings: RasterSettings, device: torch.device) -> None:
        import torch

        self._view = scene.test[len(scene.test) // 2]
        self._rasterizer, self._settings = rasterizer, settings
        self._background = torch.tensor(scene.background or (0.0, 0.0, 0.0), device=device)
        rgb, alpha = decoded(self._view)
        self._target = torch.from_numpy(rgb).to(device) / 255
        if alpha is not None:
            cover = torch.from_numpy(alpha).to(device)[..., None] / 255
            self._target = torch.lerp(self._background, self._target, cover)

    def psnr(self, gaussians: Gaussians, sh_degree: int) -> float:
        """dB, of the clamped render (at most 99: a perfect image is not infinitely better in a log)."""
        import torch

        with torch.no_grad():
            render = self._rasterizer.render(
                gaussians,
                self._view.camera,
                settings=self._settings,
                background=self._background,
                sh_degree=sh_degree,
            )
            error = (render.rgb.clamp(0, 1) - self._target).square().mean()
        return min(99.0, -10 * math.log10(max(float(error), 1e-12)))
