// SPDX-License-Identifier: Apache-2.0
#include <mustdrop/cuda/window_merge.cuh>
#include <mustdrop/window_merge.hpp>

#include "grids.hpp"
#include "selections.hpp"

namespace recorder {
namespace {

/// What the kernels of one call leave for each other, segment by segment.
struct plan {
  std::vector<chosen> windows, tokens;
  std::vector<std::int32_t> places, row_tokens, counts;
};

/// `r` windows of each grid merge.
plan merge(std::vector<md::token_grid> const& grids, batch const& b, md::window_shape window, md::index_t r, md::output_order order,
           md::index_t capacity) {
  bool const by_place = order == md::output_order::position;
  md::index_t const n = window.tokens();
  plan p{{},
         {},
         std::vector<std::int32_t>(static_cast<std::size_t>(b.tokens / n)),
         std::vector<std::int32_t>(grids.size() * static_cast<std::size_t>(capacity)),
         {}};
  for (std::size_t s = 0; s < grids.size(); ++s) {
    md::token_grid const& grid = grids[s];
    chosen const windows = choose(b.begin[s] / n, window.windows(grid), r);
    std::vector<bool> const merges = stays(windows);
    std::int32_t next = 0;
    for (std::size_t w = 0; w < merges.size(); ++w) {
      auto const beaten_by = [&](std::size_t u) {
        return windows.keys[u] > windows.keys[w] || (windows.keys[u] == windows.keys[w] && u < w);
      };
      std::int32_t rank = 0;
      for (std::size_t u = 0; u < merges.size(); ++u) { rank += beaten_by(u); }
      p.places[static_cast<std::size_t>(windows.slot) + w] = !merges[w] ? 0 : by_place ? ++next : rank + 1;
    }
    chosen tokens{b.begin[s], {}, 0};
    std::vector<std::int32_t> alone, merged(static_cast<std::size_t>(windows.kept));
    for (md::index_t t = 0; t < grid.tokens(); ++t) {
      md::index_t const w = md::window_of(grid, window, t);
      bool const inside = w >= 0 && merges[static_cast<std::size_t>(w)];
      bool const anchor = inside && t == md::window_member(grid, window, w, md::window_anchor(window));
      bool const has_row = !inside || (by_place && anchor);
      tokens.keys.push_back(has_row ? 2 : 1), tokens.kept += has_row;
      if (has_row) { alone.push_back(static_cast<std::int32_t>(t)); }
      if (anchor && !by_place) {
        merged[static_cast<std::size_t>(p.places[static_cast<std::size_t>(windows.slot + w)]) - 1] = static_cast<std::int32_t>(t);
      }
    }
    if (!by_place) { alone.insert(alone.begin() + std::min<std::ptrdiff_t>(grid.prefix, alone.size()), merged.begin(), merged.end()); }
    std::copy(alone.begin(), alone.end(), p.row_tokens.begin() + static_cast<std::ptrdiff_t>(s) * capacity);
    p.counts.push_back(static_cast<std::int32_t>(alone.size()));
    p.windows.push_back(windows), p.tokens.push_back(tokens);
  }
  return p;
}

template <class T, class Row, class Index>
void one(std::string const& title, md::window_shape window, std::vector<md::token_grid> const& grids, md::index_t r, int dim,
         md::output_order order = md::output_order::position) {
  begin(title + (order == md::output_order::score ? ", best first" : ""));
  batch const b = of_grids(grids);
  md::workspace const scratch{memory<char>(), room};
  md::cuda::merge_memory const selection(scratch.data, b.tokens, window.tokens(), b.cut.count);
  auto const keep = lists<Index>(b.cut.count, b.tokens);
  plan const p = merge(grids, b, window, r, order, b.tokens);
  know(selection.windows, b.tokens / window.tokens(), p.windows, "place_windows_kernel");
  know(selection.windows, b.tokens / window.tokens(), p.windows, "assign_rows_kernel");
  know(selection.tokens, b.tokens, p.tokens, "assign_rows_kernel");
  know(selection.places, p.places.data(), p.places.size() * sizeof(p.places[0]), "merged_tokens_job");
  std::vector<Index> const row_tokens(p.row_tokens.begin(), p.row_tokens.end());
  know(keep.indices.data, row_tokens.data(), row_tokens.size() * sizeof(Index), "merged_rows_kernel");
  know(keep.counts.data, p.counts.data(), p.counts.size() * sizeof(p.counts[0]), "merged_rows_kernel");
  md::merge_options options;
  options.count = r, options.order = order;
  check(md::window_merge(md::cuda::backend<>{}, options, window, md::view<T const>(memory<T>(), b.tokens, dim), b.cut, known(grids),
                         md::view<float const>(memory<float>(), grids.size(), b.tokens / window.tokens()), {},
                         md::view(memory<Row>(), b.tokens, dim), md::view(memory<float>(), b.tokens), md::view(memory<Index>(), b.tokens),
                         keep, scratch));
}

}  // namespace

void calls() {
  md::window_shape const two{1, 2}, four{2, 2}, nine{3, 3};
  for (auto const order : {md::output_order::position, md::output_order::score}) {
    one<float, float, std::int32_t>("a window of 3x3 merges, 64 f32", nine, {{3, 3}}, 1, 64, order);
    one<float, float, std::int32_t>("of 4 windows of 2x2 merge 2, 64 f32", four, {{5, 4}}, 2, 64, order);
    one<float, float, std::int32_t>("of 4 windows of 2x2 merges none, 64 f32", four, {{5, 4}}, 0, 64, order);
    for (int const w : {31, 32, 33, 128}) {  // 2 w + 1 tokens
      one<float, float, std::int32_t>("of " + std::to_string(w) + " windows of 1x2 merge 10, 4 f32", two, {{1, 2 * w}}, 10, 4, order);
    }
    one<float, float, std::int32_t>("grids of 2x4 1x1 4x2 merge 1, 33 f32", four, {{2, 4}, {1, 1}, {4, 2}}, 1, 33, order);
  }
  for (int const dim : {508, 512, 516, 1028}) {
    one<float, float, std::int32_t>("a window of 2x2 merges, " + std::to_string(dim) + " f32", four, {{2, 2}}, 1, dim);
  }
  one<float, float, std::int32_t>("of 257 windows of 1x2 merge 10, 4 f32", two, {{1, 514}}, 10, 4);
  one<md::half, md::half, std::int64_t>("of 4 windows of 2x2 merge 2, 64 f16, 64-bit", four, {{5, 4}}, 2, 64);
  one<md::half, md::half, std::int64_t>("of 4 windows of 2x2 merge 2, 33 f16, 64-bit", four, {{5, 4}}, 2, 33);
  one<md::half, float, std::int32_t>("of 4 windows of 2x2 merge 2, 64 f16 to f32", four, {{5, 4}}, 2, 64);
  one<md::bfloat16, md::bfloat16, std::int32_t>("of 4 windows of 2x2 merge 2, 64 bf16", four, {{5, 4}}, 2, 64);
  one<md::half, float, std::int32_t>("of 4 windows of 2x2 merge 2, 33 f16 to f32", four, {{5, 4}}, 2, 33);
  one<md::bfloat16, md::bfloat16, std::int32_t>("of 2 windows of 2x2 in 2 frames merge 1, 33 bf16", {2, 2, 2}, {{2, 4, 2, 0, 1}}, 1, 33);
}

}  // namespace recorder
