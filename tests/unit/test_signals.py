"""A signal ends the process within seconds whatever it is busy with, and the second one at once."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

# Work that does not come back when it is interrupted, as a call into a library that cannot be cancelled.
STUCK = """
import time
from splatinit.cli.console import Interrupts, watched
Interrupts.GRACE = 0.3
def work(progress, stop):
    progress.start({stage!r}, 10)
    while True:
        try:
            print("ready", flush=True)
            time.sleep(60)
        except KeyboardInterrupt:
            pass
watched(work)
"""


def stuck(stage: str) -> subprocess.Popen:
    code = STUCK.format(stage=stage)
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "ready\n"
    return child


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_call_that_cannot_be_cancelled_is_left_behind(number):
    with stuck("match features") as child:
        child.send_signal(number)
        told = child.communicate(timeout=10)[1]
    assert child.returncode == 128 + number
    assert f"Stopped by {number.name} during 'match features'. Every finished step is kept" in told


def test_a_training_may_take_its_time_to_save_but_the_second_signal_ends_it():
    with stuck("train") as child:
        child.send_signal(signal.SIGINT)
        time.sleep(0.7)  # longer than the grace that other stages have
        assert child.poll() is None
        child.send_signal(signal.SIGTERM)
        told = child.communicate(timeout=10)[1]
    assert child.returncode == 143 and "SIGINT: writing a checkpoint" in told
