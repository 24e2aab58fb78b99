"""``given``: the poses that came with the photos. Where no points came, SIFT features are triangulated with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import NoImages, NoPoses, TooFewMatches
from ..progress import Progress
from ..types import Camera, ImageSet, PointCloud, Scene, View
from .base import Result, check_features, fingerprint, load_result, make_scene, store_result
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
    pose_pairs,
    run_in_background,
)

# Up to so many photos every pair is matched (435 pairs); beyond, only those whose poses say that they may overlap.
_ALL_PAIRS_UP_TO = 30
# Up to so many photos, points of two views count. With twelve of bonsai they were three times as many, of which 65 %
# in place of 81 % lay within 1 % of the extent of those of the full model.
_TWO_VIEW_TRACKS_UP_TO = 4
# Fewer points than this are no start for a scene; the poses are then wrong, or in another convention.
_FEWEST_POINTS = 20


@dataclass(frozen=True, kw_only=True)
class GivenConfig:
    """What to do with poses that came without points.

    Attributes:
        triangulate: match SIFT features of the training photos and triangulate them, poses held fixed (needs
            pycolmap; about a second per photo on two cores). Without it such a scene has no points.
        max_size: px, longer side of the photos in which features are sought, whatever the working size is.
        max_features: per photo, the strongest (by scale) are kept.
    """

    triangulate: bool = True
    max_size: int = 1600
    max_features: int = 8192

    def __post_init__(self) -> None:
        check_features(self.max_size, self.max_features)


class Given:
    """Checks the cameras of an ImageSet and makes them a scene."""

    def __init__(self, config: GivenConfig = GivenConfig()) -> None:
        self.config = config

    def pose(self, images: ImageSet, *, work_dir: Path | None, progress: Progress) -> Scene:
        """See :class:`splatinit.posers.Poser`.

        Raises:
            NoPoses: the folder brought no cameras.
            BadPoses, BadPoints: a camera or the points that came with them are not usable.
            NoImages: fewer than two photos have a camera.
            TooFewMatches: the triangulation found next to nothing.
            MissingExtra: it is needed, and pycolmap is not installed.
        """
        if not images.cameras:
            raise NoPoses(
                f"{images.root}: read as {images.format}, it holds {len(images.photos)} photos but no poses.",
                hint="Let structure from motion find them: poser.name=colmap.",
            )
        views = []
        for photo in images.photos:
            camera = images.cameras.get(photo.name)
            if camera is not None:
                camera.check(f"{images.root}, photo '{photo.name}'")
                views.append(View(photo.name, camera, photo))
        if len(views) < 2:
            raise NoImages(
                f"{images.root}: {len(views)} of {len(images.photos)} photos have a pose; expected at least 2.",
                hint="Add posed photos.",
            )
        scene = make_scene(images, views, images.points, "given", ())
        if images.points is not None:
            images.points.check(f"{images.root}: the points that came with the poses")
        key = fingerprint(images, "given", self.config)
        result = load_result(work_dir, key)
        if result is None:
            result = Result(posed=(), points=images.points, notes=())
            if images.points is None and self.config.triangulate:
                with work_place(work_dir, key) as steps:
                    result = self._triangulate(images, scene.train, steps, progress)
                    if work_dir is not None:
                        store_result(work_dir, key, result, views)
            elif work_dir is not None:
                store_result(work_dir, key, result, views)
            result = load_result(work_dir, key) or result
        # The files' own points keep every bit; only what was computed here comes from the cache.
        points = images.points if images.points is not None else result.points
        return replace(scene, points=points, notes=scene.notes + result.notes)

    def _triangulate(self, images: ImageSet, views: Sequence[View], steps: Steps, progress: Progress) -> Result:
        """Points seen by the training views (test views must not help), coloured; and a note that says how many."""
        from . import POSERS

        POSERS.load("colmap")  # raises MissingExtra where pycolmap is absent
        if len(views) < 2:
            raise TooFewMatches(
                f"{images.root}: {len(views)} training view; triangulation needs at least 2.",
                hint="Add photos, or start with --init random.",
            )
        sizes = [export_size(view.photo, self.config.max_size) for view in views]
        cameras = [view.camera.resized(*size) for view, size in zip(views, sizes, strict=True)]
        groups: dict[tuple, int] = {}
        group_of = [groups.setdefault((*c.K.ravel().tolist(), c.width, c.height), len(groups)) for c in cameras]
        items = [Item(v.photo, *size, group) for v, size, group in zip(views, sizes, group_of, strict=True)]
        if len(views) <= _ALL_PAIRS_UP_TO:
            pairs = all_pairs(len(views))
        else:
            pairs = pose_pairs(
                np.stack([camera.center for camera in cameras]),
                np.stack([camera.cam_from_world[2, :3] for camera in cameras]),
            )
        space = Workspace(steps, items, progress)
        space.export(images.background)
        space.extract("PINHOLE", self.config.max_features)
        intrinsics = {
            group: (c.K[0, 0], c.K[1, 1], c.K[0, 2], c.K[1, 2]) for group, c in zip(group_of, cameras, strict=True)
        }
        space.set_cameras(intrinsics, known=True)
        space.match(pairs)
        space.verify()
        xyz, rgb, error = _triangulate_points(space, cameras, progress)
        if len(xyz) < _FEWEST_POINTS:
            raise TooFewMatches(
                f"{images.root}: triangulating features of {len(views)} photos with the given poses left {len(xyz)} "
                f"points; expected at least {_FEWEST_POINTS}.",
                hint="The poses may be in another convention than their format says, or the photos lack texture: "
                "try poser.name=colmap, or --init random.",
            )
        note = f"{len(xyz)} points triangulated with the given poses from {len(views)} training photos ({error:.2f} px)"
        return Result(posed=(), points=PointCloud(xyz=xyz, rgb=rgb / 255.0), notes=(note,))


def _triangulate_points(
    space: Workspace, cameras: Sequence[Camera], progress: Progress
) -> tuple[np.ndarray, np.ndarray, float]:
    """xyz [n, 3], rgb [n, 3] in 0…255 and the mean reprojection error in px."""
    colmap = load_pycolmap()
    model = colmap.Reconstruction()
    with colmap.Database.open(space.database) as database:
        for camera_id in sorted(space.camera_ids.values()):
            model.add_camera_with_trivial_rig(database.read_camera(camera_id))
        for image_id, camera in zip(space.image_ids, cameras, strict=True):
            model.add_image_with_trivial_frame(
                database.read_image(image_id), colmap.Rigid3d(np.ascontiguousarray(camera.cam_from_world[:3]))
            )
    options = colmap.IncrementalPipelineOptions()
    options.random_seed = SEED
    options.num_threads = MAPPER_THREADS
    # COLMAP drops what only two photos see, which of three photos is nearly all.
    options.triangulation.ignore_two_view_tracks = len(cameras) > _TWO_VIEW_TRACKS_UP_TO
    output = space.folder / "triangulated"
    output.mkdir()
    progress.start("triangulate")
    model = run_in_background(
        lambda token: colmap.triangulate_points(
            model, space.database, space.image_folder, output, True, options, False, token
        ),
        progress,
    )
    xyz, rgb, error = model_points(model)
    progress.finish(f"{len(xyz)} points, {error:.2f} px")
    return xyz, rgb, error
