"""What the given cameras say by themselves: lenses, up, baselines, coverage. Arrays in, findings out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..geometry.neighbours import neighbour_distances
from ..types import Camera
from .report import FAIL, OK, WARN, Finding, listed

_FOV = (10.0, 125.0)  # degrees: beyond are telescopes and lenses that no pinhole shows; ours of fisheyes end at 124°
_ASPECT = 0.1  # |fx / fy − 1|; pixels are square, and undistortion stretches by a few percent
_CENTRE = 0.15  # of the side: principal points farther from the middle are from another size or another crop
_FOCAL_OUTLIER = 1.25  # × the median of the photos of one size
_ROLLED = 45.0  # degrees about the optical axis, against the others
_SAME_PLACE = 1e-3  # of the cameras' extent
_FEW_PLACES = 0.2  # share of the photos that share a place with another, from which it is worth a word
_LOOKS_AT = 35.0  # degrees between a camera's axis and the focus, for it to look there
_FORWARD_FACING = 0.85  # length of the mean of the viewing directions
_CLOSED_RING = 270.0  # degrees of azimuth from which a gap looks like an oversight
_GAP = 45.0  # degrees; a Gaussian seen from neither side of it is free to be anything


@dataclass(frozen=True)
class Rig:
    """The poses of n cameras as arrays.

    Attributes:
        R [n, 3, 3], t [n, 3]: cam_from_world.      centers [n, 3].      forward, right, up [n, 3]: world directions.
    """

    names: tuple[str, ...]
    R: np.ndarray
    t: np.ndarray

    @classmethod
    def of(cls, names: Sequence[str], cameras: Sequence[Camera]) -> Rig:
        poses = np.stack([camera.cam_from_world for camera in cameras])
        return cls(tuple(names), poses[:, :3, :3], poses[:, :3, 3])

    @property
    def centers(self) -> np.ndarray:
        return -np.einsum("nji,nj->ni", self.R, self.t)

    @property
    def right(self) -> np.ndarray:
        return self.R[:, 0]

    @property
    def up(self) -> np.ndarray:
        return -self.R[:, 1]

    @property
    def forward(self) -> np.ndarray:
        return self.R[:, 2]

    @property
    def extent(self) -> float:
        """Largest distance of a camera from their mean."""
        centers = self.centers
        return float(np.linalg.norm(centers - centers.mean(axis=0), axis=1).max())


def examine(names: Sequence[str], cameras: Sequence[Camera]) -> list[Finding]:
    """All findings about cameras that Camera.check has let through."""
    rig = Rig.of(names, cameras)
    return [_lenses(names, cameras), _up(rig), _baselines(rig), _coverage(rig)]


def neighbours(rig: Rig, each: int) -> list[list[int]]:
    """For each camera, those that are likely to see the same: near, and looking the same way; best first."""
    centers, forward = rig.centers, rig.forward
    n = len(centers)
    nearest = neighbour_distances(centers, 1)
    unit = float(np.median(nearest)) if nearest.size and np.median(nearest) > 0 else max(rig.extent, 1e-12)
    result = []
    for i in range(n):
        distance = np.linalg.norm(centers - centers[i], axis=1) / unit
        angle = np.degrees(np.arccos(np.clip(forward @ forward[i], -1, 1)))
        cost = distance + angle / 15.0  # a neighbour's distance weighs as much as 15° of turning
        cost[(angle > 60.0) | (np.arange(n) == i)] = np.inf
        order = np.argsort(cost, kind="stable")[:each]
        result.append([int(j) for j in order if np.isfinite(cost[j])])
    return result


# ------------------------------------------------------------------------------------------------------------- lenses
def _lenses(names: Sequence[str], cameras: Sequence[Camera]) -> Finding:
    fx, fy = np.array([c.fx for c in cameras]), np.array([c.fy for c in cameras])
    size = np.array([(c.width, c.height) for c in cameras], float)
    centre = np.array([c.K[:2, 2] for c in cameras]) / size - 0.5
    longer = size.max(axis=1)
    fov = np.degrees(2 * np.arctan(0.5 * longer / np.where(size[:, 0] >= size[:, 1], fx, fy)))
    odd: dict[str, np.ndarray] = {
        f"an angle of view outside {_FOV[0]:.0f}–{_FOV[1]:.0f}°": (fov < _FOV[0]) | (fov > _FOV[1]),
        "fx and fy that differ by more than 10 %": np.abs(fx / fy - 1) > _ASPECT,
        "a principal point far from the middle": np.abs(centre).max(axis=1) > _CENTRE,
    }
    relative = fx / longer
    median = np.array([np.median(relative[(size == each).all(axis=1)]) for each in size])
    ratio = relative / median
    odd["a focal length unlike the others'"] = (ratio > _FOCAL_OUTLIER) | (ratio < 1 / _FOCAL_OUTLIER)
    wrong = {text: where for text, where in odd.items() if where.any()}
    values = {
        "fov_degrees_median": np.median(fov),
        "fov_degrees_min": fov.min(),
        "fov_degrees_max": fov.max(),
        "fx_over_fy_median": np.median(fx / fy),
        "principal_point_offset_max": np.abs(centre).max(),
    }
    spread = f"{np.median(fov):.0f}°" if np.ptp(fov) < 1 else f"{fov.min():.0f}–{fov.max():.0f}°"
    expected = f"{_FOV[0]:.0f}–{_FOV[1]:.0f}° across the longer side, square pixels, principal point near the middle"
    if not wrong:
        return Finding("lenses", "poses", OK, f"angle of view {spread} across the longer side", expected, "", values)
    where = np.any(list(wrong.values()), axis=0)
    text = "; ".join(f"{int(each.sum())} of {len(fx)} have {what}" for what, each in wrong.items())
    return Finding(
        "lenses",
        "poses",
        WARN,
        f"angle of view {spread}; {text}",
        expected,
        "Check that K belongs to the size of the photos (w, h, fl_x, cx in one unit), and was made for this crop.",
        values,
        tuple(name for name, flag in zip(names, where, strict=True) if flag),
    )


# ----------------------------------------------------------------------------------------------------------------- up
def up_direction(rig: Rig) -> np.ndarray:
    """[3] unit vector: where the photographers' up is.

    Cameras are rarely held askew, so up is the direction that their x axes avoid. Where these do not tell (all look
    the same way), the mean of the cameras' own ups does.
    """
    mean = rig.up.mean(axis=0)
    _, s, vt = np.linalg.svd(rig.right, full_matrices=True)
    spread = s[1] / np.sqrt(len(rig.right)) if len(s) > 1 else 0.0
    up = vt[2] * (1.0 if vt[2] @ mean >= 0 else -1.0) if spread > 0.3 and len(s) > 2 else mean
    length = np.linalg.norm(up)
    return up / length if length > 1e-9 else np.array([0.0, 0.0, 1.0])


def _up(rig: Rig) -> Finding:
    up = up_direction(rig)
    agreement = float(np.linalg.norm(rig.up.mean(axis=0)))
    # Roll: how far the camera's x axis leaves the horizon, or the camera stands on its head.
    sideways = rig.right @ up
    roll = np.degrees(np.arctan2(np.abs(sideways), rig.up @ up))
    rolled = roll > _ROLLED
    axis = int(np.argmax(np.abs(up)))
    angle = float(np.degrees(np.arccos(min(1.0, abs(up[axis])))))
    name = ("+" if up[axis] > 0 else "−") + "xyz"[axis]
    near = f"the world's {name}" if angle < 1 else f"the world's {name}, {angle:.0f}° off"
    values = {"up": up.tolist(), "axis": name.replace("−", "-"), "off_degrees": angle, "agreement": agreement}
    share = float(rolled.mean())
    text = f"up is {near}; {len(rolled) - int(rolled.sum())} of {len(rolled)} cameras are held upright"
    # Many rolled cameras are a choice (portrait and landscape, drones); a few among upright ones are mistakes.
    if 0 < share <= 0.2:
        order = np.argsort(-roll, kind="stable")[: int(rolled.sum())]
        names = tuple(rig.names[i] for i in order)
        return Finding(
            "up",
            "poses",
            WARN,
            text,
            "cameras that agree on an up",
            f"Look at {listed(names)}: a turned photo (EXIF orientation), or a wrong pose.",
            values,
            names,
        )
    return Finding("up", "poses", OK, text, "cameras that agree on an up", "", values)


# ---------------------------------------------------------------------------------------------------------- baselines
def _baselines(rig: Rig) -> Finding:
    nearest = neighbour_distances(rig.centers, 1)
    extent = rig.extent
    expected = "a place of its own for every photo"
    if not nearest.size or extent < 1e-9:
        return Finding(
            "baseline",
            "poses",
            FAIL,
            "all cameras are at one place: nothing has parallax, so nothing has a depth",
            expected,
            "Move between photos, a step sideways each; turning on the spot is not enough. If you moved, the "
            "translations were lost in the export.",
            {"extent": extent, "nearest_median": 0.0, "same_place": len(rig.names)},
            rig.names,
        )
    nearest = nearest[:, 0]
    same = nearest < _SAME_PLACE * extent
    values = {
        "extent": extent,
        "nearest_median": np.median(nearest),
        "nearest_min": nearest.min(),
        "nearest_max": nearest.max(),
        "same_place": int(same.sum()),
    }
    text = f"neighbours {np.median(nearest) / extent:.1%} of the cameras' radius apart (radius {extent:.3g} units)"
    if same.mean() > _FEW_PLACES:
        names = tuple(name for name, flag in zip(rig.names, same, strict=True) if flag)
        text += f"; {int(same.sum())} of {len(same)} photos share their place with another"
        advice = "Photos from one place add no depth: move between them, and thin out a video that stood still."
        return Finding("baseline", "poses", WARN, text, expected, advice, values, names)
    return Finding("baseline", "poses", OK, text, expected, "", values)


# ----------------------------------------------------------------------------------------------------------- coverage
def focus_point(rig: Rig) -> np.ndarray | None:
    """[3] the point nearest to all optical axes (least squares), None where they are all but parallel."""
    f = rig.forward
    project = np.eye(3) - f[:, :, None] * f[:, None, :]
    A = project.mean(axis=0)
    if np.linalg.eigvalsh(A)[0] < 1e-3:
        return None
    return np.linalg.solve(A, np.einsum("nij,nj->i", project, rig.centers) / len(f))


def capture(rig: Rig) -> tuple[str, np.ndarray | None]:
    """ "inward", "forward-facing", "outward" or "walk-through", and the focus of an inward one."""
    focus = focus_point(rig)
    if np.linalg.norm(rig.forward.mean(axis=0)) > _FORWARD_FACING:
        return "forward-facing", None
    if focus is not None:
        to_focus = focus - rig.centers
        cosine = np.einsum("ni,ni->n", to_focus, rig.forward) / np.maximum(np.linalg.norm(to_focus, axis=1), 1e-12)
        if (cosine > np.cos(np.radians(_LOOKS_AT))).mean() >= 0.8:
            return "inward", focus
    away = rig.centers - rig.centers.mean(axis=0)
    outward = np.einsum("ni,ni->n", away, rig.forward) / np.maximum(np.linalg.norm(away, axis=1), 1e-12)
    return ("outward" if outward.mean() > 0.5 else "walk-through"), None


def _coverage(rig: Rig) -> Finding:
    kind, focus = capture(rig)
    expected = "views from wherever the splat will be seen"
    if kind != "inward" or focus is None:
        words = {
            "forward-facing": "all cameras look the same way: the splat will hold from there only",
            "outward": "cameras look outwards from the middle: keep them moving, or there is no parallax",
            "walk-through": "a walk: cameras look many ways from many places",
        }
        spread = np.degrees(np.arccos(np.clip(np.linalg.norm(rig.forward.mean(axis=0)), -1, 1)))
        return Finding("coverage", "poses", OK, words[kind], expected, "", {"kind": kind, "spread_degrees": spread})
    up = up_direction(rig)
    ray = rig.centers - focus
    ray /= np.maximum(np.linalg.norm(ray, axis=1, keepdims=True), 1e-12)
    elevation = np.degrees(np.arcsin(np.clip(ray @ up, -1, 1)))
    helper = np.eye(3)[np.argmin(np.abs(up))]
    east = np.cross(up, helper)
    east /= np.linalg.norm(east)
    azimuth = np.sort(np.degrees(np.arctan2(ray @ np.cross(up, east), ray @ east)) % 360)
    gaps = np.diff(np.append(azimuth, azimuth[0] + 360))
    widest = float(gaps.max())
    cosine = np.einsum("ni,ni->n", -ray, rig.forward)
    away = cosine < 0
    values = {
        "kind": kind,
        "focus": focus.tolist(),
        "azimuth_degrees": 360 - widest,
        "azimuth_gap_degrees": widest,
        "elevation_degrees": [float(np.quantile(elevation, q)) for q in (0.05, 0.5, 0.95)],
        "looking_away": int(away.sum()),
    }
    low, high = np.quantile(elevation, [0.05, 0.95])
    text = (
        f"cameras look inwards, {360 - widest:.0f}° around, {low:.0f}° to {high:.0f}° above the middle"
        if widest > 30
        else f"cameras look inwards from all around, {low:.0f}° to {high:.0f}° above the middle"
    )
    advice, names = [], ()
    if 360 - widest >= _CLOSED_RING and widest > _GAP:
        text += f", with a gap of {widest:.0f}°"
        advice.append("If the gap is not meant, add photos there; the splat will not hold from that side.")
    if 0 < away.mean() <= 0.2:
        names = tuple(rig.names[i] for i in np.argsort(cosine, kind="stable")[: int(away.sum())])
        text += f"; {int(away.sum())} look away from it"
        advice.append(f"Look at {listed(names)}: a wrong pose, or a photo of something else.")
    return Finding("coverage", "poses", WARN if advice else OK, text, expected, " ".join(advice), values, names)
