// SPDX-License-Identifier: Apache-2.0
#include "language.hpp"

#include <algorithm>
#include <cmath>

namespace llava {

namespace {

/// RoPE of the half-split kind on [rows, heads·dim], as Hugging Face computes it: angles in f32.
void rotate(text_config const& t, std::vector<std::int32_t> const& positions, matrix& x) {
  long const half = t.head_dim / 2, heads = x.cols() / t.head_dim;
  std::vector<float> frequency(static_cast<std::size_t>(half)), cosine(frequency.size()), sine(frequency.size());
  for (long f = 0; f < half; ++f) {
    frequency[static_cast<std::size_t>(f)] = 1 / std::pow(t.rope_theta, static_cast<float>(2 * f) / static_cast<float>(t.head_dim));
  }
  for (long r = 0; r < x.rows(); ++r) {
    auto const position = static_cast<float>(positions[static_cast<std::size_t>(r)]);
    for (std::size_t f = 0; f < frequency.size(); ++f) {
      cosine[f] = std::cos(position * frequency[f]), sine[f] = std::sin(position * frequency[f]);
    }
    for (long h = 0; h < heads; ++h) {
      float* const low = x.row(r).data() + h * t.head_dim;
      float* const high = low + half;
      for (std::size_t f = 0; f < frequency.size(); ++f) {
        float const a = low[f], b = high[f];
        low[f] = a * cosine[f] - b * sine[f], high[f] = b * cosine[f] + a * sine[f];
      }
    }
  }
}

}  // namespace

void layer_cache::reserve(md::index_t slots) {
  if (slots <= capacity_) { return; }
  auto const widen = [&](std::vector<float>& x) {
    std::vector<float> larger(static_cast<std::size_t>(heads_ * slots * dim_));
    for (md::index_t h = 0; h < heads_; ++h) {
      std::copy_n(x.data() + h * capacity_ * dim_, size_ * dim_, larger.data() + h * slots * dim_);
    }
    x.swap(larger);
  };
  widen(k_), widen(v_);
  capacity_ = slots;
}

void layer_cache::append(float const* k, float const* v) {
  if (size_ == capacity_) { reserve(2 * capacity_ + 16); }
  for (md::index_t h = 0; h < heads_; ++h) {
    std::copy_n(k + h * dim_, dim_, k_.data() + (h * capacity_ + size_) * dim_);
    std::copy_n(v + h * dim_, dim_, v_.data() + (h * capacity_ + size_) * dim_);
  }
  ++size_;
}

void layer_cache::describe(md::index_t list, md::kv_cache& k, md::kv_cache& v) {
  k.data = k_.data(), k.heads = heads_, k.first_list = list;
  k.slot_bytes = k.slot_stride = dim_ * static_cast<md::index_t>(sizeof(float));
  k.head_stride = capacity_ * k.slot_stride;
  v = k, v.data = v_.data();
}

void run_layer(computer& on, text_config const& t, text_layer const& w, matrix& hidden, std::vector<std::int32_t> const& positions,
               layer_cache& cache, layer_queries& queries) {
  matrix normed, k, v, mixed, gate, out;
  rms_norm(hidden, w.input_norm, t.rms_norm_eps, normed);
  linear(on, normed, w.q, {}, queries.q);
  linear(on, normed, w.k, {}, k);
  linear(on, normed, w.v, {}, v);
  rotate(t, positions, queries.q);
  rotate(t, positions, k);
  for (long r = 0; r < k.rows(); ++r) { cache.append(k.row(r).data(), v.row(r).data()); }

  float const scale = 1 / std::sqrt(static_cast<float>(t.head_dim));
  attend(on, {by_head(queries.q, t.heads), cache.keys(), cache.values(), scale, true}, mixed);
  linear(on, mixed, w.o, {}, out);
  hidden += out;

  rms_norm(hidden, w.post_attention_norm, t.rms_norm_eps, normed);
  linear(on, normed, w.gate, {}, gate);
  linear(on, normed, w.up, {}, mixed);
  activate(activation::silu, gate);
  gate.array() *= mixed.array();
  linear(on, gate, w.down, {}, out);
  hidden += out;
}

matrix embed_tokens(text_weights const& weights, std::vector<int> const& ids) {
  matrix rows(static_cast<long>(ids.size()), weights.embed_tokens.cols);
  for (std::size_t i = 0; i < ids.size(); ++i) { widen_rows(weights.embed_tokens, ids[i], 1, rows.row(static_cast<long>(i)).data()); }
  return rows;
}

std::vector<float> logits_of_last(computer& on, text_config const& t, text_weights const& weights, matrix const& hidden) {
  matrix normed, logits;
  rms_norm(hidden.bottomRows(1), weights.norm, t.rms_norm_eps, normed);
  linear(on, normed, weights.lm_head, {}, logits);
  return {logits.data(), logits.data() + logits.size()};
}

double language_flops(text_config const& t, std::vector<long> const& rows) {
  double const d = t.hidden, q = static_cast<double>(t.heads) * t.head_dim, kv = static_cast<double>(t.kv_heads) * t.head_dim;
  double total = 2 * d * t.vocab;
  for (long const n : rows) {
    auto const tokens = static_cast<double>(n);
    total += 2 * tokens * (2 * d * q + 2 * d * kv + 3.0 * d * t.intermediate) + 2 * tokens * (tokens + 1) * q;
  }
  return total;
}

}  // namespace llava
