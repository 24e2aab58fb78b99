"""Do points and depth maps belong to the cameras? What each view sees of them, in which colours, at which distance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..geometry.rigid import project
from ..types import Camera, ImageSet, PointCloud
from .epipolar import Observed, triangulate
from .report import FAIL, OK, WARN, Finding, listed

_MOST_POINTS = 50_000  # an even sample: medians need no more
_FEW = 50  # points in a view; below, a start from them leaves it nearly empty
_BLIND_SHARE = 0.5  # of the points that no camera sees
_FAR = 100.0  # × the median distance from the cameras' middle
_COLOUR_VIEWS = 8
_COLOUR_SIZE = 400  # px
_CELL = 8  # px: the nearest point of a cell hides the others in it
_COLOURS_FIT = 0.85  # error against that of shuffled points; 0.30 and 0.37 on the two real scenes measured
_DEPTH_VIEWS = 12
_DEPTH_OFF = 0.07  # |ratio − 1|
_DEPTH_WRONG = 1.4
_PARALLAX = 2.0  # degrees, for a triangulated depth to be worth comparing with


def examine(images: ImageSet, names: Sequence[str], cameras: Sequence[Camera]) -> list[Finding]:
    """Findings on the points that came with the cameras."""
    points = images.points
    if points is None:
        return []
    if len(points) > _MOST_POINTS:
        step = len(points) / _MOST_POINTS
        points = points.select((np.arange(_MOST_POINTS) * step).astype(int))
    findings = [_views(points, names, cameras, len(images.points)), _outliers(points, cameras)]
    colours = _colours(images, points, names, cameras)
    return findings + ([colours] if colours is not None else [])


def visible(camera: Camera, xyz: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the points [n, 3] inside the image and in front, and all depths z [n]; nothing hides anything."""
    px, z = project(camera.K, camera.cam_from_world, xyz)
    with np.errstate(invalid="ignore"):
        inside = (px[:, 0] >= 0) & (px[:, 0] < camera.width) & (px[:, 1] >= 0) & (px[:, 1] < camera.height)
    return np.flatnonzero(inside & (z > 0)), z


def _views(points: PointCloud, names: Sequence[str], cameras: Sequence[Camera], total: int) -> Finding:
    seen = np.zeros(len(points), int)
    counts = np.zeros(len(cameras), int)
    front = np.zeros(len(cameras))
    for row, camera in enumerate(cameras):
        index, z = visible(camera, points.xyz)
        seen[index] += 1
        counts[row] = len(index)
        front[row] = (z > 0).mean()
    counts = counts * total // max(len(points), 1)
    blind = float((seen == 0).mean())
    values = {
        "points": total,
        "per_view_median": np.median(counts),
        "per_view_min": counts.min(),
        "views_per_point_median": np.median(seen),
        "unseen_share": blind,
        "in_front_median": np.median(front),
    }
    expected = f"at least {_FEW} points in every view, and every point in some views"
    text = f"{total} points, {int(np.median(counts))} in a view (median; at least {counts.min()})"
    if blind > _BLIND_SHARE:
        text += f"; {blind:.0%} of them are in no view"
        advice = (
            "The points are in other coordinates than the cameras (units, axes, an offset): export both from one tool "
            "in one run, or start without them (--init random)."
        )
        return Finding("points_per_view", "points", FAIL, text, expected, advice, values)
    poor = np.flatnonzero(counts < _FEW)
    if len(poor):
        order = poor[np.argsort(counts[poor], kind="stable")]
        shown = tuple(names[i] for i in order)
        text += f"; {len(poor)} views have fewer than {_FEW}"
        advice = f"Look at {listed(shown)}: a wrong pose, or a photo that shows nothing that others show."
        return Finding("points_per_view", "points", WARN, text, expected, advice, values, shown)
    return Finding("points_per_view", "points", OK, text, expected, "", values)


def _outliers(points: PointCloud, cameras: Sequence[Camera]) -> Finding:
    centers = np.stack([camera.center for camera in cameras])
    middle = np.median(centers, axis=0)
    radius = float(np.median(np.linalg.norm(centers - middle, axis=1)))
    distance = np.linalg.norm(points.xyz - middle, axis=1)
    median = float(np.median(distance))
    far = float((distance > _FAR * median).mean())
    ratio = median / radius if radius > 0 else float("inf")
    values = {"cameras_radius": radius, "points_distance_median": median, "ratio": ratio, "far_share": far}
    text = f"points lie {ratio:.2g} × the cameras' radius from their middle (median)"
    expected = "points about as far as the cameras are apart, none at a hundred times that"
    if far > 0.01:
        text += f"; {far:.1%} are more than {_FAR:.0f} × farther"
        advice = "Remove the far points; each becomes a huge Gaussian that fogs other views."
        return Finding("points_extent", "points", WARN, text, expected, advice, values)
    return Finding("points_extent", "points", OK, text, expected, "", values)


def _colours(images: ImageSet, points: PointCloud, names: Sequence[str], cameras: Sequence[Camera]) -> Finding | None:
    """Points land on pixels of their own colour, or on any; None where the points have no colours to compare."""
    if np.ptp(points.rgb, axis=0).max() < 0.05:
        return None
    own, other = [], []
    rng = np.random.default_rng(0)
    for row in np.unique(np.linspace(0, len(names) - 1, min(_COLOUR_VIEWS, len(names))).astype(int)):
        camera = cameras[row]
        scale = min(1.0, _COLOUR_SIZE / max(camera.width, camera.height))
        camera = camera.resized(max(1, round(camera.width * scale)), max(1, round(camera.height * scale)))
        index, z = visible(camera, points.xyz)
        if len(index) < 20:
            continue
        px, _ = project(camera.K, camera.cam_from_world, points.xyz[index])
        nearest_first = np.argsort(z[index], kind="stable")
        cell = (px[nearest_first] // _CELL).astype(np.int64) @ np.array([1, 1 << 20])
        keep = nearest_first[np.unique(cell, return_index=True)[1]]
        x, y = px[keep].astype(int).T
        pixels = images.photo(names[row]).load(camera.width, camera.height).rgb[y, x] / 255.0
        rgb = points.rgb[index[keep]]
        # Exposure may differ from the points': the mean colour is not what is compared.
        pixels, rgb = pixels - pixels.mean(axis=0), rgb - rgb.mean(axis=0)
        own.append(np.abs(pixels - rgb).mean(axis=1))
        other.append(np.abs(pixels - rng.permutation(rgb)).mean(axis=1))
    if not own:
        return None
    ratio = float(np.median(np.concatenate(own)) / max(np.median(np.concatenate(other)), 1e-6))
    values = {"error_over_chance": ratio}
    text = f"points land on pixels of their colour (error {ratio:.0%} of chance)"
    expected = f"below {_COLOURS_FIT:.0%} of what shuffled points would have"
    if ratio > _COLOURS_FIT:
        text = f"points do not land on pixels of their colour (error {ratio:.0%} of chance)"
        advice = "The points are in other coordinates than the cameras, or carry no true colours: export both together."
        return Finding("points_colours", "points", WARN, text, expected, advice, values)
    return Finding("points_colours", "points", OK, text, expected, "", values)


def examine_depth(images: ImageSet, names: Sequence[str], seen: Observed, sizes: Sequence[tuple[int, int]]) -> Finding:
    """Do the depth maps agree with depths triangulated from matches? Asked only where the poses fit.

    Args:
        names, sizes: of the sample, whose indices ``seen`` has.
    """
    expected = "depth maps in the unit of the poses"
    z_a, _, angle = triangulate(seen)
    photo = seen.a[seen.pair]
    ratios = []
    with_depth = [row for row, name in enumerate(names) if images.photo(name).has_depth]
    for row in [with_depth[i] for i in np.unique(np.linspace(0, len(with_depth) - 1, _DEPTH_VIEWS).astype(int))]:
        use = (photo == row) & (angle > _PARALLAX) & (z_a > 0)
        if not use.any():
            continue
        width, height = sizes[row]
        depth = images.photo(names[row]).load_depth(width, height)
        x, y = seen.x_a[use, :2].astype(int).T
        measured = depth[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)]
        known = measured > 0
        ratios.append(measured[known] / z_a[use][known])
    ratio = np.concatenate(ratios) if ratios else np.zeros(0)
    if len(ratio) < 20:
        text = f"depth maps could be compared at only {len(ratio)} places"
        return Finding("depth", "points", OK, text, expected, "", {"compared": len(ratio), "ratio": None})
    median = float(np.median(ratio))
    spread = float(np.median(np.abs(ratio / median - 1)))
    values = {"compared": len(ratio), "ratio": median, "relative_error": spread}
    text = f"depth maps are {median:.3g} × the depth of matched points (± {spread:.1%}, {len(ratio)} places)"
    if abs(median - 1) <= _DEPTH_OFF:
        return Finding("depth", "points", OK, text, expected, "", values)
    level = FAIL if max(median, 1 / median) > _DEPTH_WRONG else WARN
    advice = "Another unit (millimetres for metres?), or distance along the ray for depth along z: scale the maps."
    return Finding("depth", "points", level, text, expected, advice, values)
