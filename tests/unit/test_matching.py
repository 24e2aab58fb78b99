"""The nouns that every matcher shares."""

from __future__ import annotations

import numpy as np
import pytest
import tiny

from splatinit.errors import ShapeError
from splatinit.matching import Matches, MatchView
from splatinit.matching.networks import PerPhoto

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


# ------------------------------------------------------------------------------------------- what is kept of a photo
def test_what_was_made_of_a_photo_is_kept_within_the_bound() -> None:
    made: list[str] = []

    def make(view: MatchView) -> bytes:
        made.append(view.name)
        return bytes(view.name == "large" and 1000 or 100)

    a, b, c, large = (MatchView(name, RGB) for name in ("a", "b", "c", "large"))
    kept = PerPhoto(make, len, most=250)
    assert kept(a) is kept(a) and made == ["a"]
    kept(b), kept(a), kept(c)  # b was used longest ago, and goes
    kept(a), kept(c)
    assert made == ["a", "b", "c"]
    kept(b)
    assert made == ["a", "b", "c", "b"]
    kept(large), kept(large)  # alone beyond the bound: it stays until another comes
    assert made[4:] == ["large"] and kept._bytes == 1000 and len(kept._kept) == 1
    kept(a), kept(large)
    assert made[5:] == ["a", "large"]


def test_another_photo_at_the_same_place_in_memory_is_another_photo() -> None:
    kept = PerPhoto(lambda view: view.rgb.copy(), lambda made: made.nbytes)
    old = MatchView("old", RGB)
    kept(old)
    new = MatchView("new", RGB + 7)
    kept._kept[id(new)] = kept._kept.pop(id(old))  # as where the old one is gone, and the new one got its id
    del old
    assert kept(new).max() == 7 and kept._bytes == RGB.nbytes and len(kept._kept) == 1
