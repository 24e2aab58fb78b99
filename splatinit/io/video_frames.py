"""Videos: of each window of time the sharpest frame, decoded once and kept as PNG files in the user's cache.

OpenCV decodes (with ffmpeg inside; on every platform it is a dependency already). What of it is believed: pixels,
times of frames and the rotation in the file's metadata. What is not: the number of frames and the frame rate, which
are wrong for variable frame rates and truncated files; windows are windows of time, and the frames are counted while
they are decoded.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..errors import FormatError, NoImages, OutputError, SceneError
from ..progress import Progress, Silent
from ..types import ImageSet
from .folders import atomic_folder, cache_folder, require_space
from .images import ImageFile, list_images
from .read import ReadConfig, assemble
from .scenefiles import IMAGE_FOLDERS

SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".avi", ".webm")
FPS, FEWEST, MOST = 2.0, 40, 300  # where the user asks for nothing: frames a second, and frames in all

_VERSION = 1  # grows when the same video gives other frames, so that old caches are not taken for new
_INDEX = "index.json"
# Sharpness is judged at this size (px, longer side): about what training sees, and noise is averaged out.
_JUDGED = 960
# Pictures are compared at this size; moved by less than _STILL px of it (1/640 of the picture), they are the same:
# static shots with noise of 10 grey levels in H.264 measured 0.03 to 0.22 px, a shift of 1/640 0.32 px and more.
_COMPARED = 160
_STILL = 0.25
_FLAT = 2.0  # grey levels; a picture with a smaller standard deviation is black, or the inside of a pocket
_LONGEST_GAP = 10.0  # s; a longer step between two frames is a damaged time stamp
_PNG_BYTES = 1.6  # a pixel of a grainy 4K frame (measured), to ask for space before it is needed
_WRITERS = 2  # frames being compressed while the next ones are decoded; each holds one frame in memory


# ------------------------------------------------------------------------------------------------------------- reader
def is_video(path: Path) -> bool:
    """A file with the suffix of a video, not hidden (macOS leaves ``._name.mov`` beside each file)."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def detect(path: Path) -> bool:
    """A video file, or a folder with videos and no photos in it (nor in the folders where photos are looked for)."""
    if path.is_file():
        return is_video(path)
    if not path.is_dir() or not _videos(path):
        return False
    return not list_images(path) and not any(
        list_images(path / name, recursive=True) for name in IMAGE_FOLDERS if (path / name).is_dir()
    )


def read(path: Path, config: ReadConfig, progress: Progress = Silent()) -> ImageSet:
    """Read a video file, or the one video of a folder: ``config.frames`` frames, or ``config.fps`` a second.

    The frames stay in the cache (SPLATINIT_CACHE, else ~/.cache/splatinit), so that the next reading only looks there.

    Args:
        progress: is told how many frames are decoded and kept, within the stage that is under way.

    Raises:
        SceneError: a folder with no video, or with several.
        FormatError: not a video, too large a picture, or no frame of it decodes.
        NoImages: the picture never changes, so that fewer than two frames are left.
        OutputError: the cache cannot be written.
    """
    clip = _clip(path)
    folder = cache_folder("frames") / _key(clip, config)
    kept = _Kept.load(folder)
    if kept is None:
        kept = _extract(clip, config, folder, progress)
    if len(kept.frames) < 2:
        why = "; ".join(kept.notes) or "there are no more"
        raise NoImages(
            f"{clip}: {len(kept.frames)} of {kept.decoded} frames is left ({why}); a scene needs pictures from several "
            "places.",
            hint="Walk around the scene while you film it.",
        )
    photos = [
        ImageFile(name=name, path=folder / name, width=kept.width, height=kept.height, file_alpha=False)
        for name in kept.frames
    ]
    return assemble(
        root=path,
        format="video",
        photos=photos,
        cameras={},
        config=config,
        notes=(f"read as video: {clip.name}, {kept.summary}", *kept.notes),
    )


def _videos(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if is_video(path))


def _clip(path: Path) -> Path:
    if not path.is_dir():
        return path
    videos = _videos(path)
    if len(videos) == 1:
        return videos[0]
    if not videos:
        raise SceneError(f"{path}: no video in the folder; expected one of {', '.join(SUFFIXES)}.")
    names = ", ".join(video.name for video in videos[:5]) + (", …" if len(videos) > 5 else "")
    raise SceneError(
        f"{path}: {len(videos)} videos ({names}); expected one.",
        hint="Give one of the files, or join the clips first.",
    )


# -------------------------------------------------------------------------------------------------------------- cache
@dataclass(frozen=True)
class _Kept:
    """What a cache folder holds, and its index file says.

    Attributes:
        frames: file name → bytes, in order of time; the name carries the number of the frame in the video.
        width, height: px, upright.
        decoded: frames of the video in all.
        summary, notes: what the reader says about them.
    """

    frames: dict[str, int]
    width: int
    height: int
    decoded: int
    summary: str
    notes: tuple[str, ...]

    @classmethod
    def load(cls, folder: Path) -> _Kept | None:
        """None where there is nothing, or not all that the index promises: then it is made again."""
        try:
            data = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
            kept = cls(**{**data, "notes": tuple(data["notes"])})
            whole = all((folder / name).stat().st_size == size for name, size in kept.frames.items())
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None
        return kept if whole else None

    def save(self, folder: Path) -> None:
        (folder / _INDEX).write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")


def _key(clip: Path, config: ReadConfig) -> str:
    """Names the cache folder: a hash of the video's content (its size and 64 samples) and of what is asked for."""
    digest = hashlib.sha256(repr((_VERSION, config.frames, config.fps)).encode())
    try:
        size = clip.stat().st_size
        digest.update(str(size).encode())
        with open(clip, "rb") as file:
            for part in range(64):
                file.seek(max(0, size - (1 << 16)) * part // 63)
                digest.update(file.read(1 << 16))
    except OSError as error:
        raise FormatError(f"{clip}: cannot be read ({error.strerror}).", path=clip) from error
    return digest.hexdigest()[:24]


def _extract(clip: Path, config: ReadConfig, folder: Path, progress: Progress) -> _Kept:
    """Fill the cache folder. What stood there and was damaged is replaced."""
    with _open(clip) as capture:
        stream = _Stream.of(clip, capture, config)
    shutil.rmtree(folder, ignore_errors=True)
    try:
        with atomic_folder(folder) as temporary:
            kept = _choose(stream, config, temporary, progress)
            kept.save(temporary)
    except OutputError:
        other = _Kept.load(folder)  # a second process that read the same video was faster
        if other is None:
            raise
        return other
    return kept


# ----------------------------------------------------------------------------------------------------------- decoding
@dataclass(frozen=True)
class _Stream:
    """What the header of a video says. ``width`` × ``height`` px are upright, with square pixels.

    Attributes:
        turn: degrees clockwise that make the picture upright: 0, 90, 180 or 270.
        stretched: (width, height) px with square pixels before the turn, or None where they are square.
        fps, promised: frames a second, and seconds in all; only a first guess. promised is None where nothing is said.
        frame_count: the promised number of frames; 0 where nothing is said.
    """

    clip: Path
    width: int
    height: int
    turn: int
    stretched: tuple[int, int] | None
    fps: float
    promised: float | None
    frame_count: float

    @classmethod
    def of(cls, clip: Path, capture: cv2.VideoCapture, config: ReadConfig) -> _Stream:
        width, height = (round(capture.get(key)) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        if width < 1 or height < 1:
            raise FormatError(f"{clip}: the video says that its pictures are {width}×{height} px.", path=clip)
        config.check_pixels(clip, width, height)
        above, below = capture.get(cv2.CAP_PROP_SAR_NUM), capture.get(cv2.CAP_PROP_SAR_DEN)
        aspect = above / below if above > 0 and below > 0 else 1.0
        stretched = None
        if 1 / 4 < aspect < 4 and abs(aspect - 1) > 0.005:
            # The longer way, so that no pixel is lost.
            stretched = (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))
            width, height = stretched
        turn = round(capture.get(cv2.CAP_PROP_ORIENTATION_META) / 90) * 90 % 360
        if turn in (90, 270):
            width, height = height, width
        fps = capture.get(cv2.CAP_PROP_FPS)
        fps = fps if math.isfinite(fps) and 1e-3 < fps < 1e4 else 30.0
        count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        count = count if math.isfinite(count) and count >= 1 else 0.0
        return cls(clip, width, height, turn, stretched, fps, count / fps if count else None, count)

    def upright(self, frame: np.ndarray) -> np.ndarray:
        if self.stretched is not None:
            frame = cv2.resize(frame, self.stretched, interpolation=cv2.INTER_CUBIC)
        turns = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}
        return cv2.rotate(frame, turns[self.turn]) if self.turn else frame


def _choose(stream: _Stream, config: ReadConfig, folder: Path, progress: Progress) -> _Kept:
    """Fill ``folder`` with the frames: one pass where the header told the truth, else a second one that knows it."""
    seconds = stream.promised
    if seconds is None and config.fps is None:
        seconds = _sweep(stream, 1.0, None, progress).seconds or 1.0
    sweep, length = _fill(stream, config, seconds, folder, progress)
    if config.fps is None and abs(sweep.seconds - seconds) > max(0.02 * seconds, 1.5 / stream.fps):
        for name in sweep.files:
            (folder / name).unlink()
        sweep, length = _fill(stream, config, sweep.seconds, folder, progress)
    return _described(stream, config, sweep, length)


def _fill(
    stream: _Stream, config: ReadConfig, seconds: float | None, folder: Path, progress: Progress
) -> tuple[_Sweep, float]:
    """One pass over a video that is believed to last ``seconds``, and the length of its windows in s."""
    if config.fps is not None:
        length, most = 1.0 / config.fps, None
        expected = FEWEST if seconds is None else seconds * config.fps
    else:
        most = expected = config.frames or min(max(round(FPS * seconds), FEWEST), MOST)
        length = seconds / most
    frames = min(expected, stream.frame_count or expected)
    require_space(
        folder.parent,
        frames * stream.width * stream.height * _PNG_BYTES,
        f"keeping {frames:.0f} frames of {stream.clip.name}",
        "Ask for fewer --frames, free some space, or name another folder in SPLATINIT_CACHE.",
    )
    sweep = _sweep(stream, length, folder, progress, most)
    if sweep.decoded == 0:
        raise _not_a_video(stream.clip, "no frame of it decodes")
    return sweep, length


def _described(stream: _Stream, config: ReadConfig, sweep: _Sweep, length: float) -> _Kept:
    summary = (
        f"{len(sweep.files)} of {sweep.decoded} frames (the sharpest of each {length:.3g} s), "
        f"{stream.width}×{stream.height} px"
    )
    if stream.turn:
        summary += f", turned by {stream.turn}°"
    if stream.stretched:
        summary += ", stretched to square pixels"
    notes = []
    left_out = {
        "the picture stands still": sweep.still,
        "it is black or of one colour": sweep.flat,
    }
    if any(left_out.values()):
        reasons = " and ".join(f"in {count} {reason}" for reason, count in left_out.items() if count)
        notes.append(f"{sum(left_out.values())} windows of {length:.3g} s were left out: {reasons}")
    elif config.frames is not None and len(sweep.files) < config.frames:
        notes.append(f"{config.frames} frames were asked for, and the video has {sweep.decoded}")
    if sweep.damaged:
        notes.append(f"{sweep.damaged} frames are damaged or of another size, and were skipped")
    if stream.promised and sweep.seconds < 0.95 * stream.promised and sweep.decoded < 0.95 * stream.frame_count:
        notes.append(
            f"the file promises {stream.promised:.1f} s, but only {sweep.seconds:.1f} s decode: it may be truncated"
        )
    return _Kept(sweep.files, stream.width, stream.height, sweep.decoded, summary, tuple(notes))


@dataclass
class _Sweep:
    """The course of one pass over a video: files kept (name → bytes), frames decoded, seconds from the first frame to
    the end of the last, and what was left out: damaged frames, windows that are flat or show what the last one did."""

    files: dict[str, int]
    decoded: int = 0
    seconds: float = 0.0
    damaged: int = 0
    flat: int = 0
    still: int = 0


@dataclass
class _Best:
    """The sharpest frame of a window so far."""

    sharpness: float
    number: int
    frame: np.ndarray
    small: np.ndarray


def _sweep(stream: _Stream, length: float, folder: Path | None, progress: Progress, most: int | None = None) -> _Sweep:
    """One pass: of each window of ``length`` s the sharpest frame is written to ``folder``.

    Args:
        folder: None to measure the time only.
        most: number of windows expected. A video that runs on past its promise is only measured from there on.
    """
    sweep = _Sweep({})
    window, best, last, flat = 0, None, None, False
    shape: tuple[int, ...] | None = None
    spare: np.ndarray | None = None
    pending: deque[tuple[str, Future[int]]] = deque()

    def close_window() -> None:
        """Write the best frame of the window that ended, unless it shows nothing new."""
        nonlocal best, last
        if best is None:
            sweep.flat += flat
        elif last is not None and _moved(best.small, last) < _STILL:
            sweep.still += 1
        else:
            while len(pending) >= _WRITERS:
                name, size = pending.popleft()
                sweep.files[name] = size.result()
            name = f"frame_{best.number:06d}.png"
            pending.append((name, pool.submit(_write, stream, best.frame, folder / name)))
            last = best.small
        best = None

    with _open(stream.clip) as capture, ThreadPoolExecutor(_WRITERS) as pool:
        for number, time in _frames(capture, stream.fps):
            sweep.decoded, sweep.seconds = number + 1, time + 1.0 / stream.fps
            progress.advance(sweep.decoded, kept=len(sweep.files) + len(pending))
            now = int(time / length + 1e-6)
            # The last frame's share of the time may lie beyond the end.
            over = most is not None and now >= most and time >= length * most + 1.0 / stream.fps
            if folder is None or over:
                continue
            if most is not None:
                now = min(now, most - 1)
            if now != window:
                close_window()
                window, flat = now, False
            good, frame = capture.retrieve(spare)
            if not good or frame is None or frame.ndim != 3 or (shape is not None and frame.shape != shape):
                sweep.damaged += 1
                continue
            shape, spare = frame.shape, frame
            judged = cv2.cvtColor(_reduced(frame, _JUDGED), cv2.COLOR_BGR2GRAY).astype(np.float32)
            small = _reduced(judged, _COMPARED)
            if small.std() < _FLAT:
                flat = True
                continue
            sharp = sharpness(judged)
            if best is None or sharp > best.sharpness:
                # The frame that was the best gives its memory to the next one.
                spare = best.frame if best is not None else None
                best = _Best(sharp, number, frame, small)
        if folder is not None:
            close_window()
        for name, size in pending:
            sweep.files[name] = size.result()
    return sweep


def _write(stream: _Stream, frame: np.ndarray, path: Path) -> int:
    """Write a frame as PNG; its size in bytes."""
    # Measured on a grainy 4K frame: 0.38 s and 12.8 MB; zlib's usual search takes twice as long for 1 % less.
    options = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY]
    data = cv2.imencode(".png", stream.upright(frame), options)[1]
    path.write_bytes(data)
    return len(data)


def _frames(capture: cv2.VideoCapture, fps: float) -> Iterator[tuple[int, float]]:
    """(number, seconds since the first frame) of every frame; ``capture.retrieve`` gives its pixels.

    Times only grow: where a time stamp goes back, stands still or leaps, the frame rate says how far.
    """
    number, time, stamp = 0, 0.0, None
    while capture.grab():
        now = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000.0
        if number:
            step = now - stamp if math.isfinite(now - stamp) else 0.0
            time += step if 0 < step <= max(_LONGEST_GAP, 2.0 / fps) else 1.0 / fps
        yield number, time
        number, stamp = number + 1, now


def _reduced(picture: np.ndarray, longest: int) -> np.ndarray:
    height, width = picture.shape[:2]
    factor = longest / max(width, height)
    if factor >= 1:
        return picture
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def sharpness(grey: np.ndarray) -> float:
    """How sharp a picture [h, w] float32 is: energy of the Laplacian over energy of the gradient, after a light blur.

    It is the mean squared spatial frequency of the edges, in px⁻²: a factor on all grey values (exposure) and the
    number of edges (what is in the picture) cancel, which they do not in the variance of the Laplacian. Measured on 22
    real photos with random motion blur up to 10 px, ten candidates each, exposures varying by ±35 %: the pick was
    blurred by 0.02 px more than the sharpest on average; by variance of the Laplacian 0.30 px, divided by the variance
    of the grey values 0.03 px; with noise of 6 grey levels 0.05, 0.19 and 0.23 px.
    """
    grey = cv2.GaussianBlur(grey, (0, 0), 0.8)
    dx = cv2.Sobel(grey, cv2.CV_32F, 1, 0, scale=1 / 8)
    dy = cv2.Sobel(grey, cv2.CV_32F, 0, 1, scale=1 / 8)
    gradient = float((dx * dx + dy * dy).mean())
    return float(cv2.Laplacian(grey, cv2.CV_32F).var()) / max(gradient, 1e-3)


def _moved(picture: np.ndarray, other: np.ndarray) -> float:
    """About how many px lie between two small pictures: their mean difference over their mean gradient; exposure
    cancels."""
    if picture.shape != other.shape:
        return math.inf
    a, b = ((each - each.mean()) / max(float(each.std()), 1e-3) for each in (picture, other))
    gradient = (np.abs(np.diff(a, axis=0)).mean() + np.abs(np.diff(a, axis=1)).mean()) / 2
    return float(np.abs(a - b).mean() / max(gradient, 1e-6))


# ------------------------------------------------------------------------------------------------------------ opening
@contextmanager
def _open(clip: Path) -> Iterator[cv2.VideoCapture]:
    """The video, opened for decoding as it is stored (not turned). Raises FormatError when it is none."""
    _check_signature(clip)
    with _quiet():
        capture = cv2.VideoCapture(str(clip.resolve()), cv2.CAP_FFMPEG)
    try:
        if not capture.isOpened():
            raise _not_a_video(clip, "its index is damaged or missing, or no decoder knows it")
        # Backends and versions differ in who turns the picture; so nobody does, and the metadata is applied here.
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
        yield capture
    except cv2.error as error:
        raise _not_a_video(clip, f"OpenCV gave up: {error.err}") from error
    finally:
        capture.release()


def _check_signature(clip: Path) -> None:
    """Refuse what is no video container before ffmpeg sees it: it also follows playlists to other files."""
    try:
        with open(clip, "rb") as file:
            start = file.read(12)
    except OSError as error:
        raise FormatError(f"{clip}: cannot be read ({error.strerror}).", path=clip) from error
    quicktime = start[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
    if not (quicktime or start[:4] == b"\x1aE\xdf\xa3" or (start[:4] == b"RIFF" and start[8:12] == b"AVI ")):
        raise _not_a_video(clip, "it starts like none")


def _not_a_video(clip: Path, reason: str) -> FormatError:
    return FormatError(
        f"{clip}: not a video that can be read ({reason}); expected MP4, QuickTime, Matroska, WebM or AVI.",
        hint="Copy the file again, or convert it to MP4 (H.264).",
        path=clip,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps OpenCV and ffmpeg from writing about damaged files to the terminal: we say it in one sentence."""
    name = "OPENCV_FFMPEG_LOGLEVEL"  # read once, when OpenCV first uses ffmpeg
    os.environ.setdefault(name, "-8")
    logging: Any = getattr(cv2.utils, "logging", None)
    before = logging.setLogLevel(logging.LOG_LEVEL_ERROR) if logging else None
    try:
        yield
    finally:
        if logging:
            logging.setLogLevel(before)
