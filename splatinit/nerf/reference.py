"""The radiance field in plain torch, straight from the formulas, in any float dtype; autograd does the backward.

It is the oracle of the tests and shares no code with the native engine. Descriptions of grid and MLP are read by their
attributes: ``cells`` and ``rows``; ``shapes``.
"""

from __future__ import annotations

import torch

PRIMES = (1, 2654435761, 805459861)  # Müller et al. 2022, section 3
CELL_OPACITY = 0.3  # optical depth of a cell's length that is believed, see ray_samples


def grid_features(grid, table: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Features [n, 2 levels] of points [n, 3] from a table [grid.size, 2]. Müller et al. 2022, eq. 4."""
    inside = points.clamp(0, 1)
    found, offset = [], 0
    for cells, rows in zip(grid.cells, grid.rows, strict=True):
        at = inside * cells
        lower = at.floor().clamp(max=cells - 1)
        fraction, lower = at - lower, lower.long()
        total = 0
        for corner in range(8):
            bits = torch.tensor([corner >> d & 1 for d in range(3)])
            x, y, z = (lower + bits).unbind(-1)
            if (cells + 1) ** 3 <= rows:
                index = x + (cells + 1) * (y + (cells + 1) * z)
            else:
                hashed = [(c * prime) & 0xFFFFFFFF for c, prime in zip((x, y, z), PRIMES, strict=True)]
                index = (hashed[0] ^ hashed[1] ^ hashed[2]) % rows
            weight = torch.where(bits.bool(), fraction, 1 - fraction).prod(-1)
            total = total + weight[:, None] * table[offset + index]
        found.append(total)
        offset += rows
    return torch.cat(found, dim=-1)


def mlp_outputs(mlp, weights: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """[n, outputs] of x [n, inputs]; weights are for each layer the matrix [in, out] and the bias [out]."""
    at = 0
    for layer, (n, m) in enumerate(mlp.shapes):
        matrix, bias = weights[at : at + n * m].reshape(n, m), weights[at + n * m : at + (n + 1) * m]
        x = (x if layer == 0 else x.relu()) @ matrix + bias
        at += (n + 1) * m
    return x


def ray_sums(samples) -> tuple[torch.Tensor, ...]:
    """weights [s], and per ray rgb [r, 3], opacity, depth, distortion [r]: ray by ray, distortion as a double sum.

    Mildenhall et al. 2020, eq. 3; Barron et al. 2022, eq. 15.
    """
    weights, sums = [samples.density[:0]], []
    for first, last in zip(samples.first[:-1].tolist(), samples.first[1:].tolist(), strict=True):
        own = samples.density[first:last] * samples.length[first:last]
        w = torch.exp(-(own.cumsum(0) - own)) * (1 - torch.exp(-own))
        middle, extent = samples.middle[first:last], samples.extent[first:last]
        apart = (middle[:, None] - middle[None, :]).abs()
        distortion = (w[:, None] * w[None, :] * apart).sum() + (w**2 * extent).sum() / 3
        rgb = (w[:, None] * samples.rgb[first:last]).sum(0)
        sums.append(torch.cat([rgb, torch.stack([w.sum(), (w * samples.distance[first:last]).sum(), distortion])]))
        weights.append(w)
    table = torch.stack(sums) if sums else samples.density.new_zeros(0, 6)
    return torch.cat(weights), table[:, :3], table[:, 3], table[:, 4], table[:, 5]


def occupancy_cells(space, points: torch.Tensor, cells: int) -> torch.Tensor:
    """Which cell [n] of cells³ (x fastest) the points [n, 3] lie in."""
    x, y, z = (space.unit(points) * cells).long().clamp(0, cells - 1).unbind(-1)
    return x + cells * (y + cells * z)


def ray_samples(space, density, origins, directions, shifts, coarse, fine, uniform, near) -> tuple[torch.Tensor, ...]:
    """Samples of rays as :func:`splatinit.native.ray_samples` gives them.

    Even parts of each ray (in the coordinate of ``space.distances``) are weighed by the densities of the cells that
    their middles lie in. A cell knows that it holds a surface, not where, so that no more than an optical depth of
    ``CELL_OPACITY`` is believed over the length of a cell: were it opaque, its front would take all samples. A part
    weighs
    at least half of what its neighbours do. Samples cut the distribution of these weights into even parts (Mildenhall
    et al. 2020, section
    5.2), of which ``uniform`` is spread over all of the ray. A ray that meets next to nothing is sampled evenly.
    """
    n = len(origins)
    moves = torch.full((n, 2), 0.5, dtype=origins.dtype) if shifts is None else shifts
    edges = ((torch.arange(coarse + 1) + moves[:, :1] - 0.5) / coarse).clamp(0, 1).to(origins.dtype)
    edges[:, 0], edges[:, -1] = 0, 1

    def between(edges: torch.Tensor) -> tuple[torch.Tensor, ...]:
        along = space.distances(origins, directions, edges, near)
        distance = (along[:, 1:] + along[:, :-1]) / 2
        points = origins[:, None] + distance[..., None] * directions[:, None]
        middle = (edges[:, 1:] + edges[:, :-1]) / 2
        return along.diff(dim=-1), distance, middle, edges.diff(dim=-1), points.reshape(-1, 3)

    length, *_, points = between(edges)
    known = density.reshape(-1)[occupancy_cells(space, points, density.shape[0])].reshape(n, coarse)
    along = directions.repeat_interleave(coarse, dim=0)
    speed = torch.autograd.functional.jvp(space.unit, points, along)[1].norm(dim=-1).reshape(n, coarse)
    own = torch.minimum(known, speed * density.shape[0] * CELL_OPACITY) * length
    weights = torch.exp(-(own.cumsum(-1) - own)) * (1 - torch.exp(-own))
    padded = torch.nn.functional.pad(weights, (1, 1))
    weights = torch.maximum(weights, torch.maximum(padded[:, :-2], padded[:, 2:]) / 2)
    total = weights.sum(-1, keepdim=True)
    even = edges.diff(dim=-1)
    mass = torch.where(total > 1e-3, (1 - uniform) * weights / total.clamp(min=1e-3) + uniform * even, even)
    cumulative = torch.nn.functional.pad(mass.cumsum(-1), (1, 0))
    wanted = (torch.arange(fine + 1) + moves[:, 1:]) / (fine + 1) * cumulative[:, -1:]
    above = torch.searchsorted(cumulative, wanted.contiguous(), right=True).clamp(1, coarse)
    low, high = cumulative.gather(1, above - 1), cumulative.gather(1, above)
    share = ((wanted - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
    cuts = torch.lerp(edges.gather(1, above - 1), edges.gather(1, above), share)
    *arrays, points = between(cuts)
    return *(array.reshape(-1) for array in arrays), points
