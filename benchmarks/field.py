"""The radiance field: samples per second of its native kernels, beside the same maths in plain torch.

    python benchmarks/field.py [--quick]

A sample goes through the hash grid and the two MLPs of the default field, forward and backward. Samples lie along
random rays, 64 to a ray, as in a fit. Both sides run in this process with the same number of threads, in turns, so that
a busy machine is busy for both; seconds are of the processor (all threads together), in which waiting does not count.

The bound is the arithmetic alone: the products of matrices of the MLPs (forward, and for both gradients; what is
computed a second time does not count) at the rate of torch's product of 1024 × 1024 matrices.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table

from splatinit import native
from splatinit.nerf import HashFieldConfig, kernels, reference

PER_RAY = 64


def seconds(functions: list[Callable[[], object]], repeats: int) -> list[float]:
    """Median processor seconds of each, measured in turns."""
    found: list[list[float]] = [[] for _ in functions]
    for repeat in range(repeats + 1):
        for spent, function in zip(found, functions, strict=True):
            start = time.process_time()
            function()
            if repeat:  # the first turn warms up
                spent.append(time.process_time() - start)
    return [statistics.median(spent) for spent in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer samples and repeats")
    quick = parser.parse_args().quick
    n, repeats = (1 << 14, 3) if quick else (1 << 17, 7)
    info = native.build_info()
    torch.set_num_threads(int(os.environ.get("SPLATINIT_THREADS", info["threads"])))
    config = HashFieldConfig()
    grid, first, second = config.grid, config.density_mlp, config.colour_mlp
    generator = torch.Generator().manual_seed(0)
    start = torch.rand(n // PER_RAY, 1, 3, generator=generator)
    end = torch.rand(n // PER_RAY, 1, 3, generator=generator)
    points = (start + (end - start) * torch.linspace(0, 1, PER_RAY)[None, :, None]).reshape(n, 3)
    table = torch.rand(grid.size, 2, generator=generator, requires_grad=True)
    weights = [(torch.randn(mlp.size, generator=generator) * 0.2).requires_grad_(True) for mlp in (first, second)]
    directions = torch.nn.functional.normalize(end - start, dim=-1).expand(-1, PER_RAY, -1).reshape(n, 3)
    basis = native.sh_basis(directions.contiguous(), config.sh_degree)
    features = kernels.grid_features(grid, table, points).detach()
    v_features, v_out = torch.randn(n, grid.features), torch.randn(n, first.outputs)

    def encoding(kind) -> Callable[[], object]:
        return lambda: torch.autograd.grad(kind.grid_features(grid, table, points), table, v_features)

    def density(kind) -> Callable[[], object]:
        x = features.clone().requires_grad_(True)
        return lambda: torch.autograd.grad(kind.mlp_outputs(first, weights[0], x), (weights[0], x), v_out)

    def whole(kind) -> Callable[[], object]:
        def run() -> None:
            out = kind.mlp_outputs(first, weights[0], kind.grid_features(grid, table, points))
            rgb = kind.mlp_outputs(second, weights[1], torch.cat([out[:, 1:], basis], dim=-1))
            torch.autograd.grad(out[:, 0].sum() + (rgb * rgb).sum(), (table, *weights))

        return run

    square = torch.randn(1024, 1024, generator=generator)
    (spent,) = seconds([lambda: square @ square], 10)
    rate = 2 * 1024**3 / spent  # per processor second
    console = Console(width=120)
    console.print(
        f"splat_cpu {info['version']}, {info['simd']}; {n} samples, {len(grid.cells)} levels, "
        f"{grid.size} entries; products of matrices {rate / 1e9:.0f} GFLOP/s per processor second"
    )
    results = Table(title="forward and backward, per processor second")
    for column in ("stage", "native M samples", "torch M samples", "times", "MLPs alone at that rate, M samples"):
        results.add_column(column, justify="left" if column == "stage" else "right")
    products = {"hash grid": 0, "density MLP": 6 * _products(first), "all": 6 * (_products(first) + _products(second))}
    for name, make in (("hash grid", encoding), ("density MLP", density), ("all", whole)):
        ours, theirs = seconds([make(kernels), make(reference)], repeats)
        bound = f"{rate / products[name] / 1e6:.1f}" if products[name] else "–"
        results.add_row(name, f"{n / ours / 1e6:.2f}", f"{n / theirs / 1e6:.3f}", f"{theirs / ours:.0f}", bound)
    console.print(results)


def _products(mlp: native.Mlp) -> int:
    return sum(a * b for a, b in mlp.shapes)


if __name__ == "__main__":
    main()
