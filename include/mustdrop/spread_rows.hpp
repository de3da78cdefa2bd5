// SPDX-License-Identifier: Apache-2.0
#pragma once

// spread_rows: the inverse of a merge: every token gets the row that it went into.
//
//   out[begin(s) + i] = merged[merged_begin(s) + source[begin(s) + i]]
//
// Shapes      merged          [rows, dim]           any trivially copyable element; segment s begins where its tokens begin, or at
//                                                   merged_offsets[s]
//             source          [tokens]              int32 or int64: from window_merge, or what merge_rows was given
//             merged_offsets  [segments + 1] or {}  where packed rows begin
//             out             [tokens, dim]
//             segments cuts the tokens, before the merge.
// Errors      bad_shape   sizes disagree or are negative
//             bad_stride  a view is not dense along its last axis
// Precondition  check(segments, tokens) is ok; every source lies within merged; out overlaps no input.
// Cost        a copy.
// Source      ToMe's unmerge; what a segmentation head behind a merged encoder needs.
// See         docs/spread_rows.md; merge_rows is the inverse; reference/spread_rows.hpp is the definition as plain loops.

#include <mustdrop/backend.hpp>
#include <mustdrop/status.hpp>
#include <mustdrop/view.hpp>

MUSTDROP_NAMESPACE_BEGIN

template <class Backend, class T, class Index, require_backend<Backend> = 0>
status spread_rows(Backend const& backend, tensor_view<T, 2> merged, tensor_view<Index, 1> source, segments const& segments,
                   tensor_view<std::int32_t const, 1> merged_offsets, tensor_view<std::remove_const_t<T>, 2> out) noexcept {
  static_assert(std::is_trivially_copyable_v<T>, "rows are copied");
  static_assert(is_index_v<std::remove_const_t<Index>>, "source holds int32 or int64");
  if (!segments.valid() || !well_formed(merged) || !well_formed(source) || !well_formed(merged_offsets) || !well_formed(out)) {
    return status::bad_shape;
  }
  if (out.size(0) != source.size(0) || out.size(1) != merged.size(1)) { return status::bad_shape; }
  if (!merged_offsets.absent() && merged_offsets.size(0) != segments.count + 1) { return status::bad_shape; }
  if (!unit_stride(merged) || !unit_stride(source) || !unit_stride(merged_offsets) || !unit_stride(out)) { return status::bad_stride; }
  return spread_rows_impl(backend, tensor_view<std::remove_const_t<T> const, 2>(merged),
                          tensor_view<std::remove_const_t<Index> const, 1>(source), segments, merged_offsets, out);
}

MUSTDROP_NAMESPACE_END
