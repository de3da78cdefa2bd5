// SPDX-License-Identifier: Apache-2.0
#pragma once

// Contract: mustdrop/merge_rows.hpp. No scratch is lent, so the tokens of each row are searched for, a register of sources at a time:
// reading tokens² small integers from the first cache is little beside a copy of the rows.

#include <mustdrop/cpu/numerics.hpp>
#include <mustdrop/cpu/rows.hpp>
#include <mustdrop/merge_rows.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace cpu {

/// The first token of [from, end) that goes to `row`; end if there is none.
template <class Arch, class Index>
index_t next_member(Index const* source, index_t from, index_t end, index_t row) noexcept {
  using sources = xsimd::batch<Index, Arch>;
  constexpr auto width = static_cast<index_t>(sources::size);
  sources const wanted(static_cast<Index>(row));
  for (; from + width <= end && !xsimd::any(sources::load_unaligned(source + from) == wanted); from += width) {}
  while (from < end && source[from] != row) { ++from; }
  return from;
}

/// The tokens of one row: the first few in a list, the others found again by whoever comes that far.
template <class Arch, class Index>
struct row_members {
  static constexpr index_t most = 64;
  Index const* source;
  index_t row, end;
  index_t listed = 0, list[most] = {};

  row_members(Index const* sources, index_t begin, index_t last, index_t of) noexcept : source(sources), row(of), end(last) {
    for (index_t i = next_member<Arch>(source, begin, end, row); i < end && listed < most; i = next_member<Arch>(source, i + 1, end, row)) {
      list[listed++] = i;
    }
  }
  template <class F>
  void for_each(F const& f) const noexcept {
    for (index_t m = 0; m < listed; ++m) { f(list[m]); }
    if (listed < most) { return; }
    for (index_t i = next_member<Arch>(source, list[most - 1] + 1, end, row); i < end; i = next_member<Arch>(source, i + 1, end, row)) {
      f(i);
    }
  }
};

/// out = (Σ size·row) / total
template <class Arch, class T, class Out, class Members, class SizeOf>
MUSTDROP_FLATTEN void mean_of_rows(tensor_view<T const, 2> rows, Members const& members, SizeOf const& size_of, float total,
                                   Out* out) noexcept {
  constexpr int registers = 4;
  index_t const dim = rows.size(1);
  for (index_t d = 0; d < dim; d += registers * lanes<Arch>) {
    floats<Arch> sum[registers];
    unroll<registers>([&](auto r) { sum[r] = floats<Arch>(0.0f); });
    members.for_each([&](index_t i) {
      T const* const row = rows.data + i * rows.strides[0] + d;
      floats<Arch> const size(size_of(i));
      unroll<registers>([&](auto r) {
        if (index_t const left = dim - d - r * lanes<Arch>; left > 0) {
          sum[r] = fused<Arch>(load_some<Arch>(row + r * lanes<Arch>, left), size, sum[r]);
        }
      });
    });
    unroll<registers>([&](auto r) {
      if (index_t const left = dim - d - r * lanes<Arch>; left > 0) {
        floats<Arch> const mean = total == 0 ? floats<Arch>(0.0f) : divide<Arch>(sum[r], floats<Arch>(total));
        store_some<Arch>(out + d + r * lanes<Arch>, mean, left);
      }
    });
  }
}

template <class Arch, class Executor, class T, class Index, class Out>
status merge_rows_impl(backend<Arch, Executor> const& on, tensor_view<T const, 2> rows, tensor_view<float const, 1> sizes,
                       tensor_view<Index const, 1> source, segments const& segments, tensor_view<Out, 2> out,
                       tensor_view<float, 1> out_sizes, tensor_view<std::int32_t const, 1> out_offsets) noexcept {
  index_t const tokens = rows.size(0), part = many_a_part(on, rows.size(1) * static_cast<index_t>(sizeof(T) + sizeof(Out)));
  auto const size_of = [&](index_t i) { return sizes.absent() ? 1.0f : sizes(i); };
  for_each_part(on, segments.count, segments.bound(tokens), part, [&](index_t s, index_t first, index_t last) {
    index_t const begin = segments.begin(s), size = segments.size(s, tokens), to = out_begin<Arch>(segments, out_offsets, s);
    for (index_t row = first; row < last && row < size; ++row) {
      row_members<Arch, Index> const members(source.data, begin, begin + size, row);
      if (members.listed == 0) { continue; }
      float total = 0;
      members.for_each([&](index_t i) { total += size_of(i); });
      if (rows.size(1) > 0) { mean_of_rows<Arch>(rows, members, size_of, total, &out(to + row, 0)); }  // else there may be no address
      if (!out_sizes.absent()) { out_sizes(to + row) = total; }
    }
  });
  return status::ok;
}

}  // namespace cpu
MUSTDROP_NAMESPACE_END
