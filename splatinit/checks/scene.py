"""The check of a scene: which photos are looked at, in which order the questions are asked."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import SplatinitError
from ..io.read import ReadConfig, read_images
from ..progress import Progress
from ..types import ImageSet, Photo
from . import epipolar, files, matches, photos, points, poses
from .looks import Look, look_at_all
from .matches import Pair
from .report import FAIL, OK, WARN, CheckReport, Finding, listed

MOST_LOOKS = 200  # photos decoded; shares are known to a few percent by so many
MOST_MATCHED = 120  # photos with features: all of most scenes; of larger ones, groups of neighbours
_GROUP = 4
_MOST_WORKERS = 4  # each holds one decoded photo
_CONNECTED, _HARDLY = 0.9, 0.4  # share of the photos in the largest connected group
_LONELY = 0.2  # share of photos with poses that match no other, from which it is worth a word
_OPENGL = ("nerfstudio", "blender", "polycam", "record3d")  # formats whose matrices have OpenGL camera axes
_FLAT = 0.93  # one homography explains so much of the median pair: no parallax, or a flat scene


@dataclass(frozen=True)
class _Compared:
    """What matching found. ``sample`` are indices into the photos, in order; pairs index the sample."""

    sample: tuple[int, ...]
    names: tuple[str, ...]
    pairs: tuple[Pair, ...]
    complete: bool


def check_scene(path: Path, config: ReadConfig, progress: Progress) -> CheckReport:
    """See :func:`splatinit.check`."""
    began = time.perf_counter()
    path = Path(path)
    progress.start("read")
    try:
        images = read_images(path, config)
    except SplatinitError as error:
        told = files.with_all_files(path, error)
        if told is error:
            raise
        raise told from error
    posed = [photo.name for photo in images.photos if photo.name in images.cameras]
    progress.finish(f"{len(images.photos)} photos, {len(posed)} with poses")

    workers = min(_MOST_WORKERS, _cores())
    broken = files.damaged(images.photos, workers)
    findings = photos.examine_files(images, broken, files.identical(images.photos))

    whole = [photo for photo in images.photos if photo.name not in broken]
    near = _near_by_pose(images, whole)
    sample = matched_sample(len(whole), near)
    chosen = sorted({*sample, *evenly(len(whole), MOST_LOOKS)}, key=lambda i: (i not in set(sample), i))[:MOST_LOOKS]
    progress.start("look", len(chosen))
    featured = frozenset(whole[i].name for i in sample)
    looks, unreadable = look_at_all(images, [whole[i] for i in sorted(chosen)], featured, workers, progress.advance)
    progress.finish(f"{len(looks)} photos decoded")
    if unreadable:  # whole to the end, but damaged inside
        broken = broken | unreadable
        findings = photos.examine_files(images, broken, files.identical(images.photos))
    sample = [i for i in sample if whole[i].name in looks]

    compared = _compare(whole, sample, near, looks, workers, progress)
    features = [looks[name].features for name in compared.names]
    stops = matches.exposure_differences(compared.pairs, [each.luminance for each in features])
    findings += photos.examine_looks(images, looks, compared.pairs, stops, compared.names)
    findings += _posed(images, posed, compared, looks) if posed else _unposed(images, compared)
    progress.finish(f"{len(compared.pairs)} pairs")
    return CheckReport(
        scene=path,
        format=images.format,
        photos=len(images.photos),
        posed=len(posed),
        notes=images.notes,
        findings=tuple(findings),
        looked_at=len(looks),
        pairs=len(compared.pairs),
        seconds=time.perf_counter() - began,
    )


# ----------------------------------------------------------------------------------------------------------- sampling
def evenly(n: int, at_most: int) -> list[int]:
    """At most so many of 0 … n − 1, evenly spaced, the first and the last among them."""
    return np.unique(np.linspace(0, n - 1, min(n, at_most)).astype(int)).tolist() if n else []


def matched_sample(n: int, near: Sequence[Sequence[int]]) -> list[int]:
    """Which of n photos are compared: all up to MOST_MATCHED, else small groups of neighbours, evenly spaced.

    Of each group the next photo by name is one, and those that the poses name: one of both are true neighbours.
    """
    if n <= MOST_MATCHED:
        return list(range(n))
    found: set[int] = set()
    for seed in evenly(n, MOST_MATCHED // _GROUP):
        by_name = [seed + step for step in range(1, _GROUP) if seed + step < n]
        group = list(dict.fromkeys([seed, *by_name[:1], *near[seed], *by_name]))[:_GROUP]
        found.update(group)
    return sorted(found)


def _near_by_pose(images: ImageSet, whole: Sequence[Photo]) -> list[list[int]]:
    """For each photo its neighbours by pose, best first; none for photos without a pose."""
    rows = [i for i, photo in enumerate(whole) if photo.name in images.cameras]
    near: list[list[int]] = [[] for _ in whole]
    if len(rows) > 1:
        names = [whole[i].name for i in rows]
        rig = poses.Rig.of(names, [images.cameras[name] for name in names])
        for row, others in zip(rows, poses.neighbours(rig, 8), strict=True):
            near[row] = [rows[other] for other in others]
    return near


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1


# ----------------------------------------------------------------------------------------------------------- matching
def _compare(
    whole: Sequence[Photo],
    sample: Sequence[int],
    near: Sequence[Sequence[int]],
    looks: dict[str, Look],
    workers: int,
    progress: Progress,
) -> _Compared:
    names = tuple(whole[i].name for i in sample)
    features = [looks[name].features for name in names]
    place = {index: row for row, index in enumerate(sample)}
    near = [[place[j] for j in near[i] if j in place] for i in sample]
    votes = matches.coarse_votes(features)
    tried = matches.candidates(votes, near)
    progress.start("match", len(tried))
    found = matches.match_pairs(features, tried, workers, progress.advance)
    again = matches.further_candidates(votes, near, found, tried)
    found += matches.match_pairs(features, again, workers, lambda done: None)
    return _Compared(tuple(sample), names, tuple(found), len(sample) == len(whole))


def _partners(compared: _Compared) -> np.ndarray:
    count = np.zeros(len(compared.sample), int)
    for pair in compared.pairs:
        count[[pair.a, pair.b]] += 1
    return count


# ------------------------------------------------------------------------------------------------------------ answers
def _posed(images: ImageSet, posed: Sequence[str], compared: _Compared, looks: dict[str, Look]) -> list[Finding]:
    cameras = [images.cameras[name] for name in posed]
    findings = poses.examine(posed, cameras)
    order = {name: row for row, name in enumerate(posed)}
    with_pose = [name in order for name in compared.names]
    pairs = [pair for pair in compared.pairs if with_pose[pair.a] and with_pose[pair.b]]
    findings.append(_overlap(compared))
    # Photos without a pose keep a place in the arrays, so that pairs need no renumbering; no pair names them.
    rows = [order.get(name, 0) for name in compared.names]
    if rows:
        sizes = [looks[name].features.size for name in compared.names]
        K = np.stack([cameras[row].resized(*size).K for row, size in zip(rows, sizes, strict=True)])
        stacked = np.stack([camera.cam_from_world for camera in cameras])
        scale = np.array([size[0] / images.photo(n).width for n, size in zip(compared.names, sizes, strict=True)])
        opengl = images.format in _OPENGL
        said, fits = epipolar.examine(pairs, K, stacked[rows], scale, compared.names, posed, stacked, rows, opengl)
        findings += said
        if fits and pairs:
            seen = epipolar.Observed.of(pairs, K, stacked[rows], 100)
            findings.append(_parallax(seen))
            if any(images.photo(name).has_depth for name in compared.names):
                findings.append(points.examine_depth(images, compared.names, seen, sizes))
    return findings + points.examine(images, posed, cameras)


def _overlap(compared: _Compared) -> Finding:
    count = _partners(compared)
    lonely = tuple(name for name, partners in zip(compared.names, count, strict=True) if not partners)
    values = {"partners_median": np.median(count) if len(count) else 0, "alone": len(lonely), "compared": len(count)}
    text = f"each photo matches {values['partners_median']:.0f} of the others that were tried (median)"
    expected = "every photo shows what others show"
    if len(lonely) > _LONELY * len(count):
        text += f"; {len(lonely)} of {len(count)} match none: {listed(lonely)}"
        advice = "Take photos between these and the others; textureless or shiny things leave nothing to match."
        return Finding("overlap", "matches", WARN, text, expected, advice, values, lonely)
    return Finding("overlap", "matches", OK, text, expected, "", values, lonely)


def _parallax(seen: epipolar.Observed) -> Finding:
    _, _, angle = epipolar.triangulate(seen)
    median = float(np.median(angle))
    values = {"median_degrees": median}
    text = f"neighbours see the same point from {median:.1f}° apart (median)"
    expected = "more than 1°"
    if median < 1.0:
        advice = "Move farther between photos; depth comes from the angle alone."
        return Finding("parallax", "matches", FAIL if median < 0.2 else WARN, text, expected, advice, values)
    return Finding("parallax", "matches", OK, text, expected, "", values)


def _unposed(images: ImageSet, compared: _Compared) -> list[Finding]:
    """Will structure from motion find the poses?"""
    n = len(images.photos)
    known = len(images.focals_px)
    text = f"{known} of {n} photos tell their focal length (EXIF)"
    if known < n:
        text += "; the others' is estimated from the matches"
    findings = [Finding("exif_focal", "poses", OK, text, "", "", {"known": known})]
    total = len(compared.sample)
    groups = matches.components(total, compared.pairs)
    count = _partners(compared)
    lonely = tuple(name for name, partners in zip(compared.names, count, strict=True) if not partners)
    # Of a sample in groups only the groups themselves can be judged: what no neighbour connects.
    share = (len(groups[0]) if compared.complete else total - len(lonely)) / max(total, 1) if groups else 0.0
    planar = float(np.median([pair.planar for pair in compared.pairs])) if compared.pairs else float("nan")
    values = {
        "compared": total,
        "pairs": len(compared.pairs),
        "connected_share": share,
        "groups": sum(len(group) > 1 for group in groups),
        "alone": len(lonely),
        "planar_median": planar,
    }
    expected = "nearly all photos connected by matches"
    what = "photos hang together" if compared.complete else "photos of a sample match a neighbour"
    text = f"{round(share * total)} of {total} {what}"
    outside = lonely
    if compared.complete and groups:
        first = set(groups[0])
        outside = tuple(name for i, name in enumerate(compared.names) if i not in first)
    if share < _HARDLY or total < 3:
        text += ": structure from motion will hardly work"
        advice = "Overlap more: each thing in three or more photos, a small step between them, with texture and light."
        findings.append(Finding("sfm", "matches", FAIL, text, expected, advice, values, outside))
    elif share < _CONNECTED:
        text += f": structure from motion will leave out the others: {listed(outside)}"
        advice = "Take photos between the groups, or remove what belongs to another scene."
        findings.append(Finding("sfm", "matches", WARN, text, expected, advice, values, outside))
    else:
        text += ": structure from motion should find their poses"
        findings.append(Finding("sfm", "matches", OK, text, expected, "", values, outside))
    if planar > _FLAT:
        text = f"one plane explains {planar:.0%} of the matches of a pair (median): no parallax, or a flat scene"
        advice = "Move sideways between photos instead of turning on the spot, and show things in front of each other."
        findings.append(
            Finding("parallax", "matches", WARN, text, f"below {_FLAT:.0%}", advice, {"planar_median": planar})
        )
    elif compared.pairs:
        text = f"one plane explains {planar:.0%} of the matches of a pair (median): there is depth to see"
        findings.append(Finding("parallax", "matches", OK, text, f"below {_FLAT:.0%}", "", {"planar_median": planar}))
    return findings
