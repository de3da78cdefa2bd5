// SPDX-License-Identifier: Apache-2.0
#pragma once

// Registers of 32-bit lanes, and loops over them whose bodies see their index as a constant.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include <mustdrop/cpu/backend.hpp>

// What a kernel calls becomes part of it: compilers weigh size, and a register of lanes that is passed to a function goes through memory.
#if defined(__GNUC__)
#define MUSTDROP_FLATTEN [[gnu::flatten]]
#else
#define MUSTDROP_FLATTEN
#endif

MUSTDROP_NAMESPACE_BEGIN
namespace cpu {

template <class Arch>
using floats = xsimd::batch<float, Arch>;
template <class Arch>
using ints = xsimd::batch<std::int32_t, Arch>;
template <class Arch>
constexpr index_t lanes = static_cast<index_t>(floats<Arch>::size);

/// Whether Arch is `Base` or one that xsimd derives from it.
template <class Arch, class Base>
constexpr bool extends = std::is_base_of_v<Base, Arch>;

template <int... I, class F>
void unroll(std::integer_sequence<int, I...>, F const& f) noexcept {
  (f(std::integral_constant<int, I>{}), ...);
}
/// f(0) … f(N − 1), each with its index as a constant, so that arrays of registers stay in registers at every optimisation level.
template <int N, class F>
void unroll(F const& f) noexcept {
  unroll(std::make_integer_sequence<int, N>{}, f);
}

template <class Arch>
float fused(float a, float b, float c) noexcept {
  return std::fma(a, b, c);
}

// xsimd's bitwise_cast takes a type of register in 8.1 and a type of lane later.
template <class Arch>
ints<Arch> bits_of(floats<Arch> x) noexcept {
  typename floats<Arch>::register_type const from = x;
  typename ints<Arch>::register_type to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}
template <class Arch>
floats<Arch> floats_of(ints<Arch> x) noexcept {
  typename ints<Arch>::register_type const from = x;
  typename floats<Arch>::register_type to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

/// With the other sign, zeros too: xsimd 8.1 subtracts from 0 on AVX-512.
template <class Arch>
floats<Arch> negated(floats<Arch> x) noexcept {
  return floats_of<Arch>(bits_of<Arch>(x) ^ ints<Arch>(std::numeric_limits<std::int32_t>::min()));
}

/// Zero where the mask does not hold. xsimd's select would be a blend, three times the work of an and.
template <class Arch>
floats<Arch> only_where(xsimd::batch_bool<float, Arch> mask, floats<Arch> x) noexcept {
  typename xsimd::batch_bool<float, Arch>::register_type const from = mask;
  typename ints<Arch>::register_type ones;
  if constexpr (sizeof from == sizeof ones) {  // a mask is a register of lanes
    std::memcpy(&ones, &from, sizeof ones);
    return floats_of<Arch>(bits_of<Arch>(x) & ints<Arch>(ones));
  } else {
    return xsimd::select(mask, x, floats<Arch>(0.0f));
  }
}

/// Each lane the float with these bits.
template <class Arch>
floats<Arch> float_of(std::int32_t bits) noexcept {
  return floats_of<Arch>(ints<Arch>(bits));
}

}  // namespace cpu
MUSTDROP_NAMESPACE_END
