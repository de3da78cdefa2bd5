// SPDX-License-Identifier: Apache-2.0
#pragma once

// Memory: of other blocks, beyond the end, misaligned, never written, too much.

#include "twins.hpp"

namespace twins {

template <made As>
__global__ void one_each(int* out) {
  if (threadIdx.x == 0) { out[As == made::right ? blockIdx.x : 0] = 1; }
}
inline bool blocks_write_one_place(made as) {
  return run(as == made::right ? one_each<made::right> : one_each<made::wrong>) ==
         each([as](int b, int i) { return b == 0 && i < (as == made::right ? blocks : 1) ? 1 : -7; });
}

/// Barriers order the threads of a block, and no two blocks.
template <made As>
__global__ void pass_on(int* out) {
  if (blockIdx.x == 0 && threadIdx.x == 0) { out[0] = 1; }
  __syncthreads();
  unsigned const from = As == made::right ? blockIdx.x : 0;
  if (threadIdx.x == 1) { out[blockIdx.x * threads + 1] = out[from * threads] == 1 ? 2 : 3; }
}
inline bool block_reads_other(made as) {
  ints const got = run(as == made::right ? pass_on<made::right> : pass_on<made::wrong>, 2);
  return got == each([](int b, int i) { return i == 0 && b == 0 ? 1 : i == 1 && b < 2 ? 3 - (b == 0) : -7; });
}

/// Moves everything one place down, in place. Wrong: block b reads what block b + 1 writes.
template <made As>
__global__ void move_down(int* data) {
  unsigned const first = blockIdx.x * threads;
  bool const moves = threadIdx.x + 1 < threads || (As == made::wrong && blockIdx.x + 1 < gridDim.x);
  int const value = moves ? data[first + threadIdx.x + 1] : 0;
  __syncthreads();
  if (moves) { data[first + threadIdx.x] = value; }
}
inline bool blocks_overlap(made as) {
  ints data = each([](int, int i) { return i; });
  auto const function = as == made::right ? move_down<made::right> : move_down<made::wrong>;
  if (launch(function, blocks, threads, 0, nullptr, data.data()) != cudaSuccess) { return false; }
  return as == made::wrong || data == each([](int, int i) { return i + 1 < threads ? i + 1 : i; });
}

template <made As>
__global__ void count_threads(int* out) {
  if constexpr (As == made::right) {
    atomicAdd(out, 1);
  } else {
    out[0] += 1;
  }
}
inline bool counter_is_not_atomic(made as) {
  return run(as == made::right ? count_threads<made::right> : count_threads<made::wrong>)[0] == -7 + blocks * threads;
}

template <made As>
__global__ void shift_in_shared(int* out) {
  MUSTDROP_SHARED(shared_ints, tile);
  int* const first = tile;
  first[As == made::right ? (threadIdx.x + 1) % threads : threadIdx.x + 1] = 1;
  out[place_in_grid()] = 1;
}
inline bool shared_overflow(made as) {
  return run(as == made::right ? shift_in_shared<made::right> : shift_in_shared<made::wrong>) == each([](int, int) { return 1; });
}

template <made>
__global__ void mark_in_dynamic_shared(int* out) {
  MUSTDROP_DYN_SHARED(char, marks);
  marks[threadIdx.x] = 1;
  out[place_in_grid()] = marks[threadIdx.x];
}
inline bool dynamic_shared_overflow(made as) {
  ints out(blocks * threads);
  cudaError_t const error =
      launch(mark_in_dynamic_shared<made::right>, blocks, threads, threads - (as == made::wrong), nullptr, out.data());
  return error == cudaSuccess && out == each([](int, int) { return 1; });
}

/// An array of a thread's own, on the stack that the emulator gave it.
template <made As>
__global__ void mark_own(int* out) {
  int volatile marks[4] = {};
  int volatile* const first = marks;
  first[As == made::right ? threadIdx.x % 4 : threadIdx.x % 5] = 1;
  out[place_in_grid()] = marks[0] + marks[1] + marks[2] + marks[3];
}
inline bool array_overflow(made as) {
  return run(as == made::right ? mark_own<made::right> : mark_own<made::wrong>) == each([](int, int) { return 1; });
}

/// Wrong: a grid of one block more.
template <made>
__global__ void fill(int* out) {
  out[place_in_grid()] = 1;
}
inline bool grid_too_large(made as) {
  return run(fill<made::right>, blocks + (as == made::wrong)) == each([](int, int) { return 1; });
}

/// 500 numbers by blocks of 64 threads.
template <made As>
__global__ void double_all(int const* in, int* out, unsigned count) {
  unsigned const i = place_in_grid();
  if (As == made::right && i >= count) { return; }
  out[i] = 2 * in[i];
}
inline bool unguarded_tail(made as) {
  ints const in(500, 1);
  ints out(500);
  auto const function = as == made::right ? double_all<made::right> : double_all<made::wrong>;
  return launch(function, blocks, threads, 0, nullptr, in.data(), out.data(), 500u) == cudaSuccess && out == ints(500, 2);
}

__global__ inline void load_four(int const* in, int* out) {
  int4 const four = reinterpret_cast<int4 const*>(in)[threadIdx.x];
  out[threadIdx.x] = four.x + four.y + four.z + four.w;
}
inline bool misaligned_load(made as) {
  alignas(16) int in[4 * 16 + 1];
  for (int& one : in) { one = 1; }
  ints out(16);
  return launch(load_four, 1, 16, 0, nullptr, in + (as == made::wrong), out.data()) == cudaSuccess && out == ints(16, 4);
}

/// Shared variables are aligned as their type says.
template <made As>
__global__ void load_four_shared(int* out) {
  struct alignas(As == made::right ? 16 : 4) tile {
    int values[4 * threads];
  };
  MUSTDROP_SHARED(tile, shared);
  for (unsigned i = threadIdx.x; i < 4 * threads; i += threads) { shared.values[i] = 1; }
  __syncthreads();
  int4 const four = reinterpret_cast<int4 const*>(shared.values)[threadIdx.x];
  out[place_in_grid()] = four.x + four.y + four.z + four.w;
}
inline bool misaligned_shared_load(made as) {
  return run(as == made::right ? load_four_shared<made::right> : load_four_shared<made::wrong>) == each([](int, int) { return 4; });
}

/// A sum of flags, of which one thread in two sets its own.
template <made As>
__global__ void count_flags(int* out) {
  MUSTDROP_SHARED(shared_ints, flags);
  if constexpr (As == made::right) {
    flags[threadIdx.x] = 0;
    __syncwarp();
  }
  if (threadIdx.x % 2 == 0) { flags[threadIdx.x] = 1; }
  __syncthreads();
  int sum = 0;
  for (int const flag : flags) { sum += flag; }
  out[place_in_grid()] = sum;
}
inline bool shared_never_written(made as) {
  return run(as == made::right ? count_flags<made::right> : count_flags<made::wrong>) == each([](int, int) { return threads / 2; });
}

template <made As>
__global__ void use_much(int* out) {
  using much = char[As == made::right ? 32 * 1024 : 32 * 1024 + 1];
  MUSTDROP_SHARED(much, first);
  using less = char[16 * 1024];
  MUSTDROP_SHARED(less, second);
  first[threadIdx.x] = second[threadIdx.x] = 1;
  out[place_in_grid()] = first[threadIdx.x] + second[threadIdx.x];
}
inline bool too_much_shared(made as) {
  return run(as == made::right ? use_much<made::right> : use_much<made::wrong>) == each([](int, int) { return 2; });
}

}  // namespace twins
