"""The matcher planesweep on ray-cast views of a slanted plane and a sphere, whose matches are known exactly."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from splatinit import native
from splatinit.errors import ConfigError, NoPoses
from splatinit.matching import MATCHERS, Matches, MatchView
from splatinit.matching.planesweep import PlaneSweep, PlaneSweepConfig
from splatinit.types import Camera

pytestmark = pytest.mark.skipif(not native.available(), reason="splat_cpu is not built in this installation")
RANGE = (1.0, 5.0)
PLANE = np.array([-0.25, 0.1, 1.0]) / 2.4  # n · X = 1


def camera(x: float, y: float = 0.0, turn: float = 0.0, size: float = 1.0) -> Camera:
    """Looks along z from (x, y, 0), turned about the vertical axis by so many radians."""
    width, height = round(160 * size), round(120 * size)
    K = np.array([[180.0 * size, 0, width / 2 + 1.3], [0, 180.0 * size, height / 2 - 0.7], [0, 0, 1]])
    pose = np.eye(4)
    pose[:3, :3] = [[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]]
    pose[:3, 3] = -pose[:3, :3] @ [x, y, 0.0]
    return Camera(K, pose, width, height)


@dataclass(frozen=True)
class Room:
    """A plane and a sphere with a texture in space; ``texture`` takes [n, 3] world points to grey in [0, 1]."""

    centre: tuple[float, float, float] = (-0.1, 0.05, 1.7)
    radius: float = 0.35
    contrast: float = 0.09
    waves: np.ndarray = field(default_factory=lambda: np.random.default_rng(3).normal(size=(24, 4)) * [28, 28, 28, 3])

    def depth(self, view: Camera, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Camera z at pixels, and where the sphere is seen."""
        rays = self.rays(view, x, y)
        on_plane = (1 - PLANE @ view.center) / (rays @ PLANE)
        to_centre = np.array(self.centre) - view.center
        a, b = (rays**2).sum(-1), rays @ to_centre
        inside = b**2 - a * (to_centre @ to_centre - self.radius**2)
        on_sphere = (b - np.sqrt(np.maximum(inside, 0))) / a
        return np.where(inside > 0, on_sphere, on_plane), inside > 0

    def rays(self, view: Camera, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """[..., 3] world directions with z = 1 in the camera."""
        pixels = np.stack([x, y, np.ones_like(x)], axis=-1)
        return pixels @ np.linalg.inv(view.K).T @ view.cam_from_world[:3, :3]

    def points(self, view: Camera, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return view.center + self.rays(view, x, y) * self.depth(view, x, y)[0][..., None]

    def texture(self, points: np.ndarray, on_sphere: np.ndarray) -> np.ndarray:
        moved = points - np.where(on_sphere[..., None], self.centre, 0.0)  # the sphere takes its texture along
        return 0.5 + self.contrast * np.sin(moved @ self.waves[:, :3].T + self.waves[:, 3]).sum(-1) / 2

    def view(self, name: str, view: Camera, seed: int = 0) -> MatchView:
        """The photo: 3 × 3 samples per pixel, noise of one grey level."""
        y, x = np.mgrid[: view.height, : view.width].astype(float)
        grey = np.zeros(x.shape)
        for dx, dy in np.ndindex(3, 3):
            at = x + (dx + 0.5) / 3, y + (dy + 0.5) / 3
            grey += self.texture(self.points(view, *at), self.depth(view, *at)[1]) / 9
        grey = np.clip(grey * 255 + np.random.default_rng(seed).normal(size=grey.shape), 0, 255)
        return MatchView(name, np.repeat(grey.round().astype(np.uint8)[..., None], 3, axis=2), None, view)


ROOM = Room()
CAMERAS = [camera(0.0), camera(0.22), camera(-0.2, 0.04, 0.02), camera(0.03, 0.2, -0.01)]


@pytest.fixture(scope="module")
def views() -> list[MatchView]:
    return [ROOM.view(str(k), c, k) for k, c in enumerate(CAMERAS)]


def match(views: list[MatchView], **settings) -> Matches:
    return PlaneSweep(PlaneSweepConfig(**{"stride": 2} | settings)).match(views[0], views[1:], depth_range=RANGE)


def errors(matches: Matches, cameras: list[Camera], room: Room = ROOM) -> np.ndarray:
    """[v, m] px between each target and the truth; NaN where there is no target."""
    points = room.points(cameras[0], *matches.points.T.astype(float))
    found = []
    for target, view in zip(matches.targets, cameras[1:], strict=True):
        p = (points @ view.cam_from_world[:3, :3].T + view.cam_from_world[:3, 3]) @ view.K.T
        found.append(np.linalg.norm(p[:, :2] / p[:, 2:] - target, axis=1))
    return np.stack(found)


def test_it_is_registered() -> None:
    assert MATCHERS.load("planesweep") is PlaneSweep and MATCHERS.config_class("planesweep") is PlaneSweepConfig


def test_matches_are_right_to_a_fraction_of_a_pixel(views: list[MatchView]) -> None:
    matches = match(views, stride=1)
    error, certain = errors(matches, CAMERAS), matches.certainty >= 0.5
    assert len(matches) > 0.75 * 160 * 120
    assert np.median(error[certain]) < 0.15 and np.quantile(error[certain], 0.9) < 0.35
    assert (error[certain] > 1).mean() < 0.01
    assert (error[matches.certainty > 0] > 1).mean() < 0.03
    assert certain.sum() > 0.4 * 3 * 160 * 120
    assert np.isnan(matches.targets[matches.certainty == 0]).all()
    assert np.isfinite(matches.targets[matches.certainty > 0]).all()
    # Certainty is worth its name: the more certain half is better than the other.
    order = np.argsort(matches.certainty[matches.certainty > 0])
    sorted_errors = error[matches.certainty > 0][order]
    half = len(order) // 2
    assert np.quantile(sorted_errors[half:], 0.95) < np.quantile(sorted_errors[:half], 0.95)


def test_normals_are_those_of_the_surfaces(views: list[MatchView]) -> None:
    matches = match(views, stride=1)
    assert matches.normals is not None
    x, y = matches.points.T.astype(float)
    points, (_, on_sphere) = ROOM.points(CAMERAS[0], x, y), ROOM.depth(CAMERAS[0], x, y)
    normals = np.where(on_sphere[:, None], points - ROOM.centre, -PLANE)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    angle = np.degrees(np.arccos(np.clip((normals * matches.normals).sum(1), -1, 1)))
    assert np.allclose(np.linalg.norm(matches.normals, axis=1), 1, atol=1e-5)
    assert ((matches.normals * ROOM.rays(CAMERAS[0], x, y)).sum(1) < 0).all()
    assert np.median(angle[~on_sphere]) < 8 and np.median(angle[on_sphere]) < 20


@pytest.mark.parametrize("stride", [2, 3])
def test_stride_picks_pixels(views: list[MatchView], stride: int) -> None:
    matches = match(views[:2], stride=stride)
    places = (matches.points - 0.5 - (stride - 1) // 2) / stride
    assert np.abs(places - places.round()).max() < 1e-4
    assert len(np.unique(places.round(), axis=0)) == len(matches) > 0.4 * 160 * 120 / stride**2
    assert np.nanmedian(errors(matches, CAMERAS[:2])) < 0.15


def test_large_photos_are_matched_smaller(views: list[MatchView]) -> None:
    """Points and targets are still px of the photos that were given."""
    matches = match(views, stride=1, size=100)
    places = matches.points / [160 / 100, 120 / 75] - 0.5
    assert np.abs(places - places.round()).max() < 1e-3 and len(matches) > 0.6 * 100 * 75
    error, certain = errors(matches, CAMERAS), matches.certainty >= 0.5
    assert np.median(error[certain]) < 0.15 * 1.6 and (error[certain] > 1.6).mean() < 0.01


def test_gain_and_offset_of_a_neighbour_change_nothing_that_matters(views: list[MatchView]) -> None:
    darker = replace(views[1], rgb=(views[1].rgb * 0.6 + 40).astype(np.uint8))
    plain, changed = match(views), match([views[0], darker, *views[2:]])
    assert len(changed) == pytest.approx(len(plain), rel=0.05)
    error = errors(changed, CAMERAS)[0]
    assert np.nanmedian(error) < 0.15 and (error[changed.certainty[0] >= 0.5] > 1).mean() < 0.01


def test_a_wall_without_texture_gives_no_matches() -> None:
    wall = Room(contrast=0.0)
    assert len(match([wall.view(str(k), c, k) for k, c in enumerate(CAMERAS)])) < 0.002 * 80 * 60


def test_repeated_texture_is_not_certain_of_a_wrong_depth() -> None:
    """Stripes along the baseline fit at many depths, and two cameras cannot tell which."""
    waves = np.zeros((24, 4))
    waves[:, 0] = 60.0
    stripes = Room(centre=(9.0, 9.0, 9.0), contrast=0.03, waves=waves)
    matches = match([stripes.view(str(k), c, k) for k, c in enumerate(CAMERAS[:2])])
    # At the left border the true place lies beside the neighbour, and a wrong one is the only one there is to see.
    seen = matches.points[:, 0] > 25
    wrong = (errors(matches, CAMERAS[:2], stripes)[0] > 1) & seen
    assert (wrong & (matches.certainty[0] >= 0.1)).sum() < 0.01 * 80 * 60


def test_without_a_baseline_there_is_nothing_to_match(views: list[MatchView]) -> None:
    turned = ROOM.view("turned", camera(0.0, turn=0.05))
    matches = match([views[0], turned])
    assert len(matches) == 0 and matches.targets.shape == (1, 0, 2)
    # Beside a good neighbour it is only left out.
    beside = match([views[0], turned, views[1]])
    assert (beside.certainty[0] == 0).all() and np.isnan(beside.targets[0]).all()
    assert np.array_equal(beside.points, match(views[:2]).points)


@pytest.mark.parametrize("size", [0.5, 1.5])
def test_photos_of_other_sizes(views: list[MatchView], size: float) -> None:
    cameras = [CAMERAS[0], camera(0.22, size=size), CAMERAS[2]]
    matches = match([views[0], ROOM.view("other", cameras[1], 5), views[2]])
    error, certain = errors(matches, cameras), matches.certainty >= 0.5
    assert certain[0].sum() > 0.25 * 80 * 60
    for row in (0, 1):
        assert np.median(error[row][certain[row]]) < 0.15 * max(1.0, size)
        assert (error[row][certain[row]] > max(1.0, size)).mean() < 0.02


def test_masks_hold_in_the_reference_and_in_neighbours(views: list[MatchView]) -> None:
    left = np.ones((120, 160), bool)
    left[:, 100:] = False
    low = np.ones((120, 160), bool)
    low[:50] = False
    matches = match([replace(views[0], usable=left), replace(views[1], usable=low), views[2]])
    assert len(matches) > 0.3 * 50 * 60 and matches.points[:, 0].max() < 100
    assert np.nanmin(matches.targets[0, :, 1]) > 50 and np.nanmin(matches.targets[1, :, 1]) < 40
    assert (errors(matches, CAMERAS[:3])[matches.certainty >= 0.5] > 1).mean() < 0.01
    nothing = np.zeros((120, 160), bool)
    assert len(match([replace(views[0], usable=nothing), views[1]])) == 0
    assert len(match([views[0], replace(views[1], usable=nothing)])) == 0


def test_all_matches_lie_in_their_photos(views: list[MatchView]) -> None:
    matches = match(views, stride=1)
    for places in (matches.points, *(target[np.isfinite(target[:, 0])] for target in matches.targets)):
        assert places.min() > 0 and (places < [160, 120]).all()
    assert matches.points[:, 0].min() < 3 and matches.points[:, 1].max() > 117  # up to the border


def test_what_moves_between_the_photos_is_not_matched() -> None:
    """The sphere is elsewhere in each photo, off the epipolar lines too: one depth does not fit all."""
    shifts = [(0.0, 0.0), (0.05, 0.09), (-0.02, -0.08), (0.1, 0.03)]
    rooms = [replace(ROOM, centre=(-0.1 + dx, 0.05 + dy, 1.7)) for dx, dy in shifts]
    matches = match([room.view(str(k), c, k) for k, (room, c) in enumerate(zip(rooms, CAMERAS, strict=True))])
    still = match([ROOM.view(str(k), c, k) for k, c in enumerate(CAMERAS)])
    y, x = np.mgrid[:120:2, :160:2] + 0.5
    sphere = int(ROOM.depth(CAMERAS[0], x, y)[1].sum())

    def certain_on_sphere(found: Matches) -> int:
        on_sphere = ROOM.depth(CAMERAS[0], *found.points.T.astype(float))[1]
        return int((on_sphere & (found.certainty.max(axis=0) >= 0.5)).sum())

    assert certain_on_sphere(still) > 0.4 * sphere
    assert certain_on_sphere(matches) < 0.05 * sphere


def test_any_number_of_threads_gives_the_same_matches(views: list[MatchView]) -> None:
    before, found = native.build_info()["threads"], []
    for threads in (1, 2, 3):
        native.set_threads(threads)
        found.append(match(views))
    native.set_threads(before)
    for other in found[1:]:
        for name in ("points", "targets", "certainty", "normals"):
            assert np.array_equal(getattr(found[0], name), getattr(other, name), equal_nan=True)


def test_what_is_missing_is_said(views: list[MatchView]) -> None:
    matcher = PlaneSweep()
    with pytest.raises(NoPoses, match="1: the matcher 'planesweep' searches along epipolar lines and needs posed"):
        matcher.match(views[0], [replace(views[1], camera=None)], depth_range=RANGE)
    for bad in (None, (0.0, 1.0), (2.0, 1.0), (1.0, float("inf")), (float("nan"), 1.0)):
        with pytest.raises(ConfigError, match="got the depth range .* expected 0 < near < far"):
            matcher.match(views[0], views[1:], depth_range=bad)
    with pytest.raises(ConfigError, match="planesweep's stride is 9; expected 1 to 8"):
        PlaneSweepConfig(stride=9)
    with pytest.raises(ConfigError, match="planesweep's best is 1.5; expected above 0, at most 1"):
        PlaneSweepConfig(best=1.5)
    with pytest.raises(ConfigError, match="planesweep's hypothesis_px is -1; expected positive"):
        PlaneSweepConfig(hypothesis_px=-1.0)
