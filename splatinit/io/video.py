"""Writing the frames of a camera path: H.264 by imageio-ffmpeg where it is installed, else MPEG-4 by OpenCV; or PNG."""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import os
import signal
import subprocess
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import ConfigError, FormatError
from .atomic import atomic_path
from .images import write_png

# At 960×540, veryfast with crf 17 takes 14 to 20 ms of one core for a frame in place of 40 to 55 with x264's default
# (medium) and crf 18, for files 7 % larger and a luma PSNR that differs by −0.3 dB (a trained photo scene, 47.6 dB) and
# +0.1 dB (noise, 44.0 dB). With crf 18, too, veryfast is 0.6 to 0.85 dB below medium for the same size.
QUALITY = ("-preset", "veryfast", "-crf", "17")
_PIPE = 1 << 20  # bytes: at the usual 64 KiB, both ends of the pipe take turns 24 times a frame
_NO_FFMPEG = 'Install it again: pip install --force-reinstall "imageio-ffmpeg". IMAGEIO_FFMPEG_EXE names another one.'
PNG_LEVEL = 1


def codec() -> str:
    """The codec that :func:`write_video` uses here."""
    return "H.264" if importlib.util.find_spec("imageio_ffmpeg") else "MPEG-4 (OpenCV)"


def write_video(path: Path, frames: Iterable[np.ndarray], fps: int, *, threads: int | None = None) -> int:
    """Write frames [h, w, 3] uint8 RGB, all of one size, as ``path`` (.mp4), atomically; returns how many.

    Odd sizes lose their last row or column, because video stores colour at half resolution. The H.264 encoder is a
    process of its own, with ``threads`` threads (as many as it likes if None).

    Raises:
        ConfigError: another suffix, no frames, or frames of a single row or column.
        FormatError: the encoder is missing, cannot run or fails.
        OutputError: the file cannot be written, such as on a full disk.
    """
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise ConfigError(f"Video {path}: expected the suffix .mp4.", hint="Give a folder instead to write PNG files.")
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        raise ConfigError(f"Video {path}: there are no frames to write.")
    height, width = even_size(*first.shape[:2])
    if not (height and width):
        raise ConfigError(
            f"Video {path}: frames of {first.shape[1]}×{first.shape[0]} px; expected at least 2×2.",
            hint="Give a folder instead to write PNG files, or a larger --max-size.",
        )
    even = (np.ascontiguousarray(frame[:height, :width]) for frame in chain((first,), iterator))
    with atomic_path(path) as temporary:
        if importlib.util.find_spec("imageio_ffmpeg"):
            return _write_ffmpeg(temporary, even, width, height, fps, threads)
        return _write_opencv(temporary, even, width, height, fps)


def even_size(height: int, width: int) -> tuple[int, int]:
    """The size that a video of frames of this size has."""
    return height // 2 * 2, width // 2 * 2


def _write_ffmpeg(
    path: Path, frames: Iterator[np.ndarray], width: int, height: int, fps: int, threads: int | None
) -> int:
    command = [_ffmpeg(), "-y", "-loglevel", "error"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(fps), "-i", "-"]
    # What HD and the web take for granted, and said in the file, so that no player has to guess.
    command += ["-vf", "scale=out_color_matrix=bt709:out_range=tv,setparams=colorspace=bt709"]
    command[-1] += ":color_primaries=bt709:color_trc=bt709"
    command += ["-c:v", "libx264", *QUALITY, *(("-threads", str(threads)) if threads else ())]
    # yuv420p is what every player decodes; faststart lets a browser begin before it has all of the file.
    command += ["-pix_fmt", "yuv420p", "-movflags", "+faststart", str(path)]
    count = 0
    # Errors go to a file: nobody empties a pipe while frames are written, and a full one would stop the encoder.
    with tempfile.TemporaryFile() as errors:
        try:
            # In a session of its own, Ctrl-C reaches us alone, and not the encoder first as a reason to end.
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )
        except OSError as error:
            raise FormatError(
                f"ffmpeg cannot be started: {command[0]}: {error.strerror}.", hint=_NO_FFMPEG, path=Path(command[0])
            ) from error
        _widen(process.stdin)
        try:
            with contextlib.suppress(BrokenPipeError):  # it ended, and has said why
                for frame in frames:
                    process.stdin.write(frame.data)
                    count += 1
                process.stdin.close()
            process.wait()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            with contextlib.suppress(BrokenPipeError):  # what was still in the buffer
                process.stdin.close()
        errors.seek(0)
        message = errors.read().decode(errors="replace").strip()
    if process.returncode != 0:
        raise _failure(process.returncode, message)
    return count


def _widen(pipe: BinaryIO) -> None:
    """Have a pipe hold more, where the system can and may: Linux, within the user's limit."""
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE)


def _ffmpeg() -> str:
    import imageio_ffmpeg

    try:
        return imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise FormatError(f"The package imageio-ffmpeg has no ffmpeg: {error}", hint=_NO_FFMPEG) from error


def _failure(code: int, message: str) -> Exception:
    """The error for an encoder that ended with ``code``: that of the disk where it is the disk's."""
    if hasattr(signal, "SIGXFSZ") and code == -signal.SIGXFSZ:
        return OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS):
        if os.strerror(number) in message:
            return OSError(number, os.strerror(number))
    said = message or f"it ended with code {code} and said nothing"
    return FormatError(f"ffmpeg could not write the video: {said}", hint=_NO_FFMPEG if "encoder" in message else None)


def _write_opencv(path: Path, frames: Iterator[np.ndarray], width: int, height: int, fps: int) -> int:
    import cv2

    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), fps, (width, height))
    if not writer.isOpened():
        raise FormatError("OpenCV could not open a video encoder.", hint='Install one: pip install "splatinit[video]"')
    try:
        count = 0
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


def write_frames(files: Iterable[Path], frames: Iterable[np.ndarray], *, threads: int = 1) -> list[Path]:
    """Write frames [h, w, 3] uint8 as PNG ``files``, each atomically, by ``threads`` threads; returns the files.

    At most twice as many frames as threads are being written or wait to be. Raises OutputError where a file cannot be
    written.
    """
    written: list[Path] = []
    writing: deque[Future[None]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="splatinit-png")
    try:
        for file, frame in zip(files, frames, strict=True):
            while len(writing) >= 2 * threads:
                writing.popleft().result()
            writing.append(pool.submit(write_png, file, frame, level=PNG_LEVEL))
            written.append(file)
        while writing:
            writing.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
    return written
