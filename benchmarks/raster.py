"""The rasterizer: forward and forward + backward by number of Gaussians and image size, and what others take.

    python benchmarks/raster.py [--quick] [--floor FLOOR.cpp]

Medians of wall-clock times; SH degree 3. "blended" and "evaluated" are (pixel, Gaussian) pairs per pixel: those
that are drawn, and those that the blend loop looks at for it, lanes that are masked off included. The loops'
rate in evaluated pairs per second stands beside that of a bare loop over a tile in cache (--floor, a C++
program that prints "threads N forward X Gpairs/s"), built with -O3 -march=native and run before and after in
the same process. The last table runs, in the same process, our plain torch reference on a size that it can
hold, and gsplat's pure-torch functions for the part of the work that they do on a CPU (their blending needs a
CUDA kernel).
"""

from __future__ import annotations

import argparse
import re
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from scenes import random_scene

from splatinit import native
from splatinit.raster.base import RasterSettings
from splatinit.raster.native import CpuRasterizer, view_arg
from splatinit.raster.reference import ReferenceRasterizer
from splatinit.types import Camera, Gaussians


def median_ms(run: Callable[[], object], repeats: int) -> float:
    """Median milliseconds of ``repeats`` calls, after one that is not counted."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def forward_backward(rasterizer, gaussians: Gaussians, camera: Camera, v_rgb: torch.Tensor):
    for tensor in gaussians.tensors().values():
        tensor.grad = None
    render = rasterizer.render(gaussians, camera)
    render.rgb.backward(v_rgb)
    return render


def floor_rates(source: Path, folder: Path) -> dict[str, float]:
    """{"forward": G pairs/s, "backward": …} of the bare loops on two threads; empty where they cannot be built."""
    program = folder / "floor"
    if not program.exists():
        build = ["c++", "-O3", "-march=native", "-std=c++17", str(source), "-o", str(program), "-lpthread"]
        if not source.exists() or subprocess.run(build, capture_output=True).returncode:
            return {}
    text = subprocess.run([program], capture_output=True, text=True).stdout
    found = re.findall(r"threads 2 (forward|backward) ([0-9.]+) Gpairs/s", text)
    return {name: float(rate) for name, rate in found}


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def growth(console: Console, quick: bool, floor: dict[str, float]) -> None:
    caption = "project … project_vjp: stages of a forward + backward pass"
    table = Table(title="cpu engine: wall-clock ms", caption=caption)
    for column in ("Gaussians", "image", "blended/px", "evaluated/px", "forward", "fwd+bwd", "1 thread", "buffers MB"):
        table.add_column(column, justify="right")
    stages = ("project", "sort_and_bin", "blend", "blend_vjp", "project_vjp")
    for stage in stages:
        table.add_column(stage, justify="right")
    rasterizer = CpuRasterizer()
    threads = native.build_info()["threads"]
    repeats = 5 if quick else 15
    rates = Table(title="blend loops: evaluated pairs, G/s", caption=f"a bare loop on two threads: {floor}")
    for column in ("Gaussians", "image", "evaluated / blended", "forward", "of the floor", "backward", "of the floor"):
        rates.add_column(column, justify="right")
    for n in (10_000, 50_000, 200_000):
        for width, height in ((400, 300), (800, 600)):
            gaussians, camera = random_scene(n, width, height)
            gaussians = gaussians.map(lambda tensor: tensor.requires_grad_())
            v_rgb = torch.rand(height, width, 3)

            def both(gaussians=gaussians, camera=camera, v_rgb=v_rgb):
                return forward_backward(rasterizer, gaussians, camera, v_rgb)

            with torch.no_grad():
                forward = median_ms(lambda g=gaussians, c=camera: rasterizer.render(g, c), repeats)
            total = median_ms(both, repeats)
            spent: dict[str, list[float]] = {stage: [] for stage in stages}
            for _ in range(repeats):
                call = both().rgb.grad_fn.call
                for stage in stages:
                    spent[stage].append(call.workspace.timings()[stage])
            seconds = {stage: statistics.median(values) for stage, values in spent.items()}
            drawn = view_arg(camera, RasterSettings(), 3)
            evaluated, blended = native.count_pairs(call.workspace, drawn)
            native.set_threads(1)
            single = median_ms(both, max(3, repeats // 3))
            native.set_threads(threads)
            pixels, size = width * height, f"{width}×{height}"
            table.add_row(
                f"{n:,}",
                size,
                f"{blended / pixels:.1f}",
                f"{evaluated / pixels:.1f}",
                f"{forward:.1f}",
                f"{total:.1f}",
                f"{single:.1f}",
                f"{call.info.bytes / 2**20:.0f}",
                *(f"{1e3 * seconds[stage]:.1f}" for stage in stages),
            )
            reached = {
                "forward": evaluated / seconds["blend"] / 1e9,
                "backward": evaluated / seconds["blend_vjp"] / 1e9,
            }
            cells = []
            for name, rate in reached.items():
                cells += [f"{rate:.2f}", f"{100 * rate / floor[name]:.0f} %" if name in floor else "–"]
            rates.add_row(f"{n:,}", size, f"{evaluated / blended:.2f}", *cells)
    console.print(table)
    console.print(rates)
    console.print(f"peak memory of the process with all of this: {peak_mb():.0f} MB")


def against_others(console: Console, quick: bool) -> None:
    repeats = 3 if quick else 7
    table = Table(title="The same work by others, same run: wall-clock ms")
    for column in ("what", "size", "others", "cpu engine", "ratio"):
        table.add_column(column, justify="right" if column not in ("what", "size") else "left")

    gaussians, camera = random_scene(2_000, 96, 64)
    gaussians = gaussians.map(lambda tensor: tensor.requires_grad_())
    v_rgb = torch.rand(64, 96, 3)
    theirs = median_ms(lambda: forward_backward(ReferenceRasterizer(), gaussians, camera, v_rgb), repeats)
    ours = median_ms(lambda: forward_backward(CpuRasterizer(), gaussians, camera, v_rgb), 5 * repeats)
    table.add_row("reference, fwd+bwd", "2 000 at 96×64", f"{theirs:.1f}", f"{ours:.2f}", f"{theirs / ours:.0f}×")

    try:
        from gsplat.cuda._torch_impl import (
            _fully_fused_projection,
            _isect_tiles,
            _quat_scale_to_covar_preci,
            _spherical_harmonics,
        )
    except ImportError:
        console.print(table)
        console.print("gsplat is not installed: pip install 'splatinit\\[gsplat]' adds its row")
        return
    gaussians, camera = random_scene(50_000, 800, 600)
    viewmats = torch.from_numpy(camera.cam_from_world).float()[None]
    Ks = torch.from_numpy(camera.K).float()[None]
    free = gaussians.map(lambda tensor: tensor.detach().requires_grad_())

    def gsplat_projection(g: Gaussians):
        covars, _ = _quat_scale_to_covar_preci(g.quats, g.log_scales.exp(), True, False, False)
        drawn = _fully_fused_projection(g.means, covars, viewmats, Ks, camera.width, camera.height)
        return drawn, _spherical_harmonics(3, g.means, torch.cat([g.sh0, g.shN], dim=1))

    def gsplat_forward_backward():
        (_, means2d, depths, conics, _), colors = gsplat_projection(free)
        (means2d.sum() + depths.sum() + conics.sum() + colors.sum()).backward()

    def stages_of(names: tuple[str, ...]) -> float:
        """Median ms of our stages."""
        sums = []
        for _ in range(9):
            render = CpuRasterizer().render(free, camera)
            call = render.rgb.grad_fn.call
            render.rgb.backward(torch.ones_like(render.rgb))
            sums.append(sum(call.workspace.timings()[name] for name in names))
        return 1e3 * statistics.median(sums)

    def compare(what: str, theirs: float, names: tuple[str, ...]) -> None:
        ours = stages_of(names)
        table.add_row(what, "50 000 at 800×600", f"{theirs:.1f}", f"{ours:.2f}", f"{theirs / ours:.0f}×")

    with torch.no_grad():
        theirs = median_ms(lambda: gsplat_projection(gaussians), repeats)
    compare("gsplat torch: covariance, projection, SH; forward", theirs, ("project",))
    theirs = median_ms(gsplat_forward_backward, repeats)
    compare("gsplat torch: the same; forward + backward", theirs, ("project", "project_vjp"))
    with torch.no_grad():
        (radii, means2d, depths, _, _), _ = gsplat_projection(gaussians)
        few = slice(0, 2000)  # its loop over Gaussians is Python: a part, scaled up
        start = time.perf_counter()
        _isect_tiles(means2d[:, few], radii[:, few], depths[:, few], 16, camera.width // 16, camera.height // 16 + 1)
        theirs = 1e3 * (time.perf_counter() - start) * len(gaussians) / 2000
    compare("gsplat torch: tiles and sort (2 000 Gaussians, × 25)", theirs, ("sort_and_bin",))
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    default = Path(__file__).parents[1] / ".." / "shared" / "tools" / "floor.cpp"
    parser.add_argument("--floor", type=Path, default=default, help="source of the bare loops")
    args = parser.parse_args()
    quick = args.quick
    console = Console(width=150)
    info = native.build_info()
    console.print(f"splat_cpu {info['version']}, {info['simd']}, {info['threads']} threads, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        before = floor_rates(args.floor, Path(folder))
        growth(console, quick, before)
        console.print(f"the bare loops again: {floor_rates(args.floor, Path(folder))}")
    against_others(console, quick)


if __name__ == "__main__":
    main()
