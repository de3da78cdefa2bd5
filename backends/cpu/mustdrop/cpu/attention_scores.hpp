// SPDX-License-Identifier: Apache-2.0
#pragma once

// Contract: mustdrop/attention_scores.hpp. Rows go through in blocks: a block's logits of one head of keys stay in the cache from the
// products to the sums, and nothing is as large as rows × keys of more than a block.

#include <mustdrop/cpu/attention_rows.hpp>
#include <mustdrop/cpu/dot_panel.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace cpu {

/// How a call is cut, and where in the workspace each piece lies, in floats.
struct attention_plan {
  index_t group;          // heads of a head of keys
  index_t rows;           // query rows of a block
  index_t stride;         // from one row of logits to the next
  index_t heads_at_once;  // heads of keys that have scratch
  index_t packed_size, panel_size, logits_size, totals_size;

  template <class Arch, class Executor>
  static constexpr attention_plan of(backend<Arch, Executor> const& on, attention_shape shape, segments const& row_segments,
                                     segments const& key_segments) noexcept {
    constexpr index_t most_rows = 48;  // of all heads of a group: enough to pay for packing the keys
    attention_plan plan{};
    plan.group = shape.heads < shape.kv_heads ? 1 : shape.heads / shape.kv_heads;  // the word refuses the former; its size may be asked for
    index_t const wanted = most_rows / plan.group > 0 ? most_rows / plan.group : 1, longest = row_segments.bound(shape.rows);
    plan.rows = longest < wanted ? longest : wanted;
    plan.stride = (key_segments.bound(shape.keys) + 31) / 32 * 32 + 16;          // rows that do not collide in the cache
    index_t const at_once = parts_at_once(on) == 1 ? 1 : 4 * parts_at_once(on);  // some for each thread: to wait for all costs time
    plan.heads_at_once = at_once < shape.kv_heads ? at_once : shape.kv_heads;
    plan.packed_size = whole_lines(plan.group * plan.rows * shape.dim);
    plan.panel_size = whole_lines(panel_keys<Arch> * shape.dim);
    plan.logits_size = plan.group * plan.rows * plan.stride;
    plan.totals_size = whole_lines(plan.group * plan.rows);
    return plan;
  }
  static constexpr index_t whole_lines(index_t n) noexcept { return (n + 15) / 16 * 16; }
  constexpr index_t head_size() const noexcept { return packed_size + panel_size + logits_size + totals_size; }
  constexpr index_t size() const noexcept { return rows * stride + heads_at_once * head_size(); }
};

/// How a call on a map is cut: several threads take whole rows, which are summed over heads before any is added to the others. Few rows are
/// cut into keys instead, and go through one at a time; so do all where there is one thread.
struct map_plan {
  index_t rows;  // of a block, or 0
  index_t stride;

  template <class Arch, class Executor>
  static constexpr map_plan of(backend<Arch, Executor> const& on, index_t rows, index_t keys, segments const& row_segments,
                               segments const& key_segments) noexcept {
    constexpr index_t most_rows = 64;
    index_t const width = parts_at_once(on), longest = row_segments.bound(rows);
    if (width == 1 || longest < 2 * width) { return {0, 0}; }
    return {longest < most_rows ? longest : most_rows, attention_plan::whole_lines(key_segments.bound(keys))};
  }
};

template <class Arch, class Executor>
constexpr std::size_t attention_scores_workspace_size_impl(backend<Arch, Executor> const& on, attention_shape shape,
                                                           segments const& row_segments, segments const& key_segments) noexcept {
  map_plan const map = map_plan::of(on, shape.rows, shape.keys, row_segments, key_segments);
  index_t const numbers = shape.kv_heads == 0 ? map.rows * map.stride : attention_plan::of(on, shape, row_segments, key_segments).size();
  return static_cast<std::size_t>(numbers) * sizeof(float);
}

/// The block of rows [first, first + count) of one segment, and the scratch of one head of keys.
template <class Arch, class Q, class K>
struct attention_block {
  attention_options const& options;
  attention_plan const& plan;
  tensor_view<Q const, 3> query;
  tensor_view<K const, 3> keys;
  tensor_view<float const, 2> lse;
  attended_keys const& attended;
  tensor_view<std::int32_t const, 1> row_limits;
  index_t first, count;
  float* over_heads;  // [count, stride]
  float* scratch;     // [heads_at_once, head_size]

  index_t limit(index_t row) const noexcept { return attended.limit<Arch>(row_limits, first + row); }
  float* packed(index_t part) const noexcept { return scratch + part * plan.head_size(); }
  float* panel(index_t part) const noexcept { return packed(part) + plan.packed_size; }
  float* logits(index_t part) const noexcept { return panel(part) + plan.panel_size; }
  float* totals(index_t part) const noexcept { return logits(part) + plan.logits_size; }

  /// What a head of keys takes, in bytes to read: it multiplies eight times while it reads a byte. And what a row of its logits takes.
  index_t head_bytes() const noexcept { return attended.size * keys.size(2) * (static_cast<index_t>(sizeof(K)) + plan.group * count / 8); }
  index_t row_bytes() const noexcept { return attended.size * plan.group * static_cast<index_t>(sizeof(float)); }

  /// Rows of a part count head by head: row i is row i mod count of head i / count of the group. The most keys that any of the rows
  /// [begin, end) sees, and the fewest that any row does.
  index_t widest(index_t begin, index_t end) const noexcept {
    index_t most = 0;
    for (index_t i = begin; i < end && i < begin + count; ++i) { most = limit(i % count) > most ? limit(i % count) : most; }
    return most;
  }
  index_t narrowest() const noexcept {
    index_t least = attended.size;
    for (index_t row = 0; row < count; ++row) { least = limit(row) < least ? limit(row) : least; }
    return least;
  }

  /// Dot products of all rows of the part with head g of the keys.
  void multiply(index_t g, index_t part) const noexcept {
    constexpr index_t at_once = panel_rows<Arch>;
    index_t const dim = keys.size(2), rows = plan.group * count, seen = widest(0, rows), groups = (rows + at_once - 1) / at_once;
    if (seen == 0) { return; }  // there may be no keys, and no address of any
    if (dim == 0) {
      for (index_t i = 0; i < rows * plan.stride; ++i) { logits(part)[i] = 0; }
      return;
    }
    for (index_t i = 0; i < rows; ++i) {
      index_t const start = i / at_once * at_once, together = rows - start < at_once ? rows - start : at_once;
      Q const* const row = query.data + (g * plan.group + i / count) * query.strides[0] + (first + i % count) * query.strides[1];
      pack_row<Arch>(row, dim, packed(part) + start * dim + i - start, together);
    }
    key_rows<K> const head{keys.data + g * keys.strides[0] + attended.begin * keys.strides[1], keys.strides[1], seen};
    index_t const ahead = (panel_keys<Arch> + groups - 1) / groups, seen_by_all = narrowest();
    for (index_t j = 0; j < seen; j += panel_keys<Arch>) {
      pack_panel<Arch>(head, j, dim, panel(part));
      for (index_t i = 0; i < rows; i += at_once) {
        if (j >= seen_by_all && widest(i, i + at_once < rows ? i + at_once : rows) <= j) { continue; }
        upcoming<K> const next{head, j + panel_keys<Arch> + i / at_once * ahead, j + panel_keys<Arch> < seen ? ahead : 0};
        panel_dots<Arch>(rows - i, packed(part) + i * dim, panel(part), dim, logits(part) + i * plan.stride + j, plan.stride, next);
      }
    }
  }

  void weigh(index_t g, index_t part) const noexcept {
    multiply(g, part);
    for (index_t i = 0; i < plan.group * count; ++i) {
      index_t const row = i % count, h = g * plan.group + i / count;
      if (limit(row) == 0) { continue; }
      float const* const row_lse = lse.absent() ? nullptr : &lse(h, first + row);
      totals(part)[i] = exponentials<Arch>(options, logits(part) + i * plan.stride, limit(row), row_lse);
    }
  }

  /// over_heads[row] += the weights of the heads of `parts` parts, in order.
  MUSTDROP_FLATTEN void add_heads(index_t row, index_t parts) const noexcept {
    float* const sum = over_heads + row * plan.stride;
    for (index_t j = 0, seen = limit(row); j < seen; j += lanes<Arch>) {
      floats<Arch> over = floats<Arch>::load_unaligned(sum + j);
      for (index_t part = 0; part < parts; ++part) {
        for (index_t i = row; i < plan.group * count; i += count) {
          floats<Arch> const weight = floats<Arch>::load_unaligned(logits(part) + i * plan.stride + j);
          over = over + divide<Arch>(weight, floats<Arch>(totals(part)[i]));
        }
      }
      over.store_unaligned(sum + j);
    }
  }
};

/// Σ_h p of a block of rows, each head's keys by whoever is free, heads in order.
template <class Arch, class Executor, class Q, class K>
void sum_over_heads(backend<Arch, Executor> const& on, attention_block<Arch, Q, K> const& block) noexcept {
  index_t const kv_heads = block.keys.size(0), at_once = block.plan.heads_at_once;
  for (index_t i = 0; i < block.count * block.plan.stride; ++i) { block.over_heads[i] = 0; }
  for (index_t g = 0; g < kv_heads; g += at_once) {
    index_t const parts = kv_heads - g < at_once ? kv_heads - g : at_once;
    in_parts(on, parts, many_a_part(on, block.head_bytes()), [&block, g](index_t part) { block.weigh(g + part, part); });
    in_parts(on, block.count, many_a_part(on, parts * block.row_bytes()), [&block, parts](index_t row) { block.add_heads(row, parts); });
  }
}

/// Adds the rows [t, t + count), each summed over heads, to the sums of the keys.
template <class Arch, class Executor>
void add_rows(backend<Arch, Executor> const& on, attention_sums const& sums, attended_keys const& attended,
              tensor_view<std::int32_t const, 1> row_limits, index_t t, index_t count, float const* over_heads, index_t stride) noexcept {
  constexpr index_t part = 512;  // keys
  for_each_part(on, 1, attended.last - attended.first, part, [&](index_t, index_t from, index_t to) {
    index_t const key = attended.first + from;
    for (index_t row = 0; row < count; ++row) {
      index_t const limit = attended.limit<Arch>(row_limits, t + row) - key;
      add_row<Arch>(sums.target<Arch>(attended, key, t + row), over_heads + row * stride + key, limit, to - from);
    }
  });
}

template <class Arch, class Executor, class Q, class K>
status attention_scores_impl(backend<Arch, Executor> const& on, attention_options const& options, tensor_view<Q const, 3> query,
                             tensor_view<K const, 3> keys, segments const& row_segments, segments const& key_segments,
                             tensor_view<std::int32_t const, 1> row_limits, tensor_view<float const, 2> lse,
                             tensor_view<key_span const, 1> spans, tensor_view<float, 1> sum, tensor_view<float, 1> max,
                             tensor_view<float, 2> head_sum, workspace scratch) noexcept {
  index_t const heads = query.size(0), rows = query.size(1);
  attention_shape const shape{heads, rows, keys.size(1), keys.size(0), keys.size(2)};
  attention_plan const plan = attention_plan::of(on, shape, row_segments, key_segments);
  attention_sums const sums{static_cast<float>(options.heads_total > 0 ? options.heads_total : heads), sum, max, head_sum};
  auto* const over_heads = static_cast<float*>(scratch.data);

  for (index_t s = 0; s < key_segments.count; ++s) {
    attended_keys const attended = attended_keys::of<Arch>(key_segments, spans, s, keys.size(1));
    index_t const begin = row_segments.begin(s), end = begin + row_segments.size(s, rows);
    sums.decay<Arch>(options.decay, attended, attended.first, attended.last - attended.first);
    for (index_t t = begin; t < end; t += plan.rows) {
      index_t const count = end - t < plan.rows ? end - t : plan.rows;
      attention_block<Arch, Q, K> const block{
          options, plan, query, keys, lse, attended, row_limits, t, count, over_heads, over_heads + plan.rows * plan.stride};
      sum_over_heads(on, block);
      add_rows(on, sums, attended, row_limits, t, count, over_heads, plan.stride);
    }
  }
  return status::ok;
}

/// A register of row t's weights in a map whose columns may lie apart.
template <class Arch, class T>
floats<Arch> load_weights(T const* p, index_t stride, index_t n) noexcept {
  if (stride == 1) { return load_some<Arch>(p, n); }
  T some[lanes<Arch>] = {};
  for (index_t i = 0; i < n && i < lanes<Arch>; ++i) { some[i] = p[i * stride]; }
  return load_lanes<Arch>(some);
}

/// Σ_h p of n keys of a row, four heads at a time: rows of a map are read as they lie.
template <class Arch, class T>
MUSTDROP_FLATTEN void sum_over_heads(T const* row, index_t heads, index_t head_stride, index_t key_stride, index_t n,
                                     float* over_heads) noexcept {
  for (index_t j = 0; j < n; ++j) { over_heads[j] = 0; }
  auto const add = [&](index_t h, auto together) {
    for_each_register<Arch>(n, [&](index_t j, auto left) {
      floats<Arch> sum = load_some<Arch>(over_heads + j, left);
      unroll<together>([&](auto i) { sum = sum + load_weights<Arch>(row + (h + i) * head_stride + j * key_stride, key_stride, left); });
      store_some<Arch>(over_heads + j, sum, left);
    });
  };
  index_t h = 0;
  for (; h + 4 <= heads; h += 4) { add(h, std::integral_constant<int, 4>{}); }
  for (; h < heads; ++h) { add(h, std::integral_constant<int, 1>{}); }
}

/// A map by blocks of rows, each row by whoever is free.
template <class Arch, class Executor, class T>
void add_map_by_rows(backend<Arch, Executor> const& on, attention_sums const& sums, map_plan plan, tensor_view<T const, 3> map,
                     attended_keys const& attended, tensor_view<std::int32_t const, 1> row_limits, index_t begin, index_t end,
                     float* over_heads) noexcept {
  index_t const heads = map.size(0), parts = 2 * parts_at_once(on), part = (plan.rows + parts - 1) / parts;  // neighbours: one read
  for (index_t t = begin; t < end; t += plan.rows) {
    index_t const count = end - t < plan.rows ? end - t : plan.rows;
    for_each_part(on, 1, count, part, [&](index_t, index_t first, index_t last) {
      for (index_t row = first; row < last; ++row) {
        index_t const limit = attended.limit<Arch>(row_limits, t + row), seen = limit < attended.last ? limit : attended.last;
        if (seen <= attended.first) { continue; }
        sum_over_heads<Arch>(map.data + (t + row) * map.strides[1] + attended.first * map.strides[2], heads, map.strides[0], map.strides[2],
                             seen - attended.first, over_heads + row * plan.stride + attended.first);
      }
    });
    add_rows(on, sums, attended, row_limits, t, count, over_heads, plan.stride);
  }
}

template <class Arch, class Executor, class T>
status attention_scores_impl(backend<Arch, Executor> const& on, attention_options const& options, tensor_view<T const, 3> map,
                             segments const& row_segments, segments const& key_segments, tensor_view<std::int32_t const, 1> row_limits,
                             tensor_view<key_span const, 1> spans, tensor_view<float, 1> sum, tensor_view<float, 1> max,
                             tensor_view<float, 2> head_sum, workspace scratch) noexcept {
  constexpr index_t longest_part = 1024;  // keys
  index_t const heads = map.size(0), keys = sum.absent() ? map.size(2) : sum.size(0);
  index_t const width = parts_at_once(on), each = (key_segments.bound(keys) + width - 1) / width;
  index_t const part = each > longest_part ? longest_part : each < 128 ? 128 : (each + 31) / 32 * 32;  // the fewer, the longer the reads
  attention_sums const sums{static_cast<float>(options.heads_total > 0 ? options.heads_total : heads), sum, max, head_sum};
  map_plan const plan = map_plan::of(on, map.size(1), keys, row_segments, key_segments);
  if (plan.rows > 0) {
    for (index_t s = 0; s < key_segments.count; ++s) {
      attended_keys const attended = attended_keys::of<Arch>(key_segments, spans, s, keys);
      index_t const begin = row_segments.begin(s), end = begin + row_segments.size(s, map.size(1));
      sums.decay<Arch>(options.decay, attended, attended.first, attended.last - attended.first);
      add_map_by_rows(on, sums, plan, map, attended, row_limits, begin, end, static_cast<float*>(scratch.data));
    }
    return status::ok;
  }
  for_each_part(on, key_segments.count, key_segments.bound(keys), part, [&](index_t s, index_t from, index_t to) {
    attended_keys const attended = attended_keys::of<Arch>(key_segments, spans, s, keys);
    index_t const first = attended.first + from, last = attended.first + to < attended.last ? attended.first + to : attended.last;
    if (first >= last) { return; }
    sums.decay<Arch>(options.decay, attended, first, last - first);
    index_t const begin = row_segments.begin(s), end = begin + row_segments.size(s, map.size(1));
    for (index_t t = begin; t < end; ++t) {
      float over_heads[longest_part];
      index_t const limit = attended.limit<Arch>(row_limits, t) - first, seen = limit < 0 ? 0 : limit < last - first ? limit : last - first;
      T const* const row = map.data + t * map.strides[1] + first * map.strides[2];
      sum_over_heads<Arch>(row, heads, map.strides[0], map.strides[2], seen, over_heads);
      add_row<Arch>(sums.target<Arch>(attended, first, t), over_heads, seen, last - first);
    }
  });
  return status::ok;
}

}  // namespace cpu
MUSTDROP_NAMESPACE_END
