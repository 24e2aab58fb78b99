// Integer decisions: is a Gaussian visible, and which 16x16 tiles does it reach? Shared by all engines, so that they
// differ only by the rounding of sums. Tight, opacity-aware bounds after Speedy-Splat (Hanson et al. 2025): a Gaussian
// reaches as far as its alpha stays at or above kAlphaMin, i.e. inside the ellipse q(d) = d^T conic d <= 2 ln(opacity / kAlphaMin).
#pragma once

#include "base.h"

namespace splat {
inline namespace SPLAT_LEVEL {

// The ellipse in which alpha >= kAlphaMin, prepared so that a pixel row's interval costs one square root:
// at height dy from the centre, |dx + shear * dy| <= sqrt(reach - drop * dy^2).
template <class T>
struct Ellipse {
    T x, y;              // centre, px
    T half_x, half_y;    // half sides of its bounding box, px
    T shear;             // b / a
    T reach, drop;       // level / a in px^2, det(conic) / a^2
};

// Level of the ellipse, 2 ln(opacity / kAlphaMin), enlarged by a rounding allowance. Only where opacity >= kAlphaMin.
template <class T>
SPLAT_HD T ellipse_level(T log2_opacity) {
    return (log2_opacity - float(kLog2AlphaMin)) * float(2.0 * kLn2 * 1.0001) + 1e-4f;
}

template <class T>
SPLAT_HD Ellipse<T> make_ellipse(const T* mean2d, const T* cov, const T* conic, T level) {
    Ellipse<T> e;
    e.x = mean2d[0], e.y = mean2d[1];
    e.half_x = sqrt(level * cov[0]), e.half_y = sqrt(level * cov[2]);
    const T inverse_a = 1.0f / conic[0];
    e.shear = conic[1] * inverse_a;
    e.reach = level * inverse_a;
    e.drop = inverse_a / cov[2];  // det(conic) / a^2 = 1 / (a yy), because a = yy / det(cov)
    return e;
}

// Does the bounding box meet the image? False for anything not finite.
template <class T>
SPLAT_HD Mask<T> box_meets_image(const Ellipse<T>& e, int width, int height) {
    return (e.x + e.half_x >= 0.0f) & (e.x - e.half_x <= float(width)) & (e.y + e.half_y >= 0.0f) &
           (e.y - e.half_y <= float(height)) & (e.half_x < 1e9f) & (e.half_y < 1e9f);
}

// Pixel-centre tolerance: bounds are widened by it, so that no pixel that passes the alpha test is ever missed.
constexpr float kBoundSlack = 0.01f;

// NaN gives lo: it has no int, and a tile range from it could lead out of the image.
SPLAT_HD int clamp_to_int(float value, int lo, int hi) {
    return value >= float(hi) ? hi : (value > float(lo) ? int(value) : lo);
}

// Tile rows [first, last) that hold a pixel centre inside the box.
SPLAT_HD void tile_rows(const Ellipse<float>& e, int tiles_y, int* first, int* last) {
    // A tile row ty holds the centres ty*16 + 0.5 ... ty*16 + 15.5.
    const float top = e.y - e.half_y - kBoundSlack, bottom = e.y + e.half_y + kBoundSlack;
    *first = clamp_to_int(ceilf((top - (kTile - 0.5f)) / kTile), 0, tiles_y);
    *last = clamp_to_int(floorf((bottom - 0.5f) / kTile) + 1.0f, 0, tiles_y);
}

// Tiles [first, last) of tile row ty that the ellipse reaches; dy_right is the height at which its rightmost point lies.
SPLAT_HD void tile_span(const Ellipse<float>& e, float dy_right, int ty, int tiles_x, int* first, int* last) {
    float lo = float(ty * kTile) + 0.5f - e.y, hi = lo + float(kTile - 1);
    lo = lo < -e.half_y ? -e.half_y : lo;
    hi = hi > e.half_y ? e.half_y : hi;
    const float reach_lo = e.reach - e.drop * lo * lo, reach_hi = e.reach - e.drop * hi * hi;
    const float root_lo = reach_lo > 0.0f ? sqrtf(reach_lo) : 0.0f, root_hi = reach_hi > 0.0f ? sqrtf(reach_hi) : 0.0f;
    const float right_lo = -e.shear * lo + root_lo, right_hi = -e.shear * hi + root_hi;
    const float left_lo = -e.shear * lo - root_lo, left_hi = -e.shear * hi - root_hi;
    float right = right_lo > right_hi ? right_lo : right_hi, left = left_lo < left_hi ? left_lo : left_hi;
    if (dy_right >= lo && dy_right <= hi) right = e.half_x;
    if (-dy_right >= lo && -dy_right <= hi) left = -e.half_x;
    *first = clamp_to_int(ceilf((e.x + left - kBoundSlack - (kTile - 0.5f)) / kTile), 0, tiles_x);
    *last = clamp_to_int(floorf((e.x + right + kBoundSlack - 0.5f) / kTile) + 1.0f, 0, tiles_x);
    if (*last < *first) *last = *first;
}

}  // namespace SPLAT_LEVEL
}  // namespace splat
