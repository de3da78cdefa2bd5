// SPDX-License-Identifier: Apache-2.0

// As much of the CUDA runtime as tests and the library's host code use. What is missing does not link.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cuda_emulator/machine.hpp>
#include <deque>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "block.hpp"
#include "launch.hpp"

/// A stream, and its work that has not run yet.
struct CUstream_st {
  bool waits_for_null_stream;
  std::deque<std::function<cudaError_t()>> work;
};

namespace cuda_emulator {
namespace {

std::uint64_t seed_of_environment() {
  char const* const asked = std::getenv("MUSTDROP_EMULATOR_SEED");
  return asked == nullptr ? 1 : std::strtoull(asked, nullptr, 10);
}

struct runtime {
  std::vector<cudaStream_t> streams;
  cudaError_t last_error = cudaSuccess;
  std::string last_report;
  std::uint64_t seed = seed_of_environment();
  only_stream const* restriction = nullptr;
};
runtime r;

cudaError_t remember(cudaError_t error) {
  if (error != cudaSuccess) { r.last_error = error; }
  return error;
}

bool created(cudaStream_t stream) { return std::find(r.streams.begin(), r.streams.end(), stream) != r.streams.end(); }
bool known(cudaStream_t stream) {
  return stream == nullptr || stream == cudaStreamLegacy || stream == cudaStreamPerThread || created(stream);
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

cudaError_t queue(cudaStream_t stream, std::function<cudaError_t()> work) {
  if (r.restriction != nullptr && stream != r.restriction->stream()) {
    report("wrong stream: work is queued on another than the caller's");
    return remember(cudaErrorInvalidResourceHandle);
  }
  if (!known(stream)) { return remember(cudaErrorInvalidResourceHandle); }
  if (created(stream)) {
    stream->work.push_back(std::move(work));
    return cudaSuccess;
  }
  for (cudaStream_t const other : r.streams) {
    if (other->waits_for_null_stream) { finish(other); }
  }
  return remember(work());
}

/// Reports what the library promises not to do.
void expect_no_restriction(char const* what) {
  if (r.restriction != nullptr) { report(std::string("not for the library to do: ") + what); }
}

}  // namespace

std::uint64_t seed() noexcept { return r.seed; }
void set_seed(std::uint64_t value) noexcept { r.seed = value; }
std::string const& last_report() noexcept { return r.last_report; }

void report(std::string const& what) {
  r.last_report = what + "; seed " + std::to_string(seed());
  std::fprintf(stderr, "cuda_emulator: %s\n", r.last_report.c_str());
}

only_stream::only_stream(cudaStream_t stream) noexcept : stream_(stream), outer_(r.restriction) { r.restriction = this; }
only_stream::~only_stream() { r.restriction = outer_; }

cudaError_t queue_kernel(launch_shape const& shape, cudaStream_t stream, std::function<void()> body) noexcept {
  cudaError_t const error = check(shape);
  if (error != cudaSuccess) { return remember(error); }
  return queue(stream, [shape, run = std::move(body)] { return run_kernel(shape, run); });
}

}  // namespace cuda_emulator

// NOLINTBEGIN(readability-identifier-naming): CUDA's names
using namespace cuda_emulator;
extern "C" {

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  expect_no_restriction("cudaStreamCreate");
  *stream = new CUstream_st{flags != cudaStreamNonBlocking, {}};
  r.streams.push_back(*stream);
  return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithFlags(stream, cudaStreamDefault); }

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  expect_no_restriction("cudaStreamSynchronize");
  if (!known(stream)) { return remember(cudaErrorInvalidResourceHandle); }
  return created(stream) ? finish(stream) : cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  expect_no_restriction("cudaStreamDestroy");
  if (!created(stream)) { return remember(cudaErrorInvalidResourceHandle); }
  cudaError_t const error = finish(stream);
  r.streams.erase(std::find(r.streams.begin(), r.streams.end(), stream));
  delete stream;
  return error;
}

/// What was queued first is likely on the stream that was made first, so the newest stream's work is done first.
cudaError_t cudaDeviceSynchronize() {
  expect_no_restriction("cudaDeviceSynchronize");
  cudaError_t first = cudaSuccess;
  std::for_each(r.streams.rbegin(), r.streams.rend(), [&](cudaStream_t stream) {
    cudaError_t const error = finish(stream);
    if (first == cudaSuccess) { first = error; }
  });
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
cudaError_t cudaGetLastError() {
  expect_no_restriction("cudaGetLastError");
  return std::exchange(r.last_error, cudaSuccess);
}

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
