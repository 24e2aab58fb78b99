"""The native engine on numbers that no sane scene holds: no crash, and no NaN in the picture of finite input."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from splatinit import native
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
def test_extreme_numbers_are_survived(seed: int, poison: float | None) -> None:
    from splatinit.raster.native import CpuRasterizer

    gaussians = extreme_gaussians(seed)
    if poison is not None:
        pick = random.Random(seed)
        for tensor in gaussians.tensors().values():
            if tensor.numel():
                tensor.view(-1)[pick.randrange(tensor.numel())] = poison
    gaussians = gaussians.map(lambda tensor: tensor.requires_grad_())
    camera, settings = extreme_camera(seed), RasterSettings(antialiased=bool(seed % 2))
    render = CpuRasterizer().render(gaussians, camera, settings=settings, with_depth=True, with_stats=True)
    (render.rgb.nan_to_num().sum() + render.alpha.sum()).backward()
    if poison is None or np.isfinite(poison):
        assert render.rgb.isfinite().all() and render.alpha.isfinite().all() and render.depth.isfinite().all()
