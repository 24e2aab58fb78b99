"""Rigid motions, neighbours and scores against numbers that can be checked by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splatinit.errors import ShapeError
from splatinit.geometry import neighbours
from splatinit.geometry.neighbours import local_planes, mean_neighbour_distance, nearest_distance, neighbour_distances
from splatinit.geometry.rigid import align_similarity, inverse, project, transform
from splatinit.geometry.scoring import score_cloud


def rotation(rng: np.random.Generator) -> np.ndarray:
    Q, R = np.linalg.qr(rng.normal(size=(3, 3)))
    Q = Q * np.sign(np.diag(R))
    return Q if np.linalg.det(Q) > 0 else -Q


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_inverse_undoes_a_motion(seed):
    rng = np.random.default_rng(seed)
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation(rng), rng.normal(size=3)
    xyz = rng.normal(size=(5, 3))
    np.testing.assert_allclose(transform(inverse(pose), transform(pose, xyz)), xyz, atol=1e-12)
    np.testing.assert_allclose(inverse(pose)[None] @ pose, np.eye(4)[None], atol=1e-12)


def test_project_by_hand():
    K = np.array([[100.0, 0, 32], [0, 200, 24], [0, 0, 1]])
    pose = np.eye(4)
    pose[2, 3] = 1.0  # the camera stands one unit behind the origin
    px, z = project(K, pose, np.array([[0.0, 0, 0], [0.5, -0.25, 1], [0, 0, -1], [0, 0, -3]]))
    np.testing.assert_allclose(px[:2], [[32, 24], [57, -1]])
    np.testing.assert_allclose(z, [1, 2, 0, -2])
    assert np.isnan(px[2:]).all()


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_align_similarity_recovers_it(seed):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(6, 3))
    scale, R, t = float(rng.uniform(0.1, 5)), rotation(rng), rng.normal(size=3)
    found = align_similarity(a, scale * a @ R.T + t)
    assert found.scale == pytest.approx(scale)
    np.testing.assert_allclose(found.R, R, atol=1e-9)
    np.testing.assert_allclose(found(a), scale * a @ R.T + t, atol=1e-9)


def test_align_similarity_never_mirrors():
    a = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    assert np.linalg.det(align_similarity(a, a * [1, 1, -1]).R) == pytest.approx(1.0)


@pytest.mark.parametrize("n", [0, 2])
def test_align_similarity_refuses_too_few(n):
    with pytest.raises(ShapeError, match="n ≥ 3 pairs"):
        align_similarity(np.zeros((n, 3)), np.zeros((n, 3)))
    with pytest.raises(ShapeError, match="points that differ"):
        align_similarity(np.ones((3, 3)), np.ones((3, 3)))


def test_neighbour_distances_by_hand():
    xyz = np.array([[0.0, 0, 0], [1, 0, 0], [3, 0, 0], [7, 0, 0]])
    np.testing.assert_allclose(neighbour_distances(xyz, 3), [[1, 3, 7], [1, 2, 6], [2, 3, 4], [4, 6, 7]])
    np.testing.assert_allclose(mean_neighbour_distance(xyz, 3), [11 / 3, 3, 3, 17 / 3])
    np.testing.assert_allclose(mean_neighbour_distance(xyz[:2], 3), [1, 1])  # fewer neighbours than asked for
    np.testing.assert_allclose(mean_neighbour_distance(np.zeros((5, 3)), 3), 0)
    assert np.isnan(mean_neighbour_distance(xyz[:1])).all()
    assert mean_neighbour_distance(np.zeros((0, 3))).shape == (0,)


def test_local_planes_match_a_singular_value_decomposition_of_each(monkeypatch):
    rng = np.random.default_rng(0)
    xyz = rng.normal(size=(200, 3)) * [3.0, 1.0, 0.3] + 1e6  # far from the origin
    whole = local_planes(xyz, k=10)
    monkeypatch.setattr(neighbours, "_CHUNK", 7)
    for one, other in zip(whole, local_planes(xyz, k=10), strict=True):
        np.testing.assert_array_equal(one, other)
    for i, (normal, thickness) in enumerate(zip(*whole, strict=True)):
        near = xyz[np.argsort(np.linalg.norm(xyz - xyz[i], axis=1))[:11]]
        _, sizes, axes = np.linalg.svd(near - near.mean(axis=0))
        assert abs(normal @ axes[2]) == pytest.approx(1, abs=1e-6)
        assert thickness == pytest.approx(sizes[2] / sizes[1], abs=1e-6)


@pytest.mark.parametrize(
    "xyz",
    [
        np.zeros((0, 3)),
        np.zeros((1, 3)),
        [[0, 0, 0], [1, 2, 3]],
        np.full((50, 3), 0.3),
        np.linspace(0, 1, 50)[:, None] * [1.0, 2.0, 3.0],
    ],
    ids=["none", "one", "two", "one place", "a line"],
)
def test_where_there_is_no_plane(xyz):
    normals, thickness = local_planes(xyz)
    assert normals.shape == (len(xyz), 3) and (thickness == 1).all()
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1)


def test_three_points_are_a_plane():
    normals, thickness = local_planes([[0, 0, 1], [1, 0, 1], [0, 1, 1]])
    np.testing.assert_allclose(np.abs(normals), [[0, 0, 1]] * 3, atol=1e-9)
    np.testing.assert_allclose(thickness, 0, atol=1e-6)


def test_neighbour_distances_match_brute_force():
    rng = np.random.default_rng(3)
    xyz = rng.normal(size=(60, 3))
    xyz[10] = xyz[11]
    d = np.linalg.norm(xyz[:, None] - xyz[None], axis=2)
    np.fill_diagonal(d, np.inf)
    np.testing.assert_allclose(neighbour_distances(xyz, 3), np.sort(d, axis=1)[:, :3], atol=1e-12)


def test_nearest_distance_of_empty_sets():
    assert nearest_distance(np.zeros((0, 3)), np.zeros((2, 3))).shape == (0,)
    assert np.isinf(nearest_distance(np.zeros((2, 3)), np.zeros((0, 3)))).all()


def test_score_cloud_by_hand():
    truth = np.array([[0.0, 0, 0], [1, 0, 0]])
    score = score_cloud(np.array([[0.0, 0, 0.1], [0, 0, 0.3], [5, 0, 0]]), truth, [0.2, 10])
    assert score.n == 3
    assert score.accuracy == pytest.approx((0.1 + 0.3 + 4) / 3)
    assert score.accuracy_median == pytest.approx(0.3)
    assert score.completeness == pytest.approx((0.1 + np.hypot(1, 0.1)) / 2)
    near, far = score.thresholds
    assert (near.precision, near.recall) == (pytest.approx(1 / 3), pytest.approx(1 / 2))
    assert near.fscore == pytest.approx(2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2))
    assert (far.precision, far.recall, far.fscore) == (1, 1, 1)


def test_score_of_nothing_is_zero_and_can_be_written():
    score = score_cloud(np.zeros((0, 3)), np.zeros((4, 3)), [1.0])
    assert score.thresholds[0].fscore == 0 and np.isinf(score.accuracy) and np.isinf(score.completeness)
    values = json.loads(json.dumps(score.to_json(), allow_nan=False))
    assert values["accuracy"] is None and values["thresholds"][0]["threshold"] == 1.0
    with pytest.raises(ShapeError, match="at least one true point"):
        score_cloud(np.zeros((1, 3)), np.zeros((0, 3)), [1.0])
