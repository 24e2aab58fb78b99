"""What training needs beside renders: the loss with its gradient, and Adam for tensors of any shape."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .cuda import engine_for
from .engines import Engine, cpu_engine
from .rasterization import Workspace
from .tensors import address

if TYPE_CHECKING:
    import torch


def l1_dssim(
    rgb: torch.Tensor,
    target: torch.Tensor,
    ssim_weight: float,
    counts: torch.Tensor | None = None,
    *,
    workspace: Workspace | None = None,
    out: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(1 − w) mean|rgb − target| + w (1 − mean SSIM), w = ssim_weight, and its gradient w.r.t. rgb, in one call.

    Args:
        rgb, target: [h, w, 3] float32 in [0, 1], on the device of the engine.
        counts: [h, w, 3] 1 where the pixel counts, 0 where not (taken as 0 on both sides, with gradient 0); None: all.
        workspace: buffers to use, None for some of an engine of ``rgb``'s device.
        out: [h, w, 3] memory for the gradient.
    Returns:
        loss (0-dim, on the device: float64 of the CPU engine, float32 of the CUDA engine), v_rgb [h, w, 3].
    Source: Kerbl et al. 2023 eq. 7; SSIM of Wang et al. 2004 with an 11×11 Gaussian window, σ 1.5, zero padding.
    """
    height, width = rgb.shape[:2]
    shape = (height, width, 3)
    workspace = workspace or Workspace(engine_for(rgb.device))
    engine, buffers = workspace.engine, workspace.buffers
    v_rgb = engine.empty(*shape) if out is None else out
    loss = engine.empty(3, dtype=engine.loss_dtype)
    engine.call(
        "l1_ssim",
        "loss",
        buffers.handle,
        engine.pointer("rgb", rgb, shape),
        engine.pointer("target", target, shape),
        None if counts is None else engine.pointer("counts", counts, shape),
        width,
        height,
        ssim_weight,
        engine.pointer("gradient of rgb", v_rgb, shape),
        address(loss),
        buffers=buffers,
    )
    return loss.select(0, 0), v_rgb


def adam_step_(
    param: torch.Tensor,
    grad: torch.Tensor,
    exp_avg: torch.Tensor,
    exp_avg_sq: torch.Tensor,
    *,
    lr: float,
    step: int,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-15,
    engine: Engine | None = None,
) -> None:
    """One Adam step in place on a tensor of any shape; ``step`` counts from 1. Kingma & Ba 2015, algorithm 1.

    ``engine``: None for that of ``param``'s device.
    """
    shape = tuple(param.shape)
    engine = engine or engine_for(param.device) or cpu_engine()
    engine.adam(
        engine.pointer("param", param, shape),
        engine.pointer("grad", grad, shape),
        engine.pointer("exp_avg", exp_avg, shape),
        engine.pointer("exp_avg_sq", exp_avg_sq, shape),
        param.numel(),
        lr,
        beta1,
        beta2,
        eps,
        step,
    )
