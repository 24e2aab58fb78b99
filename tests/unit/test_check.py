"""The scene check: every finding on a scene that was broken for it, and no finding on the whole one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import splatinit
from splatinit.checks import epipolar, files, looks, matches, photos, points, poses, scene
from splatinit.checks.report import CheckReport, Finding, plain
from splatinit.cli.app import app
from splatinit.errors import BadPoses, ConfigError, FormatError, NoImages
from splatinit.io.images import probe_image, undistorted
from splatinit.io.lenses import Distortion
from splatinit.io.read import ReadConfig, read_images
from splatinit.io.thumbnails import thumbnail, without_lens
from splatinit.types import Camera, PointCloud

WIDTH, HEIGHT, VIEWS = 320, 240, 12
K = np.array([[300.0, 0, WIDTH / 2], [0, 300.0, HEIGHT / 2], [0, 0, 1]])
FLIP = np.diag([1.0, -1.0, -1.0, 1.0])


# ------------------------------------------------------------------------------------------------- a corner of a room
def texture(seed: int) -> np.ndarray:
    """[512, 512, 3] float32: noise of all scales, as SIFT likes it."""
    rng = np.random.default_rng(seed)
    out = np.zeros((512, 512, 3), np.float32)
    for cells in (8, 20, 40):
        out += cv2.resize(rng.uniform(0, 1, (cells, cells, 3)).astype(np.float32), (512, 512), interpolation=1)
    return (40 + 170 * (out - out.min()) / np.ptp(out)).astype(np.float32)


TEXTURES = [texture(seed) for seed in range(3)]


def look_at(eye: np.ndarray, target: np.ndarray) -> np.ndarray:
    """cam_from_world of a camera held upright (world z up)."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    R = np.stack([right, np.cross(forward, right), forward])
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = R, -R @ eye
    return pose


def cameras() -> list[Camera]:
    found = []
    for i in range(VIEWS):
        angle = np.radians(15 + 60 * i / (VIEWS - 1))
        # The radius and the height change unevenly: an even arc would look the same from both ends.
        eye = np.array([3.2 * np.cos(angle), 3.2 * np.sin(angle), 1.3 + 0.4 * np.sin(1.7 * i)]) * (1 + 0.1 * (i % 3))
        found.append(Camera(K, look_at(eye, np.array([0.5, 0.5, 0.5])), WIDTH, HEIGHT))
    return found


def draw(camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """rgb [h, w, 3] uint8 and z [h, w] of three textured planes that meet at the origin."""
    x, y = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    rays = np.stack([x, y, np.ones_like(x)], axis=-1) @ np.linalg.inv(camera.K).T
    d = rays @ camera.cam_from_world[:3, :3]
    with np.errstate(divide="ignore", invalid="ignore"):
        z = -camera.center / d
    z = np.where(z > 1e-6, z, np.inf)
    plane = z.argmin(axis=-1)
    depth = z.min(axis=-1)
    hit = camera.center + depth[..., None] * d
    rgb = np.zeros((*depth.shape, 3), np.float32)
    for axis in range(3):
        u, v = (hit[..., other] * 120 for other in range(3) if other != axis)
        picture = cv2.remap(
            TEXTURES[axis], u.astype(np.float32), v.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        )
        rgb[plane == axis] = picture[plane == axis]
    return np.rint(rgb).astype(np.uint8), depth


CAMERAS = cameras()
PICTURES = [draw(camera) for camera in CAMERAS]
NAMES = [f"images/{i:02d}.png" for i in range(VIEWS)]


def write_scene(folder: Path, poses_cv=None, pictures=None, **settings) -> Path:
    """The room as a nerfstudio scene; ``poses_cv`` are cam_from_world."""
    (folder / "images").mkdir(parents=True)
    pictures = pictures or [rgb for rgb, _ in PICTURES]
    chosen = [camera.cam_from_world for camera in CAMERAS] if poses_cv is None else poses_cv
    frames = []
    for name, rgb, pose in zip(NAMES, pictures, chosen, strict=True):
        Image.fromarray(rgb).save(folder / name, compress_level=1)
        frames.append({"file_path": name, "transform_matrix": (np.linalg.inv(pose) @ FLIP).tolist()})
    data = {"w": WIDTH, "h": HEIGHT, "fl_x": 300.0, "fl_y": 300.0, "cx": 160.0, "cy": 120.0, "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(data | settings))
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return write_scene(tmp_path_factory.mktemp("whole") / "room")


@pytest.fixture(scope="module")
def report(whole) -> CheckReport:
    return splatinit.check(whole)


@pytest.fixture(scope="module")
def pairs(whole) -> list[matches.Pair]:
    """All photos of the room, matched in memory."""
    found = [looks.look_at(probe_image(whole / name, name), (WIDTH, HEIGHT), True) for name in NAMES]
    features = [look.features for look in found]
    every = [(a, b) for a in range(VIEWS) for b in range(a + 1, min(a + 4, VIEWS))]
    return matches.match_pairs(features, every, 1, lambda done: None)


def judge(pairs, poses_cv, intrinsics=K, names=NAMES) -> list[Finding]:
    stacked = np.asarray(poses_cv)
    each = np.tile(intrinsics, (VIEWS, 1, 1))
    found, _ = epipolar.examine(pairs, each, stacked, np.ones(VIEWS), names, names, stacked, range(VIEWS))
    return found


TRUE = np.stack([camera.cam_from_world for camera in CAMERAS])


# -------------------------------------------------------------------------------------------------------- whole scenes
def test_a_good_scene_has_nothing_to_do(report):
    assert report.level == "ok", [f.message for f in report.findings if f.level != "ok"]
    assert report.verdict.startswith("Good")
    assert report.finding("epipolar").values["median_px"] < 0.4
    assert report.finding("coverage").values["kind"] in ("inward", "forward-facing")
    assert report.finding("up").values["axis"] == "+z"
    assert report.finding("parallax").values["median_degrees"] > 3
    with pytest.raises(KeyError):
        report.finding("nothing")


def test_the_json_is_plain_stable_and_the_same_every_time(report, whole):
    again = splatinit.check(whole).to_json()
    first = report.to_json()
    for each in (first, again):
        each.pop("seconds")
    assert first == again
    text = json.dumps(first, allow_nan=False)
    assert {"version", "scene", "format", "photos", "posed", "notes", "level", "verdict", "findings"} <= json.loads(
        text
    ).keys()
    keys = {"id", "group", "level", "message", "expected", "advice", "values", "names", "names_total"}
    assert all(finding.keys() == keys for finding in first["findings"])
    assert len({finding["id"] for finding in first["findings"]}) == len(first["findings"])


def test_numbers_that_json_does_not_have_become_null():
    assert plain({"a": np.float32("nan"), "b": float("inf"), "c": np.int64(3), "d": (np.float64(1 / 3), True)}) == {
        "a": None, "b": None, "c": 3, "d": [0.333333, True],
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------------ wrong poses
def without(kind: str) -> np.ndarray:
    """The poses of the room as an exporter writes them that makes this mistake."""
    inverse = np.linalg.inv(TRUE)
    R, t = TRUE[:, :3, :3], TRUE[:, :3, 3]
    centre = inverse[:, :3, 3]
    wrong = TRUE.copy()
    if kind == "inverse":
        return inverse
    if kind == "opengl":
        return FLIP @ TRUE
    if kind == "unity":
        return np.diag([1.0, -1, 1, 1]) @ TRUE @ np.diag([1.0, 1, -1, 1])
    if kind == "transposed":
        wrong[:, :3, :3] = np.swapaxes(R, 1, 2)
    elif kind == "centre":
        wrong[:, :3, 3] = centre
    elif kind == "translation":
        wrong[:, :3, 3] = -np.einsum("nij,nj->ni", R, t)
    elif kind == "shifted":
        return np.roll(TRUE, 1, axis=0)
    elif kind == "reversed":
        return TRUE[::-1]
    return wrong


@pytest.mark.parametrize(
    ("kind", "id", "words"),
    [
        ("inverse", "inverse", "taken as their inverse"),
        ("opengl", "axes(x right, y up, z backward)", "OpenGL's"),
        ("unity", "axes(x left, y down, z backward)+mirrored", "left-handed"),
        ("transposed", "transposed", "transposed"),
        ("centre", "centre", "taken as the camera's centre"),
        ("translation", "translation", "taken as the translation"),
        ("shifted", "order_shift(1)", "one|1 later"),
        ("reversed", "order_reversed", "reversed"),
    ],
)
def test_a_wrong_convention_is_named(pairs, kind, id, words):
    (finding,) = judge(pairs, without(kind))
    assert finding.level == "fail" and finding.advice
    assert finding.values["explained_by"] == [id]
    assert finding.values["explained_median_px"] < 0.4 < 1.5 < finding.values["median_px"]
    assert any(word in finding.message for word in words.split("|"))


def test_mistakes_are_told_as_they_are_in_the_file(tmp_path):
    # In transforms.json: OpenCV's cam_from_world where OpenGL's world_from_cam is wanted.
    folder = write_scene(tmp_path / "room")
    data = json.loads((folder / "transforms.json").read_text())
    for frame, pose in zip(data["frames"], TRUE, strict=True):
        frame["transform_matrix"] = pose.tolist()
    (folder / "transforms.json").write_text(json.dumps(data))
    finding = splatinit.check(folder).finding("epipolar")
    assert finding.values["explained_by"] == ["inverse+axes(x right, y down, z forward)"]
    # Its axes alone, and its inverse alone.
    for change, id in ((lambda m: m @ FLIP, "axes(x right, y down, z forward)"), (np.linalg.inv, "inverse")):
        for frame, pose in zip(data["frames"], TRUE, strict=True):
            frame["transform_matrix"] = change(np.linalg.inv(pose) @ FLIP).tolist()
        (folder / "transforms.json").write_text(json.dumps(data))
        assert splatinit.check(folder).finding("epipolar").values["explained_by"] == [id]


def test_the_true_poses_fit(pairs):
    assert [finding.level for finding in judge(pairs, TRUE)] == ["ok", "ok"]
    # Turning, moving and scaling the world changes no relative pose.
    moved = TRUE @ np.linalg.inv(look_at(np.array([3.0, -2, 7]), np.zeros(3)))
    moved[:, :3, 3] *= 12
    assert [finding.level for finding in judge(pairs, moved)] == ["ok", "ok"]


def test_names_sorted_as_text_are_recognised(pairs):
    names = [f"frame_{i}.png" for i in sorted(range(VIEWS), key=str)]  # 0 1 10 11 2 3 ...
    by_number = sorted(range(VIEWS), key=lambda i: int(names[i][6:-4]))
    given = np.empty_like(TRUE)
    given[np.arange(VIEWS)] = TRUE[by_number]  # the k-th name got the pose of the k-th number
    (finding,) = judge(pairs, given, names=names)
    assert finding.values["explained_by"] == ["order_by_number"]


def test_shuffled_poses_are_refused_without_a_guess(pairs):
    (finding,) = judge(pairs, TRUE[np.random.default_rng(1).permutation(VIEWS)])
    assert finding.level == "fail" and finding.values["explained_by"] == []
    assert "No usual mistake" in finding.advice


def test_poses_mirrored_through_their_centres_are_seen_by_their_depths(pairs):
    wrong = TRUE.copy()
    wrong[:, :3, 3] *= -1
    (finding,) = judge(pairs, wrong)
    assert finding.level == "fail" and "behind the cameras" in finding.message and "left-handed" in finding.advice


def test_coarse_poses_are_a_warning(pairs):
    rng = np.random.default_rng(0)
    noisy = TRUE.copy()
    for pose in noisy:
        pose[:3, :3] = cv2.Rodrigues(rng.normal(0, 0.02, 3))[0] @ pose[:3, :3]
    (finding,) = judge(pairs, noisy)
    assert finding.level == "warn" and "coarse" in finding.advice


@pytest.mark.parametrize("factor", [2.0, 0.5, 1.25])
def test_a_focal_length_of_another_size_is_named(pairs, factor):
    wrong = K.copy()
    wrong[0, 0] *= factor
    wrong[1, 1] *= factor
    found = judge(pairs, TRUE, wrong)
    (named,) = [f for f in found if "focal" in f.message]
    assert named.level != "ok"
    told = named.values.get("factor") or float(named.values["explained_by"][0][6:-1])
    assert told == pytest.approx(1 / factor, rel=0.03)


def test_half_a_pixel_of_the_principal_point_is_seen(pairs):
    wrong = K.copy()
    wrong[:2, 2] -= 0.5
    (named,) = [f for f in judge(pairs, TRUE, wrong) if f.id == "principal_point"]
    assert named.level == "warn" and named.values["shift_px"] == 0.5


def test_a_principal_point_of_another_crop_is_named(pairs):
    wrong = K.copy()
    wrong[:2, 2] += [45, -20]
    (named,) = judge(pairs, TRUE, wrong)
    assert named.level == "fail"
    dx, dy = map(float, named.values["explained_by"][0][7:-1].split(","))
    assert (dx, dy) == pytest.approx((-45, 20), abs=2)


def test_a_lens_that_was_left_in_is_named(pairs):
    def bent(xy: np.ndarray) -> np.ndarray:
        d = (xy - K[:2, 2]) / 300.0
        return d * (1 - 0.3 * (d**2).sum(axis=1, keepdims=True)) * 300.0 + K[:2, 2]

    changed = [matches.Pair(p.a, p.b, p.at_a, p.at_b, bent(p.xy_a), bent(p.xy_b), p.planar) for p in pairs]
    seen = epipolar.Observed.of(changed, np.tile(K, (VIEWS, 1, 1)), TRUE, 60)
    mistake, fixed = epipolar._lens_mistake(seen)
    assert np.median(epipolar.errors(fixed)) < 0.5 * np.median(epipolar.errors(seen))
    assert float(mistake.id[5:-1]) == pytest.approx(-0.3, abs=0.06)


def test_one_bad_pose_is_named_and_its_neighbours_are_not(pairs):
    wrong = TRUE.copy()
    wrong[5, :3, 3] += [0.25, 0.2, 0.0]
    found = {finding.id: finding for finding in judge(pairs, wrong)}
    assert found["epipolar"].level == "ok"
    assert found["single_poses"].level == "warn" and found["single_poses"].names == (NAMES[5],)


def test_bad_photos_need_two_witnesses_and_spare_their_partners():
    a, b = np.array([0, 0, 1, 1, 2, 3]), np.array([1, 2, 2, 3, 3, 4])
    rich = np.full(6, 200)
    assert epipolar.bad_photos(5, a, b, np.array([False, True, False, False, True, True]), rich) == [1]
    assert epipolar.bad_photos(5, a, b, np.array([True, True, True, True, True, False]), rich) == []
    assert epipolar.bad_photos(3, np.zeros(0, int), np.zeros(0, int), np.zeros(0, bool), np.zeros(0, int)) == []
    # Three poor pairs against one rich one: matches between photos far apart, that agree by chance.
    a, b = np.array([0, 1, 1, 1]), np.array([1, 2, 3, 4])
    assert epipolar.bad_photos(5, a, b, np.array([True, False, False, False]), np.array([297, 40, 53, 28])) == []
    assert epipolar.bad_photos(5, a, b, np.array([True, False, False, False]), np.array([40, 40, 53, 28])) == [1]


def test_too_few_pairs_are_said(pairs):
    found, believed = epipolar.examine(pairs[:2], K[None], TRUE, np.ones(VIEWS), NAMES, NAMES, TRUE, range(VIEWS))
    assert believed and found[0].level == "warn" and "only 2 pairs" in found[0].message


def test_cameras_at_one_place_are_judged_by_their_rotation(pairs):
    still = TRUE.copy()
    still[:, :3, 3] = 0
    seen = epipolar.Observed.of(pairs, np.tile(K, (VIEWS, 1, 1)), still, 10)
    assert np.isfinite(epipolar.errors(seen)).all() and np.isnan(epipolar.share_in_front(seen)) is not True


# ---------------------------------------------------------------------------------------------- cameras by themselves
def examine_cameras(poses_cv, **changes) -> dict[str, Finding]:
    given = [
        Camera(changes.get("K", K), pose, changes.get("width", WIDTH), changes.get("height", HEIGHT))
        for pose in poses_cv
    ]
    return {finding.id: finding for finding in poses.examine([f"{i}.png" for i in range(len(given))], given)}


def ring(n: int, degrees: float = 360.0, radius: float = 2.0) -> list[np.ndarray]:
    angles = np.radians(degrees) * np.arange(n) / n
    return [look_at(np.array([radius * np.cos(a), radius * np.sin(a), 0.7]), np.zeros(3)) for a in angles]


def test_rings_and_arcs_are_described_and_a_gap_is_named():
    found = examine_cameras(ring(36))
    assert found["coverage"].level == "ok" and "from all around" in found["coverage"].message
    gap = examine_cameras(ring(36, 300))["coverage"]
    assert (
        gap.level == "warn"
        and "gap of" in gap.message
        and gap.values["azimuth_gap_degrees"] == pytest.approx(68.3, abs=0.5)
    )
    assert examine_cameras(ring(12, 120))["coverage"].level == "ok"  # an arc is a choice


def test_the_kinds_of_capture_are_told_apart():
    row = [look_at(np.array([x, -3.0, 1.0]), np.array([x, 0.0, 1.0])) for x in np.linspace(-1, 1, 9)]
    assert examine_cameras(row)["coverage"].values["kind"] == "forward-facing"
    outward = [look_at(eye := np.array([np.cos(a), np.sin(a), 0.0]), 3 * eye) for a in np.linspace(0, 6, 12)]
    assert examine_cameras(outward)["coverage"].values["kind"] == "outward"
    walk = [look_at(np.array([i * 1.0, 0, 0]), np.array([i + np.cos(i), np.sin(i), 0.1])) for i in range(12)]
    assert examine_cameras(walk)["coverage"].values["kind"] == "walk-through"


def test_up_is_found_and_a_turned_photo_is_named():
    poses_cv = ring(20)
    assert examine_cameras(poses_cv)["up"].values["axis"] == "+z"
    poses_cv[3] = np.diag([-1.0, -1, 1, 1]) @ poses_cv[3]
    found = examine_cameras(poses_cv)["up"]
    assert found.level == "warn" and found.names == ("3.png",)


def test_a_camera_that_looks_away_is_named():
    poses_cv = ring(20)
    poses_cv[7] = np.diag([-1.0, 1, -1, 1]) @ poses_cv[7]
    found = examine_cameras(poses_cv)["coverage"]
    assert found.level == "warn" and found.names == ("7.png",)


def test_turning_on_the_spot_is_refused_and_shared_places_are_counted():
    spot = [np.diag([1.0, 1, 1, 1]) @ look_at(np.zeros(3), np.array([np.cos(a), np.sin(a), 0])) for a in range(6)]
    assert examine_cameras(spot)["baseline"].level == "fail"
    assert examine_cameras(spot[:1])["baseline"].level == "fail"  # one photo
    twice = examine_cameras([*ring(6), *ring(6)])["baseline"]
    assert twice.level == "warn" and twice.values["same_place"] == 12


@pytest.mark.parametrize(
    ("fx", "fy", "cx", "words"),
    [(300, 300, 300, "principal point"), (300, 500, 160, "fx and fy"), (5000, 5000, 160, "angle of view"),
     (40, 40, 160, "angle of view")],
)  # fmt: skip
def test_impossible_lenses_are_named(fx, fy, cx, words):
    found = examine_cameras(ring(5), K=np.array([[fx, 0, cx], [0, fy, 120.0], [0, 0, 1.0]]))["lenses"]
    assert found.level == "warn" and words in found.message and len(found.names) == 5


def test_one_focal_length_unlike_the_others_is_named():
    given = [Camera(K, pose, WIDTH, HEIGHT) for pose in ring(8)]
    given[2] = Camera(
        np.diag([1.6, 1.6, 1]) @ K + [[0, 0, -96], [0, 0, -72], [0, 0, 0]], given[2].cam_from_world, WIDTH, HEIGHT
    )
    (found, *_) = poses.examine([str(i) for i in range(8)], given)
    assert found.level == "warn" and found.names == ("2",)


# ------------------------------------------------------------------------------------------------------------ photos
@pytest.fixture
def copy(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "room"))


def test_broken_photos_are_each_named(copy):
    # Exposure, blur, a truncated file, a copy: one check finds all.
    rgb = PICTURES[3][0]
    Image.fromarray(cv2.GaussianBlur(rgb, (0, 0), 3.0)).save(copy / NAMES[3])
    dark = (255 * (PICTURES[6][0] / 255.0 * 4 ** (-1 / 2.2))).astype(np.uint8)
    Image.fromarray(dark).save(copy / NAMES[6])
    data = (copy / NAMES[8]).read_bytes()
    (copy / NAMES[8]).write_bytes(data[: len(data) // 2])
    shutil.copy(copy / NAMES[10], copy / NAMES[11])
    found = splatinit.check(copy)
    assert found.level == "fail"
    assert found.finding("blur").names == (NAMES[3],)
    assert found.finding("exposure").names == (NAMES[6],)
    assert found.finding("files").names == (NAMES[8],) and found.finding("files").level == "fail"
    assert found.finding("copies").names == (NAMES[11],)
    assert found.finding("standing_still").names == (NAMES[11],)
    assert found.looked_at == VIEWS - 1


def test_a_file_that_is_damaged_inside_is_named(copy):
    path = copy / NAMES[2]
    data = bytearray(path.read_bytes())
    data[len(data) // 3 : len(data) // 3 + 400] = bytes(400)
    path.write_bytes(data)
    assert splatinit.check(copy).finding("files").names == (NAMES[2],)


def test_headers_that_cannot_be_read_are_all_listed(copy):
    for name in NAMES[1:4]:
        (copy / name).write_bytes(b"no image")
    with pytest.raises(FormatError, match=r"3 image files cannot be read: images/01.png, images/02.png, images/03.png"):
        splatinit.check(copy)


def test_one_unreadable_header_keeps_the_readers_own_error(copy):
    (copy / NAMES[1]).write_bytes(b"no image")
    with pytest.raises(FormatError, match=r"01.png: the image cannot be read"):
        splatinit.check(copy)


def test_what_cannot_be_read_is_the_readers_error(tmp_path, copy):
    with pytest.raises(NoImages, match="no such folder"):
        splatinit.check(tmp_path / "nowhere")
    data = json.loads((copy / "transforms.json").read_text())
    data["frames"][4]["transform_matrix"][0][3] = float("nan")
    (copy / "transforms.json").write_text(json.dumps(data))
    with pytest.raises(BadPoses, match="frame 4"):
        splatinit.check(copy)
    with pytest.raises(ConfigError, match="unknown setting 'max_sizes'"):
        splatinit.check(copy, max_sizes=3)


def test_photos_without_poses_are_judged_by_their_overlap(whole, tmp_path):
    found = splatinit.check(whole / "images")
    assert found.posed == 0 and found.finding("sfm").level == "ok" and found.finding("parallax").level == "ok"
    apart = tmp_path / "apart"
    apart.mkdir()
    for i in range(6):
        Image.fromarray(texture(10 + i)[:240, :320].astype(np.uint8)).save(apart / f"{i}.png")
    found = splatinit.check(apart)
    assert found.finding("sfm").level == "fail" and "hardly" in found.finding("sfm").message
    assert found.finding("count").level == "warn"


def test_turning_on_the_spot_without_poses_is_seen_as_a_plane(tmp_path):
    for i in range(6):
        pose = look_at(np.array([2.5, 2.0, 1.2]), np.array([0.2 + 0.1 * i, 0.9 - 0.1 * i, 0.4]))
        Image.fromarray(draw(Camera(K, pose, WIDTH, HEIGHT))[0]).save(tmp_path / f"{i}.png")
    found = splatinit.check(tmp_path).finding("parallax")
    assert found.level == "warn" and "instead of turning" in found.advice


def test_a_single_photo_is_a_report_too(tmp_path):
    Image.fromarray(PICTURES[0][0]).save(tmp_path / "a.png")
    assert splatinit.check(tmp_path).level == "fail"
    flat = tmp_path / "flat"
    flat.mkdir()
    for i in range(3):
        Image.fromarray(np.full((60, 80, 3), 90 + 40 * i, np.uint8)).save(flat / f"{i}.png")
    found = splatinit.check(flat)  # no edge, no feature, too small
    assert found.finding("blur").level == found.finding("size").level == "warn" and found.level == "fail"


def test_alpha_and_masks_are_counted(tmp_path):
    for i in range(4):
        alpha = np.full((HEIGHT, WIDTH), 255, np.uint8)
        alpha[:, : WIDTH // 2] = 0
        alpha[:] = 0 if i == 2 else alpha
        Image.fromarray(np.dstack([PICTURES[i][0], alpha])).save(tmp_path / f"{i}.png")
    found = splatinit.check(tmp_path).finding("alpha")
    assert found.level == "warn" and found.names == ("2.png",) and found.values["share_median"] == pytest.approx(0.5)


def test_grey_photos_among_coloured_ones_are_named(tmp_path):
    for i in range(4):
        picture = Image.fromarray(PICTURES[i][0])
        (picture.convert("L") if i == 1 else picture).save(tmp_path / f"{i}.png")
    assert splatinit.check(tmp_path).finding("grey").names == ("1.png",)


# ---------------------------------------------------------------------------------------------------------- measures
@pytest.mark.parametrize("sigma", [1.0, 2.0, 3.0])
def test_blur_is_measured_in_px_whatever_the_exposure(sigma):
    checker = (np.indices((240, 320)) // 20).sum(axis=0) % 2 * 180.0 + 30
    blurred = cv2.GaussianBlur(checker, (0, 0), sigma)
    for gain in (1.0, 0.3):
        assert looks.blur_px(np.rint(blurred * gain).astype(np.uint8)) == pytest.approx(sigma, rel=0.15)


@pytest.mark.parametrize("axis", [(1, 13), (13, 1), "diagonal"])
def test_motion_along_one_direction_is_blur(axis):
    rng = np.random.default_rng(0)
    boxes = np.full((240, 320), 90, np.uint8)  # edges of all directions
    for x, y, size, turn in zip(*rng.integers(0, [[320], [240], [60], [90]], (4, 60)), strict=True):
        corners = cv2.boxPoints(((float(x), float(y)), (size + 15.0, size + 15.0), float(turn)))
        cv2.fillPoly(boxes, [corners.astype(np.int32)], int(rng.integers(20, 235)))
    kernel = np.eye(13) if axis == "diagonal" else np.ones(axis)
    moved = cv2.filter2D(boxes, -1, kernel / kernel.sum())
    assert looks.blur_px(boxes) < 0.5 and looks.blur_px(moved) > photos._BLUR_PX


def test_nothing_to_see_is_no_blur():
    assert np.isnan(looks.blur_px(np.full((40, 40), 100, np.uint8)))
    assert np.isnan(looks.blur_px(np.zeros((1, 1), np.uint8)))


def test_files_that_only_look_cut_are_whole(tmp_path):
    path = tmp_path / "phone.jpg"
    Image.fromarray(PICTURES[0][0]).save(path)
    photo = probe_image(path)
    assert not files.looks_cut(path)
    path.write_bytes(path.read_bytes() + b"a video of two seconds")
    assert files.looks_cut(path) and files.damaged([photo], 1) == {}
    path.write_bytes(path.read_bytes()[:3000])
    assert "phone.jpg" in files.damaged([photo], 1)
    Image.fromarray(PICTURES[0][0]).save(tmp_path / "a.webp")
    assert not files.looks_cut(tmp_path / "a.webp")


# -------------------------------------------------------------------------------------------------------- thumbnails
@pytest.mark.parametrize("orientation", [1, 6, 3])
def test_a_thumbnail_shows_what_load_shows(tmp_path, orientation):
    big = cv2.resize(PICTURES[0][0], (2000, 1500), interpolation=cv2.INTER_CUBIC)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(big).save(tmp_path / "a.jpg", quality=95, exif=exif)
    photo = probe_image(tmp_path / "a.jpg")
    size = (photo.width // 5, photo.height // 5)
    seen, exact = thumbnail(photo, *size).rgb, photo.load(*size).rgb
    assert seen.shape == exact.shape
    assert np.abs(seen.astype(int) - exact).mean() < 1.5
    # Not shifted: half a pixel would be seen at once.
    shift, _ = cv2.phaseCorrelate(seen[..., 1].astype(np.float32), exact[..., 1].astype(np.float32))
    assert np.abs(shift).max() < 0.05


def test_a_cut_thumbnail_is_refused(tmp_path):
    Image.fromarray(cv2.resize(PICTURES[0][0], (2000, 1500))).save(tmp_path / "a.jpg")
    photo = probe_image(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(FormatError, match=r"a.jpg: the image cannot be read"):
        thumbnail(photo, 400, 300)


def test_positions_without_the_lens_are_where_load_has_them(tmp_path):
    Image.fromarray(PICTURES[0][0]).save(tmp_path / "a.png")
    photo, new_K = undistorted(probe_image(tmp_path / "a.png"), K, Distortion("brown", (-0.2, 0.05, 0.001, -0.002)))
    xy = np.array([[160.0, 120.0], [40.0, 30.0], [300.0, 200.0]])
    lens = photo.lenses[0]
    straight = without_lens(photo, xy / 2, WIDTH // 2, HEIGHT // 2) * 2
    u, v = lens.distortion.apply(*((straight - new_K[:2, 2]) / [new_K[0, 0], new_K[1, 1]]).T)
    assert np.abs(np.stack([u, v], axis=1) * 300.0 + K[:2, 2] - xy).max() < 1e-4


# ------------------------------------------------------------------------------------------------- points and depth
def surface(n: int, seed: int = 0) -> PointCloud:
    """Points of the room with the colours that the photos show there."""
    rng = np.random.default_rng(seed)
    xyz, rgb = [], []
    for camera, (picture, depth) in zip(CAMERAS, PICTURES, strict=True):
        x, y = rng.integers(0, WIDTH, n), rng.integers(0, HEIGHT, n)
        z = depth[y, x]
        keep = np.isfinite(z)
        x, y, z = x[keep], y[keep], z[keep]
        rays = np.stack([x + 0.5, y + 0.5, np.ones(len(x))], axis=1) @ np.linalg.inv(K).T * z[:, None]
        xyz.append((rays - camera.cam_from_world[:3, 3]) @ camera.cam_from_world[:3, :3])
        rgb.append(picture[y, x] / 255.0)
    return PointCloud(np.concatenate(xyz), np.concatenate(rgb))


def judge_points(whole, cloud: PointCloud) -> dict[str, Finding]:
    images = read_images(whole, ReadConfig())
    images = type(images)(**{**vars_of(images), "points": cloud})
    names = [photo.name for photo in images.photos]
    return {finding.id: finding for finding in points.examine(images, names, [images.cameras[n] for n in names])}


def vars_of(images) -> dict:
    return {key: getattr(images, key) for key in images.__dataclass_fields__}


def test_points_that_fit_and_points_of_another_world(whole):
    cloud = surface(200)
    found = judge_points(whole, cloud)
    assert [f.level for f in found.values()] == ["ok", "ok", "ok"]
    assert found["points_colours"].values["error_over_chance"] < 0.4
    away = judge_points(whole, PointCloud(cloud.xyz + np.float32([50, 0, 0]), cloud.rgb))
    assert away["points_per_view"].level == "fail" and "other coordinates" in away["points_per_view"].advice
    turned = judge_points(whole, PointCloud(cloud.xyz[:, [1, 0, 2]], cloud.rgb))
    assert turned["points_colours"].level == "warn"
    far = cloud.xyz.copy()
    far[::20] *= 1e4
    assert judge_points(whole, PointCloud(far, cloud.rgb))["points_extent"].level == "warn"
    few = judge_points(whole, cloud.select(np.arange(0, len(cloud), 100)))
    assert few["points_per_view"].level == "warn" and few["points_per_view"].names
    grey = judge_points(whole, PointCloud(cloud.xyz, np.full_like(cloud.rgb, 0.5)))
    assert "points_colours" not in grey


@pytest.mark.parametrize(("unit", "level"), [(0.001, "ok"), (1.0, "fail"), (0.00112, "warn")])
def test_the_unit_of_depth_maps_is_measured(tmp_path, unit, level):
    folder = write_scene(tmp_path / "room", depth_unit_scale_factor=unit)
    (folder / "depth").mkdir()
    data = json.loads((folder / "transforms.json").read_text())
    for frame, (_, depth) in zip(data["frames"], PICTURES, strict=True):
        name = "depth/" + Path(frame["file_path"]).name
        cv2.imwrite(str(folder / name), np.where(np.isfinite(depth), depth * 1000, 0).astype(np.uint16))
        frame["depth_file_path"] = name
    (folder / "transforms.json").write_text(json.dumps(data))
    finding = splatinit.check(folder).finding("depth")
    assert finding.level == level
    assert finding.values["ratio"] == pytest.approx(unit * 1000, rel=0.01)


# ----------------------------------------------------------------------------------------------------------- samples
def test_large_sets_are_sampled_evenly_and_in_groups_of_neighbours():
    near = [[(i + 5) % 1000, (i + 6) % 1000] for i in range(1000)]
    chosen = scene.matched_sample(1000, near)
    assert chosen == scene.matched_sample(1000, near) and len(chosen) <= scene.MOST_MATCHED
    assert {0, 1, 5, 6} <= set(chosen) and max(chosen) >= 999
    assert scene.matched_sample(3, [[], [], []]) == [0, 1, 2]
    assert scene.evenly(0, 5) == [] and scene.evenly(2, 5) == [0, 1] and len(scene.evenly(1000, 200)) == 200


def test_candidates_stay_within_their_bound_and_leave_nobody_out():
    votes = np.random.default_rng(0).integers(0, 60, (120, 120))
    votes = votes + votes.T
    found = matches.candidates(votes, [[] for _ in range(120)])
    assert len(found) == len(set(found)) <= matches.MOST_PAIRS
    assert {i for pair in found for i in pair} == set(range(120))
    more = matches.further_candidates(votes, [[] for _ in range(120)], [], found)
    assert not set(more) & set(found)


def test_matching_of_next_to_nothing():
    none = looks.Features((8, 8), np.zeros((0, 2)), np.zeros((0, 128), np.uint8), np.zeros(0))
    one = looks.Features((8, 8), np.ones((1, 2)), np.ones((1, 128), np.uint8), np.zeros(1))
    for a, b in ((none, none), (one, none), (one, one)):
        assert [len(each) for each in matches.match(a, b)] == [0, 0]
        assert matches.verify(a, b, np.zeros(0, int), np.zeros(0, int)) is None
    same = looks.Features((8, 8), np.ones((30, 2)), np.ones((30, 128), np.uint8), np.zeros(30))
    assert matches.verify(same, same, np.arange(30), np.arange(30)) is None  # all at one place
    assert matches.coarse_votes([none, one, same]).max() == 0
    assert matches.components(3, []) == [[0], [1], [2]]


def test_exposure_without_matches_is_judged_by_the_whole_photos():
    tiny = np.zeros((looks.TINY, looks.TINY), np.uint8)
    given = [
        looks.Look(str(i), (9, 9), -3.0 - 4.0 * (i == 4), 0, 0, 0.5, False, None, None, tiny, None) for i in range(9)
    ]
    found = photos._exposure(given, [], np.zeros(0), [])
    assert found.level == "warn" and found.names == ("4",)


# ------------------------------------------------------------------------------------------------------ command line
def invoke(*arguments: str):
    return CliRunner().invoke(app, ["check", *arguments])


def test_the_page_the_json_and_the_exit_codes(whole, tmp_path, copy):
    done = invoke(str(whole), "--json", str(tmp_path / "report.json"))
    assert done.exit_code == 0, done.output
    assert "✓" in done.output and "Good: nothing to do" in done.output and "read as nerfstudio" in done.output
    assert len(done.output.splitlines()) < 50  # a page
    assert json.loads((tmp_path / "report.json").read_text())["level"] == "ok"
    # What would spoil the result: exit 1, and what to do.
    shutil.rmtree(copy)
    write_scene(copy, np.linalg.inv(TRUE))
    done = invoke(str(copy))
    assert done.exit_code == 1 and "✗" in done.output and "→" in done.output
    assert "taken as their inverse" in " ".join(done.output.split())
    done = invoke(str(copy), "--json", "-", "data.max_size=200")
    assert done.exit_code == 1 and json.loads(done.stdout)["findings"]
    assert invoke(str(tmp_path / "nowhere")).exit_code == 2


def test_names_of_files_reach_the_terminal_harmless(tmp_path):
    (tmp_path / "[red]").mkdir()
    for name in ("[red]a\x1b[2Jb.png", "c.png"):
        Image.fromarray(PICTURES[0][0]).save(tmp_path / "[red]" / name)  # copies, so that the page names one
    output = invoke(str(tmp_path / "[red]")).output
    assert "\x1b[2J" not in output and "[red]a" in output.replace("\n", "")


# -------------------------------------------------------------------------------------------------------- real photos
@pytest.mark.real
@pytest.mark.parametrize("name", ["fox", "synth_table"])
def test_real_scenes_are_good(shared_data, name):
    found = splatinit.check(shared_data / name, max_size=400)
    serious = [f.message for f in found.findings if f.level != "ok" and f.id != "size"]
    assert not serious
    assert found.finding("epipolar").values["median_px"] < 0.4
