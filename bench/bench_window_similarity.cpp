// SPDX-License-Identifier: Apache-2.0
// window_similarity: features are read once from where they are and once more from the nearest cache; the first reading is what counts.

#include "measure.hpp"
#include "windows.hpp"

template <class T>
struct window_similarity_step : windows_step<T> {
  static constexpr roof limit = roof::read;
  using grid = windows_step<T>;
  array<float> const similarity = this->template output<float>(this->crops * grid::windows);

  explicit window_similarity_step(shape const& s) : grid(s) {
    auto const elements = static_cast<double>(this->crops * (grid::each - 1) * grid::dim);
    this->bytes = elements * sizeof(T), this->flops = 4 * elements;
  }
  template <class Backend>
  md::status run(Backend const& on) {
    return md::window_similarity(on, grid::window, this->features(), this->cut, this->grids(),
                                 this->view(similarity, this->crops, grid::windows),
                                 this->lend(md::window_similarity_workspace_size(on, grid::window, this->tokens, grid::dim, this->cut)));
  }
};

int main(int argc, char** argv) {
  add_of_every_type<window_similarity_step>("window_similarity");
  return run_all(argc, argv);
}
