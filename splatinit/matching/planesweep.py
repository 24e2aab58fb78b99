"""Multi-view stereo for posed photos: a plane sweep, then PatchMatch from coarse to fine. Needs no weights and no GPU.

1. Sweep, at a small size: every pixel tries fronto-parallel planes at evenly spaced inverse depths (Collins 1996); the
   cost is 1 − ZNCC in the mean over the neighbours that fit best, as robust against occlusion as against gain and offset.
   What is cheapest starts the search; what is nearly as cheap at another depth is remembered as its rival.
2. Search, from level to level of an image pyramid: every pixel has a slanted plane, tries those of its neighbours, other
   depths (with a parabola through three costs for the part below a pixel) and other tilts (PatchMatch stereo: Bleyer et
   al. 2011; Xu and Tao 2019). The last level reads windows of the full photo, at every ``stride``-th pixel.
3. Judgement, neighbour by neighbour: the place of the match is refined in each neighbour by itself, so that
   triangulation can tell whether the neighbours agree. The certainty is a product: how alike the windows are, how sharp
   the minimum is, how far this neighbour's own place is from the common one, whether another depth fits nearly as well,
   and whether the neighbour's own sweep allows the depth (left-right check).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ConfigError, NoPoses
from ..native import Stereo, StereoPhoto
from .base import Matches, MatchView

if TYPE_CHECKING:
    from ..types import Camera

_GREY = np.array([0.299, 0.587, 0.114], np.float32)  # Rec. 601, as JPEG's luma
_MOST_NEIGHBOURS = 16
_JUDGED_STEP = 0.5  # px beside a match at which its minimum is measured


@dataclass(frozen=True)
class PlaneSweepConfig:
    """Settings of the plane sweep.

    Attributes:
        stride: a match for every so manieth pixel of the reference, in x and y (1 to 8).
        sweep_size: longer side, px, of the photos in the first sweep.
        hypothesis_px: spacing of its planes, px in the neighbour in which they move fastest.
        hypotheses_max: most planes of the sweep.
        radius: px of the square windows (1 to 4): 3 is 7 × 7.
        best: share of the neighbours that a plane must fit: the cost is the mean over the best of them.
        noise: standard deviation of grey, in [0, 1], that is taken for noise; less contrast is no evidence.
        rounds: of the search on each level of the pyramid.
        min_certainty: matches below it in all neighbours are dropped.
        min_parallax_degrees: neighbours that see the middle of the depth range under a smaller angle are left out.
        max_slope: largest tangent of the angle between a surface and the image plane that is searched.
    """

    stride: int = 2
    sweep_size: int = 256
    hypothesis_px: float = 1.0
    hypotheses_max: int = 192
    radius: int = 3
    best: float = 0.5
    noise: float = 0.008
    rounds: int = 2
    min_certainty: float = 0.1
    min_parallax_degrees: float = 0.3
    max_slope: float = 4.0


@dataclass(frozen=True)
class _Level:
    """All photos at one level of the pyramid; the reference first."""

    cameras: list[Camera]
    photos: list[StereoPhoto]
    stride: int = 1
    first: int = 0

    def stereo(self, config: PlaneSweepConfig) -> Stereo:
        count = len(self.photos) - 1
        best = max(1, math.ceil(config.best * count))
        return Stereo(
            self.photos[0], self.photos[1:], config.radius, best, config.noise**2, self.stride, self.first
        )

    def pixels(self) -> tuple[np.ndarray, np.ndarray]:
        """x [gw], y [gh] of the pixels with a depth: px with centres at +0.5."""
        camera = self.cameras[0]
        return tuple(np.arange(self.first, n, self.stride) + 0.5 for n in (camera.width, camera.height))


class PlaneSweep:
    """The matcher ``planesweep``; see the module's text. The same input gives the same matches on any number of threads."""

    name = "planesweep"

    def __init__(self, config: PlaneSweepConfig | None = None) -> None:
        self.config = config or PlaneSweepConfig()

    def match(
        self,
        reference: MatchView,
        neighbours: Sequence[MatchView],
        *,
        depth_range: tuple[float, float] | None = None,
    ) -> Matches:
        """See :class:`splatinit.matching.base.Matcher`; normals are those of the planes found.

        Raises:
            NoPoses: a view has no camera.
            ConfigError: no depth range, or not 0 < near < far.
        """
        config = self.config
        near, far = _checked(reference, neighbours, depth_range)
        inverse_range = 1.0 / far, 1.0 / near
        chosen = _with_parallax(reference, neighbours, inverse_range, config)
        if not chosen:
            return _nothing(len(neighbours))
        views = [reference, *(neighbours[k] for k in chosen)]
        greys = [_grey(view) for view in views]
        sizes = _pyramid(reference, config)

        level = _level(views, greys, sizes[0])
        coarse = _sweep(level, inverse_range, config)
        planes = coarse.planes
        for size in sizes[1:]:
            last = size == sizes[-1]
            finer = _level(views, greys, size)
            if last:
                finer = replace(finer, stride=config.stride, first=config.stride // 2 if config.stride > 1 else 0)
            planes = _carried(planes, level, finer)
            level = finer
            steps = [2.0 ** -(1 + k) for k in range(config.rounds)]
            planes, cost = level.stereo(config).search(
                planes, steps, inverse_depths=inverse_range, steepest=config.max_slope / min(level.cameras[0].fx, level.cameras[0].fy)
            )
        return _judged(level, planes, coarse, chosen, len(neighbours), config)


def _checked(
    reference: MatchView, neighbours: Sequence[MatchView], depth_range: tuple[float, float] | None
) -> tuple[float, float]:
    for view in (reference, *neighbours):
        if view.camera is None:
            raise NoPoses(
                f"{view.name}: the matcher 'planesweep' searches along epipolar lines and needs posed photos; this one "
                "has no camera.",
                hint="Pose the photos first, or take a matcher that needs no poses.",
            )
    if depth_range is None or not 0.0 < depth_range[0] < depth_range[1] < math.inf:
        raise ConfigError(
            f"{reference.name}: the matcher 'planesweep' got the depth range {depth_range}; expected 0 < near < far, "
            "finite, in scene units.",
            hint="Give the camera z of the nearest and the farthest thing of interest in this photo.",
        )
    return depth_range


def _nothing(neighbours: int) -> Matches:
    return Matches(np.empty((0, 2)), np.empty((neighbours, 0, 2)), np.empty((neighbours, 0)), np.empty((0, 3)))


def _with_parallax(
    reference: MatchView, neighbours: Sequence[MatchView], inverse_range: tuple[float, float], config: PlaneSweepConfig
) -> list[int]:
    """Neighbours that see the middle of the range from another side; the widest apart where there are too many."""
    camera = reference.camera
    middle = camera.world_from_cam[:3, :3] @ [0.0, 0.0, 2.0 / sum(inverse_range)]  # from the reference's centre
    angles = []
    for view in neighbours:
        baseline = view.camera.center - camera.center
        across = np.linalg.norm(np.cross(baseline, middle))
        angles.append(math.degrees(math.atan2(across, float(middle @ (middle - baseline)))))
    wide = [k for k, angle in enumerate(angles) if angle >= config.min_parallax_degrees]
    return sorted(sorted(wide, key=lambda k: -angles[k])[:_MOST_NEIGHBOURS])


def _grey(view: MatchView) -> tuple[np.ndarray, np.ndarray | None]:
    """Grey in [0, 1] and, where something is unusable, 1 where the pixel is usable; both [h, w] float32."""
    grey = view.rgb.astype(np.float32) @ (_GREY / 255.0)
    return grey, None if view.usable is None or view.usable.all() else view.usable.astype(np.float32)


def _pyramid(reference: MatchView, config: PlaneSweepConfig) -> list[float]:
    """Sizes relative to the photo: the sweep's, then twice as large from one to the next up to 1."""
    first = min(1.0, config.sweep_size / max(reference.rgb.shape[:2]))
    finer = [2.0**-k for k in range(16, -1, -1) if 2.0**-k > 1.2 * first or k == 0]
    return [first, *finer]


def _level(views: Sequence[MatchView], greys: Sequence[tuple], size: float) -> _Level:
    """The photos at ``size`` times the reference's size; the neighbours such that a px is about the same angle there."""
    import cv2

    focal = math.sqrt(views[0].camera.fx * views[0].camera.fy)
    cameras, photos = [], []
    for view, (grey, usable) in zip(views, greys, strict=True):
        scale = min(1.0, size * focal / math.sqrt(view.camera.fx * view.camera.fy))
        height, width = (max(2, round(n * scale)) for n in grey.shape)
        if (height, width) != grey.shape:
            grey = cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA)
            usable = None if usable is None else cv2.resize(usable, (width, height), interpolation=cv2.INTER_AREA)
        code = (np.clip(grey, 0.0, 1.0) * 65534.0 + 1.5).astype(np.uint16)
        if usable is not None:
            code[usable < 0.999] = 0
        camera = view.camera.resized(width, height)
        cameras.append(camera)
        photos.append(StereoPhoto(code, _from_reference(cameras[0], camera)))
    return _Level(cameras, photos)


def _from_reference(reference: Camera, camera: Camera) -> np.ndarray:
    """[3, 4] (M | b) that takes a pixel of the reference at depth z to M x + b / z; for the reference itself (I | 0)."""
    motion = camera.cam_from_world @ reference.world_from_cam
    return np.concatenate([camera.K @ motion[:3, :3] @ np.linalg.inv(reference.K), (camera.K @ motion[:3, 3])[:, None]], 1)


def _project(matrix: np.ndarray, x: np.ndarray, y: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """u, v and depth relative to the reference's (z'/z), of pixels (x, y) at inverse depth w."""
    m = matrix.astype(np.float32)
    p = [m[i, 0] * x + m[i, 1] * y + m[i, 2] + m[i, 3] * w for i in range(3)]
    ratio = np.where(p[2] > 1e-6, p[2], np.nan)
    return p[0] / ratio, p[1] / ratio, ratio


@dataclass(frozen=True)
class _Volume:
    """Costs of a sweep.

    Attributes:
        w: [d] inverse depths, evenly spaced.       cost: [h, d, w].      lowest: [h, w] smallest cost of each pixel.
        planes: [3, h, w] where it is, with a parabola through its neighbours, and no slope.
    """

    w: np.ndarray
    cost: np.ndarray
    lowest: np.ndarray
    planes: np.ndarray


def _sweep(level: _Level, inverse_range: tuple[float, float], config: PlaneSweepConfig) -> _Volume:
    count = _hypotheses(level, inverse_range, config)
    w = np.linspace(*inverse_range, count, dtype=np.float32)
    cost = level.stereo(config).sweep(w)
    index = cost.argmin(axis=1)
    at = np.stack([np.take_along_axis(cost, np.clip(index + k, 0, count - 1)[:, None], 1)[:, 0] for k in (-1, 0, 1)])
    planes = np.zeros((3, *index.shape), np.float32)
    planes[0] = np.clip(w[0] + (w[1] - w[0]) * (index + _vertex(at)), *inverse_range)
    return _Volume(w, cost, at[1], planes)


def _vertex(costs: np.ndarray) -> np.ndarray:
    """Where the parabola through three costs [3, ...] at −1, 0, 1 has its minimum, within ±1; 0 where it has none."""
    below, middle, above = costs
    curvature = below + above - 2.0 * middle
    with np.errstate(all="ignore"):
        return np.where(curvature > 1e-6, np.clip(0.5 * (below - above) / curvature, -1.0, 1.0), 0.0)


def _hypotheses(level: _Level, inverse_range: tuple[float, float], config: PlaneSweepConfig) -> int:
    """So many planes that none is further than ``hypothesis_px`` from the next in any neighbour."""
    width, height = level.cameras[0].width, level.cameras[0].height
    x, y = np.meshgrid(np.linspace(0, width, 8), np.linspace(0, height, 8))
    w = np.linspace(*inverse_range, 64)[:, None, None]
    longest = 0.0
    for photo, camera in zip(level.photos[1:], level.cameras[1:], strict=True):
        u, v, _ = _project(photo.from_reference, x, y, w)
        inside = (u >= 0) & (v >= 0) & (u <= camera.width) & (v <= camera.height)
        moved = np.hypot(np.diff(u, axis=0), np.diff(v, axis=0))[:, None][inside[1:, None] & inside[:-1, None]]
        if moved.size:
            longest = max(longest, float(np.quantile(moved, 0.9)) * (len(w) - 1))
    return int(np.clip(math.ceil(longest / config.hypothesis_px) + 1, 16, config.hypotheses_max))


def _carried(planes: np.ndarray, level: _Level, finer: _Level) -> np.ndarray:
    """Planes [3, h, w] of a level of stride 1 at the pixels of a finer one: each takes the nearest and extends it."""
    ratios = [getattr(level.cameras[0], n) / getattr(finer.cameras[0], n) for n in ("width", "height")]
    x, y = (at * ratio for at, ratio in zip(finer.pixels(), ratios, strict=True))
    column = np.minimum(x.astype(int), planes.shape[2] - 1)
    row = np.minimum(y.astype(int), planes.shape[1] - 1)
    w, wx, wy = planes[:, row[:, None], column[None]]
    w = w + wx * (x - column - 0.5)[None] + wy * (y - row - 0.5)[:, None]
    return np.stack([w, wx * ratios[0], wy * ratios[1]]).astype(np.float32)


@dataclass(frozen=True)
class _Judgement:
    """What the certainty is made of; v neighbours, [v, gh, gw] each unless said otherwise.

    Attributes:
        likeness: how alike the windows are, 0 to 1.
        sharpness: how much dearer a match beside this one is, 0 to 1.
        agreement: how near this neighbour's own place is to the common one, 0 to 1.
        uniqueness: [gh, gw] 0 where another depth fits as well, up to 1.
        mutuality: 0 where the neighbour's own sweep has a clearly better depth for that place, up to 1.
        offset: px along the epipolar line (in the neighbour that moves fastest) from the common place to its own.
    """

    likeness: np.ndarray
    sharpness: np.ndarray
    agreement: np.ndarray
    uniqueness: np.ndarray
    mutuality: np.ndarray
    offset: np.ndarray
    rate: np.ndarray

    @property
    def certainty(self) -> np.ndarray:
        return self.likeness * self.sharpness * self.agreement * self.uniqueness * self.mutuality


def _ramp(value: np.ndarray, zero: float, one: float) -> np.ndarray:
    """0 at ``zero``, 1 at ``one``, linear in between and constant beyond."""
    return np.clip((value - zero) / (one - zero), 0.0, 1.0).astype(np.float32)


def _judge(
    level: _Level, planes: np.ndarray, coarse_level: _Level, coarse: _Volume, config: PlaneSweepConfig
) -> _Judgement:
    stereo = level.stereo(config)
    costs, rate = stereo.costs(planes, _JUDGED_STEP)
    middle = costs[1]
    curvature = costs[0] + costs[2] - 2.0 * middle
    offset = _vertex(costs) * _JUDGED_STEP
    x, y = level.pixels()
    return _Judgement(
        likeness=_ramp(middle, 0.5, 0.1),
        sharpness=_ramp(curvature, 0.0, 0.06),
        agreement=_ramp(np.abs(offset), _JUDGED_STEP, 0.5 * _JUDGED_STEP),
        uniqueness=_uniqueness(level, planes, coarse_level, coarse),
        mutuality=_mutuality(level, planes, coarse_level, coarse, config),
        offset=offset,
        rate=rate,
    )


def _uniqueness(level: _Level, planes: np.ndarray, coarse_level: _Level, coarse: _Volume) -> np.ndarray:
    """How far the cheapest minimum at another depth is above the one taken, in the volume of the sweep."""
    cost, count = coarse.cost, len(coarse.w)
    at = _at_level(level, coarse_level)
    index = np.rint((planes[0] - coarse.w[0]) / (coarse.w[1] - coarse.w[0])).astype(int)
    minimum = np.ones_like(cost, bool)
    minimum[:, 1:] &= cost[:, 1:] <= cost[:, :-1]
    minimum[:, :-1] &= cost[:, :-1] <= cost[:, 1:]
    rivals = np.where(minimum, cost, 1.0)
    # The two cheapest minima of each coarse pixel: of these, what lies elsewhere is the rival.
    order = np.argpartition(rivals, 1, axis=1)[:, :2] if count > 2 else np.zeros((len(cost), 2, cost.shape[2]), int)
    values = np.take_along_axis(rivals, order, 1)
    near = np.abs(order[at[0][:, None], :, at[1][None]] - index[..., None]) <= 2
    pairs = values[at[0][:, None], :, at[1][None]]
    taken = np.where(near, pairs, np.inf).min(axis=-1)
    rival = np.where(near, np.inf, pairs).min(axis=-1)
    taken = np.where(np.isfinite(taken), taken, 1.0)
    return _ramp((1.0 - rival) / np.maximum(1.0 - taken, 1e-3), 0.98, 0.8)


def _at_level(level: _Level, coarse: _Level) -> tuple[np.ndarray, np.ndarray]:
    """Rows [gh] and columns [gw] of a level of stride 1 in which the pixels of a finer one lie."""
    camera, finer = coarse.cameras[0], level.cameras[0]
    x, y = level.pixels()
    columns = np.minimum((x * camera.width / finer.width).astype(int), camera.width - 1)
    return np.minimum((y * camera.height / finer.height).astype(int), camera.height - 1), columns


def _mutuality(
    level: _Level, planes: np.ndarray, coarse_level: _Level, coarse: _Volume, config: PlaneSweepConfig
) -> np.ndarray:
    x, y = np.meshgrid(*level.pixels())
    result = []
    for k in range(1, len(level.photos)):
        u, v, ratio = _project(level.photos[k].from_reference, x, y, planes[0])
        own = planes[0] / ratio
        camera = coarse_level.cameras[k]
        back = StereoPhoto(coarse_level.photos[0].grey, _from_reference(camera, coarse_level.cameras[0]))
        known = np.isfinite(own) & (u >= 0) & (v >= 0) & (u < level.cameras[k].width) & (v < level.cameras[k].height)
        if not known.any():
            result.append(np.zeros_like(planes[0]))
            continue
        low, high = np.quantile(own[known], [0.005, 0.995])
        span = max(high - low, 1e-6 * high)
        w = np.linspace(max(low - 0.1 * span, 1e-3 * high), high + 0.1 * span, len(coarse.w), dtype=np.float32)
        pair = Stereo(StereoPhoto(coarse_level.photos[k].grey), [back], config.radius, 1, config.noise**2)
        cost = pair.sweep(w)
        column = (np.where(known, u, 0) * camera.width / level.cameras[k].width).astype(int)
        row = (np.where(known, v, 0) * camera.height / level.cameras[k].height).astype(int)
        index = np.rint((np.where(known, own, low) - w[0]) / (w[1] - w[0])).astype(int)
        here = np.minimum.reduce([cost[row, np.clip(index + d, 0, len(w) - 1), column] for d in (-1, 0, 1)])
        excess = here - cost.min(axis=1)[row, column]
        result.append(_ramp(excess, 0.3, 0.05) * known)
    return np.stack(result)
