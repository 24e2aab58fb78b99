// One Gaussian at one pixel: alpha and its part in front-to-back blending (Kerbl et al. 2023, eq. 2-3).
//
// F is float, double, or a SIMD vector of floats with the functions of cpu/simd.h found by name look-up: fma(a, b, c) =
// a*b + c. The exponent is kept in base 2, log2(alpha) = log2(opacity) - log2(e) * sigma, so that a record needs no
// further multiplication and the alpha test can come before the exponential.
#pragma once

#include "base.h"

namespace splat {
inline namespace SPLAT_LEVEL {

SPLAT_HD double fma(double a, double b, double c) { return a * b + c; }
// Without this one, a float would become a double.
SPLAT_HD float fma(float a, float b, float c) { return fmaf(a, b, c); }

// log2 of the unclamped alpha at the offset (dx, dy) = pixel - mean. With the conic (a, b, c) of the covariance
// [[xx, xy], [xy, yy]], sigma is completed to squares, so that nothing cancels for needle-like Gaussians:
//   2 sigma = a dx^2 + 2 b dx dy + c dy^2 = a (dx + (b/a) dy)^2 + dy^2 / yy
// qa = -log2(e) a / 2, shear = b / a, qd = -log2(e) / (2 yy).
template <class F, class S>
SPLAT_HD F log2_alpha(F dx, F dy, S qa, S shear, S qd, S log2_opacity) {
    const F u = fma(dy, shear, dx);
    return fma(qa * u, u, fma(qd * dy, dy, log2_opacity));
}

// Gradients of what one pixel sees of one Gaussian, given the pixel's running state in the backward walk (back to front).
//   T        transmittance in front of the Gaussian
//   v_blend  dL/d(weight) = colour . v_rgb (+ depth * v_depth)
//   behind   sum over everything behind of weight_j * v_blend_j, plus T_end * v_T_end
// Returns dL/d(alpha): T * v_blend - behind / (1 - alpha).
template <class F>
SPLAT_HD F blend_vjp(F T, F v_blend, F behind, F inverse_one_minus_alpha) {
    return T * v_blend - behind * inverse_one_minus_alpha;
}

// Sums over pixels of s = alpha * dL/d(alpha) in the coordinates of the completed square, u = dx + shear dy and dy:
//   moments = {sum s, sum s u, sum s dy, sum s u^2, sum s u dy, sum s dy^2}
// All screen gradients of a Gaussian follow, because with w = conic (dx, dy) = (a u, b u + dy / yy), b = a shear,
//   d(alpha) = alpha (w . d(mean) + w^T d(cov) w / 2).
// Sums over dx^2, dx dy, dy^2 would have to be multiplied by the conic from both sides, and cancel for needles.
// v_cov [3] is that of the three numbers xx, xy, yy.
template <class T>
SPLAT_HD void moments_to_screen(const T* moments, T a, T shear, T inverse_yy, T opacity, T* v_mean2d, T* v_cov,
                                T* v_opacity) {
    using S = Scalar<T>;
    const T b = a * shear;
    v_mean2d[0] = a * moments[1];
    v_mean2d[1] = b * moments[1] + inverse_yy * moments[2];
    v_cov[0] = S(0.5) * a * a * moments[3];
    v_cov[1] = a * (b * moments[3] + inverse_yy * moments[4]);
    v_cov[2] = S(0.5) * (b * b * moments[3] + inverse_yy * (S(2) * b * moments[4] + inverse_yy * moments[5]));
    *v_opacity = moments[0] / opacity;
}

}  // namespace SPLAT_LEVEL
}  // namespace splat
