"""Exports of phone scanners in folders made by hand, with known geometry: Polycam and Record3D."""

from __future__ import annotations

import json

import numpy as np
import pytest

from splatinit.errors import BadPoses, FormatError, NoImages
from splatinit.initializers.depth import Depth, DepthConfig
from splatinit.io.images import write_png
from splatinit.io.polycam import BORDER
from splatinit.io.read import ReadConfig, read_images
from splatinit.posers import make_poser
from splatinit.posers.given import GivenConfig
from splatinit.progress import Silent

SIZE = (64, 48)
# ARKit's axes: the first camera at (0, 1, 0) looks along world −z, y up; the second at (2, 1, −3) along world −x.
FIRST = [[1, 0, 0, 0], [0, 1, 0, 1], [0, 0, 1, 0]]
SECOND = [[0, 0, 1, 2], [0, 1, 0, 1], [-1, 0, 0, -3]]


def polycam(folder, poses=(FIRST, SECOND), corrected=True, depth=True, **settings):
    """An export whose cameras look at a wall 2 m before each; the depth maps have a quarter of the size."""
    keyframes = folder / "keyframes"
    prefix = "corrected_" if corrected else ""
    for number, pose in enumerate(poses):
        name = str(1000 + number)
        camera = {"fx": 50.0, "fy": 40.0, "cx": 33.0, "cy": 23.0, "width": SIZE[0], "height": SIZE[1]}
        camera |= {f"t_{r}{c}": pose[r][c] for r in range(3) for c in range(4)}
        camera |= {"blur_score": 90.5, "timestamp": 1000 + number, **settings}
        (keyframes / f"{prefix}cameras").mkdir(parents=True, exist_ok=True)
        (keyframes / f"{prefix}cameras" / f"{name}.json").write_text(json.dumps(camera))
        write_png(keyframes / f"{prefix}images" / f"{name}.png", np.full((SIZE[1], SIZE[0], 3), 90, np.uint8))
        if depth:
            write_png(keyframes / "depth" / f"{name}.png", np.full((12, 16), 2000, np.uint16))
            sure = np.full((12, 16), 255, np.uint8)
            sure[:, :8] = 0
            write_png(keyframes / "confidence" / f"{name}.png", sure)
    return folder


# ----------------------------------------------------------------------------------------------------------- Polycam
def test_polycam_s_cameras_by_hand(tmp_path):
    images = read_images(polycam(tmp_path, corrected=False))
    assert images.format == "polycam" and len(images.photos) == 2
    first, second = (images.cameras[f"keyframes/images/{name}.png"] for name in (1000, 1001))
    np.testing.assert_allclose(first.center, [0, 1, 0])
    np.testing.assert_allclose(second.center, [2, 1, -3])
    np.testing.assert_allclose(first.K, [[50, 0, 33], [0, 40, 23], [0, 0, 1]])
    # 5 ahead, 1 to the right, 2 up: right of the first is world +x, of the second world −z.
    np.testing.assert_allclose(first.cam_from_world @ [1, 3, -5, 1], [1, -2, 5, 1], atol=1e-12)
    np.testing.assert_allclose(second.cam_from_world @ [-3, 3, -4, 1], [1, -2, 5, 1], atol=1e-12)
    assert "the export has no corrected cameras: ARKit's own poses are taken, lens distortion stays" in images.notes
    assert "read as Polycam: keyframes/cameras, 2 photos" in images.notes


def test_corrected_images_lose_their_border_and_nothing_moves(tmp_path):
    folder = polycam(tmp_path)
    # A bright dot at (48, 12), and black where undistorting left nothing.
    pixels = np.full((SIZE[1], SIZE[0], 3), 90, np.uint8)
    pixels[0] = pixels[-1] = pixels[:, 0] = pixels[:, -1] = 0
    pixels[11:13, 47:49] = 255
    write_png(folder / "keyframes" / "corrected_images" / "1000.png", pixels)
    images = read_images(folder)
    photo = images.photos[0]
    camera = images.cameras[photo.name]
    assert photo.name == "keyframes/corrected_images/1000.png" and (camera.width, camera.height) == SIZE
    ray = np.array([(48 - 33) / 50, (12 - 23) / 40, 1.0])
    column, row, _ = camera.K @ ray
    loaded = photo.load(*SIZE).rgb[..., 0].astype(float)
    ys, xs = np.mgrid[: SIZE[1], : SIZE[0]] + 0.5
    bright = np.clip(loaded - 120, 0, None)
    np.testing.assert_allclose([(bright * xs).sum(), (bright * ys).sum()] / bright.sum(), [column, row], atol=0.12)
    assert column > 48 and row < 12 and loaded[24, 0] > 30  # farther from the middle; the black line is nearly out
    assert BORDER * 1024 == 15


def test_depth_and_confidence_give_points_on_the_wall(tmp_path):
    images = read_images(polycam(tmp_path))
    assert "depth maps: 2 of 2 photos have one (--init depth starts from them)" in images.notes
    images = read_images(polycam(tmp_path, poses=(FIRST, SECOND, FIRST)))
    scene = make_poser("given", GivenConfig(triangulate=False)).pose(images, work_dir=None, progress=Silent())
    assert [view.name[-8:-4] for view in scene.train] == ["1001", "1002"]
    points = Depth(DepthConfig()).initialize(scene, seed=0, progress=Silent()).points
    by_first, by_second = points.xyz[np.isclose(points.xyz[:, 2], -2.0)], points.xyz[np.isclose(points.xyz[:, 0], 0.0)]
    assert len(by_first) + len(by_second) >= len(points) > 2000
    # Low confidence in the left half: only what is right of the middle (x = 33 px) is left.
    assert by_first[:, 0].min() > -0.1 and by_first[:, 0].max() == pytest.approx((64 - 33) / 50 * 2, abs=0.1)
    assert by_first[:, 1].max() == pytest.approx(1 + 23 / 40 * 2, abs=0.1)


def test_what_has_no_partner_is_counted(tmp_path):
    folder = polycam(tmp_path, depth=False)
    (folder / "keyframes" / "corrected_images" / "1000.png").unlink()
    write_png(folder / "keyframes" / "corrected_images" / "7.png", np.zeros((48, 64, 3), np.uint8))
    images = read_images(folder)
    assert "1 cameras have no photo and are left out" in images.notes
    assert "1 photos have no camera and are left out" in images.notes
    assert not images.photos[0].has_depth
    (folder / "keyframes" / "corrected_images" / "1001.png").unlink()
    with pytest.raises(NoImages, match="none of the 2 images it names exists"):
        read_images(folder)


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"t_12": None}, FormatError, "'t_12' is None; expected a number"),
        ({"fx": "50"}, FormatError, "'fx' is '50'; expected a number"),
        ({"cy": True}, FormatError, "'cy' is True; expected a number"),
        ({"t_03": 10**400}, BadPoses, "non-finite"),
        ({"t_00": 2.0}, BadPoses, "not a rotation"),
        ({"fx": -1.0}, BadPoses, "focal length -1"),
        ({"width": 0}, BadPoses, "the image size is 0×48 px"),
        ({"width": 480}, FormatError, "the camera is for 480×48 px"),
    ],
)
def test_bad_cameras_name_the_file(tmp_path, settings, error, text):
    folder = polycam(tmp_path, poses=(FIRST,), **settings)
    with pytest.raises(error, match=text) as caught:
        read_images(folder)
    assert "1000.json" in str(caught.value)


# ---------------------------------------------------------------------------------------------------------- Record3D
HALF = np.sqrt(0.5)
# qx qy qz qw x y z of FIRST and SECOND: none, and 90° about y.
ROWS = [[0, 0, 0, 1, 0, 1, 0], [0, HALF, 0, HALF, 2, 1, -3]]


def record3d(folder, poses=ROWS, photos=None, name="metadata.json", images="rgb", **settings):
    data = {"w": 64, "h": 48, "fps": 30, "K": [50, 0, 0, 0, 40, 0, 33, 23, 1], "poses": poses, **settings}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(data))
    for number in range(len(poses)) if photos is None else photos:
        write_png(folder / images / f"{number}.png", np.full((48, 64, 3), 90, np.uint8))
    return folder


@pytest.mark.parametrize(("name", "folder"), [("metadata.json", "rgb"), ("metadata", "rgbd")])
def test_record3d_s_cameras_by_hand(tmp_path, name, folder):
    images = read_images(record3d(tmp_path, name=name, images=folder))
    assert images.format == "record3d"
    first, second = (images.cameras[f"{folder}/{number}.png"] for number in (0, 1))
    np.testing.assert_allclose(first.K, [[50, 0, 33], [0, 40, 23], [0, 0, 1]])
    np.testing.assert_allclose(first.cam_from_world @ [1, 3, -5, 1], [1, -2, 5, 1], atol=1e-12)
    np.testing.assert_allclose(second.cam_from_world @ [-3, 3, -4, 1], [1, -2, 5, 1], atol=1e-12)
    assert f"read as Record3D: {name} and {folder}/, 2 photos; its depth is not read" in images.notes


def test_intrinsics_of_each_frame_count_before_those_of_the_first(tmp_path):
    images = read_images(record3d(tmp_path, perFrameIntrinsicCoeffs=[[50, 40, 33, 23], [60, 70, 30, 20]]))
    np.testing.assert_allclose(images.cameras["rgb/1.png"].K, [[60, 0, 30], [0, 70, 20], [0, 0, 1]])


def test_frames_are_taken_evenly_over_time(tmp_path):
    poses = [[0, 0, 0, 1, step, 0, 0] for step in range(12)]
    folder = record3d(tmp_path, poses=poses)
    write_png(folder / "rgb" / "3(2).png", np.zeros((48, 64, 3), np.uint8))  # a copy that the system made
    assert len(read_images(folder).photos) == 12
    images = read_images(folder, ReadConfig(frames=3))
    assert {photo.name for photo in images.photos} == {"rgb/2.png", "rgb/6.png", "rgb/10.png"}
    assert "3 of 12 photos, evenly over time (data.frames=N takes N)" in images.notes
    np.testing.assert_allclose(images.cameras["rgb/10.png"].center, [10, 0, 0])
    assert len(read_images(folder, ReadConfig(fps=10.0)).photos) == 4


def test_the_selfie_camera_has_no_poses(tmp_path):
    images = read_images(record3d(tmp_path, poses=[[0, 0, 0, 1, 0, 0, 0]] * 3))
    assert not images.cameras and images.focals_px == dict.fromkeys(["rgb/0.png", "rgb/1.png", "rgb/2.png"], 50.0)
    assert any("the selfie camera has none" in note for note in images.notes)


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"poses": [[0, 0, 0, 1, 0, 0]]}, FormatError, "'poses' is not a list of 7 finite numbers each"),
        ({"poses": []}, FormatError, "'poses' is not a list"),
        ({"poses": [[0, 0, 0, float("nan"), 0, 0, 0]]}, FormatError, "'poses' is not a list"),
        ({"poses": [[0, 0, 0, 2, 0, 0, 0]], "photos": [0]}, BadPoses, "its quaternion has length 2; expected 1"),
        ({"K": [1, 2]}, FormatError, "'K' is not a list of 9 finite numbers"),
        ({"K": None}, FormatError, "'K' is not a list"),
        ({"K": [0, 0, 0, 0, 40, 0, 33, 23, 1]}, BadPoses, "focal length 0"),
        ({"w": 0}, FormatError, "'w' is 0; expected a positive number"),
        ({"photos": [0, 5]}, FormatError, "2 poses and 2 intrinsics, but photos up to 5.png"),
        ({"perFrameIntrinsicCoeffs": [[1, 1, 1, 1]]}, FormatError, "2 poses and 1 intrinsics"),
    ],
)
def test_bad_metadata_is_named(tmp_path, settings, error, text):
    folder = record3d(tmp_path, **{"photos": [0, 1], **settings})
    with pytest.raises(error, match=text) as caught:
        read_images(folder)
    assert "metadata.json" in str(caught.value)


def test_record3d_without_its_files(tmp_path):
    with pytest.raises(FormatError, match="not an export of Record3D; expected metadata.json and rgb/"):
        read_images(tmp_path, ReadConfig(format="record3d"))
    folder = record3d(tmp_path / "empty", photos=[])
    (folder / "rgb").mkdir()
    with pytest.raises(NoImages, match=r"'0.jpg'"):
        read_images(folder)
