// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mustdrop/gather.hpp>
#include <mustdrop/reference/backend.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace reference {

/// Where the rows of segment s begin in an output that is packed, or laid out in place of capacity.
inline index_t out_begin(segments const& segments, tensor_view<std::int32_t const, 1> out_offsets, index_t s) noexcept {
  return out_offsets.absent() ? segments.begin(s) : out_offsets(s);
}

template <class T, class Index>
status gather_impl(backend, tensor_view<T const, 3> rows, segments const& segments, keep_lists<Index const> keep, tensor_view<T, 3> out,
                   tensor_view<std::int32_t const, 1> out_offsets) noexcept {
  for (index_t s = 0; s < segments.count; ++s) {
    for (index_t i = 0; i < keep.counts(s); ++i) {
      index_t const from = segments.begin(s) + keep.indices(s, i), to = out_begin(segments, out_offsets, s) + i;
      for (index_t a = 0; a < rows.size(1); ++a) {
        for (index_t b = 0; b < rows.size(2); ++b) { out(to, a, b) = rows(from, a, b); }
      }
    }
  }
  return status::ok;
}

template <class Transform, class T, class Index, class Out>
status gather_impl(backend, Transform const& transform, tensor_view<T const, 2> rows, segments const& segments,
                   keep_lists<Index const> keep, tensor_view<Out, 2> out, tensor_view<std::int32_t const, 1> out_offsets) noexcept {
  for (index_t s = 0; s < segments.count; ++s) {
    for (index_t i = 0; i < keep.counts(s); ++i) {
      transform(&rows(segments.begin(s) + keep.indices(s, i), 0), rows.size(1), &out(out_begin(segments, out_offsets, s) + i, 0));
    }
  }
  return status::ok;
}

}  // namespace reference
MUSTDROP_NAMESPACE_END
