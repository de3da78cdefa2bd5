// SPDX-License-Identifier: Apache-2.0
#pragma once

// Stands in for CUB's BlockScan on blocks of one dimension, with its names and its duties: all threads call it, and its storage may be used
// again only behind a barrier. Where each prefix is left, some other thread writes next, so forgetting that barrier is a race.

#include <cuda_emulator/kernel.hpp>
#include <type_traits>

namespace cub {

// NOLINTBEGIN(readability-identifier-naming): CUB's names
enum BlockScanAlgorithm { BLOCK_SCAN_RAKING, BLOCK_SCAN_RAKING_MEMOIZE, BLOCK_SCAN_WARP_SCANS };

template <class T, int Threads, BlockScanAlgorithm = BLOCK_SCAN_RAKING>
class BlockScan {
  static_assert(std::is_integral_v<T>, "a sum of floats would depend on CUB's order");

 public:
  struct TempStorage {
    T values[Threads + 1];
  };

  explicit BlockScan(TempStorage& storage) : storage_(storage) {}

  void ExclusiveSum(T value, T& prefix, T& sum, cuda_emulator::code_line at = cuda_emulator::code_line::here()) {
    static_assert(Threads <= 1024, "a block has at most 1024 threads");
    storage_.values[threadIdx.x] = value;
    __syncthreads(at);
    if (threadIdx.x == 0) { add_up(); }
    __syncthreads(at);
    prefix = storage_.values[(threadIdx.x + 1) % Threads];
    sum = storage_.values[Threads];
  }
  void ExclusiveSum(T value, T& prefix, cuda_emulator::code_line at = cuda_emulator::code_line::here()) {
    T sum;
    ExclusiveSum(value, prefix, sum, at);
  }
  void InclusiveSum(T value, T& prefix, T& sum, cuda_emulator::code_line at = cuda_emulator::code_line::here()) {
    ExclusiveSum(value, prefix, sum, at);
    prefix = static_cast<T>(prefix + value);
  }
  void InclusiveSum(T value, T& prefix, cuda_emulator::code_line at = cuda_emulator::code_line::here()) {
    T sum;
    InclusiveSum(value, prefix, sum, at);
  }

 private:
  /// The prefix of thread i goes where thread i + 1 has left its value.
  void add_up() {
    T sum{};
    T value = storage_.values[0];
    for (int i = 0; i < Threads; ++i) {
      int const place = (i + 1) % Threads;
      T const next = storage_.values[place];
      storage_.values[place] = sum;
      sum = static_cast<T>(sum + value);
      value = next;
    }
    storage_.values[Threads] = sum;
  }

  TempStorage& storage_;
};
// NOLINTEND(readability-identifier-naming)

}  // namespace cub
