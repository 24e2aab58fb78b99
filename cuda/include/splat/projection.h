// EWA projection of one 3D Gaussian to the screen (Zwicker et al. 2002; Kerbl et al. 2023, eq. 5-6).
//
// A = J W R_q S is the 2x3 factor of the screen covariance: J the Jacobian of the pinhole projection [2,3], W the world-to-
// camera rotation, R_q the rotation of the (normalised) quaternion wxyz, S = diag(exp(log_scales)).
//   cov0 = A A^T,   cov = cov0 + eps2d I,   conic = cov^-1
// det cov0 is the squared length of the cross product of A's rows (Cauchy-Binet), which does not cancel for needle-like
// Gaussians the way xx * yy - xy^2 does in float.
#pragma once

#include "base.h"

namespace splat {
inline namespace SPLAT_LEVEL {

template <class T>
struct Camera {
    T W[9];       // rotation, camera from world
    T t[3];       // translation
    T center[3];  // -W^T t
    T fx, fy, cx, cy;
    T lo[2], hi[2];  // clamp of x/z and y/z inside the Jacobian
    int width, height;
};

// viewmat [4,4] camera from world, K as fx, fy, cx, cy in px.
template <class T>
SPLAT_HD Camera<T> make_camera(const T* viewmat, T fx, T fy, T cx, T cy, int width, int height) {
    Camera<T> cam;
    for (int i = 0; i < 3; ++i) {
        for (int j = 0; j < 3; ++j) cam.W[i * 3 + j] = viewmat[i * 4 + j];
        cam.t[i] = viewmat[i * 4 + 3];
    }
    for (int i = 0; i < 3; ++i)
        cam.center[i] = -(cam.W[i] * cam.t[0] + cam.W[3 + i] * cam.t[1] + cam.W[6 + i] * cam.t[2]);
    cam.fx = fx, cam.fy = fy, cam.cx = cx, cam.cy = cy;
    cam.width = width, cam.height = height;
    const T margin_x = T(kFovMargin) * T(0.5) * T(width) / fx, margin_y = T(kFovMargin) * T(0.5) * T(height) / fy;
    cam.lo[0] = -(cx / fx + margin_x), cam.hi[0] = (T(width) - cx) / fx + margin_x;
    cam.lo[1] = -(cy / fy + margin_y), cam.hi[1] = (T(height) - cy) / fy + margin_y;
    return cam;
}

// v_W [9] and v_t [3] gain what flows through center = -W^T t.
template <class T>
SPLAT_HD void camera_center_vjp(const T* W, const T* t, const T* v_center, T* v_W, T* v_t) {
    for (int i = 0; i < 3; ++i)
        for (int j = 0; j < 3; ++j) {
            v_W[i * 3 + j] -= t[i] * v_center[j];
            v_t[i] -= W[i * 3 + j] * v_center[j];
        }
}

// R [3,3] of a quaternion wxyz of any length > 0; returns 1 / length (0 for the zero quaternion, which gives identity).
template <class T>
SPLAT_HD T quat_to_rotmat(const T* quat, T* R) {
    using S = Scalar<T>;
    const T length2 = quat[0] * quat[0] + quat[1] * quat[1] + quat[2] * quat[2] + quat[3] * quat[3];
    const T inverse = choose(length2 > S(0), S(1) / sqrt(length2), T{});
    const T w = quat[0] * inverse, x = quat[1] * inverse, y = quat[2] * inverse, z = quat[3] * inverse;
    R[0] = S(1) - S(2) * (y * y + z * z), R[1] = S(2) * (x * y - w * z), R[2] = S(2) * (x * z + w * y);
    R[3] = S(2) * (x * y + w * z), R[4] = S(1) - S(2) * (x * x + z * z), R[5] = S(2) * (y * z - w * x);
    R[6] = S(2) * (x * z - w * y), R[7] = S(2) * (y * z + w * x), R[8] = S(1) - S(2) * (x * x + y * y);
    return inverse;
}

template <class T>
SPLAT_HD void quat_to_rotmat_vjp(const T* quat, T inverse_length, const T* v_R, T* v_quat) {
    using S = Scalar<T>;
    const T w = quat[0] * inverse_length, x = quat[1] * inverse_length, y = quat[2] * inverse_length,
            z = quat[3] * inverse_length;
    const T v[4] = {
        S(2) * (x * (v_R[7] - v_R[5]) + y * (v_R[2] - v_R[6]) + z * (v_R[3] - v_R[1])),
        S(2) * (S(-2) * x * (v_R[4] + v_R[8]) + y * (v_R[1] + v_R[3]) + z * (v_R[2] + v_R[6]) + w * (v_R[7] - v_R[5])),
        S(2) * (x * (v_R[1] + v_R[3]) - S(2) * y * (v_R[0] + v_R[8]) + z * (v_R[5] + v_R[7]) + w * (v_R[2] - v_R[6])),
        S(2) * (x * (v_R[2] + v_R[6]) + y * (v_R[5] + v_R[7]) - S(2) * z * (v_R[0] + v_R[4]) + w * (v_R[3] - v_R[1]))};
    // Through the normalisation: only the part orthogonal to the unit quaternion survives.
    const T radial = w * v[0] + x * v[1] + y * v[2] + z * v[3];
    v_quat[0] = (v[0] - radial * w) * inverse_length;
    v_quat[1] = (v[1] - radial * x) * inverse_length;
    v_quat[2] = (v[2] - radial * y) * inverse_length;
    v_quat[3] = (v[3] - radial * z) * inverse_length;
}

template <class T>
struct Projected {
    T mean2d[2];     // px
    T depth;         // z in camera space, scene units
    T cov[3];        // xx, xy, yy of the screen covariance, px^2, eps2d included
    T conic[3];      // a, b, c of its inverse
    T compensation;  // sqrt(det cov0 / det cov), floored
};

// What forward and backward both need; recomputed in the backward pass, because reading it back costs more.
template <class T>
struct ProjectionTerms {
    T p[3];        // mean in camera space
    T u[2];        // clamped x/z, y/z
    Mask<T> free[2];  // not clamped
    T R[9];        // of the quaternion
    T quat_inverse_length;
    T scale[3];
    T M[9];        // W R_q
    T N[9];        // W R_q S
    T A[6];        // J W R_q S
    T det0, det;
};

template <class T>
SPLAT_HD void projection_terms(const T* p, const T* quat, const T* log_scale, const Camera<Scalar<T>>& cam, Scalar<T> eps2d,
                               ProjectionTerms<T>& s) {
    using S = Scalar<T>;
    const T inverse_z = S(1) / p[2];
    for (int i = 0; i < 3; ++i) s.p[i] = p[i];
    for (int i = 0; i < 2; ++i) {
        const T ratio = p[i] * inverse_z;
        const T lo = T{} + cam.lo[i], hi = T{} + cam.hi[i];
        s.free[i] = (ratio >= lo) & (ratio <= hi);
        s.u[i] = choose(ratio < lo, lo, choose(ratio > hi, hi, ratio));
    }
    s.quat_inverse_length = quat_to_rotmat(quat, s.R);
    for (int i = 0; i < 3; ++i) s.scale[i] = exp(log_scale[i]);
    matmul<3, 3, 3>(cam.W, s.R, s.M);
    for (int i = 0; i < 3; ++i)
        for (int j = 0; j < 3; ++j) s.N[i * 3 + j] = s.M[i * 3 + j] * s.scale[j];
    const T jx = cam.fx * inverse_z, jy = cam.fy * inverse_z;
    for (int j = 0; j < 3; ++j) {
        s.A[j] = jx * (s.N[j] - s.u[0] * s.N[6 + j]);
        s.A[3 + j] = jy * (s.N[3 + j] - s.u[1] * s.N[6 + j]);
    }
    const T cross[3] = {s.A[1] * s.A[5] - s.A[2] * s.A[4], s.A[2] * s.A[3] - s.A[0] * s.A[5],
                        s.A[0] * s.A[4] - s.A[1] * s.A[3]};
    s.det0 = dot3(cross, cross);
    s.det = s.det0 + eps2d * (dot3(s.A, s.A) + dot3(s.A + 3, s.A + 3)) + eps2d * eps2d;
}

// Projects a Gaussian whose mean is at p [3] in camera space, p.z > 0.
template <class T>
SPLAT_HD void project(const T* p, const T* quat, const T* log_scale, const Camera<Scalar<T>>& cam, Scalar<T> eps2d,
                      Projected<T>& out) {
    using S = Scalar<T>;
    ProjectionTerms<T> s;
    projection_terms(p, quat, log_scale, cam, eps2d, s);
    out.mean2d[0] = cam.fx * p[0] / p[2] + cam.cx;
    out.mean2d[1] = cam.fy * p[1] / p[2] + cam.cy;
    out.depth = p[2];
    out.cov[0] = dot3(s.A, s.A) + eps2d;
    out.cov[1] = dot3(s.A, s.A + 3);
    out.cov[2] = dot3(s.A + 3, s.A + 3) + eps2d;
    const T inverse = S(1) / s.det;
    out.conic[0] = out.cov[2] * inverse;
    out.conic[1] = -out.cov[1] * inverse;
    out.conic[2] = out.cov[0] * inverse;
    const T ratio = s.det0 * inverse;
    const T least = T{} + S(kCompensationMinSquared);
    out.compensation = sqrt(choose(ratio > least, ratio, least));
}

template <class T>
struct ProjectionCotangents {
    T mean2d[2];
    T depth;
    T cov[3];  // of the three numbers xx, xy, yy
    T compensation;
};

// Writes v_p [3] (mean in camera space), v_quat [4], v_log_scale [3]; adds to v_W [9] what flows through the covariance.
template <class T>
SPLAT_HD void project_vjp(const T* p, const T* quat, const T* log_scale, const Camera<Scalar<T>>& cam, Scalar<T> eps2d,
                          const ProjectionCotangents<T>& v, T* v_p, T* v_quat, T* v_log_scale, T* v_W) {
    using S = Scalar<T>;
    ProjectionTerms<T> s;
    projection_terms(p, quat, log_scale, cam, eps2d, s);
    const T xx0 = dot3(s.A, s.A), xy = dot3(s.A, s.A + 3), yy0 = dot3(s.A + 3, s.A + 3);
    const T xx = xx0 + eps2d, yy = yy0 + eps2d;
    const T inverse = S(1) / s.det;
    // As a symmetric matrix: xy stands in it twice.
    T v_xx = v.cov[0], v_xy = S(0.5) * v.cov[1], v_yy = v.cov[2];

    // compensation^2 = det0 / det; d det = tr(adj(cov) d cov).
    const T ratio = s.det0 * inverse;
    const T scale = choose(ratio > S(kCompensationMinSquared), v.compensation / (S(2) * sqrt(ratio)) * inverse, T{});
    v_xx += scale * (yy0 - ratio * yy);
    v_yy += scale * (xx0 - ratio * xx);
    v_xy += scale * (-xy + ratio * xy);

    // cov = A A^T + eps2d I: v_A = 2 v_cov A.
    T v_A[6];
    for (int j = 0; j < 3; ++j) {
        v_A[j] = S(2) * (v_xx * s.A[j] + v_xy * s.A[3 + j]);
        v_A[3 + j] = S(2) * (v_xy * s.A[j] + v_yy * s.A[3 + j]);
    }

    // A rows: f/z (N_row - u N_z).
    const T inverse_z = S(1) / p[2];
    const T jx = cam.fx * inverse_z, jy = cam.fy * inverse_z;
    T v_N[9], v_u[2] = {T{}, T{}}, v_z = v.depth;
    for (int j = 0; j < 3; ++j) {
        v_N[j] = jx * v_A[j];
        v_N[3 + j] = jy * v_A[3 + j];
        v_N[6 + j] = -jx * s.u[0] * v_A[j] - jy * s.u[1] * v_A[3 + j];
        v_u[0] -= jx * s.N[6 + j] * v_A[j];
        v_u[1] -= jy * s.N[6 + j] * v_A[3 + j];
        v_z -= inverse_z * (s.A[j] * v_A[j] + s.A[3 + j] * v_A[3 + j]);
    }

    // N = W R S.
    T v_M[9];
    for (int j = 0; j < 3; ++j) {
        v_log_scale[j] = s.N[j] * v_N[j] + s.N[3 + j] * v_N[3 + j] + s.N[6 + j] * v_N[6 + j];
        for (int i = 0; i < 3; ++i) v_M[i * 3 + j] = v_N[i * 3 + j] * s.scale[j];
    }
    T v_R[9], v_W_here[9];
    matmul_tn<3, 3, 3>(cam.W, v_M, v_R);
    matmul_nt<3, 3, 3>(v_M, s.R, v_W_here);
    for (int i = 0; i < 9; ++i) v_W[i] += v_W_here[i];
    quat_to_rotmat_vjp(quat, s.quat_inverse_length, v_R, v_quat);

    // mean2d = f x / z + c, and u = x / z where it was not clamped.
    T v_ratio[2] = {cam.fx * v.mean2d[0], cam.fy * v.mean2d[1]};
    for (int i = 0; i < 2; ++i) {
        v_ratio[i] += choose(s.free[i], v_u[i], T{});
        v_p[i] = v_ratio[i] * inverse_z;
        v_z -= v_ratio[i] * p[i] * inverse_z * inverse_z;
    }
    v_p[2] = v_z;
}

}  // namespace SPLAT_LEVEL
}  // namespace splat
