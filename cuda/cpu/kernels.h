// The loops that are compiled once per instruction set, as a table of functions. api.cpp picks a table.
#pragma once

#include "../include/splat/api.h"
#include "../include/splat/ssim.h"
#include "frame.h"

namespace splat {

struct Kernels {
    const char* name;
    int lanes;

    // Fills records, pair counts (in pair_begin[i]) and the per-Gaussian outputs of `aux`.
    void (*project)(const splat_gaussians&, const splat_view&, Frame&, splat_aux&, int threads);
    // Lists the Gaussians of each tile front to back, once the counts are summed and the order is known.
    void (*bin)(Frame&, uint32_t* slot_tile, uint32_t* counts, int threads);
    // Blends every tile front to back.
    void (*blend)(const splat_view&, Frame&, splat_image&, bool with_weight, int threads);
    // Blends back to front and fills slots and tile_background.
    void (*blend_vjp)(const splat_view&, Frame&, const splat_image_cotangents&, bool with_abs, int threads);
    // Sums the slots of each Gaussian and carries them through SH, projection and activations to `grads`.
    void (*project_vjp)(const splat_gaussians&, const splat_view&, Frame&, splat_gradients&, int threads);

    // loss_rows [h, 2]: sums of |x - y| and of ssim over each row; maps [3, h, stride]: v_mu_x, v_m_xx, v_m_xy;
    // scratch [threads, ssim_scratch(width)].
    void (*ssim)(const float* x, const float* y, int width, int height, float* maps, double* loss_rows,
                 float* scratch, int threads);
    void (*ssim_vjp)(const float* x, const float* y, int width, int height, const float* maps, float l1_scale,
                     float ssim_scale, float* v_x, float* scratch, int threads);
    void (*adam)(float* param, const float* grad, float* exp_avg, float* exp_avg_sq, int64_t count, float beta1,
                 float beta2, float eps, float step_size, float root_correction, int threads);
    void (*exp2)(const float* x, float* out, int64_t count);  // the exponential of the blend loop, for its error test
};

const Kernels& kernels_generic();
#ifdef SPLAT_X86
const Kernels& kernels_avx2();
const Kernels& kernels_avx512();
#endif

// Row stride of the SSIM maps in floats.
inline int64_t ssim_stride(int width) { return (int64_t(width) * 3 + 63) / 64 * 64; }

constexpr int kSsimRowPad = 64;  // floats of zeros beside a row: at least 3 * kSsimRadius, and a multiple of every kLanes

// Floats that one thread needs: a ring of 11 rows and a padded input row for each of the five moments, and a row of zeros.
inline int64_t ssim_scratch(int width) {
    return (2 * kSsimRadius + 1 + 1) * 5 * ssim_stride(width) + 5 * 2 * kSsimRowPad + ssim_stride(width);
}

}  // namespace splat
