// SPDX-License-Identifier: Apache-2.0
#pragma once

// The k best of n, for every word that selects, in two kernels. Keys are unsigned integers in the order of the scores (numerics.hpp:
// score_order); among equal ones the earlier stays.
//   select_kernel  one block a segment: writes the keys, finds the k-th highest one bit at a time by counting the keys that reach it, and
//                  notes for each chunk of 32 items how many before it stay. Every address it writes is known without the data.
//   keep_kernel    one warp a chunk: an item's place is what the chunk's note says plus the ballots of its own warp.
//   rank_kernel    instead, for lists with the best first: an item's place is how many items beat it, as in the reference.
// A few passes over keys that lie in the first cache; no size is special, nothing is sorted and nothing is atomic.
//
// A Job says what is selected: items(s), their number in segment s; slot(s), where their keys lie; key(s, i); and wanted(s, must, may),
// how many stay when `must` keys are the highest there is and `may` are at least least().

#include <mustdrop/cuda/backend.cuh>
#include <mustdrop/numerics.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace cuda {

constexpr std::uint32_t lowest_key = 0, highest_key = 0xffffffffu;  // neither is the key of a number
constexpr int select_threads = 256, select_warps = select_threads / 32;

/// What stays of a segment: keys above `key`, and of those equal to it the first `ties`; `kept` in all.
struct cutoff {
  std::uint32_t key;
  std::int32_t ties, kept;
};

/// Two counts of items: above the cutoff and on it, or any other two.
struct tally {
  std::int32_t above, ties;

  __device__ tally operator+(tally other) const { return {above + other.above, ties + other.ties}; }
};

/// Scratch of a selection among n items: a key for each, a tally for each chunk of 32, a cutoff for each segment.
struct selection_memory {
  std::uint32_t* keys;
  cutoff* cuts;
  tally* before;

  static constexpr std::size_t bytes(index_t items, index_t segments) noexcept {
    auto const n = static_cast<std::size_t>(items), m = static_cast<std::size_t>(segments);
    return n * sizeof(std::uint32_t) + m * sizeof(cutoff) + (n / 32 + m) * sizeof(tally);
  }
  selection_memory(void* scratch, index_t items, index_t segments) noexcept
      : keys(static_cast<std::uint32_t*>(scratch)),
        cuts(reinterpret_cast<cutoff*>(keys + items)),
        before(reinterpret_cast<tally*>(cuts + segments)) {}

  /// The note of a segment's chunk. A segment of n items has at most n / 32 + 1 chunks, so they end where the next one's begin.
  __device__ tally& note(index_t s, index_t slot, index_t chunk) const { return before[slot / 32 + s + chunk]; }
};

/// Adds up what the warps of a block counted. Two buffers in turn: one barrier a sum.
struct warp_sums {
  using buffers = tally[2][select_warps];
  struct result {
    tally before, all;  // of the warps before this one, of the block
  };

  buffers& of_warps;
  int turn = 0;

  __device__ result operator()(tally own) {
    turn ^= 1;
    if (lane_of_thread() == 0) { of_warps[turn][warp_of_thread()] = own; }
    __syncthreads();
    result sum{{0, 0}, {0, 0}};
    int const warps = static_cast<int>(blockDim.x / 32);
    for (int w = 0; w < warps; ++w) {
      tally const one = of_warps[turn][w];
      sum.all = sum.all + one;
      if (w < warp_of_thread()) { sum.before = sum.before + one; }
    }
    return sum;
  }
};

/// Of the items of this thread's warp, those whose key satisfies each of two tests. The whole warp calls it.
template <class First, class Second>
__device__ tally warp_tally(std::uint32_t const* keys, index_t n, First const& first, Second const& second) {
  tally count{0, 0};
  for (index_t base = 0; base < n; base += blockDim.x) {
    index_t const i = base + threadIdx.x;
    std::uint32_t const key = i < n ? keys[i] : 0;
    count.above += __popc(__ballot_sync(all_lanes, i < n && first(key)));
    count.ties += __popc(__ballot_sync(all_lanes, i < n && second(key)));
  }
  return count;
}
template <class First>
__device__ tally warp_tally(std::uint32_t const* keys, index_t n, First const& first) {
  tally count{0, 0};
  for (index_t base = 0; base < n; base += blockDim.x) {
    index_t const i = base + threadIdx.x;
    count.above += __popc(__ballot_sync(all_lanes, i < n && first(i < n ? keys[i] : 0)));
  }
  return count;
}

/// The k-th highest of n keys, 0 <= k <= n: the highest that k keys reach.
__device__ inline cutoff kth_highest(std::uint32_t const* keys, index_t n, std::int32_t k, warp_sums& sum) {
  std::uint32_t cut = 0;
  for (int bit = 31; bit >= 0; --bit) {
    std::uint32_t const higher = cut | 1u << bit;
    tally const reach = sum(warp_tally(keys, n, [higher](std::uint32_t key) { return key >= higher; })).all;
    cut = reach.above >= k ? higher : cut;
  }
  tally const above = sum(warp_tally(keys, n, [cut](std::uint32_t key) { return key > cut; })).all;
  return {cut, k - above.above, k};
}

template <class Tag, class Job>
__global__ void __launch_bounds__(select_threads, 1) select_kernel(unsigned, Job const job, selection_memory const memory) {
  MUSTDROP_SHARED(warp_sums::buffers, buffers);
  warp_sums sum{buffers};
  index_t const s = blockIdx.x, n = job.items(s), slot = job.slot(s);
  std::uint32_t* const keys = memory.keys + slot;
  for (index_t i = threadIdx.x; i < n; i += blockDim.x) { keys[i] = job.key(s, i); }  // a thread reads no key but its own

  std::uint32_t const least = job.least();
  tally const counted =
      sum(warp_tally(
              keys, n, [](std::uint32_t key) { return key == highest_key; }, [least](std::uint32_t key) { return key >= least; }))
          .all;
  index_t const wanted = job.wanted(s, counted.above, counted.ties);
  cutoff const cut = kth_highest(keys, n, static_cast<std::int32_t>(wanted < 0 ? 0 : lesser(wanted, n)), sum);
  if (threadIdx.x == 0) { memory.cuts[s] = cut; }

  tally before{0, 0};
  for (index_t base = 0; base < n; base += blockDim.x) {
    index_t const i = base + threadIdx.x, chunk = i / 32;
    std::uint32_t const key = i < n ? keys[i] : 0;
    tally const own{__popc(__ballot_sync(all_lanes, i < n && key > cut.key)), __popc(__ballot_sync(all_lanes, i < n && key == cut.key))};
    auto const warps = sum(own);
    if (lane_of_thread() == 0 && i < n) { memory.note(s, slot, chunk) = before + warps.before; }
    before = before + warps.all;
  }
}

/// Whether an item stays, and how many before it do.
struct kept_place {
  bool stays;
  index_t at;
};

/// Of item i, the one of this lane: i / 32 is the same for the whole warp, which calls this together.
__device__ inline kept_place place_of(selection_memory const& memory, index_t s, index_t slot, index_t n, index_t i) {
  cutoff const cut = memory.cuts[s];
  tally const before = memory.note(s, slot, i / 32);
  std::uint32_t const key = i < n ? memory.keys[slot + i] : 0, lower = (1u << lane_of_thread()) - 1;
  bool const above = i < n && key > cut.key, tie = i < n && key == cut.key;
  std::int32_t const above_before = before.above + __popc(__ballot_sync(all_lanes, above) & lower);
  std::int32_t const ties_before = before.ties + __popc(__ballot_sync(all_lanes, tie) & lower);
  return {above || (tie && ties_before < cut.ties), above_before + (ties_before < cut.ties ? ties_before : cut.ties)};
}

template <class Tag, class Job, class Index>
__global__ void __launch_bounds__(select_threads)
    keep_kernel(unsigned parts, Job const job, selection_memory const memory, keep_lists<Index> const keep) {
  auto const [s, part] = block_place(parts);
  index_t const n = job.items(s), i = part * select_threads + threadIdx.x;
  if (part == 0 && threadIdx.x == 0) { keep.counts(s) = memory.cuts[s].kept; }
  if (i / 32 * 32 >= n) { return; }  // whole warps
  kept_place const place = place_of(memory, s, job.slot(s), n, i);
  if (place.stays) { keep.indices(s, place.at) = static_cast<Index>(i); }
}

/// A key and its item as one number: no two are equal, the earlier of equal keys is higher.
__device__ inline std::uint64_t ordered(std::uint32_t key, index_t i) {
  return std::uint64_t{key} << 32 | static_cast<std::uint32_t>(~static_cast<std::uint32_t>(i));
}
/// How many of a segment's n items beat item i.
__device__ inline index_t beaten_by(std::uint32_t const* keys, index_t n, index_t i) {
  std::uint64_t const own = ordered(keys[i], i);
  std::int32_t better = 0;
  for (index_t u = 0; u < n; ++u) { better += ordered(keys[u], u) > own; }
  return better;
}

template <class Tag, class Job, class Index>
__global__ void __launch_bounds__(select_threads)
    rank_kernel(unsigned parts, Job const job, selection_memory const memory, keep_lists<Index> const keep) {
  auto const [s, part] = block_place(parts);
  index_t const n = job.items(s), i = part * select_threads + threadIdx.x;
  cutoff const cut = memory.cuts[s];
  if (i == 0) { keep.counts(s) = cut.kept; }
  if (i >= n) { return; }
  std::uint32_t const* const keys = memory.keys + job.slot(s);
  if (keys[i] < cut.key) { return; }
  index_t const place = beaten_by(keys, n, i);
  if (place < cut.kept) { keep.indices(s, place) = static_cast<Index>(i); }
}

/// Threads of a block that selects among at most `bound` items.
constexpr unsigned threads_for(index_t bound) noexcept {
  return bound < select_threads ? static_cast<unsigned>(round_up(bound < 1 ? 1 : bound, warp_lanes)) : unsigned{select_threads};
}
/// One part at least, for the count of a segment of nothing.
constexpr segment_grid parts_for(index_t segments, index_t bound) noexcept {
  return {segments, bound < 1 ? 1 : parts_of(bound, select_threads)};
}

/// Keys, cutoffs and notes of segments of at most `bound` items.
template <class Tag, class Job>
status select(backend<Tag> const& on, Job const& job, index_t segments, index_t bound, selection_memory const& memory) noexcept {
  return launch_parts(on, {segments, 1}, threads_for(bound), select_kernel<Tag, Job>, job, memory);
}

/// The lists of what was selected.
template <class Tag, class Job, class Index>
status keep_best(backend<Tag> const& on, Job const& job, index_t bound, output_order order, selection_memory const& memory,
                 keep_lists<Index> keep) noexcept {
  segment_grid const grid = parts_for(keep.counts.size(0), bound);
  if (!grid.fits()) { return status::unsupported; }
  if (status const s = select(on, job, grid.segments, bound, memory); s != status::ok) { return s; }
  auto const kernel = order == output_order::score ? rank_kernel<Tag, Job, Index> : keep_kernel<Tag, Job, Index>;
  return launch_parts(on, grid, select_threads, kernel, job, memory, keep);
}

}  // namespace cuda
MUSTDROP_NAMESPACE_END
