// A vector of kLanes floats and the few operations that plain operators do not give, by the compiler's vector extensions.
//
// Include it before the maths headers: their templates find fma, sqrt and exp2_fast for vectors by ordinary look-up. The
// library is compiled without floating-point contraction and every fused multiply-add is written out, so that the forward
// and the backward pass round an exponent in the same way and decide alike whether a pixel sees a Gaussian.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(SPLAT_NEON)
#include <arm_neon.h>
#endif

#include "../include/splat/base.h"

namespace splat {
inline namespace SPLAT_LEVEL {

#if defined(__AVX512F__) && defined(__AVX512DQ__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
// What SSE2 and NEON hold. Wider vectors would compile, too, but then comparisons are taken apart into single lanes.
constexpr int kLanes = 4;
#endif

typedef float vf __attribute__((vector_size(kLanes * 4)));
typedef int32_t vi __attribute__((vector_size(kLanes * 4)));
typedef uint32_t vu __attribute__((vector_size(kLanes * 4)));
typedef float vf_unaligned __attribute__((vector_size(kLanes * 4), aligned(4)));

template <>
struct ScalarOf<vf> {
    using type = float;
};

static inline vf set1(float x) { return x - vf{}; }  // x - 0 is x: a bare broadcast; x + 0 is not, for x = -0
static inline vi set1i(int32_t x) { return vi{} + x; }
static inline vf load(const float* p) { return *reinterpret_cast<const vf*>(p); }
static inline vf loadu(const float* p) { return *reinterpret_cast<const vf_unaligned*>(p); }
static inline void store(float* p, vf v) { *reinterpret_cast<vf*>(p) = v; }
static inline void storeu(float* p, vf v) { *reinterpret_cast<vf_unaligned*>(p) = v; }
static inline vi bits(vf v) { return reinterpret_cast<vi>(v); }
static inline vf as_float(vi v) { return reinterpret_cast<vf>(v); }
// As `bits`, but for sums that may wrap around.
static inline vu wrapping(vf v) { return reinterpret_cast<vu>(v); }
static inline vf masked(vi mask, vf v) { return as_float(mask & bits(v)); }
#if defined(__AVX2__) && !defined(__AVX512F__)
// Every lane of a mask is all ones or all zeros, and this instruction looks at the sign bit alone.
static inline vf select(vi mask, vf yes, vf no) { return vf(_mm256_blendv_ps(__m256(no), __m256(yes), __m256(mask))); }
#else
static inline vf select(vi mask, vf yes, vf no) { return mask ? yes : no; }
#endif
static inline vi select(vi mask, vi yes, vi no) { return mask ? yes : no; }
static inline vf choose(vi mask, vf yes, vf no) { return mask ? yes : no; }
// b where a is NaN.
#if defined(__AVX512F__)
static inline vf vmin(vf a, vf b) { return vf(_mm512_min_ps(__m512(a), __m512(b))); }
static inline vf vmax(vf a, vf b) { return vf(_mm512_max_ps(__m512(a), __m512(b))); }
#elif defined(__AVX2__)
static inline vf vmin(vf a, vf b) { return vf(_mm256_min_ps(__m256(a), __m256(b))); }
static inline vf vmax(vf a, vf b) { return vf(_mm256_max_ps(__m256(a), __m256(b))); }
#else
static inline vf vmin(vf a, vf b) { return select(a < b, a, b); }
static inline vf vmax(vf a, vf b) { return select(a > b, a, b); }
#endif
static inline vu choose(vi mask, vu yes, vu no) { return vu(select(mask, vi(yes), vi(no))); }
// Of numbers in [0, 2^31).
static inline vu truncated(vf v) { return vu(__builtin_convertvector(v, vi)); }
static inline vf real(vu v) { return __builtin_convertvector(vi(v), vf); }
static inline vf vabs(vf v) { return as_float(bits(v) & 0x7fffffff); }

static inline vf lane_index() {
    vf v{};
    for (int i = 0; i < kLanes; ++i) v[i] = float(i);
    return v;
}

#if defined(__AVX512F__) && defined(__AVX512DQ__)
static inline vf fma(vf a, vf b, vf c) { return vf(_mm512_fmadd_ps(__m512(a), __m512(b), __m512(c))); }
static inline vf sqrt(vf v) { return vf(_mm512_sqrt_ps(__m512(v))); }
static inline uint32_t movemask(vi m) { return _mm512_movepi32_mask(__m512i(m)); }
#elif defined(__AVX2__)
static inline vf fma(vf a, vf b, vf c) { return vf(_mm256_fmadd_ps(__m256(a), __m256(b), __m256(c))); }
static inline vf sqrt(vf v) { return vf(_mm256_sqrt_ps(__m256(v))); }
static inline uint32_t movemask(vi m) { return uint32_t(_mm256_movemask_ps(__m256(m))); }
#elif defined(__SSE2__)
static inline vf fma(vf a, vf b, vf c) { return a * b + c; }
static inline vf sqrt(vf v) { return vf(_mm_sqrt_ps(__m128(v))); }
static inline uint32_t movemask(vi m) { return uint32_t(_mm_movemask_ps(__m128(m))); }
#elif defined(SPLAT_NEON)
static inline vf fma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
static inline vf sqrt(vf v) { return vsqrtq_f32(v); }
static inline uint32_t movemask(vi m) { return vaddvq_u32(uint32x4_t(m) & uint32x4_t{1, 2, 4, 8}); }
#else
static inline vf fma(vf a, vf b, vf c) { return a * b + c; }
static inline vf sqrt(vf v) {
    for (int i = 0; i < kLanes; ++i) v[i] = __builtin_sqrtf(v[i]);
    return v;
}
static inline uint32_t movemask(vi m) {
    uint32_t mask = 0;
    for (int i = 0; i < kLanes; ++i) mask |= uint32_t(m[i] != 0) << i;
    return mask;
}
#endif

// 2^x for |x| <= 126 with a relative error below 3e-7; outside, any bits. Rounds x to the nearest integer k with the
// 1.5 * 2^23 trick and evaluates a degree-5 polynomial (interpolated at Chebyshev nodes) on [-1/2, 1/2]. This bound and those
// below are held by tests/simd.cpp.
static inline vf exp2_fast(vf x) {
    const float magic = 12582912.0f;
    const vf shifted = x + magic;
    const vf f = x - (shifted - magic);
    vf p = set1(0.0013390863f);
    p = fma(p, f, set1(0.009676032f));
    p = fma(p, f, set1(0.05550357f));
    p = fma(p, f, set1(0.24022107f));
    p = fma(p, f, set1(0.6931472f));
    p = fma(p, f, set1(1.0000001f));
    return as_float(vi(wrapping(p) + (wrapping(shifted) << 23)));
}

// e^x with a relative error below 3e-7; where it would leave the normal numbers, the nearest of them. NaN stays NaN.
static inline vf exp(vf x) {
    const float magic = 12582912.0f;
    const vf bounded = vmin(vmax(x, set1(-87.3f)), set1(88.7f));
    const vf shifted = bounded * float(kLog2e) + magic;
    const vf k = shifted - magic;
    // ln 2 in two parts, the first of so few bits that k times it is exact (Cody and Waite 1980).
    const vf r = (bounded - k * 0.693359375f) + k * 2.12194440e-4f;
    vf p = set1(0.0013941119f);
    p = p * r + 0.008375134f;
    p = p * r + 0.04166635f;
    p = p * r + 0.16666415f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    return select(x == x, as_float(vi(wrapping(p) + (wrapping(shifted) << 23))), x);
}

// log2 x of normal positive numbers with an absolute error below 2e-7 (1e-7 relative to log2 x beyond 1): the mantissa m in
// [sqrt 1/2, sqrt 2) through the series of atanh((m - 1) / (m + 1)).
static inline vf log2(vf x) {
    const vi shifted = vi(wrapping(x) - 0x3f3504f3u);
    const vf exponent = __builtin_convertvector(shifted >> 23, vf);
    const vf m = as_float((shifted & 0x007fffff) + 0x3f3504f3);
    const vf s = (m - 1.0f) / (m + 1.0f), s2 = s * s;
    vf p = set1(0.32059889f);
    p = p * s2 + 0.41219858f;
    p = p * s2 + 0.57707802f;
    p = p * s2 + 0.96179669f;
    p = p * s2 + 2.8853901f;
    return p * s + exponent;
}

static inline vu gather(const uint32_t* base, vi index) {
#if defined(__AVX512F__)
    return vu(_mm512_i32gather_epi32(__m512i(index), reinterpret_cast<const int*>(base), 4));
#elif defined(__AVX2__)
    return vu(_mm256_i32gather_epi32(reinterpret_cast<const int*>(base), __m256i(index), 4));
#else
    vu numbers;
    for (int i = 0; i < kLanes; ++i) numbers[i] = base[index[i]];
    return numbers;
#endif
}

// Two neighbouring 16-bit numbers per lane, from base[index] (low half) and base[index + 1] (high half): for bilinear samples.
// One gather of 32 bits at an address of 16-bit steps.
static inline vi gather_pairs(const uint16_t* base, vi index) {
#if defined(__AVX512F__)
    return vi(_mm512_i32gather_epi32(__m512i(index), reinterpret_cast<const int*>(base), 2));
#elif defined(__AVX2__)
    return vi(_mm256_i32gather_epi32(reinterpret_cast<const int*>(base), __m256i(index), 2));
#else
    vi pairs;
    for (int i = 0; i < kLanes; ++i) pairs[i] = int32_t(uint32_t(base[index[i]]) | uint32_t(base[index[i] + 1]) << 16);
    return pairs;
#endif
}

// Four floats: what every instruction set has. For colours, whose coefficients lie as triples in memory.
typedef float v4 __attribute__((vector_size(16)));
typedef float v4_unaligned __attribute__((vector_size(16), aligned(4)));
static inline v4 load4(const float* p) { return *reinterpret_cast<const v4_unaligned*>(p); }
static inline void store4(float* p, v4 v) { *reinterpret_cast<v4_unaligned*>(p) = v; }

// out[i] = sum of the lanes of v[i], i < 8, in an order that depends on the instruction set only.
static inline void sum_lanes8(const vf* v, float* out) {
#if defined(__AVX2__)
    __m256 a[8];
    for (int i = 0; i < 8; ++i) {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
        a[i] = _mm256_add_ps(_mm512_castps512_ps256(__m512(v[i])), _mm512_extractf32x8_ps(__m512(v[i]), 1));
#else
        a[i] = __m256(v[i]);
#endif
    }
    const __m256 a01 = _mm256_hadd_ps(a[0], a[1]), a23 = _mm256_hadd_ps(a[2], a[3]);
    const __m256 a45 = _mm256_hadd_ps(a[4], a[5]), a67 = _mm256_hadd_ps(a[6], a[7]);
    const __m256 low = _mm256_hadd_ps(a01, a23), high = _mm256_hadd_ps(a45, a67);
    const __m256 sum = _mm256_add_ps(_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31));
    _mm256_storeu_ps(out, sum);
#elif defined(SPLAT_NEON)
    for (int i = 0; i < 8; i += 4)
        vst1q_f32(out + i, vpaddq_f32(vpaddq_f32(v[i], v[i + 1]), vpaddq_f32(v[i + 2], v[i + 3])));
#else
    for (int i = 0; i < 8; ++i) {
        float sum = 0.0f;
        for (int j = 0; j < kLanes; ++j) sum += v[i][j];
        out[i] = sum;
    }
#endif
}

static inline float lane_min(vf v) {
    float least = v[0];
    for (int k = 1; k < kLanes; ++k) least = v[k] < least ? v[k] : least;
    return least;
}
static inline float sum_lanes(vf v) {
    float sum = 0.0f;
    for (int width = kLanes / 2; width > 0; width /= 2)
        for (int i = 0; i < width; ++i) v[i] = v[i] + v[i + width];
    sum = v[0];
    return sum;
}

}  // namespace SPLAT_LEVEL
}  // namespace splat
