"""The native stereo kernels against double loops in numpy, at every SIMD level and for any number of threads."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from test_native import runnable_levels

from splatinit import native
from splatinit.errors import BackendError, ShapeError
from splatinit.native import Stereo, StereoPhoto, stereo_minima, stereo_semiglobal

pytestmark = pytest.mark.skipif(not native.available(), reason="splat_cpu is not built in this installation")
MARGIN = 1.0 / 64.0  # px from the outermost pixel centres, as sweep.h has it


@pytest.fixture(params=runnable_levels())
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    before = native.build_info()["simd"]
    native.set_simd(request.param)
    yield request.param
    native.set_simd(before)


def photo(rng: np.random.Generator, width: int, height: int, masked: float = 0.0) -> np.ndarray:
    """Smooth random texture as codes of grey, with a share of unusable pixels."""
    grey = rng.random((height, width))
    grey = 0.5 * grey + 0.25 * (np.roll(grey, 1, 0) + np.roll(grey, 1, 1))
    code = (grey * 65534 + 1.5).astype(np.uint16)
    code[rng.random(code.shape) < masked] = 0
    return code


def motion(rng: np.random.Generator) -> np.ndarray:
    """A map from the reference: near the identity, with perspective, and an epipole somewhere."""
    matrix = np.concatenate([np.eye(3), rng.normal(size=(3, 1))], axis=1)
    matrix[:2, :3] += 0.03 * rng.normal(size=(2, 3))
    matrix[2, :2] = 0.001 * rng.normal(size=2)
    matrix[2, 3] *= 0.05
    matrix[:2, 3] *= 6.0
    return matrix


def stereo(seed: int, views: int, *, width: int = 23, height: int = 17, masked: float = 0.0, **settings) -> Stereo:
    rng = np.random.default_rng(seed)
    sizes = [(width, height), (25, 26), (35, 19), (16, 33), (40, 22), (23, 17)]
    photos = [photo(rng, *size, masked) for size in sizes[: views + 1]]
    return Stereo(StereoPhoto(photos[0]), [StereoPhoto(p, motion(rng)) for p in photos[1:]], **settings)


def values(grey: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Bilinear grey at (u, v) from the first pixel's centre; NaN outside, or where a pixel of the four is unusable."""
    height, width = grey.shape
    inside = (u >= MARGIN) & (u <= width - 1 - MARGIN) & (v >= MARGIN) & (v <= height - 1 - MARGIN)
    x, y = (np.where(inside, at, 0).astype(int) for at in (u, v))
    a, b = u - x, v - y
    four = [grey[y + dy, x + dx].astype(float) for dy in (0, 1) for dx in (0, 1)]
    weights = [(1 - b) * (1 - a), (1 - b) * a, b * (1 - a), b * a]
    found = sum(weight * (code - 1) / 65534 for weight, code in zip(weights, four, strict=True))
    return np.where(inside & np.all(four, axis=0), found, np.nan)


def zncc_cost(r: np.ndarray, o: np.ndarray, noise: float) -> float:
    """1 − ZNCC of two windows, cut to [0, 1], in doubles; 1 where a sample has no value."""
    if np.isnan(o).any():
        return 1.0
    covariance = ((r - r.mean()) * (o - o.mean())).mean()
    return float(np.clip(1 - covariance / np.sqrt((r.var() + noise) * (o.var() + noise)), 0, 1))


def best_mean(costs: list[float], best: int) -> float:
    return float(np.mean(sorted(costs)[:best]))


def window(s: Stereo, x: int, y: int) -> np.ndarray:
    """[n, 3] (d, e, grey) of the usable pixels around a pixel of the reference; none when it is unusable itself."""
    grey, reach = s.reference.grey, range(-s.radius, s.radius + 1)
    height, width = grey.shape
    inside = [(d, e) for e in reach for d in reach if 0 <= x + d < width and 0 <= y + e < height]
    found = [(d, e, (float(grey[y + e, x + d]) - 1) / 65534) for d, e in inside if grey[y + e, x + d]]
    return np.array(found if grey[y, x] else []).reshape(-1, 3)


def warped(matrix: np.ndarray, x: np.ndarray, y: np.ndarray, w: np.ndarray) -> np.ndarray:
    """[2, n] from the first pixel's centre; NaN behind the camera."""
    p = matrix @ np.stack(np.broadcast_arrays(x, y, 1.0, w)).astype(float)
    return p[:2] / np.where(p[2] > 1e-6, p[2], np.nan) - 0.5


def in_bytes(grey: np.ndarray) -> np.ndarray:
    """Rounded to 254 steps, as the sweep reads its neighbours."""
    return np.where(grey, 1 + np.rint((grey - 1.0) / 65534 * 254) / 254 * 65534, 0)


def brute_sweep(s: Stereo, inverse_depths: np.ndarray) -> np.ndarray:
    bytes_of = [in_bytes(neighbour.grey) for neighbour in s.neighbours]
    height, width = s.reference.grey.shape
    out = np.ones((height, len(inverse_depths), width))
    for y in range(height):
        for x in range(width):
            d, e, grey = window(s, x, y).T
            for index, w in enumerate(inverse_depths if len(grey) else []):
                costs = []
                for neighbour, rounded in zip(s.neighbours, bytes_of, strict=True):
                    u, v = warped(neighbour.from_reference, x + d + 0.5, y + e + 0.5, w)
                    costs.append(zncc_cost(grey, values(rounded, u, v), s.noise))
                out[y, index, x] = best_mean(costs, s.best)
    return out


def brute_plane_cost(s: Stereo, neighbour: StereoPhoto, x: int, y: int, plane: np.ndarray) -> float:
    """Of one plane at one pixel: its map is linearised at the pixel, here by differences."""
    h, (w, wx, wy) = 1e-4, plane
    dx, dy = np.array([0, h, -h, 0, 0]), np.array([0, 0, 0, h, -h])
    at = warped(neighbour.from_reference, x + 0.5 + dx, y + 0.5 + dy, w + wx * dx + wy * dy)
    centre, along_x, along_y = at[:, 0], (at[:, 1] - at[:, 2]) / (2 * h), (at[:, 3] - at[:, 4]) / (2 * h)
    # The whole square must lie inside, even where the reference does not count: one decision per window.
    reach = (np.abs(along_x) + np.abs(along_y)) * s.radius
    far = np.array(neighbour.grey.shape[::-1]) - 1 - MARGIN
    d, e, grey = window(s, x, y).T
    if not (len(grey) and (centre - reach >= MARGIN).all() and (centre + reach <= far).all()):
        return 1.0
    u, v = centre[:, None] + along_x[:, None] * d + along_y[:, None] * e
    return zncc_cost(grey, values(neighbour.grey, u, v), s.noise)


DEPTHS = np.array([0.0, 0.41, 1.0], np.float32)


@pytest.mark.parametrize(
    "views, radius, masked", [(1, 2, 0.02), (2, 1, 0.0), (3, 2, 0.0), (3, 2, 0.02), (4, 3, 0.01), (5, 4, 0.0)]
)
def test_sweep_is_the_double_loop(level: str, views: int, radius: int, masked: float) -> None:
    s = stereo(views, views, radius=radius, best=(views + 1) // 2, masked=masked)
    cost, expected = s.sweep(DEPTHS), brute_sweep(s, DEPTHS)
    assert np.abs(cost - expected).max() < 1e-4
    assert (expected < 1).mean() > 0.05  # not all of it is truncated


@pytest.mark.parametrize("width, height", [(2, 2), (1 + 16, 9), (33, 2), (16, 15), (48, 3)])
def test_sweep_of_odd_sizes(level: str, width: int, height: int) -> None:
    s = stereo(3, 2, width=width, height=height, radius=3, best=1, masked=0.01)
    assert np.abs(s.sweep(DEPTHS) - brute_sweep(s, DEPTHS)).max() < 1e-4


def test_sweep_of_many_rows(level: str) -> None:
    """It works in bands of 96 rows: what windows at the seams see is there."""
    rng = np.random.default_rng(1)
    matrix = np.concatenate([np.eye(3), [[10.0], [6.0], [0.01]]], axis=1)
    s = Stereo(StereoPhoto(photo(rng, 6, 200)), [StereoPhoto(photo(rng, 30, 220), matrix)], radius=4)
    cost, expected = s.sweep(DEPTHS), brute_sweep(s, DEPTHS)
    assert np.abs(cost - expected).max() < 1e-4
    for seam in (96, 192):
        assert (expected[seam - 5 : seam + 5] < 1).mean() > 0.3


@pytest.mark.parametrize("stride, first, masked", [(1, 0, 0.0), (2, 1, 0.01), (3, 0, 0.0)])
def test_plane_costs_are_the_double_loop(level: str, stride: int, first: int, masked: float) -> None:
    s = stereo(7, 3, radius=2, best=2, masked=masked, stride=stride, first=first)
    rng = np.random.default_rng(8)
    low, high = np.reshape([[0.0, -0.02, -0.02], [1.0, 0.02, 0.02]], (2, 3, 1, 1))
    planes = rng.uniform(low, high, (3, *s.grid)).astype(np.float32)
    step = 0.5
    costs, rate = s.costs(planes, step)
    for j in range(s.grid[0]):
        for i in range(s.grid[1]):
            x, y = first + i * stride, first + j * stride
            plane = planes[:, j, i].astype(float)
            h, moves = 1e-4, []
            for neighbour in s.neighbours:
                ends = warped(neighbour.from_reference, x + 0.5, y + 0.5, plane[0] + np.array([-h, h]))
                moves.append(np.hypot(*(ends[:, 1] - ends[:, 0])) / (2 * h))
            assert rate[j, i] == pytest.approx(max(moves), rel=1e-3)
            for side in range(3):
                moved = plane + [(side - 1) * step / float(rate[j, i]), 0, 0]
                for k, neighbour in enumerate(s.neighbours):
                    assert costs[side, k, j, i] == pytest.approx(brute_plane_cost(s, neighbour, x, y, moved), abs=2e-4)
    assert (costs < 1).mean() > 0.05
    assert np.array_equal(s.costs(planes)[0], costs[1])


def test_minima_are_those_of_a_loop(level: str) -> None:
    rng = np.random.default_rng(4)
    cost = np.round(rng.random((5, 13, 37)), 1).astype(np.float32)  # rounded: with ties
    cost[0, :, 0] = np.linspace(1, 0, 13)  # lowest at an end
    cost[0, :, 1] = 0.5
    lowest, position, rival = stereo_minima(cost)
    for y, x in np.ndindex(5, 37):
        c = cost[y, :, x].astype(float)
        best = int(c.argmin())
        place = float(best)
        if 0 < best < 12 and c[best - 1] + c[best + 1] > 2 * c[best]:
            place += 0.5 * (c[best - 1] - c[best + 1]) / (c[best - 1] + c[best + 1] - 2 * c[best])
        padded = np.r_[2.0, c, 2.0]
        rivals = [c[d] for d in range(13) if abs(d - best) > 2 and padded[d] >= c[d] <= padded[d + 2]]
        assert lowest[y, x] == np.float32(c[best]) and rival[y, x] == np.float32(min([1.0, *rivals]))
        assert position[y, x] == pytest.approx(place, abs=1e-4)


def brute_semiglobal(cost: np.ndarray, guide: np.ndarray, slope: float, jump: float, edge: float) -> np.ndarray:
    """Pixel by pixel and hypothesis by hypothesis, in doubles."""
    height, hypotheses, width = cost.shape
    total = np.zeros(cost.shape)
    for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        path = np.zeros(cost.shape)
        for y in range(height)[:: -1 if dy < 0 else 1]:
            for x in range(width)[:: -1 if dx < 0 else 1]:
                before_y, before_x = y - dy, x - dx
                path[y, :, x] = cost[y, :, x]
                if not (0 <= before_y < height and 0 <= before_x < width):
                    continue
                before = path[before_y, :, before_x]
                leap = jump / (1 + abs(float(guide[y, x]) - float(guide[before_y, before_x])) / edge)
                for d in range(hypotheses):
                    ways = [before[d], before.min() + leap]
                    ways += [before[n] + slope for n in (d - 1, d + 1) if 0 <= n < hypotheses]
                    path[y, d, x] += min(ways) - before.min()
        total += path
    return total / 4


# Widths and hypotheses below, at and beyond a vector's lanes and a strip's columns, at every level.
@pytest.mark.parametrize("shape", [(5, 7, 37), (3, 16, 16), (2, 1, 5), (9, 33, 20), (1, 4, 65), (4, 17, 1)])
@pytest.mark.parametrize("edge", [0.2, float("inf")])
def test_semiglobal_is_the_double_loop(level: str, shape: tuple[int, int, int], edge: float) -> None:
    rng = np.random.default_rng(sum(shape))
    cost, guide = rng.random(shape).astype(np.float32), rng.random(shape[::2]).astype(np.float32)
    rates = {"slope": 0.05, "jump": 0.3, "edge": edge}
    expected = brute_semiglobal(cost, guide, *rates.values())
    assert np.abs(stereo_semiglobal(cost, guide, **rates) - expected).max() < 1e-5
    assert (np.abs(expected - cost).max() > 0.05) == (shape[1] > 1)  # a single hypothesis has no choice


def test_semiglobal_carries_depth_over_what_has_no_contrast(level: str) -> None:
    """Only the borders of a flat square know their depth, a slant from hypothesis 3 to 8; an edge of grey lets go."""
    cost = np.full((24, 16, 40), 0.9, np.float32)
    truth = np.rint(np.linspace(3, 8, 40)).astype(int)
    known = np.ones((24, 40), bool)
    known[3:-3, 3:-3] = False
    for y, x in np.argwhere(known):
        cost[y, truth[x], x] = 0.1
    cost[:, :, 30:] = 0.9
    cost[:, 14, 30:] = 0.1  # another surface
    guide = np.where(np.arange(40) < 30, 0.3, 0.7).astype(np.float32) * np.ones((24, 1), np.float32)
    _, position, _ = stereo_minima(stereo_semiglobal(cost, guide, slope=0.1, jump=1.0, edge=0.1))
    assert np.abs(position[:, :30] - truth[:30]).max() < 1.2 and np.abs(position[:, 30:] - 14).max() < 0.6


SEARCH = {"inverse_depths": (0.05, 1.0), "steepest": 0.1}


def test_search_only_lowers_costs_and_tells_them_right(level: str) -> None:
    s = stereo(11, 3, radius=2, best=2, masked=0.01, stride=2, width=61, height=43)
    start = np.zeros((3, *s.grid), np.float32)
    start[0] = 0.5
    before = np.sort(s.costs(start)[0], axis=0)[:2].mean(axis=0)
    planes, cost = s.search(start, [1.0, 0.5], directions=8, **SEARCH)
    assert (cost <= before + 1e-6).all() and (cost < before - 0.05).mean() > 0.1
    assert np.abs(np.sort(s.costs(planes)[0], axis=0)[:2].mean(axis=0) - cost).max() < 1e-6
    assert planes[0].min() >= 0.05 and planes[0].max() <= 1.0
    assert (np.abs(planes[1:]).sum(axis=0) <= 0.1001 * planes[0]).all()
    assert (start[0] == 0.5).all()  # the input is left alone


def test_search_finds_a_slanted_plane(level: str) -> None:
    """The neighbour shows the texture of a plane; a start that is 2 px off everywhere ends on it."""
    height, width = 48, 64
    rng = np.random.default_rng(5)
    fx, fy, phase = rng.uniform(0.2, 0.9, 12), rng.uniform(0.2, 0.9, 12), rng.uniform(0, 6.28, 12)

    def texture(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return 0.5 + 0.04 * np.sin(x[..., None] * fx + y[..., None] * fy + phase).sum(-1)

    def code(grey: np.ndarray) -> np.ndarray:
        return (grey * 65534 + 1.5).astype(np.uint16)

    y, x = np.mgrid[:height, :width] + 0.5
    truth = np.array([0.3, 0.004, -0.002])  # w at the image's centre, and its slopes
    matrix = np.array([[1.0, 0, 0, 20.0], [0, 1, 0, 0], [0, 0, 1, 0]])
    # u = x + 20 w(x, y) is affine: invert it for the texture that the neighbour shows.
    offset = truth[0] - truth[1] * width / 2 - truth[2] * height / 2
    source = (x - 20 * (offset + truth[2] * y)) / (1 + 20 * truth[1])
    s = Stereo(StereoPhoto(code(texture(x, y))), [StereoPhoto(code(texture(source, y)), matrix)], radius=3, noise=1e-5)
    exact = offset + truth[1] * x + truth[2] * y
    start = np.zeros((3, height, width), np.float32)
    start[0] = exact + 2.0 / 20
    planes, cost = s.search(start, [1.0, 1.0, 0.5, 0.25, 0.12], directions=4, **SEARCH)
    inner = np.s_[8:-8, 8:-16]
    assert np.median(np.abs(planes[0] - exact)[inner]) * 20 < 0.03  # px
    assert (np.abs(planes[0] - exact)[inner] * 20 < 0.2).mean() > 0.97
    assert np.median(np.abs(planes[1] - truth[1])[inner]) < 0.002
    assert np.median(cost[inner]) < 0.01


def test_any_number_of_threads_gives_the_same_bits(level: str) -> None:
    s = stereo(13, 4, radius=3, best=2, masked=0.005, width=61, height=43)
    start = np.zeros((3, *s.grid), np.float32)
    start[0] = 0.4
    before, results = native.build_info()["threads"], []
    for threads in (1, 2, 3):
        native.set_threads(threads)
        sweep = s.sweep(DEPTHS)
        planes, cost = s.search(start, [1.0, 0.5, 0.25], **SEARCH)
        smooth = stereo_semiglobal(sweep, np.zeros((43, 61)), slope=0.1, jump=1.0)
        results.append([sweep, smooth, *stereo_minima(smooth), planes, cost, *s.costs(planes, 0.5)])
    native.set_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert np.array_equal(a, b)


def test_levels_agree() -> None:
    s = stereo(17, 3, radius=3, best=2, width=61, height=43)
    before, found = native.build_info()["simd"], []
    for name in runnable_levels():
        native.set_simd(name)
        found.append(s.sweep(DEPTHS))
    native.set_simd(before)
    for other in found[1:]:
        assert np.abs(other - found[0]).max() < 1e-4


def test_gain_and_offset_do_not_matter() -> None:
    s = stereo(19, 1, radius=3, noise=1e-6)
    other = s.neighbours[0]
    darker = StereoPhoto((other.grey * 0.5 + 9000).astype(np.uint16), other.from_reference)
    same = Stereo(s.reference, [darker], radius=3, noise=1e-6)
    assert np.abs(s.sweep(DEPTHS) - same.sweep(DEPTHS)).max() < 0.02  # half the contrast in as many steps of a byte
    planes = np.zeros((3, *s.grid), np.float32)
    planes[0] = 0.4
    assert np.abs(s.costs(planes)[0] - same.costs(planes)[0]).max() < 1e-3


def test_hostile_maps_cost_everything() -> None:
    """Behind the camera, at infinity, not a number: no sample is read, and the cost is 1."""
    rng = np.random.default_rng(2)
    grey = photo(rng, 20, 20)
    for matrix in (-np.eye(3, 4), np.full((3, 4), np.nan), np.full((3, 4), 3e38), np.zeros((3, 4))):
        s = Stereo(StereoPhoto(grey), [StereoPhoto(grey, matrix)], radius=2)
        assert (s.sweep(DEPTHS) == 1).all()
        start = np.full((3, 20, 20), 0.5, np.float32)
        planes, cost = s.search(start, [1.0], inverse_depths=(0.0, 1.0), steepest=4.0)
        assert (cost == 1).all() and np.array_equal(planes, start)
    empty = Stereo(StereoPhoto(np.zeros_like(grey)), [StereoPhoto(grey, np.eye(3, 4))], radius=2)
    assert (empty.sweep(DEPTHS) == 1).all()


def test_bad_arguments_are_refused() -> None:
    grey = photo(np.random.default_rng(2), 20, 20)
    good = StereoPhoto(grey, np.eye(3, 4))
    with pytest.raises(ShapeError, match=r"must be \[h, w\] uint16 of 2 to 16384 px, got \[1, 20\] uint16"):
        StereoPhoto(grey[:1])
    with pytest.raises(ShapeError, match=r"planes must be \[3, 20, 20\], got \[3, 20, 19\]"):
        Stereo(good, [good]).costs(np.zeros((3, 20, 19), np.float32))
    for settings in ({"radius": 0}, {"radius": 5}, {"best": 2}, {"stride": 2, "first": 2}, {"noise": 0.0}):
        with pytest.raises(BackendError, match="stereo: the native engine refused its arguments"):
            Stereo(good, [good], **settings).sweep(DEPTHS)
    cost = np.zeros((20, 3, 20), np.float32)
    with pytest.raises(ShapeError, match=r"guide must be \[20, 20\], got \[20, 19\]"):
        stereo_semiglobal(cost, grey[:, 1:], slope=0.1, jump=1.0)
    for rates in ({"slope": -0.1, "jump": 1.0}, {"slope": 0.1, "jump": 0.05}, {"slope": 0.1, "jump": 1.0, "edge": 0.0}):
        with pytest.raises(BackendError, match="stereo: the native engine refused"):
            stereo_semiglobal(cost, grey, **rates)
    with pytest.raises(BackendError, match="stereo: the native engine refused"):
        Stereo(good, []).sweep(DEPTHS)
    with pytest.raises(BackendError, match="stereo: the native engine refused"):
        Stereo(good, [good], stride=2).sweep(DEPTHS)
