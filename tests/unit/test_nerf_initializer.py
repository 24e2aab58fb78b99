"""``nerf`` on a coloured ball whose surface is known: the points drawn lie on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import stereo
import tiny
import torch

from splatinit import native, pipeline
from splatinit.errors import BadPoints, ConfigError, FormatError, SceneError, TrainingError
from splatinit.geometry.rigid import project, transform, unproject
from splatinit.initializers.nerf.config import NerfConfig
from splatinit.initializers.nerf.depths import Depths
from splatinit.initializers.nerf.drawing import radii
from splatinit.initializers.nerf.initializer import Nerf
from splatinit.initializers.nerf.photos import fit_camera, fit_photos
from splatinit.initializers.nerf.space import find_space
from splatinit.initializers.rig import Rig
from splatinit.nerf import Ball, Box, FitView, Photos, Space, load_field
from splatinit.progress import Silent
from splatinit.types import Camera, Initialization, Pixels, Scene, View

pytestmark = pytest.mark.skipif(not native.available(), reason="splat_cpu is not built in this installation")
SMALL = {"fit_steps": 400, "rays": 512, "levels": 4, "finest": 24, "log2_rows": 13, "clearance": 0.2}
COUNT = 500


@pytest.fixture(autouse=True)
def one_thread():
    with tiny.threads(1):
        yield


def ring(count: int = 12, size: int = 32) -> list[Camera]:
    """Around the ball, from two heights."""
    angles = 2 * np.pi * np.arange(count) / count
    centres = [(4 * np.sin(a), (-1.5, 1.5)[k % 2], -4 * np.cos(a)) for k, a in enumerate(angles)]
    return [stereo.camera(centre, size=(size, size), focal=1.1 * size) for centre in centres]


def ball_depth(cam: Camera) -> np.ndarray:
    """[h, w] camera z of a ball of radius 1 around the origin; NaN beside it."""
    px = stereo.pixel_centers(cam.width, cam.height)
    direction = unproject(cam.K, cam.world_from_cam, px, np.ones(len(px))) - cam.center
    a, b, c = (direction**2).sum(axis=1), direction @ cam.center, cam.center @ cam.center - 1.0
    with np.errstate(invalid="ignore"):
        return ((-b - np.sqrt(b**2 - a * c)) / a).reshape(cam.height, cam.width)


def off_the_ball(xyz: np.ndarray) -> np.ndarray:
    return np.abs(np.linalg.norm(xyz, axis=1) - 1)


def cut_out(cameras: list[Camera]) -> Scene:
    """The ball alone, transparent around it."""
    views = []
    for k, cam in enumerate(cameras):
        z = ball_depth(cam).reshape(-1)
        px = stereo.pixel_centers(cam.width, cam.height)
        rgb = stereo.paint(unproject(cam.K, cam.world_from_cam, px, np.nan_to_num(z, nan=1.0))) * 255
        alpha = np.where(np.isfinite(z), 255, 0).astype(np.uint8).reshape(cam.height, cam.width)
        rgb = rgb.round().astype(np.uint8).reshape(cam.height, cam.width, 3)
        photo = tiny.MemoryPhoto(f"{k:02d}.png", Pixels(rgb, alpha=alpha))
        views.append(View(photo.name, cam, photo))
    return Scene(Path("ball"), tuple(views), (), background=(0.0, 0.0, 0.0))


def begun(scene: Scene, seed: int = 0, progress: object = None, **settings: object) -> Initialization:
    config = NerfConfig(**{"count": COUNT, **SMALL, **settings})
    return Nerf(config).initialize(scene, seed=seed, progress=progress or Silent())


@pytest.fixture(scope="module")
def scene() -> Scene:
    return cut_out(ring())


@pytest.fixture(scope="module")
def start(scene: Scene) -> Initialization:
    with tiny.threads(1):
        return begun(scene, prior=True)


@pytest.fixture(scope="module")
def field(start: Initialization, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("field") / "field.safetensors"
    start.attachments["field.safetensors"].save(path)
    return path


def test_the_points_lie_on_the_ball(start: Initialization) -> None:
    points = start.points
    assert len(points) == COUNT
    # A cell of the finest level is 0.13 wide, a pixel 0.1 at the surface.
    off = off_the_ball(points.xyz)
    assert np.median(off) < 0.08 and np.quantile(off, 0.95) < 0.2
    assert np.abs(points.rgb - stereo.paint(points.xyz)).mean() < 0.1
    middle = np.abs(points.xyz.mean(axis=0))
    assert middle.max() < 0.25  # from all sides
    assert start.recipe["initializer"] == "nerf" and start.recipe["space"]["kind"] == "box"
    assert start.recipe["field_psnr"] > 20 and start.recipe["steps"] == 400
    assert "500 points from a field of" in start.notes[-1]
    assert set(start.seconds) == {"photos", "fit", "depths", "draw"}


def test_radii_are_those_of_the_neighbours_within_bounds(start: Initialization) -> None:
    xyz = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [50, 0, 0], [0, 0, 0]])
    pixel = np.array([0.1, 0.1, 0.1, 0.1, 0.1, 4.0])
    assert radii(xyz, pixel)[[4, 5]] == pytest.approx([1.6, 2.0])  # far from all; its pixel is large
    assert radii(xyz[:1], pixel[:1]) == pytest.approx([0.05])  # a single point has no neighbours
    assert 0.03 < np.median(start.points.radius) < 0.4


def test_the_priors_are_the_depths_of_the_ball(scene: Scene, start: Initialization) -> None:
    assert set(start.depth_priors) == {view.name for view in scene.train}
    view = scene.train[3]
    prior = start.depth_priors[view.name]
    expected = ball_depth(view.camera)
    solid = np.isfinite(expected) & (prior.confidence > 0.5)
    assert solid.sum() > 150 and np.median(np.abs(prior.depth - expected)[solid]) < 0.12
    assert ((prior.confidence >= 0) & (prior.confidence <= 1)).all()
    assert prior.confidence[~np.isfinite(expected)].mean() < 0.1
    assert not begun(scene, fit_steps=5).depth_priors


def test_another_draw_from_the_same_field(scene: Scene, start: Initialization, field: Path) -> None:
    again = begun(scene, field=field)
    assert np.median(np.abs(again.points.xyz - start.points.xyz)) < 0.01 and "steps" not in again.recipe
    for how in ("sample", "expected"):
        other = begun(scene, field=field, depth=how, count=100)
        assert len(other.points) == 100 and np.median(off_the_ball(other.points.xyz)) < 0.1
    photo = begun(scene, field=field, colour="photo", count=100)
    assert np.abs(photo.points.rgb - stereo.paint(photo.points.xyz)).mean() < 0.1


def test_a_field_explains_photos_with_their_exposures(scene: Scene) -> None:
    """Every other photo at half its brightness: the PSNR that is told knows the factors that were fitted."""
    views = []
    for k, view in enumerate(scene.train):
        layers = view.photo.pixels
        photo = tiny.MemoryPhoto(view.name, replace(layers, rgb=layers.rgb // (1 + k % 2)))
        views.append(replace(view, photo=photo))
    uneven = replace(scene, train=tuple(views))
    told = begun(uneven, exposure=True, count=50).recipe
    assert told["field_psnr"] > 30  # measured 43, and 25 where the factors are left out
    gains = np.array(told["exposures"]).mean(axis=1)
    # Not 2: the cameras differ in height, too, and the field's colours take up some of it by direction.
    assert 1.3 < gains[::2].mean() / gains[1::2].mean() < 2.1


def test_same_seed_same_points(scene: Scene) -> None:
    first, again, other = (begun(scene, seed, fit_steps=20).points.xyz for seed in (3, 3, 4))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_points_that_one_photo_sees_are_left_out(
    start: Initialization, scene: Scene, field: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig.of([view.camera for view in scene.train])
    maps = [start.depth_priors[view.name].depth for view in scene.train]
    depths = Depths(rig, maps, maps)
    on = start.points.xyz[:50].astype(np.float64)
    assert (depths.agree(on) >= 2).mean() > 0.95
    towards = rig.center[0] / np.linalg.norm(rig.center[0])
    floating = towards * np.array([[2.5], [3.0], [3.5]])  # in the air before the first camera
    behind = -3 * towards[None]
    assert depths.agree(np.concatenate([floating, behind])).max() == 0
    with pytest.raises(BadPoints, match=r"0 end nearer than init.clearance to a camera, and \d+ where fewer than 40"):
        begun(scene, field=field, min_views=40, count=10)
    monkeypatch.setattr("splatinit.initializers.nerf.drawing.MOST", 1)
    few = begun(scene, field=field, count=4000)
    assert 0 < len(few.points) < 4000 and "photos agree on no more of the field" in " ".join(few.notes)


def test_many_photos_have_smaller_maps_and_are_asked_part_by_part(
    scene: Scene, start: Initialization, field: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps = [start.depth_priors[view.name].depth for view in scene.train]
    depths = Depths(Rig.of([view.camera for view in scene.train]), maps, maps)
    xyz = start.points.xyz.astype(np.float64)
    whole = depths.agree(xyz)
    monkeypatch.setattr("splatinit.initializers.rig.PAIRS", 12 * 7)
    assert np.array_equal(depths.agree(xyz), whole) and whole.max() > 2
    monkeypatch.setattr("splatinit.initializers.nerf.depths.RAYS", 12 * 400)
    small = begun(scene, field=field, prior=True, count=50)
    assert {prior.depth.shape for prior in small.depth_priors.values()} == {(20, 20)}
    assert np.median(off_the_ball(small.points.xyz)) < 0.1


def test_a_clearance_that_holds_all(scene: Scene, field: Path) -> None:
    with pytest.raises((BadPoints, TrainingError), match=r"end nearer than init.clearance|the field holds nothing"):
        begun(scene, field=field, clearance=5.0, count=10)


# ---------------------------------------------------------------------------------------------------------------- space
def looking_out(cam: Camera) -> Camera:
    return stereo.camera(cam.center, 2 * cam.center, size=(cam.width, cam.height), focal=cam.fx)


def space_of(scene: Scene) -> Space:
    return find_space(scene, fit_photos(scene, None, Silent()))


def with_alpha(scene: Scene, change: Callable[[np.ndarray], np.ndarray]) -> Scene:
    """Other alpha in every photo."""
    views = []
    for view in scene.train:
        layers = view.photo.pixels
        photo = tiny.MemoryPhoto(view.name, replace(layers, alpha=change(layers.alpha)))
        views.append(replace(view, photo=photo))
    return replace(scene, train=tuple(views))


def test_the_volume_is_the_objects_box_or_all_of_space(scene: Scene) -> None:
    box = space_of(scene)
    assert isinstance(box, Box) and max(box.low) < -0.9 and min(box.high) > 0.9 and box.size < 6
    opaque = stereo.scene(ring())
    ball = space_of(opaque)
    assert isinstance(ball, Ball) and ball.radius == pytest.approx(opaque.extent)
    # An alpha channel in which nothing is transparent.
    assert space_of(with_alpha(scene, lambda alpha: np.full_like(alpha, 255))) == ball
    # An object that is larger than the photos, and one whose cameras look past each other.
    wide = with_alpha(
        scene, lambda alpha: np.where(np.arange(32) < 8, 0, 255).astype(np.uint8).repeat(32).reshape(32, 32)
    )
    around = space_of(wide)
    assert isinstance(around, Ball) and around != ball and around.radius > 1
    away = [replace(view, camera=looking_out(view.camera)) for view in scene.train]
    assert space_of(replace(scene, train=tuple(away))).radius == pytest.approx(opaque.extent, rel=0.1)


def test_the_rim_of_photos() -> None:
    alpha = torch.full((4, 5), 255, dtype=torch.uint8)
    cam = stereo.camera((0, 0, -4), size=(5, 4))
    solid = FitView(cam, torch.zeros(4, 5, 3, dtype=torch.uint8), alpha.clone())
    alpha[0] = 0
    alpha[2, 2] = 0  # inside, which does not count
    assert Photos([solid]).clear_rim == 0.0 and Photos([replace(solid, alpha=None)]).clear_rim == 0.0
    assert Photos([replace(solid, alpha=alpha)]).clear_rim == pytest.approx(5 / 14)
    assert Photos([solid, replace(solid, alpha=alpha)]).clear_rim == pytest.approx(5 / 28)
    thin = replace(solid, camera=replace(cam, height=1), rgb=solid.rgb[:1], alpha=alpha[:1])
    assert Photos([thin, solid]).clear_rim == pytest.approx(5 / 19)


def test_cameras_that_tell_no_depth_are_refused() -> None:
    one = stereo.scene(ring()[:1])
    with pytest.raises(SceneError, match="one training photo tells no depth; the field needs at least two"):
        begun(one)
    together = stereo.scene([stereo.camera((0, 0, -4), (x, 0, 0), size=(32, 32)) for x in (-0.5, 0, 0.5)])
    with pytest.raises(SceneError, match="the 3 training cameras all stand at one place"):
        begun(together)


def test_two_photos_are_fitted_and_it_is_said_that_they_are_few() -> None:
    result = begun(stereo.scene(stereo.row(2, size=(32, 24), focal=30.0)), count=50, fit_steps=60)
    assert len(result.points) > 0 and "two photos hardly tell depths" in " ".join(result.notes)


# --------------------------------------------------------------------------------------------------------------- photos
def test_photos_are_no_larger_than_asked_for() -> None:
    cam = stereo.camera((0, 0, -4), size=(400, 200))
    assert (fit_camera(cam, 100, 0).width, fit_camera(cam, 100, 0).height) == (100, 50)
    assert fit_camera(cam, 500, 0) is cam and fit_camera(cam, None, 80_000) is cam
    few = fit_camera(cam, None, 20_000)
    assert (few.width, few.height) == (200, 100)
    mask = np.zeros((32, 32), np.uint8)
    mask[4, 5] = 255
    photos = fit_photos(stereo.scene(ring(3), mask=mask), None, Silent())
    assert photos.pixels == 3 and not photos.transparent


def test_photos_with_nothing_on_them_are_refused(scene: Scene) -> None:
    with pytest.raises(TrainingError, match="all pixels of the 12 training photos are transparent"):
        begun(with_alpha(scene, np.zeros_like))


# ----------------------------------------------------------------------------------------------------------- bad fields
def test_a_field_without_density_is_found_out(scene: Scene, field: Path, tmp_path: Path) -> None:
    empty = load_field(field)
    with torch.no_grad():
        empty.density_weights[-16:] = -20.0  # the last layer's bias
    empty.save(tmp_path / "empty.safetensors")
    with pytest.raises(TrainingError, match="the field holds nothing: its rays end in it with a mean opacity of"):
        begun(scene, field=tmp_path / "empty.safetensors")


def test_a_field_of_another_scene_is_said(scene: Scene, field: Path) -> None:
    inverted = [
        replace(view, photo=tiny.MemoryPhoto(view.name, replace(view.photo.pixels, rgb=255 - view.photo.pixels.rgb)))
        for view in scene.train
    ]
    result = begun(replace(scene, train=tuple(inverted)), field=field, count=50)
    assert "dB only: is it of this scene?" in " ".join(result.notes)
    short = begun(scene, fit_steps=1, count=50, min_views=1)
    assert "dB only: give it more time (init.fit_steps)" in " ".join(short.notes)


def test_a_file_that_is_no_field(scene: Scene, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="nothing.safetensors: not a saved field"):
        begun(scene, field=tmp_path / "nothing.safetensors")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"count": 0}, "init.count is 0; expected at least 1"),
        ({"fit_steps": 0}, "init.fit_steps is 0; expected at least 1"),
        ({"size": 8}, "init.size is 8; expected at least 16"),
        ({"fit_seconds": 0.0}, "init.fit_seconds is 0; expected a positive number of seconds to fit the field in"),
        ({"levels": 17}, "init.levels is 17; expected 1 to 16"),
        ({"finest": 4}, "init.finest is 4; expected 16 to 8192"),
        ({"clearance": -1.0}, "init.clearance is -1; expected 0 or more"),
        ({"depth": "mean"}, "init.depth is 'mean'"),
        ({"colour": "fielt"}, "init.colour is 'fielt'"),
    ],
)
def test_settings_that_make_no_sense(settings: dict, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        NerfConfig(**settings)


# ------------------------------------------------------------------------------------------------------- in other parts
def test_a_union_keeps_the_field(scene: Scene) -> None:
    result = pipeline.initialize(
        scene, "random+nerf", random={"count": 20}, nerf={**SMALL, "fit_steps": 10, "count": 30}
    )
    assert set(result.attachments) == {"nerf-field.safetensors"}


def test_projected_points_show_the_field_where_the_photos_do(scene: Scene, start: Initialization) -> None:
    """Seen from a camera, points that it can see fall on the ball's silhouette."""
    cam = scene.train[0].camera
    seen = transform(cam.cam_from_world, start.points.xyz.astype(np.float64))[:, 2] < 3.6
    px = project(cam.K, cam.cam_from_world, start.points.xyz[seen].astype(np.float64))[0]
    column, row = px.astype(int).clip(0, 31).T
    assert scene.train[0].photo.pixels.alpha[row, column].mean() > 240
