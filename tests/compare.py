"""The one comparison of the tests: it says where two results differ most, not only that they do."""

from __future__ import annotations

import numpy as np


def _array(value) -> np.ndarray:
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    return np.asarray(value)


def assert_matches(name: str, ours, ref, tol: float, *, seed: object = None, mask=None, by_norm: bool = False) -> None:
    """Fail unless ``ours`` equals ``ref`` within ``tol``, printing the worst index, both values, tolerance and seed.

    Args:
        name: what is compared.
        ours, ref: arrays or tensors of one shape.
        tol: largest absolute difference (a number, or an array that broadcasts); with ``by_norm`` the largest
            ‖ours − ref‖ / ‖ref‖.
        seed: how to reproduce the case.
        mask: entries to compare (broadcast over trailing axes), None for all.
    """
    ours, ref = _array(ours).astype(np.float64), _array(ref).astype(np.float64)
    assert ours.shape == ref.shape, f"{name}: shape {ours.shape}, expected {ref.shape} (seed {seed})"
    assert np.isfinite(ours).all(), f"{name}: {int((~np.isfinite(ours)).sum())} values are not finite (seed {seed})"
    difference = np.abs(ours - ref)
    if mask is not None:
        mask = _array(mask).astype(bool)
        difference = difference * mask.reshape(mask.shape + (1,) * (difference.ndim - mask.ndim))
    if difference.size == 0:
        return
    if by_norm:
        scale = max(float(np.linalg.norm(ref)), 1e-12)
        excess, value = difference, float(np.linalg.norm(difference)) / scale
        failed = value > tol
        measured = f"relative difference by norm {value:.3g} (‖ref‖ = {scale:.3g})"
    else:
        excess = difference - np.broadcast_to(tol, difference.shape)
        failed = bool((excess > 0).any())
        measured = f"{int((excess > 0).sum())} of {difference.size} values differ too much"
    if failed:
        worst = np.unravel_index(int(np.argmax(excess)), excess.shape)
        limit = float(np.broadcast_to(tol, difference.shape)[worst])
        raise AssertionError(
            f"{name}: {measured}; worst at {tuple(int(i) for i in worst)}: ours {ours[worst]:.9g}, "
            f"ref {ref[worst]:.9g}, difference {difference[worst]:.3g}, tolerance {limit:.3g}, seed {seed}"
        )
