// SPDX-License-Identifier: Apache-2.0

// One program for every processor: the instruction set is chosen when it runs. This file is compiled for the oldest of them.

#include <cstdio>

#include <xsimd/xsimd.hpp>

#include "best_tokens.hpp"

namespace md = mustdrop;

int main() {
  float const scores[] = {0.125f, 0.5f, 0.25f, 0.5f, 0.0625f, 0.75f};
  std::int32_t kept[3], count = 0;
  alignas(64) unsigned char scratch[1024];

  using sets = xsimd::arch_list<xsimd::avx512bw, xsimd::fma3<xsimd::avx2>, xsimd::sse2>;  // the best first
  auto best = xsimd::dispatch<sets>(best_tokens{});
  md::keep_lists<std::int32_t> const keep{md::view(kept, 1, 3), md::view(&count, 1)};
  md::status const s = best(md::view(scores, 6), keep, md::workspace{scratch, sizeof scratch});
  if (s != md::status::ok) {
    std::printf(" %s\n", md::message(s));
    return 1;
  }
  for (std::int32_t i = 0; i < count; ++i) { std::printf(" %d", kept[i]); }
  std::printf("\n");
  return 0;
}
