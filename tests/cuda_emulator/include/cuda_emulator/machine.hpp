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

/// Checks the shape as a device does, then runs the kernel now (the null stream) or when its stream is synchronised (any other): both
/// are times at which a device may run it, and work that went to the wrong one of the two finds itself in the wrong order. `body` is
/// what each thread runs.
cudaError_t queue_kernel(launch_shape const& shape, cudaStream_t stream, std::function<void()> body) noexcept;

/// The order of blocks, warps and lanes follows from the seed, whatever ran before. At first it is MUSTDROP_EMULATOR_SEED of the
/// environment, or 1. Each report names it.
std::uint64_t seed() noexcept;
void set_seed(std::uint64_t value) noexcept;

/// What the emulator last found wrong with a kernel, "" when nothing; it went to stderr too. The launch, or the synchronisation that ran
/// it, returned cudaErrorLaunchFailure.
std::string const& last_report() noexcept;

/// While one lives, all work belongs on its stream: whatever is queued elsewhere is reported, and refused.
class only_stream {
 public:
  explicit only_stream(cudaStream_t stream) noexcept;
  ~only_stream();
  only_stream(only_stream const&) = delete;
  only_stream& operator=(only_stream const&) = delete;
};

/// Kernels, blocks and threads run, and switches from one thread to another, since the program began.
struct work_done {
  std::uint64_t kernels, blocks, threads, switches;
};
work_done const& work() noexcept;

}  // namespace cuda_emulator
