// Real spherical harmonics up to degree 3 as view-dependent colour (Kerbl et al. 2023, supplement; Ramamoorthi & Hanrahan
// 2001 for the basis). colour = max(0, 1/2 + sum_k basis_k(dir) * coefficient_k), one coefficient triple (RGB) per basis; at
// most kColorMax, which no image comes near (the derivative is that of the colour before this cut).
#pragma once

#include "base.h"

namespace splat {
inline namespace SPLAT_LEVEL {

SPLAT_HD constexpr int sh_bases(int degree) { return (degree + 1) * (degree + 1); }

constexpr double kSh0 = 0.28209479177387814;
constexpr double kSh1 = 0.4886025119029199;
// Numbers, not arrays: device code cannot index a constexpr array of the host.
constexpr double kSh2_0 = 1.0925484305920792;
constexpr double kSh2_1 = -1.0925484305920792;
constexpr double kSh2_2 = 0.31539156525252005;
constexpr double kSh2_3 = -1.0925484305920792;
constexpr double kSh2_4 = 0.5462742152960396;
constexpr double kSh3_0 = -0.5900435899266435;
constexpr double kSh3_1 = 2.890611442640554;
constexpr double kSh3_2 = -0.4570457994644658;
constexpr double kSh3_3 = 0.3731763325901154;
constexpr double kSh3_4 = -0.4570457994644658;
constexpr double kSh3_5 = 1.445305721320277;
constexpr double kSh3_6 = -0.5900435899266435;

// basis [sh_bases(degree)] at the unit vector dir [3].
template <class T>
SPLAT_HD void sh_basis(int degree, const T* dir, T* basis) {
    using S = Scalar<T>;
    basis[0] = T{} + S(kSh0);
    if (degree < 1) return;
    const T x = dir[0], y = dir[1], z = dir[2];
    basis[1] = S(-kSh1) * y;
    basis[2] = S(kSh1) * z;
    basis[3] = S(-kSh1) * x;
    if (degree < 2) return;
    const T xx = x * x, yy = y * y, zz = z * z;
    basis[4] = S(kSh2_0) * x * y;
    basis[5] = S(kSh2_1) * y * z;
    basis[6] = S(kSh2_2) * (S(2) * zz - xx - yy);
    basis[7] = S(kSh2_3) * x * z;
    basis[8] = S(kSh2_4) * (xx - yy);
    if (degree < 3) return;
    basis[9] = S(kSh3_0) * y * (S(3) * xx - yy);
    basis[10] = S(kSh3_1) * x * y * z;
    basis[11] = S(kSh3_2) * y * (S(4) * zz - xx - yy);
    basis[12] = S(kSh3_3) * z * (S(2) * zz - S(3) * xx - S(3) * yy);
    basis[13] = S(kSh3_4) * x * (S(4) * zz - xx - yy);
    basis[14] = S(kSh3_5) * z * (xx - yy);
    basis[15] = S(kSh3_6) * x * (xx - S(3) * yy);
}

// v_dir [3] += d(basis)/d(dir)^T v_basis, the basis taken as polynomials of free x, y, z.
template <class T>
SPLAT_HD void sh_basis_vjp(int degree, const T* dir, const T* v, T* v_dir) {
    using S = Scalar<T>;
    if (degree < 1) return;
    const T x = dir[0], y = dir[1], z = dir[2];
    T vx = S(-kSh1) * v[3], vy = S(-kSh1) * v[1], vz = S(kSh1) * v[2];
    if (degree >= 2) {
        const T a4 = S(kSh2_0) * v[4], a5 = S(kSh2_1) * v[5], a6 = S(kSh2_2) * v[6], a7 = S(kSh2_3) * v[7],
                a8 = S(kSh2_4) * v[8];
        vx += a4 * y - S(2) * a6 * x + a7 * z + S(2) * a8 * x;
        vy += a4 * x + a5 * z - S(2) * a6 * y - S(2) * a8 * y;
        vz += a5 * y + S(4) * a6 * z + a7 * x;
    }
    if (degree >= 3) {
        const T xx = x * x, yy = y * y, zz = z * z;
        const T a9 = S(kSh3_0) * v[9], a10 = S(kSh3_1) * v[10], a11 = S(kSh3_2) * v[11], a12 = S(kSh3_3) * v[12],
                a13 = S(kSh3_4) * v[13], a14 = S(kSh3_5) * v[14], a15 = S(kSh3_6) * v[15];
        vx += S(6) * a9 * x * y + a10 * y * z - S(2) * a11 * x * y - S(6) * a12 * x * z +
              a13 * (S(4) * zz - S(3) * xx - yy) + S(2) * a14 * x * z + S(3) * a15 * (xx - yy);
        vy += S(3) * a9 * (xx - yy) + a10 * x * z + a11 * (S(4) * zz - xx - S(3) * yy) - S(6) * a12 * y * z -
              S(2) * a13 * x * y - S(2) * a14 * y * z - S(6) * a15 * x * y;
        vz += a10 * x * y + S(8) * a11 * y * z + a12 * (S(6) * zz - S(3) * xx - S(3) * yy) + S(8) * a13 * x * z +
              a14 * (xx - yy);
    }
    v_dir[0] += vx;
    v_dir[1] += vy;
    v_dir[2] += vz;
}

// Unit vector dir [3] from a camera centre [3] to a mean [3]; returns 1 / distance (0 where they coincide: dir = 0).
template <class T>
SPLAT_HD T view_direction(const T* mean, const Scalar<T>* center, T* dir) {
    using S = Scalar<T>;
    for (int i = 0; i < 3; ++i) dir[i] = mean[i] - center[i];
    const T length = sqrt(dot3(dir, dir));
    const T inverse = choose(length > S(0), S(1) / length, T{});
    for (int i = 0; i < 3; ++i) dir[i] *= inverse;
    return inverse;
}

// v_offset [3]: cotangent of (mean - center) from that of dir; v_mean = v_offset, v_center = -v_offset.
template <class T>
SPLAT_HD void view_direction_vjp(const T* dir, T inverse_length, const T* v_dir, T* v_offset) {
    const T radial = dot3(dir, v_dir);
    for (int i = 0; i < 3; ++i) v_offset[i] = (v_dir[i] - radial * dir[i]) * inverse_length;
}

// colour [3] from sh0 [3] and shN [k, 3].
template <class T>
SPLAT_HD void sh_color(int degree, const T* dir, const T* sh0, const T* shN, T* color) {
    using S = Scalar<T>;
    T basis[16];
    sh_basis(degree, dir, basis);
    for (int c = 0; c < 3; ++c) color[c] = S(0.5) + basis[0] * sh0[c];
    const int k = sh_bases(degree);
    for (int j = 1; j < k; ++j)
        for (int c = 0; c < 3; ++c) color[c] += basis[j] * shN[(j - 1) * 3 + c];
    const T most = T{} + S(kColorMax);
    for (int c = 0; c < 3; ++c) color[c] = choose(color[c] > S(0), choose(color[c] < most, color[c], most), T{});
}

// Writes v_sh0 [3] and v_shN [sh_bases(degree) - 1, 3], adds to v_dir [3]. color is the forward result: where it was
// clamped to 0 nothing flows.
template <class T>
SPLAT_HD void sh_color_vjp(int degree, const T* dir, const T* shN, const T* color, const T* v_color, T* v_sh0, T* v_shN,
                           T* v_dir) {
    using S = Scalar<T>;
    T basis[16], v_basis[16], v[3];
    sh_basis(degree, dir, basis);
    for (int c = 0; c < 3; ++c) {
        v[c] = choose(color[c] > S(0), v_color[c], T{});
        v_sh0[c] = basis[0] * v[c];
    }
    const int k = sh_bases(degree);
    for (int j = 1; j < k; ++j) {
        const T* sh = shN + (j - 1) * 3;
        for (int c = 0; c < 3; ++c) v_shN[(j - 1) * 3 + c] = basis[j] * v[c];
        v_basis[j] = sh[0] * v[0] + sh[1] * v[1] + sh[2] * v[2];
    }
    sh_basis_vjp(degree, dir, v_basis, v_dir);
}

}  // namespace SPLAT_LEVEL
}  // namespace splat
