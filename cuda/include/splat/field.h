// A radiance field: the multiresolution hash grid of Mueller et al. 2022 (instant-ngp), the activation of a small MLP, and
// what a ray sees of samples along it, with the distortion of Barron et al. 2022 (mip-NeRF 360).
//
// U is uint32_t, or a SIMD vector of them where T is one of floats (cpu/simd.h, to be included first).
#pragma once

#include <cstdint>

#include "base.h"

namespace splat {
inline namespace SPLAT_LEVEL {

constexpr int kGridFeatures = 2;   // numbers per entry of the table
constexpr int kGridLevels = 16;    // at most
constexpr uint32_t kHashY = 2654435761u, kHashZ = 805459861u;  // instant-ngp, section 3; the factor of x is 1
constexpr float kOpticalMax = 80.0f;  // optical depth of one sample: e^-80 is nothing, and sums of such stay finite

SPLAT_HD uint32_t truncated(float x) { return uint32_t(x); }
SPLAT_HD uint32_t truncated(double x) { return uint32_t(x); }
SPLAT_HD double real(uint32_t i) { return double(i); }

// One level: a lattice of cells^3 cubes over [0, 1]^3 whose (cells + 1)^3 vertices each have an entry of their own where the
// table is large enough (`dense`), else the one that their hash gives; then rows is a power of two.
struct GridLevel {
    int64_t offset;  // of the level's first entry in the table
    uint32_t cells, rows;
    bool dense;
};

// The cube that a point lies in. Points outside [0, 1]^3 count as the nearest point of it, NaN as 0.
template <class T>
struct GridCell {
    using U = decltype(truncated(T()));
    U axis[3][2];   // what the lower and the upper vertex add to the index
    T fraction[3];  // of the way from the lower to the upper
    uint32_t mask;  // rows - 1, of a hashed level
    bool dense;

    SPLAT_HD GridCell(const GridLevel& level, const T* point) : mask(level.rows - 1), dense(level.dense) {
        const uint32_t side = level.cells + 1;
        const uint32_t factor[3] = {1, dense ? side : kHashY, dense ? side * side : kHashZ};
        for (int d = 0; d < 3; ++d) {
            const T inside = choose(point[d] > Scalar<T>(0), choose(point[d] < Scalar<T>(1), point[d], T{} + Scalar<T>(1)), T{});
            const T at = inside * Scalar<T>(level.cells);
            const U cell = truncated(at), last = U{} + (level.cells - 1);
            const U lower = choose(cell < last, cell, last);  // the point 1 belongs to the last cube
            fraction[d] = at - T(real(lower));
            axis[d][0] = lower * factor[d];
            axis[d][1] = axis[d][0] + factor[d];
        }
    }

    // Entry of the level's table for a corner; bit d of it says which vertex along axis d.
    SPLAT_HD U index(int corner) const {
        const U x = axis[0][corner & 1], y = axis[1][corner >> 1 & 1], z = axis[2][corner >> 2];
        return dense ? x + y + z : (x ^ y ^ z) & mask;
    }

    // Its trilinear weight.
    SPLAT_HD T weight(int corner) const {
        T w = side(0, corner & 1);
        w = w * side(1, corner >> 1 & 1);
        return w * side(2, corner >> 2);
    }

   private:
    SPLAT_HD T side(int d, int upper) const { return upper ? fraction[d] : Scalar<T>(1) - fraction[d]; }
};

// max(x, 0); NaN stays NaN, so that a field that diverged is found out.
template <class T>
SPLAT_HD T relu(T x) {
    return choose(x < Scalar<T>(0), T{}, x);
}

// y = relu(x) is enough to know.
template <class T>
SPLAT_HD T relu_vjp(T y, T v) {
    return choose(y > Scalar<T>(0), v, T{});
}

// A sample's share of the light of its ray (Max 1995): weight = e^-before (1 - e^-own), before the sum of the optical
// depths (density times length) in front of the sample, own the sample's; `after` is the transmittance behind it.
template <class T>
SPLAT_HD T ray_weight(T before, T own, T* after) {
    const T reaches = exp(-before), passes = exp(-own);
    *after = reaches * passes;
    return reaches * (Scalar<T>(1) - passes);
}

// Distortion of mip-NeRF 360, eq. 15: sum_ij w_i w_j |m_i - m_j| + 1/3 sum_i w_i^2 d_i, over samples with middles m in
// ascending order and lengths d. What a sample adds, from the sums w and w m of those in front of it.
template <class T>
SPLAT_HD T distortion_step(T weight, T middle, T length, T front, T front_middles) {
    return Scalar<T>(2) * weight * (middle * front - front_middles) + weight * weight * length * Scalar<T>(1.0 / 3.0);
}

// d distortion / d weight, from the sums in front of a sample and behind it.
template <class T>
SPLAT_HD T distortion_vjp(T weight, T middle, T length, T front, T front_middles, T behind, T behind_middles) {
    return Scalar<T>(2) * (middle * (front - behind) - (front_middles - behind_middles)) +
           weight * length * Scalar<T>(2.0 / 3.0);
}

// d loss / d density of a sample of length `length`, from v = d loss / d weight, the transmittance behind the sample, and the
// sum of v times weight over the samples behind it, which it shades.
template <class T>
SPLAT_HD T density_vjp(T length, T v, T after, T shaded) {
    return length * (v * after - shaded);
}

}  // namespace SPLAT_LEVEL
}  // namespace splat
