// SPDX-License-Identifier: Apache-2.0
#pragma once

// mustdrop/numerics.hpp in lanes: the same operations in the same order.

#include <limits>

#include <mustdrop/cpu/elements.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace cpu {

template <class Arch>
float divide(float a, float b) noexcept {
  return a / b;
}
template <class Arch>
float square_root(float x) noexcept {
  return std::sqrt(x);
}
template <class Arch>
bool is_finite(float x) noexcept {
  return std::fabs(x) <= std::numeric_limits<float>::max();
}

/// The 32 lanes of a sum: 2 registers of AVX-512, 4 of AVX2, 8 of NEON and SSE2. Zeros behind the end of a row change nothing: no lane is
/// ever −0.
template <class Arch>
struct lane_sum {
  static constexpr int registers = static_cast<int>(32 / lanes<Arch>);
  static_assert(registers * lanes<Arch> == 32, "a register holds a part of the 32 lanes");
  floats<Arch> lane[registers];

  lane_sum() noexcept {
    unroll<registers>([&](auto r) { lane[r] = floats<Arch>(0.0f); });
  }
  float total() const noexcept {
    float fold[32];
    unroll<registers>([&](auto r) { lane[r].store_unaligned(fold + r * lanes<Arch>); });
    for (int half = 16; half > 0; half /= 2) {
      for (int i = 0; i < half; ++i) { fold[i] += fold[i + half]; }
    }
    return fold[0];
  }
};

/// ‖x‖² of some rows at once: one row's chain of additions leaves the processor waiting.
template <class Arch, int Rows, class T>
MUSTDROP_FLATTEN void square_norms(T const* const* rows, index_t dim, float* norms) noexcept {
  constexpr int registers = lane_sum<Arch>::registers;
  lane_sum<Arch> sums[Rows];
  auto const add = [&](auto row, auto r, floats<Arch> x) { sums[row].lane[r] = fused<Arch>(x, x, sums[row].lane[r]); };
  index_t d = 0;
  for (; d + 32 <= dim; d += 32) {
    unroll<registers>([&](auto r) { unroll<Rows>([&](auto row) { add(row, r, load_lanes<Arch>(rows[row] + d + r * lanes<Arch>)); }); });
  }
  unroll<registers>([&](auto r) {
    if (index_t const at = d + r * lanes<Arch>; at < dim) {
      unroll<Rows>([&](auto row) { add(row, r, load_some<Arch>(rows[row] + at, dim - at)); });
    }
  });
  unroll<Rows>([&](auto row) { norms[row] = sums[row].total(); });
}

/// e^x = fraction · 2^power.
template <class Arch>
struct exponential {
  floats<Arch> fraction;
  ints<Arch> power;
};
template <class Arch>
exponential<Arch> exp_parts(floats<Arch> x) noexcept {
  using f = floats<Arch>;
  f const n = xsimd::nearbyint(x * f(1.44269504f));
  f r = fused<Arch>(negated<Arch>(n), f(0.693359375f), x);
  r = fused<Arch>(negated<Arch>(n), f(-2.12194440e-4f), r);
  f p(1.9875691500e-4f);
  p = fused<Arch>(p, r, f(1.3981999507e-3f));
  p = fused<Arch>(p, r, f(8.3334519073e-3f));
  p = fused<Arch>(p, r, f(4.1665795894e-2f));
  p = fused<Arch>(p, r, f(1.6666665459e-1f));
  p = fused<Arch>(p, r, f(5.0000001201e-1f));
  f const sum = f(1.0f) + r, lost = r - (sum - f(1.0f));
  return {sum + fused<Arch>(p, r * r, lost), xsimd::to_int(n)};
}

/// e^x.
template <class Arch>
floats<Arch> exp(floats<Arch> x) noexcept {
  using f = floats<Arch>;
  auto const [fraction, power] = exp_parts<Arch>(x);
  ints<Arch> const half_power = power >> 1;  // of an odd negative power the other half: as exact
  f const low = floats_of<Arch>((half_power + ints<Arch>(127)) << 23), high = floats_of<Arch>((power - half_power + ints<Arch>(127)) << 23);
  f y = fraction * low * high;
  y = xsimd::select(x < f(-87.33f), f(0.0f), y);
  y = xsimd::select(x > f(88.73f), f(std::numeric_limits<float>::infinity()), y);
  return xsimd::select(x == x, y, x);
}

/// e^x of numbers up to 88, and NaN: the power is added to the exponent, which is neither too low, for the result is not subnormal, nor too
/// high. The same bits for half the work.
template <class Arch>
floats<Arch> exp_bounded(floats<Arch> x) noexcept {
  auto const [fraction, power] = exp_parts<Arch>(x);
  floats<Arch> const y = floats_of<Arch>(bits_of<Arch>(fraction) + (power << 23));
  return only_where<Arch>(~(x < floats<Arch>(-87.33f)), y);
}

template <class Arch>
floats<Arch> tanh(floats<Arch> x) noexcept {
  using f = floats<Arch>;
  f const one(1.0f), e = exp<Arch>(f(-2.0f) * floats_of<Arch>(bits_of<Arch>(x) & ints<Arch>(0x7fffffff)));
  ints<Arch> const size = bits_of<Arch>(divide<Arch>(one - e, one + e)) & ints<Arch>(0x7fffffff);
  return floats_of<Arch>(size | (bits_of<Arch>(x) & ints<Arch>(std::numeric_limits<std::int32_t>::min())));
}

/// The sine and cosine of angles in radians.
template <class Arch>
struct sine_cosine {
  floats<Arch> sine, cosine;
};
template <class Arch>
sine_cosine<Arch> sin_cos(floats<Arch> angle) noexcept {
  using f = floats<Arch>;
  f const n = xsimd::nearbyint(angle * f(0.636619772f));
  f r = fused<Arch>(negated<Arch>(n), f(1.57079637f), angle);
  r = fused<Arch>(negated<Arch>(n), f(-4.37113883e-8f), r);
  r = fused<Arch>(negated<Arch>(n), f(-1.71512489e-15f), r);
  f const r2 = r * r;
  f s = fused<Arch>(r2, f(-1.9515295891e-4f), f(8.3321608736e-3f));
  s = fused<Arch>(s, r2, f(-1.6666654611e-1f));
  s = fused<Arch>(s * r2, r, r);
  f c = fused<Arch>(r2, f(2.443315711809948e-5f), f(-1.388731625493765e-3f));
  c = fused<Arch>(c, r2, f(4.166664568298827e-2f));
  c = fused<Arch>(c * r2, r2, fused<Arch>(r2, f(-0.5f), f(1.0f)));
  // Bit 0 of the quadrant swaps the two; bit 1 of the quadrant, and of the one after it, are their signs.
  ints<Arch> const quadrant = xsimd::to_int(n), one(1), two(2);
  auto const swap = xsimd::to_float(quadrant & one) != f(0.0f);
  ints<Arch> const sine_sign = (quadrant & two) << 30, cosine_sign = ((quadrant + one) & two) << 30;
  f const sine = floats_of<Arch>(bits_of<Arch>(xsimd::select(swap, c, s)) ^ sine_sign);
  f const cosine = floats_of<Arch>(bits_of<Arch>(xsimd::select(swap, s, c)) ^ cosine_sign);
  auto const small = floats_of<Arch>(bits_of<Arch>(angle) & ints<Arch>(0x7fffffff)) <= f(0x1p22f);
  f const nan = float_of<Arch>(0x7fc00000);
  return {xsimd::select(small, sine, nan), xsimd::select(small, cosine, nan)};
}

/// A score as an integer of the same order: −0 is +0, and NaN is below everything but the lowest integer, which no score becomes.
template <class Arch>
ints<Arch> score_order(floats<Arch> score) noexcept {
  constexpr std::int32_t nan = -2;  // becomes the lowest integer but one
  ints<Arch> const bits = bits_of<Arch>(xsimd::select(score == score, score + floats<Arch>(0.0f), float_of<Arch>(nan)));
  return bits ^ ((bits >> 31) & ints<Arch>(0x7fffffff));
}

}  // namespace cpu
MUSTDROP_NAMESPACE_END
