// Per-Gaussian loops: projection, visibility, colour, and their backward pass.
#pragma once

#include <algorithm>
#include <cmath>

#include "../include/splat/blend.h"
#include "../include/splat/projection.h"
#include "../include/splat/sh.h"
#include "../include/splat/tiles.h"
#include "kernels.h"

namespace splat {
inline namespace SPLAT_LEVEL {

static inline Camera<float> camera_of(const splat_view& view) {
    return make_camera(view.viewmat, view.fx, view.fy, view.cx, view.cy, view.width, view.height);
}

static inline float sigmoid(float x) { return 1.0f / (1.0f + std::exp(-x)); }

static inline void camera_point(const Camera<float>& cam, const float* mean, float* p) {
    for (int i = 0; i < 3; ++i) p[i] = dot3(cam.W + 3 * i, mean) + cam.t[i];
}

// Projects Gaussian i; false if it is not visible. Fills its record (colour excepted).
static inline bool project_one(const splat_gaussians& g, const splat_view& view, const Camera<float>& cam, int64_t i,
                               Record& record) {
    float p[3];
    camera_point(cam, g.means + 3 * i, p);
    if (!(p[2] > kNear)) return false;
    Projected<float> s;
    project(p, g.quats + 4 * i, g.log_scales + 3 * i, cam, view.eps2d, s);
    float opacity = sigmoid(g.logit_opacities[i]);
    if (view.antialiased) opacity *= s.compensation;
    const float level = ellipse_level(opacity);
    if (!(level > 0.0f)) return false;
    const Ellipse ellipse = make_ellipse(s.mean2d, s.cov, s.conic, level);
    if (!box_meets_image(ellipse, view.width, view.height)) return false;
    record.x = s.mean2d[0], record.y = s.mean2d[1];
    record.qa = float(-0.5 * kLog2e) * s.conic[0];
    record.qd = float(-0.5 * kLog2e) / s.cov[2];
    record.log2_opacity = std::log2(opacity);
    record.depth = s.depth;
    record.shear = ellipse.shear, record.reach = ellipse.reach, record.drop = ellipse.drop;
    record.half_x = ellipse.half_x, record.half_y = ellipse.half_y;
    record.dy_right = ellipse.half_x * s.cov[1] / s.cov[0];
    record.opacity = opacity;
    return true;
}

// First entry of the inverse screen covariance, and 1 / yy of the covariance, back from a record.
static inline float conic_a(const Record& record) { return record.qa * float(-2.0 * kLn2); }
static inline float inverse_yy(const Record& record) { return record.qd * float(-2.0 * kLn2); }

static void project_loop(const splat_gaussians& g, const splat_view& view, Frame& frame, splat_aux& aux, int threads) {
    const Camera<float> cam = camera_of(view);
#pragma omp parallel for schedule(dynamic, 1024) num_threads(threads)
    for (int64_t i = 0; i < g.n; ++i) {
        Record record;
        const bool visible = project_one(g, view, cam, i, record);
        aux.visible[i] = visible;
        frame.pair_begin[i] = 0;
        if (!visible) {
            aux.means2d[2 * i] = aux.means2d[2 * i + 1] = aux.depths[i] = aux.radii[i] = 0.0f;
            continue;
        }
        aux.means2d[2 * i] = record.x, aux.means2d[2 * i + 1] = record.y;
        aux.depths[i] = record.depth;
        aux.radii[i] = std::max(record.half_x, record.half_y);
        uint32_t pairs = 0;
        for_reached_tiles(record, frame, [&](uint32_t) { ++pairs; });
        frame.pair_begin[i] = pairs;
        if (pairs == 0) continue;
        float dir[3], color[3];
        view_direction(g.means + 3 * i, cam.center, dir);
        sh_color(view.sh_degree, dir, g.sh0 + 3 * i, g.shN + 3 * g.k * i, color);
        record.r = color[0], record.g = color[1], record.b = color[2];
        frame.records[i] = record;
    }
}

static void project_vjp_loop(const splat_gaussians& g, const splat_view& view, Frame& frame, splat_gradients& grads,
                             int threads) {
    const Camera<float> cam = camera_of(view);
    const int used = sh_bases(view.sh_degree) - 1;
    const int64_t chunks = (g.n + kPoseChunk - 1) / kPoseChunk;
#pragma omp parallel for schedule(dynamic, 2) num_threads(threads)
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        float v_W[9] = {}, v_t[3] = {}, v_center[3] = {};
        const int64_t stop = std::min(g.n, (chunk + 1) * kPoseChunk);
        for (int64_t i = chunk * kPoseChunk; i < stop; ++i) {
            float sum[kSlotFloats] = {};
            bool touched = false;
            for (uint32_t s = frame.pair_begin[i]; s < frame.pair_begin[i + 1]; ++s) {
                if (frame.slot_lanes[s] == 0) continue;
                touched = true;
                for (int j = 0; j < kSlotFloats; ++j) sum[j] += frame.slots[int64_t(s) * kSlotFloats + j];
            }
            float* v_shN = grads.shN + 3 * g.k * i;
            if (grads.means2d) grads.means2d[2 * i] = grads.means2d[2 * i + 1] = 0.0f;
            if (grads.means2d_abs) {
                grads.means2d_abs[2 * i] = touched ? sum[kSlotAbs] : 0.0f;
                grads.means2d_abs[2 * i + 1] = touched ? sum[kSlotAbs + 1] : 0.0f;
            }
            if (!touched) {
                for (int j = 0; j < 3; ++j)
                    grads.means[3 * i + j] = grads.log_scales[3 * i + j] = grads.sh0[3 * i + j] = 0.0f;
                for (int j = 0; j < 4; ++j) grads.quats[4 * i + j] = 0.0f;
                grads.logit_opacities[i] = 0.0f;
                for (int j = 0; j < 3 * g.k; ++j) v_shN[j] = 0.0f;
                continue;
            }
            const Record& record = frame.records[i];
            ProjectionCotangents<float> v;
            float v_opacity;
            moments_to_screen(sum + kSlotMoments, conic_a(record), record.shear, inverse_yy(record), record.opacity,
                              v.mean2d, v.cov, &v_opacity);
            v.depth = sum[kSlotDepth];
            if (grads.means2d) grads.means2d[2 * i] = v.mean2d[0], grads.means2d[2 * i + 1] = v.mean2d[1];

            const float sigma = sigmoid(g.logit_opacities[i]);
            const float compensation = view.antialiased ? record.opacity / sigma : 1.0f;
            v.compensation = view.antialiased ? v_opacity * sigma : 0.0f;
            grads.logit_opacities[i] = v_opacity * compensation * sigma * (1.0f - sigma);

            float dir[3], v_dir[3] = {}, v_offset[3];
            const float inverse_length = view_direction(g.means + 3 * i, cam.center, dir);
            const float color[3] = {record.r, record.g, record.b};
            sh_color_vjp(view.sh_degree, dir, g.shN + 3 * g.k * i, color, sum + kSlotRgb, grads.sh0 + 3 * i, v_shN, v_dir);
            for (int j = 3 * used; j < 3 * g.k; ++j) v_shN[j] = 0.0f;
            view_direction_vjp(dir, inverse_length, v_dir, v_offset);

            float p[3], v_p[3];
            camera_point(cam, g.means + 3 * i, p);
            project_vjp(p, g.quats + 4 * i, g.log_scales + 3 * i, cam, view.eps2d, v, v_p, grads.quats + 4 * i,
                        grads.log_scales + 3 * i, v_W);
            for (int j = 0; j < 3; ++j) {
                grads.means[3 * i + j] = cam.W[j] * v_p[0] + cam.W[3 + j] * v_p[1] + cam.W[6 + j] * v_p[2] + v_offset[j];
                v_center[j] -= v_offset[j];
                v_t[j] += v_p[j];
                for (int l = 0; l < 3; ++l) v_W[3 * j + l] += v_p[j] * g.means[3 * i + l];
            }
        }
        camera_center_vjp(cam.W, cam.t, v_center, v_W, v_t);
        float* partial = frame.pose_partial + chunk * kPoseFloats;
        for (int j = 0; j < 9; ++j) partial[j] = v_W[j];
        for (int j = 0; j < 3; ++j) partial[9 + j] = v_t[j];
    }
}

}  // namespace SPLAT_LEVEL
}  // namespace splat
