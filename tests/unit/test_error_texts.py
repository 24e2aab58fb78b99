"""Texts of errors that no other test looks at, module by module (see tests/error_texts.py)."""

from __future__ import annotations

import math
import os
import struct
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import tiny
import torch

from splatinit import native, pipeline
from splatinit.cli import rendering
from splatinit.config import read_yaml
from splatinit.demo.flow import run_demo
from splatinit.densify.adc import AdcConfig
from splatinit.densify.prune import PruneConfig
from splatinit.environment import wanted_threads
from splatinit.errors import (
    BackendError,
    ConfigError,
    FolderInUse,
    FormatError,
    NoImages,
    NotBuilt,
    OutOfMemory,
    ShapeError,
    TooFewMatches,
)
from splatinit.io import colmap_model, locks, photos, ply, read, video
from splatinit.io.arrays import npy_shape, read_npy
from splatinit.io.images import DepthFile, MaskFile, probe_image, write_png
from splatinit.posers import colmap as colmap_poser
from splatinit.posers.given import Given, GivenConfig
from splatinit.progress import Silent
from splatinit.raster import make_rasterizer
from splatinit.training import TrainConfig
from splatinit.types import Camera, Gaussians, PointCloud

NAN = math.nan


def says(error, match):
    return pytest.raises(error, match=match)


# -------------------------------------------------------------------------------------------------------------- types
def test_types():
    with says(ShapeError, r"A camera needs K \[3, 3\] and cam_from_world \[4, 4\], got \(2, 2\) and \(4, 4\)"):
        Camera(np.eye(2), np.eye(4), 1, 1)
    with says(ShapeError, r"PointCloud.rgb must be \[2, 3\], got \[1, 3\]"):
        PointCloud(np.zeros((2, 3)), np.zeros((1, 3)))
    with says(ShapeError, r"PointCloud.sh must be \[n, 3\|8\|15, 3\], got \[2, 4, 3\]"):
        PointCloud(np.zeros((2, 3)), np.zeros((2, 3)), sh=np.zeros((2, 4, 3)))
    model = tiny.random_model(2, 0)
    with says(ShapeError, r"Gaussians.shN must be \[n, 0|3|8|15, 3\], got \[2, 4, 3\]"):
        Gaussians(**(model.tensors() | {"shN": torch.zeros(2, 4, 3)}))
    with says(ShapeError, r"Gaussians.quats must be \[2, 4\], got \[2, 3\]"):
        Gaussians(**(model.tensors() | {"quats": torch.zeros(2, 3)}))


# ----------------------------------------------------------------------------------------------------------- settings
@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"max_size": 0}, "max_size is 0 px; expected at least 1, or none"),
        ({"downscale": 0.5}, "downscale is 0.5; expected a factor of at least 1"),
        ({"max_megapixels": NAN}, "max_megapixels is nan; expected a positive number"),
        ({"frames": 1}, "frames is 1; expected at least 2 frames"),
        ({"fps": 0.0}, "fps is 0; expected a positive number of frames a second"),
        ({"frames": 9, "fps": 2.0}, r"frames \(9\) and fps \(2\) are both given; expected one"),
    ],
)
def test_read_settings(settings, text):
    with says(ConfigError, text):
        read.ReadConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"begin": 0.6, "end": 0.5}, r"got begin = 0.6, end = 0.5; expected 0 ≤ begin ≤ end ≤ 1"),
        ({"every": 0.0}, "ADC's every must be positive, got 0"),
        ({"reset_opacity": 1.0}, "ADC's reset_opacity must be between 0 and 1, got 1"),
        ({"max_count": 0}, "ADC's max_count must be at least 1, got 0"),
    ],
)
def test_adc_settings(settings, text):
    with says(ConfigError, text):
        AdcConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"prune_opacity": 0.0}, "densify.prune_opacity must be between 0 and 1, both excluded, got 0"),
        ({"prune_opacity": NAN}, "densify.prune_opacity must be between 0 and 1, both excluded, got nan"),
        ({"end": 1.5}, "densify.end is a fraction of the steps: expected 0 to 1, got 1.5"),
        ({"fade": 0.0}, "densify.fade multiplies the odds .* expected above 0 and at most 1, got 0"),
        ({"fade": 1.01}, "densify.fade multiplies the odds .* expected above 0 and at most 1, got 1.01"),
        ({"every": 0.0}, "densify.every is a fraction of the steps: expected above 0 and at most 1, got 0"),
        ({"fade_every": math.inf}, "densify.fade_every is a fraction of the steps: .* got inf"),
        ({"min_every_steps": 0}, "densify.min_every_steps must be at least 1 step, got 0"),
        ({"min_fade_steps": -1}, "densify.min_fade_steps must be at least 1 step, got -1"),
    ],
)
def test_prune_settings(settings, text):
    with says(ConfigError, text):
        PruneConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"steps": 0}, "Training needs at least 1 step, got steps = 0"),
        ({"lr_sh0": NAN}, "train.lr_sh0 must be finite and not negative, got nan"),
        ({"ssim_weight": 1.5}, "train.ssim_weight is a fraction: expected 0 to 1, got 1.5"),
        ({"lr_means_end": 0.0}, "train.lr_means_end must be positive"),
        ({"resolution": 0.0}, "train.resolution must be positive: a photo of no size shows nothing"),
        ({"resolution_until": 1.1}, "train.resolution_until is a fraction: expected 0 to 1, got 1.1"),
        ({"lr_means_hold": 1.1}, "train.lr_means_hold is a fraction: expected 0 to 1, got 1.1"),
        ({"sh_hold": 1.1}, "train.sh_hold is a fraction: expected 0 to 1, got 1.1"),
        ({"low_pass": -1.0}, "train.low_pass must be finite and not negative, got -1"),
        ({"low_pass_until": 2.0}, "train.low_pass_until is a fraction: expected 0 to 1, got 2"),
    ],
)
def test_training_settings(settings, text):
    with says(ConfigError, text):
        TrainConfig(**settings)


def test_yaml_that_is_no_text(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"a: \xff")
    with says(ConfigError, "a.yaml: not a text file in UTF-8"):
        read_yaml(tmp_path / "a.yaml")


def test_threads_of_the_environment(monkeypatch):
    for text in ("0", "many", "-1"):
        monkeypatch.setenv("SPLATINIT_THREADS", text)
        with says(ConfigError, f"SPLATINIT_THREADS = '{text}'; expected a whole number of threads, at least 1"):
            wanted_threads()


# ------------------------------------------------------------------------------------------------------------ reading
def test_files_that_cannot_be_opened(tmp_path):
    for reader in (npy_shape, read_npy):
        with says(FormatError, "a.npy: cannot be read .No such file"):
            reader(tmp_path / "a.npy")
    with says(FormatError, "no COLMAP model; expected cameras, images and points3D as .bin or .txt"):
        colmap_model.read_model(tmp_path)
    for part in ("cameras", "images"):
        (tmp_path / f"{part}.bin").write_bytes(b"")
    os.chmod(tmp_path / "cameras.bin", 0)
    try:
        readable = os.access(tmp_path / "cameras.bin", os.R_OK)
        with says(FormatError, "cameras.bin: (truncated or damaged at byte 0|cannot be read)"):
            colmap_model.read_model(tmp_path)
    finally:
        os.chmod(tmp_path / "cameras.bin", 0o600)
    if readable:  # the administrator reads everything: take the file away between the look and the reading
        with says(FormatError, "absent.bin: cannot be read .No such file"):
            colmap_model._Bytes(tmp_path / "absent.bin")


def test_a_file_is_no_folder_of_photos(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    with says(NoImages, "a.jpg: not a folder"):
        photos.read(tmp_path / "a.jpg", read.ReadConfig())


def test_images(tmp_path):
    write_png(tmp_path / "a.png", np.zeros((6, 8, 3), np.uint8))
    photo = probe_image(tmp_path / "a.png")
    with says(ShapeError, "a.png: asked for 0×6 px; expected at least 1×1"):
        photo.load(0, 6)
    with says(ShapeError, r"write_png needs \[h, w\] uint8|uint16 or \[h, w, 3|4\] uint8, got \[6, 8, 2\] uint8"):
        write_png(tmp_path / "b.png", np.zeros((6, 8, 2), np.uint8))
    (tmp_path / "mask.png").write_bytes(b"no image")
    with says(FormatError, "mask.png: the image cannot be read .not an image of a known format"):
        replace(photo, mask=MaskFile(tmp_path / "mask.png", "ignore")).load(8, 6)
    with says(FormatError, r"a.png: the depth map cannot be read .\[6, 8, 3\] uint8; expected one channel of numbers"):
        replace(photo, depth=DepthFile(tmp_path / "a.png", 1.0)).load_depth(8, 6)


def test_a_ply_that_ends_within_the_length_of_a_list(tmp_path):
    header = (
        "ply\nformat binary_little_endian 1.0\nelement vertex 1\nproperty float x\n"
        "element face 1\nproperty list uchar uchar a\nproperty list int uchar b\nend_header\n"
    )
    (tmp_path / "a.ply").write_bytes(header.encode() + struct.pack("<fB5s", 0.0, 5, b"abcde"))
    with says(FormatError, "promises 1 × 'face', but the file ends within them"):
        ply.read_vertices(tmp_path / "a.ply")


def test_a_lock_that_another_process_makes_first(tmp_path, monkeypatch):
    path = tmp_path / locks.NAME
    monkeypatch.setattr(locks.os, "open", lambda *_: (_ for _ in ()).throw(FileExistsError))
    with says(FolderInUse, f"Output folder {tmp_path} is in use by another process"):
        locks._take_by_name(path)


def test_no_video_encoder(tmp_path, monkeypatch):
    monkeypatch.setattr(cv2, "VideoWriter", lambda *_: SimpleNamespace(isOpened=lambda: False))
    with says(FormatError, "OpenCV could not open a video encoder.\n.*pip install"):
        video._write_opencv(tmp_path / "a.mp4", iter([np.zeros((4, 4, 3), np.uint8)]), 4, 4, 10)


# ---------------------------------------------------------------------------------------------------- the command line
def test_render_of_views(tmp_path, monkeypatch):
    scene = tiny.scene()
    monkeypatch.setattr(pipeline, "render", lambda *_, **__: [])
    with says(ConfigError, "--path test: the scene has no such views"):
        rendering.choose_cameras(None, SimpleNamespace(views=scene.train, train=scene.train, test=()), "test", 3)
    small = SimpleNamespace(name="b", camera=scene.train[0].camera.resized(7, 6))
    views = SimpleNamespace(views=(scene.train[0], small), train=(scene.train[0], small), test=(), background=None)
    monkeypatch.setattr(rendering, "choose_cameras", lambda *_: (["a", "b"], [view.camera for view in views.train]))
    with says(ConfigError, "These views have different sizes, and a video has one.\n.*Give a folder as --out"):
        arguments = {"path": "train", "frames": 2, "max_size": None, "out": tmp_path / "a.mp4", "fps": 5}
        rendering.render_to_files(None, views, progress=Silent(), **arguments)


def test_demo_steps(tmp_path):
    with says(ConfigError, "The demo was asked for 0 steps; expected at least 1"):
        run_demo(tmp_path, steps=0)


# -------------------------------------------------------------------------------------------------------------- posers
def test_triangulation_of_one_view():
    view = tiny.scene().train[0]
    with says(TooFewMatches, "1 training view; triangulation needs at least 2"):
        Given(GivenConfig())._triangulate(SimpleNamespace(root="scene"), [view], None, Silent())


def test_structure_from_motion_that_registers_too_few(monkeypatch):
    nothing = lambda *_: None  # noqa: E731
    space = SimpleNamespace(export=nothing, extract=nothing, match=nothing, verify=lambda: 7)
    monkeypatch.setattr(colmap_poser, "Workspace", lambda *_: space)
    monkeypatch.setattr(colmap_poser, "_items", lambda *_: ([None] * 5, {}))
    monkeypatch.setattr(colmap_poser.Colmap, "_map", lambda *_: [])
    images = SimpleNamespace(root="scene", photos=[None] * 5, background=None)
    with says(TooFewMatches, "registered 0 of 5 photos.*7 pairs of photos match"):
        colmap_poser.Colmap(colmap_poser.ColmapConfig())._reconstruct(images, None, Silent())


# --------------------------------------------------------------------------------------------------------------- raster
def test_reference_arguments():
    model, camera, render = tiny.random_model(2, 0), tiny.camera(0.0), make_rasterizer("reference").render
    with says(ConfigError, "sh_degree is 3, but these Gaussians hold degrees 0 to 1"):
        render(model, camera, sh_degree=3)
    with says(ShapeError, r"render: background must be \[3\], got \[4\]"):
        render(model, camera, background=torch.zeros(4))
    with says(ShapeError, r"render: cam_from_world must be \[4, 4\], got \[3, 4\]"):
        render(model, camera, cam_from_world=torch.zeros(3, 4))


@pytest.mark.parametrize(
    ("code", "error", "text"),
    [
        (native.OUT_OF_MEMORY, OutOfMemory, r"draw: out of memory.\n.*SPLATINIT_THREADS"),
        (native.TOO_MANY_PAIRS, OutOfMemory, r"draw: more than 2³¹ \(tile, Gaussian\) pairs"),
        (77, BackendError, r"draw: the native engine refused its arguments \(code 77\)"),
    ],
)
def test_codes_of_the_native_engine(code, error, text):
    with says(error, text):
        native.check_code(code, "draw")


class _Full:
    """A library without memory."""

    def __getattr__(self, name):
        return lambda *arguments: native.OUT_OF_MEMORY


def test_each_part_of_the_native_engine_says_what_helps_where_memory_runs_out(monkeypatch):
    for part in (native.field, native.stereo):
        monkeypatch.setattr(part, "library", _Full)
    mlp = native.Mlp(inputs=3, width=4, hidden=1, outputs=2)
    weights, x, v = torch.zeros(mlp.size), torch.zeros(5, 3), torch.zeros(5, 2)
    with says(OutOfMemory, "^MLP: out of memory") as outputs:
        native.mlp_outputs(mlp, weights, x)
    with says(OutOfMemory, "^gradient of the MLP: out of memory") as gradient:
        native.mlp_outputs_vjp(mlp, weights, x, v)
    with says(OutOfMemory, "^stereo: out of memory") as smoothed:
        native.stereo_semiglobal(np.zeros((3, 2, 4)), np.zeros((3, 4)), slope=0.1, jump=1.0)
    for caught in (outputs, gradient, smoothed):
        assert "SPLATINIT_THREADS" in str(caught.value) and "Gaussians" not in str(caught.value)
    workspace = native.Workspace()
    monkeypatch.setattr(workspace.engine, "library", _Full())
    with says(OutOfMemory, "^render: out of memory.\n.*densify.max_count"):
        native.forward(
            workspace,
            native.GaussiansArg(),
            native.ViewArg(),
            native.ImageArg(),
            native.AuxArg(),
            native.FrameInfo(),
        )


def test_native_library(tmp_path, monkeypatch):
    real = native.library() if native.available() else None
    monkeypatch.setattr(native.loading, "library_path", lambda name: tmp_path / "absent.so")
    with says(NotBuilt, "The native CPU engine could not be loaded: .*absent.so"):
        native.library.__wrapped__()
    monkeypatch.undo()
    if real is None:
        pytest.skip("no native library here: the rest asks it")
    monkeypatch.setenv("SPLATINIT_THREADS", "none")
    with says(ConfigError, "SPLATINIT_THREADS is 'none'; expected a positive whole number"):
        native.library.__wrapped__()
    monkeypatch.delenv("SPLATINIT_THREADS")
    monkeypatch.setenv("SPLATINIT_SIMD", "abacus")
    with says(ConfigError, "SPLATINIT_SIMD is 'abacus', which is unknown or cannot run on this processor"):
        native.library.__wrapped__()
    with says(ConfigError, "The instruction set 'abacus' is unknown or cannot run on this processor"):
        native.set_simd("abacus")
    engine = native.CpuEngine()
    engine.library = SimpleNamespace(splat_cpu_workspace_create=lambda: None)
    with says(OutOfMemory, "The native engine could not allocate its workspace"):
        native.Workspace(engine)
    with says(ConfigError, "The CPU engine has no option 'deterministic'; options are of the CUDA engine"):
        native.Workspace(options={"deterministic": 1})
