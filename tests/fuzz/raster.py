"""The native rasterizer as a target: Gaussians, camera and settings from bytes, any bytes.

A case is a file so that it can be kept, shown again and damaged like the others: eight bytes that choose sizes and
options, then float32 numbers (camera first, then the six tensors), taken over from the start where there are too few.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch

from splatinit import native
from splatinit.errors import ConfigError
from splatinit.raster.base import RasterSettings
from splatinit.types import GAUSSIAN_FIELDS, Camera, Gaussians

from .plain import Reading

FILE = "case.bin"
COUNTS = (0, 1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 40, 100, 300)
COEFFICIENTS = (0, 3, 8, 15)
SIDES = (1, 2, 15, 16, 17, 31, 33, 48)  # px
HEADER = 8  # bytes: n, k, width, height, SH degree, options, 2 unused
CAMERA = 24  # floats: pose [16], fx, fy, cx, cy, eps2d, background [3]
ANTIALIASED, DEPTH, STATS, POSE, THREADS, PLAIN_BACKGROUND = (1 << bit for bit in range(6))  # options

HOSTILE = np.array(
    [np.nan, np.inf, -np.inf, 1e-42, -1e-42, 0.0, -0.0, 3.4e38, -3.4e38, 1e30, -1e30, 1e18, 1e10, -1e10, 1e-18, 1e-38]
    + [-100, 100, -88, 88, -20, 20, 1, -1, 0.01, 0.5],
    dtype=np.float32,
)
FINITE = HOSTILE[np.isfinite(HOSTILE)]

# Gradients must be finite where all numbers are moderate: what a training can meet, with a wide margin.
MODERATE = {
    "means": 1e4,
    "quats": 1e3,  # and no shorter than 1e-3
    "log_scales": 10.0,
    "logit_opacities": 100.0,
    "sh0": 1e3,
    "shN": 1e3,
}


def levels() -> tuple[str, ...]:
    """The instruction sets that can run here."""
    before, found = native.build_info()["simd"], []
    for level in ("generic", "avx2", "avx512", "neon"):
        try:
            native.set_simd(level)
            found.append(level)
        except ConfigError:
            pass
    native.set_simd(before)
    return tuple(found)


def widths(k: int) -> dict[str, tuple[int, ...]]:
    """Shape of one Gaussian's part of each field."""
    return {"means": (3,), "quats": (4,), "log_scales": (3,), "logit_opacities": (), "sh0": (1, 3), "shN": (k, 3)}


# ------------------------------------------------------------------------------------------------------------- making
def draw(rng: random.Random) -> tuple[bytes, str]:
    """A new case, and what is odd about it: ordinary Gaussians in front of a camera, stretched or moved as a whole in
    some fields, with hostile numbers in none, one, some or half of the places."""
    n, k = rng.choice(COUNTS if rng.random() < 0.5 else COUNTS[-3:]), rng.choice(COEFFICIENTS)
    width, height = rng.choice(SIDES), rng.choice(SIDES)
    header = bytes(
        [COUNTS.index(n), COEFFICIENTS.index(k), SIDES.index(width), SIDES.index(height)]
        + [rng.randrange(256) for _ in range(HEADER - 4)]
    )
    numbers = np.random.default_rng(rng.getrandbits(64))
    focal = rng.choice([0.5, 0.9, 0.9, 0.9, 50.0]) * max(width, height)
    camera = np.array([*np.eye(4).ravel(), focal, focal, width / 2, height / 2, 0.3, *numbers.random(3)], np.float32)
    camera[[3, 7, 11]] = numbers.normal(size=3) * rng.choice([0, 0.1, 0.1, 0.1, 0.1, 30])
    camera[20] = rng.choice([0.3, 0.3, 0.3, 0.3, 0.0, 0.01, 10.0])
    z = numbers.uniform(0.5, 5, n)
    across = numbers.uniform(-0.6, 0.6, (n, 2)) * [width, height] / focal * z[:, None]
    fields = {
        "means": np.column_stack([across, z]),
        "quats": numbers.normal(size=(n, 4)),
        "log_scales": np.log(numbers.uniform(0.5, max(width, height) / 6 + 0.6, (n, 3)) * z[:, None] / focal),
        "logit_opacities": numbers.normal(0, 2, n),
        "sh0": numbers.normal(0, 1, (n, 3)),
        "shN": numbers.normal(0, 0.2, (n, 3 * k)),
    }
    odd = []
    for name, change in (
        ("means", lambda x: x * rng.choice([0, 1e-3, -1, 100, 1e8])),
        ("means", lambda x: x * [0, 0, 1]),  # all on the axis
        ("means", lambda x: x * 0 + x[:1]),  # all at one place
        ("quats", lambda x: x * rng.choice([0, 1e-20, 1e-3, 1e3, 1e18])),
        ("log_scales", lambda x: x + rng.choice([-120, -40, -10, 3, 6, 10, 40, 120])),
        ("log_scales", lambda x: x + numbers.normal(size=x.shape) * rng.choice([3, 10, 40])),
        ("logit_opacities", lambda x: x * 0 + rng.choice([-1e3, -100, -20, -5.5, 5, 20, 100, 1e3])),
        ("sh0", lambda x: x * rng.choice([0, 1e3, 1e10, 1e38])),
        ("shN", lambda x: x * rng.choice([0, 1e3, 1e10, 1e38])),
    ):
        if rng.random() < 0.06:
            fields[name] = change(fields[name])
            odd.append(name)
    with np.errstate(over="ignore"):
        body = np.concatenate([part.ravel() for part in fields.values()]).astype(np.float32)
    share = rng.choice([0, 0, 0, "one", 0.01, 0.5])
    values = rng.choice([HOSTILE, FINITE])
    for part, often in ((body, 1.0), (camera, 0.2)):
        if share == 0 or not len(part) or rng.random() > often:
            continue
        places = [rng.randrange(len(part))] if share == "one" else np.nonzero(numbers.random(len(part)) < share)[0]
        part[places] = numbers.choice(values, len(places))
        odd.append(f"{len(places)} hostile numbers")
    odd = [f"{n} Gaussians, {width}x{height} px", *odd]
    return header + camera.tobytes() + body.tobytes(), ", ".join(odd)


def build(root: Path) -> None:
    rng = random.Random(1)
    while True:
        data, odd = draw(rng)
        if odd.startswith("100 ") and odd.count(",") == 1:  # nothing odd about it
            root.mkdir(parents=True)
            (root / FILE).write_bytes(data)
            return


# ------------------------------------------------------------------------------------------------------------ reading
def parse(data: bytes) -> tuple[Gaussians, Camera, RasterSettings, torch.Tensor, int, int]:
    """Gaussians, camera, settings, background, SH degree and options of a case."""
    header = data[:HEADER].ljust(HEADER, b"\0")
    n, k = COUNTS[header[0] % len(COUNTS)], COEFFICIENTS[header[1] % len(COEFFICIENTS)]
    width, height = SIDES[header[2] % len(SIDES)], SIDES[header[3] % len(SIDES)]
    degree, options = header[4] % (COEFFICIENTS.index(k) + 1), header[5]
    shapes = {name: (n, *shape) for name, shape in widths(k).items()}
    sizes = [int(np.prod(shape)) for shape in shapes.values()]
    given = data[HEADER : len(data) - (len(data) - HEADER) % 4] if len(data) >= HEADER + 4 else bytes(4)
    numbers = np.resize(np.frombuffer(given, "<f4"), CAMERA + sum(sizes)).astype(np.float32)
    camera, parts = numbers[:CAMERA], np.split(numbers[CAMERA:], np.cumsum(sizes)[:-1])
    tensors = {
        name: torch.from_numpy(part.copy()).reshape(shape)
        for (name, shape), part in zip(shapes.items(), parts, strict=True)
    }
    fx, fy, cx, cy, eps2d = map(float, camera[16:21])
    view = Camera(
        np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), camera[:16].reshape(4, 4).astype(np.float64), width, height
    )
    settings = RasterSettings(antialiased=bool(options & ANTIALIASED), eps2d=eps2d)
    return Gaussians(**tensors), view, settings, torch.from_numpy(camera[21:24].copy()), degree, options


def finite(gaussians: Gaussians, camera: Camera, settings: RasterSettings, background: torch.Tensor) -> bool:
    numbers = np.concatenate([camera.K.ravel(), camera.cam_from_world.ravel(), [settings.eps2d], background.numpy()])
    return bool(np.isfinite(numbers).all()) and all(bool(t.isfinite().all()) for t in gaussians.tensors().values())


def moderate(gaussians: Gaussians, camera: Camera, settings: RasterSettings, background: torch.Tensor) -> bool:
    """All within MODERATE, a rotation as rotation, focal lengths and places of the camera up to 1e4, eps2d from 0.01 to
    10, a background up to 1e3."""
    if not finite(gaussians, camera, settings, background):
        return False
    R, t = camera.cam_from_world[:3, :3], camera.cam_from_world[:3, 3]
    largest = {name: float(t.abs().max()) for name, t in gaussians.tensors().items() if t.numel()}
    return (
        all(value <= MODERATE[name] for name, value in largest.items())
        and bool((gaussians.quats.norm(dim=1) >= 1e-3).all())
        and np.abs(R @ R.T - np.eye(3)).max() < 1e-3
        and np.abs(t).max() <= 1e4
        and min(camera.fx, camera.fy) >= 1
        and np.abs(camera.K).max() <= 1e4
        and 0.01 <= settings.eps2d <= 10
        and float(background.abs().max()) <= 1e3
    )


def read(root: Path) -> Reading:
    """Draw a case at every level, forward and backward. What is in the reading must be finite: images where the inputs
    are, gradients where they are moderate."""
    from splatinit.raster.native import CpuRasterizer

    gaussians, camera, settings, background, degree, options = parse((root / FILE).read_bytes())
    about = (gaussians, camera, settings, background)
    is_finite, is_moderate = finite(*about), moderate(*about)
    reading: Reading = {"finite": is_finite, "moderate": is_moderate}
    facts = native.build_info()
    generator = torch.Generator().manual_seed(0)
    v_rgb = torch.rand(camera.height, camera.width, 3, generator=generator) * 2 - 1
    try:
        native.set_threads(3 if options & THREADS else 1)
        for level in levels():
            native.set_simd(level)
            leaves = gaussians.map(lambda tensor: tensor.clone().requires_grad_())
            pose = torch.from_numpy(camera.cam_from_world.astype(np.float32)).requires_grad_(bool(options & POSE))
            behind = None if options & PLAIN_BACKGROUND else background.clone().requires_grad_()
            render = CpuRasterizer().render(
                leaves,
                camera,
                settings=settings,
                background=behind,
                sh_degree=degree,
                cam_from_world=pose,
                with_depth=bool(options & DEPTH),
                with_stats=bool(options & STATS),
            )
            image = {"rgb": render.rgb, "alpha": render.alpha, "depth": render.depth}
            image = {name: tensor for name, tensor in image.items() if tensor is not None}
            cotangents = [v_rgb[..., :1].reshape(t.shape) if t.dim() == 2 else v_rgb for t in image.values()]
            torch.autograd.backward(list(image.values()), cotangents)
            alpha = render.alpha.detach()
            if not bool(((alpha >= 0) & (alpha <= 1)).all()):
                raise AssertionError(f"alpha from {float(alpha.min())} to {float(alpha.max())} at level {level}")
            if is_finite:
                aux = {name: getattr(render.aux, name) for name in ("means2d", "depths", "radii", "blend_weight")}
                for name, tensor in {**image, **aux}.items():
                    if tensor is not None:
                        reading[f"{level}: {name}"] = tensor.detach().numpy().copy()
            if is_moderate:
                gradients = {name: tensor.grad for name, tensor in leaves.tensors().items()}
                gradients |= {"pose": pose.grad, "background": None if behind is None else behind.grad}
                gradients |= {name: getattr(render.aux, name) for name in ("v_means2d", "v_means2d_abs")}
                for name, tensor in gradients.items():
                    if tensor is not None:
                        reading[f"{level}: gradient of {name}"] = tensor.numpy().copy()
    finally:
        native.set_threads(facts["threads"])
        native.set_simd(facts["simd"])
    return reading


assert tuple(widths(0)) == GAUSSIAN_FIELDS
