"""The native kernels below the rasterizer: every vjp by finite differences, the fast exponential, each SIMD level."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from compare import assert_matches
from strategies import RasterCase

from splatinit import native
from splatinit.errors import ConfigError, ShapeError
from splatinit.raster.base import RasterSettings

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(not native.available(), reason="splat_cpu is not built in this installation")


def runnable_levels() -> list[str]:
    if not native.available():
        return []
    before, levels = native.build_info()["simd"], []
    for level in ("generic", "avx2", "avx512"):
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


def test_every_vjp_equals_finite_differences(tmp_path: Path) -> None:
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler on this machine")
    program = tmp_path / "vjp"
    source = ROOT / "cuda" / "tests" / "vjp.cpp"
    subprocess.run(
        [compiler, "-std=c++17", "-O1", "-I", str(ROOT / "cuda" / "include"), str(source), "-o", str(program)],
        check=True,
    )
    result = subprocess.run([str(program)], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
    assert result.stdout.count(" ok") == len(result.stdout.splitlines()) >= 15


FLAGS = {  # of CMakeLists.txt
    "generic": [],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx2", "-mfma", "-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw"],
}


@pytest.mark.parametrize("level", runnable_levels())
def test_vector_functions_keep_their_error_bounds(level: str, tmp_path: Path) -> None:
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler on this machine")
    program, tests = tmp_path / "simd", ROOT / "cuda" / "tests"
    # -w: GCC 12 warns about its own header for AVX-512 (bug 105593).
    flags = ["-std=gnu++17", "-O1", "-ffp-contract=off", "-w", *FLAGS[level], "-I", str(ROOT / "cuda" / "include")]
    subprocess.run([compiler, *flags, str(tests / "simd.cpp"), "-o", str(program)], check=True)
    result = subprocess.run([str(program)], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
    assert result.stdout.count("ok\n") == len(result.stdout.splitlines()) == 6


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


def test_results_do_not_depend_on_threads() -> None:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.rand(50, 31, 3, generator=generator), torch.rand(50, 31, 3, generator=generator)
    before, results = native.build_info()["threads"], []
    for threads in (1, 2, 3, 7):
        native.set_threads(threads)
        results.append(native.l1_dssim(x, y, 0.2))
    native.set_threads(before)
    for loss, v_x in results[1:]:
        assert loss == results[0][0] and torch.equal(v_x, results[0][1])


def test_wrong_tensors_are_refused() -> None:
    x = torch.rand(4, 5, 3)
    with pytest.raises(ShapeError, match=r"target must be \[4, 5, 3\] float32 on cpu, contiguous; got \[4, 5, 4\]"):
        native.l1_dssim(x, torch.rand(4, 5, 4), 0.2)
    with pytest.raises(ShapeError, match="float64"):
        native.l1_dssim(x.double(), x, 0.2)
    with pytest.raises(ShapeError, match="not contiguous"):
        native.l1_dssim(x.transpose(0, 1).contiguous().transpose(0, 1), x, 0.2)


def test_shared_maths_compiles_for_the_device(tmp_path: Path) -> None:
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("no CUDA compiler on this machine")
    source = ROOT / "cuda" / "tests" / "device_maths.cu"
    command = [nvcc, "-std=c++17", "-I", str(ROOT / "cuda" / "include"), "-c", str(source), "-o", str(tmp_path / "o")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
