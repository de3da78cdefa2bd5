// SPDX-License-Identifier: Apache-2.0
#pragma once

// Contract: mustdrop/method/random.hpp.

#include <mustdrop/cuda/top_k.cuh>
#include <mustdrop/method/random.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace cuda {

constexpr int random_threads = 256;

template <class Tag>
__global__ void __launch_bounds__(random_threads)
    random_scores_kernel(unsigned parts, std::uint64_t seed, segments const cut, tensor_view<float, 1> const scores) {
  auto const [s, part] = block_place(parts);
  index_t const t = part * random_threads + threadIdx.x;
  if (t < cut.size(s, scores.size(0))) { scores(cut.begin(s) + t) = method::random_score(seed, t); }
}

template <class Tag>
status random_scores_impl(backend<Tag> const& on, std::uint64_t seed, segments const& segments, tensor_view<float, 1> scores) noexcept {
  segment_grid const grid{segments.count, parts_of(segments.bound(scores.size(0)), random_threads)};
  return launch_parts(on, grid, random_threads, random_scores_kernel<Tag>, seed, segments, scores);
}

}  // namespace cuda
MUSTDROP_NAMESPACE_END
