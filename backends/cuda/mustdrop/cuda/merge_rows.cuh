// SPDX-License-Identifier: Apache-2.0
#pragma once

// Contract: mustdrop/merge_rows.hpp. No scratch is lent, so the tokens of each row are searched for, 32 sources at a time: reading tokens²
// small integers from the caches is little beside a copy of the rows.

#include <mustdrop/cuda/elements.cuh>
#include <mustdrop/cuda/rows.cuh>
#include <mustdrop/merge_rows.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace cuda {

template <class T, class Index, class Out>
struct merge_job {
  segments cut;
  tensor_view<T const, 2> rows;
  tensor_view<float const, 1> sizes;
  tensor_view<Index const, 1> source;
  tensor_view<Out, 2> out;
  tensor_view<float, 1> out_sizes;
  tensor_view<std::int32_t const, 1> out_offsets;

  __device__ float size_of(index_t i) const { return sizes.absent() ? 1.0f : sizes.data[i]; }
};

/// Calls f(token) for each token of [begin, end) that goes to `row`, in order; by a warp, all lanes with the same token.
template <class Index, class F>
__device__ void for_each_member(Index const* source, index_t begin, index_t end, index_t row, F const& f) {
  for (index_t base = begin; base < end; base += 32) {
    index_t const i = base + lane_of_thread();
    for (unsigned found = __ballot_sync(all_lanes, i < end && source[i] == row); found != 0; found &= found - 1) {
      f(base + __ffs(static_cast<int>(found)) - 1);
    }
  }
}

constexpr int merge_threads = 128;

/// A block a row: each warp finds the row's tokens for itself, each thread sums some of the features.
template <class Tag, int Count, class T, class Index, class Out>
__global__ void __launch_bounds__(merge_threads) merge_rows_kernel(unsigned parts, merge_job<T, Index, Out> const job) {
  auto const place = block_place(parts);
  index_t const s = place.segment, row = place.part, begin = job.cut.begin(s), end = begin + job.cut.size(s, job.rows.size(0));
  if (row >= end - begin) { return; }
  index_t const to = out_begin(job.cut, job.out_offsets, s) + row, dim = job.rows.size(1);

  float total = 0;
  bool any = false;
  for_each_member(job.source.data, begin, end, row, [&](index_t i) { total += job.size_of(i), any = true; });
  if (!any) { return; }
  for (index_t base = 0; base < dim; base += merge_threads * Count) {  // the whole warp searches
    index_t const d = base + threadIdx.x * Count;
    numbers<Count> sum{};
    for_each_member(job.source.data, begin, end, row, [&](index_t i) {
      if (d >= dim) { return; }
      numbers<Count> const x = packed<T, Count>::load(job.rows.data + i * job.rows.strides[0] + d);
      for (int e = 0; e < Count; ++e) { sum.at[e] = mustdrop::fma(x.at[e], job.size_of(i), sum.at[e]); }
    });
    for (int e = 0; e < Count; ++e) { sum.at[e] = total == 0 ? 0.0f : divide(sum.at[e], total); }
    if (d < dim) { packed<Out, Count>::store(job.out.data + to * job.out.strides[0] + d, sum); }
  }
  if (threadIdx.x == 0 && !job.out_sizes.absent()) { job.out_sizes(to) = total; }
}

template <class Tag, class T, class Index, class Out>
status merge_rows_impl(backend<Tag> const& on, tensor_view<T const, 2> rows, tensor_view<float const, 1> sizes,
                       tensor_view<Index const, 1> source, segments const& segments, tensor_view<Out, 2> out,
                       tensor_view<float, 1> out_sizes, tensor_view<std::int32_t const, 1> out_offsets) noexcept {
  constexpr int count = together<T, Out>();
  merge_job<T, Index, Out> const job{segments, rows, sizes, source, out, out_sizes, out_offsets};
  segment_grid const grid{segments.count, segments.bound(rows.size(0))};
  bool const wide = rows.size(1) % count == 0 && aligned_rows(rows) && aligned_rows(out);
  auto const kernel = wide ? merge_rows_kernel<Tag, count, T, Index, Out> : merge_rows_kernel<Tag, 1, T, Index, Out>;
  return launch_parts(on, grid, merge_threads, kernel, job);
}

}  // namespace cuda
MUSTDROP_NAMESPACE_END
