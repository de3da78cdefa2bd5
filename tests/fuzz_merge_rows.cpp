// SPDX-License-Identifier: Apache-2.0
#include <mustdrop/reference/merge_rows.hpp>
#include "fuzz_segments.hpp"

namespace {

template <class T, class Index, class Out>
void fuzz_merge_rows(fuzz::input& in) {
  fuzz::call call("merge_rows", in);
  fuzz::cut const segments(call, in, fuzz::any_sizes(in, 4, 70));
  md::index_t const tokens = segments.tokens(), dim = in.length(80);
  fuzz::tensor<Index, 1> source(call, in, "source", fuzz::role::in, fuzz::last_axis::dense, tokens);
  fuzz::tensor<std::int32_t, 1> out_offsets(call, in, "out_offsets", fuzz::role::in, fuzz::last_axis::dense, segments.count() + 1);
  md::index_t const groups = 1 + in.upto(80);  // few rows, or about as many as there are tokens
  for (md::index_t s = 0; s < segments.count(); ++s) {
    for (md::index_t i = 0; i < segments.size(s); ++i) {
      source(segments.begin(s) + i) = static_cast<Index>(in.upto(std::min(groups, segments.size(s)) - 1));
    }
  }
  md::index_t room = tokens + in.upto(2) - (in.one_in(16) ? 1 : 0);
  if (in.one_in(2)) {
    room = fuzz::fill_offsets(out_offsets, in, segments.count(), [&](md::index_t s) { return segments.size(s); }) + in.upto(2);
  } else {
    out_offsets.leave_out();
  }
  fuzz::tensor<T, 2> rows(call, in, "rows", fuzz::role::values, fuzz::last_axis::dense, tokens, dim);
  fuzz::tensor<float, 1> sizes(call, in, "sizes", fuzz::role::in, fuzz::last_axis::dense, tokens);
  fuzz::tensor<Out, 2> out(call, in, "out", fuzz::role::out, fuzz::last_axis::dense, room, dim);
  fuzz::tensor<float, 1> out_sizes(call, in, "out_sizes", fuzz::role::out, fuzz::last_axis::dense, room);
  fuzz::reals numbers(in), weights(in);
  bool const whole = !in.one_in(2);
  rows.fill([&] { return numbers.next<T>(); });
  sizes.fill([&] { return whole ? static_cast<float>(in.upto(9)) : weights.next<float>(); });
  if (in.one_in(4)) { sizes.leave_out(); }
  out.guard(), out_sizes.guard();
  if (in.one_in(4)) { out_sizes.leave_out(); }
  call.run([&] { return md::check(segments.of_tokens(), rows.size(0)); },
           [&](auto const& backend, fuzz::side on) {
             return md::merge_rows(backend, rows.view(), sizes.view(), source.view(), segments.of_tokens(), out.view(on),
                                   out_sizes.view(on), out_offsets.view());
           });
}

}  // namespace

void fuzz::run(input& in) {
  switch (in.upto(4)) {
    case 0: return fuzz_merge_rows<float, std::int32_t, float>(in);
    case 1: return fuzz_merge_rows<md::half, std::int64_t, md::half>(in);
    case 2: return fuzz_merge_rows<md::bfloat16, std::int32_t, md::bfloat16>(in);
    case 3: return fuzz_merge_rows<float, std::int64_t, md::half>(in);
    default: return fuzz_merge_rows<md::half, std::int32_t, float>(in);
  }
}
