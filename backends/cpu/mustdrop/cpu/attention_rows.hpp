// SPDX-License-Identifier: Apache-2.0
#pragma once

// One query row's part of attention_scores: from dot products to weights, and from weights to sums.

#include <initializer_list>

#include <mustdrop/attention_scores.hpp>
#include <mustdrop/cpu/numerics.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace cpu {

/// A length in whole blocks of a sum's 32 lanes.
constexpr index_t whole_blocks(index_t n) noexcept { return (n + 31) / 32 * 32; }

/// The highest logit of a row that is padded to whole blocks. NaN is never the highest.
template <class Arch>
MUSTDROP_FLATTEN float highest(float const* row, index_t padded, float scale) noexcept {
  constexpr int registers = lane_sum<Arch>::registers;
  floats<Arch> top[registers];
  unroll<registers>([&](auto r) { top[r] = floats<Arch>(-std::numeric_limits<float>::infinity()); });
  auto const take = [](floats<Arch>& best, floats<Arch> x) { best = xsimd::select(x > best, x, best); };
  for (index_t j = 0; j < padded; j += 32) {
    unroll<registers>([&](auto r) { take(top[r], floats<Arch>::load_unaligned(row + j + r * lanes<Arch>) * floats<Arch>(scale)); });
  }
  unroll<registers>([&](auto r) { take(top[0], top[r]); });
  float tops[lanes<Arch>];
  top[0].store_unaligned(tops);
  float best = tops[0];
  for (float const x : tops) { best = x > best ? x : best; }
  return best;
}

/// Turns logits into e^(logit − top), zeros up to a whole block behind them, and returns their sum.
template <class Arch, class Exp>
MUSTDROP_FLATTEN float exponentials(float* row, index_t keys, float scale, float top, Exp const& power) noexcept {
  constexpr int registers = lane_sum<Arch>::registers;
  lane_sum<Arch> whole;
  floats<Arch> const factor(scale), offset(-top);
  for (index_t j = 0; j < keys; j += 32) {
    unroll<registers>([&](auto r) {
      float* const at = row + j + r * lanes<Arch>;
      power(fused<Arch>(floats<Arch>::load_unaligned(at), factor, offset)).store_unaligned(at);
    });
    for (index_t i = keys; i < j + 32; ++i) { row[i] = 0; }
    unroll<registers>([&](auto r) { whole.lane[r] = whole.lane[r] + floats<Arch>::load_unaligned(row + j + r * lanes<Arch>); });
  }
  return whole.total();
}

/// Turns `keys` > 0 dot products into exponentials, in place, zeros up to a whole block behind them, and returns what divides them:
/// their sum, or 1 if their log-sum-exp is given.
template <class Arch>
float exponentials(attention_options const& options, float* row, index_t keys, float const* lse) noexcept {
  index_t const padded = whole_blocks(keys);
  for (index_t j = keys; j < padded; ++j) { row[j] = row[keys - 1]; }
  float scale = options.scale;
  if (options.softcap > 0) {
    floats<Arch> const factor(scale), cap(options.softcap);
    for (index_t j = 0; j < padded; j += lanes<Arch>) {
      tanh<Arch>(divide<Arch>(floats<Arch>::load_unaligned(row + j) * factor, cap)).store_unaligned(row + j);
    }
    scale = options.softcap;
  }
  float const top = lse == nullptr ? highest<Arch>(row, padded, scale) : options.lse_base == log_base::two ? *lse * 0.693147181f : *lse;
  // Below 2^20 the rounding of a logit lifts it above the top by less than 1.
  bool const bounded = lse == nullptr && std::fabs(top) <= 0x1p20f;
  auto const power = [](floats<Arch> x) { return exp<Arch>(x); };
  auto const bounded_power = [](floats<Arch> x) { return exp_bounded<Arch>(x); };
  float const total = bounded ? exponentials<Arch>(row, keys, scale, top, bounded_power) : exponentials<Arch>(row, keys, scale, top, power);
  return lse == nullptr ? total : 1.0f;
}

/// Where a row's weights are added, from one key on.
struct row_target {
  float heads_total;
  float *sum, *max, *head_sum;  // null if not wanted
};

/// Adds Σ_h p of the keys [0, limit) that the row sees; the others, up to `size`, get nothing.
template <class Arch>
MUSTDROP_FLATTEN void add_row(row_target const& to, float const* over_heads, index_t limit, index_t size) noexcept {
  if (to.head_sum != nullptr) {
    for (index_t j = 0; j < size; ++j) { to.head_sum[j] = j < limit ? over_heads[j] : 0.0f; }
  }
  if (to.sum == nullptr) { return; }
  floats<Arch> const divisor(to.heads_total);
  for_each_register<Arch>(limit < size ? limit : size, [&](index_t j, auto left) {
    floats<Arch> const weight = divide<Arch>(load_some<Arch>(over_heads + j, left), divisor), max = load_some<Arch>(to.max + j, left);
    store_some<Arch>(to.sum + j, load_some<Arch>(to.sum + j, left) + weight, left);
    store_some<Arch>(to.max + j, xsimd::select(weight == weight, xsimd::select(weight > max, weight, max), weight), left);
  });
}

/// The keys of a segment: all `size` of them from `begin` on, and those that are written.
struct attended_keys {
  index_t begin, size, first, last;

  template <class Arch>
  static attended_keys of(segments const& segments, tensor_view<key_span const, 1> spans, index_t s, index_t keys) noexcept {
    index_t const size = segments.size(s, keys);
    return {segments.begin(s), size, spans.absent() ? 0 : index_t{spans(s).begin}, spans.absent() ? size : index_t{spans(s).end}};
  }
  template <class Arch>
  index_t limit(tensor_view<std::int32_t const, 1> row_limits, index_t t) const noexcept {
    return row_limits.absent() || row_limits(t) > size ? size : row_limits(t) < 0 ? 0 : row_limits(t);
  }
};

/// The outputs of a call.
struct attention_sums {
  float heads_total;
  tensor_view<float, 1> sum, max;
  tensor_view<float, 2> head_sum;

  /// Row t's, from key `first` of a segment on.
  template <class Arch>
  row_target target(attended_keys const& keys, index_t first, index_t t) const noexcept {
    index_t const at = keys.begin + first;
    return {heads_total, sum.absent() ? nullptr : sum.data + at, sum.absent() ? nullptr : max.data + at,
            head_sum.absent() ? nullptr : head_sum.data + t * head_sum.strides[0] + first};
  }
  /// Multiplies n keys by decay, once a call.
  template <class Arch>
  void decay(float factor, attended_keys const& keys, index_t first, index_t n) const noexcept {
    if (sum.absent() || factor == 1) { return; }
    for (float* const values : {sum.data + keys.begin + first, max.data + keys.begin + first}) {
      for_each_register<Arch>(
          n, [&](index_t j, auto left) { store_some<Arch>(values + j, load_some<Arch>(values + j, left) * floats<Arch>(factor), left); });
    }
  }
};

}  // namespace cpu
MUSTDROP_NAMESPACE_END
