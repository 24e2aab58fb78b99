"""Distances to meshes against arithmetic, against another algorithm in a double loop, and scores on known shapes."""

from __future__ import annotations

import numpy as np
import pytest

from splatinit.errors import BadPoints, ConfigError, ShapeError
from splatinit.geometry import surface as room
from splatinit.geometry.scoring import score_cloud
from splatinit.geometry.surface import Surface

SQUARE = (np.array([[0.0, 0, 0], [4, 0, 0], [4, 4, 0], [0, 4, 0]]), np.array([[0, 1, 2], [0, 2, 3]]))


def sphere(rings: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """The unit sphere as 2 · rings² triangles between meridians and parallels; those at the poles have no area."""
    across, around = np.meshgrid(np.linspace(0, np.pi, rings + 1), np.linspace(0, 2 * np.pi, rings + 1), indexing="ij")
    xyz = np.stack([np.sin(across) * np.cos(around), np.sin(across) * np.sin(around), np.cos(across)], axis=-1)
    index = np.arange((rings + 1) ** 2).reshape(rings + 1, rings + 1)
    a, b, c, d = (part.reshape(-1) for part in (index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]))
    return xyz.reshape(-1, 3), np.concatenate([np.stack([a, b, c], axis=1), np.stack([a, c, d], axis=1)])


def distance_by_regions(p: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> float:
    """Ericson 2005 (Real-Time Collision Detection, §5.1.5): the Voronoi region of the triangle that holds the point."""
    ab, ac, ap, bp, cp = b - a, c - a, p - a, p - b, p - c
    d1, d2, d3, d4, d5, d6 = ab @ ap, ac @ ap, ab @ bp, ac @ bp, ab @ cp, ac @ cp
    vc, vb, va = d1 * d4 - d3 * d2, d5 * d2 - d1 * d6, d3 * d6 - d5 * d4
    if d1 <= 0 and d2 <= 0:
        foot = a
    elif d3 >= 0 and d4 <= d3:
        foot = b
    elif d6 >= 0 and d5 <= d6:
        foot = c
    elif vc <= 0 and d1 >= 0 and d3 <= 0:
        foot = a + d1 / (d1 - d3) * ab
    elif vb <= 0 and d2 >= 0 and d6 <= 0:
        foot = a + d2 / (d2 - d6) * ac
    elif va <= 0 and d4 - d3 >= 0 and d5 - d6 >= 0:
        foot = b + (d4 - d3) / ((d4 - d3) + (d5 - d6)) * (c - b)
    else:
        foot = a + ab * vb / (va + vb + vc) + ac * vc / (va + vb + vc)
    return float(np.linalg.norm(p - foot))


@pytest.mark.parametrize("count", [1, 2, 5, 9, 64, 131])
def test_distances_are_those_of_a_double_loop(count: int) -> None:
    rng = np.random.default_rng(count)
    # A triangle among small ones that is larger than the scene, as a ground plane is.
    size = np.where(np.arange(count) == 0, 20.0, 0.3)[:, None, None]
    corners = rng.normal(size=(count, 1, 3)) + size * rng.normal(size=(count, 3, 3))
    mesh = Surface(corners.reshape(-1, 3), np.arange(3 * count).reshape(-1, 3))
    points = np.concatenate([rng.normal(size=(60, 3)), 100 * rng.normal(size=(10, 3)), corners[:5, 0]])
    expected = [min(distance_by_regions(p, *triangle) for triangle in corners) for p in points]
    np.testing.assert_allclose(mesh.distance(points), expected, rtol=1e-9, atol=1e-12)


def test_distances_to_a_square_are_arithmetic() -> None:
    mesh = Surface(*SQUARE)
    points = [[1, 2, 3], [2, 2, -0.5], [2, 2, 0], [7, 2, 0], [7, 8, 0], [-3, 1, 4], [-2, -3, 6]]
    np.testing.assert_allclose(mesh.distance(np.array(points, float)), [3, 0.5, 0, 3, 5, 5, 7], rtol=1e-12)


def test_distances_to_a_sphere() -> None:
    rings = 60
    mesh = Surface(*sphere(rings))
    directions = np.random.default_rng(0).normal(size=(3000, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    radius = np.repeat([0.3, 0.9, 1.0, 1.1, 3.0], 600)
    # A triangle hangs below the sphere by less than the square of its largest angular radius over two.
    sag = 1 - np.cos(np.hypot(np.pi / rings, 2 * np.pi / rings) / 2)
    found = mesh.distance(directions * radius[:, None])
    assert (np.abs(found - np.abs(radius - 1)) <= sag + 1e-12).all()
    # From the centre all triangles are about as near: the worst case, in which no box can be left closed.
    assert 1 - sag <= mesh.distance(np.zeros((1, 3)))[0] <= 1


def test_distances_do_not_depend_on_the_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    points = np.random.default_rng(1).normal(size=(500, 3))
    whole = Surface(*sphere(20)).distance(points)
    monkeypatch.setattr(room, "_CHUNK", 37)
    monkeypatch.setattr(room, "_PAIRS", 50)
    np.testing.assert_array_equal(Surface(*sphere(20)).distance(points), whole)


def test_triangles_without_area_are_segments_and_points() -> None:
    vertices = np.array([[0.0, 0, 0], [2, 0, 0], [1, 0, 0], [9, 9, 9], [0, 0, 0.5]])
    segment = Surface(vertices, np.array([[0, 1, 2]]))
    np.testing.assert_allclose(segment.distance([[1, 3, 4], [5, 4, 0], [9, 9, 9]]), [5, 5, np.sqrt(49 + 162)])
    point = Surface(vertices, np.array([[3, 3, 3]]))
    np.testing.assert_allclose(point.distance([[9, 9, 7]]), [2])
    assert {tuple(p) for p in segment.sample(200)} == {(0, 0, 0), (2, 0, 0), (1, 0, 0)}


def test_no_points_have_no_distances() -> None:
    assert Surface(*SQUARE).distance(np.zeros((0, 3))).shape == (0,)


def test_samples_are_even_and_repeatable() -> None:
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 5], [3, 0, 5], [0, 1, 5]])
    mesh = Surface(vertices, np.array([[0, 1, 2], [3, 4, 5]]))
    points = mesh.sample(1000, seed=3)
    np.testing.assert_array_equal(points, mesh.sample(1000, seed=3))
    assert (points != mesh.sample(1000, seed=4)).any()
    assert abs((points[:, 2] == 0).sum() - 250) <= 1
    np.testing.assert_allclose(mesh.distance(points), 0, atol=1e-12)
    # Uniform: their mean is the triangle's centre, within four standard errors of a coordinate.
    large = mesh.sample(40_000)[10_000:]
    np.testing.assert_allclose(large.mean(axis=0), [1, 1 / 3, 5], atol=4 * 3 / np.sqrt(18 * 30_000))


@pytest.mark.parametrize(
    ("vertices", "triangles", "kind", "text"),
    [
        (np.zeros((3, 2)), np.zeros((1, 3), int), ShapeError, r"got \[3, 2\] and \[1, 3\]"),
        (np.zeros((3, 3)), np.zeros((0, 3), int), BadPoints, "3 vertices and no triangles"),
        (
            np.zeros((3, 3)),
            np.array([[0, 1, 3]]),
            ShapeError,
            "name vertices 0 to 3; expected whole numbers from 0 to 2",
        ),
        (np.array([[0, 0, 0], [0, np.nan, 0], [1, 0, 0]]), np.array([[0, 1, 2]]), BadPoints, "1 of the 3 vertices"),
    ],
)
def test_meshes_that_are_none(vertices: np.ndarray, triangles: np.ndarray, kind: type, text: str) -> None:
    with pytest.raises(kind, match=text):
        Surface(vertices, triangles)


# ------------------------------------------------------------------------------------------------------------- scores
def test_score_against_a_mesh_is_exact_where_samples_are_far_apart() -> None:
    mesh = Surface(*SQUARE)
    grid = np.stack(np.meshgrid(np.arange(0.25, 4, 0.5), np.arange(0.25, 4, 0.5)), axis=-1).reshape(-1, 2)
    points = np.column_stack([grid, np.where(np.arange(64) < 48, 0.01, 0.5)])
    score = score_cloud(points, mesh, [0.02, 1.0])
    assert score.accuracy_median == pytest.approx(0.01) and score.accuracy == pytest.approx(0.75 * 0.01 + 0.25 * 0.5)
    assert score.thresholds[0].precision == 0.75
    assert (score.thresholds[1].precision, score.thresholds[1].recall) == (1, 1)
    # Of the surface, a disc of radius √(0.02² − 0.01²) around each of the 48 low points.
    assert score.thresholds[0].recall == pytest.approx(48 * np.pi * 3e-4 / 16, abs=0.001)


def test_what_must_be_complete_can_be_less_than_the_mesh() -> None:
    mesh, seen = Surface(*SQUARE), np.array([[1.0, 1, 0], [1, 2, 0]])
    one = np.array([[1.0, 1, 0.25]])
    score = score_cloud(one, mesh, [0.5], samples=seen)
    assert (score.n, score.accuracy, score.completeness) == (1, 0.25, (0.25 + np.hypot(1, 0.25)) / 2)
    assert (score.thresholds[0].precision, score.thresholds[0].recall) == (1, 0.5)
    # Against samples, too, what points are judged by and what must be complete may differ.
    score = score_cloud(one, np.array([[1.0, 1, 0.5]]), [0.5], samples=seen)
    assert (score.accuracy, score.completeness) == (0.25, (0.25 + np.hypot(1, 0.25)) / 2)
    empty = score_cloud(np.zeros((0, 3)), mesh, [0.5])
    assert (empty.n, empty.thresholds[0].fscore, empty.accuracy_median) == (0, 0, np.inf)


def test_points_that_cannot_be_scored() -> None:
    mesh, bad = Surface(*SQUARE), np.array([[0.0, 0, 0], [0, np.nan, 0], [np.inf, 0, 0]])
    with pytest.raises(BadPoints, match=r"scored points: 2 of 3 points are not finite \(the first is number 1\)"):
        score_cloud(bad, mesh, [1.0])
    for truth, samples in ((mesh, bad), (bad, None), (bad[:1], bad)):
        with pytest.raises(BadPoints, match="true points: 2 of 3 points are not finite"):
            score_cloud(bad[:1], truth, [1.0], samples=samples)
    with pytest.raises(ShapeError, match=r"scored points: points must be \[n, 3\], got \[3\]"):
        score_cloud(np.zeros(3), mesh, [1.0])
    with pytest.raises(ShapeError, match="at least one true point"):
        score_cloud(bad[:1], mesh, [1.0], samples=np.zeros((0, 3)))
    for threshold in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ConfigError, match=f"threshold of {threshold:g}; expected a positive distance"):
            score_cloud(bad[:1], mesh, [threshold])
