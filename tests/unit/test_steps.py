"""The step that an engine makes in one go, against the same step by autograd and a separate Adam."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from step_tasks import tasks
from tiny import camera, random_model, threads

from splatinit import native
from splatinit.errors import OutOfMemory
from splatinit.optim import GaussianAdam
from splatinit.raster import make_rasterizer
from splatinit.raster.base import RasterSettings
from splatinit.steps import STEPS, AutogradStep, NativeStep, StepConfig, StepTask, make_step
from splatinit.types import GAUSSIAN_FIELDS

RATES = dict(zip(GAUSSIAN_FIELDS, (1e-3, 2e-3, 3e-3, 4e-3, 5e-3, 6e-3), strict=True))
needs_native = pytest.mark.skipif(not native.available(), reason="the native library is not built")


def model(n: int, sh_degree: int = 3):
    """A third of the Gaussians lie where no view sees them."""
    gaussians = random_model(n, seed=n, sh_degree=sh_degree)
    gaussians.shN.normal_(0, 0.2, generator=torch.Generator().manual_seed(n))
    gaussians.means[2::3, 1] += 100.0
    return gaussians


def run(step_of, gaussians, config: StepConfig, steps: list[StepTask], settings: RasterSettings = RasterSettings()):
    adam = GaussianAdam(gaussians, RATES)
    step = step_of(adam, make_rasterizer("cpu"), settings, config)
    losses, stats = [], []
    for task in steps:
        losses.append(step.loss(task).item())
        aux = step.update()
        stats.append({name: getattr(aux, name).clone() for name in (*task.stats, "visible", "means2d", "radii")})
    return adam, losses, stats


@needs_native
@pytest.mark.parametrize("selective", [False, True])
@pytest.mark.parametrize("n", [1, 2, 255, 256, 257, 700])
def test_the_native_step_makes_the_numbers_of_autograd(n: int, selective: bool) -> None:
    config = StepConfig(selective_adam=selective)
    settings = RasterSettings(antialiased=n % 2 == 0)
    theirs, their_losses, their_stats = run(AutogradStep, model(n), config, tasks(9), settings)
    ours, our_losses, our_stats = run(NativeStep, model(n), config, tasks(9), settings)
    assert ours.steps == theirs.steps == 9
    assert our_losses == pytest.approx(their_losses, rel=1e-6)  # theirs is a float32
    for name, tensor in theirs.state().items():
        assert torch.equal(ours.state()[name], tensor), name
    for mine, other in zip(our_stats, their_stats, strict=True):
        assert all(torch.equal(mine[name], other[name]) for name in other)


@needs_native
@pytest.mark.parametrize("sh_degree", [0, 1, 2])
def test_every_sh_degree(sh_degree: int) -> None:
    steps = tasks(7, sh_degree=sh_degree)
    theirs, _, _ = run(AutogradStep, model(40, sh_degree), StepConfig(), steps)
    ours, _, _ = run(NativeStep, model(40, sh_degree), StepConfig(), steps)
    assert all(torch.equal(ours.state()[name], tensor) for name, tensor in theirs.state().items())


@needs_native
def test_an_sh_degree_that_falls_still_updates_what_has_moments() -> None:
    steps = tasks(9)[::-1]
    theirs, _, _ = run(AutogradStep, model(40), StepConfig(), steps)
    ours, _, _ = run(NativeStep, model(40), StepConfig(), steps)
    assert all(torch.equal(ours.state()[name], tensor) for name, tensor in theirs.state().items())


@needs_native
@pytest.mark.parametrize(("n", "count"), [(1500, 9), (101_000, 2)])  # the depth sort uses threads from 100 000 on
def test_the_step_does_not_depend_on_threads(n: int, count: int) -> None:
    made = []
    for number in (1, 2, 3, 7):
        with threads(number):
            made.append(run(NativeStep, model(n), StepConfig(), tasks(count, width=70, height=150))[0].state())
    for state in made[1:]:
        assert all(torch.equal(state[name], tensor) for name, tensor in made[0].items())


@pytest.mark.parametrize("name", ["cpu", "reference"])
def test_selective_adam_leaves_what_no_pixel_blended(name: str) -> None:
    if name == "cpu" and not native.available():
        pytest.skip("the native library is not built")
    gaussians = model(30)
    adam = GaussianAdam(gaussians, RATES)
    step = make_step(adam, make_rasterizer(name), RasterSettings(), StepConfig(selective_adam=True))
    for task in tasks(2):
        step.loss(task)
        step.update()
    far = torch.arange(30) % 3 == 2
    for field in GAUSSIAN_FIELDS:
        if field == "shN":
            continue  # its degree has not begun
        now, before = getattr(adam.gaussians, field).detach(), getattr(gaussians, field)
        assert torch.equal(now[far], before[far]), field
        assert not torch.equal(now[~far], before[~far]), field
    assert not adam.exp_avg["means"][far].any() and adam.exp_avg["means"][~far].any()


def test_dense_adam_moves_what_is_out_of_sight_by_its_momentum() -> None:
    """What the selective one is different from: seen once, a Gaussian moves on."""
    adam = GaussianAdam(model(30), RATES)
    step = make_step(adam, make_rasterizer("reference"), RasterSettings())
    step.loss(tasks(1)[0])
    step.update()
    before = adam.gaussians.means.detach().clone()
    away = camera(0.0)
    away.cam_from_world[2, 3] = -50.0  # everything is behind it
    step.loss(StepTask(camera=away, rgb=torch.rand(24, 28, 3)))
    step.update()
    seen = torch.arange(30) % 3 != 2
    assert (adam.gaussians.means.detach()[seen] != before[seen]).any(dim=1).sum() > 10


@needs_native
def test_a_refused_update_leaves_the_gaussians(monkeypatch: pytest.MonkeyPatch) -> None:
    adam = GaussianAdam(model(30), RATES)
    step = NativeStep(adam, make_rasterizer("cpu"), RasterSettings(), StepConfig())
    before = {name: tensor.clone() for name, tensor in adam.state().items()}
    step.loss(tasks(1)[0])

    monkeypatch.setattr(native.cpu_engine(), "library", _Refuses())
    with pytest.raises(OutOfMemory, match="backward of render: out of memory"):
        step.update()
    assert adam.steps == 0
    assert all(torch.equal(adam.state()[name], tensor) for name, tensor in before.items())


class _Refuses:
    def splat_cpu_backward(self, *arguments) -> int:
        return native.OUT_OF_MEMORY


def test_backends_get_their_own_step() -> None:
    assert STEPS["cpu"] is NativeStep
    adam = GaussianAdam(model(3), RATES)
    assert type(make_step(adam, make_rasterizer("reference"), RasterSettings())) is AutogradStep


def test_a_step_with_a_filter_of_its_own_is_one_with_other_settings():
    def numbers(eps2d: float | None, settings: RasterSettings, step_of) -> list[float]:
        steps = [replace(task, eps2d=eps2d) for task in tasks(4)]
        adam, losses, _ = run(step_of, model(30), StepConfig(), steps, settings)
        return [*losses, adam.gaussians.means.sum().item(), adam.gaussians.log_scales.sum().item()]

    for step_of in (AutogradStep, NativeStep) if native.available() else (AutogradStep,):
        wide = numbers(20.0, RasterSettings(), step_of)
        assert wide == numbers(None, RasterSettings(eps2d=20.0), step_of)
        assert wide != numbers(None, RasterSettings(), step_of)
