// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include <mustdrop/reference/rerotate.hpp>
#include "fuzz_segments.hpp"

namespace {

template <class T, class P>
void fuzz_rerotate(fuzz::input& in) {
  fuzz::call call("rerotate", in);
  auto const pairs = in.pick({md::rope_pairs::half_split, md::rope_pairs::interleaved});
  fuzz::cut const segments(call, in, fuzz::any_sizes(in, 3, 40));
  md::index_t const slots = segments.tokens(), dim = in.length(80), axes = in.pick<md::index_t>({1, 3, in.upto(4)}), heads = in.upto(4);
  md::index_t const frequencies = in.one_in(2) ? in.upto(dim / 2 + 1) : dim / 2;
  fuzz::tensor<T, 3> keys(call, in, "keys", fuzz::role::out, fuzz::last_axis::dense, heads, slots, dim);
  fuzz::tensor<P, 2> old(call, in, "old", fuzz::role::values, fuzz::last_axis::dense, axes, slots);
  fuzz::tensor<P, 2> updated(call, in, "updated", fuzz::role::values, fuzz::last_axis::dense, axes, slots);
  fuzz::tensor<float, 1> inv_freq(call, in, "inv_freq", fuzz::role::in, fuzz::last_axis::dense, frequencies);
  fuzz::tensor<std::int32_t, 1> axis_of(call, in, "axis_of", fuzz::role::in, fuzz::last_axis::dense, frequencies);

  fuzz::reals numbers(in), turns(in);
  keys.fill([&] { return numbers.next<T>(); });
  md::index_t const reach = in.pick<md::index_t>({3, 100, 1 << 12, 1 << 20, 1 << 24});
  bool const few_move = in.one_in(2);
  old.fill([&] { return static_cast<P>(few_move ? in.upto(1) : in.upto(reach)); });
  updated.fill([&] { return static_cast<P>(few_move ? in.upto(1) : in.upto(reach)); });
  float angle = 1;
  bool const usual = !in.one_in(3);
  inv_freq.fill([&] { return usual ? angle *= 0.75f : turns.next<float>(); });
  axis_of.fill([&] { return static_cast<std::int32_t>(in.upto(std::max<md::index_t>(axes, 1) - 1)); });
  if (in.one_in(2)) { axis_of.leave_out(); }
  bool const flat = axes == 1 && in.one_in(2);
  auto const row = [](md::tensor_view<P, 2> v) { return md::tensor_view<P, 1>{v.data, {v.sizes[1]}, {v.strides[1]}}; };
  call.run([&] { return md::check(segments.of_tokens(), keys.size(1)); },
           [&](auto const& backend, fuzz::side on) {
             return flat ? md::rerotate(backend, pairs, keys.view(on), segments.of_tokens(), row(old.view()), row(updated.view()),
                                        inv_freq.view())
                         : md::rerotate(backend, pairs, keys.view(on), segments.of_tokens(), old.view(), updated.view(), inv_freq.view(),
                                        axis_of.view());
           });
}

}  // namespace

void fuzz::run(input& in) {
  switch (in.upto(2)) {
    case 0: return fuzz_rerotate<float, std::int32_t>(in);
    case 1: return fuzz_rerotate<md::half, std::int64_t>(in);
    default: return fuzz_rerotate<md::bfloat16, std::int32_t>(in);
  }
}
