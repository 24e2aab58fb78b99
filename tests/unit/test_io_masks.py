"""Masks of scenes: what they mean, which file masks which photo, and masks that cannot be right."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from splatinit.errors import FormatError
from splatinit.io.colmap_model import write_model
from splatinit.io.images import probe_image, write_png
from splatinit.io.masks import mask_role, masks_beside, with_mask
from splatinit.io.read import ReadConfig, read_images
from splatinit.posers.workspace import _seen
from splatinit.types import Camera, Pixels, View


def grey(path, width=8, height=6, value=255):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, np.full((height, width), value, np.uint8))
    return path


def colour(path, width=8, height=6, value=90):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, np.full((height, width, 3), value, np.uint8))
    return path


@pytest.mark.parametrize(
    ("setting", "default", "role"),
    [
        ("auto", "ignore", "ignore"),
        ("auto", "alpha", "alpha"),
        ("ignore", "alpha", "ignore"),
        ("alpha", "ignore", "alpha"),
        ("off", "alpha", None),
    ],
)
def test_what_masks_mean(setting, default, role):
    assert mask_role(ReadConfig(masks=setting), default) == role


@pytest.mark.parametrize("name", ["a.png", "a.png.png", "a.png.jpg", "a.jpg", "A.PNG"])
@pytest.mark.parametrize("folder", ["masks", "mask"])
def test_masks_are_found_by_name(tmp_path, folder, name):
    photo = probe_image(colour(tmp_path / "images" / "sub" / f"{name[0]}.png"))
    other = probe_image(colour(tmp_path / "images" / "b.png"))
    mask = tmp_path / folder / "sub" / name
    grey(mask.with_suffix(".png"))
    mask.with_suffix(".png").rename(mask)
    masked, notes = masks_beside([photo, other], tmp_path, tmp_path / "images", ReadConfig())
    assert masked[1] == other and masked[1].mask is None
    assert masked[0].mask.path == mask and masked[0].mask.role == "ignore"
    assert notes == [f"masks: 1 of 2 photos have one in {folder}/; masked pixels do not count"]


def test_masks_of_other_names_and_none_at_all(tmp_path):
    photos = [probe_image(colour(tmp_path / "images" / "a.png"))]
    assert masks_beside(photos, tmp_path, tmp_path / "images", ReadConfig()) == (photos, [])
    (tmp_path / "masks").mkdir()
    assert masks_beside(photos, tmp_path, tmp_path / "images", ReadConfig()) == (photos, [])
    grey(tmp_path / "masks" / "z.png")
    masked, notes = masks_beside(photos, tmp_path, tmp_path / "images", ReadConfig())
    assert masked == photos and notes == ["masks/ holds 1 images, none of them named like a photo: no masks"]
    assert masks_beside(photos, tmp_path, tmp_path / "images", ReadConfig(masks="off")) == (photos, [])


def test_masks_of_turned_photos(tmp_path):
    """A mask drawn on the upright photo and one on its stored grid keep the same pixels."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((6, 9, 3), np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    photo = probe_image(tmp_path / "a.jpg")
    upright = np.zeros((9, 6), np.uint8)
    upright[:2, :3] = 255
    write_png(tmp_path / "upright.png", upright)
    write_png(tmp_path / "stored.png", np.rot90(upright))
    for name in ("upright.png", "stored.png"):
        masked = with_mask(photo, tmp_path / name, "ignore", ReadConfig())
        np.testing.assert_array_equal(masked.load(6, 9).mask, upright)


def test_masks_of_a_plain_folder(tmp_path):
    for name in ("a.png", "b.png"):
        colour(tmp_path / name)
    half = grey(tmp_path / "masks" / "a.png.png", 4, 3)
    images = read_images(tmp_path)
    assert [photo.name for photo in images.photos] == ["a.png", "b.png"]
    assert "masks: 1 of 2 photos have one in masks/; masked pixels do not count" in images.notes
    assert images.photos[0].mask.path == half and images.photos[0].has_mask and not images.photos[1].has_mask
    assert images.background is None
    alone = read_images(tmp_path, ReadConfig(masks="alpha"))
    assert alone.photos[0].has_alpha and alone.background == (1.0, 1.0, 1.0)


def test_masks_and_depths_are_no_photos(tmp_path):
    colour(tmp_path / "images" / "left" / "a.png")
    for folder in ("masks", "Mask", "depth", "depths"):
        grey(tmp_path / "images" / folder / "a.png")
    assert [photo.name for photo in read_images(tmp_path).photos] == ["images/left/a.png"]


def test_masks_of_a_colmap_scene(tmp_path):
    K = np.array([[7.0, 0, 4.1], [0, 7.5, 2.9], [0, 0, 1]])
    for i in range(2):
        colour(tmp_path / "images" / "cam" / f"{i}.png")
        colour(tmp_path / "images_2" / "cam" / f"{i}.png", 4, 3)
    views = [View(f"cam/{i}.png", Camera(K, np.eye(4), 8, 6), None) for i in range(2)]
    write_model(tmp_path / "sparse" / "0", views, None)
    grey(tmp_path / "masks" / "cam" / "1.png.png")
    for downscale in (None, 2):
        images = read_images(tmp_path, ReadConfig(downscale=downscale))
        assert [photo.has_mask for photo in images.photos] == [False, True]
        assert "masks: 1 of 2 photos have one in masks/; masked pixels do not count" in images.notes


def test_colmap_names_from_the_scene_folder(tmp_path):
    """Photos in images/ that the model calls images/0.png, and in rgb/ that it calls 0.png."""
    K = np.array([[7.0, 0, 4.1], [0, 7.5, 2.9], [0, 0, 1]])
    for folder, name in (("images", "images/0.png"), ("rgb", "0.png")):
        root = tmp_path / folder
        colour(root / folder / "0.png")
        write_model(root / "sparse" / "0", [View(name, Camera(K, np.eye(4), 8, 6), None)], None)
        assert list(read_images(root).cameras) == [name]


def test_no_feature_is_sought_where_a_photo_is_masked_or_transparent():
    rgb = np.zeros((1, 4, 3), np.uint8)
    alpha, mask = np.array([[255, 255, 0, 127]], np.uint8), np.array([[255, 0, 255, 255]], np.uint8)
    assert _seen(Pixels(rgb)).tolist() == [[255, 255, 255, 255]]
    assert _seen(Pixels(rgb, alpha)).tolist() == [[255, 255, 0, 0]]
    assert _seen(Pixels(rgb, alpha, mask)).tolist() == [[255, 0, 0, 0]]
    assert _seen(Pixels(rgb, None, mask)).tolist() == [[255, 0, 255, 255]]


def test_masks_that_cannot_fit(tmp_path):
    photo = probe_image(colour(tmp_path / "a.png", 80, 60))
    half = grey(tmp_path / "half.png", 40, 30)
    assert with_mask(photo, half, "alpha", ReadConfig()).has_alpha
    square = grey(tmp_path / "square.png", 60, 60)
    with pytest.raises(FormatError, match=r"square\.png: the mask is 60×60 px, its photo a\.png 80×60 px; expected"):
        with_mask(photo, square, "ignore", ReadConfig())
    with pytest.raises(FormatError, match=r"half\.png: 40×30 px are 0.0012 megapixels; expected at most 0\.001"):
        with_mask(photo, half, "ignore", ReadConfig(max_megapixels=0.001))
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(FormatError, match=r"text\.png: the image cannot be read"):
        with_mask(photo, tmp_path / "text.png", "ignore", ReadConfig())
