"""Films and PNG files of a path: what is in them, and what becomes of encoders and disks that fail."""

from __future__ import annotations

import errno
import os
import signal
import stat
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from splatinit.errors import ConfigError, FormatError, OutputError
from splatinit.io import images, video

imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
posix = pytest.mark.skipif(os.name != "posix", reason="stands a shell script in for ffmpeg")
FRAMES = [np.full((32, 48, 3), (5 * k, 60, 200), np.uint8) for k in range(20)]


def noise(count: int, height: int = 32, width: int = 48) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (height, width, 3), np.uint8) for _ in range(count)]


def read(path: Path) -> list[np.ndarray]:
    film, frames = cv2.VideoCapture(str(path)), []
    while (got := film.read())[0]:
        frames.append(got[1][..., ::-1])
    return frames


@pytest.fixture
def encoder(tmp_path, monkeypatch):
    """``encoder(script)`` has a shell script stand in for ffmpeg; its last argument is the file to write."""

    def use(script: str) -> Path:
        program = tmp_path / "bin" / "encoder"
        program.parent.mkdir()
        program.write_text("#!/bin/sh\n" + script)
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(program))
        return program

    return use


# --------------------------------------------------------------------------------------------------------------- films
@pytest.mark.parametrize("size", [(2, 2), (2, 3), (3, 2), (17, 2), (33, 49), (540, 961)])
def test_a_film_of_one_frame_of_any_size(tmp_path, size):
    assert video.write_video(tmp_path / "film.mp4", [np.full((*size, 3), 90, np.uint8)], 30) == 1
    (frame,) = read(tmp_path / "film.mp4")
    assert frame.shape == (*video.even_size(*size), 3)
    np.testing.assert_allclose(frame.astype(int), 90, atol=3)


@pytest.mark.parametrize("size", [(1, 8), (8, 1), (1, 1)])
def test_a_film_needs_two_rows_and_columns(tmp_path, size):
    with pytest.raises(ConfigError, match=f"frames of {size[1]}×{size[0]} px; expected at least 2×2") as error:
        video.write_video(tmp_path / "film.mp4", [np.zeros((*size, 3), np.uint8)], 30)
    assert "larger --max-size" in error.value.hint and list(tmp_path.iterdir()) == []


def test_a_film_keeps_colours_and_says_how_it_stores_them(tmp_path):
    colours = [(200, 60, 60), (40, 180, 70), (50, 60, 210), (128, 128, 128)]
    frame = np.repeat(np.repeat(np.uint8(colours).reshape(2, 2, 3), 32, axis=0), 48, axis=1)
    video.write_video(tmp_path / "film.mp4", [frame] * 3, 10, threads=1)
    for drawn in read(tmp_path / "film.mp4"):
        for (y, x), colour in zip(((16, 24), (16, 72), (48, 24), (48, 72)), colours, strict=True):
            np.testing.assert_allclose(drawn[y, x].astype(int), colour, atol=4)
    # nclx box of MP4: primaries, transfer and matrix of BT.709 (1), not of full range.
    assert b"colrnclx\0\1\0\1\0\1\0" in (tmp_path / "film.mp4").read_bytes()


def test_a_film_looks_as_it_was_drawn(tmp_path):
    """A moving pattern of several scales at the quality that we chose, over 40 dB."""
    y, x = np.mgrid[:180, :320]
    waves = [sum(np.sin((x + 3 * k) / s + y / (s + 2) + c) for s in (3, 9, 40)) for k in range(12) for c in range(3)]
    drawn = images.to_uint8(0.5 + np.stack(waves).reshape(12, 3, 180, 320).transpose(0, 2, 3, 1) / 6.5)
    assert video.write_video(tmp_path / "film.mp4", drawn, 30) == 12
    difference = np.stack(read(tmp_path / "film.mp4")).astype(float).mean(3) - drawn.mean(3)
    assert 10 * np.log10(255**2 / np.square(difference).mean()) > 40


# ------------------------------------------------------------------------------------------------- encoders that fail
def refuses(tmp_path: Path, kind: type[Exception], text: str) -> Exception:
    """Writing says ``text`` within seconds and leaves what was there as it was."""
    film = tmp_path / "films" / "film.mp4"
    film.parent.mkdir(exist_ok=True)
    film.write_bytes(b"an older film")
    began = time.monotonic()
    with pytest.raises(kind, match=text) as error:
        video.write_video(film, noise(40, 128, 128), 30)
    assert time.monotonic() - began < 20
    assert list(film.parent.iterdir()) == [film] and film.read_bytes() == b"an older film"
    return error.value


@posix
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("when", ["at once", "at the end"])
def test_a_full_disk_is_told_as_one(tmp_path, encoder, number, when):
    wait = "cat > /dev/null\n" if when == "at the end" else ""
    encoder(f"{wait}echo 'av_interleaved_write_frame(): {os.strerror(number)}' >&2\nexit 228\n")
    error = refuses(tmp_path, OutputError, f"film.mp4 could not be written: {os.strerror(number)}")
    assert error.errno == number and error.hint


@posix
def test_a_limit_on_file_sizes_is_told_as_one(tmp_path, encoder):
    encoder("head -c 3000 > /dev/null\nkill -XFSZ $$\n")
    assert "ulimit -f" in refuses(tmp_path, OutputError, "film.mp4 could not be written: File too large").hint


@posix
def test_an_encoder_without_the_codec_is_told(tmp_path, encoder):
    encoder("echo \"Unknown encoder 'libx264'\" >&2\nexit 8\n")
    error = refuses(tmp_path, FormatError, "ffmpeg could not write the video: Unknown encoder 'libx264'")
    assert "IMAGEIO_FFMPEG_EXE" in error.hint


@posix
def test_an_encoder_that_is_killed_is_told(tmp_path, encoder):
    encoder("head -c 3000 > /dev/null\nkill -KILL $$\n")
    refuses(tmp_path, FormatError, "could not write the video: it ended with code -9 and said nothing")


@posix
def test_an_encoder_that_says_more_than_a_pipe_holds_does_not_hang(tmp_path, encoder):
    encoder("head -c 1000000 /dev/zero | tr '\\0' x >&2\ncat > /dev/null\nexit 1\n")
    refuses(tmp_path, FormatError, "ffmpeg could not write the video: xxxx")


@posix
def test_an_encoder_that_cannot_be_started_is_told(tmp_path, encoder):
    program = encoder("")
    program.chmod(0o644)
    error = refuses(tmp_path, FormatError, f"ffmpeg cannot be started: {program}: Permission denied")
    assert "pip install" in error.hint
    program.unlink()
    refuses(tmp_path, FormatError, f"ffmpeg cannot be started: {program}: No such file")


def test_a_package_without_its_encoder_is_told(tmp_path, monkeypatch):
    def absent() -> str:
        raise RuntimeError("No ffmpeg exe could be found.")

    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", absent)
    refuses(tmp_path, FormatError, "imageio-ffmpeg has no ffmpeg: No ffmpeg exe could be found")


@posix
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_frames_that_end_in_an_error_end_the_encoder(tmp_path, encoder, error):
    encoder(f"echo $$ > {tmp_path}/pid\nexec sleep 600\n")

    def frames():
        yield from FRAMES[:3]
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            time.sleep(0.01)
        raise error

    (tmp_path / "films").mkdir()
    with pytest.raises(error):
        video.write_video(tmp_path / "films" / "film.mp4", frames(), 30)
    assert list((tmp_path / "films").iterdir()) == []
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


# ----------------------------------------------------------------------------------------------------------------- PNG
@pytest.mark.parametrize("threads", [1, 3])
def test_png_files_hold_the_frames(tmp_path, threads):
    frames = noise(25)
    files = [tmp_path / f"{k}.png" for k in range(25)]
    assert video.write_frames(files, iter(frames), threads=threads) == files
    for file, frame in zip(files, frames, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(file)), frame)
    assert len(list(tmp_path.iterdir())) == 25


def test_few_frames_wait_to_be_written(tmp_path, monkeypatch):
    most, lock, waiting = 0, threading.Lock(), 0

    def slow(file, frame, level):
        nonlocal waiting
        time.sleep(0.005)
        with lock:
            waiting -= 1

    def frames():
        nonlocal most, waiting
        for frame in FRAMES:
            with lock:
                waiting += 1
                most = max(most, waiting)
            yield frame

    monkeypatch.setattr(video, "write_png", slow)
    video.write_frames([tmp_path / f"{k}.png" for k in range(20)], frames(), threads=2)
    assert waiting == 0 and 2 <= most <= 5  # four, and the one that is just handed over


def test_a_disk_that_is_full_after_some_png_files_is_told(tmp_path, monkeypatch):
    save, asked = Image.Image.save, []

    def full(image, path, **how):
        asked.append(path)
        if len(asked) > 5:
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(image, path, **how)

    monkeypatch.setattr(Image.Image, "save", full)
    taken = []
    with pytest.raises(OutputError, match=r"0000\d.png could not be written: No space left on device"):
        video.write_frames(
            [tmp_path / f"{k:05d}.png" for k in range(20)], (taken.append(1) or f for f in FRAMES), threads=2
        )
    assert len(list(tmp_path.iterdir())) == 5 and len(taken) < 20
    for file in tmp_path.iterdir():
        assert np.asarray(Image.open(file)).shape == (32, 48, 3)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("splatinit-png")]


# ------------------------------------------------------------------------------------------------------------- signals
INTERRUPTED = """
import sys
from pathlib import Path
import numpy as np
from splatinit.cli.console import Stopped, watched
from splatinit.io.video import write_frames, write_video
def frames():
    frame = np.random.default_rng(0).integers(0, 256, (540, 960, 3), np.uint8)
    for number in range(100000):
        if number == 30:
            print("ready", flush=True)
        yield frame
def work(progress, stop):
    progress.start("render", 100000)
    if {film}:
        write_video(Path({out!r}, "film.mp4"), frames(), 30)
    else:
        write_frames((Path({out!r}, f"{{k}}.png") for k in range(100000)), frames(), threads=2)
try:
    watched(work)
except Stopped as stopped:
    sys.exit(128 + stopped.signum)
"""


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("kind", ["film", "png"])
def test_ctrl_c_ends_at_once_and_leaves_no_half_file(tmp_path, kind, number):
    import subprocess

    code = INTERRUPTED.format(film=kind == "film", out=str(tmp_path))
    # A group of its own, and the signal to all of it: what a terminal does.
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as child:
        assert child.stdout.readline() == "ready\n"
        began = time.monotonic()
        os.killpg(child.pid, number)
        child.communicate(timeout=30)
    # Within a second on a quiet machine; the watchdog of the command line would end it after two, leaving its file.
    assert child.returncode == 128 + number and time.monotonic() - began < 10
    left = list(tmp_path.iterdir())
    assert kind == "png" or left == []
    for file in left:
        assert file.suffix == ".png" and not file.name.startswith(".")
        with Image.open(file) as image:
            image.load()
