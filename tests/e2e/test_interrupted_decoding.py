"""A signal while photos are being decoded ends the process soon, and nothing is left of the photos on the disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]

CHILD = """
import signal, sys, time
from dataclasses import replace
from pathlib import Path
import tiny
from splatinit.densify.none import NoDensify
from splatinit.training import TrainConfig, train

class Slow(tiny.MemoryPhoto):
    def load(self, width, height):
        time.sleep(0.3)
        return self.pixels

asked = []
signal.signal(signal.SIGINT, lambda *_: asked.append(True))
scene = replace(tiny.scene(views=41), test=())
scene = replace(scene, train=tuple(replace(view, photo=Slow(view.name, view.pixels())) for view in scene.train))

def stop():
    print("step", flush=True)
    return bool(asked)

train(
    scene, tiny.random_model(20, seed=1), rasterizer=tiny.rasterizer(), settings=tiny.SETTINGS, densifier=NoDensify(),
    config=TrainConfig(steps=1000, image_cache_mb=0), checkpoints=Path(sys.argv[1]), stop=stop,
)
"""


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL])
def test_a_signal_while_photos_are_decoded(tmp_path: Path, signum: int) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, sys.path)])}
    environment |= {"SPLATINIT_THREADS": "2", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CHILD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
        for _ in range(3):
            assert child.stdout.readline() == "step\n"
        child.send_signal(signum)
        began = time.perf_counter()
        child.stdout.read()
        code = child.wait()
    assert time.perf_counter() - began < 10  # far less on a machine that is not busy
    if signum == signal.SIGINT:
        assert code == 0 and [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]
    else:
        assert code == -signal.SIGKILL and list(tmp_path.iterdir()) == []
