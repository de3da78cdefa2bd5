// SPDX-License-Identifier: Apache-2.0
#pragma once

// What select_kernel leaves for the kernels behind it, for chosen keys: only with it are the addresses that they store to known.

#include <algorithm>
#include <functional>

#include <mustdrop/cuda/selection.cuh>

#include "recorder.hpp"

namespace recorder {

/// Above every key that is chosen here. The verifier reads words of 31 bits.
constexpr std::uint32_t above_all = 0x7fffffff;

/// One segment's part of a selection.
struct chosen {
  md::index_t slot;
  std::vector<std::uint32_t> keys;
  md::index_t kept;
};

/// Keys with many ties, none the lowest or the highest.
inline std::vector<std::uint32_t> some_keys(md::index_t n) {
  std::vector<std::uint32_t> keys;
  for (md::index_t i = 0; i < n; ++i) { keys.push_back(1000 + static_cast<std::uint32_t>(i * 37 % 13)); }
  return keys;
}
inline chosen choose(md::index_t slot, md::index_t n, md::index_t k) { return {slot, some_keys(n), std::min(n, k)}; }

/// The parts of a batch, as many items each as tokens.
inline std::vector<chosen> choose(batch const& b, md::index_t k, std::vector<std::int32_t> const& requested = {}) {
  std::vector<chosen> parts;
  for (std::size_t s = 0; s < b.size.size(); ++s) { parts.push_back(choose(b.begin[s], b.size[s], requested.empty() ? k : requested[s])); }
  return parts;
}

/// Which items stay.
inline std::vector<bool> stays(chosen const& part) {
  std::vector<std::size_t> order(part.keys.size());
  for (std::size_t i = 0; i < order.size(); ++i) { order[i] = i; }
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return part.keys[a] > part.keys[b]; });
  std::vector<bool> result(part.keys.size());
  for (std::size_t place = 0; place < static_cast<std::size_t>(part.kept); ++place) { result[order[place]] = true; }
  return result;
}

/// Says the contents of a selection among `items` items to kernels whose names contain `kernel`.
inline void know(md::cuda::selection_memory const& memory, md::index_t items, std::vector<chosen> const& segments,
                 std::string const& kernel) {
  std::vector<std::uint32_t> keys(static_cast<std::size_t>(items));
  std::vector<md::cuda::cutoff> cuts;
  std::vector<md::cuda::tally> before(keys.size() / 32 + segments.size());
  for (chosen const& one : segments) {
    std::vector<std::uint32_t> order = one.keys;
    std::sort(order.begin(), order.end(), std::greater<>());
    auto const kept = static_cast<std::int32_t>(one.kept);
    std::uint32_t const cut = kept > 0 ? order[static_cast<std::size_t>(kept) - 1] : above_all;
    md::cuda::tally counted{0, 0};
    md::cuda::tally* const notes = before.data() + one.slot / 32 + static_cast<md::index_t>(cuts.size());
    for (std::size_t i = 0; i < one.keys.size(); ++i) {
      if (i % 32 == 0) { notes[i / 32] = counted; }
      counted.above += one.keys[i] > cut, counted.ties += one.keys[i] == cut;
      keys[static_cast<std::size_t>(one.slot) + i] = one.keys[i];
    }
    cuts.push_back({cut, kept - counted.above, kept});
  }
  know(memory.keys, keys.data(), keys.size() * sizeof(keys[0]), kernel);
  know(memory.cuts, cuts.data(), cuts.size() * sizeof(cuts[0]), kernel);
  know(memory.before, before.data(), before.size() * sizeof(before[0]), kernel);
}

}  // namespace recorder
