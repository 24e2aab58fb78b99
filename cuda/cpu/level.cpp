// Compiled once per instruction set with SPLAT_LEVEL=<name> and the flags of that set; see CMakeLists.txt.
#include "adam.h"
#include "bin.h"
#include "blend.h"
#include "field.h"
#include "march.h"
#include "project.h"
#include "semiglobal.h"
#include "ssim.h"
#include "sweep.h"

#define SPLAT_STRING_(x) #x
#define SPLAT_STRING(x) SPLAT_STRING_(x)
#define SPLAT_JOIN_(a, b) a##b
#define SPLAT_JOIN(a, b) SPLAT_JOIN_(a, b)

namespace splat {

static void exp2_loop(const float* x, float* out, int64_t count) {
    for (int64_t i = 0; i < count; i += kLanes) {
        vf v{};
        const size_t bytes = size_t(count - i < kLanes ? count - i : kLanes) * sizeof(float);
        __builtin_memcpy(&v, x + i, bytes);
        v = exp2_fast(v);
        __builtin_memcpy(out + i, &v, bytes);
    }
}

const Kernels& SPLAT_JOIN(kernels_, SPLAT_LEVEL)() {
    static const Kernels table = {
        SPLAT_STRING(SPLAT_LEVEL), kLanes,    project_loop,  bin_loop,  blend_loop, blend_vjp_loop,
        project_vjp_loop,          count_pairs_loop, ssim_loop, adam_loop, exp2_loop,
        stereo_prepare_loop,       stereo_quads_loop, stereo_counted_loop, sweep_loop, semiglobal_loop, stereo_minima_loop, plane_costs_loop,
        plane_search_loop,         grid_loop, grid_vjp_loop, mlp_loop, mlp_vjp_loop, rays_loop, rays_vjp_loop,
        space_unit_loop,           occupancy_put_loop, ray_samples_loop, sh_basis_loop};
    return table;
}

}  // namespace splat
