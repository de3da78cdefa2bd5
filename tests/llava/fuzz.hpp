// SPDX-License-Identifier: Apache-2.0
#pragma once

// fuzz_<what>.cpp defines what is done with an input; fuzz.cpp runs it, on what libFuzzer thinks of or on the kept files of corpus/<what>/.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <system_error>

#include "error.hpp"

namespace llava_fuzz {

/// Uses the input as a program would. Throws llava::input_error or safetensors::error if it is refused.
void use(std::uint8_t const* data, std::size_t size);

/// A folder for one process, in memory where there is such a place: most targets write a file each time.
struct temporary_folder {
  temporary_folder() {
    std::error_code failed;
    std::filesystem::path const memory = "/dev/shm", any = std::filesystem::temp_directory_path();
    path = ((std::filesystem::is_directory(memory, failed) ? memory : any) / "llava_fuzz_XXXXXX").string();
    if (mkdtemp(path.data()) == nullptr) { throw std::runtime_error("no folder in " + path); }
  }
  ~temporary_folder() {
    std::error_code failed;
    std::filesystem::remove_all(path, failed);
  }
  temporary_folder(temporary_folder const&) = delete;
  temporary_folder& operator=(temporary_folder const&) = delete;
  std::string path;
};
inline std::string const& folder() {
  static temporary_folder const one;
  return one.path;
}

inline void write(char const* name, void const* data, std::size_t size) {
  std::ofstream out(folder() + "/" + name, std::ios::binary);
  out.write(static_cast<char const*>(data), static_cast<std::streamsize>(size));
  out.close();
  if (!out) { throw std::runtime_error("cannot write into " + folder()); }
}
inline void write(char const* name, std::string const& text) { write(name, text.data(), text.size()); }

/// Reads every byte; the result is made to matter, so that no optimiser drops it.
inline void touch(void const* data, std::size_t size) {
  unsigned char all = 0;
  for (std::size_t i = 0; i < size; ++i) { all = static_cast<unsigned char>(all ^ static_cast<unsigned char const*>(data)[i]); }
  unsigned char volatile kept = all;
  static_cast<void>(kept);
}

}  // namespace llava_fuzz
