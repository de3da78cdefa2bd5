// SPDX-License-Identifier: Apache-2.0
#pragma once

// Memory as callers have it: aligned workspaces, rows with padding between them, rows that begin at odd addresses.

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <new>
#include <random>
#include <type_traits>
#include <vector>

#include <mustdrop/numerics.hpp>
#include <mustdrop/view.hpp>

namespace md = mustdrop;

constexpr float quiet_nan = std::numeric_limits<float>::quiet_NaN();
constexpr float inf = std::numeric_limits<float>::infinity();

/// A workspace of exactly `bytes` bytes, aligned to 64, so that a sanitizer sees one byte too many. It is full of NaN (0xff…):
/// nobody may count on zeros.
class aligned_memory {
 public:
  explicit aligned_memory(std::size_t bytes) : memory_(::operator new(bytes, alignment)), bytes_(bytes) {
    std::memset(memory_, 0xff, bytes);
  }
  ~aligned_memory() { ::operator delete(memory_, alignment); }
  aligned_memory(aligned_memory const&) = delete;
  aligned_memory& operator=(aligned_memory const&) = delete;

  md::workspace lend() { return {memory_, bytes_}; }

 private:
  static constexpr std::align_val_t alignment{64};
  void* memory_;
  std::size_t bytes_;
};

/// A tensor whose innermost axis is dense and whose rows are `padding` elements apart, beginning `shift` elements into its memory.
/// Everything is `guard` until it is written, so memory() shows what a call touched.
template <class T, int Rank>
class padded_tensor {
 public:
  template <class... Size>
  padded_tensor(T guard, md::index_t shift, md::index_t padding, Size... size) {
    md::index_t const sizes[Rank] = {static_cast<md::index_t>(size)...};
    md::index_t stride = 1;
    for (int axis = Rank - 1; axis >= 0; --axis) {
      view_.sizes[axis] = sizes[axis], view_.strides[axis] = stride;
      stride = stride * sizes[axis] + (axis == Rank - 1 ? padding : 0);
    }
    memory_.assign(static_cast<std::size_t>(shift + stride + 1), guard);
    view_.data = memory_.data() + shift;
  }
  padded_tensor(padded_tensor const&) = delete;
  padded_tensor& operator=(padded_tensor const&) = delete;

  md::tensor_view<T, Rank> view() { return view_; }
  std::vector<T> const& memory() const { return memory_; }

 private:
  std::vector<T> memory_;
  md::tensor_view<T, Rank> view_;
};

/// A generator whose seed is fixed and printed, so that a failure can be repeated.
inline std::mt19937 printed_random(unsigned seed) {
  std::printf("[ seed     ] %u\n", seed);
  return std::mt19937(seed);
}

/// The same bits, NaN equal to NaN whatever its payload.
inline bool same(float a, float b) { return md::bits_of(a) == md::bits_of(b) || (md::is_nan(a) && md::is_nan(b)); }
