// SPDX-License-Identifier: Apache-2.0
#pragma once

// Contract: mustdrop/gather.hpp.

#include <mustdrop/cuda/numerics.cuh>
#include <mustdrop/cuda/rows.cuh>
#include <mustdrop/gather.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace cuda {

/// The rows that keep lists name.
template <class Index>
struct kept_rows {
  segments cut;
  keep_lists<Index const> keep;
  tensor_view<std::int32_t const, 1> out_offsets;

  index_t bound(index_t tokens) const noexcept { return lesser(cut.bound(tokens), keep.capacity()); }
  __device__ index_t count(index_t s) const { return keep.counts(s); }
  __device__ index_t from(index_t s, index_t i) const { return cut.begin(s) + keep.indices(s, i); }
  __device__ index_t to(index_t s, index_t i) const { return out_begin(cut, out_offsets, s) + i; }
};

template <class Tag, class T, class Index>
status gather_impl(backend<Tag> const& on, tensor_view<T const, 3> rows, segments const& segments, keep_lists<Index const> keep,
                   tensor_view<T, 3> out, tensor_view<std::int32_t const, 1> out_offsets) noexcept {
  constexpr auto bytes = static_cast<index_t>(sizeof(T));
  bool const dense = rows.size(1) == 1 || (rows.strides[1] == rows.size(2) && out.strides[1] == rows.size(2));
  index_t const pieces = dense ? 1 : rows.size(1), dim = dense ? rows.size(1) * rows.size(2) : rows.size(2);
  row_layout const layout{rows.data,
                          out.data,
                          rows.strides[0] * bytes,
                          dense ? 0 : rows.strides[1] * bytes,
                          out.strides[0] * bytes,
                          dense ? 0 : out.strides[1] * bytes,
                          pieces,
                          dim * bytes};
  kept_rows<Index> const job{segments, keep, out_offsets};
  return copy_rows(on, job, segments.count, job.bound(rows.size(0)), layout);
}

/// A row transform by a warp, where there is one; the caller's own, by one thread, otherwise.
template <class Transform, class T, class Out>
__device__ void transform_row(Transform const& transform, T const* row, index_t dim, Out* out) {
  if (lane_of_thread() == 0) { transform(row, dim, out); }
}
template <class W, class T, class Out>
__device__ void transform_row(rms_norm<W> const& norm, T const* row, index_t dim, Out* out) {
  float const mean = divide(square_norm(row, dim), static_cast<float>(dim));
  float const scale = divide(1.0f, square_root(mean + norm.epsilon));
  for (index_t d = lane_of_thread(); d < dim; d += 32) {
    out[d] = from_float<Out>(to_float(row[d]) * scale * to_float(norm.weight.data[d]));
  }
}

constexpr int transform_warps = 4;

/// A warp a row.
template <class Tag, class Transform, class T, class Index, class Out>
__global__ void __launch_bounds__(transform_warps * 32)
    transform_kernel(unsigned parts, kept_rows<Index> const job, Transform const transform, tensor_view<T const, 2> const rows,
                     tensor_view<Out, 2> const out) {
  auto const [s, part] = block_place(parts);
  index_t const i = part * transform_warps + warp_of_thread();
  if (i >= job.count(s)) { return; }
  transform_row(transform, &rows(job.from(s, i), 0), rows.size(1), &out(job.to(s, i), 0));
}

template <class Tag, class Transform, class T, class Index, class Out>
status gather_impl(backend<Tag> const& on, Transform const& transform, tensor_view<T const, 2> rows, segments const& segments,
                   keep_lists<Index const> keep, tensor_view<Out, 2> out, tensor_view<std::int32_t const, 1> out_offsets) noexcept {
  kept_rows<Index> const job{segments, keep, out_offsets};
  segment_grid const grid{segments.count, parts_of(job.bound(rows.size(0)), transform_warps)};
  return launch_parts(on, grid, transform_warps * 32, transform_kernel<Tag, Transform, T, Index, Out>, job, transform, rows, out);
}

}  // namespace cuda
MUSTDROP_NAMESPACE_END
