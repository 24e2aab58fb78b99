"""The nouns that every matcher shares."""

from __future__ import annotations

import numpy as np
import pytest
import tiny

from splatinit.errors import ShapeError
from splatinit.matching import Matches, MatchView

RGB = np.zeros((24, 28, 3), np.uint8)


def test_a_view_with_other_shapes_is_refused() -> None:
    MatchView("a", RGB, np.ones((24, 28), bool), tiny.camera(0.0))
    with pytest.raises(ShapeError, match=r"a: rgb must be \[h, w, 3\] uint8, got \[24, 28, 3\] float32"):
        MatchView("a", RGB.astype(np.float32))
    with pytest.raises(ShapeError, match=r"a: usable must be \[24, 28\] bool, got \[28, 24\]"):
        MatchView("a", RGB, np.ones((28, 24), bool))
    with pytest.raises(ShapeError, match="a: the camera is 14×24, the photo 28×24"):
        MatchView("a", RGB, camera=tiny.camera(0.0, 14, 24))


def test_matches_are_float32_and_fit_together() -> None:
    matches = Matches(np.zeros((5, 2)), np.full((3, 5, 2), np.nan), np.zeros((3, 5)))
    assert len(matches) == 5 and matches.points.dtype == np.float32
    with pytest.raises(ShapeError, match=r"Matches.certainty must be \[3, 5\], got \[5, 3\]"):
        Matches(np.zeros((5, 2)), np.full((3, 5, 2), np.nan), np.zeros((5, 3)))
