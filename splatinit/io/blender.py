"""The NeRF-synthetic layout: transforms_train.json and transforms_test.json, RGBA images, one horizontal angle."""

from __future__ import annotations

from pathlib import Path

from ..errors import FormatError
from ..types import ImageSet
from .images import missing_images
from .nerfstudio import read_frames
from .read import ReadConfig, assemble, read_json

TRAIN, TEST = "transforms_train.json", "transforms_test.json"


def detect(path: Path) -> bool:
    return (path / TRAIN).is_file() or (path.is_file() and path.name == TRAIN)


def read(path: Path, config: ReadConfig) -> ImageSet:
    """Read both files; test views are those of transforms_test.json (transforms_val.json is not used).

    Without a test file, the split is left open (every 8th). Errors as in :func:`splatinit.io.nerfstudio.read`.
    """
    root = path.parent if path.is_file() else path
    photos, cameras, notes = [], {}, []
    test_names: frozenset[str] | None = None
    for name in (TRAIN, TEST):
        file = root / name
        if name == TEST and not file.is_file():
            continue
        found, poses, missing = read_frames(root, file, read_json(file))
        if not found:
            raise missing_images(str(file), missing, len(missing))
        if missing:
            total = len(found) + len(missing)
            notes.append(f"{len(missing)} of {total} frames of {name} have no file and were skipped")
        twice = sorted(cameras.keys() & poses.keys())
        if twice:
            raise FormatError(
                f"{root}: {len(twice)} images are in both {TRAIN} and {TEST} (the first is '{twice[0]}')."
            )
        photos += found
        cameras |= poses
        if name == TEST:
            test_names = frozenset(poses)
    count = len(test_names or ())
    notes.insert(0, f"read as Blender: {len(photos) - count} train and {count} test frames")
    return assemble(
        root=root,
        format="blender",
        photos=photos,
        cameras=cameras,
        config=config,
        notes=notes,
        test_names=test_names,
    )
