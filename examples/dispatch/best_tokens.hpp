// SPDX-License-Identifier: Apache-2.0
#pragma once

// A step of an engine that has one body for each instruction set. This header is all that the engine's other files see of it.

#include <cstdint>

#include <mustdrop/view.hpp>

struct best_tokens {
  /// Defined in best_tokens.cpp, which is compiled once for each Arch with that Arch's flags.
  template <class Arch>
  mustdrop::status operator()(Arch, mustdrop::tensor_view<float const, 1> scores, mustdrop::keep_lists<std::int32_t> keep,
                              mustdrop::workspace scratch) const noexcept;
};
