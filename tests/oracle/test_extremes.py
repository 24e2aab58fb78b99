"""The native engines on numbers that no sane scene holds: no crash, and no NaN in the picture of finite input."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from splatinit import native
from splatinit.errors import BackendError
from splatinit.raster.base import RasterSettings
from splatinit.types import Camera, Gaussians

pytestmark = pytest.mark.skipif(not native.available(), reason="splat_cpu is not built in this installation")


def extreme_gaussians(seed: int) -> Gaussians:
    """Places up to 1e8 away, quaternions of length 0 to 1e18, scales from e^-120 to e^120, opacities of exactly 0 and
    1, colours of 1e10."""
    pick, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    n, k = pick.choice([0, 1, 7, 60, 300]), pick.choice([0, 3, 8, 15])
    return Gaussians(
        means=torch.randn(n, 3, generator=generator) * pick.choice([0.1, 1, 100, 1e8]) + torch.tensor([0, 0, 2.0]),
        quats=torch.randn(n, 4, generator=generator) * pick.choice([0, 1e-20, 1, 1e18]),
        log_scales=torch.randn(n, 3, generator=generator) * pick.choice([1, 10, 40]) + pick.choice([-3, -40, 5]),
        logit_opacities=torch.randn(n, generator=generator) * pick.choice([1, 20, 1e3]),
        sh0=torch.randn(n, 1, 3, generator=generator),
        shN=torch.randn(n, k, 3, generator=generator) * pick.choice([0.1, 1e10]),
    )


def extreme_camera(seed: int) -> Camera:
    pick = random.Random(-seed)
    width, height, focal = pick.choice([1, 16, 17, 70]), pick.choice([1, 15, 16, 40]), pick.choice([5, 60, 5000.0])
    return Camera(np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]), np.eye(4), width, height)


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("poison", [None, float("nan"), float("inf"), -float("inf"), 1e-42])
def test_extreme_numbers_are_survived(seed: int, poison: float | None, engine) -> None:
    gaussians = extreme_gaussians(seed)
    if poison is not None:
        pick = random.Random(seed)
        for tensor in gaussians.tensors().values():
            if tensor.numel():
                tensor.view(-1)[pick.randrange(tensor.numel())] = poison
    gaussians = gaussians.map(lambda tensor: tensor.to(engine.device).requires_grad_())
    camera, settings = extreme_camera(seed), RasterSettings(antialiased=bool(seed % 2))
    render = engine.render(gaussians, camera, settings=settings, with_depth=True, with_stats=True)
    (render.rgb.nan_to_num().sum() + render.alpha.sum()).backward()
    if poison is None or np.isfinite(poison):
        assert render.rgb.isfinite().all() and render.alpha.isfinite().all() and render.depth.isfinite().all()


def one_gaussian(**fields: list[float]) -> Gaussians:
    """A ball of 0.1 two units in front of the camera, of opacity 0.88, with other numbers for some fields."""
    numbers = {
        "means": [0, 0, 2.0],
        "quats": [1.0, 0, 0, 0],
        "log_scales": [-2.3] * 3,
        "logit_opacities": [2.0],
        "sh0": [0.5] * 3,
        "shN": [0.0] * 9,
        **fields,
    }
    shapes = {"logit_opacities": (1,), "sh0": (1, 1, 3), "shN": (1, 3, 3)}
    made = {name: torch.tensor(row).float().reshape(shapes.get(name, (1, -1))) for name, row in numbers.items()}
    return Gaussians(**made)


def drawn(engine, gaussians: Gaussians, pose: np.ndarray | None = None, settings: RasterSettings = RasterSettings()):
    camera = Camera(np.array([[20.0, 0, 10], [0, 20, 8], [0, 0, 1]]), np.eye(4) if pose is None else pose, 20, 16)
    gaussians = gaussians.map(lambda tensor: tensor.to(engine.device).requires_grad_())
    render = engine.render(gaussians, camera, settings=settings, with_depth=True, with_stats=True)
    (render.rgb.sum() + render.depth.sum()).backward()
    return render


def test_a_colour_beyond_float_is_cut(engine) -> None:
    render = drawn(engine, one_gaussian(sh0=[3e38] * 3, shN=[3e38] * 9))
    assert render.alpha.max() > 0.5  # it is drawn
    assert render.rgb.isfinite().all() and 1e29 < render.rgb.max() <= 1e30


def test_a_depth_beyond_float_is_not_drawn(engine) -> None:
    """Mean and translation are finite, their sum is not; on the axis nothing else gives it away."""
    pose = np.eye(4)
    pose[2, 3] = 3e38
    for z in (3e38, 0.0):  # a sum of infinity, and one that a weighted mean would round to it
        render = drawn(engine, one_gaussian(means=[0, 0, z]), pose)
        assert not render.aux.visible.any() and render.alpha.max() == 0
        assert render.depth.isfinite().all() and render.aux.depths.isfinite().all()


def test_a_gaussian_without_any_extent_leads_no_tile_outside_the_image(engine) -> None:
    """Without eps2d its covariance is 0 and its ellipse NaN; int(NaN) is the least int on some machines."""
    generator = torch.Generator().manual_seed(0)
    many = one_gaussian().map(lambda t: t.expand(100, *t.shape[1:]).clone())
    many.log_scales[:] = torch.randn(100, 3, generator=generator) * 30 - 60
    many.means[:, :2] += torch.randn(100, 2, generator=generator)
    render = drawn(engine, many, settings=RasterSettings(eps2d=0.0))
    assert render.rgb.isfinite().all() and render.alpha.isfinite().all()


@pytest.mark.parametrize("eps2d", [-0.3, float("nan")])
def test_a_covariance_that_cannot_be_one_is_refused(eps2d: float, engine) -> None:
    with pytest.raises(BackendError, match=r"render: the native engine refused its arguments \(code -2\)"):
        drawn(engine, one_gaussian(), settings=RasterSettings(eps2d=eps2d))
