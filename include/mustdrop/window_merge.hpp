// SPDX-License-Identifier: Apache-2.0
#pragma once

// window_merge: windows of similar patches collapse into one token each.
//
//   merged = { w : similarity[w] ≥ threshold },  or exactly the r windows of highest similarity
//   row of a merged window = (Σ of its tokens, in raster order) / n, size n;  any other token is copied, size 1
//
// Shapes      features      [tokens, dim]          float, half or bfloat16; dense in dim
//             grids         [segments]             as window_similarity
//             similarity    [segments, windows]    from window_similarity; {} with an exact count: all windows tie
//             requested     [segments] or {}       r, the windows to merge in each segment; {}: options.count, or if that is -1 the threshold
//             rows          [tokens, dim]          out: float, half or bfloat16; segment s begins where it began in features
//             sizes         [tokens]               out: how many tokens each row stands for
//             source        [tokens]               out: for each input token its row, counted from the segment's begin
//             keep.indices  [segments, capacity]   out: for each row the token at its place (a merged row: its window's anchor, the middle
//                                                  member); capacity ≥ segments.bound(tokens); what gather and positions take
//             keep.counts   [segments]             out: rows of the segment = its tokens − r·(n − 1)
//             Rows, sizes and entries past the count, and what belongs to no segment, are not written.
// Order       rows and keep ascend by place. output_order::score gives the released order instead: prefix, merged rows by similarity
//             (ties: smaller window), unmerged tokens, suffix.
// Ties, NaN   the smaller window wins a tie; a NaN window never merges by threshold and ranks last in exact mode.
// Edges       tokens of the prefix, the suffix and of no window are never merged; r beyond the number of windows merges all.
// Errors      bad_shape            sizes disagree or are negative; keep.capacity() < segments.bound(tokens); {} similarity with a threshold
//             bad_stride           a view is not dense along its last axis
//             bad_argument         a window of one token or with a size below 1; count < -1; threshold is NaN
//             workspace_too_small  fewer than window_merge_workspace_size(...) bytes, or not aligned to 64
// Precondition  check(grids, window, segments, tokens, similarity.size(1)) is ok; requested is not negative; outputs overlap no input.
// Cost        reads features once and writes what stays: a copy.
// Source      MustDrop §3.1 (3×3 windows, threshold 0.8). Released code merges min over the batch of r: reduce the counts, then ask for it.
// See         docs/window_merge.md; reference/window_merge.hpp is the definition as plain loops.

#include <mustdrop/backend.hpp>
#include <mustdrop/numerics.hpp>
#include <mustdrop/status.hpp>
#include <mustdrop/view.hpp>
#include <mustdrop/window_similarity.hpp>

MUSTDROP_NAMESPACE_BEGIN

struct merge_options {
  float threshold = 0.8f;
  index_t count = -1;  // exactly this many windows of each segment; -1: by threshold
  output_order order = output_order::position;
};

/// How many tokens stay: exactly, if a count is set; at the most, if the threshold decides. Needs no data.
MUSTDROP_HD constexpr index_t retained_count(merge_options options, window_shape window, token_grid const& grid) noexcept {
  index_t const windows = window.windows(grid), merged = options.count < 0 ? 0 : options.count < windows ? options.count : windows;
  return grid.tokens() - merged * (window.tokens() - 1);
}

template <class Backend, require_backend<Backend> = 0>
constexpr std::size_t window_merge_workspace_size(Backend const& backend, window_shape window, index_t tokens, index_t dim, index_t windows,
                                                  segments const& segments) noexcept {
  return window_merge_workspace_size_impl(backend, window, tokens, dim, windows, segments);
}

/// What window_merge refuses, without doing anything.
template <class Backend, class T, class Row, class Index, require_backend<Backend> = 0>
status check_window_merge(Backend const& backend, merge_options options, window_shape window, tensor_view<T, 2> features,
                          segments const& segments, tensor_view<token_grid const, 1> grids, tensor_view<float const, 2> similarity,
                          tensor_view<std::int32_t const, 1> requested, tensor_view<Row, 2> rows, tensor_view<float, 1> sizes,
                          tensor_view<Index, 1> source, keep_lists<Index> keep, workspace scratch) noexcept {
  index_t const tokens = features.size(0), dim = features.size(1);
  if (status const s = keep.shape(segments); s != status::ok) { return s; }
  if (!well_formed(features) || !well_formed(grids) || !well_formed(similarity) || !well_formed(requested)) { return status::bad_shape; }
  if (!well_formed(rows) || !well_formed(sizes) || !well_formed(source)) { return status::bad_shape; }
  if (grids.size(0) != segments.count || rows.size(0) != tokens || rows.size(1) != dim) { return status::bad_shape; }
  if (sizes.size(0) != tokens || source.size(0) != tokens || keep.capacity() < segments.bound(tokens)) { return status::bad_shape; }
  if (!requested.absent() && requested.size(0) != segments.count) { return status::bad_shape; }
  bool const exact = options.count >= 0 || !requested.absent();
  if (similarity.size(0) != segments.count && !(similarity.absent() && exact)) { return status::bad_shape; }
  if (!unit_stride(features) || !unit_stride(grids) || !unit_stride(similarity) || !unit_stride(requested)) { return status::bad_stride; }
  if (!unit_stride(rows) || !unit_stride(sizes) || !unit_stride(source)) { return status::bad_stride; }
  if (!window.valid() || options.count < -1 || is_nan(options.threshold)) { return status::bad_argument; }
  std::size_t const needed = window_merge_workspace_size(backend, window, tokens, dim, similarity.size(1), segments);
  return scratch.holds(needed) ? status::ok : status::workspace_too_small;
}

template <class Backend, class T, class Row, class Index, require_backend<Backend> = 0>
status window_merge(Backend const& backend, merge_options options, window_shape window, tensor_view<T, 2> features,
                    segments const& segments, tensor_view<token_grid const, 1> grids, tensor_view<float const, 2> similarity,
                    tensor_view<std::int32_t const, 1> requested, tensor_view<Row, 2> rows, tensor_view<float, 1> sizes,
                    tensor_view<Index, 1> source, keep_lists<Index> keep, workspace scratch) noexcept {
  using real = std::remove_const_t<T>;
  static_assert(is_real_v<real> && is_real_v<Row>, "features and rows are float, half or bfloat16");
  static_assert(is_index_v<Index>, "source and keep lists hold int32 or int64");
  status const s =
      check_window_merge(backend, options, window, features, segments, grids, similarity, requested, rows, sizes, source, keep, scratch);
  if (s != status::ok) { return s; }
  return window_merge_impl(backend, options, window, tensor_view<real const, 2>(features), segments, grids, similarity, requested, rows,
                           sizes, source, keep, scratch);
}

MUSTDROP_NAMESPACE_END
