"""Where rays are sampled, native against plain torch in double precision, at every SIMD level."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from compare import assert_matches
from test_field import level  # noqa: F401  (a fixture)

from splatinit import native
from splatinit.errors import BackendError, ShapeError
from splatinit.nerf import Ball, Box, reference

pytestmark = pytest.mark.skipif(not native.available(), reason="splat_cpu is not built in this installation")
SPACES = [Box((-1.0, -2.0, 0.5), (3.0, 1.0, 2.5)), Ball((0.5, -0.5, 1.0), 1.5)]
SIZES = (0, 1, 3, 4, 5, 15, 16, 17, 33)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def around(n: int, seed: int = 0) -> torch.Tensor:
    """Points in and far around the spaces, some on borders, one at the middle of the ball."""
    found = torch.randn(n, 3, generator=generator(seed + n)) * 3
    found[::4] *= 100
    for row, value in zip(found[1::5], (SPACES[1].centre, SPACES[0].low, (2.0, -0.5, 1.0), (1e6, 0, 0)), strict=False):
        row[:] = torch.tensor(value)
    return found


def rays(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Origins in and around the spaces; most look towards them, some along an axis, some away."""
    origins = torch.randn(n, 3, generator=generator(seed)) * 4
    towards = torch.tensor([0.7, -0.4, 1.3]) + torch.randn(n, 3, generator=generator(seed + 1)) * 0.5 - origins
    towards[3::7] = torch.tensor([0.0, 0.0, 1.0])
    towards[5::7] *= -1
    return origins, torch.nn.functional.normalize(towards, dim=-1)


def densities(cells: int, kind: str, seed: int = 0) -> torch.Tensor:
    drawn = torch.rand(cells, cells, cells, generator=generator(seed))
    return {"empty": drawn * 0, "thin": drawn * 0.2, "thick": drawn**6 * 100, "opaque": 1e5 + drawn}[kind]


def doubled(space: Box | Ball, call, *tensors: torch.Tensor | None):
    return call(space, *(None if tensor is None else tensor.double() for tensor in tensors))


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("space", SPACES, ids=("box", "ball"))
def test_unit_cube(level: str, space: Box | Ball, n: int) -> None:  # noqa: F811
    points = around(n)
    expected = space.unit(points.double())
    assert_matches("unit", native.space_unit(space.arg, points), expected, 1e-6)
    assert ((expected >= 0) & (expected <= 1)).all()


@pytest.mark.parametrize("space", SPACES, ids=("box", "ball"))
def test_world_is_the_way_back(space: Box | Ball) -> None:
    inside = torch.rand(200, 3, generator=generator(0), dtype=torch.float64)
    if isinstance(space, Ball):
        inside = inside[(inside - 0.5).norm(dim=-1) < 0.49]
    assert_matches("unit of world", space.unit(space.world(inside)), inside, 1e-9)


@pytest.mark.parametrize("shifted", (False, True))
@pytest.mark.parametrize("kind", ("empty", "thin", "thick", "opaque"))
@pytest.mark.parametrize("space", SPACES, ids=("box", "ball"))
def test_samples_of_rays(level: str, space: Box | Ball, kind: str, shifted: bool) -> None:  # noqa: F811
    # Odd numbers of cells: a part's middle lies on no border of them where a ray crosses the whole box.
    for n, coarse, fine, cells, uniform, near in (
        (0, 8, 4, 3, 0.1, 0.0),
        (1, 1, 1, 1, 0.0, 0.0),
        (5, 3, 2, 3, 0.3, 0.1),
        (17, 16, 7, 5, 0.1, 0.5),
        (9, 33, 16, 9, 1.0, 0.0),
        (9, 96, 17, 15, 0.1, 6.0),
    ):
        origins, directions = rays(n, seed=n)
        known = densities(cells, kind, seed=n)
        shifts = torch.rand(n, 2, generator=generator(n)) if shifted else None
        ours = native.ray_samples(space.arg, known, origins, directions, shifts, coarse, fine, uniform, near)
        expected = reference.ray_samples(
            space,
            *(tensor.double() for tensor in (known, origins, directions)),
            None if shifts is None else shifts.double(),
            coarse,
            fine,
            uniform,
            near,
        )
        where = f"({n} rays, {coarse} parts)"
        # The weights of thin parts are known to 6e-8 of the light, which is 6e-5 of the least sum that counts, and so
        # many of them are added up. A part is 0.01 long at least.
        assert_matches(f"middle {where}", ours[2], expected[2], 1e-3)
        assert_matches(f"extent {where}", ours[3], expected[3], 1e-3)
        # Lengths from where ours lie: far out a part is hundreds of units long, and turns rounding into units.
        middle, extent = (array.double().reshape(n, fine) for array in ours[2:4])
        ends = (space.distances(origins.double(), directions.double(), middle + k * extent / 2, near) for k in (-1, 1))
        front, back = (end.reshape(-1) for end in ends)
        scale = back.clamp(min=1)
        assert_matches(f"length {where}", ours[0] / scale, (back - front) / scale, 3e-4)
        assert_matches(f"distance {where}", ours[1] / scale, (back + front) / 2 / scale, 3e-4)
        each = (tensor.double().repeat_interleave(fine, dim=0) for tensor in (origins, directions))
        start, along = each
        points = start + ours[1].double()[:, None] * along
        assert_matches(f"points {where}", ours[4] / scale[:, None], points / scale[:, None], 1e-6)
        if n:
            middle = ours[2].reshape(n, fine)
            assert (middle.diff(dim=-1) >= 0).all() and (ours[0] >= 0).all()


def test_samples_meet_a_thin_wall(level: str) -> None:  # noqa: F811
    """Of a ray towards one cell that is not empty, most samples lie in it or beside it, and some everywhere."""
    space = Box((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    known = torch.zeros(16, 16, 16)
    known[:, :, 11] = 1e3  # x from 11/16 to 12/16
    origin, direction = torch.tensor([[-1.0, 0.4, 0.4]]), torch.tensor([[1.0, 0.0, 0.0]])
    _, distance, middle, _, points = native.ray_samples(space.arg, known, origin, direction, None, 96, 40, 0.1, 0.0)
    in_wall = (points[:, 0] > 10.5 / 16) & (points[:, 0] < 12.5 / 16)
    assert 0.8 < float(in_wall.float().mean()) < 0.98
    assert float(middle.min()) < 0.5 and float(distance.max()) > 1.8
    assert_matches("points", points[:, 0], distance - 1, 1e-6)


def test_what_is_remembered(level: str) -> None:  # noqa: F811
    space, cells = SPACES[1], 4
    for n in (0, 1, 16, 17, 100):
        points, values = around(n), torch.rand(n, generator=generator(n))
        values[2::9] = torch.nan
        values[4::9] = -1.0
        known = torch.full((cells, cells, cells), 0.25)
        expected = known.reshape(-1).double().clone()
        for index, value in zip(
            reference.occupancy_cells(space, points.double(), cells).tolist(), values.double().tolist(), strict=True
        ):
            if value >= 0:
                expected[index] += 0.5 * (value - expected[index])
        native.occupancy_put_(space.arg, known, points, values, 0.5)
        assert_matches("density", known.reshape(-1), expected, 1e-6)


def test_what_makes_no_sense_is_refused() -> None:
    space = SPACES[0].arg
    known, at = torch.zeros(2, 2, 2), torch.zeros(1, 3)
    along = torch.tensor([[0.0, 0.0, 1.0]])
    good = (space, known, at, along, None, 4, 4, 0.1, 0.0)
    assert len(native.ray_samples(*good)) == 5
    for index, value in ((5, 0), (5, 1025), (6, 0), (7, -0.1), (7, 1.1), (8, -1.0), (8, float("nan"))):
        with pytest.raises(BackendError, match="samples along rays"):
            native.ray_samples(*good[:index], value, *good[index + 1 :])
    with pytest.raises(ShapeError, match="directions must be"):
        native.ray_samples(space, known, at, torch.zeros(2, 3), None, 4, 4, 0.1, 0.0)
    for broken in (Box((0.0, 0.0, 0.0), (1.0, 0.0, 1.0)), Ball((0.0, 0.0, 0.0), 0.0), Ball((0.0, 0.0, 0.0), -1.0)):
        with pytest.raises(BackendError, match="points in the unit cube"):
            native.space_unit(broken.arg, at)
    with pytest.raises(BackendError, match="remembering densities"):
        native.occupancy_put_(dataclasses.replace(SPACES[1], radius=float("nan")).arg, known, at, torch.zeros(1), 0.5)
