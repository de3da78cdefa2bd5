// SPDX-License-Identifier: Apache-2.0
#pragma once

// Which image tokens stay, as a file:
//
//   {"images": [{"merge": [window…], "key_set": [row…], "stages": [{"layer": l, "keep": [row…]}, …]}, …]}
//
// Windows count in raster order. Rows are the picture's rows after its merge; at every stage they ascend and are among those of the stage
// before. Layer −1 is in front of the language model. Optional: "window": [rows, cols] (3, 3) and, beside "images", "merge_at": "layer0" or "features".

#include <cstdint>
#include <string>
#include <vector>

#include <mustdrop/view.hpp>

namespace llava {

enum class merge_place { layer0, features };

struct stage_plan {
  int layer = 0;
  std::vector<std::int32_t> keep;
};

struct image_plan {
  mustdrop::window_shape window;
  std::vector<std::int32_t> merge;    // windows
  std::vector<std::int32_t> key_set;  // rows
  std::vector<stage_plan> stages;
};

struct plan_file {
  merge_place merge_at = merge_place::layer0;
  std::vector<image_plan> images;
};

/// Reads and checks everything that can be checked without the model's pictures: types, order, one stage within the one before.
plan_file read_plan(std::string const& path, merge_place by_default);
void write_plan(std::string const& path, plan_file const& plan);

/// What needs the model: `path` is for the message. Windows lie in the grid, rows in what the merge leaves, layers in the language model.
void check_plan(image_plan const& plan, mustdrop::token_grid const& grid, int layers, std::string const& path);

}  // namespace llava
