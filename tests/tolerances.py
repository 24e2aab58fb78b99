"""Every tolerance of the tests in one place, each with its reason."""

from __future__ import annotations

# Colours and alpha of a float32 engine against the float64 reference, absolute. Float32 has 6e-8 relative; a colour is
# a sum of some tens of products whose exponents carry about ten times that.
COLOR = 1e-5

# Gradients of a float32 engine against the float64 reference, relative by norm: they add thousands of pixels with
# signs that cancel.
GRADIENT = 1e-4

# Expected depth, relative to the largest depth: alpha = 1 − T loses up to 255 × 6e-8 where a pixel is barely covered.
DEPTH = 1e-4

# Screen positions and radii in px, where images have some hundred px: 100 × 6e-8 × some operations.
PIXELS = 2e-4

# Closed forms and brute-force loops against the reference, everything in float64.
EXACT = 1e-10

# gsplat's torch functions against ours, both in float64; gsplat writes its SH constants with 15 digits.
FOREIGN = 1e-9

# How near a cut-off a pixel must lie for two correct engines to decide differently (relative). The exponent of alpha
# reaches 5.5, and the inverse covariance loses digits where a Gaussian is long and thin.
CUTOFF_ALPHA = 1e-3
CUTOFF_TRANSMITTANCE = 1e-2
CUTOFF_DEPTH = 2e-6

# A float32 covariance with condition number c has an inverse that is wrong by about c × 6e-8, and so is the exponent
# (≤ 5.5) that it scales; rounding of the covariance's own entries adds the same again.
FLOAT32_EPS = 6e-8

# gsplat, in multiples of COLOR and GRADIENT, by device. From one of its kernels to the next, gradients of inverse
# covariances and of compensations go in float32, where ours stay in one kernel. On a GPU its kernels are built with
# fast exponentials, divide the transmittance back in backward, and take the determinant of a covariance without eps2d
# as a difference of products in float32, which loses the digits of a needle.
GSPLAT_LOOSE = {"cpu": 3.0, "cuda": 10.0}
