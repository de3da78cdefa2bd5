// SPDX-License-Identifier: Apache-2.0
#include <mustdrop/reference/cls_topk.hpp>
#include "fuzz_segments.hpp"

namespace {

template <class T, class Index>
void fuzz_cls_topk(fuzz::input& in) {
  fuzz::call call("cls_topk", in);
  md::cls_topk_options const options{in.pick<md::index_t>({8, 0, 100, in.upto(100), in.upto(110) - 5}), in.upto(4) - in.one_in(16),
                                     in.upto(3), in.pick({md::output_order::position, md::output_order::score})};
  fuzz::cut const segments(call, in, fuzz::any_sizes(in, 4, 150));
  md::index_t const heads = 1 + in.upto(16) - in.one_in(16);
  fuzz::tensor<T, 2> attention(call, in, "attention", fuzz::role::values, fuzz::last_axis::dense, heads, segments.tokens());
  fuzz::tensor<std::int32_t, 1> requested(call, in, "requested", fuzz::role::in, fuzz::last_axis::dense, segments.count());
  md::index_t const capacity = in.one_in(4) ? in.length(150) : std::max<md::index_t>(md::retained_count(options, segments.bound()), 0);
  fuzz::lists<Index> keep(call, in, "keep", fuzz::role::out, segments, capacity);
  fuzz::reals numbers(in);
  attention.fill([&] { return numbers.next<T>(); });
  fuzz::fill_requested(requested, in, segments.longest() + 2);
  call.run([&] { return md::check(segments.of_tokens(), attention.size(1)); },
           [&](auto const& backend) { return md::cls_topk_workspace_size(backend, heads, segments.tokens(), segments.of_tokens()); },
           [&](auto const& backend, fuzz::side on, md::workspace scratch) {
             return md::cls_topk(backend, options, attention.view(), segments.of_tokens(), requested.view(), keep.view(on), scratch);
           });
}

}  // namespace

void fuzz::run(input& in) {
  switch (in.upto(2)) {
    case 0: return fuzz_cls_topk<float, std::int32_t>(in);
    case 1: return fuzz_cls_topk<md::half, std::int64_t>(in);
    default: return fuzz_cls_topk<md::bfloat16, std::int32_t>(in);
  }
}
