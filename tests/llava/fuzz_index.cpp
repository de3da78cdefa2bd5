// SPDX-License-Identifier: Apache-2.0

// The input is a model.safetensors.index.json beside the two files a.safetensors and b.safetensors of the smallest model.

#include <cstddef>

#include "checkpoint.hpp"
#include "fuzz.hpp"
#include "small_checkpoint.hpp"

void llava_fuzz::use(std::uint8_t const* data, std::size_t size) {
  static llava::config const config = [] {
    write("config.json", llava_test::small_config);
    std::vector<llava_test::stored_tensor> const all = llava_test::small_tensors();
    auto const middle = all.begin() + static_cast<std::ptrdiff_t>(all.size() / 2);
    write("a.safetensors", llava_test::safetensors_bytes({all.begin(), middle}));
    write("b.safetensors", llava_test::safetensors_bytes({middle, all.end()}));
    return llava::read_config(folder());
  }();
  write("model.safetensors.index.json", data, size);
  llava::checkpoint const c(folder(), config);
}
