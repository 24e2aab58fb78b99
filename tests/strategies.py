"""Random cameras, Gaussians and whole rasterization cases, each a pure function of its seed."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from hypothesis import strategies as st

from splatinit.raster.base import RasterSettings
from splatinit.types import Camera, Gaussians


def rotation(rng: np.random.Generator) -> np.ndarray:
    """A uniformly random rotation [3, 3]."""
    Q, R = np.linalg.qr(rng.normal(size=(3, 3)))
    Q = Q * np.sign(np.diag(R))
    return Q if np.linalg.det(Q) > 0 else -Q


def random_camera(seed: int, width: int, height: int) -> Camera:
    """A camera near the origin in any orientation, about 55° wide, with fx ≠ fy and an off-centre principal point.

    All its numbers are float32, so that an engine in float32 and the float64 reference get the same camera.
    """
    rng = np.random.default_rng((seed, 1))
    pose = np.eye(4)
    pose[:3, :3] = rotation(rng)
    pose[:3, 3] = rng.normal(size=3) * 0.5
    focal = max(width, height, 8) * rng.uniform(0.85, 1.1)
    K = np.array(
        [
            [focal, 0, width * rng.uniform(0.45, 0.55)],
            [0, focal * rng.uniform(0.95, 1.05), height * rng.uniform(0.45, 0.55)],
            [0, 0, 1],
        ]
    )
    return Camera(K.astype(np.float32), pose.astype(np.float32), width, height)


KINDS = ("mixed", "opaque", "needles", "outside", "tiny", "ties")


def random_gaussians(seed: int, n: int, camera: Camera, *, sh_degree: int = 3, kind: str = "mixed") -> Gaussians:
    """n float32 Gaussians in front of ``camera``, of one kind:

    mixed: from sub-pixel to a quarter of the image, flat and round, faint and opaque;
    opaque: large and nearly opaque, so that every pixel saturates after a few;
    needles: fifty times longer than thick;
    outside: half of them behind, beside, or right in front of the camera;
    tiny: far below a pixel;
    ties: groups of five share one mean, so that only the index orders them.
    """
    rng = np.random.default_rng((seed, 2, KINDS.index(kind)))
    w, h = camera.width, camera.height
    size = max(w, h)
    z = rng.uniform(1.0, 6.0, n)
    u = rng.uniform(-0.1, 1.1, n) * w
    v = rng.uniform(-0.1, 1.1, n) * h
    sigma = np.exp(rng.uniform(np.log(0.4), np.log(max(size / 8, 1.0)), n))  # px
    logits = rng.normal(0.0, 2.0, n)
    squeeze = rng.uniform(0.2, 1.0, (n, 3))
    if kind == "opaque":
        sigma, logits = rng.uniform(0.15, 0.5, n) * size, rng.uniform(2.0, 9.0, n)
    elif kind == "needles":
        sigma = np.exp(rng.uniform(np.log(1.0), np.log(max(size / 4, 2.0)), n))
        squeeze = np.tile([1.0, 0.02, 0.02], (n, 1))
    elif kind == "tiny":
        sigma = np.exp(rng.uniform(np.log(1e-3), np.log(0.3), n))
    elif kind == "outside":
        away = rng.random(n) < 0.5
        z = np.where(away, rng.uniform(-3.0, 0.5, n), z)
        u = np.where(rng.random(n) < 0.3, u + 3 * w, u)
    elif kind == "ties":
        group = np.arange(n) // 5 * 5
        z, u, v = z[group], u[group], v[group]
    # Beyond the camera plane a pixel has no direction; sizes follow |z| to stay moderate there too.
    local = np.stack([(u - camera.K[0, 2]) / camera.fx * z, (v - camera.K[1, 2]) / camera.fy * z, z], axis=1)
    world = (local - camera.cam_from_world[:3, 3]) @ camera.cam_from_world[:3, :3]
    scales = (sigma * np.maximum(np.abs(z), 0.1) / camera.fx)[:, None] * squeeze
    quats = rng.normal(size=(n, 4)) * rng.uniform(0.3, 3.0, (n, 1))
    k = (sh_degree + 1) ** 2 - 1
    sh0 = rng.normal(0.0, 0.8, (n, 1, 3))
    shN = rng.normal(0.0, 0.2, (n, k, 3))
    numbers = {
        "means": world, "quats": quats, "log_scales": np.log(scales), "logit_opacities": logits, "sh0": sh0, "shN": shN,
    }  # fmt: skip
    return Gaussians(**{name: torch.from_numpy(value.astype(np.float32)) for name, value in numbers.items()})


@dataclass(frozen=True)
class RasterCase:
    """All that one comparison of two engines needs; printed as its own reproduction."""

    seed: int = 0
    n: int = 300
    width: int = 48
    height: int = 40
    kind: str = "mixed"
    sh_degree: int = 3
    used_degree: int | None = None
    settings: RasterSettings = field(default_factory=RasterSettings)

    def __str__(self) -> str:
        mode = "-aa" if self.settings.antialiased else ""
        used = "" if self.used_degree is None else f"of{self.used_degree}"
        return f"{self.kind}-{self.n}-{self.width}x{self.height}-sh{self.sh_degree}{used}{mode}-seed{self.seed}"

    @property
    def camera(self) -> Camera:
        return random_camera(self.seed, self.width, self.height)

    @property
    def gaussians(self) -> Gaussians:
        return random_gaussians(self.seed, self.n, self.camera, sh_degree=self.sh_degree, kind=self.kind)

    @property
    def background(self) -> torch.Tensor:
        return torch.tensor(np.random.default_rng((self.seed, 3)).uniform(0, 1, 3), dtype=torch.float32)

    def cotangents(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Random float64 gradients of a loss w.r.t. rgb [h, w, 3], alpha [h, w] and depth [h, w]."""
        rng = np.random.default_rng((self.seed, 4))
        shape = (self.height, self.width)
        rgb, alpha, depth = rng.normal(size=(*shape, 3)), rng.normal(size=shape), 0.1 * rng.normal(size=shape)
        # Float32 values, so that every engine gets exactly these numbers.
        return tuple(torch.from_numpy(value.astype(np.float32)).double() for value in (rgb, alpha, depth))


def raster_cases() -> st.SearchStrategy[RasterCase]:
    """Small cases of every kind, for property tests."""
    return st.builds(
        RasterCase,
        seed=st.integers(0, 10_000),
        n=st.integers(0, 60),
        width=st.integers(1, 40),
        height=st.integers(1, 40),
        kind=st.sampled_from(KINDS),
        sh_degree=st.integers(0, 3),
        settings=st.builds(RasterSettings, antialiased=st.booleans(), eps2d=st.sampled_from([0.3, 0.1])),
    )
