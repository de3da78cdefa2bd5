// SPDX-License-Identifier: Apache-2.0
#pragma once

// top_k: in each segment, keep the tokens with the highest scores.
//
//   keep = { t : fewer than k tokens of the segment beat t },   u beats t iff score[u] > score[t], or they tie and u < t
//
// Shapes      scores        [tokens]               float; higher is kept; any unit
//             requested     [segments] or {}       k of each segment; {}: k is the capacity of the list
//             keep.indices  [segments, capacity]   int32 or int64; increasing, or best first with output_order::score
//             keep.counts   [segments]             min(k, capacity, tokens of the segment)
// Ties, NaN   the smaller index wins; -0 ties with +0; NaN ranks below -infinity (kept only when there is nothing else).
// Errors      bad_shape            sizes disagree or are negative; no offsets for several segments
//             bad_stride           scores, requested, keep.indices or keep.counts is not dense along its last axis
//             workspace_too_small  fewer than top_k_workspace_size(...) bytes, or not aligned to 64
// Precondition  check(segments, tokens) is ok; requested is not negative; outputs overlap no input.
// Cost        reads scores once; O(tokens), independent of k; a segment's result never depends on another segment.
// Source      MustDrop §3.2 (key set), FastV §4, VisionZip §3.1: all "top-k of a score", none says which on a tie.
// See         docs/top_k.md; reference/top_k.hpp is the definition as plain loops.

#include <mustdrop/backend.hpp>
#include <mustdrop/status.hpp>
#include <mustdrop/view.hpp>

MUSTDROP_NAMESPACE_BEGIN

struct top_k_options {
  output_order order = output_order::position;
};

/// How many of `tokens` tokens stay when `count` are asked for. Needs no data.
MUSTDROP_HD constexpr index_t retained_count(top_k_options, index_t tokens, index_t count) noexcept {
  return count < 0 ? 0 : count < tokens ? count : tokens;
}

template <class Backend, require_backend<Backend> = 0>
constexpr std::size_t top_k_workspace_size(Backend const& backend, index_t tokens, segments const& segments) noexcept {
  return top_k_workspace_size_impl(backend, tokens, segments);
}

/// What top_k refuses, without doing anything.
template <class Backend, class Index, require_backend<Backend> = 0>
status check_top_k(Backend const& backend, tensor_view<float const, 1> scores, segments const& segments,
                   tensor_view<std::int32_t const, 1> requested, keep_lists<Index> keep, workspace scratch) noexcept {
  if (status const s = keep.shape(segments); s != status::ok) { return s; }
  if (!well_formed(scores) || !well_formed(requested)) { return status::bad_shape; }
  if (!requested.absent() && requested.size(0) != segments.count) { return status::bad_shape; }
  if (!unit_stride(scores) || !unit_stride(requested)) { return status::bad_stride; }
  return scratch.holds(top_k_workspace_size(backend, scores.size(0), segments)) ? status::ok : status::workspace_too_small;
}

template <class Backend, class Index, require_backend<Backend> = 0>
status top_k(Backend const& backend, top_k_options options, tensor_view<float const, 1> scores, segments const& segments,
             tensor_view<std::int32_t const, 1> requested, keep_lists<Index> keep, workspace scratch) noexcept {
  static_assert(is_index_v<Index>, "keep lists hold int32 or int64");
  if (status const s = check_top_k(backend, scores, segments, requested, keep, scratch); s != status::ok) { return s; }
  return top_k_impl(backend, options, scores, segments, requested, keep, scratch);  // found in the backend's namespace
}

MUSTDROP_NAMESPACE_END
