// SPDX-License-Identifier: Apache-2.0
// dual_mask: on sums and maxima, and on a given map of 32 heads × 40 rows with attention_scores before it (stage 2 of MustDrop).
#include <mustdrop/budget.hpp>

#include "measure.hpp"

template <class T>
struct dual_mask_step : step {
  static constexpr roof limit = roof::read;
  index_t const tokens, protected_tokens;
  md::segments const cut;
  array<float> const sum = input<float>(tokens, true), max = input<float>(tokens, true);
  lists const key_set, kept;

  explicit dual_mask_step(shape const& s)
      : tokens(s.batch * s.tokens),
        protected_tokens(md::key_set_size(s.tokens, 8)),
        cut(even(s.batch, s.tokens)),
        key_set(keep_input(s.batch, s.tokens, protected_tokens)),
        kept(keep_output(s.batch, s.tokens)) {
    bytes = 4.0 * static_cast<double>(2 * tokens + s.batch * protected_tokens);
  }
  template <class Backend>
  md::status run(Backend const& on) {
    return md::dual_mask(on, {}, view(sum, tokens), view(max, tokens), cut, keep(key_set), {}, keep(kept),
                         lend(md::dual_mask_workspace_size(on, tokens, cut)));
  }
};

template <class T>
struct stage_2_step : dual_mask_step<T> {
  static constexpr index_t heads = 32, rows = 40;
  index_t const each;
  md::segments const row_cut;
  array<T> const map;

  explicit stage_2_step(shape const& s)
      : dual_mask_step<T>(s),
        each(s.tokens),
        row_cut(this->even(s.batch, rows)),
        map(this->template input<T>(heads * s.batch * rows * each, true)) {
    this->bytes = static_cast<double>(heads * s.batch * rows * each) * sizeof(T);
  }
  template <class Backend>
  md::status run(Backend const& on) {
    index_t const all_rows = this->cut.count * rows;
    this->clear(on, this->sum);
    this->clear(on, this->max);
    std::size_t const needed = md::attention_scores_workspace_size(on, {heads, all_rows, this->tokens, 0, 0}, row_cut, this->cut);
    md::status const s =
        md::attention_scores(on, {}, this->view(map, heads, all_rows, each), row_cut, this->cut, {}, {},
                             this->view(this->sum, this->tokens), this->view(this->max, this->tokens), {}, this->lend(needed));
    return s != md::status::ok ? s : dual_mask_step<T>::run(on);
  }
};

int main(int argc, char** argv) {
  add<dual_mask_step, float>("dual_mask");
  add_of_every_type<stage_2_step>("map+dual_mask");
  return run_all(argc, argv);
}
