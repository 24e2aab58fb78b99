"""Memory of gradients that goes round: given back when nobody looks at it any more, and never before."""

from __future__ import annotations

import pytest
import tiny
import torch

from splatinit import native
from splatinit.raster.native import CpuRasterizer


def test_memory_comes_back_when_its_last_tensor_is_gone() -> None:
    first = native.recycled((5, 4))
    place = first.data_ptr()
    assert first.shape == (5, 4) and first.dtype == torch.float32
    assert native.recycled((5, 4)).data_ptr() != place  # in use
    part = first[1:]
    del first
    assert native.recycled((5, 4)).data_ptr() != place  # a view still looks at it
    del part
    assert place in (native.recycled((5, 4)).data_ptr(), native.recycled((5, 4)).data_ptr())


def test_another_number_of_gaussians_lets_the_memory_go() -> None:
    native.recycled((5, 4))
    native.recycled((6, 4))
    assert all(shape[0] == 6 for shape in native.tensors._spare)
    assert native.recycled((0, 3)).shape == (0, 3)


@pytest.mark.skipif(not native.available(), reason="the native library is not built")
def test_gradients_that_a_user_keeps_stay_as_they_are() -> None:
    def gradients(seed: int) -> dict[str, torch.Tensor]:
        model = tiny.random_model(20, seed=seed).map(lambda tensor: tensor.requires_grad_())
        CpuRasterizer().render(model, tiny.scene().train[0].camera).rgb.square().sum().backward()
        return {name: tensor.grad for name, tensor in model.tensors().items()}

    kept = gradients(1)
    copies = {name: tensor.clone() for name, tensor in kept.items()}
    gradients(2)
    gradients(3)
    for name, tensor in kept.items():
        assert torch.equal(tensor, copies[name]) and tensor.abs().max() > 0, name
