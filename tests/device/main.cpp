// SPDX-License-Identifier: Apache-2.0

// Runs a test program that was written for the host on a device. Its tables keep what they test in vectors, in memory of operator new and in
// local arrays; so all of that is taken from one piece of page-locked memory, which a device reads and writes at the host's own addresses, and
// the tests run on a stack that lies in it. Page-locked rather than managed memory: it needs no page faults of the device, so that every
// platform with unified addressing will do, and the host may touch the stack while a kernel runs. What lies in the device's own memory is
// looked at by the benchmarks, which compare before they measure.
//
// Around each allocation there are guards; a call that writes past its end is found when the memory is freed.

#include <ucontext.h>

#include <cstddef>
#include <new>

#include "device.hpp"

int run_tests(int count, char** arguments);

namespace {

constexpr std::size_t arena_bytes = std::size_t{1} << 30, stack_bytes = std::size_t{1} << 26, guard_bytes = 64, classes = 40;
constexpr unsigned char guard_byte = 0xa5;

/// Powers of two; what is freed is kept for the next of its size.
class arena {
 public:
  void open() {
    void* memory = nullptr;
    void* seen = nullptr;
    on_device::must(cudaHostAlloc(&memory, arena_bytes, cudaHostAllocMapped | cudaHostAllocPortable), "cudaHostAlloc");
    on_device::must(cudaHostGetDevicePointer(&seen, memory, 0), "cudaHostGetDevicePointer");
    if (seen != memory) {
      std::fprintf(stderr, "the device sees the host's memory at other addresses\n");
      std::exit(1);
    }
    begin_ = next_ = static_cast<char*>(memory), end_ = begin_ + arena_bytes;
  }
  bool holds(void const* p) const { return p >= begin_ && p < end_; }

  void* take(std::size_t bytes) {
    std::size_t of = 8;
    while ((std::size_t{1} << of) < bytes + 2 * guard_bytes) { ++of; }
    block* const found = free_[of];
    char* at = reinterpret_cast<char*>(found);
    if (found != nullptr) {
      free_[of] = found->next;
    } else {
      if (next_ == nullptr || (std::size_t{1} << of) > static_cast<std::size_t>(end_ - next_)) { return nullptr; }
      at = next_, next_ += std::size_t{1} << of;
    }
    std::memset(at, guard_byte, guard_bytes);
    *reinterpret_cast<block*>(at) = {nullptr, bytes, of};
    std::memset(at + guard_bytes + bytes, guard_byte, guard_bytes);
    return at + guard_bytes;
  }
  void give_back(void* p) {
    char* const at = static_cast<char*>(p) - guard_bytes;
    auto* const of = reinterpret_cast<block*>(at);
    check(at + sizeof(block), guard_bytes - sizeof(block), "before");
    check(static_cast<char*>(p) + of->bytes, guard_bytes, "behind");
    of->next = free_[of->size_class];
    free_[of->size_class] = of;
  }

 private:
  struct block {
    block* next;
    std::size_t bytes, size_class;
  };
  static void check(char const* guard, std::size_t n, char const* where) {
    for (std::size_t i = 0; i < n; ++i) {
      if (static_cast<unsigned char>(guard[i]) != guard_byte) {
        std::fprintf(stderr, "something was written %s an allocation\n", where);
        std::abort();
      }
    }
  }
  char *begin_ = nullptr, *next_ = nullptr, *end_ = nullptr;
  block* free_[classes] = {};
};

arena memory;
thread_local bool testing = false;  // the runtime's own threads, and what comes before and after the tests, take the usual memory

struct program {
  int count;
  char** arguments;
  int result;
  ucontext_t caller;
} program;

void run_on_this_stack() {
  testing = true;
  program.result = run_tests(program.count, program.arguments);
  testing = false;
}

void* allocated(std::size_t bytes, std::size_t alignment) {
  if (alignment > guard_bytes) { throw std::bad_alloc(); }
  void* const p = testing ? memory.take(bytes) : std::aligned_alloc(guard_bytes, (bytes + guard_bytes) / guard_bytes * guard_bytes);
  if (p == nullptr) { throw std::bad_alloc(); }
  return p;
}
void freed(void* p) noexcept {
  if (memory.holds(p)) {
    memory.give_back(p);
  } else {
    std::free(p);
  }
}

}  // namespace

void* operator new(std::size_t bytes) { return allocated(bytes, alignof(std::max_align_t)); }
void* operator new(std::size_t bytes, std::align_val_t alignment) { return allocated(bytes, static_cast<std::size_t>(alignment)); }
void operator delete(void* p) noexcept { freed(p); }
void operator delete(void* p, std::size_t) noexcept { freed(p); }
void operator delete(void* p, std::align_val_t) noexcept { freed(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { freed(p); }

int main(int count, char** arguments) {
  if (int const status = on_device::status_without_device(); status != 0) { return status; }
  on_device::print_device();
  memory.open();
  program.count = count, program.arguments = arguments;
  ucontext_t tests;
  if (getcontext(&tests) != 0) { return 1; }
  tests.uc_stack.ss_sp = memory.take(stack_bytes), tests.uc_stack.ss_size = stack_bytes, tests.uc_link = &program.caller;
  makecontext(&tests, run_on_this_stack, 0);
  if (swapcontext(&program.caller, &tests) != 0) { return 1; }
  return program.result;
}
