"""What a check found: findings, their levels, and the report that carries them to a person or a script."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

VERSION = 1  # of the JSON; raised when a key changes its meaning or goes away
OK, WARN, FAIL = "ok", "warn", "fail"
LEVELS = (OK, WARN, FAIL)
_NAMES_AT_MOST = 20  # in the JSON, worst first: enough to act on, and a report stays a page


@dataclass(frozen=True)
class Finding:
    """The answer to one question.

    Attributes:
        id: stable, for scripts, e.g. "epipolar".
        group: "photos", "poses", "points" or "matches".
        level: "ok"; "warn": it will work, but worse than it could; "fail": it will not work as it is.
        message: what was found, with its number.
        expected: what a good scene has; "" where the answer is only a fact.
        advice: what to do; "" where nothing has to be done.
        values: the numbers, by stable names; finite or None.
        names: the photos it is about, worst first.
    """

    id: str
    group: str
    level: str
    message: str
    expected: str = ""
    advice: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    names: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "group": self.group,
            "level": self.level,
            "message": self.message,
            "expected": self.expected,
            "advice": self.advice,
            "values": {key: plain(value) for key, value in self.values.items()},
            "names": list(self.names[:_NAMES_AT_MOST]),
            "names_total": len(self.names),
        }


@dataclass(frozen=True)
class CheckReport:
    """All findings about one scene, in the order in which a person wants to read them.

    Attributes:
        scene: the folder that was checked.      format: name of the reader.
        photos: how many the scene has.          posed: how many of them have a pose.
        notes: the reader's remarks.
        looked_at: how many photos were decoded. pairs: how many pairs were compared with success.
        seconds: how long it took.
    """

    scene: Path
    format: str
    photos: int
    posed: int
    notes: tuple[str, ...]
    findings: tuple[Finding, ...]
    looked_at: int
    pairs: int
    seconds: float

    @property
    def level(self) -> str:
        """The worst level of all findings."""
        return worst(finding.level for finding in self.findings)

    @property
    def verdict(self) -> str:
        """One sentence."""
        counts = {level: sum(finding.level == level for finding in self.findings) for level in LEVELS}
        if counts[FAIL]:
            return f"Not ready: {_number(counts[FAIL], 'finding')} would spoil the result" + (
                f", {counts[WARN]} more would cost quality." if counts[WARN] else "."
            )
        if counts[WARN]:
            return f"Usable: {_number(counts[WARN], 'finding')} may cost quality."
        return "Good: nothing to do."

    def finding(self, id: str) -> Finding:
        """The finding of this id. Raises KeyError where its question was not asked."""
        for finding in self.findings:
            if finding.id == id:
                return finding
        raise KeyError(id)

    def to_json(self) -> dict[str, Any]:
        """Plain values with stable keys (see VERSION)."""
        return {
            "version": VERSION,
            "scene": str(self.scene),
            "format": self.format,
            "photos": self.photos,
            "posed": self.posed,
            "notes": list(self.notes),
            "level": self.level,
            "verdict": self.verdict,
            "looked_at": self.looked_at,
            "pairs": self.pairs,
            "seconds": round(self.seconds, 2),
            "findings": [finding.to_json() for finding in self.findings],
        }


def worst(levels: Any) -> str:
    """The worst of some levels; "ok" of none."""
    return max(levels, key=LEVELS.index, default=OK)


def listed(names: Sequence[str], at_most: int = 3) -> str:
    """``a, b, c and 4 more``."""
    shown = ", ".join(names[:at_most])
    return shown if len(names) <= at_most else f"{shown} and {len(names) - at_most} more"


def plain(value: Any) -> Any:
    """A value as JSON has it: Python numbers of six digits, None for what is not finite."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int) or (hasattr(value, "dtype") and value.dtype.kind in "iub"):
        return int(value)
    number = float(value)
    return float(f"{number:.6g}") if math.isfinite(number) else None


def _number(count: int, word: str) -> str:
    return f"{count} {word}" + ("" if count == 1 else "s")
