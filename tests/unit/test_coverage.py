"""Which pixels a point cloud covers, on depth maps whose answer is arithmetic, and against a double loop."""

from __future__ import annotations

import numpy as np
import pytest

from splatinit.errors import BadPoints, ShapeError
from splatinit.geometry.coverage import coverage
from splatinit.geometry.rigid import unproject
from splatinit.types import Camera

W, H = 12, 8
CAMERA = Camera(np.array([[10.0, 0, W / 2], [0, 10.0, H / 2], [0, 0, 1]]), np.eye(4), W, H)
FLAT = np.full((H, W), 2.0)


def behind(pixels: list[tuple[float, float]], z: float) -> np.ndarray:
    """Points [n, 3] at depth z behind the pixels (column, row)."""
    px = np.array(pixels, float).reshape(-1, 2) + 0.5
    return unproject(CAMERA.K, CAMERA.world_from_cam, px, np.full(len(px), z))


ALL = [(column, row) for row in range(H) for column in range(W)]


def test_every_pixel_of_a_depth_map_covers_itself() -> None:
    depth = np.random.default_rng(0).uniform(1, 5, (H, W))
    px = np.array(ALL) + 0.5
    points = unproject(CAMERA.K, CAMERA.world_from_cam, px, depth.reshape(-1))
    np.testing.assert_array_equal(coverage(points, [(CAMERA, depth)]), [1.0])
    half = points[px[:, 0] < W / 2]
    np.testing.assert_array_equal(coverage(half, [(CAMERA, depth)]), [0.5])


def test_a_hundredth_of_the_depth_is_the_limit() -> None:
    for z, covered in ((2.019, 1), (2.021, 0), (1.981, 1), (1.979, 0)):
        assert coverage(behind(ALL, z), [(CAMERA, FLAT)]) == covered
    assert coverage(behind(ALL, 2.1), [(CAMERA, FLAT)], share=0.06) == 1


def test_a_floater_hides_what_is_behind_it_and_a_point_behind_hides_nothing() -> None:
    right, floater, hidden = behind(ALL, 2.0), behind([(0, 0)], 1.0), behind(ALL, 3.0)
    assert coverage(np.concatenate([right, floater]), [(CAMERA, FLAT)])[0] == pytest.approx(1 - 1 / (W * H))
    assert coverage(np.concatenate([hidden, right]), [(CAMERA, FLAT)]) == 1
    behind_camera = -right
    assert coverage(np.concatenate([behind_camera, right]), [(CAMERA, FLAT)]) == 1
    assert coverage(behind_camera, [(CAMERA, FLAT)]) == 0


def test_one_point_covers_its_cell_and_only_known_pixels_count() -> None:
    one = behind([(5, 3)], 2.0)
    assert coverage(one, [(CAMERA, FLAT)])[0] == pytest.approx(1 / 96)
    assert coverage(one, [(CAMERA, FLAT)], cells=3)[0] == pytest.approx(16 / 96)  # cells of 4 × 4 px
    known = FLAT.copy()
    known[:, :6] = 0
    known[3, 4:6] = 2.0
    assert coverage(one, [(CAMERA, known)], cells=3)[0] == pytest.approx((2 + 8) / 50)  # columns 4 to 7
    unknown_at_its_pixel = FLAT.copy()
    unknown_at_its_pixel[3, 5] = 0
    assert coverage(one, [(CAMERA, unknown_at_its_pixel)], cells=3) == 0


def test_each_view_has_its_own_share() -> None:
    away = Camera(CAMERA.K, np.diag([-1.0, 1.0, -1.0, 1.0]), W, H)
    found = coverage(behind(ALL, 2.0), [(CAMERA, FLAT), (away, FLAT), (CAMERA, np.zeros((H, W)))])
    np.testing.assert_array_equal(found, [1, 0, np.nan])
    assert coverage(np.zeros((0, 3)), [(CAMERA, FLAT)]) == 0
    assert coverage(behind(ALL, 2.0), []).shape == (0,)


@pytest.mark.parametrize("cells", [3, 5, 100])
def test_against_a_double_loop(cells: int) -> None:
    rng = np.random.default_rng(cells)
    depth = np.where(rng.random((H, W)) < 0.8, rng.uniform(1.9, 2.1, (H, W)), 0)
    # Random places in the image and beyond it.
    px = rng.uniform([-2, -2], [W + 2, H + 2], (150, 2))
    z = rng.uniform(1.9, 2.1, 150)
    points = unproject(CAMERA.K, CAMERA.world_from_cam, px, z)
    side = max(1.0, W / cells)
    front: dict[tuple[int, int], int] = {}
    for i in range(150):
        cell = (int(px[i, 0] // side), int(px[i, 1] // side))
        if 0 <= px[i, 0] < W and 0 <= px[i, 1] < H and (cell not in front or z[i] < z[front[cell]]):
            front[cell] = i
    good = 0
    for column, row in ALL:
        i = front.get((int((column + 0.5) // side), int((row + 0.5) // side)))
        if depth[row, column] > 0 and i is not None:
            own = depth[int(px[i, 1]), int(px[i, 0])]
            good += own > 0 and abs(z[i] - own) <= 0.03 * own
    assert 0 < good < W * H
    assert coverage(points, [(CAMERA, depth)], share=0.03, cells=cells)[0] == pytest.approx(good / (depth > 0).sum())


def test_what_cannot_be_measured() -> None:
    with pytest.raises(ShapeError, match=r"a depth map is \[8, 11\], its camera 12×8 px; expected \[8, 12\]"):
        coverage(behind(ALL, 2.0), [(CAMERA, FLAT[:, 1:])])
    with pytest.raises(BadPoints, match="coverage: 1 of 1 points are not finite"):
        coverage(np.full((1, 3), np.nan), [(CAMERA, FLAT)])
