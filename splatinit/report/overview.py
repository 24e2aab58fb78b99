"""What the page says of a whole sweep: who wins over which scenes, by how much and how surely, and what predicts it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from . import statistics
from .statistics import Comparison, Field, Scores, Summary
from .tables import Results, Row


@dataclass(frozen=True)
class Quality:
    """A number that is known of a start before training: what it is called, its digits (None: three that count), and
    what it is, where the title does not say it."""

    title: str
    digits: int | None
    meaning: str = ""


# By its column in starts.parquet.
QUALITIES = {
    "points": Quality("number of points", 0),
    "filled": Quality(
        "share of the image with points",
        3,
        "Of the image: of the training views, in cells of 1 % of their longer side.",
    ),
    "coverage": Quality("coverage", 3, "Coverage: share of the training views with a point within 1 % of its depth."),
    "photoconsistency": Quality(
        "photometric difference", 3, "Photometric difference: of points to the pixels they fall on, mean, of 1."
    ),
    "accuracy": Quality("accuracy", None, "Accuracy: mean distance of points from the true surface, in scene units."),
    "completeness": Quality("completeness", None, "Completeness: mean distance of the true surface from points."),
    "fscore": Quality("F-score", 3, "F-score: at 1 % of the scene's extent."),
}


@dataclass(frozen=True)
class Column:
    """A column of the summary: its key in runs.parquet, how it is told, and what is best in it.

    Attributes:
        cost: what is spent; the least of it is only the best where the quality is not worse than the reference's.
    """

    key: str
    title: str
    digits: int
    best: Callable[..., float] | None = None
    unit: str = ""
    cost: bool = False


COLUMNS = (
    Column("psnr", "PSNR", 2, max, "dB"),
    Column("ssim", "SSIM", 4, max),
    Column("lpips_alex", "LPIPS alex", 4, min),
    Column("lpips_vgg", "LPIPS vgg", 4, min),
    Column("points", "points", 0),
    Column("gaussians", "Gaussians", 0, min, cost=True),
    Column("seconds_start", "poses + start", 1, min, "s", cost=True),
    Column("seconds_train", "training", 1, min, "s", cost=True),
    Column("peak_memory_mb", "peak memory", 0, min, "MB", cost=True),
)


@dataclass(frozen=True)
class Standing:
    """One variant in one field: each column summarized, which of them are the best, and its mean rank by PSNR."""

    label: str
    cells: list[Summary]
    best: list[bool]
    rank: float
    runs: int
    missing: int


@dataclass(frozen=True)
class FieldTable:
    """A field with its columns and standings; ``left_out``: scene → the variants of the field without a score there."""

    field: Field
    columns: list[Column]
    rows: list[Standing]
    left_out: dict[str, list[str]]


class Overview:
    """Everything is over all scenes with one ruler; see :func:`splatinit.report.statistics.fields` for which."""

    def __init__(self, results: Results) -> None:
        self.results = results
        self.psnr = results.scores("psnr")
        self.fields = statistics.fields(self.psnr, results.labels)

    # -------------------------------------------------------------------------------------------------------- summary
    @cached_property
    def tables(self) -> list[FieldTable]:
        """A summary of each field; the first has the variants without any score too, at its end."""
        return [self._table(field, first=k == 0) for k, field in enumerate(self.fields)]

    def _table(self, field: Field, first: bool) -> FieldTable:
        scores = {column: self.scores(column.key) for column in COLUMNS}
        labels = field.variants + [label for label in self.results.labels if first and not self.psnr.scenes_of(label)]
        sums = {
            column: {label: statistics.summarize(scores[column], label, field.scenes) for label in labels}
            for column in COLUMNS
        }
        columns = [column for column in COLUMNS if any(each.runs for each in sums[column].values())]
        quality = {label: each.mean for label, each in sums[COLUMNS[0]].items()}
        enough = quality.get(self.reference, math.inf)
        rivals = {
            False: set(field.variants),
            True: {label for label in field.variants if quality[label] >= enough},
        }
        best = {column: _best(column, sums[column], rivals[column.cost]) for column in columns}
        within = Scores({place: value for place, value in self.psnr.cells.items() if place[0] in field.scenes})
        ranks, _ = statistics.mean_ranks(within, field.variants)
        psnr = COLUMNS[0]
        rows = [
            Standing(
                label,
                [sums[column][label] for column in columns],
                [label in best[column] for column in columns],
                ranks.get(label, math.nan),
                sums[psnr][label].runs,
                len(sums[psnr][label].missing),
            )
            for label in labels
        ]
        rows.sort(key=lambda row: -row.cells[0].mean if row.runs else math.inf)
        others = [scene for scene in self.results.scenes if first and scene not in field.scenes]
        left_out = {
            scene: [label for label in field.variants if not self.psnr.per_seed(scene, label)] for scene in others
        }
        return FieldTable(field, columns, rows, left_out)

    def scores(self, key: str) -> Scores:
        """A column of the runs; ``seconds_start`` is what poses and start took together.

        Where the photos came with poses, matching them for the points of ``sfm`` is what its pose stage does, and other
        starts do without: neither stage alone is what a start costs.
        """
        if key != "seconds_start":
            return self.results.scores(key)
        parts = [self.results.scores(f"seconds_{stage}") for stage in ("pose", "init")]
        sums = {
            place: None if None in (values := [part.cells[place] for part in parts]) else sum(values)
            for place in parts[0].cells
        }
        return Scores(sums, parts[0].planned)

    # --------------------------------------------------------------------------------------------------------- scenes
    def per_scene(self) -> list[dict[str, Any]]:
        """One row a variant: in each scene its PSNR and rank, and whether it failed in all its runs there."""
        ranks = {scene: statistics.scene_ranks(self.psnr, self.results.labels, scene) for scene in self.psnr.scenes}
        table = []
        for label in self._by_quality:
            cells = [
                {
                    "psnr": statistics.summarize(self.psnr, label, [scene]),
                    "rank": ranks[scene].get(label),
                    "best": ranks[scene].get(label) == 1 and len(ranks[scene]) > 1,
                    "failed": any(row["scene"] == scene and row["label"] == label for row in self.results.failed),
                }
                for scene in self.psnr.scenes
            ]
            table.append({"label": label, "cells": cells})
        return table

    @cached_property
    def _by_quality(self) -> list[str]:
        """All variants, in the order of the widest field they are in; those without a score at the end."""
        ordered = [row.label for table in self.tables for row in table.rows]
        return list(dict.fromkeys([*ordered, *self.results.labels]))

    # ---------------------------------------------------------------------------------------------------- differences
    @cached_property
    def reference(self) -> str | None:
        """What the others are held against first: sfm, or else the best of the widest field."""
        if not self.fields:
            return None
        field = self.fields[0]
        if "sfm" in field.variants:
            return "sfm"
        return max(field.variants, key=lambda label: statistics.summarize(self.psnr, label, field.scenes).mean)

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """Every pair of variants that have scores: those with the reference first, then better ones first."""
        known = [label for label in self._by_quality if self.psnr.scenes_of(label)]
        pairs = itertools.combinations(known, 2)
        found = [statistics.compare(self.psnr, a, b) for a, b in pairs]
        return sorted(found, key=lambda each: self.reference not in (each.a, each.b))

    def sentences(self) -> list[dict[str, Any]]:
        """The comparisons in words; ``first`` for those with the reference."""
        gaussians = self.results.scores("gaussians")
        return [
            {
                "text": statistics.sentence(each, gaussians=statistics.ratio(gaussians, each.a, each.b)),
                "left_out": statistics.left_out(each, self._why(each.a, each.b), shown=2),
                "separated": each.separated,
                "first": self.reference in (each.a, each.b),
            }
            for each in self.comparisons
        ]

    def differences(self) -> dict[str, Any] | None:
        """The comparisons as data of a plot."""
        pairs = [
            {
                "a": each.a,
                "b": each.b,
                "difference": round(each.difference, 4),
                "interval": None if math.isnan(each.low) else [round(each.low, 4), round(each.high, 4)],
                "scenes": {scene: round(value, 4) for scene, value in each.scenes.items()},
            }
            for each in self.comparisons
            if each.pairs
        ]
        return {"labels": self._by_quality, "reference": self.reference, "pairs": pairs} if pairs else None

    def _why(self, *labels: str) -> Callable[[str, int], str]:
        def why(scene: str, seed: int) -> str:
            rows = {label: self.results.by_cell.get((scene, label, seed)) for label in labels}
            ends = {label: "not run" if row is None else "failed" for label, row in rows.items() if lost(row)}
            if len(ends) > 1 and len(set(ends.values())) == 1:
                return f"both {next(iter(ends.values()))}"
            return " and ".join(f"{label} {end}" for label, end in ends.items())

        def lost(row: Row | None) -> bool:
            return row is None or row["status"] != "done" or row["psnr"] is None

        return why

    # --------------------------------------------------------------------------------------------------------- starts
    def starts(self) -> list[dict[str, Any]]:
        """One row a (scene, variant): the qualities of its start, averaged over seeds, and the final PSNR."""
        table = []
        for scene, label in itertools.product(self.psnr.scenes, self.results.labels):
            cells = [statistics.summarize(each, label, [scene]).mean for each in self._qualities.values()]
            if any(map(math.isfinite, cells)):
                final = statistics.summarize(self.psnr, label, [scene]).mean
                table.append({"scene": scene, "label": label, "cells": cells, "psnr": final})
        return table

    def predictions(self) -> list[dict[str, Any]]:
        """How well each quality of a start orders the variants within a scene as their final PSNR does."""
        return [
            {"quality": QUALITIES[key], "found": statistics.predict(quality, self.psnr)}
            for key, quality in self._qualities.items()
        ]

    @cached_property
    def _qualities(self) -> dict[str, Scores]:
        known = {key: self.results.scores(key, self.results.starts) for key in QUALITIES}
        return {key: each for key, each in known.items() if any(value is not None for value in each.cells.values())}


def _best(column: Column, sums: dict[str, Summary], rivals: set[str]) -> set[str]:
    """The variants that are best as far as the digits show; none where all are alike, or where there is no rival."""
    if column.best is None:
        return set()
    # Where some scenes were not measured, means are over other scenes, and no competitors.
    most = max(each.scenes for each in sums.values())
    shown = {
        label: round(each.mean, column.digits)
        for label, each in sums.items()
        if label in rivals and each.scenes == most
    }
    if len(set(shown.values())) < 2:
        return set()
    wanted = column.best(shown.values())
    return {label for label, value in shown.items() if value == wanted}


def dots(results: Results) -> list[dict[str, Any]]:
    """Every finished run as data of the plots."""
    keys = ("scene", "label", "seed", "psnr", "gaussians", "seconds_train")
    return [{key: row[key] for key in keys} for row in results.runs if row["psnr"] is not None]
