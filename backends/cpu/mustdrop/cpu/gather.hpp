// SPDX-License-Identifier: Apache-2.0
#pragma once

// Contract: mustdrop/gather.hpp. Neighbours that stay are copied as one piece; memcpy knows the machine better than a loop of ours.

#include <mustdrop/cpu/numerics.hpp>
#include <mustdrop/cpu/rows.hpp>
#include <mustdrop/gather.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace cpu {

/// Calls f(segment, first, last) for pieces of the keep lists, each worth a thread.
template <class Arch, class Executor, class Index, class F>
void for_each_kept_part(backend<Arch, Executor> const& on, index_t tokens, segments const& segments, keep_lists<Index const> keep,
                        index_t row_bytes, F const& f) noexcept {
  index_t const bound = segments.bound(tokens) < keep.capacity() ? segments.bound(tokens) : keep.capacity();
  for_each_part(on, segments.count, bound, many_a_part(on, row_bytes), [&](index_t s, index_t first, index_t last) {
    index_t const end = last < keep.counts(s) ? last : keep.counts(s);
    if (first < end) { f(s, first, end); }
  });
}

template <class Arch, class Executor, class T, class Index>
status gather_impl(backend<Arch, Executor> const& on, tensor_view<T const, 3> rows, segments const& segments, keep_lists<Index const> keep,
                   tensor_view<T, 3> out, tensor_view<std::int32_t const, 1> out_offsets) noexcept {
  bool const dense = rows.size(1) == 1 || (rows.strides[1] == rows.size(2) && out.strides[1] == rows.size(2));
  index_t const pieces = dense ? 1 : rows.size(1), dim = dense ? rows.size(1) * rows.size(2) : rows.size(2);
  if (pieces * dim == 0) { return status::ok; }
  for_each_kept_part(
      on, rows.size(0), segments, keep, pieces * dim * static_cast<index_t>(sizeof(T)), [&](index_t s, index_t first, index_t last) {
        index_t const from = segments.begin(s), to = out_begin<Arch>(segments, out_offsets, s);
        for (index_t i = first; i < last;) {
          index_t const run = run_length<Arch>(last - i, [&](index_t j) { return index_t{keep.indices(s, i + j)}; });
          T const* const source = rows.data + (from + keep.indices(s, i)) * rows.strides[0];
          T* const target = out.data + (to + i) * out.strides[0];
          for (index_t p = 0; p < pieces; ++p) {
            copy_rows<Arch>(source + p * rows.strides[1], rows.strides[0], target + p * out.strides[1], out.strides[0], run, dim);
          }
          i += run;
        }
      });
  return status::ok;
}

/// A row transform on vector instructions, where there is one; the caller's own otherwise.
template <class Arch, class Transform, class T, class Out>
void transform_row(Transform const& transform, T const* row, index_t dim, Out* out) noexcept {
  transform(row, dim, out);
}
template <class Arch, class W, class T, class Out>
MUSTDROP_FLATTEN void transform_row(rms_norm<W> const& norm, T const* row, index_t dim, Out* out) noexcept {
  float square = 0;
  square_norms<Arch, 1>(&row, dim, &square);
  float const mean = divide<Arch>(square, static_cast<float>(dim));
  floats<Arch> const scale(divide<Arch>(1.0f, square_root<Arch>(mean + norm.epsilon)));
  for_each_register<Arch>(dim, [&](index_t d, auto left) {
    floats<Arch> const x = load_some<Arch>(row + d, left), weight = load_some<Arch>(norm.weight.data + d, left);
    store_some<Arch>(out + d, x * scale * weight, left);
  });
}

template <class Arch, class Executor, class Transform, class T, class Index, class Out>
status gather_impl(backend<Arch, Executor> const& on, Transform const& transform, tensor_view<T const, 2> rows, segments const& segments,
                   keep_lists<Index const> keep, tensor_view<Out, 2> out, tensor_view<std::int32_t const, 1> out_offsets) noexcept {
  index_t const dim = rows.size(1), row_bytes = dim * static_cast<index_t>(sizeof(T) + sizeof(Out));
  for_each_kept_part(on, rows.size(0), segments, keep, row_bytes, [&](index_t s, index_t first, index_t last) {
    index_t const from = segments.begin(s), to = out_begin<Arch>(segments, out_offsets, s);
    for (index_t i = first; i < last; ++i) { transform_row<Arch>(transform, &rows(from + keep.indices(s, i), 0), dim, &out(to + i, 0)); }
  });
  return status::ok;
}

}  // namespace cpu
MUSTDROP_NAMESPACE_END
