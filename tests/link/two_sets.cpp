// SPDX-License-Identifier: Apache-2.0

// A program of files compiled with different flags: each calls its own kernels, and all write the same bits.

#include "../cpu_backends.hpp"
#include "../word_runs.hpp"

using hashes = std::map<std::string, std::uint64_t>;

template <class Arch>
hashes hashes_of_set();
template <>
hashes hashes_of_set<xsimd::fma3<xsimd::avx2>>();
template <>
hashes hashes_of_set<xsimd::avx512bw>();

int main() {
  hashes const narrow = hashes_of_set<xsimd::fma3<xsimd::avx2>>(), wide = hashes_of_set<xsimd::avx512bw>();
  return !narrow.empty() && narrow == wide ? 0 : 1;
}
