// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mustdrop/merge_rows.hpp>
#include <mustdrop/reference/gather.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace reference {

template <class T, class Index, class Out>
status merge_rows_impl(backend, tensor_view<T const, 2> rows, tensor_view<float const, 1> sizes, tensor_view<Index const, 1> source,
                       segments const& segments, tensor_view<Out, 2> out, tensor_view<float, 1> out_sizes,
                       tensor_view<std::int32_t const, 1> out_offsets) noexcept {
  for (index_t s = 0; s < segments.count; ++s) {
    index_t const begin = segments.begin(s), end = begin + segments.size(s, rows.size(0)), to = out_begin(segments, out_offsets, s);
    auto const size = [&](index_t i) { return sizes.absent() ? 1.0f : sizes(i); };
    for (index_t r = 0; r < end - begin; ++r) {
      float total = 0;
      index_t first = end;  // of the tokens that go to row r
      for (index_t i = end; i-- > begin;) {
        if (source(i) == r) { first = i; }
      }
      if (first == end) { continue; }
      for (index_t i = first; i < end; ++i) {
        if (source(i) == r) { total += size(i); }
      }
      for (index_t d = 0; d < rows.size(1); ++d) {
        float sum = 0;
        for (index_t i = first; i < end; ++i) {
          if (source(i) == r) { sum = mustdrop::fma(widen(rows(i, d)), size(i), sum); }
        }
        out(to + r, d) = narrow<Out>(total == 0 ? 0.0f : divide(sum, total));
      }
      if (!out_sizes.absent()) { out_sizes(to + r) = total; }
    }
  }
  return status::ok;
}

}  // namespace reference
MUSTDROP_NAMESPACE_END
