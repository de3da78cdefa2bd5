// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mustdrop/method/random.hpp>
#include <mustdrop/reference/top_k.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace reference {

inline status random_scores_impl(backend, std::uint64_t seed, segments const& segments, tensor_view<float, 1> scores) noexcept {
  for (index_t s = 0; s < segments.count; ++s) {
    for (index_t t = 0; t < segments.size(s, scores.size(0)); ++t) { scores(segments.begin(s) + t) = method::random_score(seed, t); }
  }
  return status::ok;
}

}  // namespace reference
MUSTDROP_NAMESPACE_END
