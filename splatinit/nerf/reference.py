"""The radiance field in plain torch, straight from the formulas, in any float dtype; autograd does the backward.

It is the oracle of the tests and shares no code with the native engine. Descriptions of grid and MLP are read by their
attributes: ``cells`` and ``rows``; ``shapes``.
"""

from __future__ import annotations

import torch

PRIMES = (1, 2654435761, 805459861)  # Müller et al. 2022, section 3


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
