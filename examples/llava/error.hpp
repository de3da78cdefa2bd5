// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdexcept>

namespace llava {

/// Input that cannot be used: one line that names the file (and the tensor or key) and says what is wrong. Programs print it and exit with 2.
struct input_error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace llava
