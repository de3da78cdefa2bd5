// SPDX-License-Identifier: Apache-2.0
#pragma once

// merge_rows: each output row is the weighted mean of the rows that go to it.
//
//   out[r] = (Σ sizes[i]·rows[i] over the tokens i of the segment with source[i] = r, in order) / Σ sizes[i]
//
// Shapes      rows         [tokens, dim]        float, half or bfloat16; dense in dim
//             sizes        [tokens] or {}       float weights, not negative: how many tokens each row stands for already; {}: all 1
//             source       [tokens]             int32 or int64: the output row of each token, counted from its segment's begin
//             out          [tokens, dim]        float, half or bfloat16; segment s begins where it began in rows, or at out_offsets[s]
//             out_sizes    [tokens] or {}       Σ sizes of each output row, laid out as out
//             out_offsets  [segments + 1] or {} packed output
// Edges       A row that nothing goes to is not written. Weights that add up to 0 give a row of zeros.
// Errors      bad_shape   sizes disagree or are negative; without out_offsets, out is shorter than rows
//             bad_stride  a view is not dense along its last axis
// Precondition  check(segments, tokens) is ok; 0 ≤ source[i] < tokens of the segment; out_offsets leave room; outputs overlap no input.
// Cost        reads rows once, writes what is left.
// Source      MustDrop §3.1 and ToMe (merge_wavg); window_merge does its own merge at once, this is for side tensors and other plans.
// See         docs/merge_rows.md; spread_rows is the inverse; reference/merge_rows.hpp is the definition as plain loops.

#include <mustdrop/backend.hpp>
#include <mustdrop/gather.hpp>
#include <mustdrop/numerics.hpp>
#include <mustdrop/status.hpp>
#include <mustdrop/view.hpp>

MUSTDROP_NAMESPACE_BEGIN

template <class Backend, class T, class Index, class Out, require_backend<Backend> = 0>
status merge_rows(Backend const& backend, tensor_view<T, 2> rows, tensor_view<float const, 1> sizes, tensor_view<Index, 1> source,
                  segments const& segments, tensor_view<Out, 2> out, tensor_view<float, 1> out_sizes,
                  tensor_view<std::int32_t const, 1> out_offsets) noexcept {
  using real = std::remove_const_t<T>;
  static_assert(is_real_v<real> && is_real_v<Out>, "rows and out are float, half or bfloat16");
  static_assert(is_index_v<std::remove_const_t<Index>>, "source holds int32 or int64");
  index_t const tokens = rows.size(0);
  if (!segments.valid() || !well_formed(rows) || !well_formed(sizes) || !well_formed(source)) { return status::bad_shape; }
  if (!well_formed(out) || !well_formed(out_sizes) || out.size(1) != rows.size(1) || source.size(0) != tokens) { return status::bad_shape; }
  if ((!sizes.absent() && sizes.size(0) != tokens) || (!out_sizes.absent() && out_sizes.size(0) != out.size(0))) {
    return status::bad_shape;
  }
  if (status const s = check_room(tokens, segments, tokens, out_offsets, out.size(0)); s != status::ok) { return s; }
  if (!unit_stride(rows) || !unit_stride(sizes) || !unit_stride(source) || !unit_stride(out) || !unit_stride(out_sizes)) {
    return status::bad_stride;
  }
  return merge_rows_impl(backend, tensor_view<real const, 2>(rows), sizes, tensor_view<std::remove_const_t<Index> const, 1>(source),
                         segments, out, out_sizes, out_offsets);
}

MUSTDROP_NAMESPACE_END
