"""What raster/gsplat.py says that gsplat does otherwise than our image model: held exactly, and then left out of the
comparison with the reference, so that everything else is compared as for any other backend."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from decisions import Decisions
from strategies import RasterCase

from splatinit.raster import reference
from splatinit.types import RasterAux


def is_gsplat(rasterizer: Any) -> bool:
    return rasterizer.name in ("gsplat", "gsplat-packed")


def without_floor(compute):
    """``compute()`` by a reference whose antialiasing has no floor."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "COMPENSATION_MIN_SQUARED", 1e-30)
        return compute()


@dataclass
class Comparable:
    """The part of a result (test_raster.Result) on which gsplat and the reference agree."""

    render: Any
    gradients: dict[str, torch.Tensor]


def comparable(case: RasterCase, ours: Any, truth: Any, decisions: Decisions) -> tuple[Comparable, Comparable]:
    """``ours`` and ``truth`` without the differences; fails where these are not what they are said to be."""
    aux, expected = ours.render.aux, truth.render.aux
    visible, radii = aux.visible.cpu(), aux.radii.cpu()
    sure = decisions.gaussians
    lost = expected.visible & ~visible & sure
    assert not lost.any(), f"{case}: gsplat does not see {lost.nonzero()[:10, 0].tolist()}"
    assert torch.equal(radii > 0, visible) and torch.equal(radii, radii.round())
    both = expected.visible & visible
    # Of two sides that are rounded up, the longer one is the longer one rounded up.
    grown = radii - expected.radii.float()
    slack = 1e-3 * (1 + expected.radii.float())
    assert ((grown > -slack) & (grown < 1 + slack))[both].all(), f"{case}: radii"
    beside = visible & ~expected.visible & sure
    for gradient in (aux.v_means2d, aux.v_means2d_abs):
        assert gradient is None or not gradient.cpu()[beside].any(), (
            f"{case}: a Gaussian beside the image has a gradient"
        )

    seen = torch.where(sure, expected.visible, visible)
    kept = {name: getattr(aux, name) for name in ("means2d", "depths", "blend_weight", "v_means2d", "v_means2d_abs")}
    kept |= {name: kept[name].cpu() * seen.view(-1, *[1] * (kept[name].ndim - 1)) for name in ("means2d", "depths")}
    plain = RasterAux(**kept, visible=seen, radii=torch.where(both, expected.radii.float(), radii * seen))
    results = []
    for result in (replace(ours, render=replace(ours.render, aux=plain)), truth):
        pose = along_rotations(result.gradients["cam_from_world"], case.camera.cam_from_world)
        results.append(Comparable(result.render, result.gradients | {"cam_from_world": pose}))
    return results[0], results[1]


def along_rotations(gradient: torch.Tensor, pose: np.ndarray) -> torch.Tensor:
    """The part of a gradient [4, 4] w.r.t. a pose that moves its rotation R along rotations: G → ½ (G − R Gᵀ R)."""
    R = torch.from_numpy(pose[:3, :3]).double()
    found = gradient.detach().cpu().double().clone()
    G = found[:3, :3]
    found[:3, :3] = 0.5 * (G - R @ G.T @ R)
    return found
