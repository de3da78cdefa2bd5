// SPDX-License-Identifier: Apache-2.0
// random: a third of the tokens of each image. Hashes, then top_k: no roof of memory or fma is near.

#include "measure.hpp"

template <class T>
struct random_step : step {
  static constexpr roof limit = roof::none;
  index_t const tokens;
  md::segments const cut;
  array<float> const scores = output<float>(tokens);
  array<std::uint64_t> const seed;
  lists const kept;

  explicit random_step(shape const& s)
      : tokens(s.batch * s.tokens),
        cut(even(s.batch, s.tokens)),
        seed(input<std::uint64_t>(1, [](std::uint64_t* data, std::mt19937& random) { *data = random(); })),
        kept(keep_output(s.batch, s.tokens / 3)) {
    bytes = 4.0 * static_cast<double>(tokens + tokens / 3);
  }
  template <class Backend>
  md::status run(Backend const& on) {
    return md::method::random(on, {*at(seed)}, cut, {}, view(scores, tokens), keep(kept), lend(md::top_k_workspace_size(on, tokens, cut)));
  }
};

int main(int argc, char** argv) {
  add<random_step, float>("random");
  return run_all(argc, argv);
}
