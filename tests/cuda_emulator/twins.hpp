// SPDX-License-Identifier: Apache-2.0
#pragma once

// Pairs of programs that differ in one bug. Each returns whether all that it computed, and every code that it got, was right.

#include <vector>

#include <mustdrop/cuda/launch.cuh>

namespace twins {

using mustdrop::cuda::launch;

enum class made { right, wrong };

using ints = std::vector<int>;

constexpr int threads = 64, blocks = 8;
constexpr unsigned all_lanes = 0xffffffffu;
using shared_ints = int[threads];

__device__ inline int thread_number() { return static_cast<int>(threadIdx.x); }
__device__ inline unsigned place_in_grid() { return blockIdx.x * blockDim.x + threadIdx.x; }

using kernel = void (*)(int*);

/// What a kernel of these many threads writes into as many numbers; nothing if it did not end well.
inline ints run(kernel function, unsigned grid = blocks, unsigned block = threads) {
  ints out(blocks * threads, -7);
  return launch(function, grid, block, 0, nullptr, out.data()) == cudaSuccess ? out : ints{};
}

/// f(block, thread) for each of them.
template <class F>
ints each(F const& f) {
  ints all;
  for (int i = 0; i < blocks * threads; ++i) { all.push_back(f(i / threads, i % threads)); }
  return all;
}

}  // namespace twins
