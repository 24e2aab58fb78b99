"""The four tables of a sweep (results/*.parquet) and its plan, read for its page."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import ConfigError, FormatError, MissingExtra
from .statistics import Scores

Row = dict[str, Any]
Cell = tuple[str, str, int]  # scene, variant, seed
# The columns that the page reads, and of which kind they are.
_KINDS = {
    "runs": {
        **dict.fromkeys(("run", "scene", "label", "status", "error", "folder", "settings", "started"), "text"),
        **dict.fromkeys(("renders_hash", "truth_hash", "splatinit", "git", "torch", "backend", "machine"), "text"),
        "seed": "whole numbers",
        **dict.fromkeys(("psnr", "ssim", "lpips_alex", "lpips_vgg", "points", "gaussians"), "numbers"),
        **dict.fromkeys(("seconds_pose", "seconds_init", "seconds_train", "peak_memory_mb"), "numbers"),
    },
    "views": {
        **dict.fromkeys(("run", "view", "render", "truth", "error"), "text"),
        **dict.fromkeys(("psnr", "ssim", "lpips_alex", "lpips_vgg"), "numbers"),
    },
    "steps": {"run": "text", "step": "whole numbers"}
    | dict.fromkeys(("seconds", "psnr", "preview_psnr", "gaussians"), "numbers"),
    "starts": {"run": "text", "points": "numbers"}
    | dict.fromkeys(("filled", "coverage", "photoconsistency", "accuracy", "completeness", "fscore"), "numbers"),
}
# What it cannot do without, and what every row must have; others may be absent, as in another version.
_NEEDED = {
    "runs": ("run", "scene", "label", "seed", "status", "psnr", "gaussians"),
    "views": ("run", "view"),
    "steps": ("run", "step"),
    "starts": ("run",),
}
_FULL = ("run", "scene", "label", "seed", "status", "view", "step")
# What the page shows of a run where it is there.
_SHOWN = ("error", "points", "seconds_pose", "seconds_init", "seconds_train", "started", "folder", "settings")
_PACKAGES = ("pyarrow", "jinja2")


@dataclass(frozen=True)
class Results:
    """A sweep's tables as rows; numbers that are not finite are None.

    ``runs`` has one row per (scene, label, seed); the other tables are by run.

    Attributes:
        planned: every (scene, variant, seed) that the sweep means to have.
        paths: scene → where it lies, as the sweep file says it.
    """

    folder: Path
    runs: list[Row]
    views: dict[str, list[Row]]
    steps: dict[str, list[Row]]
    starts: dict[str, Row]
    planned: frozenset[Cell] = field(default_factory=frozenset)
    paths: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def labels(self) -> list[str]:
        """The variants, sfm first where it is among them: it is what the others are held against."""
        return sorted({str(row["label"]) for row in self.runs}, key=lambda label: (label != "sfm", label))

    @cached_property
    def scenes(self) -> list[str]:
        return sorted({str(row["scene"]) for row in self.runs})

    @cached_property
    def seeds(self) -> list[int]:
        return sorted({row["seed"] for row in self.runs})

    @cached_property
    def by_cell(self) -> dict[Cell, Row]:
        return {cell(row): row for row in self.runs}

    @cached_property
    def failed(self) -> list[Row]:
        return [row for row in self.runs if row["status"] != "done"]

    @cached_property
    def absent(self) -> list[Cell]:
        """Planned, and neither done nor failed yet."""
        return sorted(self.planned - set(self.by_cell))

    @cached_property
    def mixed(self) -> list[str]:
        """Scenes whose runs were scored against different truth images: their scores cannot be compared."""
        truths: dict[str, set[str]] = {}
        for row in self.runs:
            if row["status"] == "done" and row.get("truth_hash"):
                truths.setdefault(str(row["scene"]), set()).add(str(row["truth_hash"]))
        return sorted(scene for scene, found in truths.items() if len(found) > 1)

    def scores(self, key: str, table: Mapping[str, Row] | None = None) -> Scores:
        """One column of the finished runs, or of another table by run; scenes of two rulers are left out."""
        cells = {}
        for place, row in self.by_cell.items():
            source = row if table is None else table.get(row["run"], {})
            if place[0] not in self.mixed:
                cells[place] = source.get(key) if row["status"] == "done" else None
        return Scores(cells, frozenset(place for place in self.planned if place[0] not in self.mixed))

    def shown(self, scene: str, label: str) -> Row | None:
        """The run whose pictures and points stand for a variant: that of its lowest seed which is done."""
        done = (self.by_cell.get((scene, label, seed)) for seed in self.seeds)
        return next((row for row in done if row is not None and row["status"] == "done"), None)

    def of(self, row: Row, name: str) -> Path | None:
        """A file of the run's folder, by its name in there; None where it is not there."""
        return self.inside(f"{row['folder']}/{name}" if row["folder"] else None)

    def inside(self, name: str | None) -> Path | None:
        """The existing file that a table names, or None: a table cannot make the page show files from elsewhere."""
        if not name:
            return None
        try:
            path = (self.folder / name).resolve()
            return path if path.is_relative_to(self._root) and path.is_file() else None
        except (OSError, ValueError):  # a name too long, or with a zero byte: no file of ours
            return None

    @cached_property
    def _root(self) -> Path:
        return self.folder.resolve()


def cell(row: Row) -> Cell:
    """Where a run stands in the sweep."""
    return str(row["scene"]), str(row["label"]), row["seed"]


def require_packages() -> None:
    """Raise MissingExtra where a package is absent that a report needs."""
    missing = [package for package in _PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        raise MissingExtra(
            f"A report needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed.",
            hint='Install it: pip install "splatinit[report]"',
            missing=missing,
        )


def read_results(sweep: Path) -> Results:
    """The tables of the sweep's folder ``sweep``.

    Raises:
        ConfigError: there is no such folder, it is no sweep, or no run of it is finished.
        FormatError: a table is damaged, or lacks a column, or has one of another kind.
    """
    sweep = Path(sweep)
    if not sweep.is_dir():
        raise ConfigError(
            f"{sweep}: {'not a folder' if sweep.exists() else 'no such folder'}; expected the folder of a sweep.",
            hint="Name the folder that `splatinit sweep` made, such as sweeps/tiny.",
            path=sweep,
        )
    path = sweep / "results" / "runs.parquet"
    if not path.is_file():
        raise ConfigError(
            f"{sweep} is no sweep with results: it has no {path.relative_to(sweep)}.",
            hint="Name the folder that `splatinit sweep` made, such as sweeps/tiny, and run the sweep first.",
            path=sweep,
        )
    runs = [{**dict.fromkeys(_SHOWN), **row} for row in _rows(path, "runs")]
    _require_finished(sweep, runs)
    tables = {}
    for name in ("views", "steps", "starts"):
        path = sweep / "results" / f"{name}.parquet"
        tables[name] = _rows(path, name) if path.is_file() else []
    runs.sort(key=cell)
    planned, paths = _plan(sweep / "plan.yaml")
    return Results(
        sweep,
        runs,
        _by_run(tables["views"]),
        {run: sorted(rows, key=lambda row: row["step"]) for run, rows in _by_run(tables["steps"]).items()},
        {row["run"]: row for row in tables["starts"]},
        planned or _meant(runs),
        paths,
    )


def _require_finished(sweep: Path, runs: list[Row]) -> None:
    if any(row["status"] == "done" for row in runs):
        return
    if not runs:
        raise ConfigError(
            f"{sweep} has no finished run: its table of runs has no rows.", hint="Run the sweep first.", path=sweep
        )
    first = runs[0]
    reason = (first["error"] or "no reason was kept").splitlines()[0]
    raise ConfigError(
        f"{sweep} has no finished run: {len(runs)} failed, the first ({first['scene']} {first['label']} seed "
        f"{first['seed']}) with: {reason}",
        hint="Mend that, and give the `splatinit sweep` command again with --retry-failed.",
        path=sweep,
    )


def _plan(path: Path) -> tuple[frozenset[Cell], dict[str, str]]:
    """The runs of plan.yaml and its scenes' paths; none where no plan can be read, which the page can do without."""
    import yaml

    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        rows = [(str(run["scene"]), str(run["label"]), run["config"]["seed"]) for run in tree["runs"]]
        paths = {str(run["scene"]): str(run["path"]) for run in tree["runs"]}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, LookupError, TypeError):
        return frozenset(), {}
    return frozenset(row for row in rows if type(row[2]) is int), paths


def _meant(runs: list[Row]) -> frozenset[Cell]:
    """Without a plan: every variant that a scene has, with every seed."""
    seeds = {row["seed"] for row in runs}
    return frozenset((scene, label, seed) for scene, label, _ in map(cell, runs) for seed in seeds)


def _rows(path: Path, name: str) -> list[Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise FormatError(
            f"{path}: not a readable Parquet file ({str(error).splitlines()[0]}).",
            hint="Delete it: `splatinit results` makes it anew from the run folders.",
            path=path,
        ) from error
    needed = _NEEDED[name]
    missing = [column for column in needed if column not in table.column_names]
    if missing:
        raise FormatError(
            f"{path}: the columns {', '.join(missing)} are missing; expected at least {', '.join(needed)}.",
            hint="Another version of splatinit wrote it; `splatinit results` makes it anew from the run folders.",
            path=path,
        )
    for column, kind in _KINDS[name].items():
        if column not in table.column_names:
            continue
        values = table.column(column)
        gaps = values.null_count > 0 and column in _FULL
        if gaps or not _is_of(values.type, kind):
            raise FormatError(
                f"{path}: the column {column} holds {values.type}{' with gaps' * gaps}; expected {kind}.",
                hint="Another version of splatinit wrote it; `splatinit results` makes it anew from the run folders.",
                path=path,
            )
    return [{key: _told(value) for key, value in row.items()} for row in table.to_pylist()]


def _is_of(arrow: Any, kind: str) -> bool:
    from pyarrow import types

    tests = {
        "text": (types.is_string, types.is_large_string),
        "whole numbers": (types.is_integer,),
        "numbers": (types.is_integer, types.is_floating),
    }
    return types.is_null(arrow) or any(test(arrow) for test in tests[kind])


def _told(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _by_run(rows: list[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["run"], []).append(row)
    return found
