// SPDX-License-Identifier: Apache-2.0
#pragma once

// Contract: mustdrop/kv_evict.hpp.

#include <mustdrop/cpu/selection.hpp>
#include <mustdrop/kv_evict.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace cpu {

/// A key for each slot, and for each block.
template <class Arch, class Executor>
constexpr std::size_t kv_evict_workspace_size_impl(backend<Arch, Executor> const&, index_t slots, segments const&) noexcept {
  return 2 * static_cast<std::size_t>(slots) * sizeof(std::int32_t);
}

/// Keys of the slots of one segment: the highest where a slot must stay, the lowest where it must not, else its score's. Scores first, in
/// registers; the kinds then overrule most of them.
template <class Arch>
void slot_keys(evict_options const& options, float const* scores, slot_kind const* kind, index_t n, std::int32_t* keys) noexcept {
  bool const by_score = options.policy == evict_policy::output_aware;
  if (by_score) {
    for_each_register<Arch>(n, [&](index_t i, auto left) {
      floats<Arch> const score = scores == nullptr ? floats<Arch>(0.0f) : load_some<Arch>(scores + i, left);
      store_some<Arch>(keys + i, score_order<Arch>(score), left);
    });
  }
  std::int32_t const others = options.policy == evict_policy::survivors ? highest_key : lowest_key;
  for (index_t i = 0; i < n; ++i) {
    bool const visual = kind[i] == slot_kind::visual, shielded = by_score && ((i < options.sinks) | (n - i <= options.recent));
    std::int32_t const own = by_score ? keys[i] : others;
    keys[i] = kind[i] == slot_kind::dropped ? lowest_key : visual && !shielded ? own : highest_key;
  }
}

/// The key of a block is the best of its slots'.
template <class Arch>
void block_keys(std::int32_t const* keys, index_t n, index_t block, std::int32_t* of_blocks) noexcept {
  for (index_t i = 0; i < n;) {
    index_t const end = n - i < block ? n : i + block;
    std::int32_t best = lowest_key;
    for (; i < end; ++i) { best = keys[i] > best ? keys[i] : best; }
    *of_blocks++ = best;
  }
}

/// How many blocks stay, and which: all that must, then by score until `within` do.
struct staying {
  index_t blocks;
  cutoff at;
};
template <class Arch>
staying blocks_that_stay(std::int32_t const* keys, index_t blocks, index_t within) noexcept {
  index_t const must = count_above<Arch>(keys, blocks, highest_key - 1), may = count_above<Arch>(keys, blocks, lowest_key);
  index_t const stay = within < must ? must : within < may ? within : may;
  return {stay, stay == must ? cutoff{highest_key - 1, 0} : kth_highest<Arch>(keys, blocks, stay)};
}

/// The slots of the blocks that stay; returns how many.
template <class Arch, class Index>
index_t write_blocks(std::int32_t const* of_blocks, cutoff at, index_t n, index_t block, Index* out) noexcept {
  index_t ties = at.ties, kept = 0;
  for (index_t begin = 0; begin < n; begin += block) {
    std::int32_t const key = *of_blocks++;
    bool const tie = key == at.key && ties > 0;
    if (!tie && key <= at.key) { continue; }
    ties -= tie;
    for (index_t i = begin, end = n - begin < block ? n : begin + block; i < end; ++i) { out[kept++] = static_cast<Index>(i); }
  }
  return kept;
}

template <class Arch, class Executor, class Index>
status kv_evict_impl(backend<Arch, Executor> const& on, evict_options const& options, tensor_view<float const, 1> scores,
                     tensor_view<slot_kind const, 1> kind, segments const& segments, tensor_view<std::int32_t const, 1> requested,
                     keep_lists<Index> keep, workspace scratch) noexcept {
  in_parts(on, segments.count, many_a_part(on, selection_bytes * segments.bound(kind.size(0))), [&](index_t s) {
    index_t const begin = segments.begin(s), n = segments.size(s, kind.size(0)), block = options.block < n ? options.block : n;
    keep.counts(s) = 0;
    if (n == 0) { return; }

    std::int32_t* const keys = static_cast<std::int32_t*>(scratch.data) + 2 * begin;
    slot_keys<Arch>(options, scores.absent() ? nullptr : scores.data + begin, kind.data + begin, n, keys);
    std::int32_t* const of_blocks = block == 1 ? keys : keys + n;
    if (block > 1) { block_keys<Arch>(keys, n, block, of_blocks); }

    index_t const budget = requested.absent() ? options.budget : requested(s), blocks = n / block + (n % block != 0);
    index_t const within = options.policy == evict_policy::output_aware ? budget / options.block : 0;
    auto const [stay, at] = blocks_that_stay<Arch>(of_blocks, blocks, within);
    index_t kept = stay;
    if (stay > 0 && block == 1) {
      write_kept<Arch>(keys, stay, at, &keep.indices(s, 0));
    } else if (stay > 0) {
      kept = write_blocks<Arch>(of_blocks, at, n, block, &keep.indices(s, 0));
    }
    keep.counts(s) = static_cast<std::int32_t>(kept);
  });
  return status::ok;
}

}  // namespace cpu
MUSTDROP_NAMESPACE_END
