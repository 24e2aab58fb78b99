"""Converting scenes: what is kept bit for bit, what is rendered, names, and what other readers see in the result."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from splatinit.cli.app import app
from splatinit.convert import TARGETS, convert
from splatinit.errors import ConfigError, FormatError, OutputError
from splatinit.io import folders
from splatinit.io.images import DepthFile, MaskFile, probe_image, undistorted, write_png
from splatinit.io.lenses import Distortion
from splatinit.io.read import ReadConfig, read_images
from splatinit.pipeline import given_cameras, pose
from splatinit.types import Camera, PointCloud, Scene, View

FULL = ReadConfig(max_size=None)
LENS = Distortion("brown", (-0.08, 0.01, 0.001, -0.0005))


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def camera(index: int, width: int = 24, height: int = 16) -> Camera:
    """Irrational everything: no digit may be lost."""
    rng = np.random.default_rng(100 + index)
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    cam_from_world = np.eye(4)
    cam_from_world[:3, :3] = q * np.sign(np.linalg.det(q))
    cam_from_world[:3, 3] = 3 * rng.normal(size=3)
    fx, fy = (width * (0.9 + 0.1 * np.sqrt(index % 3 + 2)), width * np.pi / 3)
    return Camera(np.array([[fx, 0, width / 2.1], [0, fy, height / 1.9], [0, 0, 1]]), cam_from_world, width, height)


def points(n: int = 50) -> PointCloud:
    rng = np.random.default_rng(7)
    return PointCloud(rng.normal(0, 10, (n, 3)), rng.integers(0, 256, (n, 3)) / np.float32(255))


def save(path: Path, pixels: np.ndarray, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def view(root: Path, name: str, index: int = 0, width: int = 24, height: int = 16, channels: int = 3) -> View:
    options = {"quality": 80} if name.lower().endswith(("jpg", "jpeg")) else {}
    path = save(root / name, noise(height, width, channels, index), **options)
    photo = probe_image(path, name).as_stored()
    return View(name, camera(index, photo.width, photo.height), photo)


def scene(root: Path, views: list[View], test: int = 1, **more) -> Scene:
    return Scene(root, tuple(views[test:]), tuple(views[:test]), **more)


def back(folder: Path, config: ReadConfig = FULL) -> Scene:
    return given_cameras(read_images(folder, config))


def same_camera(a: Camera, b: Camera) -> None:
    assert (a.width, a.height) == (b.width, b.height)
    np.testing.assert_array_equal(a.K, b.K)
    np.testing.assert_allclose(a.cam_from_world, b.cam_from_world, rtol=0, atol=1e-12)


def same_pixels(a: View, b: View) -> None:
    for name in ("rgb", "alpha", "mask"):
        left, right = (getattr(each.pixels(), name) for each in (a, b))
        assert (left is None) == (right is None), name
        np.testing.assert_array_equal(left, right)


# ------------------------------------------------------------------------------------------------------- round trips
@pytest.mark.parametrize("way", [("colmap", "nerfstudio", "colmap"), ("nerfstudio", "colmap", "nerfstudio")])
def test_pinhole_scenes_come_back_bit_for_bit(tmp_path, way):
    views = [
        view(tmp_path / "in", "left/a.jpg", 0),
        view(tmp_path / "in", "left/a.png", 1, channels=4),
        view(tmp_path / "in", "left/b.JPG", 2),
        view(tmp_path / "in", "right/a.jpg", 3, 17, 31),
        view(tmp_path / "in", "right/c.tiff", 4),
        view(tmp_path / "in", "z.webp", 5),
    ]
    original = current = scene(tmp_path / "in", views, 2, points=points(), background=(1.0, 1.0, 1.0))
    for step, to in enumerate(way):
        result = convert(current, tmp_path / str(step), to)
        assert (result.copied, result.rendered, result.points, result.notes) == (6, 0, 50, ())
        current = back(result.folder)
    prefix = "images/" if way[-1] == "nerfstudio" else ""
    for kind in ("train", "test"):
        before, after = getattr(original, kind), getattr(current, kind)
        assert [prefix + each.name for each in before] == [each.name for each in after]
        for a, b in zip(before, after, strict=True):
            assert a.photo.path.read_bytes() == b.photo.path.read_bytes()
            same_camera(a.camera, b.camera)
    np.testing.assert_array_equal(original.points.xyz, current.points.xyz)
    np.testing.assert_array_equal(original.points.rgb, current.points.rgb)
    assert current.background == original.background


@pytest.mark.parametrize("to", TARGETS)
def test_a_split_without_a_file_is_written_down(tmp_path, to):
    """Every 8th of the old names need not be every 8th of the new ones."""
    views = [view(tmp_path / "in", f"{k}.png", k) for k in range(3)]
    result = convert(scene(tmp_path / "in", [views[1], views[0], views[2]]), tmp_path / "out", to)
    assert [Path(each.name).name for each in back(result.folder).test] == ["1.png"]
    everything = Scene(tmp_path / "in", tuple(views), ())
    assert len(back(convert(everything, tmp_path / "all", to).folder).test) == 1  # then every 8th again


@pytest.mark.parametrize("to", TARGETS)
def test_what_a_pinhole_does_not_see_is_rendered(tmp_path, to):
    plain = view(tmp_path / "in", "plain.png", 0, 40, 30)
    distorted = view(tmp_path / "in", "distorted.jpg", 1, 40, 30)
    photo, K = undistorted(distorted.photo, distorted.camera.K, LENS)
    distorted = View(distorted.name, dataclasses.replace(distorted.camera, K=K), photo)
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "in" / "turned.jpg", noise(30, 40, seed=2), exif=exif)
    upright = probe_image(tmp_path / "in" / "turned.jpg")
    turned = View("turned.jpg", camera(2, 30, 40), upright)
    # The same file with a camera made for its stored pixels, as structure from motion makes it.
    stored = View("stored.jpg", camera(3, 40, 30), dataclasses.replace(upright.as_stored(), name="stored.jpg"))
    small = view(tmp_path / "in", "small.png", 4, 40, 30)
    small = dataclasses.replace(small, camera=small.camera.resized(20, 15))
    save(tmp_path / "in" / "turned.tiff", noise(30, 40, seed=5), tiffinfo={0x0112: 6})
    tiff = View("turned.tiff", camera(5, 30, 40), probe_image(tmp_path / "in" / "turned.tiff"))
    views = [plain, distorted, turned, stored, small, tiff]
    result = convert(scene(tmp_path / "in", views), tmp_path / "out", to)
    assert (result.copied, result.rendered) == (2, 4)
    assert "4 of 6 photos were written as PNG: 1 lens distortion removed, 1 resized, 2 turned upright" in result.notes
    found = {Path(each.name).name: each for each in back(result.folder).views}
    for each in views:
        copied = each in (plain, stored)
        name = each.name if copied else Path(each.name).with_suffix(".png").name
        if name not in found:  # turned.jpg and turned.tiff both become turned.png
            name = "turned-2.png"
        same_pixels(each, found.pop(name))
    assert not found
    assert any("renamed" in note and "'turned.tiff' is now 'turned-2.png'" in note for note in result.notes)


@pytest.mark.parametrize("to", TARGETS)
def test_masks_become_files_or_transparency(tmp_path, to):
    views = [view(tmp_path / "in", name, k) for k, name in enumerate(("a.jpg", "b.png", "c.png", "d/a.jpg"))]
    kept = [(noise(16, 24, 1, 50 + k)[..., 0] > 99) * np.uint8(255) for k in range(3)]
    masks = [save(tmp_path / "m" / f"{k}.png", mask) for k, mask in enumerate(kept)]
    roles = ("ignore", "ignore", "alpha")
    views[:3] = [
        dataclasses.replace(v, photo=dataclasses.replace(v.photo, mask=MaskFile(path, role)))
        for v, path, role in zip(views, masks, roles, strict=False)
    ]
    views[1] = dataclasses.replace(views[1], camera=views[1].camera.resized(12, 8))
    result = convert(scene(tmp_path / "in", views, background=(1.0, 1.0, 1.0)), tmp_path / "out", to)
    assert (result.copied, result.rendered, result.masks) == (2, 2, 2)
    found = back(result.folder).views
    for a, b in zip(views, found, strict=True):
        same_pixels(a, b)
    assert [each.photo.has_mask for each in found] == [True, True, False, False]
    assert [each.photo.has_alpha for each in found] == [False, False, True, False]


def test_depth_maps(tmp_path):
    views = [view(tmp_path / "in", f"{k}.png", k) for k in range(3)]
    steps = np.random.default_rng(3).integers(0, 5000, (16, 24)).astype(np.uint16)
    write_png(tmp_path / "steps.png", steps)
    np.save(tmp_path / "metres.npy", steps.astype(np.float32) / 777)

    def with_depth(v, file, unit, **more):
        depth = DepthFile(tmp_path / file, unit, **more)
        return dataclasses.replace(v, photo=dataclasses.replace(v.photo, depth=depth))

    def of(name, views):
        result = convert(scene(tmp_path / "in", views), tmp_path / name, "nerfstudio")
        found = back(result.folder).views
        for a, b in zip(views, found, strict=True):
            expected = a.depth()
            np.testing.assert_allclose(b.depth(), 0 if expected is None else expected, rtol=1e-6)
        return result, json.loads((result.folder / "transforms.json").read_text())

    result, data = of("copied", [with_depth(v, "steps.png", 0.00025) for v in views])
    assert result.depths == 3 and data["depth_unit_scale_factor"] == 0.00025
    assert (result.folder / "depths" / "0.png.png").read_bytes() == (tmp_path / "steps.png").read_bytes()

    small = dataclasses.replace(views[0], camera=views[0].camera.resized(12, 8))
    # A wall, because depth between two steps of the file has no place in a file of whole steps.
    write_png(tmp_path / "wall.png", np.full((16, 24), 1234, np.uint16))
    _, data = of("rendered", [with_depth(small, "wall.png", 0.002), with_depth(views[1], "steps.png", 0.002)])
    assert data["depth_unit_scale_factor"] == 0.002
    assert [frame["depth_file_path"] for frame in data["frames"]] == ["depths/0.png.png", "depths/1.png.png"]

    sure = save(tmp_path / "sure.png", noise(16, 24, 1, 9)[..., 0])
    mixed = [
        with_depth(views[0], "metres.npy", 1.0),
        with_depth(views[1], "steps.png", 0.001, confidence=sure),
        with_depth(small, "metres.npy", 0.3),
    ]
    mixed[2] = dataclasses.replace(mixed[2], name="2.png")
    result, data = of("mixed", mixed)
    assert [frame["depth_unit_scale_factor"] for frame in data["frames"]] == [1.0, 0.001, 1.0]
    assert [Path(frame["depth_file_path"]).suffix for frame in data["frames"]] == [".npy", ".png", ".npy"]
    result = convert(scene(tmp_path / "in", mixed), tmp_path / "colmap", "colmap")
    assert result.depths == 0
    assert "depth maps of 3 photos have no place in a COLMAP data set and are left out" in result.notes


def test_a_given_depth_scale_of_two_units_is_told_per_frame(tmp_path):
    write_png(tmp_path / "d.png", np.full((16, 24), 40, np.uint16))
    views = []
    for k, unit in enumerate((0.5, 0.001)):
        v = view(tmp_path / "in", f"{k}.png", k)
        photo = dataclasses.replace(v.photo, depth=DepthFile(tmp_path / "d.png", unit))
        views.append(dataclasses.replace(v, photo=photo))
    result = convert(scene(tmp_path / "in", views), tmp_path / "out", "nerfstudio")
    assert [float(v.depth().max()) for v in back(result.folder).views] == pytest.approx([20, 0.04])


# ------------------------------------------------------------------------------------------------------------- names
def test_names(tmp_path):
    names = ["images/a b.png", "images/#1.png", "images/sub/A.png", "images/sub/a.png", "images/.hidden.png"]
    views = [dataclasses.replace(view(tmp_path / "in", f"{k}.png", k), name=name) for k, name in enumerate(names)]
    result = convert(scene(tmp_path / "in", views, 2), tmp_path / "out", "colmap")
    assert sorted(each.name for each in back(result.folder).views) == [
        "_1.png",
        "a b.png",
        "hidden.png",
        "sub/A.png",
        "sub/a-2.png",
    ]
    assert any(note.startswith("3 photos were renamed") for note in result.notes)
    assert {each.name for each in back(result.folder).test} == {"a b.png", "_1.png"}
    # A name that the file's suffix contradicts, and one that climbs.
    wrong = dataclasses.replace(views[0], name="x/0001.JPG")
    climbing = dataclasses.replace(views[1], name="../../up.png")
    result = convert(scene(tmp_path / "in", [wrong, climbing]), tmp_path / "out2", "nerfstudio")
    assert [each.name for each in back(result.folder).views] == ["images/up.png", "images/x/0001.png"]


def test_one_folder_of_names_is_kept_unless_it_is_the_image_folder(tmp_path):
    for folder, kept in (("images_4", ""), ("input", ""), ("left", "left/")):
        views = [view(tmp_path / "in", f"{folder}/{k}.png", k) for k in range(2)]
        result = convert(scene(tmp_path / "in", views), tmp_path / folder, "colmap")
        assert [each.name for each in back(result.folder).views] == [f"{kept}0.png", f"{kept}1.png"]


# ------------------------------------------------------------------------------------------------------ other readers
def test_colmap_itself_reads_the_model(tmp_path):
    pycolmap = pytest.importorskip("pycolmap")
    views = [view(tmp_path / "in", f"{k}.png", k, 24 + 2 * (k // 2), 16) for k in range(4)]
    convert(scene(tmp_path / "in", views, points=points()), tmp_path / "out", "colmap")
    model = pycolmap.Reconstruction(tmp_path / "out" / "sparse" / "0")
    images = {image.name: image for image in model.images.values()}
    assert sorted(images) == [v.name for v in views] and len(model.points3D) == 50
    for v in views:
        lens = model.cameras[images[v.name].camera_id]
        assert (lens.width, lens.height, lens.model.name) == (v.camera.width, v.camera.height, "PINHOLE")
        np.testing.assert_array_equal(lens.calibration_matrix(), v.camera.K)
        found = images[v.name].cam_from_world().matrix()
        np.testing.assert_allclose(found, v.camera.cam_from_world[:3], rtol=0, atol=1e-12)
    xyz = np.stack([model.points3D[key].xyz for key in sorted(model.points3D)])
    np.testing.assert_array_equal(xyz.astype(np.float32), points().xyz)


def test_nerfstudio_finds_what_it_wants(tmp_path):
    """The keys nerfstudio's data parser asks for, and its conventions by hand."""
    one = view(tmp_path / "in", "a.png", 0)
    look = np.array([[0, -1, 0, 2], [0, 0, -1, 3], [1, 0, 0, -1], [0, 0, 0, 1]], dtype=float)
    one = dataclasses.replace(one, camera=dataclasses.replace(one.camera, cam_from_world=look))
    other = dataclasses.replace(view(tmp_path / "in", "b.png", 3), camera=dataclasses.replace(camera(0)))
    result = convert(scene(tmp_path / "in", [one, other], points=points()), tmp_path / "out", "nerfstudio")
    data = json.loads((result.folder / "transforms.json").read_text())
    assert data["camera_model"] == "OPENCV" and data["w"] == 24 and data["h"] == 16 and data["k1"] == 0
    assert data["fl_x"] == camera(0).fx and data["frames"][0]["file_path"] == "images/a.png"
    # The camera at (1, 2, 3) that looks along world +x with world z up: OpenGL's backward axis is −x.
    expected = [[0, 0, -1, 1], [-1, 0, 0, 2], [0, 1, 0, 3], [0, 0, 0, 1]]
    np.testing.assert_allclose(data["frames"][0]["transform_matrix"], expected, atol=1e-15)
    lists = [data[f"{kind}_filenames"] for kind in ("train", "val", "test")]
    assert lists == [["images/b.png"], ["images/a.png"], ["images/a.png"]]
    assert (result.folder / data["ply_file_path"]).read_bytes().startswith(b"ply\n")


# ------------------------------------------------------------------------------------------------------------ errors
def test_the_output_folder_must_be_new(tmp_path, monkeypatch):
    one = scene(tmp_path / "in", [view(tmp_path / "in", f"{k}.png", k) for k in range(2)])
    with pytest.raises(ConfigError, match="Unknown format 'colmapp' to convert to.\n.*Did you mean 'colmap'"):
        convert(one, tmp_path / "out", "colmapp")
    for taken in (tmp_path / "in", tmp_path / "in" / "0.png"):
        with pytest.raises(ConfigError, match=r"Output folder .* exists and is not empty"):
            convert(one, taken, "colmap")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    assert convert(one, tmp_path / "link", "colmap").folder == tmp_path / "empty"
    assert (tmp_path / "link" / "sparse" / "0" / "cameras.bin").is_file()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"could not be written: (Not a directory|File exists)"):
        convert(one, tmp_path / "file" / "out", "colmap")
    monkeypatch.setattr(folders.shutil, "disk_usage", lambda path: folders.shutil._ntuple_diskusage(10, 9, 2e8))
    monkeypatch.setattr("splatinit.convert._size", lambda *a: 3e9)
    with pytest.raises(OutputError, match="the converted scene takes about 3.0 GB, but its disk has 0.2 GB free"):
        convert(one, tmp_path / "new" / "er", "colmap")
    assert not (tmp_path / "new").exists()


def test_what_fails_halfway_leaves_nothing(tmp_path):
    views = [view(tmp_path / "in", f"{k}.png", k) for k in range(6)]
    small = [dataclasses.replace(each, camera=each.camera.resized(12, 8)) for each in views]
    views[4].photo.path.write_bytes(b"no picture")
    with pytest.raises(FormatError, match="4.png: the image cannot be read"):
        convert(scene(tmp_path / "in", small), tmp_path / "out", "colmap")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["in"]
    views[2].photo.path.unlink()
    with pytest.raises(FileNotFoundError):
        convert(scene(tmp_path / "in", views), tmp_path / "out", "colmap")


def test_folders_appear_at_once(tmp_path):
    with folders.atomic_folder(tmp_path / "a") as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "x").write_text("1")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a" / "sub" / "x").read_text() == "1"
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o777 & ~_umask()
    filled = pytest.raises(OutputError, match="a could not be put in place: it was filled by somebody else")
    with filled, folders.atomic_folder(tmp_path / "a") as folder:
        (folder / "y").write_text("2")
    assert [each.name for each in tmp_path.iterdir()] == ["a"] and not (tmp_path / "a" / "y").exists()
    # What a killed process left goes once it is old; what another one fills now stays.
    for name, age in (("old", 7200), ("new", 60)):
        left = tmp_path / f".b.partial-{name}"
        (left / "images").mkdir(parents=True)
        for place in (left / "images", left):
            os.utime(place, (time.time() - age,) * 2)
    with folders.atomic_folder(tmp_path / "b"):
        pass
    assert sorted(each.name for each in tmp_path.iterdir()) == [".b.partial-new", "a", "b"]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# ------------------------------------------------------------------------------------------------------- command line
def invoke(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "300"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def test_the_command(tmp_path):
    views = [view(tmp_path / "in", f"{k}.png", k, 40, 30) for k in range(3)]
    convert(scene(tmp_path / "in", views, points=points()), tmp_path / "model", "colmap")
    text = invoke("convert", tmp_path / "model", tmp_path / "out", "--to", "nerfstudio")
    assert "3 photos copied byte for byte, 50 points" in text and str(tmp_path / "out") in text
    text = invoke("convert", tmp_path / "model", tmp_path / "small", "--to", "nerfstudio", "--max-size", 20)
    assert "3 of 3 photos were written as PNG: 3 resized" in text
    assert read_images(tmp_path / "small", FULL).cameras["images/0.png"].width == 20
    # Nothing is missing, so nothing is computed.
    assert "3 photos copied" in invoke("convert", tmp_path / "model", tmp_path / "posed", "--to", "colmap", "--pose")
    text = invoke("convert", tmp_path / "in", tmp_path / "no", "--to", "colmap", code=2)
    assert "it holds 3 photos but no poses" in text and "Give --pose" in text
    text = invoke("convert", tmp_path / "model", tmp_path / "out", "--to", "colmap", code=2)
    assert "exists and is not empty" in text
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("")
    text = invoke("convert", tmp_path / "run", tmp_path / "x", "--to", "colmap", "--max-size", 20, code=2)
    assert "is a run: it is converted as it was read" in text


# --------------------------------------------------------------------------------------------------------- real scenes
@pytest.mark.real
@pytest.mark.parametrize("name", ["bonsai", "fox", "synth_table"])
def test_real_scenes_go_round(shared_data, tmp_path, name):
    images = read_images(shared_data / name, FULL)
    whole = pose(images, "given", triangulate=False)
    current = few = dataclasses.replace(whole, train=whole.train[:3], test=whole.test[:1])
    for step, to in enumerate(("colmap", "nerfstudio", "colmap")):
        result = convert(current, tmp_path / str(step), to)
        assert (result.rendered > 0) == (name == "fox" and step == 0)  # distorted once, a pinhole from then on
        current = back(result.folder)
    assert len(current.train) == 3 and len(current.test) == 1
    for a, b in zip((*few.train, *few.test), (*current.train, *current.test), strict=True):
        assert Path(a.name).stem == Path(b.name).stem
        same_camera(a.camera, b.camera)
        same_pixels(a, b)
        if name != "fox":
            assert a.photo.path.read_bytes() == b.photo.path.read_bytes()
    if few.points is not None:
        np.testing.assert_array_equal(few.points.xyz, current.points.xyz)
        np.testing.assert_array_equal(few.points.rgb, current.points.rgb)
    assert current.background == few.background
