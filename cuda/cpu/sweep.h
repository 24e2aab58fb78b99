// Multi-view stereo: a sweep of planes over all pixels, and a search for one plane per pixel.
//
// The sweep takes fronto-parallel planes at given inverse depths. A thread takes a plane and a band of rows, and walks down:
// it reads one row of each neighbour as that plane maps it (a gather per sample), keeps the last rows of the window in a ring, and
// sums them down and across, so that a window costs the same for any content.
//
// The search gives each pixel a slanted plane of its own (PatchMatch stereo: Bleyer et al. 2011; the adaptive choice of
// neighbours follows Xu and Tao 2019, ACMH). Every pixel reads the planes of the round before, so that a vector holds
// neighbouring pixels and nothing depends on the order of threads. Its windows are read sample by sample.
#pragma once

#include "simd.h"  // before the maths, see there

#include "../include/splat/sweep.h"
#include "kernels.h"
#include "parallel.h"

namespace splat {
inline namespace SPLAT_LEVEL {

constexpr float kGreyScale = 1.0f / 65534.0f;  // photos are 1 + 65534 grey, 0 where unusable
constexpr int64_t kBandRows = 96;             // of the sweep; a window's reach of rows is read twice at each seam
constexpr float kByteScale = 1.0f / 254.0f;    // and quads 1 + 254 grey

static inline vf grey_of(vi code) { return fma(__builtin_convertvector(code, vf), set1(kGreyScale), set1(-0.5f - kGreyScale)); }

// Bilinear value at (u, v), counted from the centre of the first pixel; both must lie inside, see kSweepMargin. NaN where one
// of the four pixels is unusable.
template <bool kMasked>
static inline vf sample(const splat_stereo_view& view, vf u, vf v) {
    const vi x = __builtin_convertvector(u, vi), y = __builtin_convertvector(v, vi);
    const vf a = u - __builtin_convertvector(x, vf), b = v - __builtin_convertvector(y, vf);
    const vi index = y * view.width + x;
    const vi upper = gather_pairs(view.grey, index), lower = gather_pairs(view.grey + view.width, index);
    const vi c00 = upper & 0xffff, c01 = vi(vu(upper) >> 16), c10 = lower & 0xffff, c11 = vi(vu(lower) >> 16);
    const vf v00 = __builtin_convertvector(c00, vf), v10 = __builtin_convertvector(c10, vf);
    const vf top = fma(a, __builtin_convertvector(c01, vf) - v00, v00);
    const vf bottom = fma(a, __builtin_convertvector(c11, vf) - v10, v10);
    const vf value = fma(fma(b, bottom - top, top), set1(kGreyScale), set1(-0.5f - kGreyScale));
    if (!kMasked) return value;
    const vi unusable = (c00 == 0) | (c01 == 0) | (c10 == 0) | (c11 == 0);
    return as_float(bits(value) | unusable);  // all ones is a NaN
}

// Mean of the smallest `best` of the values that were put in; at most kSweepViews.
struct SmallestMean {
    vf smallest[kSweepViews];
    int best;

    explicit SmallestMean(int best) : best(best) {
        smallest[0] = set1(kSweepTruncation);
        for (int k = 1; k < best; ++k) smallest[k] = smallest[0];
    }
    void add(vf value) {
        for (int k = 0; k < best; ++k) {
            const vf low = vmin(value, smallest[k]);
            value = vmax(value, smallest[k]);
            smallest[k] = low;
        }
    }
    vf mean() const {
        vf sum = smallest[0];
        for (int k = 1; k < best; ++k) sum += smallest[k];
        return sum * (1.0f / float(best));
    }
};

// Fills the reference's arrays of a StereoGrid: grey values, and the statistics of every window.
static void stereo_prepare_loop(const StereoGrid& grid, int threads) {
    const int radius = grid.radius;
    parallel_for(grid.rows(), 8, threads, [&](int64_t row, int) {
        const int64_t y = row - radius;
        float* out = grid.values + row * grid.row_floats();
        for (int64_t i = 0; i < grid.row_floats(); ++i) out[i] = __builtin_nanf("");
        if (y < 0 || y >= grid.reference.height) return;
        const uint16_t* in = grid.reference.grey + y * grid.reference.width;
        for (int64_t x = 0; x < grid.reference.width; ++x)
            if (in[x])
                out[x % grid.stride * grid.pitch + kStereoPad + x / grid.stride] = float(in[x]) * kGreyScale - 0.5f - kGreyScale;
    });
    parallel_for(grid.height, 8, threads, [&](int64_t j, int) {
        for (int64_t i = 0; i < grid.padded_width(); i += kLanes) {
            vf n{}, sum{}, squares{};
            for (int e = -radius; e <= radius; ++e)
                for (int d = -radius; d <= radius; ++d) {
                    const vf value = loadu(grid.window(j, d, e) + i);
                    const vi counts = value == value;
                    n += masked(counts, set1(1.0f));
                    sum += masked(counts, value);
                    squares += masked(counts, value * value);
                }
            const vf centre = loadu(grid.window(j, 0, 0) + i);
            const vi usable = (centre == centre) & (n > 0.0f);
            const vf inverse = 1.0f / select(usable, n, set1(1.0f)), mean = sum * inverse;
            const vf spread = fma(squares, inverse, -(mean * mean));
            const int64_t at = j * grid.padded_width() + i;
            storeu(grid.mean + at, masked(usable, mean));
            // Without a value in the middle there is no window: a NaN here makes every cost of it the truncation.
            storeu(grid.inverse_n + at, select(usable, inverse, set1(__builtin_nanf(""))));
            storeu(grid.inverse_deviation + at, 1.0f / sqrt(select(spread > 0.0f, spread, vf{}) + grid.noise));
        }
    });
}

// What the sweep reads of a neighbour in one gather: four pixels in 32 bits, 1 + 254 grey each, 0 where unusable. The
// rounding has a standard deviation of 0.3 of an 8-bit photo's grey levels, which the photo's own rounding has, too.
static void stereo_quads_loop(const splat_stereo_view& view, uint32_t* quads, int threads) {
    const auto byte = [&](int64_t at) {
        const uint32_t code = view.grey[at];
        return code ? 1 + ((code - 1) * 254 + 32767) / 65534 : 0;
    };
    parallel_for(view.height - 1, 16, threads, [&](int64_t y, int) {
        for (int64_t x = 0; x + 1 < view.width; ++x) {
            const int64_t at = y * view.width + x;
            quads[at] = byte(at) | byte(at + 1) << 8 | byte(at + view.width) << 16 | byte(at + view.width + 1) << 24;
        }
    });
}

// One row of a neighbour as a plane maps it: NaN where the neighbour has no value, 0 where the reference has none.
template <bool kMasked>
static void warp_row(const splat_stereo_view& view, const uint32_t* quads, const float* reference, int64_t y, float w,
                     int64_t width, float* out) {
    const float* m = view.from_reference;
    const float far_x = float(view.width - 1) - kSweepMargin, far_y = float(view.height - 1) - kSweepMargin;
    const vf row = set1(float(y) + 0.5f), plane = set1(w);
    vf column = lane_index() + 0.5f;
    for (int64_t i = 0; i < width; i += kLanes, column += float(kLanes)) {
        vf p[3];
        sweep_project(m, column, row, plane, p);
        const vf inverse = 1.0f / p[2];
        const vf u = fma(p[0], inverse, set1(-0.5f)), v = fma(p[1], inverse, set1(-0.5f));
        const vi inside = (p[2] > 1e-6f) & (u >= kSweepMargin) & (v >= kSweepMargin) & (u <= far_x) & (v <= far_y);
        const vf value = loadu(reference + i);
        const vi counts = value == value;
        if (!movemask(inside & counts)) {
            storeu(out + i, masked(counts, as_float(set1i(-1))));
            continue;
        }
        const vf x = masked(inside, u), y = masked(inside, v);
        const vi left = __builtin_convertvector(x, vi), top = __builtin_convertvector(y, vi);
        const vf a = x - __builtin_convertvector(left, vf), b = y - __builtin_convertvector(top, vf);
        const vu quad = gather(quads, top * view.width + left);
        const vi c00 = vi(quad & 0xff), c01 = vi((quad >> 8) & 0xff), c10 = vi((quad >> 16) & 0xff), c11 = vi(quad >> 24);
        const vf v00 = __builtin_convertvector(c00, vf), v10 = __builtin_convertvector(c10, vf);
        const vf upper = fma(a, __builtin_convertvector(c01, vf) - v00, v00);
        const vf lower = fma(a, __builtin_convertvector(c11, vf) - v10, v10);
        const vf found = fma(fma(b, lower - upper, upper), set1(kByteScale), set1(-0.5f - kByteScale));
        vi unknown = ~inside;
        if (kMasked) unknown |= (c00 == 0) | (c01 == 0) | (c10 == 0) | (c11 == 0);
        storeu(out + i, masked(counts, as_float(bits(found) | unknown)));
    }
}

// Sum of the 2 kRadius + 1 numbers around each of kLanes at `row`, which lies at a multiple of kLanes from an aligned place.
template <int kRadius>
static inline vf window_sum(const float* row) {
#if defined(__AVX512F__)
    // Whatever is read beside the middle crosses a cache line here: shifting three registers is cheaper.
    const __m512i before = __m512i(load(row - kLanes)), here = __m512i(load(row)), after = __m512i(load(row + kLanes));
    vf left = vf(here), right{};
    if constexpr (kRadius >= 1) left += vf(_mm512_alignr_epi32(here, before, 15)), right += vf(_mm512_alignr_epi32(after, here, 1));
    if constexpr (kRadius >= 2) left += vf(_mm512_alignr_epi32(here, before, 14)), right += vf(_mm512_alignr_epi32(after, here, 2));
    if constexpr (kRadius >= 3) left += vf(_mm512_alignr_epi32(here, before, 13)), right += vf(_mm512_alignr_epi32(after, here, 3));
    if constexpr (kRadius >= 4) left += vf(_mm512_alignr_epi32(here, before, 12)), right += vf(_mm512_alignr_epi32(after, here, 4));
#else
    vf left = loadu(row), right{};
    for (int d = 1; d <= kRadius; ++d) left += loadu(row - d), right += loadu(row + d);
#endif
    return left + right;
}

// counted [height, padded_width] of a grid of stride 1: its values, 0 where unusable.
static void stereo_counted_loop(const StereoGrid& grid, float* counted, int threads) {
    const int64_t width = grid.padded_width();
    parallel_for(grid.height, 8, threads, [&](int64_t y, int) {
        for (int64_t i = 0; i < width; i += kLanes) {
            const vf value = loadu(grid.window(y, 0, 0) + i);
            storeu(counted + y * width + i, masked(value == value, value));
        }
    });
}

// Costs of all planes at all pixels of a grid of stride 1: cost [height, hypotheses, width].
template <int kRadius>
static void sweep_planes(const StereoGrid& grid, const StereoViews& views, const float* inverse_depths, int64_t hypotheses,
                         float* cost, float* scratch, int64_t scratch_floats, int threads) {
    constexpr int kRows = 2 * kRadius + 1;
    const int64_t width = grid.padded_width(), pitch = width + 2 * kStereoPad;
    // Bands of rows, all planes of one before the next: what they read of the photos stays in the core's own cache.
    const int64_t bands = (grid.height + kBandRows - 1) / kBandRows;
    parallel_for(bands * hypotheses, 1, threads, [&](int64_t task, int worker) {
        const int64_t plane = task % hypotheses, top = task / hypotheses * kBandRows;
        const int64_t bottom = top + kBandRows < grid.height ? top + kBandRows : grid.height;
        float* ring = scratch + worker * scratch_floats;               // [views, kRows, width]
        float* sums = ring + int64_t(views.count) * kRows * width;     // [3, pitch]
        float* costs = sums + 3 * pitch;                               // [views, width]
        __builtin_memset(ring, 0, size_t(sums + 3 * pitch - ring) * sizeof(float));
        for (int64_t y = (top > kRadius ? top - kRadius : 0) - kRadius; y < bottom; ++y) {
            const int64_t next = y + kRadius;
            const bool first = y < top;  // only fills the ring
            for (int k = 0; k < views.count; ++k) {
                float* rows = ring + int64_t(k) * kRows * width;
                float* out = rows + next % kRows * width;
                const splat_stereo_view& view = views.view[k];
                if (next >= grid.height)
                    __builtin_memset(out, 0, size_t(width) * sizeof(float));
                else if (view.masked)
                    warp_row<true>(view, views.quads[k], grid.window(next, 0, 0), next, inverse_depths[plane], width, out);
                else
                    warp_row<false>(view, views.quads[k], grid.window(next, 0, 0), next, inverse_depths[plane], width, out);
                if (first) continue;
                const float* other[kRows];
                const float* value[kRows];
                for (int e = -kRadius; e <= kRadius; ++e) {
                    // Beside the image both are 0: so are the places of such rows in the ring, see below and above.
                    const int64_t row = y + e < 0 ? 0 : y + e >= grid.height ? grid.height - 1 : y + e;
                    other[e + kRadius] = rows + (y + e + kRows) % kRows * width;
                    value[e + kRadius] = grid.counted + row * width;
                }
                for (int64_t i = 0; i < width; i += kLanes) {
                    vf sum{}, squares{}, products{};
                    for (int e = 0; e < kRows; ++e) {
                        const vf o = loadu(other[e] + i);
                        sum += o;
                        squares = fma(o, o, squares);
                        products = fma(o, loadu(value[e] + i), products);
                    }
                    storeu(sums + kStereoPad + i, sum);
                    storeu(sums + pitch + kStereoPad + i, squares);
                    storeu(sums + 2 * pitch + kStereoPad + i, products);
                }
                const float* mean = grid.mean + y * width;
                const float* inverse_n = grid.inverse_n + y * width;
                const float* inverse_deviation = grid.inverse_deviation + y * width;
                for (int64_t i = 0; i < width; i += kLanes) {
                    vf total[3];
                    for (int m = 0; m < 3; ++m) total[m] = window_sum<kRadius>(sums + m * pitch + kStereoPad + i);
                    const vf c = sweep_cost(loadu(inverse_n + i), loadu(mean + i), loadu(inverse_deviation + i), total[0],
                                            total[1], total[2], grid.noise);
                    storeu(costs + k * width + i, c);
                }
            }
            if (first) continue;
            float* out = cost + (y * hypotheses + plane) * grid.width;
            for (int64_t i = 0; i < grid.width; i += kLanes) {
                SmallestMean smallest(views.best);
                for (int k = 0; k < views.count; ++k) smallest.add(loadu(costs + k * width + i));
                const vf mean = smallest.mean();
                const int64_t left = grid.width - i;
                __builtin_memcpy(out + i, &mean, size_t(left < kLanes ? left : kLanes) * sizeof(float));
            }
        }
    });
}

static void sweep_loop(const StereoGrid& grid, const StereoViews& views, const float* inverse_depths, int64_t hypotheses,
                       float* cost, float* scratch, int64_t scratch_floats, int threads) {
    const auto run = grid.radius == 1   ? sweep_planes<1>
                     : grid.radius == 2 ? sweep_planes<2>
                     : grid.radius == 3 ? sweep_planes<3>
                                        : sweep_planes<4>;
    run(grid, views, inverse_depths, hypotheses, cost, scratch, scratch_floats, threads);
}

// The cheapest hypothesis of every pixel of a volume [height, hypotheses, width], and the cheapest minimum elsewhere.
static void stereo_minima_loop(const float* volume, int64_t height, int64_t hypotheses, int64_t width, float* lowest,
                               float* position, float* rival, int threads) {
    parallel_for(height, 4, threads, [&](int64_t y, int) {
        for (int64_t i = 0; i < width; i += kLanes) {
            const size_t bytes = size_t(width - i < kLanes ? width - i : kLanes) * sizeof(float);
            const auto at = [&](int64_t plane) {
                vf v{};
                __builtin_memcpy(&v, volume + (y * hypotheses + plane) * width + i, bytes);
                return v;
            };
            vf best = at(0), index{};
            for (int64_t plane = 1; plane < hypotheses; ++plane) {
                const vf c = at(plane);
                const vi lower = c < best;
                best = select(lower, c, best), index = select(lower, set1(float(plane)), index);
            }
            // Beyond the ends there is nothing to compare with: an end is a minimum, but no parabola goes through it.
            vf below{}, above{}, other = set1(kSweepTruncation), before = set1(2.0f), here = at(0);
            for (int64_t plane = 0; plane < hypotheses; ++plane) {
                const vf after = plane + 1 < hypotheses ? at(plane + 1) : set1(2.0f);
                const vf distance = index - float(plane);
                const vi taken = distance == 0.0f, elsewhere = vabs(distance) > float(kSweepNear);
                below = select(taken, before, below), above = select(taken, after, above);
                other = select(elsewhere & (here <= before) & (here <= after) & (here < other), here, other);
                before = here, here = after;
            }
            const vi end = (index == 0.0f) | (index == float(hypotheses - 1));
            const vf place = index + select(end, vf{}, sweep_vertex(below, best, above));
            const int64_t out = y * width + i;
            __builtin_memcpy(lowest + out, &best, bytes);
            __builtin_memcpy(position + out, &place, bytes);
            __builtin_memcpy(rival + out, &other, bytes);
        }
    });
}

struct Plane {
    vf w, wx, wy;
};

// A vector of pixels of the grid: row j, columns i to i + kLanes.
struct StereoPixels {
    const StereoGrid& grid;
    int64_t j, i;
    vf x, y, mean, inverse_n, inverse_deviation;

    StereoPixels(const StereoGrid& grid, int64_t j, int64_t i) : grid(grid), j(j), i(i) {
        x = fma(lane_index() + float(i), set1(float(grid.stride)), set1(float(grid.first) + 0.5f));
        y = set1(float(grid.first + j * grid.stride) + 0.5f);
        const int64_t at = j * grid.padded_width() + i;
        mean = loadu(grid.mean + at), inverse_n = loadu(grid.inverse_n + at);
        inverse_deviation = loadu(grid.inverse_deviation + at);
    }

    template <bool kMasked>
    vf cost(const splat_stereo_view& view, const Plane& plane) const {
        const SweepWarp<vf> warp(view.from_reference, x, y, plane.w, plane.wx, plane.wy);
        const float radius = float(grid.radius);
        const vf u = warp.u - 0.5f, v = warp.v - 0.5f;
        const vf reach_u = (vabs(warp.ux) + vabs(warp.uy)) * radius, reach_v = (vabs(warp.vx) + vabs(warp.vy)) * radius;
        const vi inside = ~warp.behind & (u - reach_u >= kSweepMargin) & (v - reach_v >= kSweepMargin) &
                          (u + reach_u <= float(view.width - 1) - kSweepMargin) &
                          (v + reach_v <= float(view.height - 1) - kSweepMargin) & (inverse_n == inverse_n);
        if (!movemask(inside)) return set1(kSweepTruncation);
        const vf u0 = masked(inside, u), v0 = masked(inside, v), ux = masked(inside, warp.ux), uy = masked(inside, warp.uy);
        const vf vx = masked(inside, warp.vx), vy = masked(inside, warp.vy);
        vf sum{}, squares{}, products{};
        for (int e = -grid.radius; e <= grid.radius; ++e) {
            const vf row_u = fma(uy, set1(float(e)), u0), row_v = fma(vy, set1(float(e)), v0);
            for (int d = -grid.radius; d <= grid.radius; ++d) {
                const vf r = loadu(grid.window(j, d, e) + i);
                const vi counts = r == r;
                const vf o = masked(counts, sample<kMasked>(view, fma(ux, set1(float(d)), row_u), fma(vx, set1(float(d)), row_v)));
                sum += o;
                squares = fma(o, o, squares);
                products = fma(o, masked(counts, r), products);
            }
        }
        const vf c = sweep_cost(inverse_n, mean, inverse_deviation, sum, squares, products, grid.noise);
        return select(inside, c, set1(kSweepTruncation));
    }

    vf cost(const splat_stereo_view& view, const Plane& plane) const {
        return view.masked ? cost<true>(view, plane) : cost<false>(view, plane);
    }

    // Over all views: the mean of the best.
    vf cost(const StereoViews& views, const Plane& plane) const {
        SmallestMean smallest(views.best);
        for (int k = 0; k < views.count; ++k) smallest.add(cost(views.view[k], plane));
        return smallest.mean();
    }

    // Px per unit of inverse depth in the view where the plane's point moves fastest: the view that measures depth best.
    vf rate(const StereoViews& views, const Plane& plane) const {
        vf largest{};
        for (int k = 0; k < views.count; ++k) {
            const SweepWarp<vf> warp(views.view[k].from_reference, x, y, plane.w, plane.wx, plane.wy);
            largest = vmax(select(warp.behind, vf{}, warp.rate), largest);
        }
        return largest;
    }
};

// Costs view by view of the planes that planes [3, height, width] hold, moved by -step, 0 and +step px in the view where
// they move fastest: costs [3, views, height, width]; rate [height, width], see StereoPixels.
static void plane_costs_loop(const StereoGrid& grid, const StereoViews& views, const float* planes, float step, float* costs,
                             float* rate, int threads) {
    const int64_t size = grid.height * grid.width;
    parallel_for(grid.height, 2, threads, [&](int64_t j, int) {
        for (int64_t i = 0; i < grid.width; i += kLanes) {
            const int64_t at = j * grid.width + i, left = grid.width - i;
            const size_t bytes = size_t(left < kLanes ? left : kLanes) * sizeof(float);
            Plane plane{};
            __builtin_memcpy(&plane.w, planes + at, bytes);
            __builtin_memcpy(&plane.wx, planes + size + at, bytes);
            __builtin_memcpy(&plane.wy, planes + 2 * size + at, bytes);
            const StereoPixels pixels(grid, j, i);
            const vf fastest = pixels.rate(views, plane);
            const vf move = step / vmax(fastest, set1(1e-20f));
            __builtin_memcpy(rate + at, &fastest, bytes);
            for (int side = 0; side < 3; ++side) {
                if (side != 1 && step == 0.0f) continue;
                const Plane moved = {plane.w + move * float(side - 1), plane.wx, plane.wy};
                for (int k = 0; k < views.count; ++k) {
                    const vf c = pixels.cost(views.view[k], moved);
                    __builtin_memcpy(costs + (side * views.count + k) * size + at, &c, bytes);
                }
            }
        }
    });
}

// A round of the search, from the planes and costs of the round before to new ones; see StereoSearch.
static void plane_search_loop(const StereoGrid& grid, const StereoViews& views, const StereoSearch& search, const float* from,
                              float* to, float step, int threads) {
    const int64_t pitch = grid.padded_width() + 2 * kStereoPad, size = grid.height * pitch;  // four maps: w, wx, wy, cost
    const float stride = float(grid.stride);
    parallel_for(grid.height, 2, threads, [&](int64_t j, int) {
        for (int64_t i = 0; i < grid.width; i += kLanes) {
            const int64_t at = j * pitch + kStereoPad + i;
            const StereoPixels pixels(grid, j, i);
            Plane plane = {loadu(from + at), loadu(from + size + at), loadu(from + 2 * size + at)};
            vf cost = loadu(from + 3 * size + at);
            const auto consider = [&](const Plane& candidate) {
                const vi allowed = (candidate.w >= search.smallest) & (candidate.w <= search.largest) &
                                   (vabs(candidate.wx) + vabs(candidate.wy) <= candidate.w * search.steepest);
                if (!movemask(allowed)) return;
                const vf c = pixels.cost(views, candidate);
                const vi better = allowed & (c < cost);
                plane = {select(better, candidate.w, plane.w), select(better, candidate.wx, plane.wx),
                         select(better, candidate.wy, plane.wy)};
                cost = select(better, c, cost);
            };
            if (step == 0.0f) {  // only what the planes cost, for the rounds that follow
                storeu(to + at, plane.w), storeu(to + size + at, plane.wx), storeu(to + 2 * size + at, plane.wy);
                storeu(to + 3 * size + at, pixels.cost(views, plane));
                continue;
            }
            // Per direction, the plane of the pixel that fits its own place best, extended to here.
            static const int kDirections[8][2] = {{-1, 0}, {1, 0}, {0, -1}, {0, 1}, {-1, -1}, {1, 1}, {-1, 1}, {1, -1}};
            for (int direction = 0; direction < search.directions; ++direction) {
                Plane chosen = plane;
                vf lowest = set1(2.0f);
                for (int distance = 1; distance <= 5; distance += 2) {
                    const int64_t dx = kDirections[direction][0] * distance, dy = kDirections[direction][1] * distance;
                    if (j + dy < 0 || j + dy >= grid.height) break;
                    const int64_t there = at + dy * pitch + dx;
                    const vf c = loadu(from + 3 * size + there);
                    const vi take = c < lowest;
                    const vf wx = loadu(from + size + there), wy = loadu(from + 2 * size + there);
                    const vf w = loadu(from + there) - (wx * float(dx) + wy * float(dy)) * stride;
                    chosen = {select(take, w, chosen.w), select(take, wx, chosen.wx), select(take, wy, chosen.wy)};
                    lowest = select(take, c, lowest);
                }
                const vi differs = (chosen.w != plane.w) | (chosen.wx != plane.wx) | (chosen.wy != plane.wy);
                if (movemask(differs)) consider(chosen);
            }
            // Around the best so far: depth, then tilt; a tilt moves the window's border as far as the depth moves all of it.
            const vf move = step / vmax(pixels.rate(views, plane), set1(1e-20f));
            const vf tilt = move / float(grid.radius);
            const Plane base = plane;
            const vf middle = cost;
            const vf below = pixels.cost(views, {base.w - move, base.wx, base.wy});
            const vf above = pixels.cost(views, {base.w + move, base.wx, base.wy});
            // To the vertex of the parabola; where there is none, a step downhill.
            const vf vertex = sweep_vertex(below, middle, above);
            const vi bowl = below + above - 2.0f * middle > 1e-6f;
            const vf offset = select(bowl, vertex, select(below < above, set1(-1.0f), set1(1.0f)));
            consider({base.w + offset * move, base.wx, base.wy});
            if (search.tilts)
                for (int side = 0; side < 4; ++side) {
                    const vf sign = side & 1 ? tilt : -tilt;
                    if (side < 2)
                        consider({plane.w, plane.wx + sign, plane.wy});
                    else
                        consider({plane.w, plane.wx, plane.wy + sign});
                }
            storeu(to + at, plane.w), storeu(to + size + at, plane.wx), storeu(to + 2 * size + at, plane.wy);
            storeu(to + 3 * size + at, cost);
        }
    });
}

}  // namespace SPLAT_LEVEL
}  // namespace splat
