"""The step on CUDA tensors, on machines without CUDA: torch's fake tensors have a device and a shape and no numbers.

Whatever reads a number of such a tensor raises, and so does every operation of torch with a tensor on the CPU: a step
that passes neither waits for the GPU nor copies behind its back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from step_tasks import tasks
from test_steps import RATES
from tiny import random_model
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from splatinit import losses, native
from splatinit.errors import ShapeError
from splatinit.losses import l1_dssim, relative_depth_l1
from splatinit.optim import GaussianAdam
from splatinit.raster.base import RasterSettings
from splatinit.raster.native import CudaRasterizer
from splatinit.steps import NativeStep, StepConfig, StepTask
from splatinit.types import Gaussians

CUDA = torch.device("cuda", 0)


class Library:
    """splat_cuda that notes what it is called for, and does nothing."""

    def __init__(self) -> None:
        self.called: list[str] = []

    def splat_cuda_version(self) -> bytes:
        return b"a version"

    def splat_cuda_workspace_create(self, index: int, allocate: object, user: None) -> int:
        return 1

    def __getattr__(self, name: str):
        def function(*arguments: object) -> int:
            self.called.append(name.removeprefix("splat_cuda_"))
            return 0

        return function


class Engine(native.CudaEngine):
    """On a torch without CUDA there is no stream to ask for."""

    def stream(self) -> int:
        return 5


class OnlyOnTheDevice(TorchDispatchMode):
    """Fails on every operation that a tensor of the host has a part in."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for value in tree_leaves((args, kwargs, result)):
            assert not isinstance(value, torch.Tensor) or value.device == CUDA, f"{function} has a tensor on the CPU"
        return result


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTensorMode]:
    monkeypatch.setattr(torch.Tensor, "data_ptr", lambda tensor: 256)  # fake tensors have no address
    yield FakeTensorMode()


def on_the_device(mode: FakeTensorMode, tensor: torch.Tensor) -> torch.Tensor:
    with mode:
        return torch.empty(tensor.shape, dtype=tensor.dtype, device=CUDA)


def given(mode: FakeTensorMode, task: StepTask) -> StepTask:
    """With the tensors of the task on the device, but for the background."""
    depth = None if task.depth is None else tuple(on_the_device(mode, each) for each in task.depth)
    counts = None if task.counts is None else on_the_device(mode, task.counts)
    return replace(task, rgb=on_the_device(mode, task.rgb), counts=counts, depth=depth)


def step_of(mode: FakeTensorMode, selective: bool = False) -> tuple[NativeStep, Library]:
    model = random_model(40, seed=1, sh_degree=3)
    gaussians = Gaussians(**{name: on_the_device(mode, tensor) for name, tensor in model.tensors().items()})
    library = Library()
    with mode:
        adam = GaussianAdam(gaussians, RATES)
        step = NativeStep(
            adam, CudaRasterizer(Engine(library, 0)), RasterSettings(), StepConfig(selective_adam=selective)
        )
    return step, library


@pytest.mark.parametrize("selective", [False, True])
def test_a_step_stays_on_the_device_and_does_not_wait_for_it(fake: FakeTensorMode, selective: bool) -> None:
    step, library = step_of(fake, selective)
    library.called.clear()
    for number, task in enumerate(tasks(9)):
        task = given(fake, task)
        with fake, OnlyOnTheDevice():
            loss = step.loss(task)
            aux = step.update()
            assert step.seconds() == {}  # to know them it would have to wait
        assert loss.device == CUDA and loss.shape == () and loss.dtype == torch.float32
        wanted = (aux.means2d, aux.depths, aux.radii, aux.visible, *(getattr(aux, name) for name in task.stats))
        assert all(tensor.device == CUDA and len(tensor) == 40 for tensor in wanted)
        assert library.called == ["forward", "l1_ssim", "backward"] * (number + 1)


def test_what_would_wait_is_noticed_here(fake: FakeTensorMode) -> None:
    step, _ = step_of(fake)
    task = given(fake, tasks(1)[0])
    with fake:
        loss = step.loss(task)
        visible = step.update().visible
        for wait in (loss.item, visible.any().item):
            with pytest.raises(DataDependentOutputException):
                wait()
        with pytest.raises(RuntimeError):
            visible.nonzero()
        with OnlyOnTheDevice(), pytest.raises(AssertionError, match="has a tensor on the CPU"):
            loss.cpu()


def test_a_tensor_on_another_device_is_refused(fake: FakeTensorMode) -> None:
    step, library = step_of(fake)
    library.called.clear()
    task = tasks(3)[2]
    there = given(fake, task)
    with fake:
        here = torch.empty(task.rgb.shape)
        with pytest.raises(
            ShapeError, match=r"target must be \[24, 28, 3\] float32 on cuda:0, contiguous; got .* on cpu"
        ):
            step.loss(replace(there, rgb=here))
        with pytest.raises(ShapeError, match=r"counts must be .* on cuda:0, contiguous; got .* on cpu"):
            step.loss(replace(there, counts=here))
        with pytest.raises(RuntimeError, match="device"):
            step.loss(replace(there, depth=(there.depth[0], torch.empty(24, 28))))


def test_gaussians_on_another_device_are_refused(fake: FakeTensorMode) -> None:
    adam = GaussianAdam(random_model(40, seed=1), RATES)
    rasterizer = CudaRasterizer(Engine(Library(), 0))
    step = NativeStep(adam, rasterizer, RasterSettings(), StepConfig())
    task = given(fake, tasks(1)[0])
    with fake, pytest.raises(ShapeError, match=r"means must be \[40, 3\] float32 on cuda:0, contiguous; got .* on cpu"):
        step.loss(task)


@pytest.mark.parametrize("seed", range(3))
def test_the_depth_pull_has_the_gradient_of_autograd(seed: int) -> None:
    """Which it replaces in the step: to the bit."""
    from splatinit.losses import relative_depth_l1_vjp

    random = torch.Generator().manual_seed(seed)
    depth, alpha, prior, confidence = (torch.rand(23, 37, generator=random) for _ in range(4))
    prior = (prior - 0.3).clamp_min(0) * 9
    depth = torch.where(alpha > 0.9, prior, depth * 5).requires_grad_()  # some without any error
    expected = 0.07 * relative_depth_l1(depth, alpha, prior, confidence)
    (gradient,) = torch.autograd.grad(expected, depth)
    loss, v_depth = relative_depth_l1_vjp(depth.detach(), alpha, prior, confidence, 0.07)
    assert torch.equal(loss, expected.detach()) and torch.equal(v_depth, gradient)
    assert (v_depth == 0).any() and (v_depth != 0).any()


def test_the_loss_without_our_engine_is_convolved_in_doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    """cuDNN rounds floats to 10 bits. A torch without CUDA cannot go on with fake tensors where they are convolved."""
    convolved = []

    def look(rgb: torch.Tensor, target: torch.Tensor, ssim_weight: float) -> torch.Tensor:
        convolved.append((rgb.dtype, target.dtype))
        return rgb.sum()

    monkeypatch.setattr(native, "engine_for", lambda device: None)
    monkeypatch.setattr(losses, "l1_dssim_torch", look)
    with FakeTensorMode(), OnlyOnTheDevice():
        loss = l1_dssim(*(torch.empty(24, 20, 3, device=CUDA) for _ in range(2)), 0.2)
    assert convolved == [(torch.float64, torch.float64)] and loss.dtype == torch.float32 and loss.device == CUDA
