"""The textures of the demo scene, painted by arithmetic: tileable albedo maps with their mip pyramids.

Structure from motion must find its way in the pictures, so every surface carries detail at several scales: edges and
spots of a few centimetres for the detector, and slow variation that tells one place of a wall from another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import fft

SIZE = 512  # px of a texture's side, a power of two so that the mip pyramid ends at one pixel


@dataclass(frozen=True)
class Texture:
    """A mip pyramid in one flat array: ``texels`` [sum, 3] float32 linear albedo, level l at ``offsets[l]``."""

    texels: np.ndarray
    offsets: np.ndarray
    heights: np.ndarray
    widths: np.ndarray

    @classmethod
    def from_image(cls, srgb: np.ndarray) -> Texture:
        """From an sRGB image [h, w, 3] in [0, 1]; h and w are powers of two."""
        level = np.clip(srgb, 0, 1).astype(np.float32) ** 2.2
        levels = [level]
        while min(level.shape[:2]) > 1:
            level = level.reshape(level.shape[0] // 2, 2, level.shape[1] // 2, 2, 3).mean(axis=(1, 3))
            levels.append(level)
        sizes = np.array([part.shape[0] * part.shape[1] for part in levels])
        return cls(
            texels=np.concatenate([part.reshape(-1, 3) for part in levels]),
            offsets=np.concatenate([[0], np.cumsum(sizes)[:-1]]),
            heights=np.array([part.shape[0] for part in levels]),
            widths=np.array([part.shape[1] for part in levels]),
        )

    def sample(self, uv: np.ndarray, footprint: np.ndarray) -> np.ndarray:
        """[m, 3] linear albedo at ``uv`` [m, 2] (repeats; one unit is the whole texture).

        ``footprint`` [m] is the width of a picture sample in units of uv; it selects the mip level whose texels are as
        wide, and between four texels of this level the value is bilinear.
        """
        width_in_texels = np.maximum(footprint * self.heights[0], 1e-6)
        level = np.clip(np.rint(np.log2(width_in_texels)), 0, len(self.offsets) - 1).astype(np.int64)
        w, h, start = self.widths[level], self.heights[level], self.offsets[level]
        x, y = uv[:, 0] * w - 0.5, uv[:, 1] * h - 0.5
        x0, y0 = np.floor(x), np.floor(y)
        fx, fy = (x - x0).astype(np.float32)[:, None], (y - y0).astype(np.float32)[:, None]
        # Sizes are powers of two: the wrap is a mask.
        left, top = x0.astype(np.int64) & (w - 1), y0.astype(np.int64) & (h - 1)
        right, bottom = (left + 1) & (w - 1), (top + 1) & (h - 1)
        row0, row1 = start + top * w, start + bottom * w
        upper = self.texels[row0 + left] * (1 - fx) + self.texels[row0 + right] * fx
        lower = self.texels[row1 + left] * (1 - fx) + self.texels[row1 + right] * fx
        return upper * (1 - fy) + lower * fy


# ------------------------------------------------------------------------------------------------------- ingredients
def _noise(
    rng: np.random.Generator,
    shape: tuple[int, int],
    low: float,
    high: float,
    stretch: float = 1.0,
    power: float = 1.0,
) -> np.ndarray:
    """Tileable noise, mean 0 and deviation 1, of the waves between ``low`` and ``high`` periods per texture.

    ``stretch`` > 1 draws it out vertically (grain); ``power`` is the exponent by which short waves weaken.
    """
    h, w = shape
    fy, fx = fft.fftfreq(h)[:, None] * h * stretch, fft.rfftfreq(w)[None, :] * w * (h / w)
    radius = np.hypot(fx, fy).astype(np.float32)
    keep = (radius >= low) & (radius <= high)
    spectrum = fft.rfft2(rng.standard_normal(shape, np.float32)) * np.where(keep, np.maximum(radius, 1e-9) ** -power, 0)
    field = fft.irfft2(spectrum, s=shape)
    return (field / field.std()).astype(np.float32)


def _grid() -> tuple[np.ndarray, np.ndarray]:
    """u and v [SIZE, SIZE] at texel centres; v grows downwards in the image."""
    axis = (np.arange(SIZE) + 0.5) / SIZE
    return np.meshgrid(axis, axis)


def _mix(a: np.ndarray, b: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return a + (b - a) * np.clip(weight, 0, 1)[..., None]


def _rgb(*values: float) -> np.ndarray:
    return np.array(values, np.float32) / 255


def _bond(
    rng: np.random.Generator,
    rows: int,
    columns: int,
    colours: np.ndarray,
    mortar: np.ndarray,
    joint: float,
    dirt: float,
) -> np.ndarray:
    """Bricks, slabs or roof tiles: rows shifted by half a brick, each in a colour of its own, with mortar between."""
    u, v = _grid()
    row = np.floor(v * rows).astype(int)
    across = u * columns + 0.5 * (row % 2)
    column = np.floor(across).astype(int) % columns
    inner_u, inner_v = across % 1, (v * rows) % 1
    pick = rng.integers(len(colours), size=(rows, columns))
    shade = rng.uniform(0.78, 1.15, (rows, columns, 1)).astype(np.float32)
    image = (colours[pick] * shade)[row, column]
    image = image * (1 + dirt * _noise(rng, (SIZE, SIZE), 3, 120, power=0.9))[..., None]
    edge = np.minimum(np.minimum(inner_u, 1 - inner_u) / columns, np.minimum(inner_v, 1 - inner_v) / rows)
    ragged = joint * (1 + 0.35 * _noise(rng, (SIZE, SIZE), 8, 60))
    return _mix(image, mortar * np.ones_like(image), (ragged - edge) * SIZE / 2)


# A 5 × 7 pixel alphabet, as far as the stencils on the crates need it.
_LETTERS = {
    "S": "01111 10000 10000 01110 00001 00001 11110",
    "P": "11110 10001 10001 11110 10000 10000 10000",
    "L": "10000 10000 10000 10000 10000 10000 11111",
    "A": "01110 10001 10001 11111 10001 10001 10001",
    "T": "11111 00100 00100 00100 00100 00100 00100",
}


def _stencil(word: str, pixel: int) -> np.ndarray:
    """The word as a mask, one letter pixel ``pixel`` texels wide."""
    letters = [np.array([[int(c) for c in line] for line in _LETTERS[letter].split()]) for letter in word]
    gap = np.zeros((7, 1), int)
    rows = np.concatenate([part for letter in letters for part in (letter, gap)][:-1], axis=1)
    return np.kron(rows, np.ones((pixel, pixel), int)).astype(np.float32)


# -------------------------------------------------------------------------------------------------------- paintings
def _planks(rng: np.random.Generator, count: int, light: np.ndarray, dark: np.ndarray) -> np.ndarray:
    u, v = _grid()
    plank = np.floor(u * count).astype(int)
    grain = _noise(rng, (SIZE, SIZE), 4, 200, stretch=9, power=0.8)
    shift = rng.integers(SIZE, size=count)[plank]
    grain = grain[(np.arange(SIZE)[:, None] + shift) % SIZE, np.arange(SIZE)[None, :]]
    image = _mix(light * np.ones((SIZE, SIZE, 3), np.float32), dark, 0.4 + 0.28 * grain)
    image *= rng.uniform(0.78, 1.18, count).astype(np.float32)[plank][..., None]
    inner = (u * count) % 1
    gap = np.minimum(inner, 1 - inner) / count * SIZE < 2.5
    image[gap] *= 0.3
    for height in (0.06, 0.94):
        nail = np.hypot((inner - 0.5) / count, v - height) * SIZE < 4
        image[nail] = _rgb(52, 47, 44)
    return image


def _crate(rng: np.random.Generator) -> np.ndarray:
    u, v = _grid()
    image = _planks(rng, 6, _rgb(216, 170, 108), _rgb(128, 84, 44))
    rim = np.minimum(np.minimum(u, 1 - u), np.minimum(v, 1 - v))
    frame = _planks(rng, 3, _rgb(176, 122, 66), _rgb(98, 60, 30))
    brace = np.abs(u - v) < 0.075
    image = np.where((brace | (rim < 0.11))[..., None], frame, image)
    shadow = (np.abs(np.abs(u - v) - 0.075) < 0.008) & (rim > 0.11) | (np.abs(rim - 0.11) < 0.006)
    image[shadow] *= 0.45
    word = _stencil("SPLAT", 9)
    top, left = 350, (SIZE - word.shape[1]) // 2 + 46
    patch = image[top : top + word.shape[0], left : left + word.shape[1]]
    patch[:] = _mix(patch, _rgb(150, 22, 20), 0.9 * word)
    return image


def _globe(rng: np.random.Generator) -> np.ndarray:
    shape = (SIZE, 2 * SIZE)
    land = _noise(rng, shape, 2, 90, power=2.1)
    relief = _noise(rng, shape, 6, 200, power=0.9)
    latitude = (np.arange(SIZE) + 0.5)[:, None] / SIZE * 180 - 90
    longitude = (np.arange(2 * SIZE) + 0.5)[None, :] / (2 * SIZE) * 360
    sea = _mix(np.broadcast_to(_rgb(26, 82, 158), (*shape, 3)), _rgb(56, 150, 196), 0.4 + 0.3 * land)
    soil = _mix(np.broadcast_to(_rgb(84, 140, 58), (*shape, 3)), _rgb(214, 180, 110), 0.35 + 0.4 * relief)
    image = np.where((land > 0.25)[..., None], soil, sea)
    image = np.where((np.abs(land - 0.25) < 0.035)[..., None], _rgb(60, 48, 30), image)
    ice = np.abs(latitude) + 5 * relief > 72
    image = np.where(ice[..., None], _rgb(236, 240, 244) * (1 + 0.05 * relief)[..., None], image)
    lines = (np.abs((latitude + 15) % 30 - 15) < 0.6) | (np.abs((longitude + 15) % 30 - 15) < 0.6)
    return np.where(lines[..., None], image * 0.45, image)


def _patchwork(rng: np.random.Generator, cells: int) -> np.ndarray:
    """A quilt: each cell is cut into two triangles of different colours, with a disc or a ring sewn on some."""
    u, v = _grid()
    row, column = np.floor(v * cells).astype(int), np.floor(u * cells).astype(int)
    palette = np.stack(
        [_rgb(*c) for c in ((196, 42, 38), (240, 196, 60), (34, 92, 150), (240, 234, 220), (44, 130, 96), (42, 38, 52))]
    )
    first, second = rng.integers(len(palette), size=(2, cells, cells))
    second = np.where(second == first, (second + 1) % len(palette), second)
    turn = rng.integers(2, size=(cells, cells))
    x, y = (u * cells) % 1, (v * cells) % 1
    upper = np.where(turn[row, column] == 0, x + y < 1, x < y)
    pick = np.where(upper, first[row, column], second[row, column])
    radius = np.hypot(x - 0.5, y - 0.5)
    kind = rng.integers(4, size=(cells, cells))[row, column]
    sewn = ((kind == 0) & (radius < 0.24)) | ((kind == 1) & (np.abs(radius - 0.26) < 0.07))
    image = palette[np.where(sewn, (pick + 3) % len(palette), pick)]
    return image * (1 + 0.07 * _noise(rng, (SIZE, SIZE), 20, 200, power=0.3))[..., None]


def _dots(rng: np.random.Generator, ground: np.ndarray, ink: np.ndarray, count: int) -> np.ndarray:
    u, v = _grid()
    image = np.broadcast_to(ground, (SIZE, SIZE, 3)).copy()
    for _ in range(count):
        cx, cy, radius = rng.uniform(), rng.uniform(), rng.uniform(0.02, 0.07)
        du, dv = np.abs(u - cx), np.abs(v - cy)
        image[np.hypot(np.minimum(du, 1 - du), np.minimum(dv, 1 - dv)) < radius] = ink
    return image * (1 + 0.05 * _noise(rng, (SIZE, SIZE), 4, 100))[..., None]


def _beach_ball(rng: np.random.Generator) -> np.ndarray:
    u, v = _grid()
    colours = np.stack([_rgb(*c) for c in ((214, 40, 40), (246, 244, 236), (250, 190, 40), (30, 110, 180))])
    image = colours[np.floor(u * 8 + 0.6 * np.sin(v * 2 * np.pi)).astype(int) % 4]
    image = np.where((np.abs(v - 0.5) < 0.035)[..., None], _rgb(40, 36, 48), image)
    return image * (1 + 0.04 * _noise(rng, (SIZE, SIZE), 4, 100))[..., None]


def _speckled(
    rng: np.random.Generator, dark: np.ndarray, light: np.ndarray, low: float, high: float, stretch: float = 1.0
) -> np.ndarray:
    field = _noise(rng, (SIZE, SIZE), low, high, stretch=stretch, power=0.7)
    return _mix(np.broadcast_to(dark, (SIZE, SIZE, 3)), light, 0.5 + 0.33 * field)


def _facade(rng: np.random.Generator) -> np.ndarray:
    """Three floors of four windows with shutters, on plaster."""
    u, v = _grid()
    plaster = np.broadcast_to(_rgb(226, 208, 176), (SIZE, SIZE, 3))
    image = plaster * (1 + 0.10 * _noise(rng, (SIZE, SIZE), 2, 120, power=1.0))[..., None]
    floor, bay = np.floor(v * 3).astype(int), np.floor(u * 4).astype(int)
    x, y = np.abs((u * 4) % 1 - 0.5), np.abs((v * 3) % 1 - 0.5)
    shutter = np.stack([_rgb(58, 104, 92), _rgb(136, 58, 44), _rgb(70, 84, 120)])[rng.integers(3, size=(3, 4))]
    image = np.where(((x < 0.36) & (y < 0.30))[..., None], shutter[floor, bay], image)
    image = np.where(((x < 0.20) & (y < 0.32))[..., None], _rgb(244, 240, 230), image)
    glass = _rgb(60, 78, 98) * rng.uniform(0.6, 1.7, (3, 4, 1)).astype(np.float32)
    pane = (x < 0.17) & (y < 0.28) & (x > 0.012) & (np.abs(y - 0.09) > 0.012)
    image = np.where(pane[..., None], glass[floor, bay], image)
    return np.where((np.abs((v * 3) % 1 - 0.985) < 0.015)[..., None], image * 0.7, image)


def _sky(rng: np.random.Generator) -> np.ndarray:
    """The dome as an equirectangular map, zenith at the top row: clouds, and three ranges of hills at the horizon."""
    h, w = 1024, 2048
    elevation = 90 - (np.arange(h) + 0.5)[:, None] / h * 180
    up = np.clip(elevation / 90, 0, 1)
    image = _mix(np.broadcast_to(_rgb(206, 222, 236), (h, w, 3)), _rgb(62, 122, 196), up**0.6 * np.ones((h, w)))
    cloud = _noise(rng, (h, w), 3, 160, stretch=0.4, power=1.6)
    image = _mix(image, _rgb(252, 250, 246), (cloud - 0.15) * 0.9 * np.clip(elevation / 14, 0, 1))
    image = _mix(image, _rgb(170, 178, 192), (cloud - 1.2) * 0.6 * np.clip(elevation / 14, 0, 1))
    ranges = ((11, _rgb(132, 152, 176), 0.05), (7, _rgb(92, 120, 122), 0.10), (3.4, _rgb(66, 98, 62), 0.22))
    for height, colour, contrast in ranges:
        ridge = height + height * 0.32 * _noise(rng, (8, w), 2 / 256, 90 / 256, power=1.3)[0]
        wood = colour * (1 + contrast * _noise(rng, (h, w), 10, 400, power=0.5))[..., None]
        image = np.where((elevation < ridge[None, :])[..., None], wood, image)
    return image


_PAINTINGS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "paving": lambda rng: _bond(
        rng,
        4,
        3,
        np.stack([_rgb(188, 176, 158), _rgb(160, 150, 142), _rgb(200, 182, 150)]),
        _rgb(74, 70, 64),
        0.012,
        0.13,
    ),
    "brick": lambda rng: _bond(
        rng,
        10,
        4,
        np.stack([_rgb(168, 76, 52), _rgb(142, 60, 46), _rgb(186, 104, 70)]),
        _rgb(206, 198, 184),
        0.009,
        0.14,
    ),
    "roof": lambda rng: _bond(
        rng, 16, 10, np.stack([_rgb(150, 70, 50), _rgb(120, 62, 50), _rgb(170, 90, 62)]), _rgb(66, 40, 34), 0.006, 0.14
    ),
    "stone": lambda rng: _speckled(rng, _rgb(120, 116, 110), _rgb(222, 214, 200), 4, 220),
    "planks": lambda rng: _planks(rng, 5, _rgb(196, 140, 84), _rgb(104, 66, 36)),
    "painted": lambda rng: _planks(rng, 4, _rgb(64, 128, 120), _rgb(36, 84, 84)),
    "staves": lambda rng: _planks(rng, 8, _rgb(160, 96, 52), _rgb(82, 46, 24)),
    "crate": _crate,
    "globe": _globe,
    "quilt": lambda rng: _patchwork(rng, 6),
    "poster": lambda rng: _patchwork(rng, 9),
    "dots": lambda rng: _dots(rng, _rgb(238, 228, 206), _rgb(32, 66, 120), 60),
    "spots": lambda rng: _dots(rng, _rgb(206, 52, 40), _rgb(248, 240, 226), 50),
    "ball": _beach_ball,
    "metal": lambda rng: _speckled(rng, _rgb(48, 50, 56), _rgb(110, 112, 118), 6, 120),
    "brass": lambda rng: _speckled(rng, _rgb(150, 108, 40), _rgb(232, 190, 96), 6, 120),
    "bark": lambda rng: _speckled(rng, _rgb(58, 40, 28), _rgb(150, 118, 86), 5, 160, stretch=4),
    "leaf": lambda rng: _speckled(rng, _rgb(40, 92, 30), _rgb(150, 190, 70), 2, 60),
    "foliage": lambda rng: _speckled(rng, _rgb(22, 58, 22), _rgb(122, 160, 64), 5, 120),
    "grass": lambda rng: _speckled(rng, _rgb(54, 92, 34), _rgb(150, 168, 78), 3, 250),
    "white": lambda rng: _speckled(rng, _rgb(214, 210, 200), _rgb(250, 248, 240), 3, 60),
    "facade": _facade,
    "sky": _sky,
}


def paint_textures() -> dict[str, Texture]:
    """All textures by name; the same ones at every call. About two seconds."""
    seeds = np.random.SeedSequence(20).spawn(len(_PAINTINGS))
    return {
        name: Texture.from_image(paint(np.random.default_rng(seed)))
        for (name, paint), seed in zip(_PAINTINGS.items(), seeds, strict=True)
    }
