// SPDX-License-Identifier: Apache-2.0

// Prints one hash of everything that each word wrote, over many widths and types. The output must be the same text whatever compiler,
// standard, optimisation level, instruction set and backend this file was built with: gates/same_bits.sh compares.

#include "link/tested_backend.hpp"
// its headers first
#include "word_runs.hpp"

namespace {

using namespace words;

/// The functions that the words are made of, on any bits.
void run_numerics(hashes const& wrote) {
  generator random(1);
  for (int i = 0; i < 200000; ++i) {
    float const x = md::float_from_bits(static_cast<std::uint32_t>(random.bits())), y = 90 * random.number(),
                angle = 0x1p21f * random.number();
    md::sine_cosine const turn = md::sin_cos(angle), small_turn = md::sin_cos(y);
    float const results[] = {md::exp(x),
                             md::exp(y),
                             md::tanh(x),
                             md::tanh(y / 16),
                             turn.sine,
                             turn.cosine,
                             small_turn.sine,
                             small_turn.cosine,
                             md::square_root(x),
                             md::divide(x, y),
                             md::widen(md::half{static_cast<std::uint16_t>(i)})};
    wrote("numerics", results, sizeof results / sizeof *results);
    md::half const halves[] = {md::narrow<md::half>(x), md::narrow<md::half>(y)};
    md::bfloat16 const bfloats[] = {md::narrow<md::bfloat16>(x), md::narrow<md::bfloat16>(y)};
    wrote("numerics", halves, 2);
    wrote("numerics", bfloats, 2);
    std::uint64_t const key = md::score_key(x, i);
    wrote("numerics", &key, 1);
  }
}

}  // namespace

int main() {
  hashes wrote;
  for (md::index_t dim = 0; dim <= most_dims; ++dim) {
    for (bool const special : {false, true}) {
      run<tested_backend, heap_memory, float, float, std::int32_t>(dim, special, wrote);
      run<tested_backend, heap_memory, md::half, float, std::int64_t>(dim, special, wrote);
      run<tested_backend, heap_memory, md::bfloat16, md::bfloat16, std::int32_t>(dim, special, wrote);
    }
  }
  run_numerics(wrote);
  wrote.print();
  if (wrote.refused()) { std::puts("a word refused its arguments"); }
  return wrote.refused() ? 1 : 0;
}
