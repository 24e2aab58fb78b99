"""Photos have the same pixels from memory, disk or their file; the bounds hold; failures name the photo."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from splatinit import decoding
from splatinit.decoding import Decoder, decoded, decoded_bytes, decoding_bytes, each_decoded
from splatinit.errors import FormatError, OutOfMemory, SceneError, ShapeError
from splatinit.io.images import probe_image
from splatinit.types import Camera, Pixels, View

WIDTH, HEIGHT = 12, 10


@dataclass
class Source:
    """A Photo that notes how it is used."""

    name: str
    pixels: Pixels
    seconds: float = 0.0
    width: int = WIDTH
    height: int = HEIGHT
    error: BaseException | None = None
    calls: int = 0
    now: Counter = field(default_factory=Counter)
    most: Counter = field(default_factory=Counter)

    @property
    def path(self) -> Path:
        return Path("nowhere") / self.name

    @property
    def has_alpha(self) -> bool:
        return self.pixels.alpha is not None

    @property
    def has_mask(self) -> bool:
        return self.pixels.mask is not None

    has_depth = False

    def load(self, width: int, height: int) -> Pixels:
        self.calls += 1
        self.now["all"] += 1
        self.most["all"] = max(self.most["all"], self.now["all"])
        time.sleep(self.seconds)
        self.now["all"] -= 1
        if self.error is not None:
            raise self.error
        return self.pixels


def views(count: int, **more) -> list[View]:
    """Views of different colours, some with alpha and masks; they share their counts of use."""
    rng = np.random.default_rng(0)
    now, most, result = Counter(), Counter(), []
    camera = Camera(np.eye(3) * 10, np.eye(4), WIDTH, HEIGHT)
    for index in range(count):
        layer = rng.integers(0, 255, (HEIGHT, WIDTH), dtype=np.uint8)
        pixels = Pixels(
            rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8),
            layer if index % 3 == 1 else None,
            layer // 128 * 255 if index % 2 else None,
        )
        photo = Source(f"{index}.png", pixels, now=now, most=most, **more)
        result.append(View(photo.name, camera, photo))
    return result


def check(pixels: Pixels, view: View) -> None:
    wanted = view.photo.pixels
    for got, expected in ((pixels.rgb, wanted.rgb), (pixels.alpha, wanted.alpha), (pixels.mask, wanted.mask)):
        assert (got is None) == (expected is None)
        assert got is None or (got == expected).all()


def calls(scene: list[View]) -> list[int]:
    return [view.photo.calls for view in scene]


@pytest.mark.parametrize("cache", [0, 900, 10**6])
@pytest.mark.parametrize("on_disk", [False, True])
def test_every_photo_is_the_same_wherever_it_waited(tmp_path: Path, cache: int, on_disk: bool) -> None:
    scene = views(7)
    order = [int(i) for i in np.random.default_rng(1).integers(0, 7, 60)]
    with Decoder(scene, cache_bytes=cache, spill=tmp_path if on_disk else None) as decoder:
        for position, index in enumerate(order):
            check(decoder.get(index, iter(order[position + 1 :])), scene[index])
        check(decoder.get(3), scene[3])
    if cache == 10**6 or on_disk:
        assert calls(scene) == [1] * 7
    elif cache == 0:
        assert sum(calls(scene)) >= 60
    else:
        assert min(calls(scene)) == 1 and max(calls(scene)) > 5  # two or three stay in memory
    assert list(tmp_path.iterdir()) == []


def test_photos_are_decoded_ahead_in_parallel(monkeypatch) -> None:
    monkeypatch.setenv("SPLATINIT_THREADS", "3")
    scene = views(12, seconds=0.02)
    with Decoder(scene) as decoder:
        decoder.get(0, iter(range(1, 12)))
        time.sleep(0.15)
        assert calls(scene) == [1] * (1 + decoding.AHEAD) + [0] * (11 - decoding.AHEAD)
    assert scene[0].photo.most["all"] == 3


def test_what_is_in_decoding_stays_within_its_budget(monkeypatch) -> None:
    monkeypatch.setenv("SPLATINIT_THREADS", "4")
    scene = views(8, seconds=0.01, width=1000, height=1000)
    monkeypatch.setattr(decoding, "IN_DECODING", 2 * max(decoding_bytes(view.photo) for view in scene))
    assert [view for view, _ in each_decoded(scene)] == scene
    assert scene[0].photo.most["all"] in (2, 3)  # small ones among them leave room for a third
    scene = views(8, seconds=0.005, width=100_000, height=1000)
    assert len(list(each_decoded(scene))) == 8
    assert scene[0].photo.most["all"] == 1


def test_what_waits_decoded_is_bounded(monkeypatch) -> None:
    monkeypatch.setattr(decoding, "AHEAD_BYTES", 2 * decoded_bytes(views(2)[1]))
    scene = views(12)
    with Decoder(scene) as decoder:
        decoder.get(0, iter(range(1, 12)))
        time.sleep(0.1)
        assert sum(calls(scene)) == 3


def test_a_file_that_is_no_help_is_done_without(tmp_path: Path, monkeypatch) -> None:
    """No room, no folder, a disk that fails while it is written or read."""
    order = [*range(5), *range(5)]

    def run(folder: Path) -> list[int]:
        scene = views(5)
        with Decoder(scene, spill=folder) as decoder:
            for index in order:
                check(decoder.get(index), scene[index])
        return calls(scene)

    assert run(tmp_path) == [1] * 5
    assert run(tmp_path / "new") == [1] * 5
    assert run(tmp_path / "absent" / "new") == [2] * 5 and not (tmp_path / "absent").exists()
    monkeypatch.setattr(decoding, "DISK_RESERVE", 2**60)
    assert run(tmp_path) == [2] * 5
    monkeypatch.undo()
    monkeypatch.setattr(decoding, "DISK_SHARE", 0.0)
    assert run(tmp_path) == [2] * 5
    monkeypatch.undo()

    def fails(*args):
        raise OSError(5, "Input/output error")

    for function in ("pwrite", "preadv"):
        monkeypatch.setattr(decoding.os, function, fails)
        assert run(tmp_path) == [2] * 5
        monkeypatch.undo()
    monkeypatch.setattr(decoding.os, "preadv", lambda *args: 0)
    assert run(tmp_path) == [2] * 5


def test_the_file_has_no_name_and_its_room_comes_back(tmp_path: Path) -> None:
    scene = views(3)
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else None
    with Decoder(scene, spill=tmp_path) as decoder:
        decoder.get(0)
        assert list(tmp_path.iterdir()) == []
    gc.collect()
    assert before is None or len(os.listdir("/proc/self/fd")) == before


def test_layers_that_say_nothing_are_dropped() -> None:
    full = np.full((HEIGHT, WIDTH), 255, np.uint8)
    view = views(1)[0]
    view.photo.pixels = Pixels(view.photo.pixels.rgb, full, full)
    pixels = decoded(view)
    assert pixels.alpha is None and pixels.mask is None
    view.photo.pixels = Pixels(view.photo.pixels.rgb[:, ::-1], None, full * 0)
    pixels = decoded(view)
    assert pixels.rgb.flags.c_contiguous and not pixels.mask.any()


@pytest.mark.parametrize("layer", ["rgb", "alpha", "mask"])
def test_a_layer_of_another_size_is_refused(layer: str) -> None:
    view = views(1)[0]
    shape = (HEIGHT, WIDTH + 1, 3) if layer == "rgb" else (HEIGHT, WIDTH + 1)
    layers = {"rgb": view.photo.pixels.rgb, layer: np.zeros(shape, np.uint8)}
    view.photo.pixels = Pixels(**layers)
    with pytest.raises(ShapeError, match=rf"'0.png': {layer} was decoded to \[10, 13"):
        decoded(view)


# ------------------------------------------------------------------------------------------------------- failures
def test_a_failure_comes_when_it_is_the_photos_turn_and_names_it() -> None:
    scene = views(6)
    scene[4].photo.error = FileNotFoundError(2, "No such file or directory")
    with Decoder(scene) as decoder:
        for index in range(4):
            check(decoder.get(index, iter(range(index + 1, 6))), scene[index])
        with pytest.raises(SceneError, match=r"'4.png' was there when .* cannot be read now: No such file.*nowhere"):
            decoder.get(4, iter([5]))
        check(decoder.get(5), scene[5])
        scene[4].photo.error = None  # the disk is back
        check(decoder.get(4), scene[4])


def test_files_that_vanish_and_files_that_are_damaged_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(views(1)[0].photo.pixels.rgb).save(path)
    view = View("a.png", views(1)[0].camera, probe_image(path))
    assert decoded(view).rgb.shape == (HEIGHT, WIDTH, 3)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(FormatError, match="cannot be read"):
        decoded(view)
    path.unlink()
    with pytest.raises(SceneError, match="was there when the scene was read") as caught:
        decoded(view)
    assert caught.value.view == "a.png" and "back" in caught.value.hint


def test_no_memory_for_a_photo_is_said() -> None:
    scene = views(1, width=9000, height=8000)
    scene[0].photo.error = MemoryError()
    with pytest.raises(OutOfMemory, match=r"'0.png' \(9000×8000 px\) could not be decoded: no memory"):
        decoded(scene[0])


def test_leaving_stops_the_threads_soon() -> None:
    scene = views(40, seconds=0.03)
    began = time.perf_counter()
    with pytest.raises(KeyboardInterrupt), Decoder(scene) as decoder:
        decoder.get(0, iter(range(1, 40)))
        raise KeyboardInterrupt
    assert time.perf_counter() - began < 0.5
    assert sum(calls(scene)) < 10
    assert not any(thread.name.startswith("splatinit-decode") for thread in threading.enumerate())


def test_what_is_larger_than_the_budget_waits_until_it_is_alone() -> None:
    gate = decoding._Gate(10)
    passed = []
    with ThreadPoolExecutor(1) as pool, gate.passed(8):

        def second() -> None:
            with gate.passed(100):  # more than there is: alone
                passed.append(True)

        waiting = pool.submit(second)
        time.sleep(0.02)
        assert not passed
    waiting.result()
    assert passed and gate._free == 10
