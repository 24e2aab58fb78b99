"""The radiance field: hash grid, small MLP, sums along rays. ``nerf/kernels.py`` builds on it."""

from __future__ import annotations

from ctypes import POINTER, Structure, byref, c_float, c_int, c_int32, c_int64, c_void_p
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import ShapeError
from .loading import check_code, declare, library
from .tensors import address, pointer

if TYPE_CHECKING:
    import torch


# The structs of cuda/include/splat/api.h, field by field.
class GridArg(Structure):
    _fields_ = [("levels", c_int32), ("cells", c_int32 * 16), ("rows", c_int32 * 16)]


class MlpArg(Structure):
    _fields_ = [(name, c_int32) for name in ("inputs", "width", "hidden", "outputs")]


class RaysArg(Structure):
    _fields_ = [
        *((name, c_int64) for name in ("rays", "samples")),
        *((name, c_void_p) for name in ("first", "density", "length", "distance", "rgb", "middle", "extent")),
    ]


class RaySumsArg(Structure):
    _fields_ = [(name, c_void_p) for name in ("weights", "rgb", "opacity", "depth", "distortion")]


class RayCotangentsArg(Structure):
    _fields_ = [(name, c_void_p) for name in ("rgb", "opacity", "depth", "distortion")]


class SpaceArg(Structure):
    _fields_ = [("ball", c_int32), ("low", c_float * 3), ("high", c_float * 3)]


class SamplingArg(Structure):
    _fields_ = [
        *((name, c_int32) for name in ("cells", "coarse", "fine")),
        *((name, c_float) for name in ("uniform", "near")),
    ]


class RaySamplesArg(Structure):
    _fields_ = [(name, c_void_p) for name in ("length", "distance", "middle", "extent", "points")]


declare(
    {
        "splat_cpu_grid": (c_int, [POINTER(GridArg), c_void_p, c_void_p, c_int64, c_void_p]),
        "splat_cpu_grid_vjp": (c_int, [POINTER(GridArg), c_void_p, c_void_p, c_int64, c_void_p]),
        "splat_cpu_mlp": (c_int, [POINTER(MlpArg), c_void_p, c_void_p, c_int64, c_void_p]),
        "splat_cpu_mlp_vjp": (c_int, [POINTER(MlpArg), *[c_void_p] * 3, c_int64, c_void_p, c_void_p]),
        "splat_cpu_rays": (c_int, [POINTER(RaysArg), POINTER(RaySumsArg)]),
        "splat_cpu_rays_vjp": (c_int, [POINTER(RaysArg), POINTER(RayCotangentsArg), c_void_p, c_void_p]),
        "splat_cpu_space_unit": (c_int, [POINTER(SpaceArg), c_void_p, c_int64, c_void_p]),
        "splat_cpu_occupancy_put": (
            c_int,
            [POINTER(SpaceArg), c_int, c_void_p, c_void_p, c_int64, c_float, c_void_p],
        ),
        "splat_cpu_ray_samples": (
            c_int,
            [
                *(POINTER(SpaceArg), POINTER(SamplingArg)),
                *(c_void_p, c_void_p, c_void_p, c_int64, c_void_p, POINTER(RaySamplesArg)),
            ],
        ),
        "splat_cpu_sh_basis": (c_int, [c_int, c_void_p, c_int64, c_void_p]),
    }
)


@dataclass(frozen=True)
class HashGrid:
    """A multiresolution hash grid over the unit cube (Müller et al. 2022, section 3), two numbers per entry.

    Attributes:
        cells: cubes of each level along an axis; 1 to 16 levels of 1 to 65535.
        rows: entries of each level in the table. At least (cells + 1)³ where every vertex has one of its own, else a
            power of two, and vertices share entries by their hash.
    """

    cells: tuple[int, ...]
    rows: tuple[int, ...]

    @classmethod
    def spanning(cls, levels: int, coarsest: int, finest: int, log2_rows: int) -> HashGrid:
        """``levels`` in geometric steps from ``coarsest`` to ``finest`` cells, at most 2^log2_rows entries each."""
        growth = (finest / coarsest) ** (1 / max(1, levels - 1))
        cells = tuple(int(coarsest * growth**level + 1e-6) for level in range(levels))
        return cls(cells, tuple(min((n + 1) ** 3, 2**log2_rows) for n in cells))

    @property
    def features(self) -> int:
        """Numbers that a point is encoded in."""
        return 2 * len(self.cells)

    @property
    def size(self) -> int:
        """Entries of the table."""
        return sum(self.rows)

    def arg(self) -> GridArg:
        if not 1 <= len(self.cells) == len(self.rows) <= 16:
            raise ShapeError(
                "A hash grid needs cells and rows for each of 1 to 16 levels, "
                f"got {len(self.cells)} and {len(self.rows)}."
            )
        return GridArg(len(self.cells), (c_int32 * 16)(*self.cells), (c_int32 * 16)(*self.rows))


def grid_features(grid: HashGrid, table: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Trilinear features [n, 2 levels] of points [n, 3], from a table [grid.size, 2].

    Points outside the unit cube count as the nearest point of it. Müller et al. 2022, eq. 4.
    """
    import torch

    encoded = torch.empty(len(points), grid.features)
    code = library().splat_cpu_grid(
        byref(grid.arg()),
        pointer("table", table, (grid.size, 2)),
        pointer("points", points, (len(points), 3)),
        len(points),
        address(encoded),
    )
    check_code(code, "hash grid")
    return encoded


def grid_features_vjp(grid: HashGrid, points: torch.Tensor, v_encoded: torch.Tensor) -> torch.Tensor:
    """Gradient [grid.size, 2] w.r.t. the table. Each entry is summed in the order of the points, for any threads."""
    import torch

    v_table = torch.empty(grid.size, 2)
    code = library().splat_cpu_grid_vjp(
        byref(grid.arg()),
        pointer("points", points, (len(points), 3)),
        pointer("gradient of features", v_encoded, (len(points), grid.features)),
        len(points),
        address(v_table),
    )
    check_code(code, "gradient of the hash grid")
    return v_table


@dataclass(frozen=True)
class Mlp:
    """A small multilayer perceptron: ``hidden`` layers of ``width`` numbers with ReLU behind each, and a linear one.

    Its weights are one array: for each layer the matrix [in, out] and the bias [out].

    Attributes:
        inputs, width, outputs: 1 to 64; multiples of 16 leave no lane empty.
        hidden: 1 or 2.
    """

    inputs: int
    width: int
    hidden: int
    outputs: int

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """(in, out) of each layer."""
        sizes = (self.inputs, *[self.width] * self.hidden, self.outputs)
        return tuple(zip(sizes[:-1], sizes[1:], strict=True))

    @property
    def size(self) -> int:
        """Numbers of all weights."""
        return sum((n + 1) * m for n, m in self.shapes)

    def arg(self) -> MlpArg:
        return MlpArg(self.inputs, self.width, self.hidden, self.outputs)


def mlp_outputs(mlp: Mlp, weights: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """[n, outputs] of x [n, inputs], with weights [mlp.size]."""
    import torch

    out = torch.empty(len(x), mlp.outputs)
    code = library().splat_cpu_mlp(
        byref(mlp.arg()),
        pointer("weights", weights, (mlp.size,)),
        pointer("x", x, (len(x), mlp.inputs)),
        len(x),
        address(out),
    )
    check_code(code, "MLP")
    return out


def mlp_outputs_vjp(
    mlp: Mlp, weights: torch.Tensor, x: torch.Tensor, v_out: torch.Tensor, *, with_x: bool = True
) -> tuple[torch.Tensor | None, torch.Tensor]:
    """Gradients w.r.t. x [n, inputs] (None without ``with_x``) and w.r.t. the weights [mlp.size].

    Hidden layers are computed again: nothing is kept of the forward pass.
    """
    import torch

    v_x = torch.empty(len(x), mlp.inputs) if with_x else None
    v_weights = torch.empty(mlp.size)
    code = library().splat_cpu_mlp_vjp(
        byref(mlp.arg()),
        pointer("weights", weights, (mlp.size,)),
        pointer("x", x, (len(x), mlp.inputs)),
        pointer("gradient of outputs", v_out, (len(x), mlp.outputs)),
        len(x),
        address(v_x),
        address(v_weights),
    )
    check_code(code, "gradient of the MLP")
    return v_x, v_weights


@dataclass(frozen=True)
class RaySamples:
    """Samples along rays, ray behind ray, and front to back along each; s of them in all. CPU tensors, contiguous.

    Attributes:
        first: [rays + 1] int64: the samples of ray r are first[r] to first[r + 1] − 1; from 0 to s.
        density: [s] per scene unit, ≥ 0.      rgb: [s, 3].
        length: [s] scene units.      distance: [s] scene units from the camera to the sample's middle.
        middle, extent: [s] middle and length of the sample in the coordinate in which distortion is measured.
    """

    first: torch.Tensor
    density: torch.Tensor
    rgb: torch.Tensor
    length: torch.Tensor
    distance: torch.Tensor
    middle: torch.Tensor
    extent: torch.Tensor

    @property
    def rays(self) -> int:
        return len(self.first) - 1

    def arg(self) -> RaysArg:
        import torch

        first, s = self.first, len(self.density)
        if first.dtype != torch.int64 or first.ndim != 1 or len(first) < 1 or not first.is_contiguous():
            raise ShapeError(
                f"first must be [rays + 1] int64, contiguous; got {list(first.shape)} "
                f"{str(first.dtype).removeprefix('torch.')}."
            )
        names = ("density", "length", "distance", "rgb", "middle", "extent")
        shapes = [(s, 3) if name == "rgb" else (s,) for name in names]
        arrays = [pointer(name, getattr(self, name), shape) for name, shape in zip(names, shapes, strict=True)]
        return RaysArg(self.rays, s, first.data_ptr(), *arrays)


def ray_sums(samples: RaySamples) -> tuple[torch.Tensor, ...]:
    """What rays see of their samples: emission and absorption (Max 1995; Mildenhall et al. 2020, eq. 3).

    Returns:
        weights [s]: share of each sample in the light of its ray;
        rgb [rays, 3], without background;      opacity [rays]: sum of the weights;
        depth [rays]: sum of weights times distance (the expected distance, times opacity);
        distortion [rays]: Barron et al. 2022 (mip-NeRF 360), eq. 15.
    A ray without samples gets zeros. Weights are exact to 2e-7 of the light that reaches the sample.
    """
    import torch

    shapes = ((len(samples.density),), (samples.rays, 3), *[(samples.rays,)] * 3)
    sums = tuple(torch.empty(shape) for shape in shapes)
    check_code(library().splat_cpu_rays(byref(samples.arg()), byref(RaySumsArg(*map(address, sums)))), "rays")
    return sums


def ray_sums_vjp(
    samples: RaySamples,
    v_rgb: torch.Tensor,
    v_opacity: torch.Tensor | None = None,
    v_depth: torch.Tensor | None = None,
    v_distortion: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients w.r.t. density [s] and rgb [s, 3] of the samples, from those of the sums of :func:`ray_sums`."""
    import torch

    v_density, v_color = torch.empty(len(samples.density)), torch.empty(len(samples.density), 3)
    optional = [
        None if v is None else pointer(f"gradient of {name}", v, (samples.rays,))
        for name, v in (("opacity", v_opacity), ("depth", v_depth), ("distortion", v_distortion))
    ]
    v = RayCotangentsArg(pointer("gradient of rgb", v_rgb, (samples.rays, 3)), *optional)
    code = library().splat_cpu_rays_vjp(byref(samples.arg()), byref(v), address(v_density), address(v_color))
    check_code(code, "gradient of rays")
    return v_density, v_color


def sh_basis(directions: torch.Tensor, degree: int) -> torch.Tensor:
    """Real spherical harmonics [n, (degree + 1)²] of unit vectors [n, 3], degree 0 to 3, in the order of 3DGS."""
    import torch

    basis = torch.empty(len(directions), (degree + 1) ** 2)
    address_in = pointer("directions", directions, (len(directions), 3))
    check_code(library().splat_cpu_sh_basis(degree, address_in, len(directions), address(basis)), "spherical harmonics")
    return basis


def space_unit(space: SpaceArg, points: torch.Tensor) -> torch.Tensor:
    """Points [n, 3] of the world in the unit cube [n, 3] of a field; see :mod:`splatinit.nerf.space`."""
    import torch

    unit = torch.empty(len(points), 3)
    arrays = pointer("points", points, (len(points), 3)), len(points), address(unit)
    check_code(library().splat_cpu_space_unit(byref(space), *arrays), "points in the unit cube")
    return unit


def occupancy_put_(
    space: SpaceArg, density: torch.Tensor, points: torch.Tensor, values: torch.Tensor, rate: float
) -> None:
    """Remember the values [n] at points [n, 3] in the cells [c, c, c] (z, y, x) that they lie in, one after the other,
    in place: density += rate (value − density). NaN and negative values are passed over."""
    n, cells = len(points), density.shape[0]
    arrays = pointer("points", points, (n, 3)), pointer("values", values, (n,)), n
    known = pointer("density", density, (cells, cells, cells))
    check_code(library().splat_cpu_occupancy_put(byref(space), cells, *arrays, rate, known), "remembering densities")


def ray_samples(
    space: SpaceArg,
    density: torch.Tensor,
    origins: torch.Tensor,
    directions: torch.Tensor,
    shifts: torch.Tensor | None,
    coarse: int,
    fine: int,
    uniform: float,
    near: float,
) -> tuple[torch.Tensor, ...]:
    """Where to sample rays, by what is remembered of densities; see :func:`splatinit.nerf.reference.ray_samples`.

    Args:
        density: [c, c, c] per scene unit, of the cells (z, y, x) of the unit cube.
        origins, directions: [n, 3], unit directions.
        shifts: [n, 2] in [0, 1), which move the coarse parts and the samples of each ray; None: 1/2.
        coarse: parts that are weighed, 1 to 1024.      fine: samples of each ray.
        uniform: share of the samples that is spread over all of the ray.
        near: scene units from the camera at which rays begin.

    Returns:
        length, distance (of the middle; scene units), middle, extent (in [0, 1], of the whole ray): each [n fine];
        points [n fine, 3].
    """
    import torch

    n, cells = len(origins), density.shape[0]
    out = (*(torch.empty(n * fine) for _ in range(4)), torch.empty(n * fine, 3))
    code = library().splat_cpu_ray_samples(
        byref(space),
        byref(SamplingArg(cells, coarse, fine, uniform, near)),
        pointer("density", density, (cells, cells, cells)),
        pointer("origins", origins, (n, 3)),
        pointer("directions", directions, (n, 3)),
        n,
        None if shifts is None else pointer("shifts", shifts, (n, 2)),
        byref(RaySamplesArg(*map(address, out))),
    )
    check_code(code, "samples along rays")
    return out
