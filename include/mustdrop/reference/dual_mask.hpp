// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limits>

#include <mustdrop/dual_mask.hpp>
#include <mustdrop/reference/top_k.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace reference {

/// A key for each token: protected tokens have the highest, all alike.
constexpr std::size_t dual_mask_workspace_size_impl(backend, index_t tokens, segments const&) noexcept {
  return static_cast<std::size_t>(tokens) * sizeof(std::uint64_t);
}

/// The two tests on one token, as a filter and as a rank. `share` is global·Σ sum.
struct dual_test {
  float share, individual;

  static float or_zero(float x) noexcept { return is_nan(x) ? 0.0f : x; }

  /// How many times its threshold a value is; an infinite value is above an infinite threshold, as it is not below it.
  static float ratio(float x, float threshold) noexcept {
    constexpr float infinity = std::numeric_limits<float>::infinity();
    float const times = divide(x, threshold);
    return !is_nan(times) ? times : x > 0 ? infinity : -infinity;
  }

  bool passes(float sum, float max) const noexcept { return !(or_zero(sum) < share && or_zero(max) < individual); }
  float rank(float sum, float max) const noexcept {
    float const together = share > 0 ? ratio(sum, share) : 0.0f, alone = ratio(max, individual);
    return together > alone ? together : alone;
  }
};

template <class Index>
status dual_mask_impl(backend, dual_mask_options options, tensor_view<float const, 1> sum, tensor_view<float const, 1> max,
                      segments const& segments, keep_lists<Index const> always_kept, tensor_view<std::int32_t const, 1> requested,
                      keep_lists<Index> keep, workspace scratch) noexcept {
  constexpr std::uint64_t highest = std::numeric_limits<std::uint64_t>::max();
  for (index_t s = 0; s < segments.count; ++s) {
    index_t const begin = segments.begin(s), n = segments.size(s, sum.size(0)), shielded = always_kept.absent() ? 0 : always_kept.counts(s);
    index_t const asked = requested.absent() ? options.count : requested(s), survivors = asked > shielded ? asked : shielded;

    lane_sum whole;
    for (index_t j = 0; j < n; ++j) { whole.add(j, dual_test::or_zero(sum(begin + j))); }
    dual_test const test{options.global * whole.total(), options.individual};

    auto* const key = static_cast<std::uint64_t*>(scratch.data) + begin;
    for (index_t j = 0; j < n; ++j) {
      float const sum_j = sum(begin + j), max_j = max(begin + j);
      key[j] = asked >= 0 ? score_key(test.rank(sum_j, max_j), j) : test.passes(sum_j, max_j);
    }
    for (index_t i = 0; i < shielded; ++i) { key[always_kept.indices(s, i)] = highest; }

    index_t kept = 0;
    for (index_t j = 0; j < n; ++j) {
      bool const stays = asked >= 0 ? beaten_by(n, j, [key](index_t u) { return key[u]; }) < survivors : key[j] != 0;
      if (stays) { keep.indices(s, kept++) = static_cast<Index>(j); }
    }
    keep.counts(s) = static_cast<std::int32_t>(kept);
  }
  return status::ok;
}

}  // namespace reference
MUSTDROP_NAMESPACE_END
