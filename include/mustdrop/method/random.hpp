// SPDX-License-Identifier: Apache-2.0
#pragma once

// random: the baseline that every method must beat: k tokens of each segment, drawn by a counter hash of seed and index.
//
//   score[t] = the top 24 bits of hash(seed, t) / 2^24,  t counted from the segment's begin;   keep = top_k(score)
//
// The same seed keeps the same tokens on every backend and machine, whatever the neighbours. Segments of one size keep the same places:
// give each call its own seed where they should differ.
// Shapes, ties, errors: as top_k, with scores [tokens] as an output beside the lists.
// Source      UniPruneBench (arXiv 2511.02650): random pruning beats six of eight methods at 66.7 and 77.8 %.

#include <mustdrop/backend.hpp>
#include <mustdrop/numerics.hpp>
#include <mustdrop/top_k.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace method {

struct random_options {
  std::uint64_t seed = 0;
  output_order order = output_order::position;
};

/// A number in [0, 1): SplitMix64's finaliser over the counter.
MUSTDROP_HD constexpr float random_score(std::uint64_t seed, index_t t) noexcept {
  std::uint64_t x = seed + (static_cast<std::uint64_t>(t) + 1) * 0x9e3779b97f4a7c15u;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 27) * 0x94d049bb133111ebu;
  return static_cast<float>((x ^ x >> 31) >> 40) * 0x1p-24f;
}

template <class Backend, class Index, require_backend<Backend> = 0>
status random(Backend const& backend, random_options options, segments const& segments, tensor_view<std::int32_t const, 1> requested,
              tensor_view<float, 1> scores, keep_lists<Index> keep, workspace scratch) noexcept {
  if (status const s = check_top_k(backend, scores, segments, requested, keep, scratch); s != status::ok) { return s; }
  if (status const s = random_scores_impl(backend, options.seed, segments, scores); s != status::ok) { return s; }
  return top_k(backend, {options.order}, scores, segments, requested, keep, scratch);
}

}  // namespace method
MUSTDROP_NAMESPACE_END
