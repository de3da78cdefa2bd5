// SPDX-License-Identifier: Apache-2.0
#pragma once

// Contract: mustdrop/window_merge.hpp. First where every token goes, a segment at a time; then the rows, which are the work: runs of rows
// that stay alone are copied as one piece, and only merged rows are arithmetic.

#include <mustdrop/cpu/rows.hpp>
#include <mustdrop/cpu/selection.hpp>
#include <mustdrop/window_merge.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace cpu {

/// A place in the order, a key and a row for each window. The windows of a segment are at most its tokens / n, so they fit where those
/// of the tokens before it end.
template <class Arch, class Executor>
constexpr std::size_t window_merge_workspace_size_impl(backend<Arch, Executor> const&, window_shape window, index_t tokens, index_t,
                                                       index_t, segments const&) noexcept {
  return window.tokens() < 1 ? 0 : static_cast<std::size_t>(tokens / window.tokens()) * 4 * sizeof(std::int32_t);
}

template <class Arch>
struct merge_memory {
  std::uint64_t* order;
  std::int32_t *keys, *places;

  merge_memory(workspace scratch, index_t tokens, index_t n) noexcept
      : order(static_cast<std::uint64_t*>(scratch.data)),
        keys(reinterpret_cast<std::int32_t*>(order + tokens / n)),
        places(keys + tokens / n) {}
};

/// How many windows of a segment merge, by the order of authority.
template <class Arch>
index_t merged_count(merge_options options, index_t asked, float const* similarity, index_t windows) noexcept {
  if (asked >= 0) { return asked < windows ? asked : windows; }
  index_t similar = 0;
  for (index_t w = 0; w < windows; ++w) { similar += similarity[w] >= options.threshold; }
  return similar;
}

/// places[w]: w's place among the r windows that merge, -1 if it does not.
template <class Arch>
void place_windows(output_order order, float const* similarity, index_t windows, index_t r, std::uint64_t* sorted, std::int32_t* keys,
                   std::int32_t* places) noexcept {
  for_each_register<Arch>(windows, [&](index_t w, auto left) {
    floats<Arch> const score = similarity == nullptr ? floats<Arch>(0.0f) : load_some<Arch>(similarity + w, left);
    store_some<Arch>(keys + w, score_order<Arch>(score), left);
  });
  auto* const merged = places;  // the windows that merge, first; they are put into their places from the last on
  write_kept<Arch>(keys, r, r > 0 ? kth_highest<Arch>(keys, windows, r) : cutoff{highest_key, 0}, merged);
  if (order == output_order::score) { sort_kept<Arch>(keys, r, merged, sorted); }
  for (index_t i = 0; i < r; ++i) { keys[i] = merged[i]; }
  for (index_t w = 0; w < windows; ++w) { places[w] = -1; }
  for (index_t i = 0; i < r; ++i) { places[keys[i]] = static_cast<std::int32_t>(i); }
}

/// The outputs of one segment that say where tokens go.
template <class Index>
struct merge_plan {
  Index *source, *keep;
  float* sizes;
};

/// Where each token of a segment goes: unmerged tokens and the anchors of merged windows get rows; returns how many.
template <class Arch, class Index>
index_t assign_rows(output_order order, window_shape window, token_grid const& grid, std::int32_t const* places, index_t r,
                    merge_plan<Index> out) noexcept {
  index_t const across = grid.cols / window.cols, down = grid.rows / window.rows, deep = grid.frames / window.frames;
  index_t const anchor = window_anchor(window);
  bool const by_place = order == output_order::position;
  index_t token = 0, alone = 0, rows = 0;  // tokens so far, those of them that stay alone, and all rows
  auto const take_row = [&](index_t row, index_t size) {
    out.source[token] = static_cast<Index>(row), out.keep[row] = static_cast<Index>(token), out.sizes[row] = static_cast<float>(size);
    ++rows;
  };
  auto const stay_alone = [&] {
    take_row(by_place ? rows : alone < grid.prefix ? alone : alone + r, 1);
    ++token, ++alone;
  };
  for (index_t i = 0; i < grid.prefix; ++i) { stay_alone(); }
  for (index_t patch_row = 0; patch_row < grid.frames * grid.rows; ++patch_row) {
    index_t const frame = patch_row / grid.rows, y = patch_row % grid.rows;
    bool const inside = frame / window.frames < deep && y / window.rows < down;
    std::int32_t const* const place = places + (frame / window.frames * down + y / window.rows) * across;
    index_t const member = (frame % window.frames * window.rows + y % window.rows) * window.cols;  // of the row's first token
    for (index_t x = 0, w = 0, column = 0; x < grid.cols; ++x) {
      if (!inside || w >= across || place[w] < 0) {
        stay_alone();
      } else {
        if (member + column == anchor) { take_row(by_place ? rows : grid.prefix + place[w], window.tokens()); }
        ++token;
      }
      if (++column == window.cols) { column = 0, ++w; }
    }
  }
  for (index_t i = 0; i < grid.suffix; ++i) { stay_alone(); }
  return rows;
}

/// The other members of merged windows go where their anchor went.
template <class Arch, class Index>
void follow_anchors(window_shape window, token_grid const& grid, std::int32_t const* places, Index* source) noexcept {
  for (index_t w = 0; w < window.windows(grid); ++w) {
    if (places[w] < 0) { continue; }
    Index const row = source[window_member(grid, window, w, window_anchor(window))];
    for (index_t m = 0; m < window.tokens(); ++m) { source[window_member(grid, window, w, m)] = row; }
  }
}

/// out = the mean of the tokens of a window; `first` is the row of its first member.
template <class Arch, class T, class Row>
MUSTDROP_FLATTEN void mean_of_window(T const* first, index_t stride, window_shape window, token_grid const& grid, index_t dim,
                                     Row* out) noexcept {
  constexpr int registers = 4;
  floats<Arch> const divisor(static_cast<float>(window.tokens()));
  for (index_t d = 0; d < dim; d += registers * lanes<Arch>) {
    bool const whole = d + registers * lanes<Arch> <= dim;
    floats<Arch> sum[registers];
    unroll<registers>([&](auto r) { sum[r] = floats<Arch>(0.0f); });
    for (index_t line = 0; line < window.frames * window.rows; ++line) {
      index_t const at = line / window.rows * grid.rows * grid.cols + line % window.rows * grid.cols;
      for (index_t x = 0; x < window.cols; ++x) {
        T const* const row = first + (at + x) * stride + d;
        unroll<registers>([&](auto r) {
          if (index_t const left = dim - d - r * lanes<Arch>; whole || left > 0) {
            sum[r] = sum[r] + load_some<Arch>(row + r * lanes<Arch>, left);
          }
        });
      }
    }
    unroll<registers>([&](auto r) {
      if (index_t const left = dim - d - r * lanes<Arch>; left > 0) {
        store_some<Arch>(out + d + r * lanes<Arch>, divide<Arch>(sum[r], divisor), left);
      }
    });
  }
}

template <class Arch, class Executor, class T, class Row, class Index>
status window_merge_impl(backend<Arch, Executor> const& on, merge_options options, window_shape window, tensor_view<T const, 2> features,
                         segments const& segments, tensor_view<token_grid const, 1> grids, tensor_view<float const, 2> similarity,
                         tensor_view<std::int32_t const, 1> requested, tensor_view<Row, 2> rows, tensor_view<float, 1> sizes,
                         tensor_view<Index, 1> source, keep_lists<Index> keep, workspace scratch) noexcept {
  index_t const n = window.tokens(), tokens = features.size(0), dim = features.size(1);
  merge_memory<Arch> const memory(scratch, tokens, n);
  in_parts(on, segments.count, many_a_part(on, selection_bytes * segments.bound(tokens)), [&](index_t s) {
    token_grid const& grid = grids(s);
    keep.counts(s) = 0;
    if (grid.tokens() == 0) { return; }
    index_t const begin = segments.begin(s), window_count = window.windows(grid), slot = begin / n;
    float const* const scores = similarity.absent() ? nullptr : similarity.data + s * similarity.strides[0];
    index_t const r = merged_count<Arch>(options, requested.absent() ? options.count : requested(s), scores, window_count);
    std::int32_t* const places = memory.places + slot;
    place_windows<Arch>(options.order, scores, window_count, r, memory.order + slot, memory.keys + slot, places);
    merge_plan<Index> const plan{&source(begin), &keep.indices(s, 0), &sizes(begin)};
    keep.counts(s) = static_cast<std::int32_t>(assign_rows<Arch>(options.order, window, grid, places, r, plan));
    follow_anchors<Arch>(window, grid, places, plan.source);
  });

  // From the last row to the first: window_similarity has just read the features in order, and the end of them is in the cache.
  index_t const part = many_a_part(on, dim * static_cast<index_t>(sizeof(T) + sizeof(Row))), bound = segments.bound(tokens);
  for_each_part(on, segments.count, bound, part, [&](index_t from_last, index_t behind_first, index_t behind_last) {
    index_t const s = segments.count - 1 - from_last, first = bound - behind_last, last = bound - behind_first;
    index_t const begin = segments.begin(s), end = last < keep.counts(s) ? last : keep.counts(s);
    float const* const size = sizes.data + begin;
    for (index_t row = first; row < end && dim > 0;) {
      index_t const token = keep.indices(s, row);
      if (size[row] == 1) {
        index_t const run =
            run_length<Arch>(end - row, [&](index_t i) { return size[row + i] == 1 ? index_t{keep.indices(s, row + i)} : -1; });
        convert_rows<Arch>(features.data + (begin + token) * features.strides[0], features.strides[0], &rows(begin + row, 0),
                           rows.strides[0], run, dim);
        row += run;
      } else {
        index_t const corner = window_member(grids(s), window, window_of(grids(s), window, token), 0);
        mean_of_window<Arch>(features.data + (begin + corner) * features.strides[0], features.strides[0], window, grids(s), dim,
                             &rows(begin + row, 0));
        ++row;
      }
    }
  });
  return status::ok;
}

}  // namespace cpu
MUSTDROP_NAMESPACE_END
