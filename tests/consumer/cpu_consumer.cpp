// SPDX-License-Identifier: Apache-2.0

// What an engine does with the CPU backend: the same calls, another backend.

#include <cstdint>

#include <mustdrop/cpu/top_k.hpp>

namespace md = mustdrop;

int main() {
  float const scores[] = {0.5f, 0.25f, 0.75f, 0.5f};
  std::int32_t kept[2] = {}, count = 0;
  alignas(64) unsigned char scratch[256];
  md::keep_lists<std::int32_t> const keep{md::view(kept, 1, 2), md::view(&count, 1)};
  md::status const s = md::top_k(md::cpu::backend<>{}, {}, md::view(scores, 4), {}, {}, keep, {scratch, sizeof scratch});
  return s == md::status::ok && count == 2 && kept[0] == 0 && kept[1] == 2 ? 0 : 1;
}
