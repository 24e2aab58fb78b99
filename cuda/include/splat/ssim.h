// Structural similarity at one pixel from its filtered moments (Wang et al. 2004, eq. 13), data range 1. Of the second
// moments of x and y it needs only the sum.
#pragma once

#include "base.h"

namespace splat {
inline namespace SPLAT_LEVEL {

constexpr int kSsimRadius = 5;  // 11-tap window
constexpr int kTaps = 2 * kSsimRadius + 1;
constexpr double kSsimSigma = 1.5;
constexpr float kSsimC1 = 0.01f * 0.01f, kSsimC2 = 0.03f * 0.03f;

// The window along one axis: tap[d] at distance d, normalised to sum 1. Made by the host.
struct SsimWindow {
    float tap[kSsimRadius + 1];
};
inline SsimWindow ssim_window() {
    double weight[kSsimRadius + 1], sum = 0.0;
    for (int d = 0; d <= kSsimRadius; ++d) {
        weight[d] = std::exp(-0.5 * d * d / (kSsimSigma * kSsimSigma));
        sum += d ? 2.0 * weight[d] : weight[d];
    }
    SsimWindow window;
    for (int d = 0; d <= kSsimRadius; ++d) window.tap[d] = float(weight[d] / sum);
    return window;
}

// From mu_x, mu_y, m_squares, m_difference: Gaussian-filtered x, y, x^2 + y^2, (x - y)^2. With d = x - y and var(x) = E[x^2] -
// E[x]^2, eq. 13 is (1 - mu_d^2 / C) (1 - var(d) / D), where C = mu_x^2 + mu_y^2 + C1 and D = var(x) + var(y) + C2: written
// so, nothing cancels where x and y are nearly equal, and the cancellation in D does not matter there.
template <class F>
struct SsimTerms {
    F mu_d, p, q, inverse_C, inverse_D;

    SPLAT_HD SsimTerms(F mu_x, F mu_y, F m_squares, F m_difference) {
        const F squares = mu_x * mu_x + mu_y * mu_y;
        mu_d = mu_x - mu_y;
        inverse_C = 1.0f / (squares + kSsimC1);
        inverse_D = 1.0f / ((m_squares - squares) + kSsimC2);
        p = mu_d * mu_d * inverse_C;
        q = (m_difference - mu_d * mu_d) * inverse_D;
    }
};

template <class F>
SPLAT_HD F ssim_value(F mu_x, F mu_y, F m_squares, F m_difference) {
    const SsimTerms<F> s(mu_x, mu_y, m_squares, m_difference);
    return (1.0f - s.p) * (1.0f - s.q);
}

// The value, and its partial derivatives w.r.t. mu_x, m_squares and m_difference (x is the image that is optimised).
template <class F>
SPLAT_HD F ssim_value_vjp(F mu_x, F mu_y, F m_squares, F m_difference, F* v_mu_x, F* v_m_squares, F* v_m_difference) {
    const SsimTerms<F> s(mu_x, mu_y, m_squares, m_difference);
    const F luminance = 1.0f - s.p, structure = 1.0f - s.q;
    *v_mu_x = -2.0f * (structure * (s.mu_d - s.p * mu_x) * s.inverse_C + luminance * (s.q * mu_x - s.mu_d) * s.inverse_D);
    *v_m_squares = luminance * s.q * s.inverse_D;
    *v_m_difference = -(luminance * s.inverse_D);
    return luminance * structure;
}

}  // namespace SPLAT_LEVEL
}  // namespace splat
