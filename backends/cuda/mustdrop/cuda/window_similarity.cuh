// SPDX-License-Identifier: Apache-2.0
#pragma once

// Contract: mustdrop/window_similarity.hpp. A block a window. First each warp takes members in turn for their norms; then each thread
// sums some of the features over the members, and the first warp adds the squares of those sums, in the order of the features.

#include <mustdrop/cuda/numerics.cuh>
#include <mustdrop/window_similarity.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace cuda {

/// ‖x‖² of a member of a window, and what its row is multiplied with.
struct unit_row {
  float square, inverse_norm;
};

/// Every token is a member of one window at the most.
template <class Tag>
constexpr std::size_t window_similarity_workspace_size_impl(backend<Tag> const&, window_shape, index_t tokens, index_t,
                                                            segments const&) noexcept {
  return static_cast<std::size_t>(tokens) * sizeof(unit_row);
}

template <class T>
struct similarity_job {
  window_shape window;
  tensor_view<T const, 2> features;
  segments cut;
  tensor_view<token_grid const, 1> grids;
  tensor_view<float, 2> similarity;
  unit_row* rows;
};

constexpr int most_similarity_threads = 512;

/// Where the features of member m of window w begin.
template <class T>
__device__ T const* member_row(similarity_job<T> const& job, index_t s, index_t w, index_t m) {
  return job.features.data + (job.cut.begin(s) + window_member(job.grids.data[s], job.window, w, m)) * job.features.strides[0];
}

/// The 32 lanes of ‖Σ u‖², in the lanes of the first warp; the whole block calls it. `sums` has room for what all threads sum at a time.
template <int Count, class T>
__device__ float square_of_sum(similarity_job<T> const& job, index_t s, index_t w, unit_row const* rows, float* sums) {
  index_t const dim = job.features.size(1), n = job.window.tokens(), tile = index_t{blockDim.x} * Count;
  float lane = 0;
  for (index_t base = 0; base < dim; base += tile) {
    index_t const d = base + index_t{threadIdx.x} * Count;
    numbers<Count> sum{};
    for (index_t m = 0; m < n && d < dim; ++m) {
      numbers<Count> const x = packed<T, Count>::load(member_row(job, s, w, m) + d);
      float const inverse = rows[m].inverse_norm;
      for (int e = 0; e < Count; ++e) { sum.at[e] = mustdrop::fma(x.at[e], inverse, sum.at[e]); }
    }
    for (int e = 0; e < Count; ++e) { sums[d - base + e] = sum.at[e]; }
    __syncthreads();
    if (warp_of_thread() == 0) {
      for (index_t i = lane_of_thread(); i < lesser(tile, dim - base); i += 32) { lane = mustdrop::fma(sums[i], sums[i], lane); }
    }
    __syncthreads();
  }
  return lane;
}

template <class Tag, int Count, class T>
__global__ void __launch_bounds__(most_similarity_threads) window_similarity_kernel(unsigned parts, similarity_job<T> const job) {
  using row_of_sums = float[most_similarity_threads * Count];
  MUSTDROP_SHARED(row_of_sums, sums);
  auto const [s, w] = block_place(parts);
  if (w >= job.window.windows(job.grids.data[s])) { return; }
  index_t const dim = job.features.size(1), n = job.window.tokens();
  unit_row* const rows = job.rows + job.cut.begin(s) + w * n;
  for (index_t m = warp_of_thread(); m < n; m += blockDim.x / 32) {
    float const square = dim > 0 ? square_norm(member_row(job, s, w, m), dim) : 0.0f, norm = square_root(square);
    if (lane_of_thread() == 0) { rows[m] = {square, divide(1.0f, norm > 1e-8f ? norm : 1e-8f)}; }
  }
  __syncthreads();

  float const whole = lanes_total(square_of_sum<Count>(job, s, w, rows, sums));
  if (threadIdx.x != 0) { return; }
  bool finite = true;
  float own = 0;  // Σ ‖u‖²
  for (index_t m = 0; m < n; ++m) {
    float const square = rows[m].square, inverse = rows[m].inverse_norm;
    finite = finite && square < float_from_bits(0x7f800000u);
    own = mustdrop::fma(inverse * square, inverse, own);
  }
  float const mean = divide(whole - own, static_cast<float>(n) * static_cast<float>(n - 1));
  job.similarity(s, w) = finite ? mean : float_from_bits(0x7fc00000u);
}

template <class Tag, class T>
status window_similarity_impl(backend<Tag> const& on, window_shape window, tensor_view<T const, 2> features, segments const& segments,
                              tensor_view<token_grid const, 1> grids, tensor_view<float, 2> similarity, workspace scratch) noexcept {
  constexpr int count = together<T>();
  similarity_job<T> const job{window, features, segments, grids, similarity, static_cast<unit_row*>(scratch.data)};
  bool const wide = features.size(1) % count == 0 && aligned_rows(features);
  index_t const warps = lesser(window.tokens(), most_similarity_threads / 32);  // one for each member
  auto const kernel = wide ? window_similarity_kernel<Tag, count, T> : window_similarity_kernel<Tag, 1, T>;
  return launch_parts(on, {segments.count, similarity.size(1)}, static_cast<unsigned>(warps * 32), kernel, job);
}

}  // namespace cuda
MUSTDROP_NAMESPACE_END
