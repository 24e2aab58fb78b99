"""Dense matchers: where the pixels of one photo lie in others, behind one protocol.

To add one: write ``matching/NAME.py`` with a frozen config dataclass and a class that fulfils
:class:`splatinit.matching.base.Matcher`, then add its spec below.
"""

from ..registry import Registry, Spec
from .base import Matcher, Matches, MatchView

MATCHERS: Registry[Spec] = Registry("matcher")
MATCHERS.register(
    Spec(
        name="planesweep",
        impl="splatinit.matching.planesweep:PlaneSweep",
        config="splatinit.matching.planesweep:PlaneSweepConfig",
        summary="plane sweep and PatchMatch stereo over all neighbours on the CPU; needs poses, no weights",
        source="Collins 1996; Bleyer et al. 2011; Xu and Tao 2019 (arXiv:1904.08103)",
    )
)

__all__ = ["MATCHERS", "MatchView", "Matcher", "Matches"]
