// SPDX-License-Identifier: Apache-2.0
#pragma once

// Grids, their windows and what lies in them, counted out with loops: the second opinion on window_member and its family.

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "memory.hpp"

using window_members = std::vector<std::vector<std::int64_t>>;  // the tokens of each window, counted from the segment's begin

/// The windows of a grid in raster order, and the tokens of each in raster order.
inline window_members windows_in(md::token_grid const& grid, md::window_shape window) {
  window_members windows;
  for (md::index_t frame = 0; frame + window.frames <= grid.frames; frame += window.frames) {
    for (md::index_t row = 0; row + window.rows <= grid.rows; row += window.rows) {
      for (md::index_t col = 0; col + window.cols <= grid.cols; col += window.cols) {
        windows.emplace_back();
        for (md::index_t f = frame; f < frame + window.frames; ++f) {
          for (md::index_t r = row; r < row + window.rows; ++r) {
            for (md::index_t c = col; c < col + window.cols; ++c) {
              windows.back().push_back(grid.prefix + f * grid.rows * grid.cols + r * grid.cols + c);
            }
          }
        }
      }
    }
  }
  return windows;
}

/// Segments of whole grids, each followed by `room` tokens that belong to nobody: what an earlier call leaves in place of capacity.
struct grid_layout {
  grid_layout(std::vector<md::token_grid> const& grids, std::int32_t room) {
    for (auto const& grid : grids) {
      counts.push_back(static_cast<std::int32_t>(grid.tokens()));
      offsets.push_back(offsets.back() + counts.back() + room);
      longest = std::max(longest, grid.tokens());
    }
    plain_ = grids.size() == 1 && room == 0;
  }
  md::index_t tokens() const { return offsets.back(); }
  md::segments segments() const {
    if (plain_) { return {}; }
    return {static_cast<md::index_t>(counts.size()), offsets.data(), tokens() == total() ? nullptr : counts.data(), longest};
  }

  std::vector<std::int32_t> offsets{0}, counts;
  md::index_t longest = 0;

 private:
  md::index_t total() const {
    md::index_t sum = 0;
    for (std::int32_t const count : counts) { sum += count; }
    return sum;
  }
  bool plain_ = false;  // one segment is everything
};

/// Any grid of up to 7 × 8 patches, up to 3 frames, with and without tokens in front and behind; now and then an empty one.
inline md::token_grid any_grid(std::mt19937& random) {
  auto const upto = [&random](std::uint32_t most) { return static_cast<md::index_t>(random() % (most + 1)); };
  return {upto(7), upto(8), 1 + upto(5) / 4 * (1 + upto(1)), upto(2), upto(4) / 3};
}
inline md::window_shape any_window(std::mt19937& random) {
  constexpr md::window_shape shapes[] = {{3, 3}, {2, 2}, {1, 2}, {2, 1}, {2, 4}, {1, 5}, {2, 2, 2}, {1, 1, 2}, {3, 2, 3}};
  return shapes[random() % 9];
}

/// Values of T as floats: what a word sees of them.
template <class T>
std::vector<float> stored_as(std::vector<float> values) {
  for (float& value : values) { value = md::widen(md::narrow<T>(value)); }
  return values;
}

/// The same bits, any NaN like any other.
inline testing::AssertionResult all_same(std::vector<float> const& got, std::vector<float> const& expected) {
  if (got.size() != expected.size()) { return testing::AssertionFailure() << got.size() << " numbers, not " << expected.size(); }
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (!same(got[i], expected[i])) { return testing::AssertionFailure() << "[" << i << "] is " << got[i] << ", not " << expected[i]; }
  }
  return testing::AssertionSuccess();
}
inline testing::AssertionResult all_same(std::vector<std::vector<float>> const& got, std::vector<std::vector<float>> const& expected) {
  if (got.size() != expected.size()) { return testing::AssertionFailure() << got.size() << " segments, not " << expected.size(); }
  for (std::size_t s = 0; s < got.size(); ++s) {
    if (auto const segment = all_same(got[s], expected[s]); !segment) {
      return testing::AssertionFailure() << "segment " << s << ": " << segment.message();
    }
  }
  return testing::AssertionSuccess();
}
