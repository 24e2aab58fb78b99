"""The native kernels below the rasterizer: every vjp by finite differences, the fast exponential, each SIMD level."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from compare import assert_matches
from native_build import CUDA, built, ctest
from strategies import KINDS, RasterCase

from splatinit import native
from splatinit.errors import ConfigError, ShapeError
from splatinit.raster.base import RasterSettings

LEVELS, ARM_LEVELS = ("generic", "avx2", "avx512", "neon"), ("generic", "neon")
pytestmark = pytest.mark.skipif(not native.available(), reason="splat_cpu is not built in this installation")


def runnable_levels() -> list[str]:
    if not native.available():
        return []
    before, levels = native.build_info()["simd"], []
    for level in LEVELS:
        try:
            native.set_simd(level)
            levels.append(level)
        except ConfigError:
            pass
    native.set_simd(before)
    return levels


@pytest.fixture
def restore_simd() -> Iterator[None]:
    before = native.build_info()["simd"]
    yield
    native.set_simd(before)


def test_every_vjp_equals_finite_differences(native_build: Path) -> None:
    assert ctest(native_build, "vjp").count(" ok\n") >= 15


@pytest.mark.parametrize("level", runnable_levels())
def test_vector_functions_keep_their_error_bounds(level: str, native_build: Path) -> None:
    assert ctest(native_build, f"simd_{level}").count(" ok\n") == 6


@pytest.mark.parametrize("level", runnable_levels())
def test_the_c_interface_survives_everything_alike_with_any_number_of_threads(level: str, native_build: Path) -> None:
    assert re.search(rf" {level}: .* checks: ok$", ctest(native_build, f"engine_{level}"), re.MULTILINE)


def test_the_cuda_engine_survives_everything_on_the_emulation(native_build: Path) -> None:
    assert re.search(r" emulated on the host: .* checks: ok$", ctest(native_build, "cuda_engine"), re.MULTILINE)


def test_the_emulation_of_cuda_finds_the_faults_that_it_must_find(native_build: Path) -> None:
    assert "100% tests passed, 0 tests failed out of 7" in ctest(native_build, "emulation_")


def cuobjdump() -> str | None:
    """Of CUDA, or of the package nvidia-cuda-cuobjdump."""
    packages = Path(sysconfig.get_path("platlib"), "nvidia")
    return shutil.which("cuobjdump") or next(map(str, sorted(packages.glob("*/bin/cuobjdump"))), None)


KERNEL = re.compile(
    r"^arch = (?P<architecture>sm_\w+)$"
    r"|^ Function (?P<kernel>\S+):\n"
    r" +REG:(?P<registers>\d+) STACK:(?P<stack>\d+) SHARED:(?P<shared>\d+) LOCAL:(?P<local>\d+)",
    re.MULTILINE,
)
MOST_REGISTERS = 128  # two blocks of 256 threads, or four of 128, have room on a multiprocessor (65536)
MOST_SHARED = 48 * 1024  # bytes that every device gives a block without being asked


def dumped(*what: str) -> str:
    """What cuobjdump says of the library that is installed."""
    library, program = native.library_path("splat_cuda"), cuobjdump()
    if not library.exists():
        pytest.skip("splat_cuda is not built in this installation")
    if program is None:
        pytest.skip("no cuobjdump on this machine (pip install nvidia-cuda-cuobjdump)")
    return subprocess.run([program, *what, str(library)], capture_output=True, text=True, check=True).stdout


def test_no_double_slows_the_cuda_kernels() -> None:
    """A number that became a double by mistake costs 32 to 64 times as much on consumer cards; no result shows it."""
    doubles = Counter(dict.fromkeys(("blend_kernel", "blend_vjp_kernel", "project_kernel", "project_vjp_kernel"), 0))
    found = set()
    for function in dumped("-ptx").split(".entry ")[1:]:
        name = function.partition("(")[0]
        for kernel in doubles:
            if f"{len(kernel)}{kernel}I" in name:  # mangled, with its template arguments
                found.add(kernel)
                doubles[kernel] += function.count(".f64")
    assert found == set(doubles) and not doubles.total(), doubles


def test_every_cuda_kernel_fits_into_registers_and_shared_memory() -> None:
    said = dumped("--dump-resource-usage")
    kernels: dict[str, set[str]] = {}
    wrong = []
    for match in KERNEL.finditer(said):
        if match["architecture"]:
            ours = kernels.setdefault(match["architecture"], set())
        elif "_kernel" in match["kernel"] and "3cub" not in match["kernel"]:
            ours.add(match["kernel"])
            # A stack is where registers are spilled. The plain kernels have arrays there, too, and may.
            stack = 0 if "plain" in match["kernel"] else int(match["stack"])
            registers, shared = int(match["registers"]), int(match["shared"])
            if stack or int(match["local"]) or registers > MOST_REGISTERS or shared > MOST_SHARED:
                wrong.append(f"{list(kernels)[-1]} {match[0]}")
    counts = {len(names) for names in kernels.values()}
    assert len(counts) == 1 and min(counts) > 40, {name: len(names) for name, names in kernels.items()}
    assert not wrong, "\n".join(wrong)


def test_the_level_neon_in_an_emulator(tmp_path: Path) -> None:
    for name in ("aarch64-linux-gnu-g++", "qemu-aarch64"):
        if shutil.which(name) is None:
            pytest.skip(f"no {name} on this machine")
    folder = built(tmp_path, f"-DCMAKE_TOOLCHAIN_FILE={CUDA / 'cross' / 'aarch64.cmake'}")
    said = ctest(folder)
    assert "100% tests passed, 0 tests failed out of 12" in said
    assert all(re.search(rf" {level}: .* checks: ok$", said, re.MULTILINE) for level in ARM_LEVELS)
    # A fused multiply-add must be one instruction there, in the loops that were written for it and nowhere else.
    code = subprocess.run(
        ["aarch64-linux-gnu-objdump", "-dC", str(folder / "libsplat_cpu.so")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    fused: Counter[str] = Counter()
    for function in code.split("\n\n"):
        for level in ARM_LEVELS:
            if f"splat::{level}::blend" in function.partition("\n")[0]:
                fused[level] += len(re.findall(r"\tfml[as]\tv\d+\.4s", function))
    assert fused["neon"] >= 50 and fused["generic"] == 0


@pytest.mark.parametrize("level", runnable_levels())
def test_exponential_keeps_its_error_bound(level: str, restore_simd: None) -> None:
    native.set_simd(level)
    x = np.linspace(-125.9, 125.9, 200_003, dtype=np.float32)
    out = np.empty_like(x)
    address = ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(out.ctypes.data)
    native.library().splat_cpu_exp2(*address, len(x))
    error = np.abs(out / np.exp2(x.astype(np.float64)) - 1)
    assert error.max() < 3e-7


@pytest.mark.parametrize("level", runnable_levels())
@pytest.mark.parametrize("kind", ["mixed", "opaque", "needles"])
def test_levels_agree(level: str, kind: str, restore_simd: None) -> None:
    from splatinit.raster.native import CpuRasterizer

    case = RasterCase(seed=3, n=300, width=50, height=37, kind=kind, settings=RasterSettings(antialiased=True))

    def run(name: str) -> dict[str, torch.Tensor]:
        native.set_simd(name)
        gaussians = case.gaussians.map(lambda tensor: tensor.clone().requires_grad_())
        render = CpuRasterizer().render(
            gaussians, case.camera, settings=case.settings, with_depth=True, with_stats=True
        )
        (render.rgb.square().sum() + render.depth.sum()).backward()
        gradients = {f"gradient of {name}": t.grad for name, t in gaussians.tensors().items()}
        return {"rgb": render.rgb.detach(), "alpha": render.alpha.detach(), **gradients}

    ours, generic = run(level), run("generic")
    # A pixel whose alpha sits on a cut-off within rounding may fall on either side of it; such pixels differ by up to
    # 1/255 of a colour, so the picture is compared by its median and its norm, the gradients by their norm.
    assert float((ours["rgb"] - generic["rgb"]).abs().median()) < 1e-6
    for name, value in ours.items():
        assert_matches(f"{level} {kind} {name}", value, generic[name], 2e-4, by_norm=True)


@pytest.mark.parametrize("level", runnable_levels())
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (11, 10), (23, 37), (64, 128)])
def test_loss_equals_torch(level: str, shape: tuple[int, int], restore_simd: None) -> None:
    from splatinit.losses import l1_dssim_torch

    native.set_simd(level)
    generator = torch.Generator().manual_seed(5)
    x = torch.rand(*shape, 3, generator=generator)
    y = (x + 0.2 * torch.randn(*shape, 3, generator=generator)).clamp(0, 1)
    if shape != (1, 1):
        y[0, 0] = x[0, 0]  # where both agree, L1 has gradient 0
    loss, v_x = native.l1_dssim(x, y, 0.2)
    truth = x.double().requires_grad_()
    expected = l1_dssim_torch(truth, y.double(), 0.2)
    expected.backward()
    assert abs(float(loss) - float(expected.detach())) < 1e-6
    assert_matches("v_rgb", v_x, truth.grad.float(), 1e-5, by_norm=True)


@pytest.mark.parametrize("level", runnable_levels())
@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 30_001])
def test_adam_equals_torch(level: str, count: int, restore_simd: None) -> None:
    native.set_simd(level)
    generator = torch.Generator().manual_seed(count)
    param = torch.randn(count, generator=generator)
    theirs = param.clone().double().requires_grad_()
    optimizer = torch.optim.Adam([theirs], lr=0.01, betas=(0.9, 0.999), eps=1e-15)
    exp_avg, exp_avg_sq = torch.zeros(count), torch.zeros(count)
    for step in range(1, 6):
        grad = torch.randn(count, generator=generator)
        theirs.grad = grad.double()
        optimizer.step()
        native.adam_step_(param, grad, exp_avg, exp_avg_sq, lr=0.01, step=step)
    assert_matches("param", param, theirs.detach().float(), 1e-6)


def for_each_number_of_threads(compute: Callable[[], dict[str, torch.Tensor]]) -> None:
    """``compute`` must give the same bits with 1, 2, 3 and 7 threads."""
    expected: dict[str, torch.Tensor] = {}
    for count in (1, 2, 3, 7):
        with tiny.threads(count):
            got = compute()
        assert got.keys() == (expected or got).keys()
        for name, tensor in got.items():
            # As bits: a NaN must be the same NaN.
            bits, wanted = (t.contiguous().view(torch.uint8) for t in (tensor, expected.get(name, tensor)))
            assert torch.equal(bits, wanted), f"{name} with {count} threads"
        expected = got


@pytest.mark.parametrize("level", runnable_levels())
@pytest.mark.parametrize("kind", KINDS)
def test_images_and_gradients_do_not_depend_on_threads(level: str, kind: str, restore_simd: None) -> None:
    from splatinit.raster.native import CpuRasterizer

    native.set_simd(level)
    # More Gaussians than one thread takes in each loop; 20 000 is where the depth sort begins to share.
    n = 21_000 if kind == "tiny" else 1500
    settings = RasterSettings(antialiased=kind == "mixed")
    case = RasterCase(seed=11, n=n, width=83, height=70, kind=kind, settings=settings)
    generator = torch.Generator().manual_seed(2)
    v_rgb, v_depth = torch.randn(70, 83, 3, generator=generator), torch.randn(70, 83, generator=generator)

    def compute() -> dict[str, torch.Tensor]:
        gaussians = case.gaussians.map(lambda tensor: tensor.clone().requires_grad_())
        background = case.background.requires_grad_()
        pose = torch.from_numpy(case.camera.cam_from_world.astype(np.float32)).requires_grad_()
        render = CpuRasterizer().render(
            gaussians, case.camera, settings=case.settings, background=background, cam_from_world=pose, with_depth=True,
            with_stats=True,
        )  # fmt: skip
        torch.autograd.backward([render.rgb, render.alpha, render.depth], [v_rgb, v_depth, v_depth])
        aux = {name: getattr(render.aux, name) for name in render.aux.__dataclass_fields__}
        assert all(value is not None for value in aux.values())
        gradients = {f"gradient of {name}": tensor.grad for name, tensor in gaussians.tensors().items()}
        image = {"rgb": render.rgb, "alpha": render.alpha, "depth": render.depth}
        image = {name: tensor.detach() for name, tensor in image.items()}
        return {**image, **aux, **gradients, "gradient of background": background.grad, "gradient of pose": pose.grad}

    for_each_number_of_threads(compute)


@pytest.mark.parametrize("level", runnable_levels())
@pytest.mark.parametrize("shape", [(1, 1), (50, 31), (200, 300)])
def test_the_loss_does_not_depend_on_threads(level: str, shape: tuple[int, int], restore_simd: None) -> None:
    native.set_simd(level)
    generator = torch.Generator().manual_seed(1)
    x, y = torch.rand(*shape, 3, generator=generator), torch.rand(*shape, 3, generator=generator)

    def compute() -> dict[str, torch.Tensor]:
        loss, v_x = native.l1_dssim(x, y, 0.2)
        return {"loss": loss.view(1), "v_x": v_x}

    for_each_number_of_threads(compute)


@pytest.mark.parametrize("level", runnable_levels())
@pytest.mark.parametrize("count", [17, 100_003])
def test_adam_does_not_depend_on_threads(level: str, count: int, restore_simd: None) -> None:
    native.set_simd(level)
    start = torch.randn(4, count, generator=torch.Generator().manual_seed(count))

    def compute() -> dict[str, torch.Tensor]:
        param, grad, exp_avg, exp_avg_sq = start.clone().unbind()
        exp_avg_sq.abs_()
        native.adam_step_(param, grad, exp_avg, exp_avg_sq, lr=0.01, step=3)
        return {"param": param, "exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}

    for_each_number_of_threads(compute)


@pytest.mark.parametrize("level", runnable_levels())
def test_a_training_does_not_depend_on_threads(level: str, restore_simd: None) -> None:
    from splatinit.densify.adc import Adc, AdcConfig
    from splatinit.training import TrainConfig, train

    native.set_simd(level)
    scene, start = tiny.scene(), tiny.random_model(700, seed=1, sh_degree=3)

    def compute() -> dict[str, torch.Tensor]:
        result = train(
            scene, start, rasterizer=tiny.rasterizer(), settings=tiny.SETTINGS, densifier=Adc(AdcConfig()),
            config=TrainConfig(steps=50, sh_interval=0.2), seed=3,
        )  # fmt: skip
        assert result.steps_done == 50
        return result.gaussians.tensors()

    for_each_number_of_threads(compute)


def test_wrong_tensors_are_refused() -> None:
    x = torch.rand(4, 5, 3)
    with pytest.raises(ShapeError, match=r"target must be \[4, 5, 3\] float32 on cpu, contiguous; got \[4, 5, 4\]"):
        native.l1_dssim(x, torch.rand(4, 5, 4), 0.2)
    with pytest.raises(ShapeError, match="float64"):
        native.l1_dssim(x.double(), x, 0.2)
    with pytest.raises(ShapeError, match="not contiguous"):
        native.l1_dssim(x.transpose(0, 1).contiguous().transpose(0, 1), x, 0.2)


def test_maths_that_no_kernel_uses_yet_compiles_for_the_device(tmp_path: Path) -> None:
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("no CUDA compiler on this machine")
    source = CUDA / "tests" / "device_maths.cu"
    command = [nvcc, "-std=c++17", "-I", str(CUDA / "include"), "-c", str(source), "-o", str(tmp_path / "o")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
