"""Random Gaussians with a chosen overlap: n of them fill the view so that a pixel blends about ``blended`` of them."""

from __future__ import annotations

import math

import numpy as np
import torch

from splatinit.types import Camera, Gaussians


def random_scene(n: int, width: int, height: int, blended: float = 30.0, seed: int = 0) -> tuple[Gaussians, Camera]:
    """Gaussians of mixed size, shape and opacity between depth 2 and 10 in front of a camera of 64° field of view.

    The mean opacity is 0.15, so that few pixels saturate and ``blended`` is what a pixel really blends (it is measured
    and printed beside every time).
    """
    random = torch.Generator().manual_seed(seed)
    focal = 0.8 * width
    depth = torch.rand(n, generator=random) * 8 + 2
    x = (torch.rand(n, generator=random) - 0.5) * width / focal * depth
    y = (torch.rand(n, generator=random) - 0.5) * height / focal * depth
    # A Gaussian of opacity 0.15 is drawn out to 2.7 sigma; anisotropy and spread of opacity enlarge the area by 1.2.
    sigma_px = math.sqrt(blended * width * height / n / (math.pi * 2.7**2) / 1.2)
    log_scales = torch.log(sigma_px * depth / focal)[:, None] + 0.4 * torch.randn(n, 3, generator=random)
    gaussians = Gaussians(
        means=torch.stack([x, y, depth], dim=1),
        quats=torch.randn(n, 4, generator=random),
        log_scales=log_scales,
        logit_opacities=torch.randn(n, generator=random) - 2.0,
        sh0=0.5 * torch.randn(n, 1, 3, generator=random),
        shN=0.1 * torch.randn(n, 15, 3, generator=random),
    )
    K = np.array([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])
    return gaussians, Camera(K, np.eye(4), width, height)
