"""Every rasterization backend against the float64 reference: pictures, gradients, statistics, determinism."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cache

import numpy as np
import pytest
import torch
from compare import assert_matches
from decisions import Decisions, decide
from gsplat_differences import comparable, is_gsplat, without_floor
from hypothesis import HealthCheck, given, settings
from strategies import RasterCase, raster_cases
from tolerances import COLOR, DEPTH, GRADIENT, GSPLAT_LOOSE, PIXELS

from splatinit.errors import ConfigError, ShapeError
from splatinit.raster.base import RasterSettings
from splatinit.raster.reference import ReferenceRasterizer
from splatinit.types import GAUSSIAN_FIELDS, Gaussians, RasterAux, Render

pytestmark = pytest.mark.usefixtures("one_thread")

ANTIALIASED = RasterSettings(antialiased=True)
CASES = [
    RasterCase(seed=1),
    RasterCase(seed=2, width=130, height=70, n=200),
    RasterCase(seed=3, settings=ANTIALIASED),
    RasterCase(seed=4, kind="opaque"),
    RasterCase(seed=5, kind="opaque", width=130, height=70, n=100),
    RasterCase(seed=6, kind="needles"),
    RasterCase(seed=7, kind="needles", settings=ANTIALIASED),
    RasterCase(seed=8, kind="outside"),
    RasterCase(seed=9, kind="tiny"),
    RasterCase(seed=10, kind="tiny", settings=ANTIALIASED),
    RasterCase(seed=11, kind="ties"),
    RasterCase(seed=12, sh_degree=0),
    RasterCase(seed=13, sh_degree=1),
    RasterCase(seed=14, sh_degree=2),
    RasterCase(seed=15, sh_degree=3, used_degree=1),
    RasterCase(seed=16, settings=RasterSettings(eps2d=0.05)),
    RasterCase(seed=17, n=0),
    RasterCase(seed=18, n=1),
    # Tile borders: one pixel, one less and one more than a tile, exactly one and three tiles.
    *(RasterCase(seed=20 + side, n=40, width=side, height=side) for side in (1, 15, 16, 17, 48)),
    RasterCase(seed=40, n=40, width=1, height=33),
    RasterCase(seed=41, n=40, width=33, height=1),
    RasterCase(seed=42, n=1000, width=32, height=24),
]


@dataclass
class Result:
    """One render with the gradients of a random linear loss, by name."""

    render: Render
    gradients: dict[str, torch.Tensor]


def run(rasterizer, case: RasterCase, dtype: torch.dtype, decided: torch.Tensor) -> Result:
    """Forward and backward; the loss leaves out the pixels whose cut-offs rounding decides. All on the CPU at last."""
    gaussians = case.gaussians.map(lambda tensor: tensor.to(rasterizer.device, dtype).requires_grad_())
    background = case.background.to(dtype).requires_grad_()
    pose = torch.from_numpy(case.camera.cam_from_world).to(dtype).requires_grad_()
    render = rasterizer.render(
        gaussians,
        case.camera,
        settings=case.settings,
        background=background,
        sh_degree=case.used_degree,
        cam_from_world=pose,
        with_depth=True,
        with_stats=True,
    )
    loss = sum(
        (image * (cotangent * decided.reshape(decided.shape + (1,) * (image.ndim - 2))).to(image)).sum()
        for image, cotangent in zip((render.rgb, render.alpha, render.depth), case.cotangents(), strict=True)
    )
    loss.backward()
    leaves = {**gaussians.tensors(), "background": background, "cam_from_world": pose}
    gradients = {
        name: (torch.zeros_like(leaf) if leaf.grad is None else leaf.grad).cpu() for name, leaf in leaves.items()
    }
    return Result(on_cpu(render), gradients)


def on_cpu(render: Render) -> Render:
    values = {field.name: getattr(render.aux, field.name) for field in fields(RasterAux)}
    aux = {name: None if value is None else value.cpu() for name, value in values.items()}
    images = (None if image is None else image.cpu() for image in (render.rgb, render.alpha, render.depth))
    return Render(*images, RasterAux(**aux))


def placed(gaussians: Gaussians, backend) -> Gaussians:
    return gaussians.map(lambda tensor: tensor.to(backend.device))


@cache
def truth(case: RasterCase) -> tuple[Result, Decisions]:
    degree = case.sh_degree if case.used_degree is None else case.used_degree
    decisions = decide(case.gaussians, case.camera, case.settings, degree)
    return run(ReferenceRasterizer(), case, torch.float64, decisions.pixels), decisions


@cache
def truth_for_gsplat(case: RasterCase) -> tuple[Result, Decisions]:
    return without_floor(lambda: truth.__wrapped__(case)) if case.settings.antialiased else truth(case)


def check(rasterizer, case: RasterCase) -> None:
    """All that a backend promises, on one case."""
    reference, decisions = truth_for_gsplat(case) if is_gsplat(rasterizer) else truth(case)
    ours = run(rasterizer, case, torch.float32, decisions.pixels)
    loose = 1.0
    if is_gsplat(rasterizer):
        ours, reference = comparable(case, ours, reference, decisions)
        loose = GSPLAT_LOOSE[rasterizer.device.type]
    sure = decisions.pixels
    assert sure.float().mean() > 0.7 or sure.numel() < 100, f"{case}: too few pixels are compared"
    color = COLOR * loose
    gradient = GRADIENT * loose
    name = f"{rasterizer.name} {case}"

    assert_matches(f"{name} rgb", ours.render.rgb, reference.render.rgb, color, seed=case.seed, mask=sure)
    assert_matches(f"{name} alpha", ours.render.alpha, reference.render.alpha, color, seed=case.seed, mask=sure)
    far = max(1.0, float(reference.render.aux.depths.max()) if case.n else 1.0)
    depth = DEPTH * far
    assert_matches(f"{name} depth", ours.render.depth, reference.render.depth, depth, seed=case.seed, mask=sure)

    for leaf in (*GAUSSIAN_FIELDS, "background", "cam_from_world"):
        assert_matches(
            f"{name} gradient of {leaf}",
            ours.gradients[leaf],
            reference.gradients[leaf],
            gradient,
            seed=case.seed,
            by_norm=True,
        )
    for leaf in ("means", "log_scales", "logit_opacities", "sh0"):
        touched, expected = (_touched(result.gradients[leaf]) for result in (ours, reference))
        wrong = torch.nonzero(touched != expected).flatten()
        assert len(wrong) == 0, f"{name}: gradient sparsity of {leaf} differs at Gaussians {wrong.tolist()[:10]}"

    check_statistics(name, case, ours.render, reference.render, decisions, gradient)


def _touched(gradient: torch.Tensor) -> torch.Tensor:
    """[n] bool: which Gaussians have a gradient at all."""
    gradient = gradient[:, None] if gradient.ndim == 1 else gradient.flatten(1)
    return gradient.ne(0).any(1)


def check_statistics(
    name: str, case: RasterCase, ours: Render, reference: Render, decisions: Decisions, gradient: float
) -> None:
    aux, expected, seed = ours.aux, reference.aux, case.seed
    wrong = torch.nonzero((aux.visible != expected.visible) & decisions.gaussians).flatten()
    assert len(wrong) == 0, f"{name}: visibility differs at Gaussians {wrong.tolist()[:10]} (seed {seed})"
    both = aux.visible & expected.visible
    assert not aux.means2d[~aux.visible].any(), f"{name}: means2d of invisible Gaussians must be 0"
    assert not aux.radii[~aux.visible].any(), f"{name}: radii of invisible Gaussians must be 0"
    # A Gaussian near the camera plane is projected far out, where a float32 position has proportionally less digits.
    reach = 1 + expected.means2d.abs().amax(1, keepdim=True).numpy() / 100
    assert_matches(f"{name} means2d", aux.means2d, expected.means2d, PIXELS * reach, seed=seed, mask=both)
    assert_matches(f"{name} depths", aux.depths, expected.depths, 1e-5, seed=seed, mask=both)
    radii = PIXELS * (1 + expected.radii.numpy()) * 5
    # The radius of a barely visible Gaussian is √ln of a number near 1, which amplifies the last digits.
    faint = expected.radii < 0.2
    assert_matches(f"{name} radii", aux.radii, expected.radii, radii, seed=seed, mask=both & ~faint)
    weight = gradient * (1 + expected.blend_weight) + decisions.slack
    assert_matches(f"{name} blend_weight", aux.blend_weight, expected.blend_weight, weight.numpy(), seed=seed)
    for field in ("v_means2d", "v_means2d_abs"):
        tolerance = gradient
        expected_value = getattr(expected, field)
        if expected_value is None:
            expected_value = torch.zeros_like(expected.means2d)
        assert_matches(f"{name} {field}", getattr(aux, field), expected_value, tolerance, seed=seed, by_norm=True)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_backend_equals_reference(backend, case: RasterCase) -> None:
    check(backend, case)


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(case=raster_cases())
def test_backend_equals_reference_on_any_case(backend, case: RasterCase) -> None:
    check(backend, case)


@pytest.mark.parametrize("case", [CASES[0], CASES[2], CASES[3]], ids=str)
def test_tolerances_are_reachable_in_float32(case: RasterCase) -> None:
    """The reference's own float32 run passes the same comparison, so a backend that fails has no excuse."""
    check(ReferenceRasterizer(), case)


@pytest.mark.parametrize("kind", ["mixed", "opaque"])
def test_any_number_of_threads_gives_the_same_bits(backend, kind: str) -> None:
    if backend.name != "cpu":
        pytest.skip("only the cpu backend lets threads be set")
    from splatinit import native

    case = RasterCase(seed=50, kind=kind, n=500, width=130, height=70)
    everywhere = torch.ones(case.height, case.width, dtype=torch.bool)
    results = []
    before = native.build_info()["threads"]
    try:
        for threads in (1, 2, 3, 2):
            native.set_threads(threads)
            results.append(run(backend, case, torch.float32, everywhere))
    finally:
        native.set_threads(before)
    first = results[0]
    for other in results[1:]:
        for field in ("rgb", "alpha", "depth"):
            assert torch.equal(getattr(first.render, field), getattr(other.render, field)), field
        for field in ("means2d", "depths", "radii", "visible", "blend_weight", "v_means2d", "v_means2d_abs"):
            assert torch.equal(getattr(first.render.aux, field), getattr(other.render.aux, field)), field
        for leaf, gradient in first.gradients.items():
            assert torch.equal(gradient, other.gradients[leaf]), leaf


def test_optional_outputs_do_not_change_the_picture(backend) -> None:
    case = RasterCase(seed=51, n=100)
    gaussians = placed(case.gaussians, backend)
    full = backend.render(gaussians, case.camera, background=case.background, with_depth=True, with_stats=True)
    plain = backend.render(gaussians, case.camera, background=case.background)
    assert torch.equal(full.rgb, plain.rgb) and torch.equal(full.alpha, plain.alpha)
    assert plain.depth is None and plain.aux.blend_weight is None
    assert plain.aux.v_means2d is None and plain.aux.v_means2d_abs is None


def test_without_a_background_it_is_black(backend) -> None:
    case = RasterCase(seed=52, n=20)
    gaussians, nothing = placed(case.gaussians, backend), torch.zeros(3)
    assert torch.equal(
        backend.render(gaussians, case.camera).rgb,
        backend.render(gaussians, case.camera, background=nothing).rgb,
    )


def test_a_background_on_the_device_is_one_on_the_cpu(backend) -> None:
    case = RasterCase(seed=58, n=40)
    gaussians, pose = placed(case.gaussians, backend), torch.from_numpy(case.camera.cam_from_world).float()
    results = []
    for device in (torch.device("cpu"), backend.device):
        background, given = (tensor.to(device, copy=True).requires_grad_() for tensor in (case.background, pose))
        rgb = backend.render(gaussians, case.camera, background=background, cam_from_world=given).rgb
        assert rgb.device == backend.device
        rgb.sum().backward()
        assert background.grad.device == given.grad.device == device
        results.append((rgb.detach().cpu(), background.grad.cpu(), given.grad.cpu()))
    for here, there in zip(*results, strict=True):
        assert torch.equal(here, there)


@pytest.mark.parametrize("n", [0, 30])
def test_nothing_in_view_is_the_background(backend, n: int) -> None:
    case = RasterCase(seed=53, n=n)
    behind = case.gaussians
    if n:
        # Mirrored through the camera centre: in front becomes behind.
        centre = torch.from_numpy(case.camera.center).float()
        behind = replace(behind, means=2 * centre - behind.means)
    gaussians = behind.map(lambda tensor: tensor.to(backend.device, copy=True).requires_grad_())
    background = case.background.requires_grad_()
    render = backend.render(gaussians, case.camera, background=background, with_depth=True, with_stats=True)
    assert_matches("rgb", render.rgb, case.background.detach().expand(case.height, case.width, 3), 0.0)
    assert not render.alpha.any() and not render.depth.any() and not render.aux.visible.any()
    render.rgb.sum().backward()
    assert_matches("background gradient", background.grad, np.full(3, case.width * case.height), 1e-2)
    for name, tensor in gaussians.tensors().items():
        assert tensor.grad is None or not tensor.grad.any(), name


def test_the_given_pose_replaces_the_cameras(backend) -> None:
    case, other = RasterCase(seed=54, n=60), RasterCase(seed=55, n=60)
    pose = torch.from_numpy(other.camera.cam_from_world).float()
    moved = replace(case.camera, cam_from_world=other.camera.cam_from_world)
    gaussians = placed(other.gaussians, backend)
    by_argument = backend.render(gaussians, case.camera, cam_from_world=pose)
    by_camera = backend.render(gaussians, moved)
    assert torch.equal(by_argument.rgb, by_camera.rgb)
    assert by_camera.alpha.any()


def test_only_what_requires_a_gradient_gets_one(backend) -> None:
    case = RasterCase(seed=56, n=60)
    gaussians = placed(case.gaussians, backend)
    gaussians.sh0.requires_grad_()
    render = backend.render(gaussians, case.camera)
    render.rgb.sum().backward()
    assert gaussians.sh0.grad is not None and gaussians.sh0.grad.any()
    assert gaussians.means.grad is None and gaussians.quats.grad is None
    with torch.no_grad():
        assert not backend.render(gaussians, case.camera).rgb.requires_grad


def test_wrong_requests_are_refused(backend) -> None:
    case = RasterCase(seed=57, n=5, sh_degree=1)
    gaussians = placed(case.gaussians, backend)
    with pytest.raises(ConfigError, match="0 to 1"):
        backend.render(gaussians, case.camera, sh_degree=2)
    with pytest.raises(ShapeError):
        backend.render(gaussians, case.camera, background=torch.zeros(4))
    with pytest.raises(ShapeError):
        backend.render(gaussians, case.camera, cam_from_world=torch.eye(3))
