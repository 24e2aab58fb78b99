// How the world is laid into the unit cube of a radiance field, and where a ray is sampled in it.
//
// A box, which is empty outside; or all of space around a ball, contracted beyond it: (2 - 1/r) x/r for r = |x| > 1 radius
// (Barron et al. 2022, mip-NeRF 360, eq. 10). T is as in base.h, S its scalar.
#pragma once

#include <cstdint>

#include "base.h"
#include "field.h"

namespace splat {
inline namespace SPLAT_LEVEL {

constexpr float kFarthest = 2e-3f;  // twice the ball's radius over the distance at which a ray ends: 1000 radii
constexpr float kCellOpacity = 0.3f;  // optical depth of a cell's length, at most: see ray_samples in cpu/march.h
constexpr float kNoWeight = 1e-3f;  // sum of the weights of a ray that meets next to nothing: less is rounding
constexpr int kCoarseMost = 1024;   // parts of a ray
constexpr int kOccupancyCells = 512;  // along each side of the unit cube, at most

template <class S>
struct Space {
    bool ball;
    S low[3];   // corner of the box, or centre of the ball
    S high[3];  // opposite corner, or three times the radius

    // Points -> unit cube. Of the ball: half of the cube's side is its diameter. Outside of a box: the nearest point of it.
    template <class T>
    SPLAT_HD void unit(const T* point, T* out) const {
        if (!ball) {
            for (int i = 0; i < 3; ++i) {
                const T at = (point[i] - low[i]) / (high[i] - low[i]);
                out[i] = choose(at > S(0), choose(at < S(1), at, T{} + S(1)), T{});
            }
            return;
        }
        T x[3], squares{};
        for (int i = 0; i < 3; ++i) {
            x[i] = (point[i] - low[i]) / high[i];
            squares += x[i] * x[i];
        }
        const T r = choose(squares > S(1), sqrt(squares), T{} + S(1));
        const T factor = (S(2) - S(1) / r) / r;
        for (int i = 0; i < 3; ++i) out[i] = x[i] * factor * S(0.25) + S(0.5);
    }

    // Lengths in the unit cube per scene unit at a point, along a unit direction.
    template <class T>
    SPLAT_HD T speed(const T* point, const S* direction) const {
        T along{}, squares{}, whole{};
        for (int i = 0; i < 3; ++i) {
            const T size = T{} + (ball ? high[i] : high[i] - low[i]);
            const T x = (point[i] - low[i]) / size, d = direction[i] / size;
            squares += x * x, along += x * d, whole += d * d;
        }
        if (!ball) return sqrt(whole);
        // Beyond the ball, what goes outwards shrinks by 1/r^2 and what goes across by (2 - 1/r)/r.
        const T r2 = choose(squares > S(1), squares, T{} + S(1)), inverse = S(1) / sqrt(r2);
        const T outwards = choose(squares > S(1), along * along / r2, T{}), across = whole - outwards;
        const T shrunk = (S(2) - inverse) * inverse;
        const T sum = outwards / (r2 * r2) + across * shrunk * shrunk;
        return sqrt(choose(sum > S(0), sum, T{})) * S(0.25);
    }

    // Of a ray that begins at the distance `least`: where it enters and leaves the box (0, 0 where it misses it); of the
    // ball: `least` and twice the radius, or somewhat more than `least`.
    SPLAT_HD void range(const S* origin, const S* direction, S least, S* near, S* far) const {
        if (ball) {
            *near = least, *far = S(2) * (high[0] > least ? high[0] : least);
            return;
        }
        S from = least, to = S(1e30);
        for (int i = 0; i < 3; ++i) {
            const S safe = direction[i] < S(1e-12) && direction[i] > S(-1e-12) ? S(1e-12) : direction[i];
            const S one = (low[i] - origin[i]) / safe, other = (high[i] - origin[i]) / safe;
            const S nearer = one < other ? one : other, farther = one < other ? other : one;
            from = nearer > from ? nearer : from;
            to = farther < to ? farther : to;
        }
        const bool hits = to > from;
        *near = hits ? from : S(0), *far = hits ? to : S(0);
    }

    // Distance from the origin at s in [0, 1]. Box: even between `near` and `far`. Ball: so is one half of s, the other even
    // in inverse distance.
    template <class T>
    SPLAT_HD T distance(T s, S near, S far) const {
        if (!ball) return near + s * (far - near);
        const T beyond = S(2) * s - S(1);
        return choose(s < S(0.5), near + (far - near) * S(2) * s, far / (S(1) + beyond * S(kFarthest - 1.0f)));
    }
};

// Index of the cell of cells^3 that a place of the unit cube lies in, x fastest; NaN counts as 0.
template <class T, class U = decltype(truncated(T()))>
SPLAT_HD U occupancy_cell(const T* unit, uint32_t cells) {
    U index{};
    for (int i = 2; i >= 0; --i) {
        const T inside = choose(unit[i] > Scalar<T>(0), choose(unit[i] < Scalar<T>(1), unit[i], T{} + Scalar<T>(1)), T{});
        const U cell = truncated(inside * Scalar<T>(cells)), last = U{} + (cells - 1);
        index = index * cells + choose(cell < last, cell, last);
    }
    return index;
}

}  // namespace SPLAT_LEVEL
}  // namespace splat
