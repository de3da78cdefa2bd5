// SPDX-License-Identifier: Apache-2.0
#pragma once

// Contract: mustdrop/positions.hpp. A few kilobytes of integers, copied by index: there is nothing for lanes to do.

#include <mustdrop/cpu/rows.hpp>
#include <mustdrop/positions.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace cpu {

/// The largest of the positions [begin, begin + n) on any axis, or `floor`.
template <class Arch, class P>
P highest_position(tensor_view<P const, 2> positions, index_t begin, index_t n, P floor) noexcept {
  for (index_t a = 0; a < positions.size(0) && n > 0; ++a) {
    P const* const axis = &positions(a, begin);
    for (index_t t = 0; t < n; ++t) { floor = axis[t] > floor ? axis[t] : floor; }
  }
  return floor;
}

/// One axis of one segment's n > 0 kept tokens.
template <class Arch, class P, class Index>
void new_positions(position_policy policy, P const* old, Index const* keep, index_t n, P* out) noexcept {
  if (policy == position_policy::renumbered) {
    P const first = old[0];
    for (index_t i = 0; i < n; ++i) { out[i] = static_cast<P>(first + static_cast<P>(i)); }
  } else {
    for (index_t i = 0; i < n; ++i) { out[i] = old[keep[i]]; }
  }
}

template <class Arch, class Executor, class P, class Index>
status positions_impl(backend<Arch, Executor> const& on, position_policy policy, tensor_view<P const, 2> old, segments const& segments,
                      keep_lists<Index const> keep, tensor_view<P, 2> out, tensor_view<P, 1> delta,
                      tensor_view<std::int32_t const, 1> out_offsets) noexcept {
  index_t const each = old.size(0) * static_cast<index_t>(2 * sizeof(P) + sizeof(Index));
  in_parts(on, segments.count, many_a_part(on, each * segments.bound(old.size(1))), [&](index_t s) {
    index_t const begin = segments.begin(s), size = segments.size(s, old.size(1)), to = out_begin<Arch>(segments, out_offsets, s);
    index_t const kept = keep.counts(s);
    for (index_t a = 0; a < old.size(0) && kept > 0; ++a) {
      new_positions<Arch>(policy, &old(a, begin), &keep.indices(s, 0), kept, &out(a, to));
    }
    if (delta.absent()) { return; }
    delta(s) = 0;
    if (policy == position_policy::kept || size == 0 || old.size(0) == 0) { return; }
    P const last_old = highest_position<Arch>(old, begin, size, old(0, begin));
    P const first_kept = kept == 0 ? static_cast<P>(old(0, begin) - 1) : out(0, to);
    delta(s) = static_cast<P>(highest_position<Arch>(tensor_view<P const, 2>(out), to, kept, first_kept) - last_old);
  });
  return status::ok;
}

}  // namespace cpu
MUSTDROP_NAMESPACE_END
