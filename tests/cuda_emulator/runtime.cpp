// SPDX-License-Identifier: Apache-2.0

// As much of the CUDA runtime as tests and the library's host code use. What is missing does not link.

#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cuda_emulator/machine.hpp>
#include <deque>
#include <set>
#include <string>
#include <utility>

#include "block.hpp"

/// A stream's work that has not run yet.
struct CUstream_st {
  std::deque<std::function<cudaError_t()>> work;
};

namespace cuda_emulator {
namespace {

struct runtime {
  std::set<cudaStream_t> streams;
  cudaError_t last_error = cudaSuccess;
  std::string last_report;
  bool only = false;
  cudaStream_t only_stream = nullptr;
};
runtime r;

std::uint64_t first_seed() {
  char const* const asked = std::getenv("MUSTDROP_EMULATOR_SEED");
  return asked == nullptr ? 1 : std::strtoull(asked, nullptr, 10);
}
std::uint64_t current_seed = first_seed();

cudaError_t remember(cudaError_t error) {
  if (error != cudaSuccess) { r.last_error = error; }
  return error;
}

bool known(cudaStream_t stream) {
  return stream == nullptr || stream == cudaStreamLegacy || stream == cudaStreamPerThread || r.streams.count(stream) != 0;
}

bool valid(launch_shape const& shape) {
  dim3 const& grid = shape.grid;
  dim3 const& block = shape.block;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffff || grid.y > 65535 || grid.z > 65535) { return false; }
  if (block.x == 0 || block.y == 0 || block.z == 0 || block.x > 1024 || block.y > 1024 || block.z > 64) { return false; }
  return static_cast<std::uint64_t>(block.x) * block.y * block.z <= most_threads;
}

/// Now on the null stream, later on others.
cudaError_t queue(cudaStream_t stream, std::function<cudaError_t()> work) {
  if (!known(stream)) { return remember(cudaErrorInvalidResourceHandle); }
  if (r.only && stream != r.only_stream) {
    report("wrong stream: work is queued on another stream than the caller's");
    return remember(cudaErrorInvalidResourceHandle);
  }
  if (r.streams.count(stream) == 0) { return remember(work()); }
  stream->work.push_back(std::move(work));
  return cudaSuccess;
}

cudaError_t finish(cudaStream_t stream) {
  cudaError_t first = cudaSuccess;
  while (!stream->work.empty()) {
    auto const work = std::move(stream->work.front());
    stream->work.pop_front();
    cudaError_t const error = work();
    if (first == cudaSuccess) { first = error; }
  }
  return remember(first);
}

}  // namespace

std::uint64_t seed() noexcept { return current_seed; }
void set_seed(std::uint64_t value) noexcept { current_seed = value; }
std::string const& last_report() noexcept { return r.last_report; }

void report(std::string const& what) {
  r.last_report = what + "; seed " + std::to_string(seed());
  std::fprintf(stderr, "cuda_emulator: %s\n", r.last_report.c_str());
}

only_stream::only_stream(cudaStream_t stream) noexcept {
  r.only = true;
  r.only_stream = stream;
}
only_stream::~only_stream() { r.only = false; }

cudaError_t queue_kernel(launch_shape const& shape, cudaStream_t stream, std::function<void()> body) noexcept {
  if (!valid(shape)) { return remember(cudaErrorInvalidConfiguration); }
  if (shape.dynamic_shared > most_shared_memory) { return remember(cudaErrorInvalidValue); }
  return queue(stream, [shape, run = std::move(body)] { return run_blocks(shape, run) ? cudaSuccess : cudaErrorLaunchFailure; });
}

}  // namespace cuda_emulator

// NOLINTBEGIN(readability-identifier-naming): CUDA's names
using namespace cuda_emulator;
extern "C" {

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned /*flags*/) {
  *stream = new CUstream_st;
  r.streams.insert(*stream);
  return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithFlags(stream, cudaStreamDefault); }

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (!known(stream)) { return remember(cudaErrorInvalidResourceHandle); }
  return r.streams.count(stream) == 0 ? cudaSuccess : finish(stream);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  if (r.streams.erase(stream) == 0) { return remember(cudaErrorInvalidResourceHandle); }
  cudaError_t const error = finish(stream);
  delete stream;
  return error;
}

cudaError_t cudaDeviceSynchronize() {
  cudaError_t first = cudaSuccess;
  for (cudaStream_t const stream : r.streams) {
    cudaError_t const error = finish(stream);
    if (first == cudaSuccess) { first = error; }
  }
  return first;
}

cudaError_t cudaMemsetAsync(void* memory, int value, std::size_t size, cudaStream_t stream) {
  return queue(stream, [=] {
    std::memset(memory, value, size);
    return cudaSuccess;
  });
}

cudaError_t cudaMemcpyAsync(void* to, void const* from, std::size_t size, cudaMemcpyKind /*kind*/, cudaStream_t stream) {
  return queue(stream, [=] {
    std::memcpy(to, from, size);
    return cudaSuccess;
  });
}

cudaError_t cudaPeekAtLastError() { return r.last_error; }
cudaError_t cudaGetLastError() { return std::exchange(r.last_error, cudaSuccess); }

char const* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
    case cudaErrorInvalidConfiguration: return "cudaErrorInvalidConfiguration";
    case cudaErrorInvalidResourceHandle: return "cudaErrorInvalidResourceHandle";
    case cudaErrorLaunchFailure: return "cudaErrorLaunchFailure";
    default: return "cudaErrorUnknown";
  }
}
char const* cudaGetErrorString(cudaError_t error) { return cudaGetErrorName(error); }

}  // extern "C"
// NOLINTEND(readability-identifier-naming)
