// SPDX-License-Identifier: Apache-2.0
// gather: hidden states of a 7B model, [651, 4096] → 275 rows; as a copy, and through RMSNorm.

#include "measure.hpp"

template <class T>
struct gather_step : step {
  static constexpr roof limit = roof::copy;
  static constexpr index_t dim = 4096;
  using composed = gather_step;
  index_t const tokens, left;
  md::segments const cut;
  array<T> const rows = input<T>(tokens * dim), weight = input<T>(dim);
  lists const kept;
  array<T> const out;

  explicit gather_step(shape const& s)
      : tokens(s.batch * s.prompt()),
        left(s.prompt() * 275 / 651),
        cut(even(s.batch, s.prompt())),
        kept(keep_input(s.batch, s.prompt(), left)),
        out(output<T>(tokens * dim)) {
    bytes = 2.0 * static_cast<double>(s.batch * left * dim) * sizeof(T);
  }
  template <class Backend>
  md::status run(Backend const& on) {
    return md::gather(on, view(rows, tokens, dim), cut, keep(kept), view(out, tokens, dim), {});
  }
};

template <class T>
struct gather_norm_step : gather_step<T> {
  explicit gather_norm_step(shape const& s) : gather_step<T>(s) { this->flops = 4 * this->bytes / (2 * sizeof(T)); }
  template <class Backend>
  md::status run(Backend const& on) {
    md::rms_norm const norm{this->view(this->weight, this->dim), 1e-5f};
    return md::gather(on, norm, this->view(this->rows, this->tokens, this->dim), this->cut, this->keep(this->kept),
                      this->view(this->out, this->tokens, this->dim), {});
  }
};

int main(int argc, char** argv) {
  add_of_every_type<gather_step>("gather");
  add_of_every_type<gather_norm_step>("gather+rms_norm");
  return run_all(argc, argv);
}
