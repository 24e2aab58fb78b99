// Structural similarity at one pixel from its five filtered moments (Wang et al. 2004, eq. 13), data range 1.
#pragma once

#include "base.h"

namespace splat {
inline namespace SPLAT_LEVEL {

constexpr int kSsimRadius = 5;  // 11-tap window
constexpr double kSsimSigma = 1.5;
constexpr float kSsimC1 = 0.01f * 0.01f, kSsimC2 = 0.03f * 0.03f;

// mu_x, mu_y, m_xx, m_yy, m_xy: Gaussian-filtered x, y, x^2, y^2, x*y.
template <class F>
SPLAT_HD F ssim_value(F mu_x, F mu_y, F m_xx, F m_yy, F m_xy) {
    const F xx = mu_x * mu_x, yy = mu_y * mu_y, xy = mu_x * mu_y;
    const F A = 2.0f * xy + kSsimC1, B = 2.0f * (m_xy - xy) + kSsimC2;
    const F C = xx + yy + kSsimC1, D = (m_xx - xx) + (m_yy - yy) + kSsimC2;
    return (A * B) / (C * D);
}

// The value, and its partial derivatives w.r.t. mu_x, m_xx and m_xy (x is the image that is optimised).
template <class F>
SPLAT_HD F ssim_value_vjp(F mu_x, F mu_y, F m_xx, F m_yy, F m_xy, F* v_mu_x, F* v_m_xx, F* v_m_xy) {
    const F xx = mu_x * mu_x, yy = mu_y * mu_y, xy = mu_x * mu_y;
    const F A = 2.0f * xy + kSsimC1, B = 2.0f * (m_xy - xy) + kSsimC2;
    const F C = xx + yy + kSsimC1, D = (m_xx - xx) + (m_yy - yy) + kSsimC2;
    const F inverse = 1.0f / (C * D);
    const F value = A * B * inverse;
    const F v_A = B * inverse, v_B = A * inverse, v_C = -value * D * inverse, v_D = -value * C * inverse;
    *v_mu_x = 2.0f * (mu_y * (v_A - v_B) + mu_x * (v_C - v_D));
    *v_m_xx = v_D;
    *v_m_xy = 2.0f * v_B;
    return value;
}

}  // namespace SPLAT_LEVEL
}  // namespace splat
