// SPDX-License-Identifier: Apache-2.0
#include <mustdrop/reference/window_merge.hpp>
#include "fuzz_grids.hpp"

namespace {

template <class T, class Row, class Index>
void fuzz_window_merge(fuzz::input& in) {
  fuzz::call call("window_merge", in);
  md::window_shape const window = fuzz::any_window(in);
  std::vector<md::token_grid> const all = fuzz::any_grids(in);
  fuzz::cut const segments(call, in, fuzz::sizes_of(all));
  md::index_t const tokens = segments.tokens(), dim = in.length(80), windows = fuzz::most_windows(all, window) + in.upto(2);
  fuzz::grids_argument grids(call, in, all);
  fuzz::tensor<T, 2> features(call, in, "features", fuzz::role::values, fuzz::last_axis::dense, tokens, dim);
  fuzz::tensor<float, 2> similarity(call, in, "similarity", fuzz::role::in, fuzz::last_axis::dense, segments.count(), windows);
  fuzz::tensor<std::int32_t, 1> requested(call, in, "requested", fuzz::role::in, fuzz::last_axis::dense, segments.count());
  fuzz::tensor<Row, 2> rows(call, in, "rows", fuzz::role::out, fuzz::last_axis::dense, tokens, dim);
  fuzz::tensor<float, 1> sizes(call, in, "sizes", fuzz::role::out, fuzz::last_axis::dense, tokens);
  fuzz::tensor<Index, 1> source(call, in, "source", fuzz::role::out, fuzz::last_axis::dense, tokens);
  fuzz::lists<Index> keep(call, in, "keep", fuzz::role::out, segments, segments.bound() + in.upto(3) - (in.one_in(16) ? 1 : 0));

  fuzz::reals numbers(in), similarities(in);
  features.fill([&] { return numbers.next<T>(); });
  similarity.fill([&] { return similarities.next<float>(); });
  md::merge_options options;
  bool const some = segments.count() > 0 && windows > 0;
  options.threshold =
      in.pick({0.8f, some ? similarity(in.upto(segments.count() - 1), in.upto(windows - 1)) : 0.0f, 0.0f, -1.0f, -inf, inf});
  options.count = in.one_in(2) ? in.upto(windows + 1) : md::index_t{-1} - (in.one_in(16) ? 1 : 0);
  options.order = in.pick({md::output_order::position, md::output_order::score});
  fuzz::fill_requested(requested, in, windows + 1);
  if (in.one_in(8)) { similarity.leave_out(); }
  auto const contents = [&] {
    if (!window.valid()) { return md::check(segments.of_tokens(), features.size(0)); }
    md::index_t const columns = similarity.view().absent() ? windows : similarity.size(1);
    return md::check(grids.view(), window, segments.of_tokens(), features.size(0), columns);
  };
  call.run(
      contents,
      [&](auto const& backend) {
        return window.valid() ? md::window_merge_workspace_size(backend, window, tokens, dim, similarity.size(1), segments.of_tokens()) : 0;
      },
      [&](auto const& backend, fuzz::side on, md::workspace scratch) {
        return md::window_merge(backend, options, window, features.view(), segments.of_tokens(), grids.view(), similarity.view(),
                                requested.view(), rows.view(on), sizes.view(on), source.view(on), keep.view(on), scratch);
      });
}

}  // namespace

void fuzz::run(input& in) {
  switch (in.upto(5)) {
    case 0: return fuzz_window_merge<float, float, std::int32_t>(in);
    case 1: return fuzz_window_merge<md::half, md::half, std::int64_t>(in);
    case 2: return fuzz_window_merge<md::bfloat16, md::bfloat16, std::int32_t>(in);
    case 3: return fuzz_window_merge<float, md::half, std::int64_t>(in);
    case 4: return fuzz_window_merge<md::half, float, std::int32_t>(in);
    default: return fuzz_window_merge<md::bfloat16, float, std::int64_t>(in);
  }
}
