// SPDX-License-Identifier: Apache-2.0
#include <mustdrop/reference/random.hpp>
#include "fuzz_segments.hpp"

namespace {

template <class Index>
void fuzz_random(fuzz::input& in) {
  fuzz::call call("random", in);
  md::method::random_options const options{in.bits(8), in.pick({md::output_order::position, md::output_order::score})};
  fuzz::cut const segments(call, in, fuzz::any_sizes(in, 4, 150));
  fuzz::tensor<std::int32_t, 1> requested(call, in, "requested", fuzz::role::in, fuzz::last_axis::dense, segments.count());
  fuzz::tensor<float, 1> scores(call, in, "scores", fuzz::role::out, fuzz::last_axis::dense, segments.tokens());
  fuzz::lists<Index> keep(call, in, "keep", fuzz::role::out, segments, in.length(160));
  fuzz::fill_requested(requested, in, segments.longest() + 2);
  scores.guard();
  call.run([&] { return md::check(segments.of_tokens(), scores.size(0)); },
           [&](auto const& backend) { return md::top_k_workspace_size(backend, segments.tokens(), segments.of_tokens()); },
           [&](auto const& backend, fuzz::side on, md::workspace scratch) {
             return md::method::random(backend, options, segments.of_tokens(), requested.view(), scores.view(on), keep.view(on), scratch);
           });
}

}  // namespace

void fuzz::run(input& in) { in.one_in(2) ? fuzz_random<std::int64_t>(in) : fuzz_random<std::int32_t>(in); }
