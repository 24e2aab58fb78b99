"""``colmap``: structure from motion on the CPU. What COLMAP must be told, and what must not be believed, is here.

The trap: photos without EXIF have no focal length. From a wrong one the mapper falls into a wrong minimum that
registers most photos at a plausible error; and a camera whose focal length is not marked as known gets, whatever it
started from, the one that the first pair of photos suggests: several priors then try one thing several times.
Therefore features, matches and fundamental matrices are computed once, without any focal length. The fundamental
matrices score all focal lengths at once. Then the mapper runs from the best one, *marked as known* and free to be
refined, and from further ones, until two tries agree; among all models of all tries the one with the most registered
photos is taken, and the smallest reprojection error decides between equals.

Measured on Mip-NeRF 360's bonsai (66 photos of 800×532 px, true focal length 826 px): with COLMAP's defaults, unmarked
priors of 0.93 and 1.2 both ended at 517 px, 65 photos, 0.91 px. As run here (priors marked, and structure-less
registration off; the two were not measured apart on all photos) 0.97, which the matrices suggest, and 1.2 both end at
826–827 px, 66 photos, 0.31 px, with the camera centres within 0.24 % of the ring's radius of the published model.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, NoImages, TooFewMatches
from ..progress import Progress
from ..registry import nearest
from ..types import ImageSet, PointCloud, Scene
from .base import Posed, Result, as_view, check_features, fingerprint, load_result, make_scene, store_result
from .steps import Steps, work_place
from .workspace import (
    MAPPER_THREADS,
    SEED,
    Item,
    Workspace,
    all_pairs,
    export_size,
    load_pycolmap,
    model_points,
    run_in_background,
    sequence_pairs,
)

MATCHINGS = ("auto", "exhaustive", "sequential")
MAPPERS = ("auto", "incremental", "global")

_FEWEST_REGISTERED = 3
# Every pair of 100 photos is 4950 pairs, some minutes on a few cores; beyond, an ordered set is matched as a sequence.
_EXHAUSTIVE_UP_TO = 100
# The incremental mapper's time grows faster than the number of photos, the global one's hardly.
_INCREMENTAL_UP_TO = 300
# Two tries agree when their focal lengths differ by less than this share and they register the same photos.
_AGREEMENT = 0.02
# A prior nearer than this to one that was tried starts in the same basin.
_SAME_PRIOR = 0.12
_SIMPLE_RADIAL = "SIMPLE_RADIAL"  # f, cx, cy, k1: what 20 photos can determine


@dataclass(frozen=True, kw_only=True)
class ColmapConfig:
    """How structure from motion is run.

    Attributes:
        mapper: "incremental" (most robust), "global" (fastest for hundreds of photos), or "auto": incremental up to
            300 photos.
        matching: "exhaustive" (every pair), "sequential" (neighbours in the order of the names, and widely spaced
            photos with each other), or "auto": exhaustive up to 100 photos or where the names are not numbered.
        focal_factors: focal lengths to start from, as multiples of the longer image side, for photos without a focal
            length in EXIF; the one that the pairs of photos suggest is tried before them. 0.7 is a wide phone
            camera, 1.2 COLMAP's default, 1.6 a portrait lens.
        shared_intrinsics: photos of the same size (and EXIF focal length) come from one camera. Turn it off for a
            collection from several cameras; each photo then has its own focal length, which needs more matches.
        max_size: px, longer side of the photos in which features are sought, whatever the working size is.
        max_features: per photo, the strongest (by scale) are kept.
    """

    mapper: str = "auto"
    matching: str = "auto"
    focal_factors: tuple[float, ...] = (1.2, 0.9, 0.7, 1.6)
    shared_intrinsics: bool = True
    max_size: int = 1600
    max_features: int = 8192

    def __post_init__(self) -> None:
        if self.mapper not in MAPPERS:
            raise ConfigError(f"poser.mapper is '{self.mapper}'.", hint=nearest(self.mapper, list(MAPPERS)))
        if self.matching not in MATCHINGS:
            raise ConfigError(f"poser.matching is '{self.matching}'.", hint=nearest(self.matching, list(MATCHINGS)))
        if not self.focal_factors or not all(0.1 < factor < 10 for factor in self.focal_factors):
            raise ConfigError(f"poser.focal_factors is {self.focal_factors}; expected numbers between 0.1 and 10.")
        check_features(self.max_size, self.max_features)


class Colmap:
    """Photos without poses → a scene, by COLMAP's mappers through pycolmap."""

    def __init__(self, config: ColmapConfig = ColmapConfig()) -> None:
        self.config = config

    def pose(self, images: ImageSet, *, work_dir: Path | None, progress: Progress) -> Scene:
        """See :class:`splatinit.posers.Poser`. Photos that could not be registered are named in the scene's notes.

        Raises:
            NoImages: fewer than 3 photos.
            TooFewMatches: fewer than 3 could be registered.
        """
        if len(images.photos) < _FEWEST_REGISTERED:
            raise NoImages(
                f"{images.root}: {len(images.photos)} photos; structure from motion needs at least "
                f"{_FEWEST_REGISTERED}.",
                hint="Add photos, or bring poses.",
            )
        key = fingerprint(images, "colmap", self.config)
        result = load_result(work_dir, key)
        if result is None:
            with work_place(work_dir, key) as steps:
                result = self._reconstruct(images, steps, progress)
                if work_dir is not None:
                    store_result(work_dir, key, result, [as_view(images, posed) for posed in result.posed])
            result = load_result(work_dir, key) or result
        views = [as_view(images, posed) for posed in result.posed]
        return make_scene(images, views, result.points, "colmap", result.notes)

    def _reconstruct(self, images: ImageSet, steps: Steps, progress: Progress) -> Result:
        items, focals = _items(images, self.config)
        n = len(items)
        matching = self.config.matching
        if matching == "auto":
            ordered = n > _EXHAUSTIVE_UP_TO and _numbered([photo.name for photo in images.photos])
            matching = "sequential" if ordered else "exhaustive"
        space = Workspace(steps, items, progress)
        space.export(images.background)
        space.extract(_SIMPLE_RADIAL, self.config.max_features)
        space.match(all_pairs(n) if matching == "exhaustive" else sequence_pairs(n))
        verified = space.verify()
        if verified == 0:
            raise _too_few(images, 0, "no two photos show the same thing")
        tries = self._map(space, focals, progress)
        models = [model for each in tries for model in each.models]
        best = min(models, key=Model.rank, default=None)
        if best is None or best.registered < _FEWEST_REGISTERED:
            raise _too_few(images, best.registered if best else 0, f"{verified} pairs of photos match")
        posed = _posed(space, best.reconstruction)
        best.reconstruction.extract_colors_for_all_images(space.image_folder)
        xyz, rgb, error = model_points(best.reconstruction)
        names = {each.name for each in posed}
        lost = [photo.name for photo in images.photos if photo.name not in names]
        notes = [
            f"COLMAP ({matching} matching) registered {len(posed)} of {n} photos, {len(xyz)} points, {error:.2f} px, "
            f"focal length {best.focal_factor:.3f} × the longer side; best of {len(models)} models "
            f"of {len(tries)} {'tries' if len(tries) > 1 else 'try'}"
        ]
        if lost:
            notes.append(f"{len(lost)} of {n} photos could not be registered and are left out: {', '.join(lost)}")
            progress.note(notes[-1])
        return Result(posed, PointCloud(xyz=xyz, rgb=rgb / 255.0), tuple(notes))

    def _map(self, space: Workspace, focals: dict[int, float], progress: Progress) -> list[Try]:
        """Mapper runs from several focal lengths, until two of them agree on the best model.

        Args:
            focals: Item.camera → focal length in px of the exported photos, where EXIF told it.
        """
        n = len(space.items)
        mapper = self.config.mapper
        if mapper == "auto":
            mapper = "incremental" if n <= _INCREMENTAL_UP_TO else "global"
        sizes = {item.camera: (item.width, item.height) for item in space.items}
        unknown = set(sizes) - set(focals)
        priors: list[float | None] = [None]  # EXIF told all
        if unknown:
            geometry = space.fundamental_matrices()
            grid = np.geomspace(0.35, 4.0, 200)
            scores = focal_scores(geometry, [item.camera for item in space.items], sizes, focals, grid)
            factors = self.config.focal_factors
            if scores is None:
                priors = list(factors)
            else:
                suggested = float(grid[np.argmin(scores)])
                by_score = sorted(factors, key=lambda f: float(np.interp(np.log(f), np.log(grid), scores)))
                far = [f for f in by_score if abs(np.log(f / suggested)) > _SAME_PRIOR]
                priors = [suggested, *far]
                progress.note(f"the pairs of photos suggest a focal length of {suggested:.2f} × the longer side")

        tries: list[Try] = []
        planned = len(priors)
        while priors:
            prior = priors.pop(0)
            number = len(tries) + 1
            params = {}
            for camera, (width, height) in sizes.items():
                focal = focals[camera] if camera in focals else float(prior) * max(width, height)
                params[camera] = (focal, width / 2, height / 2, 0.0)
            label = "EXIF's focal length" if prior is None else f"focal length {prior:.2f} × the longer side"
            name = f"try{number}"
            fresh = not space.steps.done(name)
            if fresh:
                progress.start(f"{mapper} mapping from {label}", n)
                database = space.copy_database(f"{name}.db")
                space.set_cameras(params, known=True, database=database)
                _run_mapper(space, mapper, database, name, progress)
                database.unlink()
            tries.append(Try(prior, _read_models(space.steps.folder / name)))
            if fresh:
                progress.finish(tries[-1].summary(n))
            if _settled(tries, n):
                break
            if not priors and number == planned:
                # Nothing agreed. The best focal length found is a better start than any of the guesses was.
                found = min((model for each in tries for model in each.models), key=Model.rank, default=None)
                if found is not None and unknown:
                    priors.append(found.focal_factor)
        return tries


@dataclass(frozen=True)
class Model:
    """One reconstruction of one try. ``error`` is the mean reprojection error in px of the exported photos."""

    reconstruction: Any  # pycolmap.Reconstruction
    registered: int
    error: float
    focal_factor: float  # median over the cameras of focal length / longer side

    def rank(self) -> tuple[float, float]:
        """Sorts the best model first: most registered photos, then smallest error."""
        return (-self.registered, self.error)


@dataclass(frozen=True)
class Try:
    """What the mapper made of one focal prior (None: EXIF's), the best model first."""

    prior: float | None
    models: tuple[Model, ...]

    def summary(self, n: int) -> str:
        if not self.models:
            return "no model"
        best = self.models[0]
        return (
            f"{best.registered} of {n} photos, {best.error:.2f} px, focal {best.focal_factor:.3f} × the longer side"
            + (f" (best of {len(self.models)} models)" if len(self.models) > 1 else "")
        )


def _settled(tries: Sequence[Try], n: int) -> bool:
    """The best model stands: EXIF's focal length registered all photos, or another prior led to the same model."""
    candidates = sorted((each for each in tries if each.models), key=lambda each: each.models[0].rank())
    if not candidates:
        return False
    best = candidates[0].models[0]
    if candidates[0].prior is None:
        return best.registered == n
    for other in candidates[1:]:
        model = other.models[0]
        same_focal = abs(np.log(model.focal_factor / best.focal_factor)) < _AGREEMENT
        if same_focal and model.registered == best.registered and model.error < 1.25 * best.error:
            return True
    return False


def focal_scores(
    geometry: Sequence[tuple[int, int, np.ndarray, int]],
    camera_of: Sequence[int],
    sizes: dict[int, tuple[int, int]],
    focals: dict[int, float],
    factors: np.ndarray,
) -> np.ndarray | None:
    """How badly each focal length fits the fundamental matrices: [len(factors)], smaller is better.

    With the right intrinsics, E = K_bᵀ F K_a has two equal singular values (Mendonça and Cipolla, "A simple technique
    for self-calibration", CVPR 1999). Each pair votes with 1 − s₂/s₁ through a Geman–McClure function, because many
    pairs are nearly degenerate and say nothing, weighted by its matches.

    Args:
        geometry: (item a, item b, F, inliers), x_bᵀ F x_a = 0 in px.
        camera_of: camera of each item.      sizes: camera → (width, height) px.
        focals: camera → focal length in px where it is known; all others are factor × their longer side.

    Returns None when no pair involves an unknown focal length.
    """
    pairs = [each for each in geometry if camera_of[each[0]] not in focals or camera_of[each[1]] not in focals]
    if not pairs:
        return None
    F = np.stack([each[2] / np.linalg.norm(each[2]) for each in pairs])
    weight = np.minimum([each[3] for each in pairs], 500).astype(np.float64)

    def K(item: int, factor: float) -> np.ndarray:
        camera = camera_of[item]
        width, height = sizes[camera]
        focal = focals.get(camera, factor * max(width, height))
        return np.array([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])

    scores = []
    for factor in factors:
        Ka = np.stack([K(a, factor) for a, _, _, _ in pairs])
        Kb = np.stack([K(b, factor) for _, b, _, _ in pairs])
        s = np.linalg.svd(Kb.transpose(0, 2, 1) @ F @ Ka, compute_uv=False)
        cost = 1.0 - s[:, 1] / np.maximum(s[:, 0], 1e-300)
        scores.append(float((weight * cost**2 / (cost**2 + 0.05**2)).sum() / weight.sum()))
    return np.array(scores)


def _run_mapper(space: Workspace, mapper: str, database: Path, name: str, progress: Progress) -> None:
    """Have the mapper's models as the finished step ``name``, each in a numbered folder of that name."""
    colmap = load_pycolmap()
    output = space.folder / "mapper"  # what the mapper itself writes there is not looked at
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    if mapper == "incremental":
        options = colmap.IncrementalPipelineOptions()
        options.random_seed = SEED
        options.min_model_size = _FEWEST_REGISTERED
        options.max_num_models = 10
        options.num_threads = MAPPER_THREADS
        options.extract_colors = False  # only the model that is taken needs them
        # It registers photos without points, by estimating their focal length anew: the shared one is lost with it.
        options.structure_less_registration_fallback = False
        registered = _Counter()
        found = run_in_background(
            lambda token: colmap.incremental_mapping(
                database,
                space.image_folder,
                output,
                options,
                initial_image_pair_callback=registered.restart,
                next_image_callback=registered.add,
                cancellation_token=token,
            ),
            progress,
            registered.value,
        )
    else:
        options = colmap.GlobalPipelineOptions()
        options.num_threads = MAPPER_THREADS
        options.random_seed = SEED
        options.min_model_size = _FEWEST_REGISTERED
        found = run_in_background(
            lambda token: colmap.global_mapping(database, space.image_folder, output, options), progress
        )
    kept = space.steps.folder / name
    shutil.rmtree(kept, ignore_errors=True)
    for number, reconstruction in sorted(found.items()):
        folder = kept / str(number)
        folder.mkdir(parents=True)
        reconstruction.write(folder)
    space.steps.finish(name, sorted(kept.rglob("*.bin")))


def _read_models(folder: Path) -> tuple[Model, ...]:
    """The models that the mapper left, the best first; read from files, so that none can tell who computed them."""
    colmap = load_pycolmap()
    models = []
    for path in sorted(folder.glob("*"), key=lambda path: int(path.name)):
        reconstruction = colmap.Reconstruction(path)
        error = float(reconstruction.compute_mean_reprojection_error())
        cameras = [reconstruction.image(i).camera for i in reconstruction.reg_image_ids()]
        if not cameras or not np.isfinite(error):
            continue
        factors = [camera.mean_focal_length() / max(camera.width, camera.height) for camera in cameras]
        models.append(Model(reconstruction, len(cameras), error, float(np.median(factors))))
    return tuple(sorted(models, key=Model.rank))


class _Counter:
    """Photos registered in the model that is growing; each new model starts from its first pair."""

    def __init__(self) -> None:
        self._n = 0

    def restart(self) -> None:
        self._n = 2

    def add(self) -> None:
        self._n += 1

    def value(self) -> int:
        return self._n


def _posed(space: Workspace, reconstruction: Any) -> tuple[Posed, ...]:
    """Intrinsics and poses of the registered photos, intrinsics scaled from the exported copy to the full size."""
    posed = []
    for image_id in reconstruction.reg_image_ids():
        image = reconstruction.image(image_id)
        item = space.items[space.index_of_name[image.name]]
        focal, cx, cy, k1 = (float(value) for value in image.camera.params)
        sx, sy = item.photo.width / item.width, item.photo.height / item.height
        pose = np.eye(4)
        pose[:3] = image.cam_from_world().matrix()
        K = np.array([[focal * sx, 0.0, cx * sx], [0.0, focal * sy, cy * sy], [0.0, 0.0, 1.0]])
        posed.append(Posed(item.photo.name, K, (k1, 0.0, 0.0, 0.0), pose))
    return tuple(sorted(posed, key=lambda each: each.name))


def _items(images: ImageSet, config: ColmapConfig) -> tuple[list[Item], dict[int, float]]:
    """The photos with their shared cameras, and the focal length in px of each camera that EXIF knows."""
    groups: dict[tuple, int] = {}
    items, focals = [], {}
    for index, photo in enumerate(images.photos):
        width, height = export_size(photo, config.max_size)
        focal = images.focals_px.get(photo.name)
        # Zoom lenses: photos at different focal lengths are different cameras.
        same = (photo.width, photo.height, None if focal is None else round(focal))
        group = groups.setdefault(same if config.shared_intrinsics else (index,), len(groups))
        items.append(Item(photo, width, height, group))
        if focal is not None:
            focals[group] = focal * max(width, height) / max(photo.width, photo.height)
    return items, focals


def _numbered(names: Sequence[str]) -> bool:
    """The sorted names carry increasing numbers and nothing else that changes, as frames of a video do."""
    parts = [re.fullmatch(r"(.*?)(\d+)(\D*)", name) for name in names]
    if not all(parts) or len({(part[1], part[3]) for part in parts}) != 1:
        return False
    numbers = [int(part[2]) for part in parts]
    return all(a < b for a, b in zip(numbers, numbers[1:], strict=False))


def _too_few(images: ImageSet, registered: int, why: str) -> TooFewMatches:
    return TooFewMatches(
        f"{images.root}: structure from motion registered {registered} of {len(images.photos)} photos ({why}); "
        f"expected at least {_FEWEST_REGISTERED}.",
        hint="Photos must overlap by more than half, be sharp, and move sideways, not only turn. "
        "Or bring poses (COLMAP, transforms.json).",
        registered=registered,
    )
