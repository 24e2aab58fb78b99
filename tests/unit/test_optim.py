from __future__ import annotations

import pytest
import torch
from tiny import random_model

from splatinit import native
from splatinit.optim import BETA1, BETA2, EPS, GaussianAdam, adam_step_torch_
from splatinit.types import GAUSSIAN_FIELDS

RATES = dict(zip(GAUSSIAN_FIELDS, (1e-3, 2e-3, 3e-3, 4e-3, 5e-3, 6e-3), strict=True))


def test_first_step_moves_by_the_learning_rate_against_the_sign():
    start = random_model(5, seed=0)
    adam = GaussianAdam(start, RATES)
    loss = sum((3.0 * t).sum() for t in adam.gaussians.tensors().values())
    loss.backward()
    adam.step()
    for name, tensor in adam.gaussians.tensors().items():
        moved = start.tensors()[name] - tensor.detach()
        assert torch.allclose(moved, torch.full_like(moved, RATES[name]), rtol=1e-3), name
        assert tensor.grad is None


def test_the_callers_gaussians_stay():
    start = random_model(5, seed=0)
    before = start.map(torch.clone)
    adam = GaussianAdam(start, RATES)
    sum(t.sum() for t in adam.gaussians.tensors().values()).backward()
    adam.step()
    assert all(torch.equal(a, b) for a, b in zip(start.tensors().values(), before.tensors().values(), strict=True))


@pytest.mark.parametrize("numbers", [{}, {"beta1": 0.81, "beta2": 0.998, "eps": 1e-12}], ids=["usual", "others"])
def test_many_steps_match_torch_optim_adam(numbers: dict[str, float]):
    start = random_model(40, seed=1)
    adam = GaussianAdam(start, RATES, **numbers)
    beta1, beta2, eps = numbers.values() or (BETA1, BETA2, EPS)
    theirs = {k: v.clone().requires_grad_() for k, v in start.tensors().items()}
    peer = torch.optim.Adam([{"params": [v], "lr": RATES[k]} for k, v in theirs.items()], betas=(beta1, beta2), eps=eps)
    for step in range(30):
        for params in (adam.gaussians.tensors(), theirs):
            sum((t - 0.1 * step).square().sum() for t in params.values()).backward()
        adam.step()
        peer.step()
        peer.zero_grad()
    for name, tensor in adam.gaussians.tensors().items():
        assert torch.allclose(tensor, theirs[name], rtol=1e-4, atol=1e-6), name


def test_a_field_without_gradient_or_without_coefficients_stays():
    start = random_model(4, seed=2, sh_degree=0)
    adam = GaussianAdam(start, RATES)
    adam.gaussians.means.sum().backward()
    adam.step()
    assert torch.equal(adam.gaussians.sh0, start.sh0)
    assert adam.gaussians.shN.shape == (4, 0, 3)


@pytest.mark.skipif(not native.available(), reason="the native library is not built")
@pytest.mark.parametrize("size", [1, 7, 8, 1000, 100_003])
def test_native_step_is_the_torch_step(size):
    random = torch.Generator().manual_seed(size)
    p, m = torch.randn(size, generator=random), 0.1 * torch.randn(size, generator=random)
    v, g = 0.01 * torch.rand(size, generator=random), torch.randn(size, generator=random)
    g[::3] = 0.0  # unseen Gaussians: no gradient, and at first no moments
    m[::6] = v[::6] = 0.0
    ours, oracle = [t.clone() for t in (p, m, v)], [t.double() for t in (p, m, v)]
    numbers = {"lr": 1e-2, "step": 7, "beta1": BETA1, "beta2": BETA2, "eps": EPS}
    native.adam_step_(ours[0], g, ours[1], ours[2], **numbers)
    adam_step_torch_(oracle[0], g.double(), oracle[1], oracle[2], **numbers)
    for name, a, b in zip(("parameter", "exp_avg", "exp_avg_sq"), ours, oracle, strict=True):
        assert torch.allclose(a.double(), b, rtol=2e-6, atol=2e-7), name


def test_state_round_trip_continues_identically():
    def run(adam: GaussianAdam, steps: int) -> None:
        for _ in range(steps):
            sum(t.square().sum() for t in adam.gaussians.tensors().values()).backward()
            adam.step()

    whole, first = GaussianAdam(random_model(6, 3), RATES), GaussianAdam(random_model(6, 3), RATES)
    run(whole, 10)
    run(first, 4)
    second = GaussianAdam(random_model(9, 8), RATES)
    second.load_state({k: v.clone() for k, v in first.state().items()}, first.steps)
    run(second, 6)
    for name in GAUSSIAN_FIELDS:
        assert torch.equal(getattr(whole.gaussians, name), getattr(second.gaussians, name)), name
