"""What only a real GPU can show of the backend "cuda": streams, waiting, memory, several devices, the sanitizer.

What it computes is compared in tests/oracle, by the same cases as those of every backend.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from step_tasks import moved, tasks
from strategies import RasterCase
from tiny import random_model

from splatinit import native
from splatinit.errors import NotBuilt, OutOfMemory, ShapeError
from splatinit.losses import l1_dssim, l1_dssim_torch
from splatinit.optim import GaussianAdam
from splatinit.raster.base import RasterSettings
from splatinit.raster.native import CudaRasterizer
from splatinit.steps import NativeStep, StepConfig
from splatinit.types import GAUSSIAN_FIELDS, Gaussians

pytestmark = pytest.mark.gpu
RATES = dict.fromkeys(GAUSSIAN_FIELDS, 1e-3)


@pytest.fixture(scope="module")
def cuda() -> CudaRasterizer:
    """In place of the fixture of the same name, which is also the emulation."""
    try:
        made = CudaRasterizer()
    except NotBuilt as error:
        pytest.skip(error.message)
    if made.engine.emulated:
        pytest.skip("SPLATINIT_CUDA_LIBRARY names the emulation: there is no GPU in it")
    return made


@contextmanager
def no_waiting() -> Iterator[None]:
    """torch raises where it would wait for the device."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def there(gaussians: Gaussians, device: torch.device) -> Gaussians:
    return gaussians.map(lambda tensor: tensor.to(device))


def test_a_step_does_not_wait(cuda: CudaRasterizer) -> None:
    adam = GaussianAdam(there(random_model(500, seed=1, sh_degree=3), cuda.device), RATES)
    step = NativeStep(adam, cuda, RasterSettings(), StepConfig())
    losses = []
    steps = [moved(task, cuda.device) for task in tasks(12)]
    with no_waiting():
        for task in steps:
            losses.append(step.loss(task))
            step.update()
    assert all(torch.isfinite(loss) for loss in losses)


def test_any_stream_draws_the_same(cuda: CudaRasterizer) -> None:
    case = RasterCase(seed=5, n=400, width=200, height=150)

    def draw() -> list[torch.Tensor]:
        gaussians = there(case.gaussians, cuda.device).map(lambda tensor: tensor.requires_grad_())
        render = cuda.render(gaussians, case.camera)
        render.rgb.square().sum().backward()
        return [render.rgb.detach(), *(tensor.grad for tensor in gaussians.tensors().values())]

    expected = draw()
    for _ in range(3):
        stream = torch.cuda.Stream(cuda.device)
        with torch.cuda.stream(stream):
            found = draw()
        stream.synchronize()
        for ours, theirs in zip(found, expected, strict=True):
            assert torch.equal(ours, theirs)


def test_workspaces_give_their_memory_back(cuda: CudaRasterizer) -> None:
    cuda.engine.free_idle()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated(cuda.device)
    case = RasterCase(seed=6, n=5000, width=640, height=480)
    render = cuda.render(there(case.gaussians, cuda.device), case.camera)
    assert torch.cuda.memory_allocated(cuda.device) > before
    del render
    cuda.engine.free_idle()
    assert torch.cuda.memory_allocated(cuda.device) == before


def test_out_of_memory_is_named_and_survived(cuda: CudaRasterizer) -> None:
    case = RasterCase(seed=7, n=20_000, width=1024, height=768)
    gaussians = there(case.gaussians, cuda.device)
    cuda.engine.free_idle()
    torch.cuda.empty_cache()
    taken = torch.cuda.memory_reserved(cuda.device) + 20 * 2**20
    torch.cuda.set_per_process_memory_fraction(taken / torch.cuda.get_device_properties(cuda.device).total_memory)
    try:
        with pytest.raises(
            OutOfMemory, match=r"out of memory on cuda:0 \(.*\); .* MB were wanted for .*; .* MB are free"
        ):
            # The outputs are torch's own; what the workspace lacks is what is named.
            workspace = cuda.workspace()
            workspace.buffers.memory._tensors[-1] = torch.empty(18 * 2**20, dtype=torch.uint8, device=cuda.device)
            native.l1_dssim(*torch.rand(2, 768, 1024, 3, device=cuda.device), 0.2, workspace=workspace)
    except torch.OutOfMemoryError:
        pytest.skip("torch itself had no room for the pictures of this test")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert cuda.render(gaussians, case.camera).alpha.any()


def test_loss_and_adam_of_tensors_on_the_device_are_the_engines(cuda: CudaRasterizer) -> None:
    assert native.engine_for(cuda.device) is cuda.engine
    x, y = torch.rand(2, 60, 77, 3, device=cuda.device)
    ours, theirs = x.clone().requires_grad_(), x.double().requires_grad_()
    with no_waiting():
        loss = l1_dssim(ours, y, 0.2)
        (3 * loss).backward()
    expected = l1_dssim_torch(theirs, y.double(), 0.2)
    (3 * expected).backward()
    assert loss.item() == pytest.approx(expected.item(), abs=2e-6)
    assert float((ours.grad - theirs.grad).norm() / theirs.grad.norm()) < 1e-4


def test_selective_adam_does_not_wait(cuda: CudaRasterizer) -> None:
    adam = GaussianAdam(there(random_model(50, seed=1), cuda.device), RATES)
    for tensor in adam.gaussians.tensors().values():
        tensor.grad = torch.rand_like(tensor) * (torch.arange(50, device=cuda.device) % 2).view(
            -1, *[1] * (tensor.ndim - 1)
        )
    before = adam.gaussians.means.detach().clone()
    with no_waiting():
        adam.step(only_touched=True)
    assert torch.equal(adam.gaussians.means[::2], before[::2]) and (adam.gaussians.means[1::2] != before[1::2]).all()


def test_tensors_elsewhere_are_refused(cuda: CudaRasterizer) -> None:
    case = RasterCase(seed=8, n=10)
    with pytest.raises(ShapeError, match=r"means must be \[10, 3\] float32 on cuda:0, contiguous; got .* on cpu"):
        cuda.render(case.gaussians, case.camera)


def test_a_second_device(cuda: CudaRasterizer) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("only one GPU here")
    second = CudaRasterizer(native.cuda_engine(1))
    case = RasterCase(seed=9, n=300)
    here, other = (each.render(there(case.gaussians, each.device), case.camera).rgb.cpu() for each in (cuda, second))
    assert torch.equal(here, other) and torch.cuda.current_device() == 0
    with pytest.raises(ShapeError, match=r"on cuda:1, contiguous; got .* on cuda:0"):
        second.render(there(case.gaussians, cuda.device), case.camera)


TRAINING = """
import sys
sys.path[:0] = {paths}
import torch
from step_tasks import moved, tasks
from tiny import random_model
from splatinit.optim import GaussianAdam
from splatinit.raster.base import RasterSettings
from splatinit.raster.native import CudaRasterizer
from splatinit.steps import NativeStep, StepConfig
from splatinit.types import GAUSSIAN_FIELDS
for deterministic in (True, False):
    cuda = CudaRasterizer(deterministic=deterministic)
    start = random_model(300, seed=1, sh_degree=3).map(lambda tensor: tensor.to(cuda.device))
    adam = GaussianAdam(start, dict.fromkeys(GAUSSIAN_FIELDS, 1e-3))
    step = NativeStep(adam, cuda, RasterSettings(), StepConfig())
    for task in tasks(6, width=70, height=50):
        step.loss(moved(task, cuda.device))
        step.update()
    torch.cuda.synchronize()
"""


@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "initcheck", "synccheck"])
def test_the_sanitizer_finds_nothing_in_a_small_training(cuda: CudaRasterizer, tool: str) -> None:
    program = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")
    if program is None:
        pytest.skip("no compute-sanitizer on this machine")
    root = Path(__file__).parents[2]
    code = TRAINING.format(paths=[str(root), str(root / "tests")])
    # torch's allocator would hide what is read beyond a buffer, and what was never written.
    done = subprocess.run(
        [program, "--tool", tool, "--kernel-regex", "kns=splat", "--error-exitcode", "9", sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
        timeout=550,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-3000:]
    assert "ERROR SUMMARY: 0 errors" in done.stdout + done.stderr or "0 hazards" in done.stdout + done.stderr
