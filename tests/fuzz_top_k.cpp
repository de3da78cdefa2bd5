// SPDX-License-Identifier: Apache-2.0
#include <mustdrop/reference/top_k.hpp>
#include "fuzz_segments.hpp"

namespace {

template <class Index>
void fuzz_top_k(fuzz::input& in) {
  fuzz::call call("top_k", in);
  md::top_k_options const options{in.pick({md::output_order::position, md::output_order::score})};
  fuzz::cut const segments(call, in, fuzz::any_sizes(in, 4, 150));
  fuzz::tensor<float, 1> scores(call, in, "scores", fuzz::role::in, fuzz::last_axis::dense, segments.tokens());
  fuzz::tensor<std::int32_t, 1> requested(call, in, "requested", fuzz::role::in, fuzz::last_axis::dense, segments.count());
  fuzz::lists<Index> keep(call, in, "keep", fuzz::role::out, segments, in.length(160));
  fuzz::reals numbers(in);
  scores.fill([&] { return numbers.next<float>(); });
  fuzz::fill_requested(requested, in, segments.longest() + 2);
  call.run([&] { return md::check(segments.of_tokens(), scores.size(0)); },
           [&](auto const& backend) { return md::top_k_workspace_size(backend, segments.tokens(), segments.of_tokens()); },
           [&](auto const& backend, fuzz::side on, md::workspace scratch) {
             return md::top_k(backend, options, scores.view(), segments.of_tokens(), requested.view(), keep.view(on), scratch);
           });
}

}  // namespace

void fuzz::run(input& in) { in.one_in(2) ? fuzz_top_k<std::int64_t>(in) : fuzz_top_k<std::int32_t>(in); }
