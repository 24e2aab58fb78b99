"""RoMa and LoFTR against modules that stand in for their packages: what is called, and what becomes of the answers.

Their weights (hundreds of megabytes) are not fetched by tests, so the networks themselves do not run here.
"""

from __future__ import annotations

import importlib.machinery
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from splatinit.errors import ConfigError, MissingExtra, WeightsMissing
from splatinit.matching import MATCHERS, MatchView
from splatinit.matching.loftr import Loftr, LoftrConfig
from splatinit.matching.pairwise import Gate
from splatinit.matching.roma import Roma, RomaConfig


def module(monkeypatch: pytest.MonkeyPatch, name: str, **members: object) -> None:
    fake = types.ModuleType(name)
    fake.__spec__ = importlib.machinery.ModuleSpec(name, None)
    vars(fake).update(members)
    monkeypatch.setitem(sys.modules, name, fake)


def photo(width: int, height: int) -> MatchView:
    rgb = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    rgb.flags.writeable = False  # as decoded photos may be
    return MatchView("photo", rgb)


# -------------------------------------------------------------------------------------------------------------- loftr
class FakeLoftr(torch.nn.Module):
    made: list[tuple] = []

    def __init__(self, pretrained: str | None = "outdoor", config: dict | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.rand(2))
        self.calls: list[dict] = []
        FakeLoftr.made.append((pretrained, config))

    def forward(self, data: dict) -> dict:
        assert not self.training and torch.is_inference_mode_enabled()
        self.calls.append(data)
        keypoints = torch.tensor([[8.0, 16], [64, 8], [120, 56]])
        return {"keypoints0": keypoints, "keypoints1": keypoints + 1, "confidence": torch.tensor([0.9, 0.3, 0.1])}


@pytest.fixture
def kornia(monkeypatch: pytest.MonkeyPatch) -> None:
    module(monkeypatch, "kornia")
    module(monkeypatch, "kornia.feature", LoFTR=FakeLoftr)
    module(monkeypatch, "kornia.feature.loftr")
    module(monkeypatch, "kornia.feature.loftr.loftr", default_cfg={"coarse": {"temp_bug_fix": False}})
    monkeypatch.setattr(FakeLoftr, "made", [])


@pytest.mark.usefixtures("kornia")
def test_loftr_sees_grey_photos_at_its_size_and_its_pixels_come_back() -> None:
    matcher = MATCHERS.load("loftr")(LoftrConfig(size=128))
    assert FakeLoftr.made == [("outdoor", None)]
    matches = matcher.match(photo(256, 128), [photo(512, 256), photo(128, 64)])
    for call in matcher._net.calls:
        for image in call.values():
            assert (
                image.shape == (1, 1, 64, 128) and image.dtype == torch.float32 and 0 <= image.min() < image.max() <= 1
            )
    # By y, then x; the third is not certain enough.
    np.testing.assert_allclose(matches.points, [[128, 16], [16, 32]], atol=1e-3)
    np.testing.assert_allclose(matches.targets[0], [[260, 36], [36, 68]], atol=1e-3)
    np.testing.assert_allclose(matches.targets[1], [[65, 9], [9, 17]], atol=1e-3)
    np.testing.assert_allclose(matches.certainty, [[0.3, 0.9]] * 2)


@pytest.mark.usefixtures("kornia")
def test_a_kornia_that_can_is_asked_once_for_the_features_of_a_photo(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def extract_features(_net: FakeLoftr, image: torch.Tensor) -> dict[str, torch.Tensor]:
        asked.append(image)
        return {"coarse": image, "fine": image.repeat(1, 2, 1, 1)}

    monkeypatch.setattr(FakeLoftr, "extract_features", extract_features, raising=False)
    matcher = MATCHERS.load("loftr")(LoftrConfig(size=128))
    views = [photo(256, 128), photo(512, 256), photo(128, 64)]
    matcher.match(views[0], views[1:])
    assert len(matcher.match(views[1], views[:1])) == 2
    assert len(asked) == 3
    third = matcher._net.calls[2]
    assert set(third) == {"features0", "features1"}
    assert third["features0"]["coarse"] is asked[1] and third["features1"]["coarse"] is asked[0]
    assert matcher._side(views[0]).nbytes == 3 * 4 * 128 * 64


def test_the_real_loftr_finds_the_same_whether_features_are_kept_or_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With weights that nobody trained: its network runs, and finds what it finds."""
    feature = pytest.importorskip("kornia.feature")
    path = tmp_path / "loftr.ckpt"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save({"state_dict": feature.LoFTR(pretrained=None).state_dict()}, path)
    matcher = Loftr(LoftrConfig(weights=str(path), size=192))
    # Untrained, it is sure of nothing.
    matcher._net.coarse_matching.thr = 0.0
    matcher._gate = Gate(0.0, None)
    views = [photo(192, 128), photo(200, 128), photo(192, 128)]
    kept = [matcher.match(views[k], views[:k] + views[k + 1 :]) for k in range(3)]
    monkeypatch.setattr("splatinit.matching.networks.PerPhoto.__call__", lambda self, view: self._make(view))
    for k, matches in enumerate(kept):
        anew = matcher.match(views[k], views[:k] + views[k + 1 :])
        assert len(matches) > 0
        for name in ("points", "targets", "certainty"):
            np.testing.assert_array_equal(getattr(matches, name), getattr(anew, name))


@pytest.mark.usefixtures("kornia")
def test_loftr_takes_a_file_of_weights(tmp_path: Path) -> None:
    path = tmp_path / "loftr.ckpt"
    torch.save({"state_dict": {"weight": torch.tensor([3.0, 4])}}, path)
    matcher = Loftr(LoftrConfig(weights=str(path), trained="indoor_new"))
    assert matcher._net.weight.tolist() == [3, 4] and not matcher._net.training
    assert FakeLoftr.made == [(None, {"coarse": {"temp_bug_fix": True}})]
    torch.save({"other": torch.zeros(1)}, path)
    with pytest.raises(WeightsMissing, match="The matcher 'loftr' cannot load its weights: 'state_dict'"):
        Loftr(LoftrConfig(weights=str(path)))
    path.write_bytes(b"no checkpoint")
    with pytest.raises(WeightsMissing, match="The matcher 'loftr' cannot load") as caught:
        Loftr(LoftrConfig(weights=str(path)))
    assert "loftr_outdoor.ckpt" in str(caught.value)


def test_loftr_refuses_settings_that_mean_nothing() -> None:
    with pytest.raises(ConfigError, match="loftr's trained is 'moon'; expected one of outdoor, indoor_new"):
        LoftrConfig(trained="moon")
    with pytest.raises(ConfigError, match="loftr's size is 32 px; expected at least 64"):
        LoftrConfig(size=32)


# --------------------------------------------------------------------------------------------------------------- roma
def identity(rows: int, columns: int) -> torch.Tensor:
    """[rows, columns, 2]: the centre of every pixel, from −1 to 1 at the edges."""
    x = (torch.arange(columns) + 0.5) / columns * 2 - 1
    y = (torch.arange(rows) + 0.5) / rows * 2 - 1
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


class FakeRoMaV2:
    calls: list[tuple] = []

    def __init__(self) -> None:
        FakeRoMaV2.calls.append(("made in", torch.hub.get_dir()))

    def apply_setting(self, setting: str) -> None:
        FakeRoMaV2.calls.append(("setting", setting))

    def match(self, a: np.ndarray, b: np.ndarray) -> dict[str, torch.Tensor]:
        assert torch.get_float32_matmul_precision() == "highest" and a.flags.writeable and b.flags.writeable
        FakeRoMaV2.calls.append(("match", a.shape, b.shape))
        overlap = torch.ones(1, 6, 8, 1)
        overlap[:, :, 4:] = 0.01
        return {"warp_AB": identity(6, 8)[None], "overlap_AB": overlap}


@pytest.fixture
def romav2(monkeypatch: pytest.MonkeyPatch) -> None:
    module(monkeypatch, "romav2", RoMaV2=FakeRoMaV2)
    monkeypatch.setattr(FakeRoMaV2, "calls", [])


@pytest.mark.usefixtures("romav2")
def test_roma_v2_maps_its_warp_to_pixels_of_both_photos() -> None:
    matcher = MATCHERS.load("roma")(RomaConfig(stride=1, setting="fast"))
    torch.set_float32_matmul_precision("high")
    try:
        matches = matcher.match(photo(80, 60), [photo(80, 60), photo(160, 240)])
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert FakeRoMaV2.calls[1:] == [
        ("setting", "fast"),
        ("match", (60, 80, 3), (60, 80, 3)),
        ("match", (60, 80, 3), (240, 160, 3)),
    ]
    assert len(matches) == 24 and matches.points.max(axis=0).tolist() == [35, 55]  # the uncertain half is dropped
    np.testing.assert_allclose(matches.targets[0], matches.points, atol=1e-3)
    np.testing.assert_allclose(matches.targets[1], matches.points * [2, 4], atol=1e-3)
    coarse = MATCHERS.load("roma")(RomaConfig(stride=2)).match(photo(80, 60), [photo(80, 60)])
    assert coarse.points[:3].tolist() == [[15, 15], [35, 15], [15, 35]]


@pytest.mark.usefixtures("romav2")
def test_roma_looks_for_weights_in_the_named_folder(tmp_path: Path) -> None:
    before = torch.hub.get_dir()
    Roma(RomaConfig(weights=str(tmp_path)))
    assert FakeRoMaV2.calls[0] == ("made in", str(tmp_path)) and torch.hub.get_dir() == before
    with pytest.raises(WeightsMissing, match="The matcher 'roma' finds no weights in .*no such folder"):
        Roma(RomaConfig(weights=str(tmp_path / "absent")))


def test_roma_that_cannot_fetch_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    from urllib.error import URLError

    def offline() -> None:
        raise URLError("no route to host")

    module(monkeypatch, "romav2", RoMaV2=offline)
    with pytest.raises(WeightsMissing, match="'roma' cannot load its weights: .*no route to host") as caught:
        Roma()
    assert "copy the files of" in str(caught.value)


@pytest.mark.usefixtures("romav2")
def test_roma_v1_is_asked_for_one_direction(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Net:
        def match(self, a, b, device):
            assert (a.size, b.size) == ((80, 60), (40, 30))
            warp = torch.cat([identity(6, 8), identity(6, 8) / 2], dim=-1)
            return warp[None], torch.ones(1, 6, 8)

    def make(**settings: object) -> Net:
        asked.append(settings)
        return Net()

    module(monkeypatch, "romatch", roma_outdoor=make, roma_indoor=None)
    matches = Roma(RomaConfig(model="outdoor", stride=1)).match(photo(80, 60), [photo(40, 30)])
    assert asked[0]["symmetric"] is False and asked[0]["use_custom_corr"] is False
    assert len(matches) == 48
    np.testing.assert_allclose(matches.targets[0] - [20, 15], (matches.points / 2 - [20, 15]) / 2, atol=1e-3)


def test_roma_names_the_package_that_its_model_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "romatch", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="'roma' with the model indoor needs romatch") as caught:
        Roma(RomaConfig(model="indoor"))
    assert "pip install --no-deps romatch" in caught.value.hint
    with pytest.raises(MissingExtra, match="matcher 'roma' needs romav2") as caught:
        MATCHERS.load("roma")
    assert caught.value.hint == 'Install it: pip install "splatinit[roma]"'


def test_roma_refuses_settings_that_mean_nothing() -> None:
    with pytest.raises(ConfigError, match="roma's model is 'v3'; expected one of v2, outdoor, indoor"):
        RomaConfig(model="v3")
    with pytest.raises(ConfigError, match="roma's setting is 'slow'; expected one of turbo"):
        RomaConfig(setting="slow")
    with pytest.raises(ConfigError, match="roma's stride is 0; expected at least 1"):
        RomaConfig(stride=0)
