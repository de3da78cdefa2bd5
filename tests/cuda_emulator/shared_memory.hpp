// SPDX-License-Identifier: Apache-2.0
#pragma once

// The memory that the threads of a block share: its bytes are all ones (NaN, -1) until they are written, and under ASan nothing but its
// variables may be touched.

#include <cstddef>

namespace cuda_emulator {

constexpr std::size_t most_shared_memory = 48 * 1024;  // what every device gives to every kernel

/// For the blocks of the launch that begins.
void set_dynamic_shared_memory(std::size_t size);

/// A block begins: it has no variables yet. Blocks in different places touch none of the same bytes.
void begin_shared_memory(unsigned place);

}  // namespace cuda_emulator
