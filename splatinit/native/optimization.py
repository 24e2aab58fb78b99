"""What training needs beside renders: the loss with its gradient, and Adam for tensors of any shape."""

from __future__ import annotations

from ctypes import POINTER, c_double, c_float, c_int, c_int64, c_void_p
from typing import TYPE_CHECKING

from .loading import check_code, declare, library
from .rasterization import Workspace
from .tensors import pointer

if TYPE_CHECKING:
    import torch

declare(
    {
        "splat_cpu_l1_ssim": (
            c_int,
            [c_void_p] * 4 + [c_int, c_int, c_float, c_void_p, POINTER(c_double)],
        ),
        "splat_cpu_adam": (c_int, [c_void_p] * 4 + [c_int64] + [c_double] * 4 + [c_int64]),
    }
)


def l1_dssim(
    rgb: torch.Tensor,
    target: torch.Tensor,
    ssim_weight: float,
    counts: torch.Tensor | None = None,
    *,
    workspace: Workspace | None = None,
    out: torch.Tensor | None = None,
) -> tuple[float, torch.Tensor]:
    """(1 − w) mean|rgb − target| + w (1 − mean SSIM), w = ssim_weight, and its gradient w.r.t. rgb, in one call.

    Args:
        rgb, target: [h, w, 3] float32 in [0, 1].
        counts: [h, w, 3] 1 where the pixel counts, 0 where not (taken as 0 on both sides, with gradient 0); None: all.
        workspace: buffers to use, None for some of the pool.      out: [h, w, 3] memory for the gradient.
    Returns:
        loss, v_rgb [h, w, 3].
    Source: Kerbl et al. 2023 eq. 7; SSIM of Wang et al. 2004 with an 11×11 Gaussian window, σ 1.5, zero padding.
    """
    import torch

    height, width = rgb.shape[:2]
    shape = (height, width, 3)
    v_rgb = torch.empty(shape) if out is None else out
    loss = (c_double * 3)()
    workspace = workspace or Workspace()
    code = library().splat_cpu_l1_ssim(
        workspace.handle,
        pointer("rgb", rgb, shape),
        pointer("target", target, shape),
        None if counts is None else pointer("counts", counts, shape),
        width,
        height,
        ssim_weight,
        pointer("gradient of rgb", v_rgb, shape),
        loss,
    )
    check_code(code, "loss")
    return loss[0], v_rgb


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
) -> None:
    """One Adam step in place on a tensor of any shape; ``step`` counts from 1. Kingma & Ba 2015, algorithm 1."""
    shape = tuple(param.shape)
    code = library().splat_cpu_adam(
        pointer("param", param, shape),
        pointer("grad", grad, shape),
        pointer("exp_avg", exp_avg, shape),
        pointer("exp_avg_sq", exp_avg_sq, shape),
        param.numel(),
        lr,
        beta1,
        beta2,
        eps,
        step,
    )
    check_code(code, "Adam")
