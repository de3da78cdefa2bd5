// SPDX-License-Identifier: Apache-2.0
#include "vision.hpp"

#include <algorithm>
#include <cmath>

#include <mustdrop/cpu/attention_scores.hpp>

#include "buffers.hpp"
#include "error.hpp"

namespace llava {

namespace {

/// The index of a hidden state: 0 is what goes into layer 0, i what comes out of layer i − 1.
int hidden_state(config const& settings, int named) { return named < 0 ? named + settings.vision.layers + 1 : named; }

/// Rows CLS, patch 0, patch 1, …: patches as flat columns [channel][y][x], times the patch embedding, plus positions.
matrix embed(computer& on, vision_config const& v, vision_weights const& w, std::vector<float> const& pixels) {
  long const size = v.image_size, patch = v.patch_size, side = v.side();
  matrix columns(v.patches(), v.channels * patch * patch), patches;
  for (long p = 0; p < v.patches(); ++p) {
    float* to = columns.row(p).data();
    for (long c = 0; c < v.channels; ++c) {
      for (long y = 0; y < patch; ++y) {
        float const* from = pixels.data() + (c * size + p / side * patch + y) * size + p % side * patch;
        to = std::copy(from, from + patch, to);
      }
    }
  }
  linear(on, columns, w.patch_embedding, {}, patches);
  matrix hidden(1 + v.patches(), v.hidden), positions(1 + v.patches(), v.hidden);
  widen_rows(w.position_embedding, 0, positions.rows(), positions.data());
  hidden.row(0) = widened(w.class_embedding);
  hidden.bottomRows(v.patches()) = patches;
  return hidden + positions;
}

void run_layer(computer& on, vision_config const& v, vision_layer const& w, matrix& hidden) {
  matrix normed, q, k, value, mixed, out;
  layer_norm(hidden, w.norm1, w.norm1_bias, v.layer_norm_eps, normed);
  linear(on, normed, w.q, w.q_bias, q);
  linear(on, normed, w.k, w.k_bias, k);
  linear(on, normed, w.v, w.v_bias, value);
  float const scale = 1 / std::sqrt(static_cast<float>(v.head_dim()));
  attend(on, {by_head(q, v.heads), by_head(k, v.heads), by_head(value, v.heads), scale, false}, mixed);
  linear(on, mixed, w.out, w.out_bias, out);
  hidden += out;
  layer_norm(hidden, w.norm2, w.norm2_bias, v.layer_norm_eps, normed);
  linear(on, normed, w.fc1, w.fc1_bias, mixed);
  activate(v.act, mixed);
  linear(on, mixed, w.fc2, w.fc2_bias, out);
  hidden += out;
}

/// CLS's row of the layer's softmax, mean over heads, patches only: one query row, no map.
std::vector<float> attention_of_cls(computer& on, vision_config const& v, vision_layer const& w, matrix const& hidden) {
  stopwatch const time(on.reduction_ms);
  matrix normed, q, k;
  layer_norm(hidden, w.norm1, w.norm1_bias, v.layer_norm_eps, normed);
  linear(on, normed.topRows(1), w.q, w.q_bias, q);
  linear(on, normed, w.k, w.k_bias, k);
  std::vector<float> sum(static_cast<std::size_t>(k.rows())), max(sum.size());
  md::attention_options options;
  options.scale = 1 / std::sqrt(static_cast<float>(v.head_dim()));
  md::index_t const dim = v.head_dim();
  aligned_buffer scratch(md::attention_scores_workspace_size(on.words, {v.heads, 1, k.rows(), v.heads, dim}, {}, {}));
  check(md::attention_scores(on.words, options, by_head(q, v.heads), by_head(k, v.heads), {}, {}, {}, {}, {},
                             md::view(sum.data(), sum.size()), md::view(max.data(), max.size()), {}, scratch.lend()),
        "attention of CLS");
  sum.erase(sum.begin());
  return sum;
}

}  // namespace

int layers_to_run(config const& settings) {
  int most = 0;
  for (int const named : settings.feature_layers) { most = std::max(most, hidden_state(settings, named)); }
  return most;
}

sight see(computer& on, config const& settings, vision_weights const& weights, std::vector<float> const& pixels,
          sight_options const& options) {
  vision_config const& v = settings.vision;
  matrix hidden;
  layer_norm(embed(on, v, weights, pixels), weights.pre_norm, weights.pre_norm_bias, v.layer_norm_eps, hidden);

  sight seen;
  std::vector<matrix> states(settings.feature_layers.size());
  auto const keep_state = [&](int state) {
    for (std::size_t i = 0; i < states.size(); ++i) {
      if (hidden_state(settings, settings.feature_layers[i]) == state) { states[i] = hidden.bottomRows(hidden.rows() - 1); }
    }
  };
  keep_state(0);
  int const last = v.layers - 1, layers = std::max(layers_to_run(settings), options.cls_attention ? last : 0);
  for (int l = 0; l < layers; ++l) {
    if (options.cls_attention && l == last) {
      seen.cls_attention = attention_of_cls(on, v, weights.layers[static_cast<std::size_t>(l)], hidden);
    }
    run_layer(on, v, weights.layers[static_cast<std::size_t>(l)], hidden);
    if (l == 0 && options.after_first_layer) { options.after_first_layer(hidden); }
    keep_state(l + 1);
  }
  if (options.cls_attention && layers == last) {
    seen.cls_attention = attention_of_cls(on, v, weights.layers[static_cast<std::size_t>(last)], hidden);
  }
  long const rows = hidden.rows() - 1;
  seen.features.resize(rows, static_cast<long>(states.size()) * v.hidden);
  for (std::size_t i = 0; i < states.size(); ++i) {
    if (states[i].rows() != rows) {
      throw input_error("a vision feature layer in front of the merge cannot be joined with merged ones: use --merge-at features");
    }
    seen.features.middleCols(static_cast<long>(i) * v.hidden, v.hidden) = states[i];
  }
  return seen;
}

matrix project(computer& on, config const& settings, projector_weights const& weights, matrix const& features) {
  matrix inner, out;
  linear(on, features, weights.linear1, weights.linear1_bias, inner);
  activate(settings.projector_act, inner);
  linear(on, inner, weights.linear2, weights.linear2_bias, out);
  return out;
}

double vision_flops(config const& settings, std::vector<long> const& rows) {
  vision_config const& v = settings.vision;
  double const d = v.hidden, text = settings.text.hidden, features = d * static_cast<double>(settings.feature_layers.size());
  double total = 2.0 * v.patches() * v.channels * v.patch_size * v.patch_size * d;
  for (long const n : rows) {
    auto const tokens = static_cast<double>(n);
    total += tokens * (8 * d * d + 4.0 * d * v.intermediate) + 4 * tokens * tokens * d;
  }
  double const projected = static_cast<double>(rows.empty() ? v.patches() + 1 : rows.back()) - 1;
  return total + 2 * projected * (features * text + text * text);
}

}  // namespace llava
