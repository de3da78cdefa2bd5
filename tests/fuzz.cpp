// SPDX-License-Identifier: Apache-2.0

// fuzz_<word> CORPUS…: every file of the folders, each with single bytes changed 16 times, then random bytes.
// Built with -DMUSTDROP_LIBFUZZER and -fsanitize=fuzzer there is no main: libFuzzer brings its own.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

#include "fuzz_input.hpp"

namespace fuzz {
void run(input& in);
}

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size);  // NOLINT(readability-identifier-naming): its name
extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  fuzz::input in(data, size);
  fuzz::run(in);
  return 0;
}

#ifndef MUSTDROP_LIBFUZZER
namespace {

using bytes = std::vector<std::uint8_t>;

bytes bytes_of(std::filesystem::path const& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// Copies, so that reading one byte too many is seen by AddressSanitizer.
int run_variants(bytes const& kept, std::mt19937& random) {
  LLVMFuzzerTestOneInput(kept.data(), kept.size());
  if (kept.empty()) { return 1; }
  constexpr int changes = 16;
  for (int i = 0; i < changes; ++i) {
    bytes changed = kept;
    changed[random() % changed.size()] = static_cast<std::uint8_t>(random());
    LLVMFuzzerTestOneInput(changed.data(), changed.size());
  }
  return 1 + changes;
}

bytes random_bytes(std::mt19937& random) {
  constexpr std::size_t longest = 256;
  bytes made(random() % longest);
  for (std::uint8_t& byte : made) { byte = static_cast<std::uint8_t>(random()); }
  return made;
}

}  // namespace

int main(int count, char** arguments) {
  constexpr unsigned seed = 1;
  constexpr int random_runs = 3000;
  std::printf("seed %u\n", seed);  // first: a difference ends the program
  std::fflush(stdout);
  std::mt19937 random(seed);
  int files = 0, runs = 0;
  for (int i = 1; i < count; ++i) {
    std::vector<std::filesystem::path> paths;
    for (auto const& entry : std::filesystem::directory_iterator(arguments[i])) { paths.push_back(entry.path()); }
    std::sort(paths.begin(), paths.end());
    for (auto const& path : paths) { ++files, runs += run_variants(bytes_of(path), random); }
  }
  for (int i = 0; i < random_runs; ++i, ++runs) {
    bytes const made = random_bytes(random);
    LLVMFuzzerTestOneInput(made.data(), made.size());
  }
  std::printf("%d files, %d runs, no difference\n", files, runs);
  return count > 1 && files == 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
#endif
