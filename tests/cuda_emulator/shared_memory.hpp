// SPDX-License-Identifier: Apache-2.0
#pragma once

// The memory that the threads of a block share: its bytes are all ones (NaN, -1) until they are written, and under ASan nothing but its
// variables may be touched.

#include <cstddef>

namespace cuda_emulator {

/// For the blocks of the launch that begins.
void set_dynamic_shared_memory(std::size_t size);

/// A block begins: it has no variables yet.
void begin_shared_memory();

/// Earlier blocks are ordered before what follows, so their memory may be used again.
void forget_shared_memory();

/// Ends the block.
[[noreturn]] void shared_memory_exceeded(std::size_t bytes);

}  // namespace cuda_emulator
