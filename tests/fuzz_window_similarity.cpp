// SPDX-License-Identifier: Apache-2.0
#include <mustdrop/reference/window_similarity.hpp>
#include "fuzz_grids.hpp"

namespace {

template <class T>
void fuzz_window_similarity(fuzz::input& in) {
  fuzz::call call("window_similarity", in);
  md::window_shape const window = fuzz::any_window(in);
  std::vector<md::token_grid> const all = fuzz::any_grids(in);
  fuzz::cut const segments(call, in, fuzz::sizes_of(all));
  md::index_t const tokens = segments.tokens(), dim = in.length(80);
  fuzz::grids_argument grids(call, in, all);
  fuzz::tensor<T, 2> features(call, in, "features", fuzz::role::values, fuzz::last_axis::dense, tokens, dim);
  fuzz::tensor<float, 2> similarity(call, in, "similarity", fuzz::role::out, fuzz::last_axis::dense, segments.count(),
                                    fuzz::most_windows(all, window) + in.upto(2));
  fuzz::reals numbers(in);
  features.fill([&] { return numbers.next<T>(); });
  similarity.guard();
  // A window of one token is no contents: the word refuses it.
  call.run(
      [&] {
        return window.valid() ? md::check(grids.view(), window, segments.of_tokens(), features.size(0), similarity.size(1))
                              : md::check(segments.of_tokens(), features.size(0));
      },
      [&](auto const& backend) {
        return window.valid() ? md::window_similarity_workspace_size(backend, window, tokens, dim, segments.of_tokens()) : 0;
      },
      [&](auto const& backend, fuzz::side on, md::workspace scratch) {
        return md::window_similarity(backend, window, features.view(), segments.of_tokens(), grids.view(), similarity.view(on), scratch);
      });
}

}  // namespace

void fuzz::run(input& in) {
  switch (in.upto(2)) {
    case 0: return fuzz_window_similarity<float>(in);
    case 1: return fuzz_window_similarity<md::half>(in);
    default: return fuzz_window_similarity<md::bfloat16>(in);
  }
}
