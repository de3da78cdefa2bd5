// SPDX-License-Identifier: Apache-2.0
#pragma once

// Dot products of query rows and keys, each one fma chain over the features: lanes are keys. A panel is two registers of keys, turned so
// that feature d of all of them is contiguous; it stays in the first cache while all rows pass over it. Meanwhile the keys of the next
// panel are prefetched a line at a time, for turning them is where the memory is waited for.

#include <mustdrop/cpu/elements.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace cpu {

template <class Arch>
constexpr index_t panel_keys = 2 * lanes<Arch>;

/// Rows whose sums fit into registers beside a panel's two: of 32, 16, or whatever.
template <class Arch>
constexpr int panel_rows = extends<Arch, xsimd::avx512f>  ? 12
                           : extends<Arch, xsimd::neon64> ? 8
                           : lanes<Arch> == 8             ? 6
                                                          : 4;

/// Keys from `begin` on, `size` of them; the panel behind the last key repeats it.
template <class T>
struct key_rows {
  T const* data;
  index_t stride, size;

  T const* row(index_t j) const noexcept { return data + (j < size ? j : size - 1) * stride; }
};

/// The n floats at p, or n narrower numbers widened into `wide`.
template <class Arch>
float const* as_floats(float const* p, index_t, float*) noexcept {
  return p;
}
template <class Arch, class T>
float const* as_floats(T const* p, index_t n, float* wide) noexcept {
  for_each_register<Arch>(n, [&](index_t i, auto left) { store_some<Arch>(wide + i, load_some<Arch>(p + i, left), left); });
  return wide;
}

/// panel[d·panel_keys + j] = keys[begin + j][d]
template <class Arch, class T>
MUSTDROP_FLATTEN void pack_panel(key_rows<T> const& keys, index_t begin, index_t dim, float* panel) noexcept {
  constexpr index_t widened = 64;  // numbers of a row at a time
  for (index_t j = 0; j < panel_keys<Arch>; j += turned_rows<Arch>) {
    float const* rows[turned_rows<Arch>];
    for (index_t d = 0; d < dim; d += widened) {
      index_t const n = dim - d < widened ? dim - d : widened;
      float wide[turned_rows<Arch>][widened];
      for (index_t r = 0; r < turned_rows<Arch>; ++r) { rows[r] = as_floats<Arch>(keys.row(begin + j + r) + d, n, wide[r]); }
      for (index_t i = 0; i < n; i += 4) { turn_rows<Arch>(rows, i, n - i, panel + (d + i) * panel_keys<Arch> + j, panel_keys<Arch>); }
    }
  }
}

/// packed[d·rows + r] = row r's feature d, widened.
template <class Arch, class T>
MUSTDROP_FLATTEN void pack_row(T const* row, index_t dim, float* packed, index_t rows) noexcept {
  for_each_register<Arch>(dim, [&](index_t d, auto left) {
    float wide[lanes<Arch>];
    load_some<Arch>(row + d, left).store_unaligned(wide);
    for (index_t i = 0; i < lanes<Arch> && i < left; ++i) { packed[(d + i) * rows] = wide[i]; }
  });
}

/// What to prefetch beside one call of panel_dots: the rows of `count` keys.
template <class T>
struct upcoming {
  key_rows<T> keys;
  index_t begin, count;
};

/// dots[r·stride + j] of `Rows` packed rows and a panel.
template <class Arch, int Rows, class T>
MUSTDROP_FLATTEN void panel_dots(float const* packed, float const* panel, index_t dim, float* dots, index_t stride,
                                 upcoming<T> const& next) noexcept {
  constexpr auto line = static_cast<index_t>(64 / sizeof(T));
  floats<Arch> sum[Rows][2];
  unroll<Rows>([&](auto r) { sum[r][0] = sum[r][1] = floats<Arch>(0.0f); });
  for (index_t d = 0; d < dim;) {
    for (index_t j = 0; j < next.count; ++j) { prefetch<Arch>(next.keys.row(next.begin + j) + d); }
    for (index_t const end = dim - d < line ? dim : d + line; d < end; ++d) {
      floats<Arch> const left = floats<Arch>::load_unaligned(panel + d * panel_keys<Arch>);
      floats<Arch> const right = floats<Arch>::load_unaligned(panel + d * panel_keys<Arch> + lanes<Arch>);
      unroll<Rows>([&](auto r) {
        floats<Arch> const q(packed[d * Rows + r]);
        sum[r][0] = fused<Arch>(q, left, sum[r][0]), sum[r][1] = fused<Arch>(q, right, sum[r][1]);
      });
    }
  }
  unroll<Rows>([&](auto r) { sum[r][0].store_unaligned(dots + r * stride), sum[r][1].store_unaligned(dots + r * stride + lanes<Arch>); });
}

/// As many rows as are left, up to panel_rows.
template <class Arch, class T, int Rows = panel_rows<Arch>>
void panel_dots(index_t rows, float const* packed, float const* panel, index_t dim, float* dots, index_t stride,
                upcoming<T> const& next) noexcept {
  if constexpr (Rows > 1) {
    if (rows < Rows) { return panel_dots<Arch, T, Rows - 1>(rows, packed, panel, dim, dots, stride, next); }
  }
  panel_dots<Arch, Rows>(packed, panel, dim, dots, stride, next);
}

}  // namespace cpu
MUSTDROP_NAMESPACE_END
