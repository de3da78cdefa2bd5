// SPDX-License-Identifier: Apache-2.0
#pragma once

// Contract: mustdrop/spread_rows.hpp.

#include <mustdrop/cpu/rows.hpp>
#include <mustdrop/spread_rows.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace cpu {

template <class Arch, class Executor, class T, class Index>
status spread_rows_impl(backend<Arch, Executor> const& on, tensor_view<T const, 2> merged, tensor_view<Index const, 1> source,
                        segments const& segments, tensor_view<std::int32_t const, 1> merged_offsets, tensor_view<T, 2> out) noexcept {
  index_t const tokens = source.size(0), dim = merged.size(1);
  if (dim == 0) { return status::ok; }
  index_t const part = many_a_part(on, dim * static_cast<index_t>(sizeof(T)));
  for_each_part(on, segments.count, segments.bound(tokens), part, [&](index_t s, index_t first, index_t last) {
    index_t const begin = segments.begin(s), from = out_begin<Arch>(segments, merged_offsets, s), size = segments.size(s, tokens);
    index_t const end = begin + (last < size ? last : size);
    for (index_t i = begin + first; i < end;) {
      index_t const run = run_length<Arch>(end - i, [&](index_t j) { return index_t{source(i + j)}; });
      copy_rows<Arch>(merged.data + (from + source(i)) * merged.strides[0], merged.strides[0], out.data + i * out.strides[0],
                      out.strides[0], run, dim);
      i += run;
    }
  });
  return status::ok;
}

}  // namespace cpu
MUSTDROP_NAMESPACE_END
