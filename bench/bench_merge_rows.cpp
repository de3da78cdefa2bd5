// SPDX-License-Identifier: Apache-2.0
// merge_rows: 577 rows of 1024 become 313; each output row is that of one token in any place, the other tokens join one of them.

#include "measure.hpp"
#include "sources.hpp"

template <class T>
struct merge_rows_step : step {
  static constexpr roof limit = roof::copy;
  static constexpr index_t each = 577, left = 313, dim = 1024;
  index_t const tokens;
  md::segments const cut;
  array<T> const rows = input<T>(tokens * dim);
  array<float> const weights = input<float>(tokens, true);
  array<std::int32_t> const source = input<std::int32_t>(tokens, sources{tokens, each, left});
  array<T> const out = output<T>(tokens * dim);
  array<float> const sizes = output<float>(tokens);

  explicit merge_rows_step(shape const& s) : tokens(s.crops() * each), cut(even(s.crops(), each)) {
    bytes = static_cast<double>(s.crops() * (each + left) * dim) * sizeof(T);
  }
  template <class Backend>
  md::status run(Backend const& on) {
    return md::merge_rows(on, view(rows, tokens, dim), view(weights, tokens), view(source, tokens), cut, view(out, tokens, dim),
                          view(sizes, tokens), {});
  }
};

int main(int argc, char** argv) {
  add_of_every_type<merge_rows_step>("merge_rows");
  return run_all(argc, argv);
}
