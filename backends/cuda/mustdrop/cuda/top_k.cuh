// SPDX-License-Identifier: Apache-2.0
#pragma once

// Contract: mustdrop/top_k.hpp.

#include <mustdrop/cuda/selection.cuh>
#include <mustdrop/top_k.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace cuda {

template <class Tag>
constexpr std::size_t top_k_workspace_size_impl(backend<Tag> const&, index_t tokens, segments const& segments) noexcept {
  return selection_memory::bytes(tokens, segments.count);
}

struct top_k_job {
  segments cut;
  tensor_view<float const, 1> scores;
  tensor_view<std::int32_t const, 1> requested;
  index_t capacity;

  __device__ index_t items(index_t s) const { return cut.size(s, scores.size(0)); }
  __device__ index_t slot(index_t s) const { return cut.begin(s); }
  __device__ std::uint32_t least() const { return lowest_key; }
  __device__ std::uint32_t key(index_t s, index_t t) const { return score_order(scores.data[cut.begin(s) + t]); }
  __device__ index_t wanted(index_t s, index_t, index_t) const {
    return requested.absent() || requested(s) > capacity ? capacity : requested(s);
  }
};

template <class Tag, class Index>
status top_k_impl(backend<Tag> const& on, top_k_options options, tensor_view<float const, 1> scores, segments const& segments,
                  tensor_view<std::int32_t const, 1> requested, keep_lists<Index> keep, workspace scratch) noexcept {
  index_t const tokens = scores.size(0);
  selection_memory const memory(scratch.data, tokens, segments.count);
  top_k_job const job{segments, scores, requested, keep.capacity()};
  return keep_best(on, job, segments.bound(tokens), options.order, memory, keep);
}

}  // namespace cuda
MUSTDROP_NAMESPACE_END
