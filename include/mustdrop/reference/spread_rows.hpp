// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mustdrop/reference/gather.hpp>
#include <mustdrop/spread_rows.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace reference {

template <class T, class Index>
status spread_rows_impl(backend, tensor_view<T const, 2> merged, tensor_view<Index const, 1> source, segments const& segments,
                        tensor_view<std::int32_t const, 1> merged_offsets, tensor_view<T, 2> out) noexcept {
  for (index_t s = 0; s < segments.count; ++s) {
    index_t const begin = segments.begin(s), from = out_begin(segments, merged_offsets, s);
    for (index_t i = begin; i < begin + segments.size(s, source.size(0)); ++i) {
      for (index_t d = 0; d < merged.size(1); ++d) { out(i, d) = merged(from + source(i), d); }
    }
  }
  return status::ok;
}

}  // namespace reference
MUSTDROP_NAMESPACE_END
