// SPDX-License-Identifier: Apache-2.0
#pragma once

// window_similarity: how alike the tokens of each window of the patch grid are.
//
//   similarity[w] = mean of cos(x_i, x_j) over all pairs i ≠ j of the n tokens of window w
//                 = (‖Σ u‖² − Σ ‖u‖²) / (n (n − 1)),   u = x / max(‖x‖, 1e-8)
//
// Shapes      features    [tokens, dim]         float, half or bfloat16; dense in dim
//             grids       [segments]            the patch grid of each segment: prefix + frames·rows·cols + suffix = its tokens
//             similarity  [segments, windows]   float in [-1, 1] up to rounding; segment s fills the first window.windows(grids[s]) columns
//             Windows do not overlap and count in raster order. Rows, columns and frames left over at the far edges are in no window.
// Edges       A zero vector has cosine 0 with everything. A row whose squared norm is not finite makes its window NaN.
//             A grid smaller than the window has no window.
// Errors      bad_shape            features, grids and similarity disagree with each other or with segments; a size is negative
//             bad_stride           features or similarity is not dense along its last axis
//             bad_argument         a window of one token, or with a size below 1
//             workspace_too_small  fewer than window_similarity_workspace_size(...) bytes, or not aligned to 64
// Precondition  check(grids, window, segments, tokens, similarity.size(1)) is ok; outputs overlap no input.
// Cost        one pass: reads features twice from cache, forms no pairs; 4·tokens·dim FLOP.
// Source      MustDrop §3.1, local spatial merging (3×3 windows of the output of CLIP's layer 0).
// See         docs/window_similarity.md; reference/window_similarity.hpp is the definition as plain loops.

#include <mustdrop/backend.hpp>
#include <mustdrop/numerics.hpp>
#include <mustdrop/status.hpp>
#include <mustdrop/view.hpp>

MUSTDROP_NAMESPACE_BEGIN

/// The token (counted from the segment's begin, prefix included) that is member m of window w; members count in raster order.
MUSTDROP_HD constexpr index_t window_member(token_grid const& grid, window_shape window, index_t w, index_t m) noexcept {
  index_t const across = grid.cols / window.cols, down = grid.rows / window.rows;
  index_t const frame = w / (across * down) * window.frames + m / (window.rows * window.cols);
  index_t const row = w / across % down * window.rows + m / window.cols % window.rows;
  index_t const col = w % across * window.cols + m % window.cols;
  return grid.prefix + (frame * grid.rows + row) * grid.cols + col;
}

/// The member of a window that stands for it when it merges: the one in the middle, the earlier where there are two.
MUSTDROP_HD constexpr index_t window_anchor(window_shape window) noexcept {
  return ((window.frames - 1) / 2 * window.rows + (window.rows - 1) / 2) * window.cols + (window.cols - 1) / 2;
}

/// The window that a token (counted from the segment's begin) lies in; -1: in none.
MUSTDROP_HD constexpr index_t window_of(token_grid const& grid, window_shape window, index_t token) noexcept {
  index_t const patch = token - grid.prefix;
  if (patch < 0 || patch >= grid.patches()) { return -1; }
  index_t const across = grid.cols / window.cols, down = grid.rows / window.rows, deep = grid.frames / window.frames;
  index_t const col = patch % grid.cols / window.cols, row = patch / grid.cols % grid.rows / window.rows;
  index_t const frame = patch / (grid.cols * grid.rows) / window.frames;
  return col < across && row < down && frame < deep ? (frame * down + row) * across + col : -1;
}

template <class Backend, require_backend<Backend> = 0>
constexpr std::size_t window_similarity_workspace_size(Backend const& backend, window_shape window, index_t tokens, index_t dim,
                                                       segments const& segments) noexcept {
  return window_similarity_workspace_size_impl(backend, window, tokens, dim, segments);
}

template <class Backend, class T, require_backend<Backend> = 0>
status window_similarity(Backend const& backend, window_shape window, tensor_view<T, 2> features, segments const& segments,
                         tensor_view<token_grid const, 1> grids, tensor_view<float, 2> similarity, workspace scratch) noexcept {
  using real = std::remove_const_t<T>;
  static_assert(is_real_v<real>, "features are float, half or bfloat16");
  if (!segments.valid() || !well_formed(features) || !well_formed(grids) || !well_formed(similarity)) { return status::bad_shape; }
  if (grids.size(0) != segments.count || similarity.size(0) != segments.count) { return status::bad_shape; }
  if (!unit_stride(features) || !unit_stride(grids) || !unit_stride(similarity)) { return status::bad_stride; }
  if (!window.valid()) { return status::bad_argument; }
  if (!scratch.holds(window_similarity_workspace_size(backend, window, features.size(0), features.size(1), segments))) {
    return status::workspace_too_small;
  }
  return window_similarity_impl(backend, window, tensor_view<real const, 2>(features), segments, grids, similarity, scratch);
}

MUSTDROP_NAMESPACE_END
