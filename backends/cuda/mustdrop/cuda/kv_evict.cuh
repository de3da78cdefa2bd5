// SPDX-License-Identifier: Apache-2.0
#pragma once

// Contract: mustdrop/kv_evict.hpp. What is selected is blocks of slots: a block of one slot is a slot.

#include <mustdrop/cuda/selection.cuh>
#include <mustdrop/kv_evict.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace cuda {

template <class Tag>
constexpr std::size_t kv_evict_workspace_size_impl(backend<Tag> const&, index_t slots, segments const& segments) noexcept {
  return selection_memory::bytes(slots, segments.count);
}

struct kv_evict_job {
  segments cut;
  evict_options options;
  tensor_view<float const, 1> scores;
  tensor_view<slot_kind const, 1> kind;
  tensor_view<std::int32_t const, 1> requested;

  __device__ index_t slots(index_t s) const { return cut.size(s, kind.size(0)); }
  __device__ index_t end_of(index_t s, index_t block) const { return lesser(slots(s), (block + 1) * options.block); }

  __device__ index_t items(index_t s) const { return slots(s) / options.block + (slots(s) % options.block != 0); }
  __device__ index_t slot(index_t s) const { return cut.begin(s); }
  __device__ std::uint32_t least() const { return lowest_key + 1; }

  /// The highest where a slot must stay, the lowest where it must not, else its score's: above the lowest for NaN too.
  __device__ std::uint32_t slot_key(index_t s, index_t i) const {
    index_t const at = cut.begin(s) + i;
    slot_kind const what = kind.data[at];
    bool const by_score = options.policy == evict_policy::output_aware, visual = what == slot_kind::visual;
    bool const shielded = by_score && (i < options.sinks || slots(s) - i <= options.recent);
    std::uint32_t const others = options.policy == evict_policy::survivors ? highest_key : lowest_key;
    std::uint32_t const order = by_score && !scores.absent() ? score_order(scores.data[at]) : score_order(0.0f);
    std::uint32_t const own = by_score ? (order > lowest_key ? order : lowest_key + 1) : others;
    return what == slot_kind::dropped ? lowest_key : visual && !shielded ? own : highest_key;
  }
  /// The best of its slots'.
  __device__ std::uint32_t key(index_t s, index_t block) const {
    std::uint32_t best = lowest_key;
    for (index_t i = block * options.block; i < end_of(s, block); ++i) {
      std::uint32_t const own = slot_key(s, i);
      best = own > best ? own : best;
    }
    return best;
  }
  /// All that must, then by score until as many blocks stay as the budget has room for.
  __device__ index_t wanted(index_t s, index_t must, index_t may) const {
    index_t const budget = requested.absent() ? options.budget : requested(s);
    index_t const within = options.policy == evict_policy::output_aware ? budget / options.block : 0;
    return within < must ? must : lesser(within, may);
  }
};

/// keep_kernel for blocks: each is written whole, and only the last can be shorter.
template <class Tag, class Index>
__global__ void __launch_bounds__(select_threads)
    keep_blocks_kernel(unsigned parts, kv_evict_job const job, selection_memory const memory, keep_lists<Index> const keep) {
  auto const [s, part] = block_place(parts);
  index_t const blocks = job.items(s), b = part * select_threads + threadIdx.x;
  if (blocks == 0 && b == 0) { keep.counts(s) = 0; }
  if (b / 32 * 32 >= blocks) { return; }  // whole warps
  kept_place const place = place_of(memory, s, job.slot(s), blocks, b);
  index_t const begin = b * job.options.block, first = place.at * job.options.block;
  index_t const size = place.stays ? job.end_of(s, b) - begin : 0;
  for (index_t i = 0; i < size; ++i) { keep.indices(s, first + i) = static_cast<Index>(begin + i); }
  if (b == blocks - 1) { keep.counts(s) = static_cast<std::int32_t>(first + size); }
}

template <class Tag, class Index>
status kv_evict_impl(backend<Tag> const& on, evict_options const& options, tensor_view<float const, 1> scores,
                     tensor_view<slot_kind const, 1> kind, segments const& segments, tensor_view<std::int32_t const, 1> requested,
                     keep_lists<Index> keep, workspace scratch) noexcept {
  index_t const slots = kind.size(0), bound = parts_of(segments.bound(slots), options.block);
  segment_grid const grid = parts_for(segments.count, bound);
  if (!grid.fits()) { return status::unsupported; }
  selection_memory const memory(scratch.data, slots, segments.count);
  kv_evict_job const job{segments, options, scores, kind, requested};
  if (status const s = select(on, job, segments.count, bound, memory); s != status::ok) { return s; }
  return launch_parts(on, grid, select_threads, keep_blocks_kernel<Tag, Index>, job, memory, keep);
}

}  // namespace cuda
MUSTDROP_NAMESPACE_END
