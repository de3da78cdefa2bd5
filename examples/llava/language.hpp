// SPDX-License-Identifier: Apache-2.0
#pragma once

// The Llama language model, a layer at a time, so that tokens can leave between layers.

#include <cstdint>
#include <vector>

#include <mustdrop/compact.hpp>

#include "config.hpp"
#include "tensor.hpp"

namespace llava {

/// K and V of one layer, [kv_heads, capacity, head_dim] each, f32; slots beyond size() are room for tokens to come.
class layer_cache {
 public:
  layer_cache(md::index_t kv_heads, md::index_t head_dim) : heads_(kv_heads), dim_(head_dim) {}

  md::index_t size() const { return size_; }
  long bytes() const { return static_cast<long>(2 * heads_ * size_ * dim_) * static_cast<long>(sizeof(float)); }
  void reserve(md::index_t slots);
  /// One row of all heads at the end of K and V.
  void append(float const* k, float const* v);
  md::tensor_view<float const, 3> keys() const { return head_view(k_); }
  md::tensor_view<float const, 3> values() const { return head_view(v_); }

  /// K and V as compact takes them, following keep list `list`; afterwards resize(kept).
  void describe(md::index_t list, md::kv_cache& k, md::kv_cache& v);
  void resize(md::index_t slots) { size_ = slots; }

 private:
  md::tensor_view<float const, 3> head_view(std::vector<float> const& x) const {
    return {x.data(), {heads_, size_, dim_}, {capacity_ * dim_, dim_, 1}};
  }
  md::index_t heads_, dim_, size_ = 0, capacity_ = 0;
  std::vector<float> k_, v_;
};

/// What a layer leaves to look at: rotated queries of its rows; the keys are in the cache.
struct layer_queries {
  matrix q;  // [rows, heads·head_dim]
};

/// hidden [rows, hidden] at these positions, through one layer, behind what the cache holds; appends to the cache.
void run_layer(computer& on, text_config const& t, text_layer const& w, matrix& hidden, std::vector<std::int32_t> const& positions,
               layer_cache& cache, layer_queries& queries);

/// Embeddings of tokens [n, hidden].
matrix embed_tokens(text_weights const& weights, std::vector<int> const& ids);

/// Logits of the last row.
std::vector<float> logits_of_last(computer& on, text_config const& t, text_weights const& weights, matrix const& hidden);

/// Products and attention of a prefill that runs layer l on rows[l] tokens, and the logits of one row.
double language_flops(text_config const& t, std::vector<long> const& rows);

}  // namespace llava
