// SPDX-License-Identifier: Apache-2.0
#pragma once

// The output of CLIP-L/14-336's first layer: crops of 1 + 24 × 24 tokens, 1024 features each, and windows of 3 × 3 patches.

#include "step.hpp"

template <class T>
struct windows_step : step {
  static constexpr index_t each = 577, dim = 1024, windows = 64;
  static constexpr md::window_shape window{3, 3};
  index_t const crops, tokens;
  md::segments const cut;
  lasting<md::token_grid> const crop_grids;
  array<T> const patches = input<T>(tokens * dim);

  explicit windows_step(shape const& s)
      : crops(s.crops()), tokens(crops * each), cut(even(crops, each)), crop_grids(static_cast<std::size_t>(crops), {24, 24}) {}

  auto features() const { return view(patches, tokens, dim); }
  auto grids() const { return md::view(crop_grids.data(), crops); }
};
