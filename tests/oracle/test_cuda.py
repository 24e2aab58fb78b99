"""The CUDA engine against the CPU engine and against itself, on a GPU and in its emulation on the processor."""

from __future__ import annotations

import ctypes
import re

import numpy as np
import pytest
import torch
from compare import assert_matches
from native_build import CUDA
from step_tasks import moved, tasks
from strategies import KINDS, RasterCase
from test_raster import Result, placed, run
from tiny import camera, random_model
from tolerances import COLOR, GRADIENT

from splatinit import native
from splatinit.errors import BackendError, OutOfMemory, ShapeError
from splatinit.losses import l1_dssim_torch
from splatinit.native import selfcheck
from splatinit.optim import GaussianAdam, adam_step_torch_
from splatinit.raster.base import RasterSettings
from splatinit.raster.native import CpuRasterizer, CudaRasterizer
from splatinit.steps import NativeStep, StepConfig, StepTask
from splatinit.types import GAUSSIAN_FIELDS, Gaussians

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(not native.available(), reason="splat_cpu is not built in this installation"),
]
RATES = dict(zip(GAUSSIAN_FIELDS, (1e-3, 2e-3, 3e-3, 4e-3, 5e-3, 6e-3), strict=True))
INTERFACE = (CUDA / "include" / "splat" / "api_cuda.h").read_text(encoding="utf-8")
PLAIN = sorted(set(re.findall(r"\bplain_\w+", INTERFACE)))


def drawn(rasterizer, case: RasterCase) -> dict[str, torch.Tensor]:
    """Picture, statistics and gradients of a case, by name, on the CPU."""
    result: Result = run(rasterizer, case, torch.float32, torch.ones(case.height, case.width, dtype=torch.bool))
    images = {name: getattr(result.render, name).detach() for name in ("rgb", "alpha", "depth")}
    gradients = {f"gradient of {name}": tensor for name, tensor in result.gradients.items()}
    return {**images, **vars(result.render.aux), **gradients}


CASES = [RasterCase(seed=60 + i, kind=kind, n=200, width=83, height=50) for i, kind in enumerate(KINDS)]


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_both_engines_draw_the_same(cuda, case: RasterCase, deterministic: bool) -> None:
    theirs = drawn(CpuRasterizer(), case)
    ours = drawn(CudaRasterizer(cuda.engine, deterministic=deterministic), case)
    assert torch.equal(ours["visible"], theirs["visible"])
    assert_matches("rgb", ours["rgb"], theirs["rgb"], COLOR)
    assert_matches("alpha", ours["alpha"], theirs["alpha"], COLOR)
    for name, expected in theirs.items():
        if name not in ("rgb", "alpha", "visible"):
            assert_matches(name, ours[name], expected, GRADIENT, by_norm=True)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_same_bits_in_every_run(cuda, case: RasterCase) -> None:
    rasterizer = CudaRasterizer(cuda.engine, deterministic=True)
    assert rasterizer.deterministic
    first = drawn(rasterizer, case)
    for _ in range(2):
        again = drawn(rasterizer, case)
        assert first.keys() == again.keys()
        for name, tensor in first.items():
            assert torch.equal(tensor, again[name]), name


@pytest.mark.parametrize("option", PLAIN)
def test_a_clever_kernel_makes_the_numbers_of_the_plain_one(cuda, option: str) -> None:
    case = RasterCase(seed=70, n=300, width=83, height=50)
    clever, plain = (drawn(with_options(cuda, options), case) for options in ({}, {option: 1}))
    assert torch.equal(clever["visible"], plain["visible"])
    for name, expected in plain.items():
        assert_matches(f"{option} {name}", clever[name], expected, GRADIENT / 10, by_norm=True)
    x, y = (torch.rand(50, 83, 3, generator=torch.Generator().manual_seed(i)).to(cuda.device) for i in (1, 2))
    losses = [
        native.l1_dssim(x, y, 0.2, workspace=with_options(cuda, options).workspace()) for options in ({}, {option: 1})
    ]
    for ours, theirs in zip(*losses, strict=True):
        assert_matches(f"{option} loss", ours, theirs, 1e-5, by_norm=True)


def with_options(cuda: CudaRasterizer, options: dict[str, int]) -> CudaRasterizer:
    rasterizer = CudaRasterizer(cuda.engine)
    rasterizer.options |= options
    return rasterizer


def test_an_unknown_option_is_refused(cuda) -> None:
    with pytest.raises(BackendError, match="the option 'fast': the native engine refused its arguments"):
        native.Workspace(cuda.engine, {"fast": 1})


def test_stages_are_timed_where_that_is_asked_for(cuda) -> None:
    rasterizer = with_options(cuda, {"timings": 1})
    case = RasterCase(seed=71, n=100)
    render = rasterizer.render(placed(case.gaussians, cuda).map(lambda tensor: tensor.requires_grad_()), case.camera)
    render.rgb.sum().backward()
    workspace = render.rgb.grad_fn.call.workspace
    seconds = workspace.timings()
    assert workspace.timed and list(seconds) == list(native.STAGES)
    for stage in ("project", "sort_and_bin", "blend", "blend_vjp", "project_vjp"):
        assert 0 < seconds[stage] < 60, stage
    assert not cuda.workspace().timed


def test_pairs_are_counted(cuda) -> None:
    case = RasterCase(seed=72, n=200)
    free = [case.gaussians.map(lambda t, d=d: t.to(d).requires_grad_()) for d in ("cpu", cuda.device)]
    counts = []
    for rasterizer, gaussians in zip((CpuRasterizer(), cuda), free, strict=True):
        call = rasterizer.render(gaussians, case.camera).rgb.grad_fn.call
        counts.append(native.count_pairs(call.workspace, call.view))
    (_, blended), (evaluated, ours) = counts
    assert evaluated >= ours and abs(ours - blended) <= 0.001 * blended


# ---------------------------------------------------------------------------------------------------------------- steps
def trained(rasterizer, n: int, *, selective: bool = False, settings: RasterSettings = RasterSettings()):
    """(state, losses, statistics) after some steps, on the CPU."""
    start = random_model(n, seed=n, sh_degree=3)
    start.means[2::3, 1] += 100.0  # where no view sees them
    adam = GaussianAdam(start.map(lambda tensor: tensor.to(rasterizer.device)), RATES)
    step = NativeStep(adam, rasterizer, settings, StepConfig(selective_adam=selective))
    losses, stats = [], []
    for task in tasks(9, width=45, height=37):
        losses.append(step.loss(moved(task, rasterizer.device)))
        aux = step.update()
        stats += [getattr(aux, name).clone().cpu() for name in (*task.stats, "visible", "means2d", "radii")]
    state = {name: tensor.cpu() for name, tensor in adam.state().items()}
    return state, torch.stack([loss.cpu().double() for loss in losses]), stats


@pytest.mark.parametrize("selective", [False, True])
@pytest.mark.parametrize("n", [1, 255, 257, 700])
def test_both_engines_make_the_same_steps(cuda, n: int, selective: bool) -> None:
    settings = RasterSettings(antialiased=n == 257)
    theirs, their_losses, their_stats = trained(CpuRasterizer(), n, selective=selective, settings=settings)
    ours, our_losses, our_stats = trained(cuda, n, selective=selective, settings=settings)
    assert_matches("losses", our_losses, their_losses, 1e-5)
    # What a step changes, by its norm: rounding turns the sign of a gradient that is nothing but rounding, and Adam's
    # first steps are as long as the learning rate whatever the gradient is.
    for name, tensor in theirs.items():
        assert_matches(name, ours[name], tensor, 1e-3, by_norm=True)
    for mine, other in zip(our_stats, their_stats, strict=True):
        if mine.dtype == torch.bool:
            assert torch.equal(mine, other)
        else:
            assert_matches("statistics", mine, other, 1e-3, by_norm=True)


def test_a_training_gives_the_same_bits_in_every_run(cuda) -> None:
    (state, losses, stats), (again, losses_again, stats_again) = (trained(cuda, 300) for _ in range(2))
    assert torch.equal(losses, losses_again)
    assert all(torch.equal(tensor, again[name]) for name, tensor in state.items())
    assert all(torch.equal(mine, other) for mine, other in zip(stats, stats_again, strict=True))


def test_a_loss_stays_as_it_is_in_later_steps(cuda) -> None:
    """Whoever reads it late must find what it was."""
    adam = GaussianAdam(random_model(40, seed=1).map(lambda tensor: tensor.to(cuda.device)), RATES)
    step = NativeStep(adam, cuda, RasterSettings(), StepConfig())
    losses, at_once = [], []
    for task in tasks(3):
        losses.append(step.loss(moved(StepTask(camera=task.camera, rgb=task.rgb), cuda.device)))
        at_once.append(losses[-1].item())
        step.update()
    assert [loss.item() for loss in losses] == at_once and len(set(at_once)) == 3


# --------------------------------------------------------------------------------------------------------------- memory
@pytest.mark.parametrize("deterministic", [True, False])
def test_a_workspace_that_has_known_few_pairs_draws_many(cuda, deterministic: bool) -> None:
    """The engine makes room by what the frames before needed, and makes the lists anew where that was too little."""
    few, many = (
        RasterCase(seed=73, n=1, width=130, height=130),
        RasterCase(seed=74, n=700, width=130, height=130, kind="opaque"),
    )
    rasterizer = CudaRasterizer(cuda.engine, deterministic=deterministic)
    cuda.engine.free_idle()
    expected = drawn(rasterizer, many)
    cuda.engine.free_idle()
    drawn(rasterizer, few)
    found = drawn(rasterizer, many)
    for name, tensor in expected.items():
        if deterministic or not name.startswith(("gradient", "v_", "blend_weight")):
            assert torch.equal(found[name], tensor), name
        else:
            assert_matches(name, found[name], tensor, GRADIENT / 10, by_norm=True)


def full_from(size: int):
    """An allocator that has no memory for buffers of ``size`` bytes and more."""
    plain = native.engines.DeviceMemory._empty

    def empty(memory: native.engines.DeviceMemory, wanted: int) -> torch.Tensor:
        if wanted >= size:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(memory, wanted)

    return empty


@pytest.mark.parametrize("size", [100_000, 5_000, 0])
def test_a_step_without_memory_says_what_it_was_for_and_can_be_made_again(
    cuda, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = random_model(300, seed=2, sh_degree=3).map(lambda tensor: tensor.to(cuda.device))
    task = moved(tasks(1)[0], cuda.device)
    names = [cuda.engine._buffer_name(buffer) for buffer in range(40)]

    def steps(interrupted: bool) -> dict[str, torch.Tensor]:
        cuda.engine.free_idle()
        adam = GaussianAdam(start, RATES)
        step = NativeStep(adam, cuda, RasterSettings(), StepConfig())
        if interrupted:
            before = {name: tensor.clone() for name, tensor in adam.state().items()}
            with monkeypatch.context() as patch, pytest.raises(OutOfMemory) as caught:
                patch.setattr(native.engines.DeviceMemory, "_empty", full_from(size))
                step.loss(task)
                step.update()
            assert caught.value.buffer in names and not caught.value.buffer.startswith("buffer ")
            assert f"MB were wanted for {caught.value.buffer}" in str(caught.value) and caught.value.bytes >= size
            assert adam.steps == 0
            assert all(torch.equal(adam.state()[name], tensor) for name, tensor in before.items())
        step.loss(task)
        step.update()
        return adam.state()

    undisturbed, again = steps(False), steps(True)
    assert all(torch.equal(again[name], tensor) for name, tensor in undisturbed.items())


# -------------------------------------------------------------------------------------------------------- loss and Adam
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (11, 10), (23, 37), (64, 128)])
def test_the_loss_equals_torch(cuda, size: tuple[int, int], masked: bool) -> None:
    random = torch.Generator().manual_seed(5)
    x = torch.rand(*size, 3, generator=random)
    y = (x + 0.2 * torch.randn(*size, 3, generator=random)).clamp(0, 1)
    counts = (torch.rand(*size, 1, generator=random) > 0.3).float().expand(-1, -1, 3).contiguous() if masked else None
    given = [None if each is None else each.to(cuda.device) for each in (x, y, counts)]
    loss, v_x = native.l1_dssim(given[0], given[1], 0.2, given[2], workspace=cuda.workspace())
    assert loss.device == v_x.device == cuda.device and loss.dtype == torch.float32 and loss.shape == ()
    truth = x.double().requires_grad_()
    shown = (truth, y.double()) if counts is None else (truth * counts, y.double() * counts)
    expected = l1_dssim_torch(*shown, 0.2)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=2e-6)
    assert_matches("v_rgb", v_x, truth.grad.float(), GRADIENT, by_norm=True)


@pytest.mark.parametrize("count", [0, 1, 31, 1025, 30_001])
def test_adam_equals_torch(cuda, count: int) -> None:
    random = torch.Generator().manual_seed(count)
    param = torch.randn(count, generator=random)
    truth = [param.double(), torch.zeros(count).double(), torch.zeros(count).double()]
    ours = [tensor.float().to(cuda.device) for tensor in truth]
    for step in range(1, 6):
        grad = torch.randn(count, generator=random)
        native.adam_step_(ours[0], grad.to(cuda.device), *ours[1:], lr=0.01, step=step, engine=cuda.engine)
        adam_step_torch_(truth[0], grad.double(), *truth[1:], lr=0.01, step=step, beta1=0.9, beta2=0.999, eps=1e-15)
    for mine, other in zip(ours, truth, strict=True):
        assert_matches("Adam", mine, other, 1e-6)


def test_the_exponential_keeps_its_error_bound(cuda) -> None:
    x = torch.from_numpy(np.linspace(-125.9, 125.9, 200_003, dtype=np.float32)).to(cuda.device)
    out = torch.empty_like(x)
    addresses = ctypes.c_void_p(x.data_ptr()), ctypes.c_void_p(out.data_ptr())
    cuda.engine.call("exp2", "exponential", cuda.engine.index, *addresses, len(x))
    error = np.abs(out.cpu().numpy() / np.exp2(x.cpu().numpy().astype(np.float64)) - 1)
    assert error.max() < 3e-7


def test_tensors_of_another_shape_are_refused(cuda) -> None:
    x = torch.rand(4, 5, 3, device=cuda.device)
    with pytest.raises(
        ShapeError, match=rf"target must be \[4, 5, 3\] float32 on {cuda.device}, contiguous; got \[4, 5"
    ):
        native.l1_dssim(x, x[..., :2], 0.2, workspace=cuda.workspace())


# ------------------------------------------------------------------------------------------------------ the self-check
def test_a_sound_engine_passes_its_check(cuda) -> None:
    selfcheck.check_engine(cuda.engine, native.cpu_engine())


class Lying:
    """A library of which one function spoils what it wrote: the float32 number at ``place`` of what ``output`` finds
    among its arguments grows by ``by`` times itself, or is turned over, where it is a bool."""

    def __init__(self, honest: ctypes.CDLL, name: str, output, by: float) -> None:
        self._honest, self._name, self._output, self._by = honest, name, output, by

    def __getattr__(self, name: str):
        honest = getattr(self._honest, name)
        if name != f"splat_cuda_{self._name}":
            return honest

        def lie(*arguments: object) -> int:
            code = honest(*arguments)
            found = self._output(arguments)
            if found is not None:
                address, count, kind = found
                numbers = np.ctypeslib.as_array((kind * count).from_address(address))
                if kind is ctypes.c_bool:
                    numbers[3] ^= True
                else:
                    numbers *= np.float32(1 + self._by)
            return code

        return lie


def _field(index: int, name: str, count: int, kind: type = ctypes.c_float):
    """Finds the field of a struct that is argument number ``index``."""

    def find(arguments) -> tuple[int, int, type] | None:
        structure = arguments[index]
        address = None if structure is None else getattr(structure._obj, name)
        return None if address is None else (address, count, kind)

    return find


def _stepped(arguments):
    adam = arguments[5]
    return None if adam is None else (adam._obj.param[3], selfcheck.COUNT, ctypes.c_float)


PIXELS_, N = selfcheck.WIDTH * selfcheck.HEIGHT, selfcheck.COUNT
LIES = {
    "rgb": ("forward", _field(3, "rgb", 3 * PIXELS_)),
    "alpha": ("forward", _field(3, "alpha", PIXELS_)),
    "depth": ("forward", _field(3, "depth", PIXELS_)),
    "visible": ("forward", _field(4, "visible", N, ctypes.c_bool)),
    "radii": ("forward", _field(4, "radii", N)),
    "loss": ("l1_ssim", lambda arguments: (arguments[8], 3, ctypes.c_float)),
    "gradient of rgb": ("l1_ssim", lambda arguments: (arguments[7], 3 * PIXELS_, ctypes.c_float)),
    "gradient of means": ("backward", _field(4, "means", 3 * N)),
    "gradient of shN": ("backward", _field(4, "shN", 45 * N)),
    "gradient of pose": ("backward", _field(4, "viewmat", 16)),
    "gradient of means2d": ("backward", _field(4, "means2d", 2 * N)),
    "logit_opacities after a step": ("backward", _stepped),
    "Adam": ("adam", lambda arguments: (arguments[1], 3 * PIXELS_, ctypes.c_float)),
}


@pytest.mark.parametrize("what", LIES)
def test_a_library_that_lies_is_found_out(what: str, emulated_library) -> None:
    """By 1 %, or in one of eighty decisions. Only in the emulation: there the host can spoil what the engine wrote."""
    honest = native.cuda_library(emulated_library)
    engine = native.usable_engine(Lying(honest, *LIES[what], by=0.01), 0)
    with pytest.raises(BackendError) as caught:
        selfcheck.check_engine(engine, native.cpu_engine())
    said = str(caught.value)
    assert (
        f"The cuda engine does not compute on {engine.describe()} what the cpu engine does: {what} differs by " in said
    )
    assert "expected at most " in said and "at number " in said and "Use --backend cpu." in said


def test_numbers_that_are_not_finite_are_found_out(emulated_library) -> None:
    honest = native.cuda_library(emulated_library)
    engine = native.usable_engine(Lying(honest, *LIES["rgb"], by=float("nan")), 0)
    with pytest.raises(BackendError, match="rgb differs by nan"):
        selfcheck.check_engine(engine, native.cpu_engine())


def test_the_check_sees_and_misses_gaussians() -> None:
    """What it draws has all that it is to judge."""
    made = selfcheck.results(native.cpu_engine())
    assert 0.2 < made["visible"].float().mean() < 0.9
    assert all(tensor.isfinite().all() for tensor in made.values())
    for name, tensor in made.items():
        assert tensor.float().norm() > 0, f"{name} is nothing"
    assert made["alpha"].max() > 0.99 and made["alpha"].min() < 0.7


def test_the_engine_is_made_once_and_checked_then(emulated_library, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(selfcheck, "check_engine", lambda engine, trusted: calls.append((engine.name, trusted.name)))
    native.cuda._engine.cache_clear()
    first = native.cuda_engine(0, emulated_library)
    assert native.cuda_engine(0, str(emulated_library)) is first
    assert calls == [("cuda", "cpu")]
    native.cuda._engine.cache_clear()


def test_the_backend_is_selected_by_its_name(emulated_library, monkeypatch: pytest.MonkeyPatch) -> None:
    from splatinit.raster import make_rasterizer

    monkeypatch.setenv(native.LIBRARY_VARIABLE, str(emulated_library))
    rasterizer = make_rasterizer("cuda")
    assert (rasterizer.name, rasterizer.device, rasterizer.deterministic) == ("cuda", torch.device("cpu"), True)
    gaussians: Gaussians = random_model(20, seed=1)
    assert rasterizer.render(gaussians, camera(0.3)).alpha.any()
