// SPDX-License-Identifier: Apache-2.0
#include "sanitizers.hpp"

#include <cstdio>
#include <cuda_emulator/machine.hpp>

#include "block.hpp"

namespace cuda_emulator {

/// A report of a sanitizer says nothing of who ran.
void say_who_runs() { std::fprintf(stderr, "cuda_emulator: %s, seed %llu\n", who_runs(), static_cast<unsigned long long>(seed())); }

void speak_before_death() noexcept {
  if (__sanitizer_set_death_callback != nullptr) { __sanitizer_set_death_callback(say_who_runs); }
}

}  // namespace cuda_emulator

// A program of one thread has no race that a second's sleep at its end could bring out.
extern "C" char const* __tsan_default_options() { return "atexit_sleep_ms=0"; }    // NOLINT(readability-identifier-naming)
extern "C" char const* __ubsan_default_options() { return "print_stacktrace=1"; }  // NOLINT(readability-identifier-naming)
