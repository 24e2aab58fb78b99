"""Two more ways to make damaged input: documents drawn by hypothesis, and bytes that atheris steers by coverage."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from .engine import MEMORY_LIMIT, Case, Stage, Target, limit_memory, scratch

_TEXT = (".json", ".txt", ".yaml")


def with_hypothesis(target: Target, cases: int, seed: int) -> list[Case]:
    """Findings among ``cases`` documents; for targets whose files are JSON or text."""
    import hypothesis
    from hypothesis import strategies

    text = strategies.text(max_size=20) | strategies.sampled_from(
        ["..", "/", "a.png", "images/a.png", "NaN", "\x1b[1m"]
    )
    leaf = strategies.none() | strategies.booleans() | strategies.integers() | strategies.floats() | text

    with scratch() as folder:
        stage = Stage(target, Path(folder) / "scene")
        names = [name for name in target.files if name.endswith(_TEXT)]
        if not names:
            return []
        findings: list[Case] = []

        def replaced(tree: Any, draw: Any) -> Any:
            """The valid document with values at some places drawn anew."""
            if draw(strategies.integers(0, 30)) == 0:
                return draw(strategies.recursive(leaf, lambda inner: strategies.lists(inner, max_size=4), max_leaves=6))
            if isinstance(tree, dict):
                return {key: replaced(value, draw) for key, value in tree.items() if draw(strategies.integers(0, 40))}
            if isinstance(tree, list):
                return [replaced(value, draw) for value in tree]
            return tree

        @strategies.composite
        def documents(draw: Any) -> tuple[str, bytes]:
            name = draw(strategies.sampled_from(names))
            if name.endswith(".json"):
                return name, json.dumps(replaced(json.loads(stage.whole[name]), draw)).encode()
            lines = stage.whole[name].decode().split("\n")
            words = [word for line in lines for word in [*line.split(" "), "\n"]]
            words = [draw(text) if draw(strategies.integers(0, 40)) == 0 else word for word in words]
            return name, " ".join(words).replace(" \n ", "\n").encode("utf-8", "replace")

        @hypothesis.seed(seed)
        @hypothesis.settings(
            max_examples=cases,
            deadline=None,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
            phases=[hypothesis.Phase.generate],
        )
        @hypothesis.given(documents())
        def judge(document: tuple[str, bytes]) -> None:
            case = stage.judge(*document, "drawn by hypothesis")
            if case.outcome == "finding":
                findings.append(case)

        judge()
        return findings


def with_atheris(target: Target, seconds: int, seed: int, folder: Path) -> None:
    """Let atheris damage the files of a target for some seconds, in an empty folder; ends the process.

    The first byte chooses the file. A finding is raised, and atheris writes the bytes that caused it.
    """
    import atheris

    # Only the readers' own code steers; the parsers behind them (Pillow, zlib) are C.
    with atheris.instrument_imports(include=["splatinit.io"]):
        for module in ("arrays", "cameras", "checkpoints", "colmap", "idr", "llff", "nerfstudio", "photos", "splat"):
            import_module(f"splatinit.io.{module}")

    stage = Stage(target, folder / "scene")
    corpus = folder / "corpus"
    corpus.mkdir()
    for index, name in enumerate(target.files):
        (corpus / str(index)).write_bytes(bytes([index]) + stage.whole[name])
    limit_memory(2 * MEMORY_LIMIT)

    def one(data: bytes) -> None:
        if len(data) < 2:
            return
        case = stage.judge(target.files[data[0] % len(target.files)], data[1:], "by atheris")
        if case.outcome == "finding":
            raise AssertionError(f"{case.file}: {case.detail}")

    limits = ["-rss_limit_mb=0", "-timeout=6", "-max_len=4096", "-verbosity=0", "-print_final_stats=1"]
    limits += [f"-max_total_time={seconds}", f"-seed={seed + 1}"]
    atheris.Setup([sys.argv[0], *limits, str(corpus)], one)
    atheris.Fuzz()
