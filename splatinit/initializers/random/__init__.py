"""``random``: points drawn in a volume. The volume matters most (arXiv:2404.12547), so it is the setting.

:mod:`.cubes` are the literature's volumes, :mod:`.frusta` what the cameras see and how densely it is drawn in,
:mod:`.colours` what the points look like; :mod:`.initializer` puts them together.
"""

from .config import RandomConfig
from .initializer import Random

__all__ = ["Random", "RandomConfig"]
