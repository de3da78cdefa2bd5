// SPDX-License-Identifier: Apache-2.0
#pragma once

// cls_topk: the key set, the patches that the CLS token attends to most.
//
//   score[t] = (Σ_h attention[h, t]) / heads        keep = the k patches with the highest score, as top_k picks them
//
// Shapes      attention     [heads, tokens]        float, half or bfloat16: CLS's row of each head's softmax; dense in tokens
//             requested     [segments] or {}       k of each segment; {}: ceil(percent·patches / 100), or the capacity if percent is 0
//             keep.indices  [segments, capacity]   int32 or int64 patch indices: the prefix is not counted
//             keep.counts   [segments]             min(k, capacity, patches of the segment)
//             A segment is prefix + patches + suffix tokens; a map without CLS's own column has prefix 0. A batch stored
//             [batch, heads, tokens] is segments with offsets b·heads·tokens and counts tokens on a view whose head stride is tokens.
// Ties, NaN   as top_k: the smaller index wins, NaN ranks below every number. A NaN in one head makes its token NaN.
// Errors      bad_shape            sizes disagree or are negative; no head; capacity below what percent asks for the longest segment
//             bad_stride           attention, requested, keep.indices or keep.counts is not dense along its last axis
//             bad_argument         percent outside [0, 100]; prefix or suffix negative
//             workspace_too_small  fewer than cls_topk_workspace_size(...) bytes, or not aligned to 64
// Precondition  check(segments, tokens) is ok; requested is not negative; outputs overlap no input.
// Cost        reads attention once; O(heads·tokens).
// Source      MustDrop §3.2 (8 % of what the merge left, last vision layer), FasterVLM, VisionZip (dominant tokens).
// See         docs/cls_topk.md; reference/cls_topk.hpp is the definition as plain loops. Encoders without CLS: attention_scores
//             over all rows, then top_k.

#include <mustdrop/backend.hpp>
#include <mustdrop/budget.hpp>
#include <mustdrop/numerics.hpp>
#include <mustdrop/status.hpp>
#include <mustdrop/view.hpp>

MUSTDROP_NAMESPACE_BEGIN

struct cls_topk_options {
  index_t percent = 8;  // of the patches of the segment, rounded up
  index_t prefix = 1, suffix = 0;
  output_order order = output_order::position;
};

/// How many patches of a segment of `tokens` tokens stay when nothing is requested and the list is long enough. Needs no data.
MUSTDROP_HD constexpr index_t retained_count(cls_topk_options options, index_t tokens) noexcept {
  index_t const patches = tokens - options.prefix - options.suffix;
  return patches <= 0 ? 0 : options.percent == 0 ? patches : key_set_size(patches, options.percent);
}

template <class Backend, require_backend<Backend> = 0>
constexpr std::size_t cls_topk_workspace_size(Backend const& backend, index_t heads, index_t tokens, segments const& segments) noexcept {
  return cls_topk_workspace_size_impl(backend, heads, tokens, segments);
}

template <class Backend, class T, class Index, require_backend<Backend> = 0>
status cls_topk(Backend const& backend, cls_topk_options options, tensor_view<T, 2> attention, segments const& segments,
                tensor_view<std::int32_t const, 1> requested, keep_lists<Index> keep, workspace scratch) noexcept {
  using real = std::remove_const_t<T>;
  static_assert(is_real_v<real>, "attention is float, half or bfloat16");
  static_assert(is_index_v<Index>, "keep lists hold int32 or int64");
  index_t const heads = attention.size(0), tokens = attention.size(1);
  if (status const s = keep.shape(segments); s != status::ok) { return s; }
  if (!well_formed(attention) || !well_formed(requested) || heads < 1) { return status::bad_shape; }
  if (!requested.absent() && requested.size(0) != segments.count) { return status::bad_shape; }
  if (!unit_stride(attention) || !unit_stride(requested)) { return status::bad_stride; }
  if (options.percent < 0 || options.percent > 100 || options.prefix < 0 || options.suffix < 0) { return status::bad_argument; }
  bool const by_percent = requested.absent() && options.percent > 0;
  if (by_percent && keep.capacity() < retained_count(options, segments.bound(tokens))) { return status::bad_shape; }
  if (!scratch.holds(cls_topk_workspace_size(backend, heads, tokens, segments))) { return status::workspace_too_small; }
  return cls_topk_impl(backend, options, tensor_view<real const, 2>(attention), segments, requested, keep, scratch);
}

MUSTDROP_NAMESPACE_END
