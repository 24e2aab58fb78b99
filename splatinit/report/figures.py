"""Pictures of a report: error maps, points and side-by-side sheets, drawn on uint8 arrays [h, w, 3]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ..types import Camera, PointCloud

# Mean absolute error that is drawn in the brightest colour. Fixed, so that maps of different runs can be compared; a
# difference of a fifth of the range is plainly visible.
ERROR_FULL = 0.2

_UNMEASURED = (128, 128, 128)
_PAPER, _INK, _MUTED = (255, 255, 255), (24, 24, 27), (113, 113, 122)
_GAP = 8  # px between pictures
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FONT_SCALE = 0.42
_LINE = 18  # px, height of a line of text


def error_map(image: np.ndarray, truth: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """The absolute difference of two uint8 images, averaged over channels: black (equal) to pale yellow (≥ 0.2).

    ``mask`` [h, w] uint8: grey where it is 0, which is no colour of the scale: nothing was measured there.
    """
    difference = np.abs(image.astype(np.float32) - truth.astype(np.float32)).mean(axis=2) / 255.0
    level = np.clip(difference / ERROR_FULL, 0.0, 1.0)
    colours = _inferno((level * 255.0 + 0.5).astype(np.uint8))
    if mask is not None:
        colours[mask == 0] = _UNMEASURED
    return colours


def dimmed(picture: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """``picture`` drawn faintly on grey where ``mask`` [h, w] uint8 is 0; as it is where there is no mask."""
    if mask is None:
        return picture
    faint = np.asarray(_UNMEASURED, np.float32) + 0.25 * (picture.astype(np.float32) - 128.0)
    return np.where(mask[..., None] > 0, picture, np.clip(faint, 0, 255).astype(np.uint8))


def _inferno(level: np.ndarray) -> np.ndarray:
    """OpenCV gives BGR."""
    return cv2.applyColorMap(level, cv2.COLORMAP_INFERNO)[..., ::-1].copy()


def draw_points(points: PointCloud, camera: Camera) -> np.ndarray:
    """[h, w, 3] uint8: each point as a square of 2 px in its colour, nearer ones over farther ones, on dark grey."""
    h, w = camera.height, camera.width
    in_camera = points.xyz.astype(np.float64) @ camera.cam_from_world[:3, :3].T + camera.cam_from_world[:3, 3]
    z = in_camera[:, 2]
    front = z > 0
    pixel = in_camera[front] @ camera.K.T
    column, row = (pixel[:, k] / pixel[:, 2] for k in (0, 1))
    order = np.argsort(-z[front], kind="stable")
    image = np.full((h + 2, w + 2, 3), 24, np.uint8)
    colours = np.rint(np.clip(points.rgb[front], 0, 1) * 255).astype(np.uint8)
    seen = order[(column[order] >= 0) & (column[order] < w) & (row[order] >= 0) & (row[order] < h)]
    left, top = column[seen].astype(int), row[seen].astype(int)
    for dy in (0, 1):
        for dx in (0, 1):
            image[top + dy, left + dx] = colours[seen]
    return image[:h, :w]


@dataclass(frozen=True)
class SheetRow:
    """One row of a contact sheet: pictures of one height and width, with a title and a line of numbers."""

    title: str
    detail: str
    pictures: tuple[np.ndarray, ...]


def contact_sheet(rows: Sequence[SheetRow], headings: Sequence[str], caption: str, side: int = 320) -> np.ndarray:
    """Rows of pictures beside each other under their headings, each scaled down to at most ``side`` px on both sides.

    Args:
        rows: at least one; each has as many pictures as there are headings.
        caption: a line above all.

    Returns:
        [h, w, 3] uint8 on white.
    """
    small = [[_shrunk(picture, side) for picture in row.pictures] for row in rows]
    columns = [max(pictures[i].shape[1] for pictures in small) for i in range(len(headings))]
    # Rows of thumbnails still need room for their lines of numbers.
    lines = max(_text_width(text) for text in (caption, *(row.detail for row in rows)))
    total = max(sum(columns) + _GAP * (len(columns) + 1), lines + 2 * _GAP)
    bands = [_text_band(total, [(_GAP, caption, _INK)])]
    lefts = [_GAP + sum(columns[:i]) + _GAP * i for i in range(len(columns))]
    bands.append(
        _text_band(
            total,
            [
                (left, _fitted(text, column), _MUTED)
                for left, text, column in zip(lefts, headings, columns, strict=True)
            ],
        )
    )
    for row, pictures in zip(rows, small, strict=True):
        band = np.full((max(len(picture) for picture in pictures) + _GAP // 2, total, 3), _PAPER, dtype=np.uint8)
        for left, picture in zip(lefts, pictures, strict=True):
            band[: picture.shape[0], left : left + picture.shape[1]] = picture
        detail_width = _text_width(row.detail)
        title = _fitted(row.title, total - detail_width - 4 * _GAP)
        line = _text_band(total, [(_GAP, title, _INK), (total - _GAP - detail_width, row.detail, _INK)])
        bands += [band, line, np.full((_GAP, total, 3), _PAPER, dtype=np.uint8)]
    return np.concatenate(bands)


def _shrunk(picture: np.ndarray, side: int) -> np.ndarray:
    height, width = picture.shape[:2]
    factor = min(1.0, side / max(height, width))
    if factor == 1.0:
        return picture
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def _text_width(text: str) -> int:
    return cv2.getTextSize(_ascii(text), _FONT, _FONT_SCALE, 1)[0][0]


def _ascii(text: str) -> str:
    """OpenCV's built-in font has ASCII only."""
    return text.replace("×", "x").encode("ascii", "replace").decode()


def _fitted(text: str, width: int) -> str:
    """``text``, shortened at its front (file names differ at their end) until it is at most ``width`` px wide."""
    if _text_width(text) <= width:
        return text
    while text and _text_width("..." + text) > width:
        text = text[1:]
    return "..." + text if text else ""


def _text_band(width: int, texts: Sequence[tuple[int, str, tuple[int, int, int]]]) -> np.ndarray:
    band = np.full((_LINE, width, 3), _PAPER, dtype=np.uint8)
    for left, text, color in texts:
        cv2.putText(band, _ascii(text), (left, _LINE - 5), _FONT, _FONT_SCALE, color, 1, cv2.LINE_AA)
    return band
