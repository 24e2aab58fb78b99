// Compiles every function of include/splat as device code: the second compiler of the one body. Nothing here is run.
//
//   nvcc -std=c++17 -I cuda/include -c cuda/tests/device_maths.cu -o /dev/null
#include "splat/adam.h"
#include "splat/blend.h"
#include "splat/field.h"
#include "splat/projection.h"
#include "splat/sh.h"
#include "splat/space.h"
#include "splat/ssim.h"
#include "splat/sweep.h"
#include "splat/tiles.h"

using namespace splat;

template <class T>
__global__ void forward_and_backward(const T* in, T* out, Camera<T> cam, int degree) {
    T dir[3], color[3], p[3] = {in[0], in[1], in[2]};
    view_direction(in, cam.center, dir);
    sh_color(degree, dir, in + 10, in + 13, color);
    T v_dir[3] = {}, v_offset[3];
    sh_color_vjp(degree, dir, in + 13, color, in, out, out + 3, v_dir);
    view_direction_vjp(dir, T(1), v_dir, v_offset);
    Projected<T> projected;
    project(p, in + 3, in + 7, cam, T(0.3), projected);
    ProjectionCotangents<T> v = {{p[0], p[1]}, p[2], {p[0], p[1], p[2]}, p[0]};
    T v_W[9] = {}, v_t[3] = {};
    project_vjp(p, in + 3, in + 7, cam, T(0.3), v, out + 60, out + 63, out + 67, v_W);
    camera_center_vjp(cam.W, cam.t, v_offset, v_W, v_t);
    const T moments[6] = {p[0], p[1], p[2], v_W[0], v_t[0], color[0]};
    T v_mean[2], v_cov[3], v_opacity, v_mu, v_squares, v_difference;
    moments_to_screen(moments, projected.conic[0], p[0], p[1], T(0.5), v_mean, v_cov, &v_opacity);
    out[70] = v_mean[0] + v_cov[0] + v_opacity + ssim_value_vjp(p[0], p[1], p[2], p[0], &v_mu, &v_squares, &v_difference);
    out[71] = v_mu + v_squares + v_difference;
}

__global__ void tiles_and_adam(const float* in, float* out, int* first_last) {
    const float level = ellipse_level(log2(in[0]));
    const Ellipse<float> e = make_ellipse(in, in + 2, in + 5, level);
    if (!box_meets_image(e, 640, 480)) return;
    tile_rows(e, 30, first_last, first_last + 1);
    tile_span(e, in[8], 0, 40, first_last + 2, first_last + 3);
    adam_update(out[0], in[0], out[1], out[2], 0.9f, 0.999f, 1e-15f, 0.01f, 1.0f);
}

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

template __global__ void forward_and_backward<float>(const float*, float*, Camera<float>, int);
template __global__ void forward_and_backward<double>(const double*, double*, Camera<double>, int);
