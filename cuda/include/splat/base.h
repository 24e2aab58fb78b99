// Small numeric helpers and the constants on which every engine agrees.
//
// Legend of include/splat: the maths of one Gaussian, one camera, one pixel, written once for every compiler. A function f
// has its reverse-mode twin f_vjp beside it; a cotangent (gradient of the loss w.r.t. x) is called v_x. Matrices are
// row-major. T is float, double or a SIMD vector of floats (cpu/simd.h, to be included first): a lane is then one Gaussian or
// one pixel. S is T's scalar; comparisons of T give a Mask<T>, and choose(mask, a, b) takes the place of ?:.
#pragma once

#include <cmath>

#if defined(__CUDACC__)
#define SPLAT_HD __host__ __device__ __forceinline__
#else
#define SPLAT_HD inline
#endif

// The same header is compiled for several instruction sets into one library. Each gets a namespace of its own, or the
// linker would merge the inline functions and run AVX-512 code on a processor without it.
#ifndef SPLAT_LEVEL
#define SPLAT_LEVEL base
#endif

namespace splat {
inline namespace SPLAT_LEVEL {

constexpr float kAlphaMin = 1.0f / 255.0f;      // smaller alphas are skipped: they cannot change an 8-bit image
constexpr float kAlphaMax = 0.999f;             // keeps 1 - alpha invertible in the backward pass
constexpr float kTransmittanceMin = 1e-4f;      // blending stops before the transmittance falls to this
constexpr float kNear = 0.01f;                  // scene units
constexpr float kFovMargin = 0.3f;              // EWA Jacobian clamp beyond the image border, as a multiple of tan(fov/2)
constexpr float kCompensationMinSquared = 2.5e-5f;  // floor of Mip-Splatting's opacity compensation, squared
constexpr float kFar = 1e30f;                   // scene units; nothing is drawn beyond, so that sums of depths stay finite
constexpr float kColorMax = 1e30f;              // brighter colours are cut, so that the sums of a pixel stay finite
constexpr int kTile = 16;                       // px

constexpr double kLog2e = 1.4426950408889634;
constexpr double kLn2 = 0.6931471805599453;
constexpr double kLog2AlphaMin = -7.994353436858858;  // log2(1 / 255)

// Together with the overloads for vectors.
using std::exp;
using std::log2;
using std::sqrt;

template <class T>
struct ScalarOf {
    using type = T;
};
template <class T>
using Scalar = typename ScalarOf<T>::type;
template <class T>
using Mask = decltype(T() < T());

template <class T>
SPLAT_HD T choose(bool mask, T yes, T no) {
    return mask ? yes : no;
}

template <class T>
SPLAT_HD T square(T x) {
    return x * x;
}

template <class A, class T>
SPLAT_HD T dot3(const A* a, const T* b) {
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

// C [r, c] = A [r, m] * B [m, c]
template <int R, int M, int C, class L, class T>
SPLAT_HD void matmul(const L* A, const T* B, T* out) {
    for (int i = 0; i < R; ++i)
        for (int j = 0; j < C; ++j) {
            T sum{};
            for (int k = 0; k < M; ++k) sum += A[i * M + k] * B[k * C + j];
            out[i * C + j] = sum;
        }
}

// C [m, c] = A [r, m]^T * B [r, c]
template <int R, int M, int C, class L, class T>
SPLAT_HD void matmul_tn(const L* A, const T* B, T* out) {
    for (int i = 0; i < M; ++i)
        for (int j = 0; j < C; ++j) {
            T sum{};
            for (int k = 0; k < R; ++k) sum += A[k * M + i] * B[k * C + j];
            out[i * C + j] = sum;
        }
}

// C [r, c] = A [r, m] * B [c, m]^T
template <int R, int M, int C, class T>
SPLAT_HD void matmul_nt(const T* A, const T* B, T* out) {
    for (int i = 0; i < R; ++i)
        for (int j = 0; j < C; ++j) {
            T sum{};
            for (int k = 0; k < M; ++k) sum += A[i * M + k] * B[j * M + k];
            out[i * C + j] = sum;
        }
}

}  // namespace SPLAT_LEVEL
}  // namespace splat
