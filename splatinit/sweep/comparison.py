"""One scene, several starts: the plan of ``splatinit compare``.

All get the same number of steps, or the same time for making the start and training together. Both are honest
questions: the first asks what a start is worth, the second what it is worth its cost.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config import SECTIONS, build_config, field_types, load_preset
from ..errors import ConfigError
from ..initializers import INITIALIZERS
from .plan import SweepPlan, expand

# The starts that need nothing but the photos, one of each kind.
USUAL = ("sfm", "random", "dense", "nerf")
# Of the training: enough looks at the test views to read off when a quality was reached.
LOOKS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75)
# Of a budget of time, what fitting a radiance field for the start may take at most, unless it is said otherwise.
FIT_SHARE = 0.25

_BUDGET = re.compile(r"(\d+(?:\.\d+)?)\s*(k?)\s*(s|sec|seconds?|m|min|minutes?|h|hours?|steps?|)", re.IGNORECASE)
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def budget_settings(text: str) -> dict[str, Any]:
    """What a budget sets: ``2m``, ``90s`` or ``1h`` the time of start and training, ``7000steps`` or ``7k`` the steps.

    Raises ConfigError for anything else.
    """
    found = _BUDGET.fullmatch(text.strip().replace("_", ""))
    if found is not None:
        number, unit = float(found[1]) * (1000 if found[2] else 1), found[3].lower()
        timed = unit != "" and not unit.startswith("step")
        if timed and not found[2] and number > 0:
            return {"train.seconds": number * _SECONDS[unit[0]]}
        if not timed and number >= 1 and number == int(number):
            return {"train.steps": int(number), "train.seconds": None}
    raise ConfigError(
        f"--budget: got '{text}'; expected a time or a number of steps.",
        hint="For example 2m, 90s, 1h, or 7000steps.",
    )


def plan_comparison(
    scene: str | Path,
    inits: Sequence[str] = USUAL,
    *,
    seeds: int | Sequence[int] = 1,
    budget: str | None = None,
    points: int | None = None,
    presets: Sequence[str] = (),
    settings: Mapping[str, Any] = {},
    name: str | None = None,
) -> SweepPlan:
    """The runs of one scene from each of ``inits``: initializers (sfm, sfm+random) or presets (init/frusta).

    Args:
        seeds: so many, or which.
        budget: see :func:`budget_settings`; None: the trainer's number of steps.
        points: to start from, for the initializers that take a number.
        settings: any keys, over the presets and the budget; those of one start begin with its name: ``dense.spacing``.
        name: of the sweep; None: the scene's.

    Raises ConfigError for an unknown scene, initializer, preset or key (the nearest match is named), no initializer, or
    one that is there twice; MissingExtra where a part is not installed.
    """
    if not inits:
        raise ConfigError("--inits names nothing; expected initializers.", hint="For example --inits sfm,random,dense.")
    own: dict[str, dict[str, Any]] = {
        init: {} if points is None else dict.fromkeys(_keys_of(init, "count"), points) for init in inits
    }
    common: dict[str, Any] = {"eval.during": list(LOOKS)} | (budget_settings(budget) if budget else {})
    time = common.get("train.seconds")
    if time is not None:
        for init, its_own in own.items():
            its_own |= dict.fromkeys(_keys_of(init, "fit_seconds"), FIT_SHARE * time)
    for key, value in settings.items():
        owner = next((init for init in inits if key.startswith(f"{_label(init)}.")), None)
        if owner is not None:
            own[owner][key.removeprefix(f"{_label(owner)}.")] = value
        elif key.startswith("init."):
            raise ConfigError(
                f"{key}: it is not said of which initializer; expected {_label(inits[-1])}{key.removeprefix('init')}.",
                hint="Settings of one start begin with its name; --points is for all that take a number.",
                key=key,
            )
        else:
            common[key] = value
    path = Path(scene).expanduser()
    tree = {
        "name": name or (path.resolve().name if path.is_dir() else path.stem),
        "scenes": [{"path": str(scene)}],
        "settings": common,
        "inits": [{init: own[init]} if own[init] else init for init in inits],
        "seeds": seeds if isinstance(seeds, int) else list(seeds),
    }
    if presets:
        tree["presets"] = list(presets)
    return expand(tree, "compare")


def _label(init: str) -> str:
    return init.rpartition("/")[2].removesuffix(".yaml")


def _keys_of(init: str, key: str) -> list[str]:
    """The settings called ``key`` of a start, of each of its parts where it is a union; none where it has no such."""
    name = build_config(load_preset(init)).init.name if "/" in init else init
    parts = name.split("+")
    if not set(parts) <= set(INITIALIZERS.names()):  # refused with all else that cannot be meant
        return []
    having = [part for part in parts if key in field_types(SECTIONS["init"].config_class(part))]
    return [f"{part}.{key}" if len(parts) > 1 else key for part in having]
