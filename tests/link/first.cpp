// SPDX-License-Identifier: Apache-2.0

// Two files of one program include every header: nothing may be defined twice, and what is inline must be one.

#include "all_headers.hpp"

namespace md = mustdrop;

using message_function = char const* (*)(md::status);
message_function message_of_second() noexcept;
std::int32_t const* layers_of_second() noexcept;

int main() {
  message_function const message = md::message;
  bool const one = message == message_of_second() && md::method::mustdrop_prune_after == layers_of_second();
  return one ? 0 : 1;
}
