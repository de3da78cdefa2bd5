// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mustdrop/cls_topk.hpp>
#include <mustdrop/reference/top_k.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace reference {

/// The score of each token.
constexpr std::size_t cls_topk_workspace_size_impl(backend, index_t, index_t tokens, segments const&) noexcept {
  return static_cast<std::size_t>(tokens) * sizeof(float);
}

template <class T, class Index>
status cls_topk_impl(backend, cls_topk_options options, tensor_view<T const, 2> attention, segments const& segments,
                     tensor_view<std::int32_t const, 1> requested, keep_lists<Index> keep, workspace scratch) noexcept {
  auto* const score = static_cast<float*>(scratch.data);
  index_t const heads = attention.size(0);
  for (index_t s = 0; s < segments.count; ++s) {
    index_t const size = segments.size(s, attention.size(1)), first = segments.begin(s) + options.prefix;
    index_t const left = size - options.prefix - options.suffix, patches = left > 0 ? left : 0;
    for (index_t t = first; t < first + patches; ++t) {
      float sum = 0;
      for (index_t h = 0; h < heads; ++h) { sum += widen(attention(h, t)); }
      score[t] = divide(sum, static_cast<float>(heads));
    }
    index_t const wanted = requested.absent() ? retained_count(options, size) : requested(s);
    keep_best(score + first, patches, wanted < keep.capacity() ? wanted : keep.capacity(), options.order, keep, s);
  }
  return status::ok;
}

}  // namespace reference
MUSTDROP_NAMESPACE_END
