"""PSNR and SSIM against hand-made and scipy's numbers; LPIPS against a network assembled from torch's own layers."""

from __future__ import annotations

import hashlib
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from compare import assert_matches
from scipy.ndimage import gaussian_filter
from tolerances import EXACT

from splatinit import metrics
from splatinit.errors import ConfigError, FormatError, ShapeError, WeightsMissing
from splatinit.metrics import Lpips, psnr, ssim

pytestmark = pytest.mark.usefixtures("one_thread")


def pair(height: int, width: int, noise: float = 0.1, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    smooth = np.stack([gaussian_filter(rng.random((height, width)), 1.0) for _ in range(3)], axis=-1)
    noisy = np.clip(smooth + noise * rng.normal(size=smooth.shape), 0, 1)
    return torch.from_numpy(noisy), torch.from_numpy(smooth)


# ------------------------------------------------------------------------------------------------------ PSNR, SSIM
def test_psnr_by_hand() -> None:
    truth = torch.zeros(2, 2, 3)
    image = truth.clone()
    image[0, 0, 0] = 0.6  # mean squared error 0.36 / 12 = 0.03
    assert psnr(image, truth) == pytest.approx(-10 * math.log10(0.03), abs=1e-5)
    assert psnr(truth + 0.1, truth) == pytest.approx(20.0, abs=1e-5)
    assert psnr(truth, truth) == math.inf


def test_ssim_equals_plain_loops() -> None:
    image, truth = (value.numpy() for value in pair(13, 12))
    offset = np.arange(11) - 5
    window = np.exp(-(offset[:, None] ** 2 + offset[None, :] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for channel in range(3):
        for row in range(3):
            for column in range(2):
                x, y = (v[row : row + 11, column : column + 11, channel] for v in (image, truth))
                mx, my = (window * x).sum(), (window * y).sum()
                vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
                cov = (window * (x - mx) * (y - my)).sum()
                values.append(
                    (2 * mx * my + 1e-4) * (2 * cov + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))
                )  # fmt: skip
    assert_matches("ssim", ssim(torch.from_numpy(image), torch.from_numpy(truth)), np.mean(values), EXACT)


def test_ssim_equals_scipys_filter_away_from_the_border() -> None:
    image, truth = pair(40, 53, seed=1)

    def blur(values: np.ndarray) -> np.ndarray:
        # 3.5 σ is a radius of 5 px; the border, where scipy reflects, is cut off.
        return gaussian_filter(values, (1.5, 1.5, 0), truncate=3.5)[5:-5, 5:-5]

    x, y = image.numpy(), truth.numpy()
    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    expected = ((2 * mx * my + 1e-4) * (2 * cov + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))).mean()
    assert_matches("ssim", ssim(image, truth), expected, EXACT)


def test_ssim_of_equal_images_is_one() -> None:
    image, _ = pair(11, 11)
    assert ssim(image, image) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_images_of_different_sizes_are_refused(measure) -> None:
    with pytest.raises(ShapeError, match=r"\[20, 20, 3\] and \[20, 21, 3\]"):
        measure(torch.zeros(20, 20, 3), torch.zeros(20, 21, 3))


def test_ssim_of_an_image_below_its_window_is_refused() -> None:
    with pytest.raises(ShapeError, match="at least 11×11 px, got 30×10 px"):
        ssim(torch.zeros(10, 30, 3), torch.zeros(10, 30, 3))


# ------------------------------------------------------------------------------------------------------ masks
def mask_of(height: int, width: int) -> np.ndarray:
    """A corner and single pixels do not count."""
    mask = np.ones((height, width), dtype=bool)
    mask[:4, :6] = False
    mask[height - 2, [1, width - 2]] = False
    return mask


def test_psnr_is_over_the_pixels_that_count() -> None:
    image, truth = pair(17, 23)
    mask = mask_of(17, 23)
    error = np.mean([((image - truth)[y, x] ** 2).numpy() for y in range(17) for x in range(23) if mask[y, x]])
    assert_matches("psnr", psnr(image, truth, torch.from_numpy(mask)), -10 * math.log10(error), EXACT)
    assert psnr(image, truth, torch.ones(17, 23, dtype=torch.bool)) == pytest.approx(psnr(image, truth), abs=1e-12)


def test_ssim_is_over_the_windows_that_count_as_a_whole() -> None:
    image, truth = pair(30, 27)
    mask = mask_of(30, 27)
    windows = [(y, x) for y in range(20) for x in range(17) if mask[y : y + 11, x : x + 11].all()]
    assert 0 < len(windows) < 20 * 17
    expected = np.mean([ssim(image[y : y + 11, x : x + 11], truth[y : y + 11, x : x + 11]) for y, x in windows])
    assert_matches("ssim", ssim(image, truth, torch.from_numpy(mask)), expected, EXACT)


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_pixels_that_do_not_count_change_nothing(measure) -> None:
    image, truth = pair(30, 27)
    mask = torch.from_numpy(mask_of(30, 27))
    wrong = torch.where(mask[..., None], image, 1 - truth)
    assert measure(wrong, truth, mask) == measure(image, truth, mask)


def test_masks_that_leave_nothing_to_measure_are_refused() -> None:
    image, truth = pair(12, 12)
    with pytest.raises(ShapeError, match="psnr: the mask leaves no pixel"):
        psnr(image, truth, torch.zeros(12, 12, dtype=torch.bool))
    holes = torch.ones(12, 12, dtype=torch.bool)
    holes[6, 6] = False
    with pytest.raises(ShapeError, match="ssim: no 11×11 px of the mask count"):
        ssim(image, truth, holes)
    with pytest.raises(ShapeError, match=r"a mask of \[12, 12\] bool, got \[12, 11\] bool"):
        psnr(image, truth, holes[:, 1:])
    with pytest.raises(ShapeError, match=r"got \[12, 12\] uint8"):
        psnr(image, truth, holes.byte())


def test_lpips_sees_the_truth_where_nothing_counts(weights: Path) -> None:
    lpips = Lpips("alex")
    image, truth = pair(40, 40)
    mask = torch.from_numpy(mask_of(40, 40))
    wrong = torch.where(mask[..., None], image, 1 - truth)
    assert lpips(wrong, truth, mask) == lpips(torch.where(mask[..., None], image, truth), truth)
    assert lpips(image, truth, torch.zeros(40, 40, dtype=torch.bool)) == 0.0


# ------------------------------------------------------------------------------------------------------ LPIPS
def torch_layers(net: str) -> tuple[torch.nn.Sequential, tuple[int, ...]]:
    """The backbone as torchvision numbers its layers, and the five ReLUs whose outputs LPIPS compares."""
    from torch.nn import Conv2d, MaxPool2d, ReLU, Sequential

    if net == "vgg":
        layers, channels = [], 3
        for width in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512):
            layers += [Conv2d(channels, width, 3, padding=1), ReLU()] if width else [MaxPool2d(2)]
            channels = width or channels
        return Sequential(*layers), (3, 8, 15, 22, 29)
    layers = [Conv2d(3, 64, 11, 4, 2), ReLU(), MaxPool2d(3, 2), Conv2d(64, 192, 5, padding=2), ReLU(), MaxPool2d(3, 2)]
    layers += [Conv2d(192, 384, 3, padding=1), ReLU(), Conv2d(384, 256, 3, padding=1), ReLU()]
    layers += [Conv2d(256, 256, 3, padding=1), ReLU()]
    return Sequential(*layers), (1, 4, 7, 9, 11)


@pytest.fixture
def weights(shared_data: Path, monkeypatch) -> Path:
    folder = shared_data / "weights"
    if not folder.is_dir():
        pytest.skip(f"no LPIPS weights at {folder}")
    monkeypatch.setenv("SPLATINIT_WEIGHTS", str(folder))
    return folder


@pytest.mark.parametrize("net", ["vgg", "alex"])
def test_lpips_equals_a_network_of_torch_layers(weights: Path, net: str) -> None:
    state = torch.load(weights / f"lpips_{net}_v0.1_fp16.pt", weights_only=True)
    backbone, taps = torch_layers(net)
    own = {name.removeprefix("features."): value.float() for name, value in state.items() if "features" in name}
    backbone.load_state_dict(own)
    image, truth = pair(48, 56)
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    x = torch.stack([((2 * v.float() - 1 - shift) / scale).permute(2, 0, 1) for v in (image, truth)])
    expected, level = 0.0, 0
    with torch.no_grad():
        for index, layer in enumerate(backbone):
            x = layer(x)
            if index in taps:
                unit = torch.nn.functional.normalize(x, dim=1)
                difference = ((unit[0] - unit[1]) ** 2)[None]
                head = state[f"lin{level}.model.1.weight"].float()
                expected += float(torch.nn.functional.conv2d(difference, head).mean())
                level += 1
    assert level == 5
    assert_matches("lpips", Lpips(net)(image, truth), expected, 1e-5)


@pytest.mark.parametrize("net", ["vgg", "alex"])
def test_lpips_behaves_like_a_distance(weights: Path, net: str) -> None:
    lpips = Lpips(net)
    image, truth = pair(40, 40, noise=0.05)
    worse, _ = pair(40, 40, noise=0.2)
    assert lpips(truth, truth) == 0.0
    assert lpips(image, truth) == pytest.approx(lpips(truth, image), rel=1e-4)
    assert 0.0 < lpips(image, truth) < lpips(worse, truth) < 1.5


@pytest.mark.parametrize(("net", "smallest"), [("vgg", 16), ("alex", 31)])
def test_the_smallest_image_of_each_network(weights: Path, net: str, smallest: int) -> None:
    lpips = Lpips(net)
    assert math.isfinite(lpips(*pair(smallest, smallest)))
    with pytest.raises(ShapeError, match=f"at least {smallest}×{smallest} px"):
        lpips(*pair(smallest - 1, 40))


def test_an_unknown_network_is_named() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'vgg'"):
        Lpips("vgg16")


# ------------------------------------------------------------------------------------------------------ weights
def made_up_state(net: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: 0.02 * torch.rand(shape, generator=generator) for name, shape in metrics._shapes(net).items()}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch) -> Path:
    """An empty cache in place of the user's, and no folder named by the user."""
    monkeypatch.delenv("SPLATINIT_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "splatinit" / "weights"


def publish(folder: Path, monkeypatch) -> dict[str, torch.Tensor]:
    """Let the published weights be two local files; returns what they hold."""
    state = made_up_state("alex")
    heads = {name: value for name, value in state.items() if name.startswith("lin")}
    backbone = {name: value for name, value in state.items() if name not in heads}
    sources = []
    for name, part in (("backbone", backbone | {"classifier.1.bias": torch.zeros(3)}), ("heads", heads)):
        path = folder / f"{name}.pth"
        torch.save(part, path)
        sources.append((path.as_uri(), hashlib.sha256(path.read_bytes()).hexdigest()))
    net = metrics._NETS["alex"]
    monkeypatch.setitem(
        metrics._NETS, "alex", type(net)(layers=net.layers, smallest=31, backbone=sources[0], heads=sources[1])
    )
    return state


def test_weights_are_fetched_once_and_verified(cache: Path, tmp_path: Path, monkeypatch) -> None:
    state = publish(tmp_path, monkeypatch)
    lpips = Lpips("alex")
    for name, value in state.items():
        assert torch.equal(lpips._weights[name], value)
    assert [path.name for path in cache.iterdir()] == ["lpips_alex_v0.1.safetensors"]
    (tmp_path / "backbone.pth").unlink()
    assert Lpips("alex")(*pair(40, 40)) > 0


def test_weights_with_a_wrong_checksum_are_not_kept(cache: Path, tmp_path: Path, monkeypatch) -> None:
    publish(tmp_path, monkeypatch)
    with open(tmp_path / "heads.pth", "ab") as file:
        file.write(b"x")
    with pytest.raises(WeightsMissing, match="SHA-256"):
        Lpips("alex")
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_no_end_of_a_run(cache: Path, tmp_path: Path, monkeypatch) -> None:
    publish(tmp_path, monkeypatch)
    cache.parent.mkdir()
    cache.write_text("a file where the folder should be")
    with pytest.raises(WeightsMissing, match="(?s)cannot be kept: .* could not be written.*Make .* writable"):
        Lpips("alex")


def test_without_a_connection_the_message_says_what_to_do(cache: Path, tmp_path: Path, monkeypatch) -> None:
    publish(tmp_path, monkeypatch)
    (tmp_path / "backbone.pth").unlink()
    with pytest.raises(WeightsMissing, match="(?s)cannot be fetched.*SPLATINIT_WEIGHTS"):
        Lpips("alex")


def test_nothing_is_fetched_into_a_folder_that_the_user_named(tmp_path: Path, monkeypatch) -> None:
    publish(tmp_path, monkeypatch)
    monkeypatch.setenv("SPLATINIT_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsMissing, match="SPLATINIT_WEIGHTS"):
        Lpips("alex")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backbone.pth", "heads.pth"]


class Bomb:
    """Would leave a trace if it were ever unpickled."""

    def __reduce__(self):
        return (Path.touch, (Path("exploded"),))


@pytest.mark.parametrize("fault", ["truncated", "shape", "missing", "nan", "pickle", "list"])
def test_broken_weights_are_refused(fault: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPLATINIT_WEIGHTS", str(tmp_path))
    path = tmp_path / "lpips_alex_v0.1_fp16.pt"
    state = made_up_state("alex")
    if fault == "shape":
        state["lin1.model.1.weight"] = torch.zeros(1, 191, 1, 1)
    elif fault == "missing":
        del state["features.8.bias"]
    elif fault == "nan":
        state["features.0.bias"][3] = math.nan
    torch.save([1, 2] if fault == "list" else state, path)
    if fault == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
    elif fault == "pickle":
        path.write_bytes(pickle.dumps({"features.0.weight": Bomb()}))
    with pytest.raises(FormatError, match=path.name):
        Lpips("alex")
    assert not (tmp_path / "exploded").exists()
