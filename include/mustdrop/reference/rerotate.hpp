// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mustdrop/reference/backend.hpp>
#include <mustdrop/rerotate.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace reference {

template <class T, class P>
status rerotate_impl(backend, rope_pairs pairs, tensor_view<T, 3> keys, segments const& segments, tensor_view<P const, 2> old,
                     tensor_view<P const, 2> updated, tensor_view<float const, 1> inv_freq,
                     tensor_view<std::int32_t const, 1> axis_of) noexcept {
  index_t const frequencies = inv_freq.size(0);
  for (index_t s = 0; s < segments.count; ++s) {
    for (index_t i = segments.begin(s); i < segments.begin(s) + segments.size(s, keys.size(1)); ++i) {
      for (index_t f = 0; f < frequencies; ++f) {
        index_t const axis = axis_of.absent() ? 0 : axis_of(f), moved = index_t{updated(axis, i)} - old(axis, i);
        if (moved == 0) { continue; }  // a turn by 0 could still change −0, or an infinity
        sine_cosine const turn = sin_cos(static_cast<float>(moved) * inv_freq(f));
        index_t const first = pairs == rope_pairs::half_split ? f : 2 * f;
        index_t const second = pairs == rope_pairs::half_split ? f + frequencies : 2 * f + 1;
        for (index_t h = 0; h < keys.size(0); ++h) {
          float const x = widen(keys(h, i, first)), y = widen(keys(h, i, second));
          keys(h, i, first) = narrow<T>(mustdrop::fma(x, turn.cosine, -(y * turn.sine)));
          keys(h, i, second) = narrow<T>(mustdrop::fma(x, turn.sine, y * turn.cosine));
        }
      }
    }
  }
  return status::ok;
}

}  // namespace reference
MUSTDROP_NAMESPACE_END
