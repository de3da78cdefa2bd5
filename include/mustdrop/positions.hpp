// SPDX-License-Identifier: Apache-2.0
#pragma once

// positions: where the tokens that stay sit for RoPE.
//
//   kept         out[a, i] = old[a, keep(i)]                     every survivor where it was (the default: relative distances stay true)
//   renumbered   out[a, i] = old[a, first token] + i             no gaps, on all axes (the released code; engines that want consecutive ones)
//   closed       as kept; what follows the segment moves up to right behind the largest position kept (Qwen-VL engines)
//   delta = what to add to every position behind the segment: 0 · kept − size if the old were consecutive · max kept − max old
//
// Shapes      old          [tokens] or [axes, tokens]     int32 or int64: 1-D RoPE, or 3 axes (t, h, w) for M-RoPE
//             keep         [segments, capacity] lists     int32 or int64
//             out          [room] or [axes, room]         segment s begins where it began in old, or at out_offsets[s]
//             delta        [segments] or {}               of the type of the positions
//             out_offsets  [segments + 1] or {}           packed output
//             A segment is one image, whose text follows outside and is moved by delta, or a whole request, whose text is kept tokens.
// Edges       Nothing kept: renumbered and closed end where the segment began (old[0, first token]). An empty segment: delta 0.
//             renumbered, in full: delta = max out − max old. "max" is over all axes, whichever begins highest (the rest of an image).
// Errors      bad_shape   sizes disagree or are negative; without out_offsets, out is shorter than old (see gather)
//             bad_stride  a view is not dense along its last axis
// Precondition  check(segments, tokens) and check(keep, segments, tokens) are ok; positions do not overflow; outputs overlap no input.
// Cost        reads old once.
// Source      MustDrop's code renumbers; restoring positions gives LLaVA's RefCOCO 51.4 instead of 15.3 (GAP, arXiv 2506.21873).
// See         docs/positions.md; rerotate moves keys that are already cached; reference/positions.hpp is the definition as plain loops.

#include <mustdrop/backend.hpp>
#include <mustdrop/gather.hpp>
#include <mustdrop/status.hpp>
#include <mustdrop/view.hpp>

MUSTDROP_NAMESPACE_BEGIN

enum class position_policy { kept, renumbered, closed };

template <class Backend, class P, class Index, require_backend<Backend> = 0>
status positions(Backend const& backend, position_policy policy, tensor_view<P, 2> old, segments const& segments, keep_lists<Index> keep,
                 tensor_view<std::remove_const_t<P>, 2> out, tensor_view<std::remove_const_t<P>, 1> delta,
                 tensor_view<std::int32_t const, 1> out_offsets) noexcept {
  using position = std::remove_const_t<P>;
  static_assert(is_index_v<position> && is_index_v<std::remove_const_t<Index>>, "positions and keep lists hold int32 or int64");
  if (status const s = keep.shape(segments); s != status::ok) { return s; }
  if (!well_formed(old) || !well_formed(out) || !well_formed(delta) || old.size(0) != out.size(0)) { return status::bad_shape; }
  if (!delta.absent() && delta.size(0) != segments.count) { return status::bad_shape; }
  if (status const s = check_room(old.size(1), segments, keep.capacity(), out_offsets, out.size(1)); s != status::ok) { return s; }
  if (!unit_stride(old) || !unit_stride(out) || !unit_stride(delta)) { return status::bad_stride; }
  return positions_impl(backend, policy, tensor_view<position const, 2>(old), segments, keep_lists<Index const>(keep), out, delta,
                        out_offsets);
}

/// 1-D RoPE.
template <class Backend, class P, class Index, require_backend<Backend> = 0>
status positions(Backend const& backend, position_policy policy, tensor_view<P, 1> old, segments const& segments, keep_lists<Index> keep,
                 tensor_view<std::remove_const_t<P>, 1> out, tensor_view<std::remove_const_t<P>, 1> delta,
                 tensor_view<std::int32_t const, 1> out_offsets) noexcept {
  return positions(backend, policy, tensor_view<P, 2>{old.data, {1, old.sizes[0]}, {0, old.strides[0]}}, segments, keep,
                   tensor_view<std::remove_const_t<P>, 2>{out.data, {1, out.sizes[0]}, {0, out.strides[0]}}, delta, out_offsets);
}

MUSTDROP_NAMESPACE_END
