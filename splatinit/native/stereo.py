"""Multi-view stereo: plane sweep, semi-global matching, search of slanted planes. numpy arrays, no tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from ctypes import POINTER, Structure, byref, c_float, c_int, c_int32, c_void_p
from dataclasses import dataclass

import numpy as np

from ..errors import ShapeError
from .loading import check_code, declare, library


# The structs of cuda/include/splat/api.h, field by field.
class StereoViewArg(Structure):
    _fields_ = [
        ("grey", c_void_p),
        *((name, c_int32) for name in ("width", "height", "masked")),
        ("from_reference", c_float * 12),
    ]


class StereoSettingsArg(Structure):
    _fields_ = [*((name, c_int32) for name in ("radius", "best", "stride", "first")), ("noise", c_float)]


class StereoSearchArg(Structure):
    _fields_ = [
        *((name, c_float) for name in ("smallest", "largest", "steepest")),
        *((name, c_int32) for name in ("directions", "tilts")),
    ]


_STEREO = [POINTER(StereoViewArg), POINTER(StereoViewArg), c_int, POINTER(StereoSettingsArg)]

declare(
    {
        "splat_cpu_stereo_sweep": (c_int, [*_STEREO, c_void_p, c_int, c_void_p]),
        "splat_cpu_stereo_semiglobal": (c_int, [c_void_p, c_int, c_int, c_int, c_void_p, *[c_float] * 3, c_void_p]),
        "splat_cpu_stereo_minima": (c_int, [c_void_p, c_int, c_int, c_int, c_void_p, c_void_p, c_void_p]),
        "splat_cpu_stereo_search": (
            c_int,
            [*_STEREO, POINTER(StereoSearchArg), c_void_p, c_int, c_void_p, c_void_p],
        ),
        "splat_cpu_stereo_costs": (c_int, [*_STEREO, c_void_p, c_float, c_void_p, c_void_p]),
    }
)


@dataclass(frozen=True)
class StereoPhoto:
    """A grey photo and how to get there from the reference.

    Attributes:
        grey: [h, w] uint16: 1 + 65534 times grey in [0, 1]; 0 where the pixel is unusable.
        from_reference: [3, 4] (M | b): the pixel x of the reference (homogeneous, centres at +0.5) at depth z lies at
            M x + b / z here. None for the reference itself.
    """

    grey: np.ndarray
    from_reference: np.ndarray | None = None

    def __post_init__(self) -> None:
        grey = self.grey
        if grey.dtype != np.uint16 or grey.ndim != 2 or min(grey.shape) < 2 or max(grey.shape) > 16384:
            raise ShapeError(
                f"A photo for stereo must be [h, w] uint16 of 2 to 16384 px, got {list(grey.shape)} {grey.dtype}."
            )
        object.__setattr__(self, "grey", np.ascontiguousarray(grey))

    def arg(self) -> StereoViewArg:
        height, width = self.grey.shape
        matrix = np.zeros((3, 4)) if self.from_reference is None else self.from_reference
        numbers = (c_float * 12)(*np.asarray(matrix, np.float64).reshape(12))
        return StereoViewArg(self.grey.ctypes.data, width, height, not self.grey.all(), numbers)


@dataclass(frozen=True)
class Stereo:
    """A reference photo and its neighbours, for the three functions of multi-view stereo.

    The cost of a plane at a pixel is 1 − ZNCC, cut to [0, 1], between the square window around the pixel and what the
    plane maps it to, in the mean over the ``best`` neighbours in which it is smallest. Results do not depend on the
    number of threads.

    Attributes:
        reference, neighbours: the photos, 1 to 16 neighbours.
        radius: px of the window, 1 to 4.
        best: 1 to the number of neighbours.
        noise: variance of grey that is added to both windows' variances: what has less contrast does not correlate.
        stride, first: depths are for the pixels (first + stride i, first + stride j) of the reference.
    """

    reference: StereoPhoto
    neighbours: Sequence[StereoPhoto]
    radius: int = 3
    best: int = 1
    noise: float = 1e-4
    stride: int = 1
    first: int = 0

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of the pixels that get a depth."""
        height, width = self.reference.grey.shape
        return -((self.first - height) // self.stride), -((self.first - width) // self.stride)

    def _call(self, name: str, *args: object) -> None:
        views = (StereoViewArg * len(self.neighbours))(*(photo.arg() for photo in self.neighbours))
        settings = StereoSettingsArg(self.radius, self.best, self.stride, self.first, self.noise)
        function = getattr(library(), name)
        code = function(byref(self.reference.arg()), views, len(self.neighbours), byref(settings), *args)
        check_code(code, "stereo")

    def sweep(self, inverse_depths: np.ndarray) -> np.ndarray:
        """Costs [h, hypotheses, w] float32 of fronto-parallel planes at these inverse depths; stride 1 only."""
        inverse_depths = np.ascontiguousarray(inverse_depths, np.float32)
        height, width = self.reference.grey.shape
        cost = np.empty((height, len(inverse_depths), width), np.float32)
        self._call("splat_cpu_stereo_sweep", inverse_depths.ctypes.data, len(inverse_depths), cost.ctypes.data)
        return cost

    def search(
        self,
        planes: np.ndarray,
        steps: Sequence[float],
        *,
        inverse_depths: tuple[float, float],
        steepest: float,
        directions: int = 4,
        tilts: bool = True,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Better planes than these, one for each pixel of the grid, and what they cost.

        Args:
            planes: [3, gh, gw] inverse depth, and its slopes per px in x and y.
            steps: a round for each: how far depths are moved, px in the neighbour in which they move fastest.
            inverse_depths: (smallest, largest) allowed.
            steepest: largest sum of the slopes' absolute values, relative to the inverse depth.
            directions: from how many directions planes of other pixels are tried: 0, 4 or 8.
            tilts: whether slopes are searched, too.
        Returns:
            planes [3, gh, gw], cost [gh, gw], both float32.
        """
        planes = self._checked(planes).copy()
        cost = np.empty(self.grid, np.float32)
        sizes = np.ascontiguousarray(steps, np.float32)
        wanted = StereoSearchArg(*inverse_depths, steepest, directions, tilts)
        pointers = (sizes.ctypes.data, len(sizes), planes.ctypes.data, cost.ctypes.data)
        self._call("splat_cpu_stereo_search", byref(wanted), *pointers)
        return planes, cost

    def costs(self, planes: np.ndarray, step: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """Costs of planes [3, gh, gw] neighbour by neighbour [v, gh, gw], and their rate [gh, gw]: px per unit of
        inverse depth in the neighbour in which they move fastest.

        With a step (px in that neighbour), costs are [3, v, gh, gw]: a step behind the planes, at them, and before.
        """
        planes = self._checked(planes)
        costs = np.empty((3, len(self.neighbours), *self.grid), np.float32)
        rate = np.empty(self.grid, np.float32)
        self._call("splat_cpu_stereo_costs", planes.ctypes.data, step, costs.ctypes.data, rate.ctypes.data)
        return (costs if step > 0 else costs[1]), rate

    def _checked(self, planes: np.ndarray) -> np.ndarray:
        if planes.shape != (3, *self.grid):
            raise ShapeError(f"planes must be {[3, *self.grid]}, got {list(planes.shape)}.")
        return np.ascontiguousarray(planes, np.float32)


def stereo_semiglobal(
    cost: np.ndarray, guide: np.ndarray, *, slope: float, jump: float, edge: float = math.inf
) -> np.ndarray:
    """Semi-global matching: costs [h, d, w] of :meth:`Stereo.sweep`, in the mean over four paths, [h, d, w] float32.

    On a path (right, left, down and up through the image) a pixel's cost is its own and the least of: what the pixel
    before cost at the same hypothesis; at the next one on either side, and ``slope``; at any, and a jump; without the
    least that it cost there (Hirschmüller 2008, eq. 13).

    Args:
        guide: [h, w] grey; a jump costs jump / (1 + difference / edge) between pixels of different grey.
        slope, jump: 0 ≤ slope; a jump within flat grey costs ``jump``.      edge: > 0, in units of grey.
    """
    height, hypotheses, width = cost.shape
    if guide.shape != (height, width):
        raise ShapeError(f"guide must be {[height, width]}, got {list(guide.shape)}.")
    cost, guide = (np.ascontiguousarray(array, np.float32) for array in (cost, guide))
    means = np.empty_like(cost)
    code = library().splat_cpu_stereo_semiglobal(
        cost.ctypes.data, height, hypotheses, width, guide.ctypes.data, slope, jump, edge, means.ctypes.data
    )
    check_code(code, "stereo")
    return means


def stereo_minima(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the costs [h, d, w] of :meth:`Stereo.sweep`, pixel by pixel [h, w] float32:

    Returns:
        the lowest cost;
        its hypothesis, refined by the parabola through it and its two neighbours: −0.5 to d − 0.5;
        the lowest local minimum more than two hypotheses away from it, 1 where there is none.
    """
    height, hypotheses, width = cost.shape
    cost = np.ascontiguousarray(cost, np.float32)
    lowest, position, rival = (np.empty((height, width), np.float32) for _ in range(3))
    code = library().splat_cpu_stereo_minima(
        cost.ctypes.data, height, hypotheses, width, lowest.ctypes.data, position.ctypes.data, rival.ctypes.data
    )
    check_code(code, "stereo")
    return lowest, position, rival
