"""What lies where in a sweep's folder.

    SWEEP/  plan.yaml            the runs, each with every setting
            runs/<hash>/         an ordinary run folder each
            poses/<hash>/        what a poser found, shared by the runs of one scene that are posed alike
            failed/<hash>.json   why a run failed: its error, the stage, and the last lines that it printed
            logs/<hash>/log.txt  what it printed; this folder is held by the process that does the run
            results/             runs, views, steps and starts as .parquet

Whether a run is finished is what its own folder says, and nothing else: there is no second record to disagree with it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import Layer, RunConfig, build_config, dotted_keys
from ..errors import ConfigError, FormatError
from ..initializers import needs_points
from ..io.atomic import write_text
from ..io.runs import RunFolder
from ..io.text import read_json
from .plan import PlannedRun, SweepPlan


@dataclass(frozen=True)
class SweepFolder:
    """The paths inside one sweep's folder."""

    root: Path

    @property
    def plan(self) -> Path:
        return self.root / "plan.yaml"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def results(self) -> Path:
        return self.root / "results"

    def run(self, run: str) -> RunFolder:
        """The folder of the run with this hash."""
        return RunFolder(self.runs / run)

    def failed(self, run: str) -> Path:
        return self.root / "failed" / f"{run}.json"

    def log(self, run: str) -> Path:
        return self.root / "logs" / run / "log.txt"

    def claim(self, run: str) -> Path:
        """The folder that the process which does this run holds from its start to its end.

        The run's own folder is held only once the photos are read, which another process need not do meanwhile.
        """
        return self.log(run).parent

    def poses(self, run: PlannedRun) -> Path:
        """Where the runs of one scene that read and pose it alike share the result."""
        config = run.config.expand()
        points = needs_points(run.config.init.name, run.config.init.settings)
        text = json.dumps([run.path, config["data"], config["poser"], points], sort_keys=True)
        return self.root / "poses" / hashlib.sha256(text.encode()).hexdigest()[:12]

    # ------------------------------------------------------------------------------------------------------ the plan
    def write_plan(self, plan: SweepPlan) -> None:
        """Keep the plan, every setting in it. The plan that was there before is replaced; its runs stay."""
        import yaml

        rows = [
            {"run": run.hash, "scene": run.scene, "path": run.path, "label": run.label, "config": run.config.expand()}
            for run in plan.runs
        ]
        dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
        text = yaml.dump({"sweep": plan.name, "runs": rows}, Dumper=dumper, sort_keys=False, allow_unicode=True)
        if not self.plan.is_file() or self.plan.read_text(encoding="utf-8") != text:
            write_text(self.plan, text)

    def read_plan(self) -> tuple[str, list[KeptRun]]:
        """The sweep's name and its runs as they were planned, by whichever version.

        Raises ConfigError where there is no sweep; FormatError for a plan.yaml that splatinit has not written.
        """
        import yaml

        if not self.plan.is_file():
            raise ConfigError(
                f"{self.root} is not a sweep: it has no plan.yaml.", hint="Make one with `splatinit sweep FILE`."
            )
        try:
            tree = yaml.load(
                self.plan.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)
            )
            rows = [
                KeptRun(
                    **{key: _typed(row[key], str) for key in ("run", "scene", "path", "label")},
                    config=_typed(row["config"], dict),
                )
                for row in tree["runs"]
            ]
            return _typed(tree["sweep"], str), rows
        except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError):
            raise FormatError(
                f"{self.plan} is not a plan that splatinit wrote.",
                hint="Delete it, and give the `splatinit sweep` command again: finished runs are kept.",
                path=self.plan,
            ) from None

    def failure(self, run: str) -> dict[str, Any] | None:
        """Why the run failed when it was last tried; None where it did not. A record that cannot be read is one."""
        path = self.failed(run)
        if not path.is_file():
            return None
        try:
            found = read_json(path)
            return {key: str(found[key]) for key in ("error", "kind", "stage")}
        except (FormatError, KeyError, TypeError):
            return {"error": f"{path} cannot be read", "kind": "", "stage": ""}


def poses_ready(poses: Path) -> bool:
    """Whether a poser has left its result in a folder of :meth:`SweepFolder.poses`."""
    return (poses / "poser.json").is_file()


@dataclass(frozen=True)
class KeptRun:
    """One run as plan.yaml has it: ``config`` is the expanded config, of whichever version wrote it."""

    run: str
    scene: str
    path: str
    label: str
    config: Mapping[str, Any]


def _typed(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError
    return value


def frozen_config(expanded: Mapping[str, Any], where: str) -> RunConfig:
    """The config that :meth:`splatinit.config.RunConfig.expand` expanded."""
    return build_config(Layer(where, dotted_keys(expanded, where)))
