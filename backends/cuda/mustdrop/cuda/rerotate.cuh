// SPDX-License-Identifier: Apache-2.0
#pragma once

// Contract: mustdrop/rerotate.hpp. A thread turns one pair of one slot in every head: an angle is computed once.

#include <mustdrop/cuda/elements.cuh>
#include <mustdrop/rerotate.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace cuda {

template <class T, class P>
struct rerotate_job {
  segments cut;
  rope_pairs pairs;
  tensor_view<T, 3> keys;
  tensor_view<P const, 2> old, updated;
  tensor_view<float const, 1> inv_freq;
  tensor_view<std::int32_t const, 1> axis_of;
};

constexpr unsigned rerotate_threads = 128;

template <class Tag, class T, class P>
__global__ void __launch_bounds__(rerotate_threads) rerotate_kernel(unsigned parts, rerotate_job<T, P> const job) {
  auto const [s, part] = block_place(parts);
  index_t const slot = part * blockDim.y + threadIdx.y, frequencies = job.inv_freq.size(0);
  if (slot >= job.cut.size(s, job.keys.size(1))) { return; }
  index_t const i = job.cut.begin(s) + slot;
  for (index_t f = threadIdx.x; f < frequencies; f += blockDim.x) {
    index_t const axis = job.axis_of.absent() ? 0 : job.axis_of(f), moved = index_t{job.updated(axis, i)} - job.old(axis, i);
    if (moved == 0) { continue; }
    sine_cosine const turn = sin_cos(static_cast<float>(moved) * job.inv_freq(f));
    index_t const first = job.pairs == rope_pairs::half_split ? f : 2 * f;
    index_t const second = job.pairs == rope_pairs::half_split ? f + frequencies : 2 * f + 1;
    for (index_t h = 0; h < job.keys.size(0); ++h) {
      T* const key = job.keys.data + h * job.keys.strides[0] + i * job.keys.strides[1];
      float const x = to_float(key[first]), y = to_float(key[second]);
      key[first] = from_float<T>(mustdrop::fma(x, turn.cosine, -(y * turn.sine)));
      key[second] = from_float<T>(mustdrop::fma(x, turn.sine, y * turn.cosine));
    }
  }
}

template <class Tag, class T, class P>
status rerotate_impl(backend<Tag> const& on, rope_pairs pairs, tensor_view<T, 3> keys, segments const& segments,
                     tensor_view<P const, 2> old, tensor_view<P const, 2> updated, tensor_view<float const, 1> inv_freq,
                     tensor_view<std::int32_t const, 1> axis_of) noexcept {
  unsigned across = 1;
  while (across < rerotate_threads && across < inv_freq.size(0)) { across *= 2; }
  dim3 const block(across, rerotate_threads / across);
  segment_grid const grid{segments.count, parts_of(segments.bound(keys.size(1)), block.y)};
  rerotate_job<T, P> const job{segments, pairs, keys, old, updated, inv_freq, axis_of};
  return launch_parts(on, grid, block, rerotate_kernel<Tag, T, P>, job);
}

}  // namespace cuda
MUSTDROP_NAMESPACE_END
