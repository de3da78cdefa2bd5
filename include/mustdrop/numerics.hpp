// SPDX-License-Identifier: Apache-2.0
#pragma once

// The arithmetic that every backend repeats bit for bit. A sum is 32 lanes folded by halves (a CUDA warp, four AVX2 registers,
// two AVX-512 registers); a dot product of a matrix product is one fma chain; a product that is added is an explicit fma, so that
// no compiler flag short of -ffast-math changes a bit; exp, sin and cos are polynomials of ours.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include <mustdrop/view.hpp>

MUSTDROP_NAMESPACE_BEGIN

/// Storage of IEEE binary16, bit for bit an __half, ggml_fp16_t or c10::Half.
struct half {
  std::uint16_t bits;
};

/// Storage of the upper half of a binary32, bit for bit a __nv_bfloat16 or c10::BFloat16.
struct bfloat16 {
  std::uint16_t bits;
};

template <class T>
constexpr bool is_real_v = std::is_same_v<T, float> || std::is_same_v<T, half> || std::is_same_v<T, bfloat16>;

MUSTDROP_HD inline float float_from_bits(std::uint32_t bits) noexcept {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
MUSTDROP_HD inline std::uint32_t bits_of(float value) noexcept {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
MUSTDROP_HD inline bool is_nan(float x) noexcept { return x != x; }

/// Exact. A NaN stays a NaN.
MUSTDROP_HD inline float widen(float x) noexcept { return x; }
MUSTDROP_HD inline float widen(bfloat16 x) noexcept { return float_from_bits(static_cast<std::uint32_t>(x.bits) << 16); }
MUSTDROP_HD inline float widen(half x) noexcept {
  std::uint32_t const sign = (x.bits & 0x8000u) << 16, magnitude = x.bits & 0x7fffu;
  if (magnitude > 0x7c00u) { return float_from_bits(sign | 0x7fc00000u | magnitude << 13); }  // quiet, as the instructions make it
  if (magnitude == 0x7c00u) { return float_from_bits(sign | 0x7f800000u); }
  if (magnitude >= 0x0400u) { return float_from_bits(sign | ((magnitude << 13) + 0x38000000u)); }
  float const tiny = static_cast<float>(magnitude) * 0x1p-24f;  // subnormal: a small integer times a power of two
  return sign ? -tiny : tiny;
}

/// Rounds once, to nearest even; beyond the largest finite value: infinity.
template <class T>
MUSTDROP_HD T narrow(float x) noexcept {
  static_assert(is_real_v<T>, "float, half or bfloat16");
  if constexpr (std::is_same_v<T, float>) {
    return x;
  } else if constexpr (std::is_same_v<T, bfloat16>) {
    std::uint32_t const bits = bits_of(x);
    std::uint32_t const quiet = bits >> 16 | 0x40u, rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    return {static_cast<std::uint16_t>(is_nan(x) ? quiet : rounded)};
  } else {
    std::uint32_t const bits = bits_of(x), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) { return {static_cast<std::uint16_t>(sign | 0x7e00u | (magnitude >> 13 & 0x3ffu))}; }
    if (magnitude >= 0x477ff000u) { return {static_cast<std::uint16_t>(sign | 0x7c00u)}; }  // 65520 and more
    if (magnitude >= 0x38800000u) {                                                         // normal: drop 13 bits
      return {static_cast<std::uint16_t>(sign | (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13)};
    }
    // Subnormal: adding 1/2 leaves the result, rounded by the addition itself, in the low bits.
    std::uint32_t const rounded = bits_of(float_from_bits(magnitude) + 0.5f) - 0x3f000000u;
    return {static_cast<std::uint16_t>(sign | rounded)};
  }
}

/// a·b + c, rounded once.
MUSTDROP_HD inline float fma(float a, float b, float c) noexcept {
#if defined(__CUDA_ARCH__)
  return __fmaf_rn(a, b, c);
#else
  return std::fma(a, b, c);
#endif
}
/// Correctly rounded.
MUSTDROP_HD inline float divide(float a, float b) noexcept {
#if defined(__CUDA_ARCH__)
  return __fdiv_rn(a, b);
#else
  return a / b;
#endif
}
MUSTDROP_HD inline float square_root(float x) noexcept {
#if defined(__CUDA_ARCH__)
  return __fsqrt_rn(x);
#else
  return std::sqrt(x);
#endif
}

/// A sum over elements 0, 1, 2, …: element i belongs to lane i mod 32, each lane adds in order, then lanes fold by halves.
struct lane_sum {
  static constexpr int lanes = 32;
  float lane[lanes] = {};

  MUSTDROP_HD void add(index_t i, float x) noexcept { lane[i % lanes] += x; }
  MUSTDROP_HD void add_product(index_t i, float a, float b) noexcept { lane[i % lanes] = mustdrop::fma(a, b, lane[i % lanes]); }
  MUSTDROP_HD float total() const noexcept {
    float fold[lanes];
    for (int i = 0; i < lanes; ++i) { fold[i] = lane[i]; }
    for (int half = lanes / 2; half > 0; half /= 2) {
      for (int i = 0; i < half; ++i) { fold[i] += fold[i + half]; }
    }
    return fold[0];
  }
};

/// The dot product of a matrix product (q·k): one fma chain over the features, in order.
template <class A, class B>
MUSTDROP_HD float chain_dot(A const* a, B const* b, index_t n) noexcept {
  float sum = 0;
  for (index_t i = 0; i < n; ++i) { sum = mustdrop::fma(widen(a[i]), widen(b[i]), sum); }
  return sum;
}

/// e^x, at most 1 ulp off on [−87.33, 88.7]; below −87.33: +0; above 88.7 it grows into infinity; NaN stays.
MUSTDROP_HD inline float exp(float x) noexcept {
  if (is_nan(x)) { return x; }
  if (x < -87.33f) { return 0; }
  if (x > 88.73f) { return float_from_bits(0x7f800000u); }
  float const n = std::nearbyint(x * 1.44269504f);
  float r = mustdrop::fma(-n, 0.693359375f, x);  // x − n·ln 2 in two parts (Cody and Waite); the first is exact
  r = mustdrop::fma(-n, -2.12194440e-4f, r);
  float p = 1.9875691500e-4f;  // minimax on [−ln 2 / 2, ln 2 / 2] (Cephes)
  p = mustdrop::fma(p, r, 1.3981999507e-3f);
  p = mustdrop::fma(p, r, 8.3334519073e-3f);
  p = mustdrop::fma(p, r, 4.1665795894e-2f);
  p = mustdrop::fma(p, r, 1.6666665459e-1f);
  p = mustdrop::fma(p, r, 5.0000001201e-1f);
  float const sum = 1.0f + r, lost = r - (sum - 1.0f);  // what 1 + r rounds away comes back with the small terms
  p = sum + mustdrop::fma(p, r * r, lost);
  // n reaches 128 and 2^128 is no float: two factors, each of them one.
  auto const power = static_cast<std::int32_t>(n), half_power = power / 2;
  float const low = float_from_bits(static_cast<std::uint32_t>(half_power + 127) << 23);
  float const high = float_from_bits(static_cast<std::uint32_t>(power - half_power + 127) << 23);
  return p * low * high;
}

/// tanh through exp, at most 1e-7 off.
MUSTDROP_HD inline float tanh(float x) noexcept {
  float const e = mustdrop::exp(-2.0f * std::fabs(x));
  return std::copysign(divide(1.0f - e, 1.0f + e), x);
}

/// The sine and cosine of an angle in radians, at most 1.3e-7 off for |angle| ≤ 2^20, 4e-6 up to 2^22; beyond that an angle means
/// little as a float and both are NaN.
struct sine_cosine {
  float sine, cosine;
};
MUSTDROP_HD inline sine_cosine sin_cos(float angle) noexcept {
  if (!(std::fabs(angle) <= 0x1p22f)) { return {float_from_bits(0x7fc00000u), float_from_bits(0x7fc00000u)}; }
  float const n = std::nearbyint(angle * 0.636619772f);
  float r = mustdrop::fma(-n, 1.57079637f, angle);  // angle − n·π/2 in three parts; the first step is exact
  r = mustdrop::fma(-n, -4.37113883e-8f, r);
  r = mustdrop::fma(-n, -1.71512489e-15f, r);
  float const r2 = r * r;
  float s = mustdrop::fma(r2, -1.9515295891e-4f, 8.3321608736e-3f);  // minimax on [−π/4, π/4] (Cephes)
  s = mustdrop::fma(s, r2, -1.6666654611e-1f);
  s = mustdrop::fma(s * r2, r, r);
  float c = mustdrop::fma(r2, 2.443315711809948e-5f, -1.388731625493765e-3f);
  c = mustdrop::fma(c, r2, 4.166664568298827e-2f);
  c = mustdrop::fma(c * r2, r2, mustdrop::fma(r2, -0.5f, 1.0f));
  auto const quadrant = static_cast<std::int32_t>(n) & 3;
  float const sine = quadrant & 1 ? c : s, cosine = quadrant & 1 ? s : c;
  return {quadrant & 2 ? -sine : sine, (quadrant + 1) & 2 ? -cosine : cosine};
}

/// A score as an unsigned integer of the same order: a < b iff score_order(a) < score_order(b).
/// −0 equals +0; every NaN is 0, below −infinity.
MUSTDROP_HD inline std::uint32_t score_order(float score) noexcept {
  if (is_nan(score)) { return 0; }
  std::uint32_t const bits = bits_of(score + 0.0f);  // −0 + 0 = +0
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}

/// A total order of (score, index): the higher key wins; among equal scores the smaller index does. No two tokens tie.
MUSTDROP_HD inline std::uint64_t score_key(float score, index_t index) noexcept {
  return std::uint64_t{score_order(score)} << 32 | static_cast<std::uint32_t>(~static_cast<std::uint32_t>(index));
}

MUSTDROP_NAMESPACE_END
