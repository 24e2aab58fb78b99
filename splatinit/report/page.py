"""The page of a sweep: one HTML file that opens from disk without a network.

Everything that it says stands in its templates/ and in the sweep's tables. Names in these tables come from file names
and configs that others wrote: Jinja2 escapes them all, data for the scripts is JSON that cannot close its element, and
the page's content security policy runs no script but the three that are hashed in it, and loads nothing from anywhere
else.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import math
import os
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..io.atomic import write_text
from . import statistics
from .statistics import Scores
from .tables import Results, Row, read_results, require_packages
from .thumbnails import first_look, small_picture, start_cloud, trained_cloud

_HERE = Path(__file__).parent
PICTURES = 480  # in the page altogether; more are shown at full size from their files
VIEWS = 3  # of a scene with a picture in the page
POINTS = 400_000  # in the page altogether: 5 MB
POINTS_OF_ONE = 8_000
_SENTENCES = 6  # before the fold
_QUALITIES = {
    "points": "number of points",
    "filled": "share of the training views with points",
    "coverage": "coverage of training views",
    "photoconsistency": "photometric difference",
    "accuracy": "accuracy",
    "completeness": "completeness",
    "fscore": "F-score",
}
_RULERS = ("renders_hash", "truth_hash")
_MACHINE = ("splatinit", "git", "torch", "backend", "machine", "cores", "threads")


@dataclass(frozen=True)
class Column:
    """A column of the summary: its key in runs.parquet, how it is told, and what is best in it."""

    key: str
    title: str
    digits: int
    best: Callable[..., float] | None = None
    unit: str = ""


_COLUMNS = (
    Column("psnr", "PSNR", 2, max, "dB"),
    Column("ssim", "SSIM", 4, max),
    Column("lpips_alex", "LPIPS alex", 4, min),
    Column("lpips_vgg", "LPIPS vgg", 4, min),
    Column("points", "points", 0),
    Column("gaussians", "Gaussians", 0, min),
    Column("seconds_init", "init", 1, min, "s"),
    Column("seconds_train", "training", 1, min, "s"),
    Column("peak_memory_mb", "peak memory", 0, min, "MB"),
)


@dataclass(frozen=True)
class Written:
    """A report that was made: where it is, how large (bytes), of how many runs, and how long it took."""

    path: Path
    size: int
    runs: int
    failed: int
    seconds: float


def write_report(sweep: Path, out: Path | None = None) -> Written:
    """Make the page of the sweep in the folder ``sweep``: ``out``, or its report.html.

    Pictures at full size are linked from the run folders, by paths relative to the page.

    Raises:
        MissingExtra: a package is absent (before anything is read).
        ConfigError, FormatError: no results, or damaged ones.
        OutputError: the page cannot be written.
    """
    require_packages()
    begin = time.monotonic()
    results = read_results(sweep)
    out = Path(out) if out is not None else Path(sweep) / "report.html"
    text = _Page(results, out).text()
    write_text(out, text)
    failed = sum(row["status"] != "done" for row in results.runs)
    return Written(out, len(text.encode()), len(results.runs), failed, time.monotonic() - begin)


class _Page:
    """What the templates show, gathered from the tables."""

    def __init__(self, results: Results, out: Path) -> None:
        self.results = results
        self.at = out.resolve().parent
        self.labels = _ordered({str(row["label"]) for row in results.runs})
        self.scenes = sorted({str(row["scene"]) for row in results.runs})
        self.seeds = sorted({row["seed"] for row in results.runs})
        self.by_cell = {_cell(row): row for row in results.runs}
        self.shown = {
            (scene, label): row for scene in self.scenes for label in self.labels if (row := self._shown(scene, label))
        }

    def scores(self, key: str, table: Mapping[str, Row] | None = None) -> Scores:
        """One column of the finished runs, or of another table by run."""
        planned = frozenset(itertools.product(self.scenes, self.labels, self.seeds))
        cells = {}
        for cell, row in self.by_cell.items():
            source = row if table is None else table.get(row["run"], {})
            cells[cell] = source.get(key) if row["status"] == "done" else None
        return Scores(cells, planned)

    def text(self) -> str:
        """The whole page."""
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
        from markupsafe import Markup

        environment = Environment(
            loader=FileSystemLoader(_HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )
        environment.filters |= {"number": _number, "compact": _compact}
        assets = (_asset("assets/plotly.min.js"), _asset("assets/viewer.min.js"), _asset("templates/page.js"))
        scripts = [_script(each) for each in assets]
        hashes = [base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in scripts]
        return environment.get_template("report.html.j2").render(
            title=str(self.results.runs[0].get("sweep") or self.results.folder.resolve().name),
            scripts=[Markup(each) for each in scripts],
            policy=" ".join(f"'sha256-{each}'" for each in hashes),
            style=Markup(_asset("templates/report.css")),
            data=lambda value: Markup(_json(value)),
            labels=self.labels,
            scenes=self.scenes,
            seeds=self.seeds,
            columns=self._columns(),
            summary=self._summary(),
            sentences=self._sentences(),
            shown_sentences=_SENTENCES,
            failures=[row for row in self.results.runs if row["status"] != "done"],
            absent=self._absent(),
            per_scene=self._per_scene(),
            sections=self._sections(),
            overview={"labels": self.labels, "runs": self._dots()},
            starts=self._starts(),
            predictions=self._predictions(),
            provenance=self._provenance(),
            runs=[self._run(row) for row in self.results.runs],
            made=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        )

    # -------------------------------------------------------------------------------------------------------- tables
    def _columns(self) -> list[Column]:
        return [each for each in _COLUMNS if any(row.get(each.key) is not None for row in self.results.runs)]

    def _summary(self) -> list[dict[str, Any]]:
        """One row a variant: mean and spread of each column, whether it is the best, mean rank and missing runs."""
        ranked, scenes = statistics.mean_ranks(self.scores("psnr"), self.labels)
        table = []
        for label in self.labels:
            cells = [statistics.summarize(self.scores(column.key), label) for column in self._columns()]
            psnr = statistics.summarize(self.scores("psnr"), label)
            table.append({"label": label, "cells": cells, "rank": ranked[label], "psnr": psnr, "best": []})
        for k, column in enumerate(self._columns()):
            # Means over other scenes are no competitors.
            whole = max(row["cells"][k].scenes for row in table)
            values = [
                round(row["cells"][k].mean, column.digits) if row["cells"][k].scenes == whole else math.nan
                for row in table
            ]
            finite = [value for value in values if math.isfinite(value)]
            for row, value in zip(table, values, strict=True):
                best = column.best is not None and len(finite) > 1 and value == column.best(finite)
                row["best"].append(best and len(set(finite)) > 1)
        for row in table:
            row["ranked"] = scenes
        return table

    def _per_scene(self) -> list[dict[str, Any]]:
        """One row a scene: PSNR of each variant, the best of them marked."""
        scores = self.scores("psnr")
        table = []
        for scene in self.scenes:
            cells = [statistics.summarize(scores, label, [scene]) for label in self.labels]
            finite = [round(cell.mean, 2) for cell in cells if math.isfinite(cell.mean)]
            best = [len(set(finite)) > 1 and round(cell.mean, 2) == max(finite) for cell in cells]
            table.append({"scene": scene, "cells": list(zip(cells, best, strict=True))})
        return table

    def _sentences(self) -> list[dict[str, Any]]:
        """Every pair of variants in words, those with the best first."""
        psnr, gaussians = self.scores("psnr"), self.scores("gaussians")
        means = {label: statistics.summarize(psnr, label).mean for label in self.labels}
        order = sorted(self.labels, key=lambda label: -means[label] if math.isfinite(means[label]) else math.inf)
        told = []
        for a, b in itertools.combinations(order, 2):
            found = statistics.compare(psnr, a, b)
            share = statistics.ratio(gaussians, a, b)
            text = statistics.sentence(found, gaussians=share, why=self._why(a, b))
            told.append({"text": text, "separated": found.separated, "scenes": sorted(found.scenes.items())})
        return told

    def _why(self, *labels: str) -> Callable[[str, int], str]:
        def why(scene: str, seed: int) -> str:
            rows = {label: self.by_cell.get((scene, label, seed)) for label in labels}
            told = [f"{label} {'has not run' if row is None else 'failed'}" for label, row in rows.items() if lost(row)]
            return " and ".join(told)

        def lost(row: Row | None) -> bool:
            return row is None or row["status"] != "done" or row.get("psnr") is None

        return why

    def _absent(self) -> list[str]:
        wanted = itertools.product(self.scenes, self.labels, self.seeds)
        return [
            f"{scene} · {label} · seed {seed}"
            for scene, label, seed in wanted
            if (scene, label, seed) not in self.by_cell
        ]

    def _starts(self) -> list[dict[str, Any]]:
        """One row a (scene, variant): the qualities of its start, averaged over seeds, and the final PSNR."""
        qualities = self._known_qualities()
        table = []
        for scene, label in itertools.product(self.scenes, self.labels):
            cells = [statistics.summarize(each, label, [scene]).mean for each in qualities.values()]
            final = statistics.summarize(self.scores("psnr"), label, [scene]).mean
            if any(math.isfinite(value) for value in cells):
                table.append({"scene": scene, "label": label, "cells": cells, "psnr": final})
        return table

    def _known_qualities(self) -> dict[str, Scores]:
        known = {key: self.scores(key, self.results.starts) for key in _QUALITIES}
        return {key: each for key, each in known.items() if any(value is not None for value in each.cells.values())}

    def _predictions(self) -> list[dict[str, Any]]:
        final = self.scores("psnr")
        return [
            {"title": _QUALITIES[key], "found": statistics.predict(quality, final)}
            for key, quality in self._known_qualities().items()
        ]

    def _provenance(self) -> dict[str, Any]:
        """What all runs share, what differs between them, and whether they were measured with one ruler."""
        values = {
            key: sorted({str(row.get(key)) for row in self.results.runs if row.get(key) is not None})
            for key in _MACHINE
        }
        truths: dict[str, set[str]] = {}
        for row in self.results.runs:
            if row.get("truth_hash"):
                truths.setdefault(str(row["scene"]), set()).add(str(row["truth_hash"]))
        mixed = sorted(scene for scene, found in truths.items() if len(found) > 1)
        return {"values": {key: found for key, found in values.items() if found}, "mixed": mixed}

    def _run(self, row: Row) -> dict[str, Any]:
        return {
            "row": row,
            "command": self._command(row),
            "hashes": {key: row[key] for key in _RULERS if row.get(key)},
            "link": self._link(self.results.inside(_joined(row, "splat.ply"))),
        }

    def _command(self, row: Row) -> str:
        """The command that does this run again, in the sweep's folder."""
        scene = str(row["scene"])
        env = self.results.inside(_joined(row, "env.json"))
        if env is not None:
            with suppress(OSError, ValueError, KeyError, TypeError):
                scene = str(json.loads(env.read_text(encoding="utf-8"))["inputs"]["scene"])
        config = self.results.inside(_joined(row, "config.yaml"))
        words = ["splatinit", "run", scene]
        words += ["--config", f"{row['folder']}/config.yaml"] if config else _settings(row.get("settings"))
        return shlex.join([*words, "--out", f"again/{row['run']}"])

    # --------------------------------------------------------------------------------------------------------- scenes
    def _shown(self, scene: str, label: str) -> Row | None:
        """The run whose pictures and points stand for a variant: that of its lowest seed which is done."""
        done = (self.by_cell.get((scene, label, seed)) for seed in self.seeds)
        return next((row for row in done if row is not None and row["status"] == "done"), None)

    def _sections(self) -> list[dict[str, Any]]:
        """Of each scene: what its scripts need, as one JSON element of the page."""
        limit = min(POINTS_OF_ONE, POINTS // max(1, 2 * len(self.shown)))
        per_view = sum(2 + 2 * len(self._labels_of(scene)) for scene in self.scenes) or 1
        views = max(1, min(VIEWS, PICTURES // per_view))
        budget = [PICTURES]
        sections = []
        for scene in self.scenes:
            sections.append(
                {
                    "name": scene,
                    "lost": [row for row in self.results.runs if row["scene"] == scene and row["status"] != "done"],
                    "curves": self._curves(scene),
                    "reached": self._reached(scene),
                    "pictures": self._pictures(scene, views, budget),
                    "clouds": self._clouds(scene, limit),
                }
            )
        return sections

    def _labels_of(self, scene: str) -> list[str]:
        return [label for label in self.labels if (scene, label) in self.shown]

    def _dots(self) -> list[dict[str, Any]]:
        return [
            {key: row.get(key) for key in ("scene", "label", "seed", "psnr", "gaussians", "seconds_train")}
            for row in self.results.runs
            if row["status"] == "done" and row.get("psnr") is not None
        ]

    def _curves(self, scene: str) -> list[dict[str, Any]]:
        """Quality over training, a curve for each run; of all test views, or of the preview where there is no more."""
        curves = []
        for row in self.results.runs:
            steps = self.results.steps.get(row["run"], ()) if row["scene"] == scene else ()
            whole = [each for each in steps if each.get("psnr") is not None]
            used = whole if len(whole) > 2 else [each for each in steps if each.get("preview_psnr") is not None]
            if used:
                key = "psnr" if used is whole else "preview_psnr"
                curves.append(
                    {
                        "label": str(row["label"]),
                        "seed": row["seed"],
                        "preview": key != "psnr",
                        "psnr": [round(each[key], 3) for each in used],
                        **{name: [each.get(name) for each in used] for name in ("step", "seconds", "gaussians")},
                    }
                )
        return curves

    def _reached(self, scene: str) -> dict[str, Any] | None:
        """Seconds of training until each variant reaches what all of them reach in the end, mean over its seeds."""
        curves = [curve for curve in self._curves(scene) if all(value is not None for value in curve["seconds"])]
        if len({curve["label"] for curve in curves}) < 2 or len({curve["preview"] for curve in curves}) > 1:
            return None
        level = math.floor(10 * min(max(curve["psnr"]) for curve in curves)) / 10
        rows: dict[str, list[tuple[float, float]]] = {}
        for curve in curves:
            at = next(k for k, value in enumerate(curve["psnr"]) if value >= level)
            rows.setdefault(curve["label"], []).append((curve["seconds"][at], curve["step"][at]))
        table = [
            (label, *(sum(each) / len(each) for each in zip(*rows[label], strict=True)))
            for label in self.labels
            if label in rows
        ]
        return {"level": level, "preview": curves[0]["preview"], "rows": table}

    def _pictures(self, scene: str, inside: int, budget: list[int]) -> dict[str, Any]:
        """Of each test view the truth, and of each variant its render and error map; the first ``inside`` views carry
        small pictures in the page."""
        labels = self._labels_of(scene)
        rows = {
            label: {row["view"]: row for row in self.results.views.get(self.shown[scene, label]["run"], ())}
            for label in labels
        }
        names = sorted({name for each in rows.values() for name in each})
        # Evenly among the views, so that they are not all of one side; these stand first in the list.
        picked = {names[(2 * k + 1) * len(names) // (2 * inside)] for k in range(inside)} if names else set()
        views = []
        for name in sorted(names, key=lambda name: (name not in picked, name)):
            found = {label: rows[label][name] for label in labels if name in rows[label]}
            truth = next((path for row in found.values() if (path := self.results.inside(row.get("truth")))), None)
            images = {"truth": (truth, None, {})}
            for label, row in found.items():
                numbers = {key: row.get(key) for key in ("psnr", "ssim", "lpips_alex", "lpips_vgg")}
                paths = (self.results.inside(row.get(key)) for key in ("render", "error"))
                images[label] = (*paths, {key: value for key, value in numbers.items() if value is not None})
            shots = [
                {
                    "label": label,
                    "image": self._picture(picture, name in picked, budget),
                    "error": self._picture(error, name in picked, budget),
                    **numbers,
                }
                for label, (picture, error, numbers) in images.items()
            ]
            views.append({"name": name, "shots": shots})
        return {"views": views, "seeds": {label: self.shown[scene, label]["seed"] for label in labels}}

    def _picture(self, path: Path | None, inside: bool, budget: list[int]) -> dict[str, str] | None:
        if path is None:
            return None
        small = small_picture(path) if inside and budget[0] > 0 else None
        budget[0] -= small is not None
        return {"full": self._link(path)} | ({"small": small} if small else {})

    def _clouds(self, scene: str, limit: int) -> dict[str, Any] | None:
        """Start and trained result of each variant, and where the viewer begins."""
        variants, look = [], None
        for label in self._labels_of(scene):
            row = self.shown[scene, label]
            start_file = self.results.inside(_joined(row, "init/points.ply"))
            trained_file = self.results.inside(_joined(row, "splat.ply"))
            start = start_cloud(start_file, limit) if start_file else None
            trained = trained_cloud(trained_file, limit) if trained_file else None
            if start is None and trained is None:
                continue
            if look is None:
                model = self.results.folder / str(row["folder"]) / "scene" / "sparse" / "0"
                look = first_look(model, trained or start)
            links = {"start": self._link(start_file), "trained": self._link(trained_file)}
            variants.append({"label": label, "seed": row["seed"], "start": start, "trained": trained, "links": links})
        return {"variants": variants, "look": look} if variants else None

    def _link(self, path: Path | None) -> str | None:
        """The file as seen from the page."""
        return None if path is None else quote(Path(os.path.relpath(path, self.at)).as_posix())


def _cell(row: Row) -> tuple[str, str, int]:
    return str(row["scene"]), str(row["label"]), row["seed"]


def _joined(row: Row, name: str) -> str | None:
    return f"{row['folder']}/{name}" if row.get("folder") else None


def _ordered(labels: set[str]) -> list[str]:
    """sfm first, where it is among them: it is what the others are held against."""
    return sorted(labels, key=lambda label: (label != "sfm", label))


def _settings(settings: Any) -> list[str]:
    """A frozen config as the words of a command line."""
    try:
        tree = json.loads(settings or "{}")
    except (TypeError, ValueError):
        return []
    words = []

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, each in value.items():
                walk(f"{prefix}.{key}" if prefix else str(key), each)
        elif isinstance(value, Sequence) and not isinstance(value, str):
            words.append(f"{prefix}={','.join(map(str, value))}")
        else:
            words.append(f"{prefix}={value if isinstance(value, str) else json.dumps(value)}")

    walk("", tree)
    return words


def _number(value: float | None, digits: int = 2) -> str:
    """Fixed digits with thin spaces between thousands; a dash for what is not known."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,.{digits}f}".replace(",", "\u202f").replace("-", "−")


def _compact(value: float | None) -> str:
    """Four significant digits, for numbers of any size."""
    if value is None or not math.isfinite(value):
        return "–"
    return _number(value, 0) if abs(value) >= 1000 else f"{value:.4g}".replace("-", "−")


def _json(value: Any) -> str:
    """JSON that can stand in a script element whatever its strings are: nothing in it can close the element."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _asset(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _script(text: str) -> str:
    """A script as it can stand in a page: nothing in it ends it, and its line ends are those that browsers hash."""
    return text.replace("</script", "<\\/script").replace("\r\n", "\n")
