// What the blend loops read of one Gaussian, from its numbers as they are trained; and the way back of their sums to gradients.
#pragma once

#include "blend.h"
#include "projection.h"
#include "tiles.h"

namespace splat {

// One visible Gaussian: one cache line, of which a pixel needs the first three quarters.
struct alignas(64) Record {
    float x, y;                     // mean2d, px
    float qa, shear;                // its exponent, see log2_alpha in blend.h
    float qd, log2_opacity;         // antialiasing included
    float half_x, half_y;           // of the bounding box of its Ellipse, as is shear
    float r, g, b, depth;
    float reach, drop;              // the rest of the Ellipse: the interval of a pixel row
    float opacity;
    float dy_right;                 // height above the mean of the ellipse's rightmost point
};
static_assert(sizeof(Record) == 64, "a record is one cache line");

inline namespace SPLAT_LEVEL {

template <class T>
SPLAT_HD T sigmoid(T x) {
    using S = Scalar<T>;
    return S(1) / (S(1) + exp(-x));
}

template <class T>
SPLAT_HD void camera_point(const Camera<Scalar<T>>& cam, const T* mean, T* p) {
    for (int i = 0; i < 3; ++i) p[i] = dot3(cam.W + 3 * i, mean) + cam.t[i];
}

template <class T>
SPLAT_HD Mask<T> in_depth_range(T depth) {
    return (depth > kNear) & (depth < kFar);
}

// The geometry of a record.
template <class T>
struct RecordGeometry {
    T x, y, qa, shear, qd, log2_opacity, depth, reach, drop, half_x, half_y, opacity, dy_right;
};

// Of a Gaussian whose mean lies at p [3] in camera space, p.z in depth range. True where it is visible.
template <class T>
SPLAT_HD Mask<T> record_geometry(const T* p, const T* quat, const T* log_scale, T logit, const Camera<Scalar<T>>& cam,
                                 Scalar<T> eps2d, bool antialiased, RecordGeometry<T>& r) {
    Projected<T> s;
    project(p, quat, log_scale, cam, eps2d, s);
    r.opacity = sigmoid(logit);
    if (antialiased) r.opacity *= s.compensation;
    r.log2_opacity = log2(r.opacity);
    const T level = ellipse_level(r.log2_opacity);
    const Ellipse<T> e = make_ellipse(s.mean2d, s.cov, s.conic, level);
    r.x = e.x, r.y = e.y, r.half_x = e.half_x, r.half_y = e.half_y;
    r.shear = e.shear, r.reach = e.reach, r.drop = e.drop;
    r.qa = float(-0.5 * kLog2e) * s.conic[0];
    r.qd = float(-0.5 * kLog2e) / s.cov[2];
    r.depth = s.depth;
    r.dy_right = e.half_x * s.cov[1] / s.cov[0];
    return (r.opacity >= kAlphaMin) & box_meets_image(e, cam.width, cam.height);
}

// First entry of the inverse screen covariance, and 1 / yy of the covariance, back from a record's qa and qd.
template <class T>
SPLAT_HD T conic_a(T qa) {
    return qa * float(-2.0 * kLn2);
}
template <class T>
SPLAT_HD T inverse_yy(T qd) {
    return qd * float(-2.0 * kLn2);
}

// Of one Gaussian: gradients of its geometry and opacity.
template <class T>
struct RecordGradients {
    T mean2d[2], p[3], quat[4], log_scale[3], logit;
};

// From the sums over pixels (moments [6], see moments_to_screen, and v_depth); qa, shear, qd, opacity are those of its record.
// Adds to v_W [9] what flows through the covariance.
template <class T>
SPLAT_HD void record_vjp(const T* p, const T* quat, const T* log_scale, T logit, T qa, T shear, T qd, T opacity,
                         const T* moments, T v_depth, const Camera<Scalar<T>>& cam, Scalar<T> eps2d, bool antialiased,
                         RecordGradients<T>& out, T* v_W) {
    using S = Scalar<T>;
    ProjectionCotangents<T> v;
    T v_opacity;
    moments_to_screen(moments, conic_a(qa), shear, inverse_yy(qd), opacity, v.mean2d, v.cov, &v_opacity);
    v.depth = v_depth;
    out.mean2d[0] = v.mean2d[0], out.mean2d[1] = v.mean2d[1];
    const T sigma = sigmoid(logit), one = T{} + S(1);
    const T compensation = antialiased ? opacity / sigma : one;
    v.compensation = antialiased ? v_opacity * sigma : T{};
    out.logit = v_opacity * compensation * sigma * (S(1) - sigma);
    project_vjp(p, quat, log_scale, cam, eps2d, v, out.p, out.quat, out.log_scale, v_W);
}

// Calls visit(tile) for each tile that the Gaussian of a record reaches, row by row. Who counts pairs and who lists them must
// see the same numbers: everything comes from the record.
template <class F>
SPLAT_HD void for_reached_tiles(const Record& record, int tiles_x, int tiles_y, F&& visit) {
    const Ellipse<float> e = {record.x,     record.y,     record.half_x, record.half_y,
                              record.shear, record.reach, record.drop};
    int row, last_row, first, last;
    for (tile_rows(e, tiles_y, &row, &last_row); row < last_row; ++row) {
        tile_span(e, record.dy_right, row, tiles_x, &first, &last);
        for (int column = first; column < last; ++column) visit(unsigned(row * tiles_x + column));
    }
}

}  // namespace SPLAT_LEVEL
}  // namespace splat
