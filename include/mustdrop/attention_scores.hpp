// SPDX-License-Identifier: Apache-2.0
#pragma once

// attention_scores: how much chosen query rows attend to each key. No map of rows × rows is needed or made.
//
//   p[h, t, j] = softmax over the keys j that row t sees of  scale·(q[h, t] · k[h / group, j]),   group = heads / kv_heads
//   w[t, j]    = (Σ_h p[h, t, j]) / heads_total
//   sum[j]     = decay·sum[j] + Σ_t w[t, j]          max[j] = max(decay·max[j], max_t w[t, j])
//
// Three forms, each with bits of its own: the softmax from query and keys; exp(logit − lse) where the caller has the log-sum-exp
// of each row (FlashAttention and FlashInfer give it); the weights p themselves read off a given map.
//
// Shapes      query       [heads, rows, dim]       float, half or bfloat16: the rows whose attention counts, not all of them
//             keys        [kv_heads, keys, dim]    float, half or bfloat16, any order of heads and keys
//             map         [heads, rows, longest]   instead of query and keys: softmax weights, any strides; column j is key j of the
//                                                  row's segment
//             row_limits  [rows] or {}             row t sees keys [0, row_limits[t]) of its segment (causal); {}: all of them
//             lse         [heads, rows] or {}      log-sum-exp of the row's logits, base e or 2 (options.lse_base), any strides
//             spans       [segments] or {}         only keys [begin, end) of the segment are written; the softmax runs over all
//             sum, max    [keys]                   in and out: set them to 0 once, then every call adds its rows in order; {} if
//                                                  only head_sum is wanted
//             head_sum    [rows, longest] or {}    Σ_h p, not divided: what tensor-parallel ranks add up; 0 where the row sees nothing
//             row_segments and key_segments cut rows and keys alike: rows of segment s see keys of segment s.
// Rows split over calls give the same bits as rows given at once (decay 1). Tensor parallel: each rank calls with its heads and
// takes head_sum; their sum goes through the map form with one head and heads_total = all heads.
// Edges       A row that sees no key adds nothing. NaN in a row's logits makes the whole row NaN; sum and max carry NaN.
// Errors      bad_shape            sizes disagree; heads is not a multiple of kv_heads; neither sum and max nor head_sum is given
//             bad_stride           query, keys, row_limits, spans, sum, max or head_sum is not dense along its last axis
//             bad_argument         scale not finite; softcap or decay negative or not finite; heads_total positive but below heads
//             workspace_too_small  fewer than attention_scores_workspace_size(...) bytes, or not aligned to 64
// Precondition  check(...) of both segments is ok; spans lie in their segments; outputs overlap no input.
// Cost        2·heads·rows·keys·dim FLOP; scratch for a block of rows. Against the full map: rows of the question only.
// Source      MustDrop §3.2 (text rows), FastV (last row), SnapKV (window rows), H2O (decay 1), TOVA (one row), CLS (one row).
// See         docs/attention_scores.md; reference/attention_scores.hpp is the definition as plain loops.

#include <limits>

#include <mustdrop/backend.hpp>
#include <mustdrop/numerics.hpp>
#include <mustdrop/status.hpp>
#include <mustdrop/view.hpp>

MUSTDROP_NAMESPACE_BEGIN

enum class log_base { e, two };

struct attention_options {
  float scale = 1;                  // usually 1 / sqrt(dim); the map form does not use it
  float softcap = 0;                // > 0: logits become softcap·tanh(logit / softcap)
  log_base lse_base = log_base::e;  // FlashAttention: e; FlashInfer: two
  index_t heads_total = 0;          // heads of all ranks; 0: the heads given
  float decay = 1;                  // sum and max are multiplied by it before this call adds
};

/// Keys [begin, end) of a segment.
struct key_span {
  std::int32_t begin = 0, end = 0;
};

/// What the workspace depends on. The map form has no kv_heads and no dim.
struct attention_shape {
  index_t heads = 0, rows = 0, keys = 0, kv_heads = 0, dim = 0;
};

template <class Backend, require_backend<Backend> = 0>
constexpr std::size_t attention_scores_workspace_size(Backend const& backend, attention_shape shape, segments const& row_segments,
                                                      segments const& key_segments) noexcept {
  return attention_scores_workspace_size_impl(backend, shape, row_segments, key_segments);
}

/// What both forms check alike. A function of the backend, as all that compares floats: files compiled for different instructions share none.
template <class Backend>
status check_attention(attention_options const& options, index_t heads, index_t rows, index_t keys, segments const& row_segments,
                       segments const& key_segments, tensor_view<std::int32_t const, 1> row_limits, tensor_view<key_span const, 1> spans,
                       tensor_view<float, 1> sum, tensor_view<float, 1> max, tensor_view<float, 2> head_sum) noexcept {
  constexpr float largest = std::numeric_limits<float>::max();
  if (!row_segments.valid() || !key_segments.valid() || row_segments.count != key_segments.count) { return status::bad_shape; }
  if (!well_formed(row_limits) || !well_formed(spans) || !well_formed(sum) || !well_formed(max) || !well_formed(head_sum)) {
    return status::bad_shape;
  }
  if (!row_limits.absent() && row_limits.size(0) != rows) { return status::bad_shape; }
  if (!spans.absent() && spans.size(0) != key_segments.count) { return status::bad_shape; }
  bool const only_head_sum = sum.absent() && max.absent() && !head_sum.absent();
  if (!only_head_sum && (sum.size(0) != keys || max.size(0) != keys)) { return status::bad_shape; }
  if (!head_sum.absent() && (head_sum.size(0) != rows || head_sum.size(1) < key_segments.bound(keys))) { return status::bad_shape; }
  if (!unit_stride(row_limits) || !unit_stride(spans) || !unit_stride(sum) || !unit_stride(max) || !unit_stride(head_sum)) {
    return status::bad_stride;
  }
  bool const numbers = options.scale >= -largest && options.scale <= largest && options.softcap >= 0 && options.softcap <= largest &&
                       options.decay >= 0 && options.decay <= largest;
  if (!numbers || options.heads_total < 0 || (options.heads_total > 0 && options.heads_total < heads)) { return status::bad_argument; }
  return status::ok;
}

template <class Backend, class Q, class K, require_backend<Backend> = 0>
status attention_scores(Backend const& backend, attention_options const& options, tensor_view<Q, 3> query, tensor_view<K, 3> keys,
                        segments const& row_segments, segments const& key_segments, tensor_view<std::int32_t const, 1> row_limits,
                        tensor_view<float const, 2> lse, tensor_view<key_span const, 1> spans, tensor_view<float, 1> sum,
                        tensor_view<float, 1> max, tensor_view<float, 2> head_sum, workspace scratch) noexcept {
  using query_real = std::remove_const_t<Q>;
  using key_real = std::remove_const_t<K>;
  static_assert(is_real_v<query_real> && is_real_v<key_real>, "query and keys are float, half or bfloat16");
  index_t const heads = query.size(0), rows = query.size(1), kv_heads = keys.size(0);
  if (!well_formed(query) || !well_formed(keys) || !well_formed(lse) || query.size(2) != keys.size(2)) { return status::bad_shape; }
  if (heads < 1 || kv_heads < 1 || heads % kv_heads != 0) { return status::bad_shape; }
  if (!lse.absent() && (lse.size(0) != heads || lse.size(1) != rows)) { return status::bad_shape; }
  if (status const s =
          check_attention<Backend>(options, heads, rows, keys.size(1), row_segments, key_segments, row_limits, spans, sum, max, head_sum);
      s != status::ok) {
    return s;
  }
  if (!unit_stride(query) || !unit_stride(keys)) { return status::bad_stride; }
  attention_shape const shape{heads, rows, keys.size(1), kv_heads, keys.size(2)};
  if (!scratch.holds(attention_scores_workspace_size(backend, shape, row_segments, key_segments))) { return status::workspace_too_small; }
  return attention_scores_impl(backend, options, tensor_view<query_real const, 3>(query), tensor_view<key_real const, 3>(keys),
                               row_segments, key_segments, row_limits, lse, spans, sum, max, head_sum, scratch);
}

template <class Backend, class T, require_backend<Backend> = 0>
status attention_scores(Backend const& backend, attention_options const& options, tensor_view<T, 3> map, segments const& row_segments,
                        segments const& key_segments, tensor_view<std::int32_t const, 1> row_limits, tensor_view<key_span const, 1> spans,
                        tensor_view<float, 1> sum, tensor_view<float, 1> max, tensor_view<float, 2> head_sum, workspace scratch) noexcept {
  using real = std::remove_const_t<T>;
  static_assert(is_real_v<real>, "a map is float, half or bfloat16");
  index_t const heads = map.size(0), rows = map.size(1), keys = sum.absent() ? map.size(2) : sum.size(0);
  if (!well_formed(map) || heads < 1 || map.size(2) < key_segments.bound(keys)) { return status::bad_shape; }
  if (status const s =
          check_attention<Backend>(options, heads, rows, keys, row_segments, key_segments, row_limits, spans, sum, max, head_sum);
      s != status::ok) {
    return s;
  }
  attention_shape const shape{heads, rows, keys, 0, 0};
  if (!scratch.holds(attention_scores_workspace_size(backend, shape, row_segments, key_segments))) { return status::workspace_too_small; }
  return attention_scores_impl(backend, options, tensor_view<real const, 3>(map), row_segments, key_segments, row_limits, spans, sum, max,
                               head_sum, scratch);
}

MUSTDROP_NAMESPACE_END
