// SPDX-License-Identifier: Apache-2.0
#include <mustdrop/reference/gather.hpp>
#include "fuzz_segments.hpp"

namespace {

/// Where rows that stay go: in place of capacity, or packed.
struct gather_places {
  gather_places(fuzz::call& of, fuzz::input& in, fuzz::cut const& segments)
      : offsets(of, in, "out_offsets", fuzz::role::in, fuzz::last_axis::dense, segments.count() + 1), packed(in.one_in(2)) {}

  /// How long the output is.
  template <class Index>
  md::index_t room(fuzz::input& in, fuzz::cut const& segments, fuzz::lists<Index>& keep) {
    if (packed) {
      return fuzz::fill_offsets(offsets, in, segments.count(), [&](md::index_t s) { return keep.count(s); }) + in.upto(2);
    }
    offsets.leave_out();
    bool const one = segments.of_tokens().offsets == nullptr;
    return (one ? std::min(keep.view().capacity(), segments.tokens()) : segments.tokens()) + in.upto(2) - (in.one_in(16) ? 1 : 0);
  }

  fuzz::tensor<std::int32_t, 1> offsets;
  bool packed;
};

/// Elements of the sizes that engines have: bytes, halves, floats, doubles, and a block of quantised numbers.
template <int Bytes>
struct element {
  std::uint8_t of[Bytes];
};

template <class T, int Rank, class Index>
void fuzz_gather(fuzz::input& in) {
  fuzz::call call("gather", in);
  fuzz::cut const segments(call, in, fuzz::any_sizes(in, 4, 150));
  fuzz::lists<Index> keep(call, in, "keep", fuzz::role::in, segments, segments.longest() + in.upto(2));
  keep.fill(in, segments);
  gather_places places(call, in, segments);
  md::index_t const a = Rank == 3 ? in.upto(5) : in.length(80), b = in.length(40), room = places.room(in, segments, keep);
  auto const last = Rank == 1 ? fuzz::last_axis::any : fuzz::last_axis::dense;
  auto const make = [&](char const* name, fuzz::role used_as, md::index_t tokens) {
    if constexpr (Rank == 1) {
      return fuzz::tensor<T, 1>(call, in, name, used_as, last, tokens);
    } else if constexpr (Rank == 2) {
      return fuzz::tensor<T, 2>(call, in, name, used_as, last, tokens, a);
    } else {
      return fuzz::tensor<T, 3>(call, in, name, used_as, last, tokens, a, b);
    }
  };
  fuzz::tensor<T, Rank> rows = make("rows", fuzz::role::values, segments.tokens()), out = make("out", fuzz::role::out, room);
  std::uint8_t byte = 0;
  rows.fill([&] {
    T value;
    for (std::uint8_t& of : value.of) { of = ++byte; }
    return value;
  });
  out.guard();
  call.run([&] { return fuzz::first_error(md::check(keep.view(), segments.of_tokens(), rows.size(0))); },
           [&](auto const& backend, fuzz::side on) {
             return md::gather(backend, rows.view(), segments.of_tokens(), keep.view(), out.view(on), places.offsets.view());
           });
}

template <class T, class Out, class W, class Index>
void fuzz_norm(fuzz::input& in) {
  fuzz::call call("gather with rms_norm", in);
  fuzz::cut const segments(call, in, fuzz::any_sizes(in, 4, 60));
  fuzz::lists<Index> keep(call, in, "keep", fuzz::role::in, segments, segments.longest() + in.upto(2));
  keep.fill(in, segments);
  gather_places places(call, in, segments);
  md::index_t const dim = in.length(150), room = places.room(in, segments, keep);
  fuzz::tensor<T, 2> rows(call, in, "rows", fuzz::role::values, fuzz::last_axis::dense, segments.tokens(), dim);
  fuzz::tensor<W, 1> weight(call, in, "weight", fuzz::role::in, fuzz::last_axis::dense, dim);
  fuzz::tensor<Out, 2> out(call, in, "out", fuzz::role::out, fuzz::last_axis::dense, room, dim);
  fuzz::reals numbers(in), weights(in);
  rows.fill([&] { return numbers.next<T>(); });
  weight.fill([&] { return weights.next<W>(); });
  out.guard();
  float const epsilon = in.pick({1e-6f, 1e-5f, 0.0f, inf, quiet_nan});
  call.run([&] { return md::check(keep.view(), segments.of_tokens(), rows.size(0)); },
           [&](auto const& backend, fuzz::side on) {
             return md::gather(backend, md::rms_norm{weight.view(), epsilon}, rows.view(), segments.of_tokens(), keep.view(), out.view(on),
                               places.offsets.view());
           });
}

}  // namespace

void fuzz::run(input& in) {
  switch (in.upto(9)) {
    case 0: return fuzz_gather<element<2>, 2, std::int32_t>(in);
    case 1: return fuzz_gather<element<4>, 2, std::int64_t>(in);
    case 2: return fuzz_gather<element<1>, 3, std::int32_t>(in);
    case 3: return fuzz_gather<element<4>, 1, std::int32_t>(in);
    case 4: return fuzz_gather<element<34>, 2, std::int32_t>(in);
    case 5: return fuzz_gather<element<8>, 1, std::int64_t>(in);
    case 6: return fuzz_norm<float, float, float, std::int32_t>(in);
    case 7: return fuzz_norm<md::half, md::half, md::half, std::int64_t>(in);
    case 8: return fuzz_norm<md::bfloat16, md::half, float, std::int32_t>(in);
    default: return fuzz_norm<float, md::bfloat16, md::bfloat16, std::int64_t>(in);
  }
}
