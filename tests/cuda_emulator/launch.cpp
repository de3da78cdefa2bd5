// SPDX-License-Identifier: Apache-2.0
#include "launch.hpp"

#include <algorithm>
#include <cuda_emulator/kernel.hpp>
#include <numeric>
#include <utility>
#include <vector>

#include "block.hpp"
#include "shared_memory.hpp"

namespace cuda_emulator {
namespace {

/// Neighbours race most often, and TSan sees races of blocks that run soon after one another: two orders in three are a walk up or down from
/// somewhere, the third is no order.
std::vector<unsigned> order_of_blocks(unsigned count) {
  std::vector<unsigned> blocks(count);
  std::iota(blocks.begin(), blocks.end(), 0u);
  unsigned const kind = random_below(3);
  if (kind == 0) {
    for (unsigned i = count; i > 1; --i) { std::swap(blocks[i - 1], blocks[random_below(i)]); }
    return blocks;
  }
  if (kind == 1) { std::reverse(blocks.begin(), blocks.end()); }
  std::rotate(blocks.begin(), blocks.begin() + random_below(count), blocks.end());
  return blocks;
}

}  // namespace

cudaError_t check(launch_shape const& shape) noexcept {
  dim3 const& grid = shape.grid;
  dim3 const& block = shape.block;
  bool const grid_fits = grid.x >= 1 && grid.x <= 0x7fffffff && grid.y >= 1 && grid.y <= 65535 && grid.z >= 1 && grid.z <= 65535;
  bool const sides_fit = block.x >= 1 && block.x <= 1024 && block.y >= 1 && block.y <= 1024 && block.z >= 1 && block.z <= 64;
  if (!grid_fits || !sides_fit || block.x * block.y * block.z > most_threads) { return cudaErrorInvalidConfiguration; }
  return shape.dynamic_shared > most_shared_memory ? cudaErrorInvalidValue : cudaSuccess;
}

cudaError_t run_kernel(launch_shape const& shape, std::function<void()> const& body) {
  begin_kernel(shape.block, body);
  set_dynamic_shared_memory(shape.dynamic_shared);
  gridDim = shape.grid;
  bool good = true;
  for (unsigned const block : order_of_blocks(gridDim.x * gridDim.y * gridDim.z)) {
    blockIdx = {block % gridDim.x, block / gridDim.x % gridDim.y, block / (gridDim.x * gridDim.y)};
    good = run_block();
    if (!good) { break; }
  }
  end_kernel();
  return good ? cudaSuccess : cudaErrorLaunchFailure;
}

}  // namespace cuda_emulator
