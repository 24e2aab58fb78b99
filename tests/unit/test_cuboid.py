"""``acui`` and ``sgpose``: the cuboid that cameras look at, against places looked at one by one; grids by hand."""

from __future__ import annotations

import numpy as np
import pytest
from test_random import camera_at, ring, scene_of, sees, silhouettes_of

from splatinit.errors import ConfigError, SceneError
from splatinit.initializers.acui import Acui, cells_of
from splatinit.initializers.cuboid import CuboidConfig, find_cuboid, meeting_point
from splatinit.initializers.rig import Rig
from splatinit.initializers.sgpose import SGPose
from splatinit.progress import Silent


def found(cameras, scene=None, **config):
    center, sides = find_cuboid(scene or scene_of(cameras), CuboidConfig(**config))
    return center - sides / 2, center + sides / 2


# ------------------------------------------------------------------------------------------------------------ cuboid
@pytest.mark.parametrize("target", [(0, 0, 0), (1e5, -2e5, 3.0)])
def test_where_the_axes_meet(target):
    target = np.array(target, float)
    cameras = [camera_at(target + offset, target) for offset in ([3, 0, 1], [0, 2, 0], [-1, -4, 0.5])]
    point, spread = meeting_point(Rig.of(cameras))
    np.testing.assert_allclose(point, target, atol=1e-6)
    # By one number after the other: the direction in which moving leaves all axes least.
    tries = np.random.default_rng(0).normal(size=(20_000, 3))
    tries /= np.linalg.norm(tries, axis=1, keepdims=True)
    sines = [1 - (tries @ camera.cam_from_world[2, :3]) ** 2 for camera in cameras]
    assert spread == pytest.approx(np.mean(sines, axis=0).min(), abs=1e-3)


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_the_cuboid_holds_the_places_that_most_cameras_see(share):
    cameras = [*ring(), camera_at((3, 0.5, 1))]
    low, high = found(cameras, share=share)
    focus, _ = meeting_point(Rig.of(cameras))
    distances = sorted(np.linalg.norm(camera.center - focus) for camera in cameras)
    radius = distances[0] if share == 1 else distances[3]
    xyz = focus + np.random.default_rng(0).uniform(-radius, radius, (4000, 3))
    xyz = xyz[np.linalg.norm(xyz - focus, axis=1) <= radius]
    need = 7 if share == 1 else 4
    inside = xyz[[sum(sees(camera, point) for camera in cameras) >= need for point in xyz]]
    cell = (high - low) / 40
    assert (inside >= low - cell).all() and (inside <= high + cell).all()
    # And it is no larger than they are, as far as a few hundred of them tell.
    assert (inside.max(axis=0) - inside.min(axis=0) > 0.85 * (high - low)).all()


@pytest.mark.parametrize("layer", ["alpha", "mask"])
def test_silhouettes_make_it_the_cuboid_of_the_object(layer):
    cameras = [*ring(8, height=1.0), *ring(8, height=-1.5)]
    center = np.array([0.2, -0.1, 0.15])
    low, high = found(cameras, silhouettes_of(cameras, center, 0.4, layer), share=1.0)
    # A pixel is a tenth of a unit wide at the object: silhouettes end half of one inside or outside of it.
    np.testing.assert_allclose(low, center - 0.4, atol=0.13)
    np.testing.assert_allclose(high, center + 0.4, atol=0.13)
    whole_low, whole_high = found(cameras, share=1.0)
    assert (whole_high - whole_low > 1.5).all()


def test_a_cuboid_of_ones_own_and_its_size():
    low, high = found(ring(), cuboid=(1.0, 2, 3, -1, 6, 4), size=0.5)
    np.testing.assert_allclose([low, high], [[-0.5, 3, 3.25], [0.5, 5, 3.75]])


# ------------------------------------------------------------------------------------------------------------ starts
@pytest.mark.parametrize(
    ("sides", "count", "cells"),
    [
        ((1, 1, 1), 27, (3, 3, 3)),
        ((4, 2, 1), 64, (8, 4, 2)),
        ((1, 1, 1), 26, (3, 3, 2)),
        ((100, 1, 1), 7, (7, 1, 1)),
        ((1e12, 1, 1e-6), 1000, (1000, 1, 1)),
        ((5, 5, 5), 1, (1, 1, 1)),
    ],
)
def test_cells_are_nearly_cubes_and_no_more_than_asked_for(sides, count, cells):
    assert cells_of(np.array(sides, float), count) == cells


def test_cells_of_any_cuboid_are_nearly_as_many_as_asked_for():
    rng = np.random.default_rng(0)
    for _ in range(300):
        sides, count = np.exp(rng.uniform(-0.7, 0.7, 3)), int(rng.integers(1000, 100_000))
        cells = np.array(cells_of(sides, count))
        assert 0.8 * count < cells.prod() <= count
        assert (sides / cells).max() < 1.7 * (sides / cells)[cells > 1].min()


def test_acui_is_a_grid_of_voxel_centres():
    config = CuboidConfig(cuboid=(0.0, 0, 0, 4, 2, 1), count=64)
    start = Acui(config).initialize(scene_of(ring()), seed=1, progress=Silent())
    by_hand = [
        (x + 0.25, y + 0.25, z + 0.25) for x in np.arange(0, 4, 0.5) for y in np.arange(0, 2, 0.5) for z in (0, 0.5)
    ]
    np.testing.assert_allclose(start.points.xyz, by_hand, atol=1e-6)
    assert start.points.rgb.min() >= 0.5 and start.points.rgb.max() < 0.502
    assert start.notes == ("a grid of 8 × 4 × 2 = 64 points in a cuboid of 4 × 2 × 1",)
    again = Acui(config).initialize(scene_of(ring()), seed=2, progress=Silent())
    np.testing.assert_array_equal(start.points.xyz, again.points.xyz)  # only the colours are drawn
    many = Acui(CuboidConfig(count=50_000)).initialize(scene_of(ring()), seed=1, progress=Silent())
    assert 0.9 * 50_000 < len(many.points) <= 50_000


def test_sgpose_fills_the_cuboid_evenly():
    config = CuboidConfig(cuboid=(0.0, 0, 0, 4, 2, 1), count=20_000)
    xyz = SGPose(config).initialize(scene_of(ring()), seed=1, progress=Silent()).points.xyz
    for axis, side in enumerate((4, 2, 1)):
        np.testing.assert_allclose(np.histogram(xyz[:, axis], 4, (0, side))[0] / 20_000, 0.25, atol=0.015)


# ------------------------------------------------------------------------------------------------------------ errors
def test_cameras_that_enclose_nothing():
    side_by_side = [camera_at((x, 0, 0), (x, 5, 0)) for x in range(4)]
    with pytest.raises(SceneError, match="the 4 training cameras do not look at a common place") as error:
        found(side_by_side)
    assert "init.cuboid=" in str(error.value)
    outwards = [camera_at(camera.center, 2 * camera.center) for camera in ring()]
    with pytest.raises(SceneError, match="0 look towards where their axes meet; expected 2° and 6"):
        found(outwards)
    nothing = silhouettes_of(ring(), np.array([50.0, 50, 50]), 0.1, "alpha")
    with pytest.raises(SceneError, match="look at no place that 6 of their photos show") as error:
        found(ring(), nothing)
    assert "Lower init.share" in str(error.value)


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        ({"count": 0}, "init.count is 0"),
        ({"cuboid": (1.0, 2.0)}, "init.cuboid is 1,2; expected six"),
        ({"cuboid": (0.0, 0, 0, 1, 1, 0)}, "init.cuboid is 0,0,0,1,1,0; expected six"),
        ({"share": 0.0}, "init.share is 0"),
        ({"size": -1.0}, "init.size is -1"),
    ],
)
def test_bad_settings_are_named(bad, text):
    with pytest.raises(ConfigError, match=text):
        CuboidConfig(**bad)
