"""Initializers: the volumes of the random start by hand, determinism, and what cannot be started from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import stereo

from splatinit.errors import BadPoints, ConfigError, SceneError
from splatinit.initializers import INITIALIZERS, make_initializer, needs_points
from splatinit.initializers.dense import DenseConfig
from splatinit.initializers.file import File, FileConfig
from splatinit.initializers.nerf.config import NerfConfig
from splatinit.initializers.rain import Rain, RainConfig
from splatinit.initializers.random import Random, RandomConfig
from splatinit.initializers.sfm import Sfm
from splatinit.initializers.union import UnionConfig
from splatinit.io.pointcloud import write_ply_points
from splatinit.progress import Silent
from splatinit.seeding import seed_gaussians
from splatinit.types import Camera, Pixels, PointCloud, Scene, View


class NoPhoto:
    name, path, width, height, has_alpha, has_depth = "0.png", Path("0.png"), 64, 48, False, False
    has_mask = False

    def load(self, width, height):
        raise AssertionError("an initializer of this test decodes no photo")


class GreyPhoto(NoPhoto):
    has_depth = True

    def load(self, width, height):
        return Pixels(np.full((height, width, 3), 128, np.uint8))

    def load_depth(self, width, height):
        return np.full((height, width), 2.0, np.float32)


def camera_at(center, target=(0.0, 0.0, 0.0)) -> Camera:
    """Looks from ``center`` to ``target``, y roughly down −z of the world."""
    center, target = np.asarray(center, float), np.asarray(target, float)
    z = (target - center) / np.linalg.norm(target - center)
    x = np.cross(z, [0.1234, 0.0, 1.0])
    x /= np.linalg.norm(x)
    R = np.stack([x, np.cross(z, x), z])
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = R, -R @ center
    return Camera(np.array([[60.0, 0, 32], [0, 60, 24], [0, 0, 1]]), pose, 64, 48)


def scene(centers, points=None, background=None, photo=NoPhoto()) -> Scene:
    views = tuple(View(str(i), camera_at(c, target=(0.2, 0.1, 0)), photo) for i, c in enumerate(centers))
    return Scene(root=Path("scene"), train=views, test=(), points=points, background=background)


CENTERS = [(4, 0, 1), (-2, 0, 1), (0, 3, 1), (0, -3, 2)]
POINTS = PointCloud(xyz=np.random.default_rng(0).normal(size=(500, 3)), rgb=np.full((500, 3), 0.25))


def draw(scene_, seed=0, **config):
    return Random(RandomConfig(**config)).initialize(scene_, seed=seed, progress=Silent())


def test_cube_of_the_cameras():
    start = draw(scene(CENTERS), count=20_000)
    xyz = start.points.xyz
    # Box of the cameras: x −2…4, y −3…3, z 1…2, so the centre is (1, 0, 1.5) and the side 3 × 6.
    np.testing.assert_allclose(xyz.min(axis=0), [-8, -9, -7.5], atol=0.02)
    np.testing.assert_allclose(xyz.max(axis=0), [10, 9, 10.5], atol=0.02)
    np.testing.assert_allclose(xyz.mean(axis=0), [1, 0, 1.5], atol=0.1)
    assert start.points.rgb.std() == pytest.approx(np.sqrt(1 / 12), abs=0.01)
    assert start.recipe["volume"] == "cameras" and start.recipe["side"] == pytest.approx(18)
    assert start.seconds["draw"] > 0 and start.peak_memory_mb > 1
    assert draw(scene(CENTERS), count=10, size=0.5).recipe["side"] == pytest.approx(3)


def test_cube_of_the_points_ignores_outliers():
    far = np.concatenate([np.random.default_rng(1).uniform(-1, 1, (2000, 3)) * [3, 1, 1], [[1e5, 0, 0]]])
    start = draw(scene(CENTERS, PointCloud(xyz=far, rgb=np.zeros_like(far))), volume="points", count=1000)
    assert start.recipe["side"] == pytest.approx(6 * 0.98, rel=0.02)
    np.testing.assert_allclose(start.recipe["center"], 0, atol=0.1)


def test_cube_of_blender():
    start = draw(scene(CENTERS), volume="blender")
    assert len(start.points) == 100_000
    np.testing.assert_allclose(np.abs(start.points.xyz).max(axis=0), 1.3, atol=1e-3)
    assert start.points.rgb.min() >= 0.5 and start.points.rgb.max() < 0.502
    assert draw(scene(CENTERS), volume="blender", colour="random", count=99).points.rgb.min() < 0.4


def test_auto_follows_the_data_set():
    ring = [(4 * np.cos(a), 4 * np.sin(a), 1.0) for a in np.linspace(0, 6, 8)]
    white = (1.0, 1.0, 1.0)
    assert draw(scene(ring, background=white), count=9).recipe["volume"] == "blender"
    assert draw(scene(ring), count=9).recipe["volume"] == "cameras"
    inside = [*ring, (0.5, 0.5, 0.5)]
    assert draw(scene(inside, background=white), count=9).recipe["volume"] == "cameras"
    millimetres = [tuple(150 * value for value in center) for center in ring]  # the cube is a dot in their photos
    assert draw(scene(millimetres, background=white), count=9).recipe["volume"] == "cameras"


def test_same_seed_same_points():
    a, b, c = (draw(scene(CENTERS), seed=s, count=50).points for s in (5, 5, 6))
    np.testing.assert_array_equal(a.xyz, b.xyz)
    np.testing.assert_array_equal(a.rgb, b.rgb)
    assert (a.xyz != c.xyz).any()


def test_volumes_that_do_not_exist():
    with pytest.raises(SceneError, match="all stand at one place"):
        draw(scene([(1, 2, 3)] * 3))
    with pytest.raises(BadPoints, match="left none"):
        draw(scene(CENTERS), volume="points")
    one = PointCloud(xyz=np.zeros((5, 3)), rgb=np.zeros((5, 3)))
    with pytest.raises(BadPoints, match="span no volume"):
        draw(scene(CENTERS, one), volume="points")


@pytest.mark.parametrize("bad", [{"count": 0}, {"volume": "cube"}, {"colour": "blue"}, {"size": 0.0}])
def test_bad_settings_are_named(bad):
    with pytest.raises(ConfigError, match=f"init.{next(iter(bad))} is"):
        RandomConfig(**bad)


def test_rain_is_few_points_in_the_cube_of_the_cameras():
    start = Rain().initialize(scene(CENTERS), seed=3, progress=Silent())
    np.testing.assert_array_equal(start.points.xyz, draw(scene(CENTERS), seed=3, count=10).points.xyz)
    assert start.points.radius is None and start.recipe["side"] == pytest.approx(18)
    assert "--config rain" in start.notes[-1]
    # Each Gaussian is as large as the distance to the 3 nearest: they cover much of every photo.
    assert seed_gaussians(start.points).scales.min() > 2
    with pytest.raises(ConfigError, match="init.count is 1; expected at least 2"):
        RainConfig(count=1)
    with pytest.raises(ConfigError, match="init.size is 0; expected a positive"):
        RainConfig(size=0.0)


def test_sfm_hands_the_points_on():
    start = Sfm().initialize(scene(CENTERS, POINTS), seed=0, progress=Silent())
    assert start.points is POINTS and start.recipe == {"initializer": "sfm", "poser": "given"}


@pytest.mark.parametrize(
    ("points", "text"),
    [
        (None, "left no points"),
        (PointCloud(xyz=np.zeros((0, 3)), rgb=np.zeros((0, 3))), "is empty"),
        (PointCloud(xyz=np.full((2, 3), np.inf), rgb=np.zeros((2, 3))), "non-finite xyz"),
    ],
)
def test_sfm_without_usable_points(points, text):
    with pytest.raises(BadPoints, match=text):
        Sfm().initialize(scene(CENTERS, points), seed=0, progress=Silent())


def test_who_needs_points():
    assert needs_points("sfm") and not needs_points("random")
    assert needs_points("random", RandomConfig(volume="points"))
    assert not needs_points("random", RandomConfig(volume="cameras"))


def test_every_registered_initializer_can_be_built_and_run(tmp_path):
    write_ply_points(tmp_path / "points.ply", POINTS)
    with stereo.registered() as matcher:  # nothing can be matched in grey photos
        needed = {"file": FileConfig(path=tmp_path / "points.ply"), "dense": DenseConfig(matcher=matcher, count=100)}
        needed["union"] = UnionConfig(parts={"random": RandomConfig(count=100)})
        needed["nerf"] = NerfConfig(fit_steps=30, rays=128, count=50)
        scenes = {"dense": stereo.scene(stereo.row(3)), "nerf": stereo.scene(stereo.row(3))}
        for spec in INITIALIZERS:
            initializer = make_initializer(spec.name, needed.get(spec.name))
            begun_with = scenes.get(spec.name, scene(CENTERS, POINTS, photo=GreyPhoto()))
            start = initializer.initialize(begun_with, seed=1, progress=Silent())
            start.points.check(spec.name)
            assert start.recipe["initializer"] == spec.name
    with pytest.raises(ConfigError, match="Unknown initializer 'randon'") as error:
        make_initializer("randon")
    assert "Did you mean 'random'" in str(error.value)


def test_file_brings_the_points_unchanged_and_says_what_is_wrong(tmp_path):
    path = tmp_path / "scan.ply"
    write_ply_points(path, POINTS)
    start = File(FileConfig(path=path)).initialize(scene(CENTERS), seed=0, progress=Silent())
    np.testing.assert_array_equal(start.points.xyz, POINTS.xyz)
    with pytest.raises(ConfigError, match="needs the file"):
        File().initialize(scene(CENTERS), seed=0, progress=Silent())
    with pytest.raises(BadPoints, match="does not exist"):
        File(FileConfig(path=tmp_path / "other.ply")).initialize(scene(CENTERS), seed=0, progress=Silent())
