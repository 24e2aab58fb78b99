"""Masks of scenes: what they mean, which file masks which photo, and masks that cannot be right."""

from __future__ import annotations

import numpy as np
import pytest

from splatinit.errors import FormatError
from splatinit.io.images import probe_image, write_png
from splatinit.io.masks import mask_role, masks_beside, with_mask
from splatinit.io.read import ReadConfig


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
