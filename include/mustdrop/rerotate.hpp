// SPDX-License-Identifier: Apache-2.0
#pragma once

// rerotate: keys that are in the cache with RoPE at their old positions turn to new ones, in place.
//
//   (x, y) of frequency f  →  (x·cos a − y·sin a, x·sin a + y·cos a),   a = (new − old)·inv_freq[f]
//
// Shapes      keys           [heads, slots, dim]             float, half or bfloat16, in and out
//             old, updated   [slots] or [axes, slots]        int32 or int64: 1-D, or (t, h, w) for M-RoPE
//             inv_freq       [rotary / 2]                    float, base^(−2f/rotary) with any scaling in it; rotary dims may be fewer than dim
//             axis_of        [rotary / 2] or {}              int32: which axis of the positions turns frequency f (M-RoPE's sections,
//                                                            in blocks or interleaved); {}: axis 0
//             Slots outside the segments are not touched: give segments.counts for a cache longer than its contents.
// Pairs       half_split: dims f and f + rotary/2 (Llama, Qwen) · interleaved: dims 2f and 2f + 1 (GPT-J, GLM). The other dims stay.
// Edges       A slot whose position does not change on any axis keeps its bytes. |new − old| should stay below 2^22 (sin_cos).
// Accuracy    the angle is one float product; sine and cosine are numerics.hpp's: each result is within 3e-7·|(x, y)| of that rotation for
//             angles up to 2^20, before rounding to the keys' type.
// Errors      bad_shape   sizes disagree or are negative; 2·inv_freq.size(0) > dim; no axis
//             bad_stride  keys, positions, inv_freq or axis_of is not dense along its last axis
// Precondition  check(segments, slots) is ok; 0 ≤ axis_of < axes; keys overlaps no input.
// Cost        reads and writes the slots that move, once.
// Source      StreamingLLM and kvpress (key_rerotation_press) re-rotate; the released MustDrop renumbers without it and is off by it.
// See         docs/rerotate.md; reference/rerotate.hpp is the definition as plain loops.

#include <mustdrop/backend.hpp>
#include <mustdrop/numerics.hpp>
#include <mustdrop/status.hpp>
#include <mustdrop/view.hpp>

MUSTDROP_NAMESPACE_BEGIN

enum class rope_pairs { half_split, interleaved };

template <class Backend, class T, class P, require_backend<Backend> = 0>
status rerotate(Backend const& backend, rope_pairs pairs, tensor_view<T, 3> keys, segments const& segments, tensor_view<P, 2> old,
                tensor_view<std::remove_const_t<P> const, 2> updated, tensor_view<float const, 1> inv_freq,
                tensor_view<std::int32_t const, 1> axis_of) noexcept {
  using position = std::remove_const_t<P>;
  static_assert(is_real_v<T> && is_index_v<position>, "keys are float, half or bfloat16; positions int32 or int64");
  if (!segments.valid() || !well_formed(keys) || !well_formed(old) || !well_formed(updated)) { return status::bad_shape; }
  if (!well_formed(inv_freq) || !well_formed(axis_of) || 2 * inv_freq.size(0) > keys.size(2)) { return status::bad_shape; }
  if (old.size(1) != keys.size(1) || updated.size(1) != keys.size(1) || old.size(0) != updated.size(0) || old.size(0) < 1) {
    return status::bad_shape;
  }
  if (!axis_of.absent() && axis_of.size(0) != inv_freq.size(0)) { return status::bad_shape; }
  if (!unit_stride(keys) || !unit_stride(old) || !unit_stride(updated) || !unit_stride(inv_freq) || !unit_stride(axis_of)) {
    return status::bad_stride;
  }
  return rerotate_impl(backend, pairs, keys, segments, tensor_view<position const, 2>(old), updated, inv_freq, axis_of);
}

/// 1-D RoPE.
template <class Backend, class T, class P, require_backend<Backend> = 0>
status rerotate(Backend const& backend, rope_pairs pairs, tensor_view<T, 3> keys, segments const& segments, tensor_view<P, 1> old,
                tensor_view<std::remove_const_t<P> const, 1> updated, tensor_view<float const, 1> inv_freq) noexcept {
  return rerotate(backend, pairs, keys, segments, tensor_view<P, 2>{old.data, {1, old.sizes[0]}, {0, old.strides[0]}},
                  tensor_view<std::remove_const_t<P> const, 2>{updated.data, {1, updated.sizes[0]}, {0, updated.strides[0]}}, inv_freq,
                  tensor_view<std::int32_t const, 1>{});
}

MUSTDROP_NAMESPACE_END
