// SPDX-License-Identifier: Apache-2.0

// fuzz_<what> CORPUS…: every file of the folders, cut short at 16 places, and with single bytes changed 64 times. What CORPUS.txt says of a file
// ("NAME: accepted", or the one line that refuses it) must hold. `--print` writes such a list.
// Built with -DMUSTDROP_LIBFUZZER and -fsanitize=fuzzer there is no main: libFuzzer brings its own.

#include "fuzz.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "safetensors.hpp"

namespace {

/// "accepted", or why not. A refusal is one line; where it names the folder of this process, that is cut.
std::string outcome(std::uint8_t const* data, std::size_t size) {
  std::string line;
  try {
    llava_fuzz::use(data, size);
    return "accepted";
  } catch (llava::input_error const& why) { line = why.what(); } catch (safetensors::error const& why) {
    line = why.what();
  }
  if (line.empty() || line.find('\n') != std::string::npos) {
    std::fprintf(stderr, "a refusal that is not one line: %s\n", line.c_str());
    std::abort();
  }
  std::string const folder = llava_fuzz::folder() + "/";
  for (std::size_t at; (at = line.find(folder)) != std::string::npos;) { line.erase(at, folder.size()); }
  return line;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size);
extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  static_cast<void>(outcome(data, size));
  return 0;
}

#ifndef MUSTDROP_LIBFUZZER
namespace {

namespace fs = std::filesystem;

std::vector<std::uint8_t> bytes_of(fs::path const& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// The list beside a corpus.
std::map<std::string, std::string> expectations(fs::path const& list) {
  std::map<std::string, std::string> lines;
  std::ifstream in(list);
  for (std::string line; std::getline(in, line);) {
    std::size_t const end = line.find(": ");
    if (end != std::string::npos) { lines[line.substr(0, end)] = line.substr(end + 2); }
  }
  return lines;
}

/// Copies, so that reading one byte too many is seen by AddressSanitizer.
int run_variants(std::vector<std::uint8_t> const& bytes, std::mt19937& random) {
  int runs = 0;
  constexpr std::size_t cuts = 16, changes = 64;
  for (std::size_t i = 0; i < std::min(cuts, bytes.size()); ++i, ++runs) {
    std::vector<std::uint8_t> const part(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(i * bytes.size() / cuts));
    LLVMFuzzerTestOneInput(part.data(), part.size());
  }
  for (std::size_t i = 0; i < changes && !bytes.empty(); ++i, ++runs) {
    std::vector<std::uint8_t> changed = bytes;
    changed[random() % changed.size()] = static_cast<std::uint8_t>(random());
    LLVMFuzzerTestOneInput(changed.data(), changed.size());
  }
  return runs;
}

}  // namespace

int main(int count, char** arguments) {
  bool const print = count > 1 && std::strcmp(arguments[1], "--print") == 0;
  constexpr unsigned seed = 1;
  std::mt19937 random(seed);
  int files = 0, runs = 0, failed = 0;
  for (int i = print ? 2 : 1; i < count; ++i) {
    std::map<std::string, std::string> expected = expectations(std::string(arguments[i]) + ".txt");
    std::vector<fs::path> paths;
    for (auto const& entry : fs::directory_iterator(arguments[i])) { paths.push_back(entry.path()); }
    std::sort(paths.begin(), paths.end());
    for (fs::path const& path : paths) {
      std::vector<std::uint8_t> const bytes = bytes_of(path);
      std::string const name = path.filename().string(), actual = outcome(bytes.data(), bytes.size());
      ++files;
      if (print) {
        std::printf("%s: %s\n", name.c_str(), actual.c_str());
        continue;
      }
      if (expected[name] != actual) {
        std::printf("FAIL %s\n  expected: %s\n  actual:   %s\n", name.c_str(), expected[name].c_str(), actual.c_str());
        ++failed;
      }
      expected.erase(name);
      runs += run_variants(bytes, random);
    }
    for (auto const& [name, line] : expected) {
      if (!print) { std::printf("FAIL %s: listed, and not there\n", name.c_str()), ++failed; }
    }
  }
  if (!print) { std::printf("%d files, %d variants of them (seed %u), %d failed\n", files, runs, seed, failed); }
  return files > 0 && failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
#endif
