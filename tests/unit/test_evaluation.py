"""Scores come from the saved files, missing values stay missing, and the pictures show what they say."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from compare import assert_matches
from PIL import Image
from strategies import RasterCase

from splatinit import metrics
from splatinit.config import Layer, build_config
from splatinit.errors import BackendError, ConfigError, FormatError
from splatinit.evaluation import EvalConfig, EvalReport, _spread, draw, evaluate, file_names, files_of, mean_psnr, photo
from splatinit.raster.base import RasterSettings
from splatinit.raster.reference import ReferenceRasterizer
from splatinit.report.figures import SheetRow, contact_sheet, dimmed, error_map
from splatinit.types import Pixels, Scene, View

pytestmark = pytest.mark.usefixtures("one_thread")

NO_LPIPS = EvalConfig(lpips=())


@dataclass(frozen=True)
class MemoryPhoto:
    """A Photo without a file."""

    name: str
    pixels: Pixels
    path: Path = Path("nowhere")

    @property
    def width(self) -> int:
        return self.pixels.rgb.shape[1]

    @property
    def height(self) -> int:
        return self.pixels.rgb.shape[0]

    @property
    def has_alpha(self) -> bool:
        return self.pixels.alpha is not None

    @property
    def has_mask(self) -> bool:
        return self.pixels.mask is not None

    @property
    def has_depth(self) -> bool:
        return False

    def load(self, width: int, height: int) -> Pixels:
        return self.pixels


def small_scene(views: int = 2, width: int = 40, height: int = 32, noise: int = 12):
    """Test views that show a known set of Gaussians with some noise, and these Gaussians."""
    case = RasterCase(seed=7, n=40, width=width, height=height, sh_degree=1)
    rng = np.random.default_rng(0)
    test = []
    for index in range(views):
        camera = case.camera
        pose = camera.cam_from_world.copy()
        pose[0, 3] += 0.1 * index
        camera = replace(camera, cam_from_world=pose)
        rgb = ReferenceRasterizer().render(case.gaussians, camera).rgb.clamp(0, 1).numpy()
        rgb = np.clip(np.rint(rgb * 255) + rng.integers(-noise, noise + 1, rgb.shape), 0, 255).astype(np.uint8)
        name = f"images/{index:04d}.jpg"
        test.append(View(name, camera, MemoryPhoto(name, Pixels(rgb))))
    return Scene(root=Path("nowhere"), train=tuple(test), test=tuple(test)), case.gaussians


def score(scene: Scene, gaussians, config: EvalConfig = NO_LPIPS, out_dir: Path | None = None) -> EvalReport:
    return evaluate(
        scene, gaussians, rasterizer=ReferenceRasterizer(), settings=RasterSettings(), config=config, out_dir=out_dir
    )


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_the_scores_can_be_recomputed_from_the_files(tmp_path: Path) -> None:
    scene, gaussians = small_scene()
    report = score(scene, gaussians, out_dir=tmp_path)
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written == report.to_json()
    for view, image in zip(scene.test, written["images"], strict=True):
        assert image["name"] == view.name
        truth, render = read(tmp_path / image["truth"]), read(tmp_path / image["render"])
        assert (truth == view.pixels().rgb).all()
        error = np.mean((render / 255.0 - truth / 255.0) ** 2)
        assert image["psnr"] == pytest.approx(-10 * math.log10(error), abs=1e-9)
        assert image["ssim"] == metrics.ssim(torch.from_numpy(render / 255.0), torch.from_numpy(truth / 255.0))
        assert 25 < image["psnr"] < 45
        assert (read(tmp_path / image["error"]) == error_map(render, truth)).all()
    assert report.psnr == pytest.approx(np.mean([image["psnr"] for image in written["images"]]))
    assert read(tmp_path / "contact_sheet.png").ndim == 3
    assert EvalReport.from_json(written) == report


def test_without_a_folder_the_numbers_are_the_same(tmp_path: Path) -> None:
    scene, gaussians = small_scene()
    saved, unsaved = score(scene, gaussians, out_dir=tmp_path), score(scene, gaussians)
    assert (saved.psnr, saved.ssim) == (unsaved.psnr, unsaved.ssim)
    assert unsaved.images[0].render is None


def test_lpips_is_measured_from_the_same_pictures(shared_data: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("SPLATINIT_WEIGHTS", str(shared_data / "weights"))
    scene, gaussians = small_scene(views=1)
    report = score(scene, gaussians, EvalConfig(lpips=("alex",)), tmp_path)
    image = report.images[0]
    a, b = (torch.from_numpy(read(tmp_path / path) / 255.0) for path in (image.render, image.truth))
    assert report.lpips == {"alex": metrics.Lpips("alex")(a, b)}


def test_missing_weights_leave_an_empty_column_and_a_note(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("SPLATINIT_WEIGHTS", str(tmp_path))
    scene, gaussians = small_scene(views=1)
    report = score(scene, gaussians, EvalConfig())
    assert report.lpips == {"vgg": None}
    assert any("SPLATINIT_WEIGHTS" in note for note in report.notes)
    assert report.psnr is not None


def test_an_unknown_lpips_network_is_refused() -> None:
    scene, gaussians = small_scene(views=1)
    with pytest.raises(ConfigError, match="squeeze"):
        score(scene, gaussians, EvalConfig(lpips=("squeeze",)))


def test_images_below_the_window_have_psnr_only() -> None:
    scene, gaussians = small_scene(views=1, width=9, height=12)
    report = score(scene, gaussians)
    assert report.psnr is not None and report.ssim is None
    assert any("at least 11×11" in note for note in report.notes)


def test_equal_pictures_give_valid_json(tmp_path: Path) -> None:
    scene, gaussians = small_scene(views=1, noise=0)
    report = score(scene, gaussians, out_dir=tmp_path)
    assert report.psnr == math.inf and report.ssim == pytest.approx(1.0)
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written["mean"]["psnr"] is None
    assert EvalReport.from_json(written).psnr == math.inf


def test_a_scene_without_test_views_says_so(tmp_path: Path) -> None:
    scene, gaussians = small_scene(views=1)
    report = score(replace(scene, test=()), gaussians, EvalConfig(), tmp_path)
    assert report.images == () and report.psnr is None and report.lpips == {}
    assert "no test views" in report.notes[0]
    assert EvalReport.from_json(json.loads((tmp_path / "metrics.json").read_text())) == report


def test_transparent_photos_are_composed_over_the_scenes_background() -> None:
    rgb = np.full((2, 2, 3), 100, dtype=np.uint8)
    alpha = np.array([[0, 255], [51, 128]], dtype=np.uint8)
    scene, gaussians = small_scene(views=1)
    # 51 / 255 = 0.2 of 100 and 0.8 of white.
    assert photo(Pixels(rgb, alpha), (1.0, 1.0, 1.0))[..., 0].tolist() == [[255, 100], [224, 177]]
    assert photo(Pixels(rgb, alpha), None)[..., 0].tolist() == [[0, 100], [20, 50]]
    nothing = gaussians.map(lambda tensor: tensor[:0])
    drawn = draw(scene.test[0], nothing, (1.0, 0.5, 0.0), rasterizer=ReferenceRasterizer(), settings=RasterSettings())
    assert (drawn == [255, 128, 0]).all()


def test_colours_that_are_not_finite_are_an_error() -> None:
    scene, gaussians = small_scene(views=1)
    gaussians.sh0[:, 0, 1] = math.inf
    with pytest.raises(BackendError, match=r"images/0000.jpg with \d+ non-finite values"):
        score(scene, gaussians)


def test_metrics_of_another_version_are_refused() -> None:
    with pytest.raises(FormatError, match="gaussians"):
        EvalReport.from_json({"images": []})


def test_file_names_are_safe_and_unique() -> None:
    names = ["a/b.jpg", "a/b.png", "A/B.tif", "../x.jpg", "/etc/y.jpg", "ü ö.jpg", "no_suffix", ".jpg"]
    files = file_names(names)
    assert list(files) == names
    assert files["a/b.jpg"] == "a/b.png" and files["a/b.png"] == "a/b-2.png" and files["A/B.tif"] == "A/B-3.png"
    assert len({file.lower() for file in files.values()}) == len(names)
    flat = file_names(["a/b.jpg", "a_b.png", "/etc/y.jpg"], flat=True)
    assert flat == {"a/b.jpg": "a_b.png", "a_b.png": "a_b-2.png", "/etc/y.jpg": "view_etc_y.png"}
    assert not any(part.startswith(".") or not part for file in files.values() for part in file.split("/"))


def test_rows_of_the_sheet_are_spread() -> None:
    assert _spread(3, 8) == [0, 1, 2]
    assert _spread(15, 8) == [0, 2, 4, 6, 8, 10, 12, 14]
    assert _spread(0, 8) == []


# ------------------------------------------------------------------------------------------------------ masks
def masked(scene: Scene, masks: list[np.ndarray | None]) -> Scene:
    """The scene with masks for its test views, and photos that are wrong where these are 0."""
    test = []
    for view, mask in zip(scene.test, masks, strict=True):
        rgb = view.pixels().rgb
        if mask is not None:
            rgb = np.where(mask[..., None] > 0, rgb, 255 - rgb)
        test.append(replace(view, photo=MemoryPhoto(view.name, Pixels(rgb, None, mask))))
    return replace(scene, test=tuple(test))


def corner(height: int = 32, width: int = 40) -> np.ndarray:
    mask = np.full((height, width), 255, dtype=np.uint8)
    mask[:12, :15] = 0
    return mask


def test_masked_scores_can_be_recomputed_from_the_files(tmp_path: Path) -> None:
    scene, gaussians = small_scene(views=2)
    plain = score(scene, gaussians)
    report = score(masked(scene, [corner(), None]), gaussians, out_dir=tmp_path)
    first, second = json.loads((tmp_path / "metrics.json").read_text())["images"]
    assert (first["mask"], second["mask"]) == ("masks/images/0000.png", None)
    mask = read(tmp_path / first["mask"])
    assert (mask == corner()).all()
    render, truth = (torch.from_numpy(read(tmp_path / first[kind]) / 255.0) for kind in ("render", "truth"))
    counts = torch.from_numpy(mask > 0)
    assert first["psnr"] == metrics.psnr(render, truth, counts)
    assert first["ssim"] == metrics.ssim(render, truth, counts)
    # The wrong part of the photo is not measured; the other view is as it was.
    assert abs(first["psnr"] - plain.images[0].psnr) < 1 < abs(first["psnr"] - metrics.psnr(render, truth))
    assert second["psnr"] == plain.images[1].psnr
    error = read(tmp_path / first["error"])
    assert (error[mask == 0] == 128).all() and not (error[mask > 0] == 128).all(axis=1).any()
    assert EvalReport.from_json(report.to_json()) == report
    assert [path for path in files_of(report, tmp_path) if not path.exists()] == []
    assert tmp_path / "masks/images/0000.png" in files_of(report, tmp_path)


def test_a_view_that_is_masked_completely_is_left_out() -> None:
    scene, gaussians = small_scene(views=2)
    plain = score(scene, gaussians)
    report = score(masked(scene, [np.zeros((32, 40), np.uint8), None]), gaussians)
    assert [image.name for image in report.images] == ["images/0001.jpg"]
    assert report.psnr == plain.images[1].psnr
    assert any("'images/0000.jpg' is masked completely" in note for note in report.notes)
    nothing = score(masked(scene, [np.zeros((32, 40), np.uint8)] * 2), gaussians)
    assert nothing.images == () and nothing.psnr is None and len(nothing.notes) == 2


def test_a_mask_without_a_whole_window_has_psnr_only() -> None:
    scene, gaussians = small_scene(views=1)
    mask = np.full((32, 40), 255, dtype=np.uint8)
    mask[::10] = 0
    report = score(masked(scene, [mask]), gaussians)
    assert report.psnr is not None and report.ssim is None
    assert any("no 11×11 px of the mask" in note for note in report.notes)


def test_a_dimmed_picture_keeps_what_counts() -> None:
    picture = np.full((1, 2, 3), 250, dtype=np.uint8)
    assert dimmed(picture, None) is picture
    assert dimmed(picture, np.array([[255, 0]], np.uint8))[0, :, 0].tolist() == [250, 158]


# ------------------------------------------------------------------------------------------------------ figures
def test_an_error_map_is_black_where_equal_and_bright_from_a_fifth_on() -> None:
    truth = np.full((1, 4, 3), 100, dtype=np.uint8)
    image = truth.copy()
    image[0, 1] += 10
    image[0, 2] += 51
    image[0, 3] += 120
    colors = error_map(image, truth)
    assert colors[0, 0].max() <= 4
    brightness = colors[0].astype(int).sum(axis=1)
    assert brightness[0] < brightness[1] < brightness[2] == brightness[3]
    assert colors[0, 3, 0] > 240 and colors[0, 3, 0] > colors[0, 3, 2]  # RGB, not BGR: pale yellow


def test_a_contact_sheet_shows_its_pictures() -> None:
    red, blue = (np.full((50, 100, 3), color, dtype=np.uint8) for color in ((255, 0, 0), (0, 0, 255)))
    wide, tall = (np.full(shape, (0, 255, 0), dtype=np.uint8) for shape in ((50, 1000, 3), (640, 200, 3)))
    sheet = contact_sheet(
        [SheetRow("one", "1 dB", (red, blue, wide)), SheetRow("a/very/long/" * 30, "2 dB", (blue, red, tall))],
        ("photo", "render", "wide"),
        "caption",
    )
    assert sheet.dtype == np.uint8
    assert_matches("width", sheet.shape[1], 100 + 100 + 320 + 4 * 8, 0)
    expected = {(255, 0, 0): 2 * 50 * 100, (0, 0, 255): 2 * 50 * 100, (0, 255, 0): 16 * 320 + 320 * 100}
    for color, pixels in expected.items():
        assert (sheet == color).all(axis=2).sum() == pixels


def test_quality_over_time_is_measured_by_the_same_ruler() -> None:
    scene, gaussians = small_scene()
    mask = np.zeros((32, 40), np.uint8)
    mask[8:30, 5:35] = 255
    alpha = np.full((32, 40), 200, np.uint8)
    first, second = scene.test
    views = []
    for view, layers in ((first, {"mask": mask}), (second, {"alpha": alpha}), (first, {"mask": np.zeros_like(mask)})):
        pixels = replace(view.photo.pixels, **layers)
        views.append(replace(view, name=f"{len(views)}.png", photo=replace(view.photo, pixels=pixels)))
    scene = replace(scene, test=tuple(views), background=(1.0, 0.5, 0.0))
    ruler = {"rasterizer": ReferenceRasterizer(), "settings": RasterSettings()}
    report = score(scene, gaussians)
    assert len(report.images) == 2 and abs(report.images[0].psnr - report.images[1].psnr) > 0.1
    assert mean_psnr(scene, gaussians, **ruler) == report.psnr
    assert mean_psnr(replace(scene, test=()), gaussians, **ruler) is None
    assert mean_psnr(replace(scene, test=tuple(views[2:])), gaussians, **ruler) is None


def test_when_quality_is_measured_is_said_in_fractions_of_the_steps() -> None:
    built = build_config(Layer("typed", {"eval.during": "0.1,0.5"}), Layer("yaml", {"eval.lpips": []}))
    assert built.eval.during == (0.1, 0.5)
    for wrong in (0.0, 1.01, math.nan, -0.5):
        with pytest.raises(ConfigError, match="during holds .*; expected fractions of the training, above 0 up to 1"):
            EvalConfig(during=(0.5, wrong))
