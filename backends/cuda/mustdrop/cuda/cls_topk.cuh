// SPDX-License-Identifier: Apache-2.0
#pragma once

// Contract: mustdrop/cls_topk.hpp. A mean becomes its key at once and is never stored.

#include <mustdrop/cls_topk.hpp>
#include <mustdrop/cuda/elements.cuh>
#include <mustdrop/cuda/selection.cuh>

MUSTDROP_NAMESPACE_BEGIN
namespace cuda {

template <class Tag>
constexpr std::size_t cls_topk_workspace_size_impl(backend<Tag> const&, index_t, index_t tokens, segments const& segments) noexcept {
  return selection_memory::bytes(tokens, segments.count);
}

template <class T>
struct cls_topk_job {
  segments cut;
  tensor_view<T const, 2> attention;
  tensor_view<std::int32_t const, 1> requested;
  cls_topk_options options;
  index_t capacity;

  __device__ index_t items(index_t s) const {
    index_t const left = cut.size(s, attention.size(1)) - options.prefix - options.suffix;
    return left > 0 ? left : 0;
  }
  __device__ index_t slot(index_t s) const { return cut.begin(s); }
  __device__ std::uint32_t least() const { return lowest_key; }
  __device__ std::uint32_t key(index_t s, index_t patch) const {
    T const* const column = attention.data + cut.begin(s) + options.prefix + patch;
    float sum = 0;
    for (index_t h = 0; h < attention.size(0); ++h) { sum += to_float(column[h * attention.strides[0]]); }
    return score_order(divide(sum, static_cast<float>(attention.size(0))));
  }
  __device__ index_t wanted(index_t s, index_t, index_t) const {
    index_t const asked = requested.absent() ? retained_count(options, cut.size(s, attention.size(1))) : requested(s);
    return lesser(asked, capacity);
  }
};

template <class Tag, class T, class Index>
status cls_topk_impl(backend<Tag> const& on, cls_topk_options options, tensor_view<T const, 2> attention, segments const& segments,
                     tensor_view<std::int32_t const, 1> requested, keep_lists<Index> keep, workspace scratch) noexcept {
  index_t const tokens = attention.size(1);
  selection_memory const memory(scratch.data, tokens, segments.count);
  cls_topk_job<T> const job{segments, attention, requested, options, keep.capacity()};
  return keep_best(on, job, segments.bound(tokens), options.order, memory, keep);
}

}  // namespace cuda
MUSTDROP_NAMESPACE_END
