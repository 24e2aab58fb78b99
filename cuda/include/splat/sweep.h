// Multi-view stereo at one pixel: where a plane before the reference camera takes a pixel and its window to in another photo,
// and how alike the two windows are.
//
// A plane n . X = 1 in the reference camera has an inverse depth 1/z that is affine in pixel coordinates, so a plane at a pixel
// is three numbers: the inverse depth w there, and its slopes wx, wy per px. Pixel coordinates have pixel centres at +0.5.
#pragma once

#include "base.h"

namespace splat {
inline namespace SPLAT_LEVEL {

constexpr float kSweepMargin = 1.0f / 64.0f;  // px from the outermost pixel centres inside which a window is still read
constexpr float kSweepTruncation = 1.0f;      // cost without any correlation, or without a view

// The point x' ~ M (x, y, 1) + w b of another photo; from_reference [3, 4] = (M | b), M = K' R K^-1, b = K' t.
template <class T>
SPLAT_HD void sweep_project(const float* from_reference, T x, T y, T w, T* out) {
    for (int i = 0; i < 3; ++i) {
        const float* row = from_reference + 4 * i;
        out[i] = fma(T{} + row[0], x, fma(T{} + row[1], y, fma(T{} + row[3], w, T{} + row[2])));
    }
}

// A plane's map from the window around a pixel into another photo, to first order: (u, v) + d (ux, vx) + e (uy, vy) for the
// window's offset (d, e) in px. `behind` where the pixel's point is not before that camera.
template <class T>
struct SweepWarp {
    T u, v, ux, uy, vx, vy;
    T rate;  // px that (u, v) moves per unit of inverse depth
    Mask<T> behind;

    SPLAT_HD SweepWarp(const float* from_reference, T x, T y, T w, T wx, T wy) {
        const float* m = from_reference;
        T p[3];
        sweep_project(m, x, y, w, p);
        behind = !(p[2] > 1e-6f);
        const T inverse = 1.0f / choose(behind, T{} + 1.0f, p[2]);
        u = p[0] * inverse, v = p[1] * inverse;
        const T zx = fma(T{} + m[11], wx, T{} + m[8]), zy = fma(T{} + m[11], wy, T{} + m[9]);
        ux = (fma(T{} + m[3], wx, T{} + m[0]) - u * zx) * inverse;
        uy = (fma(T{} + m[3], wy, T{} + m[1]) - u * zy) * inverse;
        vx = (fma(T{} + m[7], wx, T{} + m[4]) - v * zx) * inverse;
        vy = (fma(T{} + m[7], wy, T{} + m[5]) - v * zy) * inverse;
        const T du = (m[3] - u * m[11]) * inverse, dv = (m[7] - v * m[11]) * inverse;
        rate = sqrt(du * du + dv * dv);
    }
};

// 1 - ZNCC of two windows, cut to [0, 1], from sums over the n samples of the reference that count: of the other's values, of
// their squares and of products with the reference. `noise` is a variance added to both: contrast below it is no evidence.
template <class T>
SPLAT_HD T sweep_cost(T inverse_n, T mean, T inverse_deviation, T sum, T sum_squares, T sum_products, float noise) {
    const T other = sum * inverse_n;
    const T spread = fma(sum_squares, inverse_n, -(other * other));
    const T covariance = fma(sum_products, inverse_n, -(mean * other));
    const T variance = choose(spread > 0.0f, spread, T{}) + noise;
    const T cost = 1.0f - covariance * inverse_deviation / sqrt(variance);
    const T low = choose(cost > 0.0f, cost, T{});
    // Written so that NaN, which stands for a sample without a value, becomes the truncation.
    return choose(cost < kSweepTruncation, low, T{} + kSweepTruncation);
}

// Where the parabola through costs at -1, 0 and 1 has its minimum, cut to [-1, 1]; 0 where it has none.
template <class T>
SPLAT_HD T sweep_vertex(T below, T middle, T above) {
    const T curvature = below + above - 2.0f * middle;
    const T vertex = (below - above) * 0.5f / choose(curvature > 1e-6f, curvature, T{} + 1.0f);
    const T upper = choose(vertex < 1.0f, vertex, T{} + 1.0f);
    return choose(curvature > 1e-6f, choose(upper > -1.0f, upper, T{} - 1.0f), T{});
}

// A path of semi-global matching goes on by one pixel (Hirschmueller 2008, eq. 13): the cost of a hypothesis there, and of
// coming from the same hypothesis, from the next one on either side for `slope`, or from the cheapest of all, `lowest`, for
// `leap` = lowest + the price of a jump. Without `lowest`, which is taken off again, sums would grow along the path.
template <class T>
SPLAT_HD T semiglobal_step(T cost, T before, T same, T behind, T slope, T leap, T lowest) {
    const T beside = choose(before < behind, before, behind) + slope;
    const T steady = choose(same < beside, same, beside);
    return cost + choose(steady < leap, steady, leap) - lowest;
}

// The price of a jump between two pixels that differ by so much grey: half of it where they differ by `edge`.
template <class T>
SPLAT_HD T semiglobal_jump(T jump, float edge, T difference) {
    const T size = choose(difference < 0.0f, -difference, difference);
    return jump / (1.0f + size / edge);
}

}  // namespace SPLAT_LEVEL
}  // namespace splat
