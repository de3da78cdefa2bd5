// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mustdrop/positions.hpp>
#include <mustdrop/reference/gather.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace reference {

template <class P, class Index>
status positions_impl(backend, position_policy policy, tensor_view<P const, 2> old, segments const& segments, keep_lists<Index const> keep,
                      tensor_view<P, 2> out, tensor_view<P, 1> delta, tensor_view<std::int32_t const, 1> out_offsets) noexcept {
  for (index_t s = 0; s < segments.count; ++s) {
    index_t const begin = segments.begin(s), size = segments.size(s, old.size(1)), to = out_begin(segments, out_offsets, s);
    index_t const kept = keep.counts(s);
    for (index_t a = 0; a < old.size(0); ++a) {
      for (index_t i = 0; i < kept; ++i) {
        out(a, to + i) =
            policy == position_policy::renumbered ? static_cast<P>(old(a, begin) + static_cast<P>(i)) : old(a, begin + keep.indices(s, i));
      }
    }

    if (delta.absent()) { continue; }
    delta(s) = 0;
    if (policy == position_policy::kept || size == 0 || old.size(0) == 0) { continue; }
    P last_old = old(0, begin), last_kept = kept == 0 ? static_cast<P>(old(0, begin) - 1) : out(0, to);
    for (index_t a = 0; a < old.size(0); ++a) {
      for (index_t t = begin; t < begin + size; ++t) { last_old = old(a, t) > last_old ? old(a, t) : last_old; }
      for (index_t i = to; i < to + kept; ++i) { last_kept = out(a, i) > last_kept ? out(a, i) : last_kept; }
    }
    delta(s) = static_cast<P>(last_kept - last_old);
  }
  return status::ok;
}

}  // namespace reference
MUSTDROP_NAMESPACE_END
