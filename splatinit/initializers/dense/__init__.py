"""``dense``: pixels of reference photos, matched densely in their neighbours and triangulated in one step (after EDGS).

    photos ─references─▶ ─neighbours, depths─▶ ─matcher─▶ ─sampling─▶ ─triangulation─▶ ─colour─▶ ─suppression, radius─▶

Each room of the package is one arrow, a few pure functions on arrays; :mod:`.initializer` walks along it, one reference
at a time, so that memory does not grow with the number of photos. The matcher is any of ``splatinit.matching``.

Kotovenko et al. 2025, "EDGS: Eliminating Densification for Efficient Convergence of 3DGS", arXiv:2504.13204. What
differs from it: neighbours are chosen by the angle and the overlap of what both see, all neighbours that agree are
triangulated together, and points behind a camera, without parallax or twice there are left out.
"""

from .config import DenseConfig
from .initializer import Dense

__all__ = ["Dense", "DenseConfig"]
