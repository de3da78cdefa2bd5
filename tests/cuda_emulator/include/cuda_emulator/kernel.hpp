// SPDX-License-Identifier: Apache-2.0
#pragma once

// What a kernel sees of the device: its indices, shared memory, barriers, shuffles and votes. Names and rules are CUDA's, read strictly:
// what CUDA calls undefined is reported (see README.md).

#include <cstddef>
#include <cstdint>
#include <cstring>

#include <cuda_runtime.h>

namespace cuda_emulator {

/// A line of a kernel's source. Operations meet only where their lines are the same.
struct code_line {
  char const* file;
  int line;
  static constexpr code_line here(char const* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }
};

enum class barrier_result : std::uint8_t { none, count, all, any };
enum class warp_operation : std::uint8_t { barrier, shuffle, ballot };

/// Waits for every thread of the block.
int block_barrier(barrier_result result, bool predicate, code_line at);

/// Waits for the lanes of `mask`. A ballot returns the lanes whose value is not 0, a shuffle the value of lane `source`.
std::uint64_t meet_warp(warp_operation what, unsigned mask, unsigned source, std::uint64_t value, code_line at);

unsigned lane() noexcept;

/// Where a shared variable of a kernel lies in the memory of a block.
struct shared_place {
  std::uint64_t block = 0;
  void* address = nullptr;
};
void* shared_memory(shared_place& place, std::size_t size, std::size_t alignment);
void* dynamic_shared_memory();

/// One of type T for each Name.
template <class Name, class T>
T& shared_variable() {
  static shared_place place;
  return *static_cast<T*>(shared_memory(place, sizeof(T), alignof(T)));
}

template <class T>
T shuffle(unsigned mask, T value, unsigned source, code_line at) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "the device shuffles 4 or 8 bytes");
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = meet_warp(warp_operation::shuffle, mask, source, bits, at);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

/// Reports a width that is no power of two up to 32.
void check_width(int width, code_line at);

}  // namespace cuda_emulator

// NOLINTBEGIN(readability-identifier-naming): CUDA's names
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

#undef __launch_bounds__
#define __launch_bounds__(...)

inline void __syncthreads(cuda_emulator::code_line at = cuda_emulator::code_line::here()) {
  cuda_emulator::block_barrier(cuda_emulator::barrier_result::none, false, at);
}
inline int __syncthreads_count(int predicate, cuda_emulator::code_line at = cuda_emulator::code_line::here()) {
  return cuda_emulator::block_barrier(cuda_emulator::barrier_result::count, predicate != 0, at);
}
inline int __syncthreads_and(int predicate, cuda_emulator::code_line at = cuda_emulator::code_line::here()) {
  return cuda_emulator::block_barrier(cuda_emulator::barrier_result::all, predicate != 0, at);
}
inline int __syncthreads_or(int predicate, cuda_emulator::code_line at = cuda_emulator::code_line::here()) {
  return cuda_emulator::block_barrier(cuda_emulator::barrier_result::any, predicate != 0, at);
}

inline void __syncwarp(unsigned mask = 0xffffffffu, cuda_emulator::code_line at = cuda_emulator::code_line::here()) {
  cuda_emulator::meet_warp(cuda_emulator::warp_operation::barrier, mask, 0, 0, at);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, cuda_emulator::code_line at = cuda_emulator::code_line::here()) {
  return static_cast<unsigned>(cuda_emulator::meet_warp(cuda_emulator::warp_operation::ballot, mask, 0, predicate != 0, at));
}
inline int __any_sync(unsigned mask, int predicate, cuda_emulator::code_line at = cuda_emulator::code_line::here()) {
  return __ballot_sync(mask, predicate, at) != 0;
}
inline int __all_sync(unsigned mask, int predicate, cuda_emulator::code_line at = cuda_emulator::code_line::here()) {
  return __ballot_sync(mask, predicate, at) == mask;
}

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, cuda_emulator::code_line at = cuda_emulator::code_line::here()) {
  cuda_emulator::check_width(width, at);
  auto const low = static_cast<unsigned>(width - 1);
  return cuda_emulator::shuffle(mask, value, (cuda_emulator::lane() & ~low) | (static_cast<unsigned>(source) & low), at);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, cuda_emulator::code_line at = cuda_emulator::code_line::here()) {
  cuda_emulator::check_width(width, at);
  unsigned const lane = cuda_emulator::lane(), low = static_cast<unsigned>(width - 1);
  return cuda_emulator::shuffle(mask, value, (lane & low) < delta ? lane : lane - delta, at);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, cuda_emulator::code_line at = cuda_emulator::code_line::here()) {
  cuda_emulator::check_width(width, at);
  unsigned const lane = cuda_emulator::lane(), low = static_cast<unsigned>(width - 1);
  return cuda_emulator::shuffle(mask, value, (lane & low) + delta > low ? lane : lane + delta, at);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32, cuda_emulator::code_line at = cuda_emulator::code_line::here()) {
  cuda_emulator::check_width(width, at);
  unsigned const lane = cuda_emulator::lane(), low = static_cast<unsigned>(width - 1);
  unsigned const source = (lane ^ static_cast<unsigned>(lane_mask)) & 31;
  return cuda_emulator::shuffle(mask, value, source > (lane | low) ? lane : source, at);  // a group may read earlier groups, not later ones
}
// NOLINTEND(readability-identifier-naming)
