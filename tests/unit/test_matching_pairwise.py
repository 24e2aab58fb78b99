"""Pairs of photos: the size of the network, the gate, and the union of several neighbours."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splatinit.errors import ConfigError
from splatinit.matching import MatchView
from splatinit.matching.pairwise import (
    Gate,
    Pair,
    at_size,
    epipolar_distance,
    match_neighbours,
    network_size,
    to_photo,
)
from splatinit.types import Camera

ANY = Gate(0.0, None)


def view(width: int = 40, height: int = 30, **more: object) -> MatchView:
    return MatchView("a", np.zeros((height, width, 3), np.uint8), **more)


def pair(*rows: tuple[float, float, float, float, float]) -> Pair:
    """From rows of (x, y, x in the neighbour, y in the neighbour, certainty)."""
    table = np.array(rows, np.float32).reshape(-1, 5)
    return Pair(table[:, :2], table[:, 2:4], table[:, 4])


def camera(seed: int, width: int = 40, height: int = 30) -> Camera:
    """A camera near the origin, turned and moved by a random amount, that looks roughly along +z."""
    import cv2

    draw = np.random.default_rng(seed)
    pose = np.eye(4)
    pose[:3, :3] = cv2.Rodrigues(draw.normal(0, 0.3, 3))[0]
    pose[:3, 3] = draw.normal(0, 1, 3)
    return Camera(np.array([[35.0, 0, 21], [0, 33, 14], [0, 0, 1]]), pose, width, height)


# ------------------------------------------------------------------------------------------------------------- union
def test_a_point_found_in_several_neighbours_is_one_row() -> None:
    views = [MatchView(name, view().rgb) for name in "bc"]
    found = {
        "b": pair((3.5, 9.5, 4, 5, 0.5), (1.5, 2.5, 6, 7, 0.9)),
        "c": pair((1.5, 2.5, 8, 9, 0.7), (30.5, 2.5, 1, 2, 0.2)),
    }
    matches = match_neighbours(lambda v: found[v.name], view(), views, ANY)
    assert matches.points.tolist() == [[1.5, 2.5], [30.5, 2.5], [3.5, 9.5]]  # by y, then x
    nan = np.nan
    np.testing.assert_array_equal(matches.targets[0], [[6, 7], [nan, nan], [4, 5]])
    np.testing.assert_array_equal(matches.targets[1], [[8, 9], [1, 2], [nan, nan]])
    np.testing.assert_array_equal(matches.certainty, np.float32([[0.9, 0, 0.5], [0.7, 0.2, 0]]))


def test_of_two_targets_in_one_neighbour_the_more_certain_stays() -> None:
    found = pair((0.0, 5, 1, 1, 0.3), (-0.0, 5, 2, 2, 0.8), (0, 5, 3, 3, 0.4))
    matches = match_neighbours(lambda _: found, view(), [view()], ANY)
    assert matches.points.tolist() == [[0, 5]] and matches.targets.tolist() == [[[2, 2]]]


def test_nothing_found_is_no_match() -> None:
    matches = match_neighbours(lambda _: pair(), view(), [view(), view()], ANY)
    assert len(matches) == 0 and matches.targets.shape == (2, 0, 2) and matches.certainty.shape == (2, 0)


# -------------------------------------------------------------------------------------------------------------- gate
def test_masks_borders_and_certainty_hold_in_both_photos() -> None:
    mask = np.ones((30, 40), bool)
    mask[10:20, 10:20] = False
    good = (5, 5, 6, 6, 0.5)
    bad = [
        (10, 10, 6, 6, 0.5),  # on the mask's first pixel
        (19.9, 19.9, 6, 6, 0.5),  # on its last
        (-0.1, 5, 6, 6, 0.5),
        (5, 5.5, 40, 6, 0.5),  # the right edge is outside
        (5, 6.5, 6, 30, 0.5),
        (5, 7.5, np.nan, 6, 0.5),
        (5, 8.5, np.inf, 6, 0.5),
        (5, 9.5, 6, 6, 0.49),
    ]
    edges = [(9.9, 12, 39.9, 29.9, 0.5), (20, 20, 0, 0, 0.5)]
    gate = Gate(0.5, None)
    matches = match_neighbours(lambda _: pair(good, *bad, *edges), view(usable=mask), [view()], gate)
    assert matches.points.tolist() == np.float32([good[:2], *(row[:2] for row in edges)]).tolist()
    turned = [(c, d, a, b, e) for a, b, c, d, e in [good, *bad[:2]]]
    matches = match_neighbours(lambda _: pair(*turned), view(), [view(usable=mask)], gate)
    assert matches.targets.tolist() == [[[5, 5]]]


def test_the_gate_refuses_settings_that_mean_nothing() -> None:
    with pytest.raises(ConfigError, match="A matcher's certainty is 1.5; expected a number from 0 to 1"):
        Gate(1.5, None)
    with pytest.raises(ConfigError, match="A matcher's epipolar is 0 px; expected a positive number, or none"):
        Gate(0.5, 0.0)


def test_known_poses_filter_and_unknown_ones_do_not() -> None:
    left, right = camera(1), camera(2)
    rng = np.random.default_rng(0)
    points, targets = rng.uniform(0, 30, (200, 2)), rng.uniform(0, 30, (200, 2))
    rows = pair(*np.concatenate([points, targets, np.ones((200, 1))], axis=1))
    distance = epipolar_distance(left, right, points, targets)
    posed = match_neighbours(lambda _: rows, view(camera=left), [view(camera=right)], Gate(0, 3.0))
    assert 0 < len(posed) == (distance <= 3).sum() < 200
    for a, b in ((None, right), (left, None)):
        assert len(match_neighbours(lambda _: rows, view(camera=a), [view(camera=b)], Gate(0, 3.0))) == 200


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([None, (0.5, 8.0), (2.0, np.inf)]))
def test_the_epipolar_distance_is_that_to_the_nearest_visible_depth(seed: int, depths: tuple | None) -> None:
    """Against a walk along each ray, in steps that are fine in the neighbour's image."""
    left, right = camera(seed), camera(seed + 1)
    draw = np.random.default_rng(seed)
    points, targets = draw.uniform(0, 40, (2, 2)), draw.uniform(-20, 60, (2, 2))
    near, far = depths or (0.0, np.inf)
    z = 1 / np.linspace(1 / max(near, 1e-4), 1e-6 if np.isinf(far) else 1 / far, 100_000)
    z = np.concatenate([z, np.linspace(max(near, 1e-9), min(far, 100), 100_000)])
    motion = right.cam_from_world @ left.world_from_cam
    got = epipolar_distance(left, right, points, targets, depths)
    for point, target, distance in zip(points, targets, got, strict=True):
        ray = np.linalg.inv(left.K) @ [*point, 1]
        seen = (z[:, None] * ray) @ motion[:3, :3].T + motion[:3, 3]
        seen = seen[seen[:, 2] > 1e-9] @ right.K.T
        if len(seen) == 0:
            assert np.isinf(distance)
            continue
        walked = np.linalg.norm(seen[:, :2] / seen[:, 2:] - target, axis=1).min()
        assert distance <= walked + 1e-6 and walked - distance < 0.2


def test_an_exact_match_lies_on_its_line_and_without_a_baseline_at_its_point() -> None:
    left, right = camera(5), camera(6)
    xyz = np.random.default_rng(1).uniform([-1, -1, 4], [1, 1, 6], (50, 3))

    def seen(c: Camera) -> np.ndarray:
        local = (xyz @ c.cam_from_world[:3, :3].T + c.cam_from_world[:3, 3]) @ c.K.T
        return local[:, :2] / local[:, 2:]

    assert epipolar_distance(left, right, seen(left), seen(right)).max() < 1e-9
    turned = np.eye(4)
    turned[:3, :3] = right.cam_from_world[:3, :3]
    turned[:3, 3] = -turned[:3, :3] @ left.center
    spun = Camera(right.K, turned, 40, 30)
    off = epipolar_distance(left, spun, seen(left), seen(spun) + [3.0, 4.0])
    np.testing.assert_allclose(off, 5, atol=1e-6)


# -------------------------------------------------------------------------------------------------------------- size
@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(32, 2000))
def test_the_networks_size_is_near_what_was_asked_for(width: int, height: int, longest: int) -> None:
    w, h = network_size(width, height, longest, 32)
    assert w % 32 == h % 32 == 0 and min(w, h) >= 32
    assert abs(max(w, h) - longest) <= 32
    assert abs(w - longest * width / max(width, height)) <= 32


@pytest.mark.parametrize("size", [(96, 64), (32, 32), (288, 160)])
def test_pixels_come_back_from_the_networks_size(size: tuple[int, int]) -> None:
    """The centre of a blob, found at the network's size, is the centre of the blob in the photo."""
    width, height = 150, 90
    centre = np.array([61.3, 42.7])
    y, x = np.mgrid[0:height, 0:width] + 0.5
    blob = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * 12**2))
    photo = MatchView("a", np.repeat(np.round(255 * blob)[..., None], 3, axis=2).astype(np.uint8))
    small = at_size(photo.rgb, *size)
    assert small.shape == (size[1], size[0], 3)
    weight = small[..., 0].astype(np.float64)
    y, x = np.mgrid[0 : size[1], 0 : size[0]] + 0.5
    found = np.array([[(weight * x).sum(), (weight * y).sum()]]) / weight.sum()
    # Levels are whole numbers: that alone moves the centre by hundredths of a pixel. Half a pixel is what a wrong
    # convention would be.
    np.testing.assert_allclose(to_photo(found, photo, *size)[0], centre, atol=0.05)


def test_the_same_place_in_photos_of_two_sizes() -> None:
    places = np.random.default_rng(0).uniform(0, 64, (100, 2))
    one, twice = view(64, 96), view(128, 192)
    same = to_photo(places, one, 64, 96)
    np.testing.assert_allclose(same, places, atol=1e-5)
    np.testing.assert_allclose(to_photo(places, twice, 64, 96), 2 * same, atol=1e-3)
