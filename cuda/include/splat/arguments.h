// What the C interfaces of all engines accept, and what they make of it. Host code.
#pragma once

#include <cmath>

#include "api.h"

namespace splat {

// The six arrays of the Gaussians, in this order everywhere: means, quats, log_scales, logit_opacities, sh0, shN.
constexpr int kFields = 6;

inline bool valid(const splat_gaussians& g, const splat_view& v) {
    const int k_needed = (v.sh_degree + 1) * (v.sh_degree + 1) - 1;
    return g.n >= 0 && g.n < (int64_t(1) << 31) && g.k >= 0 && v.width > 0 && v.height > 0 && v.width <= 65536 &&
           v.height <= 65536 && v.sh_degree >= 0 && v.sh_degree <= 3 && k_needed <= g.k && v.fx > 0 && v.fy > 0 &&
           v.eps2d >= 0;
}

// What is the same for all numbers of one Adam step, see adam.h.
struct AdamRates {
    float beta1, beta2, eps, root_correction;
};

inline AdamRates adam_rates(double beta1, double beta2, double eps, int64_t step) {
    return {float(beta1), float(beta2), float(eps), float(1.0 / std::sqrt(1.0 - std::pow(beta2, double(step))))};
}

inline float adam_step_size(double lr, double beta1, int64_t step) {
    return float(lr / (1.0 - std::pow(beta1, double(step))));
}

// Does the update go into the very arrays that were drawn, and are their moments there?
inline bool fits(const splat_gaussians& g, const splat_adam& adam) {
    const float* drawn[kFields] = {g.means, g.quats, g.log_scales, g.logit_opacities, g.sh0, g.shN};
    if (adam.step < 1) return false;
    for (int field = 0; field < kFields; ++field) {
        if (adam.param[field] != drawn[field]) return false;
        const bool empty = g.n == 0 || (field == kFields - 1 && g.k == 0);
        if (!empty && (!adam.exp_avg[field] || !adam.exp_avg_sq[field])) return false;
    }
    return true;
}

}  // namespace splat
