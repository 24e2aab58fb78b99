"""What the loss compares with: photos and depth priors of a scene, at the size of their view, in the order of training.

Photos are decoded ahead of their turn (see :mod:`splatinit.decoding`): the order is known, this epoch's and the next's.
For a device with memory of its own they stay there, in 8 bit, as far as a share of what is free goes; of the others,
each is sent while the step before it is made. What is compared is made of them on the device, and nothing here makes
the host wait for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from . import device as devices
from .decoding import AHEAD, Decoder, decoded, decoded_bytes, shrunk
from .draws import hash64, seeded
from .errors import TrainingError
from .progress import Progress, Silent
from .raster.base import Rasterizer, RasterSettings
from .types import DepthPrior, Gaussians, Pixels, RasterAux, Scene, View

if TYPE_CHECKING:
    import torch

    from .training import TrainConfig


# The share that photos may take of what the device has free when a training begins, and depth priors once more. The
# rest is for Gaussians, which become more; where that is not enough, they get this share, too. An eighth of 24 GB are
# 2000 photos of 800×600, or 500 of 1600×1200.
DEVICE_SHARE = 0.125


@dataclass(frozen=True)
class Target:
    """What one step compares its render with.

    Attributes:
        view: whose turn it is; its camera has the size of ``rgb``, and is the scene's own at the working size.
        rgb: [h, w, 3] sRGB.
        background: [3] that transparent pixels were composed over, on the host; None: opaque, over black.
        counts: [h, w, 3] 1 where the pixel counts and 0 where it is unknown; None: all count.
    """

    view: View
    rgb: torch.Tensor
    background: torch.Tensor | None
    counts: torch.Tensor | None


class Order:
    """Which view each step trains: every view once in an epoch, each epoch in an order of its own."""

    def __init__(self, count: int, seed: int, turn: Callable[[int], int] = lambda done: done) -> None:
        """``turn``: which turn the update after ``done`` updates has, where others have turns, too."""
        self._count, self._seed, self._turn = count, seed, turn
        self._epochs: dict[int, list[int]] = {}

    def __call__(self, done: int) -> int:
        """Index of the view of the update after ``done`` updates."""
        epoch, position = divmod(self._turn(done), self._count)
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
        device: of the targets; their numbers are the same on each.
        room: bytes that photos may take of the device's own memory. What is kept there is not kept on the host, too.
        spill: folder for decoded photos that do not fit into ``config.image_cache_mb``; None: they are decoded again.
        turn: see :class:`Order`.
        progress: told which views have no pixel that counts.
    """

    def __init__(
        self,
        scene: Scene,
        config: TrainConfig,
        seed: int,
        device: torch.device,
        *,
        room: int = 0,
        spill: Path | None = None,
        turn: Callable[[int], int] = lambda done: done,
        progress: Progress = Silent(),
    ) -> None:
        import torch

        self._scene, self._seed, self._device, self._progress = scene, seed, device, progress
        self._random = config.random_background
        self._fixed = torch.tensor(scene.background or (0.0, 0.0, 0.0))
        self._order = Order(len(scene.train), seed, turn)
        self._blind: set[int] = set()
        self.notes: list[str] = []
        self._photos = _Photos(scene, config, spill)
        self._sender = None if device.type == "cpu" else _Sender(self._photos, device, room)

    def __enter__(self) -> Targets:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sender is not None:
            self._sender.close()
        self._photos.decoder.close()

    def still_to_keep(self) -> int:
        """Bytes of photos that the memory of the device has still to take, at most."""
        return self._photos.still_to_keep() if self._sender is None else self._sender.still_to_keep()

    def give_back(self) -> bool:
        """Have no photo stay in the device's own memory any more, from now on. Returns whether any did."""
        return self._sender is not None and self._sender.give_back()

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
                if self._sender is None:
                    photo = _as_tensors(self._photos.get(index, resolution, self._after(turn)))
                else:
                    photo = self._sender.get(index, resolution, list(islice(self._after(turn), AHEAD)))
                if photo is not None:
                    return self._target(photo, done + 1)
                self._leave_out(index)
            turn += 1

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

    def _target(self, photo: _Photo, step: int) -> Target:
        import torch

        # 8 bit to float by a conversion of its own, and the colour repeated over a row: torch is ten times slower where
        # it converts within an operation or broadcasts along an axis of three.
        rgb = photo.rgb.float().mul_(1 / 255)
        counts = None if photo.mask is None else _three(photo.mask)
        if photo.alpha is None:
            return Target(photo.view, rgb, None, counts)
        background = self._fixed
        if self._random:
            bits = hash64(self._seed, "background", step)
            background = torch.tensor([(bits >> shift & 0xFFFF) / 0xFFFF for shift in (0, 16, 32)])
        height, width, _ = rgb.shape
        row = _filled(background, self._device).repeat(width)
        rgb = torch.lerp(row, rgb.view(height, -1), _three(photo.alpha).view(height, -1))
        return Target(photo.view, rgb.view(height, width, 3), background, counts)


def _filled(colour: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A colour of the host on the device, where it is written by the device itself: nothing is copied."""
    import torch

    if device.type == "cpu":
        return colour
    return torch.stack([torch.full((), value, dtype=colour.dtype, device=device) for value in colour.tolist()])


def _three(layer: torch.Tensor) -> torch.Tensor:
    """[h, w] uint8 as [h, w, 3] in [0, 1]."""
    import torch

    if layer.device.type == "cpu":
        import cv2

        return torch.from_numpy(cv2.merge([layer.numpy()] * 3)).float().mul_(1 / 255)
    return layer.float().mul_(1 / 255).unsqueeze(2).repeat(1, 1, 3)


class _Photo(NamedTuple):
    """A view's photo as 8-bit tensors: rgb [h, w, 3], alpha and mask [h, w] or None; ``view`` has its size."""

    view: View
    rgb: torch.Tensor
    alpha: torch.Tensor | None
    mask: torch.Tensor | None

    @property
    def nbytes(self) -> int:
        return sum(layer.nbytes for layer in self[1:] if layer is not None)


def _layers(pixels: Pixels) -> list[np.ndarray | None]:
    return [pixels.rgb, pixels.alpha, pixels.mask]


def _as_tensors(found: tuple[View, Pixels] | None) -> _Photo | None:
    """On the host, over the same memory."""
    if found is None:
        return None
    import torch

    view, pixels = found
    return _Photo(view, *(None if layer is None else torch.from_numpy(layer) for layer in _layers(pixels)))


class _Photos:
    """The photos on the host, at any share of their working size."""

    def __init__(self, scene: Scene, config: TrainConfig, spill: Path | None) -> None:
        cache = config.image_cache_mb * 2**20
        self._views = scene.train
        self.decoder = Decoder(scene.train, cache_bytes=cache, spill=spill)
        self._copies = _Copies(most_copied_bytes(scene.train, cache, config.resolution))

    def still_to_keep(self) -> int:
        """Bytes of photos that memory has still to take, at most."""
        return self.decoder.still_to_keep() + self._copies.still_to_keep()

    def most_bytes(self, without: Container[int]) -> int:
        """Bytes of all photos at their working size, but for some."""
        return sum(decoded_bytes(view) for index, view in enumerate(self._views) if index not in without)

    def get(self, index: int, resolution: float, upcoming: Iterable[int]) -> tuple[View, Pixels] | None:
        """The view and its photo at this share of the working size; None where its mask leaves no pixel."""
        pixels = self.decoder.get(index, upcoming)
        if pixels.mask is not None and not pixels.mask.any():
            return None
        view = self._views[index]
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

    def forget(self, index: int, resolution: float) -> None:
        """The photo at this share of its size is kept elsewhere. At less than all of it, the whole one is needed for
        the shares to come."""
        if resolution == 1.0:
            self.decoder.forget(index)
        else:
            self._copies.drop(index)


class _Sender:
    """Photos on a device: those that find room there stay, each of the others comes while the step before it is made.

    A thread of its own decodes them to the end and sends them, so that neither the training nor the device waits for
    that. What is kept there is given up when the share of the working size changes.

    Args:
        photos: on the host; nobody else asks for them.
        room: bytes for the photos that stay.
    """

    def __init__(self, photos: _Photos, device: torch.device, room: int) -> None:
        self._photos, self._lane = photos, devices.Lane(device)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="splatinit-send")
        self._kept: dict[int, _Photo] = {}
        self._room = self._free = room
        self._resolution = 1.0
        self._coming: tuple[int, Future[tuple[View, devices.Parcel] | None]] | None = None

    def get(self, index: int, resolution: float, upcoming: Sequence[int]) -> _Photo | None:
        """The photo; None where its mask leaves no pixel. ``upcoming`` will be asked for next, in this order.

        Raises what :func:`splatinit.decoding.decoded` does, and what torch does where the device has no memory.
        """
        if resolution != self._resolution:
            self._kept.clear()
            self._free, self._resolution, self._coming = self._room, resolution, None
        photo = self._kept.get(index)
        if photo is None:
            if self._coming is None or self._coming[0] != index:
                self._coming = self._begin(index, upcoming)
            photo = self._arrived(index)
        if photo is not None and self._coming is None and upcoming and upcoming[0] not in self._kept:
            self._coming = self._begin(upcoming[0], upcoming[1:])
        return photo

    def _begin(self, index: int, upcoming: Sequence[int]) -> tuple[int, Future[tuple[View, devices.Parcel] | None]]:
        absent = [other for other in upcoming if other not in self._kept]
        return index, self._thread.submit(self._send, index, self._resolution, absent)

    def _send(self, index: int, resolution: float, upcoming: Sequence[int]) -> tuple[View, devices.Parcel] | None:
        found = self._photos.get(index, resolution, upcoming)
        return None if found is None else (found[0], self._lane.send(_layers(found[1])))

    def _arrived(self, index: int) -> _Photo | None:
        future = self._coming[1]
        self._coming = None
        found = future.result()
        if found is None:
            return None
        view, parcel = found
        photo = _Photo(view, *parcel.open())
        if photo.nbytes <= self._free:
            self._free -= photo.nbytes
            self._kept[index] = photo
            self._thread.submit(self._photos.forget, index, self._resolution)
        return photo

    def still_to_keep(self) -> int:
        """Bytes that photos will take of the device beyond what they take now, at most."""
        return min(self._free, self._photos.most_bytes(self._kept))

    def give_back(self) -> bool:
        held = bool(self._kept)
        self._kept.clear()
        self._room = self._free = 0
        return held

    def close(self) -> None:
        self._coming = None
        self._thread.shutdown(wait=True, cancel_futures=True)


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

    def drop(self, index: int) -> None:
        """Give the memory of this copy back to others."""
        copy = self._kept.pop(index, None)
        self._free += 0 if copy is None else copy.nbytes

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
    # A centre may lie outside of the image; and one that is no number is no index, which a device punishes.
    column, row = (at.clamp(0, side - 1).long().clamp_(0, side - 1) for at, side in ((x, width), (y, height)))
    counted = counts.reshape(-1)[(row * width + column) * 3] > 0
    gradient = aux.v_means2d if aux.v_means2d is not None else aux.v_means2d_abs
    if gradient is not None:
        v_x, v_y = gradient.unbind(1)
        counted |= (v_x != 0) | (v_y != 0)
    aux.visible &= counted


class Priors:
    """Depth priors at the working size of their views.

    Args:
        room: bytes that they may take of the device's own memory; those that find none are sent at each use.
    """

    def __init__(self, priors: Mapping[str, DepthPrior], device: torch.device, *, room: int = 0) -> None:
        self._priors, self._device = priors, device
        self._free = 0 if device.type == "cpu" else room
        self._kept: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def give_back(self) -> bool:
        """Have no prior stay in the device's own memory any more, from now on. Returns whether any did."""
        held = bool(self._kept)
        self._kept.clear()
        self._free = 0
        return held

    def get(self, view: View, counts: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor] | None:
        """(depth, confidence) [h, w], or None for a view without a prior.

        ``counts`` [h, w, 3]: where it is 0, nothing is known of the view, and its depth has no confidence either.
        """
        prior = self._priors.get(view.name)
        if prior is None:
            return None
        # Fitted at each use: a fitted prior is as large as a photo in floats, and there may be one for each photo.
        depth, confidence = (self._fit(layer, view) for layer in self._there(view.name, prior))
        return depth, confidence if counts is None else confidence * counts[..., 0]

    def _there(self, name: str, prior: DepthPrior) -> tuple[torch.Tensor, torch.Tensor]:
        """Both layers on the device, at their own size."""
        if name in self._kept:
            return self._kept[name]
        arrays = (np.require(array, np.float32, "CW") for array in (prior.depth, prior.confidence))
        depth, confidence = (devices.sent(array, self._device) for array in arrays)
        if depth.nbytes + confidence.nbytes <= self._free:
            self._free -= depth.nbytes + confidence.nbytes
            self._kept[name] = depth, confidence
        return depth, confidence

    def _fit(self, layer: torch.Tensor, view: View) -> torch.Tensor:
        """Nearest neighbour, because a depth between foreground and background exists nowhere."""
        import torch

        for axis, size in enumerate((view.camera.height, view.camera.width)):
            if layer.shape[axis] != size:
                centres = torch.arange(size, dtype=torch.float64, device=self._device) + 0.5
                layer = layer.index_select(axis, (centres * (layer.shape[axis] / size)).long())
        return layer


class HeldOut:
    """One test view, rendered now and then for the eyes of the user; the training does not depend on it.

    It is the middle one, or the next after it whose mask leaves some pixels.
    """

    def __init__(self, scene: Scene, rasterizer: Rasterizer, settings: RasterSettings, device: torch.device) -> None:
        import torch

        self._rasterizer, self._settings = rasterizer, settings
        self._background = torch.tensor(scene.background or (0.0, 0.0, 0.0))
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
                self._target = torch.lerp(self._background.to(device), self._target, cover)
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
