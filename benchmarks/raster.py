"""The rasterizer: forward and forward + backward by number of Gaussians and image size, and what others take.

    python benchmarks/raster.py [--quick]

Medians of wall-clock times; SH degree 3. "blended" is the mean number of Gaussians that a pixel really blends. The last
table runs, in the same process, our plain torch reference on a size that it can hold, and gsplat's pure-torch functions
for the part of the work that they do on a CPU (projection and SH; their blending needs a CUDA kernel).
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from scenes import random_scene

from splatinit import native
from splatinit.raster.base import RasterSettings
from splatinit.raster.native import CpuRasterizer
from splatinit.raster.reference import ReferenceRasterizer, alphas_at, blend_weights, project
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


@torch.no_grad()
def blended_per_pixel(gaussians: Gaussians, camera: Camera, pixels: int = 200) -> float:
    """Mean number of Gaussians that a pixel blends, counted by the reference at random pixels."""
    order = torch.argsort(gaussians.means[:, 2])
    drawn = project(gaussians.map(lambda tensor: tensor[order]), camera, torch.eye(4), RasterSettings(), 0)
    random = torch.Generator().manual_seed(0)
    places = torch.rand(pixels, 2, generator=random) * torch.tensor([camera.width, camera.height])
    counts = []
    for part in places.split(10):
        weights, _ = blend_weights(alphas_at(drawn.means2d, drawn.cov2d, drawn.opacities, part.floor() + 0.5))
        counts.append((weights > 0).sum(1))
    return float(torch.cat(counts).float().mean())


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def growth(console: Console, quick: bool) -> None:
    table = Table(title="cpu engine: wall-clock ms", caption="project … project_vjp: stages of one forward + backward")
    for column in ("Gaussians", "image", "blended/px", "pairs", "forward", "fwd+bwd", "1 thread", "buffers MB"):
        table.add_column(column, justify="right")
    stages = ("project", "sort_and_bin", "blend", "blend_vjp", "project_vjp")
    for stage in stages:
        table.add_column(stage, justify="right")
    rasterizer = CpuRasterizer()
    threads = native.build_info()["threads"]
    repeats = 5 if quick else 15
    rows = []
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
            call = both().rgb.grad_fn.call
            timings = call.workspace.timings()
            native.set_threads(1)
            single = median_ms(both, max(3, repeats // 3))
            native.set_threads(threads)
            numbers = (
                f"{call.info.n_pairs:,}",
                f"{forward:.1f}",
                f"{total:.1f}",
                f"{single:.1f}",
                f"{call.info.bytes / 2**20:.0f}",
                *(f"{1e3 * timings[stage]:.1f}" for stage in stages),
            )
            rows.append((n, gaussians, camera, numbers))
    peak = peak_mb()  # before the reference counts, which takes far more than the engine
    for n, gaussians, camera, numbers in rows:
        size, blended = f"{camera.width}×{camera.height}", f"{blended_per_pixel(gaussians, camera):.1f}"
        table.add_row(f"{n:,}", size, blended, *numbers)
    console.print(table)
    console.print(f"peak memory of the process with all of this: {peak:.0f} MB")


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

    @torch.no_grad()
    def gsplat_projection():
        covars, _ = _quat_scale_to_covar_preci(gaussians.quats, gaussians.scales, True, False, False)
        _fully_fused_projection(gaussians.means, covars, viewmats, Ks, camera.width, camera.height)
        _spherical_harmonics(3, gaussians.means, torch.cat([gaussians.sh0, gaussians.shN], dim=1))

    theirs = median_ms(gsplat_projection, repeats)
    keep = gaussians.map(lambda tensor: tensor.requires_grad_())
    stage = statistics.median(
        CpuRasterizer().render(keep, camera).rgb.grad_fn.call.workspace.timings()["project"] for _ in range(9)
    )
    table.add_row(
        "gsplat torch: covariance, projection, SH (forward)",
        "50 000",
        f"{theirs:.1f}",
        f"{1e3 * stage:.2f}",
        f"{theirs / (1e3 * stage):.0f}×",
    )
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    quick = parser.parse_args().quick
    console = Console(width=150)
    info = native.build_info()
    console.print(f"splat_cpu {info['version']}, {info['simd']}, {info['threads']} threads, torch {torch.__version__}")
    growth(console, quick)
    against_others(console, quick)


if __name__ == "__main__":
    main()
