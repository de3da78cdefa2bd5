// SPDX-License-Identifier: Apache-2.0
#pragma once

// Contract: mustdrop/dual_mask.hpp. A kernel turns scores into keys; the selection is everyone's.

#include <mustdrop/cuda/numerics.cuh>
#include <mustdrop/cuda/selection.cuh>
#include <mustdrop/dual_mask.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace cuda {

template <class Tag>
constexpr std::size_t dual_mask_workspace_size_impl(backend<Tag> const&, index_t tokens, segments const& segments) noexcept {
  return selection_memory::bytes(tokens, segments.count);
}

/// The two tests on one token, as a filter and as a rank. `share` is global·Σ sum.
struct dual_test {
  float share, individual;

  static __device__ float or_zero(float x) { return is_nan(x) ? 0.0f : x; }
  static __device__ float ratio(float x, float threshold) {
    float const infinity = float_from_bits(0x7f800000u);
    float const times = divide(x, threshold);
    return !is_nan(times) ? times : x > 0 ? infinity : -infinity;
  }

  /// The highest key where a token passes, else the lowest.
  __device__ std::uint32_t passes(float sum, float max) const {
    return or_zero(sum) < share && or_zero(max) < individual ? lowest_key : highest_key;
  }
  __device__ std::uint32_t rank(float sum, float max) const {
    float const shared = ratio(sum, share), together = share > 0 ? shared : 0.0f, alone = ratio(max, individual);  // no branch
    return score_order(together > alone ? together : alone);
  }
};

template <class Index>
struct dual_mask_job {
  segments cut;
  tensor_view<float const, 1> sum;
  keep_lists<Index const> always_kept;
  tensor_view<std::int32_t const, 1> requested;
  index_t count;
  std::uint32_t const* keys;

  __device__ index_t items(index_t s) const { return cut.size(s, sum.size(0)); }
  __device__ index_t slot(index_t s) const { return cut.begin(s); }
  __device__ std::uint32_t least() const { return lowest_key + 1; }
  __device__ std::uint32_t key(index_t s, index_t t) const { return keys[cut.begin(s) + t]; }
  __device__ index_t asked(index_t s) const { return requested.absent() ? count : requested(s); }
  __device__ index_t shielded(index_t s) const { return always_kept.absent() ? 0 : always_kept.counts(s); }
  __device__ index_t wanted(index_t s, index_t, index_t passing) const {
    return asked(s) < 0 ? passing : asked(s) > shielded(s) ? asked(s) : shielded(s);
  }
};

/// Σ sum of a segment, NaN counting as 0, by a warp.
__device__ inline float total_of(float const* sum, index_t n) {
  float lane = 0;
  for (index_t t = lane_of_thread(); t < n; t += 32) { lane += dual_test::or_zero(sum[t]); }
  return lanes_total(lane);
}

/// A block a segment: its first warp adds up, then each thread judges tokens, then the protected ones get their key.
template <class Tag, class Index>
__global__ void __launch_bounds__(select_threads)
    dual_keys_kernel(unsigned, dual_mask_job<Index> const job, dual_mask_options const options, tensor_view<float const, 1> const max,
                     std::uint32_t* all_keys) {
  MUSTDROP_SHARED(float, share);
  index_t const s = blockIdx.x, begin = job.cut.begin(s), n = job.items(s);
  float const *const sums = job.sum.data + begin, *const most = max.data + begin;
  if (warp_of_thread() == 0) {
    float const total = total_of(sums, n);
    if (lane_of_thread() == 0) { share = options.global * total; }
  }
  __syncthreads();
  dual_test const test{share, options.individual};
  bool const ranks = job.asked(s) >= 0;
  std::uint32_t* const keys = all_keys + begin;
#pragma unroll 1  // unrolled, its divisions spill on sm_100
  for (index_t t = threadIdx.x; t < n; t += blockDim.x) {
    std::uint32_t const rank = test.rank(sums[t], most[t]), passes = test.passes(sums[t], most[t]);
    keys[t] = ranks ? rank : passes;
  }
  __syncthreads();
  index_t const shielded = n > 0 ? job.shielded(s) : 0;
  for (index_t i = threadIdx.x; i < shielded; i += blockDim.x) { keys[job.always_kept.indices(s, i)] = highest_key; }
}

template <class Tag, class Index>
status dual_mask_impl(backend<Tag> const& on, dual_mask_options options, tensor_view<float const, 1> sum, tensor_view<float const, 1> max,
                      segments const& segments, keep_lists<Index const> always_kept, tensor_view<std::int32_t const, 1> requested,
                      keep_lists<Index> keep, workspace scratch) noexcept {
  index_t const tokens = sum.size(0), bound = segments.bound(tokens);
  if (!parts_for(segments.count, bound).fits()) { return status::unsupported; }
  selection_memory const memory(scratch.data, tokens, segments.count);
  dual_mask_job<Index> const job{segments, sum, always_kept, requested, options.count, memory.keys};
  status const judged =
      launch_parts(on, {segments.count, 1}, threads_for(bound), dual_keys_kernel<Tag, Index>, job, options, max, memory.keys);
  return judged != status::ok ? judged : keep_best(on, job, bound, output_order::position, memory, keep);
}

}  // namespace cuda
MUSTDROP_NAMESPACE_END
