// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limits>

#include <mustdrop/kv_evict.hpp>
#include <mustdrop/reference/top_k.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace reference {

/// A key for each block, at the place of its first slot.
constexpr std::size_t kv_evict_workspace_size_impl(backend, index_t slots, segments const&) noexcept {
  return static_cast<std::size_t>(slots) * sizeof(std::uint64_t);
}

/// Whether slot i of a segment of n slots stays whatever its score.
inline bool must_stay(evict_options const& options, slot_kind kind, index_t i, index_t n) noexcept {
  if (kind == slot_kind::dropped) { return false; }
  switch (options.policy) {
    case evict_policy::survivors: return true;
    case evict_policy::key_set_only: return kind != slot_kind::visual;
    case evict_policy::output_aware: return kind != slot_kind::visual || i < options.sinks || n - i <= options.recent;
  }
  return true;
}

template <class Index>
status kv_evict_impl(backend, evict_options const& options, tensor_view<float const, 1> scores, tensor_view<slot_kind const, 1> kind,
                     segments const& segments, tensor_view<std::int32_t const, 1> requested, keep_lists<Index> keep,
                     workspace scratch) noexcept {
  constexpr std::uint64_t never = 0, always = std::numeric_limits<std::uint64_t>::max();
  for (index_t s = 0; s < segments.count; ++s) {
    index_t const begin = segments.begin(s), n = segments.size(s, kind.size(0)), blocks = n / options.block + (n % options.block != 0);
    auto const block_of = [&](index_t i) { return i / options.block; };

    auto* const key = static_cast<std::uint64_t*>(scratch.data) + begin;
    for (index_t b = 0; b < blocks; ++b) { key[b] = never; }
    for (index_t i = 0; i < n; ++i) {
      bool const competes = options.policy == evict_policy::output_aware && kind(begin + i) == slot_kind::visual;
      std::uint64_t const own = must_stay(options, kind(begin + i), i, n) ? always
                                : competes ? score_key(scores.absent() ? 0.0f : scores(begin + i), block_of(i))
                                           : never;
      if (own > key[block_of(i)]) { key[block_of(i)] = own; }
    }

    index_t const budget = requested.absent() ? options.budget : requested(s);
    index_t const within = options.policy == evict_policy::output_aware ? budget / options.block : 0;
    index_t kept = 0;
    for (index_t i = 0; i < n; ++i) {
      std::uint64_t const own = key[block_of(i)];  // blocks that must stay beat the others and not each other
      bool const stays = own == always || (own != never && beaten_by(blocks, block_of(i), [key](index_t b) { return key[b]; }) < within);
      if (stays) { keep.indices(s, kept++) = static_cast<Index>(i); }
    }
    keep.counts(s) = static_cast<std::int32_t>(kept);
  }
  return status::ok;
}

}  // namespace reference
MUSTDROP_NAMESPACE_END
