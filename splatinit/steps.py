"""One step of training: draw, compare, and carry the difference back into the Gaussians.

Everything of a step lies on the rasterizer's device, and nothing in it waits for that device: a loss is a tensor there,
to be read when it is needed, which is best a few steps later.

Two ways to the same numbers. :class:`AutogradStep` works with every rasterizer and says what a step means. An engine
that can do more in one go has a step of its own in :data:`STEPS`: :class:`NativeStep` never stores the gradients of the
Gaussians, and works in buffers that it keeps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from . import native
from .losses import l1_dssim, relative_depth_l1, relative_depth_l1_vjp
from .optim import GaussianAdam
from .raster.base import Rasterizer, RasterSettings
from .raster.native import NativeRasterizer, gaussians_arg, view_arg
from .types import Camera, RasterAux


@dataclass(frozen=True, kw_only=True)
class StepTask:
    """What one step has to do. Its tensors are on the rasterizer's device, but for ``background``.

    Attributes:
        camera: of the view, at the size of ``rgb``.
        rgb: [h, w, 3] what it should look like.
        counts: [h, w, 3] 1 where the pixel counts, 0 where not; None: all count.
        background: [3] that the Gaussians are drawn over, on the CPU; None: black.
        sh_degree: SH degree to evaluate; it never falls from one step to the next.
        depth: (depth [h, w], confidence [h, w]) that pulls the expected depth, see losses.relative_depth_l1, or None.
        depth_weight: of that pull in the loss.
        stats: names of the gradients in RasterAux that somebody wants to see ("v_means2d", "v_means2d_abs").
        eps2d: px², in place of that of the settings in this step; None: that of the settings.
    """

    camera: Camera
    rgb: torch.Tensor
    counts: torch.Tensor | None = None
    background: torch.Tensor | None = None
    sh_degree: int = 0
    depth: tuple[torch.Tensor, torch.Tensor] | None = None
    depth_weight: float = 0.0
    stats: tuple[str, ...] = ()
    eps2d: float | None = None

    def drawn_with(self, settings: RasterSettings) -> RasterSettings:
        """``settings`` with what this step has of its own."""
        return settings if self.eps2d is None else replace(settings, eps2d=self.eps2d)


@dataclass(frozen=True)
class StepConfig:
    """What is the same in every step: ``ssim_weight`` of the loss (see losses.l1_dssim), and ``selective_adam``, with
    which Gaussians that no pixel of the view pulls at keep their numbers and moments."""

    ssim_weight: float = 0.2
    selective_adam: bool = False


class TrainingStep(Protocol):
    """The two halves of a step. Made for one training; both halves are called in turn."""

    def __init__(
        self, adam: GaussianAdam, rasterizer: Rasterizer, settings: RasterSettings, config: StepConfig
    ) -> None: ...

    def loss(self, task: StepTask) -> torch.Tensor:
        """Draw and compare. The Gaussians stay as they are.

        Returns:
            0-dim, without gradient, on the rasterizer's device; it stays as it is in later steps.
        """
        ...

    def update(self) -> RasterAux:
        """Bring the gradients of the last :meth:`loss` into the Gaussians. If it raises, they are as they were.

        What is returned holds until the next :meth:`loss`.
        """
        ...

    def seconds(self) -> Mapping[str, float]:
        """What is known of the time that the last two halves took: stage → seconds."""
        ...


class AutogradStep:
    """By torch's autograd, with any rasterizer."""

    def __init__(
        self, adam: GaussianAdam, rasterizer: Rasterizer, settings: RasterSettings, config: StepConfig
    ) -> None:
        self._adam, self._rasterizer, self._settings, self._config = adam, rasterizer, settings, config

    def loss(self, task: StepTask) -> torch.Tensor:
        self._render = self._rasterizer.render(
            self._adam.gaussians,
            task.camera,
            settings=task.drawn_with(self._settings),
            background=task.background,
            sh_degree=task.sh_degree,
            with_depth=task.depth is not None,
            with_stats=task.stats,
        )
        self._loss = l1_dssim(self._render.rgb, task.rgb, self._config.ssim_weight, task.counts)
        if task.depth is not None:
            pull = relative_depth_l1(self._render.depth, self._render.alpha, *task.depth)
            self._loss = self._loss + task.depth_weight * pull
        return self._loss.detach()

    def update(self) -> RasterAux:
        self._loss.backward()
        aux = self._render.aux
        del self._loss, self._render  # before somebody takes memory to add Gaussians: what this step drew with
        self._adam.step(only_touched=self._config.selective_adam)
        return aux

    def seconds(self) -> Mapping[str, float]:
        return {}


class NativeStep:
    """By a native engine: three calls over buffers that are kept from step to step."""

    def __init__(
        self, adam: GaussianAdam, rasterizer: NativeRasterizer, settings: RasterSettings, config: StepConfig
    ) -> None:
        self._adam, self._settings, self._config = adam, settings, config
        self._engine = rasterizer.engine
        self._workspace = rasterizer.workspace()
        self._memory: dict[str, torch.Tensor] = {}
        self._highest_degree = 0

    def _buffer(self, name: str, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Memory of this shape, kept for the next step. Its content is whatever was there."""
        count = math.prod(shape)
        memory = self._memory.get(name)
        if memory is None or len(memory) < count:
            # Gaussians come in many small refinements: room for some more of them.
            self._memory[name] = memory = self._engine.empty(count + count // 8, dtype=dtype)
        return memory.narrow(0, 0, count).view(shape)

    def loss(self, task: StepTask) -> torch.Tensor:
        gaussians, camera = self._adam.gaussians, task.camera
        n, size = len(gaussians), (camera.height, camera.width)
        self._aux = RasterAux(
            means2d=self._buffer("means2d", n, 2),
            depths=self._buffer("depths", n),
            radii=self._buffer("radii", n),
            visible=self._buffer("visible", n, dtype=torch.bool),
        )
        rgb, alpha = self._buffer("rgb", *size, 3), self._buffer("alpha", *size)
        depth = None if task.depth is None else self._buffer("depth", *size)
        self._arguments = (
            gaussians_arg(gaussians.tensors(), self._engine),
            view_arg(camera, task.drawn_with(self._settings), task.sh_degree, task.background),
        )
        aux = (self._aux.means2d, self._aux.depths, self._aux.radii, self._aux.visible, None)
        native.forward(
            self._workspace,
            *self._arguments,
            native.ImageArg(*map(native.address, (rgb, alpha, depth))),
            native.AuxArg(*map(native.address, aux)),
            native.FrameInfo(),
        )
        self._v_rgb = self._buffer("v_rgb", *size, 3)
        loss, _ = native.l1_dssim(
            rgb, task.rgb, self._config.ssim_weight, task.counts, workspace=self._workspace, out=self._v_rgb
        )
        self._v_depth = None
        if depth is not None:
            pull, self._v_depth = relative_depth_l1_vjp(depth, alpha, *task.depth, task.depth_weight)
            loss = loss + pull
        self._task = task
        return loss

    def update(self) -> RasterAux:
        task, aux, n = self._task, self._aux, len(self._adam.gaussians)
        for name in task.stats:
            setattr(aux, name, self._buffer(name, n, 2))
        wanted = (aux.v_means2d, aux.v_means2d_abs)
        self._highest_degree = max(self._highest_degree, task.sh_degree)
        argument = self._adam.argument(
            self._engine,
            only_touched=self._config.selective_adam,
            sh_degree_grows=task.sh_degree == self._highest_degree,
        )
        native.backward(
            self._workspace,
            *self._arguments,
            native.ImageArg(*map(native.address, (self._v_rgb, None, self._v_depth))),
            native.GradientsArg(*[None] * 8, *map(native.address, wanted)),
            argument,
        )
        self._adam.steps += 1
        return aux

    def seconds(self) -> Mapping[str, float]:
        return self._workspace.timings() if self._workspace.timed else {}


STEPS: dict[str, type[TrainingStep]] = {"cpu": NativeStep, "cuda": NativeStep}  # rasterizer → its own step


def make_step(
    adam: GaussianAdam, rasterizer: Rasterizer, settings: RasterSettings, config: StepConfig = StepConfig()
) -> TrainingStep:
    """The fastest step that there is for this rasterizer."""
    return STEPS.get(rasterizer.name, AutogradStep)(adam, rasterizer, settings, config)
