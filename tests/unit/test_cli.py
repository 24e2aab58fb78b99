"""The command line without the work: help that teaches, exit codes, tables, progress and signals."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

import splatinit
from splatinit import environment
from splatinit.cli.app import app
from splatinit.cli.base import guarded, paragraphs
from splatinit.cli.console import ConsoleProgress, Interrupts, Stopped
from splatinit.cli.line import start_file
from splatinit.cli.listing import KINDS
from splatinit.cli.options import point_count, run_config
from splatinit.config import known_keys, presets
from splatinit.doctor import BROKEN, examine
from splatinit.errors import ConfigError
from splatinit.registry import load_object

COMMANDS = ("run", "init", "train", "eval", "render", "check", "convert", "report", "list", "doctor", "demo")


def invoke(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(arguments))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


# ---------------------------------------------------------------------------------------------------------------- help
@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_explains_every_option(command):
    text = invoke(command, "--help")
    assert "Usage" in text
    assert invoke(command, "-h") == text
    # Every line of the options' boxes that starts an option goes on with words.
    for line in text.splitlines():
        cells = line.strip("│ ").split()
        if line.startswith("│") and cells and cells[0].startswith("--"):
            assert len(cells) > 2, line


def test_the_overview_names_every_command_and_gives_examples():
    text = invoke("--help")
    assert all(f" {command} " in text for command in COMMANDS)
    assert "splatinit run photos/" in text
    # Called with nothing, it teaches as well; typer's exit code for that is its own business.
    assert "splatinit run photos/" in CliRunner().invoke(app, []).output
    assert splatinit.__version__ in invoke("--version")


def test_paragraphs_wrap_and_examples_do_not():
    assert paragraphs("One\ntwo.\n\n  a\n  b\n\nlast") == "One two.\n\n  a\n  b\n\nlast"


def test_help_and_list_import_nothing_heavy():
    code = (
        "import sys\nfrom splatinit.cli.app import app\n"
        "for arguments in (['--help'], ['run', '--help'], ['list']):\n"
        "    try: app(arguments)\n    except SystemExit: pass\n"
        "print('HEAVY', [name for name in ('torch', 'cv2', 'scipy', 'pycolmap') if name in sys.modules])"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(splatinit.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stdout, done.stdout[-200:]


# ---------------------------------------------------------------------------------------------------------------- list
def test_list_shows_every_part_and_preset():
    text = invoke("list")
    for path, _ in KINDS.values():
        for spec in load_object(path):
            assert f" {spec.name} " in text
    for preset in presets():
        assert preset.name in text


def test_list_settings_shows_every_key():
    text = invoke("list", "--settings")
    assert [key for key in known_keys() if key not in text] == []


def test_list_explains_one_part_section_or_preset():
    assert "init.count" in invoke("list", "random")
    assert "train.steps" in invoke("list", "train")
    assert "max_size: 480" in invoke("list", "quick")
    assert "Did you mean 'random'" in invoke("list", "randon", code=2)


def test_doctor_examines_every_engine_and_finds_what_the_tests_need():
    findings = examine()
    assert {finding.topic for finding in findings} >= {"machine", "engines", "packages", "LPIPS"}
    assert {"cpu", "reference"} <= {finding.name for finding in findings if finding.topic == "engines"}
    assert [f for f in findings if f.topic == "packages" and f.state == BROKEN] == []
    assert "engines" in invoke("doctor")


def test_a_bad_number_of_threads_is_a_finding_and_an_error(monkeypatch, tmp_path):
    monkeypatch.setenv("SPLATINIT_THREADS", "many")
    assert "SPLATINIT_THREADS" in next(f.text for f in examine() if f.name == "threads")


# -------------------------------------------------------------------------------------------------------------- errors
@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ConfigError("It broke.", hint="Mend it."), 2, "error It broke.\n      Mend it."),
        (PermissionError(13, "denied", "/x/y"), 2, "Permission denied (/x/y)"),
        (OSError(28, "full"), 2, "No space left"),
        (Stopped(signal.SIGTERM), 143, "Stopped by SIGTERM"),
    ],
)
def test_errors_of_the_user_are_words_and_an_exit_code(capsys, error, code, text):
    def fails():
        raise error

    with pytest.raises(Exception) as exit_:  # typer.Exit is no SystemExit before typer handles it
        guarded(fails)()
    assert exit_.value.exit_code == code
    assert text in capsys.readouterr().err


def test_errors_that_are_bugs_keep_their_traceback():
    def fails():
        raise FileNotFoundError(2, "a file that the program should have looked for", "x")

    with pytest.raises(FileNotFoundError):
        guarded(fails)()


# -------------------------------------------------------------------------------------------------------------- points
@pytest.mark.parametrize(
    ("text", "count"),
    [("50000", 50_000), ("50_000", 50_000), ("200k", 200_000), ("1.5M", 1_500_000), ("0.001m", 1000), ("2.5K", 2500)]
    + [("1", 1), ("0.29M", 290_000), ("1.1M", 1_100_000)],  # as floats 0.29e6 and 1.1e6 are no whole numbers
)
def test_points_may_be_given_in_thousands_and_millions(text, count):
    assert point_count(text) == count


@pytest.mark.parametrize(
    "text", ["", "k", "many", "1.5", "0.0001k", "0", "-5k", "1e5", "nan", "200kk", "1.2.3M", "²", "٣"]
)
def test_what_is_no_number_of_points_is_told(text):
    with pytest.raises(ConfigError, match=f"--points: got '{text}'; expected a number of points, 1 or more") as error:
        point_count(text)
    assert "--points 200k" in error.value.hint


@pytest.mark.parametrize("options", [["init.name=dense"], ["init.name=random"], ["init.name=depth"]])
def test_points_set_the_count_of_the_initializer(options):
    assert run_config(None, options, None, "200k").init.settings.count == 200_000


def test_points_win_over_presets_whichever_chose_the_initializer():
    assert run_config(["init/depth", "edgs"], [], None, "30k").init.settings.count == 30_000
    assert run_config(["init/random_points"], [], ["init.size=2"], "30k").init.settings.size == 2
    with pytest.raises(ConfigError, match=r"'init.count' is given twice \(5 and 200000\)"):
        run_config(None, ["init.name=random"], ["init.count=5"], "200k")


def test_points_need_an_initializer_that_takes_a_number(tmp_path):
    told = " ".join(invoke("run", str(tmp_path), "--init", "sfm", "--points", "200k", code=2).split())
    assert "--points: got 200k for the initializer 'sfm', whose points are as many as there are" in told
    hint = told.partition("choose --init ")[2].partition(".")[0]
    assert {"random", "file", "depth", "dense", "union"} <= set(hint.split(" or ")) and "sfm" not in hint
    told = " ".join(
        invoke("init", str(tmp_path), "--init", "dense", "--points", "9", "init.per_reference=7", code=2).split()
    )
    assert "--points: got 9 beside init.per_reference=7; expected one of them" in told
    assert "'many'; expected a number" in invoke("init", str(tmp_path), "-i", "dense", "--points", "many", code=2)


def test_start_of_train_may_be_a_file_or_a_run(tmp_path):
    points = tmp_path / "run" / "init" / "points.ply"
    points.parent.mkdir(parents=True)
    points.write_bytes(b"")
    assert start_file(points) == start_file(tmp_path / "run") == start_file(points.parent) == points
    with pytest.raises(ConfigError, match="no points to start from"):
        start_file(tmp_path)


# ---------------------------------------------------------------------------------------------------- progress, signals
@pytest.mark.parametrize("terminal", [True, False])
def test_progress_tells_stages_notes_and_results(terminal):
    out = io.StringIO()
    with ConsoleProgress(Console(file=out, force_terminal=terminal, width=100, highlight=False)) as progress:
        progress.start("read")
        progress.finish("3 photos [not markup]")
        progress.start("train", 10)
        progress.advance(5, loss=0.5)
        progress.note("17 of 67 skipped")
        progress.start("other")  # without finish: the last one wins
        progress.finish()
    text = out.getvalue()
    for part in ("read", "3 photos [not markup]", "17 of 67 skipped", "other"):
        assert part in text


class Unwatched(Interrupts):
    """Without the thread that would end this process at the second signal; test_signals has that."""

    def _watch(self) -> None: ...


def test_signals_stop_at_once_except_in_training():
    progress = ConsoleProgress(Console(file=io.StringIO()))
    before = signal.getsignal(signal.SIGTERM)
    with Unwatched(progress) as stop:
        with pytest.raises(Stopped) as stopped:
            os.kill(os.getpid(), signal.SIGTERM)
        assert stopped.value.signum == signal.SIGTERM and not stop()
        progress.start("train", 10)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop() and stop.signum == signal.SIGINT
        with pytest.raises(Stopped):  # the second one does not wait
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_waiting_threads_spin_shortly_unless_the_user_decided(monkeypatch, given, expected) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    # Set and deleted through monkeypatch, so that what the function sets is undone after the test.
    monkeypatch.setenv("GOMP_SPINCOUNT", "")
    monkeypatch.delenv("GOMP_SPINCOUNT")
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    environment.shorten_thread_spin()
    assert os.environ.get("GOMP_SPINCOUNT") == expected
