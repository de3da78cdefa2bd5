// SPDX-License-Identifier: Apache-2.0

// An object file that holds every word of a backend for each type of element and index. What it asks the linker for is what
// the library asks of an engine: a few functions of libc and libm, nothing that allocates, prints, throws or ends the program.

#include "tested_backend.hpp"
// its headers first
#include "every_word.hpp"

using namespace words;

/// A caller that cannot be seen through, so that no call is optimised away.
struct caller {
  void (*look)(char const* name, void const* data, std::size_t bytes) noexcept;

  template <class T>
  void operator()(char const* name, T const* data, md::index_t n) const noexcept {
    look(name, data, static_cast<std::size_t>(n) * sizeof(T));
  }
};

template <class Real, class Out, class Index>
using memory = word_memory<Real, Out, Index>;

template void words::call_every_word<tested_backend>(memory<float, float, std::int32_t> const&, caller const&) noexcept;
template void words::call_every_word<tested_backend>(memory<float, md::half, std::int64_t> const&, caller const&) noexcept;
template void words::call_every_word<tested_backend>(memory<md::half, md::half, std::int32_t> const&, caller const&) noexcept;
template void words::call_every_word<tested_backend>(memory<md::half, float, std::int64_t> const&, caller const&) noexcept;
template void words::call_every_word<tested_backend>(memory<md::bfloat16, md::bfloat16, std::int32_t> const&, caller const&) noexcept;
template void words::call_every_word<tested_backend>(memory<md::bfloat16, float, std::int64_t> const&, caller const&) noexcept;
