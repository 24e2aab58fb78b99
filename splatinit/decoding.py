"""Photos decoded in threads, ahead of their use, within a bound on memory that does not depend on their number.

A decoded photo is at the size of its camera and lives in one of three places: in memory, up to ``cache_bytes``; in a
file without a name on the disk of the run, while that has room; nowhere, and is then decoded each time it comes near.
Where it lives, and which thread decoded it when, changes the time that a training takes and no number of it.

Pillow and OpenCV let other threads run while they decode, so threads are enough. All of a photo is decoded and then
averaged down. Letting the JPEG decoder itself give a smaller image (its scaled DCT) would take half of the time: 12
megapixels to 800×600 in 47 in place of 71 ms (4:2:0), with 33 in place of 97 MB; but it gives another image, 1.1 to 1.6
of 255 levels away on average and up to 13, and photos are also the ruler.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType

import numpy as np

from . import environment
from .errors import OutOfMemory, SceneError, ShapeError, SplatinitError
from .types import Photo, Pixels, View

WORKERS = 4  # threads at most: beyond that the disk or the memory for photos in decoding is the limit
# Bytes of photos that are being decoded at one time, as :func:`decoding_bytes` counts; a larger one is decoded alone.
IN_DECODING = 400 * 2**20
AHEAD = 8  # views that wait decoded, at most; and
AHEAD_BYTES = 64 * 2**20  # what they take
# Of the disk's free space, the share that spilled photos may take, and what they leave in any case: checkpoints come.
DISK_SHARE = 0.5
DISK_RESERVE = 2**30


def decoded(view: View) -> Pixels:
    """The view's photo as contiguous, writable arrays; without the layers that say nothing.

    alpha is None where all of it is opaque, mask is None where every pixel counts.

    Raises:
        ShapeError: a layer has not the size of the view's camera.
        SceneError: the file is gone, or its disk is.
        OutOfMemory: there is no memory to decode it.
        SplatinitError: it cannot be decoded, see the photo's ``load``.
    """
    try:
        return _layers(view)
    except MemoryError as error:
        raise OutOfMemory(
            f"Photo '{view.name}' ({view.photo.width}×{view.photo.height} px) could not be decoded: no memory.",
            hint="Close other programs, or make the photo smaller.",
            view=view.name,
        ) from error
    except (OSError, SplatinitError) as error:
        # Files that cannot be decoded are named by their reader. One that is no longer there is another matter: it was
        # there when the scene was read.
        reason = _gone(error)
        if reason is None:
            raise
        raise SceneError(
            f"Photo '{view.name}' was there when the scene was read and cannot be read now: {reason} "
            f"({view.photo.path}).",
            hint="Bring the file, or the disk that it lies on, back.",
            view=view.name,
        ) from error


def _layers(view: View) -> Pixels:
    pixels = view.pixels()
    size = (view.camera.height, view.camera.width)
    layers = {"rgb": (pixels.rgb, (*size, 3)), "alpha": (pixels.alpha, size), "mask": (pixels.mask, size)}
    for name, (layer, expected) in layers.items():
        if layer is not None and layer.shape != expected:
            raise ShapeError(
                f"Photo '{view.name}': {name} was decoded to {list(layer.shape)}, its camera says {list(expected)}."
            )
    alpha = None if pixels.alpha is None or (pixels.alpha == 255).all() else pixels.alpha
    mask = None if pixels.mask is None or (pixels.mask == 255).all() else pixels.mask
    plain = (None if layer is None else np.require(layer, np.uint8, "CWO") for layer in (pixels.rgb, alpha, mask))
    return Pixels(*plain)


def shrunk(pixels: Pixels, width: int, height: int) -> Pixels:
    """A smaller copy by area averages, as photos are read: colours weighted by alpha; a pixel counts only if nothing
    masked went into it.

    Args:
        width, height: px, at most those of ``pixels``.
    """
    import cv2

    def averaged(layer: np.ndarray) -> np.ndarray:
        return cv2.resize(layer, (width, height), interpolation=cv2.INTER_AREA)

    mask = None
    if pixels.mask is not None:
        # In floats: in 8 bit a trace of a masked pixel would round to none.
        masked = averaged((pixels.mask != 255).astype(np.float32))
        mask = np.where(masked > 0, np.uint8(0), np.uint8(255))
    if pixels.alpha is None:
        return Pixels(averaged(pixels.rgb), mask=mask)
    weight = cv2.merge([pixels.alpha] * 3)
    alpha = averaged(pixels.alpha.astype(np.float32))
    rgb = averaged(cv2.multiply(pixels.rgb, weight, dtype=cv2.CV_32F)) / np.maximum(alpha, 1e-3)[..., None]
    return Pixels(np.rint(rgb.clip(0, 255)).astype(np.uint8), np.rint(alpha).astype(np.uint8), mask)


def _gone(error: BaseException | None) -> str | None:
    """What the system said about the file, where it was the system that failed; None where the content was wrong."""
    while error is not None:
        # Pillow raises OSError for damaged files too, but without a number.
        if isinstance(error, OSError) and error.errno is not None:
            return error.strerror or str(error)
        error = error.__cause__
    return None


def decoding_bytes(photo: Photo) -> int:
    """Memory that decoding one photo takes at its peak, roughly and rather too much.

    Measured for opaque JPEGs: 8 bytes per pixel of the file, 12 where EXIF turns it. A lens adds 3 (and what all photos
    of one camera share), a mask 10, averaging with alpha 28.
    """
    return photo.width * photo.height * (16 + 10 * photo.has_mask + 28 * photo.has_alpha)


def decoded_bytes(view: View) -> int:
    """Memory that the view's decoded photo takes, at most."""
    return view.camera.width * view.camera.height * (3 + view.photo.has_alpha + view.photo.has_mask)


def most_bytes(views: Sequence[View], cache_bytes: int) -> int:
    """Memory that a :class:`Decoder` of ``views`` takes, at most."""
    if not views:
        return 0
    kept = min(cache_bytes, sum(decoded_bytes(view) for view in views))
    waiting = _ahead(views) * max(decoded_bytes(view) for view in views)
    one = max(decoding_bytes(view.photo) for view in views)
    return kept + waiting + max(one, min(_workers() * one, IN_DECODING))


def _workers() -> int:
    return max(1, min(WORKERS, environment.wanted_threads() or environment.cores()))


def _ahead(views: Sequence[View]) -> int:
    """How many views may wait decoded."""
    largest = max((decoded_bytes(view) for view in views), default=1)
    return max(1, min(AHEAD, AHEAD_BYTES // largest))


class Decoder:
    """The decoded photos of ``views``, by index.

    Use it as a context manager: leaving it stops its threads (a photo in decoding is finished, the waiting ones are
    not begun) and gives the file on disk back.

    Args:
        cache_bytes: for decoded photos that stay in memory. What comes first stays: where the order is random, no other
            choice is met again more often.
        spill: folder on the disk where the others are kept; None: they are decoded each time. The file has no name
            there, so that nothing of it is left however the process ends.
    """

    def __init__(self, views: Sequence[View], *, cache_bytes: int = 0, spill: Path | None = None) -> None:
        self._views = views
        self._memory: dict[int, Pixels] = {}
        self._room = cache_bytes
        self._disk = None if spill is None else _Disk(spill)
        self._gate = _Gate(IN_DECODING)
        self._lock = threading.Lock()
        self._coming: dict[int, Future[Pixels]] = {}
        self._closed = False
        self._pool = ThreadPoolExecutor(_workers(), thread_name_prefix="splatinit-decode")
        self._ahead = _ahead(views)

    def get(self, index: int, upcoming: Iterable[int] = ()) -> Pixels:
        """The photo of view ``index`` (see :func:`decoded`; the arrays are not to be changed).

        Args:
            upcoming: the indices that will be asked for next, in this order; as many as there is room for are begun.

        Raises what :func:`decoded` does, when it is the photo's turn.
        """
        pixels, future = self._memory.get(index), self._coming.pop(index, None)
        if pixels is None and future is None:
            future = self._begin(index)
        if len(self._memory) < len(self._views):
            for other in islice(upcoming, self._ahead):
                if other != index and other not in self._memory and other not in self._coming:
                    self._coming[other] = self._begin(other)
        return future.result() if pixels is None else pixels

    def forget(self, index: int) -> None:
        """Give the memory of this photo back to others: it is kept elsewhere, and decoded again if it is asked for."""
        with self._lock:
            pixels = self._memory.pop(index, None)
            self._room += 0 if pixels is None else pixels.nbytes

    def still_to_keep(self) -> int:
        """Bytes of photos that memory has still to take, at most."""
        absent = sum(decoded_bytes(view) for index, view in enumerate(self._views) if index not in self._memory)
        return min(self._room, absent)

    def _begin(self, index: int) -> Future[Pixels]:
        return self._pool.submit(self._load, index)

    def _load(self, index: int) -> Pixels:
        """In a thread: read back, or decode and keep."""
        view = self._views[index]
        pixels = None if self._disk is None else self._disk.read(index)
        if pixels is not None:
            return pixels
        with self._gate.passed(decoding_bytes(view.photo)):
            if self._closed:
                raise CancelledError  # nobody waits for this photo any more
            pixels = decoded(view)
        with self._lock:
            stays = pixels.nbytes <= self._room
            if stays:
                self._room -= pixels.nbytes
                self._memory[index] = pixels
        if not stays and self._disk is not None:
            self._disk.write(index, pixels)
        return pixels

    def close(self) -> None:
        self._closed = True
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._coming.clear()
        self._memory.clear()
        if self._disk is not None:
            self._disk.close()

    def __enter__(self) -> Decoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def each_decoded(views: Sequence[View]) -> Iterator[tuple[View, Pixels]]:
    """Each view with its photo, decoded while the caller works on the ones before. Raises what :func:`decoded` does."""
    with Decoder(views) as decoder:
        for index, view in enumerate(views):
            yield view, decoder.get(index, range(index + 1, len(views)))


class _Gate:
    """Lets threads pass as long as what they bring together is at most ``budget``; one alone may bring more."""

    def __init__(self, budget: int) -> None:
        self._budget = self._free = budget
        self._changed = threading.Condition()

    @contextmanager
    def passed(self, size: int) -> Iterator[None]:
        size = min(size, self._budget)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= size)
            self._free -= size
        try:
            yield
        finally:
            with self._changed:
                self._free += size
                self._changed.notify_all()


@dataclass(frozen=True)
class _Place:
    """Where a photo's layers lie in the file, one after the other."""

    offset: int
    shapes: tuple[tuple[int, ...] | None, ...]  # of rgb, alpha, mask


class _Disk:
    """Decoded photos in a file without a name. It is a help, never a must: where it fails, photos are decoded again.

    Read with positioned reads rather than a memory map, whose pages would count as the memory of this process.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = None
        self._places: dict[int, _Place] = {}
        self._end = 0
        self._room: float | None = None  # bytes; None before the file is there
        self._lock = threading.Lock()

    def write(self, index: int, pixels: Pixels) -> None:
        layers = (pixels.rgb, pixels.alpha, pixels.mask)
        try:
            offset = self._reserve(pixels.nbytes)
            if offset is None:
                return
            position = offset
            for layer in layers:
                if layer is not None:
                    _write_all(self._file.fileno(), layer, position)
                    position += layer.nbytes
        except OSError:
            self._room = 0.0
            return
        shapes = tuple(None if layer is None else layer.shape for layer in layers)
        self._places[index] = _Place(offset, shapes)

    def _reserve(self, size: int) -> int | None:
        """Where ``size`` bytes may be written; None where the disk shall not be filled further."""
        with self._lock:
            if self._room is None:
                self._folder.mkdir(exist_ok=True)
                self._room = DISK_SHARE * shutil.disk_usage(self._folder).free
                self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115 (closed by close)
            if size > self._room or shutil.disk_usage(self._folder).free < DISK_RESERVE + size:
                return None
            offset = self._end
            self._end += size
            self._room -= size
            return offset

    def read(self, index: int) -> Pixels | None:
        place = self._places.get(index)
        if place is None:
            return None
        try:
            layers, position = [], place.offset
            for shape in place.shapes:
                layers.append(None if shape is None else _read_all(self._file.fileno(), shape, position))
                position += 0 if shape is None else layers[-1].nbytes
        except OSError:
            self._places.pop(index, None)
            return None
        return Pixels(*layers)

    def close(self) -> None:
        self._places.clear()
        if self._file is not None:
            self._file.close()


def _write_all(file: int, layer: np.ndarray, offset: int) -> None:
    data = memoryview(layer).cast("B")
    done = 0
    while done < len(data):
        done += os.pwrite(file, data[done:], offset + done)


def _read_all(file: int, shape: tuple[int, ...], offset: int) -> np.ndarray:
    layer = np.empty(shape, np.uint8)
    data = memoryview(layer).cast("B")
    done = 0
    while done < len(data):
        count = os.preadv(file, [data[done:]], offset + done)
        if count == 0:
            raise OSError("the file of decoded photos ends too early")
        done += count
    return layer
