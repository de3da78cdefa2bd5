// SPDX-License-Identifier: Apache-2.0
#pragma once

// Barriers of blocks and warps: forgotten, misplaced, not reached by all.

#include <cub/block/block_reduce.cuh>
#include <cub/block/block_scan.cuh>

#include "twins.hpp"

namespace twins {

template <made As>
__global__ void reverse(int* out) {
  MUSTDROP_SHARED(shared_ints, tile);
  tile[threadIdx.x] = thread_number();
  if constexpr (As == made::right) { __syncthreads(); }
  out[place_in_grid()] = tile[threads - 1 - threadIdx.x];
}
inline bool missing_barrier(made as) {
  return run(as == made::right ? reverse<made::right> : reverse<made::wrong>) == each([](int, int i) { return threads - 1 - i; });
}

/// Reads what the round before wrote, in two buffers in turn: one barrier a round is enough. Wrong: in one buffer.
template <made As>
__global__ void rotate(int* out) {
  using two_buffers = shared_ints[2];
  MUSTDROP_SHARED(two_buffers, buffers);
  int value = thread_number();
  for (int round = 0; round < 3; ++round) {
    int const buffer = As == made::right ? round % 2 : 0;
    buffers[buffer][threadIdx.x] = value;
    __syncthreads();
    value = buffers[buffer][(threadIdx.x + 1) % threads];
  }
  out[place_in_grid()] = value;
}
inline bool wrong_buffer(made as) {
  return run(as == made::right ? rotate<made::right> : rotate<made::wrong>) == each([](int, int i) { return (i + 3) % threads; });
}

/// A shuffle between the write and the read orders nothing.
template <made As>
__global__ void swap_neighbours(int* out) {
  MUSTDROP_SHARED(shared_ints, tile);
  tile[threadIdx.x] = thread_number();
  if constexpr (As == made::right) { __syncwarp(); }
  int const zero = __shfl_xor_sync(all_lanes, 0, 1);
  out[place_in_grid()] = tile[threadIdx.x ^ 1u] + zero;
}
inline bool missing_warp_barrier(made as) {
  return run(as == made::right ? swap_neighbours<made::right> : swap_neighbours<made::wrong>) == each([](int, int i) { return i ^ 1; });
}

/// One lane tells another. They meet twice, which says nothing of what lies between.
template <made As>
__global__ void tell_one(int* out) {
  MUSTDROP_SHARED(int, message);
  if (threadIdx.x == 0) { message = 5; }
  if constexpr (As == made::right) { __syncwarp(3); }
  int const zero = __shfl_xor_sync(3, 0, 1);
  if (threadIdx.x == 1) { out[0] = message + zero; }
}
inline bool message_without_barrier(made as) {
  return run(as == made::right ? tell_one<made::right> : tell_one<made::wrong>, 1, 2) ==
         each([](int b, int i) { return b == 0 && i == 0 ? 5 : -7; });
}

/// Reverses each half of a warp, with a barrier for each half. Wrong: reverses the warp.
template <made As>
__global__ void reverse_halves(int* out) {
  MUSTDROP_SHARED(shared_ints, tile);
  tile[threadIdx.x] = thread_number();
  __syncwarp((threadIdx.x & 16u) == 0 ? 0x0000ffffu : 0xffff0000u);
  out[place_in_grid()] = tile[threadIdx.x ^ (As == made::right ? 15u : 31u)];
}
inline bool barrier_of_other_lanes(made as) {
  return run(as == made::right ? reverse_halves<made::right> : reverse_halves<made::wrong>) ==
         each([as](int, int i) { return i ^ (as == made::right ? 15 : 31); });
}

template <made As>
__global__ void scan_twice(int* out) {
  using scan = cub::BlockScan<int, threads>;
  MUSTDROP_SHARED(scan::TempStorage, storage);
  int before = 0, before_that = 0;
  scan(storage).ExclusiveSum(1, before);
  if constexpr (As == made::right) { __syncthreads(); }
  scan(storage).ExclusiveSum(before, before_that);
  out[place_in_grid()] = before_that;
}
inline bool scan_storage_in_use(made as) {
  return run(as == made::right ? scan_twice<made::right> : scan_twice<made::wrong>) == each([](int, int i) { return i * (i - 1) / 2; });
}

template <made As>
__global__ void reduce_twice(int* out) {
  using reduce = cub::BlockReduce<int, threads>;
  MUSTDROP_SHARED(reduce::TempStorage, storage);
  int const count = reduce(storage).Sum(1);
  if constexpr (As == made::right) { __syncthreads(); }
  int const most = reduce(storage).Reduce(thread_number(), [](int a, int b) { return a < b ? b : a; });
  if (threadIdx.x == 0) { out[blockIdx.x] = count + most; }
}
inline bool reduce_storage_in_use(made as) {
  return run(as == made::right ? reduce_twice<made::right> : reduce_twice<made::wrong>) ==
         each([](int b, int i) { return b == 0 && i < blocks ? 2 * threads - 1 : -7; });
}

template <made As>
__global__ void two_ways(int* out) {
  if (As == made::right || threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[place_in_grid()] = 1;
}
inline bool divergent_barrier(made as) {
  return run(as == made::right ? two_ways<made::right> : two_ways<made::wrong>) == each([](int, int) { return 1; });
}

/// A device of today would let the others go on. PTX does not promise it, and no kernel needs it.
template <made As>
__global__ void leave_early(int* out) {
  bool const useless = threadIdx.x >= 40;
  if (As == made::wrong && useless) { return; }
  __syncthreads();
  if (!useless) { out[place_in_grid()] = 1; }
}
inline bool barrier_after_return(made as) {
  return run(as == made::right ? leave_early<made::right> : leave_early<made::wrong>) == each([](int, int i) { return i < 40 ? 1 : -7; });
}

/// 100 items by blocks of 64 threads. Wrong: threads that have no second item do not meet the others.
template <made As>
__global__ void two_rounds(int* out) {
  MUSTDROP_SHARED(shared_ints, tile);
  int sum = 0;
  for (unsigned i = As == made::right ? 0 : threadIdx.x; i < 100; i += threads) {
    tile[threadIdx.x] = 1;
    __syncthreads();
    sum += tile[threads - 1 - threadIdx.x];
    __syncthreads();
  }
  out[place_in_grid()] = sum;
}
inline bool unequal_rounds(made as) {
  return run(as == made::right ? two_rounds<made::right> : two_rounds<made::wrong>) == each([](int, int) { return 2; });
}

/// The same for a warp: votes on 40 items by 32 lanes.
template <made As>
__global__ void vote_in_rounds(int* out) {
  int votes = 0;
  for (unsigned i = As == made::right ? 0 : threadIdx.x % 32; i < 40; i += 32) { votes += __popc(__ballot_sync(all_lanes, 1)); }
  out[place_in_grid()] = votes;
}
inline bool unequal_votes(made as) {
  return run(as == made::right ? vote_in_rounds<made::right> : vote_in_rounds<made::wrong>) == each([](int, int) { return 64; });
}

/// A sum over 16 lanes. Wrong: the mask names all.
template <made As>
__global__ void fold_half(int* out) {
  if (threadIdx.x % 32 >= 16) { return; }
  int sum = 1;
  for (int step = 8; step > 0; step /= 2) { sum += __shfl_xor_sync(As == made::right ? 0xffffu : all_lanes, sum, step, 16); }
  out[place_in_grid()] = sum;
}
inline bool mask_of_returned_lanes(made as) {
  return run(as == made::right ? fold_half<made::right> : fold_half<made::wrong>) == each([](int, int i) { return i % 32 < 16 ? 16 : -7; });
}

/// Wrong: without a width of 16, lane 8 reads lane 16.
template <made As>
__global__ void shift_half(int* out) {
  if (threadIdx.x % 32 >= 16) { return; }
  out[place_in_grid()] = __shfl_down_sync(0xffffu, thread_number(), 8, As == made::right ? 16 : 32);
}
inline bool shuffle_beyond_mask(made as) {
  return run(as == made::right ? shift_half<made::right> : shift_half<made::wrong>) == each([](int, int i) {
           return i % 32 < 8 ? i + 8 : i % 32 < 16 ? i : -7;
         });
}

template <made As>
__global__ void ask_others(int* out) {
  unsigned const others = As == made::right ? all_lanes : all_lanes & ~(1u << threadIdx.x % 32);
  out[place_in_grid()] = __any_sync(others, 1);
}
inline bool mask_without_caller(made as) {
  return run(as == made::right ? ask_others<made::right> : ask_others<made::wrong>) == each([](int, int) { return 1; });
}

/// Blocks of 48 threads have half a warp at their end.
template <made As>
__global__ void count_warp(int* out) {
  unsigned const lanes = As == made::right && threadIdx.x >= 32 ? 0xffffu : all_lanes;
  out[blockIdx.x * threads + threadIdx.x] = __popc(__ballot_sync(lanes, 1));
}
inline bool mask_beyond_block(made as) {
  return run(as == made::right ? count_warp<made::right> : count_warp<made::wrong>, blocks, 48) == each([](int, int i) {
           return i < 32 ? 32 : i < 48 ? 16 : -7;
         });
}

/// A barrier of the warp that half of it waits for elsewhere.
template <made As>
__global__ void split_warp(int* out) {
  if (As == made::wrong && threadIdx.x % 2 == 1) {
    __syncwarp();
  } else {
    __syncwarp();
  }
  out[place_in_grid()] = 1;
}
inline bool divergent_warp(made as) {
  return run(as == made::right ? split_warp<made::right> : split_warp<made::wrong>) == each([](int, int) { return 1; });
}

}  // namespace twins
