// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "recorder.hpp"

namespace recorder {

/// A segment for each grid.
inline batch of_grids(std::vector<md::token_grid> const& grids) {
  std::vector<std::int32_t> sizes;
  for (md::token_grid const& grid : grids) { sizes.push_back(static_cast<std::int32_t>(grid.tokens())); }
  return ragged(sizes);
}
inline md::tensor_view<md::token_grid const, 1> known(std::vector<md::token_grid> const& grids) {
  return md::view<md::token_grid const>(memory(grids), grids.size());
}

}  // namespace recorder
