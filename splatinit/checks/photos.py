"""What the photos say by themselves: files, number, sizes, copies, exposure, clipping, blur, transparency and masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from ..types import ImageSet
from .looks import Look
from .matches import Pair
from .report import FAIL, OK, WARN, Finding, listed

_FEW_PHOTOS = 10  # below, most things are seen by one or two photos only
_SMALL = 300  # px, longer side of the working size: below, a splat has nothing to sharpen itself on
_COPY = 0.5  # grey levels of 255, mean difference of two tiny pictures: noise alone makes more
_PAIR_STOPS = 1.0  # 90th percentile of neighbours' difference: light on shiny and sunlit things reaches 0.7
_OUTLIER_STOPS = 1.2  # a photo against its neighbours
_FRAME_STOPS = 2.0  # its mean against its neighbours' by name, where no matches tell; what it shows may cause 1.5
_FEWEST_PAIRS = 3
_WHITE, _BLACK = 0.3, 0.7  # clipped share of a photo from which it is named
_BLUR_PX = 1.0  # at the working size: a good lens and a steady hand leave 0–0.5, and 1 px is seen
_BLUR_RATIO = 1.8  # × the median of the neighbours by name
_SOFT_PX = 1.6  # median of all photos
_WINDOW = 5  # neighbours by name on either side


def examine_files(images: ImageSet, broken: Mapping[str, str], copies: Sequence[Sequence[str]]) -> list[Finding]:
    """Findings that need no decoded pixel.

    Args:
        broken: reason by name.      copies: groups of identical files.
    """
    return [_count(images), _readable(images, broken), _sizes(images), *_identical(copies)]


def examine_looks(
    images: ImageSet, looks: Mapping[str, Look], pairs: Sequence[Pair], stops: np.ndarray, sample: Sequence[str]
) -> list[Finding]:
    """Findings from decoded photos.

    Args:
        pairs, stops: verified pairs among ``sample``, and how much brighter b is than a [p].
    """
    if not looks:
        return []
    order = [photo.name for photo in images.photos if photo.name in looks]
    chosen = [looks[name] for name in order]
    return [
        *_near_copies(chosen),
        _exposure(chosen, pairs, stops, sample),
        _clipping(chosen),
        _blur(chosen),
        *_channels(images, chosen),
    ]


# -------------------------------------------------------------------------------------------------------------- files
def _count(images: ImageSet) -> Finding:
    n, posed = len(images.photos), len(images.cameras)
    text = f"{n} photos" + (f", {posed} with poses" if posed else ", without poses")
    expected = f"{_FEW_PHOTOS} or more; an object from all around takes fifty"
    if n < _FEW_PHOTOS:
        return Finding("count", "photos", WARN, text, expected, "Take more photos, a small step apart.", {"photos": n})
    return Finding("count", "photos", OK, text, expected, "", {"photos": n, "posed": posed})


def _readable(images: ImageSet, broken: Mapping[str, str]) -> Finding:
    names = tuple(sorted(broken))
    expected = "all files whole"
    if not names:
        return Finding("files", "photos", OK, "all files are whole", expected, "", {"broken": 0})
    text = f"{len(names)} of {len(images.photos)} files are damaged: {listed(names)} ({broken[names[0]]})"
    advice = "Copy these files again, or remove them: decoding stops at each."
    return Finding("files", "photos", FAIL, text, expected, advice, {"broken": len(names)}, names)


def _sizes(images: ImageSet) -> Finding:
    full = Counter((photo.width, photo.height) for photo in images.photos)
    working = Counter(images.sizes[photo.name] for photo in images.photos)
    (width, height), most = full.most_common(1)[0]
    turned = sum(photo.width < photo.height for photo in images.photos)
    values = {
        "sizes": len(full),
        "width": width,
        "height": height,
        "portrait": turned,
        "working_width": working.most_common(1)[0][0][0],
        "working_height": working.most_common(1)[0][0][1],
    }
    expected = f"one size, at least {_SMALL} px"
    text = f"{width}×{height} px" if len(full) == 1 else f"{len(full)} sizes, {most} photos of {width}×{height} px"
    size = working.most_common(1)[0][0]
    if size != (width, height):
        text += f", used at {size[0]}×{size[1]}"
    if 0 < turned < len(images.photos):
        text += f"; {turned} upright, {len(images.photos) - turned} lying"
    small = tuple(p.name for p in images.photos if max(images.sizes[p.name]) < _SMALL)
    if small:
        text += f"; {len(small)} smaller than {_SMALL} px"
        return Finding("size", "photos", WARN, text, expected, "Use the original files.", values, small)
    odd = tuple(p.name for p in images.photos if full[(p.width, p.height)] < 0.05 * len(images.photos))
    # A few photos of another size among many of one are usually strays: crops, screenshots, another camera.
    if odd and not images.cameras and most > 0.8 * len(images.photos):
        advice = f"Look at {listed(odd)}: a crop or another camera? Structure from motion wants one camera."
        return Finding("size", "photos", WARN, text, expected, advice, values, odd)
    return Finding("size", "photos", OK, text, expected, "", values)


def _identical(copies: Sequence[Sequence[str]]) -> list[Finding]:
    if not copies:
        return []
    names = tuple(name for group in copies for name in group[1:])
    text = f"{len(names)} photos are copies of others: {copies[0][1]} is {copies[0][0]}" + (
        f", and {len(names) - 1} more" if len(names) > 1 else ""
    )
    advice = "Remove the copies: they add nothing, and a copy in training and test makes scores too good."
    values = {"copies": len(names), "groups": [list(group[:5]) for group in copies[:20]]}
    return [Finding("copies", "photos", WARN, text, "every photo once", advice, values, names)]


# ------------------------------------------------------------------------------------------------------------- pixels
def _near_copies(looks: Sequence[Look]) -> list[Finding]:
    """Photos that show the same to half a grey level; only neighbours by name are compared: video that stood still."""
    same = [
        b.name
        for a, b in zip(looks, looks[1:], strict=False)
        if np.abs(a.tiny.astype(np.int16) - b.tiny).mean() < _COPY
    ]
    if not same:
        return []
    text = f"{len(same)} of {len(looks)} photos show the same as the one before"
    advice = "Thin the sequence out: photos without movement cost time and add no depth."
    values = {"count": len(same)}
    return [Finding("standing_still", "photos", WARN, text, "movement between photos", advice, values, tuple(same))]


def _exposure(looks: Sequence[Look], pairs: Sequence[Pair], stops: np.ndarray, sample: Sequence[str]) -> Finding:
    means = np.array([look.log_luminance for look in looks])
    some = np.isfinite(means).any()
    spread = float(np.nanquantile(means, 0.95) - np.nanquantile(means, 0.05)) if some else 0.0
    # Against its neighbours: by what both show where matches tell, else by the mean of the whole photo.
    own = {name: _against_partners(i, pairs, stops) for i, name in enumerate(sample)}
    severity = np.zeros(len(looks))
    for row, look in enumerate(looks):
        told = own.get(look.name)
        difference = means[row] - _median_around(means, row) if told is None else told
        limit = _FRAME_STOPS if told is None else _OUTLIER_STOPS
        severity[row] = abs(difference) if abs(difference) > limit else 0.0
    off = np.flatnonzero(severity)
    names = tuple(looks[i].name for i in off[np.argsort(-severity[off], kind="stable")])
    known = stops[np.isfinite(stops)]
    typical, high = np.quantile(np.abs(known), [0.5, 0.9]) if len(known) else (None, None)
    values = {
        "frame_spread_stops": spread,
        "pair_stops_median": typical,
        "pair_stops_p90": high,
        "outliers": len(names),
    }
    expected = f"one exposure: neighbours within {_PAIR_STOPS:g} stop"
    advice = "Lock exposure and white balance; for photos that exist, equalise them from the raw files."
    if len(known):
        text = f"what two photos both show differs by {typical:.2f} stops (median; 90 %: {high:.2f})"
    else:
        text = f"brightness spreads over {spread:.1f} stops (5 % to 95 % of the photos)"
    far = len(known) >= _FEWEST_PAIRS and high > _PAIR_STOPS
    if names:
        text += f"; {len(names)} unlike the others: {listed(names)}"
    if far or names:
        return Finding("exposure", "photos", WARN, text, expected, advice, values, names)
    return Finding("exposure", "photos", OK, text, expected, "", values)


def _against_partners(i: int, pairs: Sequence[Pair], stops: np.ndarray) -> float | None:
    """How much brighter photo ``i`` is than its partners (median, stops); None where fewer than two tell."""
    signed = [s if p.b == i else -s for p, s in zip(pairs, stops, strict=True) if i in (p.a, p.b) and np.isfinite(s)]
    return float(np.median(signed)) if len(signed) >= 2 else None


def _clipping(looks: Sequence[Look]) -> Finding:
    white, black = np.array([look.white for look in looks]), np.array([look.black for look in looks])
    off = np.flatnonzero((white > _WHITE) | (black > _BLACK))
    off = off[np.argsort(-np.maximum(white, black)[off], kind="stable")]
    names = tuple(looks[i].name for i in off)
    values = {"white_median": np.median(white), "black_median": np.median(black), "photos": len(names)}
    text = f"burnt out {np.median(white):.0%}, black {np.median(black):.0%} of a photo (median)"
    expected = f"less than {_WHITE:.0%} of a photo burnt out"
    # White or black backgrounds of a studio clip everywhere and do no harm; single photos are mistakes.
    if 0 < len(names) <= 0.2 * len(looks):
        text += f"; {len(names)} photos far more: {listed(names)}"
        return Finding(
            "clipping", "photos", WARN, text, expected, "Leave them out, or expose them anew.", values, names
        )
    return Finding("clipping", "photos", OK, text, expected, "", values)


def _blur(looks: Sequence[Look]) -> Finding:
    blur = np.array([look.blur for look in looks])
    known = np.isfinite(blur)
    expected = f"below {_BLUR_PX:g} px at the size that is used, and no photo worse than its neighbours"
    if not known.any():
        text = "no photo has an edge sharp enough to judge by"
        advice = "Textureless photos give structure from motion nothing to hold on to."
        return Finding("blur", "photos", WARN, text, expected, advice, {"median_px": None})
    around = np.array([_median_around(blur, i) for i in range(len(blur))])
    with np.errstate(invalid="ignore"):
        bad = (blur > _BLUR_PX) & (blur > _BLUR_RATIO * around)
    # A photo without any edge among photos that have some is blurred beyond measure, or empty.
    blank = ~known & (known.mean() > 0.8)
    severity = np.where(blank, np.inf, np.nan_to_num(blur))
    off = np.flatnonzero(bad | blank)
    off = off[np.argsort(-severity[off], kind="stable")]
    names = tuple(looks[i].name for i in off)
    median = float(np.median(blur[known]))
    values = {"median_px": median, "p90_px": np.quantile(blur[known], 0.9), "blurred": len(names)}
    text = f"blur {median:.1f} px (median; 90 %: {values['p90_px']:.1f} px) at the size that is used"
    advice = []
    if median > _SOFT_PX:
        size = max(looks[0].size)
        advice.append(
            f"Photos are soft throughout: --max-size {max(200, round(size * 0.6 / median / 50) * 50)} loses "
            "nothing and is faster."
        )
    if names:
        text += f"; {len(names)} much more than their neighbours: {listed(names)}"
        advice.append("Leave the blurred photos out where neighbours show the same.")
    return Finding("blur", "photos", WARN if advice else OK, text, expected, " ".join(advice), values, names)


def _median_around(values: np.ndarray, i: int) -> float:
    around = np.concatenate([values[max(0, i - _WINDOW) : i], values[i + 1 : i + 1 + _WINDOW]])
    around = around[np.isfinite(around)]
    return float(np.median(around)) if len(around) else float("nan")


def _channels(images: ImageSet, looks: Sequence[Look]) -> list[Finding]:
    """Grey photos among coloured ones, transparency and masks: nothing where there is none of these."""
    findings = []
    grey = tuple(look.name for look in looks if look.grey)
    if grey and len(grey) < len(looks):
        text = f"{len(grey)} of {len(looks)} photos are grey among coloured ones: {listed(grey)}"
        advice = "Leave the grey photos out, or make all of them grey."
        findings.append(Finding("grey", "photos", WARN, text, "one kind of photo", advice, {"grey": len(grey)}, grey))
    for id, what, shares in (
        ("alpha", "of a photo is opaque", [(look.name, look.opaque) for look in looks if look.opaque is not None]),
        ("masks", "of a photo counts", [(look.name, look.kept) for look in looks if look.kept is not None]),
    ):
        if not shares:
            continue
        values = np.array([share for _, share in shares])
        empty = tuple(name for name, share in shares if share < 0.001)
        text = f"{np.median(values):.0%} {what} (median of {len(shares)} photos)"
        numbers = {"photos": len(shares), "share_median": np.median(values), "empty": len(empty)}
        expected = "something to see in every photo"
        if empty:
            text += f"; nothing at all in {len(empty)}: {listed(empty)}"
            advice = "The masks of these photos are empty or inverted: correct them, or ignore all with --masks off."
            level = FAIL if len(empty) > 0.5 * len(shares) else WARN
            findings.append(Finding(id, "photos", level, text, expected, advice, numbers, empty))
        else:
            findings.append(Finding(id, "photos", OK, text, expected, "", numbers))
    return findings
