// SPDX-License-Identifier: Apache-2.0
// spread_rows: 313 rows of 1024 become 577 again.

#include "measure.hpp"
#include "sources.hpp"

template <class T>
struct spread_rows_step : step {
  static constexpr roof limit = roof::copy;
  static constexpr index_t each = 577, left = 313, dim = 1024;
  index_t const tokens;
  md::segments const cut;
  array<T> const merged = input<T>(tokens * dim);
  array<std::int32_t> const source = input<std::int32_t>(tokens, sources{tokens, each, left});
  array<T> const out = output<T>(tokens * dim);

  explicit spread_rows_step(shape const& s) : tokens(s.crops() * each), cut(even(s.crops(), each)) {
    bytes = static_cast<double>(s.crops() * (each + left) * dim) * sizeof(T);
  }
  template <class Backend>
  md::status run(Backend const& on) {
    return md::spread_rows(on, view(merged, tokens, dim), view(source, tokens), cut, {}, view(out, tokens, dim));
  }
};

int main(int argc, char** argv) {
  add_of_every_type<spread_rows_step>("spread_rows");
  return run_all(argc, argv);
}
