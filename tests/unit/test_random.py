"""The designed starts of ``random``: frusta, densities, clearance, sizes and colours, against dumb oracles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny import MemoryPhoto

from splatinit.errors import ConfigError, SceneError
from splatinit.geometry.neighbours import mean_neighbour_distance
from splatinit.initializers.random import Random, RandomConfig, initializer
from splatinit.initializers.random.frusta import SPACING, Box, Contracted, LogDepth, draw
from splatinit.initializers.rig import Rig
from splatinit.initializers.silhouettes import count_views, silhouettes
from splatinit.progress import Silent
from splatinit.types import Camera, Pixels, Scene, View

W, H, F = 40, 30, 25.0


def camera_at(center, target=(0.0, 0.0, 0.0)) -> Camera:
    """Looks from ``center`` to ``target``, which is not above or below it."""
    center, target = np.asarray(center, float), np.asarray(target, float)
    z = (target - center) / np.linalg.norm(target - center)
    x = np.cross(z, [0.0, 0.0, 1.0])
    x /= np.linalg.norm(x)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([x, np.cross(z, x), z])
    pose[:3, 3] = -pose[:3, :3] @ center
    return Camera(np.array([[F, 0, W / 2 + 1], [0, 1.2 * F, H / 2 - 2], [0, 0, 1]]), pose, W, H)


def scene_of(cameras, colours=None, **layers) -> Scene:
    """One photo for each camera, of one colour each."""
    colours = [(128, 128, 128)] * len(cameras) if colours is None else colours
    views = []
    for index, (camera, colour) in enumerate(zip(cameras, colours, strict=True)):
        rgb = np.broadcast_to(np.asarray(colour, np.uint8), (H, W, 3)).copy()
        photo = MemoryPhoto(f"{index}.png", Pixels(rgb, **layers))
        views.append(View(photo.name, camera, photo))
    return Scene(root=Path("scene"), train=tuple(views), test=())


def ring(count=6, radius=3.0, height=1.0):
    angles = 2 * np.pi * np.arange(count) / count
    return [camera_at((radius * np.cos(a), radius * np.sin(a), height)) for a in angles]


def begin(scene, seed=0, **config):
    config = {"volume": "frusta", "count": 500, **config}
    return Random(RandomConfig(**config)).initialize(scene, seed=seed, progress=Silent())


def sees(camera: Camera, point, border=2.0) -> bool:
    """One point, one camera, in the words of a textbook."""
    x, y, z = camera.cam_from_world[:3, :3] @ point + camera.cam_from_world[:3, 3]
    if z <= 0:
        return False
    u = camera.K[0, 0] * x / z + camera.K[0, 2]
    v = camera.K[1, 1] * y / z + camera.K[1, 2]
    return border <= u <= camera.width - border and border <= v <= camera.height - border


def views_of(cameras, xyz):
    return np.array([sum(sees(camera, point) for camera in cameras) for point in xyz])


# ------------------------------------------------------------------------------------------------------------ volume
def test_how_many_cameras_must_see_a_place_by_itself():
    config = RandomConfig(volume="frusta")
    assert [config.views_among(n) for n in (1, 2, 12, 17, 18, 47, 48, 500)] == [2, 2, 2, 2, 3, 7, 8, 8]
    assert RandomConfig(volume="frusta", min_views=1).views_among(500) == 1
    start = begin(scene_of(ring(18)))
    assert (views_of(ring(18), start.points.xyz.astype(float)) >= 3).mean() > 0.99 and start.recipe["min_views"] == 3


def silhouettes_of(cameras, center, radius, layer="alpha") -> Scene:
    """Photos in which a ball is all that counts: a pixel does where the ray through its middle meets the ball."""
    scene = scene_of(cameras, [(200, 40, 40)] * len(cameras))
    columns, rows = np.meshgrid(np.arange(W) + 0.5, np.arange(H) + 0.5)
    for view in scene.train:
        K, pose = view.camera.K, view.camera.cam_from_world
        rays = np.stack([(columns - K[0, 2]) / K[0, 0], (rows - K[1, 2]) / K[1, 1], np.ones((H, W))], axis=-1)
        rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
        off = np.linalg.norm(np.cross(rays, pose[:3, :3] @ center + pose[:3, 3]), axis=-1)
        values = np.where(off <= radius, 255, 0).astype(np.uint8)
        object.__setattr__(view.photo, "pixels", Pixels(view.photo.pixels.rgb, **{layer: values}))
    return scene


@pytest.mark.parametrize("sampling", ["log_depth", "uniform"])
def test_what_photos_see_through_is_empty(sampling):
    cameras, center = [*ring(8, height=1.0), *ring(8, height=-1.5)], np.array([0.2, -0.1, 0.15])
    scene = silhouettes_of(cameras, center, 0.8)
    # Two or three cameras may look at a place behind the ball: it takes more to tell.
    where = {"sampling": sampling, "min_views": 6}
    start = begin(scene, far=1.3, **where, sizes="density")
    distance = np.linalg.norm(start.points.xyz - center, axis=1)
    # A pixel is a tenth of a unit wide at the ball, and one photo in ten may be transparent.
    assert distance.max() < 1.1 and np.quantile(distance, 0.9) < 0.85 and distance.min() < 0.2
    assert "at most 10% of their photos are transparent" in start.notes[0]
    # Sizes are those of the density within the ball.
    found = mean_neighbour_distance(start.points.xyz)
    assert np.mean(found) == pytest.approx(np.mean(start.points.radius), rel=0.15)
    through = begin(scene, far=1.3, **where, see_through=1.0)
    assert (np.linalg.norm(through.points.xyz - center, axis=1) > 1.1).mean() > 0.5
    assert "transparent" not in through.notes[0]
    # A masked pixel tells nothing.
    masked = begin(silhouettes_of(cameras, center, 0.8, "mask"), far=1.3, **where)
    np.testing.assert_array_equal(masked.points.xyz, through.points.xyz)


def test_photos_that_are_all_transparent_leave_no_volume():
    nothing = silhouettes_of(ring(), np.zeros(3), -1.0)
    with pytest.raises(SceneError, match="of 131072 places that were drawn, 0 are in the volume") as error:
        begin(nothing, count=200_000)
    assert "raise init.see_through" in str(error.value)
    assert len(begin(nothing, see_through=1.0).points) == 500


def test_how_many_cameras_see_a_place():
    cameras = [*ring(), camera_at((0.1, 0.2, 0.3), (5, 0, 0))]
    xyz = np.random.default_rng(0).uniform(-6, 6, (3000, 3))
    truth = views_of(cameras, xyz)
    assert set(truth) >= {0, 1, 2, 3}
    for seen in count_views(Rig.of(cameras), [None] * len(cameras), xyz):
        np.testing.assert_array_equal(seen, truth)
    assert len(count_views(Rig.of(cameras), [None] * len(cameras), xyz[:0])[0]) == 0


@pytest.mark.parametrize("sampling", ["uniform", "log_depth", "contracted"])
@pytest.mark.parametrize("min_views", [1, 2, 6])
def test_places_are_where_enough_cameras_look_and_clear_of_all(sampling, min_views):
    cameras = ring()
    scene = scene_of(cameras)
    start = begin(scene, sampling=sampling, min_views=min_views, clearance=0.5)
    xyz = start.points.xyz.astype(float)
    assert len(xyz) == 500
    # Single precision moves a place on the border by a ten-millionth; nearly none lie there.
    assert (views_of(cameras, xyz) >= min_views).mean() > 0.995
    nearest = min(np.linalg.norm(point - camera.center) for point in xyz for camera in cameras)
    assert nearest >= 0.5 * scene.extent - 1e-4
    assert start.recipe["sampling"] == sampling and start.recipe["clearance"] == pytest.approx(0.5)
    assert f"at least {min_views} of 6 cameras" in start.notes[0]


def test_even_places_fill_the_volume_evenly():
    cameras = ring(3)
    scene = scene_of(cameras)
    start = begin(scene, sampling="uniform", far=1.0, clearance=0.0, count=4000, sizes="density")
    middle = np.mean([camera.center for camera in cameras], axis=0)
    # The volume by counting the cells of a grid that lie in it; each eighth of space must have its share of points.
    side = 2 * scene.extent / 24
    axis = (np.arange(24) + 0.5) * side - scene.extent
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    grid = grid[np.linalg.norm(grid, axis=1) <= scene.extent] + middle
    grid = grid[views_of(cameras, grid) >= 2]
    octant = lambda xyz: ((xyz > middle) @ [1, 2, 4]).astype(int)  # noqa: E731
    expected = np.bincount(octant(grid), minlength=8) / len(grid)
    found = np.bincount(octant(start.points.xyz), minlength=8) / 4000
    np.testing.assert_allclose(found, expected, atol=0.03)
    assert expected.max() > 2 * expected.min()
    volume = len(grid) * side**3
    np.testing.assert_allclose(start.points.radius, SPACING * np.cbrt(volume / 4000), rtol=0.03)


def test_the_clearance_empties_cubes_too():
    cameras = ring()
    scene = scene_of(cameras)
    near = lambda start: min(  # noqa: E731
        np.linalg.norm(start.points.xyz - camera.center, axis=1).min() for camera in cameras
    )
    assert near(begin(scene, volume="cameras", size=1.0, count=5000)) < 0.3 * scene.extent
    assert near(begin(scene, volume="cameras", size=1.0, count=5000, clearance=0.3)) >= 0.3 * scene.extent - 1e-5


# ----------------------------------------------------------------------------------------------------------- density
def densities():
    rig = Rig.of([camera_at((3, 0, 0)), camera_at((0, 4, 1))])
    some, nothing = np.zeros((15, 8), bool), np.zeros((15, 8), bool)  # cells of 5 × 2 px
    some[4:9, 3:5] = some[:, 6] = some[0] = True
    return {
        "box": Box(np.array([0.5, 0, 0]), np.array([4.0, 3.0, 5.0])),
        "log": LogDepth(rig, 0.5, 20.0),
        "log, silhouettes": LogDepth(rig, 0.5, 20.0, [some, None]),
        "log, one silhouette": LogDepth(rig, 0.5, 20.0, [nothing, None]),
        "contracted": Contracted(np.array([0.5, 0, 0]), 1.5, 8.0),
        "contracted, near": Contracted(np.array([0.5, 0, 0]), 3.0, 0.9),
    }


@pytest.mark.parametrize("name", densities())
@pytest.mark.parametrize("low", [(-0.3, -0.3, -0.3), (0.2, 0.1, -0.6)])
def test_densities_are_those_that_are_drawn_from(name, low):
    """The mean of 1/p over draws from p, taken in a box, is the volume of the box."""
    places, low = densities()[name], np.array(low)
    high = low + [0.9, 0.7, 1.0]
    xyz = places.propose(np.random.default_rng(3), 400_000)
    xyz = xyz[((xyz >= low) & (xyz <= high)).all(axis=1)]
    each = 1 / places.at(xyz)
    error = np.sqrt((each**2).sum()) / 400_000
    assert error < 0.05 and abs(each.sum() / 400_000 - 0.63) < 4 * error


def test_nothing_is_drawn_beside_silhouettes():
    cameras, scene = ring(), silhouettes_of(ring(), np.zeros(3), 0.8)
    cells = silhouettes(scene, masked=False)
    assert silhouettes(scene_of(cameras), masked=True) == [None] * 6
    xyz = LogDepth(Rig.of(cameras), 0.5, 20.0, cells).propose(np.random.default_rng(0), 3000)
    _, shown = count_views(Rig.of(cameras), cells, xyz)
    assert (shown >= 1).mean() > 0.999
    at = LogDepth(Rig.of(cameras), 0.5, 20.0, cells).at(xyz)
    assert (at > 0).mean() > 0.999
    # Off the ball for every camera: above it, where all of them look.
    above = np.array([[0.0, 0.0, 0.97]])
    assert LogDepth(Rig.of(cameras), 0.5, 20.0).at(above) > 0
    assert LogDepth(Rig.of(cameras), 0.5, 20.0, cells).at(above) == 0


def test_log_depth_gives_each_doubling_of_depth_the_same_share():
    camera = camera_at((3, 0, 0))
    places = LogDepth(Rig.of([camera]), 0.5, 8.0)
    xyz = places.propose(np.random.default_rng(0), 40_000)
    z = (xyz @ camera.cam_from_world[2, :3]) + camera.cam_from_world[2, 3]
    assert z.min() >= 0.5 and z.max() <= 8
    shares = np.histogram(z, [0.5, 1, 2, 4, 8])[0] / 40_000
    np.testing.assert_allclose(shares, 0.25, atol=0.01)
    assert sum(sees(camera, point, border=1.999) for point in xyz[:500]) == 500


@pytest.mark.parametrize("far", [0.5, 1.0, 4.0, 30.0])
def test_contracted_places_are_even_in_contracted_space(far):
    xyz = Contracted(np.array([1.0, 2, 3]), 2.0, far).propose(np.random.default_rng(0), 40_000)
    r = np.linalg.norm(xyz - [1, 2, 3], axis=1) / 2.0
    assert r.max() <= far * (1 + 1e-9) and r.max() > 0.85 * far
    # Eq. 10 of the paper, one number after the other.
    contracted = np.array([x if x <= 1 else 2 - 1 / x for x in r])
    end = far if far <= 1 else 2 - 1 / far
    # Even in a ball: the cubes of the radii are even from 0 to 1.
    shares = np.histogram((contracted / end) ** 3, 5, (0, 1))[0] / 40_000
    np.testing.assert_allclose(shares, 0.2, atol=0.01)


def test_sizes_by_density_are_the_spacing_of_the_points():
    # Points drawn evenly in a cube: away from its sides the spacing is that of the formula.
    xyz = np.random.default_rng(0).random((20_000, 3))
    middle = (np.abs(xyz - 0.5) < 0.4).all(axis=1)
    assert mean_neighbour_distance(xyz)[middle].mean() * np.cbrt(20_000) == pytest.approx(SPACING, rel=0.01)
    for sampling in ("log_depth", "contracted"):
        points = begin(scene_of(ring()), sampling=sampling, count=20_000, sizes="density").points
        ratio = mean_neighbour_distance(points.xyz) / points.radius
        # Near the border of the volume neighbours lie on one side only: the mean is a little above 1.
        assert np.median(ratio) == pytest.approx(1.0, abs=0.1)
        far = points.radius > np.quantile(points.radius, 0.8)
        assert np.median(ratio[far]) == pytest.approx(np.median(ratio[~far]), rel=0.25)
    assert begin(scene_of(ring())).points.radius is None
    cube = begin(scene_of(ring()), volume="blender", count=1000, sizes="density").points
    np.testing.assert_allclose(cube.radius, SPACING * 0.26, rtol=1e-6)


def test_same_seed_same_places():
    scene = scene_of(ring())
    a, b, c = (begin(scene, seed=seed, colour="average").points for seed in (5, 5, 6))
    np.testing.assert_array_equal(a.xyz, b.xyz)
    np.testing.assert_array_equal(a.rgb, b.rgb)
    assert (a.xyz != c.xyz).any()


# ----------------------------------------------------------------------------------------------------------- colours
RED, BLUE = (200, 40, 40), (40, 40, 200)


def test_colours_are_the_mean_of_the_photos_that_show_a_place():
    cameras, colours = ring(3), [RED, BLUE, (0, 100, 0)]
    scene = scene_of(cameras, colours)
    start = begin(scene, min_views=1, colour="average")
    for point, colour in zip(start.points.xyz.astype(float), start.points.rgb, strict=True):
        shown = [c for camera, c in zip(cameras, colours, strict=True) if sees(camera, point)]
        if shown:  # single precision may have moved it over the border
            np.testing.assert_allclose(colour, np.mean(shown, axis=0) / 255, atol=1e-6)
    mean = begin(scene, colour="mean").points.rgb
    np.testing.assert_allclose(mean, np.broadcast_to(np.mean(colours, axis=0) / 255, mean.shape), atol=1e-6)


def test_colours_that_no_setting_names():
    """The cubes are the published baseline, whatever the photos show; in the frusta colours come from them."""
    scene = scene_of(ring(), [RED] * 6)
    frusta = begin(scene)
    assert np.abs(frusta.points.rgb - np.array(RED) / 255).max() < 1e-6 and frusta.recipe["colour"] == "average"
    cube = begin(scene, volume="auto")
    assert cube.recipe["volume"] == "cameras" and cube.recipe["colour"] == "random" and list(cube.seconds) == ["draw"]
    assert cube.points.rgb.std(axis=0).min() > 0.25  # of numbers even in [0, 1]: 0.29
    blender = begin(scene, volume="blender")
    assert blender.recipe["colour"] == "grey" and np.abs(blender.points.rgb - 0.5).max() < 2e-3


def test_colours_of_photos_need_room(monkeypatch):
    wanted = []
    monkeypatch.setattr(initializer, "require_points", lambda count, each: wanted.append(each))
    for colour in ("random", "auto", "average"):
        begin(scene_of(ring()), colour=colour)
    assert wanted == [100, 340, 340]


def test_photos_that_differ_from_most_weigh_less_where_consistent():
    cameras = ring(6)
    scene = scene_of(cameras, [RED] * 5 + [BLUE])
    average, consistent = (begin(scene, min_views=6, colour=how).points.rgb for how in ("average", "consistent"))
    np.testing.assert_allclose(average[:, 2], (5 * 40 + 200) / 6 / 255, atol=1e-6)
    assert (np.abs(consistent - np.array(RED) / 255) < 0.01).all()
    # Where all agree, both are what all say.
    agreed = begin(scene_of(cameras, [RED] * 6), min_views=6, colour="consistent").points.rgb
    np.testing.assert_allclose(agreed, np.broadcast_to(np.array(RED) / 255, agreed.shape), atol=1e-6)


@pytest.mark.parametrize("layer", ["alpha", "mask"])
def test_pixels_that_do_not_count_colour_nothing(layer):
    values = np.full((H, W), 255, np.uint8)
    values[:, : W // 2] = 0
    scene = scene_of(ring(), [RED] * 6, **{layer: values})
    for view in scene.train:
        view.photo.pixels.rgb[:, : W // 2] = BLUE
    for how in ("mean", "average", "consistent"):
        start = begin(scene, volume="cameras", size=2.0, colour=how, count=2000)
        # A pixel's edge is blended with its neighbour, half of it at most.
        assert (np.abs(start.points.rgb - np.array(RED) / 255) < 0.32).all()
        assert np.median(np.abs(start.points.rgb - np.array(RED) / 255)) < 1e-6
    assert "no photo shows" in start.notes[1]


def test_photos_of_which_no_pixel_counts_leave_grey():
    scene = scene_of(ring(), mask=np.zeros((H, W), np.uint8))
    start = begin(scene, colour="average")
    np.testing.assert_array_equal(start.points.rgb, 0.5)
    assert start.notes[1].startswith("no photo shows 500 of the points")


# ------------------------------------------------------------------------------------------------------------ errors
def test_two_views_that_overlap_are_enough():
    cameras = [camera_at((3, 0, 0)), camera_at((3, 1, 0))]
    assert (views_of(cameras, begin(scene_of(cameras)).points.xyz.astype(float)) == 2).mean() > 0.99


def test_scenes_without_a_volume():
    back_to_back = scene_of([camera_at((1, 0, 0), (9, 0, 0)), camera_at((-1, 0, 0), (-9, 0, 0))])
    with pytest.raises(SceneError, match="of 131072 places that were drawn, 0 are in the volume") as error:
        begin(back_to_back, count=200_000)
    assert "photos that overlap are needed" in str(error.value)
    assert len(begin(back_to_back, min_views=1).points) == 500
    with pytest.raises(SceneError, match=r"wants places that 7 training cameras see, and the scene has 6") as error:
        begin(scene_of(ring()), min_views=7)
    assert "init.min_views=6 or fewer" in str(error.value)
    turning = scene_of([camera_at((1, 2, 3), target) for target in ((9, 0, 0), (9, 1, 0))])
    with pytest.raises(SceneError, match=r"the training cameras \(2\) all stand at one place"):
        begin(turning)
    with pytest.raises(SceneError, match="none is nearer than 330 scene units"):
        begin(scene_of(ring()), volume="cameras", clearance=100.0)


def test_a_place_is_asked_of_the_drawing_only_as_often_as_needed():
    box = Box(np.zeros(3), np.ones(3))
    xyz, share = draw(box, lambda xyz: xyz[:, 0] > 0.25, np.ones((1, 3)), 0.0, 1000, np.random.default_rng(0), "here")
    assert len(xyz) == 1000 and share == pytest.approx(0.25, abs=0.01) and xyz[:, 0].min() > 0.25
    xyz, share = draw(box, None, np.ones((1, 3)), 0.0, 7, np.random.default_rng(0), "here")
    np.testing.assert_array_equal(xyz, np.random.default_rng(0).random((7, 3)) - 0.5)
    assert share == 1.0


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        ({"volume": "frustum"}, "init.volume is 'frustum'"),
        ({"volume": "frusta", "size": 2.0}, "init.size is 2 and init.volume 'frusta'"),
        ({"sampling": "log"}, "init.sampling is 'log'"),
        ({"sampling": "contracted"}, "init.sampling is 'contracted' and init.volume 'auto'"),
        ({"min_views": 0}, "init.min_views is 0"),
        ({"see_through": 1.5}, r"init.see_through is 1.5; expected a share in \[0, 1\]"),
        ({"see_through": float("nan")}, "init.see_through is nan"),
        ({"far": 0.0}, "init.far is 0"),
        ({"clearance": -0.1}, "init.clearance is -0.1"),
        ({"volume": "frusta", "clearance": 30.0}, "init.far is 30 and init.clearance 30"),
        ({"volume": "frusta", "clearance": 0.0, "far": 0.01}, "init.far is 0.01 and init.clearance 0"),
        ({"sizes": "spacing"}, "init.sizes is 'spacing'"),
    ],
)
def test_bad_settings_are_named(bad, text):
    with pytest.raises(ConfigError, match=text.replace("(", r"\(")):
        RandomConfig(**bad)
