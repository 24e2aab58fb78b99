"""Whole training steps: how many a second, where each millisecond goes, and how much work the blend loop does in vain.

    python benchmarks/step.py [SCENE] [--max-size 480] [--gaussians 30000 | --splat FILE] [--steps 200] [--json FILE]

SCENE is any folder that splatinit reads with poses; without it, the fox scene of SPLATINIT_TEST_DATA (default
../shared/data) is taken, or the embedded demo scene where that is absent. The Gaussians are random points in the
cameras' cube, so that their number is exact, or those of a trained splat; nothing is densified, and all SH degrees are
on from the first step.

The first table is the trainer's own profile, whose rows add up to its wall-clock time. The second takes turns, view by
view, between a forward and backward pass alone, with gradients written out as autograd does, and the whole step on the
same Gaussians: what a step costs beyond. The third counts (pixel, Gaussian) pairs over the training views.
"""

from __future__ import annotations

import argparse
import json
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
from splatinit.io.splat import read_splat_ply
from splatinit.optim import GaussianAdam
from splatinit.posers.given import Given, GivenConfig
from splatinit.progress import Silent
from splatinit.raster.base import RasterSettings
from splatinit.raster.native import CpuRasterizer, view_arg
from splatinit.seeding import SeedConfig, seed_gaussians
from splatinit.steps import NativeStep, StepConfig, StepTask
from splatinit.targets import Targets
from splatinit.training import TrainConfig, train
from splatinit.types import Gaussians, Scene

SETTINGS = RasterSettings()
RATES = dict.fromkeys(("means", "quats", "log_scales", "logit_opacities", "sh0", "shN"), 1e-5)


def default_scene() -> Path:
    shared = Path(os.environ.get("SPLATINIT_TEST_DATA", Path(__file__).parents[1] / ".." / "shared" / "data"))
    if (shared / "fox").is_dir():
        return shared / "fox"
    from splatinit.demo.dataset import make_demo_scene

    return make_demo_scene(Path(tempfile.mkdtemp()) / "demo")


def profile(console: Console, scene: Scene, gaussians: Gaussians, steps: int) -> dict:
    """Train and tell where the time went."""
    start = time.perf_counter()
    result = train(
        scene,
        gaussians,
        rasterizer=CpuRasterizer(),
        settings=SETTINGS,
        densifier=NoDensify(),
        config=TrainConfig(steps=steps, sh_interval=0.0),
    )
    wall = time.perf_counter() - start
    seconds = result.profile.seconds
    table = Table(title=f"{steps} steps", show_footer=True)
    table.add_column("stage", footer="sum")
    table.add_column("ms a step", justify="right", footer=f"{1e3 * sum(seconds.values()) / steps:.2f}")
    for stage, spent in sorted(seconds.items(), key=lambda row: -row[1]):
        table.add_row(stage, f"{1e3 * spent / steps:.2f}")
    console.print(table)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    console.print(
        f"wall clock {1e3 * wall / steps:.2f} ms a step, {steps / wall:.1f} steps/s; peak memory {peak:.0f} MB"
    )
    return {"steps": steps, "wall_seconds": wall, "stages": dict(seconds), "peak_mb": peak}


def beyond(console: Console, scene: Scene, gaussians: Gaussians, rounds: int) -> dict:
    """A forward and backward pass alone, and a whole step, in turns on the same views."""
    rasterizer = CpuRasterizer()
    adam = GaussianAdam(gaussians, RATES)
    whole = NativeStep(adam, rasterizer, SETTINGS, StepConfig())
    both: list[float] = []
    step: list[float] = []
    with Targets(scene, TrainConfig(), 0, torch.device("cpu")) as targets:
        for done in range(rounds + 2):
            target = targets.get(done)
            camera = target.view.camera
            clock = [time.perf_counter()]
            render = rasterizer.render(adam.gaussians, camera, settings=SETTINGS)
            render.rgb.backward(target.rgb)
            clock.append(time.perf_counter())
            whole.loss(StepTask(camera=camera, rgb=target.rgb, sh_degree=gaussians.sh_degree, stats=("v_means2d",)))
            whole.update()
            clock.append(time.perf_counter())
            for tensor in adam.gaussians.tensors().values():
                tensor.grad = None
            del render
            if done >= 2:  # the first ones make the buffers
                both.append(clock[1] - clock[0])
                step.append(clock[2] - clock[1])
    medians = 1e3 * statistics.median(both), 1e3 * statistics.median(step)
    table = Table(title=f"Medians over {rounds} views, in turns")
    for column in ("forward + backward ms", "whole step ms", "beyond %"):
        table.add_column(column, justify="right")
    table.add_row(f"{medians[0]:.2f}", f"{medians[1]:.2f}", f"{100 * (medians[1] / medians[0] - 1):.0f}")
    console.print(table)
    return {"forward_backward_ms": medians[0], "step_ms": medians[1]}


def pairs(console: Console, scene: Scene, gaussians: Gaussians) -> dict:
    """How many pairs the blend loop evaluates for those that it blends, over the training views."""
    drawable = gaussians.map(lambda tensor: tensor.detach().requires_grad_())
    evaluated = blended = pixels = 0
    for view in scene.train:
        render = CpuRasterizer().render(drawable, view.camera, settings=SETTINGS)
        drawn = view_arg(view.camera, SETTINGS, gaussians.sh_degree)
        counts = native.count_pairs(render.rgb.grad_fn.call.workspace, drawn)
        evaluated, blended = evaluated + counts[0], blended + counts[1]
        pixels += view.camera.width * view.camera.height
    console.print(
        f"pairs a pixel: {evaluated / pixels:.1f} evaluated, {blended / pixels:.1f} blended, "
        f"ratio {evaluated / max(1, blended):.2f} ({native.build_info()['simd']})"
    )
    return {"evaluated": evaluated, "blended": blended, "pixels": pixels}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scene", nargs="?", type=Path)
    parser.add_argument("--max-size", type=int, default=480)
    parser.add_argument("--gaussians", type=int, default=30_000)
    parser.add_argument("--splat", type=Path, help="a trained .ply of this scene in place of random Gaussians")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    args = parser.parse_args()
    console = Console(width=150)

    images = read_images(args.scene or default_scene(), ReadConfig(max_size=args.max_size))
    scene = Given(GivenConfig(triangulate=False)).pose(images, work_dir=None, progress=Silent())
    if args.splat:
        gaussians = read_splat_ply(args.splat)
    else:
        start = Random(RandomConfig(count=args.gaussians)).initialize(scene, seed=0, progress=Silent())
        gaussians = seed_gaussians(start.points, SeedConfig())
    camera = scene.train[0].camera
    info = native.build_info()
    console.print(
        f"{images.root.name}: {len(scene.train)} training views, {camera.width}×{camera.height}, {len(gaussians):,} "
        f"Gaussians, SH {gaussians.sh_degree}; {info['simd']}, {info['threads']} threads"
    )
    record = {
        "scene": images.root.name,
        "size": [camera.width, camera.height],
        "gaussians": len(gaussians),
        "simd": info["simd"],
        "threads": info["threads"],
        "profile": profile(console, scene, gaussians, args.steps),
        "beyond": beyond(console, scene, gaussians, min(60, args.steps)),
        "pairs": pairs(console, scene, gaussians),
    }
    if args.json:
        args.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
