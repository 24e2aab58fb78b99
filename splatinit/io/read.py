"""From a user's folder to an ImageSet: which reader reads it, at what size, and which of its views are for testing.

To add a format: write ``io/NAME.py`` with ``detect(path) -> bool`` (cheap: looks for files, opens no image) and
``read(path, config) -> ImageSet``, and register a ReaderSpec below, before the less specific formats.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from ..errors import ConfigError, FormatError, NoImages, printable
from ..progress import Progress, Silent
from ..registry import Registry, Spec, load_object
from ..types import Camera, ImageSet, Photo, PointCloud
from . import text

_BIDIRECTIONAL = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_DEEPEST = 64  # folders of a name in a split
TEST_EVERY = 8  # Mip-NeRF 360's and 3DGS's protocol: index % 8 == 0 of the sorted names


@dataclass(frozen=True, kw_only=True)
class ReadConfig:
    """How a folder is read.

    Attributes:
        max_size: px; photos whose longer side is larger are reduced to it. 1600 is 3DGS's own rule, and what fits
            in memory. None for full size. Does not apply where ``downscale`` is given.
        downscale: factor ≥ 1 by which photos are reduced, as benchmark protocols prescribe (Mip-NeRF 360: 4 outdoors,
            2 indoors). A folder ``images_N`` beside ``images`` is used where it exists for this factor.
        format: name of a reader, or "auto" to detect it. Needed where a folder holds several descriptions.
        masks: what the scene's masks mean. "ignore": masked pixels count neither in the loss nor in a metric (people
            walking by). "alpha": they are transparent, the object stands alone. "auto": as the format has it (IDR and
            NeuS: alpha; all others: ignore). "off": masks are not read.
        allow_outside: paths in scene files may lead out of the scene's folder. Off, because a downloaded file must
            not make us open others.
        max_megapixels: of one image; larger ones are refused before they are decoded (a file of some kB can promise
            gigabytes).
        frames: how many frames of a video become photos, the sharpest of equal windows. None: by ``fps``.
        fps: frames a second of a video, the sharpest of each window. None: 2, and between 40 and 300 in all.
    """

    max_size: int | None = 1600
    downscale: float | None = None
    format: str = "auto"
    masks: Literal["auto", "ignore", "alpha", "off"] = "auto"
    allow_outside: bool = False
    max_megapixels: float = 256.0
    frames: int | None = None
    fps: float | None = None

    def __post_init__(self) -> None:
        if self.max_size is not None and self.max_size < 1:
            raise ConfigError(f"max_size is {self.max_size} px; expected at least 1, or none for full size.")
        if self.downscale is not None and not 1 <= self.downscale < float("inf"):
            raise ConfigError(f"downscale is {self.downscale:g}; expected a factor of at least 1.")
        if not 0 < self.max_megapixels < float("inf"):
            raise ConfigError(f"max_megapixels is {self.max_megapixels:g}; expected a positive number.")
        if self.frames is not None and self.frames < 2:
            raise ConfigError(f"frames is {self.frames}; expected at least 2 frames of the video.")
        if self.fps is not None and not 0 < self.fps < float("inf"):
            raise ConfigError(f"fps is {self.fps:g}; expected a positive number of frames a second.")
        if self.frames is not None and self.fps is not None:
            raise ConfigError(f"frames ({self.frames}) and fps ({self.fps:g}) are both given; expected one of them.")

    def check_pixels(self, path: Path, width: int, height: int) -> None:
        """Raise FormatError, naming ``path``, when an image of ``width`` × ``height`` px is too large to decode."""
        if width * height > self.max_megapixels * 1e6:
            raise FormatError(
                f"{path}: {width}×{height} px are {width * height / 1e6:.4g} megapixels; expected at most "
                f"{self.max_megapixels:g}.",
                hint="If the file is what you think it is, raise data.max_megapixels.",
                path=path,
            )

    def size(self, width: int, height: int) -> tuple[int, int]:
        """The working size in px of a photo whose full size is ``width`` × ``height``."""
        if self.downscale is not None:
            factor = 1.0 / self.downscale
        elif self.max_size is not None:
            factor = min(1.0, self.max_size / max(width, height))
        else:
            factor = 1.0
        # Halves round up, as in the images_N folders of the benchmarks (4946 / 4 = 1236.5 → 1237).
        return max(1, int(width * factor + 0.5)), max(1, int(height * factor + 0.5))


@dataclass(frozen=True, kw_only=True)
class ReaderSpec(Spec):
    """A Spec whose ``impl`` is ``read(path, config) -> ImageSet``, with ``detect`` → ``detect(path) -> bool``.

    ``slow``: reading takes long, and ``read`` takes a third argument, the Progress that hears of it.
    """

    detect: str
    slow: bool = False


_MODULES = {"video": "video_frames"}  # the module of a format that is not called like it

READERS: Registry[ReaderSpec] = Registry("format")
for _name, _summary in {
    "colmap": "COLMAP model (binary or text) in sparse/0, sparse or the folder itself, with images/ or images_N/",
    "blender": "NeRF-synthetic transforms_{train,test}.json with alpha and camera_angle_x",
    "nerfstudio": "nerfstudio or instant-ngp transforms.json, with lens distortion, masks, depth maps and points",
    "llff": "LLFF poses_bounds.npy with images/ or images_N/",
    "idr": "IDR, NeuS or VolSDF cameras_sphere.npz or cameras.npz with image/ and mask/",
    "nerfpp": "NeRF++ train/ and test/, each with rgb/, pose/ and intrinsics/ (Tanks and Temples)",
    "nsvf": "NSVF rgb/, pose/ and intrinsics.txt (Synthetic-NSVF, Tanks and Temples)",
    "polycam": "Polycam's raw export: keyframes/ with photos, cameras and LiDAR depth",
    "record3d": "Record3D's EXR + JPG or unzipped .r3d export: metadata.json and rgb/ (without its depth)",
    "video": "video (MP4, MOV, MKV, AVI, WebM), the sharpest frame of each window of time, without poses",
    "photos": "plain folder of JPEG, PNG, TIFF, WebP, HEIC or AVIF photos, without poses",
}.items():
    READERS.register(
        ReaderSpec(
            name=_name,
            impl=f"splatinit.io.{_MODULES.get(_name, _name)}:read",
            detect=f"splatinit.io.{_MODULES.get(_name, _name)}:detect",
            summary=_summary,
            slow=_name == "video",
        )
    )


def read_images(path: Path, config: ReadConfig = ReadConfig(), progress: Progress = Silent()) -> ImageSet:
    """Read a folder of photos, a scene or a video, whatever its format.

    Args:
        path: the folder, a scene file in it (``transforms.json``), or a video file.
        progress: hears of it where reading takes long (a video).

    Returns:
        The photos in order of their names, cameras and points where the folder has them, and the test split where
        its files say one: the format's own, or a split file beside the scene (see :func:`split_from_files`).

    Raises:
        NoImages: no photo, or a scene file whose photos are all missing.
        BadPoses, BadPoints: a pose or a point is not finite, or not usable.
        FormatError: a file is damaged, or of a kind that is not read.
        SceneError: a file name leaves the scene folder.
    """
    path = Path(path)
    if not path.exists():
        raise NoImages(f"{path}: no such folder.", hint="Give the folder that holds your photos or your scene.")
    notes: tuple[str, ...] = ()
    others: list[str] = []
    if config.format != "auto":
        name = READERS.spec(config.format).name
    else:
        matches = [spec.name for spec in READERS if load_object(spec.detect)(path)]
        if not matches:
            raise NoImages(f"{path}: not a folder.", hint="Give the folder that holds your photos or your scene.")
        name = matches[0]
        others = [match for match in matches[1:] if match != "photos"]
        if others:
            notes = (f"also looks like {' and '.join(others)} (data.format={others[0]} reads that instead)",)
    load = READERS.load(name)
    try:
        images = load(path, config, progress) if READERS.spec(name).slow else load(path, config)
    except NoImages as error:
        if not others:
            raise
        # LLFF's folders hold COLMAP models whose photos have other names than those of images_4.
        hint = f"It also looks like {' and '.join(others)}: data.format={others[0]} reads that instead."
        raise NoImages(error.message, hint=hint, **error.context) from error
    if images.test_names is None:
        images = split_from_files(images)
    return replace(images, notes=images.notes + notes)


def every_eighth(names: Iterable[str]) -> frozenset[str]:
    """The test views where no file says otherwise: index % 8 == 0 of the sorted names.

    Of two photos none is held out: from the one that is left nothing can be reconstructed.
    """
    names = sorted(names)
    return frozenset(names[::TEST_EVERY] if len(names) > 2 else ())


# ------------------------------------------------------------------------------------------------- helpers of readers
def assemble(
    *,
    root: Path,
    format: str,
    photos: Sequence[Photo],
    cameras: dict[str, Camera],
    config: ReadConfig,
    notes: Sequence[str],
    points: PointCloud | None = None,
    test_names: frozenset[str] | None = None,
    reduced: bool = False,
) -> ImageSet:
    """Put an ImageSet together as all readers do: sorted, at the working size, with a background for alpha scenes.

    Args:
        photos: at least one.
        cameras: name → Camera at the photo's full size.
        reduced: the photos are already reduced by ``config.downscale`` (they come from ``images_N``).

    Raises:
        FormatError: two photos of one name, one too large to decode, or a name that nothing can be named after.
    """
    photos = sorted(photos, key=lambda photo: photo.name)
    _check_names(root, [photo.name for photo in photos])
    for photo in photos:
        config.check_pixels(photo.path, photo.width, photo.height)
    sizes = {p.name: (p.width, p.height) if reduced else config.size(p.width, p.height) for p in photos}
    # Blender's protocol composes over white; other alpha scenes follow it, because nothing better is written anywhere.
    white = any(photo.has_alpha for photo in photos)
    return ImageSet(
        root=root,
        format=format,
        photos=tuple(photos),
        sizes=sizes,
        cameras={p.name: cameras[p.name].resized(*sizes[p.name]) for p in photos if p.name in cameras},
        focals_px={p.name: p.focal_px for p in photos if getattr(p, "focal_px", None) is not None},
        points=points,
        test_names=test_names,
        background=(1.0, 1.0, 1.0) if white else None,
        notes=tuple(notes),
    )


def _check_names(root: Path, names: Sequence[str]) -> None:
    """Names go into files, tables and models of other tools, and become names of pictures that are written."""
    for name, after in zip(names, [*names[1:], None], strict=True):
        if name == after:
            raise FormatError(f"{root}: two photos are called '{name}'; expected one of each name.")
        # The bidirectional controls are letters to a file system, and only what shows names escapes them.
        if printable(name, keep=_BIDIRECTIONAL) != name or PurePosixPath(name).is_absolute() or ".." in name.split("/"):
            raise FormatError(
                f"{root}: a photo is called {name!r}; expected a relative path of printable characters in UTF-8.",
                hint="Rename the file.",
            )


def match_names(listed: Sequence[str], known: Iterable[str], where: str) -> tuple[set[str], list[str]]:
    """Which of ``known`` names a list in a file means, and the entries that mean none.

    An entry may lack leading folders of the name or have more of them, and may lack the suffix; ``test/0001`` never
    means ``train/0001.png``.

    Raises FormatError when an entry could mean several images.
    """
    by_tail: dict[str, set[str]] = {}
    by_name: dict[str, set[str]] = {}
    for name in known:
        for tail in _tails(name):
            by_tail.setdefault(tail, set()).add(name)
            by_tail.setdefault(str(PurePosixPath(tail).with_suffix("")), set()).add(name)
        by_name.setdefault(name, set()).add(name)
        by_name.setdefault(str(PurePosixPath(name).with_suffix("")), set()).add(name)
    found: set[str] = set()
    unknown: list[str] = []
    for entry in listed:
        tails = _tails(entry.replace("\\", "/"))
        candidates = [by_name.get(tails[0]), by_tail.get(tails[0])] if tails else []
        candidates += [by_name.get(tail) for tail in tails[1:]]
        hits = next((hit for hit in candidates if hit), set())
        if len(hits) > 1:
            raise FormatError(
                f"{where}: '{entry}' could mean {len(hits)} images ({', '.join(sorted(hits)[:3])}); expected one.",
                hint="Write the names with their folders.",
            )
        if hits:
            found |= hits
        else:
            unknown.append(entry)
    return found, unknown


def apply_split(images: ImageSet, train: Sequence[str] | None, test: Sequence[str] | None, where: str) -> ImageSet:
    """Split by lists of names from a file. Given both lists, images in neither are left out, and counted.

    Raises FormatError when no entry names an image, or when one image is in both lists.
    """
    names = [photo.name for photo in images.photos]
    notes = []
    chosen: dict[str, set[str] | None] = {"train": None, "test": None}
    for kind, listed in (("train", train), ("test", test)):
        if listed is None:
            continue
        found, unknown = match_names(listed, names, where)
        if listed and not found:
            raise FormatError(
                f"{where}: none of its {len(listed)} {kind} entries names an image of the scene "
                f"(the first is '{listed[0]}').",
                hint="Correct the names, or rename the file if it is not a split.",
            )
        if unknown:
            notes.append(f"{len(unknown)} of {len(listed)} {kind} entries of {where} name no image of the scene")
        chosen[kind] = found
    in_train, in_test = chosen["train"], chosen["test"]
    if in_test is None:
        in_test = set(names) - (in_train or set())
    if in_train is None:
        in_train = set(names) - in_test
    if not in_train:
        raise FormatError(f"{where}: leaves no image for training.", hint="Correct the names in the file.")
    both = sorted(in_train & in_test)
    if both:
        raise FormatError(f"{where}: {len(both)} images are both train and test (the first is '{both[0]}').")
    outside = sorted(set(names) - in_train - in_test)
    if outside:
        notes.append(f"{len(outside)} images are in neither list of {where} and are left out")
        images = _without(images, set(outside))
    if not in_test:
        notes.append(f"{where} leaves no image for testing: every {TEST_EVERY}th is taken")
        return replace(images, notes=images.notes + tuple(notes))
    notes.insert(0, f"split of {where}: {len(in_train)} train, {len(in_test)} test")
    return replace(images, test_names=frozenset(in_test), notes=images.notes + tuple(notes))


def split_from_files(images: ImageSet) -> ImageSet:
    """The split that a file beside the scene says, if there is one.

    Read are, first found first: ``test.txt`` and/or ``train.txt`` (one image name a line, ``#`` starts a comment) in
    the scene's folder or, as 3DGS has it, in ``sparse/0``; ``split.json`` or ``splits.json`` with lists "train" and/or
    "test". With only one of the lists, all other images are the other part.
    """
    for folder in (images.root, images.root / "sparse" / "0"):
        lists = {kind: folder / f"{kind}.txt" for kind in ("train", "test")}
        present = {kind: _lines(path) for kind, path in lists.items() if path.is_file()}
        if present:
            where = " and ".join(f"{kind}.txt" for kind in present)
            return apply_split(images, present.get("train"), present.get("test"), where)
    for name in ("split.json", "splits.json"):
        path = images.root / name
        if path.is_file():
            data = read_json(path)
            lists = {kind: string_list(data, kind, path) for kind in ("train", "test")}
            if lists["train"] is None and lists["test"] is None:
                raise FormatError(f"{path}: has neither a list 'train' nor a list 'test' of image names.")
            return apply_split(images, lists["train"], lists["test"], name)
    return images


def read_json(path: Path) -> dict:
    """A JSON file whose top is an object. Raises FormatError, see :func:`splatinit.io.text.read_json`."""
    data = text.read_json(path)
    if not isinstance(data, dict):
        raise FormatError(f"{path}: the top is a {type(data).__name__}; expected an object {{...}}.", path=path)
    return data


def string_list(data: dict, key: str, path: Path) -> list[str] | None:
    """``data[key]`` as a list of strings, None where it is absent. Raises FormatError when it is something else."""
    value = data.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise FormatError(f"{path}: '{key}' is not a list of image names.", path=path)
    return value


def _tails(name: str) -> list[str]:
    """``a/b/c`` → ``a/b/c``, ``b/c``, ``c``; nothing for a path that no photo has."""
    parts = PurePosixPath(name).parts
    if len(parts) > _DEEPEST:  # the square of it is too much for what a file can hold
        return []
    return [str(PurePosixPath(*parts[start:])) for start in range(len(parts))]


def _lines(path: Path) -> list[str]:
    lines = (line.split("#", 1)[0].strip() for line in text.read_lines(path))
    return [line for line in lines if line]


def _without(images: ImageSet, names: set[str]) -> ImageSet:
    keep = [photo for photo in images.photos if photo.name not in names]
    return replace(
        images,
        photos=tuple(keep),
        sizes={photo.name: images.sizes[photo.name] for photo in keep},
        cameras={k: v for k, v in images.cameras.items() if k not in names},
        focals_px={k: v for k, v in images.focals_px.items() if k not in names},
    )
