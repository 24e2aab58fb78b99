"""Whole training steps per second, and where the time goes.

    python benchmarks/training.py [SCENE] [--max-size 480] [--gaussians 30000] [--steps 200]

SCENE is any folder that splatinit reads with poses; without it, the fox scene of SPLATINIT_TEST_DATA (default
../shared/data) is taken, or the embedded demo scene where that is absent. The Gaussians start as random points in the
cameras' cube, so their number is exact; nothing is densified, and the first 20 steps are not counted. The second table
takes the parts of a step one by one on the same Gaussians, to show how much the whole step costs beyond them.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from splatinit import native
from splatinit.densify.none import NoDensify
from splatinit.initializers.random import Random, RandomConfig
from splatinit.io.read import ReadConfig, read_images
from splatinit.losses import l1_dssim
from splatinit.optim import GaussianAdam
from splatinit.posers.given import Given, GivenConfig
from splatinit.progress import Silent
from splatinit.raster.base import RasterSettings
from splatinit.raster.native import CpuRasterizer
from splatinit.seeding import SeedConfig, seed_gaussians
from splatinit.training import TrainConfig, train


def default_scene() -> Path:
    shared = Path(os.environ.get("SPLATINIT_TEST_DATA", Path(__file__).parents[1] / ".." / "shared" / "data"))
    if (shared / "fox").is_dir():
        return shared / "fox"
    from splatinit.demo.dataset import make_demo_scene

    return make_demo_scene(Path(tempfile.mkdtemp()) / "demo")


class StepTimes:
    """A Progress that notes when steps were reached."""

    def __init__(self) -> None:
        self.rows: list[dict] = []

    def __call__(self, row: dict) -> None:
        self.rows.append({**row, "time": time.perf_counter()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scene", nargs="?", type=Path)
    parser.add_argument("--max-size", type=int, default=480)
    parser.add_argument("--gaussians", type=int, default=30_000)
    parser.add_argument("--steps", type=int, default=200)
    args = parser.parse_args()
    console = Console(width=150)

    images = read_images(args.scene or default_scene(), ReadConfig(max_size=args.max_size))
    scene = Given(GivenConfig(triangulate=False)).pose(images, work_dir=None, progress=Silent())
    start = Random(RandomConfig(count=args.gaussians)).initialize(scene, seed=0, progress=Silent())
    gaussians = seed_gaussians(start.points, SeedConfig())
    camera = scene.train[0].camera
    info = native.build_info()
    console.print(
        f"{images.root.name}: {len(scene.train)} training views, {camera.width}×{camera.height}, "
        f"{len(gaussians):,} Gaussians, SH 3; {info['simd']}, {info['threads']} threads"
    )

    times = StepTimes()
    # SH degree 3 from the first step, and a look at every tenth of the run: the rates between two looks are comparable.
    config = TrainConfig(steps=args.steps, sh_interval=0.0, preview=0.1)
    train(
        scene,
        gaussians,
        rasterizer=CpuRasterizer(),
        settings=RasterSettings(),
        densifier=NoDensify(),
        config=config,
        log=times,
    )
    rows = times.rows
    spans = [(b["step"] - a["step"]) / (b["time"] - a["time"]) for a, b in zip(rows, rows[1:], strict=False)]
    table = Table(title="Whole training")
    for column in ("steps/s median", "min", "max", "peak memory MB"):
        table.add_column(column, justify="right")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    table.add_row(f"{statistics.median(spans):.1f}", f"{min(spans):.1f}", f"{max(spans):.1f}", f"{peak:.0f}")
    console.print(table)

    adam = GaussianAdam(gaussians, dict.fromkeys(gaussians.tensors(), 1e-4))
    target = torch.rand(camera.height, camera.width, 3)
    parts: dict[str, list[float]] = {"render": [], "loss": [], "backward": [], "Adam": []}
    for _ in range(30):
        clock = [time.perf_counter()]
        render = CpuRasterizer().render(adam.gaussians, camera)
        clock.append(time.perf_counter())
        loss = l1_dssim(render.rgb, target, 0.2)
        clock.append(time.perf_counter())
        loss.backward()
        clock.append(time.perf_counter())
        adam.step()
        clock.append(time.perf_counter())
        for part, begin, end in zip(parts, clock, clock[1:], strict=False):
            parts[part].append(1e3 * (end - begin))
    table = Table(title="Parts of a step: median ms")
    for part in (*parts, "sum", "1 / sum"):
        table.add_column(part, justify="right")
    medians = [statistics.median(values) for values in parts.values()]
    table.add_row(*(f"{value:.2f}" for value in medians), f"{sum(medians):.2f}", f"{1e3 / sum(medians):.1f} /s")
    console.print(table)


if __name__ == "__main__":
    main()
