// SPDX-License-Identifier: Apache-2.0
#pragma once

// The emulated device: it runs kernels on one host thread, the threads of a block in a random order that a seed decides.

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace cuda_emulator {

struct launch_shape {
  dim3 grid, block;
  std::size_t dynamic_shared;
};

/// Checks the shape as a device does, then runs the kernel: now, on the null stream, or when its stream is synchronised, on any other.
/// A device may run it at either time, and work that went to the wrong stream finds itself in the wrong order. Each thread runs `body`.
cudaError_t queue_kernel(launch_shape const& shape, cudaStream_t stream, std::function<void()> body) noexcept;

/// The order of blocks, warps and lanes follows from the seed, whatever ran before. At first it is MUSTDROP_EMULATOR_SEED of the
/// environment, or 1. Each report names it.
std::uint64_t seed() noexcept;
void set_seed(std::uint64_t value) noexcept;

/// What the emulator last found wrong with a kernel, "" when nothing; it went to stderr too. The launch, or the synchronisation that ran
/// it, returned cudaErrorLaunchFailure.
std::string const& last_report() noexcept;

/// While one lives, a call of the library runs: it may queue work on this stream. Work on another stream is reported and refused; waiting,
/// making streams and clearing the caller's last error are reported.
class only_stream {
 public:
  explicit only_stream(cudaStream_t stream) noexcept;
  ~only_stream();
  only_stream(only_stream const&) = delete;
  only_stream& operator=(only_stream const&) = delete;

  cudaStream_t stream() const noexcept { return stream_; }

 private:
  cudaStream_t stream_;
  only_stream const* outer_;
};

/// Kernels, blocks and threads run, and switches from one thread to another, since the program began.
struct work_done {
  std::uint64_t kernels, blocks, threads, switches;
};
work_done const& work() noexcept;

}  // namespace cuda_emulator
