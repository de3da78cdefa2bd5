// SPDX-License-Identifier: Apache-2.0
#pragma once

// cuda::backend<Tag>: every word as kernels on the caller's stream, the same bits as the reference.
//
// Everything that a view points to may be device memory, offsets, counts, requests and lists too: the host reads none of it. Work is cut
// by what the host knows, sizes and segments.longest, and blocks that find nothing to do return. Nothing is allocated, copied or waited
// for, so that a caller may capture a stream with these calls into a graph.

#include <type_traits>

#include <mustdrop/backend.hpp>
#include <mustdrop/cuda/launch.cuh>
#include <mustdrop/view.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace cuda {

/// The architectures that a file is compiled for.
template <int... Architectures>
struct sm_list {};
#if defined(__CUDA_ARCH_LIST__)
using default_sm_list = sm_list<__CUDA_ARCH_LIST__>;
#else
using default_sm_list = sm_list<>;
#endif

/// The tag is part of every kernel's symbol and of its launch's: files compiled for different lists share no code in one program.
template <class Tag = default_sm_list>
struct backend {
  using is_mustdrop_backend = void;
  cudaStream_t stream = nullptr;
};

constexpr index_t warp_lanes = 32;
constexpr unsigned all_lanes = 0xffffffffu;
__device__ inline int lane_of_thread() { return static_cast<int>(threadIdx.x % 32); }
__device__ inline int warp_of_thread() { return static_cast<int>(threadIdx.x / 32); }

/// How many parts of `part` cover `bound`.
constexpr index_t parts_of(index_t bound, index_t part) noexcept { return bound / part + (bound % part != 0); }
constexpr index_t round_up(index_t bound, index_t part) noexcept { return parts_of(bound, part) * part; }
MUSTDROP_HD constexpr index_t lesser(index_t a, index_t b) noexcept { return a < b ? a : b; }

/// A grid of `parts` blocks for each of `segments` segments, in one dimension: the others end at 65535.
struct segment_grid {
  index_t segments, parts;

  constexpr bool fits() const noexcept {
    constexpr index_t most_blocks = 0x7fffffff;
    return segments == 0 || (parts <= most_blocks / segments && segments <= most_blocks);
  }
};

/// Which part of which segment a block is for.
struct block_place {
  index_t segment, part;

  __device__ explicit block_place(unsigned parts) : segment(blockIdx.x / parts), part(blockIdx.x % parts) {}
};

/// Launches kernel(parts, arguments…) on such a grid.
template <class Tag, class... Parameters, class... Arguments>
status launch_parts(backend<Tag> const& on, segment_grid grid, dim3 block, void (*kernel)(unsigned, Parameters...),
                    Arguments const&... arguments) noexcept {
  if (grid.segments == 0 || grid.parts == 0) { return status::ok; }
  if (!grid.fits()) { return status::unsupported; }
  auto const blocks = static_cast<unsigned>(grid.segments * grid.parts), parts = static_cast<unsigned>(grid.parts);
  return device_status(static_cast<std::int32_t>(launch(kernel, dim3(blocks), block, 0, on.stream, parts, arguments...)));
}

}  // namespace cuda
MUSTDROP_NAMESPACE_END
