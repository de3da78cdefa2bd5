// SPDX-License-Identifier: Apache-2.0
#pragma once

// Rows that are copied: runs of neighbours as one piece where the rows lie close together.

#include <cstring>

#include <mustdrop/cpu/elements.hpp>
#include <mustdrop/view.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace cpu {

/// Where the rows of segment s begin in an output that is packed, or laid out in place of capacity.
template <class Arch>
index_t out_begin(segments const& segments, tensor_view<std::int32_t const, 1> out_offsets, index_t s) noexcept {
  return out_offsets.absent() ? segments.begin(s) : out_offsets(s);
}

/// How many of at(0), at(1), … at(n − 1) are consecutive from the first on; n > 0.
template <class Arch, class At>
index_t run_length(index_t n, At const& at) noexcept {
  index_t const first = at(0);
  index_t length = 1;
  while (length < n && at(length) == first + length) { ++length; }
  return length;
}

/// `count` rows of `dim` elements from one place to another. Strides are in elements.
template <class Arch, class T>
void copy_rows(T const* from, index_t from_stride, T* to, index_t to_stride, index_t count, index_t dim) noexcept {
  if (dim == 1 && sizeof(T) <= 16) {
    for (index_t i = 0; i < count; ++i) { to[i * to_stride] = from[i * from_stride]; }
    return;
  }
  auto const row_bytes = static_cast<std::size_t>(dim) * sizeof(T);
  if (from_stride == dim && to_stride == dim) {
    std::memcpy(to, from, static_cast<std::size_t>(count) * row_bytes);
    return;
  }
  for (index_t i = 0; i < count; ++i) { std::memcpy(to + i * to_stride, from + i * from_stride, row_bytes); }
}

/// The same between types of numbers.
template <class Arch, class T, class Out>
MUSTDROP_FLATTEN void convert_rows(T const* from, index_t from_stride, Out* to, index_t to_stride, index_t count, index_t dim) noexcept {
  if constexpr (std::is_same_v<T, Out>) {
    copy_rows<Arch>(from, from_stride, to, to_stride, count, dim);
  } else {
    for (index_t i = 0; i < count; ++i) {
      T const* const row = from + i * from_stride;
      Out* const out = to + i * to_stride;
      for_each_register<Arch>(dim, [&](index_t d, auto left) { store_some<Arch>(out + d, load_some<Arch>(row + d, left), left); });
    }
  }
}

}  // namespace cpu
MUSTDROP_NAMESPACE_END
