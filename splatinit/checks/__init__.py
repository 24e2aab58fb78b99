"""The check of a scene before minutes are spent on it: questions to photos, poses, points and matches, and advice.

files     unreadable, truncated and identical files      looks     one pass over a sample: exposure, blur, features
photos    what the photos say by themselves              poses     what the cameras say by themselves
matches   which photos show the same things              epipolar  do the poses fit the photos, and what was meant
points    points and depth maps                          report    findings, levels, JSON
scene     the order of the questions
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..progress import Progress, Silent

if TYPE_CHECKING:
    from .report import CheckReport


def check(path: Path | str, config: Any = None, *, progress: Progress = Silent(), **settings: Any) -> CheckReport:
    """What a scene is worth before anything is computed: format, photos, poses, overlap, and what to do about it.

    At most 200 photos are decoded and 120 compared, evenly chosen, the same ones every time.

    Args:
        path: a folder of photos or a scene.
        config: a :class:`splatinit.io.read.ReadConfig`; or ``settings``, its fields (max_size, format, …). Blur and
            sizes are judged at the working size.

    Raises:
        SplatinitError: the scene cannot be read, as :func:`splatinit.read` would say it; where unreadable image files
            are the reason, all of them are named.
    """
    from ..config import settings_from_keywords
    from ..io.read import ReadConfig
    from .scene import check_scene

    return check_scene(Path(path), config or settings_from_keywords(ReadConfig, settings, "check"), progress)


__all__ = ["check"]
