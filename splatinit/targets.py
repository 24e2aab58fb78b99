"""What the loss compares with: photos and depth priors of a scene, at the size of their view, in the order of training.

Photos are decoded ahead of their turn (see :mod:`splatinit.decoding`): the order is known, this epoch's and the next's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from .decoding import Decoder, decoded, decoded_bytes, shrunk
from .draws import hash64, seeded
from .errors import TrainingError
from .progress import Progress, Silent
from .raster.base import Rasterizer, RasterSettings
from .types import DepthPrior, Gaussians, Pixels, RasterAux, Scene, View

if TYPE_CHECKING:
    import torch

    from .training import TrainConfig


@dataclass(frozen=True)
class Target:
    """What one step compares its render with.

    Attributes:
        view: whose turn it is; its camera has the size of ``rgb``, and is the scene's own at the working size.
        rgb: [h, w, 3] sRGB.
        background: [3] that transparent pixels were composed over; None: opaque, over black.
        counts: [h, w, 3] 1 where the pixel counts and 0 where it is unknown; None: all count.
    """

    view: View
    rgb: torch.Tensor
    background: torch.Tensor | None
    counts: torch.Tensor | None


class Order:
    """Which view each step trains: every view once in an epoch, each epoch in an order of its own."""

    def __init__(self, count: int, seed: int) -> None:
        self._count, self._seed = count, seed
        self._epochs: dict[int, list[int]] = {}

    def __call__(self, done: int) -> int:
        """Index of the view of the update after ``done`` updates."""
        epoch, position = divmod(done, self._count)
        if epoch not in self._epochs:
            import torch

            order = torch.randperm(self._count, generator=seeded(torch.Generator(), self._seed, "order", epoch))
            # Looking ahead goes one epoch further; what lies behind is not asked for again.
            self._epochs = {k: v for k, v in self._epochs.items() if k >= epoch - 1} | {epoch: order.tolist()}
        return self._epochs[epoch][position]


class Targets:
    """The targets of all steps. A context manager: leaving it stops the decoding.

    A view whose mask leaves no pixel has nothing to teach: its turns go to the view that comes after it.

    Early steps may get photos below the working size (see ``TrainConfig.resolution``). The small copies of a level are
    kept while it lasts, in what is left of ``config.image_cache_mb`` beside the photos; without room there, a photo is
    reduced at each use.

    Args:
        spill: folder for decoded photos that do not fit into ``config.image_cache_mb``; None: they are decoded again.
        progress: told which views have no pixel that counts.
    """

    def __init__(
        self,
        scene: Scene,
        config: TrainConfig,
        seed: int,
        device: torch.device,
        *,
        spill: Path | None = None,
        progress: Progress = Silent(),
    ) -> None:
        import torch

        self._scene, self._seed, self._device, self._progress = scene, seed, device, progress
        self._random = config.random_background
        self._fixed = torch.tensor(scene.background or (0.0, 0.0, 0.0), device=device)
        self._order = Order(len(scene.train), seed)
        self._blind: set[int] = set()
        self.notes: list[str] = []
        cache = config.image_cache_mb * 2**20
        self._decoder = Decoder(scene.train, cache_bytes=cache, spill=spill)
        self._copies = _Copies(most_copied_bytes(scene.train, cache, config.resolution))

    def __enter__(self) -> Targets:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._decoder.close()

    def still_to_keep(self) -> int:
        """Bytes of photos that memory has still to take, at most."""
        return self._decoder.still_to_keep() + self._copies.still_to_keep()

    def get(self, done: int, resolution: float = 1.0) -> Target:
        """The target of the update after ``done`` updates, at this share of its working size (of the sides).

        Raises:
            TrainingError: the masks leave no pixel in any view.
            SplatinitError: a photo cannot be read, see :func:`splatinit.decoding.decoded`.
        """
        turn = done
        while True:
            index = self._order(turn)
            if index not in self._blind:
                pixels = self._decoder.get(index, self._after(turn))
                if pixels.mask is None or pixels.mask.any():
                    return self._target(*self._sized(index, pixels, resolution), done + 1)
                self._leave_out(index)
            turn += 1

    def _sized(self, index: int, pixels: Pixels, resolution: float) -> tuple[View, Pixels]:
        """The view and its photo at this share of the working size."""
        view = self._scene.train[index]
        if resolution == 1.0:
            self._copies.end()
            return view, pixels
        size = tuple(max(1, round(side * resolution)) for side in (view.camera.width, view.camera.height))
        copy = self._copies.get(index, resolution)
        if copy is None:
            copy = shrunk(pixels, *size)
            self._copies.keep(index, copy)
        # A mask may have openings that no small pixel fits into: then the photo is taken as it is.
        if copy.mask is not None and not copy.mask.any():
            return view, pixels
        return replace(view, camera=view.camera.resized(*size)), copy

    def _after(self, turn: int) -> Iterator[int]:
        """The views whose turns follow."""
        while True:
            turn += 1
            index = self._order(turn)
            if index not in self._blind:
                yield index

    def _leave_out(self, index: int) -> None:
        views = self._scene.train
        self._blind.add(index)
        if len(self._blind) == len(views):
            raise TrainingError(
                f"{self._scene.root}: the masks of all {len(views)} training views leave no pixel that counts.",
                hint="Are the masks inverted? White is what counts. data.masks=off trains without them.",
            )
        note = f"'{views[index].name}' is masked completely: its turns go to the next views."
        self.notes.append(note)
        self._progress.note(note)

    def _target(self, view: View, pixels: Pixels, step: int) -> Target:
        import torch

        # 8 bit to float by a conversion of its own, and the colour repeated over a row: torch is ten times slower where
        # it converts within an operation or broadcasts along an axis of three.
        rgb = torch.from_numpy(pixels.rgb).to(self._device).float().mul_(1 / 255)
        counts = None if pixels.mask is None else self._three(pixels.mask)
        if pixels.alpha is None:
            return Target(view, rgb, None, counts)
        background = self._fixed
        if self._random:
            bits = hash64(self._seed, "background", step)
            background = torch.tensor([(bits >> shift & 0xFFFF) / 0xFFFF for shift in (0, 16, 32)])
            background = background.to(self._device)
        height, width, _ = rgb.shape
        row = background.repeat(width)
        rgb = torch.lerp(row, rgb.view(height, -1), self._three(pixels.alpha).view(height, -1))
        return Target(view, rgb.view(height, width, 3), background, counts)

    def _three(self, layer: np.ndarray) -> torch.Tensor:
        """[h, w] uint8 as [h, w, 3] in [0, 1]."""
        import cv2
        import torch

        return torch.from_numpy(cv2.merge([layer] * 3)).to(self._device).float().mul_(1 / 255)


class _Copies:
    """Photos at one resolution below the working size, by index, up to ``room`` bytes: what comes first stays."""

    def __init__(self, room: int) -> None:
        self._room = self._free = room
        self._resolution: float | None = None
        self._kept: dict[int, Pixels] = {}

    def get(self, index: int, resolution: float) -> Pixels | None:
        """The copy; copies of another resolution are given up."""
        if resolution != self._resolution:
            self._kept.clear()
            self._resolution, self._free = resolution, self._room
        return self._kept.get(index)

    def keep(self, index: int, copy: Pixels) -> None:
        """As one of the resolution that was asked for last, if there is room."""
        if copy.nbytes <= self._free:
            self._free -= copy.nbytes
            self._kept[index] = copy

    def end(self) -> None:
        """No small photo will be asked for any more."""
        self._kept.clear()
        self._room = self._free = 0

    def still_to_keep(self) -> int:
        """Bytes that copies will take beyond what they take now, at most."""
        return self._free


def most_copied_bytes(views: Sequence[View], cache_bytes: int, resolution: float) -> int:
    """Memory that copies of photos below the working size take, at most: where training starts at ``resolution``."""
    photos = sum(decoded_bytes(view) for view in views)
    return min(max(0, cache_bytes - photos), photos) if resolution < 1 else 0


def unsee_masked(aux: RasterAux, counts: torch.Tensor) -> None:
    """Take from ``aux.visible`` the Gaussians that this view could not judge: after backward, in place.

    Those are the ones whose centre is drawn on a pixel that does not count, and that no counting pixel pulls. A
    densifier averages gradients over the views that saw a Gaussian, and an unknown pixel saw nothing.
    """
    height, width, _ = counts.shape
    x, y = aux.means2d.detach().unbind(1)
    column, row = x.clamp(0, width - 1).long(), y.clamp(0, height - 1).long()  # a centre may lie outside of the image
    counted = counts.reshape(-1)[(row * width + column) * 3] > 0
    gradient = aux.v_means2d if aux.v_means2d is not None else aux.v_means2d_abs
    if gradient is not None:
        v_x, v_y = gradient.unbind(1)
        counted |= (v_x != 0) | (v_y != 0)
    aux.visible &= counted


class Priors:
    """Depth priors at the working size of their views."""

    def __init__(self, priors: Mapping[str, DepthPrior], device: torch.device) -> None:
        self._priors, self._device = priors, device

    def get(self, view: View, counts: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor] | None:
        """(depth, confidence) [h, w], or None for a view without a prior.

        ``counts`` [h, w, 3]: where it is 0, nothing is known of the view, and its depth has no confidence either.
        """
        prior = self._priors.get(view.name)
        if prior is None:
            return None
        # Fitted at each use: a fitted prior is as large as a photo in floats, and there may be one for each photo.
        depth, confidence = (self._fit(array, view) for array in (prior.depth, prior.confidence))
        return depth, confidence if counts is None else confidence * counts[..., 0]

    def _fit(self, array: np.ndarray, view: View) -> torch.Tensor:
        """Nearest neighbour, because a depth between foreground and background exists nowhere."""
        import torch

        if array.shape == (view.camera.height, view.camera.width):
            return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)).to(self._device)
        height, width = array.shape
        rows = ((np.arange(view.camera.height) + 0.5) * (height / view.camera.height)).astype(np.int64)
        columns = ((np.arange(view.camera.width) + 0.5) * (width / view.camera.width)).astype(np.int64)
        return torch.from_numpy(np.ascontiguousarray(array[rows][:, columns], dtype=np.float32)).to(self._device)


class HeldOut:
    """One test view, rendered now and then for the eyes of the user; the training does not depend on it.

    It is the middle one, or the next after it whose mask leaves some pixels.
    """

    def __init__(self, scene: Scene, rasterizer: Rasterizer, settings: RasterSettings, device: torch.device) -> None:
        import torch

        self._rasterizer, self._settings = rasterizer, settings
        self._background = torch.tensor(scene.background or (0.0, 0.0, 0.0), device=device)
        self._view: View | None = None
        middle = len(scene.test) // 2
        for view in scene.test[middle:] + scene.test[:middle]:
            pixels = decoded(view)
            if pixels.mask is not None and not pixels.mask.any():
                continue
            self._view = view
            self._counts = None if pixels.mask is None else torch.from_numpy(pixels.mask > 0).to(device)
            self._target = torch.from_numpy(pixels.rgb).to(device) / 255
            if pixels.alpha is not None:
                cover = torch.from_numpy(pixels.alpha).to(device)[..., None] / 255
                self._target = torch.lerp(self._background, self._target, cover)
            break

    def psnr(self, gaussians: Gaussians, sh_degree: int) -> float | None:
        """dB, of the clamped render over the pixels that count (at most 99: a perfect image is not infinitely better in
        a log). None where no test view has such a pixel."""
        import torch

        if self._view is None:
            return None
        with torch.no_grad():
            render = self._rasterizer.render(
                gaussians,
                self._view.camera,
                settings=self._settings,
                background=self._background,
                sh_degree=sh_degree,
            )
            error = (render.rgb.clamp(0, 1) - self._target).square()
            error = error.mean() if self._counts is None else error[self._counts].mean()
        return min(99.0, -10 * math.log10(max(float(error), 1e-12)))
