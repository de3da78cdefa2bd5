// SPDX-License-Identifier: Apache-2.0
#include "stack.hpp"

#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "sanitizers.hpp"

// cuda_emulator_swap(void** save, void* resume): keeps what a function must keep, and the modes of the floating point unit are
// nobody's to change.
extern "C" void cuda_emulator_swap(void** save, void* resume);
#if defined(__x86_64__)
asm(R"(
.text
.globl cuda_emulator_swap
.hidden cuda_emulator_swap
.type cuda_emulator_swap, @function
cuda_emulator_swap:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size cuda_emulator_swap, .-cuda_emulator_swap
)");
#elif defined(__aarch64__)
asm(R"(
.text
.globl cuda_emulator_swap
.hidden cuda_emulator_swap
.type cuda_emulator_swap, %function
cuda_emulator_swap:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size cuda_emulator_swap, .-cuda_emulator_swap
)");
#else
#error "the emulator knows how x86-64 and aarch64 switch stacks"
#endif

namespace cuda_emulator {
namespace {

constexpr std::size_t page = 65536;  // no system's pages are larger
constexpr std::size_t stack_size = 4 * page;
stack* left = nullptr;  // the stack of the last switch

/// Writes what cuda_emulator_swap will take off.
void* first_frame(char* top, void (*entry)()) {
#if defined(__x86_64__)
  auto* const frame = reinterpret_cast<void**>(top) - 8;  // six registers, where to go, and where that would return to
  frame[6] = reinterpret_cast<void*>(entry);
#else
  auto* const frame = reinterpret_cast<void**>(top) - 20;
  frame[11] = reinterpret_cast<void*>(entry);
#endif
  return frame;
}

}  // namespace

stack& host_stack() noexcept {
  static stack host;
  return host;
}

void make_stack(stack& made, unsigned number, void (*entry)()) {
  // A guard below it: who needs more than this stack does not write into another's.
  void* const memory = mmap(nullptr, page + stack_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory, page, PROT_NONE) != 0) {
    std::perror("cuda_emulator: no memory for a stack");
    std::abort();
  }
  made.bottom = static_cast<char*>(memory) + page;
  made.size = stack_size;
  reset_stack(made, number, entry);
}

void reset_stack(stack& made, unsigned number, void (*entry)()) {
  auto* const bottom = static_cast<char*>(const_cast<void*>(made.bottom));
  unpoison(bottom, made.size);
  // Tops of stacks stand in different cache sets.
  char* const top = bottom + made.size - number % 64 * 192;
  for (char* byte = top - 256; byte < top; ++byte) { *byte = 0; }
  made.pointer = first_frame(top, entry);
  made.fake = nullptr;
  if (watched_by_tsan()) {
    if (made.fiber != nullptr) { __tsan_destroy_fiber(made.fiber); }
    made.fiber = __tsan_create_fiber(0);
  }
}

void switch_stack(stack& from, stack& to) {
  left = &from;
  if (watched_by_asan()) { __sanitizer_start_switch_fiber(&from.fake, to.bottom, to.size); }
  tsan_go_to(to.fiber);
  cuda_emulator_swap(&from.pointer, to.pointer);
  arrive_on(from);
}

void arrive_on(stack& here) {
  // ASan tells where the stack is that was left, which is how the host's becomes known.
  if (watched_by_asan()) { __sanitizer_finish_switch_fiber(here.fake, &left->bottom, &left->size); }
}

}  // namespace cuda_emulator
