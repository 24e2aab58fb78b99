"""The pixels that a field is fitted to, of all photos together."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..errors import ConfigError, TrainingError
from ..types import Camera
from .rendering import CameraRays, Rays

OPAQUE = 128  # of 255: a more transparent pixel shows the background


@dataclass(frozen=True)
class FitView:
    """One posed photo.

    Attributes:
        camera: at the size of the photo.      rgb: [h, w, 3] uint8.
        alpha: [h, w] uint8; None where the photo is opaque.
        counts: [h, w] bool, False where nothing is known; None where all is.
    """

    camera: Camera
    rgb: torch.Tensor
    alpha: torch.Tensor | None = None
    counts: torch.Tensor | None = None


@dataclass(frozen=True)
class Batch:
    """Pixels of a step: rays, colours [n, 3] and opacities [n, 1] in [0, 1], and whose photo's they are [n]."""

    rays: Rays
    rgb: torch.Tensor
    alpha: torch.Tensor
    view: torch.Tensor


class Photos:
    """All pixels in one array, 3 to 4 bytes each (11 to 12 where photos are masked), to draw from evenly."""

    def __init__(self, views: Sequence[FitView]) -> None:
        """Raises ConfigError without views, TrainingError where no pixel can be fitted."""
        if not views:
            raise ConfigError("A field cannot be fitted: there are no training views.", hint="Give photos with poses.")
        self.cameras = [view.camera for view in views]
        self._rays = CameraRays(self.cameras)
        self._width = torch.tensor([view.rgb.shape[1] for view in views])
        sizes = torch.tensor([view.rgb.shape[0] * view.rgb.shape[1] for view in views])
        self._first = torch.nn.functional.pad(sizes.cumsum(0), (1, 0))
        self._rgb = torch.cat([view.rgb.reshape(-1, 3) for view in views])
        self._alpha = self._usable = None
        if any(view.alpha is not None for view in views):
            solid = [torch.full_like(view.rgb[..., 0], 255) if view.alpha is None else view.alpha for view in views]
            self._alpha = torch.cat([alpha.reshape(-1) for alpha in solid])
            if not self._alpha.any():
                raise TrainingError(
                    f"A field cannot be fitted: all pixels of the {len(views)} training photos are transparent.",
                    hint="Look at the alpha channel of the photos; --masks off reads them without their masks.",
                )
        if any(view.counts is not None for view in views):
            every = [torch.ones_like(view.rgb[..., 0]) if view.counts is None else view.counts for view in views]
            self._usable = torch.cat([counts.reshape(-1) for counts in every]).nonzero()[:, 0]
            if len(self._usable) == 0:
                raise TrainingError(
                    f"A field cannot be fitted: all pixels of the {len(views)} training photos are masked.",
                    hint="Masks are white where a pixel counts; --masks off reads the photos without them.",
                )

    def __len__(self) -> int:
        """Number of photos."""
        return len(self.cameras)

    @property
    def pixels(self) -> int:
        """Number of pixels that can be drawn."""
        return len(self._rgb) if self._usable is None else len(self._usable)

    @property
    def transparent(self) -> bool:
        return self._alpha is not None

    @property
    def clear_rim(self) -> float:
        """How much of the photos' outermost pixels is transparent, in [0, 1]; 0 for opaque photos."""
        if self._alpha is None:
            return 0.0
        clear = every = 0
        for first, last, width in zip(self._first[:-1], self._first[1:], self._width, strict=True):
            image = self._alpha[first:last].reshape(-1, int(width)) < OPAQUE
            inner = image[1:-1, 1:-1]
            clear += int(image.sum()) - int(inner.sum())
            every += image.numel() - inner.numel()
        return clear / every

    def draw(self, count: int, generator: torch.Generator) -> Batch:
        """``count`` pixels, each as likely as any other."""
        index = torch.randint(self.pixels, (count,), generator=generator)
        return self.at(index if self._usable is None else self._usable[index])

    def at(self, index: torch.Tensor) -> Batch:
        """The pixels with the indices [n] in the array of all."""
        view = torch.searchsorted(self._first, index, right=True) - 1
        within = index - self._first[view]
        x, y = within % self._width[view], within // self._width[view]
        rays = self._rays.at(view, torch.stack([x, y], dim=-1) + 0.5)
        alpha = torch.ones(len(index), 1) if self._alpha is None else self._alpha[index].float()[:, None] / 255
        return Batch(rays, self._rgb[index].float() / 255, alpha, view)

    def digest(self) -> str:
        """A hash of all pixels and cameras."""
        found = hashlib.blake2b(digest_size=16)
        for array in (self._rgb, self._alpha, self._usable):
            if array is not None:
                found.update(array.numpy().data)
        for camera in self.cameras:
            found.update(camera.K.tobytes() + camera.cam_from_world.tobytes())
        return found.hexdigest()
