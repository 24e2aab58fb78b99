"""Dense matchers: where the pixels of one photo lie in others, behind one protocol.

To add one: write ``matching/NAME.py`` with a frozen config dataclass and a class that fulfils
:class:`splatinit.matching.base.Matcher`, then add its spec below.
"""

from ..registry import Registry, Spec
from .base import Matcher, Matches, MatchView

MATCHERS: Registry[Spec] = Registry("matcher")

__all__ = ["MATCHERS", "MatchView", "Matcher", "Matches"]
