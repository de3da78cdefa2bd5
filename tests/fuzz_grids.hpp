// SPDX-License-Identifier: Apache-2.0
#pragma once

// Patch grids and the segments that they fill, made by an input.

#include <mustdrop/window_similarity.hpp>

#include "fuzz_segments.hpp"

namespace fuzz {

inline md::window_shape any_window(input& in) {
  md::window_shape const window{1 + in.upto(3), 1 + in.upto(4), 1 + in.upto(7) / 6};
  return window.tokens() == 1 && !in.one_in(16) ? md::window_shape{} : window;
}

/// Grids of up to 11 × 11 patches, or smaller ones of several frames, images or both.
inline std::vector<md::token_grid> any_grids(input& in) {
  bool const many = in.one_in(2);
  std::vector<md::token_grid> grids(static_cast<std::size_t>(many ? in.upto(3) : 1));
  for (md::token_grid& grid : grids) {
    grid.frames = in.one_in(4) ? in.upto(3) : 1;
    md::index_t const most = many || grid.frames > 1 ? 6 : 11;
    grid.rows = in.upto(most), grid.cols = in.upto(most), grid.prefix = in.upto(2), grid.suffix = in.upto(4) / 3;
  }
  return grids;
}
inline std::vector<md::index_t> sizes_of(std::vector<md::token_grid> const& grids) {
  std::vector<md::index_t> sizes(grids.size());
  std::transform(grids.begin(), grids.end(), sizes.begin(), [](md::token_grid const& grid) { return grid.tokens(); });
  return sizes;
}
inline md::index_t most_windows(std::vector<md::token_grid> const& grids, md::window_shape window) {
  md::index_t most = 0;
  for (md::token_grid const& grid : grids) { most = std::max(most, window.windows(grid)); }
  return most;
}

/// The grids as an argument.
class grids_argument : public tensor<md::token_grid, 1> {
 public:
  grids_argument(call& of, input& in, std::vector<md::token_grid> const& grids)
      : tensor(of, in, "grids", role::in, last_axis::dense, static_cast<md::index_t>(grids.size())) {
    for (std::size_t s = 0; s < grids.size(); ++s) { (*this)(static_cast<md::index_t>(s)) = grids[s]; }
  }
};

}  // namespace fuzz
