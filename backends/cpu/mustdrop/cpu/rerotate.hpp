// SPDX-License-Identifier: Apache-2.0
#pragma once

// Contract: mustdrop/rerotate.hpp. Lanes are frequencies: the sines and cosines of a register of them serve all heads of the slot.

#include <mustdrop/cpu/numerics.hpp>
#include <mustdrop/rerotate.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace cpu {

/// A register of frequencies of one slot: how far each turns, and which of them turn at all.
template <class Arch>
struct slot_turn {
  floats<Arch> cosine, sine;
  index_t count;  // frequencies left, or as many as there are lanes
  bool all, any;  // whether all of them turn, or any
  bool turns[lanes<Arch>];
};

template <class Arch, class P>
MUSTDROP_FLATTEN slot_turn<Arch> turn_of(tensor_view<P const, 2> old, tensor_view<P const, 2> updated, float const* inv_freq,
                                         std::int32_t const* axis_of, index_t slot, index_t left) noexcept {
  slot_turn<Arch> turn;
  turn.count = left < lanes<Arch> ? left : lanes<Arch>, turn.all = true, turn.any = false;
  float moved[lanes<Arch>] = {};
  for (index_t i = 0; i < turn.count; ++i) {
    index_t const axis = axis_of == nullptr ? 0 : axis_of[i], by = index_t{updated(axis, slot)} - old(axis, slot);
    moved[i] = static_cast<float>(by), turn.turns[i] = by != 0;
    turn.all = turn.all && by != 0, turn.any = turn.any || by != 0;
  }
  sine_cosine<Arch> const both = sin_cos<Arch>(floats<Arch>::load_unaligned(moved) * load_some<Arch>(inv_freq, left));
  turn.cosine = both.cosine, turn.sine = both.sine;
  return turn;
}

/// The pair (x, y) of each frequency turns; where nothing moves its bytes stay.
template <class Arch, class T>
MUSTDROP_FLATTEN void turn_halves(slot_turn<Arch> const& turn, T* x, T* y) noexcept {
  floats<Arch> const a = load_some<Arch>(x, turn.count), b = load_some<Arch>(y, turn.count);
  floats<Arch> const first = fused<Arch>(a, turn.cosine, negated<Arch>(b * turn.sine)), second = fused<Arch>(a, turn.sine, b * turn.cosine);
  if (turn.all) {
    store_some<Arch>(x, first, turn.count), store_some<Arch>(y, second, turn.count);
    return;
  }
  T firsts[lanes<Arch>], seconds[lanes<Arch>];
  store_lanes<Arch>(firsts, first), store_lanes<Arch>(seconds, second);
  for (index_t i = 0; i < turn.count; ++i) {
    if (turn.turns[i]) { x[i] = firsts[i], y[i] = seconds[i]; }
  }
}

/// The same of pairs that lie side by side: apart in registers, together in memory.
template <class Arch, class T>
MUSTDROP_FLATTEN void turn_pairs(slot_turn<Arch> const& turn, T* pairs) noexcept {
  T x[lanes<Arch>] = {}, y[lanes<Arch>] = {};
  for (index_t i = 0; i < turn.count; ++i) { x[i] = pairs[2 * i], y[i] = pairs[2 * i + 1]; }
  turn_halves<Arch>(turn, x, y);
  for (index_t i = 0; i < turn.count; ++i) { pairs[2 * i] = x[i], pairs[2 * i + 1] = y[i]; }
}

template <class Arch, class Executor, class T, class P>
status rerotate_impl(backend<Arch, Executor> const& on, rope_pairs pairs, tensor_view<T, 3> keys, segments const& segments,
                     tensor_view<P const, 2> old, tensor_view<P const, 2> updated, tensor_view<float const, 1> inv_freq,
                     tensor_view<std::int32_t const, 1> axis_of) noexcept {
  index_t const heads = keys.size(0), slots = keys.size(1), frequencies = inv_freq.size(0);
  index_t const part = many_a_part(on, heads * keys.size(2) * static_cast<index_t>(sizeof(T)));
  if (heads == 0) { return status::ok; }
  for_each_part(on, segments.count, segments.bound(slots), part, [&](index_t s, index_t first, index_t last) {
    index_t const begin = segments.begin(s), size = segments.size(s, slots), end = begin + (last < size ? last : size);
    for (index_t slot = begin + first; slot < end; ++slot) {
      for_each_register<Arch>(frequencies, [&](index_t f, auto left) {
        std::int32_t const* const axes = axis_of.absent() ? nullptr : axis_of.data + f;
        slot_turn<Arch> const turn = turn_of<Arch>(old, updated, inv_freq.data + f, axes, slot, left);
        for (index_t h = 0; h < heads && turn.any; ++h) {
          T* const key = &keys(h, slot, 0);
          if (pairs == rope_pairs::half_split) {
            turn_halves<Arch>(turn, key + f, key + f + frequencies);
          } else {
            turn_pairs<Arch>(turn, key + 2 * f);
          }
        }
      });
    }
  });
  return status::ok;
}

}  // namespace cpu
MUSTDROP_NAMESPACE_END
