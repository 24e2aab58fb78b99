"""Readers of posed scenes on hand-made folders: conventions with numbers to check by hand, and every bad input."""

from __future__ import annotations

import json
import math
import struct

import numpy as np
import pytest
from PIL import Image

from splatinit.errors import BadPoints, BadPoses, ConfigError, FormatError, NoImages, SceneError, SplatinitError
from splatinit.io.colmap_model import ColmapCamera, read_model, write_model
from splatinit.io.images import write_png
from splatinit.io.read import READERS, ReadConfig, every_eighth, match_names, read_images
from splatinit.types import Camera, PointCloud, View


def photo(path, width=8, height=6, alpha=False, value=90):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, np.full((height, width, 4 if alpha else 3), value, np.uint8))


def full(name):
    """The name with a suffix, for files to be made."""
    return name if name.endswith(".png") else name + ".png"


# A camera at (1, 2, 3) in OpenGL axes that looks along world +x with world z up: its backward axis is −x.
LOOK_X = [[0, 0, -1, 1], [-1, 0, 0, 2], [0, 1, 0, 3], [0, 0, 0, 1]]


def frame(name, matrix=LOOK_X, **more):
    return {"file_path": name, "transform_matrix": matrix, **more}


def transforms(folder, frames, photos=True, name="transforms.json", **settings):
    folder.mkdir(parents=True, exist_ok=True)
    if photos:
        for each in frames:
            photo(folder / full(each["file_path"]))
    settings = {"fl_x": 10.0, **settings}
    (folder / name).write_text(json.dumps({**settings, "frames": frames}))
    return folder


# -------------------------------------------------------------------------------------------------------- nerfstudio
def test_opengl_pose_by_hand(tmp_path):
    images = read_images(transforms(tmp_path, [frame("images/a.png")]))
    camera = images.cameras["images/a.png"]
    assert images.format == "nerfstudio"
    np.testing.assert_allclose(camera.center, [1, 2, 3])
    # A point 5 ahead (world +x), 1 to the camera's right (world −y) and 2 up (world +z).
    np.testing.assert_allclose(camera.cam_from_world @ [6, 1, 5, 1], [1, -2, 5, 1], atol=1e-12)
    np.testing.assert_allclose(camera.K, [[10, 0, 4], [0, 10, 3], [0, 0, 1]])
    camera.check("test")


def test_intrinsics_of_file_frame_and_angle(tmp_path):
    frames = [
        frame("a.png"),
        frame("b.png", fl_x=20.0, fl_y=30.0, cx=1.0, cy=2.0, w=16, h=12),
        frame("c.png", fl_x=None, camera_angle_x=math.pi / 2),
        frame("d.png", fl_x=None, camera_angle_y=math.pi / 2),
    ]
    cameras = read_images(transforms(tmp_path, frames)).cameras
    np.testing.assert_allclose(cameras["a.png"].K[:2], [[10, 0, 4], [0, 10, 3]])
    # Given for 16×12, the file has 8×6: halved.
    np.testing.assert_allclose(cameras["b.png"].K[:2], [[10, 0, 0.5], [0, 15, 1]])
    np.testing.assert_allclose(cameras["c.png"].K[:2], [[4, 0, 4], [0, 4, 3]])
    np.testing.assert_allclose(cameras["d.png"].K[:2], [[3, 0, 4], [0, 3, 3]])


def test_missing_frames_are_skipped_and_counted(tmp_path):
    folder = transforms(tmp_path, [frame("a.png"), frame("gone.png"), frame("b")], photos=False)
    photo(folder / "a.png")
    photo(folder / "b.png")
    images = read_images(folder)
    assert [p.name for p in images.photos] == ["a.png", "b.png"]
    assert "1 of 3 frames have no file and were skipped" in images.notes
    assert images.test_names is None


def test_only_missing_frames(tmp_path):
    folder = transforms(tmp_path, [frame("x/a.png"), frame("b.png")], photos=False)
    with pytest.raises(NoImages, match=r"none of the 2 images it names exists .*'x/a.png'"):
        read_images(folder)
    with pytest.raises(NoImages, match="names no images"):
        read_images(transforms(tmp_path / "none", []))


def test_split_by_filenames(tmp_path):
    names = [f"images/{i}.png" for i in range(5)]
    folder = transforms(
        tmp_path,
        [frame(name) for name in names],
        train_filenames=[names[0], "./" + names[1], "gone.png"],
        test_filenames=["images/2"],
        val_filenames=[names[3]],
    )
    images = read_images(folder)
    assert images.test_names == {"images/2.png"}
    assert [p.name for p in images.photos] == names[:3] and set(images.cameras) == set(names[:3]) == set(images.sizes)
    assert any("2 images are in neither list" in note for note in images.notes)
    assert any("1 of 3 train entries" in note for note in images.notes)


def test_images_reduced_by_a_folder(tmp_path):
    folder = transforms(tmp_path, [frame("images/a.png")], w=8, h=6)
    photo(folder / "images_2" / "a.png", 4, 3)
    images = read_images(folder, ReadConfig(downscale=2))
    assert images.photos[0].path.parent.name == "images_2" and images.photos[0].name == "images/a.png"
    assert images.sizes == {"images/a.png": (4, 3)}
    np.testing.assert_allclose(images.cameras["images/a.png"].K, [[5, 0, 2], [0, 5, 1.5], [0, 0, 1]])
    by_resizing = read_images(folder, ReadConfig(downscale=4))
    assert by_resizing.photos[0].path.parent.name == "images" and by_resizing.sizes == {"images/a.png": (2, 2)}


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ([[math.nan, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], "non-finite"),
        ([[1, 0, 0, math.inf], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], "non-finite"),
        (np.zeros((4, 4)).tolist(), "last row"),
        ([[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]], "not a rotation"),
        ([[2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]], "not a rotation"),
        ([[-1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], "not a rotation"),
        ([[1, 0], [0, 1]], "shape"),
        ([[1, 0, 0], [0, 1], [0]], "not a matrix of numbers"),
        ("identity", "not a matrix of numbers"),
        (None, "not a matrix of numbers"),
    ],
)
def test_bad_poses_name_the_frame(tmp_path, broken, says):
    folder = transforms(tmp_path, [frame("a.png"), frame("bad.png", broken)])
    with pytest.raises(BadPoses, match=says) as caught:
        read_images(folder)
    assert "bad.png" in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"fl_x": math.nan}, BadPoses, "non-finite"),
        ({"fl_x": 0}, BadPoses, "focal length"),
        ({"fl_x": -5}, BadPoses, "focal length"),
        ({"fl_x": None}, BadPoses, "no focal length"),
        ({"fl_x": "10"}, FormatError, "'fl_x' is '10'"),
        ({"fl_x": None, "camera_angle_x": 4.0}, BadPoses, "between 0 and π"),
        ({"w": 0, "h": 6}, BadPoses, "image size"),
        ({"w": 6, "h": 8}, FormatError, "same proportions"),
        ({"camera_model": "EQUIRECTANGULAR"}, FormatError, "camera model is 'EQUIRECTANGULAR'; expected one that"),
        ({"camera_model": 3}, FormatError, "camera model is '3'"),
        ({"latlong": True}, FormatError, "camera model is 'latlong'"),
        ({"is_fisheye": "no"}, FormatError, "'is_fisheye' is 'no'"),
        ({"k4": 0.1}, FormatError, "k4 = 0.1 is no coefficient of the lens 'brown'"),
        ({"is_fisheye": True, "p1": 0.1}, FormatError, "p1 = 0.1 is no coefficient of the lens 'fisheye'"),
        ({"distortion_params": [0.1]}, FormatError, "expected the 6 numbers k1 k2 k3 k4 p1 p2"),
        ({"distortion_params": ["a"] * 6}, FormatError, "'k4' is 'a'"),
        ({"is_fisheye": True, "k1": -9.0}, FormatError, "(?s)folds over.*order .k1 k2 k3 k4."),
        ({"k1": -9.0}, FormatError, "folds over"),
        ({"fl_x": 10**400}, BadPoses, "non-finite"),
    ],
)
def test_bad_intrinsics(tmp_path, settings, error, says):
    with pytest.raises(error, match=says):
        read_images(transforms(tmp_path, [frame("a.png")], **settings))


@pytest.mark.parametrize(
    "path", ["../secret.png", "/etc/secret.png", "images/../../secret.png", "..\\secret.png", ".", "a/.."]
)
def test_paths_may_not_leave_the_folder(tmp_path, path):
    photo(tmp_path / "secret.png")
    folder = transforms(tmp_path / "scene", [frame(path)], photos=False)
    with pytest.raises(SceneError, match="leads out of the scene folder|is the scene folder itself"):
        read_images(folder)


def test_linked_image_folders_are_followed(tmp_path):
    photo(tmp_path / "elsewhere" / "a.png")
    folder = transforms(tmp_path / "scene", [frame("images/a.png")], photos=False)
    (folder / "images").symlink_to(tmp_path / "elsewhere")
    assert len(read_images(folder).photos) == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{\n "frames": [,]\n}', "line 2, column"),
        ("[]", "the top is a list"),
        ("{}", "no list 'frames'"),
        ('{"frames": [{}]}', "frame 0: has no text 'file_path'"),
        ('{"frames": ["a.png"]}', "frame 0"),
        ("[" * 100_000, "JSON"),
        ('{"train_filenames": 3, "fl_x": 5, "frames": []}', "names no images"),
    ],
)
def test_damaged_transforms(tmp_path, text, says):
    (tmp_path / "transforms.json").write_text(text)
    with pytest.raises(SplatinitError, match=says):
        read_images(tmp_path)
    (tmp_path / "transforms.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FormatError):
        read_images(tmp_path)


def test_one_frame_a_file(tmp_path):
    with pytest.raises(FormatError, match="has a frame already"):
        read_images(transforms(tmp_path, [frame("a.png"), frame("./a.png")]))


def test_unreadable_photo_of_a_scene(tmp_path):
    folder = transforms(tmp_path, [frame("a.png")])
    (folder / "a.png").write_bytes(b"nonsense")
    with pytest.raises(FormatError, match="a.png"):
        read_images(folder)


def test_turned_photos_are_taken_as_the_camera_fits(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("stored.png", "upright.png"):
        Image.new("RGB", (8, 6)).save(tmp_path / name, exif=exif)
    frames = [frame("stored.png", w=8, h=6), frame("upright.png", w=6, h=8)]
    images = read_images(transforms(tmp_path, frames, photos=False))
    assert images.sizes == {"stored.png": (8, 6), "upright.png": (6, 8)}
    for each in images.photos:
        width, height = images.sizes[each.name]
        assert each.load(width, height).rgb.shape == (height, width, 3)


def test_scene_file_instead_of_folder(tmp_path):
    folder = transforms(tmp_path, [frame("a.png")])
    (folder / "transforms.json").rename(folder / "cameras_v2.json")
    assert read_images(folder / "cameras_v2.json").format == "nerfstudio"


# ----------------------------------------------------------------------------------------------------------- blender
def blender(folder, train=("train/r_0", "train/r_1"), test=("test/r_0",)):
    for name, frames in (("train", train), ("test", test)):
        settings = {"fl_x": None, "camera_angle_x": math.pi / 2}
        transforms(folder, [frame(f"./{f}") for f in frames], False, f"transforms_{name}.json", **settings)
        for each in frames:
            photo(folder / f"{each}.png", 8, 8, alpha=True)
    return folder


def test_blender(tmp_path):
    images = read_images(blender(tmp_path), ReadConfig(max_size=4))
    assert images.format == "blender" and images.background == (1.0, 1.0, 1.0)
    assert images.test_names == {"test/r_0.png"}
    assert [p.name for p in images.photos] == ["test/r_0.png", "train/r_0.png", "train/r_1.png"]
    np.testing.assert_allclose(images.cameras["train/r_1.png"].K, [[2, 0, 2], [0, 2, 2], [0, 0, 1]])
    assert all(p.has_alpha for p in images.photos)


def test_blender_bad_input(tmp_path):
    with pytest.raises(FormatError, match="both transforms_train.json and transforms_test.json"):
        read_images(blender(tmp_path / "twice", test=("train/r_0",)))
    folder = blender(tmp_path / "no_test")
    (folder / "transforms_test.json").unlink()
    assert read_images(folder).test_names is None
    for each in (folder / "train").iterdir():
        each.unlink()
    with pytest.raises(NoImages, match="none of the 2 images"):
        read_images(folder)


# ------------------------------------------------------------------------------------------------------------ photos
def test_plain_folder(tmp_path):
    for name in ("b.png", "a.png", "masks/b.png"):
        photo(tmp_path / name)
    images = read_images(tmp_path)
    assert images.format == "photos" and [p.name for p in images.photos] == ["a.png", "b.png"]
    assert images.cameras == {} and images.background is None and images.points is None
    assert images.photo("b.png").path == tmp_path / "b.png"


def test_photos_in_images_folder_and_below(tmp_path):
    photo(tmp_path / "images" / "left" / "1.png")
    photo(tmp_path / "images" / "right" / "1.png")
    assert [p.name for p in read_images(tmp_path).photos] == ["images/left/1.png", "images/right/1.png"]


def test_sizes(tmp_path):
    photo(tmp_path / "a.png", 50, 33)

    def size(**settings):
        return read_images(tmp_path, ReadConfig(**settings)).sizes["a.png"]

    assert size() == (50, 33) == size(max_size=None) == size(max_size=50)
    assert size(max_size=25) == (25, 17)
    assert size(downscale=4) == (13, 8) == size(downscale=4, max_size=5)
    assert size(max_size=1) == (1, 1)
    for wrong in ({"max_size": 0}, {"downscale": 0.5}, {"downscale": math.nan}):
        with pytest.raises(ConfigError):
            ReadConfig(**wrong)


def test_no_images(tmp_path):
    with pytest.raises(NoImages, match="no such folder"):
        read_images(tmp_path / "absent")
    with pytest.raises(NoImages, match="nothing"):
        read_images(tmp_path)
    (tmp_path / "a.cr2").write_bytes(b"")
    with pytest.raises(NoImages, match=r"1 × \.cr2"):
        read_images(tmp_path)
    with pytest.raises(NoImages, match="not a folder"):
        read_images(tmp_path / "a.cr2")
    photo(tmp_path / "deep" / "er" / "a.png")
    with pytest.raises(NoImages, match=r"deep/er/ \(1\)"):
        read_images(tmp_path)
    (tmp_path / "b.jpg").write_bytes(b"no photo")
    with pytest.raises(FormatError, match="b.jpg"):
        read_images(tmp_path)


def test_format_by_name(tmp_path):
    transforms(tmp_path, [frame("a.png")])
    blender(tmp_path)
    images = read_images(tmp_path)
    assert images.format == "blender" and any("also looks like nerfstudio" in note for note in images.notes)
    assert read_images(tmp_path, ReadConfig(format="nerfstudio")).format == "nerfstudio"
    assert read_images(tmp_path, ReadConfig(format="photos")).cameras == {}
    with pytest.raises(ConfigError, match="nerfstudio"):
        read_images(tmp_path, ReadConfig(format="nerfstudoi"))
    with pytest.raises(FormatError, match="no COLMAP model"):
        read_images(tmp_path, ReadConfig(format="colmap"))
    for spec in READERS:
        assert callable(READERS.load(spec.name))


# ------------------------------------------------------------------------------------------------------------- split
def test_every_eighth():
    names = [f"{i:03d}" for i in range(17)]
    assert every_eighth(reversed(names)) == {"000", "008", "016"}
    # From one photo nothing can be reconstructed: of two, both are for training.
    assert every_eighth(names[:3]) == {"000"} and every_eighth(names[:2]) == frozenset()


@pytest.mark.parametrize("place", ["test.txt", "sparse/0/test.txt", "split.json", "splits.json"])
def test_split_files(tmp_path, place):
    for i in range(4):
        photo(tmp_path / f"{i}.png")
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"test": ["1", "3.png"]}) if place.endswith("json") else "# held out\n1\n\n3.png # too\n"
    (tmp_path / place).write_text(text)
    assert read_images(tmp_path).test_names == {"1.png", "3.png"}


def test_train_list_alone_and_bad_lists(tmp_path):
    for i in range(4):
        photo(tmp_path / f"{i}.png")
    (tmp_path / "train.txt").write_text("0\n1\n")
    assert read_images(tmp_path).test_names == {"2.png", "3.png"}
    (tmp_path / "test.txt").write_text("1\n")
    with pytest.raises(FormatError, match="1 images are both train and test"):
        read_images(tmp_path)
    (tmp_path / "test.txt").write_text("photo17\nphoto18\n")
    with pytest.raises(FormatError, match="none of its 2 test entries"):
        read_images(tmp_path)
    (tmp_path / "test.txt").unlink()
    (tmp_path / "train.txt").write_text("0\n1\n2\n3\n")
    images = read_images(tmp_path)
    assert images.test_names is None and any("no image for testing" in note for note in images.notes)
    (tmp_path / "train.txt").write_bytes(b"\xff\xff")
    with pytest.raises(FormatError, match="as text"):
        read_images(tmp_path)
    (tmp_path / "train.txt").unlink()
    for text, says in (('{"test": 3}', "not a list"), ("{}", "neither")):
        (tmp_path / "split.json").write_text(text)
        with pytest.raises(FormatError, match=says):
            read_images(tmp_path)


def test_matching_names():
    known = ["images/a.png", "images/b.png", "test/r_0.png", "train/r_0.png"]
    found, unknown = match_names(["a.png", "./images/b", "train/r_0", "/abs/images/a.png", "val/r_0", "."], known, "x")
    assert found == {"images/a.png", "images/b.png", "train/r_0.png"} and unknown == ["val/r_0", "."]
    with pytest.raises(FormatError, match="could mean 2 images"):
        match_names(["r_0"], known, "x")
    assert match_names(["images/a.png"], ["a.png"], "x")[0] == {"a.png"}


# ------------------------------------------------------------------------------------------------------------ colmap
def rigid(seed):
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = q * np.linalg.det(q), rng.normal(size=3)
    return pose


def colmap_scene(folder, binary=True, n=3, points=5):
    K = np.array([[7.0, 0, 4.1], [0, 7.5, 2.9], [0, 0, 1]])
    views = []
    for i in range(n):
        photo(folder / "images" / f"{i}.png")
        views.append(View(f"{i}.png", Camera(K, rigid(i), 8, 6), None))
    rng = np.random.default_rng(0)
    cloud = PointCloud(rng.normal(size=(points, 3)), rng.integers(0, 256, (points, 3)) / 255.0)
    write_model(folder / "sparse" / "0", views, cloud if points else None, binary=binary)
    return views, cloud


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("place", ["sparse/0", "sparse", "."])
def test_colmap_there_and_back(tmp_path, binary, place):
    views, cloud = colmap_scene(tmp_path, binary)
    if place != "sparse/0":
        for file in (tmp_path / "sparse" / "0").iterdir():
            file.rename(tmp_path / place / file.name)
    images = read_images(tmp_path)
    assert images.format == "colmap" and list(images.cameras) == ["0.png", "1.png", "2.png"]
    for view in views:
        camera = images.cameras[view.name]
        np.testing.assert_allclose(camera.cam_from_world, view.camera.cam_from_world, atol=1e-14)
        np.testing.assert_array_equal(camera.K, view.camera.K)
    np.testing.assert_array_equal(images.points.xyz, cloud.xyz)
    np.testing.assert_array_equal(images.points.rgb, cloud.rgb)
    assert len(read_model(tmp_path / place).cameras) == 1


def test_half_turns_have_quaternions(tmp_path):
    for axis in np.eye(3):
        pose = np.eye(4)
        pose[:3, :3] = 2 * np.outer(axis, axis) - np.eye(3)
        write_model(tmp_path, [View("a.png", Camera(np.eye(3), pose, 8, 6), None)], None)
        image = read_model(tmp_path).images[1]
        np.testing.assert_allclose(image.cam_from_world("a"), pose, atol=1e-15)
        assert np.linalg.norm(image.qvec) == pytest.approx(1.0)


def test_colmap_reads_its_own_text(tmp_path):
    """A model as COLMAP writes it: comments, features, tracks, a name with a space, an image without features."""
    photo(tmp_path / "images" / "my photo.png")
    photo(tmp_path / "images" / "b.png")
    model = tmp_path / "sparse" / "0"
    model.mkdir(parents=True)
    (model / "cameras.txt").write_text("# Camera list\n\n3 SIMPLE_RADIAL 8 6 7.0 4 3 0.01\n")
    (model / "images.txt").write_text(
        "# Image list\n9 1 0 0 0 0 0 0 3 my photo.png\n1.5 2.5 7 3.0 1.0 -1\n4 0.5 0.5 0.5 0.5 1 2 3 3 b.png\n"
    )
    (model / "points3D.txt").write_text("# points\n7 0.5 1 2 255 0 51 0.7 9 0 4 0\n")
    read = read_model(model)
    np.testing.assert_array_equal(read.images[9].xys, [[1.5, 2.5], [3.0, 1.0]])
    np.testing.assert_array_equal(read.images[9].point3D_ids, [7, -1])
    assert len(read.images[4].xys) == 0
    assert read.points.ids.tolist() == [7] and read.points.track_lengths.tolist() == [2]
    images = read_images(tmp_path)
    # The quaternion (½, ½, ½, ½) turns x into y, y into z, z into x.
    np.testing.assert_allclose(
        images.cameras["b.png"].cam_from_world, [[0, 0, 1, 1], [1, 0, 0, 2], [0, 1, 0, 3], [0, 0, 0, 1]], atol=1e-15
    )
    assert all(p.lenses for p in images.photos) and "lens distortion removed" in images.notes[0]
    np.testing.assert_allclose(images.points.rgb, [[1.0, 0.0, 0.2]])


@pytest.mark.parametrize(
    ("model", "params", "K", "distortion"),
    [
        ("SIMPLE_PINHOLE", [7, 4, 3], (7, 7, 4, 3), (0, 0, 0, 0)),
        ("PINHOLE", [7, 8, 4, 3], (7, 8, 4, 3), (0, 0, 0, 0)),
        ("SIMPLE_RADIAL", [7, 4, 3, 0.1], (7, 7, 4, 3), (0.1, 0, 0, 0)),
        ("RADIAL", [7, 4, 3, 0.1, 0.2], (7, 7, 4, 3), (0.1, 0.2, 0, 0)),
        ("OPENCV", [7, 8, 4, 3, 0.1, 0.2, 0.3, 0.4], (7, 8, 4, 3), (0.1, 0.2, 0.3, 0.4)),
    ],
)
def test_colmap_camera_models(model, params, K, distortion):
    got, coefficients = ColmapCamera(model, 8, 6, np.array(params, float)).pinhole("x")
    assert (got[0, 0], got[1, 1], got[0, 2], got[1, 2]) == K
    assert (*coefficients.coefficients, 0, 0, 0, 0)[:4] == distortion and coefficients.model == "brown"


def test_colmap_images_n_and_missing(tmp_path):
    colmap_scene(tmp_path)
    for i in range(3):
        photo(tmp_path / "images_2" / f"{i}.png", 4, 3)
    images = read_images(tmp_path, ReadConfig(downscale=2))
    assert "images_2 + sparse/0 (bin)" in images.notes[0] and images.sizes["0.png"] == (4, 3)
    np.testing.assert_allclose(images.cameras["0.png"].K, [[3.5, 0, 2.05], [0, 3.75, 1.45], [0, 0, 1]])
    (tmp_path / "images" / "1.png").unlink()
    photo(tmp_path / "images" / "other.png")
    images = read_images(tmp_path)
    assert list(images.cameras) == ["0.png", "2.png"]
    assert "1 of 3 images of the model have no file and were skipped" in images.notes
    assert "1 photos of images are not in the model and are left out" in images.notes
    (tmp_path / "images" / "0.png").unlink()
    (tmp_path / "images" / "2.png").unlink()
    with pytest.raises(NoImages, match="none of the 3 images"):
        read_images(tmp_path)


def test_colmap_without_points(tmp_path):
    colmap_scene(tmp_path, points=0)
    assert read_images(tmp_path).points is None
    (tmp_path / "sparse" / "0" / "points3D.bin").unlink()
    assert read_images(tmp_path).points is None


@pytest.mark.parametrize("part", ["cameras", "images", "points3D"])
def test_truncated_binaries(tmp_path, part):
    """Every cut, a byte too many, and counts that lie: an error, never a crash, a hang or a huge allocation."""
    colmap_scene(tmp_path, n=2, points=2)
    file = tmp_path / "sparse" / "0" / f"{part}.bin"
    whole = file.read_bytes()
    for size in range(len(whole)):
        file.write_bytes(whole[:size])
        with pytest.raises(FormatError, match=part):
            read_model(file.parent)
    broken = [whole + b"\0"] + [struct.pack("<Q", n) + whole[8:] for n in (0, 1, 3, 2**40, 2**64 - 1)]
    if part == "cameras":
        broken = [data for data in broken if data[8:] != whole[8:] or data[:8] != struct.pack("<Q", 1)]
    for data in broken:
        file.write_bytes(data)
        with pytest.raises(FormatError, match=part):
            read_model(file.parent)


def test_random_damage_never_crashes(tmp_path):
    colmap_scene(tmp_path, n=2, points=2)
    rng = np.random.default_rng(1)
    for part in ("cameras", "images", "points3D"):
        file = tmp_path / "sparse" / "0" / f"{part}.bin"
        whole = file.read_bytes()
        for _ in range(60):
            data = bytearray(whole)
            for at in rng.integers(0, len(data), 3):
                data[at] = rng.integers(0, 256)
            file.write_bytes(bytes(data))
            try:
                read_images(tmp_path)
            except SplatinitError as error:
                assert str(error)
        file.write_bytes(whole)


@pytest.mark.parametrize(
    ("file", "text", "error", "says"),
    [
        ("cameras", "1 PINHOLE 8 6 7 7 4", FormatError, "cameras.txt, line 1"),
        ("cameras", "1 PINHOLE 8 0 7 7 4 3", FormatError, "possible image size"),
        ("cameras", "1 PINHOLE 8 6 nan 7 4 3", BadPoses, "non-finite"),
        ("cameras", "1 PINHOLE 8 6 -7 7 4 3", BadPoses, "focal length"),
        ("cameras", "1 PINHOLE 6 8 7 7 4 3", FormatError, "same proportions"),
        ("cameras", "1 EQUIRECTANGULAR 8 6 8 6", FormatError, "EQUIRECTANGULAR is a panorama"),
        ("cameras", "1 NOVEL 8 6 7 7 4 3 0.5", FormatError, "camera model NOVEL is not known"),
        ("cameras", "2 PINHOLE 8 6 7 7 4 3", FormatError, "has camera 1"),
        ("images", "1 0 0 0 0 0 0 0 1 0.png\n\n", BadPoses, "quaternion is zero"),
        ("images", "1 1 0 0 0 inf 0 0 1 0.png\n\n", BadPoses, "not finite"),
        ("images", "1 1 0 0 0 0 0 1 0.png\n\n", FormatError, "images.txt, line 1"),
        ("images", "1 1 0 0 0 0 0 0 1 0.png\n1 2\n", FormatError, "images.txt, line 2"),
        ("images", "1 1 0 0 0 0 0 0 1 0.png\n1 2 nan\n", FormatError, "images.txt, line 2"),
        ("images", "1 1 0 0 0 0 0 0 1 ../x.png\n\n", SceneError, "leads out"),
        ("images", "1 1 0 0 0 0 0 0 1 0.png\n\n2 1 0 0 0 0 0 0 1 0.png\n\n", FormatError, "there twice"),
        ("images", "", NoImages, "no images"),
        ("points3D", "1 0 0 0 1 2 3", FormatError, "points3D.txt, line 1"),
        ("points3D", "1 0 0 0 1 2 300 0", FormatError, "points3D.txt, line 1"),
        ("points3D", "1 0 0 0 1 2 3 0 5", FormatError, "points3D.txt, line 1"),
        ("points3D", "99999999999999999999 0 0 0 1 2 3 0", FormatError, "points3D.txt, line 1"),
        ("points3D", "1 0 nan 0 1 2 3 0", BadPoints, "1 of 1 points have non-finite xyz"),
    ],
)
def test_damaged_text(tmp_path, file, text, error, says):
    colmap_scene(tmp_path, binary=False)
    (tmp_path / "sparse" / "0" / f"{file}.txt").write_text(text)
    with pytest.raises(error, match=says):
        read_images(tmp_path)
