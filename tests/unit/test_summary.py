"""The summary of a sweep: one line a scene, one column a start; what is missing distorts no mean."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from splatinit.cli.summary import show_summary, summarize_sweep, summary_csv, summary_latex, summary_markdown
from splatinit.errors import ConfigError


def row(scene: str, label: str, seed: int, psnr: float | None, **more) -> dict:
    known = {"gaussians": 10, "started": "2026-01-02T00:00:00", "splatinit": "0.1.0", "git": "abcdef0123"}
    known |= {"machine": "P", "cores": 2, "status": "done" if psnr is not None else "failed"}
    return {"scene": scene, "label": label, "seed": seed, "psnr": psnr, **known, **more}


ROWS = [
    *(row("a_1", "sfm", seed, 20.0 + seed) for seed in (0, 1)),
    *(row("a_1", "nerf", seed, 23.0) for seed in (0, 1)),
    *(row("a_1", "depth", seed, 40.0) for seed in (0, 1)),
    *(row("b", "sfm", seed, 30.0) for seed in (0, 1)),
    row("b", "nerf", 0, 10.0),
    row("b", "nerf", 1, None),
]


def test_means_spreads_and_what_is_missing():
    found = summarize_sweep(ROWS, "psnr", "sweep s")
    assert found.columns == ["sfm", "nerf", "depth"]
    a, b, mean, rank = found.lines
    assert a == ("a_1", ["20.50 ± 0.71", "23.00 ± 0.00", "40.00 ± 0.00"], [False, False, True])
    assert b == ("b", ["30.00 ± 0.00", "10.00 (1 failed)", "–"], [True, False, False])
    # depth has one scene only: the mean and the ranks are of those that have both.
    assert mean == ("mean", ["25.25", "16.50", "–"], [True, False, False])
    assert rank == ("mean rank", ["1.5", "1.5", "–"], [True, True, False])
    assert found.caption == (
        "Test PSNR in dB, mean ± standard deviation over seeds 0, 1; 1 of 10 runs failed; sweep s; 2026-01-02; "
        "splatinit 0.1.0 (abcdef0); P, 2 cores."
    )


def test_numbers_of_which_none_is_best_and_small_sweeps():
    found = summarize_sweep(ROWS, "gaussians", "sweep s")
    assert found.lines[0] == ("a_1", ["10", "10", "10"], [False] * 3) and found.lines[-1][0] == "mean"
    (only,) = summarize_sweep([row("a", "sfm", 3, 20.0)], "psnr", "c").lines
    assert only == ("a", ["20.00"], [False])
    none = summarize_sweep([row("a", "sfm", 0, None)], "psnr", "c")
    assert none.lines == [("a", ["–"], [False])] and "1 of 1 runs failed; c; not run" in none.caption
    assert summarize_sweep([], "psnr", "c").lines == []
    with pytest.raises(ConfigError, match=r"--metric pnsr: no such metric[\s\S]*Did you mean 'psnr'"):
        summarize_sweep(ROWS, "pnsr", "c")


def test_the_forms():
    found = summarize_sweep(ROWS, "psnr", "sweep s")
    lines = summary_markdown(found).splitlines()
    assert lines[:3] == ["|  | sfm | nerf | depth |", "| --- | ---: | ---: | ---: |"] + [lines[2]]
    assert lines[2] == "| a_1 | 20.50 ± 0.71 | 23.00 ± 0.00 | **40.00 ± 0.00** |" and lines[-1] == f"*{found.caption}*"
    latex = summary_latex(found)
    assert r"a\_1 & 20.50 $\pm$ 0.71 & 23.00 $\pm$ 0.00 & \textbf{40.00 $\pm$ 0.00} \\" in latex
    assert summary_csv(found).splitlines()[:3] == [
        "scene,sfm,nerf,depth",
        "a_1,20.50 ± 0.71,23.00 ± 0.00,40.00 ± 0.00",
        "b,30.00 ± 0.00,10.00 (1 failed),",
    ]
    console = Console(width=200, record=True, file=io.StringIO())
    show_summary(console, found)
    text = console.export_text()
    assert "20.50 ± 0.71" in text and "mean rank" in text and "sweep s" in text
