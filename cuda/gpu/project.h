// One thread per Gaussian: projection, visibility, tiles reached, colour.
#pragma once

#include "frame.h"
#include "warp.h"

namespace splat {

constexpr int kProjectThreads = 128;

// Coefficients of shN that the view uses, of the block's Gaussians, brought in side by side: a thread that reads its own
// Gaussian's alone takes 180 bytes that lie 180 bytes from its neighbour's. An odd number of floats in a row keeps the threads
// on different banks.
template <int kDegree, bool kStaged>
struct StagedSh {
    static constexpr int kHigher = sh_bases(kDegree) - 1;  // bases beyond degree 0
    float row[kStaged && kHigher > 0 ? kProjectThreads * 3 * kHigher : 1];
};

// Brings in the rows of the Gaussians for which wanted [kProjectThreads] says so. All threads of the block come by.
template <int kDegree>
__device__ __forceinline__ void stage_sh(const splat_gaussians& g, int64_t first, const bool* wanted, StagedSh<kDegree, true>& staged) {
    constexpr int kWidth = 3 * StagedSh<kDegree, true>::kHigher;
    const int64_t left = g.n - first;
    const int count = int(left < kProjectThreads ? left : kProjectThreads) * kWidth;
    const float* from = g.shN + first * 3 * g.k;
    for (int e = int(threadIdx.x); e < count; e += kProjectThreads) {
        const int row = e / kWidth, column = e - row * kWidth;
        if (wanted[row]) staged.row[e] = from[int64_t(row) * 3 * g.k + column];
    }
}

template <int kDegree, bool kStaged>
__global__ void __launch_bounds__(kProjectThreads) project_kernel(splat_gaussians g, View view, Frame f, splat_aux aux, uint32_t* depth_key,
                                                                  uint32_t* index) {
    struct Shared {
        StagedSh<kDegree, kStaged> sh;
        bool visible[kProjectThreads];
    };
    SPLAT_SHARED(Shared, shared);
    const int64_t first = int64_t(blockIdx.x) * kProjectThreads, i = first + threadIdx.x;
    const Camera<float>& cam = view.camera;
    float mean[3] = {}, p[3];
    RecordGeometry<float> r = {};
    bool visible = false;
    if (i < g.n) {
        for (int c = 0; c < 3; ++c) mean[c] = g.means[3 * i + c];
        camera_point(cam, mean, p);
        if (in_depth_range(p[2])) {
            float quat[4], log_scale[3];
            for (int c = 0; c < 4; ++c) quat[c] = g.quats[4 * i + c];
            for (int c = 0; c < 3; ++c) log_scale[c] = g.log_scales[3 * i + c];
            visible = record_geometry(p, quat, log_scale, g.logit_opacities[i], cam, view.eps2d, view.antialiased != 0, r);
        }
    }
    if constexpr (kStaged && kDegree > 0) {
        shared.visible[threadIdx.x] = visible;
        __syncthreads();
        stage_sh<kDegree>(g, first, shared.visible, shared.sh);
        __syncthreads();
    }
    uint32_t pairs = 0;
    if (visible) {
        float dir[3], color[3];
        view_direction(mean, cam.center, dir);
        const float* shN = kStaged ? shared.sh.row + threadIdx.x * 3 * (sh_bases(kDegree) - 1) : g.shN + 3 * g.k * i;
        sh_color(kDegree, dir, g.sh0 + 3 * i, shN, color);
        Record record;
        record.x = r.x, record.y = r.y, record.qa = r.qa, record.shear = r.shear, record.qd = r.qd;
        record.log2_opacity = r.log2_opacity;
        record.r = color[0], record.g = color[1], record.b = color[2], record.depth = r.depth;
        record.reach = r.reach, record.drop = r.drop, record.half_x = r.half_x, record.half_y = r.half_y;
        record.opacity = r.opacity, record.dy_right = r.dy_right;
        f.records[i] = record;
        const Ellipse<float> e = {r.x, r.y, r.half_x, r.half_y, r.shear, r.reach, r.drop};
        int row, last_row, begin, end;
        for (tile_rows(e, f.tiles_y, &row, &last_row); row < last_row; ++row) {
            tile_span(e, r.dy_right, row, f.tiles_x, &begin, &end);
            pairs += uint32_t(end - begin);
        }
    }
    if (i < g.n) {
        aux.visible[i] = visible;
        aux.means2d[2 * i] = visible ? r.x : 0.0f, aux.means2d[2 * i + 1] = visible ? r.y : 0.0f;
        aux.depths[i] = visible ? r.depth : 0.0f;
        aux.radii[i] = visible ? (r.half_x > r.half_y ? r.half_x : r.half_y) : 0.0f;
        f.pairs[i] = pairs;
        // Depths are positive, so that their bits are in their order.
        depth_key[i] = pairs ? __float_as_uint(r.depth) : kNoPairs;
        index[i] = uint32_t(i);
    }
}

}  // namespace splat
