"""The oracle's own oracles: a brute-force loop, finite differences, scipy, and gsplat's torch functions."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from compare import assert_matches
from scipy.spatial.transform import Rotation
from scipy.special import sph_harm_y
from strategies import RasterCase, random_camera, random_gaussians
from tolerances import EXACT, FOREIGN

from splatinit.raster.base import RasterSettings
from splatinit.raster.reference import (
    ReferenceRasterizer,
    blend_weights,
    covariances,
    project,
    quat_to_rotmat,
    sh_basis,
)
from splatinit.types import Camera, Gaussians

pytestmark = pytest.mark.usefixtures("one_thread")

REFERENCE = ReferenceRasterizer()


def double(gaussians: Gaussians) -> Gaussians:
    return gaussians.map(lambda tensor: tensor.double())


def facing(width: int, height: int, focal: float = 10.0) -> Camera:
    """A camera at the origin that looks along +z, principal point in the middle."""
    return Camera(np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]), np.eye(4), width, height)


def splat(mean, sigma: float, opacity: float, rgb) -> Gaussians:
    """One round float64 Gaussian of plain colour."""
    values = {
        "means": [mean],
        "quats": [[1.0, 0, 0, 0]],
        "log_scales": [[math.log(sigma)] * 3],
        "logit_opacities": [math.log(opacity / (1 - opacity))],
        "sh0": [[[(c - 0.5) * 2 * math.sqrt(math.pi) for c in rgb]]],
    }
    tensors = {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}
    return Gaussians(**tensors, shN=torch.zeros(1, 0, 3, dtype=torch.float64))


def stack(*parts: Gaussians) -> Gaussians:
    return Gaussians(**{name: torch.cat([part.tensors()[name] for part in parts]) for name in parts[0].tensors()})


# ------------------------------------------------------------------------------------------------- by hand
def test_one_gaussian_at_a_pixel_centre() -> None:
    render = REFERENCE.render(
        splat((0, 0, 2.0), 0.2, 0.5, (0.8, 0.4, 0.2)),
        facing(3, 3),
        background=torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64),
        with_depth=True,
    )
    # At the mean alpha is the opacity; one pixel beside it exp(−½ / (1² + 0.3)) of it (0.2 · 10 / 2 = 1 px).
    assert_matches("centre", render.rgb[1, 1], [0.4, 0.7, 0.1], 1e-12)
    assert_matches("alpha beside", render.alpha[1, 2], 0.5 * math.exp(-0.5 / 1.3), 1e-12)
    assert_matches("depth", render.depth[1, 1], 2.0, 1e-12)
    assert_matches("mean", render.aux.means2d, [[1.5, 1.5]], 1e-12)
    assert_matches("radius", render.aux.radii, [math.sqrt(2 * math.log(127.5) * 1.3)], 1e-12)


def test_blending_stops_before_the_gaussian_that_would_saturate() -> None:
    near = splat((0, 0, 2.0), 5.0, 0.99, (1, 0, 0))
    middle = splat((0, 0, 3.0), 5.0, 0.95, (0, 1, 0))
    far = splat((0, 0, 4.0), 5.0, 0.9, (0, 0, 1))
    camera = facing(1, 1)
    weights = blend_weights(torch.tensor([[0.99, 0.95, 0.9]], dtype=torch.float64))
    # After the second 5e-4 is left; the third would leave 5e-5 ≤ 1e-4, so it is not drawn.
    assert_matches("weights", weights[0], [[0.99, 0.0095, 0.0]], 1e-12)
    assert_matches("left", weights[1], [5e-4], 1e-12)
    render = REFERENCE.render(stack(far, near, middle), camera, with_stats=True)
    assert_matches("rgb", render.rgb[0, 0], [0.99, 0.0095, 0.0], 1e-6)
    assert_matches("blend weight", render.aux.blend_weight, [0, 0.99, 0.0095], 1e-6)


def test_alpha_is_capped_and_faint_alphas_are_skipped() -> None:
    weights, left = blend_weights(torch.tensor([[1.0, 0.5], [1 / 256, 0.5]], dtype=torch.float64))
    assert_matches("weights", weights, [[0.999, 0.0005], [0.0, 0.5]], 1e-12)
    assert_matches("left", left, [0.0005, 0.5], 1e-12)


def test_equal_depths_are_drawn_in_order_of_index() -> None:
    red, green = splat((0, 0, 2.0), 1.0, 0.5, (1, 0, 0)), splat((0, 0, 2.0), 1.0, 0.5, (0, 1, 0))
    assert_matches("red first", REFERENCE.render(stack(red, green), facing(1, 1)).rgb[0, 0], [0.5, 0.25, 0], 1e-12)
    assert_matches("green first", REFERENCE.render(stack(green, red), facing(1, 1)).rgb[0, 0], [0.25, 0.5, 0], 1e-12)


def test_antialiasing_dims_what_the_blur_makes_wider() -> None:
    gaussian = splat((0, 0, 2.0), 0.02, 0.5, (1, 1, 1))  # 0.1 px
    settings = RasterSettings(antialiased=True)
    render = REFERENCE.render(gaussian, facing(1, 1), settings=settings)
    assert_matches("alpha", render.alpha[0, 0], 0.5 * 0.01 / 0.31, 1e-9)


# ------------------------------------------------------------------------------------------------- brute force
def brute_force(gaussians: Gaussians, camera: Camera, settings: RasterSettings, background) -> np.ndarray:
    """[h, w, 5] rgb, alpha, depth: one pixel and one Gaussian at a time, in numpy and scipy.

    The projection's Jacobian comes from complex steps instead of its formula.
    """
    g = {name: tensor.double().numpy() for name, tensor in gaussians.tensors().items()}
    R, t = camera.cam_from_world[:3, :3], camera.cam_from_world[:3, 3]
    w, h = camera.width, camera.height

    def screen(p):
        return (camera.K @ p)[:2] / p[2]

    splats = []
    for i in range(len(gaussians)):
        p = R @ g["means"][i] + t
        if p[2] <= 0.01:
            continue
        limit = p.copy()
        for axis, side, focal, centre in ((0, w, camera.fx, camera.K[0, 2]), (1, h, camera.fy, camera.K[1, 2])):
            margin = 0.15 * side / focal
            low, high = -centre / focal - margin, (side - centre) / focal + margin
            limit[axis] = p[2] * min(max(p[axis] / p[2], low), high)
        J = np.stack([np.imag(screen(limit + 1e-30j * np.eye(3)[k])) / 1e-30 for k in range(3)], axis=1)
        quat = g["quats"][i]
        A = R @ Rotation.from_quat(np.roll(quat, -1)).as_matrix() @ np.diag(np.exp(g["log_scales"][i]))
        bare = J @ A @ A.T @ J.T
        cov = bare + settings.eps2d * np.eye(2)
        opacity = 1 / (1 + math.exp(-g["logit_opacities"][i]))
        if settings.antialiased:
            opacity *= math.sqrt(max(np.linalg.det(bare) / np.linalg.det(cov), 2.5e-5))
        direction = g["means"][i] + R.T @ t
        direction = direction / np.linalg.norm(direction)
        coefficients = np.concatenate([g["sh0"][i], g["shN"][i]])
        color = np.maximum(harmonics(direction, gaussians.sh_degree) @ coefficients + 0.5, 0)
        splats.append((p[2], i, screen(p), np.linalg.inv(cov), opacity, color))
    splats.sort(key=lambda item: item[:2])

    image = np.zeros((h, w, 5))
    for row in range(h):
        for column in range(w):
            left, total, weight_sum = 1.0, np.zeros(4), 0.0
            for z, _, mean, inverse, opacity, color in splats:
                d = np.array([column + 0.5, row + 0.5]) - mean
                alpha = min(0.999, opacity * math.exp(-0.5 * d @ inverse @ d))
                if alpha < 1 / 255:
                    continue
                if left * (1 - alpha) <= 1e-4:
                    break
                total += left * alpha * np.append(color, z)
                weight_sum += left * alpha
                left *= 1 - alpha
            image[row, column, :3] = total[:3] + left * np.asarray(background)
            image[row, column, 3] = 1 - left
            image[row, column, 4] = total[3] / weight_sum if weight_sum else 0.0
    return image


def harmonics(direction: np.ndarray, degree: int) -> np.ndarray:
    """Real spherical harmonics of one direction from scipy's complex ones."""
    theta, phi = math.acos(direction[2]), math.atan2(direction[1], direction[0])
    values = []
    for l in range(degree + 1):  # noqa: E741 (the letter of the literature)
        for m in range(-l, l + 1):
            y = sph_harm_y(l, abs(m), theta, phi)
            values.append(y.real if m == 0 else math.sqrt(2) * (y.real if m > 0 else y.imag))
    return np.array(values)


@pytest.mark.parametrize(
    "case",
    [
        RasterCase(seed=101, n=20, width=9, height=7),
        RasterCase(seed=102, n=20, width=9, height=7, kind="opaque"),
        RasterCase(seed=103, n=40, width=8, height=8, kind="outside"),
        RasterCase(seed=104, n=15, width=7, height=9, kind="ties"),
        RasterCase(seed=105, n=15, width=9, height=7, kind="needles", settings=RasterSettings(antialiased=True)),
        RasterCase(seed=106, n=15, width=9, height=7, sh_degree=1, settings=RasterSettings(eps2d=0.1)),
    ],
    ids=str,
)
def test_equals_the_brute_force_loop(case: RasterCase) -> None:
    background = case.background.double()
    ours = REFERENCE.render(
        double(case.gaussians), case.camera, settings=case.settings, background=background, with_depth=True
    )
    expected = brute_force(case.gaussians, case.camera, case.settings, background.numpy())
    assert expected[..., 3].max() > 0.05
    ours = torch.cat([ours.rgb, ours.alpha[..., None], ours.depth[..., None]], dim=-1)
    assert_matches("rgb, alpha, depth", ours, expected, EXACT, seed=case.seed)


def test_chunks_of_pixels_do_not_matter(monkeypatch) -> None:
    case = RasterCase(seed=107, n=30, width=20, height=10)
    whole = REFERENCE.render(double(case.gaussians), case.camera, with_stats=True)
    monkeypatch.setattr("splatinit.raster.reference.PAIRS_PER_CHUNK", 7 * 30)
    parts = REFERENCE.render(double(case.gaussians), case.camera, with_stats=True)
    assert_matches("rgb", parts.rgb, whole.rgb, EXACT)
    assert_matches("blend_weight", parts.aux.blend_weight, whole.aux.blend_weight, EXACT)


# ------------------------------------------------------------------------------------------------- gradients
def smooth_scene(seed: int) -> tuple[Camera, Gaussians]:
    """Wide, faint Gaussians on a 4 × 3 image: all alphas between 0.02 and 0.7, so that nothing is cut off."""
    camera = random_camera(seed, 4, 3)
    gaussians = double(random_gaussians(seed, 4, camera, sh_degree=2))
    # At most one pixel beyond the image, where the clamped Jacobian would have its kink.
    local = np.random.default_rng(seed).uniform((-0.2, -0.15, 2.0), (0.2, 0.15, 4.0), (4, 3))
    local[:, :2] *= local[:, 2:]
    world = (local - camera.cam_from_world[:3, 3]) @ camera.cam_from_world[:3, :3]
    gaussians.means = torch.from_numpy(world)
    gaussians.log_scales = 0.2 * gaussians.log_scales.sin() + 0.1
    gaussians.logit_opacities = gaussians.logit_opacities.clamp(-1.0, 0.8)
    gaussians.sh0[0, 0, 0] = -9.0  # one colour that is clamped at 0, far from the kink
    gaussians.sh0[1:] = gaussians.sh0[1:].abs()
    return camera, gaussians


@pytest.mark.parametrize("antialiased", [False, True])
def test_gradcheck(antialiased: bool) -> None:
    camera, gaussians = smooth_scene(110 + antialiased)
    settings = RasterSettings(antialiased=antialiased)
    background = torch.tensor([0.3, 0.6, 0.9], dtype=torch.float64)
    pose = torch.from_numpy(camera.cam_from_world.copy())
    names = list(gaussians.tensors())

    def images(*leaves: torch.Tensor):
        parts = Gaussians(**dict(zip(names, leaves[:6], strict=True)))
        render = REFERENCE.render(
            parts, camera, settings=settings, background=leaves[6], cam_from_world=leaves[7], with_depth=True
        )
        return render.rgb, render.alpha, render.depth

    leaves = [tensor.clone().requires_grad_() for tensor in (*gaussians.tensors().values(), background, pose)]
    rgb, alpha, _ = images(*leaves)
    assert alpha.min() > 0.1 and alpha.max() < 0.999
    assert (rgb[..., 0] > 0).all()
    assert torch.autograd.gradcheck(images, leaves, eps=1e-6, atol=1e-6, rtol=1e-4)


def test_mean_gradient_is_that_of_a_shifted_image() -> None:
    camera, gaussians = smooth_scene(112)
    gaussians = gaussians.map(lambda tensor: tensor.requires_grad_())
    cotangent = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 4, 3)))

    def loss(shift_x: float, shift_y: float) -> float:
        K = camera.K + [[0, 0, shift_x], [0, 0, shift_y], [0, 0, 0]]
        with torch.no_grad():
            return float((REFERENCE.render(gaussians, replace(camera, K=K)).rgb * cotangent).sum())

    render = REFERENCE.render(gaussians, camera, with_stats=True)
    assert render.aux.v_means2d is None
    (render.rgb * cotangent).sum().backward()
    h = 1e-5
    numeric = [(loss(h, 0) - loss(-h, 0)) / (2 * h), (loss(0, h) - loss(0, -h)) / (2 * h)]
    assert_matches("Σ v_means2d", render.aux.v_means2d.sum(0), numeric, 1e-7)


def test_absolute_mean_gradient_sums_the_pixels_one_by_one() -> None:
    camera, gaussians = smooth_scene(113)
    gaussians = gaussians.map(lambda tensor: tensor.requires_grad_())
    cotangent = torch.from_numpy(np.random.default_rng(1).normal(size=(3, 4, 3)))
    render = REFERENCE.render(gaussians, camera, with_stats=True)
    (render.rgb * cotangent).sum().backward()
    total, absolute = torch.zeros(4, 2, dtype=torch.float64), torch.zeros(4, 2, dtype=torch.float64)
    for row in range(3):
        for column in range(4):
            single = REFERENCE.render(gaussians, camera, with_stats=True)
            (single.rgb * cotangent)[row, column].sum().backward()
            total += single.aux.v_means2d
            absolute += single.aux.v_means2d.abs()
    assert_matches("v_means2d", render.aux.v_means2d, total, EXACT)
    assert_matches("v_means2d_abs", render.aux.v_means2d_abs, absolute, EXACT)
    assert (absolute > total.abs() + 1e-6).any()


def test_statistics_are_filled_when_only_colours_are_trained() -> None:
    camera, gaussians = smooth_scene(114)
    gaussians.sh0.requires_grad_()
    render = REFERENCE.render(gaussians, camera, with_stats=True)
    render.rgb.square().sum().backward()
    assert render.aux.v_means2d.abs().sum() > 0


def test_behind_the_camera_nothing_becomes_infinite() -> None:
    case = RasterCase(seed=115, n=50, width=12, height=10, kind="outside")
    gaussians = case.gaussians
    gaussians.means[:5] = torch.from_numpy(case.camera.center).float()  # exactly in the camera centre: z = 0
    gaussians = gaussians.map(lambda tensor: tensor.clone().requires_grad_())
    render = REFERENCE.render(gaussians, case.camera, with_depth=True, with_stats=True)
    (render.rgb.sum() + render.depth.sum()).backward()
    assert all(tensor.grad.isfinite().all() for tensor in gaussians.tensors().values())
    assert not gaussians.means.grad[:5].any()


# ------------------------------------------------------------------------------------------------- foreign oracles
def test_rotation_equals_scipy() -> None:
    quats = np.random.default_rng(0).normal(size=(50, 4)) * 3
    expected = Rotation.from_quat(np.roll(quats, -1, axis=1)).as_matrix()
    assert_matches("rotation", quat_to_rotmat(torch.from_numpy(quats)), expected, EXACT)


def test_a_zero_quaternion_is_the_identity() -> None:
    assert_matches("rotation", quat_to_rotmat(torch.zeros(1, 4, dtype=torch.float64)), np.eye(3)[None], 0.0)


def test_harmonics_equal_scipy() -> None:
    directions = np.random.default_rng(1).normal(size=(50, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    expected = np.stack([harmonics(direction, 3) for direction in directions])
    assert_matches("harmonics", sh_basis(torch.from_numpy(directions), 3), expected, EXACT)


@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize("kind", ["mixed", "outside", "needles"])
def test_projection_equals_gsplat(kind: str, antialiased: bool) -> None:
    theirs = pytest.importorskip("gsplat.cuda._torch_impl", exc_type=ImportError)
    case = RasterCase(seed=120, n=100, kind=kind)
    camera, gaussians = case.camera, double(case.gaussians)
    pose = torch.from_numpy(camera.cam_from_world)
    z = gaussians.means @ pose[2, :3] + pose[2, 3]
    gaussians = gaussians.map(lambda tensor: tensor[z > 0.01])
    covars, _ = theirs._quat_scale_to_covar_preci(gaussians.quats, gaussians.scales, compute_preci=False)
    assert_matches("covariance", covariances(gaussians.quats, gaussians.scales), covars, FOREIGN)

    settings = RasterSettings(antialiased=antialiased)
    ours = project(gaussians, camera, pose, settings, 3)
    _, means2d, depths, conics, compensation = theirs._fully_fused_projection(
        gaussians.means,
        covars,
        pose[None],
        torch.from_numpy(camera.K)[None],
        camera.width,
        camera.height,
        eps2d=settings.eps2d,
        calc_compensations=antialiased,
    )
    inverse = torch.linalg.inv(ours.cov2d)
    packed = torch.stack([inverse[:, 0, 0], inverse[:, 0, 1], inverse[:, 1, 1]], dim=-1)
    assert_matches("means2d", ours.means2d, means2d[0], FOREIGN * 1e3)
    assert_matches("depths", ours.depths, depths[0], FOREIGN)
    assert_matches("conics", packed, conics[0], FOREIGN)
    if antialiased:
        expected = gaussians.opacities * compensation[0].clamp(min=math.sqrt(2.5e-5))
        # gsplat lets the determinant without blur cancel as ours does, but in another order of operations.
        assert_matches("opacity", ours.opacities, expected, 1e-7)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_colours_equal_gsplat(degree: int) -> None:
    theirs = pytest.importorskip("gsplat.cuda._torch_impl", exc_type=ImportError)
    case = RasterCase(seed=121, n=100)
    gaussians, pose = double(case.gaussians), torch.from_numpy(case.camera.cam_from_world)
    ours = project(gaussians, case.camera, pose, RasterSettings(), degree)
    rays = gaussians.means - torch.from_numpy(case.camera.center)
    coefficients = torch.cat([gaussians.sh0, gaussians.shN], dim=1)
    expected = (theirs._spherical_harmonics(degree, rays, coefficients) + 0.5).clamp(min=0)
    assert_matches("colours", ours.colors, expected, FOREIGN * 10)
