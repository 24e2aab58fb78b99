"""The radiance field's space, protocol and file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from compare import assert_matches
from safetensors.torch import save_file

from splatinit import native
from splatinit.errors import FormatError
from splatinit.nerf import Ball, Box, HashField, HashFieldConfig, contract, load_field, reference
from splatinit.raster.reference import sh_basis

needs_engine = pytest.mark.skipif(not native.available(), reason="splat_cpu is not built in this installation")
SMALL = HashFieldConfig(levels=3, coarsest=2, finest=9, log2_rows=6, width=16, geometry=3, sh_degree=1)


def test_contraction_by_hand() -> None:
    at = torch.tensor([[0.0, 0, 0], [0.5, 0, 0], [0, 1, 0], [0, 0, -2], [3, 4, 0], [0, 1e30, 0]])
    expected = torch.tensor([[0.0, 0, 0], [0.5, 0, 0], [0, 1, 0], [0, 0, -1.5], [0.6 * 1.8, 0.8 * 1.8, 0], [0, 2, 0]])
    assert_matches("contracted", contract(at.double()), expected, 1e-6)


def test_contraction_is_smooth_at_the_sphere_and_has_finite_gradients() -> None:
    at = torch.tensor(
        [[0.0, 0, 0], [1.0, 0, 0], [0.6, 0.8, 0.0], [1e15, 0, 0]], dtype=torch.float64, requires_grad=True
    )
    (gradient,) = torch.autograd.grad(contract(at).sum(), at)
    assert gradient.isfinite().all()
    assert_matches("gradient inside", gradient[:2], torch.ones(2, 3), 1e-12)
    step = 1e-6 * torch.tensor([[0.6, 0.8, 0.0]]).double()
    on = torch.tensor([[0.6, 0.8, 0.0]]).double()
    assert_matches("slope on both sides", (contract(on + step) - on) / 1e-6, (on - contract(on - step)) / 1e-6, 1e-5)


def test_spaces() -> None:
    at = torch.tensor([[1.0, 2, 3], [3, 6, 5], [2, 4, 4], [2, 4, 9]])
    box = Box((1.0, 2.0, 3.0), (3.0, 6.0, 5.0))
    expected = torch.tensor([[0.0, 0, 0], [1, 1, 1], [0.5, 0.5, 0.5], [0.5, 0.5, 1]])
    assert_matches("in the box", box.unit(at), expected, 1e-6)
    assert box.holds(at).tolist() == [True, True, True, False] and box.size == 4.0
    ball = Ball((1.0, 2.0, 3.0), 2.0)
    far = torch.tensor([[1.0, 2, 3], [3, 2, 3], [1, 1e9, 3]])
    assert_matches(
        "in the ball", ball.unit(far), torch.tensor([[0.5, 0.5, 0.5], [0.75, 0.5, 0.5], [0.5, 1, 0.5]]), 1e-6
    )
    assert ball.holds(far).all() and ball.size == 4.0


@needs_engine
@pytest.mark.parametrize("space", [Box((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0)), Ball((0.1, 0.0, 0.0), 0.8)], ids=str)
def test_field_is_its_formula(space: Box | Ball) -> None:
    field = HashField(SMALL, space, seed=3)
    with torch.no_grad():
        field.table.mul_(3e3)
    generator = torch.Generator().manual_seed(1)
    at = torch.randn(50, 3, generator=generator)
    directions = torch.nn.functional.normalize(torch.randn(50, 3, generator=generator), dim=-1)
    density, rgb = field.radiance(at, directions)
    table, first, second = (tensor.detach().double() for tensor in field.parameters().values())
    features = reference.grid_features(SMALL.grid, table, space.unit(at.double()))
    out = reference.mlp_outputs(SMALL.density_mlp, first, features)
    expected = torch.where(space.holds(at), out[:, 0].exp() / space.size, 0.0)
    seen = torch.cat([out[:, 1:], sh_basis(directions.double(), 1)], dim=-1)
    assert_matches("density", density, expected, 1e-4)
    assert_matches("density alone", field.density(at), density, 0)
    assert_matches("rgb", rgb, reference.mlp_outputs(SMALL.colour_mlp, second, seen).sigmoid(), 1e-4)
    assert (density[~space.holds(at)] == 0).all()
    (density.sum() + rgb.sum()).backward()
    assert all(tensor.grad.isfinite().all() and tensor.grad.abs().sum() > 0 for tensor in field.parameters().values())


@needs_engine
def test_field_does_not_depend_on_the_unit_of_the_scene() -> None:
    at = torch.rand(20, 3) - 0.5
    metres = HashField(SMALL, Box((-0.5, -0.5, -0.5), (0.5, 0.5, 0.5)))
    millimetres = HashField(SMALL, Box((-500.0, -500.0, -500.0), (500.0, 500.0, 500.0)))
    assert_matches("density", millimetres.density(at * 1000) * 1000, metres.density(at), 1e-5)


@needs_engine
def test_field_can_be_fitted_to_a_sphere() -> None:
    """Adam on the density alone: inside of a sphere opaque, outside empty."""
    field = HashField(
        HashFieldConfig(levels=4, coarsest=4, finest=24, log2_rows=12, width=16), Box((-1.0,) * 3, (1.0,) * 3)
    )
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(field.parameters().values(), lr=1e-2)

    def batch() -> tuple[torch.Tensor, torch.Tensor]:
        at = torch.rand(2048, 3, generator=generator) * 2 - 1
        return at, (at.norm(dim=-1) < 0.6).float()

    for _ in range(60):
        at, inside = batch()
        loss = torch.nn.functional.binary_cross_entropy(1 - torch.exp(-field.density(at)), inside)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    at, inside = batch()
    right = ((1 - torch.exp(-field.density(at)) > 0.5) == inside.bool()).float().mean()
    assert right > 0.95


@needs_engine
@pytest.mark.parametrize("space", [Box((-1.0, -2.0, -3.0), (1.0, 2.0, 3.0)), Ball((0.1, 0.0, 0.0), 0.8)], ids=str)
def test_saved_field_is_the_same(tmp_path: Path, space: Box | Ball) -> None:
    field = HashField(SMALL, space, seed=7, near=0.25)
    field.occupancy.density.copy_(torch.rand(128, 128, 128, generator=torch.Generator().manual_seed(0)) * 59_000)
    field.occupancy.density.div_(space.size)
    field.save(tmp_path / "field.safetensors")
    again = load_field(tmp_path / "field.safetensors")
    assert again.config == SMALL and again.space == space and again.near == 0.25
    ratio = again.occupancy.density / field.occupancy.density
    assert_matches("occupancy", ratio, torch.ones_like(ratio), 1e-3)
    at = torch.rand(30, 3)
    directions = torch.tensor([[0.0, 0.0, 1.0]]).repeat(30, 1)
    for a, b in zip(field.radiance(at, directions), again.radiance(at, directions), strict=True):
        assert torch.equal(a, b)
    assert all(tensor.requires_grad for tensor in again.parameters().values())


def test_same_seed_same_start() -> None:
    one, same, other = (HashField(SMALL, Ball((0.0, 0.0, 0.0), 1.0), seed) for seed in (5, 5, 6))
    assert torch.equal(one.table, same.table) and torch.equal(one.colour_weights, same.colour_weights)
    assert not torch.equal(one.table, other.table) and not torch.equal(one.density_weights, other.density_weights)


def test_what_is_no_field_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "field.safetensors"
    with pytest.raises(FormatError, match=r"field.safetensors: not a saved field \(FileNotFoundError"):
        load_field(path)
    path.write_bytes(b"\x80\x04pickle")
    with pytest.raises(FormatError, match="not a saved field"):
        load_field(path)
    field = HashField(SMALL, Ball((0.0, 0.0, 0.0), 1.0))
    tensors = {name: tensor.detach() for name, tensor in field.parameters().items()}
    tensors["occupancy"] = field.occupancy.density.half()
    facts = {"field": SMALL.__dict__, "space": {"kind": "ball", "centre": [0, 0, 0], "radius": 1.0}, "near": 0.0}

    def write(tensors: dict[str, torch.Tensor], facts: object) -> None:
        save_file(tensors, path, metadata={"splatinit.field": json.dumps(facts)})

    for wrong in ([], {"field": {"depth": 3}, "space": facts["space"]}, {**facts, "space": {"kind": "torus"}}):
        write(tensors, wrong)
        with pytest.raises(FormatError, match="not a saved field") as caught:
            load_field(path)
        assert "Fit the field again" in str(caught.value)
    write({**tensors, "table": tensors["table"][:-1].contiguous()}, facts)
    with pytest.raises(FormatError, match=r"'table' must be \[155, 2\] finite float32, got \[154, 2\] float32"):
        load_field(path)
    write({**tensors, "table": torch.full_like(tensors["table"], np.nan)}, facts)
    with pytest.raises(FormatError, match="'table' must be"):
        load_field(path)
