"""The demo scene: solids are hit where arithmetic says, the pictures agree with the truth, the files can be read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial import cKDTree

from splatinit.demo import dataset
from splatinit.demo.dataset import in_yard, make_demo_scene, read_truth
from splatinit.demo.layout import DOME_RADIUS, build_cameras, build_solids
from splatinit.demo.raycast import Rays, ShadowMap, Solid, cast, surface
from splatinit.demo.render import DemoRenderer
from splatinit.demo.textures import _PAINTINGS, Texture
from splatinit.errors import SceneError
from splatinit.io.read import read_images
from splatinit.report.figures import draw_points
from splatinit.types import Camera, PointCloud


@pytest.fixture(scope="module")
def renderer() -> DemoRenderer:
    return DemoRenderer()


def looking_down(width: int = 9) -> Camera:
    """At (0, 0, 5), along −z, with the middle pixel on the axis."""
    pose = np.diag([1.0, -1.0, -1.0, 1.0])
    pose[2, 3] = 5.0
    return Camera(np.array([[20.0, 0, width / 2], [0, 20.0, width / 2], [0, 0, 1]]), pose, width, width)


def place(center: tuple[float, float, float], half: tuple[float, float, float]) -> np.ndarray:
    return np.concatenate([np.diag(half), np.array(center)[:, None]], axis=1)


@pytest.mark.parametrize(
    "kind, half, depth",
    [
        ("sphere", (1, 1, 1), 4.0),
        ("sphere", (1, 1, 0.25), 4.75),
        ("box", (0.5, 0.5, 2), 3.0),
        ("cylinder", (1, 1, 0.5), 4.5),
        ("cone", (1, 1, 1), 4.0),
        ("dome", (7, 7, 7), 12.0),
    ],
)
def test_the_ray_on_the_axis_hits_a_solid_at_its_height(kind: str, half: tuple, depth: float) -> None:
    rays = Rays.of_camera(looking_down())
    # A hair off the axis, because the tip of a cone is a single point.
    solid = Solid(kind, place((1e-4, 0, 0), half), "plain")
    distance, index = cast(rays, [solid])
    assert distance[4, 4] == pytest.approx(depth, abs=1e-3)
    assert index[4, 4] == 0


def test_the_nearer_solid_hides_the_farther_one_and_a_miss_is_infinite() -> None:
    rays = Rays.of_camera(looking_down())
    low = Solid("box", place((0, 0, -1), (0.3, 0.3, 0.1)), "plain")
    high = Solid("sphere", place((0, 0, 1), (0.2, 0.2, 0.2)), "plain")
    for solids in ([low, high], [high, low]):
        distance, index = cast(rays, solids)
        assert distance[4, 4] == pytest.approx(3.8) and solids[index[4, 4]] is high
    assert np.isinf(distance[0, 0]) and index[0, 0] == -1


def test_depth_is_along_z_and_normals_point_outwards() -> None:
    rays = Rays.of_camera(looking_down())
    floor = Solid("box", place((0, 0, -0.5), (9, 9, 0.5)), "plain")
    texture = Texture.from_image(np.full((4, 4, 3), 0.5))
    distance, index = cast(rays, [floor])
    np.testing.assert_allclose(distance, 5.0)  # not 5 times the length of the ray
    hit = surface(rays, [floor], {"plain": texture}, distance, index)
    np.testing.assert_allclose(hit.xyz[:, 2], 0, atol=1e-12)
    np.testing.assert_allclose(hit.normal, np.tile([0, 0, 1.0], (81, 1)), atol=1e-12)
    np.testing.assert_allclose(hit.albedo, 0.5**2.2, rtol=1e-5)


def test_a_shadow_falls_under_the_thing_that_throws_it() -> None:
    floor = Solid("box", place((0, 0, -0.5), (5, 5, 0.5)), "plain")
    table = Solid("box", place((0, 0, 1), (0.5, 0.5, 0.05)), "plain")
    light = ShadowMap([floor, table], np.array([0.0, 0, 1]), np.zeros(3), 3.0, 300)
    points, up = np.array([[0, 0, 0], [1.5, 0, 0], [0, 0, 1.05], [99.0, 0, 0]]), np.tile([0, 0, 1.0], (4, 1))
    for soft in (True, False):
        np.testing.assert_allclose(light.lit(points, up, soft=soft), [0, 1, 1, 1])


def test_a_texture_far_away_is_its_mean() -> None:
    rng = np.random.default_rng(0)
    image = rng.uniform(size=(16, 16, 3))
    texture = Texture.from_image(image)
    seen = texture.sample(rng.uniform(-3, 3, (5, 2)), np.full(5, 1.0))
    np.testing.assert_allclose(seen, np.tile((image**2.2).mean(axis=(0, 1)), (5, 1)), rtol=1e-5)
    centre = texture.sample(np.array([[2.5 / 16, 7.5 / 16]]), np.array([1 / 16]))
    np.testing.assert_allclose(centre[0], image[7, 2] ** 2.2, rtol=1e-5)


def test_cameras_stand_outside_of_the_yard_and_look_at_it() -> None:
    cameras = build_cameras()
    assert len(cameras) == 48
    for k, camera in enumerate(cameras):
        camera.check(f"view {k}")
        assert not in_yard(camera.center[None]).any()
        middle = camera.cam_from_world @ [0, 0, 0.8, 1]
        assert middle[2] > 3 and abs(middle[0]) < 0.15 * middle[2]
        assert camera.cam_from_world[1, 2] < -0.7  # world z is up in the picture


def test_pictures_are_deterministic_and_agree_with_their_geometry(renderer: DemoRenderer) -> None:
    small = build_cameras()[9].resized(64, 48)
    picture = renderer.render(small)
    again = renderer.render(small)
    np.testing.assert_array_equal(picture.rgb, again.rgb)
    np.testing.assert_array_equal(picture.depth, again.depth)
    assert picture.rgb.std() > 30 and (picture.rgb == 255).mean() < 0.05
    # Each true point projects onto the centre of its own pixel, at its own depth.
    ground = np.isfinite(picture.depth)
    rows, columns = np.nonzero(ground)
    xyz = picture.xyz[ground]
    in_camera = xyz @ small.cam_from_world[:3, :3].T + small.cam_from_world[:3, 3]
    np.testing.assert_allclose(in_camera[:, 2], picture.depth[ground], rtol=1e-9)
    pixel = in_camera @ small.K.T
    np.testing.assert_allclose(pixel[:, 0] / pixel[:, 2], columns + 0.5, atol=1e-6)
    np.testing.assert_allclose(pixel[:, 1] / pixel[:, 2], rows + 0.5, atol=1e-6)
    facing = (picture.normal[ground] * (small.center - xyz)).sum(axis=1)
    assert (facing > -1e-9).all()  # every surface that is seen faces the camera
    dome = picture.xyz[~ground]
    np.testing.assert_allclose(np.linalg.norm(dome, axis=1), DOME_RADIUS, rtol=1e-9)


def test_one_place_looks_alike_from_two_sides(renderer: DemoRenderer) -> None:
    """Colours belong to the surface: what two views both see has about the same colour in both."""
    first, second = (build_cameras()[k].resized(160, 120) for k in (10, 12))
    a, b = renderer.render(first), renderer.render(second)
    ours, theirs = in_yard(a.xyz.reshape(-1, 3)), in_yard(b.xyz.reshape(-1, 3))
    tree = cKDTree(b.xyz.reshape(-1, 3)[theirs])
    distance, index = tree.query(a.xyz.reshape(-1, 3)[ours], distance_upper_bound=0.004)
    both = np.isfinite(distance)
    assert both.sum() > 200
    difference = a.rgb.reshape(-1, 3)[ours][both].astype(float) - b.rgb.reshape(-1, 3)[theirs][index[both]]
    assert np.median(np.abs(difference)) < 12


@pytest.fixture(scope="module")
def tiny_scene(tmp_path_factory: pytest.TempPathFactory, renderer: DemoRenderer):
    """The scene's files, with four small views."""
    folder = tmp_path_factory.mktemp("demo") / "scene"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "build_cameras", lambda: [camera.resized(80, 60) for camera in build_cameras()[::12]])
        patch.setattr(dataset, "DemoRenderer", lambda: renderer)
        yield make_demo_scene(folder)


def test_the_files_are_read_back_as_they_were_meant(tiny_scene) -> None:
    images = read_images(tiny_scene)
    assert images.format == "nerfstudio" and len(images.photos) == 4
    for photo, camera in zip(images.photos, build_cameras()[::12], strict=True):
        got, expected = images.cameras[photo.name], camera.resized(80, 60)
        np.testing.assert_allclose(got.cam_from_world, expected.cam_from_world, atol=1e-9)
        np.testing.assert_allclose(got.K, expected.K, atol=1e-9)
    truth = read_truth(tiny_scene)
    assert len(truth) > 1000 and in_yard(truth.xyz).all()
    np.testing.assert_allclose(np.linalg.norm(truth.normal, axis=1), 1, atol=1e-5)


def test_a_complete_scene_is_kept_and_another_one_is_not_written_over(tiny_scene, tmp_path) -> None:
    picture = tiny_scene / "images" / "view_00.png"
    before = picture.stat().st_mtime_ns
    make_demo_scene(tiny_scene)
    assert picture.stat().st_mtime_ns == before
    (tmp_path / "transforms.json").write_text("{}")
    with pytest.raises(SceneError, match="not of the demo scene"):
        make_demo_scene(tmp_path)
    assert (tmp_path / "transforms.json").read_text() == "{}"


def test_solids_and_textures_are_the_same_at_every_call() -> None:
    for name in ("crate", "dots"):
        one, other = (_PAINTINGS[name](np.random.default_rng(1)) for _ in range(2))
        np.testing.assert_array_equal(one, other)
    for one, other in zip(build_solids(), build_solids(), strict=True):
        np.testing.assert_array_equal(one.place, other.place)
        assert (one.kind, one.texture, one.tint) == (other.kind, other.texture, other.tint)


def test_points_are_drawn_where_they_project_and_near_ones_on_top() -> None:
    points = PointCloud(
        xyz=np.array([[0, 0, 0], [0, 0, 1], [0, 0, 6], [50, 0, 0]], float),
        rgb=np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]], float),
    )
    image = draw_points(points, looking_down())
    assert image.shape == (9, 9, 3)
    assert image[4, 4].tolist() == [0, 255, 0]  # (0, 0, 6) is behind the camera, (50, 0, 0) outside of the picture
    assert (image == 24).all(axis=2).sum() == 81 - 4
    nothing = replace(points, xyz=points.xyz[:0], rgb=points.rgb[:0])
    assert (draw_points(nothing, looking_down()) == 24).all()
