"""Every error that splatinit raises for something a user can cause.

    SplatinitError                 base: the command line prints it without a traceback and exits with 2
    ├── ConfigError                an unknown key or preset, a bad value, an output folder of another config
    │   └── MissingExtra           a part was selected whose optional package is not installed
    ├── SceneError                 the input folder cannot become a scene
    │   ├── NoImages               no readable photo, or too few
    │   ├── NoPoses                cameras are missing where they were required
    │   ├── BadPoses               a pose or an intrinsic is not finite, singular or not a rotation
    │   ├── TooFewMatches          structure from motion could not register enough photos
    │   └── BadPoints              a point cloud is empty, not finite or of an unusable shape
    ├── FormatError                a file is not what its name says (truncated, wrong header, lying counts)
    ├── ShapeError                 an array has the wrong shape, dtype, device or layout
    ├── OutputError                an output file or folder cannot be written: a full disk, a vanished mount
    │   └── FolderInUse            another process works in the output folder
    ├── WeightsMissing             a network's published weights are neither on this machine nor to be fetched
    ├── DataMissing                a benchmark's scene is neither on this machine nor to be fetched
    ├── TrainingError              training cannot go on (no Gaussians left to show anything, loss not finite)
    └── BackendError               a rasterization backend cannot run
        ├── NotBuilt               its native library is not in this installation
        └── OutOfMemory            it would not fit

Message form: *what failed, where · got · expected · what to do*. Context is kept as attributes, so that a script
can act on it without parsing the text.
"""

from __future__ import annotations

import re

_MESSAGE_LIMIT = 2000  # characters; a file can bring names of megabytes
# What a terminal obeys instead of showing it: control characters, line ends, changes of the reading direction; and
# halves of surrogate pairs, which cannot be printed at all.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str, keep: str = "") -> str:
    """``text`` with every character that a terminal would obey shown as its escape, except those in ``keep``.

    Names come from files that other people wrote: they must not be able to recolour, erase or forge what we print.
    """
    return _UNPRINTABLE.sub(lambda m: m[0] if m[0] in keep else m[0].encode("unicode_escape").decode(), text)


def _shown(text: str) -> str:
    text = printable(text)
    if len(text) <= _MESSAGE_LIMIT:
        return text
    return f"{text[: _MESSAGE_LIMIT * 2 // 3]} […] {text[-_MESSAGE_LIMIT // 3 :]}"


class SplatinitError(Exception):
    """Base of all errors a user can cause.

    Control characters in the message are shown as escapes, and very long ones are cut in the middle.

    Args:
        message: what failed and where, what was got and what was expected, in one or two sentences.
        hint: what to do about it (printed on a line of its own), or None.
        context: anything a script may want to read back; stored as attributes.
    """

    def __init__(self, message: str, *, hint: str | None = None, **context: object) -> None:
        message = _shown(message)
        super().__init__(message)
        self.message = message
        self.hint = None if hint is None else _shown(hint)
        self.context = context
        for key, value in context.items():
            setattr(self, key, value)

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n  {self.hint}"


class ConfigError(SplatinitError):
    """An unknown key or preset, a value out of range, or an output folder that belongs to another config."""


class MissingExtra(ConfigError):
    """A part was selected whose optional package is not installed; the hint is the install command."""


class SceneError(SplatinitError):
    """The input folder cannot become a scene."""


class NoImages(SceneError):
    """No readable photo was found, or fewer than the step needs."""


class NoPoses(SceneError):
    """Cameras are missing where they were required."""


class BadPoses(SceneError):
    """A pose or an intrinsic is not finite, singular, or not a rigid motion."""


class TooFewMatches(SceneError):
    """Structure from motion could not register enough photos."""


class BadPoints(SceneError):
    """A point cloud is empty, not finite, or of an unusable shape."""


class FormatError(SplatinitError):
    """A file is not what its name says: truncated, wrong header, counts that lie."""


class OutputError(SplatinitError):
    """An output file or folder cannot be written: no space, no permission, or its disk is gone."""


class FolderInUse(OutputError):
    """Another process, or another part of this one, works in the output folder."""


class ShapeError(SplatinitError):
    """An array has the wrong shape, dtype, device or memory layout."""


class WeightsMissing(SplatinitError):
    """A network's published weights are not on this machine and could not be fetched."""


class DataMissing(SplatinitError):
    """A public data set is not on this machine and could not be fetched."""


class TrainingError(SplatinitError):
    """Training cannot go on."""


class BackendError(SplatinitError):
    """A rasterization backend cannot run."""


class NotBuilt(BackendError):
    """The backend's native library is not in this installation."""


class OutOfMemory(BackendError):
    """What was asked for does not fit into memory."""
