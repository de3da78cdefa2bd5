// SPDX-License-Identifier: Apache-2.0
#pragma once

// Contract: mustdrop/positions.hpp.

#include <mustdrop/cuda/gather.cuh>
#include <mustdrop/positions.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace cuda {

constexpr int position_threads = 256;

template <class Tag, class P, class Index>
__global__ void __launch_bounds__(position_threads)
    positions_kernel(unsigned parts, kept_rows<Index> const job, position_policy const policy, tensor_view<P const, 2> const old,
                     tensor_view<P, 2> const out) {
  auto const [s, part] = block_place(parts);
  index_t const i = part * position_threads + threadIdx.x;
  if (i >= job.count(s)) { return; }
  index_t const begin = job.cut.begin(s), to = job.to(s, i), from = job.from(s, i);
  for (index_t a = 0; a < old.size(0); ++a) {
    out(a, to) = policy == position_policy::renumbered ? static_cast<P>(old(a, begin) + static_cast<P>(i)) : old(a, from);
  }
}

/// The largest of the positions [begin, begin + n) on any axis, or `floor`; by a warp.
template <class P>
__device__ P highest_position(tensor_view<P const, 2> const& positions, index_t begin, index_t n, P floor) {
  for (index_t a = 0; a < positions.size(0); ++a) {
    for (index_t t = begin + lane_of_thread(); t < begin + n; t += 32) { floor = positions(a, t) > floor ? positions(a, t) : floor; }
  }
  for (int other = 16; other > 0; other /= 2) {
    P const there = __shfl_xor_sync(all_lanes, floor, other);
    floor = there > floor ? there : floor;
  }
  return floor;
}

/// A warp a segment, after its positions are written.
template <class Tag, class P, class Index>
__global__ void __launch_bounds__(32)
    delta_kernel(unsigned, kept_rows<Index> const job, position_policy const policy, tensor_view<P const, 2> const old,
                 tensor_view<P const, 2> const out, tensor_view<P, 1> const delta) {
  index_t const s = blockIdx.x, begin = job.cut.begin(s), size = job.cut.size(s, old.size(1)), to = job.to(s, 0), kept = job.count(s);
  P moved = 0;
  if (policy != position_policy::kept && size > 0 && old.size(0) > 0) {  // the same for the whole warp
    P const last_old = highest_position(old, begin, size, old(0, begin));
    P const first_kept = kept == 0 ? static_cast<P>(old(0, begin) - 1) : out(0, to);
    moved = static_cast<P>(highest_position(out, to, kept, first_kept) - last_old);
  }
  if (lane_of_thread() == 0) { delta(s) = moved; }
}

template <class Tag, class P, class Index>
status positions_impl(backend<Tag> const& on, position_policy policy, tensor_view<P const, 2> old, segments const& segments,
                      keep_lists<Index const> keep, tensor_view<P, 2> out, tensor_view<P, 1> delta,
                      tensor_view<std::int32_t const, 1> out_offsets) noexcept {
  kept_rows<Index> const job{segments, keep, out_offsets};
  segment_grid const grid{segments.count, parts_of(job.bound(old.size(1)), position_threads)};
  status const written = launch_parts(on, grid, position_threads, positions_kernel<Tag, P, Index>, job, policy, old, out);
  if (written != status::ok || delta.absent()) { return written; }
  return launch_parts(on, {segments.count, 1}, 32, delta_kernel<Tag, P, Index>, job, policy, old, tensor_view<P const, 2>(out), delta);
}

}  // namespace cuda
MUSTDROP_NAMESPACE_END
