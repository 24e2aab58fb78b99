"""Readers of benchmark folders (LLFF; IDR and NeuS): conventions with numbers to check by hand, and every bad input."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from splatinit.errors import BadPoses, FormatError, NoImages
from splatinit.io import arrays
from splatinit.io.images import write_png
from splatinit.io.read import ReadConfig, read_images

K = np.array([[70.0, 0, 41.3], [0, 72.0, 28.9], [0, 0, 1]])


def photo(path, width=80, height=60, value=90, channels=3):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (height, width, channels) if channels > 1 else (height, width)
    write_png(path, np.full(shape, value, np.uint8))


def rigid(seed):
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = q * np.linalg.det(q), rng.normal(size=3)
    return pose


# -------------------------------------------------------------------------------------------------------------- LLFF
def llff_row(pose, height=60, width=80, focal=100.0):
    """poses_bounds' 17 numbers of an OpenCV cam_from_world."""
    world_from_cam = np.linalg.inv(pose)
    right, down, forward, center = world_from_cam[:3, :4].T
    return np.r_[np.stack([down, right, -forward, center, [height, width, focal]], axis=1).ravel(), 1.0, 9.0]


def llff(folder, n=3, images="images", size=(80, 60), **settings):
    for i in range(n):
        photo(folder / images / f"p{i}.png", *size)
    np.save(folder / "poses_bounds.npy", np.stack([llff_row(rigid(i), **settings) for i in range(n)]))
    return folder


def test_llff_pose_by_hand(tmp_path):
    # At (1, 2, 3), looking along world +x, world z up: right is −y, down is −z, back is −x.
    row = [0, 0, -1, 1, 60, 0, -1, 0, 2, 80, -1, 0, 0, 3, 100, 1, 9]
    photo(tmp_path / "images" / "a.png")
    np.save(tmp_path / "poses_bounds.npy", np.array([row], float))
    images = read_images(tmp_path)
    camera = images.cameras["a.png"]
    assert images.format == "llff" and images.notes == ("read as LLFF: images + poses_bounds.npy, 1 photos",)
    np.testing.assert_allclose(camera.center, [1, 2, 3])
    # 5 ahead (world +x), 1 to the right (world −y), 2 down (world −z).
    np.testing.assert_allclose(camera.cam_from_world @ [6, 1, 1, 1], [1, 2, 5, 1], atol=1e-12)
    np.testing.assert_allclose(camera.K, [[100, 0, 40], [0, 100, 30], [0, 0, 1]])
    assert read_images(tmp_path / "poses_bounds.npy").cameras.keys() == {"a.png"}


def test_llff_scales_by_the_actual_size(tmp_path):
    # 81 × 61 px, rounded to 10 × 8 when reduced by 8: the ratio differs along the two axes.
    folder = llff(tmp_path, images="images_8", size=(10, 8), height=61, width=81)
    camera = read_images(folder).cameras["p0.png"]
    np.testing.assert_allclose(camera.K, [[100 * 10 / 81, 0, 5], [0, 100 * 8 / 61, 4], [0, 0, 1]])
    np.testing.assert_allclose(camera.cam_from_world, rigid(0), atol=1e-12)


def test_llff_chooses_its_folder(tmp_path):
    llff(tmp_path, images="images_8", size=(10, 8))
    for i in range(3):
        photo(tmp_path / "images_4" / f"p{i}.png", 20, 15)
    (tmp_path / "images_1008x756").mkdir()

    def read(**settings):
        images = read_images(tmp_path, ReadConfig(**settings))
        return images.notes[0].split()[3], images.sizes["p0.png"], images.notes[1:]

    assert read() == ("images_4", (20, 15), ())
    assert read(max_size=10) == ("images_4", (10, 8), ())
    assert read(downscale=8) == ("images_8", (10, 8), ())
    assert read(downscale=10) == ("images_4", (8, 6), ())
    note = "no photos reduced by 2 only: images_4 is taken as it is"
    assert read(downscale=2) == ("images_4", (20, 15), (note,))
    for i in range(3):
        photo(tmp_path / "images" / f"p{i}.png")
    assert read() == ("images", (80, 60), ())
    assert read(downscale=2) == ("images", (40, 30), ())
    assert read(downscale=4) == ("images_4", (20, 15), ())


def test_llff_height_and_width_exchanged(tmp_path):
    images = read_images(llff(tmp_path, height=80, width=60))
    np.testing.assert_allclose(images.cameras["p1.png"].K, [[100, 0, 40], [0, 100, 30], [0, 0, 1]])
    assert "height and width of 3 photos the other way round" in images.notes[1]


def test_llff_does_not_shadow_colmap(tmp_path):
    from splatinit.io.colmap_model import write_model
    from splatinit.types import Camera, View

    llff(tmp_path, images="images_2", size=(40, 30))
    views = [View(f"p{i}.JPG", Camera(K, rigid(i), 80, 60), None) for i in range(3)]
    write_model(tmp_path / "sparse" / "0", views, None)
    images = read_images(tmp_path, ReadConfig(downscale=2))
    assert images.format == "colmap" and "read as COLMAP: images_2 + sparse/0" in images.notes[0]
    assert images.notes[-1] == "also looks like llff (data.format=llff reads that instead)"
    np.testing.assert_allclose(images.cameras["p0.JPG"].K, [[35, 0, 20.65], [0, 36, 14.45], [0, 0, 1]])
    assert read_images(tmp_path, ReadConfig(format="llff")).format == "llff"


def test_llff_where_colmap_knows_other_names(tmp_path):
    """NeRF's own LLFF archive: the model knows images/IMG_4026.JPG, images_4 holds image000.png."""
    from fuzz.targets import build_colmap_bin

    build_colmap_bin(tmp_path)
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    (tmp_path / "poses_bounds.npy").write_bytes(b"")
    (tmp_path / "images_4").mkdir()
    write_png(tmp_path / "images_4" / "image000.png", np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(NoImages, match="none of the 3 images it names exists") as caught:
        read_images(tmp_path, ReadConfig(downscale=4))
    assert caught.value.hint == "It also looks like llff: data.format=llff reads that instead."


def test_llff_counts_must_agree(tmp_path):
    llff(tmp_path)
    (tmp_path / "images" / "p1.png").unlink()
    with pytest.raises(FormatError, match="3 rows, but images/ holds 2 photos; expected one row a photo") as caught:
        read_images(tmp_path)
    assert (caught.value.rows, caught.value.photos) == (3, 2) and "left out" in caught.value.hint
    for path in (tmp_path / "images").iterdir():
        path.unlink()
    with pytest.raises(NoImages, match=r"poses of 3 photos, but there are none in images/ or images_N/"):
        read_images(tmp_path)
    with pytest.raises(FormatError, match=r"poses_bounds\.npy: no such file"):
        read_images(tmp_path / "images", ReadConfig(format="llff"))


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda rows: rows[:, :16], FormatError, r"holds \[3, 16\] numbers; expected \[photos, 17\]"),
        (lambda rows: rows[0], FormatError, r"holds \[17\] numbers"),
        (lambda rows: rows[:0], FormatError, r"holds \[0, 17\] numbers"),
        (lambda rows: np.where(np.arange(17) == 3, np.nan, rows), BadPoses, r"row 0 \(p0\.png\): not finite"),
        (lambda rows: np.where(np.arange(17) == 16, np.inf, rows), BadPoses, "row 0 .*not finite"),
        (lambda rows: np.where(np.arange(17) == 4, -1, rows), BadPoses, r"image size is 80×-1 px"),
        (lambda rows: np.where(np.arange(17) == 9, 1e300, rows), BadPoses, r"image size is 1e\+300×60 px"),
        (lambda rows: np.where(np.arange(17) == 14, 0, rows), BadPoses, "focal length 0 × 0 px"),
        (lambda rows: rows * np.where(np.arange(17) % 5 < 3, 2, 1), BadPoses, "not a rotation"),
        (lambda rows: rows * np.where(np.arange(17) % 5 == 0, -1, 1), BadPoses, "det R = -1"),
        (lambda rows: np.where(np.arange(17) == 9, 160, rows), FormatError, "the camera is for 160×60 px"),
    ],
)
def test_llff_bad_numbers(tmp_path, change, error, says):
    path = llff(tmp_path) / "poses_bounds.npy"
    rows = np.load(path)
    np.save(path, change(rows))
    with pytest.raises(error, match=says):
        read_images(tmp_path)


# --------------------------------------------------------------------------------------------------------------- IDR
def world_mat(i, K=K, factor=1.0):
    """What IDR stores of an OpenCV camera whose K has our pixel centres."""
    integer = K.copy()
    integer[:2, 2] -= 0.5
    matrix = np.eye(4)
    matrix[:3] = factor * (integer @ rigid(i)[:3])
    return matrix


def idr(folder, n=3, masks="{:03d}.png", size=(80, 60), file="cameras_sphere.npz", keys=None, **matrix):
    for i in range(n):
        photo(folder / "image" / f"{i:06d}.png", *size)
        if masks:
            photo(folder / "mask" / masks.format(i), *size, value=255 * (i % 2), channels=1)
    matrices = {f"world_mat_{i}": world_mat(i, **matrix) for i in (range(n) if keys is None else keys)}
    np.savez(folder / file, scale_mat_0=np.eye(4), **matrices)
    return folder


@pytest.mark.parametrize("factor", [1.0, -0.01, 500.0])
def test_idr_matrices_come_apart(tmp_path, factor):
    images = read_images(idr(tmp_path, factor=factor, file="cameras.npz"))
    assert images.format == "idr" and images.notes[0] == "read as IDR: image + cameras.npz, 3 photos"
    for i in range(3):
        camera = images.cameras[f"{i:06d}.png"]
        np.testing.assert_allclose(camera.K, K, atol=1e-9)
        np.testing.assert_allclose(camera.cam_from_world, rigid(i), atol=1e-9)
    assert read_images(tmp_path / "cameras.npz").format == "idr"


def test_idr_masks_make_the_object_stand_alone(tmp_path):
    images = read_images(idr(tmp_path))
    note = "masks: 3 of 3 photos have one in mask/; masked pixels are transparent"
    assert note in images.notes and images.background == (1.0, 1.0, 1.0)
    alphas = [photo.load(8, 6).alpha.max() for photo in images.photos]
    assert alphas == [0, 255, 0] and not images.photos[0].has_mask
    ignored = read_images(tmp_path, ReadConfig(masks="ignore"))
    assert ignored.background is None and ignored.photos[0].has_mask and not ignored.photos[0].has_alpha
    off = read_images(tmp_path, ReadConfig(masks="off"))
    assert off.background is None and off.photos[0].mask is None and len(off.notes) == 1


def test_idr_masks_by_name_and_by_order(tmp_path):
    idr(tmp_path, masks="{:06d}.png")
    (tmp_path / "mask" / "000001.png").unlink()
    images = read_images(tmp_path)
    assert [photo.has_alpha for photo in images.photos] == [True, False, True]
    assert "masks: 2 of 3 photos have one in mask/; masked pixels are transparent" in images.notes
    other = idr(tmp_path / "other")
    (other / "mask" / "001.png").unlink()
    with pytest.raises(FormatError, match=r"2 masks for 3 photos, and none is named like a photo"):
        read_images(other)
    assert len(read_images(other, ReadConfig(masks="off")).photos) == 3


@pytest.mark.parametrize("times", [2, 4])
def test_idr_matrices_of_the_full_size(tmp_path, times):
    full = np.diag([times, times, 1.0]) @ K
    images = read_images(idr(tmp_path, K=full))
    np.testing.assert_allclose(images.cameras["000000.png"].K, K, atol=1e-9)
    text = f"is for photos of {80 * times}×{60 * times} px (twice its principal point), and is scaled to 80×60 px"
    assert any(text in note for note in images.notes)


def test_idr_matrices_of_a_smaller_size_and_of_crops(tmp_path):
    half = np.diag([0.5, 0.5, 1.0]) @ K
    images = read_images(idr(tmp_path, K=half))
    np.testing.assert_allclose(images.cameras["000000.png"].K, K, atol=1e-9)
    for index, point in enumerate([(60.0, 30.0), (60.0, 45.0), (-5.0, 30.0), (1e7, 1e7)]):
        crop = K.copy()
        crop[:2, 2] = point
        images = read_images(idr(tmp_path / str(index), K=crop))
        np.testing.assert_allclose(images.cameras["000000.png"].K, crop, rtol=1e-9)
        assert len(images.notes) == 2


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ([0, 1], r"2 matrices 'world_mat_N' for the 3 photos of image/ \('world_mat_2' is missing\)"),
        ([0, 1, 2, 10], r"4 matrices .*\('world_mat_10' is one too many\)"),
        ([0, 1, 3], r"3 matrices .*\('world_mat_2' is missing\)"),
        ([], r"0 matrices .*\('world_mat_0' is missing\); expected one a photo, counted from 0"),
    ],
)
def test_idr_keys_must_fit_the_photos(tmp_path, keys, says):
    with pytest.raises(FormatError, match=says):
        read_images(idr(tmp_path, keys=keys))


@pytest.mark.parametrize(
    ("matrix", "says"),
    [
        (np.eye(3), r"'world_mat_1' \(000001\.png\): has shape \[3, 3\]; expected \[4, 4\] or \[3, 4\]"),
        (np.full((4, 4), np.nan), "'world_mat_1' .*not finite"),
        (np.full((4, 4), 1.0), r"the last row is \[1\. 1\. 1\. 1\.\]; expected 0 0 0 1"),
        (np.zeros((3, 4)), r"its left 3×3 block has no inverse"),
        (np.ones((3, 4)), r"its left 3×3 block has no inverse"),
        (np.full((3, 4), 1e300), r"its left 3×3 block has no inverse"),
        (np.array([[70, 5, 40, 0], [0, 70, 30, 0], [0, 0, 1.0, 0]]), r"a skew of 5 px, .* by up to 2\.1 px"),
    ],
)
def test_idr_bad_matrices(tmp_path, matrix, says):
    idr(tmp_path)
    good = dict(np.load(tmp_path / "cameras_sphere.npz"))
    np.savez(tmp_path / "cameras_sphere.npz", **{**good, "world_mat_1": matrix})
    with pytest.raises(BadPoses, match=says):
        read_images(tmp_path)


def test_idr_a_little_skew_is_rounding(tmp_path):
    skewed = K.copy()
    skewed[0, 1] = 0.01
    np.testing.assert_allclose(read_images(idr(tmp_path, K=skewed)).cameras["000000.png"].K, K, atol=1e-9)


def test_idr_without_photos_and_without_cameras(tmp_path):
    idr(tmp_path)
    for path in (tmp_path / "image").iterdir():
        path.unlink()
    with pytest.raises(NoImages, match=r"cameras_sphere\.npz has poses, but there are no photos in image/"):
        read_images(tmp_path)
    with pytest.raises(FormatError, match=r"has neither cameras_sphere\.npz nor cameras\.npz"):
        read_images(tmp_path / "mask", ReadConfig(format="idr"))


# ------------------------------------------------------------------------------------------------------ .npy and .npz
def npy(array, **options):
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    "array", [np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.arange(4, dtype=">i2")]
)
def test_arrays_of_any_order_and_width(tmp_path, array):
    (tmp_path / "a.npy").write_bytes(npy(array))
    got = arrays.read_npy(tmp_path / "a.npy")
    assert got.dtype == np.float64
    np.testing.assert_array_equal(got, array)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "its header cannot be read"),
        (npy(np.zeros(3))[:20], "its header cannot be read"),
        (npy(np.zeros(3)).replace(b"(3,)", b"(3,("), "its header cannot be read"),
        (npy(np.zeros(3)).replace(b"NUMPY\x01", b"NUMPY\x07"), "its header cannot be read"),
        (npy(np.zeros(3))[:-1], r"23 bytes after offset 128; expected 24 for the \[3\] float64"),
        (npy(np.zeros(3)) + b"x", "25 bytes after offset 128; expected 24"),
        (npy(np.zeros(3)).replace(b"(3,), }         ", b"(900000000000,)}"), "expected 7200000000000"),
        (npy(np.zeros(3)).replace(b"(3,), ", b"(-3,),"), "its header cannot be read"),
        (npy(np.zeros(3)).replace(b"'<f8'", b"[('',"), "its header cannot be read"),
        (npy(np.zeros(3)).replace(b"'<f8'", b"3.5-1"), "its header cannot be read"),
        (npy(np.array([None]), allow_pickle=True), r"holds object \[1\]; expected an array of numbers"),
        (npy(np.array(["text"])), "holds <U4"),
        (npy(np.zeros(3, complex)), "holds complex128"),
    ],
)
def test_arrays_that_lie(tmp_path, data, says):
    path = tmp_path / "a.npy"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=rf"a\.npy: .*{says}"):
        arrays.read_npy(path)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("b.npy", data)
    with pytest.raises(FormatError, match=rf"a\.npz, 'b': .*{says}"):
        arrays.read_npz(tmp_path / "a.npz")


def test_archives_that_lie(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, a=np.zeros(100000), b=np.arange(3))
    assert arrays.read_npz(path).keys() == {"a", "b"}
    whole = path.read_bytes()
    for data, says in [
        (b"", "not an archive"),
        (whole[:-30], "not an archive"),
        (whole.replace(b"b.npy", b"a.npy"), "holds 'a' twice|not an archive"),
        (whole[:200] + b"\xaa" * 9 + whole[209:], "or damaged"),
    ]:
        path.write_bytes(data)
        with pytest.raises(FormatError, match=rf"a\.npz.*({says})"):
            arrays.read_npz(path)
    path.write_bytes(whole)
    monkeypatch.setattr(arrays, "MAX_BYTES", 10000)
    with pytest.raises(FormatError, match=r"promises 800\d\d\d bytes of content; expected at most 10000"):
        arrays.read_npz(path)
    monkeypatch.setattr(arrays, "MAX_BYTES", 100)
    with pytest.raises(FormatError, match=rf"{len(whole)} bytes; expected at most 100 of a camera file"):
        arrays.read_npz(path)
    with pytest.raises(FormatError, match=r"absent: cannot be read \(No such file or directory\)"):
        arrays.read_npy(tmp_path / "absent")


# --------------------------------------------------------------------------------------------------- NeRF++ and NSVF
def text(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(" ".join(f"{value:.17g}" for value in np.ravel(values)))


def four(K):
    matrix = np.eye(4)
    matrix[:3, :3] = K
    return matrix


def nerfpp(folder):
    for i, split in enumerate(["train", "train", "train", "test", "validation"]):
        photo(folder / split / "rgb" / f"{i}.png")
        text(folder / split / "pose" / f"{i}.txt", np.linalg.inv(rigid(i)))
        text(folder / split / "intrinsics" / f"{i}.txt", four(K))
    return folder


def nsvf(folder, names=("0_a", "0_b", "1_c", "2_d"), intrinsics=None):
    for i, name in enumerate(names):
        photo(folder / "rgb" / f"{name}.png")
        text(folder / "pose" / f"{name}.txt", np.linalg.inv(rigid(i)))
    text(folder / "intrinsics.txt", four(K) if intrinsics is None else intrinsics)
    return folder


def test_nerfpp(tmp_path):
    images = read_images(nerfpp(tmp_path))
    assert images.format == "nerfpp" and images.notes == ("read as NeRF++: 3 train and 1 test photos",)
    assert images.test_names == {"test/rgb/3.png"} and len(images.photos) == 4
    for i in range(3):
        camera = images.cameras[f"train/rgb/{i}.png"]
        np.testing.assert_allclose(camera.K, K, atol=1e-12)
        np.testing.assert_allclose(camera.cam_from_world, rigid(i), atol=1e-12)
    (tmp_path / "train" / "pose" / "1.txt").unlink()
    (tmp_path / "test" / "intrinsics" / "3.txt").unlink()
    images = read_images(tmp_path)
    assert images.notes[1:] == (
        "1 of 3 photos of train have no pose and are left out",
        "1 of 1 photos of test have no pose and are left out",
    )
    assert images.test_names is None and len(images.cameras) == 2
    for i in (0, 2):
        (tmp_path / "train" / "pose" / f"{i}.txt").unlink()
    with pytest.raises(NoImages, match=r"no photo in train/rgb has a file of its name in train/pose"):
        read_images(tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "error", "says"),
    [
        ("pose", "1 2 3", FormatError, r"pose/1\.txt: 3 numbers; expected the 16 of a 4×4 matrix"),
        ("pose", "1 " * 15 + "x", FormatError, r"pose/1\.txt: cannot be read as numbers \(could not convert"),
        ("pose", "1 " * 15 + "1_0", FormatError, "an underscore in a number"),
        ("pose", "1 " * 15 + "é", FormatError, "cannot be read as numbers"),
        ("pose", "1 " * 40000, FormatError, "80000 bytes; expected a few numbers as text"),
        ("pose", "1 " * 15 + "nan", BadPoses, r"pose/1\.txt: not finite"),
        ("pose", "1 " * 16, BadPoses, r"pose/1\.txt: the last row of the pose is \[1\. 1\. 1\. 1\.\]"),
        ("pose", "2 0 0 0 0 2 0 0 0 0 2 0 0 0 0 1", BadPoses, "not a rotation"),
        ("intrinsics", "1 " * 16, BadPoses, r"intrinsics/1\.txt: the rows of K are .*expected fx 0 cx, 0 fy cy, 0 0 1"),
        ("intrinsics", "9 5 4 0 0 9 3 0 0 0 1 0 0 0 0 1", BadPoses, r"intrinsics/1\.txt: a skew of 5 px"),
        ("intrinsics", "0 0 4 0 0 0 3 0 0 0 1 0 0 0 0 1", BadPoses, "focal length 0 × 0 px"),
    ],
)
def test_nerfpp_bad_text(tmp_path, file, content, error, says):
    (nerfpp(tmp_path) / "train" / file / "1.txt").write_text(content)
    with pytest.raises(error, match=says):
        read_images(tmp_path)


def test_nsvf(tmp_path):
    images = read_images(nsvf(tmp_path))
    assert images.format == "nsvf" and images.test_names == {"2_d.png"}
    assert images.notes == (
        "read as NSVF: rgb + pose + intrinsics.txt, 3 photos",
        "1 photos for validation (1_…) are not used",
    )
    np.testing.assert_allclose(images.cameras["0_b.png"].cam_from_world, rigid(1), atol=1e-12)
    np.testing.assert_allclose(images.cameras["0_b.png"].K, K, atol=1e-12)
    temples = read_images(nsvf(tmp_path / "temples", names=("0_a", "0_b", "1_c")))
    assert temples.test_names == {"1_c.png"} and len(temples.photos) == 3
    (tmp_path / "temples" / "pose" / "0_a.txt").unlink()
    assert read_images(tmp_path / "temples").notes[1] == "1 of 3 photos have no pose and are left out"
    for path in (tmp_path / "temples" / "pose").iterdir():
        path.unlink()
    with pytest.raises(NoImages, match=r"none of the 3 photos in rgb/ has a file of its name in pose/"):
        read_images(tmp_path / "temples")


def test_nsvf_synthetic_intrinsics(tmp_path):
    numbers = [140.0, 80, 60, 0, 0, 0, 0, 0, 1, 120, 160]
    images = read_images(nsvf(tmp_path, intrinsics=numbers))
    np.testing.assert_allclose(images.cameras["0_a.png"].K, [[70, 0, 40], [0, 70, 30], [0, 0, 1]])
    for bad in ([140.0, 80, 60], [140.0, 80, 60, 0, 0, 0]):
        text(tmp_path / "intrinsics.txt", bad)
        with pytest.raises(FormatError, match=rf"intrinsics\.txt: {len(bad)} numbers; expected the 16"):
            read_images(tmp_path)
