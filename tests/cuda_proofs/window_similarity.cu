// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include <mustdrop/cuda/window_similarity.cuh>
#include <mustdrop/window_similarity.hpp>

#include "grids.hpp"

namespace recorder {
namespace {

template <class T>
void one(std::string const& title, md::window_shape window, std::vector<md::token_grid> const& grids, int dim) {
  begin(title);
  batch const b = of_grids(grids);
  md::index_t windows = 0;
  for (md::token_grid const& grid : grids) { windows = std::max(windows, window.windows(grid)); }
  check(md::window_similarity(md::cuda::backend<>{}, window, md::view<T const>(memory<T>(), b.tokens, dim), b.cut, known(grids),
                              md::view(memory<float>(), grids.size(), windows), {memory<char>(), room}));
}

}  // namespace

void calls() {
  md::window_shape const two{1, 2}, four{2, 2}, nine{3, 3}, many{5, 5};
  for (int const dim : {1, 31, 32, 33, 63, 64, 65, 129}) {  // 2 warps
    one<float>("a window of 1x2, " + std::to_string(dim) + " f32", two, {{1, 2}}, dim);
  }
  for (int const dim : {252, 256, 260, 516}) { one<float>("a window of 1x2, " + std::to_string(dim) + " f32", two, {{1, 2}}, dim); }
  one<float>("4 windows of 2x2, 64 f32", four, {{5, 4}}, 64);
  one<float>("2 windows of 3x3, 64 f32", nine, {{3, 7}}, 64);
  one<float>("a window of 5x5, 33 f32", many, {{5, 5}}, 33);
  one<float>("a window of 2x2 in 2 frames, 33 f32", {2, 2, 2}, {{2, 2, 2}}, 33);
  one<md::half>("2 windows of 2x2, 64 f16", four, {{2, 4}}, 64);
  one<md::half>("2 windows of 2x2, 33 f16", four, {{2, 4}}, 33);
  one<md::bfloat16>("2 windows of 2x2, 64 bf16", four, {{2, 4}}, 64);
  one<md::bfloat16>("2 windows of 2x2, 33 bf16", four, {{2, 4}}, 33);
  one<float>("grids of 2x4 1x1 4x2, 33 f32", four, {{2, 4}, {1, 1}, {4, 2}}, 33);
}

}  // namespace recorder
