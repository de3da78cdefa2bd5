// SPDX-License-Identifier: Apache-2.0
#pragma once

// Segments and keep lists as tests write them down.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <mustdrop/plan.hpp>

namespace md = mustdrop;

using Offsets = std::vector<std::int32_t>;
using Lists = std::vector<std::vector<int>>;

/// Segments with `longest` said; no offsets: one segment.
inline md::segments cut_to_longest(Offsets const& offsets) {
  if (offsets.empty()) { return {}; }
  std::int32_t longest = 0;
  for (std::size_t s = 1; s < offsets.size(); ++s) { longest = std::max(longest, offsets[s] - offsets[s - 1]); }
  return {static_cast<md::index_t>(offsets.size()) - 1, offsets.data(), nullptr, longest};
}

inline md::segments cut(Offsets const& offsets) { return {static_cast<md::index_t>(offsets.size()) - 1, offsets.data(), nullptr, 0}; }

/// Keep lists as a word reads them: [segments, capacity]. What no list uses is a number that no token has.
template <class Index>
struct kept_tokens {
  explicit kept_tokens(Lists const& lists, std::size_t longest = 0) : capacity(longest) {
    for (auto const& list : lists) { capacity = std::max(capacity, list.size()), counts.push_back(static_cast<std::int32_t>(list.size())); }
    indices.assign(lists.size() * capacity, Index{1} << 30);
    for (std::size_t s = 0; s < lists.size(); ++s) { std::copy(lists[s].begin(), lists[s].end(), indices.data() + s * capacity); }
  }
  md::keep_lists<Index> lists() { return {md::view(indices.data(), counts.size(), capacity), md::view(counts.data(), counts.size())}; }

  std::size_t capacity;
  std::vector<Index> indices;
  std::vector<std::int32_t> counts;
};
