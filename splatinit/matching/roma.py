"""RoMa, dense: one neighbour's place of every pixel, with a certainty. The matcher of EDGS; made for a GPU.

Edstedt et al., RoMa: Robust Dense Feature Matching, CVPR 2024 (arXiv:2305.15404), package ``romatch``; and RoMa v2:
Harder Better Faster Denser Feature Matching (arXiv:2511.15706), package ``romav2``, the default. Each keeps its weights
where torch.hub keeps its files and fetches them when they are not there.

The warp is read at pixels of the network's grid, without interpolation, which would mix foreground and background. The
points in the reference are therefore one grid for all neighbours.

Both packages take a pair of photos and nothing less: what they make of the reference by itself they make anew for every
neighbour.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigError, MissingExtra, WeightsMissing
from .base import Matches, MatchView
from .networks import device, load_network
from .pairwise import Gate, Pair, match_neighbours

if TYPE_CHECKING:
    import torch

MODELS = ("v2", "outdoor", "indoor")
SETTINGS = ("turbo", "fast", "base", "precise")


@dataclass(frozen=True)
class RomaConfig:
    """Which RoMa, and how it matches.

    Attributes:
        model: v2; or outdoor or indoor of the first RoMa, as EDGS used it.
        setting: of v2, from fast to exact: turbo, fast, base or precise (320, 512, 640, 800 and then 1280 px).
        weights: torch.hub's folder with the files (as checkpoints/romav2.0.1.pt); none: torch.hub's own, to which what
            is missing is fetched.
        stride: every stride-th row and column of the network's grid gives a point.
        certainty: matches below are dropped (0.05, the first RoMa's own threshold).
        epipolar: px that a target may lie off its epipolar line, where poses are known; none keeps all.
    """

    model: str = "v2"
    setting: str = "base"
    weights: str | None = None
    stride: int = 2
    certainty: float = 0.05
    epipolar: float | None = 2.0

    def __post_init__(self) -> None:
        for name, value, known in (("model", self.model, MODELS), ("setting", self.setting, SETTINGS)):
            if value not in known:
                raise ConfigError(f"The matcher roma's {name} is '{value}'; expected one of {', '.join(known)}.")
        if self.stride < 1:
            raise ConfigError(f"The matcher roma's stride is {self.stride}; expected at least 1.")
        Gate(self.certainty, self.epipolar)

    def require_packages(self) -> None:
        """Raises MissingExtra where the model needs a package that the registry knows nothing of."""
        if self.model != "v2" and importlib.util.find_spec("romatch") is None:
            raise MissingExtra(
                f"matcher 'roma' with the model {self.model} needs romatch, which is not installed.",
                # Its dependency opencv-python writes the same folder as opencv-python-headless.
                hint="Install it: pip install --no-deps romatch; pip install einops kornia loguru torchvision",
            )


class Roma:
    """Dense matches of RoMa; see :class:`splatinit.matching.base.Matcher`."""

    name = "roma"

    def __init__(self, config: RomaConfig = RomaConfig()) -> None:
        config.require_packages()
        if config.weights is not None and not Path(config.weights).is_dir():
            raise WeightsMissing(
                f"The matcher 'roma' finds no weights in {config.weights}: no such folder.",
                hint="Name the folder of torch.hub that holds checkpoints/, or none to have them fetched.",
            )
        self._config = config
        self._gate = Gate(config.certainty, config.epipolar)
        self._device = device()
        with _hub_folder(config.weights) as folder:
            self._net = load_network(
                self.name,
                self._load_v2 if config.model == "v2" else self._load_v1,
                f"Let it reach github.com once, or copy the files of {folder} from a machine where it ran.",
            )
        self.network_on_cpu = self._device.type == "cpu"

    def _load_v2(self) -> Any:
        from romav2 import RoMaV2

        net = RoMaV2()
        net.apply_setting(self._config.setting)
        return net

    def _load_v1(self) -> Any:
        from romatch import roma_indoor, roma_outdoor

        make = roma_outdoor if self._config.model == "outdoor" else roma_indoor
        # One direction is enough. The custom correlation is a CUDA extension that only some builds bring.
        return make(device=self._device, symmetric=False, use_custom_corr=False)

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

        with torch.inference_mode(), _full_precision():
            warp, certainty = (self._warp_v2 if self._config.model == "v2" else self._warp_v1)(reference, neighbour)
        rows, columns = certainty.shape
        stride = self._config.stride
        # The middle pixel of each stride × stride block.
        y, x = np.mgrid[stride // 2 : rows : stride, stride // 2 : columns : stride].reshape(2, -1)
        height, width = reference.rgb.shape[:2]
        points = np.stack([(x + 0.5) * (width / columns), (y + 0.5) * (height / rows)], axis=1)
        height, width = neighbour.rgb.shape[:2]
        # −1 and 1 are the outer edges of the photo's first and last pixels (align_corners=False).
        targets = (warp[y, x].astype(np.float64) + 1) / 2 * (width, height)
        return Pair(points.astype(np.float32), targets.astype(np.float32), certainty[y, x])

    def _warp_v2(self, reference: MatchView, neighbour: MatchView) -> tuple[np.ndarray, np.ndarray]:
        """(warp [rows, columns, 2] in [−1, 1], certainty [rows, columns]) of the neighbour, on the reference's grid."""
        # Copies, because torch wants arrays that it could write to.
        found = self._net.match(np.array(reference.rgb), np.array(neighbour.rgb))
        return _array(found["warp_AB"][0]), _array(found["overlap_AB"][0, ..., 0])

    def _warp_v1(self, reference: MatchView, neighbour: MatchView) -> tuple[np.ndarray, np.ndarray]:
        """As :meth:`_warp_v2`. The first RoMa's warp holds both ends; the neighbour's is the last two numbers."""
        from PIL import Image

        images = (Image.fromarray(reference.rgb), Image.fromarray(neighbour.rgb))
        warp, certainty = self._net.match(*images, device=self._device)
        return _array(warp.reshape(*warp.shape[-3:])[..., 2:]), _array(certainty.reshape(*certainty.shape[-2:]))


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.float().cpu().numpy()


@contextmanager
def _hub_folder(folder: str | None) -> Iterator[str]:
    """Let torch.hub keep its files in ``folder`` (None: where it does), and tell where that is."""
    import torch

    own = torch.hub.get_dir()
    if folder is not None:
        torch.hub.set_dir(folder)
    try:
        yield folder or own
    finally:
        torch.hub.set_dir(own)


@contextmanager
def _full_precision() -> Iterator[None]:
    """Multiply matrices in full float32, which RoMa v2 insists on."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
