// Per-Gaussian loops: projection, visibility, colour, and their backward pass.
//
// A lane is one Gaussian: the components of kLanes of them are gathered into vectors, the shared maths runs on those, and
// the results are scattered. The higher SH coefficients, 45 of a Gaussian's 59 numbers, stay where they lie: their RGB
// triples are read four floats at a time, with the bases of all lanes computed before.
#pragma once

#include "simd.h"  // before the maths, see there

#include <algorithm>
#include <cmath>

#include "../include/splat/record.h"
#include "../include/splat/sh.h"
#include "adam.h"
#include "kernels.h"
#include "parallel.h"

namespace splat {
inline namespace SPLAT_LEVEL {

static inline Camera<float> camera_of(const splat_view& view) {
    return make_camera(view.viewmat, view.fx, view.fy, view.cx, view.cy, view.width, view.height);
}

// out[c] = components c of the Gaussians index[0 ... kLanes - 1].
template <int C>
static inline void gather(const float* from, const int64_t* index, vf* out) {
    alignas(64) float part[C][kLanes];
    for (int l = 0; l < kLanes; ++l)
        for (int c = 0; c < C; ++c) part[c][l] = from[C * index[l] + c];
    for (int c = 0; c < C; ++c) out[c] = load(part[c]);
}

// The first `count` lanes of in[c], back to their Gaussians.
template <int C>
static inline void scatter(float* to, const int64_t* index, int count, const vf* in) {
    alignas(64) float part[C][kLanes];
    for (int c = 0; c < C; ++c) store(part[c], in[c]);
    for (int l = 0; l < count; ++l)
        for (int c = 0; c < C; ++c) to[C * index[l] + c] = part[c][l];
}

// Projects kLanes Gaussians; a bit of the result for each that is visible.
static inline uint32_t project_lanes(const splat_gaussians& g, const splat_view& view, const Camera<float>& cam,
                                     const int64_t* index, const vf* mean, RecordGeometry<vf>& r) {
    vf p[3], quat[4], log_scale[3], logit;
    camera_point(cam, mean, p);
    const vi in_front = in_depth_range(p[2]);
    if (!movemask(in_front)) return 0;
    gather<4>(g.quats, index, quat);
    gather<3>(g.log_scales, index, log_scale);
    gather<1>(g.logit_opacities, index, &logit);
    return movemask(in_front & record_geometry(p, quat, log_scale, logit, cam, view.eps2d, view.antialiased != 0, r));
}

// Tiles [first, last) along one axis that the interval centre ± half reaches, as tile_rows of tiles.h has it.
static inline void box_tiles(vf centre, vf half, int tiles, int32_t* first, int32_t* last) {
    const vf low = (centre - half - (kBoundSlack + kTile - 0.5f)) * (1.0f / kTile);
    const vf high = (centre + half + (kBoundSlack - 0.5f + kTile)) * (1.0f / kTile);
    // Between 0 and the number of tiles, where to cut off is to round down.
    const vf from = vmin(vmax(low, vf{}), set1(float(tiles))), to = vmin(vmax(high, vf{}), set1(float(tiles)));
    const vi whole = __builtin_convertvector(from, vi), end = __builtin_convertvector(to, vi);
    const vi begin = whole - (__builtin_convertvector(whole, vf) < from);  // a mask is -1: rounded up
    __builtin_memcpy(first, &begin, sizeof begin);
    __builtin_memcpy(last, &end, sizeof end);
}

static inline void store_record(const RecordGeometry<vf>& r, int lane, const v4& color, Record& record) {
    record.x = r.x[lane], record.y = r.y[lane];
    record.qa = r.qa[lane], record.shear = r.shear[lane], record.qd = r.qd[lane];
    record.log2_opacity = r.log2_opacity[lane];
    record.r = color[0], record.g = color[1], record.b = color[2], record.depth = r.depth[lane];
    record.reach = r.reach[lane], record.drop = r.drop[lane];
    record.half_x = r.half_x[lane], record.half_y = r.half_y[lane];
    record.opacity = r.opacity[lane], record.dy_right = r.dy_right[lane];
}

// A triple of floats; what lies behind the array's last one must not be touched.
static inline v4 load3(const float* p, bool last) { return last ? v4{p[0], p[1], p[2], 0.0f} : load4(p); }

// Colour of the Gaussian i in one lane of `basis`, as sh_color of sh.h.
static inline v4 color_of(const splat_gaussians& g, int64_t i, int degree, const float (*basis)[kLanes], int lane) {
    const float* sh0 = g.sh0 + 3 * i;
    const float* shN = g.shN + 3 * g.k * i;
    v4 color = 0.5f + basis[0][lane] * v4{sh0[0], sh0[1], sh0[2], 0.0f};
    const int k = sh_bases(degree);
    for (int j = 1; j < k; ++j) color += basis[j][lane] * load3(shN + 3 * (j - 1), j == g.k && i == g.n - 1);
    const v4 most = v4{} + kColorMax;
    return color > 0.0f ? (color < most ? color : most) : v4{};
}

// Writes v_sh0 [3] and v_shN [k, 3] of the Gaussian i and the lane's v_basis, as sh_color_vjp of sh.h. `last`: nothing
// behind the coefficients of i may be read.
static inline void color_of_vjp(const splat_gaussians& g, int64_t i, bool last, int degree, const float (*basis)[kLanes],
                                int lane, const Record& record, const float* v_color, float* v_sh0, float* v_shN,
                                float (*v_basis)[kLanes]) {
    const v4 v = {record.r > 0.0f ? v_color[0] : 0.0f, record.g > 0.0f ? v_color[1] : 0.0f,
                  record.b > 0.0f ? v_color[2] : 0.0f, 0.0f};
    for (int c = 0; c < 3; ++c) v_sh0[c] = basis[0][lane] * v[c];
    const float* shN = g.shN + 3 * g.k * i;
    const int used = sh_bases(degree) - 1;
    for (int j = 0; j < used; ++j) {
        const v4 v_coefficient = basis[j + 1][lane] * v;
        const v4 product = load3(shN + 3 * j, last && j + 1 == g.k) * v;
        v_basis[j + 1][lane] = product[0] + product[1] + product[2];
        // The fourth float is the next triple's first, which is written after it; behind the last there is nothing of ours.
        if (j + 1 < g.k)
            store4(v_shN + 3 * j, v_coefficient);
        else
            for (int c = 0; c < 3; ++c) v_shN[3 * j + c] = v_coefficient[c];
    }
    for (int j = 3 * used; j < 3 * g.k; ++j) v_shN[j] = 0.0f;
}

static void project_loop(const splat_gaussians& g, const splat_view& view, Frame& frame, splat_aux& aux, int threads) {
    const Camera<float> cam = camera_of(view);
    const int64_t blocks = (g.n + kLanes - 1) / kLanes;
    parallel_for(blocks, 64, threads, [&](int64_t block, int) {
        const int64_t first = block * kLanes;
        const int count = int(std::min<int64_t>(kLanes, g.n - first));
        int64_t index[kLanes];
        for (int l = 0; l < kLanes; ++l) index[l] = first + std::min(l, count - 1);
        vf mean[3];
        gather<3>(g.means, index, mean);
        RecordGeometry<vf> lanes;
        const uint32_t visible = project_lanes(g, view, cam, index, mean, lanes);
        alignas(64) float basis[16][kLanes];
        alignas(64) int32_t row[kLanes], last_row[kLanes], column[kLanes], last_column[kLanes];
        if (visible) {
            box_tiles(lanes.x, lanes.half_x, frame.tiles_x, column, last_column);
            box_tiles(lanes.y, lanes.half_y, frame.tiles_y, row, last_row);
            vf dir[3], values[16];
            view_direction(mean, cam.center, dir);
            sh_basis(view.sh_degree, dir, values);
            for (int j = 0; j < sh_bases(view.sh_degree); ++j) store(basis[j], values[j]);
        }
        for (int l = 0; l < count; ++l) {
            const int64_t i = first + l;
            const bool shown = visible >> l & 1;
            aux.visible[i] = shown;
            frame.pair_begin[i] = 0;
            if (!shown) {
                aux.means2d[2 * i] = aux.means2d[2 * i + 1] = aux.depths[i] = aux.radii[i] = 0.0f;
                continue;
            }
            Record& record = frame.records[i];
            store_record(lanes, l, color_of(g, i, view.sh_degree, basis, l), record);
            aux.means2d[2 * i] = record.x, aux.means2d[2 * i + 1] = record.y;
            aux.depths[i] = record.depth;
            aux.radii[i] = std::max(record.half_x, record.half_y);
            uint32_t pairs = 0;
            uint32_t* listed = frame.listed + kListed * i;
            const int rows = last_row[l] - row[l], columns = last_column[l] - column[l];
            if ((rows <= 1 || columns <= 1) && rows <= kListed && columns <= kListed) {
                // An ellipse reaches every tile of a box of one row or one column: no need to look closer.
                for (int y = row[l]; y < last_row[l]; ++y)
                    for (int x = column[l]; x < last_column[l]; ++x) listed[pairs++] = uint32_t(y * frame.tiles_x + x);
                frame.pair_begin[i] = pairs;
                continue;
            }
            for_reached_tiles(record, frame.tiles_x, frame.tiles_y, [&](uint32_t tile) {
                if (pairs < kListed) listed[pairs] = tile;
                ++pairs;
            });
            frame.pair_begin[i] = pairs;
        }
    });
}

// Where the gradients of the Gaussians from `first` on go: row 0 is that of `first`.
struct GradientRows {
    FieldGradients to;
    int64_t first;
};

// Gradients of `count` Gaussians from the sums of their slots [count, kSlotFloats]; pose gradients are added lane by lane.
// Nothing behind the parameters of the Gaussian stop - 1 is read: another thread may be updating it.
static inline void project_vjp_lanes(const splat_gaussians& g, const splat_view& view, const Camera<float>& cam,
                                     const Frame& frame, const int64_t* index, int count, int64_t stop,
                                     const float (*sums)[kSlotFloats], const GradientRows& rows, float* v_means2d, vf* v_W,
                                     vf* v_t, vf* v_center) {
    alignas(64) float slot[kSlotFloats][kLanes] = {}, basis[16][kLanes], v_basis_lanes[16][kLanes] = {};
    alignas(64) float qa[kLanes], qd[kLanes], shears[kLanes], opacities[kLanes];
    int64_t row[kLanes];
    for (int l = 0; l < kLanes; ++l) {
        const Record& record = frame.records[index[l]];
        qa[l] = record.qa, qd[l] = record.qd, shears[l] = record.shear, opacities[l] = record.opacity;
        row[l] = index[l] - rows.first;
        if (l < count)
            for (int j = 0; j < kSlotFloats; ++j) slot[j][l] = sums[l][j];
    }
    float *v_means = rows.to.field[0], *v_quats = rows.to.field[1], *v_log_scales = rows.to.field[2];
    float *v_logits = rows.to.field[3], *v_sh0 = rows.to.field[4], *v_shN = rows.to.field[5];
    vf moments[6], mean[3], quat[4], log_scale[3], logit;
    for (int j = 0; j < 6; ++j) moments[j] = load(slot[kSlotMoments + j]);
    gather<3>(g.means, index, mean);
    gather<4>(g.quats, index, quat);
    gather<3>(g.log_scales, index, log_scale);
    gather<1>(g.logit_opacities, index, &logit);
    vf p[3], v_mean[3], v_W_here[9] = {};
    camera_point(cam, mean, p);
    RecordGradients<vf> v;
    record_vjp(p, quat, log_scale, logit, load(qa), load(shears), load(qd), load(opacities), moments, load(slot[kSlotDepth]), cam,
               view.eps2d, view.antialiased != 0, v, v_W_here);
    if (v_means2d) scatter<2>(v_means2d, index, count, v.mean2d);
    scatter<1>(v_logits, row, count, &v.logit);
    scatter<4>(v_quats, row, count, v.quat);
    scatter<3>(v_log_scales, row, count, v.log_scale);

    vf dir[3], values[16], v_basis[16], v_dir[3] = {}, v_offset[3];
    const vf inverse_length = view_direction(mean, cam.center, dir);
    sh_basis(view.sh_degree, dir, values);
    const int bases = sh_bases(view.sh_degree);
    for (int j = 0; j < bases; ++j) store(basis[j], values[j]);
    for (int l = 0; l < count; ++l)
        color_of_vjp(g, index[l], index[l] == stop - 1, view.sh_degree, basis, l, frame.records[index[l]],
                     sums[l] + kSlotRgb, v_sh0 + 3 * row[l], v_shN + 3 * g.k * row[l], v_basis_lanes);
    for (int j = 0; j < bases; ++j) v_basis[j] = load(v_basis_lanes[j]);
    sh_basis_vjp(view.sh_degree, dir, v_basis, v_dir);
    view_direction_vjp(dir, inverse_length, v_dir, v_offset);

    for (int j = 0; j < 3; ++j)
        v_mean[j] = cam.W[j] * v.p[0] + cam.W[3 + j] * v.p[1] + cam.W[6 + j] * v.p[2] + v_offset[j];
    scatter<3>(v_means, row, count, v_mean);
    const vi used = lane_index() < float(count);
    for (int j = 0; j < 3; ++j) {
        v_center[j] -= masked(used, v_offset[j]);
        v_t[j] += masked(used, v.p[j]);
        for (int l = 0; l < 3; ++l) v_W[3 * j + l] += masked(used, v_W_here[3 * j + l] + v.p[j] * mean[l]);
    }
}

static void project_vjp_loop(const splat_gaussians& g, const splat_view& view, Frame& frame, splat_gradients& grads,
                             const AdamStep* adam, float* staging, int threads) {
    const Camera<float> cam = camera_of(view);
    const int64_t widths[kFields] = {3, 4, 3, 1, 3, 3 * int64_t(g.k)};
    parallel_for((g.n + kPoseChunk - 1) / kPoseChunk, 2, threads, [&](int64_t chunk, int worker) {
        const int64_t first = chunk * kPoseChunk, stop = std::min(g.n, first + kPoseChunk);
        GradientRows rows = {{{grads.means, grads.quats, grads.log_scales, grads.logit_opacities, grads.sh0, grads.shN}}, 0};
        if (adam) {
            float* next = staging + worker * staging_floats(g.k);
            for (int field = 0; field < kFields; ++field) {
                rows.to.field[field] = next;
                next += kPoseChunk * widths[field];
            }
            rows.first = first;
        }
        bool touched[kPoseChunk];
        vf v_W[9] = {}, v_t[3] = {}, v_center[3] = {};
        int64_t index[kLanes];
        float sums[kLanes][kSlotFloats];
        int filled = 0;
        const auto flush = [&] {
            if (!filled) return;
            for (int l = filled; l < kLanes; ++l) index[l] = index[0];
            project_vjp_lanes(g, view, cam, frame, index, filled, stop, sums, rows, grads.means2d, v_W, v_t, v_center);
            filled = 0;
        };
        for (int64_t i = first; i < stop; ++i) {
            v4 sum[kSlotFloats / 4] = {};
            for (uint32_t s = frame.pair_begin[i]; s < frame.pair_begin[i + 1]; ++s) {
                if (!frame.slot_blended[s]) continue;
                for (int j = 0; j < kSlotFloats / 4; ++j)
                    sum[j] += load4(frame.slots + int64_t(s) * kSlotFloats + 4 * j);
            }
            // Where nothing pulls, not even at a pixel that was blended, all gradients are 0. NaN counts as a pull.
            bool pulled = false;
            for (int j = 0; j < kSlotFloats; ++j) pulled |= sum[j / 4][j % 4] != 0.0f;
            touched[i - first] = pulled;
            if (grads.means2d_abs)
                for (int j = 0; j < 2; ++j) grads.means2d_abs[2 * i + j] = sum[kSlotAbs / 4][kSlotAbs % 4 + j];
            if (pulled) {
                for (int j = 0; j < kSlotFloats / 4; ++j) store4(sums[filled] + 4 * j, sum[j]);
                index[filled++] = i;
                if (filled == kLanes) flush();
                continue;
            }
            if (grads.means2d) grads.means2d[2 * i] = grads.means2d[2 * i + 1] = 0.0f;
            if (adam && adam->only_touched) continue;
            for (int field = 0; field < kFields; ++field)
                std::fill_n(rows.to.field[field] + (i - rows.first) * widths[field], widths[field], 0.0f);
        }
        flush();
        if (adam) adam_rows(*adam, rows.to, first, stop, touched);
        float pose_W[9], pose_t[3], pose_center[3];
        for (int j = 0; j < 9; ++j) pose_W[j] = sum_lanes(v_W[j]);
        for (int j = 0; j < 3; ++j) pose_t[j] = sum_lanes(v_t[j]), pose_center[j] = sum_lanes(v_center[j]);
        camera_center_vjp(cam.W, cam.t, pose_center, pose_W, pose_t);
        float* partial = frame.pose_partial + chunk * kPoseFloats;
        for (int j = 0; j < 9; ++j) partial[j] = pose_W[j];
        for (int j = 0; j < 3; ++j) partial[9 + j] = pose_t[j];
    });
}

}  // namespace SPLAT_LEVEL
}  // namespace splat
