"""Alignment against similarities that are known: with noise, outliers, what only one of the two clouds has."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from splatinit.errors import BadPoints, ShapeError
from splatinit.geometry import alignment
from splatinit.geometry.alignment import from_pairs, refine, search
from splatinit.geometry.rigid import Similarity, transform

SIZE = np.array([6.0, 4.0, 2.5])


def room(rng: np.random.Generator, n: int) -> np.ndarray:
    """About n points on the walls of a room, and on three boxes in it."""

    def box(low, high, m):
        low, high = np.array(low, float), np.array(high, float)
        xyz = rng.uniform(low, high, (m, 3))
        axis = rng.integers(0, 3, m)
        xyz[np.arange(m), axis] = np.where(rng.integers(0, 2, m), high[axis], low[axis])
        return xyz

    boxes = [((1, 1, 0), (2, 2.5, 0.8)), ((4, 0.5, 0), (5, 1, 1.9)), ((3, 3, 0), (3.5, 3.8, 1.2))]
    return np.concatenate([box((0, 0, 0), SIZE, n // 2), *(box(*each, n // 6) for each in boxes)])


def partial(seed: int, dense: int, sparse: int, true: Similarity) -> tuple[np.ndarray, np.ndarray]:
    """A scan, of which one corner of the room is missing, and what photos saw: another corner is missing, noise of
    5 mm, and one point in ten lies anywhere."""
    rng = np.random.default_rng(seed)
    cloud = room(rng, dense) + rng.normal(0, 0.003, (dense // 6 * 3 + dense // 2, 3))
    target = room(rng, sparse) + rng.normal(0, 0.005, (sparse // 6 * 3 + sparse // 2, 3))
    cloud = cloud[~((cloud[:, 0] > 4.2) & (cloud[:, 1] > 1.5))]
    target = target[~((target[:, 0] < 2.0) & (target[:, 1] < 2.0))]
    target = np.concatenate([target, rng.uniform(-3, 9, (len(target) // 10, 3))])
    return cloud, true(target)


def error(found: Similarity, true: Similarity) -> float:
    """The largest that any corner of the room is off, as share of its diagonal in the target."""
    corners = SIZE * np.indices((2, 2, 2)).reshape(3, -1).T
    return float(np.linalg.norm(found(corners) - true(corners), axis=1).max() / np.linalg.norm(SIZE) / true.scale)


def similarity(seed: int) -> Similarity:
    rng = np.random.default_rng(seed)
    turn = Rotation.random(random_state=seed).as_matrix()
    return Similarity(float(np.exp(rng.uniform(-2, 2))), turn, rng.normal(0, 20, 3))


def nudged(true: Similarity, *, scale: float) -> Similarity:
    turn = Rotation.from_rotvec([0.05, -0.04, 0.06]).as_matrix()
    return Similarity(scale * true.scale, turn @ true.R, true.t + 0.02 * true.scale * SIZE)


def test_a_rough_placement_is_refined_to_a_thousandth() -> None:
    true = similarity(0)
    cloud, target = partial(0, 12_000, 1800, true)
    # The offset moves with the turn about the origin, which lies in a corner of the room.
    found = refine(cloud, target, nudged(true, scale=1.04), scaled=True)
    assert error(found.similarity, true) < 1e-3
    assert found.share > 0.6 and found.residual < 0.015 * true.scale and found.residual < 0.1 * found.reach
    # From much too far, it ends in a wrong place: what it says of itself tells it from the right one.
    turn = Rotation.from_rotvec([0.6, -0.8, 1.0]).as_matrix()
    lost = refine(cloud, target, Similarity(true.scale, turn @ true.R, true.t), scaled=True)
    assert error(lost.similarity, true) > 0.05
    assert lost.share < 0.6 and lost.residual > 0.33 * lost.reach
    rigid = refine(cloud, target, nudged(true, scale=1.0), scaled=False)
    assert rigid.similarity.scale == pytest.approx(true.scale, rel=1e-12)
    assert error(rigid.similarity, true) < 1e-3


def test_the_sparser_of_the_two_may_be_the_cloud() -> None:
    true = similarity(3)
    target, cloud = partial(3, 6000, 1800, Similarity(1.0, np.eye(3), np.zeros(3)))
    found = refine(cloud, true(target), nudged(true, scale=0.97), scaled=True)
    assert error(found.similarity, true) < 1e-3


def test_a_search_finds_any_similarity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alignment, "_ROTATIONS", 200)
    true = similarity(5)
    cloud, target = partial(5, 4000, 900, true)
    found = search(cloud, target)
    assert error(found.similarity, true) < 1.5e-3
    assert found.score > 1.5 * found.rival and found.share > 0.5


def test_clouds_of_different_things_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alignment, "_ROTATIONS", 40)
    monkeypatch.setattr(alignment, "_TRIED", 20)
    rng = np.random.default_rng(0)
    line = np.column_stack([rng.uniform(0, 10, 600), *rng.normal(0, 0.05, (2, 600))])
    found = search(line, room(rng, 600))
    assert found.share < 0.3 or found.score < 1.5 * found.rival
    # A sphere fits in every turn.
    sphere = rng.normal(size=(600, 3))
    sphere /= np.linalg.norm(sphere, axis=1, keepdims=True)
    found = search(sphere, 3 * sphere[:400])
    assert found.rival > 0.9 * found.score


def test_far_coordinates_cost_no_digits() -> None:
    true = Similarity(1.0, np.eye(3), np.array([-5e5, -5e6, 0.0]))
    cloud, target = partial(0, 6000, 900, Similarity(1.0, np.eye(3), np.zeros(3)))
    found = refine(cloud + (5e5, 5e6, 0), target, Similarity(1.0, np.eye(3), true.t + 0.05), scaled=False)
    near = refine(cloud, target, Similarity(1.0, np.eye(3), np.full(3, 0.05)), scaled=False)
    np.testing.assert_allclose(found.similarity(cloud + (5e5, 5e6, 0)), near.similarity(cloud), atol=1e-4)


def test_pairs_of_points() -> None:
    true = similarity(9)
    a = np.random.default_rng(0).normal(size=(5, 3))
    found, residuals = from_pairs(a, true(a), "here")
    np.testing.assert_allclose(found.matrix(), true.matrix(), atol=1e-9)
    np.testing.assert_allclose(residuals, 0, atol=1e-9)
    np.testing.assert_allclose(transform(found.matrix(), a), true(a))
    np.testing.assert_allclose(found.inverse()(true(a)), a, atol=1e-12)
    three, _ = from_pairs(a[:3], true(a[:3]), "here")
    np.testing.assert_allclose(three(a), true(a), atol=1e-9)
    with pytest.raises(BadPoints, match="here: 2 pairs of points; a similarity needs at least 3"):
        from_pairs(a[:2], a[:2], "here")
    line = np.outer(np.arange(4.0), [1, 2, 3]) + 7
    for one, other in ((line, a[:4]), (a[:4], line), (np.ones((3, 3)), a[:3])):
        with pytest.raises(BadPoints, match=r"here: the points of its \d pairs lie on one line"):
            from_pairs(one, other, "here")


def test_clouds_that_cannot_be_aligned() -> None:
    few, some = np.zeros((3, 3)), np.random.default_rng(0).normal(size=(9, 3))
    for call in (lambda a, b: refine(a, b, scaled=True), search):
        with pytest.raises(ShapeError, match="the cloud: 3 points; an alignment needs at least 4"):
            call(few, some)
        with pytest.raises(BadPoints, match="the target: 1 of 9 points are not finite"):
            call(some, np.where(np.arange(9)[:, None] == 4, np.nan, some))
