// SPDX-License-Identifier: Apache-2.0
#include <mustdrop/reference/dual_mask.hpp>
#include "fuzz_segments.hpp"

namespace {

/// A threshold: the published one, an ordinary or an extreme one, or one that a score is equal to.
float any_threshold(fuzz::input& in, float some_score) {
  constexpr float special[] = {0.001f, 0, 1, 0.25f, 0.0078125f, -1, inf, quiet_nan, 0x1p-149f, 0x1p127f};
  md::index_t const which = in.upto(15);
  return which < 10 ? special[which] : which < 13 ? some_score : static_cast<float>(in.upto(255)) * 0x1p-12f;
}

template <class Index>
void fuzz_dual_mask(fuzz::input& in) {
  fuzz::call call("dual_mask", in);
  fuzz::cut const segments(call, in, fuzz::any_sizes(in, 4, 150));
  md::index_t const tokens = segments.tokens();
  fuzz::tensor<float, 1> sum(call, in, "sum", fuzz::role::in, fuzz::last_axis::dense, tokens);
  fuzz::tensor<float, 1> max(call, in, "max", fuzz::role::in, fuzz::last_axis::dense, tokens);
  fuzz::lists<Index> always_kept(call, in, "always_kept", fuzz::role::in, segments, segments.longest() + in.upto(2));
  fuzz::tensor<std::int32_t, 1> requested(call, in, "requested", fuzz::role::in, fuzz::last_axis::dense, segments.count());
  fuzz::lists<Index> keep(call, in, "keep", fuzz::role::out, segments, segments.bound() + in.upto(3) - in.one_in(16));

  fuzz::reals sums(in), maxima(in);
  sum.fill([&] { return sums.next<float>(); });
  max.fill([&] { return maxima.next<float>(); });
  md::index_t const some = tokens > 0 ? in.upto(tokens - 1) : 0;
  md::dual_mask_options const options{any_threshold(in, tokens > 0 ? sum(some) : 0), any_threshold(in, tokens > 0 ? max(some) : 0),
                                      in.one_in(2) ? in.upto(tokens + 1) : md::index_t{-1} - in.one_in(16)};
  always_kept.fill(in, segments);
  if (in.one_in(4)) { always_kept.leave_out(); }
  fuzz::fill_requested(requested, in, segments.longest() + 2);
  auto const contents = [&] {
    bool const given = !always_kept.view().absent();
    return fuzz::first_error(md::check(segments.of_tokens(), sum.size(0)),
                             given ? md::check(always_kept.view(), segments.of_tokens(), sum.size(0)) : md::status::ok);
  };
  call.run(
      contents, [&](auto const& backend) { return md::dual_mask_workspace_size(backend, tokens, segments.of_tokens()); },
      [&](auto const& backend, fuzz::side on, md::workspace scratch) {
        return md::dual_mask(backend, options, sum.view(), max.view(), segments.of_tokens(), always_kept.view(), requested.view(),
                             keep.view(on), scratch);
      });
}

}  // namespace

void fuzz::run(input& in) { in.one_in(2) ? fuzz_dual_mask<std::int64_t>(in) : fuzz_dual_mask<std::int32_t>(in); }
