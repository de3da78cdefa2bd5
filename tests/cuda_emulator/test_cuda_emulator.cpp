// SPDX-License-Identifier: Apache-2.0

// That the emulator does what CUDA's guide says: indices, barriers, shuffles, votes, shared memory, launches, streams, scalar functions.

#include <gtest/gtest.h>

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cub/block/block_reduce.cuh>
#include <cub/block/block_scan.cuh>
#include <cuda_emulator/machine.hpp>
#include <numeric>
#include <set>
#include <vector>

#include <mustdrop/cuda/launch.cuh>

#include "sanitizers.hpp"

namespace {

using mustdrop::cuda::launch;
using ints = std::vector<int>;
constexpr unsigned all_lanes = 0xffffffffu;

ints counted(int n) {
  ints all(static_cast<std::size_t>(n));
  std::iota(all.begin(), all.end(), 0);
  return all;
}

/// f(lane) of each lane of a warp, in the kernel.
template <class F>
__global__ void each_lane_kernel(F f, int* out) {
  out[threadIdx.x] = f(static_cast<int>(threadIdx.x));
}
template <class F>
ints each_lane(F const& f, unsigned lanes = 32) {
  ints out(lanes);
  EXPECT_EQ(launch(each_lane_kernel<F>, 1, lanes, 0, nullptr, f, out.data()), cudaSuccess);
  return out;
}

// Indices

__global__ void index_kernel(uint3* threads, uint3* blocks, int* lanes) {
  unsigned const thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  unsigned const block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  unsigned const i = block * (blockDim.x * blockDim.y * blockDim.z) + thread;
  threads[i] = threadIdx;
  blocks[i] = blockIdx;
  lanes[i] = __popc(__ballot_sync(thread < 32 ? all_lanes : 0xffffu, 1));
}

TEST(Indices, CountXFirstInGridBlockAndWarp) {
  dim3 const grid(3, 2, 2), block(4, 6, 2);  // 48 threads: a warp and half of one
  std::vector<uint3> threads(12 * 48), blocks(threads.size());
  ints lanes(threads.size());
  ASSERT_EQ(launch(index_kernel, grid, block, 0, nullptr, threads.data(), blocks.data(), lanes.data()), cudaSuccess);
  for (unsigned i = 0; i < threads.size(); ++i) {
    unsigned const t = i % 48, b = i / 48;
    EXPECT_EQ((ints{int(threads[i].x), int(threads[i].y), int(threads[i].z)}), (ints{int(t % 4), int(t / 4 % 6), int(t / 24)}));
    EXPECT_EQ((ints{int(blocks[i].x), int(blocks[i].y), int(blocks[i].z)}), (ints{int(b % 3), int(b / 3 % 2), int(b / 6)}));
    EXPECT_EQ(lanes[i], t < 32 ? 32 : 16);
  }
}

// Barriers

__global__ void predicate_kernel(int const* predicates, int* out) {
  int const mine = predicates[threadIdx.x];
  out[threadIdx.x] = __syncthreads_count(mine) * 4 + (__syncthreads_or(mine) != 0) * 2 + (__syncthreads_and(mine) != 0);
}

TEST(Barriers, CountAndJudgePredicates) {
  struct {
    ints predicates;
    int expected;
  } const cases[] = {{ints(70, 0), 0}, {ints(70, 5), 4 * 70 + 2 + 1}, {counted(70), 4 * 69 + 2}};
  for (auto const& [predicates, expected] : cases) {
    ints out(70);
    ASSERT_EQ(launch(predicate_kernel, 1, 70, 0, nullptr, predicates.data(), out.data()), cudaSuccess);
    EXPECT_EQ(out, ints(70, expected));
  }
}

// Shuffles and votes

TEST(Shuffles, ReadTheLaneOfTheirGroup) {
  for (int const width : {1, 2, 8, 32}) {
    for (int const by : {0, 1, 3, 9}) {
      EXPECT_EQ(each_lane([=](int lane) { return __shfl_sync(all_lanes, lane, by, width); }), [&] {
        ints expected;
        for (int lane = 0; lane < 32; ++lane) { expected.push_back(lane / width * width + by % width); }
        return expected;
      }());
      EXPECT_EQ(each_lane([=](int lane) { return __shfl_up_sync(all_lanes, lane, static_cast<unsigned>(by), width); }), [&] {
        ints expected;
        for (int lane = 0; lane < 32; ++lane) { expected.push_back(lane % width >= by ? lane - by : lane); }
        return expected;
      }());
      EXPECT_EQ(each_lane([=](int lane) { return __shfl_down_sync(all_lanes, lane, static_cast<unsigned>(by), width); }), [&] {
        ints expected;
        for (int lane = 0; lane < 32; ++lane) { expected.push_back(lane % width + by < width ? lane + by : lane); }
        return expected;
      }());
      EXPECT_EQ(each_lane([=](int lane) { return __shfl_xor_sync(all_lanes, lane, by, width); }), [&] {
        ints expected;  // of its own group or an earlier one
        for (int lane = 0; lane < 32; ++lane) { expected.push_back((lane ^ by) / width <= lane / width ? lane ^ by : lane); }
        return expected;
      }());
    }
  }
}

TEST(Shuffles, KeepEveryBit) {
  EXPECT_EQ(each_lane([](int lane) { return __shfl_xor_sync(all_lanes, lane == 7 ? -0.0f : 1.0f, 7) == 0.0f ? 1 : 0; })[0], 1);
  EXPECT_EQ(each_lane([](int lane) { return __shfl_sync(all_lanes, (lane + 1LL) << 40, 5) == 6LL << 40; }), ints(32, 1));
}

TEST(Votes, KnowTheLanesOfTheirMask) {
  EXPECT_EQ(each_lane([](int lane) { return static_cast<int>(__ballot_sync(all_lanes, lane % 3 == 0)); }), ints(32, 0x49249249));
  EXPECT_EQ(each_lane([](int lane) { return __any_sync(all_lanes, lane == 31); }), ints(32, 1));
  EXPECT_EQ(each_lane([](int) { return __any_sync(all_lanes, 0); }), ints(32, 0));
  EXPECT_EQ(each_lane([](int lane) { return __all_sync(lane < 16 ? 0xffffu : 0xffff0000u, lane < 16); }), [] {
    ints expected(32, 0);
    std::fill_n(expected.begin(), 16, 1);
    return expected;
  }());
  EXPECT_EQ(each_lane([](int lane) { return __popc(__ballot_sync((1u << 20) - 1, lane % 2)); }, 20), ints(20, 10));
}

// Shared memory

struct pair_of_numbers {
  double a;
  float b;
};

template <int Which>
__device__ int* shared_of(bool first) {
  MUSTDROP_SHARED(int, one);
  if (first) { one = Which; }
  return &one;
}

__global__ void shared_kernel(int* out) {
  MUSTDROP_SHARED(char, before);
  MUSTDROP_SHARED(pair_of_numbers, numbers);
  MUSTDROP_DYN_SHARED(int, dynamic);
  bool const first = threadIdx.x == 0;
  int const* const here = shared_of<1>(first);
  int const* const again = shared_of<1>(false);
  int const* const other = shared_of<2>(first);
  if (first) {
    before = 1;
    numbers = {1, 2};
  }
  dynamic[threadIdx.x] = 1;
  __syncthreads();
  int const place = static_cast<int>(reinterpret_cast<std::uintptr_t>(&numbers) % 16);
  out[threadIdx.x] = (here == again) + 2 * (*here == 1 && *other == 2) + 4 * place + 64 * dynamic[31 - threadIdx.x] + before;
}

TEST(SharedMemory, IsOneForABlockAndAlignedAsAskedAndNoBetter) {
  ints out(32);
  ASSERT_EQ(launch(shared_kernel, 1, 32, 32 * sizeof(int), nullptr, out.data()), cudaSuccess);
  EXPECT_EQ(out, ints(32, 1 + 2 + 4 * 8 + 64 + 1));
}

// CUB

template <int Threads>
__global__ void collective_kernel(int* out) {
  using scan = cub::BlockScan<int, Threads>;
  using reduce = cub::BlockReduce<int, Threads>;
  using scan_storage = typename scan::TempStorage;
  using reduce_storage = typename reduce::TempStorage;
  MUSTDROP_SHARED(scan_storage, of_scan);
  MUSTDROP_SHARED(reduce_storage, of_reduce);
  int const value = static_cast<int>(threadIdx.x) % 5 - 1;
  int before = 0, sum = 0, most = 0, with_own = 0;
  scan(of_scan).ExclusiveSum(value, before, sum);
  __syncthreads();
  scan(of_scan).InclusiveSum(value, with_own);
  most = reduce(of_reduce).Reduce(value, [](int a, int b) { return a < b ? b : a; });
  __syncthreads();
  int const of_three = reduce(of_reduce).Sum(value, 3);
  out[threadIdx.x] = before + 1000 * (with_own - before);
  if (threadIdx.x == 0) {
    out[Threads] = sum;
    out[Threads + 1] = most;
    out[Threads + 2] = of_three;
  }
}

template <int Threads>
void test_collectives() {
  ints out(Threads + 3), expected;
  ASSERT_EQ(launch(collective_kernel<Threads>, 1, Threads, 0, nullptr, out.data()), cudaSuccess);
  int sum = 0;
  for (int i = 0; i < Threads; ++i) {
    expected.push_back(sum + 1000 * (i % 5 - 1));
    sum += i % 5 - 1;
  }
  expected.insert(expected.end(), {sum, 3, 0});
  EXPECT_EQ(out, expected);
}

TEST(Cub, CollectivesHaveItsResults) {
  test_collectives<32>();
  test_collectives<96>();
  test_collectives<1024>();
}

// Launches

__global__ void nothing_kernel() {}
__global__ void misplaced_barrier_kernel() {
  if (threadIdx.x == 0) { __syncthreads(); }
}

TEST(Launches, HaveTheLimitsOfEveryDevice) {
  auto const code = [](dim3 grid, dim3 block, std::size_t shared) { return launch(nothing_kernel, grid, block, shared, nullptr); };
  EXPECT_EQ(code(1, 1024, 48 * 1024), cudaSuccess);
  EXPECT_EQ(code(1, dim3(8, 2, 64), 0), cudaSuccess);
  for (dim3 const grid : {dim3(0), dim3(1, 0), dim3(1, 1, 0), dim3(1, 65536), dim3(1, 1, 65536), dim3(0x80000000u)}) {
    EXPECT_EQ(code(grid, 1, 0), cudaErrorInvalidConfiguration);
  }
  for (dim3 const block : {dim3(0), dim3(1025), dim3(1, 1025), dim3(1, 1, 65), dim3(32, 33), dim3(1024, 1024, 64)}) {
    EXPECT_EQ(code(1, block, 0), cudaErrorInvalidConfiguration);
  }
  EXPECT_EQ(code(1, 1, 48 * 1024 + 1), cudaErrorInvalidValue);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidValue);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
}

TEST(Launches, GoOnAfterOneThatWentWrong) {
  for (int i = 0; i < 3; ++i) {
    testing::internal::CaptureStderr();
    EXPECT_EQ(launch(misplaced_barrier_kernel, 4, 64, 0, nullptr), cudaErrorLaunchFailure);
    std::string const said = testing::internal::GetCapturedStderr();
    EXPECT_NE(said.find("barrier after threads have returned: 1 wait"), std::string::npos) << said;
    EXPECT_NE(said.find("seed 1"), std::string::npos) << said;
    EXPECT_EQ(each_lane([](int lane) { return __shfl_sync(all_lanes, lane, 3); }), ints(32, 3));
  }
  EXPECT_EQ(cudaGetLastError(), cudaErrorLaunchFailure);
}

// Orders

__global__ void order_kernel(int* order, int* count) {
  int const turn = atomicAdd(count, 1);
  order[turn] = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
}
ints order_of_seed(std::uint64_t seed) {
  cuda_emulator::set_seed(seed);
  ints order(6 * 64);
  int count = 0;
  EXPECT_EQ(launch(order_kernel, 6, 64, 0, nullptr, order.data(), &count), cudaSuccess);
  cuda_emulator::set_seed(1);
  return order;
}

TEST(Orders, FollowFromTheSeed) {
  std::set<ints> orders;
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    ints order = order_of_seed(seed);
    EXPECT_EQ(order, order_of_seed(seed));
    orders.insert(order);
    std::sort(order.begin(), order.end());
    EXPECT_EQ(order, counted(6 * 64));
  }
  EXPECT_EQ(orders.size(), 50u);
}

__global__ void wait_kernel(int* out) {
  int const lane = __shfl_sync(all_lanes, static_cast<int>(threadIdx.x % 32), 0);
  __syncthreads();
  out[threadIdx.x] = lane;
}

TEST(Orders, AThreadThatNeverWaitsCostsNoSwitch) {
  auto const before = cuda_emulator::work();
  ASSERT_EQ(launch(nothing_kernel, 5, 256, 0, nullptr), cudaSuccess);
  auto const between = cuda_emulator::work();
  EXPECT_EQ(between.kernels - before.kernels, 1u);
  EXPECT_EQ(between.blocks - before.blocks, 5u);
  EXPECT_EQ(between.threads - before.threads, 5 * 256u);
  unsigned const stacks = cuda_emulator::watched_by_tsan() ? 256 : 1;  // TSan wants one for each thread
  EXPECT_EQ(between.switches - before.switches, 5 * (stacks + 1));     // to each of them, and back
  ints out(256);
  ASSERT_EQ(launch(wait_kernel, 1, 256, 0, nullptr, out.data()), cudaSuccess);
  EXPECT_LE(cuda_emulator::work().switches - between.switches, 3 * 256u);  // two waits, and where a thread returns
}

// Streams

__global__ void twice_kernel(int* x) { *x *= 2; }
__global__ void add_kernel(int* x) { *x += 1; }

struct Streams : testing::Test {
  Streams() { cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking); }
  ~Streams() override { cudaStreamDestroy(stream); }
  cudaStream_t stream = nullptr;
  int x = 3;
};

TEST_F(Streams, RunTheirWorkInOrderAndNotBeforeTheyAreWaitedFor) {
  EXPECT_EQ(launch(twice_kernel, 1, 1, 0, stream, &x), cudaSuccess);
  EXPECT_EQ(cudaMemcpyAsync(&x, &x, sizeof x, cudaMemcpyDefault, stream), cudaSuccess);
  EXPECT_EQ(launch(add_kernel, 1, 1, 0, stream, &x), cudaSuccess);
  EXPECT_EQ(x, 3);
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  EXPECT_EQ(x, 7);
  EXPECT_EQ(cudaMemsetAsync(&x, 0, sizeof x, stream), cudaSuccess);
  EXPECT_EQ(x, 7);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_EQ(x, 0);
}

TEST_F(Streams, TheNullStreamRunsAtOnceAndAfterTheStreamsThatWaitForIt) {
  cudaStream_t waiting = nullptr;
  ASSERT_EQ(cudaStreamCreate(&waiting), cudaSuccess);
  EXPECT_EQ(launch(twice_kernel, 1, 1, 0, stream, &x), cudaSuccess);
  EXPECT_EQ(launch(add_kernel, 1, 1, 0, waiting, &x), cudaSuccess);
  EXPECT_EQ(launch(twice_kernel, 1, 1, 0, nullptr, &x), cudaSuccess);
  EXPECT_EQ(x, 8);  // without the first
  EXPECT_EQ(cudaStreamDestroy(waiting), cudaSuccess);
  EXPECT_EQ(launch(add_kernel, 1, 1, 0, waiting, &x), cudaErrorInvalidResourceHandle);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidResourceHandle);
}

TEST_F(Streams, SayWhatWentWrongWhenTheyAreWaitedFor) {
  EXPECT_EQ(launch(misplaced_barrier_kernel, 1, 64, 0, stream), cudaSuccess);
  testing::internal::CaptureStderr();
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaErrorLaunchFailure);
  EXPECT_NE(testing::internal::GetCapturedStderr(), "");
  EXPECT_EQ(cudaGetLastError(), cudaErrorLaunchFailure);
}

TEST_F(Streams, ACallOfTheLibraryMayQueueOnItsStreamAndDoNothingElse) {
  testing::internal::CaptureStderr();
  {
    cuda_emulator::only_stream const call(stream);
    EXPECT_EQ(launch(add_kernel, 1, 1, 0, stream, &x), cudaSuccess);
    EXPECT_EQ(cuda_emulator::last_report().find("stream"), std::string::npos);
    EXPECT_EQ(launch(twice_kernel, 1, 1, 0, nullptr, &x), cudaErrorInvalidResourceHandle);
    EXPECT_EQ(cuda_emulator::last_report().find("wrong stream"), 0u);
    for (auto const not_for_it : {+[] { static_cast<void>(cudaDeviceSynchronize()); }, +[] { static_cast<void>(cudaGetLastError()); }}) {
      not_for_it();
      EXPECT_EQ(cuda_emulator::last_report().find("not for the library to do"), 0u);
    }
  }
  testing::internal::GetCapturedStderr();
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  EXPECT_EQ(x, 4);
}

// Scalar functions

TEST(ScalarFunctions, AreThoseOfTheDevice) {
  EXPECT_EQ(__clz(0), 32);
  EXPECT_EQ(__clz(1), 31);
  EXPECT_EQ(__clz(-1), 0);
  EXPECT_EQ(__clzll(0), 64);
  EXPECT_EQ(__ffs(0), 0);
  EXPECT_EQ(__ffs(8), 4);
  EXPECT_EQ(__ffsll(1LL << 40), 41);
  EXPECT_EQ(__popc(0xf0f0u), 8);
  EXPECT_EQ(__popcll(~0ull), 64);
  EXPECT_EQ(__umulhi(0x80000000u, 6), 3u);
  EXPECT_EQ(__float_as_int(-0.0f), INT_MIN);
  EXPECT_EQ(__float_as_uint(1.0f), 0x3f800000u);
  EXPECT_EQ(__uint_as_float(0x3f800000u), 1.0f);
  EXPECT_EQ(max(NAN, 1.0f), 1.0f);
  EXPECT_EQ(min(1.0f, NAN), 1.0f);
}

TEST(ScalarFunctions, RoundOnceAndAreNotFused) {
  float const a = 1 + 0x1p-12f, b = -1 - 0x1p-11f;  // a² = 1 + 2⁻¹¹ + 2⁻²⁴, whose last term a product of floats loses
  EXPECT_EQ(__fmaf_rn(a, a, b), 0x1p-24f);
  EXPECT_EQ(__fmul_rn(a, a) + b, 0.0f);
  EXPECT_EQ(__fadd_rn(__fmul_rn(a, a), b), 0.0f);
  EXPECT_EQ(__fdiv_rn(1, 3), 0x1.555556p-2f);
  EXPECT_EQ(__fsqrt_rn(2), 0x1.6a09e6p+0f);
}

TEST(ScalarFunctions, AtomicsReturnWhatWasThere) {
  int x = 5;
  EXPECT_EQ(atomicAdd(&x, 2), 5);
  EXPECT_EQ(atomicMax(&x, 3), 7);
  EXPECT_EQ(atomicMin(&x, 3), 7);
  EXPECT_EQ(atomicOr(&x, 4), 3);
  EXPECT_EQ(atomicAnd(&x, 6), 7);
  EXPECT_EQ(atomicExch(&x, 9), 6);
  EXPECT_EQ(atomicCAS(&x, 9, 1), 9);
  EXPECT_EQ(atomicCAS(&x, 9, 2), 1);
  EXPECT_EQ(x, 1);
}

}  // namespace
