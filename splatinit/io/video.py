"""Writing a camera path as a video: H.264 by imageio-ffmpeg where it is installed, else MPEG-4 by OpenCV."""

from __future__ import annotations

import contextlib
import importlib.util
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from ..errors import ConfigError, FormatError
from .atomic import atomic_path


def codec() -> str:
    """The codec that :func:`write_video` uses here."""
    return "H.264" if importlib.util.find_spec("imageio_ffmpeg") else "MPEG-4 (OpenCV)"


def write_video(path: Path, frames: Iterable[np.ndarray], fps: int) -> int:
    """Write frames [h, w, 3] uint8 RGB, all of one size, as ``path`` (.mp4); returns how many.

    Odd sizes lose their last row or column, because video stores colour at half resolution. Raises ConfigError for
    another suffix or no frames, FormatError when the encoder fails.
    """
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise ConfigError(f"Video {path}: expected the suffix .mp4.", hint="Give a folder instead to write PNG files.")
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        raise ConfigError(f"Video {path}: there are no frames to write.")
    even = _even(first, iterator)
    with atomic_path(path) as temporary:
        writer = _write_ffmpeg if importlib.util.find_spec("imageio_ffmpeg") else _write_opencv
        return writer(temporary, even, fps)


def _even(first: np.ndarray, rest: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    height, width = first.shape[0] // 2 * 2, first.shape[1] // 2 * 2
    yield np.ascontiguousarray(first[:height, :width])
    for frame in rest:
        yield np.ascontiguousarray(frame[:height, :width])


def _write_ffmpeg(path: Path, frames: Iterator[np.ndarray], fps: int) -> int:
    import imageio_ffmpeg

    first = next(frames)
    height, width = first.shape[:2]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(fps), "-i", "-"]
    # yuv420p is what every player decodes; faststart lets a browser begin before it has all of the file.
    command += ["-c:v", "libx264", "-crf", "18", "-pix_fmt", "yuv420p", "-movflags", "+faststart", str(path)]
    count = 0
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        process.stdin.write(first.tobytes())
        count = 1
        for frame in frames:
            process.stdin.write(frame.tobytes())
            count += 1
        _, message = process.communicate()
    except BrokenPipeError:
        message = process.stderr.read()
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        with contextlib.suppress(BrokenPipeError):  # what was still in the buffer
            process.stdin.close()
        process.stderr.close()
    if process.returncode != 0:
        raise FormatError(f"ffmpeg could not write the video: {message.decode(errors='replace').strip()}")
    return count


def _write_opencv(path: Path, frames: Iterator[np.ndarray], fps: int) -> int:
    import cv2

    first = next(frames)
    height, width = first.shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), fps, (width, height))
    if not writer.isOpened():
        raise FormatError("OpenCV could not open a video encoder.", hint='Install one: pip install "splatinit[video]"')
    try:
        writer.write(cv2.cvtColor(first, cv2.COLOR_RGB2BGR))
        count = 1
        for frame in frames:
            writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
            count += 1
    finally:
        writer.release()
    # OpenCV tells nobody what became of its writing.
    film = cv2.VideoCapture(str(path))
    written = int(film.get(cv2.CAP_PROP_FRAME_COUNT)) if film.isOpened() else 0
    film.release()
    if written != count:
        raise FormatError(
            f"OpenCV could not write the video: {written} of {count} frames can be read.",
            hint="Look whether the disk is full.",
        )
    return count
