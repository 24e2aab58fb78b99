"""What a transforms.json may bring beside photos and poses: masks, depth maps and points, with numbers to check."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from splatinit.errors import BadPoints, FormatError, SceneError
from splatinit.io.depths import with_depth
from splatinit.io.images import write_png
from splatinit.io.pointcloud import write_ply_points
from splatinit.io.read import ReadConfig, read_images
from splatinit.types import PointCloud

EYE = np.eye(4).tolist()


def scene(folder, frames=None, size=(8, 6), **settings):
    """A folder with two frames (or ``frames``), each with its photo."""
    frames = [{"file_path": "images/a.png"}, {"file_path": "images/b.png"}] if frames is None else frames
    for frame in frames:
        write_png(folder / frame["file_path"], np.full((size[1], size[0], 3), 90, np.uint8))
        frame.setdefault("transform_matrix", EYE)
    (folder / "transforms.json").write_text(json.dumps({"fl_x": 10.0, **settings, "frames": frames}))
    return folder


def a_frame(**more):
    return {"file_path": "images/a.png", **more}


def half(width=8, height=6):
    """A mask whose left half is ignored."""
    mask = np.full((height, width), 255, np.uint8)
    mask[:, : width // 2] = 0
    return mask


# ------------------------------------------------------------------------------------------------------------- masks
def test_black_pixels_of_a_mask_are_ignored(tmp_path):
    write_png(tmp_path / "masks" / "a.png", half())
    images = read_images(scene(tmp_path, [a_frame(mask_path="masks/a.png"), {"file_path": "images/b.png"}]))
    a, b = images.photos
    assert a.has_mask and not a.has_alpha and not b.has_mask
    np.testing.assert_array_equal(a.load(8, 6).mask, half())
    assert any(note.startswith("masks: 1 of 2 photos have one in transforms.json") for note in images.notes)


def test_masks_mean_what_the_user_says(tmp_path):
    write_png(tmp_path / "masks" / "a.png", half())
    folder = scene(tmp_path, [a_frame(mask_path="masks/a.png")])
    alpha = read_images(folder, ReadConfig(masks="alpha"))
    np.testing.assert_array_equal(alpha.photos[0].load(8, 6).alpha, half())
    assert alpha.background == (1.0, 1.0, 1.0)
    off = read_images(folder, ReadConfig(masks="off"))
    assert not off.photos[0].has_mask and not any("mask" in note for note in off.notes)


def test_masks_and_depth_of_reduced_folders(tmp_path):
    frames = [a_frame(mask_path="masks/a.png", depth_file_path="depths/a.png")]
    folder = scene(tmp_path, frames)
    for name, size in {"images": (8, 6), "images_2": (4, 3)}.items():
        write_png(folder / name / "a.png", np.zeros((size[1], size[0], 3), np.uint8))
    write_png(folder / "masks" / "a.png", half())
    write_png(folder / "depths" / "a.png", np.full((6, 8), 1000, np.uint16))
    full = read_images(folder, ReadConfig(downscale=2)).photos[0]
    assert full.mask.path == folder / "masks" / "a.png" and full.depth.path == folder / "depths" / "a.png"
    np.testing.assert_array_equal(full.load(4, 3).mask, half(4, 3))
    write_png(folder / "masks_2" / "a.png", half(4, 3))
    write_png(folder / "depths_2" / "a.png", np.full((3, 4), 1000, np.uint16))
    photo = read_images(folder, ReadConfig(downscale=2)).photos[0]
    assert photo.path.parent.name == "images_2"
    assert photo.mask.path == folder / "masks_2" / "a.png" and photo.depth.path == folder / "depths_2" / "a.png"
    assert read_images(folder).photos[0].mask.path == folder / "masks" / "a.png"


def test_files_that_are_not_there_are_counted(tmp_path):
    write_png(tmp_path / "masks" / "b.png", half())
    frames = [
        a_frame(mask_path="masks/a.png", depth_file_path="depth/a.png"),
        {"file_path": "images/b.png", "mask_path": "masks/b.png", "depth_file_path": "depth/b.png"},
    ]
    images = read_images(scene(tmp_path, frames, ply_file_path="gone.ply"))
    assert [photo.has_mask for photo in images.photos] == [False, True] and images.points is None
    notes = "\n".join(images.notes)
    assert "1 photos have a mask in transforms.json whose file is missing ('masks/a.png')" in notes
    assert "2 photos have a depth map in transforms.json whose file is missing ('depth/a.png')" in notes
    assert "the points of ply_file_path ('gone.ply') have no file and were skipped" in notes


# ------------------------------------------------------------------------------------------------------------- depth
@pytest.mark.parametrize(
    ("settings", "unit"),
    [
        ({}, 0.001),
        ({"depth_unit_scale_factor": 0.01}, 0.01),
        ({"applied_scale": 0.25}, 0.00025),
        ({"applied_scale": 2, "depth_unit_scale_factor": 1}, 2.0),
    ],
)
def test_depth_is_in_the_units_of_the_poses(tmp_path, settings, unit):
    steps = np.array([[0, 1], [1500, 65535]], np.uint16).repeat(3, axis=0).repeat(4, axis=1)
    write_png(tmp_path / "depth" / "a.png", steps)
    images = read_images(scene(tmp_path, [a_frame(depth_file_path="./depth/a.png")], **settings))
    photo = images.photos[0]
    assert photo.has_depth and photo.depth.unit == pytest.approx(unit)
    np.testing.assert_allclose(photo.load_depth(8, 6), steps * unit, rtol=1e-6)
    assert "depth maps: 1 of 1 photos have one (--init depth starts from them)" in images.notes


def test_a_unit_of_one_frame_counts_before_the_file(tmp_path):
    np.save(tmp_path / "a.npy", np.full((3, 4, 1), 2.0))  # half the size of the photo, three axes
    frames = [a_frame(depth_file_path="a.npy", depth_unit_scale_factor=1.0)]
    photo = read_images(scene(tmp_path, frames, depth_unit_scale_factor=0.5)).photos[0]
    np.testing.assert_array_equal(photo.load_depth(8, 6), np.full((6, 8), 2.0, np.float32))


@pytest.mark.parametrize("bad", [0, -1, "mm", True, float("inf"), [1]])
def test_a_unit_that_is_none(tmp_path, bad):
    write_png(tmp_path / "a.png", np.ones((6, 8), np.uint16))
    folder = scene(tmp_path, [a_frame(depth_file_path="a.png")], depth_unit_scale_factor=bad)
    with pytest.raises(FormatError, match=r"'depth_unit_scale_factor' is .*; expected a positive number"):
        read_images(folder)


def test_depth_maps_that_do_not_fit_or_are_none(tmp_path):
    frames = [a_frame(depth_file_path="a.npy")]
    folder = scene(tmp_path, frames)
    np.save(folder / "a.npy", np.zeros((6, 20)))
    with pytest.raises(FormatError, match="the depth map is 20×6 px, its photo images/a.png 8×6 px"):
        read_images(folder)
    np.save(folder / "a.npy", np.zeros((6, 8, 3)))
    with pytest.raises(FormatError, match=r"the depth map has shape \[6, 8, 3\]; expected \[height, width\]"):
        read_images(folder)
    np.save(folder / "a.npy", np.zeros((6, 8)))
    (folder / "a.npy").write_bytes((folder / "a.npy").read_bytes()[:-9])
    with pytest.raises(FormatError, match="a.npy: 375 bytes after offset 128; expected 384"):
        read_images(folder)
    np.savez(folder / "z.npz", a=np.zeros((6, 8)))
    (folder / "z.npz").rename(folder / "a.npy")
    with pytest.raises(FormatError, match="a.npy: not an array of NumPy"):
        read_images(folder)
    np.save(folder / "a.npy", np.zeros((60, 80)))
    with pytest.raises(FormatError, match=r"80×60 px are 0.0048 megapixels; expected at most 0.0001"):
        read_images(folder, ReadConfig(max_megapixels=0.0001))


def test_depth_below_medium_confidence_is_unknown(tmp_path):
    photo = read_images(scene(tmp_path)).photos[0]
    write_png(tmp_path / "depth.png", np.full((3, 4), 2000, np.uint16))
    sure = np.array([[0, 126, 127, 255]] * 3, np.uint8)
    write_png(tmp_path / "sure.png", sure)
    deep = with_depth(photo, tmp_path / "depth.png", 0.001, ReadConfig(), tmp_path / "sure.png")
    np.testing.assert_allclose(deep.load_depth(4, 3), [[0, 0, 2, 2]] * 3)
    assert replace(deep, depth=None).load_depth(4, 3) is None
    write_png(tmp_path / "sure.png", np.zeros((12, 4), np.uint8))
    with pytest.raises(FormatError, match=r"sure.png: the depth map is 4×12 px"):
        with_depth(photo, tmp_path / "depth.png", 0.001, ReadConfig(), tmp_path / "sure.png")


def test_reduced_depth_is_exact_on_planes_and_sharp_at_edges(tmp_path):
    columns = (np.arange(80) + 0.5)[None].repeat(60, axis=0)
    plane = (1 / (0.1 + 0.002 * columns)).astype(np.float32)
    np.save(tmp_path / "plane.npy", plane)
    wall = plane.copy()
    wall[:, 41:] = 50.0
    wall[:20] = 0
    np.save(tmp_path / "wall.npy", wall)
    frames = [a_frame(depth_file_path="plane.npy"), {"file_path": "b.png", "depth_file_path": "wall.npy"}]
    photos = read_images(scene(tmp_path, frames, size=(80, 60), depth_unit_scale_factor=1.0)).photos
    where = {photo.path.name: photo for photo in photos}
    for width in (40, 20, 53):
        height = round(width * 0.75)
        x = (np.arange(width) + 0.5) * 80 / width
        depth = where["a.png"].load_depth(width, height)
        np.testing.assert_allclose(depth, (1 / (0.1 + 0.002 * x))[None].repeat(height, axis=0), rtol=1e-5)
    depth = where["b.png"].load_depth(40, 30)
    assert not depth[:10].any() and depth[10:].all()
    np.testing.assert_allclose(depth[11:, 21:], 50.0)
    assert (depth[11:, 20] == np.float32(50.0)).all() and depth[11:, :20].max() < 10.0  # nothing in between


# ------------------------------------------------------------------------------------------------------------ points
POINTS = PointCloud(xyz=[[1, 2, 3], [-4, 5, 6]], rgb=[[0, 0.2, 1], [1, 0, 0]], radius=[0.5, 0.25])


def test_points_are_in_the_world_of_the_poses(tmp_path):
    write_ply_points(tmp_path / "sparse_pc.ply", POINTS)
    turned = [[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0]]  # what ns-process-data writes for COLMAP's worlds
    images = read_images(scene(tmp_path, ply_file_path="sparse_pc.ply", applied_transform=turned))
    np.testing.assert_array_equal(images.points.xyz, POINTS.xyz)
    np.testing.assert_allclose(images.points.rgb, POINTS.rgb, atol=1e-6)
    assert "2 points from sparse_pc.ply" in images.notes


def test_points_follow_the_scale_of_the_poses(tmp_path):
    write_ply_points(tmp_path / "sparse_pc.ply", POINTS)
    images = read_images(scene(tmp_path, ply_file_path="./sparse_pc.ply", applied_scale=0.5))
    np.testing.assert_array_equal(images.points.xyz, POINTS.xyz / 2)
    np.testing.assert_array_equal(images.points.radius, POINTS.radius / 2)
    assert "2 points from ./sparse_pc.ply, times applied_scale 0.5" in images.notes
    with pytest.raises(BadPoints, match=r"times applied_scale 1e\+29: 1 of 1 points have non-finite xyz"):
        far = tmp_path / "far"
        write_ply_points(far / "p.ply", PointCloud(xyz=[[1e30, 0, 0]], rgb=[[0, 0, 0]]))
        read_images(scene(far, ply_file_path="p.ply", applied_scale=1e29))


def test_points_without_colours_are_grey(tmp_path):
    header = (
        "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\nend_header\n"
    )
    (tmp_path / "p.ply").write_text(header + "1 2 3\n")
    points = read_images(scene(tmp_path, ply_file_path="p.ply")).points
    np.testing.assert_array_equal(points.rgb, [[0.5, 0.5, 0.5]])


# ------------------------------------------------------------------------------------------------------ hostile paths
@pytest.mark.parametrize("key", ["mask_path", "depth_file_path"])
def test_names_of_masks_and_depth_are_texts_inside_the_scene(tmp_path, key):
    with pytest.raises(FormatError, match=f"'{key}' is 7; expected the path of an image"):
        read_images(scene(tmp_path, [a_frame(**{key: 7})]))
    with pytest.raises(SceneError, match=r"leads out of the scene folder"):
        read_images(scene(tmp_path, [a_frame(**{key: "../../etc/a.png"})]))


def test_names_of_points_are_texts_inside_the_scene(tmp_path):
    with pytest.raises(FormatError, match=r"'ply_file_path' is \['a'\]; expected the path of a .ply file"):
        read_images(scene(tmp_path, ply_file_path=["a"]))
    with pytest.raises(SceneError, match=r"ply_file_path: the path '/etc/p.ply' leads out"):
        read_images(scene(tmp_path, ply_file_path="/etc/p.ply"))
