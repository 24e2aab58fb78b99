"""The initializer dense through the command line: on photos that are hard to match, and on real ones.

The hard ones show a ball before a wall, both painted, and every surface is known.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import stereo
import torch
from typer.testing import CliRunner

from splatinit import native
from splatinit.cli.app import app
from splatinit.geometry.rigid import unproject
from splatinit.io.images import write_png
from splatinit.io.pointcloud import read_ply_points
from splatinit.matching import MATCHERS
from splatinit.types import Camera, PointCloud

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(not native.available(), reason="splat_cpu is not built in this installation"),
]
RUNS = ["--backend", "cpu", "eval.lpips=none", "seeding.sh_degree=0"]
RED, BLUE = np.array([1.0, 0.4, 0.4]), np.array([0.5, 0.8, 1.0])


def needs(matcher: str) -> None:
    if MATCHERS.spec(matcher).missing():
        pytest.skip(f"{matcher} needs {', '.join(MATCHERS.spec(matcher).missing())}")


def splatinit(*arguments: object, code: int = 0) -> str:
    """Run a command in this process; what it printed, each space once."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


# ------------------------------------------------------------------------------------------------------ the hard photos
WAVES = np.random.default_rng(3).normal(size=(24, 3, 4)) * [14, 14, 14, 3]


def painted(xyz: np.ndarray) -> np.ndarray:
    """Texture everywhere, the coarsest as long as the ball and the finest four pixels: [n, 3] in [0, 1]."""
    return 0.5 + 0.08 * np.sin(np.einsum("nk,wck->nwc", xyz, WAVES[:, :, :3]) + WAVES[:, :, 3]).sum(axis=1)


def squares(xyz: np.ndarray) -> np.ndarray:
    """A pattern that repeats every half unit, which is 15 px on the ball."""
    wave = np.sin(xyz[:, :1] * 4 * np.pi) * np.sin(xyz[:, 1:2] * 4 * np.pi) + 0.2 * np.sin(xyz[:, 2:] * 9)
    return np.repeat(0.5 + 0.3 * wave, 3, axis=1)


def plain(xyz: np.ndarray) -> np.ndarray:
    return np.full((len(xyz), 3), 0.6)


Paint = Callable[[np.ndarray], np.ndarray]


def take(cam: Camera, ball: Paint = painted, wall: Paint = painted, moved: Sequence[float] = (0.0, 0.0)) -> np.ndarray:
    """The photo [h, w, 3] in [0, 1], of 2 × 2 samples a pixel, with the ball ``moved`` along x and y."""
    shift = np.array([*moved, 0.0])
    pose = cam.cam_from_world.copy()
    pose[:3, 3] += pose[:3, :3] @ shift
    seen = Camera(cam.K, pose, cam.width, cam.height)  # where the ball is at the origin
    rgb = np.zeros((cam.width * cam.height, 3))
    for dx, dy in ((0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)):
        px = stereo.pixel_centers(cam.width, cam.height) - 0.5 + [dx, dy]
        xyz = unproject(seen.K, seen.world_from_cam, px, stereo.depth(seen, px))
        on_ball = (np.linalg.norm(xyz, axis=1) < 1 + 1e-6)[:, None]
        rgb += np.where(on_ball, ball(xyz), wall(xyz + shift)) / 4
    return rgb.clip(0, 1).reshape(cam.height, cam.width, 3)


def ball_seen(cam: Camera, moved: Sequence[float]) -> np.ndarray:
    """[h, w] True where the ball is, and 2 px around it."""
    red = take(cam, lambda xyz: plain(xyz) * 0, lambda xyz: plain(xyz), moved).mean(axis=2) < 0.59
    return cv2.dilate(red.astype(np.uint8), np.ones((5, 5))) > 0


def scene(folder: Path, cams: Sequence[Camera], photos: Sequence[np.ndarray], masks: Sequence = ()) -> Path:
    """A nerfstudio folder, all photos with noise of one grey level. The first one is the test view."""
    frames = []
    for k, (cam, photo) in enumerate(zip(cams, photos, strict=True)):
        noise = np.random.default_rng(k).normal(size=photo.shape)
        write_png(folder / f"images/{k:02d}.png", (photo * 255 + noise).round().clip(0, 255).astype(np.uint8))
        frame = {"file_path": f"images/{k:02d}.png", "w": cam.width, "h": cam.height}
        frame |= {"fl_x": cam.fx, "fl_y": cam.fy, "cx": cam.K[0, 2], "cy": cam.K[1, 2]}
        frame["transform_matrix"] = (cam.world_from_cam @ np.diag([1.0, -1, -1, 1])).tolist()
        if len(masks):
            frame["mask_path"] = f"masks/{k:02d}.png"
            write_png(folder / frame["mask_path"], np.where(masks[k], 0, 255).astype(np.uint8))
        frames.append(frame)
    (folder / "transforms.json").write_text(json.dumps({"camera_model": "PINHOLE", "frames": frames}))
    return folder


CAMS = stereo.row(6, size=(160, 120), focal=150.0)


def begin(folder: Path, *settings: object, code: int = 0) -> tuple[PointCloud | None, str]:
    """The points of `splatinit init --init dense`, without those that only fill gaps, and what it said."""
    out = folder.parent / "run"
    few = ["init.count=4000", "init.cell=8", "init.gaps=none"]
    told = splatinit("init", folder, "--init", "dense", *few, *settings, "-o", out, code=code)
    return (None if code else read_ply_points(out / "init" / "points.ply")), told


def on_surface(points: PointCloud, within: float = 0.05) -> float:
    """Share of the points that are that near to the ball or the wall; a pixel is 0.03 to 0.05 there."""
    return float((stereo.distance_to_surface(points.xyz.astype(float)) < within).mean())


# Least points, the distance that counts as right, and for what share. XFeat's cells are 2 px of these photos apart, and
# its matches are as exact as that.
MATCHED = pytest.mark.parametrize(
    ("matcher", "least", "within", "right"), [("planesweep", 3000, 0.05, 0.95), ("xfeat", 1500, 0.2, 0.9)]
)


@MATCHED
def test_exposures_that_differ_from_photo_to_photo(
    matcher: str, least: int, within: float, right: float, tmp_path: Path
) -> None:
    needs(matcher)
    gains, offsets = (1.0, 0.6, 1.2, 0.8, 0.5, 1.0), (0.0, 0.15, -0.1, 0.1, 0.3, -0.05)
    photos = [take(cam) * gain + offset for cam, gain, offset in zip(CAMS, gains, offsets, strict=True)]
    points, _ = begin(scene(tmp_path / "photos", CAMS, photos), f"init.matcher={matcher}")
    assert len(points) > least and on_surface(points, within) > right


@MATCHED
def test_photos_of_different_sizes(matcher: str, least: int, within: float, right: float, tmp_path: Path) -> None:
    needs(matcher)
    sizes = [
        (160, 120, 150.0),
        (240, 180, 225.0),
        (120, 160, 150.0),
        (80, 60, 75.0),
        (160, 120, 150.0),
        (200, 90, 180.0),
    ]
    places = [cam.center for cam in CAMS]
    cams = [stereo.camera(at, size=(w, h), focal=f) for at, (w, h, f) in zip(places, sizes, strict=True)]
    folder = scene(tmp_path / "photos", cams, [take(cam) for cam in cams])
    points, _ = begin(folder, f"init.matcher={matcher}")
    # A pixel of the smallest photo is 0.1 wide at the wall.
    assert len(points) > 0.5 * least and on_surface(points, 2 * within) > right - 0.05


@MATCHED
def test_what_moves_becomes_few_points_and_masked_none(
    matcher: str, least: int, within: float, right: float, tmp_path: Path
) -> None:
    """A red ball that is elsewhere in each photo, off the epipolar lines, before a wall that stands still."""
    needs(matcher)
    places = [(0.0, 0.0), (0.4, 0.5), (-0.3, -0.4), (0.5, -0.5), (-0.5, 0.4), (0.1, 0.6)]
    photos = [
        take(cam, lambda xyz: painted(xyz)[:, :1] * RED, lambda xyz: painted(xyz)[:, 1:2] * BLUE, moved)
        for cam, moved in zip(CAMS, places, strict=True)
    ]

    def reds(points: PointCloud) -> float:
        return float((points.rgb[:, 0] > points.rgb[:, 2] + 0.08).mean())

    folder = scene(tmp_path / "moving" / "photos", CAMS, photos)
    points, _ = begin(folder, f"init.matcher={matcher}")
    wall = np.abs(points.xyz[:, 2] - stereo.WALL) < 2 * within
    # A fifth of each photo is ball.
    assert len(points) > 0.5 * least and reds(points) < 0.03 and wall.mean() > right - 0.05
    masks = [ball_seen(cam, moved) for cam, moved in zip(CAMS, places, strict=True)]
    assert 0.1 < np.mean(masks) < 0.3
    points, _ = begin(scene(tmp_path / "masked" / "photos", CAMS, photos, masks), f"init.matcher={matcher}")
    wall = np.abs(points.xyz[:, 2] - stereo.WALL) < 2 * within
    assert len(points) > 0.5 * least and reds(points) == 0 and wall.mean() > right


def test_a_pattern_that_repeats_is_mostly_matched_right(tmp_path: Path) -> None:
    """From unequal steps: those of CAMS are a whole period each, and another depth fits all of them as well.

    Measured: 86 % are right. The wrong ones lie nearer, where another period fits as well;
    before the sweep summed its costs along paths, and with fewer candidates, 94 % were right.
    """
    cams = [stereo.camera((x, 0.1 * x, -5), size=(160, 120), focal=150.0) for x in (-1.3, -0.85, -0.3, 0.1, 0.75, 1.2)]
    points, _ = begin(scene(tmp_path / "photos", cams, [take(cam, squares, squares) for cam in cams]))
    assert len(points) > 1000 and on_surface(points, 0.1) > 0.83


def test_walls_without_texture_get_no_points_and_nothing_else_is_an_error(tmp_path: Path) -> None:
    folder = scene(tmp_path / "wall" / "photos", CAMS, [take(cam, painted, plain) for cam in CAMS])
    points, _ = begin(folder)
    # A window reaches 3 px beyond the rim of the ball.
    assert len(points) > 1000 and (np.linalg.norm(points.xyz, axis=1) < 1.2).mean() > 0.97
    folder = scene(tmp_path / "nothing" / "photos", CAMS, [take(cam, plain, plain) for cam in CAMS])
    _, told = begin(folder, code=2)
    assert "no dense match became a point. Matcher 'planesweep' tried 5 photos with up to 4 neighbours each" in told
    assert "start with --init sfm" in told


def test_a_photo_that_shows_nothing_is_skipped_and_counted(tmp_path: Path) -> None:
    photos = [take(cam) for cam in CAMS]
    photos[2] = np.full_like(photos[2], 0.98)  # the flash was too strong
    points, told = begin(scene(tmp_path / "photos", CAMS, photos))
    assert len(points) > 2000 and on_surface(points) > 0.95
    assert "'planesweep' found nothing in 1 references (images/02.png)" in told


def test_two_photos_are_enough_and_turned_ones_are_not(tmp_path: Path) -> None:
    cams = CAMS[2:4]
    points, _ = begin(scene(tmp_path / "two" / "photos", cams, [take(cam) for cam in cams]))
    # One px of the only pair is 0.8 of depth at the wall.
    assert len(points) > 1000 and on_surface(points, 0.1) > 0.95
    turned = [stereo.camera((0, 0, -5), (x, 0, 0), size=(160, 120), focal=150.0) for x in (-0.5, 0.0, 0.5)]
    _, told = begin(scene(tmp_path / "turned" / "photos", turned, [take(cam) for cam in turned]), code=2)
    assert "none of the 2 training photos has a neighbour that sees the same from another place" in told
    assert "Photos turned on the spot hold no depth" in told


# --------------------------------------------------------------------------------------------------------- real photos
@pytest.mark.real
@pytest.mark.parametrize(("matcher", "floor"), [("planesweep", 14.9), ("xfeat", 14.4)])
def test_from_real_photos_to_a_splat(matcher: str, floor: float, shared_data: Path, tmp_path: Path) -> None:
    """Few references of the fox, small. Measured: 15.9 and 15.4 dB; from random points it is 13.1 dB."""
    needs(matcher)
    few = ["init.max_references=8", "init.neighbours=2", "init.count=8000", f"init.matcher={matcher}"]
    options = ["--max-size", 240, "--steps", 60, "-o", tmp_path / "run", *RUNS]
    told = splatinit("run", shared_data / "fox", "--init", "dense", *few, *options)
    assert ("'xfeat' is a network and runs on the processor" in told) == (
        matcher == "xfeat" and not torch.cuda.is_available()
    )
    stats = json.loads((tmp_path / "run" / "init" / "stats.json").read_text())
    assert (stats["recipe"]["matcher"], stats["recipe"]["references_used"]) == (matcher, 8)
    # Some more fill gaps.
    assert 8000 <= len(read_ply_points(tmp_path / "run" / "init" / "points.ply")) < 10_000
    scores = json.loads((tmp_path / "run" / "eval" / "metrics.json").read_text())
    assert scores["mean"]["psnr"] > floor and len(scores["images"]) == 7
