// SPDX-License-Identifier: Apache-2.0

// Every word for one instruction set; two of these make a program.

#include "../cpu_backends.hpp"
// its headers first
#include "../word_runs.hpp"

using hashes = std::map<std::string, std::uint64_t>;

/// Declared in two_sets.cpp; the specialisation that is defined here is named after the instruction set.
template <class Arch>
hashes hashes_of_set();

template <>
hashes hashes_of_set<MUSTDROP_TEST_ARCH>() {
  words::hashes wrote;
  for (md::index_t const dim : {7, 64}) {
    words::run<cpu_backend, words::heap_memory, float, float, std::int32_t>(dim, true, wrote);
    words::run<cpu_backend, words::heap_memory, md::half, md::bfloat16, std::int64_t>(dim, true, wrote);
  }
  return wrote.all();
}
