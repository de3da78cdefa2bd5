// SPDX-License-Identifier: Apache-2.0
// positions: of a third of an image's tokens, one axis.

#include "measure.hpp"

template <class T>
struct positions_step : step {
  static constexpr roof limit = roof::copy;
  index_t const tokens;
  md::segments const cut;
  array<std::int32_t> const old = input<std::int32_t>(tokens, [n = tokens](std::int32_t* data, std::mt19937& random) {
    std::iota(data, data + n, static_cast<std::int32_t>(random() % 4096));
  });
  lists const kept;
  array<std::int32_t> const out = output<std::int32_t>(tokens), delta;

  explicit positions_step(shape const& s)
      : tokens(s.batch * s.tokens),
        cut(even(s.batch, s.tokens)),
        kept(keep_input(s.batch, s.tokens, s.tokens / 3)),
        delta(output<std::int32_t>(s.batch)) {
    bytes = 3 * 4.0 * static_cast<double>(tokens / 3);
  }
  template <class Backend>
  md::status run(Backend const& on) {
    return md::positions(on, md::position_policy::kept, view(old, tokens), cut, keep(kept), view(out, tokens), view(delta, cut.count), {});
  }
};

int main(int argc, char** argv) {
  add<positions_step, float>("positions");
  return run_all(argc, argv);
}
