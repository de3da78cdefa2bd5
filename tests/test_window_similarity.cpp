// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "backends.hpp"
#include "memory.hpp"
#include "refused_workspaces.hpp"
#include "windows.hpp"

namespace {

using floats = std::vector<float>;
using ints = std::vector<std::int32_t>;
using similarities = std::vector<floats>;  // of each segment's windows
using md::status;

constexpr md::index_t dims[] = {1, 3, 17, 31, 32, 33, 64, 1024};
constexpr float guard = -7;

struct similarity_case {
  md::window_shape window;
  std::vector<md::token_grid> grids;  // of each segment
  md::index_t dim;
  floats features;        // [tokens, dim]
  std::int32_t room = 0;  // tokens of nobody behind each segment; not in features
};

/// Runs the word on rows that begin at odd addresses with NaN between them, and looks that only columns of windows were written.
template <class Backend, class T = float>
similarities window_similarity(similarity_case const& c) {
  Backend const backend{};
  grid_layout const layout(c.grids, c.room);
  auto const segments = layout.segments();
  padded_tensor<T, 2> features(md::narrow<T>(quiet_nan), 1, 3, layout.tokens(), c.dim);
  auto const* next = c.features.data();
  md::index_t windows = 0, most = 0;
  for (std::size_t s = 0; s < c.grids.size(); ++s) {
    for (md::index_t t = 0; t < layout.counts[s]; ++t) {
      for (md::index_t d = 0; d < c.dim; ++d) { features.view()(layout.offsets[s] + t, d) = md::narrow<T>(*next++); }
    }
    windows += c.window.windows(c.grids[s]), most = std::max(most, c.window.windows(c.grids[s]));
  }
  EXPECT_EQ(next, c.features.data() + c.features.size()) << "a case with too few or too many features";

  auto const count = static_cast<md::index_t>(c.grids.size());
  auto const grids = md::view(c.grids.data(), count);
  padded_tensor<float, 2> similarity(guard, 3, 2, count, most + 1);
  EXPECT_EQ(md::check(md::tensor_view<md::token_grid const, 1>(grids), c.window, segments, layout.tokens(), most + 1), status::ok);
  aligned_memory scratch(md::window_similarity_workspace_size(backend, c.window, layout.tokens(), c.dim, segments));
  auto const got = md::window_similarity(backend, c.window, features.view(), segments, grids, similarity.view(), scratch.lend());
  EXPECT_EQ(got, status::ok) << message(got);

  similarities all;
  for (md::index_t s = 0; s < count; ++s) {
    all.emplace_back();
    for (md::index_t w = 0; w < c.window.windows(c.grids[static_cast<std::size_t>(s)]); ++w) {
      all.back().push_back(similarity.view()(s, w));
    }
  }
  auto const untouched = std::count(similarity.memory().begin(), similarity.memory().end(), guard);
  EXPECT_EQ(untouched, static_cast<md::index_t>(similarity.memory().size()) - windows) << "columns past the windows";
  return all;
}

constexpr md::token_grid bare(md::index_t rows, md::index_t cols) { return {rows, cols, 1, 0, 0}; }

/// A grid that is one window, without tokens around it.
similarity_case one_window(md::window_shape window, md::index_t dim, floats features) {
  return {window, {{window.rows, window.cols, window.frames, 0, 0}}, dim, std::move(features)};
}

template <class Backend>
float similarity_of(md::window_shape window, md::index_t dim, floats features) {
  return window_similarity<Backend>(one_window(window, dim, std::move(features)))[0][0];
}

template <class Backend>
struct WindowSimilarity : testing::Test {};
TYPED_TEST_SUITE(WindowSimilarity, Backends);

// Rows whose norm is a power of two, so that every step is exact and the one rounding is that of the last division.

TYPED_TEST(WindowSimilarity, RowsOfOneDirectionHaveOneWhateverTheirLengths) {
  EXPECT_EQ(similarity_of<TypeParam>({1, 2}, 1, {3, 5}), 1.0f);
  EXPECT_EQ(similarity_of<TypeParam>({2, 2}, 2, {1, 0, 4, 0, 0.125f, 0, 1024, 0}), 1.0f);
  EXPECT_EQ(similarity_of<TypeParam>({3, 3}, 1, floats(9, -2.0f)), 1.0f);
}

TYPED_TEST(WindowSimilarity, OppositeRowsHaveMinusOneAndOrthogonalOnesZero) {
  EXPECT_EQ(similarity_of<TypeParam>({1, 2}, 2, {0, 2, 0, -1}), -1.0f);
  EXPECT_EQ(similarity_of<TypeParam>({1, 2}, 2, {0, 2, 1, 0}), 0.0f);
}

TYPED_TEST(WindowSimilarity, IsTheMeanOverPairs) {
  EXPECT_EQ(similarity_of<TypeParam>({2, 2}, 2, {1, 0, 2, 0, 1, 0, 0, 1}), 0.5f);  // three pairs of six agree
  EXPECT_EQ(similarity_of<TypeParam>({1, 3}, 1, {1, 1, -1}), -1.0f / 3);           // 1 − 1 − 1 over three pairs
  EXPECT_EQ(similarity_of<TypeParam>({2, 2}, 4, {1, 1, 1, 1, 2, 2, -2, -2, 1, -1, 1, -1, 1, -1, -1, 1}), 0.0f);  // Hadamard's rows
}

// Σ‖u‖² and not n is what is subtracted: with n, the first would be −1, the second 0.
TYPED_TEST(WindowSimilarity, AZeroVectorHasCosineZeroWithEverything) {
  EXPECT_EQ(similarity_of<TypeParam>({1, 2}, 3, floats(6, 0.0f)), 0.0f);
  EXPECT_EQ(similarity_of<TypeParam>({1, 3}, 1, {0, 1, 1}), 1.0f / 3);
  EXPECT_EQ(similarity_of<TypeParam>({1, 3}, 1, {-0.0f, 1, 0}), 0.0f);
}

// 1e-8 is the shortest length that counts. 2^-30 is below it: u = 2^-30/1e-8 ≈ 0.093, u² ≈ 0.0087; rounded five times.
TYPED_TEST(WindowSimilarity, RowsShorterThanTheFloorShrinkTowardsZero) {
  float const got = similarity_of<TypeParam>({1, 2}, 1, {0x1p-30f, 0x1p-30f});
  EXPECT_NEAR(got, std::pow(0x1p-30 / 1e-8, 2), 0x1p-24 * 10 * 0.0087);
  EXPECT_EQ(similarity_of<TypeParam>({1, 2}, 1, {0x1p-26f, 0x1p-26f}), 1.0f);  // 1.49e-8: not short
}

// Squares that underflow are zeros; squares that nearly overflow are no trouble.
TYPED_TEST(WindowSimilarity, TinyRowsAreZerosAndHugeOnesAreRows) {
  EXPECT_EQ(similarity_of<TypeParam>({1, 2}, 2, {0x1p-120f, 0, 0x1p-120f, 0}), 0.0f);
  EXPECT_EQ(similarity_of<TypeParam>({1, 2}, 2, {0x1p-149f, 0, 1, 0}), 0.0f);
  EXPECT_EQ(similarity_of<TypeParam>({1, 2}, 2, {0x1p63f, 0, 1, 0}), 1.0f);
}

TYPED_TEST(WindowSimilarity, ARowWhoseSquaredNormIsNotFiniteMakesItsWindowNan) {
  constexpr float largest = std::numeric_limits<float>::max();
  for (float const bad : {quiet_nan, -quiet_nan, inf, -inf, largest, -largest, 0x1p64f}) {
    EXPECT_TRUE(md::is_nan(similarity_of<TypeParam>({1, 2}, 2, {bad, 0, 1, 0}))) << bad;
    EXPECT_TRUE(md::is_nan(similarity_of<TypeParam>({1, 2}, 2, {1, 0, 0, bad}))) << bad;
  }
  EXPECT_TRUE(md::is_nan(similarity_of<TypeParam>({1, 2}, 4, {0x1p63f, 0x1p63f, 0x1p63f, 0x1p63f, 1, 0, 0, 0})));  // each square is finite
}

TYPED_TEST(WindowSimilarity, WindowsCountInRasterOrder) {
  // Windows of 1×2 on 2×4: cosines 1, −1 above, 0, 1 below.
  similarity_case const c{{1, 2}, {bare(2, 4)}, 2, {1, 0, 1, 0, 1, 0, -1, 0, 0, 1, 1, 0, 0, 1, 0, 1}};
  EXPECT_EQ(window_similarity<TypeParam>(c), (similarities{{1, -1, 0, 1}}));
  similarity_case const columns{{2, 1}, {bare(2, 4)}, 2, c.features};
  EXPECT_EQ(window_similarity<TypeParam>(columns), (similarities{{0, 1, 0, 0}}));
}

TYPED_TEST(WindowSimilarity, WhatIsLeftOverAtTheFarEdgesIsInNoWindow) {
  floats features(15, quiet_nan);  // 3×5 patches: NaN in the last row and the last column
  for (std::size_t const t : {0u, 1u, 2u, 3u, 5u, 6u, 7u}) { features[t] = 1; }
  features[8] = -1;
  EXPECT_EQ(window_similarity<TypeParam>({{2, 2}, {bare(3, 5)}, 1, features}), (similarities{{1, 0}}));  // 3 pairs of 6 are −1
}

TYPED_TEST(WindowSimilarity, TokensInFrontAndBehindAreInNoWindow) {
  similarity_case const c{{1, 2}, {{1, 2, 1, 2, 1}}, 1, {quiet_nan, inf, 3, -3, quiet_nan}};
  EXPECT_EQ(window_similarity<TypeParam>(c), (similarities{{-1}}));
}

TYPED_TEST(WindowSimilarity, AWindowMayReachOverFrames) {
  // Two frames of 1×2 and one left over: over frames the columns are opposite and alike.
  similarity_case c{{1, 1, 2}, {{1, 2, 3, 1, 0}}, 1, {quiet_nan, 1, 1, -1, 2, quiet_nan, quiet_nan}};
  EXPECT_EQ(window_similarity<TypeParam>(c), (similarities{{-1, 1}}));
  c.window = {1, 2, 1}, c.features = {quiet_nan, 1, 1, -1, 2, 0, 3};  // each frame for itself
  EXPECT_EQ(window_similarity<TypeParam>(c), (similarities{{1, -1, 0}}));
}

TYPED_TEST(WindowSimilarity, AGridSmallerThanTheWindowHasNone) {
  EXPECT_EQ(window_similarity<TypeParam>({{3, 3}, {bare(2, 4)}, 1, floats(8, 1.0f)}), (similarities{{}}));
  EXPECT_EQ(window_similarity<TypeParam>({{1, 1, 2}, {bare(2, 4)}, 1, floats(8, 1.0f)}), (similarities{{}}));
}

TYPED_TEST(WindowSimilarity, NoTokensNoSegmentsAndNoFeaturesAreFine) {
  EXPECT_EQ(window_similarity<TypeParam>({{3, 3}, {bare(0, 0)}, 4, {}}), (similarities{{}}));
  EXPECT_EQ(window_similarity<TypeParam>({{3, 3}, {{0, 0, 1, 1, 1}}, 2, floats(4, 1.0f)}), (similarities{{}}));
  EXPECT_EQ(window_similarity<TypeParam>({{3, 3}, {}, 4, {}}), (similarities{}));
  EXPECT_EQ(window_similarity<TypeParam>({{1, 2}, {bare(1, 4)}, 0, {}}), (similarities{{0, 0}}));
}

TYPED_TEST(WindowSimilarity, SegmentsHaveGridsOfTheirOwn) {
  similarity_case c{{1, 2}, {{1, 2, 1, 1, 0}, bare(0, 0), bare(2, 2), bare(1, 1)}, 1, {9, 1, 1, /**/ 1, -1, 2, 3, /**/ 5}};
  EXPECT_EQ(window_similarity<TypeParam>(c), (similarities{{1}, {}, {-1, 1}, {}}));
  c.room = 3;  // of NaN behind each
  EXPECT_EQ(window_similarity<TypeParam>(c), (similarities{{1}, {}, {-1, 1}, {}}));
}

TYPED_TEST(WindowSimilarity, NanStaysInItsWindow) {
  std::mt19937 random = printed_random(51);
  std::normal_distribution<float> normal;
  similarity_case clean{{3, 3}, {{6, 7, 1, 1, 1}}, 33, floats(44 * 33)};
  for (float& feature : clean.features) { feature = normal(random); }
  auto const before = window_similarity<TypeParam>(clean)[0];
  auto const windows = windows_in(clean.grids[0], clean.window);
  for (std::int64_t token = 0; token < 44; ++token) {
    auto c = clean;
    std::size_t const d = token % 2 == 0 ? 32 : random() % 32;  // the last feature, and any
    c.features[static_cast<std::size_t>(token) * 33 + d] = token % 3 == 0 ? inf : quiet_nan;
    auto expected = before;
    for (std::size_t w = 0; w < windows.size(); ++w) {
      if (std::count(windows[w].begin(), windows[w].end(), token) > 0) { expected[w] = quiet_nan; }
    }
    EXPECT_TRUE(all_same(window_similarity<TypeParam>(c)[0], expected)) << "token " << token;
  }
}

// --- against definitions

/// ‖x‖² over 32 lanes, one lane after another.
float squared(floats const& x) {
  std::array<float, 32> lane{};
  for (std::size_t l = 0; l < 32; ++l) {
    for (std::size_t d = l; d < x.size(); d += 32) { lane[l] = std::fma(x[d], x[d], lane[l]); }
  }
  for (std::size_t width : {16u, 8u, 4u, 2u, 1u}) {
    for (std::size_t l = 0; l < width; ++l) { lane[l] += lane[l + width]; }
  }
  return lane[0];
}

/// The header's second formula in float, rounded where it says.
float by_lanes(std::vector<floats> const& members) {
  float own = 0;
  floats whole(members[0].size(), 0.0f);
  for (auto const& x : members) {
    float const square = squared(x);
    if (!(square < inf)) { return quiet_nan; }
    float const inverse = 1 / std::max(std::sqrt(square), 1e-8f);
    own = std::fma(inverse * square, inverse, own);
    for (std::size_t d = 0; d < x.size(); ++d) { whole[d] = std::fma(x[d], inverse, whole[d]); }
  }
  auto const n = static_cast<float>(members.size());
  return (squared(whole) - own) / (n * (n - 1));
}

/// The header's first formula, pair by pair, in double.
double by_pairs(std::vector<floats> const& members) {
  auto const dot = [](floats const& a, floats const& b) {
    double sum = 0;
    for (std::size_t d = 0; d < a.size(); ++d) { sum += double{a[d]} * double{b[d]}; }
    return sum;
  };
  double cosines = 0, pairs = 0;
  for (std::size_t i = 0; i < members.size(); ++i) {
    for (std::size_t j = 0; j < members.size(); ++j) {
      if (i == j) { continue; }
      double const lengths =
          std::max(std::sqrt(dot(members[i], members[i])), 1e-8) * std::max(std::sqrt(dot(members[j], members[j])), 1e-8);
      cosines += dot(members[i], members[j]) / lengths, ++pairs;
    }
  }
  return cosines / pairs;
}

template <class T, class Definition>
auto of_each_window(similarity_case const& c, Definition const& definition) {
  std::vector<std::vector<decltype(definition({}))>> all;
  floats const seen = stored_as<T>(c.features);
  auto const dim = static_cast<std::ptrdiff_t>(c.dim);
  auto begin = seen.begin();
  for (auto const& grid : c.grids) {
    all.emplace_back();
    for (auto const& tokens : windows_in(grid, c.window)) {
      std::vector<floats> members;
      for (std::int64_t const t : tokens) { members.emplace_back(begin + t * dim, begin + (t + 1) * dim); }
      all.back().push_back(definition(members));
    }
    begin += grid.tokens() * dim;
  }
  return all;
}

/// Rows that resemble each other; zeros, very short and very long rows, and what is not finite, now and then.
similarity_case random_case(std::mt19937& random, md::index_t dim, std::uint32_t oddities) {
  std::normal_distribution<float> normal;
  similarity_case c{any_window(random), {}, dim, {}, static_cast<std::int32_t>(random() % 2 * 3)};
  for (int s = 0; s < 3; ++s) { c.grids.push_back(any_grid(random)); }
  floats common(static_cast<std::size_t>(dim));
  for (float& x : common) { x = normal(random); }
  constexpr float scales[] = {0, 0x1p-30f, 0x1p-100f, 0x1p60f}, bad[] = {quiet_nan, inf, -inf, 0x1p64f};
  for (auto const& grid : c.grids) {
    for (md::index_t t = 0; t < grid.tokens(); ++t) {
      std::uint32_t const kind = random() % 64;
      float const scale = kind < oddities ? scales[random() % 4] : 1.0f;
      for (float const x : common) { c.features.push_back((x + normal(random)) * scale); }
      if (kind >= 62 && oddities > 0 && dim > 0) { c.features[c.features.size() - 1 - random() % common.size()] = bad[random() % 4]; }
    }
  }
  return c;
}

template <class Backend, class T>
void expect_the_bits_of_the_definition(similarity_case const& c) {
  auto const got = window_similarity<Backend, T>(c);
  EXPECT_TRUE(all_same(got, of_each_window<T>(c, by_lanes)));
  EXPECT_TRUE(all_same(got, (window_similarity<md::reference::backend, T>(c))));
  EXPECT_TRUE(all_same(got, window_similarity<Backend>({c.window, c.grids, c.dim, stored_as<T>(c.features)})));  // widening is exact
}

TYPED_TEST(WindowSimilarity, HasTheBitsOfTheDefinitionInEveryTypeAndWidth) {
  std::mt19937 random = printed_random(52);
  for (md::index_t const dim : dims) {
    for (int round = 0; round < (dim == 1024 ? 2 : 12); ++round) {
      SCOPED_TRACE(testing::Message() << "dim " << dim << ", round " << round);
      auto const c = random_case(random, dim, 4);
      expect_the_bits_of_the_definition<TypeParam, float>(c);
      expect_the_bits_of_the_definition<TypeParam, md::half>(c);
      expect_the_bits_of_the_definition<TypeParam, md::bfloat16>(c);
    }
  }
}

TYPED_TEST(WindowSimilarity, HasTheBitsOfTheDefinitionForEveryDimensionAroundTheVectorWidths) {
  std::mt19937 random = printed_random(53);
  for (md::index_t dim = 0; dim <= 70; ++dim) {
    SCOPED_TRACE(testing::Message() << "dim " << dim);
    expect_the_bits_of_the_definition<TypeParam, float>(random_case(random, dim, 0));
    expect_the_bits_of_the_definition<TypeParam, md::half>(random_case(random, dim, 0));
  }
}

TYPED_TEST(WindowSimilarity, CountsOfWindowsAroundTheVectorWidths) {
  std::mt19937 random = printed_random(54);
  for (md::index_t windows = 0; windows <= 70; ++windows) {
    similarity_case c{{1, 2}, {{1, 2 * windows + 1, 1, 1, 0}}, 5, floats(static_cast<std::size_t>(2 * windows + 2) * 5)};
    for (float& feature : c.features) { feature = static_cast<float>(random() % 64) - 32; }
    EXPECT_TRUE(all_same(window_similarity<TypeParam>(c), of_each_window<float>(c, by_lanes))) << windows << " windows";
  }
}

// To first order, in units of 2^-24, with a = dim/32 + 6 roundings in ‖x‖²: u is off by a/2 + 2; Σu by n(a/2 + 2 + n), so ‖Σu‖² ≤ n² by
// n²(2a + 4 + 2n), Σ‖u‖² ≤ n by n(2a + 5 + n). Both over n(n − 1), with n/(n − 1) ≤ 2, and two roundings more: 6a + 5n + 15.
TYPED_TEST(WindowSimilarity, IsTheMeanCosineOfAllPairs) {
  std::mt19937 random = printed_random(55);
  for (md::index_t const dim : dims) {
    for (int round = 0; round < (dim == 1024 ? 2 : 12); ++round) {
      auto const c = random_case(random, dim, 0);
      double const bound = 0x1p-24 * (6 * (static_cast<double>(dim) / 32 + 6) + 5 * static_cast<double>(c.window.tokens()) + 15);
      auto const got = window_similarity<TypeParam>(c);
      auto const expected = of_each_window<float>(c, by_pairs);
      for (std::size_t s = 0; s < got.size(); ++s) {
        for (std::size_t w = 0; w < got[s].size(); ++w) {
          EXPECT_NEAR(got[s][w], expected[s][w], bound) << "dim " << dim << ", segment " << s << ", window " << w;
          EXPECT_LE(std::fabs(got[s][w]), 1 + bound);
        }
      }
    }
  }
}

// --- properties that hold to the bit

TYPED_TEST(WindowSimilarity, LengthsThatArePowersOfTwoChangeNoBit) {
  std::mt19937 random = printed_random(56);
  for (md::index_t const dim : {1, 17, 64}) {
    auto c = random_case(random, dim, 0);
    auto const before = window_similarity<TypeParam>(c);
    for (std::size_t t = 0; t * static_cast<std::size_t>(dim) < c.features.size(); ++t) {
      float const scale = std::ldexp(1.0f, static_cast<int>(random() % 16));
      for (std::size_t d = 0; d < static_cast<std::size_t>(dim); ++d) { c.features[t * static_cast<std::size_t>(dim) + d] *= scale; }
    }
    EXPECT_TRUE(all_same(window_similarity<TypeParam>(c), before)) << "dim " << dim;
    for (float& feature : c.features) { feature = -feature; }
    EXPECT_TRUE(all_same(window_similarity<TypeParam>(c), before)) << "dim " << dim;
  }
}

TYPED_TEST(WindowSimilarity, FeaturesThatAreZeroChangeNoBit) {
  std::mt19937 random = printed_random(57);
  auto const c = random_case(random, 19, 4);
  for (md::index_t const wider : {20, 32, 45, 64}) {
    similarity_case padded{c.window, c.grids, wider, {}, c.room};
    for (std::size_t t = 0; t < c.features.size() / 19; ++t) {
      padded.features.insert(padded.features.end(), c.features.begin() + static_cast<std::ptrdiff_t>(t * 19),
                             c.features.begin() + static_cast<std::ptrdiff_t>(t * 19 + 19));
      padded.features.resize((t + 1) * static_cast<std::size_t>(wider), 0.0f);
    }
    EXPECT_TRUE(all_same(window_similarity<TypeParam>(padded), window_similarity<TypeParam>(c))) << wider;
  }
}

TYPED_TEST(WindowSimilarity, ASegmentDoesNotDependOnItsNeighbours) {
  std::mt19937 random = printed_random(58);
  for (int round = 0; round < 30; ++round) {
    auto const c = random_case(random, 9, 4);
    auto const together = window_similarity<TypeParam>(c);
    auto begin = c.features.begin();
    similarity_case turned{c.window, {}, c.dim, {}};
    similarities turned_expected;
    for (std::size_t s = 0; s < c.grids.size(); ++s) {
      floats const own(begin, begin + c.grids[s].tokens() * c.dim);
      begin += c.grids[s].tokens() * c.dim;
      EXPECT_TRUE(all_same(window_similarity<TypeParam>({c.window, {c.grids[s]}, c.dim, own}), {together[s]})) << "round " << round;
      turned.grids.insert(turned.grids.begin(), c.grids[s]);
      turned.features.insert(turned.features.begin(), own.begin(), own.end());
      turned_expected.insert(turned_expected.begin(), together[s]);
    }
    EXPECT_TRUE(all_same(window_similarity<TypeParam>(turned), turned_expected)) << "round " << round << ", last segment first";
  }
}

// Memory that ends with the last feature: a sanitizer sees a read past the end of a row.
TYPED_TEST(WindowSimilarity, NothingIsReadPastTheLastRow) {
  std::mt19937 random = printed_random(59);
  TypeParam const backend{};
  for (md::index_t const dim : dims) {
    similarity_case c{{1, 2}, {{1, 2, 1, 1, 0}}, dim, floats(static_cast<std::size_t>(3 * dim))};
    for (float& feature : c.features) { feature = static_cast<float>(random() % 64) - 32; }
    std::vector<md::half> halves;
    for (float const feature : c.features) { halves.push_back(md::narrow<md::half>(feature)); }  // small integers: exact
    float const expected = window_similarity<TypeParam>(c)[0][0];
    aligned_memory scratch(md::window_similarity_workspace_size(backend, c.window, 3, dim, {}));
    float got[2] = {guard, guard};
    auto const grids = md::view(c.grids.data(), 1);
    ASSERT_EQ(md::window_similarity(backend, c.window, md::view(c.features.data(), 3, dim), {}, grids, md::view(got, 1, 1), scratch.lend()),
              status::ok);
    ASSERT_EQ(md::window_similarity(backend, c.window, md::view(halves.data(), 3, dim), {}, grids, md::view(got + 1, 1, 1), scratch.lend()),
              status::ok);
    EXPECT_EQ(got[0], expected) << "dim " << dim;
    EXPECT_EQ(got[1], expected) << "dim " << dim;
  }
}

// Tokens of another tensor may lie between the rows, the rows may run backwards, and so may the lines of the result.
TYPED_TEST(WindowSimilarity, RowsMayHaveAnyStride) {
  floats const features{0, 1, 9, 1, 0, 9, 2, 0, 9, 1, 0, 9};  // rows of two features and a stranger, last row first
  TypeParam const backend{};
  std::vector<md::token_grid> const grids{bare(1, 2), bare(1, 2)};
  ints const offsets{0, 2, 4};
  md::segments const segments{2, offsets.data(), nullptr, 2};
  aligned_memory scratch(md::window_similarity_workspace_size(backend, {1, 2}, 4, 2, segments));
  floats got(5, guard);
  ASSERT_EQ(md::window_similarity(backend, {1, 2}, md::tensor_view<float const, 2>{features.data() + 9, {4, 2}, {-3, 1}}, segments,
                                  md::view(grids.data(), 2), {got.data() + 3, {2, 1}, {-2, 1}}, scratch.lend()),
            status::ok);
  EXPECT_EQ(got, (floats{guard, 0, guard, 1, guard}));
}

// A window after a merge of everything: the rows that window_merge left in place of capacity are a smaller grid.
TYPED_TEST(WindowSimilarity, CountsOfAMergeAreTheSegmentsOfTheNextSimilarity) {
  TypeParam const backend{};
  floats const features{9, 1, 3, -4, -2, 3, 1, -2, -4, /**/ 9, 2, 2, 5, 7, 2, 2, 7, 5};  // CLS and 2×4 patches, twice
  std::vector<md::token_grid> const grids{{2, 4, 1, 1, 0}, {2, 4, 1, 1, 0}}, smaller{{1, 2, 1, 1, 0}, {1, 2, 1, 1, 0}};
  ints const offsets{0, 9, 18};
  md::segments const before{2, offsets.data(), nullptr, 9};
  floats rows(18, quiet_nan), sizes(18, quiet_nan), got(2, guard);
  ints source(18, -7), indices(18, -7), counts(2, -7);
  aligned_memory scratch(std::max(md::window_merge_workspace_size(backend, {2, 2}, 18, 1, 0, before),
                                  md::window_similarity_workspace_size(backend, {1, 2}, 18, 1, before)));
  ASSERT_EQ(md::window_merge(backend, {0, 2}, {2, 2}, md::view(features.data(), 18, 1), before, md::view(grids.data(), 2), {}, {},
                             md::view(rows.data(), 18, 1), md::view(sizes.data(), 18), md::view(source.data(), 18),
                             md::keep_lists<std::int32_t>{md::view(indices.data(), 2, 9), md::view(counts.data(), 2)}, scratch.lend()),
            status::ok);
  EXPECT_EQ(counts, (ints{3, 3}));
  md::segments const after{2, offsets.data(), counts.data(), 9};
  ASSERT_EQ(md::window_similarity(backend, {1, 2}, md::view(rows.data(), 18, 1), after, md::view(smaller.data(), 2),
                                  md::view(got.data(), 2, 1), scratch.lend()),
            status::ok);
  EXPECT_EQ(got, (floats{-1, 1}));  // means 2, −3 and 2, 6
}

// --- windows, members, anchors

TEST(Window, MembersLieInRasterOrderAndEveryPatchIsInItsWindow) {
  std::mt19937 random = printed_random(60);
  for (int round = 0; round < 200; ++round) {
    auto const grid = any_grid(random);
    auto const window = any_window(random);
    auto const windows = windows_in(grid, window);
    ASSERT_EQ(window.windows(grid), static_cast<md::index_t>(windows.size()));
    std::vector<md::index_t> owner(static_cast<std::size_t>(grid.tokens()), -1);
    for (std::size_t w = 0; w < windows.size(); ++w) {
      for (std::size_t m = 0; m < windows[w].size(); ++m) {
        EXPECT_EQ(md::window_member(grid, window, static_cast<md::index_t>(w), static_cast<md::index_t>(m)), windows[w][m]);
        owner[static_cast<std::size_t>(windows[w][m])] = static_cast<md::index_t>(w);
      }
    }
    for (md::index_t t = 0; t < grid.tokens(); ++t) {
      EXPECT_EQ(md::window_of(grid, window, t), owner[static_cast<std::size_t>(t)]) << "token " << t;
    }
    EXPECT_EQ(md::window_of(grid, window, -1), -1);
    EXPECT_EQ(md::window_of(grid, window, grid.tokens()), -1);
  }
}

TEST(Window, TheAnchorIsTheMiddleMemberAndTheEarlierOfTwo) {
  static_assert(md::window_anchor({3, 3}) == 4);
  static_assert(md::window_anchor({2, 2}) == 0);
  static_assert(md::window_anchor({2, 4}) == 1);
  static_assert(md::window_anchor({4, 3}) == 4);
  static_assert(md::window_anchor({1, 5}) == 2);
  static_assert(md::window_anchor({3, 3, 2}) == 4);
  static_assert(md::window_anchor({3, 3, 3}) == 13);
}

// An image without patches is a grid of nothing, whatever its other sizes say.
TEST(Window, GridsThatFitTheirSegmentsPassTheCheckAndOthersDoNot) {
  ints const offsets{0, 0, 9};
  md::segments const segments{2, offsets.data(), nullptr, 0};
  auto const answer = [&](md::token_grid const& first, md::token_grid const& second, md::index_t windows) {
    md::token_grid const grids[] = {first, second};
    return md::check(md::tensor_view<md::token_grid const, 1>(md::view(grids, 2)), {2, 2}, segments, 9, windows);
  };
  EXPECT_EQ(answer({0, 0, 1, 0, 0}, {2, 4, 1, 1, 0}, 2), status::ok);
  EXPECT_EQ(answer({0, 24, 1, 0, 0}, {2, 2, 2, 0, 1}, 2), status::ok);
  EXPECT_EQ(answer({3, 3, 0, 0, 0}, {0, 0, 1, 4, 5}, 0), status::ok);
  EXPECT_EQ(answer({0, 0, 1, 0, 0}, {2, 4, 1, 1, 0}, 1), status::bad_argument);  // two windows, one column
  EXPECT_EQ(answer({1, 1, 1, 0, 0}, {2, 4, 1, 1, 0}, 2), status::bad_argument);
  EXPECT_EQ(answer({0, 0, 1, 0, 0}, {2, 4, 1, 0, 0}, 2), status::bad_argument);
  EXPECT_EQ(answer({0, 0, 1, 0, 0}, {-2, -4, 1, 1, 0}, 2), status::bad_argument);
  EXPECT_EQ(answer({0, 0, 1, 0, 0}, {0, 0, 1, -1, 10}, 2), status::bad_argument);
  EXPECT_EQ(answer({0, 0, 1, 0, 0}, {md::most_tokens, md::most_tokens, md::most_tokens, 1, 0}, 2), status::bad_argument);
  EXPECT_EQ(answer({0, 0, 1, 0, 0}, {md::index_t{1} << 62, 4, 1, 1, 0}, 2), status::bad_argument);  // products that wrap: to 0, to 2
  EXPECT_EQ(answer({0, 0, 1, 0, 0}, {3, 6148914691236517206, 1, 7, 0}, std::numeric_limits<md::index_t>::max()), status::bad_argument);
}

TEST(WindowSimilarityWorkspace, IsAClosedFormAndAFloatForEachTokenInTheReference) {
  static_assert(md::window_similarity_workspace_size(md::reference::backend{}, {3, 3}, 577, 1024, md::segments{}) == 577 * 4);
  static_assert(md::window_similarity_workspace_size(md::reference::backend{}, {3, 3}, 0, 1024, md::segments{}) == 0);
}

// --- what is refused

/// A call that is right, with a member for each thing that can be wrong.
template <class Backend>
struct similarity_call {
  floats memory = floats(24, 1.0f), written = floats(8, guard);
  ints offsets{0, 5, 9};
  std::vector<md::token_grid> grid_memory{{2, 2, 1, 1, 0}, {2, 2, 1, 0, 0}, {2, 2, 1, 0, 0}};

  md::window_shape window{2, 2};
  md::tensor_view<float, 2> features = md::view(memory.data(), 9, 2), similarity = md::view(written.data(), 2, 2);
  md::segments segments{2, offsets.data(), nullptr, 5};
  md::tensor_view<md::token_grid const, 1> grids = md::view(grid_memory.data(), 2);
  std::size_t needed = md::window_similarity_workspace_size(Backend{}, window, 9, 2, segments);
  aligned_memory room{needed + 64};
  md::workspace scratch = room.lend();

  md::status run() { return md::window_similarity(Backend{}, window, features, segments, grids, similarity, scratch); }
};

/// What a right call answers after one change; unless it is ok, nothing may have been written.
template <class Backend, class Change>
md::status after(Change const& change) {
  similarity_call<Backend> call;
  change(call);
  md::status const got = call.run();
  if (got != status::ok) { EXPECT_EQ(call.written, floats(8, guard)); }
  return got;
}

TYPED_TEST(WindowSimilarity, WrongShapesAreRefused) {
  EXPECT_EQ(after<TypeParam>([](auto&) {}), status::ok);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.segments.longest = 0; }), status::ok);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.features.sizes[0] = -9; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.features.sizes[1] = -2; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.features.sizes[0] = md::most_tokens + 1; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.features.data = nullptr; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.segments = {2, nullptr, nullptr, 0}; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.segments.count = -1; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.segments.longest = -1; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.grids = md::view(c.grid_memory.data(), 1); }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.grids = md::view(c.grid_memory.data(), 3); }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.grids = {}; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.grids.data = nullptr; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.similarity.sizes[0] = 1; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.similarity.sizes[0] = 3; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.similarity.sizes[1] = -1; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.similarity.data = nullptr; }), status::bad_shape);
}

TYPED_TEST(WindowSimilarity, StridesOtherThanOneAreRefused) {
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.features.strides[1] = 2; }), status::bad_stride);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.grids.strides[0] = 2; }), status::bad_stride);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.similarity.strides[1] = 2; }), status::bad_stride);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.similarity.sizes[1] = 1, c.similarity.strides[1] = 2; }), status::ok);  // an axis of one
}

TYPED_TEST(WindowSimilarity, WindowsOfOneTokenOrLessAreRefused) {
  for (auto const& window : {md::window_shape{1, 1}, {1, 1, 1}, {0, 2}, {2, 0}, {2, 2, 0}, {-1, -2}, {-2, -2, 1}, {2, 2, -1}}) {
    EXPECT_EQ(after<TypeParam>([&](auto& c) { c.window = window; }), status::bad_argument)
        << window.rows << "x" << window.cols << "x" << window.frames;
  }
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.window = {1, 2}; }), status::ok);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.window = {1 << 21, 1 << 21}; }), status::bad_argument);        // a product beyond any grid
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.window = {3, 6148914691236517206}; }), status::bad_argument);  // 2^64 + 2: it wraps to 2
}

TYPED_TEST(WindowSimilarity, TooLittleOrMisalignedWorkspaceIsRefused) {
  std::size_t const needed = similarity_call<TypeParam>{}.needed;
  expect_wrong_workspaces_refused(needed, [](md::workspace scratch) { return after<TypeParam>([&](auto& c) { c.scratch = scratch; }); });
}

}  // namespace
