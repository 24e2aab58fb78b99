"""What the starts of a scene are before any training: numbers, and a picture to look at.

    python benchmarks/starts.py SCENE [--inits sfm,random,depth] [--start LABEL NAME [KEY=VALUE ...]]
                                [--gt mesh.ply] [--gt points.ply] [--max-size 800] [--work DIR]
                                [--picture starts.png] [--json starts.json]

``--inits`` names initializers or presets of configs/init; ``--start`` adds one with settings, as in ``--start "half as
many" depth count=50000``. All start from the same scene, posed once. What is measured:

    seconds, peak MB   of the initializer (sfm: posing and triangulating are in the line above the table); memory is of
                       the whole process, so it includes what earlier starts left.
    median error       from a point to the true surface, exact where the truth is a mesh.
    within, recall, F  share of the points within --share of the scene's extent of the surface, share of the surface
                       within that of a point, and their harmonic mean (Knapitsch et al. 2017). Two files may be the
                       truth: distances are then to the mesh, and the points (what the cameras could see of it) are what
                       must be covered.
    coverage           share of the training views' pixels whose depth map a point agrees with to 1 %, in cells of a
                       hundredth of the image; only where the scene has depth maps.

The picture shows each start's points (2 px, nearest in front) from a training view and from 30° beside it.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from splatinit import environment, paths, pipeline
from splatinit.config import Choice, Layer, RunConfig, build_config, load_preset
from splatinit.errors import SplatinitError
from splatinit.geometry.coverage import coverage
from splatinit.geometry.rigid import transform, unproject
from splatinit.geometry.scoring import CloudScore, score_cloud
from splatinit.geometry.surface import Surface
from splatinit.initializers import INITIALIZERS, needs_points
from splatinit.io.images import write_png
from splatinit.io.mesh import read_ply_mesh
from splatinit.io.pointcloud import read_ply_points
from splatinit.report.figures import SheetRow, contact_sheet, draw_points
from splatinit.types import Camera, PointCloud, Scene, View

ORBIT = 30.0  # degrees between the two views of the picture
SIDE = 420  # px of a picture in the sheet


@dataclass(frozen=True)
class Truth:
    """Points that are to be covered, and the mesh where there is one."""

    points: PointCloud
    mesh: Surface | None

    @classmethod
    def read(cls, paths: list[Path]) -> Truth | None:
        mesh = points = None
        for path in paths:
            header = path.read_bytes().partition(b"end_header")[0]
            if re.search(rb"element\s+face\s+[1-9]", header):
                mesh = Surface(*read_ply_mesh(path))
            else:
                points = read_ply_points(path)
        if points is None and mesh is not None:
            xyz = mesh.sample(100_000)
            points = PointCloud(xyz=xyz, rgb=np.full_like(xyz, 0.5))
        return None if points is None else cls(points, mesh)

    def score(self, xyz: np.ndarray, threshold: float) -> CloudScore:
        surface = self.points.xyz if self.mesh is None else self.mesh
        return score_cloud(xyz, surface, (threshold,), samples=self.points.xyz)


@dataclass(frozen=True)
class Start:
    """One start and what was measured of it; ``score`` and ``covered`` are None where the truth is not known."""

    label: str
    points: PointCloud
    seconds: float
    peak_mb: float
    score: CloudScore | None
    covered: float | None


# --------------------------------------------------------------------------------------------------------- the numbers
def configs_of(args: argparse.Namespace) -> dict[str, RunConfig]:
    """Label → config with its initializer and the settings of that."""
    found = {}
    for name in filter(None, args.inits.split(",")):
        layer = Layer("--inits", {"init.name": name}) if name in INITIALIZERS.names() else load_preset(name)
        found[name] = build_config(layer)
    for label, name, *settings in args.start:
        pairs = [setting.partition("=") for setting in settings]
        values = {f"init.{key}": value for key, _, value in pairs}
        found[label] = build_config(Layer("--start", values | {"init.name": name}))
    return found


def depth_views(scene: Scene):
    """Camera and depth of the training views that have one; 0 where the photo is transparent."""
    for view in scene.train:
        if view.photo.has_depth:
            depth, alpha = view.depth(), view.pixels().alpha
            yield view.camera, depth if alpha is None else np.where(alpha >= 128, depth, 0.0)


def measure(scene: Scene, label: str, init: Choice, truth: Truth | None, args: argparse.Namespace) -> Start:
    began = time.perf_counter()
    start = pipeline.initialize(scene, init, seed=args.seed)
    seconds = time.perf_counter() - began
    covered = coverage(start.points.xyz, depth_views(scene))
    covered = covered[np.isfinite(covered)]  # a depth map may know nothing
    return Start(
        label=label,
        points=start.points,
        seconds=seconds,
        peak_mb=start.peak_memory_mb,
        score=None if truth is None else truth.score(start.points.xyz, args.share * scene.extent),
        covered=float(covered.mean()) if len(covered) else None,
    )


def table_of(starts: list[Start], scene: Scene, share: float) -> Table:
    table = Table(title=f"{scene.root.name}: extent {scene.extent:.3g}, {share:.1%} of it {share * scene.extent:.3g}")
    table.add_column("start")
    names = ("points", "seconds", "peak MB", "median error", f"within {share:.1%}", "recall", "F", "coverage")
    for name in names:
        table.add_column(name, justify="right")
    for start in starts:
        cells = ["–"] * 4
        if start.score is not None:
            at = start.score.thresholds[0]
            error = start.score.accuracy_median
            cells = [
                f"{error:.4g} ({error / scene.extent:.2%})",
                f"{at.precision:.1%}",
                f"{at.recall:.1%}",
                f"{at.fscore:.3f}",
            ]
        covered = "–" if start.covered is None else f"{start.covered:.1%}"
        table.add_row(
            start.label, str(len(start.points)), f"{start.seconds:.1f}", f"{start.peak_mb:.0f}", *cells, covered
        )
    return table


# --------------------------------------------------------------------------------------------------------- the picture
def beside(camera: Camera, scene: Scene) -> Camera:
    """``camera`` carried 30° about up, around the point of its axis that is as deep as what all cameras look at."""
    focus = transform(camera.cam_from_world, paths.focus([view.camera for view in scene.train])[None])[0]
    # Cameras that look outwards have their focus behind them.
    depth = focus[2] if focus[2] > 0 else scene.extent
    middle = np.array([[camera.width / 2, camera.height / 2]])
    pivot = unproject(camera.K, camera.world_from_cam, middle, np.array([depth]))[0]
    up = -np.mean([view.camera.cam_from_world[1, :3] for view in scene.train], axis=0)
    if np.linalg.norm(up) < 1e-6:  # cameras of all orientations
        up = -camera.cam_from_world[1, :3]
    up /= np.linalg.norm(up)
    # Rodrigues' formula.
    cross = np.array([[0, -up[2], up[1]], [up[2], 0, -up[0]], [-up[1], up[0], 0]])
    angle = np.deg2rad(ORBIT)
    turn = np.eye(4)
    turn[:3, :3] += np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    turn[:3, 3] = pivot - turn[:3, :3] @ pivot
    return replace(camera, cam_from_world=camera.cam_from_world @ np.linalg.inv(turn))


def nearest_photo(scene: Scene, camera: Camera) -> View:
    """The photo that was taken from the place nearest to ``camera``'s, of those that look the same way."""
    towards = camera.cam_from_world[2, :3]
    alike = [view for view in scene.views if view.camera.cam_from_world[2, :3] @ towards > 0.7] or list(scene.views)
    return min(alike, key=lambda view: np.linalg.norm(view.camera.center - camera.center))


def visible_colours(points: PointCloud, camera: Camera) -> PointCloud:
    """Points of a single colour, which would be a silhouette, in the colours of their normals or their depth."""
    if len(points) == 0 or np.ptp(points.rgb, axis=0).max() > 0:
        return points
    if points.normal is not None:
        return replace(points, rgb=0.5 + 0.5 * points.normal)
    z = transform(camera.cam_from_world, points.xyz.astype(np.float64))[:, 2]
    low, high = np.percentile(z, [2, 98])
    shade = 1.0 - 0.8 * np.clip((z - low) / max(high - low, 1e-12), 0, 1)
    return replace(points, rgb=np.repeat(shade[:, None], 3, axis=1))


def picture(scene: Scene, view: View, starts: list[Start], truth: Truth | None) -> np.ndarray:
    clouds = {f"{start.label}: {len(start.points)} points": start.points for start in starts}
    if truth is not None:
        clouds = {f"truth: {len(truth.points)} points": truth.points} | clouds
    side = beside(view.camera, scene)
    neighbour = nearest_photo(scene, side)
    rows = []
    for camera, photo, title in (
        (view.camera, view, f"from {view.name} (training view)"),
        (side, neighbour, f"from {ORBIT:.0f} degrees beside it; the photo is the nearest one, {neighbour.name}"),
    ):
        pixels = photo.pixels()
        shown = pixels.rgb if pixels.alpha is None else np.where(pixels.alpha[..., None] >= 128, pixels.rgb, 24)
        drawn = [draw_points(visible_colours(points, camera), camera) for points in clouds.values()]
        rows.append(SheetRow(title, "", (shown.astype(np.uint8), *drawn)))
    return contact_sheet(rows, ("photo", *clouds), f"{scene.root.name}: the starts, before any training", side=SIDE)


# ------------------------------------------------------------------------------------------------------------- the run
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scene", type=Path)
    parser.add_argument("--inits", default="sfm,random", help="initializers or presets, with commas between them")
    parser.add_argument("--start", nargs="+", action="append", default=[], metavar=("LABEL NAME", "KEY=VALUE"))
    parser.add_argument("--max-size", type=int, default=800)
    parser.add_argument("--gt", type=Path, action="append", default=[], help="PLY: mesh, points, or one of each")
    parser.add_argument("--share", type=float, default=0.01, help="of the scene's extent: the threshold of the scores")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--view", help="name of the photo of the picture; the middle training view by default")
    parser.add_argument("--picture", type=Path, default=Path("starts.png"))
    parser.add_argument("--json", type=Path, help="the numbers, with all digits")
    parser.add_argument("--work", type=Path, help="folder that keeps the poses and SfM points for the next call")
    args = parser.parse_args()
    if any(len(start) < 2 for start in args.start):
        parser.error("--start takes a LABEL and the NAME of an initializer")
    for path in args.gt:
        if not path.is_file():
            parser.error(f"--gt {path}: no such file")
    console = Console(width=140)
    environment.use_threads()
    try:
        configs, truth = configs_of(args), Truth.read(args.gt)
        if not configs:
            parser.error("nothing to start from: give --inits or --start")
        images = pipeline.read(args.scene, max_size=args.max_size)
        # Points are triangulated where one start needs them, and then all have them.
        neediest = max(configs.values(), key=lambda config: needs_points(config.init.name, config.init.settings))
        poser = pipeline.resolve_poser(neediest, images)
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            scene = pipeline.pose(images, poser, work_dir=args.work or Path(folder))
            seconds = time.perf_counter() - began
            console.print(f"{len(scene.views)} photos posed by '{scene.poser}' in {seconds:.1f} s")
        view = next((view for view in scene.views if view.name == args.view), scene.train[len(scene.train) // 2])
        if args.view not in (None, view.name):
            parser.error(f"--view {args.view}: no such photo; for example {view.name}")
    except SplatinitError as error:
        console.print(str(error), markup=False)
        return 2
    starts, failed = [], 0
    for label, config in configs.items():
        try:
            starts.append(measure(scene, label, config.init, truth, args))
        except SplatinitError as error:  # the other starts are still worth seeing
            console.print(f"{label}: {error}", markup=False)
            failed += 1
    if starts:
        console.print(table_of(starts, scene, args.share))
        args.picture.parent.mkdir(parents=True, exist_ok=True)
        write_png(args.picture, picture(scene, view, starts, truth))
        console.print(f"picture: {args.picture}")
    if args.json is not None:
        rows = [
            {
                "start": start.label,
                "points": len(start.points),
                "seconds": start.seconds,
                "peak_memory_mb": start.peak_mb,
                "coverage": start.covered,
                "score": None if start.score is None else start.score.to_json(),
            }
            for start in starts
        ]
        args.json.write_text(json.dumps({"extent": scene.extent, "share": args.share, "starts": rows}, indent=1))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
