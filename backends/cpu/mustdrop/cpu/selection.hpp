// SPDX-License-Identifier: Apache-2.0
#pragma once

// The k best of n, for every word that selects. Keys are integers in the order of the scores (numerics.hpp: score_order); among equal ones
// the earlier stays. The k-th highest key is found by halving the range of keys and counting how many lie above: a few passes of
// compare-and-add over some kilobytes, where nth_element mispredicts a branch for every other key.

#include <algorithm>

#include <mustdrop/cpu/numerics.hpp>
#include <mustdrop/view.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace cpu {

constexpr std::int32_t lowest_key = std::numeric_limits<std::int32_t>::min(), highest_key = std::numeric_limits<std::int32_t>::max();

/// About how many bytes a selection reads for a token of its segment: its key, once for each bit of the range.
constexpr index_t selection_bytes = 32 * sizeof(std::int32_t);

/// What stays: keys above `key`, and of those equal to it the first `ties`.
struct cutoff {
  std::int32_t key;
  index_t ties;
};

template <class Arch>
MUSTDROP_FLATTEN index_t count_above(std::int32_t const* keys, index_t n, std::int32_t key) noexcept {
  ints<Arch> const limit(key), one(1), zero(0);
  ints<Arch> count(0);
  index_t i = 0;
  for (; i + lanes<Arch> <= n; i += lanes<Arch>) { count = count + xsimd::select(ints<Arch>::load_unaligned(keys + i) > limit, one, zero); }
  std::int32_t counts[lanes<Arch>];
  count.store_unaligned(counts);
  index_t total = 0;
  for (std::int32_t const c : counts) { total += c; }
  for (; i < n; ++i) { total += keys[i] > key; }
  return total;
}

struct key_range {
  std::int32_t least, most;
};
template <class Arch>
MUSTDROP_FLATTEN key_range range_of(std::int32_t const* keys, index_t n) noexcept {
  ints<Arch> least(keys[0]), most(keys[0]);
  index_t i = 0;
  for (; i + lanes<Arch> <= n; i += lanes<Arch>) {
    ints<Arch> const some = ints<Arch>::load_unaligned(keys + i);
    least = xsimd::min(least, some), most = xsimd::max(most, some);
  }
  std::int32_t low[lanes<Arch>], high[lanes<Arch>];
  least.store_unaligned(low), most.store_unaligned(high);
  key_range range{low[0], high[0]};
  auto const take = [&range](std::int32_t key) {
    range.least = key < range.least ? key : range.least, range.most = key > range.most ? key : range.most;
  };
  for (index_t r = 0; r < lanes<Arch>; ++r) { take(low[r]), take(high[r]); }
  for (; i < n; ++i) { take(keys[i]); }
  return range;
}

/// 0 < k <= n.
template <class Arch>
cutoff kth_highest(std::int32_t const* keys, index_t n, index_t k) noexcept {
  key_range const range = range_of<Arch>(keys, n);
  index_t low = index_t{range.least} - 1, high = range.most, above_high = 0;  // k keys or more are above low, fewer above high
  while (high - low > 1) {
    index_t const middle = low + (high - low) / 2, above = count_above<Arch>(keys, n, static_cast<std::int32_t>(middle));
    if (above == k) { return {static_cast<std::int32_t>(middle), 0}; }
    if (above > k) {
      low = middle;
    } else {
      high = middle, above_high = above;
    }
  }
  return {static_cast<std::int32_t>(high), k - above_high};
}

/// The k tokens that stay, ascending. Has no branch to mispredict, and writes nothing behind them.
template <class Arch, class Index>
void write_kept(std::int32_t const* keys, index_t k, cutoff at, Index* out) noexcept {
  index_t ties = at.ties, kept = 0;
  for (index_t t = 0; kept < k; ++t) {
    index_t const ties_in = (keys[t] == at.key) & (ties > 0);
    out[kept] = static_cast<Index>(t);  // overwritten by the next one that stays, if this one does not
    ties -= ties_in, kept += ties_in | (keys[t] > at.key);
  }
}

/// A type of its own for each Arch, so that std::sort is too.
template <class Arch>
struct descending {
  bool operator()(std::uint64_t a, std::uint64_t b) const noexcept { return a > b; }
};

/// Tokens in the order of their keys, the highest first.
template <class Arch, class Index>
void sort_kept(std::int32_t const* keys, index_t k, Index* kept, std::uint64_t* order) noexcept {
  for (index_t i = 0; i < k; ++i) {
    auto const key = static_cast<std::uint32_t>(keys[kept[i]]) ^ 0x80000000u;
    order[i] = std::uint64_t{key} << 32 | static_cast<std::uint32_t>(~static_cast<std::uint32_t>(kept[i]));
  }
  std::sort(order, order + k, descending<Arch>{});
  for (index_t i = 0; i < k; ++i) { kept[i] = static_cast<Index>(~static_cast<std::uint32_t>(order[i])); }
}

/// Scratch of a selection among n tokens: a key and a place in the order for each.
template <class Arch>
struct selection_memory {
  std::uint64_t* order;
  std::int32_t* keys;

  static constexpr std::size_t bytes(index_t n) noexcept {
    return static_cast<std::size_t>(n) * (sizeof(std::uint64_t) + sizeof(std::int32_t));
  }
  selection_memory(workspace scratch, index_t n) noexcept
      : order(static_cast<std::uint64_t*>(scratch.data)), keys(reinterpret_cast<std::int32_t*>(order + n)) {}
};

/// The k best of n keys, written to list s.
template <class Arch, class Index>
void keep_best(std::int32_t const* keys, index_t n, index_t k, output_order order, std::uint64_t* scratch, keep_lists<Index> keep,
               index_t s) noexcept {
  k = k < n ? k : n;
  keep.counts(s) = static_cast<std::int32_t>(k);
  if (k <= 0) { return; }
  Index* const kept = &keep.indices(s, 0);
  write_kept<Arch>(keys, k, kth_highest<Arch>(keys, n, k), kept);
  if (order == output_order::score) { sort_kept<Arch>(keys, k, kept, scratch); }
}

}  // namespace cpu
MUSTDROP_NAMESPACE_END
