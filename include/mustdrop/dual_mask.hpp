// SPDX-License-Identifier: Apache-2.0
#pragma once

// dual_mask: drop the visual tokens that the text attends to neither together nor in any single row.
//
//   drop j iff  sum[j] < global·Σ sum  and  max[j] < individual  and  j is not in always_kept
//   exactly n survivors instead: always_kept, then the highest of  max(sum[j] / (global·Σ sum), max[j] / individual)
//
// Shapes      sum, max      [tokens]               float: attention_scores of the text rows after the image, over its tokens
//             always_kept   [segments, any] lists  the key set, in this stage's indices (plan.hpp: rebase); {}: nothing is protected
//             requested     [segments] or {}       n of each segment; {}: options.count, or if that is -1 the thresholds
//             keep.indices  [segments, capacity]   int32 or int64, increasing; capacity ≥ segments.bound(tokens)
//             keep.counts   [segments]             survivors; in exact mode min(tokens, max(n, |always_kept|)): n counts the protected ones
// Ties, NaN   both comparisons are strict: a token on a threshold stays. Exact mode: the smaller index wins a tie. NaN counts as 0 in
//             Σ sum and in both comparisons; where tokens are ranked a NaN term is -infinity, and the other term still counts.
// Edges       Σ sum = 0: nothing is below it, so the thresholds drop nothing. Σ sum ≤ 0: exact mode ranks by max alone (its first term is 0).
//             At the count that the thresholds give, exact mode keeps the same set. Threshold 0 keeps all; at threshold 1 a token that is not
//             protected stays only with all of Σ sum, or with a weight of 1 in some row.
// Errors      bad_shape            sizes disagree or are negative; keep.capacity() < segments.bound(tokens)
//             bad_stride           a view is not dense along its last axis
//             bad_argument         count < -1; a threshold is NaN; exact mode (count or requested) with a threshold that is not above 0
//             workspace_too_small  fewer than dual_mask_workspace_size(...) bytes, or not aligned to 64
// Precondition  check(segments, tokens) and check(always_kept, segments, tokens) are ok; requested is not negative; outputs overlap no input.
//             sum and max are not negative, as attention is not: with negative values the result is what the formulas say, and the
//             edges above do not hold.
// Cost        reads sum and max once or twice; O(tokens).
// Source      MustDrop §3.2, after LLM layers 2, 6, 10 and 14. Published thresholds: method/mustdrop.hpp.
// See         docs/dual_mask.md; reference/dual_mask.hpp is the definition as plain loops.

#include <mustdrop/backend.hpp>
#include <mustdrop/numerics.hpp>
#include <mustdrop/status.hpp>
#include <mustdrop/view.hpp>

MUSTDROP_NAMESPACE_BEGIN

struct dual_mask_options {
  float global = 0.001f;      // share of all the attention that the segment gets, over all text rows
  float individual = 0.001f;  // attention from one text row
  index_t count = -1;         // exactly this many survivors of each segment; -1: by the thresholds
};

/// How many of `tokens` tokens stay, `always_kept` of them protected: exactly, if a count is set; at the most, if the thresholds decide.
/// Needs no data.
MUSTDROP_HD constexpr index_t retained_count(dual_mask_options options, index_t tokens, index_t always_kept) noexcept {
  index_t const wanted = options.count > always_kept ? options.count : always_kept;
  return options.count < 0 || wanted > tokens ? tokens : wanted;
}

template <class Backend, require_backend<Backend> = 0>
constexpr std::size_t dual_mask_workspace_size(Backend const& backend, index_t tokens, segments const& segments) noexcept {
  return dual_mask_workspace_size_impl(backend, tokens, segments);
}

/// What dual_mask refuses, without doing anything.
template <class Backend, class Index, require_backend<Backend> = 0>
status check_dual_mask(Backend const& backend, dual_mask_options options, tensor_view<float const, 1> sum, tensor_view<float const, 1> max,
                       segments const& segments, keep_lists<std::add_const_t<Index>> always_kept,
                       tensor_view<std::int32_t const, 1> requested, keep_lists<Index> keep, workspace scratch) noexcept {
  index_t const tokens = sum.size(0);
  if (status const s = keep.shape(segments); s != status::ok) { return s; }
  if (!always_kept.absent()) {
    if (status const s = always_kept.shape(segments); s != status::ok) { return s; }
  }
  if (!well_formed(sum) || !well_formed(max) || !well_formed(requested) || max.size(0) != tokens) { return status::bad_shape; }
  if (!requested.absent() && requested.size(0) != segments.count) { return status::bad_shape; }
  if (keep.capacity() < segments.bound(tokens)) { return status::bad_shape; }
  if (!unit_stride(sum) || !unit_stride(max) || !unit_stride(requested)) { return status::bad_stride; }
  bool const exact = options.count >= 0 || !requested.absent();
  if (options.count < -1 || is_nan(options.global) || is_nan(options.individual)) { return status::bad_argument; }
  if (exact && !(options.global > 0 && options.individual > 0)) { return status::bad_argument; }
  return scratch.holds(dual_mask_workspace_size(backend, tokens, segments)) ? status::ok : status::workspace_too_small;
}

template <class Backend, class Index, require_backend<Backend> = 0>
status dual_mask(Backend const& backend, dual_mask_options options, tensor_view<float const, 1> sum, tensor_view<float const, 1> max,
                 segments const& segments, keep_lists<std::add_const_t<Index>> always_kept, tensor_view<std::int32_t const, 1> requested,
                 keep_lists<Index> keep, workspace scratch) noexcept {
  static_assert(is_index_v<Index>, "keep lists hold int32 or int64");
  status const s = check_dual_mask(backend, options, sum, max, segments, always_kept, requested, keep, scratch);
  if (s != status::ok) { return s; }
  return dual_mask_impl(backend, options, sum, max, segments, always_kept, requested, keep, scratch);
}

MUSTDROP_NAMESPACE_END
