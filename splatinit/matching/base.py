"""What a dense matcher is: where the pixels of one photo lie in others.

Pixel coordinates are (x, y) with pixel centres at +0.5, as everywhere: the centre of the first pixel is (0.5, 0.5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..errors import ShapeError
from ..types import Camera


@dataclass(frozen=True)
class MatchView:
    """A photo as matchers see it.

    Attributes:
        name: of the view, for messages.
        rgb: [h, w, 3] uint8.
        usable: [h, w] bool, False where the photo is masked or transparent; None: usable everywhere.
        camera: pinhole with its pose, at the size of ``rgb``; None: unposed.
    """

    name: str
    rgb: np.ndarray
    usable: np.ndarray | None = None
    camera: Camera | None = None

    def __post_init__(self) -> None:
        height, width = self.rgb.shape[:2]
        if self.rgb.shape != (height, width, 3) or self.rgb.dtype != np.uint8:
            raise ShapeError(f"{self.name}: rgb must be [h, w, 3] uint8, got {list(self.rgb.shape)} {self.rgb.dtype}.")
        if self.usable is not None and (self.usable.shape != (height, width) or self.usable.dtype != bool):
            raise ShapeError(f"{self.name}: usable must be {[height, width]} bool, got {list(self.usable.shape)}.")
        if self.camera is not None and (self.camera.width, self.camera.height) != (width, height):
            raise ShapeError(
                f"{self.name}: the camera is {self.camera.width}×{self.camera.height}, the photo {width}×{height}."
            )


@dataclass(frozen=True)
class Matches:
    """Points of a reference photo, and where each lies in its neighbours.

    Attributes:
        points: [m, 2] float32 px in the reference.
        targets: [v, m, 2] float32 px in each of v neighbours, NaN where that neighbour has none.
        certainty: [v, m] float32 in [0, 1], 0 where there is no target.
        normals: [m, 3] float32 unit vectors in world coordinates that look towards the reference camera, where the
            matcher knows them.
    """

    points: np.ndarray
    targets: np.ndarray
    certainty: np.ndarray
    normals: np.ndarray | None = None

    def __post_init__(self) -> None:
        m, v = len(self.points), len(self.targets)
        shapes = {"points": (m, 2), "targets": (v, m, 2), "certainty": (v, m), "normals": (m, 3)}
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value is None:
                continue
            value = np.ascontiguousarray(value, dtype=np.float32)
            if value.shape != shape:
                raise ShapeError(f"Matches.{name} must be {list(shape)}, got {list(value.shape)}.")
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.points)


class Matcher(Protocol):
    """Finds one photo in others. Built with its config; the same input gives the same matches.

    Attributes:
        name: how a user selects it.
        network_on_cpu: it is a network and runs on the processor: a pair of photos takes seconds, not milliseconds.
    """

    name: str
    network_on_cpu: bool

    def match(
        self,
        reference: MatchView,
        neighbours: Sequence[MatchView],
        *,
        depth_range: tuple[float, float] | None = None,
    ) -> Matches:
        """Matches of ``reference`` in all ``neighbours`` (at least one); none found is no error.

        Args:
            depth_range: (nearest, farthest) camera z in the reference, scene units, for matchers that use poses.
        """
        ...
