"""Posers: what can be checked without COLMAP, and COLMAP on a few real photos at small sizes."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from splatinit.errors import (
    BadPoses,
    ConfigError,
    FolderInUse,
    NoImages,
    NoPoses,
    OutputError,
    SceneError,
    TooFewMatches,
)
from splatinit.geometry.rigid import inverse, project
from splatinit.io.images import probe_image, write_png
from splatinit.io.read import ReadConfig, read_images
from splatinit.posers import POSERS, choose_poser, make_poser
from splatinit.posers.base import Posed, Result, as_view, fingerprint, load_result, store_result
from splatinit.posers.colmap import Colmap, ColmapConfig, Model, Try, _numbered, _settled, focal_scores
from splatinit.posers.given import Given, GivenConfig
from splatinit.posers.steps import Steps, work_place
from splatinit.posers.workspace import Item, Workspace, all_pairs, export_size, pose_pairs, sequence_pairs
from splatinit.progress import Silent
from splatinit.types import Camera, ImageSet, PointCloud


class Recorder(Silent):
    """Keeps what a poser reports."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.notes: list[str] = []

    def start(self, stage, total=None):
        self.stages.append(stage)

    def note(self, text):
        self.notes.append(text)


def ring_camera(angle: float, width: int = 64, height: int = 48, focal: float = 60.0) -> Camera:
    """On a circle of radius 4 about the origin, looking at it."""
    center = 4 * np.array([np.cos(angle), np.sin(angle), 0.25])
    z = -center / np.linalg.norm(center)
    x = np.cross(z, [0.0, 0.0, 1.0])
    x /= np.linalg.norm(x)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([x, np.cross(z, x), z])
    pose[:3, 3] = -pose[:3, :3] @ center
    return Camera(np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]]), pose, width, height)


@pytest.fixture
def images(tmp_path) -> ImageSet:
    """Ten small photos with poses and points."""
    photos, cameras = [], {}
    for i in range(10):
        path = tmp_path / "scene" / f"{i:02d}.png"
        write_png(path, np.full((48, 64, 3), 20 * i, np.uint8))
        photos.append(probe_image(path))
        cameras[photos[-1].name] = ring_camera(0.6 * i)
    points = PointCloud(xyz=np.random.default_rng(0).normal(size=(40, 3)), rgb=np.full((40, 3), 0.3))
    return ImageSet(
        root=tmp_path / "scene",
        format="test",
        photos=tuple(photos),
        sizes={photo.name: (32, 24) for photo in photos},
        cameras={name: camera.resized(32, 24) for name, camera in cameras.items()},
        points=points,
        notes=("read",),
    )


# ------------------------------------------------------------------------------------------------------------- given
def test_auto_takes_given_poses(images):
    assert choose_poser(images) == "given"
    assert choose_poser(dataclasses.replace(images, cameras={})) == "colmap"
    assert POSERS.names() == ["given", "colmap"]
    assert isinstance(make_poser("given"), Given)


def test_given_splits_every_eighth(images, tmp_path):
    scene = Given().pose(images, work_dir=tmp_path / "work", progress=Silent())
    assert [view.name for view in scene.test] == ["00.png", "08.png"]
    assert len(scene.train) == 8 and scene.views[3].camera.width == 32
    assert scene.points is images.points and scene.poser == "given" and scene.notes == ("read",)
    assert (tmp_path / "work" / "sparse" / "0" / "points3D.bin").is_file()


def test_given_keeps_the_split_of_the_files(images):
    own = dataclasses.replace(images, test_names=frozenset({"05.png"}), background=(1.0, 1.0, 1.0))
    scene = Given().pose(own, work_dir=None, progress=Silent())
    assert [view.name for view in scene.test] == ["05.png"] and scene.background == (1.0, 1.0, 1.0)
    with pytest.raises(SceneError, match="nothing is left to train on"):
        everything = frozenset(photo.name for photo in images.photos)
        Given().pose(dataclasses.replace(images, test_names=everything), work_dir=None, progress=Silent())


def test_given_refuses_unusable_cameras(images):
    with pytest.raises(NoPoses, match="no poses"):
        Given().pose(dataclasses.replace(images, cameras={}), work_dir=None, progress=Silent())
    one = dataclasses.replace(images, cameras={"03.png": images.cameras["03.png"]})
    with pytest.raises(NoImages, match="1 of 10 photos have a pose"):
        Given().pose(one, work_dir=None, progress=Silent())
    broken = dataclasses.replace(images.cameras["03.png"], cam_from_world=np.diag([2.0, 2, 2, 1]))
    with pytest.raises(BadPoses, match=r"photo '03\.png'"):
        Given().pose(
            dataclasses.replace(images, cameras={**images.cameras, "03.png": broken}), work_dir=None, progress=Silent()
        )


def test_given_without_points_or_triangulation(images):
    scene = Given(GivenConfig(triangulate=False)).pose(
        dataclasses.replace(images, points=None), work_dir=None, progress=Silent()
    )
    assert scene.points is None


@pytest.mark.parametrize(
    ("config", "bad"),
    [
        (GivenConfig, {"max_size": 10}),
        (GivenConfig, {"max_features": 0}),
        (ColmapConfig, {"mapper": "incremntal"}),
        (ColmapConfig, {"matching": "all"}),
        (ColmapConfig, {"focal_factors": ()}),
        (ColmapConfig, {"focal_factors": (0.0,)}),
        (ColmapConfig, {"max_size": 10}),
        (ColmapConfig, {"max_features": 0}),
    ],
)
def test_bad_settings_are_named(config, bad):
    with pytest.raises(ConfigError, match=f"poser.{next(iter(bad))} is"):
        config(**bad)


# ------------------------------------------------------------------------------------------------------------- cache
def test_cache_returns_every_bit_and_notices_changes(images, tmp_path):
    posed = tuple(
        Posed(name, camera.resized(64, 48).K / 3, (0.1, 0.0, 0.0, 0.0), camera.cam_from_world)
        for name, camera in images.cameras.items()
    )
    points = PointCloud(xyz=images.points.xyz, rgb=np.round(images.points.rgb * 255) / 255)
    key = fingerprint(images, "colmap", ColmapConfig())
    assert load_result(tmp_path, key) is None and load_result(None, key) is None
    views = list(Given().pose(images, work_dir=None, progress=Silent()).views)
    store_result(tmp_path, key, Result(posed, points, ("a note",)), views)
    again = load_result(tmp_path, key)
    assert again.notes == ("a note",)
    for a, b in zip(again.posed, posed, strict=True):
        assert (a.name, a.distortion) == (b.name, b.distortion)
        np.testing.assert_array_equal(a.K, b.K)
        np.testing.assert_array_equal(a.cam_from_world, b.cam_from_world)
    np.testing.assert_array_equal(again.points.xyz, points.xyz)
    np.testing.assert_allclose(again.points.rgb, points.rgb, atol=1e-6)

    assert load_result(tmp_path, fingerprint(images, "colmap", ColmapConfig(max_size=800))) is None
    assert fingerprint(images, "given", ColmapConfig()) != key
    assert fingerprint(dataclasses.replace(images, test_names=frozenset()), "colmap", ColmapConfig()) == key
    assert fingerprint(dataclasses.replace(images, test_names=frozenset({"03.png"})), "colmap", ColmapConfig()) != key


@pytest.mark.parametrize("damage", ["truncate index", "truncate points", "drop key", "remove model"])
def test_a_damaged_cache_is_no_cache(images, tmp_path, damage):
    key = fingerprint(images, "given", GivenConfig())
    Given().pose(images, work_dir=tmp_path, progress=Silent())
    assert load_result(tmp_path, key) is not None
    index, points = tmp_path / "poser.json", tmp_path / "sparse" / "0" / "points3D.bin"
    if damage == "truncate index":
        index.write_text(index.read_text()[:40])
    elif damage == "truncate points":
        points.write_bytes(points.read_bytes()[:-3])
    elif damage == "drop key":
        index.write_text(json.dumps({k: v for k, v in json.loads(index.read_text()).items() if k != "posed"}))
    else:
        shutil.rmtree(tmp_path / "sparse")
    assert load_result(tmp_path, key) is None
    assert len(Given().pose(images, work_dir=tmp_path, progress=Silent()).points) == 40


def test_distortion_is_removed_from_photo_and_camera_alike(images):
    name, camera = "04.png", images.cameras["04.png"].resized(64, 48)
    plain = as_view(images, Posed(name, camera.K, (0.0, 0.0, 0.0, 0.0), camera.cam_from_world))
    np.testing.assert_allclose(plain.camera.K, images.cameras[name].K)
    bent = as_view(images, Posed(name, camera.K, (-0.2, 0.0, 0.0, 0.0), camera.cam_from_world))
    # A barrel lens sees more than a pinhole of its focal length.
    assert bent.photo.lenses and bent.camera.fx < plain.camera.fx and bent.pixels().rgb.shape == (24, 32, 3)


# ------------------------------------------------------------------------------------------------------------- pairs
def test_pairs_of_a_sequence_close_loops():
    assert all_pairs(4) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    pairs = sequence_pairs(300)
    assert {(0, 1), (0, 10), (5, 21), (0, 256), (0, 299)} <= set(pairs)
    assert all(0 <= a < b < 300 for a, b in pairs) and len(pairs) == len(set(pairs)) < 300 * 25
    assert sequence_pairs(2) == [(0, 1)]


def test_pairs_by_pose_never_join_opposite_views():
    cameras = [ring_camera(a) for a in np.linspace(0, 2 * np.pi, 60, endpoint=False)]
    centers = np.stack([camera.center for camera in cameras])
    forward = np.stack([camera.cam_from_world[2, :3] for camera in cameras])
    pairs = pose_pairs(centers, forward)
    apart = np.array([min(b - a, 60 - b + a) for a, b in pairs])
    assert (0, 1) in pairs and apart.max() * 6 < 78 and 60 * 6 < len(pairs) < 60 * 14
    assert len(np.unique(np.array(pairs))) == 60


def test_export_size():
    class Photo:
        width, height = 4000, 3000

    assert export_size(Photo, 1600) == (1600, 1200)
    assert export_size(Photo, 5000) == (4000, 3000)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["f_001.png", "f_002.png", "f_010.png"], True),
        (["a/7.jpg", "a/8.jpg"], True),
        (["DSC1.jpg", "IMG2.jpg"], False),
        (["left.png", "right.png"], False),
        (["a1.png", "a1_b2.png"], False),
    ],
)
def test_numbered_names(names, expected):
    assert _numbered(names) is expected


# ------------------------------------------------------------------------------------------------------ focal length
def fundamental(a: Camera, b: Camera) -> np.ndarray:
    relative = b.cam_from_world @ inverse(a.cam_from_world)
    t = relative[:3, 3]
    skew = np.array([[0, -t[2], t[1]], [t[2], 0, -t[0]], [-t[1], t[0], 0]])
    return np.linalg.inv(b.K).T @ skew @ relative[:3, :3] @ np.linalg.inv(a.K)


def test_fundamental_matrices_tell_the_focal_length():
    rng = np.random.default_rng(0)
    cameras = []
    for i in range(8):  # a ring alone is degenerate (all optical axes meet), so each camera is turned a little
        camera = ring_camera(0.5 * i, 800, 600, focal=0.93 * 800)
        turn = np.eye(4)
        turn[:3, :3] = np.linalg.qr(np.eye(3) + 0.15 * rng.normal(size=(3, 3)))[0]
        turn[:3, :3] *= np.sign(np.diag(turn[:3, :3]))
        if np.linalg.det(turn) < 0:
            continue
        cameras.append(dataclasses.replace(camera, cam_from_world=turn @ camera.cam_from_world))
    geometry = [(a, b, fundamental(cameras[a], cameras[b]), 200) for a, b in all_pairs(len(cameras))]
    geometry += [(a, b, rng.normal(size=(3, 3)), 60) for a, b in all_pairs(len(cameras))[:4]]  # nonsense
    factors = np.geomspace(0.35, 4, 400)
    of, sizes = [0] * len(cameras), {0: (800, 600)}
    scores = focal_scores(geometry, of, sizes, {}, factors)
    assert factors[np.argmin(scores)] == pytest.approx(0.93, rel=0.01)
    # Half of the photos from a camera that EXIF knows; the other half's focal length is found all the same.
    of = [i % 2 for i in range(len(cameras))]
    mixed = focal_scores(geometry, of, {0: (800, 600), 1: (800, 600)}, {1: 0.93 * 800}, factors)
    assert factors[np.argmin(mixed)] == pytest.approx(0.93, rel=0.01)
    assert focal_scores(geometry, of, sizes, {0: 1.0, 1: 1.0}, factors) is None
    assert focal_scores([], [], {}, {}, factors) is None


def attempt(prior, registered, error, focal) -> Try:
    return Try(prior, (Model(None, registered, error, focal),))


def test_tries_stop_when_two_agree_on_the_best():
    good, same = attempt(0.9, 66, 0.31, 1.033), attempt(1.2, 66, 0.33, 1.035)
    wrong = attempt(0.7, 65, 0.91, 0.646)
    assert not _settled([good], 66) and not _settled([good, wrong], 66)
    assert _settled([wrong, good, same], 66)
    assert not _settled([wrong, dataclasses.replace(wrong, prior=1.2), good], 66)  # the best stands alone
    assert not _settled([Try(0.9, ())], 66)
    assert _settled([attempt(None, 66, 0.3, 1.0)], 66) and not _settled([attempt(None, 60, 0.3, 1.0)], 66)


def test_most_photos_first_then_smallest_error():
    models = [Model(None, 4, 0.1, 1.1), Model(None, 65, 0.9, 0.6), Model(None, 66, 0.5, 1.0), Model(None, 66, 0.3, 1.0)]
    assert sorted(models, key=Model.rank)[0] is models[3]


# -------------------------------------------------------------------------------------------------------- real COLMAP
def test_colmap_needs_three_photos(images):
    two = dataclasses.replace(images, cameras={}, photos=images.photos[:2])
    with pytest.raises(NoImages, match="at least 3"):
        Colmap().pose(two, work_dir=None, progress=Silent())


def test_photos_without_texture_are_refused(images, tmp_path):
    pytest.importorskip("pycolmap")
    flat = dataclasses.replace(images, cameras={}, points=None)
    with pytest.raises(TooFewMatches, match="registered 0 of 10 photos") as error:
        Colmap().pose(flat, work_dir=tmp_path / "work", progress=Silent())
    assert error.value.registered == 0 and not (tmp_path / "work").exists()
    with pytest.raises(TooFewMatches, match="left 0 points"):
        Given().pose(dataclasses.replace(images, points=None), work_dir=None, progress=Silent())


def test_images_are_numbered_in_their_order_whichever_thread_is_first(images, tmp_path):
    """Photos of very different cost: threads finish them out of order."""
    pytest.importorskip("pycolmap")
    rng = np.random.default_rng(0)
    items = []
    for i in range(12):
        side = (400, 24)[i % 2]
        path = tmp_path / "noise" / f"{i:02d}.png"
        write_png(path, rng.integers(0, 255, (side, side, 3), dtype=np.uint8))
        items.append(Item(probe_image(path), side, side, camera=i % 2))
    with work_place(tmp_path, "key") as steps:
        space = Workspace(steps, items, Silent())
        space.export(None)
        space.extract("PINHOLE", 500)
    names = sorted(space.file_names)  # COLMAP goes folder by folder, and there is one folder for each camera
    ids = dict(zip(space.file_names, space.image_ids, strict=True))
    assert [ids[name] for name in names] == sorted(ids.values())


def test_colmap_on_photos_without_exif(shared_data, tmp_path):
    """Sceaux Castle: 11 photos without EXIF, all register; the focal length is 1.046 × the longer side."""
    pytest.importorskip("pycolmap")
    read = read_images(shared_data / "sceaux_noposes", ReadConfig(max_size=200))
    config = ColmapConfig(max_size=480, max_features=1500, focal_factors=(1.2,))
    progress = Recorder()
    scene = Colmap(config).pose(read, work_dir=tmp_path, progress=progress)
    assert len(scene.views) == 11 and len(scene.test) == 2 and scene.poser == "colmap"
    camera = scene.train[0].camera
    assert (camera.width, camera.height) == (200, 150)
    assert camera.fy / 200 == pytest.approx(1.03, abs=0.05)
    assert len(scene.points) > 200 and scene.points.rgb.std() > 0.1
    inside = 0
    for view in scene.views:
        px, _ = project(view.camera.K, view.camera.cam_from_world, scene.points.xyz)
        inside += int(((px > 0) & (px < [200, 150])).all(axis=1).sum())
    assert inside > 4 * len(scene.points)
    assert {"SIFT features", "match features", "verify pairs"} <= set(progress.stages)

    again_progress = Recorder()
    again = Colmap(config).pose(read, work_dir=tmp_path, progress=again_progress)
    assert again_progress.stages == [] and again.notes == scene.notes
    np.testing.assert_array_equal(again.points.xyz, scene.points.xyz)
    for a, b in zip(again.views, scene.views, strict=True):
        np.testing.assert_array_equal(a.camera.K, b.camera.K)
        np.testing.assert_array_equal(a.camera.cam_from_world, b.camera.cam_from_world)


def test_triangulation_with_given_poses(shared_data, tmp_path):
    """Ten photos of the fox: features triangulated with the poses of transforms.json, cached."""
    pytest.importorskip("pycolmap")
    read = read_images(shared_data / "fox", ReadConfig(max_size=240))
    few = dataclasses.replace(read, photos=read.photos[:10])
    poser = Given(GivenConfig(max_size=480, max_features=1200))
    scene = poser.pose(few, work_dir=tmp_path, progress=Silent())
    points = scene.points
    points.check("fox")
    assert len(points) > 100 and 0.2 < points.rgb.mean() < 0.9 and points.rgb.std() > 0.1
    in_front = [project(view.camera.K, view.camera.cam_from_world, points.xyz)[1] > 0 for view in scene.train]
    assert np.mean(in_front) > 0.95
    assert "triangulated with the given poses from 8 training photos" in scene.notes[-1]
    again = Recorder()
    np.testing.assert_array_equal(poser.pose(few, work_dir=tmp_path, progress=again).points.xyz, points.xyz)
    assert again.stages == []
    assert not list(Path(tmp_path).glob("**/*.db"))


def test_of_three_photos_what_two_see_is_triangulated_too(shared_data, tmp_path, monkeypatch):
    pytest.importorskip("pycolmap")
    read = read_images(shared_data / "fox", ReadConfig(max_size=240))
    few = dataclasses.replace(read, photos=read.photos[10:14])  # the first of them is the test view
    poser = Given(GivenConfig(max_size=480, max_features=1200))
    scene = poser.pose(few, work_dir=tmp_path / "two", progress=Silent())
    monkeypatch.setattr("splatinit.posers.given._TWO_VIEW_TRACKS_UP_TO", 0)
    by_three = poser.pose(few, work_dir=tmp_path / "three", progress=Silent())
    assert len(scene.train) == 3 and len(scene.points) > 1.5 * len(by_three.points) > 100
    for view in scene.train:
        assert np.mean(project(view.camera.K, view.camera.cam_from_world, scene.points.xyz)[1] > 0) > 0.95


# ------------------------------------------------------------------------------------------------------ finished steps
def begin(work_dir: Path, key: str = "key", fails: type[BaseException] | None = None) -> Steps:
    """A structure from motion of one step, ``photos`` with one file, and a database, that may fail after them."""
    with work_place(work_dir, key) as steps:
        (steps.folder / "photo").write_text("photo")
        steps.finish("photos", [steps.folder / "photo"])
        (steps.scratch / "database.db").write_bytes(b"features")
        steps.keep("features", steps.scratch / "database.db")
        (steps.scratch / "database.db").write_bytes(b"matches")
        steps.keep("matches", steps.scratch / "database.db", instead_of=["features"])
        if fails is not None:
            raise fails("here")
    return steps


def found(work_dir: Path, key: str = "key") -> tuple[bool, bool, bytes | None]:
    """Whether photos and features are done, and the database after matches, for a process that takes the work up."""
    with pytest.raises(KeyboardInterrupt), work_place(work_dir, key) as steps:
        database = steps.scratch / "database.db"
        restored = steps.restore("matches", database)
        state = steps.done("photos"), steps.done("features"), database.read_bytes() if restored else None
        raise KeyboardInterrupt
    return state


def test_steps_stay_until_all_are_done(tmp_path):
    steps = begin(tmp_path)
    assert list(tmp_path.iterdir()) == [] and not steps.scratch.exists()
    with pytest.raises(KeyboardInterrupt):
        begin(tmp_path, fails=KeyboardInterrupt)
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == ["matches.db", "photo", "steps.json"]
    assert found(tmp_path) == (True, False, b"matches")
    assert found(tmp_path, "other photos") == (False, False, None)
    assert found(tmp_path) == (False, False, None)  # they were another work's


def test_photos_that_fail_leave_nothing(tmp_path):
    with pytest.raises(TooFewMatches):
        begin(tmp_path / "scene", fails=TooFewMatches)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "left"), [("photo", (False, False, b"matches")), ("matches.db", (True, False, None))])
def test_a_damaged_step_is_done_again(tmp_path, name, left):
    with pytest.raises(OSError, match="here"):
        begin(tmp_path, fails=OSError)
    (tmp_path / "work" / name).write_bytes(b"phot0")
    assert found(tmp_path) == left


@pytest.mark.parametrize("text", ["", "[]", '{"key": "key"}', '{"key": "key", "steps": 3, "scratch": 5}'])
def test_a_damaged_record_of_steps_is_none(tmp_path, text):
    with pytest.raises(OSError, match="here"):
        begin(tmp_path, fails=OSError)
    (tmp_path / "work" / "steps.json").write_text(text)
    assert found(tmp_path) == (False, False, None)


def test_only_one_process_works_at_a_time(tmp_path):
    with work_place(tmp_path, "key"), pytest.raises(FolderInUse, match="in use by this very process"):
        begin(tmp_path)


def test_the_scratch_folder_of_a_killed_process_goes_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    left = {name: tmp_path / name for name in ("tmp/splatinit-1", "tmp/precious", "splatinit-elsewhere")}
    for number, (name, folder) in enumerate(left.items()):
        (folder / "deep").mkdir(parents=True)
        work = tmp_path / str(number) / "work"
        work.mkdir(parents=True)
        (work / "steps.json").write_text(json.dumps({"key": "key", "steps": {}, "scratch": str(folder)}))
        begin(work.parent)
        assert folder.exists() == (name != "tmp/splatinit-1")
    assert [path.name for path in (tmp_path / "tmp").iterdir()] == ["precious"]


def test_a_full_disk_of_temporary_files_is_told_before_colmap_ends_the_process(images, tmp_path, monkeypatch):
    pytest.importorskip("pycolmap")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=5 * 2**20))
    without = dataclasses.replace(images, points=None)
    with pytest.raises(OutputError, match=r"needs up to 30 MB; 5 MB are free for temporary files in") as error:
        Given().pose(without, work_dir=tmp_path, progress=Silent())
    assert "TMPDIR" in error.value.hint and (tmp_path / "work" / "images").is_dir()
    with pytest.raises(OutputError, match=r"failed: No registered database.*; 5 MB are free for temporary files"):
        begin(tmp_path, fails=lambda text: RuntimeError("No registered database factory succeeded."))
    monkeypatch.undo()
    with pytest.raises(RuntimeError, match="here"):
        begin(tmp_path, fails=RuntimeError)


def test_colmap_opens_no_openmp_threads_of_its_own():
    """More than one made its matcher find other matches now and then (see load_pycolmap)."""
    pytest.importorskip("pycolmap")
    code = """
import ctypes, os, re
os.environ["OMP_NUM_THREADS"] = "5"
from splatinit.posers.workspace import load_pycolmap
load_pycolmap()
libraries = set(re.findall(r"\\S*pycolmap\\S*libgomp\\S*", open("/proc/self/maps").read()))
print(*(ctypes.CDLL(path).omp_get_max_threads() for path in libraries), os.environ["OMP_NUM_THREADS"])
"""
    if not Path("/proc/self/maps").exists():
        pytest.skip("the libraries of a process are looked up as Linux shows them")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *threads, variable = done.stdout.split()
    assert set(threads) == {"1"} and variable == "5"
