// SPDX-License-Identifier: Apache-2.0
#pragma once

// The CLIP vision tower and the projector.

#include <functional>
#include <vector>

#include "config.hpp"
#include "tensor.hpp"

namespace llava {

/// What the tower sees in one picture. Rows are patches, or fewer if `after_first_layer` shrank them; CLS is not among them.
struct sight {
  matrix features;                   // [rows, hidden · feature layers]
  std::vector<float> cls_attention;  // [rows], of CLS in the last layer, mean over heads; empty unless asked for
};

struct sight_options {
  bool cls_attention = false;
  std::function<void(matrix& hidden)> after_first_layer;  // may leave fewer rows; row 0 is CLS
};

/// pixels [channels, image_size, image_size]. A feature layer in front of `after_first_layer`, if that is set, is refused.
sight see(computer& on, config const& settings, vision_weights const& weights, std::vector<float> const& pixels,
          sight_options const& options);

/// [rows, vision hidden · feature layers] to [rows, text hidden].
matrix project(computer& on, config const& settings, projector_weights const& weights, matrix const& features);

/// Products and attention of `see` (without CLS's attention) and `project`: rows[l] is what layer l runs on, CLS included.
double vision_flops(config const& settings, std::vector<long> const& rows);

/// How many layers must run for the features that the settings name.
int layers_to_run(config const& settings);

}  // namespace llava
