// SPDX-License-Identifier: Apache-2.0
#pragma once

// Runs the blocks of one launch.

#include <cuda_emulator/machine.hpp>
#include <functional>

namespace cuda_emulator {

constexpr std::size_t most_shared_memory = 48 * 1024;  // what every device gives to every kernel
constexpr unsigned most_threads = 1024;

/// False when something was found wrong: then the rest of the launch is not run.
bool run_blocks(launch_shape const& shape, std::function<void()> const& body);

/// Prints what is wrong and remembers it for last_report().
void report(std::string const& what);

}  // namespace cuda_emulator
