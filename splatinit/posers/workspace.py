"""COLMAP's database of one set of photos: exported photos, features, matches, verified pairs (pycolmap, CPU only).

COLMAP writes, as it likes, into a scratch folder only; finished steps are kept by :mod:`splatinit.posers.steps`, and
results by :mod:`splatinit.posers.base`.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ..environment import wanted_threads
from ..io.images import write_png
from ..progress import Progress
from ..types import Photo, Pixels
from .steps import Steps

_POLL = 0.2  # seconds between two looks at how far COLMAP is
# The mapper's bundle adjustment rounds differently with every number of threads, and of two starting pairs that are
# equally good it takes the one whose thread is first (measured: other bytes, and models in another order).
MAPPER_THREADS = 1
_FEATURE_BYTES = 160  # in COLMAP's database: the descriptor, its keypoint, and a share of matches and of the tables
_OPENMP = "OMP_NUM_THREADS"
SEED = 0  # of COLMAP's RANSACs; a poser has no seed of its own, its result is cached


def load_pycolmap() -> ModuleType:
    """pycolmap, imported without losing the process's signal handlers, and with one OpenMP thread in each of its own.

    Its logging library takes SIGTERM over while it is imported, so that a polite kill would print a stack trace
    and skip whatever the program meant to do: the handlers that Python knows of are put back. A signal that comes in
    between waits for them, because an exception within the import would become one about a broken installation.

    Its matcher's search index (FAISS) opens OpenMP threads within COLMAP's threads, and then finds other matches now
    and then: on a busy machine in 5 of 34 matchings of the same 43 photos, in none of 39 with one OpenMP thread, and
    these were done sooner. The library takes the number from the environment while it is loaded, once.
    """
    if threading.current_thread() is not threading.main_thread():
        import pycolmap

        return pycolmap
    waiting: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handlers = {number: handler for number, handler in before.items() if handler is not None}
    for number in handlers:
        signal.signal(number, lambda number, frame: waiting.append(number))
    threads = os.environ.get(_OPENMP)
    os.environ[_OPENMP] = "1"
    try:
        import pycolmap
    finally:
        if threads is None:
            del os.environ[_OPENMP]
        else:
            os.environ[_OPENMP] = threads
        for number, handler in handlers.items():
            signal.signal(number, handler)
    for number in waiting:
        signal.raise_signal(number)
    return pycolmap


def colmap_threads() -> int:
    """``num_threads`` of those of COLMAP's steps that come to the same for any number: SPLATINIT_THREADS, or -1."""
    return wanted_threads() or -1


def run_in_background(
    work: Callable[[Any], Any], progress: Progress, done: Callable[[], int] | None = None, **fields: Any
) -> Any:
    """The value of ``work(cancellation_token)``, computed in a thread while this one reports progress.

    COLMAP's functions release Python's lock but do not return until they are finished; so Ctrl-C reaches this thread,
    which then cancels and waits. Log lines are silenced: what matters comes back as values and exceptions.

    Args:
        done: how many units of the progress's current stage are done; asked from this thread, may fail while COLMAP
            holds the database.
    """
    colmap = load_pycolmap()
    token = colmap.CancellationToken()
    outcome: dict[str, Any] = {}

    # Not Thread.join: interrupted by a signal, Python 3.11 takes the thread for ended, and the process would end under
    # COLMAP, which then aborts with a stack trace.
    ended = threading.Event()

    def target() -> None:
        try:
            outcome["value"] = work(token)
        except BaseException as error:  # re-raised in the caller's thread
            outcome["error"] = error
        finally:
            ended.set()

    level, colmap.logging.minloglevel = colmap.logging.minloglevel, int(colmap.logging.FATAL)
    threading.Thread(target=target, name="splatinit-colmap", daemon=True).start()
    try:
        while not ended.wait(_POLL):
            if done is not None:
                try:
                    progress.advance(done(), **fields)
                except RuntimeError:
                    continue  # the database is locked for a moment
    except BaseException:
        token.cancel()
        ended.wait()
        raise
    finally:
        colmap.logging.minloglevel = level
    if "error" in outcome:
        raise outcome["error"]
    return outcome["value"]


@dataclass(frozen=True)
class Item:
    """A photo as COLMAP gets it.

    Attributes:
        width, height: px of the exported copy.
        camera: photos of equal ``camera`` share intrinsics; they must have the same size.
    """

    photo: Photo
    width: int
    height: int
    camera: int


def export_size(photo: Photo, max_size: int) -> tuple[int, int]:
    """(width, height) px of a photo's copy whose longer side is at most ``max_size``."""
    factor = min(1.0, max_size / max(photo.width, photo.height))
    return max(1, round(photo.width * factor)), max(1, round(photo.height * factor))


_STEPS = ("features", "matches", "verified")  # of the database, in their order


class Workspace:
    """Exported photos and COLMAP's database; ids of COLMAP ↔ positions in ``items``.

    Each step keeps what it left in ``steps`` and does nothing where it, or a later one, was finished before.
    """

    def __init__(self, steps: Steps, items: Sequence[Item], progress: Progress) -> None:
        self.steps = steps
        self.folder = steps.scratch
        self.items = tuple(items)
        self.progress = progress
        self.database = self.folder / "database.db"
        self.image_folder = steps.folder / "images"
        self.mask_folder = steps.folder / "masks"
        # Names of our own: order, uniqueness and plain characters are then certain, whatever the files are called.
        self.file_names = [f"{item.camera:04d}/{index:06d}.png" for index, item in enumerate(self.items)]
        self.index_of_name = {name: index for index, name in enumerate(self.file_names)}
        self.image_ids: list[int] = []  # COLMAP's image id of each item
        self.camera_ids: dict[int, int] = {}  # Item.camera → COLMAP's camera id
        self._restored: tuple[str, ...] = ()  # the steps that the database has behind it from an earlier process
        for number, step in reversed(list(enumerate(_STEPS, 1))):
            if steps.restore(step, self.database):
                self._restored = _STEPS[:number]
                progress.note(f"structure from motion goes on after its step '{step}'")
                break

    def export(self, background: tuple[float, float, float] | None) -> None:
        """Write upright, undistorted copies; transparent pixels show ``background`` (white if None) and are masked."""
        if self.steps.done("photos"):
            return
        for folder in (self.image_folder, self.mask_folder):
            shutil.rmtree(folder, ignore_errors=True)
        written = []
        self.progress.start("export photos", len(self.items))
        for index, (item, name) in enumerate(zip(self.items, self.file_names, strict=True), start=1):
            pixels = item.photo.load(item.width, item.height)
            written.append(self.image_folder / name)
            write_png(written[-1], _over(pixels, background or (1.0, 1.0, 1.0)))
            if pixels.alpha is not None or pixels.mask is not None:
                written.append(self.mask_folder / f"{name}.png")
                write_png(written[-1], _seen(pixels))
            self.progress.advance(index)
        self.steps.finish("photos", written)
        self.progress.finish(f"{len(self.items)} photos")

    def _keep(self, step: str) -> None:
        """Keep the database as ``step`` left it, in place of what the steps before it left."""
        self.steps.keep(step, self.database, instead_of=_STEPS[: _STEPS.index(step)])

    def extract(self, camera_model: str, max_features: int) -> None:
        """SIFT features of all photos, one COLMAP camera per Item.camera.

        Raises OutputError where the disk of temporary files has too little room for the database.
        """
        # Up to three copies of it. Asked before, because on a full disk COLMAP ends the whole process.
        self.steps.need_room(3 * _FEATURE_BYTES * max_features * len(self.items))
        colmap = load_pycolmap()
        reader = colmap.ImageReaderOptions()
        reader.camera_model = camera_model
        if self.mask_folder.is_dir():
            reader.mask_path = self.mask_folder
        options = colmap.FeatureExtractionOptions()
        options.num_threads = colmap_threads()
        options.sift.max_num_features = max_features
        mode = colmap.CameraMode.PER_FOLDER
        # Opened (which creates it) once, for reading the progress; COLMAP writes through connections of its own.
        with colmap.Database.open(self.database) as database:
            if "features" not in self._restored:
                # Entered before features are sought: extraction would number the images as its threads finish them,
                # and the numbers decide in which order points are triangulated.
                colmap.import_images(self.database, self.image_folder, mode, self.file_names, reader)
            by_name = {image.name: image for image in database.read_all_images()}
            self.image_ids = [by_name[name].image_id for name in self.file_names]
            self.camera_ids = {
                item.camera: by_name[name].camera_id for item, name in zip(self.items, self.file_names, strict=True)
            }
            if "features" in self._restored:
                return
            self.progress.start("SIFT features", len(self.items))
            run_in_background(
                lambda token: colmap.extract_features(
                    self.database,
                    self.image_folder,
                    self.file_names,
                    mode,
                    reader,
                    options,
                    colmap.Device.cpu,
                    token,
                ),
                self.progress,
                lambda: sum(map(database.exists_keypoints, self.image_ids)),
            )
            features = database.num_keypoints()
        self._keep("features")
        self.progress.finish(f"{features} features")

    def match(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Match the descriptors of pairs of items, without geometric verification."""
        if "matches" in self._restored:
            return
        colmap = load_pycolmap()
        listing = self.folder / "pairs.txt"
        listing.write_text("".join(f"{self.file_names[a]} {self.file_names[b]}\n" for a, b in pairs))
        options = colmap.FeatureMatchingOptions()
        options.num_threads = colmap_threads()
        options.skip_geometric_verification = True
        pairing = colmap.ImportedPairingOptions()
        pairing.match_list_path = listing
        # The whole list in one block would write nothing, and so tell nothing, before the end.
        pairing.block_size = max(16, min(256, len(pairs) // 32))
        self.progress.start("match features", len(pairs))
        with colmap.Database.open(self.database) as database:
            run_in_background(
                lambda token: colmap.match_image_pairs(
                    self.database,
                    matching_options=options,
                    pairing_options=pairing,
                    device=colmap.Device.cpu,
                    cancellation_token=token,
                ),
                self.progress,
                database.num_matched_image_pairs,
            )
            matches = database.num_matches()
        self._keep("matches")
        self.progress.finish(f"{matches} matches in {len(pairs)} pairs")

    def verify(self) -> int:
        """Geometric verification of the matches with what is known of the cameras; the number of pairs that pass."""
        colmap = load_pycolmap()
        fresh = "verified" not in self._restored
        if fresh:
            options = colmap.TwoViewGeometryOptions()
            options.ransac.random_seed = SEED
            verifier = colmap.GeometricVerifierOptions()
            verifier.num_threads = colmap_threads()
            self.progress.start("verify pairs")
            run_in_background(
                lambda token: colmap.geometric_verification(
                    self.database, verifier, two_view_geometry_options=options, cancellation_token=token
                ),
                self.progress,
            )
        with colmap.Database.open(self.database) as database:
            verified, inliers = database.num_verified_image_pairs(), database.num_inlier_matches()
        if fresh:
            self._keep("verified")
            self.progress.finish(f"{verified} pairs, {inliers} matches")
        return verified

    def set_cameras(self, params: dict[int, Sequence[float]], known: bool, database: Path | None = None) -> None:
        """Give cameras (by Item.camera) their parameters, in the order of their COLMAP model.

        Args:
            known: the parameters are meant. COLMAP replaces the focal length of a camera that is not marked so by
                what the first pair of photos suggests, whatever it started from.
            database: a copy of the workspace's database, or None for its own.
        """
        colmap = load_pycolmap()
        with colmap.Database.open(database or self.database) as opened:
            for camera, values in params.items():
                entry = opened.read_camera(self.camera_ids[camera])
                entry.params = np.asarray(values, dtype=np.float64)
                entry.has_prior_focal_length = known
                opened.update_camera(entry)

    def copy_database(self, name: str) -> Path:
        """A copy of the database in its present state, for one try of the mapper."""
        target = self.folder / name
        shutil.copyfile(self.database, target)
        return target

    def fundamental_matrices(self) -> list[tuple[int, int, np.ndarray, int]]:
        """(item a, item b, F [3, 3], inliers) of the verified pairs that are neither planar nor a pure rotation.

        x_bᵀ F x_a = 0 for pixels of the exported photos.
        """
        colmap = load_pycolmap()
        index_of = {image_id: index for index, image_id in enumerate(self.image_ids)}
        with colmap.Database.open(self.database) as database:
            pair_ids, geometries = database.read_two_view_geometries()
        found = []
        for pair_id, geometry in zip(pair_ids, geometries, strict=True):
            if geometry.config == colmap.TwoViewGeometryConfiguration.UNCALIBRATED and geometry.F is not None:
                a, b = colmap.pair_id_to_image_pair(pair_id)
                found.append((index_of[a], index_of[b], np.array(geometry.F), len(geometry.inlier_matches)))
        return found


def model_points(model) -> tuple[np.ndarray, np.ndarray, float]:
    """xyz [n, 3] float64 and rgb [n, 3] in 0…255 of a pycolmap reconstruction, by point id, and its error in px."""
    points = [point for _, point in sorted(model.points3D.items())]
    xyz = np.array([point.xyz for point in points], dtype=np.float64).reshape(-1, 3)
    rgb = np.array([point.color for point in points], dtype=np.float64).reshape(-1, 3)
    return xyz, rgb, float(model.compute_mean_reprojection_error()) if points else 0.0


def _over(pixels: Pixels, background: tuple[float, float, float]) -> np.ndarray:
    """[h, w, 3] uint8: the image over an sRGB colour."""
    if pixels.alpha is None:
        return pixels.rgb
    alpha = pixels.alpha[..., None].astype(np.float32) / 255.0
    colour = np.asarray(background, dtype=np.float32) * 255.0
    return np.rint(alpha * pixels.rgb + (1.0 - alpha) * colour).astype(np.uint8)


def _seen(pixels: Pixels) -> np.ndarray:
    """[h, w] uint8, 255 where features may be looked for: what is neither transparent nor masked."""
    seen = np.full(pixels.rgb.shape[:2], 255, np.uint8)
    if pixels.alpha is not None:
        seen[pixels.alpha <= 127] = 0
    if pixels.mask is not None:
        seen[pixels.mask == 0] = 0
    return seen


# ------------------------------------------------------------------------------------------------------------- pairs
def all_pairs(n: int) -> list[tuple[int, int]]:
    """Every pair of n photos."""
    return list(itertools.combinations(range(n), 2))


def sequence_pairs(n: int, overlap: int = 10, anchors: int = 24) -> list[tuple[int, int]]:
    """Pairs of n photos taken one after the other.

    Each with the next ``overlap``, and with those 2^i further on; and ``anchors`` evenly spaced photos all with each
    other, so that a path that comes back is closed.
    """
    steps = [*range(1, overlap + 1), *itertools.takewhile(lambda s: s < n, (2**i for i in range(4, 20)))]
    pairs = {(a, a + step) for a in range(n) for step in steps if a + step < n}
    spaced = sorted({round(i) for i in np.linspace(0, n - 1, min(anchors, n))})
    pairs.update(itertools.combinations(spaced, 2))
    return sorted(pairs)


def pose_pairs(centers: np.ndarray, forward: np.ndarray, each: int = 16) -> list[tuple[int, int]]:
    """Pairs of posed photos that are likely to see the same things.

    For each camera, of those whose viewing direction differs by less than 75°: the nearest half of ``each``, for
    matches, and as many further ones at growing distance, for parallax.

    Args:
        centers: [n, 3] camera centres.      forward: [n, 3] unit viewing directions.
    """
    n = len(centers)
    further = [each // 2 + i * (i + 1) // 2 for i in range(1, each - each // 2 + 1)]
    ranks = [*range(each // 2), *further]
    pairs: set[tuple[int, int]] = set()
    for a in range(n):
        others = np.flatnonzero((forward @ forward[a] > np.cos(np.radians(75.0))) & (np.arange(n) != a))
        order = others[np.argsort(np.linalg.norm(centers[others] - centers[a], axis=1), kind="stable")]
        pairs.update(_ordered(a, int(order[rank])) for rank in ranks if rank < len(order))
    return sorted(pairs)


def _ordered(a: int, b: int) -> tuple[int, int]:
    return (a, b) if a < b else (b, a)
