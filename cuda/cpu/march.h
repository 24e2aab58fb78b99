// Where rays are sampled: densities that earlier steps remembered say where a ray may end, and the samples go there.
//
// A vector holds neighbouring parts of one ray; a ray of 96 parts is then a few loops over six vectors in the L1 cache, and
// no array over all rays is written but the samples themselves.
#pragma once

#include "simd.h"  // before the maths, see there

#include <algorithm>

#include "../include/splat/space.h"
#include "field.h"
#include "kernels.h"
#include "parallel.h"

namespace splat {
inline namespace SPLAT_LEVEL {

static void space_unit_loop(const Space<float>& space, const float* points, int64_t n, float* unit, int threads) {
    parallel_for((n + kLanes - 1) / kLanes, 256, threads, [&](int64_t block, int) {
        const int64_t first = block * kLanes;
        const int lanes = int(std::min<int64_t>(kLanes, n - first));
        vf point[3], out[3];
        load_points(points, first, n, point);
        space.unit(point, out);
        for (int lane = 0; lane < lanes; ++lane)
            for (int i = 0; i < 3; ++i) unit[3 * (first + lane) + i] = out[i][lane];
    });
}

// On one thread: neighbouring samples meet in the same cells, and the order in which they do is part of the result.
static void occupancy_put_loop(const Space<float>& space, uint32_t cells, const float* points, const float* values, int64_t n,
                               float rate, float* density) {
    for (int64_t first = 0; first < n; first += kLanes) {
        const int lanes = int(std::min<int64_t>(kLanes, n - first));
        vf point[3], unit[3];
        load_points(points, first, n, point);
        space.unit(point, unit);
        const vu cell = occupancy_cell(unit, cells);
        for (int lane = 0; lane < lanes; ++lane) {
            const float value = values[first + lane];
            if (!(value >= 0.0f)) continue;  // NaN would stay for good
            float& known = density[cell[lane]];
            known += rate * (value - known);
        }
    }
}

// One ray's coarse parts.
struct Parts {
    alignas(64) float edge[kCoarseMost + 2 * kLanes];      // in [0, 1]
    alignas(64) float distance[kCoarseMost + 2 * kLanes];  // of the edges, scene units
    alignas(64) float weight[kCoarseMost + 2 * kLanes];    // one before the first and one behind the last are 0
};

static inline void ray_parts(const Space<float>& space, const splat_sampling& s, const float* density, const float* origin,
                             const float* direction, float near, float far, float shift, Parts& parts) {
    const int count = s.coarse;
    const float step = 1.0f / float(count);
    for (int i = 0; i <= count; i += kLanes) {
        vf edge = (lane_index() + float(i) + (shift - 0.5f)) * step;
        edge = vmin(vmax(edge, vf{}), set1(1.0f));
        store(parts.edge + i, edge);
    }
    parts.edge[0] = 0.0f, parts.edge[count] = 1.0f;
    for (int i = 0; i <= count; i += kLanes) store(parts.distance + i, space.distance(load(parts.edge + i), near, far));
    float optical = 0.0f;
    parts.weight[0] = 0.0f;
    for (int i = 0; i < count; i += kLanes) {
        const vf front = load(parts.distance + i), back = loadu(parts.distance + i + 1);
        const vf middle = (front + back) * 0.5f;
        vf point[3], unit[3];
        for (int d = 0; d < 3; ++d) point[d] = set1(origin[d]) + middle * direction[d];
        space.unit(point, unit);
        const vi cell = vi(occupancy_cell(unit, uint32_t(s.cells)));
        const vf known = as_float(vi(gather(reinterpret_cast<const uint32_t*>(density), cell)));
        // A cell knows that it holds a surface, not where: were it opaque, its front would take all samples of the ray.
        const vf most = space.speed(point, direction) * (kCellOpacity * float(s.cells));
        const vf own = vmin(most, known) * (back - front);
        vf before{}, after;
        const int lanes = std::min(kLanes, count - i);
        for (int lane = 0; lane < lanes; ++lane) {
            before[lane] = optical;
            optical += own[lane];
        }
        storeu(parts.weight + 1 + i, ray_weight(before, own, &after));
    }
    parts.weight[1 + count] = 0.0f;
}

static void ray_samples_loop(const Space<float>& space, const splat_sampling& s, const float* density, const float* origins,
                             const float* directions, int64_t rays, const float* shifts, const splat_ray_samples& out,
                             int threads) {
    const int coarse = s.coarse, fine = s.fine;
    parallel_for(rays, 16, threads, [&](int64_t ray, int) {
        Parts parts;
        const float *origin = origins + 3 * ray, *direction = directions + 3 * ray;
        float near, far;
        space.range(origin, direction, s.near, &near, &far);
        ray_parts(space, s, density, origin, direction, near, far, shifts ? shifts[2 * ray] : 0.5f, parts);
        // A surface may lie just beside the part whose cell knows it: neighbours get half of a part's weight.
        alignas(64) float mass[kCoarseMost + 2 * kLanes];
        vf sums{};
        for (int i = 0; i < coarse; i += kLanes) {
            const vf own = loadu(parts.weight + 1 + i), beside = vmax(load(parts.weight + i), loadu(parts.weight + 2 + i));
            vf w = vmax(own, beside * 0.5f);
            for (int lane = coarse - i; lane < kLanes; ++lane) w[lane] = 0.0f;
            store(mass + i, w);
            sums += w;
        }
        float total = 0.0f;
        for (int lane = 0; lane < kLanes; ++lane) total += sums[lane];
        const float share = total > kNoWeight ? (1.0f - s.uniform) / total : 0.0f, even = total > kNoWeight ? s.uniform : 1.0f;
        float all = 0.0f;
        for (int i = 0; i < coarse; ++i) {
            mass[i] = share * mass[i] + even * (parts.edge[i + 1] - parts.edge[i]);
            all += mass[i];
        }
        const float shift = shifts ? shifts[2 * ray + 1] : 0.5f, step = all / float(fine + 1);
        float passed = 0.0f, before = 0.0f, before_distance = 0.0f;
        for (int k = 0, i = 0; k <= fine; ++k) {
            const float wanted = (float(k) + shift) * step;
            while (i + 1 < coarse && passed + mass[i] <= wanted) passed += mass[i++];
            const float within = std::min(std::max((wanted - passed) / std::max(mass[i], 1e-12f), 0.0f), 1.0f);
            const float edge = parts.edge[i] + within * (parts.edge[i + 1] - parts.edge[i]);
            const float distance = space.distance(edge, near, far);
            if (k > 0) {
                const int64_t at = ray * fine + k - 1;
                out.length[at] = distance - before_distance;
                out.distance[at] = 0.5f * (distance + before_distance);
                out.middle[at] = 0.5f * (edge + before);
                out.extent[at] = edge - before;
                for (int d = 0; d < 3; ++d) out.points[3 * at + d] = origin[d] + out.distance[at] * direction[d];
            }
            before = edge, before_distance = distance;
        }
    });
}

}  // namespace SPLAT_LEVEL
}  // namespace splat
