"""What the page shows of each scene: its curves, its test views in pictures, and its point clouds.

Small pictures and some points are in the page, of bounded size in all however many runs there are; pictures at full
size and whole clouds lie beside it, and are linked.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

from . import curves
from .provenance import failures
from .tables import Results
from .thumbnails import first_look, small_picture, start_cloud, trained_cloud

PICTURES = 480  # in the page altogether, at most 8 MB; more are shown at full size from their files
VIEWS = 3  # of a scene with a picture in the page
POINTS = 400_000  # in the page altogether: 5 MB
POINTS_OF_ONE = 8_000
_SCORES = ("psnr", "ssim", "lpips_alex", "lpips_vgg")


class Sections:
    """The scenes of a page that lies in the folder ``at``."""

    def __init__(self, results: Results, at: Path) -> None:
        self._results, self._at = results, at
        self._labels = {
            scene: [label for label in results.labels if results.shown(scene, label)] for scene in results.scenes
        }
        variants = sum(map(len, self._labels.values()))
        self._points = min(POINTS_OF_ONE, POINTS // max(1, 2 * variants))
        per_view = sum(1 + 2 * len(labels) for labels in self._labels.values()) or 1
        self._views = max(1, min(VIEWS, PICTURES // per_view))
        self._left = PICTURES

    def all(self) -> list[dict[str, Any]]:
        """One table a scene, of which the template takes text, and ``data`` goes to the page's scripts."""
        return [self._section(scene) for scene in self._results.scenes]

    def _section(self, scene: str) -> dict[str, Any]:
        told = curves.of_scene(self._results, scene)
        pictures, clouds = self._pictures(scene), self._clouds(scene)
        plot = {"curves": told["curves"], "preview": told["preview"]} if told else None
        return {
            "name": scene,
            "failed": failures([row for row in self._results.failed if row["scene"] == scene], named=False),
            "mixed": scene in self._results.mixed,
            "curves": told,
            "pictures": bool(pictures["views"]),
            "clouds": clouds is not None,
            "data": {"labels": self._results.labels, "plot": plot, "pictures": pictures, "clouds": clouds},
        }

    # ------------------------------------------------------------------------------------------------------- pictures
    def _pictures(self, scene: str) -> dict[str, Any]:
        """Of each test view the truth, and of each variant its render and error map; the first views carry small
        pictures in the page."""
        shown = {label: self._results.shown(scene, label) for label in self._labels[scene]}
        rows = {
            label: {str(view["view"]): view for view in self._results.views.get(run["run"], ())}
            for label, run in shown.items()
        }
        names = sorted({name for each in rows.values() for name in each})
        # Evenly among the views, so that they are not all of one side; these stand first in the list.
        count = min(self._views, len(names))
        picked = {names[(2 * k + 1) * len(names) // (2 * count)] for k in range(count)}
        views = []
        for name in sorted(names, key=lambda name: (name not in picked, name)):
            found = {label: rows[label][name] for label in shown if name in rows[label]}
            shots = [self._truth(found, name in picked)]
            for label, view in found.items():
                numbers = {key: view[key] for key in _SCORES if view.get(key) is not None}
                shots.append(
                    {
                        "label": label,
                        "image": self._picture(self._results.inside(view.get("render")), name in picked),
                        "error": self._picture(self._results.inside(view.get("error")), name in picked),
                        **numbers,
                    }
                )
            views.append({"name": name, "shots": shots})
        return {"views": views, "seeds": {label: run["seed"] for label, run in shown.items()}}

    def _truth(self, found: dict[str, Any], inside: bool) -> dict[str, Any]:
        paths = (self._results.inside(view.get("truth")) for view in found.values())
        return {"label": "truth", "image": self._picture(next(filter(None, paths), None), inside), "error": None}

    def _picture(self, path: Path | None, inside: bool) -> dict[str, str] | None:
        if path is None:
            return None
        small = small_picture(path) if inside and self._left > 0 else None
        self._left -= small is not None
        return {"full": self.link(path)} | ({"small": small} if small else {})

    # --------------------------------------------------------------------------------------------------------- clouds
    def _clouds(self, scene: str) -> dict[str, Any] | None:
        """Start and trained result of each variant, and where the viewer begins."""
        variants, look = [], None
        for label in self._labels[scene]:
            row = self._results.shown(scene, label)
            files = {"start": self._results.of(row, "init/points.ply"), "trained": self._results.of(row, "splat.ply")}
            start = start_cloud(files["start"], self._points) if files["start"] else None
            trained = trained_cloud(files["trained"], self._points) if files["trained"] else None
            if start is None and trained is None:
                continue
            if look is None:
                model = self._results.folder / row["folder"] / "scene" / "sparse" / "0"
                look = first_look(model, trained or start)
            links = {name: self.link(path) for name, path in files.items() if path}
            variants.append({"label": label, "seed": row["seed"], "start": start, "trained": trained, "links": links})
        return {"variants": variants, "look": look} if variants else None

    def link(self, path: Path) -> str:
        """The file as seen from the page."""
        return quote(Path(os.path.relpath(path, self._at)).as_posix())
