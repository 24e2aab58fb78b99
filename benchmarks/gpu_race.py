"""Engines side by side on the same Gaussians: what benchmarks/gpu.py times, and how."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from splatinit import native
from splatinit.losses import l1_dssim, l1_dssim_torch
from splatinit.optim import BETA1, BETA2, EPS, GaussianAdam
from splatinit.raster.base import Rasterizer, RasterSettings
from splatinit.raster.native import CudaRasterizer, view_arg
from splatinit.steps import NativeStep, StepConfig, StepTask
from splatinit.types import GAUSSIAN_FIELDS, Camera, Gaussians

SETTINGS = RasterSettings()
DEGREE = 3
FLOATS = 59  # of a Gaussian with SH degree 3
# Adam does all its work and no Gaussian moves: every engine and every round has the same scene.
RATES = dict.fromkeys(GAUSSIAN_FIELDS, 1e-30)
WARM = 2  # calls of an engine before its turn counts


# ------------------------------------------------------------------------------------------------------------- clocks
class Clock(Protocol):
    """Time and memory of a device."""

    kind: str

    def mark(self) -> Any:
        """Now, in the order of the work that was given to the device."""
        ...

    def milliseconds(self, first: Any, last: Any) -> float:
        """Between two marks that are past."""
        ...

    def synchronize(self) -> None: ...

    def start_peak(self) -> int | None:
        """Bytes in use, from which on the most in use is kept; None where that is not known."""
        ...

    def peak(self) -> int | None:
        """The most bytes in use since."""
        ...


class CudaClock:
    """CUDA events, and torch's allocator, from which our engine and gsplat both have all their memory."""

    kind = "CUDA events"

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def milliseconds(self, first: torch.cuda.Event, last: torch.cuda.Event) -> float:
        return first.elapsed_time(last)

    def synchronize(self) -> None:
        torch.cuda.synchronize(self._device)

    def start_peak(self) -> int:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self._device)
        return torch.cuda.memory_allocated(self._device)

    def peak(self) -> int:
        return torch.cuda.max_memory_allocated(self._device)


class HostClock:
    """Wall clock, for the emulated engine, which is done when a call returns."""

    kind = "wall clock"

    def mark(self) -> float:
        return time.perf_counter()

    def milliseconds(self, first: float, last: float) -> float:
        return 1e3 * (last - first)

    def synchronize(self) -> None:
        pass

    def start_peak(self) -> None:
        return None

    def peak(self) -> None:
        return None


# -------------------------------------------------------------------------------------------------------- contenders
class Contender(Protocol):
    """An engine with Gaussians of its own, which it trains."""

    name: str
    rasterizer: Rasterizer
    gaussians: Gaussians

    def step(self, task: StepTask) -> None:
        """A whole step of training: picture, loss, gradients, Adam. Waits for nothing."""
        ...


class Ours:
    """The CUDA engine's own step."""

    def __init__(self, name: str, rasterizer: CudaRasterizer, source: Gaussians) -> None:
        self.name, self.rasterizer = name, rasterizer
        adam = GaussianAdam(source, RATES)
        self.gaussians = adam.gaussians
        self._step = NativeStep(adam, rasterizer, SETTINGS, StepConfig())

    def step(self, task: StepTask) -> None:
        self._step.loss(task)
        self._step.update()

    def seconds(self) -> Mapping[str, float]:
        """Of the stages of the last step; waits for it."""
        return self._step.seconds()


class Theirs:
    """gsplat's picture and gradients. Around it our fused loss and torch's fused Adam, the best there is beside; or
    (``stock``) the loss in plain torch and torch's default Adam, as most trainers have it."""

    def __init__(self, name: str, rasterizer: Rasterizer, source: Gaussians, *, stock: bool = False) -> None:
        self.name, self.rasterizer = name, rasterizer
        self.gaussians = source.map(lambda tensor: tensor.detach().clone().requires_grad_())
        self._loss = l1_dssim_torch if stock else l1_dssim
        groups = [{"params": [tensor], "lr": RATES[name]} for name, tensor in self.gaussians.tensors().items()]
        how = {"foreach": True} if stock else {"fused": True}
        self._adam = torch.optim.Adam(groups, betas=(BETA1, BETA2), eps=EPS, **how)

    def step(self, task: StepTask) -> None:
        picture = self.rasterizer.render(self.gaussians, task.camera, settings=SETTINGS, sh_degree=task.sh_degree)
        self._loss(picture.rgb, task.rgb, StepConfig().ssim_weight).backward()
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)


def forward(contender: Contender, task: StepTask) -> None:
    with torch.no_grad():
        contender.rasterizer.render(contender.gaussians, task.camera, settings=SETTINGS, sh_degree=task.sh_degree)


def forward_backward(contender: Contender, task: StepTask) -> None:
    """The photo of the task stands in for the gradient of the loss."""
    picture = contender.rasterizer.render(contender.gaussians, task.camera, settings=SETTINGS, sh_degree=task.sh_degree)
    picture.rgb.backward(task.rgb)
    for tensor in contender.gaussians.tensors().values():
        tensor.grad = None


def step(contender: Contender, task: StepTask) -> None:
    contender.step(task)


def make_tasks(cameras: Sequence[Camera], device: torch.device) -> list[StepTask]:
    """One for each camera, with photos of soft random colours."""
    random = torch.Generator().manual_seed(1)
    tasks = []
    for camera in cameras:
        coarse = torch.rand(1, 3, 12, 16, generator=random)
        size = (camera.height, camera.width)
        photo = torch.nn.functional.interpolate(coarse, size, mode="bilinear", align_corners=False)[0].permute(1, 2, 0)
        photo = (photo + 0.1 * torch.rand(*size, 3, generator=random)).clamp(0, 1)
        tasks.append(StepTask(camera=camera, rgb=photo.contiguous().to(device), sh_degree=DEGREE))
    return tasks


# ------------------------------------------------------------------------------------------------------------- timing
@dataclass
class Times:
    """Of one engine at one kind of call: milliseconds of each, and seconds of wall clock for all of them."""

    ms: list[float] = field(default_factory=list)
    wall: float = 0.0

    @property
    def median(self) -> float:
        return statistics.median(self.ms)

    def quantile(self, q: float) -> float:
        return sorted(self.ms)[min(len(self.ms) - 1, int(q * len(self.ms)))]

    @property
    def wall_ms(self) -> float:
        return 1e3 * self.wall / len(self.ms)

    def record(self) -> dict[str, float]:
        numbers = {"median_ms": self.median, "p10_ms": self.quantile(0.1), "p90_ms": self.quantile(0.9)}
        return {**numbers, "wall_ms": self.wall_ms, "calls": len(self.ms)}


def turn(
    clock: Clock, contender: Contender, call: Callable, tasks: Sequence[StepTask], count: int, times: Times
) -> None:
    """``count`` calls behind one another, after some that do not count, added to ``times``."""
    for k in range(WARM):
        call(contender, tasks[k % len(tasks)])
    clock.synchronize()
    began, marks = time.perf_counter(), [clock.mark()]
    for k in range(count):
        call(contender, tasks[k % len(tasks)])
        marks.append(clock.mark())
    clock.synchronize()
    times.wall += time.perf_counter() - began
    times.ms += [clock.milliseconds(*pair) for pair in zip(marks[:-1], marks[1:], strict=True)]


def race(
    clock: Clock,
    contenders: Sequence[Contender],
    call: Callable,
    tasks: Sequence[StepTask],
    *,
    rounds: int,
    count: int,
    failed: Callable[[str, Exception], None],
) -> dict[str, Times]:
    """name → times of ``rounds`` turns of ``count`` calls each; the engines take turns, each time in another order.

    ``failed`` hears of an engine that raises; the others go on.
    """
    times = {contender.name: Times() for contender in contenders}
    running = list(contenders)
    for number in range(rounds):
        shift = number % max(1, len(running))
        for contender in running[shift:] + running[:shift]:
            try:
                turn(clock, contender, call, tasks, count, times[contender.name])
            except Exception as error:
                failed(contender.name, error)
                running = [other for other in running if other is not contender]
                times.pop(contender.name)
    return times


# ------------------------------------------------------------------------------------------------------------- counts
@dataclass(frozen=True)
class Counts:
    """Of the views of a scene, in the mean over them: Gaussians that reach a tile, (tile, Gaussian) pairs, and (pixel,
    Gaussian) pairs that the blend loop evaluates and blends."""

    visible: float
    pairs: float
    evaluated: float
    blended: float


def counts(rasterizer: CudaRasterizer, gaussians: Gaussians, tasks: Sequence[StepTask]) -> Counts:
    found = []
    for task in tasks:
        picture = rasterizer.render(gaussians, task.camera, settings=SETTINGS, sh_degree=task.sh_degree)
        call = picture.rgb.grad_fn.call
        drawn = view_arg(task.camera, SETTINGS, task.sh_degree)
        found.append((call.info.n_visible, call.info.n_pairs, *native.count_pairs(call.workspace, drawn)))
    return Counts(*(statistics.mean(column) for column in zip(*found, strict=True)))


def least_bytes(n: int, counted: Counts, width: int, height: int, *, deterministic: bool) -> dict[str, float]:
    """Stage of a step → bytes that it must at least move, each array read or written once by each kernel that uses it.

    SH degree 3: 236 bytes of parameters a Gaussian, 64 of its record. A sort by 32 bits is 4 passes of 16 bytes and one
    of 4, the stable sort by tile 2 passes of 12 bytes and one of 2. A pair of the blend loops costs its number and 48
    bytes of the record, once a tile; back, 48 bytes of sums more. What caches and atomics cost is not in it.
    """
    pixels, pairs, visible = width * height, counted.pairs, counted.visible
    numbered = 4 * pairs if deterministic else 0  # which Gaussian a slot is of
    # To slots, of which each says whether it was used; or cleared, added to, and read.
    sums = 49 * pairs if deterministic else 48 * (pairs + n)
    return {
        "project": 4 * FLOATS * visible + 44 * (n - visible) + 64 * visible + 29 * n,
        "sort_and_bin": (68 + 16 + 8 + 16) * n + 64 * visible + (6 + 26 + 2) * pairs + numbered,
        "blend": (4 + 48) * pairs + numbered + 24 * pixels,
        "loss": 4 * 3 * (2 + 3 + 3 + 2 + 1) * pixels,
        "blend_vjp": (4 + 48) * pairs + numbered + sums + 20 * pixels,
        "project_vjp": 6 * 4 * FLOATS * n + 4 * n + (49 * pairs if deterministic else 48 * n),
    }


def copy_rate(clock: Clock, device: torch.device, megabytes: int) -> float:
    """Bytes a second that the device reads and writes when it copies memory."""
    source = torch.zeros(megabytes << 20, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    times = []
    for _ in range(7):
        clock.synchronize()
        first = clock.mark()
        target.copy_(source)
        last = clock.mark()
        clock.synchronize()
        times.append(clock.milliseconds(first, last))
    return 2 * len(source) / (1e-3 * statistics.median(times))
