// SPDX-License-Identifier: Apache-2.0
#pragma once

// gather: the rows that stay, packed together, out of place: hidden states, features, sizes, ids, any side tensor.
//
//   out[out_begin(s) + i] = rows[begin(s) + keep(s, i)]       out_begin(s) = out_offsets[s], or begin(s) if there are none
//
// Shapes      rows         [tokens], [tokens, a] or [tokens, a, b]   any trivially copyable element; dense along the last axis unless it is the only one
//             keep         [segments, capacity] lists                int32 or int64
//             out          as rows, of its own length                segment s begins where it began in rows ("in place of capacity": keep.counts
//                                                                    are the next word's segments.counts), or at out_offsets[s]
//             out_offsets  [segments + 1] or {}                      packed: plan.hpp's pack(keep.counts) makes them
// With a row transform (second form) out[...] = transform(rows[...]) instead of a copy, for [tokens, dim] of float, half or bfloat16:
// rms_norm below, or any callable `void operator()(T const* row, index_t dim, Out* out) const noexcept`.
// Errors      bad_shape   sizes disagree or are negative; without out_offsets, out is shorter than rows (one segment without offsets: than the
//                         smaller of keep.capacity() and tokens)
//             bad_stride  rows, out, keep, out_offsets or the weight of rms_norm is not dense along its last axis
// Precondition  check(segments, tokens) and check(keep, segments, tokens) are ok; out_offsets leave room; out overlaps no input.
// Cost        a copy of what stays.
// See         docs/gather.md; reference/gather.hpp is the definition as plain loops.

#include <mustdrop/backend.hpp>
#include <mustdrop/numerics.hpp>
#include <mustdrop/status.hpp>
#include <mustdrop/view.hpp>

MUSTDROP_NAMESPACE_BEGIN

/// out = row / sqrt(mean(row²) + epsilon) · weight, the norm in front of every Llama block; a row transform of gather.
/// The sum of squares is the 32-lane sum; then one division, one square root, one division and two products, each rounded.
template <class W>
struct rms_norm {
  tensor_view<W const, 1> weight;  // [dim]: float, half or bfloat16, dense
  float epsilon = 1e-6f;

  template <class T, class Out>
  MUSTDROP_HD void operator()(T const* row, index_t dim, Out* out) const noexcept {
    lane_sum square;
    for (index_t d = 0; d < dim; ++d) { square.add_product(d, widen(row[d]), widen(row[d])); }
    float const scale = divide(1.0f, square_root(divide(square.total(), static_cast<float>(dim)) + epsilon));
    for (index_t d = 0; d < dim; ++d) { out[d] = narrow<Out>(widen(row[d]) * scale * widen(weight.data[d])); }
  }
};
template <class W>
rms_norm(tensor_view<W, 1>, float) -> rms_norm<std::remove_const_t<W>>;

/// Where rows of a shrunken segment begin, and whether `out` is long enough for them as far as the host can tell.
inline status check_room(index_t tokens, segments const& segments, index_t capacity, tensor_view<std::int32_t const, 1> out_offsets,
                         index_t room) noexcept {
  if (!well_formed(out_offsets)) { return status::bad_shape; }
  if (!out_offsets.absent()) {
    if (out_offsets.size(0) != segments.count + 1) { return status::bad_shape; }
    return unit_stride(out_offsets) ? status::ok : status::bad_stride;
  }
  index_t const needed = segments.offsets != nullptr || capacity > tokens ? tokens : capacity;
  return room < needed ? status::bad_shape : status::ok;
}

template <class Backend, class T, int Rank, class Index, require_backend<Backend> = 0>
status gather(Backend const& backend, tensor_view<T, Rank> rows, segments const& segments, keep_lists<Index> keep,
              tensor_view<std::remove_const_t<T>, Rank> out, tensor_view<std::int32_t const, 1> out_offsets) noexcept {
  static_assert(std::is_trivially_copyable_v<T> && Rank >= 1 && Rank <= 3, "[tokens], [tokens, a] or [tokens, a, b] of copyable elements");
  static_assert(is_index_v<std::remove_const_t<Index>>, "keep lists hold int32 or int64");
  if (status const s = keep.shape(segments); s != status::ok) { return s; }
  if (!well_formed(rows) || !well_formed(out)) { return status::bad_shape; }
  for (int axis = 1; axis < Rank; ++axis) {
    if (rows.size(axis) != out.size(axis)) { return status::bad_shape; }
  }
  if (status const s = check_room(rows.size(0), segments, keep.capacity(), out_offsets, out.size(0)); s != status::ok) { return s; }
  if (Rank > 1 && (!unit_stride(rows) || !unit_stride(out))) { return status::bad_stride; }
  // Backends see [tokens, a, b] only.
  tensor_view<std::remove_const_t<T> const, 3> from{rows.data, {rows.sizes[0], 1, 1}, {rows.strides[0], 1, 1}};
  tensor_view<std::remove_const_t<T>, 3> to{out.data, {out.sizes[0], 1, 1}, {out.strides[0], 1, 1}};
  for (int axis = 1; axis < Rank; ++axis) {
    int const at = axis + 3 - Rank;  // [tokens, a] becomes [tokens, 1, a]
    from.sizes[at] = rows.sizes[axis], from.strides[at] = rows.strides[axis];
    to.sizes[at] = out.sizes[axis], to.strides[at] = out.strides[axis];
  }
  return gather_impl(backend, from, segments, keep_lists<Index const>(keep), to, out_offsets);
}

template <class Backend, class Transform, class T, class Index, class Out, require_backend<Backend> = 0>
status gather(Backend const& backend, Transform const& transform, tensor_view<T, 2> rows, segments const& segments, keep_lists<Index> keep,
              tensor_view<Out, 2> out, tensor_view<std::int32_t const, 1> out_offsets) noexcept {
  using real = std::remove_const_t<T>;
  static_assert(is_real_v<real> && is_real_v<Out>, "rows and out are float, half or bfloat16");
  static_assert(is_index_v<std::remove_const_t<Index>>, "keep lists hold int32 or int64");
  if (status const s = keep.shape(segments); s != status::ok) { return s; }
  if (!well_formed(rows) || !well_formed(out) || rows.size(1) != out.size(1)) { return status::bad_shape; }
  if (status const s = check_room(rows.size(0), segments, keep.capacity(), out_offsets, out.size(0)); s != status::ok) { return s; }
  if (!unit_stride(rows) || !unit_stride(out)) { return status::bad_stride; }
  if (rows.size(1) == 0) { return status::ok; }  // rows of nothing may have no address to give to the transform
  return gather_impl(backend, transform, tensor_view<real const, 2>(rows), segments, keep_lists<Index const>(keep), out, out_offsets);
}

/// rms_norm knows one thing more to check: its weight has dim elements.
template <class Backend, class W, class T, class Index, class Out, require_backend<Backend> = 0>
status gather(Backend const& backend, rms_norm<W> const& norm, tensor_view<T, 2> rows, segments const& segments, keep_lists<Index> keep,
              tensor_view<Out, 2> out, tensor_view<std::int32_t const, 1> out_offsets) noexcept {
  if (!well_formed(norm.weight) || norm.weight.size(0) != rows.size(1)) { return status::bad_shape; }
  if (!unit_stride(norm.weight)) { return status::bad_stride; }
  return gather<Backend, rms_norm<W>, T, Index, Out, 0>(backend, norm, rows, segments, keep, out, out_offsets);
}

MUSTDROP_NAMESPACE_END
