// SPDX-License-Identifier: Apache-2.0
#pragma once

// Runs one block after another.

#include <cuda_emulator/machine.hpp>
#include <functional>

namespace cuda_emulator {

constexpr unsigned most_threads = 1024;

/// A kernel is about to run: `block` is the shape of its blocks, `body` what each of their threads runs.
void begin_kernel(dim3 block, std::function<void()> const& body);

/// Runs block `blockIdx`. False when something was found wrong, which has been reported.
bool run_block();

/// The kernel's end: what follows is ordered after everything that its threads did.
void end_kernel();

/// A number below `bound`, which follows from the seed and how often this was called since begin_kernel().
unsigned random_below(unsigned bound);

/// "thread (1,0,0) of block (2,0,0)", or "no kernel runs".
char const* who_runs() noexcept;

/// Reports what is wrong with the thread that runs, and does not go on with its block.
[[noreturn, gnu::format(printf, 1, 2)]] void fail(char const* format, ...);

/// Prints what is wrong and keeps it for last_report().
void report(std::string const& what);

}  // namespace cuda_emulator
