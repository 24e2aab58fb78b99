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
        frames = read_frames(root, file, read_json(file), config)
        if not frames.photos:
            raise missing_images(str(file), frames.missing, len(frames.missing))
        if frames.missing:
            total = len(frames.photos) + len(frames.missing)
            notes.append(f"{len(frames.missing)} of {total} frames of {name} have no file and were skipped")
        notes += frames.notes
        twice = sorted(cameras.keys() & frames.cameras.keys())
        if twice:
            raise FormatError(
                f"{root}: {len(twice)} images are in both {TRAIN} and {TEST} (the first is '{twice[0]}')."
            )
        photos += frames.photos
        cameras |= frames.cameras
        if name == TEST:
            test_names = frozenset(frames.cameras)
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
