"""What each process does that tests/unit/test_distributed.py starts with torchrun: ``distributed_worker.py OUT``.

gsplat draws with the kernels of tests/gsplat_kernels.py, and the processes talk by gloo: no GPU is needed.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import gsplat_kernels
import numpy as np
import pytest
import torch
from strategies import RasterCase

from splatinit import distributed
from splatinit.densify.adc import Adc, AdcConfig
from splatinit.densify.base import Change
from splatinit.raster import make_rasterizer
from splatinit.raster.base import RasterSettings
from splatinit.types import Camera, Gaussians, Render

CASE = RasterCase(seed=7, n=61)
MODES = {"classic": RasterSettings(), "antialiased": RasterSettings(antialiased=True)}


def camera_of(rank: int) -> Camera:
    """The view of each process: that of the case, and one from a little beside it."""
    camera, moved = CASE.camera, np.eye(4)
    moved[:3, 3] = [0.3 * rank, -0.1 * rank, 0.2 * rank]
    return replace(camera, cam_from_world=moved @ camera.cam_from_world)


def step(rasterizer, gaussians: Gaussians, rank: int, settings: RasterSettings) -> tuple[Render, torch.Tensor]:
    """The picture of one view, and its loss."""
    case = replace(CASE, seed=100 + rank)
    render = rasterizer.render(
        gaussians, camera_of(rank), settings=settings, background=case.background, with_depth=True, with_stats=True
    )
    images = (render.rgb, render.alpha, render.depth)
    return render, sum((image * given.float()).sum() for image, given in zip(images, case.cotangents(), strict=True))


def draw(group: distributed.Group, settings: RasterSettings) -> dict[str, torch.Tensor]:
    """Picture, gradients and statistics of one step."""
    rasterizer = group.rasterizer(make_rasterizer("gsplat"))
    mine = group.part(CASE.gaussians).map(lambda tensor: tensor.requires_grad_())
    render, loss = step(rasterizer, mine, group.rank, settings)
    loss.backward()
    assert render.aux.blend_weight is None and render.aux.v_means2d_abs is None
    found = {"rgb": render.rgb.detach(), "alpha": render.alpha.detach(), "depth": render.depth.detach()}
    found |= {f"gradient {field}": tensor.grad for field, tensor in mine.tensors().items()}
    adc = Adc(AdcConfig())
    adc.begin(steps=1000, extent=1.0)
    for view, (aux, counts) in enumerate(group.seen(render.aux, None, None)):
        assert counts is None
        for field in ("v_means2d", "visible", "means2d", "depths", "radii"):
            found[f"view {view} {field}"] = getattr(aux, field).detach().clone()
        adc.observe(1, aux, CASE.camera)
    return found | {"adc sum": adc._gradient_sum, "adc seen": adc._seen}


def words(group: distributed.Group, out: Path) -> dict[str, torch.Tensor]:
    """What is said between processes."""
    whole = group.whole(group.part(CASE.gaussians))
    found = {f"whole {field}": tensor for field, tensor in whole.tensors().items()}
    change = group.summed(Change(cloned=1 + group.rank, pruned=5, opacities_reset=True))
    assert change == Change(cloned=3, pruned=10, opacities_reset=True), change
    found["total"] = torch.tensor(group.total(10 + group.rank))
    agreed = [group.agreed(step, group.rank == 1 and step > 16, False) for step in range(1, 40)]
    assert all(wishes == (False, False) for step, wishes in enumerate(agreed, 1) if step != 32), agreed
    found["agreed"] = torch.tensor(agreed[31])
    found["start"] = torch.tensor([group.wait_for_start(True), group.wait_for_start(False)])
    size = (4, 6)
    counts = torch.zeros(*size, 3) if group.rank else None
    aux = type("Aux", (), {"views": ["first", "second"], "means2d": torch.zeros(1)})()
    (_, first), (_, second) = group.seen(aux, counts, size)
    found |= {"counts first": first, "counts second": second}
    return found | checkpoints(group, out / "checkpoints")


def checkpoints(group: distributed.Group, root: Path) -> dict[str, torch.Tensor]:
    from splatinit.errors import ConfigError
    from splatinit.io.checkpoints import save_checkpoint

    folder = group.folder(root)
    assert group.latest(folder).checkpoint is None
    for step in (10, 20, 30)[: 3 - group.rank]:  # the second process died before the third
        save_checkpoint(folder, step, {"x": torch.tensor([step + group.rank])}, {})
    found = {"common": group.latest(folder).checkpoint.tensors["x"]}
    if group.rank == 0:
        save_checkpoint(folder, 40, {"x": torch.tensor([40])}, {})
        save_checkpoint(folder, 50, {"x": torch.tensor([50])}, {})
    with pytest.raises(ConfigError, match=r"no step in common \(process 0: \[40, 50\]; process 1: \[10, 20\]\)"):
        group.latest(folder)
    return found


def main(out: Path) -> None:
    torch.set_num_threads(1)
    patch = pytest.MonkeyPatch()
    gsplat_kernels.install(patch)
    gsplat_kernels.install_distributed(patch)
    group = distributed.join("gsplat")
    found = {f"words: {key}": value for key, value in words(group, out).items()}
    for mode, settings in MODES.items():
        found |= {f"{mode}: {key}": value for key, value in draw(group, settings).items()}
    torch.save(found, out / f"process_{group.rank}.pt")
    group.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
