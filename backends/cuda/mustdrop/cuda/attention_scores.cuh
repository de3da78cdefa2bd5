// SPDX-License-Identifier: Apache-2.0
#pragma once

// Contract: mustdrop/attention_scores.hpp. Rows pass so many at a time, all segments alike. Their dot products are tiles of a matrix
// product whose every number is one chain of fma over the features; nothing is as large as rows × keys of more than a pass.

#include <mustdrop/cuda/attention_rows.cuh>

MUSTDROP_NAMESPACE_BEGIN
namespace cuda {

template <class Tag>
constexpr std::size_t attention_scores_workspace_size_impl(backend<Tag> const&, attention_shape shape, segments const&,
                                                           segments const& key_segments) noexcept {
  return attention_plan::of(shape, key_segments).bytes();
}

/// A block of attention_threads threads does a tile of rows × keys, each thread row_each × key_each of it. Threads that are neighbours have
/// neighbouring keys.
template <int RowThreads, int RowEach, int KeyEach>
struct dot_tile {
  static constexpr int row_threads = RowThreads, key_threads = attention_threads / RowThreads, row_each = RowEach, key_each = KeyEach;
  static constexpr int rows = row_threads * row_each, keys = key_threads * key_each, features = 32;

  struct shared {
    float query[features][rows + 1], key[features][keys + 1];  // features apart, so that threads do not meet in a bank
  };
};
using many_rows = dot_tile<16, 4, 4>;  // 64 × 64
using few_rows = dot_tile<4, 2, 1>;    // 8 × 64

/// Copies features [base, base + Tile::features) of at most `Vectors` rows into shared memory, zeros where there are none.
template <int Vectors, int Count, int Features, class T, class RowOf>
__device__ void stage(float (&to)[Features][Vectors + 1], index_t base, index_t dim, RowOf const& row_of, T const*) {
  constexpr int pieces = Features / Count;
  for (int x = static_cast<int>(threadIdx.x); x < Vectors * pieces; x += attention_threads) {
    int const vector = x / pieces, feature = x % pieces * Count;
    T const* const row = base + feature < dim ? row_of(vector) : nullptr;
    numbers<Count> some{};
    if (row != nullptr) { some = packed<T, Count>::load(row + base + feature); }
    for (int e = 0; e < Count; ++e) { to[feature + e][vector] = some.at[e]; }
  }
}

/// Dot products of the rows of one segment that pass now with the keys that they see. Rows of a head of keys count head by head: row i is
/// row i mod count of head i / count of its group.
template <class Tag, class Tile, int Count, class Q, class K>
__global__ void __launch_bounds__(attention_threads, 1)
    dots_kernel(unsigned parts, attention_pass const pass, tensor_view<Q const, 3> const query, tensor_view<K const, 3> const keys,
                unsigned key_tiles) {
  MUSTDROP_SHARED(typename Tile::shared, staged);
  auto const place = block_place(parts);
  index_t const s = place.segment, kv_heads = keys.size(0), group = query.size(0) / kv_heads, dim = query.size(2);
  index_t const g = place.part % kv_heads, tile = place.part / kv_heads, first_key = tile % key_tiles * Tile::keys;
  index_t const from = pass.rows_from(s), count = pass.rows_to(s) - from, first_row = tile / key_tiles * Tile::rows;
  index_t const rows = lesser(group * count - first_row, Tile::rows);
  index_t seen = 0;
  for (index_t i = 0; i < rows; ++i) {
    index_t const limit = pass.limit(s, from + (first_row + i) % count);
    seen = limit > seen ? limit : seen;
  }
  if (first_key >= seen) { return; }  // no row here sees a key here

  auto const row_of = [&](int i) {
    index_t const row = first_row + i;
    return i < rows ? query.data + (g * group + row / count) * query.strides[0] + (from + row % count) * query.strides[1] : nullptr;
  };
  auto const key_of = [&](int j) {
    index_t const key = pass.key_segments.begin(s) + first_key + j;
    return first_key + j < seen ? keys.data + g * keys.strides[0] + key * keys.strides[1] : nullptr;
  };
  int const my_key = static_cast<int>(threadIdx.x % Tile::key_threads), my_row = static_cast<int>(threadIdx.x / Tile::key_threads);
  float dots[Tile::row_each][Tile::key_each] = {};
  for (index_t base = 0; base < dim; base += Tile::features) {
    stage<Tile::rows, Count>(staged.query, base, dim, row_of, static_cast<Q const*>(nullptr));
    stage<Tile::keys, Count>(staged.key, base, dim, key_of, static_cast<K const*>(nullptr));
    __syncthreads();
    for (int d = 0; d < Tile::features; ++d) {  // behind the last feature there are zeros, which change no sum: none is ever −0
      for (int r = 0; r < Tile::row_each; ++r) {
        float const x = staged.query[d][my_row + r * Tile::row_threads];
        for (int k = 0; k < Tile::key_each; ++k) {
          dots[r][k] = mustdrop::fma(x, staged.key[d][my_key + k * Tile::key_threads], dots[r][k]);
        }
      }
    }
    __syncthreads();
  }
  for (int r = 0; r < Tile::row_each; ++r) {
    index_t const i = my_row + r * Tile::row_threads, row = first_row + i;
    for (int k = 0; k < Tile::key_each; ++k) {
      index_t const j = first_key + my_key + k * Tile::key_threads;
      if (i < rows && j < seen) { pass.logits(g * group + row / count, from + row % count)[j] = dots[r][k]; }
    }
  }
}

/// The grids of a pass of `rows` rows.
struct attention_grids {
  index_t keys;  // of a segment, at most
  segment_grid over_heads, add_rows;

  static attention_grids of(index_t rows, segments const& key_segments, index_t all_keys) noexcept {
    index_t const keys = key_segments.bound(all_keys), parts = parts_of(keys, attention_threads);
    return {keys, {rows, parts}, {key_segments.count, parts}};
  }
  bool fit() const noexcept { return over_heads.fits() && add_rows.fits(); }
};

/// From weights to sums.
template <class Tag, class Weights>
status sum_weights(backend<Tag> const& on, attention_pass const& pass, Weights const& weights, index_t heads, tensor_view<float, 1> sum,
                   tensor_view<float, 1> max, tensor_view<float, 2> head_sum) noexcept {
  auto const grids = attention_grids::of(pass.last - pass.first, pass.key_segments, pass.all_keys);
  status const s = launch_parts(on, grids.over_heads, attention_threads, over_heads_kernel<Tag, Weights>, pass, weights, heads, head_sum);
  if (s != status::ok || sum.absent()) { return s; }
  auto const total = static_cast<float>(pass.options.heads_total > 0 ? pass.options.heads_total : heads);
  return launch_parts(on, grids.add_rows, attention_threads, add_rows_kernel<Tag>, pass, total, sum, max);
}

/// Dot products and exponentials of a pass.
template <class Tag, class Tile, class Q, class K>
status weigh_rows(backend<Tag> const& on, attention_pass const& pass, tensor_view<Q const, 3> query, tensor_view<K const, 3> keys,
                  tensor_view<float const, 2> lse, segment_grid grid, unsigned key_tiles) noexcept {
  constexpr int count = together<Q, K>();
  bool const wide = query.size(2) % count == 0 && aligned_rows(query) && aligned_rows(keys);
  auto const kernel = wide ? dots_kernel<Tag, Tile, count, Q, K> : dots_kernel<Tag, Tile, 1, Q, K>;
  status const s = launch_parts(on, grid, attention_threads, kernel, pass, query, keys, key_tiles);
  if (s != status::ok) { return s; }
  index_t const blocks = parts_of(pass.plan.heads * (pass.last - pass.first), attention_threads / 32);
  return launch_parts(on, {1, blocks}, attention_threads, exponentials_kernel<Tag>, pass, lse);
}

template <class Tag, class Q, class K>
status attention_scores_impl(backend<Tag> const& on, attention_options const& options, tensor_view<Q const, 3> query,
                             tensor_view<K const, 3> keys, segments const& row_segments, segments const& key_segments,
                             tensor_view<std::int32_t const, 1> row_limits, tensor_view<float const, 2> lse,
                             tensor_view<key_span const, 1> spans, tensor_view<float, 1> sum, tensor_view<float, 1> max,
                             tensor_view<float, 2> head_sum, workspace scratch) noexcept {
  index_t const heads = query.size(0), rows = query.size(1), kv_heads = keys.size(0), group = heads / kv_heads;
  attention_plan const plan = attention_plan::of({heads, rows, keys.size(1), kv_heads, query.size(2)}, key_segments);
  attention_pass pass{
      options, plan, row_segments, key_segments, row_limits, spans, rows, keys.size(1), 0, 0, static_cast<float*>(scratch.data)};

  index_t const rows_of_segment = group * lesser(row_segments.bound(rows), plan.rows);
  bool const few = rows_of_segment <= few_rows::rows;
  index_t const row_tiles = parts_of(rows_of_segment, few ? few_rows::rows : many_rows::rows);
  index_t const key_tiles = parts_of(plan.stride, few ? few_rows::keys : many_rows::keys);
  segment_grid const of_rows{kv_heads, row_tiles}, grid{key_segments.count, kv_heads * row_tiles * key_tiles};
  if (!of_rows.fits() || !segment_grid{kv_heads * row_tiles, key_tiles}.fits() || !grid.fits() || !segment_grid{heads, plan.rows}.fits() ||
      !attention_grids::of(plan.rows, key_segments, keys.size(1)).fit()) {
    return status::unsupported;
  }
  do {  // once for no rows, for decay
    pass.last = lesser(pass.first + plan.rows, rows);
    auto const weigh = few ? weigh_rows<Tag, few_rows, Q, K> : weigh_rows<Tag, many_rows, Q, K>;
    status s = weigh(on, pass, query, keys, lse, grid, static_cast<unsigned>(key_tiles));
    if (s == status::ok) { s = sum_weights(on, pass, computed_weights{}, heads, sum, max, head_sum); }
    if (s != status::ok) { return s; }
    pass.first = pass.last;
  } while (pass.first < rows);
  return status::ok;
}

template <class Tag, class T>
status attention_scores_impl(backend<Tag> const& on, attention_options const& options, tensor_view<T const, 3> map,
                             segments const& row_segments, segments const& key_segments, tensor_view<std::int32_t const, 1> row_limits,
                             tensor_view<key_span const, 1> spans, tensor_view<float, 1> sum, tensor_view<float, 1> max,
                             tensor_view<float, 2> head_sum, workspace scratch) noexcept {
  index_t const heads = map.size(0), rows = map.size(1), keys = sum.absent() ? map.size(2) : sum.size(0);
  attention_plan const plan = attention_plan::of({heads, rows, keys, 0, 0}, key_segments);
  attention_pass pass{options, plan, row_segments, key_segments, row_limits, spans, rows, keys, 0, 0, static_cast<float*>(scratch.data)};
  if (!attention_grids::of(plan.rows, key_segments, keys).fit()) { return status::unsupported; }
  do {  // once for no rows, for decay
    pass.last = lesser(pass.first + plan.rows, rows);
    status const s = sum_weights(on, pass, map_weights<T>{map}, heads, sum, max, head_sum);
    if (s != status::ok) { return s; }
    pass.first = pass.last;
  } while (pass.first < rows);
  return status::ok;
}

}  // namespace cuda
MUSTDROP_NAMESPACE_END
