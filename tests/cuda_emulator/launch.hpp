// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_emulator/machine.hpp>
#include <functional>

namespace cuda_emulator {

/// Whether a device would begin it.
cudaError_t check(launch_shape const& shape) noexcept;

/// Runs all blocks, or as many as go well.
cudaError_t run_kernel(launch_shape const& shape, std::function<void()> const& body);

}  // namespace cuda_emulator
