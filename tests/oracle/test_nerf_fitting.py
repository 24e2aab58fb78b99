"""Rays, samples and the fit of a radiance field, on a coloured sphere whose pictures and depths are known exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from compare import assert_matches

from splatinit import native
from splatinit.errors import ConfigError, TrainingError
from splatinit.nerf import (
    Ball,
    Box,
    FitConfig,
    FitView,
    HashField,
    HashFieldConfig,
    Rays,
    SamplingConfig,
    camera_rays,
    fit,
    see,
)
from splatinit.nerf.rendering import resample
from splatinit.types import Camera

pytestmark = pytest.mark.skipif(not native.available(), reason="splat_cpu is not built in this installation")
RADIUS = 0.6
SIZE = 24  # px
BOX = Box((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0))
SMALL = HashFieldConfig(levels=4, coarsest=4, finest=24, log2_rows=12, width=16, sh_degree=0)
CONFIG = FitConfig(steps=200, rays=512, sampling=SamplingConfig(coarse=24, fine=16))


def camera(azimuth: float, elevation: float) -> Camera:
    """Looks at the origin from 3 away."""
    z = -np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
    x = np.cross(z, [0, 0, 1.0])
    x /= np.linalg.norm(x)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([x, np.cross(z, x), z])
    pose[2, 3] = 3.0
    return Camera(np.array([[1.6 * SIZE, 0, SIZE / 2], [0, 1.6 * SIZE, SIZE / 2], [0, 0, 1]]), pose, SIZE, SIZE)


def all_rays(view: Camera) -> Rays:
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    return camera_rays(view, torch.stack([x, y], dim=-1).reshape(-1, 2) + 0.5)


def sphere(rays: Rays) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Colour [n, 3], alpha and distance [n]: waves of colour along x, y and z."""
    towards = -(rays.origins * rays.directions).sum(-1)
    inside = RADIUS**2 - ((rays.origins**2).sum(-1) - towards**2)
    distance = towards - inside.clamp(min=0).sqrt()
    points = rays.origins + distance[:, None] * rays.directions
    hit = (inside > 0).float()
    return (0.5 + 0.4 * torch.sin(6 * points)) * hit[:, None], hit, distance


def picture(view: Camera) -> FitView:
    rgb, alpha, _ = sphere(all_rays(view))
    return FitView(view, rgb.reshape(SIZE, SIZE, 3), alpha.reshape(SIZE, SIZE))


VIEWS = [picture(camera(azimuth, e)) for e in (-0.5, 0.4) for azimuth in np.arange(6) * np.pi / 3 + e]


def test_camera_rays_are_those_of_the_pinhole() -> None:
    view = camera(0.3, 0.2)
    rays = all_rays(view)
    ahead = rays.origins + 2.5 * rays.directions
    seen = ahead.double() @ torch.tensor(view.cam_from_world[:3, :3]).T + torch.tensor(view.cam_from_world[:3, 3])
    pixels = seen @ torch.tensor(view.K).T
    expected = torch.stack(torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="xy"), dim=-1) + 0.5
    assert_matches("pixels", pixels[:, :2] / pixels[:, 2:], expected.reshape(-1, 2), 1e-4)
    assert_matches("length", rays.directions.norm(dim=-1), torch.ones(SIZE * SIZE), 1e-6)


def test_distances() -> None:
    origins = torch.tensor([[-3.0, 0, 0], [0, 0, 0], [-3, 5, 0]])
    directions = torch.tensor([[1.0, 0, 0]] * 3)
    s = torch.tensor([[0.0, 0.5, 1.0]] * 3)
    expected = torch.tensor([[2.0, 3, 4], [0, 0.5, 1], [0, 0, 0]])
    assert_matches("box", BOX.distances(origins, directions, s), expected, 1e-6)
    ball = Ball((0.0, 0.0, 0.0), 2.0).distances(origins[:1], directions[:1], torch.tensor([[0, 0.25, 0.5, 0.75, 1.0]]))
    assert_matches("ball", ball, torch.tensor([[0, 2, 4, 4 / 0.501, 2000]]), 1e-2)


def test_resampling_goes_where_the_weights_are() -> None:
    edges = torch.linspace(0, 1, 11).repeat(2, 1)
    weights = torch.zeros(2, 10)
    weights[0, 3] = 0.7
    cuts = resample(edges, weights, 19, 0.0, None)
    assert_matches("within the one bin", cuts[0], 0.3 + 0.1 * (torch.arange(20) + 0.5) / 20, 1e-5)
    assert_matches("evenly without weights", cuts[1], (torch.arange(20) + 0.5) / 20, 1e-5)
    spread = resample(edges, weights, 19, 0.5, torch.Generator().manual_seed(0))[0]
    assert 8 <= int(((spread > 0.3) & (spread < 0.4)).sum()) <= 14 and (spread.diff() >= 0).all()


@pytest.fixture(scope="module")
def fitted() -> HashField:
    field = HashField(SMALL, BOX, seed=1)
    fit(field, VIEWS, CONFIG, seed=1)
    return field


def test_a_new_view_of_the_fitted_sphere(fitted: HashField) -> None:
    rays = all_rays(camera(0.9, 0.1))
    with torch.no_grad():
        seen = see(fitted, rays, CONFIG.sampling)
    rgb, alpha, distance = sphere(rays)
    assert -10 * torch.log10(((seen.rgb - rgb) ** 2).mean()) > 23  # dB
    assert (seen.opacity - alpha).abs().mean() < 0.05
    middle = (rays.origins + distance[:, None] * rays.directions)[alpha > 0].norm(dim=-1)
    assert_matches("the sphere's own points", middle, torch.full_like(middle, RADIUS), 1e-5)
    depth = seen.depth / seen.opacity.clamp(min=1e-3)
    solid = (alpha > 0) & (seen.opacity > 0.9)
    assert solid.sum() > 100 and (depth - distance)[solid].abs().median() < 0.07  # a cell of the finest level is 0.08


def test_same_seed_same_field() -> None:
    short = FitConfig(steps=3, rays=64, sampling=SamplingConfig(8, 8))
    tables = []
    for seed in (1, 1, 2):
        field = HashField(SMALL, BOX)
        losses: list[float] = []
        error = fit(field, VIEWS, short, seed, lambda step, loss, kept=losses: kept.append(loss))
        assert len(losses) == 3 and 0 < error < 1
        tables.append(field.table.detach().clone())
    assert torch.equal(tables[0], tables[1]) and not torch.equal(tables[0], tables[2])


def test_what_cannot_be_fitted_is_refused() -> None:
    with pytest.raises(ConfigError, match="A field cannot be fitted: there are no training views"):
        fit(HashField(SMALL, BOX), [], CONFIG)
    broken = FitView(VIEWS[0].camera, torch.full((SIZE, SIZE, 3), torch.nan))
    with pytest.raises(TrainingError, match=r"The field diverged: its loss is nan at step 1 of 200") as caught:
        fit(HashField(SMALL, BOX), [broken], CONFIG)
    assert "Lower the rate (lr is 0.01)" in str(caught.value)
