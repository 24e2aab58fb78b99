"""The protocol of a radiance field, and the hash grid with two small MLPs behind it (instant-ngp, section 5.4)."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import torch

from ..errors import FormatError
from ..io.atomic import atomic_path
from ..native import HashGrid, Mlp, sh_basis
from .kernels import grid_features, mlp_outputs
from .occupancy import Occupancy
from .space import Ball, Box, Space, in_unit_cube

_KINDS = {"box": Box, "ball": Ball}
_LOG_DENSITY_MAX = 11.0  # e^11 per size of the space: opaque within a ten-thousandth of it, and finite


class Field(Protocol):
    """Density and colour at points of the world.

    Attributes:
        space: where it lives.
        near: scene units from a camera at which its rays begin; nearer the field knows nothing.
        occupancy: what is remembered of its densities, by which rays are sampled.
    """

    space: Space
    near: float
    occupancy: Occupancy

    def parameters(self) -> dict[str, torch.Tensor]:
        """What is fitted: name → leaf tensor."""
        ...

    def density(self, points: torch.Tensor) -> torch.Tensor:
        """[n] per scene unit, ≥ 0, of points [n, 3]; 0 where the space ends."""
        ...

    def radiance(self, points: torch.Tensor, directions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Density [n] and colour [n, 3] in [0, 1] of points [n, 3], seen along unit vectors [r, 3], each that of
        n / r neighbouring points."""
        ...

    def save(self, path: Path) -> None:
        """Write everything that :func:`load_field` needs."""
        ...


@dataclass(frozen=True)
class HashFieldConfig:
    """Size of a :class:`HashField`.

    Attributes:
        levels, coarsest, finest: of the grid; cells along an axis, in geometric steps.
        log2_rows: entries of a level, at most 2 to this.
        width: of the hidden layers.      density_hidden, colour_hidden: layers, 1 or 2.
        geometry: numbers that the density's MLP hands to the colour's.
        sh_degree: of the encoding of directions, 0 to 3.
    """

    levels: int = 8
    coarsest: int = 16
    finest: int = 512
    log2_rows: int = 16
    width: int = 32
    density_hidden: int = 1
    colour_hidden: int = 1
    geometry: int = 15
    sh_degree: int = 2

    @property
    def grid(self) -> HashGrid:
        return HashGrid.spanning(self.levels, self.coarsest, self.finest, self.log2_rows)

    @property
    def density_mlp(self) -> Mlp:
        return Mlp(2 * self.levels, self.width, self.density_hidden, 1 + self.geometry)

    @property
    def colour_mlp(self) -> Mlp:
        return Mlp(self.geometry + (self.sh_degree + 1) ** 2, self.width, self.colour_hidden, 3)


class HashField:
    """Hash grid → MLP → log density and ``geometry`` numbers; these and the direction → MLP → colour.

    Density is e^x per ``space.size``, so that nothing depends on the scene's unit; colour is a sigmoid.
    """

    def __init__(self, config: HashFieldConfig, space: Space, seed: int = 0, near: float = 0.0) -> None:
        self.config, self.space, self.near = config, space, near
        self.occupancy = Occupancy.unknown(space.size)
        generator = torch.Generator().manual_seed(seed)
        # Müller et al. 2022, section 4: entries are uniform within ±1e-4; layers after Glorot & Bengio 2010.
        self.table = (torch.rand(config.grid.size, 2, generator=generator) * 2 - 1) * 1e-4
        self.density_weights = _glorot(config.density_mlp, generator)
        self.colour_weights = _glorot(config.colour_mlp, generator)
        for tensor in self.parameters().values():
            tensor.requires_grad_(True)

    def parameters(self) -> dict[str, torch.Tensor]:
        return {name: getattr(self, name) for name in ("table", "density_weights", "colour_weights")}

    def _density(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = grid_features(self.config.grid, self.table, in_unit_cube(self.space, points))
        out = mlp_outputs(self.config.density_mlp, self.density_weights, features)
        density = out[:, 0].clamp(max=_LOG_DENSITY_MAX).exp() / self.space.size
        return torch.where(self.space.holds(points), density, 0.0), out[:, 1:]

    def density(self, points: torch.Tensor) -> torch.Tensor:
        return self._density(points)[0]

    def radiance(self, points: torch.Tensor, directions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        density, geometry = self._density(points)
        basis = sh_basis(directions, self.config.sh_degree)
        each = basis.repeat_interleave(len(points) // max(1, len(basis)), dim=0)
        seen = torch.cat([geometry, each], dim=-1)
        return density, mlp_outputs(self.config.colour_mlp, self.colour_weights, seen).sigmoid()

    def save(self, path: Path) -> None:
        from safetensors.torch import save_file

        kind = next(name for name, cls in _KINDS.items() if isinstance(self.space, cls))
        facts = {"field": asdict(self.config), "space": {"kind": kind, **asdict(self.space)}, "near": self.near}
        tensors = {name: tensor.detach() for name, tensor in self.parameters().items()}
        # Densities times the space's size are at most e^11, which half precision holds.
        tensors["occupancy"] = (self.occupancy.density * self.space.size).half()
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, metadata={"splatinit.field": json.dumps(facts)})


def _glorot(mlp: Mlp, generator: torch.Generator) -> torch.Tensor:
    layers = []
    for n, m in mlp.shapes:
        bound = math.sqrt(6 / (n + m))
        layers += [(torch.rand(n * m, generator=generator) * 2 - 1) * bound, torch.zeros(m)]
    return torch.cat(layers)


def _frozen(value: object) -> object:
    """JSON's lists as the tuples that they were."""
    return tuple(value) if isinstance(value, list) else value


def load_field(path: Path) -> HashField:
    """A field that :meth:`HashField.save` wrote. Raises FormatError, naming the file; nothing is unpickled."""
    from safetensors import SafetensorError, safe_open

    hint = "Fit the field again, or name the .safetensors file of one that was saved by splatinit."
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["splatinit.field"])
            space = dict(facts["space"])
            shape = _KINDS[space.pop("kind")]
            laid = shape(**{name: _frozen(value) for name, value in space.items()})
            field = HashField(HashFieldConfig(**facts["field"]), laid, near=float(facts["near"]))
            expected = {**field.parameters(), "occupancy": field.occupancy.density.half()}
            tensors = {name: file.get_tensor(name) for name in expected}
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(
            f"{path}: not a saved field ({type(error).__name__}: {error}).", hint=hint, path=path
        ) from error
    for name, tensor in tensors.items():
        want = expected[name]
        if tensor.shape != want.shape or tensor.dtype != want.dtype or not tensor.isfinite().all():
            raise FormatError(
                f"{path}: '{name}' must be {list(want.shape)} finite {str(want.dtype).removeprefix('torch.')}, got "
                f"{list(tensor.shape)} "
                f"{str(tensor.dtype).removeprefix('torch.')}.",
                hint=hint,
                path=path,
            )
        if name == "occupancy":
            field.occupancy.density.copy_(tensor.float() / field.space.size)
        else:
            setattr(field, name, tensor.clone().requires_grad_(True))
    return field
