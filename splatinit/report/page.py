"""The page of a sweep: one HTML file that opens from disk without a network.

What it says comes from the sweep's tables, by way of overview.py, curves.py, scenes.py and provenance.py; here it is
put into the templates. Names in the tables come from file names and configs that others wrote: Jinja2 escapes them
all, data for the scripts is JSON that cannot close its element, and the page's content security policy runs no script
but those that are hashed in it, and loads nothing from anywhere else.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..io.atomic import write_text
from . import curves, provenance
from .overview import Overview, dots
from .scenes import Sections
from .tables import Results, Row, read_results, require_packages

_HERE = Path(__file__).parent
_SCRIPTS = (
    "assets/plotly.min.js",
    "assets/viewer.min.js",
    "templates/page.js",
    "templates/plots.js",
    "templates/compare.js",
    "templates/orbit.js",
)
_RULERS = ("renders_hash", "truth_hash")


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
        ConfigError, FormatError: no finished runs, or damaged results.
        OutputError: the page cannot be written.
    """
    require_packages()
    begin = time.monotonic()
    results = read_results(sweep)
    out = Path(out) if out is not None else Path(sweep) / "report.html"
    text = _page(results, out.resolve().parent)
    write_text(out, text)
    return Written(out, len(text.encode()), len(results.runs), len(results.failed), time.monotonic() - begin)


def _page(results: Results, at: Path) -> str:
    """The whole page, to lie in the folder ``at``."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "compact": _compact, "json": lambda value: Markup(_json(value))}
    scripts = [_script(_asset(name)) for name in _SCRIPTS]
    hashes = [base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in scripts]
    return environment.get_template("report.html.j2").render(
        **_content(results, at),
        scripts=[Markup(each) for each in scripts],
        policy=" ".join(f"'sha256-{each}'" for each in hashes),
        style=Markup(_asset("templates/report.css")),
        made=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    )


def _content(results: Results, at: Path) -> dict[str, Any]:
    """What the templates show."""
    overview, sections = Overview(results), Sections(results, at)
    tables, reference = overview.tables, overview.reference
    times = None
    if tables:
        known = [row.label for row in tables[0].rows if row.runs]
        times = curves.time_to_quality(results, known, tables[0].field.scenes, reference)
    return {
        "title": str(results.runs[0].get("sweep") or results.folder.resolve().name),
        "results": results,
        "failed": provenance.failures(results.failed),
        "absent": provenance.missing(results.absent),
        "warnings": provenance.warnings(results),
        "tables": tables,
        "reference": reference,
        "sentences": overview.sentences(),
        "differences": overview.differences(),
        "scenes": overview.psnr.scenes,
        "per_scene": overview.per_scene(),
        "times": times,
        "dots": {"labels": results.labels, "runs": dots(results)},
        "starts": overview.starts(),
        "predictions": overview.predictions(),
        "sections": sections.all(),
        "budget": provenance.budget(results),
        "made_with": provenance.made_with(results),
        "runs": [_run(results, sections, row) for row in results.runs],
    }


def _run(results: Results, sections: Sections, row: Row) -> dict[str, Any]:
    splat = results.of(row, "splat.ply")
    return {
        "row": row,
        "reason": provenance.reason(row),
        "command": provenance.command(results, row),
        "hashes": {key: row[key] for key in _RULERS if row.get(key)},
        "link": sections.link(splat) if splat else None,
    }


def _number(value: float | None, digits: int = 2) -> str:
    """Fixed digits with thin spaces between thousands; a dash for what is not known."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,.{digits}f}".replace(",", "\u202f").replace("-", "−")


def _compact(value: float | None) -> str:
    """Three significant digits, for numbers of any size."""
    if value is None or not math.isfinite(value):
        return "–"
    return _number(value, 0) if abs(value) >= 1000 else f"{value:.3g}".replace("-", "−")


def _json(value: Any) -> str:
    """JSON that can stand in a script element whatever its strings are: nothing in it can close the element."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _asset(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _script(text: str) -> str:
    """A script as it can stand in a page: nothing in it ends it, and its line ends are those that browsers hash."""
    return text.replace("</script", "<\\/script").replace("\r\n", "\n")
