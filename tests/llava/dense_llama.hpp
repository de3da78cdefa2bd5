// SPDX-License-Identifier: Apache-2.0
#pragma once

// A second definition of the language model's prefill, in double and with the whole L × L map: nothing is dropped; what a layer must not see
// is masked out. Written from the description of Llama, not from the program.

#include <Eigen/Core>
#include <cmath>
#include <vector>

#include "language.hpp"

namespace dense {

using matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

inline matrix read(llava::weight const& w) {
  llava::matrix floats(w.rows, w.cols);
  llava::widen_rows(w, 0, w.rows, floats.data());
  return floats.cast<double>();
}

inline matrix normed(matrix const& x, llava::weight const& w, double eps) {
  matrix y = x;
  for (long r = 0; r < x.rows(); ++r) {
    y.row(r) = (x.row(r) / std::sqrt(x.row(r).squaredNorm() / static_cast<double>(x.cols()) + eps)).cwiseProduct(read(w).row(0));
  }
  return y;
}

inline void rotate(matrix& x, std::vector<int> const& positions, long dim, double theta) {
  for (long r = 0; r < x.rows(); ++r) {
    for (long c = 0; c < x.cols(); ++c) {
      long const f = c % dim;
      if (f >= dim / 2) { continue; }
      double const angle =
          positions[static_cast<std::size_t>(r)] * std::pow(theta, -2.0 * static_cast<double>(f) / static_cast<double>(dim));
      double const a = x(r, c), b = x(r, c + dim / 2);
      x(r, c) = a * std::cos(angle) - b * std::sin(angle), x(r, c + dim / 2) = b * std::cos(angle) + a * std::sin(angle);
    }
  }
}

/// Logits of the last row. alive[l][j]: whether token j is there in layer l.
inline std::vector<double> prefill(llava::text_config const& t, llava::text_weights const& weights, matrix x,
                                   std::vector<int> const& positions, std::vector<std::vector<char>> const& alive) {
  for (std::size_t l = 0; l < weights.layers.size(); ++l) {
    auto const& w = weights.layers[l];
    matrix const y = normed(x, w.input_norm, t.rms_norm_eps);
    matrix q = y * read(w.q).transpose(), k = y * read(w.k).transpose(), v = y * read(w.v).transpose(), mixed(x.rows(), q.cols());
    rotate(q, positions, t.head_dim, t.rope_theta), rotate(k, positions, t.head_dim, t.rope_theta);
    for (long h = 0; h < t.heads; ++h) {
      long const kv = h / (t.heads / t.kv_heads), d = t.head_dim;
      matrix map = q.middleCols(h * d, d) * k.middleCols(kv * d, d).transpose() / std::sqrt(static_cast<double>(d));
      for (long i = 0; i < map.rows(); ++i) {
        for (long j = 0; j < map.cols(); ++j) {
          map(i, j) = j <= i && (alive[l][static_cast<std::size_t>(j)] || j == i) ? std::exp(map(i, j)) : 0;
        }
        map.row(i) /= map.row(i).sum();
      }
      mixed.middleCols(h * d, d) = map * v.middleCols(kv * d, d);
    }
    x += mixed * read(w.o).transpose();
    matrix const z = normed(x, w.post_attention_norm, t.rms_norm_eps);
    matrix gate = z * read(w.gate).transpose();
    gate = gate.array() / (1 + (-gate.array()).exp()) * (z * read(w.up).transpose()).array();
    x += gate * read(w.down).transpose();
  }
  matrix const logits = normed(x.bottomRows(1), weights.norm, t.rms_norm_eps) * read(weights.lm_head).transpose();
  return {logits.data(), logits.data() + logits.size()};
}

}  // namespace dense
