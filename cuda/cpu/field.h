// A radiance field on the CPU: hash grid, small MLP, rays.
//
// Grid: a vector holds the corners' indices and weights of neighbouring samples; features are then read and summed sample by
// sample, eight bytes at a time, which costs less than gathers of single numbers. In the gradient a thread owns a range of
// a level's entries, walks over all samples and adds what falls into it: every entry is summed in the order of the samples,
// whoever owns it, without atomics and without a table per thread.
//
// MLP: a thread takes kMlpBlock samples through all layers in its L1/L2 cache. All products of matrices, forward and
// backward, are one tile of registers: vectors of columns, times single numbers of rows. Gradients of the weights go to a
// fixed number of slots, each of a fixed range of samples, which are summed in order.
#pragma once

#include "simd.h"  // before the maths, see there

#include <algorithm>
#include <cstring>

#include "../include/splat/field.h"
#include "../include/splat/sh.h"
#include "kernels.h"
#include "parallel.h"

namespace splat {
inline namespace SPLAT_LEVEL {

// ------------------------------------------------------------------------------------------------------------ hash grid
typedef float v2 __attribute__((vector_size(8)));
typedef float v2_unaligned __attribute__((vector_size(8), aligned(4)));
static inline v2 load2(const float* p) { return *reinterpret_cast<const v2_unaligned*>(p); }
static inline void store2(float* p, v2 v) { *reinterpret_cast<v2_unaligned*>(p) = v; }

// The eight corners around kLanes points.
struct Corners {
    alignas(64) uint32_t index[8][kLanes];
    alignas(64) float weight[8][kLanes];

    void find(const GridLevel& level, const vf* point) {
        const GridCell<vf> cell(level, point);
        for (int c = 0; c < 8; ++c) {
            const vu i = cell.index(c);
            __builtin_memcpy(index[c], &i, sizeof i);
            store(weight[c], cell.weight(c));
        }
    }

    // Fetches the entries of `lanes` points into the cache, for reading. The upper neighbour along x lies next to the lower
    // one, mostly in the same cache line: in a hashed level, too, because x is not multiplied.
    void prefetch(const float* entries, int lanes) const {
        for (int c = 0; c < 8; c += 2)
            for (int lane = 0; lane < lanes; ++lane) __builtin_prefetch(entries + kGridFeatures * index[c][lane]);
    }
};

// The points [3, kLanes] from `first` on, as vectors; lanes beyond the last are 0.
static inline void load_points(const float* points, int64_t first, int64_t n, vf* out) {
    const int count = int(std::min<int64_t>(kLanes, n - first));
    out[0] = out[1] = out[2] = vf{};
    for (int lane = 0; lane < count; ++lane)
        for (int d = 0; d < 3; ++d) out[d][lane] = points[3 * (first + lane) + d];
}

static void grid_loop(const GridLevel* levels, int count, const float* table, const float* points, int64_t n, float* encoded,
                      int threads) {
    const int64_t pitch = kGridFeatures * count, blocks = (n + kLanes - 1) / kLanes;
    parallel_for(blocks, 16, threads, [&](int64_t block, int) {
        const int64_t first = block * kLanes;
        const int lanes = int(std::min<int64_t>(kLanes, n - first));
        vf point[3];
        load_points(points, first, n, point);
        Corners both[2];  // of this level and of the next
        both[0].find(levels[0], point);
        for (int l = 0; l < count; ++l) {
            const Corners& corners = both[l % 2];
            if (l + 1 < count) {
                both[(l + 1) % 2].find(levels[l + 1], point);
                both[(l + 1) % 2].prefetch(table + kGridFeatures * levels[l + 1].offset, lanes);
            }
            const float* entries = table + kGridFeatures * levels[l].offset;
            float* out = encoded + first * pitch + kGridFeatures * l;
            for (int lane = 0; lane < lanes; ++lane, out += pitch) {
                v2 sum{};
                for (int c = 0; c < 8; ++c)
                    sum += load2(entries + kGridFeatures * corners.index[c][lane]) * corners.weight[c][lane];
                store2(out, sum);
            }
        }
    });
}

// The gradient of the entries [low, high) of one level. The same code for a whole level: a second version of it would round
// alike, but choose other NaNs.
static void grid_vjp_level(const GridLevel& level, uint32_t low, uint32_t high, const float* points, const float* v_encoded,
                           int64_t pitch, int64_t n, float* v_entries) {
    std::memset(v_entries + kGridFeatures * int64_t(low), 0, sizeof(float) * kGridFeatures * size_t(high - low));
    Corners corners;
    for (int64_t first = 0; first < n; first += kLanes) {
        const int lanes = int(std::min<int64_t>(kLanes, n - first));
        vf point[3];
        load_points(points, first, n, point);
        corners.find(level, point);
        const float* v_out = v_encoded + first * pitch;
        for (int lane = 0; lane < lanes; ++lane, v_out += pitch) {
            const v2 v = load2(v_out);
            if (v[0] == 0.0f && v[1] == 0.0f) continue;  // samples that the light does not reach
            for (int c = 0; c < 8; ++c) {
                const uint32_t i = corners.index[c][lane];
                if (i - low >= high - low) continue;
                float* entry = v_entries + kGridFeatures * int64_t(i);
                store2(entry, load2(entry) + v * corners.weight[c][lane]);
            }
        }
    }
}

static void grid_vjp_loop(const GridLevel* levels, int count, const float* points, const float* v_encoded, int64_t n,
                          float* v_table, int threads) {
    // Two levels or more to a thread even out; with more threads, each level is shared out.
    const int parts = (2 * threads + count - 1) / count;
    parallel_for(int64_t(count) * parts, 1, threads, [&](int64_t task, int) {
        // The last levels first: their entries are spread over the largest memory.
        const int l = count - 1 - int(task / parts), part = int(task % parts);
        const GridLevel& level = levels[l];
        const uint32_t low = uint32_t(uint64_t(level.rows) * uint64_t(part) / uint64_t(parts));
        const uint32_t high = uint32_t(uint64_t(level.rows) * uint64_t(part + 1) / uint64_t(parts));
        grid_vjp_level(level, low, high, points, v_encoded + kGridFeatures * l, kGridFeatures * count, n,
                       v_table + kGridFeatures * level.offset);
    });
}

// ----------------------------------------------------------------------------------------------------------------- MLP
#if defined(__AVX512F__)
constexpr int kTileRows = 8;  // with 2 vectors of columns: 16 of 32 registers are sums, 16 chains of multiply-adds
#else
constexpr int kTileRows = 4;
#endif

// out [rows, V vectors] = A [rows, depth] B [depth, V vectors], added to it with kAdd; A's numbers lie row_step and depth_step
// apart.
template <bool kAdd, int V>
static inline void tile(const float* a, int64_t row_step, int64_t depth_step, const float* b, int64_t b_pitch, int64_t depth,
                        float* out, int64_t out_pitch) {
    vf sum[kTileRows][V];
    for (int r = 0; r < kTileRows; ++r)
        for (int v = 0; v < V; ++v) sum[r][v] = kAdd ? load(out + r * out_pitch + v * kLanes) : vf{};
    for (int64_t k = 0; k < depth; ++k) {
        vf row[V];
        for (int v = 0; v < V; ++v) row[v] = load(b + k * b_pitch + v * kLanes);
        for (int r = 0; r < kTileRows; ++r) {
            const vf number = set1(a[r * row_step + k * depth_step]);
            for (int v = 0; v < V; ++v) sum[r][v] = fma(number, row[v], sum[r][v]);
        }
    }
    for (int r = 0; r < kTileRows; ++r)
        for (int v = 0; v < V; ++v) store(out + r * out_pitch + v * kLanes, sum[r][v]);
}

// out [rows, columns] = A [rows, depth] B [depth, columns], added to it with kAdd: rows a multiple of kTileRows, columns of 16.
template <bool kAdd>
static inline void multiply(const float* a, int64_t row_step, int64_t depth_step, const float* b, int64_t b_pitch, int64_t rows,
                            int64_t depth, int64_t columns, float* out, int64_t out_pitch) {
    for (int64_t r = 0; r < rows; r += kTileRows) {
        int64_t c = 0;
        for (; c + 2 * kLanes <= columns; c += 2 * kLanes)
            tile<kAdd, 2>(a + r * row_step, row_step, depth_step, b + c, b_pitch, depth, out + r * out_pitch + c, out_pitch);
        if (c < columns)
            tile<kAdd, 1>(a + r * row_step, row_step, depth_step, b + c, b_pitch, depth, out + r * out_pitch + c, out_pitch);
    }
}

// The block's rows of `columns` numbers, filled up with zeros to full tiles.
static inline void load_rows(const float* from, int64_t rows, int64_t columns, float* to) {
    const int64_t filled = mlp_padded(columns);
    for (int64_t r = 0; r < kMlpBlock; ++r) {
        float* row = to + r * kMlpPitch;
        const int64_t known = r < rows ? columns : 0;
        std::copy_n(from + r * known, known, row);
        std::fill(row + known, row + filled, 0.0f);
    }
}

// The block's inputs, and through all layers: act[0] the input, act[layers] the output, [kMlpBlock, kMlpPitch] each.
static inline void mlp_block(const MlpLayers& mlp, const float* x, int64_t first, int64_t n, float* const* act) {
    load_rows(x + first * mlp.in[0], std::min<int64_t>(kMlpBlock, n - first), mlp.in[0], act[0]);
    for (int l = 0; l < mlp.layers; ++l) {
        const int64_t columns = mlp_padded(mlp.out[l]);
        float* out = act[l + 1];
        for (int64_t r = 0; r < kMlpBlock; ++r) std::memcpy(out + r * kMlpPitch, mlp.bias[l], sizeof(float) * size_t(columns));
        multiply<true>(act[l], kMlpPitch, 1, mlp.matrix[l], kMlpPitch, kMlpBlock, mlp.in[l], columns, out, kMlpPitch);
        if (l + 1 == mlp.layers) break;
        for (int64_t r = 0; r < kMlpBlock; ++r)
            for (int64_t c = 0; c < columns; c += kLanes) {
                float* p = out + r * kMlpPitch + c;
                store(p, relu(load(p)));
            }
    }
}

// scratch [threads, kMlpScratch]
static void mlp_loop(const MlpLayers& mlp, const float* x, int64_t n, float* out, float* scratch, int threads) {
    const int64_t outputs = mlp.out[mlp.layers - 1];
    parallel_for((n + kMlpBlock - 1) / kMlpBlock, 4, threads, [&](int64_t block, int worker) {
        float* act[kMlpLayers + 1];
        for (int i = 0; i <= kMlpLayers; ++i) act[i] = scratch + worker * kMlpScratch + i * kMlpBlock * kMlpPitch;
        const int64_t first = block * kMlpBlock, rows = std::min<int64_t>(kMlpBlock, n - first);
        mlp_block(mlp, x, first, n, act);
        for (int64_t r = 0; r < rows; ++r)
            std::memcpy(out + (first + r) * outputs, act[mlp.layers] + r * kMlpPitch, sizeof(float) * size_t(outputs));
    });
}

// Gradients of the weights go to slots [slots, kMlpLayers, kMlpPitch + 1, kMlpPitch]: a matrix and below it its bias.
static void mlp_vjp_loop(const MlpLayers& mlp, const float* x, const float* v_out, int64_t n, float* v_x, float* slots,
                         int64_t slot_count, float* scratch, int threads) {
    const int64_t outputs = mlp.out[mlp.layers - 1], blocks = (n + kMlpBlock - 1) / kMlpBlock;
    parallel_for(slot_count, 1, threads, [&](int64_t s, int worker) {
        float* own = scratch + worker * kMlpScratch;
        float* act[kMlpLayers + 1];
        for (int i = 0; i <= kMlpLayers; ++i) act[i] = own + i * kMlpBlock * kMlpPitch;
        float* v_after = own + (kMlpLayers + 1) * kMlpBlock * kMlpPitch;
        float* v_before = v_after + kMlpBlock * kMlpPitch;
        float* slot = slots + s * kMlpSlot;
        std::memset(slot, 0, sizeof(float) * kMlpSlot);
        for (int64_t block = blocks * s / slot_count; block < blocks * (s + 1) / slot_count; ++block) {
            const int64_t first = block * kMlpBlock, rows = std::min<int64_t>(kMlpBlock, n - first);
            mlp_block(mlp, x, first, n, act);
            load_rows(v_out + first * outputs, rows, outputs, v_after);
            for (int l = mlp.layers - 1; l >= 0; --l) {
                const int64_t columns = mlp_padded(mlp.out[l]), inputs = mlp_padded(mlp.in[l]);
                float* v_matrix = slot + l * (kMlpPitch + 1) * kMlpPitch;
                multiply<true>(act[l], 1, kMlpPitch, v_after, kMlpPitch, inputs, kMlpBlock, columns, v_matrix, kMlpPitch);
                float* v_bias = v_matrix + kMlpPitch * kMlpPitch;
                for (int64_t c = 0; c < columns; c += kLanes) {
                    vf sum = load(v_bias + c);
                    for (int64_t r = 0; r < kMlpBlock; ++r) sum += load(v_after + r * kMlpPitch + c);
                    store(v_bias + c, sum);
                }
                if (l == 0 && !v_x) break;
                multiply<false>(v_after, kMlpPitch, 1, mlp.transposed[l], kMlpPitch, kMlpBlock, mlp.out[l], inputs, v_before,
                                kMlpPitch);
                for (int64_t r = 0; l > 0 && r < kMlpBlock; ++r)
                    for (int64_t i = r * kMlpPitch; i < r * kMlpPitch + inputs; i += kLanes)
                        store(v_before + i, relu_vjp(load(act[l] + i), load(v_before + i)));
                std::swap(v_after, v_before);
            }
            if (!v_x) continue;
            for (int64_t r = 0; r < rows; ++r)
                std::memcpy(v_x + (first + r) * mlp.in[0], v_after + r * kMlpPitch, sizeof(float) * size_t(mlp.in[0]));
        }
    });
}

// ---------------------------------------------------------------------------------------------------------------- rays
// weights and transmittance behind (optional) of the samples [first, last) of a ray, `step` floats apart.
static inline void ray_weights(const splat_rays& rays, int64_t first, int64_t last, float* weights, float* after, int64_t step) {
    float optical = 0.0f;
    for (int64_t i = first; i < last; i += kLanes) {
        const int lanes = int(std::min<int64_t>(kLanes, last - i));
        vf own{}, before{}, behind, length{};
        __builtin_memcpy(&own, rays.density + i, sizeof(float) * size_t(lanes));
        __builtin_memcpy(&length, rays.length + i, sizeof(float) * size_t(lanes));
        own = vmin(set1(kOpticalMax), own * length);  // keeps NaN
        for (int lane = 0; lane < lanes; ++lane) {
            before[lane] = optical;
            optical += own[lane];
        }
        const vf weight = ray_weight(before, own, &behind);
        for (int lane = 0; lane < lanes; ++lane) {
            weights[(i - first + lane) * step] = weight[lane];
            if (after) after[(i - first + lane) * step] = behind[lane];
        }
    }
}

static void rays_loop(const splat_rays& rays, const splat_ray_sums& out, int threads) {
    parallel_for(rays.rays, 16, threads, [&](int64_t ray, int) {
        const int64_t first = rays.first[ray], last = rays.first[ray + 1];
        ray_weights(rays, first, last, out.weights + first, nullptr, 1);
        float rgb[3] = {}, front = 0.0f, front_middles = 0.0f, depth = 0.0f, distortion = 0.0f;
        for (int64_t i = first; i < last; ++i) {
            const float w = out.weights[i];
            for (int c = 0; c < 3; ++c) rgb[c] += w * rays.rgb[3 * i + c];
            distortion += distortion_step(w, rays.middle[i], rays.extent[i], front, front_middles);
            depth += w * rays.distance[i];
            front += w;
            front_middles += w * rays.middle[i];
        }
        for (int c = 0; c < 3; ++c) out.rgb[3 * ray + c] = rgb[c];
        out.opacity[ray] = front;
        out.depth[ray] = depth;
        out.distortion[ray] = distortion;
    });
}

static void rays_vjp_loop(const splat_rays& rays, const splat_ray_cotangents& v, float* v_density, float* v_rgb, int threads) {
    parallel_for(rays.rays, 16, threads, [&](int64_t ray, int) {
        const int64_t first = rays.first[ray], last = rays.first[ray + 1];
        // v_rgb holds a sample's weight and the transmittance behind it until its turn comes.
        ray_weights(rays, first, last, v_rgb + 3 * first, v_rgb + 3 * first + 1, 3);
        float all = 0.0f, all_middles = 0.0f;
        for (int64_t i = first; i < last; ++i) {
            all += v_rgb[3 * i];
            all_middles += v_rgb[3 * i] * rays.middle[i];
        }
        const float* v_color = v.rgb + 3 * ray;
        const float v_opacity = v.opacity ? v.opacity[ray] : 0.0f, v_depth = v.depth ? v.depth[ray] : 0.0f;
        const float v_distortion = v.distortion ? v.distortion[ray] : 0.0f;
        float behind = 0.0f, behind_middles = 0.0f, shaded = 0.0f;
        for (int64_t i = last - 1; i >= first; --i) {
            const float w = v_rgb[3 * i], after = v_rgb[3 * i + 1], middle = rays.middle[i], wm = w * middle;
            const float spread = distortion_vjp(w, middle, rays.extent[i], all - behind - w, all_middles - behind_middles - wm,
                                                behind, behind_middles);
            const float v_weight = dot3(v_color, rays.rgb + 3 * i) + v_opacity + v_depth * rays.distance[i] + v_distortion * spread;
            for (int c = 0; c < 3; ++c) v_rgb[3 * i + c] = w * v_color[c];
            v_density[i] = density_vjp(rays.length[i], v_weight, after, shaded);
            shaded += v_weight * w;
            behind += w;
            behind_middles += wm;
        }
    });
}

static void sh_basis_loop(int degree, const float* directions, int64_t n, float* basis, int threads) {
    const int64_t bases = sh_bases(degree);
    parallel_for((n + kLanes - 1) / kLanes, 64, threads, [&](int64_t block, int) {
        const int64_t first = block * kLanes;
        const int lanes = int(std::min<int64_t>(kLanes, n - first));
        vf direction[3], value[16];
        load_points(directions, first, n, direction);
        sh_basis(degree, direction, value);
        for (int lane = 0; lane < lanes; ++lane)
            for (int64_t k = 0; k < bases; ++k) basis[(first + lane) * bases + k] = value[k][lane];
    });
}

}  // namespace SPLAT_LEVEL
}  // namespace splat
