"""The nouns of the house. No I/O, no algorithm, no device moves: only what flows along the one line

    folder → ImageSet → Scene → Initialization → Gaussians → trained Gaussians → Report

Spaces and units. World: scene units, right-handed. Camera: OpenCV axes (x right, y down, z forward). Pixels: px, the
centre of pixel (0, 0) is (0.5, 0.5). Colours: sRGB in [0, 1], never linearised (as all of the field trains). Poses are
called ``b_from_a``: x_b = R x_a + t. Letters: n Gaussians or points, k SH coefficients beyond degree 0, h × w pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .errors import BadPoints, BadPoses, ShapeError

if TYPE_CHECKING:
    import torch


# ----------------------------------------------------------------------------------------------------------- cameras
_LARGEST = 1e15  # of a camera's numbers: squares and sums of larger ones are not finite in float32, as images are made


@dataclass(frozen=True)
class Camera:
    """A pinhole camera with its pose (lens distortion is removed when an image is read).

    Attributes:
        K: [3, 3] float64, px; K[0, 1] = 0.
        cam_from_world: [4, 4] float64 rigid motion, OpenCV axes.
        width, height: px.
    """

    K: np.ndarray
    cam_from_world: np.ndarray
    width: int
    height: int

    def __post_init__(self) -> None:
        K = np.ascontiguousarray(self.K, dtype=np.float64)
        pose = np.ascontiguousarray(self.cam_from_world, dtype=np.float64)
        if K.shape != (3, 3) or pose.shape != (4, 4):
            raise ShapeError(f"A camera needs K [3, 3] and cam_from_world [4, 4], got {K.shape} and {pose.shape}.")
        object.__setattr__(self, "K", K)
        object.__setattr__(self, "cam_from_world", pose)

    @property
    def fx(self) -> float:
        return float(self.K[0, 0])

    @property
    def fy(self) -> float:
        return float(self.K[1, 1])

    @cached_property
    def world_from_cam(self) -> np.ndarray:
        """[4, 4] inverse of cam_from_world."""
        R, t = self.cam_from_world[:3, :3], self.cam_from_world[:3, 3]
        inverse = np.eye(4)
        inverse[:3, :3], inverse[:3, 3] = R.T, -R.T @ t
        return inverse

    @property
    def center(self) -> np.ndarray:
        """[3] camera centre in world coordinates."""
        return self.world_from_cam[:3, 3]

    def resized(self, width: int, height: int) -> Camera:
        """The same camera looking at an image of another size: K scaled per axis by the true size ratio."""
        K = self.K.copy()
        K[0] *= width / self.width
        K[1] *= height / self.height
        return replace(self, K=K, width=width, height=height)

    def check(self, where: str) -> None:
        """Raise BadPoses, naming ``where``, unless everything is finite and the rotation is one."""
        if not (np.isfinite(self.K).all() and np.isfinite(self.cam_from_world).all()):
            raise BadPoses(f"{where}: the camera has non-finite numbers.", hint="Re-export the poses of this image.")
        largest = max(np.abs(self.K).max(), np.abs(self.cam_from_world).max())
        if largest > _LARGEST:
            raise BadPoses(
                f"{where}: the camera has a number of size {largest:.3g} (px or scene units); expected at most "
                f"{_LARGEST:g}.",
                hint="Re-export the poses of this image, or scale the scene down.",
            )
        if self.fx <= 0 or self.fy <= 0 or self.width < 1 or self.height < 1:
            raise BadPoses(
                f"{where}: focal length {self.fx:g} × {self.fy:g} px at {self.width}×{self.height} px; "
                "expected positive numbers."
            )
        R = self.cam_from_world[:3, :3]
        with np.errstate(all="ignore"):  # absurdly large numbers overflow; the NaN that may come of it is refused too
            error = float(np.abs(R @ R.T - np.eye(3)).max())
            determinant = float(np.linalg.det(R))
        if not (error <= 1e-3 and determinant > 0):
            raise BadPoses(
                f"{where}: the pose is not a rotation and a translation (max |R Rᵀ − I| = {error:.2g}, "
                f"det R = {determinant:.3g}); expected an orthonormal, right-handed rotation.",
                hint="A scale inside the matrix, a mirrored axis or a row/column mix-up looks like this.",
            )


# ------------------------------------------------------------------------------------------------------------ images
@dataclass(frozen=True)
class Pixels:
    """A decoded image.

    Transparency and masks are two things. A transparent pixel is known: nothing is there, and a render must show the
    background. A masked one is unknown: a passer-by, the photographer's finger, the border of a fisheye; no loss and
    no metric looks at it.

    Attributes:
        rgb: [h, w, 3] uint8 sRGB, not premultiplied.
        alpha: [h, w] uint8, or None if opaque.
        mask: [h, w] uint8, 255 where the pixel counts and 0 where it does not; None if all count.
    """

    rgb: np.ndarray
    alpha: np.ndarray | None = None
    mask: np.ndarray | None = None

    @property
    def nbytes(self) -> int:
        """Memory that the layers take."""
        return sum(layer.nbytes for layer in (self.rgb, self.alpha, self.mask) if layer is not None)


class Photo(Protocol):
    """One image file, decoded on demand: upright (EXIF orientation applied) and free of lens distortion."""

    name: str  # unique in its set, '/'-separated, e.g. "images/0001.jpg"; its order is the order of the set
    path: Path
    width: int  # px, upright, full size of the file
    height: int
    has_alpha: bool
    has_mask: bool
    has_depth: bool

    def load(self, width: int, height: int) -> Pixels:
        """The image at ``width`` × ``height`` px (area-averaged when it shrinks, alpha-correct)."""
        ...

    def load_depth(self, width: int, height: int) -> np.ndarray | None:
        """Measured depth [height, width] float32, scene units along z, 0 = unknown; None where the scene has none."""
        ...


@dataclass(frozen=True)
class ImageSet:
    """What a folder held, before anything is computed: photos, and whatever else its files knew.

    Attributes:
        root: the folder.
        format: name of the reader that read it, e.g. "colmap".
        photos: in order of their names.
        sizes: name → (width, height) px to work at, after --max-size / --downscale.
        cameras: name → Camera at the working size; empty when the folder brings no poses. Photos without an entry
            are not part of the scene (counted in ``notes``).
        focals_px: name → focal length in px at the photo's *full* size from EXIF, only where known.
        points: the points that came with the poses, or None.
        test_names: names of the test views where the files say so, or None for "every 8th".
        background: sRGB colour that transparent pixels are composed over for evaluation, or None for opaque scenes.
        notes: human-readable remarks of the reader ("17 of 67 frames have no file and were skipped").
    """

    root: Path
    format: str
    photos: tuple[Photo, ...]
    sizes: Mapping[str, tuple[int, int]]
    cameras: Mapping[str, Camera] = field(default_factory=dict)
    focals_px: Mapping[str, float] = field(default_factory=dict)
    points: PointCloud | None = None
    test_names: frozenset[str] | None = None
    background: tuple[float, float, float] | None = None
    notes: tuple[str, ...] = ()

    def photo(self, name: str) -> Photo:
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, Photo]:
        return {photo.name: photo for photo in self.photos}


# ------------------------------------------------------------------------------------------------------------ points
POINT_FIELDS = ("xyz", "rgb", "radius", "opacity", "normal", "confidence", "sh")


@dataclass(frozen=True)
class PointCloud:
    """Points with colours, and what an initializer may know beyond them.

    Attributes:
        xyz: [n, 3] float32, scene units.      rgb: [n, 3] float32 in [0, 1].
        radius: [n] scene units: the scale a Gaussian should start with, instead of the neighbour distance.
        opacity: [n] in (0, 1): the opacity it should start with.
        normal: [n, 3] unit.                   confidence: [n] ≥ 0, larger is better.
        sh: [n, k, 3], k = 3, 8 or 15: how the colour changes with the direction, as Gaussians.shN; ``rgb`` is then the
            part that does not change.
    """

    xyz: np.ndarray
    rgb: np.ndarray
    radius: np.ndarray | None = None
    opacity: np.ndarray | None = None
    normal: np.ndarray | None = None
    confidence: np.ndarray | None = None
    sh: np.ndarray | None = None

    def __post_init__(self) -> None:
        n = len(self.xyz)
        shapes = {"xyz": (n, 3), "rgb": (n, 3), "radius": (n,), "opacity": (n,), "normal": (n, 3), "confidence": (n,)}
        if self.sh is not None:
            k = self.sh.shape[1] if self.sh.ndim == 3 else -1
            if k not in (3, 8, 15):
                raise ShapeError(f"PointCloud.sh must be [n, 3|8|15, 3], got {list(self.sh.shape)}.")
            shapes["sh"] = (n, k, 3)
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value is None:
                continue
            value = np.ascontiguousarray(value, dtype=np.float32)
            if value.shape != shape:
                raise ShapeError(f"PointCloud.{name} must be {list(shape)}, got {list(value.shape)}.")
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.xyz)

    def check(self, where: str) -> None:
        """Raise BadPoints, naming ``where``, when the cloud is empty or anything in it is not finite."""
        if len(self) == 0:
            raise BadPoints(f"{where}: the point cloud is empty.", hint="Try --init random, or another poser.")
        for name in POINT_FIELDS:
            value = getattr(self, name)
            if value is not None and not np.isfinite(value).all():
                rows = ~np.isfinite(value.reshape(len(self), -1)).all(axis=1)
                raise BadPoints(
                    f"{where}: {int(rows.sum())} of {len(self)} points have non-finite {name} "
                    f"(the first is number {int(np.argmax(rows))}).",
                    hint="Remove these points from the file.",
                )

    def select(self, index: np.ndarray) -> PointCloud:
        """The points that ``index`` (mask or integers) picks, with all their fields."""
        return PointCloud(**{k: None if getattr(self, k) is None else getattr(self, k)[index] for k in POINT_FIELDS})


# ------------------------------------------------------------------------------------------------------------- scene
@dataclass(frozen=True)
class View:
    """A posed photo. ``camera`` has the working size, and ``pixels()`` decodes the photo at that size."""

    name: str
    camera: Camera
    photo: Photo

    def pixels(self) -> Pixels:
        return self.photo.load(self.camera.width, self.camera.height)

    def depth(self) -> np.ndarray | None:
        """The depth that came with the photo (see :meth:`Photo.load_depth`) at the size of the camera."""
        return self.photo.load_depth(self.camera.width, self.camera.height)


@dataclass(frozen=True)
class Scene:
    """Posed views split into train and test, and the points that the poser left (None if it left none).

    ``background`` is the sRGB colour that transparent pixels are composed over in evaluation; None means that the
    photos are opaque (then everything is rendered over black). It belongs to the data set, not to a run.
    """

    root: Path
    train: tuple[View, ...]
    test: tuple[View, ...]
    points: PointCloud | None = None
    background: tuple[float, float, float] | None = None
    poser: str = "given"
    notes: tuple[str, ...] = ()

    @property
    def views(self) -> tuple[View, ...]:
        """All views in order of their names."""
        return tuple(sorted(self.train + self.test, key=lambda view: view.name))

    @cached_property
    def extent(self) -> float:
        """3DGS's scene extent: 1.1 × the largest distance of a training camera from their mean (scene units)."""
        centers = np.stack([view.camera.center for view in self.train])
        radius = float(np.linalg.norm(centers - centers.mean(axis=0), axis=1).max())
        # One camera, or several at one place, have no extent; 1 keeps every learning rate finite.
        return 1.1 * radius if radius > 1e-8 else 1.0


@dataclass(frozen=True, kw_only=True)
class StartQuality:
    """What can be said of a start before any training (see :mod:`splatinit.quality`); None where it is unknown.

    Attributes:
        points: how many were measured, of all or of an even sample.
        filled: of a training view: share of its pixels in whose cell (1/100 of the image) a point falls.
        coverage: of a training view: share of its pixels with a point within 1 % of their depth.
        photoconsistency: of a training view: mean absolute difference, 0 to 1, of the points' colours to its pixels.
        views: the training views that were measured, in the order of these three: view by view.
        accuracy: mean distance of a point to the true surface, scene units.
        completeness: mean distance of the true surface to a point.
        fscore: harmonic mean of the shares that lie within ``threshold`` (scene units) of each other.
        seconds: that measuring took.
    """

    points: int
    views: tuple[str, ...]
    filled: tuple[float | None, ...]
    coverage: tuple[float | None, ...]
    photoconsistency: tuple[float | None, ...]
    accuracy: float | None = None
    completeness: float | None = None
    fscore: float | None = None
    threshold: float | None = None
    seconds: float = 0.0

    def mean(self, measure: str) -> float | None:
        """The mean of ``filled``, ``coverage`` or ``photoconsistency`` over the views where it is known."""
        known = [value for value in getattr(self, measure) if value is not None]
        return sum(known) / len(known) if known else None

    def to_json(self) -> dict[str, Any]:
        """Plain values: the means over the views by name, and the values of each view below "views"."""
        by_view = ("filled", "coverage", "photoconsistency")
        each = zip(*(getattr(self, name) for name in by_view), strict=True)
        return {
            **{name: self.mean(name) for name in by_view},
            **{name: getattr(self, name) for name in ("accuracy", "completeness", "fscore", "threshold")},
            "points": self.points,
            "seconds": self.seconds,
            "views": {
                view: dict(zip(by_view, values, strict=True)) for view, values in zip(self.views, each, strict=True)
            },
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> StartQuality:
        """What :meth:`to_json` gave. Raises KeyError, TypeError, ValueError or AttributeError for anything else."""

        def number(each: Any) -> float | None:
            return None if each is None else float(each)

        views = value["views"]
        by_view = {
            name: tuple(number(views[view][name]) for view in views)
            for name in ("filled", "coverage", "photoconsistency")
        }
        whole = {name: number(value[name]) for name in ("accuracy", "completeness", "fscore", "threshold")}
        return cls(points=int(value["points"]), views=tuple(views), seconds=float(value["seconds"]), **by_view, **whole)


@dataclass(frozen=True)
class DepthPrior:
    """Depth [h, w] (scene units along z, 0 = unknown) of one training view with confidence [h, w] in [0, 1]."""

    view: str
    depth: np.ndarray
    confidence: np.ndarray


class Attachment(Protocol):
    """Something that an initializer made on the way, and that can be used again."""

    def save(self, path: Path) -> None:
        """Write it to ``path``, atomically."""
        ...


@dataclass(frozen=True)
class Initialization:
    """Where the Gaussians start: points, optional depth priors, what it cost and how it was made.

    Attributes:
        points: the start.
        depth_priors: per view name, for initializers that know depth; the trainer decides what to do with them.
        seconds: stage name → seconds.
        peak_memory_mb: of the process while the initializer ran.
        recipe: name and settings of the initializer, as plain JSON-able values.
        notes: human-readable remarks ("floor added because ...").
        attachments: file name → what a run keeps under that name beside the points; not read back with them.
        quality: what is known of the start before training; None where it was not measured.
    """

    points: PointCloud
    depth_priors: Mapping[str, DepthPrior] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    peak_memory_mb: float = 0.0
    recipe: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    attachments: Mapping[str, Attachment] = field(default_factory=dict)
    quality: StartQuality | None = None


# --------------------------------------------------------------------------------------------------------- Gaussians
GAUSSIAN_FIELDS = ("means", "quats", "log_scales", "logit_opacities", "sh0", "shN")


@dataclass
class Gaussians:
    """n Gaussians in the space that is optimised; activated values are properties. Tensors are float32.

    Attributes:
        means: [n, 3] scene units.               quats: [n, 4] wxyz, normalised where used.
        log_scales: [n, 3] log of scene units.   logit_opacities: [n].
        sh0: [n, 1, 3] SH degree 0.              shN: [n, k, 3], k = 0, 3, 8 or 15 for degree 0 to 3.
    """

    means: torch.Tensor
    quats: torch.Tensor
    log_scales: torch.Tensor
    logit_opacities: torch.Tensor
    sh0: torch.Tensor
    shN: torch.Tensor

    def __post_init__(self) -> None:
        n, k = len(self.means), self.shN.shape[1] if self.shN.ndim == 3 else -1
        if k not in (0, 3, 8, 15):
            raise ShapeError(f"Gaussians.shN must be [n, 0|3|8|15, 3], got {list(self.shN.shape)}.")
        shapes = {
            "means": (n, 3),
            "quats": (n, 4),
            "log_scales": (n, 3),
            "logit_opacities": (n,),
            "sh0": (n, 1, 3),
            "shN": (n, k, 3),
        }
        for name, shape in shapes.items():
            got = tuple(getattr(self, name).shape)
            if got != shape:
                raise ShapeError(f"Gaussians.{name} must be {list(shape)}, got {list(got)}.")

    def __len__(self) -> int:
        return len(self.means)

    @property
    def sh_degree(self) -> int:
        return {0: 0, 3: 1, 8: 2, 15: 3}[self.shN.shape[1]]

    @property
    def scales(self) -> torch.Tensor:
        return self.log_scales.exp()

    @property
    def opacities(self) -> torch.Tensor:
        return self.logit_opacities.sigmoid()

    def tensors(self) -> dict[str, torch.Tensor]:
        """The six tensors by name, in the order of GAUSSIAN_FIELDS."""
        return {name: getattr(self, name) for name in GAUSSIAN_FIELDS}

    def map(self, fn) -> Gaussians:
        """New Gaussians with ``fn`` applied to each tensor."""
        return Gaussians(**{name: fn(tensor) for name, tensor in self.tensors().items()})


# ------------------------------------------------------------------------------------------------------------ render
@dataclass
class RasterAux:
    """Per-Gaussian side results of one render.

    Attributes:
        means2d: [n, 2] px (0 where not visible).     depths: [n] z in camera space, scene units.
        radii: [n] px, half the longer side of the screen box in which alpha ≥ 1/255; 0 = not visible.
        visible: [n] bool.
        blend_weight: [n] accumulated alpha × transmittance over all pixels, or None where not asked for.
        v_means2d: [n, 2] gradient of the loss w.r.t. means2d (px), filled by backward, or None before.
        v_means2d_abs: [n, 2] the same with absolute values summed over pixels (AbsGS), filled by backward.
    """

    means2d: torch.Tensor
    depths: torch.Tensor
    radii: torch.Tensor
    visible: torch.Tensor
    blend_weight: torch.Tensor | None = None
    v_means2d: torch.Tensor | None = None
    v_means2d_abs: torch.Tensor | None = None


@dataclass
class Render:
    """One rendered view: ``rgb`` [h, w, 3] (not clamped), ``alpha`` [h, w], ``depth`` [h, w] expected z in scene units
    (blend-weighted mean, 0 where alpha is 0) or None where not asked for."""

    rgb: torch.Tensor
    alpha: torch.Tensor
    depth: torch.Tensor | None
    aux: RasterAux
