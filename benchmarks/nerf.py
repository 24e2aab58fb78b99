"""A radiance field fitted to a scene: held-out PSNR of the field itself, seconds, memory; what drawing points adds.

    python benchmarks/nerf.py SCENE [--max-size 480] [--seconds 90 | --steps 1000] [--seed 0] [--torch]

Everything runs in this process, with the threads that SPLATINIT_THREADS allows. The PSNR is the mean over all test
views, at the size of the fit, over the scene's background. ``--torch`` times a few steps of the same fit with the plain
torch reference in place of the native kernels, before the fit, in the same run.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from splatinit import native, pipeline
from splatinit.initializers.nerf.config import NerfConfig
from splatinit.initializers.nerf.photos import fit_photos
from splatinit.initializers.nerf.space import find_space
from splatinit.nerf import FitConfig, HashField, HashFieldConfig, Photos, SamplingConfig, fit, picture, reference
from splatinit.nerf import field as field_module
from splatinit.nerf import rendering as rendering_module
from splatinit.progress import Silent
from splatinit.types import Scene


def torch_step(scene: Scene, photos: Photos, config: FitConfig, field: HashField, steps: int = 3) -> float:
    """Processor seconds of a step whose grid, MLPs and sums are plain torch; sampling stays native."""
    ours = (field_module.grid_features, field_module.mlp_outputs, rendering_module.ray_sums)
    theirs = (reference.grid_features, reference.mlp_outputs, _ray_sums)
    field_module.grid_features, field_module.mlp_outputs, rendering_module.ray_sums = theirs
    try:
        began = time.process_time()
        fit(field, photos, replace(config, steps=steps, seconds=None))
        return (time.process_time() - began) / steps
    finally:
        field_module.grid_features, field_module.mlp_outputs, rendering_module.ray_sums = ours


def _ray_sums(samples):
    """The reference's sums, for rays of equal numbers of samples in one go: ray by ray it takes minutes."""
    n = samples.rays
    shape = (n, len(samples.density) // n)
    own = (samples.density * samples.length).reshape(shape)
    weights = torch.exp(-(own.cumsum(-1) - own)) * (1 - torch.exp(-own))
    middle, extent = samples.middle.reshape(shape), samples.extent.reshape(shape)
    apart = (middle[:, :, None] - middle[:, None, :]).abs()
    distortion = torch.einsum("ni,nij,nj->n", weights, apart, weights) + (weights**2 * extent).sum(-1) / 3
    rgb = (weights[..., None] * samples.rgb.reshape(*shape, 3)).sum(1)
    depth = (weights * samples.distance.reshape(shape)).sum(-1)
    return weights.reshape(-1).detach(), rgb, weights.sum(-1), depth, distortion


def held_out(scene: Scene, field: HashField, photos: Photos, sampling: SamplingConfig) -> list[float]:
    """PSNR of each test view, at the size of the photos that the field was fitted to."""
    found = []
    size = max(max(camera.width, camera.height) for camera in photos.cameras)
    background = torch.tensor(scene.background or (0.0, 0.0, 0.0))
    for view in scene.test:
        factor = min(1.0, size / max(view.camera.width, view.camera.height))
        camera = view.camera.resized(round(view.camera.width * factor), round(view.camera.height * factor))
        pixels = replace(view, camera=camera).pixels()
        truth = torch.from_numpy(pixels.rgb) / 255
        if pixels.alpha is not None:
            truth = torch.lerp(background, truth, torch.from_numpy(pixels.alpha)[..., None] / 255)
        seen = picture(field, camera, sampling)
        shown = (seen.rgb + (1 - seen.opacity)[..., None] * background).clamp(0, 1)
        counts = slice(None) if pixels.mask is None else torch.from_numpy(pixels.mask == 255)
        found.append(-10 * float(torch.log10(((shown - truth)[counts] ** 2).mean())))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scene", type=Path)
    parser.add_argument("--max-size", type=int, default=480)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--torch", action="store_true")
    given = parser.parse_args()
    info = native.build_info()
    torch.set_num_threads(int(os.environ.get("SPLATINIT_THREADS", info["threads"])))
    scene = pipeline.pose(pipeline.read(given.scene, max_size=given.max_size), "given", triangulate=False)
    settings = NerfConfig()
    steps = None if given.seconds and not given.steps else given.steps or 1000
    sampling = SamplingConfig(fine=settings.samples)
    config = FitConfig(steps=steps, seconds=given.seconds, rays=settings.rays, sampling=sampling)
    shape = HashFieldConfig(levels=settings.levels, finest=settings.finest, log2_rows=settings.log2_rows)
    photos = fit_photos(scene, None, Silent())
    space = find_space(scene, photos)

    def begun() -> HashField:
        return HashField(shape, space, given.seed, near=settings.clearance * scene.extent)

    reference_step = torch_step(scene, photos, config, begun()) if given.torch else None
    marks: list[tuple[int, float, float]] = []
    field = begun()
    wall, cpu = time.perf_counter(), time.process_time()

    def mark(over: float, step: int, loss: float) -> None:
        if over * 4 >= len(marks) + 1:
            marks.append((step, time.perf_counter() - wall, -10 * float(np.log10(loss))))

    result = fit(field, photos, config, given.seed, None, mark)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    scores = held_out(scene, field, photos, sampling)
    camera = photos.cameras[0]
    samples = result.steps * config.rays * sampling.fine
    table = Table(title=f"{given.scene.name}: {len(photos)} photos of {camera.width}×{camera.height}")
    for column in ("what", "value"):
        table.add_column(column, justify="left" if column == "what" else "right")
    table.add_row("held-out PSNR", f"{statistics.mean(scores):.2f} dB ({min(scores):.1f} to {max(scores):.1f})")
    table.add_row("steps, rays, samples of a ray", f"{result.steps}, {config.rays}, {sampling.fine}")
    table.add_row("seconds, processor seconds", f"{wall:.1f}, {cpu:.1f}")
    table.add_row("M samples through a whole step, per second", f"{samples / wall / 1e6:.2f}")
    for step, seconds, psnr in marks:
        table.add_row(f"after {seconds:.0f} s", f"{step} steps, {psnr:.1f} dB on its rays")
    if reference_step is not None:
        own = cpu / result.steps
        table.add_row("processor ms of a step: ours, torch", f"{1e3 * own:.1f}, {1e3 * reference_step:.0f}")
        table.add_row("times as fast", f"{reference_step / own:.1f}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    table.add_row("peak memory of the process", f"{peak:.0f} MiB")
    console = Console(width=120)
    console.print(f"splat_cpu {info['version']}, {info['simd']}, {torch.get_num_threads()} threads")
    console.print(table)


if __name__ == "__main__":
    main()
