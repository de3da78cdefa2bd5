// SPDX-License-Identifier: Apache-2.0
#pragma once

// Contract: mustdrop/window_similarity.hpp.

#include <mustdrop/cpu/numerics.hpp>
#include <mustdrop/window_similarity.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace cpu {

/// A member of a window.
struct unit_row {
  index_t begin;  // where its row begins in the features
  float inverse_norm;
};

/// Every token is a member of one window at the most.
template <class Arch, class Executor>
constexpr std::size_t window_similarity_workspace_size_impl(backend<Arch, Executor> const&, window_shape, index_t tokens, index_t,
                                                            segments const&) noexcept {
  return static_cast<std::size_t>(tokens) * sizeof(unit_row);
}

/// ‖Σ u‖²: features in the outer loop, so that the sum of a block of them stays in registers. The rows are in the cache by now.
template <class Arch, class T>
MUSTDROP_FLATTEN float square_norm_of_sum(T const* features, index_t dim, unit_row const* rows, index_t n) noexcept {
  constexpr int registers = lane_sum<Arch>::registers;
  lane_sum<Arch> whole;
  auto const add_block = [&](index_t d, auto const& load_at) {
    floats<Arch> sum[registers];
    unroll<registers>([&](auto r) { sum[r] = floats<Arch>(0.0f); });
    for (index_t m = 0; m < n; ++m) {
      T const* const row = features + rows[m].begin + d;
      floats<Arch> const inverse(rows[m].inverse_norm);
      unroll<registers>([&](auto r) { sum[r] = fused<Arch>(load_at(row, d, r * lanes<Arch>), inverse, sum[r]); });
    }
    unroll<registers>([&](auto r) { whole.lane[r] = fused<Arch>(sum[r], sum[r], whole.lane[r]); });
  };
  index_t d = 0;
  for (; d + 32 <= dim; d += 32) {
    add_block(d, [](T const* row, index_t, index_t at) { return load_lanes<Arch>(row + at); });
  }
  if (d < dim) {
    add_block(d, [dim](T const* row, index_t begin, index_t at) {
      return begin + at < dim ? load_some<Arch>(row + at, dim - begin - at) : floats<Arch>(0.0f);
    });
  }
  return whole.total();
}

/// One window; `rows` has room for its n members.
template <class Arch, class T>
float similarity_of(T const* features, index_t dim, unit_row* rows, index_t n) noexcept {
  constexpr int at_once = lanes<Arch> < 8 ? 1 : static_cast<int>(lanes<Arch> / 4);  // eight registers of sums
  bool finite = true;
  float own = 0;  // Σ ‖u‖²
  auto const take = [&](index_t m, auto count) {
    T const* at[count];
    float squares[count];
    unroll<count>([&](auto i) { at[i] = features + rows[m + i].begin; });
    square_norms<Arch, count>(at, dim, squares);
    for (int i = 0; i < count; ++i) {
      float const norm = square_root<Arch>(squares[i]), inverse = divide<Arch>(1.0f, norm > 1e-8f ? norm : 1e-8f);
      finite = finite && is_finite<Arch>(squares[i]);
      own = fused<Arch>(inverse * squares[i], inverse, own);
      rows[m + i].inverse_norm = inverse;
    }
  };
  index_t m = 0;
  for (; m + at_once <= n; m += at_once) { take(m, std::integral_constant<int, at_once>{}); }
  for (; m < n; ++m) { take(m, std::integral_constant<int, 1>{}); }
  if (!finite) { return std::numeric_limits<float>::quiet_NaN(); }
  float const whole = square_norm_of_sum<Arch>(features, dim, rows, n);
  return divide<Arch>(whole - own, static_cast<float>(n) * static_cast<float>(n - 1));
}

template <class Arch, class Executor, class T>
status window_similarity_impl(backend<Arch, Executor> const& on, window_shape window, tensor_view<T const, 2> features,
                              segments const& segments, tensor_view<token_grid const, 1> grids, tensor_view<float, 2> similarity,
                              workspace scratch) noexcept {
  auto* const all_rows = static_cast<unit_row*>(scratch.data);
  index_t const dim = features.size(1), n = window.tokens(), stride = dim > 0 ? features.strides[0] : 0;  // rows of nothing: no address
  index_t const part = many_a_part(on, n * dim * static_cast<index_t>(sizeof(T)));
  for_each_part(on, segments.count, similarity.size(1), part, [&](index_t s, index_t first, index_t last) {
    token_grid const& grid = grids(s);
    index_t const begin = segments.begin(s), window_count = window.windows(grid);
    for (index_t w = first; w < last && w < window_count; ++w) {
      unit_row* const rows = all_rows + begin + w * n;
      for (index_t m = 0; m < n; ++m) { rows[m].begin = (begin + window_member(grid, window, w, m)) * stride; }
      similarity(s, w) = similarity_of<Arch>(features.data, dim, rows, n);
    }
  });
  return status::ok;
}

}  // namespace cpu
MUSTDROP_NAMESPACE_END
