// Adam (Kingma & Ba 2015, algorithm 1) for one number.
#pragma once

#include "base.h"

namespace splat {
inline namespace SPLAT_LEVEL {

// step_size = lr / (1 - beta1^step), root_correction = 1 / sqrt(1 - beta2^step).
template <class F>
SPLAT_HD void adam_update(F& param, F grad, F& exp_avg, F& exp_avg_sq, float beta1, float beta2, float eps,
                          float step_size, float root_correction) {
    exp_avg = beta1 * exp_avg + (1.0f - beta1) * grad;
    exp_avg_sq = beta2 * exp_avg_sq + (1.0f - beta2) * grad * grad;
    param = param - step_size * exp_avg / (sqrt(exp_avg_sq) * root_correction + eps);
}

}  // namespace SPLAT_LEVEL
}  // namespace splat
