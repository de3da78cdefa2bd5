// SPDX-License-Identifier: Apache-2.0

// Compiled for each instruction set: EXAMPLE_ARCH names it, the flags beside it allow its instructions (CMakeLists.txt).

#include "best_tokens.hpp"

#include <cstdio>

#include <mustdrop/cpu/top_k.hpp>

namespace md = mustdrop;

template <class Arch>
md::status best_tokens::operator()(Arch, md::tensor_view<float const, 1> scores, md::keep_lists<std::int32_t> keep,
                                   md::workspace scratch) const noexcept {
  std::printf("on %s:", Arch::name());
  return md::top_k(md::cpu::backend<Arch>{}, {}, scores, {}, {}, keep, scratch);
}

template md::status best_tokens::operator()(EXAMPLE_ARCH, md::tensor_view<float const, 1>, md::keep_lists<std::int32_t>,
                                            md::workspace) const noexcept;
