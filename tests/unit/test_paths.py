"""Camera paths: by hand where there is one, and by what must hold of every path."""

from __future__ import annotations

import json
import subprocess

import cv2
import numpy as np
import pytest
import torch

from splatinit import paths
from splatinit.errors import BadPoses, ConfigError, FormatError
from splatinit.io import video
from splatinit.io.cameras import read_cameras
from splatinit.types import Camera, Gaussians

K = np.array([[50.0, 0, 32], [0, 50, 24], [0, 0, 1]])


def looking(center, target=(0, 0, 0), up=(0, -1, 0)) -> Camera:
    lens = Camera(K, np.eye(4), 64, 48)
    return paths._aim(lens, np.asarray(center, float), np.asarray(target, float), np.asarray(up, float))


def ring(n: int, radius: float = 2.0, height: float = -0.5) -> list[Camera]:
    angles = 2 * np.pi * np.arange(n) / n
    return [looking((radius * np.cos(a), height, radius * np.sin(a))) for a in angles]


def test_aiming():
    camera = looking((0, 0, -3))
    camera.check("test")
    np.testing.assert_allclose(camera.cam_from_world @ [0, 0, 0, 1], [0, 0, 3, 1], atol=1e-12)
    # The world's −y is up, so a point at y = −1 appears in the upper half of the image.
    assert (camera.K @ (camera.cam_from_world @ [0, -1, 0, 1])[:3])[1] / 3 < camera.K[1, 2]


def test_interpolation_goes_through_its_cameras():
    keys = ring(5)
    for frames, step in ((9, 2), (5, 1)):
        path = paths.interpolate(keys, frames)
        assert len(path) == frames
        # The keys are equally far apart, so that every step-th frame is one of them.
        for key, frame in zip(keys, path[::step], strict=True):
            np.testing.assert_allclose(frame.center, key.center, atol=1e-9)
            np.testing.assert_allclose(frame.cam_from_world, key.cam_from_world, atol=1e-9)
    for frame in path:
        frame.check("frame")
    closed = paths.interpolate(keys, 10, closed=True)
    np.testing.assert_allclose(closed[0].center, keys[0].center, atol=1e-9)
    assert np.linalg.norm(closed[-1].center - keys[0].center) > 0.1


def test_interpolation_of_one_camera_and_of_cameras_at_one_place():
    still = ring(1)
    assert [frame.center.tolist() for frame in paths.interpolate(still, 3)] == [still[0].center.tolist()] * 3
    turning = [looking((0, 0, 0), target) for target in ((0, 0, 1), (1, 0, 1), (1, 0, 0))]
    path = paths.interpolate(turning, 5)
    np.testing.assert_allclose(path[2].cam_from_world, turning[1].cam_from_world, atol=1e-9)


def test_orbit_is_a_circle_around_what_the_cameras_see():
    target = np.array([1.0, 2.0, 3.0])
    cameras = [looking(np.array(c) + target, target) for c in ((2, -1, 0), (0, -1, 2), (-2, -1, 0), (0, -1, -2))]
    np.testing.assert_allclose(paths.focus(cameras), target, atol=1e-9)
    turn = paths.orbit(cameras, 8)
    centers = np.stack([camera.center for camera in turn])
    np.testing.assert_allclose(centers[0], cameras[0].center, atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(centers - target, axis=1), np.sqrt(5), atol=1e-9)
    for camera in turn:
        camera.check("orbit")
        seen = camera.cam_from_world @ np.append(target, 1)
        np.testing.assert_allclose(seen[:2], 0, atol=1e-9)
        assert seen[2] > 0


def test_focus_of_parallel_axes_lies_ahead():
    cameras = [looking((x, 0, 0), (x, 0, 1)) for x in (-1.0, 0.0, 1.0)]
    np.testing.assert_allclose(paths.focus(cameras), [0, 0, 1], atol=1e-9)


def test_around_gaussians():
    n = 200
    means = torch.from_numpy(np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32)) + 5
    splat = Gaussians(
        means, torch.ones(n, 4), torch.zeros(n, 3), torch.zeros(n), torch.zeros(n, 1, 3), torch.zeros(n, 0, 3)
    )
    for camera in paths.around_gaussians(splat, 4, width=40, height=30):
        camera.check("around")
        z = (camera.cam_from_world[:3, :3] @ means.numpy().T.astype(float)).T[:, 2] + camera.cam_from_world[2, 3]
        assert (z > 0).mean() > 0.95
    with pytest.raises(ConfigError, match="no Gaussians"):
        paths.around_gaussians(splat.map(lambda t: t[:0]), 4, width=4, height=3)


def test_paths_need_cameras_and_frames():
    for make in (paths.orbit, paths.interpolate):
        with pytest.raises(ConfigError, match="at least one camera"):
            make([], 3)
        with pytest.raises(ConfigError, match="0 frames"):
            make(ring(3), 0)


# ------------------------------------------------------------------------------------------------------- files of paths
def test_camera_files(tmp_path):
    camera = looking((1, 2, 3))
    own = tmp_path / "own.json"
    row = {"width": 64, "height": 48, "K": K.tolist(), "cam_from_world": camera.cam_from_world.tolist()}
    own.write_text(json.dumps({"cameras": [row]}))
    np.testing.assert_allclose(read_cameras(own)[0].cam_from_world, camera.cam_from_world)
    # nerfstudio: OpenGL axes, 90° over a height of 100 px is a focal length of 50 px.
    world = camera.world_from_cam @ np.diag([1.0, -1, -1, 1])
    theirs = tmp_path / "theirs.json"
    frame = {"camera_to_world": world.ravel().tolist(), "fov": 90.0, "aspect": 2.0}
    theirs.write_text(json.dumps({"render_width": 200, "render_height": 100, "camera_path": [frame]}))
    read = read_cameras(theirs)[0]
    np.testing.assert_allclose(read.cam_from_world, camera.cam_from_world, atol=1e-12)
    np.testing.assert_allclose([read.fx, read.fy, read.K[0, 2], read.width], [50, 50, 100, 200])


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("{", FormatError, "not valid JSON"),
        ("{}", FormatError, "expected a list called 'cameras'"),
        ('{"cameras": [{"width": 1}]}', FormatError, "camera 0 cannot be read: 'K' is missing"),
        ('{"cameras": [{"width": 1, "height": 1, "K": [1], "cam_from_world": []}]}', FormatError, "camera 0"),
        (
            json.dumps(
                {"cameras": [{"width": 4, "height": 4, "K": K.tolist(), "cam_from_world": (2 * np.eye(4)).tolist()}]}
            ),
            BadPoses,
            "camera 0",
        ),
    ],
)
def test_bad_camera_files(tmp_path, text, kind, message):
    path = tmp_path / "path.json"
    path.write_text(text)
    with pytest.raises(kind, match=message):
        read_cameras(path)
    with pytest.raises(FormatError, match="does not exist"):
        read_cameras(tmp_path / "none.json")


# -------------------------------------------------------------------------------------------------------------- video
@pytest.mark.parametrize("encoder", ["ffmpeg", "opencv"])
def test_videos_hold_the_frames(tmp_path, monkeypatch, encoder):
    if encoder == "opencv":
        monkeypatch.setattr(video.importlib.util, "find_spec", lambda name: None)
    elif not video.codec().startswith("H.264"):
        pytest.skip("imageio-ffmpeg is not installed")
    path = tmp_path / "film.mp4"
    greys = (40, 120, 200)
    frames = [np.full((33, 49, 3), (grey, 60, 60), np.uint8) for grey in greys]  # odd sizes lose a row and a column
    assert video.write_video(path, iter(frames), fps=10) == 3
    film = cv2.VideoCapture(str(path))
    for grey in greys:
        ok, frame = film.read()
        assert ok and frame.shape == (32, 48, 3)
        np.testing.assert_allclose(frame[8:24, 8:40, 2].mean(), grey, atol=8)  # OpenCV's channels are BGR
    assert not film.read()[0]


def test_a_video_that_opencv_could_not_write_is_told(tmp_path, monkeypatch):
    """As on a full disk, of which it says nothing."""

    class Writer:
        def __init__(self, *arguments: object) -> None: ...

        def isOpened(self) -> bool:
            return True

        def write(self, frame: np.ndarray) -> None: ...

        def release(self) -> None: ...

    monkeypatch.setattr(video.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(cv2, "VideoWriter", Writer)
    with pytest.raises(FormatError, match="OpenCV could not write the video: 0 of 2 frames can be read") as error:
        video.write_video(tmp_path / "film.mp4", [np.zeros((8, 8, 3), np.uint8)] * 2, 10)
    assert "disk is full" in error.value.hint and list(tmp_path.iterdir()) == []


def test_bad_videos(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="expected the suffix .mp4"):
        video.write_video(tmp_path / "film.avi", [], 10)
    with pytest.raises(ConfigError, match="no frames"):
        video.write_video(tmp_path / "film.mp4", [], 10)
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: "false")
    with pytest.raises((FormatError, subprocess.SubprocessError), match="could not write"):
        video.write_video(tmp_path / "film.mp4", [np.zeros((8, 8, 3), np.uint8)] * 3, 10)
    assert list(tmp_path.iterdir()) == []
