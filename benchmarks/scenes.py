"""Gaussians to draw: random clouds, and surfaces as training leaves them, with cameras that look at them."""

from __future__ import annotations

import math

import numpy as np
import torch

from splatinit.types import Camera, Gaussians


def random_scene(n: int, width: int, height: int, blended: float = 30.0, seed: int = 0) -> tuple[Gaussians, Camera]:
    """Gaussians of mixed size, shape and opacity between depth 2 and 10 in front of a camera of 64° field of view.

    The mean opacity is 0.15, so that few pixels saturate and ``blended`` is what a pixel really blends (it is measured
    and printed beside every time).
    """
    random = torch.Generator().manual_seed(seed)
    focal = 0.8 * width
    depth = torch.rand(n, generator=random) * 8 + 2
    x = (torch.rand(n, generator=random) - 0.5) * width / focal * depth
    y = (torch.rand(n, generator=random) - 0.5) * height / focal * depth
    # A Gaussian of opacity 0.15 is drawn out to 2.7 sigma; anisotropy and spread of opacity enlarge the area by 1.2.
    sigma_px = math.sqrt(blended * width * height / n / (math.pi * 2.7**2) / 1.2)
    log_scales = torch.log(sigma_px * depth / focal)[:, None] + 0.4 * torch.randn(n, 3, generator=random)
    gaussians = Gaussians(
        means=torch.stack([x, y, depth], dim=1),
        quats=torch.randn(n, 4, generator=random),
        log_scales=log_scales,
        logit_opacities=torch.randn(n, generator=random) - 2.0,
        sh0=0.5 * torch.randn(n, 1, 3, generator=random),
        shN=0.1 * torch.randn(n, 15, 3, generator=random),
    )
    K = np.array([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])
    return gaussians, Camera(K, np.eye(4), width, height)


def room(n: int, seed: int = 0) -> Gaussians:
    """A room of 8 × 3 × 8 with sixteen balls: what a video shows of a trained scene, for drawing and for encoders.

    Flat Gaussians lie along the surfaces, a twentieth floats before these. Their opacities are those of trained
    scenes (many nearly transparent, some nearly opaque), their colours smooth patterns with a little SH of degree 3.
    y points down; the floor is at y = 0.
    """
    random = torch.Generator().manual_seed(seed)
    half, height = 4.0, 3.0
    balls = 16
    centres = torch.rand(balls, 3, generator=random) * torch.tensor([3.6, 1.6, 3.6]) - torch.tensor([1.8, 2.0, 1.8])
    radii = 0.2 + 0.3 * torch.rand(balls, generator=random)

    normals = torch.nn.functional.normalize(torch.randn(n, 3, generator=random), dim=1)
    ball = torch.randint(balls, (n,), generator=random)
    on_balls = centres[ball] + radii[ball, None] * normals
    # Floor, ceiling and walls: a random place in the box is pushed to one of its sides.
    place = 2 * torch.rand(n, 3, generator=random) - 1
    side = torch.multinomial(torch.tensor([3.0, 8.0, 3.0]), n, replacement=True, generator=random)[:, None]
    sign = torch.where(torch.rand(n, 1, generator=random) < 0.5, -1.0, 1.0)
    size = torch.tensor([half, height / 2, half])
    on_walls = place.scatter(1, side, sign) * size - torch.tensor([0.0, height / 2, 0.0])
    inwards = torch.zeros(n, 3).scatter(1, side, -sign)

    of_ball = torch.rand(n, 1, generator=random) < 0.3
    normals = torch.where(of_ball, normals, inwards)
    floating = torch.where(torch.rand(n, 1, generator=random) < 0.05, 0.2, 0.005)
    means = torch.where(of_ball, on_balls, on_walls) + normals * torch.rand(n, 1, generator=random) * floating

    area = 4 * half**2 * 2 + 8 * half * height + float((4 * math.pi * radii**2).sum())
    spacing = math.sqrt(area / n)
    log_scales = math.log(0.8 * spacing) + 0.5 * torch.randn(n, 3, generator=random)
    log_scales[:, 2] -= 2.0
    # The rotation that takes z to the normal: half of the turn between them, as a quaternion.
    quats = torch.cat([1 + normals[:, 2:], -normals[:, 1:2], normals[:, :1], torch.zeros(n, 1)], dim=1)
    quats[(quats.norm(dim=1) < 1e-3)] = torch.tensor([0.0, 1.0, 0.0, 0.0])

    waves = torch.randn(3, 9, generator=random) * torch.tensor([1.5] * 3 + [6.0] * 3 + [20.0] * 3)
    pattern = torch.sin(means @ waves + 6 * torch.rand(9, generator=random))
    sh0 = (pattern.reshape(n, 3, 3) * torch.tensor([0.8, 0.6, 0.5])[:, None]).sum(1)
    return Gaussians(
        means=means,
        quats=quats,
        log_scales=log_scales,
        logit_opacities=2.0 * torch.randn(n, generator=random) - 0.5,
        sh0=sh0[:, None],
        shN=0.03 * torch.randn(n, 15, 3, generator=random),
    )


def walk(frames: int, width: int, height: int) -> list[Camera]:
    """One turn through the room, at eye level and 64° wide, looking past its middle."""
    focal = 0.8 * width
    K = np.array([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])
    cameras = []
    for turn in 2 * np.pi * np.arange(frames) / frames:
        centre = np.array([3.2 * np.sin(turn), -1.6 - 0.3 * np.sin(2 * turn), -3.2 * np.cos(turn)])
        towards = np.array([0.4 * np.cos(turn), -1.3, 0.4 * np.sin(turn)])
        cameras.append(Camera(K, _looking(centre, towards), width, height))
    return cameras


def _looking(centre: np.ndarray, towards: np.ndarray) -> np.ndarray:
    """[4, 4] cam_from_world of an upright camera; y points down."""
    ahead = towards - centre
    ahead /= np.linalg.norm(ahead)
    right = np.cross([0.0, 1.0, 0.0], ahead)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = [right, np.cross(ahead, right), ahead]
    pose[:3, 3] = -pose[:3, :3] @ centre
    return pose


def cube(n: int, seed: int = 0) -> Gaussians:
    """A random start: points spread evenly in a cube of side 2, as large as their neighbours are far, of opacity 0.1.

    The mean distance to the three nearest of such points is 0.72 of the side of the cube that each has to itself; it
    varies by a fifth.
    """
    random = torch.Generator().manual_seed(seed)
    spacing = 2.0 / n ** (1 / 3)
    log_scales = math.log(0.72 * spacing) + 0.2 * torch.randn(n, 1, generator=random)
    return Gaussians(
        means=2 * torch.rand(n, 3, generator=random) - 1,
        quats=torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(n, 1),
        log_scales=log_scales.repeat(1, 3),
        logit_opacities=torch.full((n,), math.log(0.1 / 0.9)),
        sh0=0.5 * torch.randn(n, 1, 3, generator=random),
        shN=0.03 * torch.randn(n, 15, 3, generator=random),
    )


def ring(frames: int, width: int, height: int) -> list[Camera]:
    """Once around the cube at 2.6 from its middle, 64° wide."""
    focal = 0.8 * width
    K = np.array([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])
    turns = 2 * np.pi * np.arange(frames) / frames
    centres = [np.array([2.5 * np.sin(turn), -0.7, -2.5 * np.cos(turn)]) for turn in turns]
    return [Camera(K, _looking(centre, np.zeros(3)), width, height) for centre in centres]


def surfaces(n: int, seed: int = 0) -> Gaussians:
    """What a training leaves of a place outdoors: sixteen balls above the ground, and far around them all the rest.

    Flat Gaussians lie in the surfaces, longer one way than the other, at any angle; their sizes are spread
    log-normally around their spacing. Half are nearly opaque, half nearly transparent. A sixth is the surroundings, 20
    to 60 away, and every hundredth of these is ten times as large. For :func:`walk`; y points down.
    """
    random = torch.Generator().manual_seed(seed)
    uniform = lambda *shape: torch.rand(*shape, generator=random)  # noqa: E731
    normal = lambda *shape: torch.randn(*shape, generator=random)  # noqa: E731
    half, balls = 4.0, 16
    centres = uniform(balls, 3) * torch.tensor([3.6, 1.6, 3.6]) - torch.tensor([1.8, 2.0, 1.8])
    radii = 0.2 + 0.3 * uniform(balls)

    part = uniform(n, 1)
    of_ground, of_surroundings = part < 0.45, part > 0.84
    directions = torch.nn.functional.normalize(normal(n, 3), dim=1)
    ball = torch.randint(balls, (n,), generator=random)
    above = directions * torch.tensor([1.0, -1.0, 1.0])
    above[:, 1] = -above[:, 1].abs()
    distance = 20 * 3 ** uniform(n, 1)
    ground = torch.cat([half * (2 * uniform(n, 1) - 1), torch.zeros(n, 1), half * (2 * uniform(n, 1) - 1)], dim=1)
    down = torch.tensor([0.0, -1.0, 0.0]).expand(n, 3)
    means = torch.where(of_surroundings, distance * above, centres[ball] + radii[ball, None] * directions)
    means = torch.where(of_ground, ground, means) + 0.004 * normal(n, 3)
    normals = torch.where(of_ground, down, torch.where(of_surroundings, -above, directions))

    near = math.sqrt((4 * half**2 + float((4 * math.pi * radii**2).sum())) / (0.84 * n))
    far = math.sqrt(2 * math.pi / (0.16 * n)) * distance
    spacing = torch.where(of_surroundings, far * torch.where(uniform(n, 1) < 0.01, 10.0, 1.0), near)
    log_scales = torch.log(0.8 * spacing) + 0.5 * normal(n, 1) + 0.3 * normal(n, 3)
    log_scales += torch.tensor([0.4, -0.4, -2.5])
    # The rotation that takes z to the normal, half of the turn between them, after a turn around z.
    tilt = torch.cat([1 + normals[:, 2:], -normals[:, 1:2], normals[:, :1], torch.zeros(n, 1)], dim=1)
    tilt[tilt.norm(dim=1) < 1e-3] = torch.tensor([0.0, 1.0, 0.0, 0.0])
    w, x, y, _ = torch.nn.functional.normalize(tilt, dim=1).unbind(1)
    angle = math.pi * uniform(n)
    c, s = angle.cos(), angle.sin()
    quats = torch.stack([w * c, x * c + y * s, y * c - x * s, w * s], dim=1)

    waves = normal(3, 9) * torch.tensor([1.5] * 3 + [6.0] * 3 + [20.0] * 3)
    pattern = torch.sin(means @ waves + 6 * uniform(9))
    return Gaussians(
        means=means,
        quats=quats,
        log_scales=log_scales,
        logit_opacities=torch.where(uniform(n) < 0.5, -3.0 + 0.7 * normal(n), 3.0 + 1.2 * normal(n)),
        sh0=(pattern.reshape(n, 3, 3) * torch.tensor([0.8, 0.6, 0.5])[:, None]).sum(1)[:, None],
        shN=0.03 * normal(n, 15, 3),
    )
