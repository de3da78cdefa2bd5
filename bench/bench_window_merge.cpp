// SPDX-License-Identifier: Apache-2.0
// window_merge: 33 of 64 windows, so that 577 tokens become 313; alone, and with window_similarity before it (stage 1 of MustDrop).

#include "measure.hpp"
#include "windows.hpp"

template <class T>
struct window_merge_step : windows_step<T> {
  static constexpr roof limit = roof::copy;
  using grid = windows_step<T>;
  static constexpr md::merge_options options{0, 33};
  array<float> const scores = this->template input<float>(this->crops * grid::windows);
  array<T> const merged = this->template output<T>(this->tokens * grid::dim);
  array<float> const sizes = this->template output<float>(this->tokens);
  array<std::int32_t> const source = this->template output<std::int32_t>(this->tokens);
  lists const kept;

  explicit window_merge_step(shape const& s) : grid(s), kept(this->keep_output(this->crops, grid::each)) {
    index_t const left = md::retained_count(options, grid::window, this->crop_grids[0]);
    this->bytes = static_cast<double>(this->crops * (grid::each + left) * grid::dim) * sizeof(T);
  }
  auto similarity() const { return this->view(scores, this->crops, grid::windows); }
  template <class Backend>
  md::status run(Backend const& on) {
    std::size_t const needed = md::window_merge_workspace_size(on, grid::window, this->tokens, grid::dim, grid::windows, this->cut);
    return md::window_merge(on, options, grid::window, this->features(), this->cut, this->grids(), similarity(), {},
                            this->view(merged, this->tokens, grid::dim), this->view(sizes, this->tokens), this->view(source, this->tokens),
                            this->keep(kept), this->lend(needed));
  }
};

/// Features are read a second time, from wherever the cache still has them.
template <class T>
struct stage_1_step : window_merge_step<T> {
  using grid = windows_step<T>;
  explicit stage_1_step(shape const& s) : window_merge_step<T>(s) {
    this->bytes += static_cast<double>(this->crops * (grid::each - 1) * grid::dim) * sizeof(T);
  }
  template <class Backend>
  md::status run(Backend const& on) {
    std::size_t const needed = md::window_similarity_workspace_size(on, grid::window, this->tokens, grid::dim, this->cut);
    md::status const s =
        md::window_similarity(on, grid::window, this->features(), this->cut, this->grids(), this->similarity(), this->lend(needed));
    return s != md::status::ok ? s : window_merge_step<T>::run(on);
  }
};

int main(int argc, char** argv) {
  add_of_every_type<window_merge_step>("window_merge");
  add_of_every_type<stage_1_step>("window_similarity+window_merge");
  return run_all(argc, argv);
}
