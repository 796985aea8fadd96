// Vectors of float32 and the functions of them that kernels need. Included by what is compiled once for each
// instruction set, in a namespace of its own; nothing here may come from the standard library, whose inline functions
// the linker would take from any of them.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define NATIVE_WIDTH 16
#elif defined(__AVX2__)
#define NATIVE_WIDTH 8
#else
#define NATIVE_WIDTH 4
#endif

#define NATIVE_INLINE static inline __attribute__((always_inline))

namespace NATIVE_ISA {

// Lanes of a vector.
constexpr int W = NATIVE_WIDTH;

typedef float Vec __attribute__((vector_size(4 * W)));
typedef int32_t Ints __attribute__((vector_size(4 * W)));
typedef uint8_t Bytes __attribute__((vector_size(W)));

NATIVE_INLINE Vec load(const float* from) {
  Vec v;
  __builtin_memcpy(&v, from, sizeof(v));
  return v;
}

NATIVE_INLINE void store(float* to, Vec v) {
  __builtin_memcpy(to, &v, sizeof(v));
}

NATIVE_INLINE Ints load_ints(const int32_t* from) {
  Ints v;
  __builtin_memcpy(&v, from, sizeof(v));
  return v;
}

// Written out, since 0 + x would be an addition: it is not x where x is -0.
NATIVE_INLINE Vec splat(float x) {
#if NATIVE_WIDTH == 4
  return Vec{x, x, x, x};
#elif NATIVE_WIDTH == 8
  return Vec{x, x, x, x, x, x, x, x};
#else
  return Vec{x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
#endif
}

NATIVE_INLINE Vec load_some(const float* from, int lanes) {
  Vec v = {};
  __builtin_memcpy(&v, from, sizeof(float) * lanes);
  return v;
}

NATIVE_INLINE void store_some(float* to, Vec v, int lanes) {
  __builtin_memcpy(to, &v, sizeof(float) * lanes);
}

// Of so many numbers as there are, which may be more than a vector holds.
NATIVE_INLINE Vec load_up_to(const float* from, int lanes) {
  return lanes >= W ? load(from) : load_some(from, lanes);
}

NATIVE_INLINE void store_up_to(float* to, Vec v, int lanes) {
  lanes >= W ? store(to, v) : store_some(to, v, lanes);
}

// Numbers in whole vectors.
NATIVE_INLINE int padded(int n) {
  return (n + W - 1) / W * W;
}

template <typename T>
NATIVE_INLINE T least(T a, T b) {
  return a < b ? a : b;
}

NATIVE_INLINE void clear(float* to, long count) {
  for (long i = 0; i < count; i++) to[i] = 0.0f;
}

// Of all 16 lanes: GCC 12 warns of what its own unmasked forms leave undefined.
#define NATIVE_ALL_LANES 0xffff

// The larger; `a` where one of them is NaN. A comparison and a choice would be three operations instead of one.
NATIVE_INLINE Vec vmax(Vec a, Vec b) {
#if defined(__AVX512F__)
  return (Vec)_mm512_maskz_max_ps(NATIVE_ALL_LANES, (__m512)b, (__m512)a);
#elif defined(__AVX2__)
  return (Vec)_mm256_max_ps((__m256)b, (__m256)a);
#elif defined(__SSE2__)
  return (Vec)_mm_max_ps((__m128)b, (__m128)a);
#else
  return a < b ? b : a;
#endif
}

// The smaller; `a` where one of them is NaN.
NATIVE_INLINE Vec vmin(Vec a, Vec b) {
#if defined(__AVX512F__)
  return (Vec)_mm512_maskz_min_ps(NATIVE_ALL_LANES, (__m512)b, (__m512)a);
#elif defined(__AVX2__)
  return (Vec)_mm256_min_ps((__m256)b, (__m256)a);
#elif defined(__SSE2__)
  return (Vec)_mm_min_ps((__m128)b, (__m128)a);
#else
  return a > b ? b : a;
#endif
}

NATIVE_INLINE Vec vabs(Vec a) {
  return (Vec)((Ints)a & 0x7fffffff);
}

NATIVE_INLINE Vec vsqrt(Vec a) {
#if defined(__AVX512F__)
  return (Vec)_mm512_maskz_sqrt_ps(NATIVE_ALL_LANES, (__m512)a);
#elif defined(__AVX2__)
  return (Vec)_mm256_sqrt_ps((__m256)a);
#elif defined(__SSE2__)
  return (Vec)_mm_sqrt_ps((__m128)a);
#else
  for (int i = 0; i < W; i++) a[i] = __builtin_sqrtf(a[i]);
  return a;
#endif
}

NATIVE_INLINE float sum(Vec v) {
  float total = 0;
  for (int i = 0; i < W; i++) total += v[i];
  return total;
}

#if NATIVE_WIDTH == 4
#define NATIVE_LOW 0, 4, 1, 5
#define NATIVE_HIGH 2, 6, 3, 7
#elif NATIVE_WIDTH == 8
#define NATIVE_LOW 0, 8, 1, 9, 2, 10, 3, 11
#define NATIVE_HIGH 4, 12, 5, 13, 6, 14, 7, 15
#else
#define NATIVE_LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define NATIVE_HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#endif

// Transposes W vectors: each pass interleaves the first half with the second, which turns the index's bits by one.
NATIVE_INLINE void transpose_block(Vec rows[W]) {
  for (int pass = 1; pass < W; pass *= 2) {
    Vec mixed[W];
    for (int i = 0; i < W / 2; i++) {
      mixed[2 * i] = __builtin_shufflevector(rows[i], rows[i + W / 2], NATIVE_LOW);
      mixed[2 * i + 1] = __builtin_shufflevector(rows[i], rows[i + W / 2], NATIVE_HIGH);
    }
    for (int i = 0; i < W; i++) rows[i] = mixed[i];
  }
}

// 2^(f + n) of f in [-0.5, 0.5]: a polynomial of degree 6 with the least largest relative error, 2e-9.
NATIVE_INLINE Vec power_of_two(Vec f, Ints n) {
  Vec p = splat(0.0001534581242594868f);
  p = p * f + 0.0013399930903688073f;
  p = p * f + 0.009618489071726799f;
  p = p * f + 0.05550328642129898f;
  p = p * f + 0.24022646248340607f;
  p = p * f + 0.6931471824645996f;
  p = p * f + 1.0f;
  // In two factors, since 2^128 is no float32 while p * 2^127 may be one.
  const Ints half = n >> 1;
  const Vec one = (Vec)((half + 127) << 23), other = (Vec)((n - half + 127) << 23);
  return p * one * other;
}

// Adding 1.5 * 2^23 rounds a small float32 to a whole number and leaves that number in the lowest bits.
constexpr float ROUND = 12582912.0f;

// 2^x. Exactly 0 below -126, where the result would be no normal number, infinity from 128 on; NaN stays NaN.
NATIVE_INLINE Vec exp2(Vec x) {
  const Vec low = splat(-126.0f), high = splat(128.0f), shift = splat(ROUND);
  const Vec inside = vmin(vmax(x, low), high);
  const Vec shifted = inside + shift;
  const Vec result = power_of_two(inside - (shifted - shift), (Ints)shifted - (Ints)shift);
  return x < low ? Vec{} : result;
}

// e^(x + more), relative error below 2e-7 whatever the size of x, which exp2(x * log2(e)) has not; `more`, below 0.1 in
// size, is what x lacks as a float32. Denormal results are denormals, those above float32 infinite; NaN stays NaN.
NATIVE_INLINE Vec exp_of_sum(Vec x, Vec more) {
  const Vec shift = splat(ROUND), log2_e = splat(1.44269504088896341f);
  const Vec inside = vmin(vmax(x, splat(-104.0f)), splat(89.0f));
  const Vec shifted = inside * log2_e + shift;
  const Vec whole = shifted - shift;
  // ln(2) in two parts, the first exact in few bits, so that the first product has no rounding error.
  const Vec rest = ((inside - whole * 0.693359375f) + whole * 2.12194440e-4f) + more;
  return power_of_two(rest * log2_e, (Ints)shifted - (Ints)shift);
}

// e^x. Exactly 0 below -126 ln(2), infinity from 88.73 on; NaN stays NaN.
NATIVE_INLINE Vec exp(Vec x) {
  return x < splat(-87.336544f) ? Vec{} : exp_of_sum(x, Vec{});
}

struct Sigmoid {
  Vec value;
  // 1 - value, without cancellation.
  Vec rest;
};

NATIVE_INLINE Sigmoid sigmoid(Vec x) {
  const Vec power = exp_of_sum(-vabs(x), Vec{});
  const Vec large = 1.0f / (1.0f + power), small = power * large;
  return {x < 0.0f ? small : large, x < 0.0f ? large : small};
}

struct Normal {
  // P(N < x) of the standard normal distribution, and its density at x.
  Vec below, density;
};

// P(N < -a) = exp(-a^2 / 2) R(a), with R(a) = erfc(a / sqrt 2) exp(a^2 / 2) / 2 as a polynomial in (a - 3) / (a + 3)
// with the least largest relative error, 8e-9, on [0, 14]. So the far tail is right relative to itself.
NATIVE_INLINE Normal normal(Vec x) {
  // Beyond 20 both are 0 in float32.
  const Vec a = vmin(vabs(x), splat(20.0f));
  // a^2 = first^2 + (a - first) (a + first), the first square without rounding error.
  const Vec first = (Vec)((Ints)a & ~0xfff);
  const Vec power = exp_of_sum(-0.5f * (first * first), -0.5f * ((a - first) * (a + first)));
  const Vec t = (a - 3.0f) / (a + 3.0f);
  Vec p = splat(5.3683404985349625e-05f);
  p = p * t + 0.00011554911179700866f;
  p = p * t - 0.0003395001695025712f;
  p = p * t - 0.0009837624384090304f;
  p = p * t + 0.0029045632109045982f;
  p = p * t + 0.0061320713721215725f;
  p = p * t - 0.046213291585445404f;
  p = p * t + 0.12322503328323364f;
  p = p * t - 0.20640261471271515f;
  p = p * t + 0.12151394784450531f;
  const Vec tail = p * power;
  return {x < 0.0f ? tail : 1.0f - tail, power * 0.3989422804014327f};
}

}  // namespace NATIVE_ISA
