// SPDX-License-Identifier: Apache-2.0

#include "all_headers.hpp"

namespace md = mustdrop;

using message_function = char const* (*)(md::status);
message_function message_of_second() noexcept;
std::int32_t const* layers_of_second() noexcept;

message_function message_of_second() noexcept { return md::message; }
std::int32_t const* layers_of_second() noexcept { return md::method::mustdrop_prune_after; }
