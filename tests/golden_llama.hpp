// SPDX-License-Identifier: Apache-2.0
#pragma once

// A plain Llama in double precision, as small as it can be: RMSNorm, rotary positions (half split), grouped heads, gated SiLU.
// Keys, values and queries are stored as float, because words read them.

#include <cmath>
#include <string>
#include <vector>

#include "golden_case.hpp"

namespace golden {

using doubles = std::vector<double>;

/// Keys and values of one layer, [kv_heads, slots, dim].
struct layer_cache_f32 {
  index_t slots = 0;
  std::vector<float> k, v;
};

class llama {
 public:
  llama(trial& t, index_t hidden) : hidden_(hidden) {
    golden_case const& c = t.parameters();
    constexpr index_t most = 1 << 16;
    q_heads = c.whole("q_heads", 1, most), kv_heads = c.whole("kv_heads", 1, q_heads), dim = c.whole("head_dim", 2, most);
    vocabulary = c.whole("vocab", 1, most), inner_ = c.whole("intermediate", 1, most), eps_ = c.real("rms_eps");
    trial::require(q_heads % kv_heads == 0 && dim % 2 == 0, "metadata: heads or head_dim do not divide");
    c.agrees("hidden", hidden);
    double const theta = c.real("rope_theta");
    for (index_t f = 0; f < dim / 2; ++f) {
      inv_freq_.push_back(std::pow(theta, -2.0 * static_cast<double>(f) / static_cast<double>(dim)));
    }
    for (index_t l = 0; l < c.whole("n_layers", 1, 4096); ++l) { blocks_.push_back(read(t, "w.l" + std::to_string(l) + ".")); }
    norm_ = t.floats("w.norm", {hidden}), head_ = t.floats("w.lm_head", {vocabulary, hidden});
  }

  index_t q_heads = 0, kv_heads = 0, dim = 0, vocabulary = 0;
  index_t layers() const { return length(blocks_); }

  /// One layer on rows [n, hidden] at their positions, which see the cache, themselves and rows before them. Their keys and values
  /// join the cache; `queries` becomes [q_heads, n, dim].
  void run(index_t l, doubles& rows, integers const& positions, layer_cache_f32& cache, std::vector<float>& queries) const {
    block const& w = blocks_[at(l)];
    index_t const n = length(positions), before = cache.slots;
    layer_cache_f32 all{before + n, array_of<float>(kv_heads * (before + n) * dim), array_of<float>(kv_heads * (before + n) * dim)};
    for (index_t h = 0; h < kv_heads; ++h) {
      std::copy_n(cache.k.begin() + h * before * dim, before * dim, all.k.begin() + h * all.slots * dim);
      std::copy_n(cache.v.begin() + h * before * dim, before * dim, all.v.begin() + h * all.slots * dim);
    }
    queries = array_of<float>(q_heads * n * dim);
    for (index_t t = 0; t < n; ++t) {
      doubles const x = normed(&rows[at(t * hidden_)], w.ln1);
      turned(times(w.q, x), positions[at(t)], queries, n, t), turned(times(w.k, x), positions[at(t)], all.k, all.slots, before + t);
      heads_first(times(w.v, x), all.v, all.slots, before + t);
    }
    for (index_t t = 0; t < n; ++t) {
      add(&rows[at(t * hidden_)], times(w.o, attention(queries, n, t, all, before + t + 1)));
      doubles const x = normed(&rows[at(t * hidden_)], w.ln2);
      doubles gate = times(w.gate, x);
      doubles const up = times(w.up, x);
      for (std::size_t i = 0; i < gate.size(); ++i) { gate[i] *= up[i] / (1 + std::exp(-gate[i])); }
      add(&rows[at(t * hidden_)], times(w.down, gate));
    }
    cache = std::move(all);
  }

  std::vector<float> logits(doubles const& rows) const {
    std::vector<float> out;
    for (index_t t = 0; t < length(rows) / hidden_; ++t) {
      for (double const logit : times(head_, normed(&rows[at(t * hidden_)], norm_))) { out.push_back(static_cast<float>(logit)); }
    }
    return out;
  }

 private:
  struct block {
    std::vector<float> q, k, v, o, gate, up, down, ln1, ln2;
  };

  block read(trial& t, std::string const& name) const {
    index_t const queries = q_heads * dim, keys = kv_heads * dim;
    return {
        t.floats(name + "q", {queries, hidden_}),   t.floats(name + "k", {keys, hidden_}),      t.floats(name + "v", {keys, hidden_}),
        t.floats(name + "o", {hidden_, queries}),   t.floats(name + "gate", {inner_, hidden_}), t.floats(name + "up", {inner_, hidden_}),
        t.floats(name + "down", {hidden_, inner_}), t.floats(name + "ln1", {hidden_}),          t.floats(name + "ln2", {hidden_})};
  }

  doubles normed(double const* x, std::vector<float> const& weight) const {
    double square = 0;
    for (index_t d = 0; d < hidden_; ++d) { square += x[d] * x[d]; }
    double const scale = 1 / std::sqrt(square / static_cast<double>(hidden_) + eps_);
    doubles out;
    for (index_t d = 0; d < hidden_; ++d) { out.push_back(x[d] * scale * static_cast<double>(weight[at(d)])); }
    return out;
  }

  static doubles times(std::vector<float> const& matrix, doubles const& x) {
    doubles out(matrix.size() / x.size());
    for (std::size_t row = 0; row < out.size(); ++row) {
      double sum = 0;
      for (std::size_t col = 0; col < x.size(); ++col) { sum += static_cast<double>(matrix[row * x.size() + col]) * x[col]; }
      out[row] = sum;
    }
    return out;
  }

  static void add(double* row, doubles const& x) {
    for (std::size_t d = 0; d < x.size(); ++d) { row[d] += x[d]; }
  }

  /// Writes token t's heads into [heads, slots, dim].
  void heads_first(doubles const& x, std::vector<float>& to, index_t slots, index_t t) const {
    for (index_t i = 0; i < length(x); ++i) { to[at((i / dim * slots + t) * dim + i % dim)] = static_cast<float>(x[at(i)]); }
  }

  void turned(doubles x, index_t position, std::vector<float>& to, index_t slots, index_t t) const {
    index_t const half = dim / 2;
    for (index_t f = 0; f < half; ++f) {
      double const angle = static_cast<double>(position) * inv_freq_[at(f)], cosine = std::cos(angle), sine = std::sin(angle);
      for (index_t first = f; first < length(x); first += dim) {
        double const a = x[at(first)], b = x[at(first + half)];
        x[at(first)] = a * cosine - b * sine, x[at(first + half)] = a * sine + b * cosine;
      }
    }
    heads_first(x, to, slots, t);
  }

  /// Row t of the queries over the first `limit` slots: [q_heads · dim].
  doubles attention(std::vector<float> const& queries, index_t n, index_t t, layer_cache_f32 const& cache, index_t limit) const {
    doubles out(at(q_heads * dim)), weight(at(limit));
    double const scale = 1 / std::sqrt(static_cast<double>(dim));
    for (index_t h = 0; h < q_heads; ++h) {
      float const *const q = &queries[at((h * n + t) * dim)], *const keys = &cache.k[at(h / (q_heads / kv_heads) * cache.slots * dim)];
      float const* const values = &cache.v[at(h / (q_heads / kv_heads) * cache.slots * dim)];
      double top = -INFINITY, total = 0;
      for (index_t j = 0; j < limit; ++j) {
        double dot = 0;
        for (index_t d = 0; d < dim; ++d) { dot += static_cast<double>(q[d]) * static_cast<double>(keys[j * dim + d]); }
        weight[at(j)] = dot * scale, top = weight[at(j)] > top ? weight[at(j)] : top;
      }
      for (double& w : weight) { total += w = std::exp(w - top); }
      for (index_t j = 0; j < limit; ++j) {
        double const share = weight[at(j)] / total;
        for (index_t d = 0; d < dim; ++d) { out[at(h * dim + d)] += share * static_cast<double>(values[j * dim + d]); }
      }
    }
    return out;
  }

  index_t hidden_, inner_ = 0;
  double eps_ = 0;
  doubles inv_freq_;
  std::vector<block> blocks_;
  std::vector<float> norm_, head_;
};

}  // namespace golden
