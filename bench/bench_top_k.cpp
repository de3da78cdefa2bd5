// SPDX-License-Identifier: Apache-2.0
// top_k: a third of the tokens of each image.

#include "measure.hpp"

template <class T>
struct top_k_step : step {
  static constexpr roof limit = roof::read;
  using composed = top_k_step;  // of CUB's parts too, on a device
  index_t const tokens;
  md::segments const cut;
  array<float> const scores = input<float>(tokens);
  lists const kept;

  explicit top_k_step(shape const& s) : tokens(s.batch * s.tokens), cut(even(s.batch, s.tokens)), kept(keep_output(s.batch, s.tokens / 3)) {
    bytes = 4.0 * static_cast<double>(tokens + tokens / 3);
  }
  template <class Backend>
  md::status run(Backend const& on) {
    return md::top_k(on, {}, view(scores, tokens), cut, {}, keep(kept), lend(md::top_k_workspace_size(on, tokens, cut)));
  }
};

int main(int argc, char** argv) {
  add<top_k_step, float>("top_k");
  return run_all(argc, argv);
}
