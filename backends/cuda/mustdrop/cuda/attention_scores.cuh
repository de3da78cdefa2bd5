// SPDX-License-Identifier: Apache-2.0
#pragma once

// Contract: mustdrop/attention_scores.hpp. Rows pass so many at a time, of all segments alike: their dot products, exponentials, sums over
// heads and sums over rows are a kernel each, and nothing is as large as rows × keys of more than a pass.

#include <mustdrop/cuda/attention_rows.cuh>
#include <mustdrop/cuda/dot_tile.cuh>

MUSTDROP_NAMESPACE_BEGIN
namespace cuda {

template <class Tag>
constexpr std::size_t attention_scores_workspace_size_impl(backend<Tag> const&, attention_shape shape, segments const&,
                                                           segments const& key_segments) noexcept {
  return attention_plan::of(shape, key_segments).bytes();
}

// Tiles for the rows of a head of keys, heads of its group one after another: those of a question, or the few of a step of decoding.
using many_rows = dot_tile<8, 4, 16, 4>;  // 32 × 64
using few_rows = dot_tile<4, 2, 32, 4>;   // 8 × 128

/// Dot products of the rows of one segment that pass now with the keys that they see. Rows of a head of keys count head by head: row i is
/// row i mod count of head i / count of its group.
template <class Tag, class Tile, int Count, class Q, class K>
__global__ void __launch_bounds__(Tile::threads, 5)
    dots_kernel(unsigned parts, attention_pass const pass, tensor_view<Q const, 3> const query, tensor_view<K const, 3> const keys,
                unsigned row_tiles, unsigned key_tiles) {
  MUSTDROP_SHARED(typename Tile::shared, staged);
  using row_places = index_t[Tile::rows];
  MUSTDROP_SHARED(row_places, query_at);
  unsigned const part = blockIdx.x % parts, g = part / row_tiles / key_tiles, group = static_cast<unsigned>(query.size(0) / keys.size(0));
  index_t const s = blockIdx.x / parts;
  int const from = static_cast<int>(pass.rows_from(s)), count = static_cast<int>(pass.rows_to(s)) - from;
  int const first_row = static_cast<int>(part % row_tiles) * Tile::rows,
            first_key = static_cast<int>(part / row_tiles % key_tiles) * Tile::keys;
  int const rows = static_cast<int>(group) * count - first_row, size = static_cast<int>(pass.keys(s));
  if (count < 1 || rows < 1) { return; }
  auto const head_of = [&](int i) { return static_cast<int>(g * group) + (first_row + i) / count; };
  auto const row_of = [&](int i) { return from + (first_row + i) % count; };

  // Each warp looks at all rows of the tile. Behind the last row there is that one again.
  int const mine = lane_of_thread() < rows ? lane_of_thread() : rows - 1, limit = static_cast<int>(pass.limit(s, row_of(mine)));
  if (threadIdx.x < Tile::rows) { query_at[threadIdx.x] = head_of(mine) * query.strides[0] + row_of(mine) * query.strides[1]; }
  int seen = limit;  // by any of the rows; what lies behind is not read
  for (int other = 16; other > 0; other /= 2) {
    int const there = __shfl_xor_sync(all_lanes, seen, other);
    seen = there > seen ? there : seen;
  }
  if (__ballot_sync(all_lanes, first_key < limit) == 0) { return; }
  __syncthreads();

  K const* const first = keys.data + g * keys.strides[0] + (pass.key_segments.begin(s) + first_key) * keys.strides[1];
  auto const row_from = [&](int i) { return query.data + query_at[i]; };
  auto const key_from = [&](int j) { return first + (first_key + j < seen ? j : seen - 1 - first_key) * keys.strides[1]; };
  typename Tile::dots dots = {};
  for (int base = 0, dim = static_cast<int>(query.size(2)); base < dim; base += Tile::features) {
    stage_rows<Tile, Count>(staged, base, dim, row_from);
    stage_keys<Tile, Count>(staged, base, dim, key_from);
    __syncthreads();
    add_features<Tile>(staged, dots);
    __syncthreads();
  }
  int const j = first_key + Tile::key_of_thread();
  for (int r = 0; r < Tile::row_each; ++r) {
    int const i = Tile::row_of_thread() + r * Tile::row_threads;
    if (i < rows && j < size) { packed<float, Tile::key_each>::store(pass.dots(head_of(i), row_of(i)) + j, dots[r]); }
  }
}

/// Which tile a call takes, as a kernel.
template <class Q, class K>
struct dots_of_tile {
  void (*kernel)(unsigned, attention_pass, tensor_view<Q const, 3>, tensor_view<K const, 3>, unsigned, unsigned);
  index_t rows, keys;
  int threads;
};
template <class Tag, class Tile, class Q, class K>
dots_of_tile<Q, K> dots_of(tensor_view<Q const, 3> query, tensor_view<K const, 3> keys) noexcept {
  constexpr int count = together<Q, K>();
  bool const wide = query.size(2) % count == 0 && aligned_rows(query) && aligned_rows(keys);
  return {wide ? dots_kernel<Tag, Tile, count, Q, K> : dots_kernel<Tag, Tile, 1, Q, K>, Tile::rows, Tile::keys, Tile::threads};
}

/// The grids of every pass of a call, cut by what the host knows. The last pass has rows too many: of no segment.
struct attention_grids {
  index_t row_tiles = 0, key_tiles = 0;  // of the rows of a head of keys, and of the keys, in one segment
  segment_grid dots{}, exponentials{}, over_heads{}, add_rows{};

  static attention_grids of(attention_pass const& pass) noexcept {
    attention_grids grids;
    index_t const parts = parts_of(pass.key_segments.bound(pass.all_keys), attention_threads);
    grids.exponentials = {pass.plan.heads, pass.plan.rows};
    grids.over_heads = {pass.plan.rows, parts};
    grids.add_rows = {pass.key_segments.count, parts};
    return grids;
  }
  void add_dots(attention_pass const& pass, index_t kv_heads, index_t rows, index_t tile_rows, index_t tile_keys) noexcept {
    row_tiles = parts_of(rows, tile_rows), key_tiles = parts_of(pass.key_segments.bound(pass.all_keys), tile_keys);
    dots = {pass.key_segments.count, product(kv_heads, product(row_tiles, key_tiles))};
  }
  bool fit() const noexcept { return dots.fits() && exponentials.fits() && over_heads.fits() && add_rows.fits(); }

 private:
  static index_t product(index_t a, index_t b) noexcept { return segment_grid{a, b}.fits() ? a * b : most_tokens + 1; }
};

/// Passes, one after another; weigh(pass) makes what `weights` reads.
template <class Tag, class Weigh, class Weights>
status pass_rows(backend<Tag> const& on, attention_pass pass, attention_grids const& grids, Weigh const& weigh, Weights const& weights,
                 index_t heads, tensor_view<float, 1> sum, tensor_view<float, 1> max, tensor_view<float, 2> head_sum) noexcept {
  index_t const total = pass.options.heads_total > 0 ? pass.options.heads_total : heads;
  if (!grids.fit()) { return status::unsupported; }
  do {  // once for no rows, for decay
    pass.last = lesser(pass.first + pass.plan.rows, pass.all_rows);
    status s = weigh(pass);
    if (s == status::ok) {
      s = launch_parts(on, grids.over_heads, attention_threads, over_heads_kernel<Tag, Weights>, pass, weights, heads, total, head_sum);
    }
    if (s == status::ok && !sum.absent()) { s = launch_parts(on, grids.add_rows, attention_threads, add_rows_kernel<Tag>, pass, sum, max); }
    if (s != status::ok) { return s; }
    pass.first = pass.last;
  } while (pass.first < pass.all_rows);
  return status::ok;
}

template <class Tag, class Q, class K>
status attention_scores_impl(backend<Tag> const& on, attention_options const& options, tensor_view<Q const, 3> query,
                             tensor_view<K const, 3> keys, segments const& row_segments, segments const& key_segments,
                             tensor_view<std::int32_t const, 1> row_limits, tensor_view<float const, 2> lse,
                             tensor_view<key_span const, 1> spans, tensor_view<float, 1> sum, tensor_view<float, 1> max,
                             tensor_view<float, 2> head_sum, workspace scratch) noexcept {
  index_t const heads = query.size(0), rows = query.size(1), kv_heads = keys.size(0);
  attention_plan const plan = attention_plan::of({heads, rows, keys.size(1), kv_heads, query.size(2)}, key_segments);
  attention_pass const pass{
      options, plan, row_segments, key_segments, row_limits, spans, rows, keys.size(1), 0, 0, static_cast<float*>(scratch.data)};
  index_t const together = heads / kv_heads * lesser(row_segments.bound(rows), plan.rows);
  auto const tile = together > few_rows::rows ? dots_of<Tag, many_rows>(query, keys) : dots_of<Tag, few_rows>(query, keys);
  auto grids = attention_grids::of(pass);
  grids.add_dots(pass, kv_heads, together, tile.rows, tile.keys);
  auto const weigh = [&](attention_pass const& now) {
    auto const row_tiles = static_cast<unsigned>(grids.row_tiles), key_tiles = static_cast<unsigned>(grids.key_tiles);
    status const s = launch_parts(on, grids.dots, static_cast<unsigned>(tile.threads), tile.kernel, now, query, keys, row_tiles, key_tiles);
    return s != status::ok ? s : launch_parts(on, grids.exponentials, exponential_block::threads, exponentials_kernel<Tag>, now, lse);
  };
  return pass_rows(on, pass, grids, weigh, computed_weights{}, heads, sum, max, head_sum);
}

template <class Tag, class T>
status attention_scores_impl(backend<Tag> const& on, attention_options const& options, tensor_view<T const, 3> map,
                             segments const& row_segments, segments const& key_segments, tensor_view<std::int32_t const, 1> row_limits,
                             tensor_view<key_span const, 1> spans, tensor_view<float, 1> sum, tensor_view<float, 1> max,
                             tensor_view<float, 2> head_sum, workspace scratch) noexcept {
  index_t const heads = map.size(0), rows = map.size(1), keys = sum.absent() ? map.size(2) : sum.size(0);
  attention_plan const plan = attention_plan::of({heads, rows, keys, 0, 0}, key_segments);
  attention_pass const pass{
      options, plan, row_segments, key_segments, row_limits, spans, rows, keys, 0, 0, static_cast<float*>(scratch.data)};
  auto const weigh = [](attention_pass const&) { return status::ok; };
  return pass_rows(on, pass, attention_grids::of(pass), weigh, map_weights<T>{map}, heads, sum, max, head_sum);
}

}  // namespace cuda
MUSTDROP_NAMESPACE_END
