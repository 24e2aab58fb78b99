"""The four tables of a sweep (results/*.parquet), read for its page."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError, FormatError, MissingExtra

Row = dict[str, Any]
# What the page cannot do without; other columns may be absent, as in results of another version.
_NEEDED = {
    "runs": ("run", "scene", "label", "seed", "status"),
    "views": ("run", "view"),
    "steps": ("run", "step"),
    "starts": ("run",),
}
# What the page shows of a run where it is there.
_SHOWN = ("error", "psnr", "gaussians", "seconds_train", "started", "folder", "settings")
_PACKAGES = ("pyarrow", "jinja2")


@dataclass(frozen=True)
class Results:
    """A sweep's tables as rows; numbers that are not finite are None.

    ``runs`` has one row per (scene, label, seed); the other tables are by run.
    """

    folder: Path
    runs: list[Row]
    views: dict[str, list[Row]]
    steps: dict[str, list[Row]]
    starts: dict[str, Row]

    def inside(self, name: str | None) -> Path | None:
        """The existing file that a table names, or None: a table cannot make the page show files from elsewhere."""
        if not name:
            return None
        try:
            path = (self.folder / name).resolve()
            return path if path.is_relative_to(self.folder.resolve()) and path.is_file() else None
        except (OSError, ValueError):  # a name too long, or with a zero byte: no file of ours
            return None


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
        ConfigError: there is no such folder, or it has no results.
        FormatError: a table is damaged or lacks a column.
    """
    sweep = Path(sweep)
    if not sweep.is_dir():
        raise ConfigError(
            f"{sweep}: no such folder; expected the folder of a sweep.",
            hint="Name the folder that `splatinit sweep` or `splatinit compare` made.",
            path=sweep,
        )
    path = sweep / "results" / "runs.parquet"
    if not path.is_file():
        raise ConfigError(
            f"{sweep} has no results: {path.relative_to(sweep)} is not there.",
            hint="Name the folder of a sweep, and run the sweep first.",
            path=sweep,
        )
    runs = _rows(path, "runs")
    if not runs:
        raise ConfigError(
            f"{sweep} has no results yet: {path.relative_to(sweep)} has no rows.",
            hint="Run the sweep first.",
            path=sweep,
        )
    tables = {}
    for name in ("views", "steps", "starts"):
        path = sweep / "results" / f"{name}.parquet"
        tables[name] = _rows(path, name) if path.is_file() else []
    runs = [{**dict.fromkeys(_SHOWN), **row} for row in runs]
    runs.sort(key=lambda row: (str(row["scene"]), str(row["label"]), row["seed"] or 0))
    return Results(
        sweep,
        runs,
        _by_run(tables["views"]),
        {run: sorted(rows, key=lambda row: row["step"] or 0) for run, rows in _by_run(tables["steps"]).items()},
        {row["run"]: row for row in tables["starts"]},
    )


def _rows(path: Path, name: str) -> list[Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise FormatError(
            f"{path}: not a readable Parquet file ({str(error).splitlines()[0]}).",
            hint="Half-written tables are made again by running the sweep again: it skips what is done.",
            path=path,
        ) from error
    missing = [column for column in _NEEDED[name] if column not in table.column_names]
    if missing:
        raise FormatError(
            f"{path}: the columns {', '.join(missing)} are missing; expected at least {', '.join(_NEEDED[name])}.",
            hint="These are no results of a sweep, or those of another version of splatinit.",
            path=path,
        )
    return [{key: _told(value) for key, value in row.items()} for row in table.to_pylist()]


def _told(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _by_run(rows: list[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["run"], []).append(row)
    return found
