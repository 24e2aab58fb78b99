"""LoFTR, semi-dense, as kornia brings it.

Sun et al., LoFTR: Detector-Free Local Feature Matching with Transformers, CVPR 2021 (arXiv:2104.00680). Coarse matches
between the 8×8 px cells of two grey photos, refined in the second: the points in the reference lie on one grid for all
neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigError
from .base import Matches, MatchView
from .networks import PerPhoto, device, load_network
from .pairwise import Gate, Pair, at_size, match_neighbours, network_size, to_photo

if TYPE_CHECKING:
    import torch

TRAINED = ("outdoor", "indoor_new")
# Of its input's sides: no cell is cut; and large enough for the border of 2 cells that LoFTR leaves out on each side.
_MULTIPLE = 64


@dataclass(frozen=True)
class LoftrConfig:
    """How LoFTR matches.

    Attributes:
        trained: which of kornia's weights: outdoor (MegaDepth) or indoor_new (ScanNet).
        weights: a checkpoint file of these; none: kornia fetches them once.
        size: px of the longer side at which the network sees a photo; memory grows with its fourth power.
        certainty: matches below are dropped; 0.2 and less keeps all that LoFTR finds, as published.
        epipolar: px that a target may lie off its epipolar line, where poses are known; none keeps all.
    """

    trained: str = "outdoor"
    weights: str | None = None
    size: int = 640
    certainty: float = 0.2
    epipolar: float | None = 2.0

    def __post_init__(self) -> None:
        if self.trained not in TRAINED:
            raise ConfigError(f"The matcher loftr's trained is '{self.trained}'; expected one of {', '.join(TRAINED)}.")
        if self.size < _MULTIPLE:
            raise ConfigError(f"The matcher loftr's size is {self.size} px; expected at least {_MULTIPLE}.")
        Gate(self.certainty, self.epipolar)


@dataclass(frozen=True)
class _Side:
    """One photo as kornia takes it: ``kind`` is "image", [1, 1, h, w], or "features", the maps that it makes of it."""

    kind: str
    value: torch.Tensor | dict[str, torch.Tensor]
    width: int
    height: int

    @property
    def nbytes(self) -> int:
        tensors = self.value.values() if isinstance(self.value, dict) else (self.value,)
        return sum(tensor.element_size() * tensor.nelement() for tensor in tensors)


class Loftr:
    """Semi-dense matches of kornia's LoFTR; see :class:`splatinit.matching.base.Matcher`."""

    name = "loftr"

    def __init__(self, config: LoftrConfig = LoftrConfig()) -> None:
        self._config = config
        self._gate = Gate(config.certainty, config.epipolar)
        self._device = device()
        self._net = load_network(
            self.name,
            self._load,
            f"Fetch loftr_{config.trained if config.trained == 'outdoor' else 'indoor_ds_new'}.ckpt from "
            "https://huggingface.co/kornia/loftr and name the file in the matcher's setting weights.",
        )
        self.network_on_cpu = self._device.type == "cpu"
        self._side = PerPhoto(self._side_of, lambda side: side.nbytes)

    def _load(self) -> Any:
        import copy

        import torch
        from kornia.feature import LoFTR
        from kornia.feature.loftr.loftr import default_cfg

        if self._config.weights is None:
            return LoFTR(pretrained=self._config.trained).to(self._device).eval()
        settings = copy.deepcopy(default_cfg)
        # The positional encoding that these weights were trained with; kornia does the same when it fetches them.
        settings["coarse"]["temp_bug_fix"] = self._config.trained == "indoor_new"
        net = LoFTR(pretrained=None, config=settings)
        state = torch.load(self._config.weights, map_location="cpu", weights_only=True)
        net.load_state_dict(state["state_dict"])
        return net.to(self._device).eval()

    def match(
        self,
        reference: MatchView,
        neighbours: Sequence[MatchView],
        *,
        depth_range: tuple[float, float] | None = None,
    ) -> Matches:
        return match_neighbours(
            lambda neighbour: self._pair(reference, neighbour), reference, neighbours, self._gate, depth_range
        )

    def _pair(self, reference: MatchView, neighbour: MatchView) -> Pair:
        import torch

        with torch.inference_mode():
            side0, side1 = self._side(reference), self._side(neighbour)
            found = self._net({f"{side0.kind}0": side0.value, f"{side1.kind}1": side1.value})
            # kornia's keypoints have pixel centres at +0.5, as ours.
            return Pair(
                to_photo(found["keypoints0"].cpu().numpy(), reference, side0.width, side0.height),
                to_photo(found["keypoints1"].cpu().numpy(), neighbour, side1.width, side1.height),
                found["confidence"].float().cpu().numpy().clip(0, 1),
            )

    def _side_of(self, view: MatchView) -> _Side:
        import torch

        grey, (width, height) = self._grey(view)
        if not hasattr(self._net, "extract_features"):  # before kornia 0.9
            return _Side("image", grey, width, height)
        with torch.inference_mode():
            return _Side("features", self._net.extract_features(grey), width, height)

    def _grey(self, view: MatchView) -> tuple[torch.Tensor, tuple[int, int]]:
        """The photo [1, 1, h, w] in [0, 1] at the network's size, and (w, h)."""
        import cv2
        import torch

        height, width = view.rgb.shape[:2]
        size = network_size(width, height, self._config.size, _MULTIPLE)
        grey = cv2.cvtColor(np.array(at_size(view.rgb, *size)), cv2.COLOR_RGB2GRAY)
        return torch.from_numpy(grey).to(self._device)[None, None].float() / 255, size
