// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limits>

#include <mustdrop/numerics.hpp>
#include <mustdrop/reference/backend.hpp>
#include <mustdrop/window_similarity.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace reference {

/// The inverse norm of each token.
constexpr std::size_t window_similarity_workspace_size_impl(backend, window_shape, index_t tokens, index_t, segments const&) noexcept {
  return static_cast<std::size_t>(tokens) * sizeof(float);
}

template <class T>
status window_similarity_impl(backend, window_shape window, tensor_view<T const, 2> features, segments const& segments,
                              tensor_view<token_grid const, 1> grids, tensor_view<float, 2> similarity, workspace scratch) noexcept {
  auto* const inverse_norm = static_cast<float*>(scratch.data);
  index_t const dim = features.size(1), n = window.tokens();
  auto const pairs = static_cast<float>(n) * static_cast<float>(n - 1);

  for (index_t s = 0; s < segments.count; ++s) {
    for (index_t w = 0; w < window.windows(grids(s)); ++w) {
      auto const token = [&](index_t m) { return segments.begin(s) + window_member(grids(s), window, w, m); };

      bool finite = true;
      float own = 0;  // Σ ‖u‖²: not n, since a zero vector's u is zero
      for (index_t m = 0; m < n; ++m) {
        lane_sum square;
        for (index_t d = 0; d < dim; ++d) { square.add_product(d, widen(features(token(m), d)), widen(features(token(m), d))); }
        float const norm = square_root(square.total()), inverse = divide(1.0f, norm > 1e-8f ? norm : 1e-8f);
        finite = finite && square.total() <= std::numeric_limits<float>::max();
        own = mustdrop::fma(inverse * square.total(), inverse, own);
        inverse_norm[token(m)] = inverse;
      }

      lane_sum whole;  // ‖Σ u‖²
      for (index_t d = 0; d < dim; ++d) {
        float sum = 0;
        for (index_t m = 0; m < n; ++m) { sum = mustdrop::fma(widen(features(token(m), d)), inverse_norm[token(m)], sum); }
        whole.add_product(d, sum, sum);
      }
      similarity(s, w) = finite ? divide(whole.total() - own, pairs) : std::numeric_limits<float>::quiet_NaN();
    }
  }
  return status::ok;
}

}  // namespace reference
MUSTDROP_NAMESPACE_END
