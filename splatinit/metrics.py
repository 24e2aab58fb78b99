"""How near a picture is to the photo: PSNR, SSIM and LPIPS, as the field computes them.

All take two [h, w, 3] sRGB images in [0, 1], on one device, and give one number. PSNR is over all pixels and channels;
SSIM is Wang et al. 2004 with an 11 × 11 Gaussian window (σ 1.5 px) at the positions where it fits wholly inside the
image, averaged over channels (the convention of scikit-image with ``gaussian_weights`` and of torchmetrics; the
training loss of 3DGS pads with zeros instead, which gives other numbers); LPIPS is Zhang et al. 2018, version 0.1,
inputs scaled to [−1, 1].

Each takes a ``mask`` [h, w] bool, True where a pixel counts; None: all count. PSNR is then over the pixels that count;
SSIM over the positions whose whole window counts; LPIPS sees the truth in place of the image where nothing counts, so
that a position whose surroundings are all unknown adds 0 to its mean: compare it only between runs on the same masks.
"""

from __future__ import annotations

import hashlib
import math
import os
import urllib.error
import urllib.request
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from .errors import ConfigError, FormatError, OutputError, ShapeError, WeightsMissing
from .io.atomic import atomic_path
from .progress import Progress, Silent
from .registry import nearest

SSIM_WINDOW = 11  # px
SSIM_SIGMA = 1.5  # px
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2


def psnr(image: torch.Tensor, truth: torch.Tensor, mask: torch.Tensor | None = None) -> float:
    """Peak signal-to-noise ratio in dB for a peak of 1; infinite for equal images.

    Raises ShapeError when no pixel counts.
    """
    _check_pair("psnr", image, truth, 1, mask)
    error = (image.double() - truth.double()).square()
    if mask is not None:
        error = error[mask]
        if error.numel() == 0:
            raise ShapeError("psnr: the mask leaves no pixel that counts.")
    mean = float(error.mean())
    return math.inf if mean == 0 else -10 * math.log10(mean)


def ssim(image: torch.Tensor, truth: torch.Tensor, mask: torch.Tensor | None = None) -> float:
    """Structural similarity, at most 1 (Wang et al. 2004, eq. 13).

    Raises ShapeError when a side is below 11 px, or no 11 × 11 window counts as a whole.
    """
    _check_pair("ssim", image, truth, SSIM_WINDOW, mask)
    x, y = (value.double().permute(2, 0, 1)[:, None] for value in (image, truth))
    offset = torch.arange(SSIM_WINDOW, dtype=torch.float64) - SSIM_WINDOW // 2
    window = torch.exp(-0.5 * (offset / SSIM_SIGMA) ** 2)
    window = (window / window.sum()).to(x.device)

    def blur(values: torch.Tensor) -> torch.Tensor:
        return F.conv2d(F.conv2d(values, window.reshape(1, 1, 1, -1)), window.reshape(1, 1, -1, 1))

    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y, covariance = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2, blur(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + SSIM_C1) / (mean_x**2 + mean_y**2 + SSIM_C1)
    structure = (2 * covariance + SSIM_C2) / (var_x + var_y + SSIM_C2)
    values = luminance * structure
    if mask is not None:
        # A window counts as a whole where the largest of "does not count" in it is 0.
        whole = F.max_pool2d((~mask).float()[None], SSIM_WINDOW, stride=1)[0] == 0
        values = values[:, 0, whole]
        if values.numel() == 0:
            raise ShapeError(f"ssim: no {SSIM_WINDOW}×{SSIM_WINDOW} px of the mask count as a whole.")
    return float(values.mean())


def _check_pair(name: str, image: torch.Tensor, truth: torch.Tensor, side: int, mask: torch.Tensor | None) -> None:
    if image.shape != truth.shape or image.ndim != 3 or image.shape[2] != 3:
        raise ShapeError(f"{name} needs two [h, w, 3] images, got {list(image.shape)} and {list(truth.shape)}.")
    if min(image.shape[:2]) < side:
        raise ShapeError(f"{name} needs images of at least {side}×{side} px, got {image.shape[1]}×{image.shape[0]} px.")
    if mask is not None and (mask.shape != image.shape[:2] or mask.dtype != torch.bool):
        raise ShapeError(
            f"{name} needs a mask of {list(image.shape[:2])} bool, got {list(mask.shape)} "
            f"{str(mask.dtype).removeprefix('torch.')}."
        )


# ------------------------------------------------------------------------------------------------------------- LPIPS
@dataclass(frozen=True)
class _Conv:
    """A convolution followed by ReLU; ``pool``: the side of the max-pooling (stride 2) before it, 0 for none;
    ``tap``: whether its output is one of the five layers that LPIPS compares."""

    index: int  # of the convolution in torchvision's ``features``, which names its weights
    channels: tuple[int, int]  # in, out
    kernel: int = 3
    stride: int = 1
    padding: int = 1
    pool: int = 0
    tap: bool = False


@dataclass(frozen=True)
class _Net:
    layers: tuple[_Conv, ...]
    smallest: int  # px: the shortest side for which every layer has at least one value
    backbone: tuple[str, str]  # URL, SHA-256
    heads: tuple[str, str]


_TORCHVISION = "https://download.pytorch.org/models/"
_LPIPS = "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1/"

_NETS = {
    "vgg": _Net(
        layers=(
            _Conv(0, (3, 64)),
            _Conv(2, (64, 64), tap=True),
            _Conv(5, (64, 128), pool=2),
            _Conv(7, (128, 128), tap=True),
            _Conv(10, (128, 256), pool=2),
            _Conv(12, (256, 256)),
            _Conv(14, (256, 256), tap=True),
            _Conv(17, (256, 512), pool=2),
            _Conv(19, (512, 512)),
            _Conv(21, (512, 512), tap=True),
            _Conv(24, (512, 512), pool=2),
            _Conv(26, (512, 512)),
            _Conv(28, (512, 512), tap=True),
        ),
        smallest=16,
        backbone=(
            _TORCHVISION + "vgg16-397923af.pth",
            "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        ),
        heads=(_LPIPS + "vgg.pth", "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868"),
    ),
    "alex": _Net(
        layers=(
            _Conv(0, (3, 64), kernel=11, stride=4, padding=2, tap=True),
            _Conv(3, (64, 192), kernel=5, padding=2, pool=3, tap=True),
            _Conv(6, (192, 384), pool=3, tap=True),
            _Conv(8, (384, 256), tap=True),
            _Conv(10, (256, 256), tap=True),
        ),
        smallest=31,
        backbone=(
            _TORCHVISION + "alexnet-owt-7be5be79.pth",
            "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        ),
        heads=(_LPIPS + "alex.pth", "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0"),
    ),
}

LPIPS_NETS = tuple(_NETS)

# The mean and deviation of ImageNet's colours, as LPIPS v0.1 writes them for inputs in [−1, 1].
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)


class Lpips:
    """Learned perceptual distance; 0 for equal images, about 0.1 for a good reconstruction.

    Args:
        net: "vgg" (VGG16: what 3DGS papers report) or "alex" (AlexNet: faster, LPIPS's own recommendation).
        progress: told when weights are fetched.
        device: where the images will be.

    Raises:
        ConfigError: unknown ``net``.
        WeightsMissing: no weights on this machine, and none could be fetched.
        FormatError: the weights file is not what its name says.
    """

    def __init__(
        self, net: str = "vgg", *, progress: Progress = Silent(), device: torch.device = torch.device("cpu")
    ) -> None:
        if net not in _NETS:
            raise ConfigError(f"Unknown LPIPS network '{net}'.", hint=nearest(net, list(_NETS)))
        self.net = net
        self._layers = _NETS[net].layers
        weights = _load_weights(net, find_weights(net) or _fetch_weights(net, progress))
        self._weights = {name: value.to(device) for name, value in weights.items()}
        self._device = device
        self._shift, self._scale = torch.tensor(_SHIFT).to(device), torch.tensor(_SCALE).to(device)

    @torch.no_grad()
    def __call__(self, image: torch.Tensor, truth: torch.Tensor, mask: torch.Tensor | None = None) -> float:
        """The distance of two [h, w, 3] images in [0, 1]. Raises ShapeError below 16 px (vgg) or 31 px (alex)."""
        _check_pair(f"LPIPS ({self.net})", image, truth, _NETS[self.net].smallest, mask)
        if mask is not None:
            image = torch.where(mask[..., None], image, truth)
        with self._whole_floats():
            levels = list(zip(self._features(image), self._features(truth), strict=True))
        total = 0.0
        for level, (a, b) in enumerate(levels):
            head = self._weights[f"lin{level}.model.1.weight"]
            total += float((head.reshape(-1, 1, 1) * (a - b).square()).sum(0).mean())
        return total

    def _whole_floats(self) -> AbstractContextManager[None]:
        """Left to itself, cuDNN rounds what it convolves to 10 bits (TF32): another score than that of the host."""
        if self._device.type == "cpu":
            return nullcontext()
        return torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)

    def _features(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Five feature maps [c, h', w'], each position scaled to unit length over its channels."""
        x = (image.float() * 2 - 1 - self._shift) / self._scale
        x = x.permute(2, 0, 1)[None]
        taps = []
        for layer in self._layers:
            if layer.pool:
                x = F.max_pool2d(x, layer.pool, stride=2)
            name = f"features.{layer.index}"
            x = F.conv2d(x, self._weights[name + ".weight"], self._weights[name + ".bias"], layer.stride, layer.padding)
            x = x.relu()
            if layer.tap:
                taps.append(x[0] / (x[0].square().sum(0, keepdim=True).sqrt() + 1e-10))
        return taps


def weights_folder() -> tuple[Path, bool]:
    """Where LPIPS weights are looked for, and whether the user named the folder (SPLATINIT_WEIGHTS).

    Into a folder that the user named nothing is ever fetched.
    """
    named = os.environ.get("SPLATINIT_WEIGHTS")
    if named:
        return Path(named).expanduser(), True
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "splatinit" / "weights", False


def find_weights(net: str) -> Path | None:
    """The weights file of an LPIPS network on this machine, or None."""
    folder, _ = weights_folder()
    names = (f"lpips_{net}_v0.1.safetensors", f"lpips_{net}_v0.1_fp16.pt")
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _shapes(net: str) -> dict[str, tuple[int, ...]]:
    """Name → shape of all weights of an LPIPS network."""
    layers = _NETS[net].layers
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in layers:
        inputs, outputs = layer.channels
        shapes[f"features.{layer.index}.weight"] = (outputs, inputs, layer.kernel, layer.kernel)
        shapes[f"features.{layer.index}.bias"] = (outputs,)
    taps = [layer for layer in layers if layer.tap]
    return shapes | {f"lin{i}.model.1.weight": (1, tap.channels[1], 1, 1) for i, tap in enumerate(taps)}


def _load_weights(net: str, path: Path) -> dict[str, torch.Tensor]:
    """All weights in float32. Raises FormatError unless each is there with its shape and finite."""
    state = _read_state(path)
    weights = {}
    for name, shape in _shapes(net).items():
        value = state.get(name)
        got = "nothing" if value is None else str(list(value.shape))
        if value is None or tuple(value.shape) != shape:
            raise FormatError(f"{path}: expected '{name}' of shape {list(shape)}, got {got}.", hint=_REPLACE)
        weights[name] = value.float()
        if not weights[name].isfinite().all():
            raise FormatError(f"{path}: '{name}' has non-finite numbers.", hint=_REPLACE)
    return weights


_REPLACE = "Delete the file, or put LPIPS v0.1 weights (backbone and linear heads in one state dict) in its place."


def _read_state(path: Path) -> dict[str, torch.Tensor]:
    """A state dict of tensors and nothing else: ``weights_only`` refuses any other object in a .pt file."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise many kinds for a broken file
        raise FormatError(f"{path}: cannot be read as a state dict ({type(error).__name__}).", hint=_REPLACE) from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise FormatError(f"{path}: not a state dict of tensors.", hint=_REPLACE)
    return state


def _fetch_weights(net: str, progress: Progress) -> Path:
    """Fetch backbone and heads from where they are published, verify both, and keep what LPIPS needs of them."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    folder, named = weights_folder()
    if named:
        raise WeightsMissing(
            f"LPIPS ({net}) needs its weights; {folder} (SPLATINIT_WEIGHTS) has no lpips_{net}_v0.1 file.",
            hint="Put the file there, or unset SPLATINIT_WEIGHTS to let the published weights be fetched.",
        )
    sources = _NETS[net]
    progress.note(f"Fetching the weights of LPIPS ({net}) once, from {sources.backbone[0]}.")
    path = folder / f"lpips_{net}_v0.1.safetensors"
    try:
        with atomic_path(path) as result:
            state: dict[str, torch.Tensor] = {}
            for url, checksum in (sources.backbone, sources.heads):
                part = result.with_suffix(".part")
                try:
                    _download(net, url, checksum, part)
                    state.update(_read_state(part))
                finally:
                    part.unlink(missing_ok=True)
            save_file({name: state[name].float().contiguous() for name in _shapes(net) if name in state}, result)
            _load_weights(net, result)
    except (OutputError, SafetensorError) as error:
        # A run must not end without its other scores because a cache cannot be written.
        raise WeightsMissing(
            f"LPIPS ({net}) needs its weights, and they cannot be kept: {error}",
            hint=f"Make {folder} writable, or put the weights elsewhere and name the folder in SPLATINIT_WEIGHTS.",
        ) from error
    return path


def _download(net: str, url: str, checksum: str, path: Path) -> None:
    """Save ``url`` to ``path``; WeightsMissing unless it can be reached and has this SHA-256."""
    hint = f"Put lpips_{net}_v0.1.safetensors (or _fp16.pt) into a folder and name it in SPLATINIT_WEIGHTS."
    digest = hashlib.sha256()
    try:
        with urllib.request.urlopen(url, timeout=10) as source, open(path, "wb") as target:
            while block := source.read(1 << 20):
                digest.update(block)
                target.write(block)
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise WeightsMissing(
            f"LPIPS ({net}) needs its weights, and {url} cannot be fetched: {reason}.", hint=hint
        ) from error
    if digest.hexdigest() != checksum:
        raise WeightsMissing(
            f"LPIPS ({net}): what {url} gave has SHA-256 {digest.hexdigest()}, expected {checksum}.", hint=hint
        )
