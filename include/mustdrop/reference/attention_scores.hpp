// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limits>

#include <mustdrop/attention_scores.hpp>
#include <mustdrop/numerics.hpp>
#include <mustdrop/reference/backend.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace reference {

/// One row: its logits' first factor, then its weights, for one head; and their sum over heads.
constexpr std::size_t attention_scores_workspace_size_impl(backend, attention_shape shape, segments const&,
                                                           segments const& key_segments) noexcept {
  return 2 * static_cast<std::size_t>(key_segments.bound(shape.keys)) * sizeof(float);
}

/// A logit is factor·scale, and scale is softcap where logits are capped. It is never rounded on its own: exp takes fma(factor, scale, −top).
struct logit_scale {
  float scale, softcap;

  float factor(float dot) const noexcept { return softcap > 0 ? mustdrop::tanh(divide(dot * scale, softcap)) : dot; }
  float after() const noexcept { return softcap > 0 ? softcap : scale; }
};

/// Turns the factors of one row and head into weights, in place: a softmax, or exp(logit − lse) if lse is given.
inline void row_weights(float* row, index_t keys, float scale, float const* lse, log_base base) noexcept {
  if (lse != nullptr) {
    float const natural = base == log_base::two ? *lse * 0.693147181f : *lse;
    for (index_t j = 0; j < keys; ++j) { row[j] = mustdrop::exp(mustdrop::fma(row[j], scale, -natural)); }
    return;
  }
  float top = -std::numeric_limits<float>::infinity();
  for (index_t j = 0; j < keys; ++j) { top = row[j] * scale > top ? row[j] * scale : top; }
  lane_sum whole;
  for (index_t j = 0; j < keys; ++j) {
    row[j] = mustdrop::exp(mustdrop::fma(row[j], scale, -top));
    whole.add(j, row[j]);
  }
  for (index_t j = 0; j < keys; ++j) { row[j] = divide(row[j], whole.total()); }
}

/// What the two forms share: `head_sum_of(t, begin, keys)` gives Σ_h p of row t, a function of the key.
template <class HeadSumOf>
void accumulate_rows(attention_options const& options, index_t heads, index_t rows, index_t keys, segments const& row_segments,
                     segments const& key_segments, tensor_view<std::int32_t const, 1> row_limits, tensor_view<key_span const, 1> spans,
                     tensor_view<float, 1> sum, tensor_view<float, 1> max, tensor_view<float, 2> head_sum,
                     HeadSumOf const& head_sum_of) noexcept {
  auto const total = static_cast<float>(options.heads_total > 0 ? options.heads_total : heads);
  for (index_t s = 0; s < key_segments.count; ++s) {
    index_t const begin = key_segments.begin(s), size = key_segments.size(s, keys);
    index_t const first = spans.absent() ? 0 : spans(s).begin, last = spans.absent() ? size : spans(s).end;
    if (!sum.absent()) {
      for (index_t j = first; j < last; ++j) { sum(begin + j) *= options.decay, max(begin + j) *= options.decay; }
    }
    for (index_t t = row_segments.begin(s); t < row_segments.begin(s) + row_segments.size(s, rows); ++t) {
      index_t const limit = row_limits.absent() || row_limits(t) > size ? size : row_limits(t) < 0 ? 0 : row_limits(t);
      auto const weights = head_sum_of(t, begin, limit);
      for (index_t j = first; j < last; ++j) {
        float const over_heads = j < limit ? weights(j) : 0.0f;
        if (!head_sum.absent()) { head_sum(t, j) = over_heads; }
        if (sum.absent() || j >= limit) { continue; }
        float const weight = divide(over_heads, total);
        sum(begin + j) += weight;
        if (weight > max(begin + j) || is_nan(weight)) { max(begin + j) = weight; }
      }
    }
  }
}

template <class Q, class K>
status attention_scores_impl(backend, attention_options const& options, tensor_view<Q const, 3> query, tensor_view<K const, 3> keys,
                             segments const& row_segments, segments const& key_segments, tensor_view<std::int32_t const, 1> row_limits,
                             tensor_view<float const, 2> lse, tensor_view<key_span const, 1> spans, tensor_view<float, 1> sum,
                             tensor_view<float, 1> max, tensor_view<float, 2> head_sum, workspace scratch) noexcept {
  index_t const heads = query.size(0), group = heads / keys.size(0), dim = query.size(2), longest = key_segments.bound(keys.size(1));
  auto* const row = static_cast<float*>(scratch.data);
  auto* const over_heads = row + longest;
  logit_scale const logit{options.scale, options.softcap};

  auto const head_sum_of = [&](index_t t, index_t begin, index_t limit) {
    for (index_t j = 0; j < limit; ++j) { over_heads[j] = 0; }
    for (index_t h = 0; h < heads; ++h) {
      for (index_t j = 0; j < limit; ++j) {  // rows of nothing may have no address
        row[j] = logit.factor(dim > 0 ? chain_dot(&query(h, t, 0), &keys(h / group, begin + j, 0), dim) : 0.0f);
      }
      row_weights(row, limit, logit.after(), lse.absent() ? nullptr : &lse(h, t), options.lse_base);
      for (index_t j = 0; j < limit; ++j) { over_heads[j] += row[j]; }
    }
    return [over_heads](index_t j) { return over_heads[j]; };
  };
  accumulate_rows(options, heads, query.size(1), keys.size(1), row_segments, key_segments, row_limits, spans, sum, max, head_sum,
                  head_sum_of);
  return status::ok;
}

template <class T>
status attention_scores_impl(backend, attention_options const& options, tensor_view<T const, 3> map, segments const& row_segments,
                             segments const& key_segments, tensor_view<std::int32_t const, 1> row_limits,
                             tensor_view<key_span const, 1> spans, tensor_view<float, 1> sum, tensor_view<float, 1> max,
                             tensor_view<float, 2> head_sum, workspace) noexcept {
  index_t const heads = map.size(0), keys = sum.absent() ? map.size(2) : sum.size(0);
  auto const head_sum_of = [&](index_t t, index_t, index_t) {
    return [&map, t, heads](index_t j) {
      float over_heads = 0;
      for (index_t h = 0; h < heads; ++h) { over_heads += widen(map(h, t, j)); }
      return over_heads;
    };
  };
  accumulate_rows(options, heads, map.size(1), keys, row_segments, key_segments, row_limits, spans, sum, max, head_sum, head_sum_of);
  return status::ok;
}

}  // namespace reference
MUSTDROP_NAMESPACE_END
