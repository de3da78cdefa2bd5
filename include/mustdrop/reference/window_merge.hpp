// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mustdrop/reference/top_k.hpp>
#include <mustdrop/window_merge.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace reference {

constexpr std::size_t window_merge_workspace_size_impl(backend, window_shape, index_t, index_t, index_t, segments const&) noexcept {
  return 0;
}

/// The windows of one segment in the order in which they merge: place 0 first.
struct merge_ranking {
  tensor_view<float const, 2> similarity;
  index_t s, windows;

  std::uint64_t key(index_t w) const noexcept { return score_key(similarity.absent() ? 0.0f : similarity(s, w), w); }
  index_t place(index_t w) const noexcept {
    return beaten_by(windows, w, [this](index_t other) { return key(other); });
  }
  /// r of this segment, by the order of authority: requested, options.count, threshold.
  index_t merged(merge_options options, tensor_view<std::int32_t const, 1> requested) const noexcept {
    index_t const asked = requested.absent() ? options.count : requested(s);
    if (asked >= 0) { return asked < windows ? asked : windows; }
    index_t similar = 0;
    for (index_t w = 0; w < windows; ++w) { similar += similarity(s, w) >= options.threshold; }
    return similar;
  }
};

/// Where each token of a segment goes: kept tokens (unmerged, and the anchors of merged windows) get rows; returns how many.
template <class Index>
index_t assign_rows(output_order order, window_shape window, token_grid const& grid, merge_ranking const& ranking, index_t r, Index* source,
                    Index* keep) noexcept {
  index_t const n = window.tokens();
  bool const by_place = order == output_order::position;
  index_t unmerged = 0, rows = 0;  // by score: tokens before this one that stay alone; by place: rows so far
  for (index_t t = 0; t < grid.tokens(); ++t) {
    index_t const w = window_of(grid, window, t), place = w < 0 ? r : ranking.place(w);
    if (place < r && t != window_member(grid, window, w, window_anchor(window))) { continue; }
    // By score, merged windows stand between the prefix and the tokens that stay alone.
    index_t const alone = unmerged < grid.prefix ? unmerged : unmerged + r;
    index_t const row = by_place ? rows : place < r ? grid.prefix + place : alone;
    unmerged += place >= r, ++rows;
    source[t] = static_cast<Index>(row), keep[row] = static_cast<Index>(t);
  }
  for (index_t w = 0; w < ranking.windows; ++w) {
    if (ranking.place(w) >= r) { continue; }
    Index const row = source[window_member(grid, window, w, window_anchor(window))];
    for (index_t m = 0; m < n; ++m) { source[window_member(grid, window, w, m)] = row; }
  }
  return rows;
}

template <class T, class Row, class Index>
status window_merge_impl(backend, merge_options options, window_shape window, tensor_view<T const, 2> features, segments const& segments,
                         tensor_view<token_grid const, 1> grids, tensor_view<float const, 2> similarity,
                         tensor_view<std::int32_t const, 1> requested, tensor_view<Row, 2> rows, tensor_view<float, 1> sizes,
                         tensor_view<Index, 1> source, keep_lists<Index> keep, workspace) noexcept {
  index_t const n = window.tokens(), dim = features.size(1);
  for (index_t s = 0; s < segments.count; ++s) {
    token_grid const& grid = grids(s);
    index_t const begin = segments.begin(s);
    if (grid.tokens() == 0) {
      keep.counts(s) = 0;
      continue;
    }
    merge_ranking const ranking{similarity, s, window.windows(grid)};
    index_t const r = ranking.merged(options, requested);
    index_t const kept = assign_rows(options.order, window, grid, ranking, r, &source(begin), &keep.indices(s, 0));
    keep.counts(s) = static_cast<std::int32_t>(kept);

    for (index_t row = 0; row < kept; ++row) {
      index_t const w = window_of(grid, window, keep.indices(s, row));
      bool const merged = w >= 0 && ranking.place(w) < r;
      sizes(begin + row) = merged ? static_cast<float>(n) : 1.0f;
      for (index_t d = 0; d < dim; ++d) {
        float sum = merged ? 0.0f : widen(features(begin + keep.indices(s, row), d));
        for (index_t m = 0; merged && m < n; ++m) { sum += widen(features(begin + window_member(grid, window, w, m), d)); }
        rows(begin + row, d) = narrow<Row>(merged ? divide(sum, static_cast<float>(n)) : sum);
      }
    }
  }
  return status::ok;
}

}  // namespace reference
MUSTDROP_NAMESPACE_END
