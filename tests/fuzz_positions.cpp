// SPDX-License-Identifier: Apache-2.0
#include <mustdrop/reference/positions.hpp>
#include "fuzz_segments.hpp"

namespace {

template <class P, class Index>
void fuzz_positions(fuzz::input& in) {
  fuzz::call call("positions", in);
  auto const policy = in.pick({md::position_policy::kept, md::position_policy::renumbered, md::position_policy::closed});
  fuzz::cut const segments(call, in, fuzz::any_sizes(in, 4, 150));
  md::index_t const tokens = segments.tokens(), axes = in.pick<md::index_t>({1, 3, in.upto(4)});
  fuzz::lists<Index> keep(call, in, "keep", fuzz::role::in, segments, segments.longest() + in.upto(2));
  keep.fill(in, segments);
  fuzz::tensor<std::int32_t, 1> out_offsets(call, in, "out_offsets", fuzz::role::in, fuzz::last_axis::dense, segments.count() + 1);
  bool const one = segments.of_tokens().offsets == nullptr;
  md::index_t room = (one ? std::min(keep.view().capacity(), tokens) : tokens) + in.upto(2) - (in.one_in(16) ? 1 : 0);
  if (in.one_in(2)) {
    room = fuzz::fill_offsets(out_offsets, in, segments.count(), [&](md::index_t s) { return keep.count(s); }) + in.upto(2);
  } else {
    out_offsets.leave_out();
  }
  fuzz::tensor<P, 2> old(call, in, "old", fuzz::role::values, fuzz::last_axis::dense, axes, tokens);
  fuzz::tensor<P, 2> out(call, in, "out", fuzz::role::out, fuzz::last_axis::dense, axes, room);
  fuzz::tensor<P, 1> delta(call, in, "delta", fuzz::role::out, fuzz::last_axis::dense, segments.count());
  P next = static_cast<P>(in.upto(1000) - 500);
  md::index_t const jump = in.pick<md::index_t>({0, 1, 100, 1 << 20});
  old.fill([&] { return jump == 0 ? next++ : static_cast<P>(in.upto(2 * jump) - jump); });
  out.guard(), delta.guard();
  if (in.one_in(4)) { delta.leave_out(); }
  bool const flat = axes == 1 && in.one_in(2);
  auto const row = [](md::tensor_view<P, 2> v) { return md::tensor_view<P, 1>{v.data, {v.sizes[1]}, {v.strides[1]}}; };
  call.run([&] { return md::check(keep.view(), segments.of_tokens(), old.size(1)); },
           [&](auto const& backend, fuzz::side on) {
             return flat ? md::positions(backend, policy, row(old.view()), segments.of_tokens(), keep.view(), row(out.view(on)),
                                         delta.view(on), out_offsets.view())
                         : md::positions(backend, policy, old.view(), segments.of_tokens(), keep.view(), out.view(on), delta.view(on),
                                         out_offsets.view());
           });
}

}  // namespace

void fuzz::run(input& in) {
  switch (in.upto(3)) {
    case 0: return fuzz_positions<std::int32_t, std::int32_t>(in);
    case 1: return fuzz_positions<std::int64_t, std::int64_t>(in);
    case 2: return fuzz_positions<std::int32_t, std::int64_t>(in);
    default: return fuzz_positions<std::int64_t, std::int32_t>(in);
  }
}
