// SPDX-License-Identifier: Apache-2.0
#pragma once

// Contract: mustdrop/spread_rows.hpp.

#include <mustdrop/cuda/rows.cuh>
#include <mustdrop/spread_rows.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace cuda {

/// The merged row of each token.
template <class Index>
struct spread_job {
  segments cut;
  tensor_view<Index const, 1> source;
  tensor_view<std::int32_t const, 1> merged_offsets;

  __device__ index_t count(index_t s) const { return cut.size(s, source.size(0)); }
  __device__ index_t from(index_t s, index_t i) const { return out_begin(cut, merged_offsets, s) + source.data[cut.begin(s) + i]; }
  __device__ index_t to(index_t s, index_t i) const { return cut.begin(s) + i; }
};

template <class Tag, class T, class Index>
status spread_rows_impl(backend<Tag> const& on, tensor_view<T const, 2> merged, tensor_view<Index const, 1> source,
                        segments const& segments, tensor_view<std::int32_t const, 1> merged_offsets, tensor_view<T, 2> out) noexcept {
  constexpr auto bytes = static_cast<index_t>(sizeof(T));
  row_layout const layout{merged.data, out.data, merged.strides[0] * bytes, 0, out.strides[0] * bytes, 0, 1, merged.size(1) * bytes};
  return copy_rows(on, spread_job<Index>{segments, source, merged_offsets}, segments.count, segments.bound(source.size(0)), layout);
}

}  // namespace cuda
MUSTDROP_NAMESPACE_END
