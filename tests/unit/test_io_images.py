"""Photos: what decoding answers (modes, depths, orientation, alpha, lens), and what it refuses."""

from __future__ import annotations

import math
import pickle
import sys

import cv2
import numpy as np
import pytest
from PIL import Image, features

from splatinit.errors import FormatError, MissingExtra, ShapeError
from splatinit.io.images import find_image, list_images, probe_image, to_uint8, undistorted, write_png
from splatinit.io.lenses import Distortion

GREY = (np.arange(12, dtype=np.uint8).reshape(3, 4) * 20).astype(np.uint8)
RGB = np.dstack([GREY, GREY + 5, 255 - GREY])


def load(path, size=None):
    photo = probe_image(path)
    return photo, photo.load(*(size or (photo.width, photo.height)))


def test_modes_become_rgb8(tmp_path):
    saved = {
        "grey.png": Image.fromarray(GREY),
        "bits.png": Image.fromarray(GREY > 100),
        "palette.png": Image.fromarray(RGB).quantize(12),
        "rgb.webp": Image.fromarray(RGB),
        "rgb.tiff": Image.fromarray(RGB),
    }
    expected = {"grey.png": np.dstack([GREY] * 3), "bits.png": np.dstack([(GREY > 100) * 255] * 3)}
    for name, image in saved.items():
        image.save(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
        photo, pixels = load(tmp_path / name)
        assert (photo.width, photo.height, photo.has_alpha) == (4, 3, False)
        assert pixels.rgb.dtype == np.uint8 and pixels.alpha is None
        np.testing.assert_array_equal(pixels.rgb, expected.get(name, RGB))


def test_cmyk_jpeg_keeps_its_colours(tmp_path):
    block = np.full((16, 16, 3), (200, 60, 40), np.uint8)
    Image.fromarray(block).convert("CMYK").save(tmp_path / "a.jpg", quality=100)
    with Image.open(tmp_path / "a.jpg") as saved:
        assert saved.mode == "CMYK"
    _, pixels = load(tmp_path / "a.jpg")
    assert np.abs(pixels.rgb.astype(int) - block).max() <= 4


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bit_is_scaled_by_65535(tmp_path, suffix, channels):
    deep = np.arange(12, dtype=np.uint16).reshape(3, 4) * 5900
    bgra = np.dstack([deep, deep + 300, 65535 - deep, np.full_like(deep, 65535)])
    path = tmp_path / f"deep.{suffix}"
    if channels == 1:
        Image.fromarray(deep).save(path)
    else:
        assert cv2.imwrite(str(path), bgra[..., :channels])
    photo, pixels = load(path)
    rgb = np.dstack([deep] * 3) if channels == 1 else bgra[..., 2::-1]
    np.testing.assert_array_equal(pixels.rgb, np.rint(rgb / 257.0))
    assert photo.has_alpha == (channels == 4)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, suffix, orientation):
    blocks = np.kron(RGB, np.ones((16, 16, 1), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}}.get(suffix, {})
    path = tmp_path / f"turned.{suffix}"
    Image.fromarray(blocks).save(path, exif=exif, **options)
    upright = {
        1: blocks,
        2: blocks[:, ::-1],
        3: blocks[::-1, ::-1],
        4: blocks[::-1],
        5: blocks.transpose(1, 0, 2),
        6: np.rot90(blocks, -1),
        7: np.rot90(blocks, 2).transpose(1, 0, 2),
        8: np.rot90(blocks, 1),
    }[orientation]
    photo, pixels = load(path)
    assert (photo.height, photo.width) == upright.shape[:2]
    assert np.abs(pixels.rgb.astype(int) - upright).max() <= 3
    if suffix != "tif":  # Pillow turns TIFF while decoding: there is no stored grid to be had
        stored = photo.as_stored()
        raw = stored.load(stored.width, stored.height).rgb
        assert np.abs(raw.astype(int) - blocks).max() <= 3


@pytest.mark.parametrize("suffix", ["heic", "jpg"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_heic_is_upright_whatever_it_is_called(tmp_path, suffix, orientation):
    heif = pytest.importorskip("pillow_heif")
    blocks = np.kron(RGB, np.ones((32, 32, 1), np.uint8))
    height, width = blocks.shape[:2]
    exif = Image.Exif()
    exif[0x0112] = orientation  # pillow-heif writes it into the container too, as phones do
    exif.get_ifd(0x8769)[0xA405] = 28
    path = tmp_path / f"turned.{suffix}"
    heif.encode("RGB", (width, height), blocks.tobytes(), path, quality=100, exif=exif.tobytes())
    upright = np.rot90(blocks, {1: 0, 3: 2, 6: -1, 8: 1}[orientation])
    photo, pixels = load(path)
    assert (photo.height, photo.width) == upright.shape[:2] and photo.orientation == 1
    assert photo.focal_px == pytest.approx(28 / math.hypot(36, 24) * math.hypot(width, height))
    inside = np.s_[8:-8:16, 8:-8:16]  # chroma is stored at half the resolution
    assert np.abs(pixels.rgb.astype(int) - upright)[inside].max() <= 12
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(FormatError, match=rf"turned\.{suffix}: the image cannot be read"):
        load(path)


def test_heic_without_its_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic")
    with pytest.raises(MissingExtra, match=r"a\.heic: a HEIC photo, which needs pillow-heif") as caught:
        probe_image(tmp_path / "a.heic")
    assert 'pip install "splatinit[heic]"' in caught.value.hint and caught.value.missing == ("pillow_heif",)
    (tmp_path / "b.heic").write_bytes(b"\0\0\0\x18ftypjunk\0\0\0\0junkjunk")
    with pytest.raises(FormatError, match=r"b\.heic: the image cannot be read \(not an image of a known format\)"):
        probe_image(tmp_path / "b.heic")


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_avif(tmp_path, orientation):
    if not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    exif = Image.Exif()
    exif[0x0112] = orientation
    blocks = np.kron(RGB, np.ones((32, 32, 1), np.uint8))
    Image.fromarray(blocks).save(tmp_path / "a.avif", quality=100, exif=exif, subsampling="4:4:4")
    upright = np.rot90(blocks, {1: 0, 3: 2, 6: -1}[orientation])
    assert np.abs(load(tmp_path / "a.avif")[1].rgb.astype(int) - upright).max() <= 12


def test_exif_focal_length(tmp_path):
    def focal(size, **tags):
        exif = Image.Exif()
        exif.get_ifd(0x8769).update({int(key[1:], 16): value for key, value in tags.items()})
        Image.new("RGB", size).save(tmp_path / "f.jpg", exif=exif)
        return probe_image(tmp_path / "f.jpg").focal_px

    # 3:2 like 35 mm film: the equivalent focal length is on 36 mm of width.
    assert focal((360, 240), xA405=50) == pytest.approx(50 / 36 * 360)
    # 20 mm at 100 px/mm of a picture taken 600 px wide and since reduced to 300.
    assert focal((300, 200), x920A=20.0, xA20E=1000.0, xA210=3, xA002=600) == pytest.approx(1000.0)
    assert focal((300, 200), x920A=20.0) is None
    assert focal((300, 200), xA405=0) is None
    assert focal((300, 200)) is None


def test_shrinking_averages_area(tmp_path):
    checker = np.zeros((8, 8, 3), np.uint8)
    checker[::2, ::2] = checker[1::2, 1::2] = 200
    write_png(tmp_path / "c.png", checker)
    _, pixels = load(tmp_path / "c.png", (4, 4))
    np.testing.assert_array_equal(pixels.rgb, 100)


def test_odd_sizes_and_one_pixel(tmp_path):
    for width, height in ((1, 1), (1, 7), (13, 5)):
        write_png(tmp_path / "o.png", np.full((height, width, 3), 77, np.uint8))
        photo = probe_image(tmp_path / "o.png")
        for size in ((width, height), (1, 1), (5, 3), (20, 9)):
            assert np.abs(photo.load(*size).rgb.astype(int) - 77).max() == 0


def test_alpha_weighs_colours(tmp_path):
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[0, 0] = (200, 100, 50, 255)
    rgba[:, 1] = (0, 255, 0, 0)  # transparent green must not bleed in
    rgba[1, 0] = (100, 100, 50, 255)
    write_png(tmp_path / "a.png", rgba)
    photo, full = load(tmp_path / "a.png")
    assert photo.has_alpha
    np.testing.assert_array_equal(np.dstack([full.rgb, full.alpha]), rgba)
    small = photo.load(1, 1)
    np.testing.assert_array_equal(small.rgb[0, 0], (150, 100, 50))
    assert small.alpha[0, 0] in (127, 128)


def test_grey_and_palette_transparency(tmp_path):
    Image.fromarray(np.dstack([GREY, 255 - GREY])).save(tmp_path / "la.png")
    photo, pixels = load(tmp_path / "la.png")
    assert photo.has_alpha
    np.testing.assert_array_equal(pixels.alpha, 255 - GREY)
    palette = Image.fromarray(RGB).quantize(12)
    palette.save(tmp_path / "p.png", transparency=palette.getpixel((0, 0)))
    photo, pixels = load(tmp_path / "p.png")
    assert photo.has_alpha and pixels.alpha[0, 0] == 0 and pixels.alpha[2, 3] == 255


def test_damaged_files_are_named(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.jpg")
    Image.fromarray(noise).save(tmp_path / "whole.png")
    (tmp_path / "text.jpg").write_text("not a photo")
    (tmp_path / "empty.png").write_bytes(b"")
    for name in ("text.jpg", "empty.png"):
        with pytest.raises(FormatError, match=name):
            probe_image(tmp_path / name)
    for suffix in ("jpg", "png"):
        data = (tmp_path / f"whole.{suffix}").read_bytes()
        cut = tmp_path / f"cut.{suffix}"
        cut.write_bytes(data[: len(data) // 2])
        with pytest.raises(FormatError, match=f"cut.{suffix}"):
            load(cut)
    photo = probe_image(tmp_path / "whole.png")
    write_png(tmp_path / "whole.png", noise[:32])
    with pytest.raises(FormatError, match="is 64×32 px, but was 64×64 px when"):
        photo.load(64, 64)
    with pytest.raises(ShapeError):
        photo.load(0, 5)
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(FormatError, match="8 or 16 bit"):
        load(tmp_path / "float.tif")


def test_damaged_exif_is_no_reason_to_refuse(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 77
    Image.fromarray(RGB).save(tmp_path / "e.jpg", exif=exif)
    assert probe_image(tmp_path / "e.jpg").orientation == 1
    data = (tmp_path / "e.jpg").read_bytes()
    (tmp_path / "e.jpg").write_bytes(data.replace(b"MM\0*", b"\xff\xff\xff\xff"))
    assert probe_image(tmp_path / "e.jpg").orientation == 1


def test_photos_travel_to_workers(tmp_path):
    write_png(tmp_path / "a.png", RGB)
    photo, _ = undistorted(probe_image(tmp_path / "a.png"), np.diag([4.0, 4.0, 1.0]), Distortion("brown", (0.01,)))
    assert pickle.loads(pickle.dumps(photo)) == photo


# -------------------------------------------------------------------------------------------------------------- lens
K = np.array([[90.0, 0, 61.0], [0, 92.0, 37.0], [0, 0, 1]])  # principal point off centre
DISTORTIONS = [(0.08, -0.02, 0.002, -0.003), (-0.25, 0.06, 0, 0), (0.05, 0.01, 0, 0, 0.004), (-0.1, 0, -0.004, 0.002)]


def smooth_photo(path, width=120, height=80):
    """A picture that is a known smooth function of the *distorted* pixel position."""
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    write_png(path, np.dstack([pattern(x, y)] * 3))
    return probe_image(path)


def pattern(x, y):
    return to_uint8(0.5 + 0.22 * np.sin(x / 9.0) + 0.22 * np.cos(y / 7.0))


@pytest.mark.parametrize("distortion", DISTORTIONS)
def test_undistorted_pixels_are_where_the_pinhole_says(tmp_path, distortion):
    photo, new_K = undistorted(smooth_photo(tmp_path / "s.png"), K, Distortion("brown", distortion))
    pixels = photo.load(120, 80).rgb[..., 0]
    u, v = np.meshgrid(np.arange(120) + 0.5, np.arange(80) + 0.5)
    rays = np.stack([(u - new_K[0, 2]) / new_K[0, 0], (v - new_K[1, 2]) / new_K[1, 1], np.ones_like(u)], -1)
    k = (*distortion, 0.0)[:5]
    # OpenCV's projection of the same rays with the same coefficients is the independent truth.
    truth, _ = cv2.projectPoints(rays.reshape(-1, 3), np.zeros(3), np.zeros(3), K, np.array(k))
    x, y = truth.reshape(80, 120, 2).transpose(2, 0, 1)
    assert np.abs(pixels.astype(int) - pattern(x, y)).max() <= 2
    # No black border: all rays of the new image, to its outer edges, come from inside the photo; and it is filled.
    assert x.min() > 0 and x.max() < 120 and y.min() > 0 and y.max() < 80
    assert min(x.min(), 120 - x.max(), y.min(), 80 - y.max()) < 0.7
    # OpenCV's rectangle is the same up to its 9 samples a side and its half-pixel conventions.
    shift = np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
    cv_K, _ = cv2.getOptimalNewCameraMatrix(K - shift, np.array(k), (120, 80), 0, (120, 80))
    assert np.abs(new_K - (cv_K + shift)).max() < 1.5


def test_no_distortion_changes_nothing(tmp_path):
    photo = smooth_photo(tmp_path / "s.png")
    same, new_K = undistorted(photo, K, Distortion("brown", (0.0, 0.0, 0.0, 0.0)))
    assert same is photo
    np.testing.assert_array_equal(new_K, K)


def test_undistorting_keeps_alpha(tmp_path):
    rgba = np.full((80, 120, 4), 120, np.uint8)
    rgba[:, :60, 3], rgba[:, 60:, 3] = 255, 0
    write_png(tmp_path / "a.png", rgba)
    photo, _ = undistorted(probe_image(tmp_path / "a.png"), K, Distortion("brown", (0.05,)))
    pixels = photo.load(60, 40)
    assert pixels.alpha[:, :25].min() == 255 and pixels.alpha[:, 35:].max() == 0
    assert np.abs(pixels.rgb[:, :25].astype(int) - 120).max() <= 1


@pytest.mark.parametrize(
    "distortion, message",
    [
        ((-3.0, 0, 0, 0), "folds over"),
        ((float("nan"), 0, 0, 0), "not finite"),
        ((1e9, 0, 0, 0), "enlarges the border .* times"),
    ],
)
def test_folding_distortion_is_refused(tmp_path, distortion, message):
    with pytest.raises(FormatError, match=message):
        undistorted(smooth_photo(tmp_path / "s.png"), K, Distortion("brown", distortion))


# ------------------------------------------------------------------------------------------------------------- files
def test_finding_files(tmp_path):
    for name in ("b/2.PNG", "b/10.jpg", "b/c/x.webp", ".hidden/h.png", "._a.jpg", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    names = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path, recursive=True)]
    assert names == ["b/10.jpg", "b/2.PNG", "b/c/x.webp"]
    assert find_image(tmp_path / "b" / "2").name == "2.PNG"
    assert find_image(tmp_path / "b" / "10.png").name == "10.jpg"
    assert find_image(tmp_path / "b" / "3") is None


def test_write_png_checks_and_rounds(tmp_path):
    np.testing.assert_array_equal(to_uint8(np.array([-1.0, 0.0, 0.5, 1.0, 2.0, np.nan])), [0, 0, 128, 255, 255, 0])
    depth = np.array([[0, 65535], [300, 7]], np.uint16)
    write_png(tmp_path / "d.png", depth)
    with Image.open(tmp_path / "d.png") as saved:
        np.testing.assert_array_equal(np.asarray(saved), depth)
    for wrong in (np.zeros((2, 2, 3)), np.zeros((2, 2, 2), np.uint8), np.zeros((0, 2, 3), np.uint8)):
        with pytest.raises(ShapeError):
            write_png(tmp_path / "w.png", wrong)
    assert not (tmp_path / "w.png").exists()
