"""The native kernels of the radiance field against plain torch in double precision, at every SIMD level."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from compare import assert_matches
from test_native import runnable_levels
from tolerances import EXACT, GRADIENT

from splatinit import native
from splatinit.errors import BackendError, ShapeError
from splatinit.native import HashGrid, Mlp, RaySamples
from splatinit.nerf import kernels, reference
from splatinit.raster.reference import sh_basis as reference_sh_basis

pytestmark = pytest.mark.skipif(not native.available(), reason="splat_cpu is not built in this installation")
FIELD = 1e-5  # float32 sums of some tens of products of numbers near 1
# Dense, dense with entries to spare, hashed; a single cube; more cells than there are entries along an axis.
GRID = HashGrid(cells=(1, 4, 6, 11, 300), rows=(8, 128, 343, 256, 64))
SIZES = (0, 1, 3, 4, 5, 15, 16, 17, 33, 63, 64, 65, 200)  # around every vector and block


@pytest.fixture(params=runnable_levels())
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    before = native.build_info()["simd"]
    native.set_simd(request.param)
    yield request.param
    native.set_simd(before)


def numbers(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def points(n: int) -> torch.Tensor:
    """In the cube and beside it, on its corners, and on borders of cubes of every level."""
    found = torch.rand(n, 3, generator=torch.Generator().manual_seed(n)) * 1.4 - 0.2
    on_borders = (found * 44).round() / 44
    found[::3] = on_borders[::3]
    for row, value in zip(found[1::5], (0.0, 1.0, -7.0, 9.0, 0.5, 1e30, -1e-30), strict=False):
        row[:] = value
    return found


def doubled(samples: RaySamples) -> RaySamples:
    names = ("density", "rgb", "length", "distance", "middle", "extent")
    return replace(samples, **{name: getattr(samples, name).double() for name in names})


def rays(counts: tuple[int, ...], seed: int = 0) -> RaySamples:
    """Rays of so many samples, some of them empty, some opaque."""
    s = sum(counts)
    generator = torch.Generator().manual_seed(seed + s)
    first = torch.tensor([0, *np.cumsum(counts)], dtype=torch.int64)
    length, extent = torch.rand(2, s, generator=generator) * 0.2 + 0.01
    density = torch.rand(s, generator=generator) ** 4 * 12
    density[::7] = 0.0
    density[5::31] = 1e5
    along = torch.cat([length[a:b].cumsum(0) for a, b in zip(first[:-1], first[1:], strict=True)] or [length])
    middle = torch.cat([extent[a:b].cumsum(0) for a, b in zip(first[:-1], first[1:], strict=True)] or [extent])
    return RaySamples(first, density, torch.rand(s, 3, generator=generator), length, along, middle, extent)


# Without rays, without samples, one sample, and around the lanes of every level.
RAYS = [(), (0,), (1,), (0, 1, 0, 2, 0), (3, 4, 5), (7, 8, 9, 0, 15, 16, 17), (100, 1, 33), (2,) * 50]


# ----------------------------------------------------------------------------------------------------------- hash grid
@pytest.mark.parametrize("n", SIZES)
def test_grid_features(level: str, n: int) -> None:
    table, at = numbers(1, GRID.size, 2), points(n)
    expected = reference.grid_features(GRID, table.double(), at.double())
    # The finest level has 300 cells: a point's place in its cube is known to 300 × 6e-8.
    assert_matches("features", native.grid_features(GRID, table, at), expected, 2e-4)
    assert_matches("features of coarse levels", native.grid_features(GRID, table, at)[:, :8], expected[:, :8], FIELD)


@pytest.mark.parametrize("n", SIZES)
def test_grid_gradient(level: str, n: int) -> None:
    table, at, v = numbers(1, GRID.size, 2).double().requires_grad_(True), points(n), numbers(2, n, GRID.features)
    v[::4] = 0.0
    reference.grid_features(GRID, table, at.double()).backward(v.double())
    assert_matches("gradient of the table", native.grid_features_vjp(GRID, at, v), table.grad, 1e-3)
    if n:
        coarse = sum(GRID.rows[:4])
        ours = native.grid_features_vjp(GRID, at, v)[:coarse]
        assert_matches("of coarse levels", ours, table.grad[:coarse], GRADIENT, by_norm=True)


def test_grid_by_hand(level: str) -> None:
    """One cube: vertices are their own features, its centre their mean, what is outside or NaN the nearest."""
    grid = HashGrid((1,), (8,))
    table = torch.arange(16.0).reshape(8, 2)
    at = torch.tensor(
        [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [0.5, 0.5, 0.5], [9, 9, 9], [torch.nan] * 3]
    )
    expected = torch.stack([*table[[0, 1, 2, 4, 7]], table.mean(0), table[7], table[0]])
    assert_matches("features", native.grid_features(grid, table, at), expected, 1e-6)


def test_hash_is_that_of_instant_ngp(level: str) -> None:
    """A vertex far out, where the products wrap around 2³²: x ⊕ 2654435761 y ⊕ 805459861 z."""
    grid = HashGrid((1000,), (512,))
    vertex = (937, 541, 999)
    entry = (vertex[0] ^ vertex[1] * 2654435761 % 2**32 ^ vertex[2] * 805459861 % 2**32) % 512
    at = (torch.tensor([vertex], dtype=torch.float64) / 1000).float()
    touched = native.grid_features_vjp(grid, at, torch.ones(1, 2))
    assert int(touched[:, 0].argmax()) == entry and float(touched[entry, 0]) > 0.999


def test_spanning_steps_are_geometric() -> None:
    grid = HashGrid.spanning(levels=4, coarsest=4, finest=32, log2_rows=10)
    assert grid == HashGrid((4, 8, 16, 32), (125, 729, 1024, 1024)) and grid.features == 8 and grid.size == 2902
    assert HashGrid.spanning(1, 7, 99, 9).cells == (7,)


# ----------------------------------------------------------------------------------------------------------------- MLP
MLPS = [
    Mlp(16, 32, 1, 16),
    Mlp(32, 64, 2, 3),
    Mlp(31, 16, 2, 1),
    Mlp(1, 1, 1, 1),
    Mlp(64, 64, 1, 64),
    Mlp(5, 33, 2, 17),
]


@pytest.mark.parametrize("mlp", MLPS, ids=str)
@pytest.mark.parametrize("n", (0, 1, 63, 65, 200))
def test_mlp(level: str, mlp: Mlp, n: int) -> None:
    weights, x, v = numbers(1, mlp.size) * 0.3, numbers(2, n, mlp.inputs), numbers(3, n, mlp.outputs)
    wide, wide_x = weights.double().requires_grad_(True), x.double().requires_grad_(True)
    expected = reference.mlp_outputs(mlp, wide, wide_x)
    expected.backward(v.double())
    assert_matches("outputs", native.mlp_outputs(mlp, weights, x), expected, 1e-4)
    v_x, v_weights = native.mlp_outputs_vjp(mlp, weights, x, v)
    assert_matches("gradient of x", v_x, wide_x.grad, 2 * GRADIENT, by_norm=True)
    assert_matches("gradient of weights", v_weights, wide.grad, 2 * GRADIENT, by_norm=True)
    none, again = native.mlp_outputs_vjp(mlp, weights, x, v, with_x=False)
    assert none is None and torch.equal(again, v_weights)


def test_mlp_keeps_what_diverged(level: str) -> None:
    """A NaN comes out of the ReLU, so that a field that diverged is seen to have."""
    mlp = Mlp(2, 16, 2, 1)
    x = torch.zeros(3, 2)
    x[1, 0] = torch.nan
    found = native.mlp_outputs(mlp, numbers(1, mlp.size), x)[:, 0].isnan()
    assert found.tolist() == [False, True, False]


# ---------------------------------------------------------------------------------------------------------------- rays
@pytest.mark.parametrize("counts", RAYS, ids=str)
def test_rays(level: str, counts: tuple[int, ...]) -> None:
    samples = rays(counts)
    expected = reference.ray_sums(doubled(samples))
    for name, ours, ref in zip(
        ("weights", "rgb", "opacity", "depth", "distortion"), native.ray_sums(samples), expected, strict=True
    ):
        assert_matches(name, ours, ref, FIELD)


@pytest.mark.parametrize("counts", RAYS, ids=str)
def test_gradient_of_rays(level: str, counts: tuple[int, ...]) -> None:
    samples = rays(counts)
    r = samples.rays
    v = [numbers(1, r, 3), numbers(2, r), numbers(3, r), numbers(4, r)]
    density, rgb = (tensor.double().requires_grad_(True) for tensor in (samples.density, samples.rgb))
    _, *sums = reference.ray_sums(replace(doubled(samples), density=density, rgb=rgb))
    total = sum((a * b.double()).sum() for a, b in zip(sums, v, strict=True))
    if len(density):
        total.backward()
    expected = [torch.zeros_like(t) if t.grad is None else t.grad for t in (density, rgb)]
    ours = native.ray_sums_vjp(samples, *v)
    assert_matches("gradient of density", ours[0], expected[0], GRADIENT, by_norm=True)
    assert_matches("gradient of rgb", ours[1], expected[1], FIELD)
    alone = native.ray_sums_vjp(samples, v[0])
    without = native.ray_sums_vjp(samples, v[0], *[torch.zeros(r)] * 3)
    assert torch.equal(alone[0], without[0]) and torch.equal(alone[1], without[1])


def test_rays_by_hand(level: str) -> None:
    """Half of the light at 1, half of the rest at 3."""
    half = torch.full((2,), float(np.log(2)))
    ones = torch.ones(2)
    first, at = torch.tensor([0, 2]), torch.tensor([1.0, 3.0])
    samples = RaySamples(first, half, torch.eye(3)[:2].contiguous(), ones, at, at, ones)
    weights, rgb, opacity, depth, distortion = native.ray_sums(samples)
    assert_matches("weights", weights, torch.tensor([0.5, 0.25]), 1e-6)
    assert_matches("rgb", rgb, torch.tensor([[0.5, 0.25, 0]]), 1e-6)
    assert_matches("opacity and depth", torch.cat([opacity, depth]), torch.tensor([0.75, 1.25]), 1e-6)
    assert_matches("distortion", distortion, torch.tensor([2 * 0.5 * 0.25 * 2 + (0.25 + 0.0625) / 3]), 1e-6)


def test_reference_gradients_are_finite_differences() -> None:
    """The oracle itself, in double precision."""
    table = numbers(1, GRID.size, 2).double().requires_grad_(True)
    at, mlp = points(5).double(), Mlp(3, 5, 2, 2)
    assert torch.autograd.gradcheck(lambda t: reference.grid_features(GRID, t, at), table, atol=1e-7, fast_mode=True)
    weights, x = (numbers(k, *shape).double().requires_grad_(True) for k, shape in ((2, (mlp.size,)), (3, (4, 3))))
    assert torch.autograd.gradcheck(lambda w, x: reference.mlp_outputs(mlp, w, x), (weights, x), atol=1e-7)
    samples = doubled(rays((3, 0, 4)))
    density, rgb = samples.density.clamp(max=9).requires_grad_(True), samples.rgb.requires_grad_(True)
    assert torch.autograd.gradcheck(
        lambda d, c: reference.ray_sums(replace(samples, density=d, rgb=c)), (density, rgb), atol=1e-7
    )


# ------------------------------------------------------------------------------------------------- directions, autograd
@pytest.mark.parametrize("degree", range(4))
@pytest.mark.parametrize("n", (0, 1, 17, 40))
def test_sh_basis(level: str, degree: int, n: int) -> None:
    directions = torch.nn.functional.normalize(numbers(n, n, 3), dim=-1)
    expected = reference_sh_basis(directions.double(), degree)
    assert_matches("basis", native.sh_basis(directions, degree), expected, 1e-6)


def test_autograd_gives_the_gradients_of_the_kernels() -> None:
    mlp, samples = Mlp(GRID.features, 16, 1, 4), rays((20, 0, 13))
    table, weights = numbers(1, GRID.size, 2), numbers(2, mlp.size) * 0.3

    def loss(kind, table: torch.Tensor, weights: torch.Tensor, at: torch.Tensor, samples: RaySamples) -> torch.Tensor:
        out = kind.mlp_outputs(mlp, weights, kind.grid_features(GRID, table, at))
        _, rgb, opacity, depth, distortion = kind.ray_sums(
            replace(samples, density=out[:, 0].exp(), rgb=out[:, 1:].sigmoid().contiguous())
        )
        return (rgb**2).sum() + opacity.sum() + depth.sin().sum() + 0.1 * distortion.sum()

    ours = [tensor.clone().requires_grad_(True) for tensor in (table, weights)]
    theirs = [tensor.double().requires_grad_(True) for tensor in (table, weights)]
    value = loss(kernels, *ours, points(33), samples)
    expected = loss(reference, *theirs, points(33).double(), doubled(samples))
    value.backward()
    expected.backward()
    assert_matches("loss", value, expected, 1e-3)
    for name, a, b in zip(("table", "weights"), ours, theirs, strict=True):
        assert_matches(f"gradient of the {name}", a.grad, b.grad, 1e-3, by_norm=True)


def test_any_number_of_threads_gives_the_same_bits(level: str) -> None:
    mlp, samples, n = Mlp(10, 32, 2, 7), rays((40, 0, 70, 1) * 12), 1000
    table, weights, x, at = numbers(1, GRID.size, 2), numbers(2, mlp.size), numbers(3, n, 10), points(n)
    before, results = native.build_info()["threads"], []
    for threads in (1, 2, 3, 7):
        native.set_threads(threads)
        results.append(
            [
                native.grid_features(GRID, table, at),
                native.grid_features_vjp(GRID, at, x),
                native.mlp_outputs(mlp, weights, x),
                *native.mlp_outputs_vjp(mlp, weights, x, x[:, :7].contiguous()),
                *native.ray_sums(samples),
                *native.ray_sums_vjp(samples, torch.ones(samples.rays, 3)),
            ]
        )
    native.set_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b)


# ------------------------------------------------------------------------------------------------------------ refusals
def test_bad_arguments_are_refused() -> None:
    at = torch.zeros(2, 3)
    for cells, rows in (((0,), (8,)), ((4,), (100,)), ((4,), (0,)), ((70000,), (64,)), ((300,) * 3, (2**30,) * 3)):
        grid = HashGrid(cells, rows)
        with pytest.raises(BackendError, match="gradient of the hash grid: the native engine refused its arguments"):
            native.check_code(
                native.library().splat_cpu_grid_vjp(grid.arg(), at.data_ptr(), at.data_ptr(), 2, at.data_ptr()),
                "gradient of the hash grid",
            )
    with pytest.raises(ShapeError, match="cells and rows for each of 1 to 16 levels, got 2 and 1"):
        HashGrid((1, 2), (8,)).arg()
    with pytest.raises(ShapeError, match=r"table must be \[8, 2\] float32 on cpu, contiguous; got \[7, 2\]"):
        native.grid_features(HashGrid((1,), (8,)), torch.zeros(7, 2), at)
    for mlp in (Mlp(65, 16, 1, 1), Mlp(3, 65, 1, 1), Mlp(3, 16, 3, 1), Mlp(3, 16, 0, 1), Mlp(3, 16, 1, 65)):
        with pytest.raises(BackendError, match="MLP: the native engine refused"):
            native.mlp_outputs(mlp, torch.zeros(mlp.size), torch.zeros(2, mlp.inputs))
    good = rays((2, 3))
    for first in ([0, 3, 2], [1, 2, 5], [0, 4, 4], [0, 7, 5]):
        with pytest.raises(BackendError, match="rays: the native engine refused"):
            native.ray_sums(replace(good, first=torch.tensor(first)))
    with pytest.raises(ShapeError, match=r"first must be \[rays \+ 1\] int64, contiguous; got \[3\] int32"):
        native.ray_sums(replace(good, first=good.first.int()))
    with pytest.raises(BackendError, match="spherical harmonics: the native engine refused"):
        native.sh_basis(at, 4)


def test_oracle_of_rays_is_the_closed_form() -> None:
    """A homogeneous medium of density 2 through length 3, however it is cut: opacity 1 − e^−6."""
    for n in (1, 2, 64):
        length = torch.full((n,), 3.0 / n, dtype=torch.float64)
        samples = RaySamples(torch.tensor([0, n]), length * 0 + 2, torch.ones(n, 3).double(), *[length] * 4)
        assert_matches("opacity", reference.ray_sums(samples)[2], torch.tensor([1 - np.exp(-6.0)]), EXACT)
