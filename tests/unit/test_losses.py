from __future__ import annotations

import pytest
import torch

from splatinit import native
from splatinit.losses import l1_dssim, l1_dssim_torch, relative_depth_l1

SIZES = [(1, 1), (5, 7), (11, 11), (16, 33), (40, 64)]


def pair(size: tuple[int, int], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return torch.rand(*size, 3, generator=random), torch.rand(*size, 3, generator=random)


def test_equal_images_cost_nothing_and_pull_nowhere():
    rgb, _ = pair((12, 20))
    x = rgb.clone().requires_grad_()
    loss = l1_dssim(x, rgb, 0.2)
    loss.backward()
    assert abs(loss.item()) < 1e-6
    assert float(x.grad.abs().max()) < 1e-6


def test_weight_zero_is_the_mean_absolute_difference():
    x, y = pair((9, 6))
    assert float(l1_dssim(x, y, 0.0)) == pytest.approx(float((x - y).abs().mean()), rel=1e-6)


def test_ssim_of_constant_images_by_hand():
    # In the middle of two large flat images (0.5 and 0.25) all variances vanish: SSIM = (2ab + C1) / (a² + b² + C1).
    # Near the border the zero padding scales both means by the covered share s of the window, and there variance and
    # covariance become (s − s²) times a², b², ab.
    x, y = torch.full((30, 30, 3), 0.5), torch.full((30, 30, 3), 0.25)
    window = torch.exp(-(torch.arange(-5.0, 6.0).double() ** 2) / (2 * 1.5**2))
    window = window / window.sum()
    share = torch.tensor([float(window[max(0, 5 - i) : 11 - max(0, i - 24)].sum()) for i in range(30)]).double()
    s = share[:, None] * share[None, :]
    a, b, c1, c2 = 0.5, 0.25, 0.01**2, 0.03**2
    v = s - s * s
    ssim = (2 * a * b * s * s + c1) * (2 * a * b * v + c2)
    ssim = ssim / ((a * a + b * b) * s * s + c1) / ((a * a + b * b) * v + c2)
    assert float(l1_dssim(x, y, 1.0)) == pytest.approx(1 - float(ssim.mean()), abs=1e-5)


def test_gradient_of_the_torch_version_by_finite_differences():
    x, y = (t.double() for t in pair((7, 6), seed=3))
    assert torch.autograd.gradcheck(lambda r: l1_dssim_torch(r, y, 0.2), (x.requires_grad_(),), eps=1e-7, atol=1e-6)


@pytest.mark.skipif(not native.available(), reason="the native library is not built")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("ssim_weight", [0.0, 0.2, 1.0])
def test_native_is_the_torch_version(size, ssim_weight):
    x, y = pair(size, seed=1)
    ours, oracle = x.clone().requires_grad_(), x.double().requires_grad_()
    loss, truth = l1_dssim(ours, y, ssim_weight), l1_dssim_torch(oracle, y.double(), ssim_weight)
    (3 * loss).backward()
    (3 * truth).backward()
    assert loss.item() == pytest.approx(truth.item(), abs=2e-6)
    error = (ours.grad.double() - oracle.grad).norm() / oracle.grad.norm()
    assert float(error) < 1e-4


# Both ways of computing the loss: the native kernel, and torch in double.
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pixels_that_do_not_count_have_no_error_and_no_gradient(dtype):
    x, y = (t.to(dtype) for t in pair((20, 26)))
    counts = torch.ones_like(x)
    counts[3:12, 5:17] = 0
    counts[19, 0] = 0
    patched = torch.where(counts > 0, x, torch.full_like(x, float("nan"))).requires_grad_()
    same = (x * counts).requires_grad_()
    loss, plain = l1_dssim(patched, y, 0.2, counts), l1_dssim(same, y * counts, 0.2)
    loss.backward()
    plain.backward()
    assert loss.item() == plain.item()
    assert (patched.grad[counts == 0] == 0).all()
    assert torch.equal(patched.grad[counts > 0], same.grad[counts > 0])


def test_the_gradient_of_a_masked_loss_by_finite_differences():
    x, y = (t.double() for t in pair((7, 6), seed=3))
    counts = torch.ones_like(x)
    counts[2:5, 1:4] = 0
    assert torch.autograd.gradcheck(lambda r: l1_dssim(r, y, 0.2, counts), (x.requires_grad_(),), eps=1e-7, atol=1e-6)


def test_a_pixel_weighs_the_same_however_much_is_masked():
    x, y = pair((8, 8))
    counts = torch.zeros_like(x)
    counts[4, 4] = 1
    error = (x - y)[4, 4].abs().sum() / x.numel()
    assert float(l1_dssim(x, y, 0.0, counts)) == pytest.approx(float(error), rel=1e-5)


def test_depth_pull_by_hand():
    depth = torch.tensor([[2.0, 5.0], [1.0, 1.0]], requires_grad=True)
    alpha = torch.tensor([[1.0, 1.0], [0.5, 1.0]])
    prior = torch.tensor([[4.0, 0.0], [2.0, 1.0]])  # 0: unknown
    confidence = torch.tensor([[1.0, 1.0], [0.5, 1.0]])
    loss = relative_depth_l1(depth, alpha, prior, confidence)
    # |2−4|/4 + unknown + 0.5 · 0.5 · |1−2|/2 + 0, over 4 pixels
    assert loss.item() == pytest.approx((0.5 + 0.125) / 4)
    loss.backward()
    assert torch.allclose(depth.grad, torch.tensor([[-0.25, 0.0], [-0.125, 0.0]]) / 4)
