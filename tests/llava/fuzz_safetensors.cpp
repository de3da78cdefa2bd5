// SPDX-License-Identifier: Apache-2.0

// The input is a model.safetensors: read by itself, and as the checkpoint of the smallest model.

#include "checkpoint.hpp"
#include "fuzz.hpp"
#include "safetensors.hpp"
#include "small_checkpoint.hpp"

void llava_fuzz::use(std::uint8_t const* data, std::size_t size) {
  static llava::config const config = [] {
    write("config.json", llava_test::small_config);
    return llava::read_config(folder());
  }();
  try {
    for (auto const& [name, tensor] : safetensors::parse(data, size).tensors) { touch(data + tensor.begin, tensor.bytes); }
  } catch (safetensors::error const&) {}  // refused again below, with the file's name
  write("model.safetensors", data, size);
  llava::checkpoint const c(folder(), config);
  touch(c.text.lm_head.data, static_cast<std::size_t>(c.text.lm_head.rows * c.text.lm_head.cols) * 2);
}
