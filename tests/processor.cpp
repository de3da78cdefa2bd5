// SPDX-License-Identifier: Apache-2.0

// Ends a program for an instruction set that the processor lacks with 77, which counts as skipped, before anything compiled for it runs:
// this file is compiled without the set's flags, and its constructor comes before those of the others.

#include <cstdio>
#include <cstdlib>

namespace {

__attribute__((constructor(101))) void look_at_processor() {
  __builtin_cpu_init();
  if (!__builtin_cpu_supports(MUSTDROP_TEST_PROCESSOR)) {
    std::puts("skipped: this processor has no " MUSTDROP_TEST_PROCESSOR);
    std::fflush(stdout);
    std::_Exit(77);
  }
}

}  // namespace
