// SPDX-License-Identifier: Apache-2.0

// The input is each of config.json, generation_config.json and preprocessor_config.json, with the others as they should be. Where all three
// refuse it, config.json's line is the one that is told.

#include "config.hpp"
#include "fuzz.hpp"
#include "small_checkpoint.hpp"

void llava_fuzz::use(std::uint8_t const* data, std::size_t size) {
  write("config.json", llava_test::small_config);
  write("generation_config.json", data, size);
  write("preprocessor_config.json", data, size);
  llava::config const small = [] {
    try {
      return llava::read_config(folder());
    } catch (llava::input_error const&) { return llava::config{}; }
  }();
  try {
    llava::read_preprocessing(folder(), small.vision);
  } catch (llava::input_error const&) {}  // what is no config.json, either, is told below
  std::filesystem::remove(folder() + "/generation_config.json");
  write("config.json", data, size);
  llava::config const c = llava::read_config(folder());
  // What sizes are computed from must be such that they can be.
  if (c.vision.patches() < 1 || c.vision.head_dim() < 1 || c.text.head_dim < 2 || c.text.heads / c.text.kv_heads < 1) { std::abort(); }
}
