// Compiles the functions of include/splat that no kernel of gpu/ uses yet as device code, so that they stay ready for one. Nothing
// here is run.
//
//   nvcc -std=c++17 -I cuda/include -c cuda/tests/device_maths.cu -o /dev/null
#include "splat/field.h"
#include "splat/space.h"
#include "splat/sweep.h"

using namespace splat;

__global__ void stereo(const float* in, float* out) {
    const SweepWarp<float> warp(in, in[12], in[13], in[14], in[15], in[16]);
    out[0] = warp.behind ? 0.0f : warp.u + warp.v + warp.ux + warp.uy + warp.vx + warp.vy + warp.rate;
    out[1] = sweep_cost(in[0], in[1], in[2], in[3], in[4], in[5], 1e-4f) + sweep_vertex(in[0], in[1], in[2]) +
             semiglobal_step(in[0], in[1], in[2], in[3], in[4], in[5], in[6]) + semiglobal_jump(in[0], 0.1f, in[1]);
}

__global__ void field(const float* in, float* out, GridLevel level) {
    const GridCell<float> cell(level, in);
    for (int c = 0; c < 8; ++c) out[cell.index(c)] += relu_vjp(relu(in[c]), cell.weight(c));
    float after;
    const float w = ray_weight(in[0], in[1], &after);
    out[0] += distortion_step(w, in[2], in[3], in[4], in[5]);
    out[1] += density_vjp(in[3], distortion_vjp(w, in[2], in[3], in[4], in[5], in[6], in[7]), after, in[8]);
}

__global__ void marching(const float* in, float* out, Space<float> space) {
    float near, far, unit[3];
    space.range(in, in + 3, in[6], &near, &far);
    space.unit(in, unit);
    out[occupancy_cell(unit, 128u)] = space.distance(in[7], near, far) * space.speed(in, in + 3);
}
