"""Lenses: every model against COLMAP's and OpenCV's own code, the pinholes that replace them, and what is masked.

pycolmap and cv2 are the foreign truth: the code under test uses neither for its maths.
"""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image

from splatinit.errors import FormatError
from splatinit.io import lenses
from splatinit.io.colmap_model import _MODELS, LENSES, ColmapCamera
from splatinit.io.images import DepthFile, MaskFile, probe_image, to_uint8, undistorted, write_png
from splatinit.io.lenses import MAX_STRETCH, MODELS, Distortion, replacing_pinhole
from splatinit.io.read import ReadConfig, read_images


@pytest.fixture(scope="module")
def pycolmap():
    return pytest.importorskip("pycolmap")


def intrinsics(f, width, height, dx=0.0, dy=0.0):
    return np.array([[f, 0.0, width / 2 + dx], [0.0, f, height / 2 + dy], [0.0, 0.0, 1.0]])


def plausible(model: str, rng) -> list[float]:
    """Coefficients as calibrations find them, in COLMAP's order."""
    if model == "FOV":
        return [rng.uniform(0.2, 1.5)]
    if model == "EUCM":
        return [rng.uniform(0.3, 0.8), rng.uniform(0.7, 1.4)]
    if "DIVISION" in model:
        return [rng.uniform(-0.4, 0.05)]
    count = dict(_MODELS.values())[model] - 2 - LENSES[model][0]
    return list(rng.uniform(-0.03, 0.03, count))


def colmap_camera(pycolmap, model, rng, width=800, height=600, f=(400, 600)):
    focals = rng.uniform(*f, LENSES[model][0])
    centre = rng.uniform(0.45, 0.55, 2) * (width, height)
    params = [*focals, *centre, *plausible(model, rng)]
    ours, distortion = ColmapCamera(model, width, height, np.array(params)).pinhole("x")
    return pycolmap.Camera(model=model, width=width, height=height, params=params), ours, distortion


# ------------------------------------------------------------------------------------------------------------ models
@pytest.mark.parametrize("model", LENSES)
def test_every_model_is_colmaps(pycolmap, model):
    rng = np.random.default_rng(3)
    if model not in pycolmap.CameraModelId.__members__:
        pytest.skip(f"this pycolmap does not know {model}")
    for _ in range(10):
        camera, K, distortion = colmap_camera(pycolmap, model, rng)
        x, y = rng.uniform(-1, 1, (2, 400))
        x[0] = y[0] = 0.0
        u, v = distortion.apply(x, y)
        theirs = camera.img_from_cam(np.stack([x, y, np.ones_like(x)], axis=1))
        ours = np.stack([K[0, 0] * u + K[0, 2], K[1, 1] * v + K[1, 2]], axis=1)
        assert np.abs(ours - theirs).max() < 1e-9
        back = np.stack(distortion.invert(u, v), axis=1)
        assert np.abs(back - np.stack([x, y], axis=1)).max() < 1e-8
        # COLMAP's own inverse, where it has one that converges, is the same.
        theirs = camera.cam_from_img(theirs)
        known = np.isfinite(theirs).all(axis=1)
        assert np.abs(back - theirs)[known].max(initial=0.0) < 1e-6


def test_model_numbers_are_colmaps(pycolmap):
    for name, number in pycolmap.CameraModelId.__members__.items():
        if int(number) >= 0:
            params = pycolmap.Camera.create_from_model_id(0, number, 100.0, 80, 60).params
            assert _MODELS[int(number)] == (name, len(params))
    assert {name for name, _ in _MODELS.values()} - set(LENSES) == {"EQUIRECTANGULAR"}
    assert {lens for _, lens in LENSES.values()} == set(MODELS)


def test_opencv_agrees():
    rng = np.random.default_rng(5)
    rays = np.concatenate([rng.uniform(-1.2, 1.2, (300, 2)), np.ones((300, 1))], axis=1)
    x, y, _ = rays.T
    for _ in range(5):
        k = rng.uniform(-0.05, 0.05, 8)
        truth = cv2.projectPoints(rays, np.zeros(3), np.zeros(3), np.eye(3), k)[0][:, 0]
        assert np.abs(np.stack(Distortion("rational", tuple(k)).apply(x, y), axis=1) - truth).max() < 1e-12
        truth = cv2.projectPoints(rays, np.zeros(3), np.zeros(3), np.eye(3), k[:5])[0][:, 0]
        assert np.abs(np.stack(Distortion("brown", tuple(k[:5])).apply(x, y), axis=1) - truth).max() < 1e-12
        truth = cv2.fisheye.projectPoints(rays[:, None], np.zeros(3), np.zeros(3), np.eye(3), k[:4])[0][:, 0]
        assert np.abs(np.stack(Distortion("fisheye", tuple(k[:4])).apply(x, y), axis=1) - truth).max() < 1e-12


def test_absent_coefficients_are_zero():
    x, y = np.array([0.3, 0.0]), np.array([-0.2, 0.0])
    for model, names in ((name, row.names) for name, row in MODELS.items() if name != "eucm"):
        full, short = Distortion(model, (0.01, *[0.0] * (len(names) - 1))), Distortion(model, (0.01,))
        np.testing.assert_array_equal(full.apply(x, y), short.apply(x, y))
        assert bool(full) and bool(Distortion(model, ())) == model.endswith("fisheye")
    assert str(Distortion("brown", (0.1, 0.2))) == "k1 0.1, k2 0.2"
    assert str(Distortion("thin_prism_fisheye", (0.1,))) == "thin_prism_fisheye, k1 0.1"
    np.testing.assert_array_equal(Distortion("fov", (0.0,)).apply(x, y), (x, y))
    assert np.abs(np.array(Distortion("fov", (1e-5,)).apply(x, y)) - (x, y)).max() < 1e-9


# ----------------------------------------------------------------------------------------------------------- inverse
@pytest.mark.parametrize(
    "distortion",
    [
        Distortion("brown", (-0.3,)),  # folds over at r = 1.054
        Distortion("brown", (-0.6, 0.05, 0.002, -0.001)),  # folds over at r = 0.78, and back at 2.6
        Distortion("fisheye", (-0.17,)),  # folds over at 80°
        Distortion("division", (0.2,)),  # ends at r = 1.118
        Distortion("rational", (0.1, 0, 0, 0, 0, 0.9, -0.2, 0.0)),
    ],
)
def test_the_inverse_stays_on_the_branch_of_the_centre(distortion):
    radius = np.geomspace(1e-3, 20.0, 4000)
    with np.errstate(all="ignore"):
        outward = np.stack([distortion.apply(radius * c, radius * s) for c, s in ((1, 0), (0.6, 0.8), (-0.8, 0.6))])
        landing = np.hypot(outward[:, 0], outward[:, 1])
        rising = (np.diff(landing, axis=1) > 0).all(axis=0)
    fold = radius[np.argmin(rising)] if not rising.all() else radius[-1]
    inside = radius[radius < 0.97 * fold]
    x, y = 0.6 * inside, 0.8 * inside
    u, v = distortion.invert(*distortion.apply(x, y))
    assert np.abs(np.hypot(u - x, v - y) / inside).max() < 1e-6
    # Beyond the fold: what lands there also comes from before it, or from nowhere; never from beyond.
    beyond = np.linspace(1.03 * fold, 2.0 * fold, 200)
    with np.errstate(all="ignore"):
        u, v = distortion.invert(*distortion.apply(0.6 * beyond, 0.8 * beyond))
    found = np.isfinite(u)
    assert (np.hypot(u, v)[found] <= 1.01 * fold).all()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (33, 5), (121, 81)])
def test_round_trip_over_the_whole_image(model, size):
    width, height = size
    coefficients = {"fov": (0.9,), "eucm": (0.55, 1.1), "division": (-0.2,)}.get(model, (0.02, -0.01, 0.003, -0.002))
    for scale in (0.35, 1.2):  # wide, narrow
        K = intrinsics(scale * max(width, height), width, height, 0.05 * width, -0.03 * height)
        lens, new_K = replacing_pinhole(K, Distortion(model, coefficients), width, height, "x")
        u, v = lens.project(np.arange(width), np.arange(height))
        x, y = lens.distortion.invert((u + 0.5 - lens.cx) / lens.fx, (v + 0.5 - lens.cy) / lens.fy)
        np.testing.assert_allclose(
            new_K[0, 0] * x + new_K[0, 2] - 0.5, np.arange(width)[None].repeat(height, 0), atol=1e-6
        )
        np.testing.assert_allclose(
            new_K[1, 1] * y + new_K[1, 2] - 0.5, np.arange(height)[:, None].repeat(width, 1), atol=1e-6
        )


# ---------------------------------------------------------------------------------------------------------- pictures
def pattern(x, y):
    """A smooth picture as a function of the *distorted* pixel position."""
    return to_uint8(0.5 + 0.22 * np.sin(x / 9.0) + 0.22 * np.cos(y / 7.0))


def pattern_photo(path, width, height):
    write_png(path, np.dstack([pattern(*np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5))] * 3))
    return probe_image(path)


def truth(K, new_K, k, width, height):
    """OpenCV's position in the fisheye photo of each pixel of the pinhole."""
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    rays = np.stack([(u - new_K[0, 2]) / new_K[0, 0], (v - new_K[1, 2]) / new_K[1, 1], np.ones_like(u)], axis=-1)
    found = cv2.fisheye.projectPoints(rays.reshape(-1, 1, 3), np.zeros(3), np.zeros(3), K, np.array(k, float))[0]
    return found.reshape(height, width, 2).transpose(2, 0, 1)


FISHEYES = {
    "narrow": (intrinsics(200, 161, 121), (0.02, -0.01, 0, 0), False),
    "180° across the diagonal": (intrinsics(100 / 1.5708, 160, 120), (0, 0, 0, 0), False),
    "190° circle inside the frame": (intrinsics(60 / 1.658, 160, 120), (0.01, -0.002, 0, 0), False),
    "190° cut above and below": (intrinsics(150 / 1.658, 300, 101), (0.01, -0.002, 0, 0), True),
    "150° across the diagonal, 3:2": (intrinsics(197, 438, 292), (-0.03, 0.006, -0.004, 0.001), True),
    "190° off centre": (intrinsics(100 / 1.658, 240, 121, 30, -25), (0.01, -0.002, 0, 0), False),
}


@pytest.mark.parametrize("name", FISHEYES)
def test_fisheye_pictures_are_where_the_pinhole_says(tmp_path, name):
    K, k, masked = FISHEYES[name]
    width, height = int(2 * K[0, 2]) if "off" not in name else 240, int(2 * K[1, 2]) if "off" not in name else 121
    photo, new_K = undistorted(pattern_photo(tmp_path / "s.png", width, height), K, Distortion("fisheye", k))
    pixels = photo.load(width, height)
    x, y = truth(K, new_K, k, width, height)
    # What no ray of the photo reaches, by brute force, is what is masked.
    reached = (x >= 0) & (x <= width) & (y >= 0) & (y <= height)
    assert photo.has_mask == (not reached.all()) == masked
    if photo.has_mask:
        np.testing.assert_array_equal(pixels.mask, np.where(reached, 255, 0))
        assert 0.003 < 1 - reached.mean() < 0.25
    else:
        assert pixels.mask is None
    error = np.abs(pixels.rgb[..., 0].astype(int) - pattern(x, y))
    whole = (x >= 0.5) & (x <= width - 0.5) & (y >= 0.5) & (y <= height - 0.5)
    assert error[whole].max() <= 2 and error[reached].max() <= 5
    # A wide pinhole keeps fx = fy, its axis in the middle, and its corners are not enlarged more than it promises.
    if name != "narrow":
        middle = (width / 2, height / 2) if "off" not in name else (width / 2, pytest.approx(46.346, abs=0.01))
        assert new_K[0, 0] == pytest.approx(new_K[1, 1]) and tuple(new_K[:2, 2]) == pytest.approx(middle)
    corner = np.hypot(max(new_K[0, 2], width - new_K[0, 2]), max(new_K[1, 2], height - new_K[1, 2])) / new_K[0, 0]
    distortion = photo.lenses[0].distortion
    step = corner * np.array([1 - 1e-5, 1 + 1e-5])
    assert np.diff(step) / np.diff(distortion.apply(step, 0 * step)[0]) < MAX_STRETCH * 1.01


def test_the_shrunk_mask_counts_only_what_is_wholly_reached(tmp_path):
    K, k, _ = FISHEYES["190° cut above and below"]
    photo, _ = undistorted(pattern_photo(tmp_path / "s.png", 300, 101), K, Distortion("fisheye", k))
    full, small = photo.load(300, 101).mask, photo.load(100, 34).mask
    whole = cv2.resize(full, (100, 34), interpolation=cv2.INTER_AREA) == 255
    np.testing.assert_array_equal(small == 255, whole)
    assert set(np.unique(small)) == {0, 255} and (whole.mean() < (full == 255).mean())


def test_mask_files_and_depth_go_through_the_lens(tmp_path):
    K, k, _ = FISHEYES["190° cut above and below"]
    photo, _ = undistorted(pattern_photo(tmp_path / "s.png", 300, 101), K, Distortion("fisheye", k))
    border = photo.load(300, 101).mask
    left = np.full((101, 300), 255, np.uint8)
    left[:, :150] = 0
    write_png(tmp_path / "m.png", left)
    write_png(tmp_path / "d.png", np.full((101, 300), 1500, np.uint16))
    both = replace(photo, mask=MaskFile(tmp_path / "m.png", "ignore"), depth=DepthFile(tmp_path / "d.png", 0.001))
    mask = both.load(300, 101).mask
    assert not mask[:, :148].any()
    np.testing.assert_array_equal(mask[:, 153:], border[:, 153:])
    depth = both.load_depth(300, 101)
    np.testing.assert_allclose(depth, np.where(border == 255, 1.5, 0), rtol=1e-6)
    # A mask that means transparency leaves the border unknown, not transparent.
    cut = replace(photo, mask=MaskFile(tmp_path / "m.png", "alpha"))
    pixels = cut.load(300, 101)
    assert cut.has_alpha and cut.has_mask
    np.testing.assert_array_equal(pixels.mask, border)
    assert not pixels.alpha[:, :148].any() and pixels.alpha[50, 200] == 255


def test_one_lens_after_another(tmp_path):
    """A photo that a reader undistorts may be undistorted again for what a poser found to be left."""
    K, k, _ = FISHEYES["190° cut above and below"]
    photo, new_K = undistorted(pattern_photo(tmp_path / "s.png", 300, 101), K, Distortion("fisheye", k))
    twice, last_K = undistorted(photo, new_K, Distortion("brown", (0.01,)))
    assert twice.has_mask and len(twice.lenses) == 2
    first = truth(K, new_K, k, 300, 101)
    u, v = twice.lenses[1].project(np.arange(300), np.arange(101))
    x, y = (cv2.remap(plane, u.astype("f"), v.astype("f"), cv2.INTER_LINEAR) for plane in first)
    pixels = twice.load(300, 101)
    counts = pixels.mask == 255
    assert 0.8 < counts.mean() < 0.999
    assert np.abs(pixels.rgb[..., 0].astype(int) - pattern(x, y))[counts].max() <= 3


# ------------------------------------------------------------------------------------------------- what is no lens
@pytest.mark.parametrize(
    ("K", "size", "distortion", "message"),
    [
        (intrinsics(300, 400, 300), (400, 300), Distortion("fisheye", (float("inf"),)), "is not finite"),
        (intrinsics(300, 400, 300), (400, 300), Distortion("eucm", (float("nan"), 1.0)), "is not finite"),
        (intrinsics(300, 400, 300), (400, 300), Distortion("rational", (1e300,)), "folds over"),
        (intrinsics(300, 400, 300), (400, 300), Distortion("rational", (-1e300,)), "folds over"),
        (intrinsics(300, 400, 300), (400, 300), Distortion("brown", (1e9,)), "border of the 400×300 px .* times"),
        (intrinsics(200, 400, 300), (400, 300), Distortion("brown", (-0.6,)), "folds over inside the 400×300 px"),
        (intrinsics(95, 400, 300), (400, 300), Distortion("fisheye", (-0.5,)), "folds over"),
        (intrinsics(120, 400, 300), (400, 300), Distortion("fov", (4.0,)), "folds over"),
        (intrinsics(120, 400, 300), (400, 300), Distortion("eucm", (1.6, -1.1)), "enlarges the border"),
        (intrinsics(150, 400, 300, 500), (400, 300), Distortion("fisheye", ()), "axis outside the 400×300 px"),
        (intrinsics(0.001, 400, 300), (400, 300), Distortion("fisheye", ()), "in so few px"),
        (intrinsics(900, 40000, 30), (40000, 30), Distortion("brown", (0.1,)), "expected at most 32766 px a side"),
    ],
)
def test_what_is_no_lens_is_refused(K, size, distortion, message):
    with pytest.raises(FormatError, match=f"(?s)photo 7: the lens distortion .*{message}.*cannot be removed") as error:
        replacing_pinhole(K, distortion, *size, "photo 7")
    assert f"({' '.join(MODELS[distortion.model].names)})" in error.value.hint


def test_random_coefficients_never_crash():
    rng = np.random.default_rng(0)
    refused = 0
    for i in range(64):
        model = list(MODELS)[i % len(MODELS)]
        count = len(MODELS[model].names)
        coefficients = tuple(rng.standard_normal(count) * 10.0 ** rng.integers(-3, 3))
        K = intrinsics(10.0 ** rng.uniform(-1, 4), 40, 31, *rng.uniform(-25, 25, 2))
        try:
            lens, new_K = replacing_pinhole(K, Distortion(model, coefficients), 40, 31, "x")
        except FormatError:
            refused += 1
            continue
        # Whatever is not refused has an exact inverse at every pixel that counts.
        u, v = lens.project(np.arange(40), np.arange(31))
        x, y = lens.distortion.invert((u + 0.5 - lens.cx) / lens.fx, (v + 0.5 - lens.cy) / lens.fy)
        assert np.isfinite(new_K).all()
        assert np.abs(new_K[0, 0] * x + new_K[0, 2] - 0.5 - np.arange(40)).max() < 1e-3
        assert np.abs(new_K[1, 1] * y + new_K[1, 2] - 0.5 - np.arange(31)[:, None]).max() < 1e-3
    assert 10 < refused < 60


def test_a_fisheye_cut_on_one_side_is_shown_to_the_other():
    # The photo ends 26° left of the axis and beyond 90° to the right: nothing needs a mask.
    lens, new_K = replacing_pinhole(intrinsics(120, 400, 300, -145), Distortion("fisheye", ()), 400, 300, "x")
    assert not lens.masked and new_K[0, 2] / new_K[0, 0] == pytest.approx(np.tan(55 / 120))
    right, half = (400 - new_K[0, 2]) / new_K[0, 0], 150 / new_K[0, 0]
    stretch = 1 + right**2 + half**2  # of an equidistant lens: d tan θ / dθ
    assert stretch == pytest.approx(MAX_STRETCH, rel=1e-3)


def test_mild_folds_outside_what_is_shown_are_cropped():
    # A wide action camera calibrated with one coefficient folds over in its corners only: they are left out.
    lens, new_K = replacing_pinhole(intrinsics(200, 400, 300), Distortion("brown", (-0.25,)), 400, 300, "x")
    corner = np.hypot(200, 150) / new_K[0, 0]
    assert not lens.masked and 0.9 < corner < 1 / np.sqrt(0.75)


# ------------------------------------------------------------------------------------------------- speed and memory
@pytest.mark.parametrize(
    ("distortion", "f", "step"),
    [
        (Distortion("brown", (-0.12, 0.03, 0.001, -0.001)), 700, 16),
        (Distortion("fisheye", (0.02, -0.01, 0.003, 0.0)), 300, 8),
        (Distortion("fisheye", (0.02, -0.01)), 20, None),
    ],
)
def test_interpolated_positions_are_the_exact_ones(distortion, f, step):
    width, height = (801, 603) if f > 100 else (41, 35)
    lens, _ = replacing_pinhole(intrinsics(f, width, height, 3, -2), distortion, width, height, "x")
    grid = lenses._grid(lens, width, height)
    assert (grid[0] if grid else None) == step
    u, v = lens.project(np.arange(width), np.arange(height))
    for top in range(0, height, 32):
        bottom = min(top + 32, height)
        got_u, got_v = lens._positions(top, bottom, width, height)
        assert np.abs(got_u - u[top:bottom]).max() < 6e-4 and np.abs(got_v - v[top:bottom]).max() < 6e-4


def test_cameras_of_their_own_cost_little_memory():
    width, height = 1600, 1200
    pixels = np.zeros((height, width, 3), np.uint8)
    tracemalloc.start()
    try:
        for i in range(3):
            K = intrinsics(1200.0 + i, width, height)
            lens, _ = replacing_pinhole(K, Distortion("brown", (-0.1 + i * 1e-3, 0.02)), width, height, "x")
            lens.remap(pixels)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # One output picture (5.8 MB) and less than a third of the positions of all pixels of one photo (15.4 MB).
    assert peak < 5.8e6 + 5e6 and kept < 3e6


# ---------------------------------------------------------------------------------------------------- a whole scene
@pytest.mark.parametrize("suffix", [".bin", ".txt"])
def test_cameras_of_many_models_and_sizes_in_one_scene(pycolmap, tmp_path, suffix):
    """COLMAP writes the model, each photo has a mark drawn where COLMAP projects a 3-D point; our pinhole finds it."""
    rng = np.random.default_rng(11)
    point = np.array([0.3, -0.2, 4.0])
    known = [name for name in LENSES if name in pycolmap.CameraModelId.__members__]
    model = pycolmap.Reconstruction()
    (tmp_path / "images").mkdir()
    for number, name in enumerate(known, start=1):
        width, height = 96 + 5 * number, 131 - 4 * number
        camera, _, _ = colmap_camera(pycolmap, name, rng, width, height, (0.55 * width, 0.6 * width))
        camera.camera_id = number
        model.add_camera_with_trivial_rig(camera)
        rotation = pycolmap.Rotation3d(rng.uniform(-0.15, 0.15, 3))
        pose = pycolmap.Rigid3d(rotation, rng.uniform(-0.5, 0.5, 3))
        image = pycolmap.Image(name=f"{number:02d}.png", camera_id=number, image_id=number)
        model.add_image_with_trivial_frame(image, pose)
        at = camera.img_from_cam(pose * point)
        x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
        mark = np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (2 * 2.0**2))
        Image.fromarray(np.dstack([to_uint8(mark)] * 3)).save(tmp_path / "images" / f"{number:02d}.png")
    (tmp_path / "sparse" / "0").mkdir(parents=True)
    (model.write_binary if suffix == ".bin" else model.write_text)(tmp_path / "sparse" / "0")

    images = read_images(tmp_path)
    assert len(images.photos) == len(known) and f"({suffix[1:]})" in images.notes[0]
    assert len(set(images.sizes.values())) == len(known)
    for photo in images.photos:
        camera = images.cameras[photo.name]
        pixels = photo.load(*images.sizes[photo.name]).rgb[..., 0].astype(float)
        assert pixels.shape == (camera.height, camera.width)
        weights = np.where(pixels > 25, pixels, 0.0)
        seen = (weights.sum(0) @ (np.arange(camera.width) + 0.5), weights.sum(1) @ (np.arange(camera.height) + 0.5))
        projected = camera.K @ (camera.cam_from_world[:3, :3] @ point + camera.cam_from_world[:3, 3])
        assert np.abs(np.array(seen) / weights.sum() - projected[:2] / projected[2]).max() < 0.15, photo.name


def test_panoramas_are_refused():
    with pytest.raises(
        FormatError, match="EQUIRECTANGULAR is a panorama, which no single pinhole can replace"
    ) as error:
        ColmapCamera("EQUIRECTANGULAR", 8, 4, np.array([8.0, 4.0])).pinhole("camera 3")
    assert "pinhole views" in error.value.hint


@pytest.mark.parametrize(
    ("settings", "distortion"),
    [
        ({}, None),
        ({"camera_model": "SIMPLE_RADIAL", "k1": 0.1}, Distortion("brown", (0.1, 0, 0, 0, 0))),
        ({"k1": 0.1, "k2": 0.2, "p1": 0.01, "p2": 0.02, "k3": 0.3}, Distortion("brown", (0.1, 0.2, 0.01, 0.02, 0.3))),
        ({"camera_model": "OPENCV_FISHEYE", "k1": 0.1, "k4": 0.01}, Distortion("fisheye", (0.1, 0, 0, 0.01))),
        ({"camera_model": "opencv_fisheye"}, Distortion("fisheye", (0, 0, 0, 0))),
        ({"is_fisheye": True, "k1": 0.1, "k2": 0.2, "p1": 0.0}, Distortion("fisheye", (0.1, 0.2, 0, 0))),
        ({"is_fisheye": True, "camera_model": "OPENCV", "k1": 0.1}, Distortion("fisheye", (0.1, 0, 0, 0))),
        ({"is_fisheye": False, "k1": 0.1}, Distortion("brown", (0.1, 0, 0, 0, 0))),
        ({"k1": 0.1, "k4": 0.2, "k6": 0.3}, Distortion("rational", (0.1, 0, 0, 0, 0, 0.2, 0, 0.3))),
        ({"camera_model": "FULL_OPENCV", "k4": 0.2}, Distortion("rational", (0, 0, 0, 0, 0, 0.2, 0, 0))),
        ({"camera_model": "FOV", "omega": 0.9}, Distortion("fov", (0.9,))),
        (
            {"camera_model": "OPENCV_FISHEYE", "distortion_params": [0.1, 0.2, 0.03, 0.04, 0, 0]},
            Distortion("fisheye", (0.1, 0.2, 0.03, 0.04)),
        ),
        (
            {"camera_model": "FISHEYE624", "distortion_params": [i / 1000 for i in range(12)]},
            Distortion("rad_tan_thin_prism_fisheye", tuple(i / 1000 for i in range(12))),
        ),
    ],
)
def test_lenses_of_nerfstudio_and_instant_ngp(tmp_path, settings, distortion):
    write_png(tmp_path / "images" / "a.png", np.zeros((60, 80, 3), np.uint8))
    frame = {"file_path": "images/a.png", "transform_matrix": np.eye(4).tolist()}
    data = {"fl_x": 90.0, "cx": 41.0, "cy": 29.0, "w": 80, "h": 60, "frames": [frame], **settings}
    (tmp_path / "transforms.json").write_text(json.dumps(data))
    images = read_images(tmp_path)
    (photo,) = images.photos
    assert [lens.distortion for lens in photo.lenses] == ([] if distortion is None else [distortion])
    if distortion is not None:
        assert (photo.lenses[0].fx, photo.lenses[0].cx, photo.lenses[0].cy) == (90.0, 41.0, 29.0)
        assert images.cameras[photo.name].K[0, 0] == photo.lenses[0].pinhole[0]


def test_a_masked_fisheye_scene_has_masks_for_the_trainer(tmp_path):
    """Intrinsics of each frame; where the lens leaves a border, the photo says that it has a mask, at any size."""
    for name, size in (("a", (438, 292)), ("b", (120, 90))):
        write_png(tmp_path / f"{name}.png", np.full((size[1], size[0], 3), 90, np.uint8))
    frames = [
        {"file_path": "a.png", "fl_x": 197.0, "w": 438, "h": 292, "camera_model": "OPENCV_FISHEYE", "k1": -0.03},
        {"file_path": "b.png", "fl_x": 100.0, "w": 120, "h": 90, "k1": -0.1},
    ]
    frames = [{**frame, "transform_matrix": np.eye(4).tolist()} for frame in frames]
    (tmp_path / "transforms.json").write_text(json.dumps({"frames": frames}))
    images = read_images(tmp_path, ReadConfig(max_size=100))
    a, b = images.photos
    assert (a.has_mask, b.has_mask) == (True, False)
    assert images.notes[0].endswith("2 frames, lens distortion removed (border masked in 1 photos)")
    mask = a.load(*images.sizes["a.png"]).mask
    assert mask.shape == (67, 100) and not mask[0, 50] and mask[33, 50] == 255 and mask[0, 0] == 255
    assert b.load(*images.sizes["b.png"]).mask is None
