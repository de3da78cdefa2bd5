// SPDX-License-Identifier: Apache-2.0
#pragma once

// Stacks that threads of a block run on, and the switch from one to another: a dozen instructions, where swapcontext asks the kernel to
// save a signal mask each time.

#include <cstddef>

namespace cuda_emulator {

struct stack {
  void* pointer = nullptr;       // of its last frame, while it waits
  void const* bottom = nullptr;  // its lowest address
  std::size_t size = 0;
  void* fake = nullptr;   // ASan's
  void* fiber = nullptr;  // TSan's
};

/// The stack that the program itself runs on.
stack& host_stack() noexcept;

/// Makes stack number `number`, which runs `entry` when it is first switched to. `entry` never returns.
void make_stack(stack& made, unsigned number, void (*entry)());

/// Makes it anew, whatever it was doing.
void reset_stack(stack& made, unsigned number, void (*entry)());

/// Goes on where `to` was left. Returns when somebody switches to `from`.
void switch_stack(stack& from, stack& to);

/// The first thing that a new stack does.
void arrive_on(stack& here);

}  // namespace cuda_emulator
