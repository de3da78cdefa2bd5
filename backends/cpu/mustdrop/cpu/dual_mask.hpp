// SPDX-License-Identifier: Apache-2.0
#pragma once

// Contract: mustdrop/dual_mask.hpp.

#include <mustdrop/cpu/selection.hpp>
#include <mustdrop/dual_mask.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace cpu {

/// A key for each token.
template <class Arch, class Executor>
constexpr std::size_t dual_mask_workspace_size_impl(backend<Arch, Executor> const&, index_t tokens, segments const&) noexcept {
  return static_cast<std::size_t>(tokens) * sizeof(std::int32_t);
}

/// The two tests on a register of tokens, as a filter and as a rank. `share` is global·Σ sum.
template <class Arch>
struct dual_test {
  float share, individual;

  static floats<Arch> or_zero(floats<Arch> x) noexcept { return xsimd::select(x == x, x, floats<Arch>(0.0f)); }
  static floats<Arch> ratio(floats<Arch> x, float threshold) noexcept {
    constexpr float infinity = std::numeric_limits<float>::infinity();
    floats<Arch> const times = divide<Arch>(x, floats<Arch>(threshold));
    return xsimd::select(times == times, times, xsimd::select(x > floats<Arch>(0.0f), floats<Arch>(infinity), floats<Arch>(-infinity)));
  }

  /// The highest key where a token passes, else the lowest.
  ints<Arch> passes(floats<Arch> sum, floats<Arch> max) const noexcept {
    auto const drops = (or_zero(sum) < floats<Arch>(share)) & (or_zero(max) < floats<Arch>(individual));
    return bits_of<Arch>(xsimd::select(drops, float_of<Arch>(lowest_key), float_of<Arch>(highest_key)));
  }
  ints<Arch> rank(floats<Arch> sum, floats<Arch> max) const noexcept {
    floats<Arch> const together = share > 0 ? ratio(sum, share) : floats<Arch>(0.0f), alone = ratio(max, individual);
    return score_order<Arch>(xsimd::select(together > alone, together, alone));
  }
};

/// Σ sum of a segment, NaN counting as 0.
template <class Arch>
MUSTDROP_FLATTEN float total_of(float const* sum, index_t n) noexcept {
  constexpr int registers = lane_sum<Arch>::registers;
  lane_sum<Arch> whole;
  for (index_t i = 0; i < n; i += 32) {
    unroll<registers>([&](auto r) {
      if (index_t const at = i + r * lanes<Arch>; at < n) {
        whole.lane[r] = whole.lane[r] + dual_test<Arch>::or_zero(load_some<Arch>(sum + at, n - at));
      }
    });
  }
  return whole.total();
}

template <class Arch, class Executor, class Index>
status dual_mask_impl(backend<Arch, Executor> const& on, dual_mask_options options, tensor_view<float const, 1> sum,
                      tensor_view<float const, 1> max, segments const& segments, keep_lists<Index const> always_kept,
                      tensor_view<std::int32_t const, 1> requested, keep_lists<Index> keep, workspace scratch) noexcept {
  auto* const all_keys = static_cast<std::int32_t*>(scratch.data);
  in_parts(on, segments.count, many_a_part(on, selection_bytes * segments.bound(sum.size(0))), [&](index_t s) {
    index_t const begin = segments.begin(s), n = segments.size(s, sum.size(0));
    index_t const asked = requested.absent() ? options.count : requested(s), shielded = always_kept.absent() ? 0 : always_kept.counts(s);
    keep.counts(s) = 0;
    if (n == 0) { return; }

    float const *const sums = sum.data + begin, *const most = max.data + begin;
    std::int32_t* const keys = all_keys + begin;
    dual_test<Arch> const test{options.global * total_of<Arch>(sums, n), options.individual};
    for_each_register<Arch>(n, [&](index_t t, auto left) {
      floats<Arch> const sum_t = load_some<Arch>(sums + t, left), max_t = load_some<Arch>(most + t, left);
      store_some<Arch>(keys + t, asked >= 0 ? test.rank(sum_t, max_t) : test.passes(sum_t, max_t), left);
    });
    for (index_t i = 0; i < shielded; ++i) { keys[always_kept.indices(s, i)] = highest_key; }

    if (asked >= 0) { return keep_best<Arch>(keys, n, asked > shielded ? asked : shielded, output_order::position, nullptr, keep, s); }
    index_t const kept = count_above<Arch>(keys, n, lowest_key);
    keep.counts(s) = static_cast<std::int32_t>(kept);
    if (kept > 0) { write_kept<Arch>(keys, kept, {lowest_key, 0}, &keep.indices(s, 0)); }
  });
  return status::ok;
}

}  // namespace cpu
MUSTDROP_NAMESPACE_END
