// SPDX-License-Identifier: Apache-2.0
#pragma once

// Contract: mustdrop/method/random.hpp. Integers of 64 bits: nothing here is worth a register of lanes.

#include <mustdrop/cpu/top_k.hpp>
#include <mustdrop/method/random.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace cpu {

template <class Arch, class Executor>
status random_scores_impl(backend<Arch, Executor> const& on, std::uint64_t seed, segments const& segments,
                          tensor_view<float, 1> scores) noexcept {
  constexpr index_t each = 32;  // two products of 64 bits take as long as that many bytes
  in_parts(on, segments.count, many_a_part(on, each * segments.bound(scores.size(0))), [&](index_t s) {
    for (index_t t = 0; t < segments.size(s, scores.size(0)); ++t) { scores(segments.begin(s) + t) = method::random_score(seed, t); }
  });
  return status::ok;
}

}  // namespace cpu
MUSTDROP_NAMESPACE_END
