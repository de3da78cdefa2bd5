// SPDX-License-Identifier: Apache-2.0
#pragma once

// Memory as callers have it: aligned workspaces, rows with padding between them, rows that begin at odd addresses.

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <random>
#include <type_traits>
#include <vector>

#include <mustdrop/numerics.hpp>
#include <mustdrop/view.hpp>

namespace md = mustdrop;

constexpr float quiet_nan = std::numeric_limits<float>::quiet_NaN();
constexpr float inf = std::numeric_limits<float>::infinity();

/// A workspace of exactly `bytes` bytes, aligned to 64, so that a sanitizer sees one byte too many.
class aligned_memory {
 public:
  explicit aligned_memory(std::size_t bytes) : lines_((bytes + 63) / 64 + 1), bytes_(bytes) {}
  md::workspace lend() { return {lines_.data(), bytes_}; }

 private:
  struct alignas(64) line {
    std::uint64_t words[8];
  };
  std::vector<line> lines_;
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
