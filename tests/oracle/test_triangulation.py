"""Triangulation against other people's, and its errors against what the noise allows."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import stereo

from splatinit.geometry.rigid import project
from splatinit.initializers.dense.triangulation import triangulate
from splatinit.types import Camera


def cameras(count: int = 4) -> list[Camera]:
    return stereo.row(count, size=(640, 480), focal=600.0)


def observed(cams: list[Camera], n: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """True points [n, 3] around the origin and their noisy pixels [v, n, 2]."""
    rng = np.random.default_rng(seed)
    xyz = rng.uniform(-0.8, 0.8, (n, 3))
    px = np.stack([project(cam.K, cam.cam_from_world, xyz)[0] for cam in cams])
    return xyz, px + noise * rng.normal(size=px.shape)


def run(cams: list[Camera], px: np.ndarray, weight: np.ndarray | None = None, **gates):
    K, pose = np.stack([cam.K for cam in cams]), np.stack([cam.cam_from_world for cam in cams])
    weight = np.ones(px.shape[:2]) if weight is None else weight
    return triangulate(K, pose, px, weight, **({"max_error": 5.0, "min_angle": 0.5} | gates))


def test_exact_pixels_give_the_exact_point_far_from_the_origin_too():
    for shift in (0.0, 1e6):
        cams = [stereo.camera((x, 0.2 * x, -5), size=(640, 480), focal=600.0) for x in (-1.0, 0.0, 1.0)]
        xyz, px = observed(cams, 200, 0.0)
        moved = []
        for cam in cams:
            pose = cam.cam_from_world.copy()
            pose[:3, 3] -= pose[:3, :3] @ np.full(3, shift)
            moved.append(Camera(cam.K, pose, cam.width, cam.height))
        found = run(moved, px)
        np.testing.assert_allclose(found.xyz - shift, xyz, atol=1e-10 if shift == 0 else 2e-7)
        assert (found.outcome == 0).all() and found.error.max() < 1e-3


def test_two_views_agree_with_opencv():
    cams = cameras(2)
    xyz, px = observed(cams, 500, 0.3)
    P = [cam.K @ cam.cam_from_world[:3] for cam in cams]
    theirs = cv2.triangulatePoints(P[0], P[1], px[0].T, px[1].T)
    theirs = (theirs[:3] / theirs[3]).T
    ours = run(cams, px).xyz
    # The linear solution is not the optimal one, but both lie within a fraction of what the noise moves them.
    moved = np.linalg.norm(theirs - xyz, axis=1)
    assert np.median(np.linalg.norm(ours - theirs, axis=1)) < 0.02 * np.median(moved)

    def reprojected(points):
        error = [project(c.K, c.cam_from_world, points)[0] - at for c, at in zip(cams, px, strict=True)]
        return (np.stack(error) ** 2).sum(axis=(0, 2))

    # Cauchy weights give a little of the plain squares away where a point misses by much.
    assert (reprojected(ours) <= reprojected(theirs) * 1.05 + 1e-9).mean() > 0.98


def test_many_views_agree_with_pycolmap():
    pycolmap = pytest.importorskip("pycolmap")
    if not hasattr(pycolmap, "estimate_triangulation"):
        pytest.skip("this pycolmap has no estimate_triangulation")
    cams = cameras(5)
    xyz, px = observed(cams, 50, 0.3)
    ours = run(cams, px).xyz
    theirs = []
    for k in range(len(xyz)):
        poses = [pycolmap.Rigid3d(cam.cam_from_world[:3]) for cam in cams]
        lenses = [
            pycolmap.Camera(
                model="PINHOLE",
                width=cam.width,
                height=cam.height,
                params=[cam.fx, cam.fy, cam.K[0, 2], cam.K[1, 2]],
            )
            for cam in cams
        ]
        theirs.append(pycolmap.estimate_triangulation(px[:, k], poses, lenses)["xyz"])
    # Their solution is linear over the inliers: as far from the truth as ours, or farther.
    mistake_ours, mistake_theirs = (np.linalg.norm(p - xyz, axis=1) for p in (ours, np.stack(theirs)))
    assert np.median(mistake_ours) < 1.05 * np.median(mistake_theirs)
    assert np.median(np.linalg.norm(ours - np.stack(theirs), axis=1)) < np.median(mistake_theirs)


@pytest.mark.parametrize("views", [2, 3, 6])
def test_the_error_is_what_the_noise_allows(views: int):
    """The covariance of an efficient estimate is (JᵀJ)⁻¹ σ²; normalised by it, squared errors have the mean 3."""
    cams, sigma = cameras(views), 0.25
    xyz, px = observed(cams, 4000, sigma)
    found = run(cams, px)
    assert (found.outcome == 0).all()
    J = np.zeros((len(xyz), 2 * views, 3))
    for j, cam in enumerate(cams):
        for axis in range(3):
            step = np.eye(3)[axis] * 1e-5
            ahead, behind = (project(cam.K, cam.cam_from_world, xyz + s)[0] for s in (step, -step))
            J[:, 2 * j : 2 * j + 2, axis] = (ahead - behind) / 2e-5
    information = np.einsum("mki,mkj->mij", J, J) / sigma**2
    error = found.xyz - xyz
    normalised = np.einsum("mi,mij,mj->m", error, information, error)
    # The mean of 4000 values of variance 6 is within 0.12 of 3 in 997 of 1000 cases. Weights that distrust large
    # residuals cost under 1 % with residuals this far below max_error.
    assert 2.88 < normalised.mean() < 3.15
    away = xyz - cams[0].center
    along = (error * away / np.linalg.norm(away, axis=1, keepdims=True)).sum(axis=1)
    assert 0.97 < np.sqrt(np.mean((along / (found.sigma * sigma)) ** 2)) < 1.05


def test_neighbours_that_are_wrong_are_found_out():
    cams, sigma = cameras(5), 0.25
    xyz, px = observed(cams, 2000, sigma)
    rng = np.random.default_rng(1)
    wrong = rng.random(px.shape[:2]) < 0.25
    wrong[0] = False  # the reference is where we ask
    wrong[:, wrong.sum(axis=0) > 2] = False  # two right ones are left
    px[wrong] += rng.choice([-1, 1], (int(wrong.sum()), 2)) * rng.uniform(20, 200, (int(wrong.sum()), 2))
    found = run(cams, px, max_error=1.5)
    kept = found.outcome == 0
    assert kept.mean() > 0.99
    assert not (found.used & wrong)[:, kept].any()
    clean = run(cams, observed(cams, 2000, sigma)[1], max_error=1.5)
    spoilt, unspoilt = (np.median(np.linalg.norm(f.xyz - xyz, axis=1)[kept]) for f in (found, clean))
    assert spoilt < 1.5 * unspoilt  # fewer photos are left for a point
