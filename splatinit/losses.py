"""What training minimises: photometric L1 + D-SSIM, and the pull of a depth prior."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from . import native

SSIM_WINDOW = 11  # px, width of the Gaussian window (Wang et al. 2004)
SSIM_SIGMA = 1.5  # px
SSIM_C1 = 0.01**2
SSIM_C2 = 0.03**2


def l1_dssim(
    rgb: torch.Tensor, target: torch.Tensor, ssim_weight: float, counts: torch.Tensor | None = None
) -> torch.Tensor:
    """(1 − w) · mean |rgb − target| + w · (1 − mean SSIM): the loss of 3DGS (Kerbl et al. 2023, eq. 7).

    The SSIM map has the size of the image, with zeros beyond its border, as in 3DGS's training loss; the metric of
    the same name (:mod:`splatinit.metrics`) leaves the border out.

    Pixels that do not count are 0 on both sides, as if they lay beyond the border: they have no error, their gradient
    is exactly 0, and what the photo shows there reaches no SSIM window of their neighbours. The means stay over all
    pixels, so that a pixel that counts weighs the same in every view, however much of the view is masked.

    Args:
        rgb, target: [h, w, 3] float sRGB; ``target`` gets no gradient.
        ssim_weight: w in [0, 1].
        counts: [h, w, 3] 1 where the pixel counts, 0 where it does not, in the dtype of ``rgb``; None: all do.

    Returns:
        Scalar tensor. Computed by one native call (value and gradient together) where that is possible.
    """
    if rgb.dtype == target.dtype == torch.float32 and native.engine_for(rgb.device) is not None:
        return _FusedL1Dssim.apply(rgb.contiguous(), target.contiguous(), ssim_weight, counts)
    if counts is not None:
        # Whatever it is there: the colour of an unknown pixel need not be finite.
        rgb = torch.where(counts > 0, rgb, torch.zeros((), dtype=rgb.dtype, device=rgb.device))
        target = target * counts
    if rgb.device.type == "cuda":
        # cuDNN rounds the floats that it convolves to 10 bits, forward and backward; it leaves doubles as they are.
        return l1_dssim_torch(rgb.double(), target.double(), ssim_weight).to(rgb.dtype)
    return l1_dssim_torch(rgb, target, ssim_weight)


class _FusedL1Dssim(torch.autograd.Function):
    """The native kernel computes the gradient in the same pass as the loss; backward only hands it on."""

    @staticmethod
    def forward(
        ctx, rgb: torch.Tensor, target: torch.Tensor, ssim_weight: float, counts: torch.Tensor | None
    ) -> torch.Tensor:
        loss, v_rgb = native.l1_dssim(rgb, target, ssim_weight, counts)
        ctx.save_for_backward(v_rgb)
        return loss.float()

    @staticmethod
    def backward(ctx, v_loss: torch.Tensor):
        (v_rgb,) = ctx.saved_tensors
        # Nearly always the loss is differentiated by itself, and a pass over the image is saved; on a GPU that pass is
        # nothing beside waiting for the number.
        alone = v_loss.device.type == "cpu" and float(v_loss) == 1.0
        return (v_rgb if alone else v_rgb * v_loss), None, None, None


def l1_dssim_torch(rgb: torch.Tensor, target: torch.Tensor, ssim_weight: float) -> torch.Tensor:
    """:func:`l1_dssim` in plain torch, for any device and float dtype: the fallback, and the oracle of the kernel."""
    x, y = rgb.permute(2, 0, 1), target.permute(2, 0, 1)
    window = torch.arange(SSIM_WINDOW, dtype=torch.float64, device=rgb.device) - SSIM_WINDOW // 2
    window = torch.exp(-(window**2) / (2 * SSIM_SIGMA**2))
    window = (window / window.sum()).to(rgb)
    # Five blurs of three channels as one batch of 15 single-channel images, rows first, then columns.
    maps = torch.cat([x, y, x * x, y * y, x * y])[:, None]
    pad = SSIM_WINDOW // 2
    maps = F.conv2d(maps, window.view(1, 1, 1, -1), padding=(0, pad))
    maps = F.conv2d(maps, window.view(1, 1, -1, 1), padding=(pad, 0))
    mu_x, mu_y, xx, yy, xy = maps[:, 0].split(3)
    numerator = (2 * mu_x * mu_y + SSIM_C1) * (2 * (xy - mu_x * mu_y) + SSIM_C2)
    denominator = (mu_x**2 + mu_y**2 + SSIM_C1) * (xx - mu_x**2 + yy - mu_y**2 + SSIM_C2)
    ssim = (numerator / denominator).mean()
    return (1 - ssim_weight) * (x - y).abs().mean() + ssim_weight * (1 - ssim)


def relative_depth_l1(
    depth: torch.Tensor, alpha: torch.Tensor, prior: torch.Tensor, confidence: torch.Tensor
) -> torch.Tensor:
    """Confidence-weighted L1 between rendered and prior depth, relative to the prior: the pull of a depth prior.

    Relative, so that it does not depend on the unit of the scene and the far does not outweigh the near. Each pixel
    also counts by how much of it is covered (``alpha``, without gradient): the expected depth of a nearly empty pixel
    is the quotient of two small numbers and its gradient unbounded.

    Args:
        depth: [h, w] expected depth, scene units.       alpha: [h, w] in [0, 1].
        prior: [h, w] scene units, 0 = unknown.          confidence: [h, w] in [0, 1].

    Returns:
        Scalar: mean over all h · w pixels.
    """
    return (_depth_weight(alpha, prior, confidence) * (depth - prior).abs()).mean()


def relative_depth_l1_vjp(
    depth: torch.Tensor, alpha: torch.Tensor, prior: torch.Tensor, confidence: torch.Tensor, v_loss: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """``v_loss`` times :func:`relative_depth_l1`, and its gradient [h, w] w.r.t. ``depth``: the bits of autograd, for a
    step that has no graph."""
    weight = _depth_weight(alpha, prior, confidence)
    error = depth - prior
    # Autograd divides the float32 gradient of the mean by the number of pixels.
    each = float(np.float32(v_loss) / np.float32(depth.numel()))
    return v_loss * (weight * error.abs()).mean(), each * weight * error.sgn()


def _depth_weight(alpha: torch.Tensor, prior: torch.Tensor, confidence: torch.Tensor) -> torch.Tensor:
    return torch.where(prior > 0, confidence * alpha.detach() / prior.clamp_min(1e-12), 0.0)
