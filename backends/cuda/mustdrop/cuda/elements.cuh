// SPDX-License-Identifier: Apache-2.0
#pragma once

// Numbers in memory and in registers: float, half and bfloat16 are widened as they are loaded and rounded as they are stored, as
// numerics.hpp does, several at a time: 16 bytes of the narrower type, where everything is aligned to that, or one.

#include <mustdrop/cuda/backend.cuh>
#include <mustdrop/numerics.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace cuda {

/// Halves by the device's instructions, which agree with numerics.hpp on every number. (A NaN stays one.)
template <class T>
__device__ float to_float(T x) {
#if defined(__CUDA_ARCH__)
  if constexpr (std::is_same_v<T, half>) {
    float wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(x.bits));
    return wide;
  }
#endif
  return widen(x);
}
template <class T>
__device__ T from_float(float x) {
#if defined(__CUDA_ARCH__)
  if constexpr (std::is_same_v<T, half>) {
    half narrowed;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(narrowed.bits) : "f"(x));
    return narrowed;
  }
#endif
  return narrow<T>(x);
}

/// Numbers in registers.
template <int Count>
struct numbers {
  float at[Count];
};

/// Numbers in memory: as many words of 16 bytes as they fill, or a word of one number.
template <class T, int Count>
struct packed {
  static constexpr int bytes = static_cast<int>(sizeof(T)) * Count, words = bytes / 16;
  static_assert(bytes % 16 == 0, "whole words");

  static __device__ numbers<Count> load(T const* p) {
    constexpr int in_word = Count / words;
    numbers<Count> x;
    for (int w = 0; w < words; ++w) {
      uint4 const raw = reinterpret_cast<uint4 const*>(p)[w];
      T some[in_word];
      std::memcpy(some, &raw, sizeof raw);
      for (int i = 0; i < in_word; ++i) { x.at[w * in_word + i] = to_float(some[i]); }
    }
    return x;
  }
  static __device__ void store(T* p, numbers<Count> const& x) {
    constexpr int in_word = Count / words;
    for (int w = 0; w < words; ++w) {
      T some[in_word];
      for (int i = 0; i < in_word; ++i) { some[i] = from_float<T>(x.at[w * in_word + i]); }
      uint4 raw;
      std::memcpy(&raw, some, sizeof raw);
      reinterpret_cast<uint4*>(p)[w] = raw;
    }
  }
};
template <class T>
struct packed<T, 1> {
  static __device__ numbers<1> load(T const* p) { return {{to_float(*p)}}; }
  static __device__ void store(T* p, numbers<1> const& x) { *p = from_float<T>(x.at[0]); }
};

/// How many numbers at a time: enough for 16 bytes of each of the types.
template <class... T>
constexpr int together() noexcept {
  int count = 1;
  for (int const one : {static_cast<int>(16 / sizeof(T))...}) { count = one > count ? one : count; }
  return count;
}

/// Whether every row begins at a multiple of 16 bytes.
template <class T, int Rank>
bool aligned_rows(tensor_view<T, Rank> const& rows) noexcept {
  auto bits = reinterpret_cast<std::uintptr_t>(rows.data);
  for (int axis = 0; axis + 1 < Rank; ++axis) { bits |= static_cast<std::uintptr_t>(rows.strides[axis]) * sizeof(T); }
  return bits % 16 == 0;
}

}  // namespace cuda
MUSTDROP_NAMESPACE_END
