// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mustdrop/numerics.hpp>
#include <mustdrop/reference/backend.hpp>
#include <mustdrop/top_k.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace reference {

/// How many of the n tokens beat token t. No two tokens tie, so this is also t's place in the order.
template <class KeyOf>
index_t beaten_by(index_t n, index_t t, KeyOf const& key_of) noexcept {
  index_t better = 0;
  for (index_t u = 0; u < n; ++u) { better += key_of(u) > key_of(t); }
  return better;
}

/// The k best of n scores, written to list s of keep.
template <class Index>
void keep_best(float const* scores, index_t n, index_t k, output_order order, keep_lists<Index> keep, index_t s) noexcept {
  index_t kept = 0;
  for (index_t t = 0; t < n; ++t) {
    index_t const place = beaten_by(n, t, [scores](index_t u) { return score_key(scores[u], u); });
    if (place < k) { keep.indices(s, order == output_order::score ? place : kept) = static_cast<Index>(t), ++kept; }
  }
  keep.counts(s) = static_cast<std::int32_t>(kept);
}

constexpr std::size_t top_k_workspace_size_impl(backend, index_t, segments const&) noexcept { return 0; }

template <class Index>
status top_k_impl(backend, top_k_options options, tensor_view<float const, 1> scores, segments const& segments,
                  tensor_view<std::int32_t const, 1> requested, keep_lists<Index> keep, workspace) noexcept {
  for (index_t s = 0; s < segments.count; ++s) {
    index_t const asked = requested.absent() || requested(s) > keep.capacity() ? keep.capacity() : requested(s);
    keep_best(scores.data + segments.begin(s), segments.size(s, scores.size(0)), asked, options.order, keep, s);
  }
  return status::ok;
}

}  // namespace reference
MUSTDROP_NAMESPACE_END
