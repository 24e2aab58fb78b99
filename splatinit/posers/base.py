"""What all posers share: the split into train and test, and the cache of what they found out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, FormatError, SceneError
from ..io.atomic import write_json
from ..io.colmap_model import read_model, write_model
from ..io.read import every_eighth
from ..io.runs import broken, seal
from ..types import Camera, ImageSet, PointCloud, Scene, View

_CACHE_VERSION = 1  # grows when the same input gives another result, so that old caches are not taken for new


def make_scene(
    images: ImageSet, views: Sequence[View], points: PointCloud | None, poser: str, notes: Sequence[str]
) -> Scene:
    """The scene of ``views``, split as the files of the data set say, else with every 8th of the sorted names as test.

    Raises SceneError when no training view is left.
    """
    views = sorted(views, key=lambda view: view.name)
    names = [view.name for view in views]
    test_names = every_eighth(names) if images.test_names is None else images.test_names
    train = tuple(view for view in views if view.name not in test_names)
    if not train:
        raise SceneError(
            f"{images.root}: all {len(views)} posed photos are test views, so that nothing is left to train on.",
            hint="Add photos, or correct the split file.",
        )
    return Scene(
        root=images.root,
        train=train,
        test=tuple(view for view in views if view.name in test_names),
        points=points,
        background=images.background,
        poser=poser,
        notes=tuple(images.notes) + tuple(notes),
    )


# ------------------------------------------------------------------------------------------------------------- cache
@dataclass(frozen=True)
class Posed:
    """What a poser found out about one photo: K [3, 3] and lens distortion (k1, k2, p1, p2) at the photo's full size,
    before the distortion is removed, and cam_from_world [4, 4]."""

    name: str
    K: np.ndarray
    distortion: tuple[float, ...]
    cam_from_world: np.ndarray


@dataclass(frozen=True)
class Result:
    """What a poser computes and the cache keeps; positions of points are float32 and colours 8 bits there."""

    posed: tuple[Posed, ...]
    points: PointCloud | None
    notes: tuple[str, ...]


def check_features(max_size: int, max_features: int) -> None:
    """Raise ConfigError for a photo size (px) or a number of features with which nothing can be matched."""
    if max_size < 64:
        raise ConfigError(f"poser.max_size is {max_size} px; expected at least 64.")
    if max_features < 100:
        raise ConfigError(f"poser.max_features is {max_features}; expected at least 100.")


def fingerprint(images: ImageSet, poser: str, config: Any) -> str:
    """A hash of everything that a poser's result depends on: the photos as files, their poses, and the settings."""
    digest = hashlib.sha256()

    def add(value: Any) -> None:
        digest.update(json.dumps(value, sort_keys=True).encode())

    add([_CACHE_VERSION, poser, asdict(config), images.background])
    for photo in images.photos:
        stat = photo.path.stat() if photo.path.exists() else None
        # Not the time of change: a copied data set is the same data set.
        add([photo.name, photo.width, photo.height, stat.st_size if stat else 0, images.sizes[photo.name]])
        add([images.focals_px.get(photo.name), images.test_names is not None and photo.name in images.test_names])
        camera = images.cameras.get(photo.name)
        if camera is not None:
            digest.update(camera.K.tobytes() + camera.cam_from_world.tobytes())
    if images.points is not None:
        digest.update(images.points.xyz.tobytes() + images.points.rgb.tobytes())
    return digest.hexdigest()


def _paths(work_dir: Path) -> tuple[Path, Path]:
    return work_dir / "sparse" / "0", work_dir / "poser.json"


def kept_files(work_dir: Path) -> list[Path]:
    """The files in which a poser keeps its result."""
    model, index = _paths(work_dir)
    return [*(model / f"{part}.bin" for part in ("cameras", "images", "points3D")), index]


def load_result(work_dir: Path | None, key: str) -> Result | None:
    """The result that :func:`store_result` kept under ``key``; None when there is none, or when it is damaged."""
    if work_dir is None:
        return None
    model, index = _paths(work_dir)
    try:
        values = json.loads(index.read_text(encoding="utf-8"))
        if values["key"] != key or values.pop("sha256") != _hash_values(values):
            return None
        if broken(work_dir, values["files"]) is not None:
            return None
        points = read_model(model).points
        posed = tuple(
            Posed(
                name=view["name"],
                K=np.array(view["K"], dtype=np.float64),
                distortion=tuple(view["distortion"]),
                cam_from_world=np.array(view["cam_from_world"], dtype=np.float64),
            )
            for view in values["posed"]
        )
        return Result(posed, points.cloud() if len(points) else None, tuple(values["notes"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, FormatError):
        return None


def store_result(work_dir: Path, key: str, result: Result, views: Sequence[View]) -> None:
    """Keep ``result`` under ``key``, and beside it the model of ``views`` that other trainers can start from."""
    model, index = _paths(work_dir)
    index.unlink(missing_ok=True)  # until the new model is complete, the folder answers to no key
    write_model(model, sorted(views, key=lambda view: view.name), result.points)
    values = {
        "key": key,
        "files": seal(work_dir, kept_files(work_dir)[:-1]),
        "notes": list(result.notes),
        "posed": [
            {
                "name": each.name,
                "K": each.K.tolist(),
                "distortion": list(each.distortion),
                "cam_from_world": each.cam_from_world.tolist(),
            }
            for each in result.posed
        ],
    }
    write_json(index, values | {"sha256": _hash_values(values)})


def _hash_values(values: dict[str, Any]) -> str:
    """Of JSON-able values; a float is written with all its digits, so that a changed one is seen."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def as_view(images: ImageSet, posed: Posed) -> View:
    """The View of a posed photo: lens distortion removed from photo and camera alike, at the working size."""
    from ..io.images import undistorted
    from ..io.lenses import Distortion

    photo, K = undistorted(images.photo(posed.name), posed.K, Distortion("brown", posed.distortion))
    camera = Camera(K=K, cam_from_world=posed.cam_from_world, width=photo.width, height=photo.height)
    camera.check(f"{images.root}, photo '{posed.name}'")
    return View(posed.name, camera.resized(*images.sizes[posed.name]), photo)
