// SPDX-License-Identifier: Apache-2.0
#pragma once

// Stands in for CUB's BlockReduce on blocks of one dimension, with its names and its duties: all threads call it, only thread 0 has the
// result, and its storage may be used again only behind a barrier.

#include <cuda_emulator/kernel.hpp>
#include <type_traits>

namespace cub {

// NOLINTBEGIN(readability-identifier-naming): CUB's names
enum BlockReduceAlgorithm { BLOCK_REDUCE_RAKING_COMMUTATIVE_ONLY, BLOCK_REDUCE_RAKING, BLOCK_REDUCE_WARP_REDUCTIONS };

template <class T, int Threads, BlockReduceAlgorithm = BLOCK_REDUCE_WARP_REDUCTIONS>
class BlockReduce {
 public:
  struct TempStorage {
    T values[Threads];
  };

  explicit BlockReduce(TempStorage& storage) : storage_(storage) {}

  /// `reduce` must not care for order: CUB's is another.
  template <class Reduction>
  T Reduce(T value, Reduction reduce, int valid_threads, cuda_emulator::code_line at = cuda_emulator::code_line::here()) {
    static_assert(Threads <= 1024, "a block has at most 1024 threads");
    storage_.values[threadIdx.x] = value;
    __syncthreads(at);
    T result;
    std::memset(static_cast<void*>(&result), 0xff, sizeof result);
    if (threadIdx.x == 0) {
      result = storage_.values[valid_threads - 1];
      for (int i = valid_threads - 2; i >= 0; --i) { result = reduce(result, storage_.values[i]); }
    }
    return result;
  }
  template <class Reduction>
  T Reduce(T value, Reduction reduce, cuda_emulator::code_line at = cuda_emulator::code_line::here()) {
    return Reduce(value, reduce, Threads, at);
  }
  T Sum(T value, int valid_threads, cuda_emulator::code_line at = cuda_emulator::code_line::here()) {
    static_assert(std::is_integral_v<T>, "a sum of floats would depend on CUB's order");
    return Reduce(
        value, [](T a, T b) { return static_cast<T>(a + b); }, valid_threads, at);
  }
  T Sum(T value, cuda_emulator::code_line at = cuda_emulator::code_line::here()) { return Sum(value, Threads, at); }

 private:
  TempStorage& storage_;
};
// NOLINTEND(readability-identifier-naming)

}  // namespace cub
