// SPDX-License-Identifier: Apache-2.0
#include <mustdrop/reference/spread_rows.hpp>
#include "fuzz_segments.hpp"

namespace {

template <class T, class Index>
void fuzz_spread_rows(fuzz::input& in) {
  fuzz::call call("spread_rows", in);
  fuzz::cut const segments(call, in, fuzz::any_sizes(in, 4, 150));
  md::index_t const tokens = segments.tokens(), dim = in.length(80), groups = 1 + in.upto(80);
  fuzz::tensor<Index, 1> source(call, in, "source", fuzz::role::in, fuzz::last_axis::dense, tokens);
  fuzz::tensor<std::int32_t, 1> merged_offsets(call, in, "merged_offsets", fuzz::role::in, fuzz::last_axis::dense, segments.count() + 1);
  auto const rows_of = [&](md::index_t s) { return std::min(groups, segments.size(s)); };
  for (md::index_t s = 0; s < segments.count(); ++s) {
    for (md::index_t i = 0; i < segments.size(s); ++i) { source(segments.begin(s) + i) = static_cast<Index>(in.upto(rows_of(s) - 1)); }
  }
  md::index_t room = tokens;
  if (in.one_in(2)) {
    room = fuzz::fill_offsets(merged_offsets, in, segments.count(), rows_of) + in.upto(2);
  } else {
    merged_offsets.leave_out();
  }
  fuzz::tensor<T, 2> merged(call, in, "merged", fuzz::role::values, fuzz::last_axis::dense, room, dim);
  fuzz::tensor<T, 2> out(call, in, "out", fuzz::role::out, fuzz::last_axis::dense, tokens, dim);
  std::uint32_t number = 0;
  merged.fill([&] { return static_cast<T>(number++ * 0x01030507u); });
  out.guard();
  auto const contents = [&] {
    md::status const rows = merged.size(0) < room ? md::status::bad_argument : md::status::ok;  // every source lies within them
    return fuzz::first_error(md::check(segments.of_tokens(), source.size(0)), rows);
  };
  call.run(contents, [&](auto const& backend, fuzz::side on) {
    return md::spread_rows(backend, merged.view(), source.view(), segments.of_tokens(), merged_offsets.view(), out.view(on));
  });
}

}  // namespace

void fuzz::run(input& in) {
  switch (in.upto(3)) {
    case 0: return fuzz_spread_rows<std::uint32_t, std::int32_t>(in);
    case 1: return fuzz_spread_rows<std::uint16_t, std::int64_t>(in);
    case 2: return fuzz_spread_rows<std::uint8_t, std::int32_t>(in);
    default: return fuzz_spread_rows<std::uint64_t, std::int64_t>(in);
  }
}
