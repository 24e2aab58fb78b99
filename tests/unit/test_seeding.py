"""Seeding: scales, opacities and colours that can be checked by hand, and the points that cannot be seeded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from splatinit.errors import BadPoints, ConfigError
from splatinit.seeding import FLOOR_OF_MEDIAN, SH_C0, SeedConfig, seed_gaussians
from splatinit.types import PointCloud


def cloud(xyz, rgb=None, **fields) -> PointCloud:
    xyz = np.asarray(xyz, dtype=np.float32)
    return PointCloud(xyz=xyz, rgb=np.full((len(xyz), 3), 0.5) if rgb is None else rgb, **fields)


def grid(n: int) -> np.ndarray:
    axis = np.arange(n, dtype=np.float32)
    return np.stack(np.meshgrid(axis, axis, axis), axis=-1).reshape(-1, 3)


def test_defaults_are_those_of_3dgs():
    points = cloud(grid(4), rgb=np.random.default_rng(0).random((64, 3)))
    g = seed_gaussians(points)
    assert len(g) == 64 and g.sh_degree == 3
    assert all(t.dtype == torch.float32 and t.device.type == "cpu" for t in g.tensors().values())
    torch.testing.assert_close(g.means, torch.from_numpy(points.xyz))
    torch.testing.assert_close(g.quats, torch.tensor([1.0, 0, 0, 0]).expand(64, 4))
    torch.testing.assert_close(g.scales, torch.ones(64, 3))  # the 3 nearest of each grid point are 1 away
    torch.testing.assert_close(g.opacities, torch.full((64,), 0.1))
    torch.testing.assert_close(g.sh0[:, 0] * SH_C0 + 0.5, torch.from_numpy(points.rgb))
    assert not g.shN.any()


def test_mean_distance_not_root_mean_square():
    g = seed_gaussians(cloud([[0, 0, 0], [1, 0, 0], [3, 0, 0], [7, 0, 0]]), SeedConfig(max_scale_quantile=1.0))
    torch.testing.assert_close(g.scales[:, 0], torch.tensor([11 / 3, 3, 3, 17 / 3]))


def test_duplicates_are_floored_and_isolated_points_capped():
    xyz = np.concatenate([grid(6), np.full((5, 3), 2.5, np.float32), [[1e4, 0, 0]]])
    g = seed_gaussians(cloud(xyz))
    scale = g.scales[:, 0].numpy()
    assert np.isfinite(scale).all()
    np.testing.assert_allclose(scale[-6:-1], FLOOR_OF_MEDIAN, rtol=1e-5)
    assert scale[-1] < 2
    uncapped = seed_gaussians(cloud(xyz), SeedConfig(max_scale_quantile=1.0)).scales
    assert uncapped[-1, 0] > 9e3


def test_small_clouds_are_not_capped():
    g = seed_gaussians(cloud([[0, 0, 0], [1, 0, 0], [0, 1, 0], [100, 0, 0]]))
    assert g.scales[-1, 0] == pytest.approx(np.mean([99, 100, np.hypot(100, 1)]), rel=1e-5)


def test_points_that_know_better():
    points = cloud(grid(2), radius=np.full(8, 0.25), opacity=np.linspace(0, 1, 8))
    g = seed_gaussians(points, SeedConfig(scale_factor=7.0, sh_degree=1))
    torch.testing.assert_close(g.scales, torch.full((8, 3), 0.25))
    assert torch.isfinite(g.logit_opacities).all()
    torch.testing.assert_close(g.opacities, torch.linspace(0, 1, 8).clamp(1e-4, 1 - 1e-4), atol=1e-6, rtol=1e-5)
    assert g.sh_degree == 1


def test_scale_factor_and_opacity():
    g = seed_gaussians(cloud(grid(3)), SeedConfig(scale_factor=0.1, opacity=0.5, sh_degree=0))
    torch.testing.assert_close(g.scales, torch.full((27, 3), 0.1))
    assert not g.logit_opacities.any() and g.shN.shape == (27, 0, 3)


@pytest.mark.parametrize(("degree", "kept"), [(0, 0), (1, 3), (3, 8)])
def test_sh_of_the_points_goes_as_far_as_the_training(degree, kept):
    sh = np.random.default_rng(0).normal(size=(8, 8, 3)).astype(np.float32)
    shN = seed_gaussians(cloud(grid(2), sh=sh), SeedConfig(sh_degree=degree)).shN
    assert shN.shape == (8, (degree + 1) ** 2 - 1, 3)
    np.testing.assert_array_equal(shN[:, :kept], sh[:, :kept])
    assert not shN[:, kept:].any()


def test_the_points_are_copied():
    points = cloud(grid(2))
    seed_gaussians(points).means.zero_()
    assert points.xyz.any()


def covariances(g) -> np.ndarray:
    """[n, 3, 3] by scipy's rotations: an oracle that shares nothing with the seeding."""
    R = Rotation.from_quat(g.quats.double().numpy()[:, [1, 2, 3, 0]]).as_matrix()
    return R @ (np.eye(3) * g.scales.double().numpy()[:, None, :] ** 2) @ R.transpose(0, 2, 1)


NEARLY_DOWN = [1e-9, 0.0, -1.0]
AXES = [*np.eye(3), *-np.eye(3), NEARLY_DOWN, [0.6, 0.0, 0.8], [0.6, 0.0, -0.8], [0.0, 1.0, 1e-30], [3.0, -4.0, 12.0]]


@pytest.mark.parametrize("thickness", [1.0, 0.5, 1e-3])
def test_discs_lie_across_their_normals(thickness):
    rng = np.random.default_rng(0)
    normal = np.concatenate([AXES, rng.normal(size=(50, 3))])
    points = cloud(rng.normal(size=normal.shape), normal=normal, radius=rng.uniform(0.1, 2, len(normal)))
    g = seed_gaussians(points, SeedConfig(thickness=thickness))
    torch.testing.assert_close(g.quats.norm(dim=1), torch.ones(len(normal)))
    for covariance, n, s in zip(covariances(g), normal, points.radius, strict=True):
        along = np.outer(n, n) / (n @ n)
        expected = s**2 * (np.eye(3) - along) + (thickness * s) ** 2 * along
        np.testing.assert_allclose(covariance, expected, atol=1e-6 * s**2)


def test_planes_of_the_neighbours_where_points_bring_no_normals():
    rng = np.random.default_rng(0)
    flat = np.column_stack([rng.uniform(0, 1, (400, 2)), np.zeros(400)]) @ rotation(0.7).T
    loose = rng.uniform(5, 6, (400, 3))
    points = cloud(np.concatenate([flat, loose]), radius=np.full(800, 0.5), normal=np.zeros((800, 3)))
    g = seed_gaussians(points, SeedConfig(thickness=0.2, normals="neighbours"))
    n = rotation(0.7)[:, 2]
    along = np.outer(n, n)
    expected = 0.5**2 * (np.eye(3) - along) + 0.1**2 * along
    np.testing.assert_allclose(covariances(g)[:400], np.broadcast_to(expected, (400, 3, 3)), atol=1e-5)
    # Points that fill a volume are no discs.
    assert g.scales[400:].min() > 0.15 and g.scales[400:].max() <= 0.5 * (1 + 1e-6)
    assert g.scales[400:, 2].median() > 0.35


def rotation(angle: float) -> np.ndarray:
    return Rotation.from_rotvec([angle, 2 * angle, -angle]).as_matrix()


def test_points_without_normals_are_balls():
    points = cloud(grid(2))
    discs, balls = (seed_gaussians(points, SeedConfig(thickness=t)) for t in (0.2, 1.0))
    for name, value in balls.tensors().items():
        assert torch.equal(discs.tensors()[name], value)


def test_normals_without_a_direction():
    normal = np.tile([0.0, 0.0, 1.0], (8, 1))
    normal[[2, 5]] = 0
    points = cloud(grid(2), normal=normal)
    text = r"2 of 8 points have the normal \(0, 0, 0\).*the first is number 2"
    with pytest.raises(BadPoints, match=text) as error:
        seed_gaussians(points, SeedConfig(thickness=0.5))
    assert "seeding.thickness=1" in error.value.hint
    assert len(seed_gaussians(points)) == 8  # balls need no normal
    normal[2] = np.nan
    with pytest.raises(BadPoints, match="1 of 8 points have non-finite normal"):
        seed_gaussians(cloud(grid(2), normal=normal), SeedConfig(thickness=0.5))


@pytest.mark.parametrize(
    ("points", "text"),
    [
        (cloud(np.zeros((0, 3))), "is empty"),
        (cloud([[0, 0, np.nan]]), "non-finite xyz"),
        (cloud([[0, 0, 0]]), "all lie at one place"),
        (cloud(np.ones((9, 3))), "all lie at one place"),
        (cloud(grid(2), radius=np.zeros(8)), "not positive"),
    ],
)
def test_points_that_cannot_be_seeded(points, text):
    with pytest.raises(BadPoints, match=text):
        seed_gaussians(points)


@pytest.mark.parametrize(
    "bad",
    [
        {"sh_degree": 4},
        {"opacity": 0.0},
        {"opacity": 1.0},
        {"scale_factor": 0.0},
        {"max_scale_quantile": 0.0},
        {"thickness": 0.0},
        {"thickness": 1.5},
        {"normals": "neighbors"},
    ],
)
def test_bad_settings_are_named(bad):
    with pytest.raises(ConfigError, match=f"seeding.{next(iter(bad))} is"):
        SeedConfig(**bad)
