// SPDX-License-Identifier: Apache-2.0
#pragma once

// Numbers in memory and in registers: float, half and bfloat16 are widened as they are loaded and rounded as they are stored, as
// numerics.hpp does, and what lies behind the end of a row is neither read nor written.

#include <mustdrop/cpu/instructions.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace cpu {

template <class Arch>
floats<Arch> widen_halves(ints<Arch> words) noexcept {
  ints<Arch> const sign = (words & ints<Arch>(0x8000)) << 16, magnitude = words & ints<Arch>(0x7fff);
  ints<Arch> const shifted = magnitude << 13;
  floats<Arch> const tiny = xsimd::to_float(magnitude) * floats<Arch>(0x1p-24f);  // subnormal: a small integer times a power of two
  floats<Arch> const normal = floats_of<Arch>(shifted + ints<Arch>(0x38000000));
  floats<Arch> const infinite = floats_of<Arch>(shifted | ints<Arch>(0x7f800000)),
                     quiet = floats_of<Arch>(shifted | ints<Arch>(0x7fc00000));
  floats<Arch> const value = xsimd::to_float(magnitude);  // compared as floats: masks of one kind
  floats<Arch> wide = xsimd::select(value >= floats<Arch>(0x0400), normal, tiny);
  wide = xsimd::select(value >= floats<Arch>(0x7c00), infinite, wide);
  wide = xsimd::select(value > floats<Arch>(0x7c00), quiet, wide);
  return floats_of<Arch>(bits_of<Arch>(wide) | sign);
}

/// In the low half of each lane; the high half is anything.
template <class Arch>
ints<Arch> narrow_halves(floats<Arch> x) noexcept {
  ints<Arch> const bits = bits_of<Arch>(x), sign = (bits >> 16) & ints<Arch>(0x8000), magnitude = bits & ints<Arch>(0x7fffffff);
  floats<Arch> const size = floats_of<Arch>(magnitude);
  ints<Arch> const subnormal = bits_of<Arch>(size + floats<Arch>(0.5f)) - ints<Arch>(0x3f000000);
  ints<Arch> const normal = (magnitude - ints<Arch>(0x38000000 - 0xfff) + ((magnitude >> 13) & ints<Arch>(1))) >> 13;
  ints<Arch> const nan = ((magnitude >> 13) & ints<Arch>(0x3ff)) | ints<Arch>(0x7e00);
  floats<Arch> word = xsimd::select(size >= float_of<Arch>(0x38800000), floats_of<Arch>(normal), floats_of<Arch>(subnormal));
  word = xsimd::select(size >= float_of<Arch>(0x477ff000), float_of<Arch>(0x7c00), word);  // 65520 and more
  word = xsimd::select(x == x, word, floats_of<Arch>(nan));
  return bits_of<Arch>(word) | sign;
}

template <class Arch>
ints<Arch> narrow_bfloats(floats<Arch> x) noexcept {
  ints<Arch> const bits = bits_of<Arch>(x), rounded = bits + ints<Arch>(0x7fff) + ((bits >> 16) & ints<Arch>(1));
  return bits_of<Arch>(xsimd::select(x == x, floats_of<Arch>(rounded), floats_of<Arch>(bits | ints<Arch>(0x400000)))) >> 16;
}

/// lanes<Arch> numbers.
template <class Arch, class T>
floats<Arch> load_lanes(T const* p) noexcept {
  if constexpr (std::is_same_v<T, float>) {
    return floats<Arch>::load_unaligned(p);
  } else if constexpr (std::is_same_v<T, bfloat16>) {
    return floats_of<Arch>(load_words<Arch>(p) << 16);
  } else if constexpr (converts_halves<Arch>) {
    return load_halves<Arch>(p);
  } else {
    return widen_halves<Arch>(load_words<Arch>(p));
  }
}
template <class Arch, class T>
void store_lanes(T* p, floats<Arch> x) noexcept {
  if constexpr (std::is_same_v<T, float>) {
    x.store_unaligned(p);
  } else if constexpr (std::is_same_v<T, bfloat16>) {
    store_words<Arch>(narrow_bfloats<Arch>(x), p);
  } else if constexpr (converts_halves<Arch>) {
    store_halves<Arch>(x, p);
  } else {
    store_words<Arch>(narrow_halves<Arch>(x), p);
  }
}

/// How many numbers are left where a whole register is.
template <class Arch>
struct all_lanes {
  constexpr operator index_t() const noexcept { return lanes<Arch>; }
};

/// The n numbers that are left, or as many as there are lanes; zeros behind them.
template <class Arch, class T>
floats<Arch> load_some(T const* p, index_t n) noexcept {
  if (n >= lanes<Arch>) { return load_lanes<Arch>(p); }
  T some[lanes<Arch>] = {};
  for (index_t i = 0; i < n; ++i) { some[i] = p[i]; }
  return load_lanes<Arch>(some);
}
template <class Arch, class T>
floats<Arch> load_some(T const* p, all_lanes<Arch>) noexcept {
  return load_lanes<Arch>(p);
}

template <class Arch, class T>
void store_some(T* p, floats<Arch> x, index_t n) noexcept {
  if (n >= lanes<Arch>) { return store_lanes<Arch>(p, x); }
  T some[lanes<Arch>];
  store_lanes<Arch>(some, x);
  for (index_t i = 0; i < n; ++i) { p[i] = some[i]; }
}
template <class Arch, class T>
void store_some(T* p, floats<Arch> x, all_lanes<Arch>) noexcept {
  store_lanes<Arch>(p, x);
}
template <class Arch>
void store_some(std::int32_t* p, ints<Arch> x, index_t n) noexcept {
  if (n >= lanes<Arch>) { return x.store_unaligned(p); }
  std::int32_t some[lanes<Arch>];
  x.store_unaligned(some);
  for (index_t i = 0; i < n; ++i) { p[i] = some[i]; }
}

/// Calls f(i, left) for i = 0, lanes, 2·lanes, … below `size`: `left` is all_lanes, and at the end of a row an index_t. Two types, so that
/// the loop and the end are two functions, each inlined where it is called.
template <class Arch, class F>
void for_each_register(index_t size, F const& f) noexcept {
  index_t i = 0;
  for (; i + lanes<Arch> <= size; i += lanes<Arch>) { f(i, all_lanes<Arch>{}); }
  if (i < size) { f(i, size - i); }
}

/// Numbers [at, at + 4) of each of turned_rows rows, of which n count, become columns: columns[i·stride + r] = rows[r][at + i].
template <class Arch>
void turn_rows(float const* const* rows, index_t at, index_t n, float* columns, index_t stride) noexcept {
  if constexpr (turns<Arch>) {
    if (n >= 4) { return turn_quads<Arch>(rows, at, columns, stride); }
  }
  for (index_t r = 0; r < turned_rows<Arch>; ++r) {
    for (index_t i = 0; i < n && i < 4; ++i) { columns[i * stride + r] = rows[r][at + i]; }
  }
}

}  // namespace cpu
MUSTDROP_NAMESPACE_END
