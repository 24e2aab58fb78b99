"""What is said of a start before training: numbers that follow by hand, and a way through files that loses none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from splatinit import quality
from splatinit.errors import BadPoints, FormatError, ShapeError
from splatinit.geometry.coverage import colour_difference, filled
from splatinit.geometry.rigid import unproject
from splatinit.io.pointcloud import write_ply_points
from splatinit.io.runs import open_run
from splatinit.types import Camera, Initialization, Pixels, PointCloud, Scene, StartQuality, View

W, H = 20, 10
CAMERA = Camera(np.array([[10.0, 0, W / 2], [0, 10.0, H / 2], [0, 0, 1]]), np.eye(4), W, H)
ALL = np.ones((H, W), bool)


def behind(pixels: np.ndarray, z: float) -> np.ndarray:
    """Points [n, 3] at depth z behind the pixels [n, 2] (column, row)."""
    return unproject(CAMERA.K, CAMERA.world_from_cam, np.asarray(pixels, float) + 0.5, np.full(len(pixels), z))


class MemoryPhoto:
    has_mask = has_alpha = False
    path = Path("nowhere")
    width, height = W, H

    def __init__(self, pixels: Pixels, depth: np.ndarray | None = None) -> None:
        self.pixels, self.depth, self.has_depth = pixels, depth, depth is not None

    def load(self, width: int, height: int) -> Pixels:
        return self.pixels

    def load_depth(self, width: int, height: int) -> np.ndarray | None:
        return self.depth


def scene(root: Path, *photos: MemoryPhoto) -> Scene:
    return Scene(root, tuple(View(f"{k}.png", CAMERA, photo) for k, photo in enumerate(photos)), ())


GREY = np.full((H, W, 3), 51, np.uint8)  # 0.2


def test_a_point_fills_its_cell_at_any_depth() -> None:
    one = behind([(5, 3)], 7.0)
    assert filled(one, [(CAMERA, ALL)]) == pytest.approx(1 / 200)
    assert filled(one, [(CAMERA, ALL)], cells=4) == pytest.approx(25 / 200)  # cells of 5 × 5 px
    left = ALL & (np.arange(W) < 5)
    np.testing.assert_array_equal(filled(one, [(CAMERA, left), (CAMERA, ~ALL)], cells=4), [0.0, np.nan])
    with pytest.raises(ShapeError, match=r"filled: a map of pixels is \[2, 2\], its camera 20×10 px"):
        filled(one, [(CAMERA, np.ones((2, 2), bool))])


def test_colours_are_compared_with_the_pixels_that_the_nearest_points_fall_on() -> None:
    xyz = np.concatenate([behind([(2, 1), (12, 8)], 2.0), behind([(2, 1)], 3.0), behind([(7, 7)], -1.0)])
    rgb = np.array([[0.2, 0.5, 0.2], [0.5, 0.5, 0.5], [1, 1, 1], [1, 1, 1]], np.float32)  # the last two are hidden
    photo = GREY.copy()
    photo[8, 12] = (255, 51, 51)
    off = (0.3 + (0.5 + 0.3 + 0.3)) / 6
    assert colour_difference(xyz, rgb, [(CAMERA, photo, ALL)]) == pytest.approx(off)
    only = np.zeros((H, W), bool)
    only[1, 2] = True
    values = colour_difference(xyz, rgb, [(CAMERA, photo, only), (CAMERA, photo, ~ALL)])
    np.testing.assert_allclose(values, [0.1, np.nan])
    with pytest.raises(ShapeError, match=r"colours are \[1, 3\]; expected \[4, 3\], as the points"):
        colour_difference(xyz, rgb[:1], [(CAMERA, photo, ALL)])


def test_each_view_is_measured_where_its_photo_shows_something(tmp_path: Path) -> None:
    points = PointCloud(behind([(c, r) for c in range(10) for r in range(H)], 2.0), np.full((100, 3), 0.3))
    right = np.where(np.arange(W) < 10, 255, 0).astype(np.uint8) * np.ones((H, 1), np.uint8)
    found, notes = quality.measure(
        scene(
            tmp_path,
            MemoryPhoto(Pixels(GREY)),
            MemoryPhoto(Pixels(GREY), np.full((H, W), 2.0)),
            MemoryPhoto(Pixels(GREY, alpha=right), np.full((H, W), 2.3)),
            MemoryPhoto(Pixels(GREY, mask=right), np.full((H, W), 2.0)),
            MemoryPhoto(Pixels(GREY, mask=255 - right)),
        ),
        points,
    )
    assert notes == () and found.views == tuple(f"{k}.png" for k in range(5))
    assert found.filled == (0.5, 0.5, 1.0, 1.0, 0.0)
    assert found.coverage == (None, 0.5, 0.0, 1.0, None)
    assert found.photoconsistency[:4] == pytest.approx((0.1,) * 4, abs=1e-6) and found.photoconsistency[4] is None
    assert found.mean("filled") == pytest.approx(0.6) and found.mean("coverage") == pytest.approx(0.5)
    assert (found.points, found.accuracy, found.fscore) == (100, None, None) and found.seconds > 0
    assert quality.summary(found) == "points in 60% of the image, right depth in 50%, colours off by 0.100"


def brute(view: tuple[Camera, np.ndarray], xyz: np.ndarray, cells: int) -> dict[tuple[int, int], tuple]:
    """Cell → (z, point, column, row) of its nearest point, one point after the other."""
    camera, side = view[0], max(1.0, max(W, H) / cells)
    found: dict[tuple[int, int], tuple] = {}
    for number, point in enumerate(xyz):
        x, y, z = (camera.cam_from_world @ np.append(point, 1.0))[:3]
        if z <= 0:
            continue
        u, v = camera.K[0, 0] * x / z + camera.K[0, 2], camera.K[1, 1] * y / z + camera.K[1, 2]
        if 0 <= u < W and 0 <= v < H:
            cell = (int(v // side), int(u // side))
            found[cell] = min(found.get(cell, (np.inf,)), (z, number, int(u), int(v)))
    return found


@pytest.mark.parametrize("cells", [3, 7, 100])
def test_filled_and_colours_against_one_point_after_the_other(cells: int) -> None:
    rng = np.random.default_rng(cells)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = turn, rng.normal(size=3)
    camera = Camera(CAMERA.K, pose, W, H)
    # In front of it, behind it and beside it; some twice, one before the other.
    seen = rng.uniform((-3, -2, -2), (3, 2, 6), (60, 3))
    xyz = (np.concatenate([seen, 1.5 * seen[:20]]) - pose[:3, 3]) @ turn
    rgb = rng.random((80, 3)).astype(np.float32)
    photo = rng.integers(0, 256, (H, W, 3), dtype=np.uint8)
    counts = rng.random((H, W)) < 0.7
    nearest, side = brute((camera, counts), xyz, cells), max(1.0, W / cells)
    pixels = [(r, c) for r in range(H) for c in range(W) if counts[r, c]]
    hit = sum((int((r + 0.5) // side), int((c + 0.5) // side)) in nearest for r, c in pixels)
    assert 0 < hit < len(pixels) or cells == 3
    assert filled(xyz, [(camera, counts)], cells=cells) == pytest.approx(hit / len(pixels))
    off = [
        np.abs(photo[row, column] / 255 - rgb[number]).mean()
        for _, number, column, row in nearest.values()
        if counts[row, column]
    ]
    assert colour_difference(xyz, rgb, [(camera, photo, counts)], cells=cells) == pytest.approx(np.mean(off))


def test_starts_and_views_at_the_limits(tmp_path: Path) -> None:
    one = scene(tmp_path, MemoryPhoto(Pixels(GREY), np.full((H, W), 2.0)))
    mesh(tmp_path / "gt" / "mesh.ply")
    # No points at all: nothing is covered, and no distance can be told. The numbers can be kept.
    found, notes = quality.measure(one, PointCloud(np.zeros((0, 3)), np.zeros((0, 3))))
    assert notes == () and (found.points, found.filled, found.coverage) == (0, (0.0,), (0.0,))
    assert found.photoconsistency == (None,) and (found.accuracy, found.fscore) == (None, None)
    json.dumps(found.to_json(), allow_nan=False)
    # All behind the camera.
    found, _ = quality.measure(one, PointCloud(np.tile([0.0, 0, -2], (9, 1)), np.full((9, 3), 0.2)))
    assert (found.filled, found.coverage, found.photoconsistency) == ((0.0,), (0.0,), (None,))
    assert found.accuracy == pytest.approx(4.0)
    # Nothing of the photo counts, and a depth map that knows nothing, or only the sky.
    nothing = np.zeros((H, W), np.uint8)
    sky = np.full((H, W), np.inf)
    sky[0] = np.nan
    found, _ = quality.measure(
        scene(tmp_path, MemoryPhoto(Pixels(GREY, mask=nothing), np.full((H, W), 2.0)), MemoryPhoto(Pixels(GREY), sky)),
        PointCloud(behind([(5, 3)], 2.0), np.full((1, 3), 0.2)),
    )
    assert found.filled == (None, 1 / 200) and found.coverage == (None, None)
    with pytest.raises(BadPoints, match="1 of 2 points are not finite"):
        quality.measure(one, PointCloud(np.array([[0, 0, 2.0], [np.nan, 0, 2]]), np.full((2, 3), 0.2)))


def mesh(path: Path) -> None:
    """A square of side 2 around the origin, at z = 2."""
    corners = "\n".join(f"{x} {y} 2" for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1)))
    header = (
        "ply\nformat ascii 1.0\nelement vertex 4\nproperty float x\nproperty float y\nproperty float z\n"
        "element face 2\nproperty list uchar int vertex_indices\nend_header\n"
    )
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{header}{corners}\n3 0 1 2\n3 0 2 3\n")


def test_known_geometry_is_compared_where_the_poses_are_its_own(tmp_path: Path) -> None:
    photo = MemoryPhoto(Pixels(GREY))
    xyz = np.array([[0, 0, 2.005], [0.5, 0.5, 2.005], [0, 0, 3.0]])
    points, here = PointCloud(xyz, np.full((3, 3), 0.2)), scene(tmp_path, photo)
    assert here.extent == 1.0
    mesh(tmp_path / "gt" / "mesh.ply")
    found, _ = quality.measure(here, points)
    assert found.accuracy == pytest.approx((0.005 + 0.005 + 1) / 3, abs=1e-6) and found.threshold == 0.01
    assert 0.3 < found.completeness < 1 and 0 < found.fscore < 0.01
    # Only what the cameras saw must be there.
    seen = np.array([[0, 0, 2.0], [0.5, 0.5, 2.0]])
    write_ply_points(tmp_path / "gt" / "points_visible.ply", PointCloud(seen, np.zeros((2, 3))))
    found, _ = quality.measure(here, points)
    assert found.completeness == pytest.approx(0.005, abs=1e-6)
    assert found.fscore == pytest.approx(2 * (2 / 3) * 1 / (2 / 3 + 1))
    assert "F-score 0.800" in quality.summary(found)
    elsewhere, _ = quality.measure(replace(here, poser="colmap"), points)
    assert elsewhere.accuracy is None and elsewhere.filled == found.filled
    (tmp_path / "gt" / "mesh.ply").write_text("no mesh")
    found, notes = quality.measure(here, points)
    assert found.accuracy is None and "The start was not compared with the true surface: " in notes[0]


def test_what_is_measured_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "POINTS", 50)
    photos = [MemoryPhoto(Pixels(GREY)) for _ in range(40)]
    xyz = np.random.default_rng(0).uniform(-1, 1, (500, 3)) + (0, 0, 4)
    points = PointCloud(xyz, np.full((500, 3), 0.2))
    found, _ = quality.measure(scene(tmp_path, *photos), points)
    assert found.points == 50 and len(found.views) == quality.VIEWS
    assert (found.views[0], found.views[-1]) == ("0.png", "39.png")
    again, _ = quality.measure(scene(tmp_path, *photos), points)
    assert replace(again, seconds=0.0) == replace(found, seconds=0.0)


def test_it_is_kept_with_the_start(tmp_path: Path) -> None:
    made = StartQuality(
        points=7,
        views=("a.png", "b/c.png"),
        filled=(0.5, 0.25),
        coverage=(None, None),
        photoconsistency=(0.125, None),
        accuracy=0.5,
        completeness=0.25,
        fscore=0.75,
        threshold=0.01,
        seconds=1.5,
    )
    run = open_run(tmp_path / "run", {"seed": 0}, {"scene": "x"}, {})
    points = PointCloud(np.zeros((7, 3)), np.zeros((7, 3)))
    run.write_start(Initialization(points=points, quality=made))
    assert run.read_start().quality == made
    stats = json.loads(run.start_stats.read_text())
    assert stats["quality"]["filled"] == 0.375 and stats["quality"]["coverage"] is None
    assert stats["quality"]["photoconsistency"] == 0.125 and stats["quality"]["fscore"] == 0.75
    assert stats["quality"]["views"]["b/c.png"] == {"filled": 0.25, "coverage": None, "photoconsistency": None}
    # A start of a version that measured nothing is a start.
    del stats["quality"]
    run.start_stats.write_text(json.dumps(stats))
    assert run.read_start().quality is None
    for damaged in ({}, 3, {**made.to_json(), "views": ["a"]}, {**made.to_json(), "fscore": "good"}):
        run.start_stats.write_text(json.dumps({**stats, "quality": damaged}))
        with pytest.raises(FormatError, match="'quality' is not what splatinit wrote") as error:
            run.read_start()
        assert error.value.hint == "Delete the folder 'init' to compute it again."
