"""Any posed scene as a folder that other tools read: a COLMAP data set, or nerfstudio's transforms.json.

What a plain pinhole camera sees is kept bit for bit: the photo's file is copied, and pose and intrinsics are written
with all digits of a float64. Photos that need more than a pinhole (lens distortion, EXIF orientation, a mask that
makes them transparent, another size) are written as PNG, as splatinit itself sees them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from .errors import ConfigError
from .io.colmap_model import write_model
from .io.folders import atomic_folder, require_space
from .io.images import ImageFile, open_image, write_png
from .io.pointcloud import write_ply_points
from .progress import Progress, Silent
from .registry import nearest
from .types import POINT_FIELDS, Camera, PointCloud, Scene, View

TARGETS = ("colmap", "nerfstudio")

# What every tool reads; other kinds (HEIC) are written as PNG.
_COPIED = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp")
# A leading folder that only says "here are the images", of which each format has its own.
_IMAGE_FOLDER = re.compile(r"(images|images_\d+|image|rgb|input)")
# Characters that a file name cannot have on some system, or that end a name in a list of names.
_UNSAFE = re.compile(r'[\x00-\x1f\x7f#\\:*?"<>|]')
_WRITERS = 4  # photos in memory at once, at most
_MILLIMETRES = 0.001  # nerfstudio's depth_unit_scale_factor where no file says another


@dataclass(frozen=True)
class Converted:
    """What :func:`convert` wrote.

    Attributes:
        folder: the new data set.
        to: its format.
        copied, rendered: photos whose file was copied, and photos written anew as PNG.
        masks, depths, points: how many there are of each.
        notes: what was rendered and why, and what has no place in the format.
    """

    folder: Path
    to: str
    copied: int
    rendered: int
    masks: int
    depths: int
    points: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Item:
    """One view on its way: ``name`` is relative to ``images/``; ``reasons`` say why it is rendered (none: copied)."""

    view: View
    name: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class _Written:
    """What became of one view: paths relative to the data set, None for what it does not have. ``unit`` is that of
    the depth map, in scene units a step."""

    mask: str | None = None
    depth: str | None = None
    unit: float | None = None


def convert(scene: Scene, out: Path | str, to: str, *, progress: Progress = Silent()) -> Converted:
    """Write a scene as a data set of another format. It appears whole or not at all.

    - ``colmap``: images/, sparse/0 (binary, PINHOLE cameras), masks/NAME.png; the split in train.txt and test.txt, and
      in sparse/0/test.txt, where 3DGS's own trainer looks.
    - ``nerfstudio``: images/, transforms.json (OpenGL axes; train, val and test file names), masks/, depths/ and
      sparse_pc.ply.

    Args:
        scene: posed views; those whose camera has the photo's own size are kept as they are.
        out: an empty or absent folder.
        to: one of TARGETS.

    Raises:
        ConfigError: an unknown format, or ``out`` is not empty.
        OutputError: no space, or ``out`` cannot be written.
        FormatError: a photo, mask or depth map cannot be decoded.
    """
    out = Path(os.path.realpath(out))
    if to not in TARGETS:
        raise ConfigError(f"Unknown format '{to}' to convert to.", hint=nearest(to, list(TARGETS)))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"Output folder {out} exists and is not empty.", hint="Choose another folder.", path=out)
    items = _items(scene.views)
    require_space(out, _size(items, scene.points), "the converted scene", "Free some space, or choose another disk.")
    with atomic_folder(out) as folder:
        written = _write_photos(folder, items, scene, to, progress)
        writer = _write_colmap if to == "colmap" else _write_nerfstudio
        writer(folder, items, written, scene)
    copied = sum(not item.reasons for item in items)
    masks, depths = (sum(getattr(each, kind) is not None for each in written) for kind in ("mask", "depth"))
    points = 0 if scene.points is None else len(scene.points)
    notes = _notes(items, scene, to)
    progress.finish(f"{copied} photos copied, {len(items) - copied} rendered, {points} points")
    return Converted(out, to, copied, len(items) - copied, masks, depths, points, notes)


# -------------------------------------------------------------------------------------------------------------- names
def _items(views: Sequence[View]) -> list[_Item]:
    """The views in order of their new names: as before, but below ``images/`` and safe on every file system."""
    common = {view.name.split("/", 1)[0] for view in views if "/" in view.name}
    nested = all("/" in view.name for view in views) and len(common) == 1
    start = 1 if nested and _IMAGE_FOLDER.fullmatch(next(iter(common))) else 0
    taken: set[str] = set()
    items = []
    for view in views:
        reasons = _reasons(view)
        suffix = ".png" if reasons else view.photo.path.suffix
        parts = [part for part in view.name.split("/")[start:] if part not in ("", ".", "..")]
        safe = PurePosixPath(*(_UNSAFE.sub("_", part).strip(" ").lstrip(".") or "view" for part in parts or ["view"]))
        name = safe if safe.suffix.lower() == suffix.lower() else safe.with_suffix(suffix)
        number = 2
        # Some file systems do not tell capitals from small letters.
        while str(name).lower() in taken:
            name, number = name.with_name(f"{safe.stem}-{number}{name.suffix}"), number + 1
        taken.add(str(name).lower())
        items.append(_Item(view, str(name), reasons))
    return sorted(items, key=lambda item: item.name)


def _reasons(view: View) -> tuple[str, ...]:
    """Why the file of a view's photo is not what its pinhole camera sees; nothing: it can be copied."""
    photo, camera = view.photo, view.camera
    if not isinstance(photo, ImageFile):
        return ("not a file",)
    stored = photo.path.suffix.lower()
    reasons = {
        "lens distortion removed": bool(photo.lenses),
        "turned upright": photo.orientation != 1 or (stored in (".tif", ".tiff") and _turned_tiff(photo.path)),
        "resized": (camera.width, camera.height) != (photo.width, photo.height),
        "made transparent by its mask": photo.mask is not None and photo.mask.role == "alpha",
        f"{stored[1:].upper() or 'a file without suffix'} is not read everywhere": stored not in _COPIED,
    }
    return tuple(reason for reason, holds in reasons.items() if holds)


def _turned_tiff(path: Path) -> bool:
    """Pillow turns TIFF files upright by itself, and nobody else does."""
    with open_image(path) as image:
        return getattr(image, "tag_v2", {}).get(0x0112, 1) != 1


def _size(items: Sequence[_Item], points: PointCloud | None) -> float:
    """About how many bytes the data set will have."""
    total = 1e5 + 64.0 * (0 if points is None else len(points))
    for item in items:
        photo, camera = item.view.photo, item.view.camera
        pixels = camera.width * camera.height
        total += pixels * (4 if photo.has_alpha else 3) * 0.7 if item.reasons else photo.path.stat().st_size
        total += pixels * (0.1 * photo.has_mask + 2.0 * photo.has_depth)
    return total


# ------------------------------------------------------------------------------------------------------------- photos
def _write_photos(folder: Path, items: Sequence[_Item], scene: Scene, to: str, progress: Progress) -> list[_Written]:
    progress.start("photos", len(items))
    pool = ThreadPoolExecutor(min(_WRITERS, os.cpu_count() or 1))
    try:
        futures = [pool.submit(_write_photo, folder, item, to == "nerfstudio") for item in items]
        written = []
        for done, future in enumerate(futures, 1):
            written.append(future.result())
            progress.advance(done)
    finally:
        pool.shutdown(cancel_futures=True)
    return written


def _write_photo(folder: Path, item: _Item, with_depth: bool) -> _Written:
    view, target = item.view, folder / "images" / item.name
    target.parent.mkdir(parents=True, exist_ok=True)
    mask = None
    if item.reasons:
        pixels = view.pixels()
        mask = pixels.mask
        write_png(target, pixels.rgb if pixels.alpha is None else np.dstack([pixels.rgb, pixels.alpha]))
    else:
        shutil.copyfile(view.photo.path, target)
        if view.photo.has_mask:
            mask = view.pixels().mask
    written = _Written()
    if mask is not None:
        # The name COLMAP gives to masks; unique where photos differ only in their suffix.
        written = replace(written, mask=f"masks/{item.name}.png")
        write_png(folder / written.mask, mask)
    if with_depth and view.photo.has_depth:
        depth, unit = _write_depth(folder, item)
        written = replace(written, depth=depth, unit=unit)
    return written


def _write_depth(folder: Path, item: _Item) -> tuple[str, float]:
    """The depth map of a view: its file copied where the photo's is, else written anew; its path and its unit."""
    photo = item.view.photo
    suffix = photo.depth.path.suffix.lower()
    if not item.reasons and photo.depth.confidence is None and suffix in (".png", ".npy"):
        name = f"depths/{item.name}{suffix}"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(photo.depth.path, folder / name)
        return name, photo.depth.unit
    depth, unit = item.view.depth(), photo.depth.unit
    steps = np.rint(depth.astype(np.float64) / unit)
    if steps.max(initial=0) <= 65535 and np.abs(depth / unit - steps).max(initial=0) < 0.01:
        name = f"depths/{item.name}.png"  # whole steps: nothing is lost
        write_png(folder / name, steps.astype(np.uint16))
        return name, unit
    name = f"depths/{item.name}.npy"
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    np.save(folder / name, depth)
    return name, 1.0


# ------------------------------------------------------------------------------------------------------------ formats
def _write_colmap(folder: Path, items: Sequence[_Item], written: Sequence[_Written], scene: Scene) -> None:
    model = folder / "sparse" / "0"
    write_model(model, [replace(item.view, name=item.name) for item in items], scene.points)
    test = {view.name for view in scene.test}
    if test:
        for kind in ("train", "test"):
            names = [item.name for item in items if (item.view.name in test) == (kind == "test")]
            (folder / f"{kind}.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        shutil.copyfile(folder / "test.txt", model / "test.txt")


def _write_nerfstudio(folder: Path, items: Sequence[_Item], written: Sequence[_Written], scene: Scene) -> None:
    lenses = [_intrinsics(item.view.camera) for item in items]
    shared = lenses[0] if all(lens == lenses[0] for lens in lenses) else {}
    data: dict[str, Any] = {"camera_model": "OPENCV", **shared}
    units = {each.unit for each in written if each.unit is not None}
    if units:
        # nerfstudio knows one unit; with several, each frame says its own, which splatinit reads.
        data["depth_unit_scale_factor"] = min(units) if len(units) == 1 else _MILLIMETRES
    if scene.points is not None and len(scene.points):
        data["ply_file_path"] = "sparse_pc.ply"
        write_ply_points(folder / "sparse_pc.ply", scene.points)
    frames = []
    for item, lens, each in zip(items, lenses, written, strict=True):
        frame: dict[str, Any] = {"file_path": f"images/{item.name}"} | ({} if shared else lens)
        frame["transform_matrix"] = _opengl(item.view.camera)
        if each.mask is not None:
            frame["mask_path"] = each.mask
        if each.depth is not None:
            frame["depth_file_path"] = each.depth
            if len(units) > 1:
                frame["depth_unit_scale_factor"] = each.unit
        frames.append(frame)
    data["frames"] = frames
    test = {view.name for view in scene.test}
    if test:
        # nerfstudio wants all three lists once there is one.
        for kind, wanted in (("train", False), ("val", True), ("test", True)):
            data[f"{kind}_filenames"] = [f"images/{i.name}" for i in items if (i.view.name in test) == wanted]
    # repr, which json uses, keeps every bit of a float64.
    (folder / "transforms.json").write_text(json.dumps(data, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _intrinsics(camera: Camera) -> dict[str, float]:
    K = camera.K
    lens = {"fl_x": K[0, 0], "fl_y": K[1, 1], "cx": K[0, 2], "cy": K[1, 2]}
    size = {"w": camera.width, "h": camera.height}
    return size | {key: float(value) for key, value in lens.items()} | dict.fromkeys(("k1", "k2", "p1", "p2"), 0.0)


def _opengl(camera: Camera) -> list[list[float]]:
    """[4, 4] camera-to-world in OpenGL axes (y up, z backward)."""
    matrix = camera.world_from_cam.copy()
    matrix[:3, 1:3] *= -1.0
    return matrix.tolist()


# -------------------------------------------------------------------------------------------------------------- notes
def _notes(items: Sequence[_Item], scene: Scene, to: str) -> tuple[str, ...]:
    notes = []
    reasons = Counter(reason for item in items for reason in item.reasons)
    if reasons:
        rendered = sum(bool(item.reasons) for item in items)
        why = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
        notes.append(f"{rendered} of {len(items)} photos were written as PNG: {why}")
    renamed = [item for item in items if PurePosixPath(item.name).stem != PurePosixPath(item.view.name).stem]
    if renamed:
        notes.append(
            f"{len(renamed)} photos were renamed, because not every system can hold both or such a name (the first: "
            f"'{renamed[0].view.name}' is now '{renamed[0].name}')"
        )
    deep = sum(item.view.photo.has_depth for item in items)
    if deep and to == "colmap":
        notes.append(f"depth maps of {deep} photos have no place in a COLMAP data set and are left out")
    if scene.points is None or not len(scene.points):
        notes.append("there are no points: 3DGS's own trainer needs some (--pose triangulates them)")
    elif to == "colmap":
        extra = [name for name in POINT_FIELDS[2:] if getattr(scene.points, name) is not None]
        if extra:
            notes.append(f"COLMAP's points have no {', '.join(extra)}: left out")
    return tuple(notes)
