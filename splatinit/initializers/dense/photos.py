"""Training photos at the size at which they are matched, and no more of them in memory than fit a bound."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ...decoding import decoded
from ...matching import MatchView
from ...types import Camera, View

OPAQUE = 128  # of 255: a more transparent pixel shows the background
CACHE_BYTES = 256 * 2**20


def match_camera(camera: Camera, max_size: int) -> Camera:
    """``camera`` for a photo whose longer side is at most ``max_size`` px; never larger than it is."""
    scale = min(1.0, max_size / max(camera.width, camera.height))
    return camera.resized(max(1, round(camera.width * scale)), max(1, round(camera.height * scale)))


class Photos:
    """Decodes on demand; the photos used last stay, up to ``cache_bytes``: neighbours are shared by references.

    A photo is found in several references, which are worked through in the order of the names, as they were taken.
    """

    def __init__(self, views: Sequence[View], max_size: int, cache_bytes: int = CACHE_BYTES) -> None:
        self._views = [replace(view, camera=match_camera(view.camera, max_size)) for view in views]
        self._kept: OrderedDict[int, MatchView] = OrderedDict()
        self._bytes, self._most = 0, cache_bytes

    @property
    def cameras(self) -> list[Camera]:
        return [view.camera for view in self._views]

    def __getitem__(self, index: int) -> MatchView:
        """Raises what :func:`splatinit.decoding.decoded` does."""
        if index in self._kept:
            self._kept.move_to_end(index)
            return self._kept[index]
        view = self._views[index]
        pixels = decoded(view)
        usable: np.ndarray | None = None
        for layer, least in ((pixels.alpha, OPAQUE), (pixels.mask, 255)):
            if layer is not None:
                usable = layer >= least if usable is None else usable & (layer >= least)
        self._kept[index] = found = MatchView(view.name, pixels.rgb, usable, view.camera)
        self._bytes += _bytes(found)
        while self._bytes > self._most and len(self._kept) > 1:
            self._bytes -= _bytes(self._kept.popitem(last=False)[1])
        return found


def _bytes(view: MatchView) -> int:
    return view.rgb.nbytes + (0 if view.usable is None else view.usable.nbytes)
