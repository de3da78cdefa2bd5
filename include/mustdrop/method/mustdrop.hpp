// SPDX-License-Identifier: Apache-2.0
#pragma once

// mustdrop: the paper's three stages (arXiv 2411.10803) as compositions of the words, with its published parameters.
//
//   vision   merge_similar     window_similarity ▸ window_merge     on the output of vision layer 0
//            cls_topk                                                 key set, from CLS in the last vision layer
//   prefill  mask_by_text      attention_scores ▸ dual_mask          after LLM layers 2, 6, 10, 14 of 32
//   decode   kv_evict ▸ compact                                       policy survivors (released), key_set_only (paper) or output_aware
//
// Each function is nothing but its words in a row: arguments, layouts, errors and edges are theirs. One workspace serves both words.

#include <mustdrop/attention_scores.hpp>
#include <mustdrop/cls_topk.hpp>
#include <mustdrop/dual_mask.hpp>
#include <mustdrop/kv_evict.hpp>
#include <mustdrop/window_merge.hpp>
#include <mustdrop/window_similarity.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace method {

/// The paper's LLM layers, of 32; other depths scale: layer · depth / 32, rounded.
inline constexpr std::int32_t mustdrop_prune_after[4] = {2, 6, 10, 14};

/// Thresholds of the released evaluation scripts (LLaVA-1.5-7B), by data set and mean tokens a layer.
inline constexpr dual_mask_options mustdrop_textvqa_192{0.001f, 0.001f, -1}, mustdrop_textvqa_128{0.0012f, 0.001f, -1},
    mustdrop_textvqa_64{0.011f, 0.01f, -1}, mustdrop_vizwiz_64{0.005f, 0.001f, -1};

/// Stage 1. The defaults of merge_options and window_shape are the paper's (0.8, 3 × 3).
template <class Backend, class T, class Row, class Index, require_backend<Backend> = 0>
status merge_similar(Backend const& backend, merge_options options, window_shape window, tensor_view<T, 2> features,
                     segments const& segments, tensor_view<token_grid const, 1> grids, tensor_view<std::int32_t const, 1> requested,
                     tensor_view<float, 2> similarity, tensor_view<Row, 2> rows, tensor_view<float, 1> sizes, tensor_view<Index, 1> source,
                     keep_lists<Index> keep, workspace scratch) noexcept {
  status s =
      check_window_merge(backend, options, window, features, segments, grids, similarity, requested, rows, sizes, source, keep, scratch);
  if (s == status::ok) { s = window_similarity(backend, window, features, segments, grids, similarity, scratch); }
  if (s != status::ok) { return s; }
  return window_merge(backend, options, window, features, segments, grids, similarity, requested, rows, sizes, source, keep, scratch);
}

template <class Backend, require_backend<Backend> = 0>
constexpr std::size_t merge_similar_workspace_size(Backend const& backend, window_shape window, index_t tokens, index_t dim,
                                                   index_t windows, segments const& segments) noexcept {
  std::size_t const score = window_similarity_workspace_size(backend, window, tokens, dim, segments);
  std::size_t const select = window_merge_workspace_size(backend, window, tokens, dim, windows, segments);
  return score > select ? score : select;
}

/// Stage 2, after one LLM layer: query holds the rows of the text behind each image, keys the layer's keys. `images` cuts the same axis
/// of keys into the images: begins and counts, one for each of dual_mask's lists; `spans`, if given, keeps attention_scores to them.
/// sum and max come in as zeros.
template <class Backend, class Q, class K, class Index, require_backend<Backend> = 0>
status mask_by_text(Backend const& backend, attention_options const& attention, dual_mask_options mask, tensor_view<Q, 3> query,
                    tensor_view<K, 3> keys, segments const& row_segments, segments const& key_segments,
                    tensor_view<std::int32_t const, 1> row_limits, tensor_view<key_span const, 1> spans, segments const& images,
                    keep_lists<std::add_const_t<Index>> key_set, tensor_view<std::int32_t const, 1> requested, tensor_view<float, 1> sum,
                    tensor_view<float, 1> max, keep_lists<Index> keep, workspace scratch) noexcept {
  status s = check_dual_mask(backend, mask, sum, max, images, key_set, requested, keep, scratch);
  if (s == status::ok) {
    s = attention_scores(backend, attention, query, keys, row_segments, key_segments, row_limits, tensor_view<float const, 2>{}, spans, sum,
                         max, tensor_view<float, 2>{}, scratch);
  }
  if (s != status::ok) { return s; }
  return dual_mask(backend, mask, sum, max, images, key_set, requested, keep, scratch);
}

template <class Backend, require_backend<Backend> = 0>
constexpr std::size_t mask_by_text_workspace_size(Backend const& backend, attention_shape shape, segments const& row_segments,
                                                  segments const& key_segments, segments const& images) noexcept {
  std::size_t const score = attention_scores_workspace_size(backend, shape, row_segments, key_segments);
  std::size_t const select = dual_mask_workspace_size(backend, shape.keys, images);
  return score > select ? score : select;
}

}  // namespace method
MUSTDROP_NAMESPACE_END
