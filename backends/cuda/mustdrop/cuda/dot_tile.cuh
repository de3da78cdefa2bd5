// SPDX-License-Identifier: Apache-2.0
#pragma once

// Dot products of query rows and keys, each one fma chain over the features: tiles of a matrix product. So many features of a tile's rows
// and keys at a time are widened into shared memory: rows as they lie, keys turned, so that neighbouring threads have neighbouring keys.

#include <mustdrop/cuda/elements.cuh>

MUSTDROP_NAMESPACE_BEGIN
namespace cuda {

/// A block's tile, of which each thread does row_each rows, row_threads apart, × key_each keys side by side.
template <int RowThreads, int RowEach, int KeyThreads, int KeyEach>
struct dot_tile {
  static constexpr int row_threads = RowThreads, row_each = RowEach, key_each = KeyEach, threads = RowThreads * KeyThreads;
  static constexpr int rows = RowThreads * RowEach, keys = KeyThreads * KeyEach, features = 32;
  using dots = numbers<KeyEach>[RowEach];

  /// Read and written 16 bytes at a time, by eight threads in as many banks.
  struct alignas(16) shared {
    float row[rows][features + 4];
    float key[features][keys];

    /// Feature d of key j. Keys of every fourth feature lie in another order, so that threads do not meet in a bank when they turn them.
    __device__ float* turned(int d, int j) { return &key[d][j ^ d / 4 % 8 * 4]; }
  };

  /// The first row and key of a thread. A warp is as square as it can be: that is least to read.
  static __device__ int row_of_thread() { return lane_of_thread() / key_lanes + warp_of_thread() % warps_down * row_lanes; }
  static __device__ int key_of_thread() { return (lane_of_thread() % key_lanes + warp_of_thread() / warps_down * key_lanes) * key_each; }

 private:
  static constexpr int row_lanes = RowThreads < 4 ? RowThreads : 4, key_lanes = 32 / row_lanes, warps_down = RowThreads / row_lanes;
  static_assert(RowThreads % row_lanes == 0 && KeyThreads % key_lanes == 0 && keys % 32 == 0, "whole warps, whole banks");
  static_assert(rows <= 32, "a warp looks at all rows");
};

/// Features [base, base + Tile::features) of so many vectors, zeros behind the last feature: put(vector, feature, numbers). A vector begins
/// at from(vector).
template <class Tile, int Count, int Vectors, class From, class Put>
__device__ void stage(int base, int dim, From const& from, Put const& put) {
  constexpr int pieces = Tile::features / Count, all = Vectors * pieces;
#pragma unroll 4
  for (int first = 0; first < all; first += Tile::threads) {
    int const x = static_cast<int>(threadIdx.x), vector = first / pieces + x / pieces, feature = x % pieces * Count;
    if (all % Tile::threads != 0 && first + x >= all) { break; }
    bool const some = base + feature < dim;
    auto const* const p = from(vector) + (some ? base + feature : 0);
    auto numbers = packed<std::remove_const_t<std::remove_pointer_t<decltype(from(0))>>, Count>::load(p);
    for (int e = 0; e < Count; ++e) { numbers.at[e] = some ? numbers.at[e] : 0.0f; }
    put(vector, feature, numbers);
  }
}
template <class Tile, int Count, class From>
__device__ void stage_rows(typename Tile::shared& to, int base, int dim, From const& from) {
  stage<Tile, Count, Tile::rows>(base, dim, from, [&to](int row, int feature, numbers<Count> const& some) {
    packed<float, Count>::store(&to.row[row][feature], some);
  });
}
template <class Tile, int Count, class From>
__device__ void stage_keys(typename Tile::shared& to, int base, int dim, From const& from) {
  stage<Tile, Count, Tile::keys>(base, dim, from, [&to](int key, int feature, numbers<Count> const& some) {
    for (int e = 0; e < Count; ++e) { *to.turned(feature + e, key) = some.at[e]; }
  });
}

/// Adds the features that are staged. Zeros behind the last one turn a −0 into +0 at most, and no exponential is another for that.
template <class Tile>
__device__ void add_features(typename Tile::shared& staged, typename Tile::dots& dots) {
  int const my_row = Tile::row_of_thread(), my_key = Tile::key_of_thread();
#pragma unroll 2
  for (int d = 0; d < Tile::features; d += 4) {
    numbers<Tile::key_each> key[4];
    for (int e = 0; e < 4; ++e) { key[e] = packed<float, Tile::key_each>::load(staged.turned(d + e, my_key)); }
    for (int r = 0; r < Tile::row_each; ++r) {
      numbers<4> const row = packed<float, 4>::load(&staged.row[my_row + r * Tile::row_threads][d]);
      for (int e = 0; e < 4; ++e) {
        for (int k = 0; k < Tile::key_each; ++k) { dots[r].at[k] = mustdrop::fma(row.at[e], key[e].at[k], dots[r].at[k]); }
      }
    }
  }
}

}  // namespace cuda
MUSTDROP_NAMESPACE_END
