// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "backends.hpp"
#include "memory.hpp"
#include "refused_workspaces.hpp"
#include "windows.hpp"

namespace {

using floats = std::vector<float>;
using ints = std::vector<std::int32_t>;
using longs = std::vector<std::int64_t>;
using md::status;

constexpr md::index_t dims[] = {1, 3, 17, 31, 32, 33, 64, 1024};
constexpr float guard = -77;
constexpr auto released = md::output_order::score;

struct merge_case {
  md::window_shape window;
  std::vector<md::token_grid> grids;  // of each segment
  floats features;                    // [tokens, dim]
  std::vector<floats> similarity;     // of each segment's windows; {}: not given
  md::merge_options options{};
  ints requested{};  // {}: options decide
  md::index_t dim = 1;
  std::int32_t room = 0;  // tokens of nobody behind each segment; not in features
};

/// What one segment becomes.
struct merged_segment {
  floats rows, sizes;
  longs source, keep;
};

/// Which elements of a guarded tensor were not written.
template <class Tensor, class T>
md::index_t untouched(Tensor const& tensor, T value) {
  return std::count_if(tensor.memory().begin(), tensor.memory().end(), [value](auto const& x) {
    if constexpr (std::is_integral_v<T>) {
      return x == value;
    } else {
      return md::widen(x) == value;
    }
  });
}

/// Runs the word on memory that begins at odd addresses with NaN between the rows, and looks that nothing else was written.
template <class Backend, class T = float, class Row = T, class Index = std::int32_t>
std::vector<merged_segment> window_merge(merge_case const& c) {
  Backend const backend{};
  grid_layout const layout(c.grids, c.room);
  auto const segments = layout.segments();
  auto const tokens = layout.tokens(), count = static_cast<md::index_t>(c.grids.size());
  padded_tensor<T, 2> features(md::narrow<T>(quiet_nan), 1, 3, tokens, c.dim);
  auto const* next = c.features.data();
  md::index_t windows = 0;
  for (std::size_t s = 0; s < c.grids.size(); ++s) {
    for (md::index_t t = 0; t < layout.counts[s]; ++t) {
      for (md::index_t d = 0; d < c.dim; ++d) { features.view()(layout.offsets[s] + t, d) = md::narrow<T>(*next++); }
    }
    windows = std::max(windows, c.window.windows(c.grids[s]));
  }
  EXPECT_EQ(next, c.features.data() + c.features.size()) << "a case with too few or too many features";
  padded_tensor<float, 2> similarity(inf, 3, 2, count, windows);  // whoever reads past the windows merges something
  for (std::size_t s = 0; s < c.similarity.size(); ++s) {
    EXPECT_EQ(static_cast<md::index_t>(c.similarity[s].size()), c.window.windows(c.grids[s])) << "similarities of segment " << s;
    for (std::size_t w = 0; w < c.similarity[s].size(); ++w) { similarity.view()(s, w) = c.similarity[s][w]; }
  }
  padded_tensor<std::int32_t, 1> requested(99, 1, 2, count);
  std::copy(c.requested.begin(), c.requested.end(), requested.view().data);
  md::tensor_view<float const, 2> given;
  md::tensor_view<std::int32_t const, 1> asked;
  if (!c.similarity.empty()) { given = similarity.view(); }
  if (!c.requested.empty()) { asked = requested.view(); }

  padded_tensor<Row, 2> rows(md::narrow<Row>(guard), 1, 5, tokens, c.dim);
  padded_tensor<float, 1> sizes(guard, 3, 2, tokens);
  padded_tensor<Index, 1> source(-7, 1, 2, tokens);
  padded_tensor<Index, 2> indices(-7, 3, 1, count, segments.bound(tokens) + 1);
  padded_tensor<std::int32_t, 1> counts(-7, 1, 2, count);
  auto const grids = md::view(c.grids.data(), count);
  EXPECT_EQ(md::check(md::tensor_view<md::token_grid const, 1>(grids), c.window, segments, tokens, windows), status::ok);
  aligned_memory scratch(md::window_merge_workspace_size(backend, c.window, tokens, c.dim, given.size(1), segments));
  auto const got = md::window_merge(backend, c.options, c.window, features.view(), segments, grids, given, asked, rows.view(), sizes.view(),
                                    source.view(), md::keep_lists<Index>{indices.view(), counts.view()}, scratch.lend());
  EXPECT_EQ(got, status::ok) << message(got);

  std::vector<merged_segment> all;
  md::index_t kept = 0, tokens_in = 0;
  for (md::index_t s = 0; s < count; ++s) {
    auto const begin = layout.offsets[static_cast<std::size_t>(s)], size = layout.counts[static_cast<std::size_t>(s)];
    auto& segment = all.emplace_back();
    EXPECT_TRUE(0 <= counts.view()(s) && counts.view()(s) <= size) << counts.view()(s) << " rows in segment " << s;
    for (md::index_t i = 0; i < std::min(counts.view()(s), size); ++i, ++kept) {
      segment.keep.push_back(indices.view()(s, i)), segment.sizes.push_back(sizes.view()(begin + i));
      for (md::index_t d = 0; d < c.dim; ++d) { segment.rows.push_back(md::widen(rows.view()(begin + i, d))); }
    }
    for (md::index_t t = 0; t < size; ++t) { segment.source.push_back(source.view()(begin + t)); }
    tokens_in += size;
  }
  auto const memory = [](auto const& tensor) { return static_cast<md::index_t>(tensor.memory().size()); };
  EXPECT_EQ(untouched(rows, guard), memory(rows) - kept * c.dim) << "rows past the count";
  EXPECT_EQ(untouched(sizes, guard), memory(sizes) - kept) << "sizes past the count";
  EXPECT_EQ(untouched(source, -7), memory(source) - tokens_in) << "sources of tokens of nobody";
  EXPECT_EQ(untouched(indices, -7), memory(indices) - kept) << "entries past the lists";
  EXPECT_EQ(untouched(counts, -7), memory(counts) - count);
  return all;
}

testing::AssertionResult same_segments(std::vector<merged_segment> const& got, std::vector<merged_segment> const& expected) {
  if (got.size() != expected.size()) { return testing::AssertionFailure() << got.size() << " segments, not " << expected.size(); }
  for (std::size_t s = 0; s < got.size(); ++s) {
    auto const wrong = [s](char const* what) { return testing::AssertionFailure() << what << " of segment " << s << " "; };
    if (got[s].keep != expected[s].keep) {
      return wrong("keep") << testing::PrintToString(got[s].keep) << ", not " << testing::PrintToString(expected[s].keep);
    }
    if (got[s].source != expected[s].source) {
      return wrong("source") << testing::PrintToString(got[s].source) << ", not " << testing::PrintToString(expected[s].source);
    }
    if (auto const sizes = all_same(got[s].sizes, expected[s].sizes); !sizes) { return wrong("sizes") << sizes.message(); }
    if (auto const rows = all_same(got[s].rows, expected[s].rows); !rows) { return wrong("rows") << rows.message(); }
  }
  return testing::AssertionSuccess();
}

constexpr md::token_grid bare(md::index_t rows, md::index_t cols) { return {rows, cols, 1, 0, 0}; }
constexpr md::merge_options exactly(md::index_t count, md::output_order order = md::output_order::position) { return {0.8f, count, order}; }

floats upwards(std::size_t count) {
  floats values(count);
  std::iota(values.begin(), values.end(), 0.0f);
  return values;
}

/// Which windows merged, looked up in the sizes at their anchors.
std::vector<longs> merged_windows(merge_case const& c, std::vector<merged_segment> const& segments) {
  std::vector<longs> merged;
  for (std::size_t s = 0; s < segments.size(); ++s) {
    auto const windows = windows_in(c.grids[s], c.window);
    merged.emplace_back();
    for (std::size_t w = 0; w < windows.size(); ++w) {
      auto const row = segments[s].source[static_cast<std::size_t>(windows[w][0])];
      if (segments[s].sizes[static_cast<std::size_t>(row)] > 1) { merged.back().push_back(static_cast<std::int64_t>(w)); }
    }
  }
  return merged;
}

template <class Backend>
std::vector<longs> merged_by(merge_case const& c) {
  return merged_windows(c, window_merge<Backend>(c));
}

template <class Backend>
struct WindowMerge : testing::Test {};
TYPED_TEST_SUITE(WindowMerge, Backends);

// CLS and 2×4 patches, whose windows of 2×2 have means 3 and 5 with features that count up.
merge_case two_windows() { return {{2, 2}, {{2, 4, 1, 1, 0}}, upwards(9), {{0.5f, 0.75f}}}; }

TYPED_TEST(WindowMerge, AMergedRowIsTheMeanAndStandsWhereItsAnchorStood) {
  auto c = two_windows();
  c.options.count = 1;
  // The right window is tokens 3, 4, 7 and 8: mean 5.5, anchor 3.
  EXPECT_TRUE(same_segments(window_merge<TypeParam>(c),
                            {{{0, 1, 2, 5.5f, 5, 6}, {1, 1, 1, 4, 1, 1}, {0, 1, 2, 3, 3, 4, 5, 3, 3}, {0, 1, 2, 3, 5, 6}}}));
  c.options.count = 2;
  EXPECT_TRUE(same_segments(window_merge<TypeParam>(c), {{{0, 3.5f, 5.5f}, {1, 4, 4}, {0, 1, 1, 2, 2, 1, 1, 2, 2}, {0, 1, 3}}}));
  c.options.count = 0;
  EXPECT_TRUE(
      same_segments(window_merge<TypeParam>(c), {{upwards(9), floats(9, 1.0f), {0, 1, 2, 3, 4, 5, 6, 7, 8}, {0, 1, 2, 3, 4, 5, 6, 7, 8}}}));
}

TYPED_TEST(WindowMerge, TheAnchorIsTheMiddleMember) {
  merge_case c{{3, 3}, {{3, 3, 1, 1, 1}}, {9, 0, 1, 2, 3, 4, 5, 6, 7, 8, 7}, {{1}}};
  EXPECT_TRUE(same_segments(window_merge<TypeParam>(c), {{{9, 4, 7}, {1, 9, 1}, {0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2}, {0, 5, 10}}}));
  // 3×4 patches: what is left in the last column stands around the anchor, token 5, as it stood before.
  c = {{3, 3}, {bare(3, 4)}, upwards(12), {{1}}};
  EXPECT_TRUE(
      same_segments(window_merge<TypeParam>(c), {{{3, 5, 7, 11}, {1, 9, 1, 1}, {1, 1, 1, 0, 1, 1, 1, 2, 1, 1, 1, 3}, {3, 5, 7, 11}}}));
  for (auto const& [window, anchor] :
       {std::pair{md::window_shape{1, 2}, 0}, {{1, 4}, 1}, {{2, 4}, 1}, {{4, 3}, 4}, {{3, 3, 2}, 4}, {{3, 3, 3}, 13}}) {
    c = {window, {{window.rows, window.cols, window.frames, 0, 0}}, upwards(static_cast<std::size_t>(window.tokens())), {{1}}};
    EXPECT_EQ(window_merge<TypeParam>(c)[0].keep, (longs{anchor})) << window.rows << "x" << window.cols << "x" << window.frames;
  }
}

TYPED_TEST(WindowMerge, InTheReleasedOrderMergedRowsStandBetweenThePrefixAndTheOthers) {
  // 2×6 patches in windows of 2×2 of similarity ½, ¾, ½; two tokens in front and one behind.
  merge_case c{{2, 2}, {{2, 6, 1, 2, 1}}, upwards(15), {{0.5f, 0.75f, 0.5f}}, exactly(2, released)};
  EXPECT_TRUE(same_segments(window_merge<TypeParam>(c), {{{0, 1, 7.5f, 5.5f, 6, 7, 12, 13, 14},
                                                          {1, 1, 4, 4, 1, 1, 1, 1, 1},
                                                          {0, 1, 3, 3, 2, 2, 4, 5, 3, 3, 2, 2, 6, 7, 8},
                                                          {0, 1, 4, 2, 6, 7, 12, 13, 14}}}));
  c.options.count = 3;
  EXPECT_EQ(window_merge<TypeParam>(c)[0].keep, (longs{0, 1, 4, 2, 6, 14}));
  c.options.count = 0;
  EXPECT_EQ(window_merge<TypeParam>(c)[0].keep, (longs{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14}));
  c.options = {0.5f, -1, released};
  EXPECT_EQ(window_merge<TypeParam>(c)[0].keep, (longs{0, 1, 4, 2, 6, 14}));
}

TYPED_TEST(WindowMerge, AWindowOnTheThresholdMergesAndOneBelowDoesNot) {
  merge_case c{{1, 2}, {bare(1, 6)}, upwards(6), {{0.75f, std::nextafter(0.75f, 0.0f), std::nextafter(0.75f, 1.0f)}}, {0.75f}};
  EXPECT_EQ(merged_by<TypeParam>(c), (std::vector<longs>{{0, 2}}));
  EXPECT_EQ(md::merge_options{}.threshold, 0.8f);  // the paper's
  c.options = {}, c.similarity = {{0.8f, std::nextafter(0.8f, 0.0f), 1}};
  EXPECT_EQ(merged_by<TypeParam>(c), (std::vector<longs>{{0, 2}}));
}

TYPED_TEST(WindowMerge, ThresholdsBeyondEverySimilarityMergeAllOrNothing) {
  merge_case c{{1, 2}, {bare(1, 6)}, upwards(6), {{-1, 0.5f, 1}}, {-1}};
  EXPECT_EQ(merged_by<TypeParam>(c), (std::vector<longs>{{0, 1, 2}}));
  c.options.threshold = -inf;
  EXPECT_EQ(merged_by<TypeParam>(c), (std::vector<longs>{{0, 1, 2}}));
  c.options.threshold = inf;
  EXPECT_EQ(merged_by<TypeParam>(c), (std::vector<longs>{{}}));
  c.similarity = {{-0.0f, -0x1p-149f, inf}}, c.options.threshold = 0;
  EXPECT_EQ(merged_by<TypeParam>(c), (std::vector<longs>{{0, 2}}));
}

TYPED_TEST(WindowMerge, TheSmallerWindowWinsATie) {
  merge_case c{{1, 2}, {bare(1, 8)}, upwards(8), {{0.5f, 0.75f, 0.75f, 0.75f}}, exactly(2)};
  EXPECT_EQ(merged_by<TypeParam>(c), (std::vector<longs>{{1, 2}}));
  c.similarity = {{0, -0.0f, 0, -0.0f}}, c.options.count = 3;
  EXPECT_EQ(merged_by<TypeParam>(c), (std::vector<longs>{{0, 1, 2}}));
  c.options.order = released;
  EXPECT_EQ(window_merge<TypeParam>(c)[0].keep, (longs{0, 2, 4, 6, 7}));
}

TYPED_TEST(WindowMerge, ANanWindowNeverMergesByThresholdAndRanksLast) {
  merge_case c{{1, 2}, {bare(1, 8)}, upwards(8), {{quiet_nan, -inf, quiet_nan, 0}}, {-inf}};
  EXPECT_EQ(merged_by<TypeParam>(c), (std::vector<longs>{{1, 3}}));
  c.options.count = 2;
  EXPECT_EQ(merged_by<TypeParam>(c), (std::vector<longs>{{1, 3}}));
  c.options.count = 3;
  EXPECT_EQ(merged_by<TypeParam>(c), (std::vector<longs>{{0, 1, 3}}));
  c.options.count = 4, c.options.order = released;
  EXPECT_EQ(window_merge<TypeParam>(c)[0].keep, (longs{6, 2, 0, 4}));
}

TYPED_TEST(WindowMerge, ACountBeyondTheWindowsMergesAll) {
  auto c = two_windows();
  c.options.count = 3;
  EXPECT_EQ(merged_by<TypeParam>(c), (std::vector<longs>{{0, 1}}));
  c.options.count = md::index_t{1} << 40;
  EXPECT_EQ(merged_by<TypeParam>(c), (std::vector<longs>{{0, 1}}));
  c.requested = {2147483647};
  EXPECT_EQ(merged_by<TypeParam>(c), (std::vector<longs>{{0, 1}}));
}

TYPED_TEST(WindowMerge, ARequestCountsBeforeTheCountAndTheCountBeforeTheThreshold) {
  merge_case c{{1, 2}, {bare(1, 6), bare(1, 6)}, upwards(12), {{0.5f, 1, 1}, {1, 0.75f, 0.5f}}, {0.75f}};
  EXPECT_EQ(merged_by<TypeParam>(c), (std::vector<longs>{{1, 2}, {0, 1}}));
  c.options.count = 1;
  EXPECT_EQ(merged_by<TypeParam>(c), (std::vector<longs>{{1}, {0}}));
  c.requested = {3, 0};
  EXPECT_EQ(merged_by<TypeParam>(c), (std::vector<longs>{{0, 1, 2}, {}}));
  c.options.count = -1;
  EXPECT_EQ(merged_by<TypeParam>(c), (std::vector<longs>{{0, 1, 2}, {}}));
}

TYPED_TEST(WindowMerge, WithoutSimilaritiesTheFirstWindowsMerge) {
  merge_case c{{1, 2}, {bare(1, 6), bare(1, 4)}, upwards(10), {}, exactly(2)};
  EXPECT_EQ(merged_by<TypeParam>(c), (std::vector<longs>{{0, 1}, {0, 1}}));
  c.options.count = -1, c.requested = {1, 0};
  EXPECT_EQ(merged_by<TypeParam>(c), (std::vector<longs>{{0}, {}}));
}

TYPED_TEST(WindowMerge, TokensInFrontAndBehindAndAtRaggedEdgesStay) {
  // 3×5 patches with windows of 2×2: the last row and the last column are in none.
  merge_case const c{{2, 2}, {{3, 5, 1, 2, 2}}, upwards(19), {{1, 1}}};
  // Windows {2, 3, 7, 8} and {4, 5, 9, 10}: means 5 and 7.
  EXPECT_TRUE(same_segments(window_merge<TypeParam>(c), {{{0, 1, 5, 7, 6, 11, 12, 13, 14, 15, 16, 17, 18},
                                                          {1, 1, 4, 4, 1, 1, 1, 1, 1, 1, 1, 1, 1},
                                                          {0, 1, 2, 2, 3, 3, 4, 2, 2, 3, 3, 5, 6, 7, 8, 9, 10, 11, 12},
                                                          {0, 1, 2, 4, 6, 11, 12, 13, 14, 15, 16, 17, 18}}}));
}

TYPED_TEST(WindowMerge, AGridSmallerThanTheWindowIsCopied) {
  merge_case const c{{3, 3}, {{2, 2, 1, 1, 0}}, upwards(5), {{}}, exactly(4)};
  EXPECT_TRUE(same_segments(window_merge<TypeParam>(c), {{upwards(5), floats(5, 1.0f), {0, 1, 2, 3, 4}, {0, 1, 2, 3, 4}}}));
}

TYPED_TEST(WindowMerge, AWindowMayReachOverFrames) {
  // Three frames of 1×2, windows over two of them: the last frame is left over. Anchors lie in the earlier frame.
  merge_case const c{{1, 1, 2}, {{1, 2, 3, 1, 0}}, {9, 1, 2, 3, 6, 5, 7}, {{1, 1}}};
  EXPECT_TRUE(same_segments(window_merge<TypeParam>(c), {{{9, 2, 4, 5, 7}, {1, 2, 2, 1, 1}, {0, 1, 2, 1, 2, 3, 4}, {0, 1, 2, 5, 6}}}));
}

TYPED_TEST(WindowMerge, NoTokensNoSegmentsAndNoFeaturesAreFine) {
  EXPECT_TRUE(same_segments(window_merge<TypeParam>({{3, 3}, {}, {}, {}, exactly(1)}), {}));
  EXPECT_TRUE(same_segments(window_merge<TypeParam>({{3, 3}, {bare(0, 0)}, {}, {{}}}), {{{}, {}, {}, {}}}));
  EXPECT_TRUE(same_segments(
      window_merge<TypeParam>({{1, 2}, {bare(0, 8), {0, 0, 1, 1, 1}, bare(1, 2), bare(0, 0)}, {5, 6, 1, 3}, {{}, {}, {1}, {}}}),
      {{{}, {}, {}, {}}, {{5, 6}, {1, 1}, {0, 1}, {0, 1}}, {{2}, {2}, {0, 0}, {0}}, {{}, {}, {}, {}}}));
  merge_case c{{1, 2}, {bare(1, 3)}, {}, {{1}}};
  c.dim = 0;
  EXPECT_TRUE(same_segments(window_merge<TypeParam>(c), {{{}, {2, 1}, {0, 0, 1}, {0, 2}}}));
}

TYPED_TEST(WindowMerge, SegmentsBeginWhereTheyBeganAndHaveGridsOfTheirOwn) {
  merge_case c{{1, 2}, {{1, 2, 1, 1, 0}, bare(2, 2), bare(1, 1)}, {9, 1, 3, /**/ 5, 7, 2, 4, /**/ 8}, {{1}, {0, 1}, {}}};
  std::vector<merged_segment> const expected{
      {{9, 2}, {1, 2}, {0, 1, 1}, {0, 1}}, {{5, 7, 3}, {1, 1, 2}, {0, 1, 2, 2}, {0, 1, 2}}, {{8}, {1}, {0}, {0}}};
  EXPECT_TRUE(same_segments(window_merge<TypeParam>(c), expected));
  c.room = 3;
  EXPECT_TRUE(same_segments(window_merge<TypeParam>(c), expected));
}

// --- numbers

TYPED_TEST(WindowMerge, NanAndInfinityStayInTheirRowAndFeature) {
  constexpr float largest = std::numeric_limits<float>::max();
  merge_case c{{1, 2},
               {{1, 6, 1, 1, 0}},
               {quiet_nan, 1, /**/ quiet_nan, 2, 3, 4, /**/ inf, -inf, 1, inf, /**/ -inf, largest, 5, largest},
               {{1, 1, 1}}};
  c.dim = 2;
  EXPECT_TRUE(all_same(window_merge<TypeParam>(c)[0].rows, {quiet_nan, 1, quiet_nan, 3, inf, quiet_nan, -inf, inf}));
  c.options.count = 0;
  EXPECT_TRUE(all_same(window_merge<TypeParam>(c)[0].rows, c.features));
}

// A copied row keeps its sign; a sum begins at 0, and 0 + −0 is 0.
TYPED_TEST(WindowMerge, ACopyOfMinusZeroIsMinusZeroAndAMeanOfThemIsZero) {
  merge_case const c{{1, 2}, {bare(1, 3)}, floats(3, -0.0f), {{1}}};
  EXPECT_TRUE(all_same(window_merge<TypeParam>(c)[0].rows, {0.0f, -0.0f}));
}

// 2^24 + 1 + 1 + 2 is 2^24 + 2 one after the other (1 is lost twice), 2^24 + 4 in any order that adds small numbers first.
TYPED_TEST(WindowMerge, MembersAddUpInRasterOrder) {
  merge_case c{{2, 2}, {bare(2, 2)}, {0x1p24f, 1, 1, 2}, {{1}}};
  EXPECT_EQ(window_merge<TypeParam>(c)[0].rows[0], (0x1p24f + 2) / 4);
  c.features = {1, 1, 2, 0x1p24f};
  EXPECT_EQ(window_merge<TypeParam>(c)[0].rows[0], (0x1p24f + 4) / 4);
}

TYPED_TEST(WindowMerge, HalvesAreAddedAsFloatsAndRoundedOnce) {
  // 2048 + 1 + 1 in half arithmetic stays 2048; their mean 683.33… is 683.5 in half and 684 in bfloat16 (steps of 1/2 and 4).
  merge_case c{{1, 3}, {bare(1, 3)}, {2048, 1, 1}, {{1}}};
  EXPECT_EQ((window_merge<TypeParam, md::half>(c)[0].rows[0]), 683.5f);
  EXPECT_EQ((window_merge<TypeParam, md::half, md::bfloat16>(c)[0].rows[0]), 684.0f);
  EXPECT_EQ((window_merge<TypeParam, md::half, float>(c)[0].rows[0]), 2050.0f / 3);
  c.features = {65504, 65504, 65504};  // the largest half
  EXPECT_EQ((window_merge<TypeParam, md::half>(c)[0].rows[0]), 65504.0f);
  c.features = {1, 1.0078125f, 1.0078125f};  // 1 and the next bfloat16
  EXPECT_EQ((window_merge<TypeParam, md::bfloat16, float>(c)[0].rows[0]), 3.015625f / 3);
}

// --- against the definition

/// The header's sentences once more: rows as lists of tokens, sorted as the order says.
template <class T, class Row>
std::vector<merged_segment> by_definition(merge_case const& c) {
  std::vector<merged_segment> all;
  floats const seen = stored_as<T>(c.features);
  auto begin = seen.begin();
  for (std::size_t s = 0; s < c.grids.size(); ++s) {
    auto const windows = windows_in(c.grids[s], c.window);
    std::vector<std::size_t> ranked(windows.size());
    std::iota(ranked.begin(), ranked.end(), 0);
    auto const score = [&](std::size_t w) { return c.similarity.empty() ? 0.0f : c.similarity[s][w]; };
    std::stable_sort(ranked.begin(), ranked.end(),
                     [&](std::size_t a, std::size_t b) { return md::is_nan(score(b)) ? !md::is_nan(score(a)) : score(a) > score(b); });
    md::index_t const r = c.requested.empty() ? c.options.count : c.requested[s];
    if (r >= 0) {
      ranked.resize(std::min(ranked.size(), static_cast<std::size_t>(r)));
    } else {
      ranked.erase(std::remove_if(ranked.begin(), ranked.end(), [&](std::size_t w) { return !(score(w) >= c.options.threshold); }),
                   ranked.end());
    }

    struct output_row {
      std::int64_t place;
      longs members;
    };
    std::vector<output_row> merged, rows;
    std::vector<bool> gone(static_cast<std::size_t>(c.grids[s].tokens()), false);
    for (std::size_t const w : ranked) {
      auto const middle = ((c.window.frames - 1) / 2 * c.window.rows + (c.window.rows - 1) / 2) * c.window.cols + (c.window.cols - 1) / 2;
      merged.push_back({windows[w][static_cast<std::size_t>(middle)], windows[w]});
      for (std::int64_t const t : windows[w]) { gone[static_cast<std::size_t>(t)] = true; }
    }
    for (std::int64_t t = 0; t <= c.grids[s].tokens(); ++t) {
      if (t == c.grids[s].prefix) { rows.insert(rows.end(), merged.begin(), merged.end()); }
      if (t < c.grids[s].tokens() && !gone[static_cast<std::size_t>(t)]) { rows.push_back({t, {t}}); }
    }
    if (c.options.order == md::output_order::position) {
      std::sort(rows.begin(), rows.end(), [](auto const& a, auto const& b) { return a.place < b.place; });
    }

    merged_segment segment;
    segment.source.resize(gone.size());
    for (auto const& row : rows) {
      for (std::int64_t const t : row.members) {
        segment.source[static_cast<std::size_t>(t)] = static_cast<std::int64_t>(segment.keep.size());
      }
      segment.keep.push_back(row.place), segment.sizes.push_back(static_cast<float>(row.members.size()));
      for (md::index_t d = 0; d < c.dim; ++d) {
        float value = row.members.size() == 1 ? begin[row.place * c.dim + d] : 0;
        if (row.members.size() > 1) {
          for (std::int64_t const t : row.members) { value += begin[t * c.dim + d]; }
          value /= static_cast<float>(row.members.size());
        }
        segment.rows.push_back(md::widen(md::narrow<Row>(value)));
      }
    }
    all.push_back(segment);
    begin += c.grids[s].tokens() * c.dim;
  }
  return all;
}

/// Any grids, few different similarities, any order of authority.
merge_case random_case(std::mt19937& random, md::index_t dim) {
  std::normal_distribution<float> normal;
  merge_case c{any_window(random), {}, {}, {}};
  c.dim = dim, c.room = random() % 3 == 0 ? 2 : 0;
  constexpr float special[] = {quiet_nan, inf, -inf, -0.0f};
  for (int s = 0; s < 3; ++s) {
    c.grids.push_back(any_grid(random));
    c.similarity.emplace_back();
    for (md::index_t w = 0; w < c.window.windows(c.grids.back()); ++w) {
      c.similarity.back().push_back(random() % 16 == 0 ? special[random() % 4] : static_cast<float>(random() % 8) / 4 - 1);
    }
    for (md::index_t i = 0; i < c.grids.back().tokens() * dim; ++i) {
      c.features.push_back(random() % 64 == 0 ? special[random() % 4] : normal(random));
    }
  }
  c.options.threshold = static_cast<float>(random() % 8) / 4 - 1;
  if (random() % 2 == 0) { c.options.count = static_cast<md::index_t>(random() % 12); }
  if (random() % 2 == 0) { c.options.order = released; }
  if (random() % 4 == 0) { c.requested = {static_cast<std::int32_t>(random() % 12), 0, static_cast<std::int32_t>(random() % 12)}; }
  if (random() % 8 == 0 && (c.options.count >= 0 || !c.requested.empty())) { c.similarity.clear(); }
  return c;
}

template <class Backend, class T, class Row>
void expect_the_definition(merge_case const& c) {
  auto const got = window_merge<Backend, T, Row>(c);
  EXPECT_TRUE(same_segments(got, by_definition<T, Row>(c)));
  EXPECT_TRUE(same_segments(got, (window_merge<md::reference::backend, T, Row>(c))));
  EXPECT_TRUE(same_segments(got, (window_merge<Backend, T, Row, std::int64_t>(c)))) << "int64";
}

TYPED_TEST(WindowMerge, AgreesWithTheDefinitionInEveryTypeAndWidth) {
  std::mt19937 random = printed_random(71);
  for (md::index_t const dim : dims) {
    for (int round = 0; round < (dim == 1024 ? 1 : 15); ++round) {
      SCOPED_TRACE(testing::Message() << "dim " << dim << ", round " << round);
      auto const c = random_case(random, dim);
      expect_the_definition<TypeParam, float, float>(c);
      expect_the_definition<TypeParam, md::half, md::half>(c);
      expect_the_definition<TypeParam, md::bfloat16, md::bfloat16>(c);
      expect_the_definition<TypeParam, md::half, float>(c);
      expect_the_definition<TypeParam, float, md::bfloat16>(c);
    }
  }
}

TYPED_TEST(WindowMerge, AgreesWithTheDefinitionForEveryDimensionAroundTheVectorWidths) {
  std::mt19937 random = printed_random(72);
  for (md::index_t dim = 0; dim <= 70; ++dim) {
    SCOPED_TRACE(testing::Message() << "dim " << dim);
    expect_the_definition<TypeParam, float, float>(random_case(random, dim));
  }
}

TYPED_TEST(WindowMerge, AgreesWithTheDefinitionForEveryNumberOfWindowsAroundTheVectorWidths) {
  std::mt19937 random = printed_random(73);
  for (md::index_t windows = 0; windows <= 70; ++windows) {
    SCOPED_TRACE(testing::Message() << windows << " windows");
    merge_case c{{1, 2}, {{1, 2 * windows + 1, 1, 1, 0}}, upwards(static_cast<std::size_t>(2 * windows + 2)), {{}}};
    for (md::index_t w = 0; w < windows; ++w) {
      c.similarity[0].push_back(random() % 8 == 0 ? quiet_nan : static_cast<float>(random() % 8) / 8);
    }
    for (auto const order : {md::output_order::position, released}) {
      c.options = {0.5f, -1, order};
      expect_the_definition<TypeParam, float, float>(c);
      c.options.count = windows / 2;
      expect_the_definition<TypeParam, float, float>(c);
    }
  }
}

// 24×24 patches, the released picture.
TYPED_TEST(WindowMerge, AWholePictureAgreesWithTheDefinition) {
  std::mt19937 random = printed_random(74);
  merge_case c{{3, 3}, {{24, 24, 1, 1, 0}}, {}, {{}}};
  c.dim = 5;
  for (int i = 0; i < 577 * 5; ++i) { c.features.push_back(static_cast<float>(random() % 64)); }
  for (int w = 0; w < 64; ++w) { c.similarity[0].push_back(static_cast<float>(random() % 32) / 32); }
  for (md::index_t const r : {-1, 0, 1, 48, 56, 64}) {
    for (auto const order : {md::output_order::position, released}) {
      c.options = {0.8f, r, order};
      expect_the_definition<TypeParam, float, float>(c);
    }
  }
}

// --- laws

// Where it went is how much stands there; what stands there came from there; a sum over rows is one over tokens.
TYPED_TEST(WindowMerge, SourceSizesAndKeepTellOneStory) {
  std::mt19937 random = printed_random(75);
  for (int round = 0; round < 100; ++round) {
    auto c = random_case(random, 1);
    for (float& feature : c.features) { feature = static_cast<float>(random() % 16); }
    auto const got = window_merge<TypeParam>(c);
    auto token = c.features.begin();
    for (std::size_t s = 0; s < got.size(); ++s) {
      auto const& segment = got[s];
      floats members(segment.keep.size(), 0.0f);
      double before = 0, later = 0;
      for (std::int64_t const row : segment.source) {
        ASSERT_TRUE(0 <= row && row < static_cast<std::int64_t>(members.size())) << "round " << round;
        members[static_cast<std::size_t>(row)] += 1;
        before += double{*token++};
      }
      EXPECT_EQ(members, segment.sizes) << "round " << round;
      for (std::size_t i = 0; i < segment.keep.size(); ++i) {
        EXPECT_EQ(segment.source[static_cast<std::size_t>(segment.keep[i])], static_cast<std::int64_t>(i)) << "round " << round;
        later += double{segment.rows[i]} * double{segment.sizes[i]};
      }
      EXPECT_NEAR(later, before, before * 0x1p-23) << "round " << round;  // one rounding a row
      auto sorted = segment.keep;
      std::sort(sorted.begin(), sorted.end());
      EXPECT_EQ(std::adjacent_find(sorted.begin(), sorted.end()), sorted.end());
      if (c.options.order == md::output_order::position) { EXPECT_EQ(sorted, segment.keep) << "round " << round; }
      auto const merged = static_cast<md::index_t>(merged_windows(c, got)[s].size());
      EXPECT_EQ(static_cast<md::index_t>(segment.keep.size()), c.grids[s].tokens() - merged * (c.window.tokens() - 1));
      auto exact = c.options;
      if (!c.requested.empty()) { exact.count = c.requested[s]; }
      md::index_t const told = retained_count(exact, c.window, c.grids[s]);
      EXPECT_TRUE(exact.count < 0 ? static_cast<md::index_t>(segment.keep.size()) <= told
                                  : static_cast<md::index_t>(segment.keep.size()) == told);
    }
  }
}

TYPED_TEST(WindowMerge, BothOrdersHoldTheSameRows) {
  std::mt19937 random = printed_random(76);
  for (int round = 0; round < 50; ++round) {
    auto c = random_case(random, 3);
    c.options.order = md::output_order::position;
    auto const by_place = window_merge<TypeParam>(c);
    c.options.order = released;
    auto const by_score = window_merge<TypeParam>(c);
    for (std::size_t s = 0; s < by_place.size(); ++s) {
      ASSERT_EQ(by_place[s].keep.size(), by_score[s].keep.size());
      for (std::size_t i = 0; i < by_place[s].keep.size(); ++i) {
        auto const j = static_cast<std::size_t>(by_score[s].source[static_cast<std::size_t>(by_place[s].keep[i])]);
        EXPECT_EQ(by_score[s].keep[j], by_place[s].keep[i]);
        EXPECT_EQ(by_score[s].sizes[j], by_place[s].sizes[i]);
        for (std::size_t d = 0; d < 3; ++d) { EXPECT_TRUE(same(by_score[s].rows[3 * j + d], by_place[s].rows[3 * i + d])); }
      }
    }
  }
}

// An exact count of what the threshold chose chooses the same, NaN or not: so a count can stand for a threshold.
TYPED_TEST(WindowMerge, TheCountOfTheThresholdMergesWhatTheThresholdMerges) {
  std::mt19937 random = printed_random(77);
  for (int round = 0; round < 100; ++round) {
    auto c = random_case(random, 2);
    if (c.similarity.empty()) { continue; }
    c.requested.clear(), c.options.count = -1;
    auto const by_threshold = window_merge<TypeParam>(c);
    for (auto const& windows : merged_windows(c, by_threshold)) { c.requested.push_back(static_cast<std::int32_t>(windows.size())); }
    EXPECT_TRUE(same_segments(window_merge<TypeParam>(c), by_threshold)) << "round " << round;
  }
}

// The released code merges in every image as many windows as in the one with the fewest: the least over the counts, asked for as a count.
TYPED_TEST(WindowMerge, TheFewestOfABatchIsACountOfTheNextCall) {
  merge_case c{{1, 2}, {bare(1, 6), bare(1, 6)}, upwards(12), {{0.9f, 1, 0.95f}, {0.5f, 0.85f, 0.7f}}, {0.8f, -1, released}};
  auto const first = window_merge<TypeParam>(c);
  md::index_t fewest = 3;
  for (auto const& segment : first) { fewest = std::min(fewest, 6 - static_cast<md::index_t>(segment.keep.size())); }  // n − 1 = 1
  EXPECT_EQ(fewest, 1);
  c.options.count = fewest;
  auto const got = window_merge<TypeParam>(c);
  EXPECT_EQ(got[0].keep, (longs{2, 0, 1, 4, 5}));
  EXPECT_EQ(got[1].keep, (longs{2, 0, 1, 4, 5}));
}

TYPED_TEST(WindowMerge, ASegmentDoesNotDependOnItsNeighbours) {
  std::mt19937 random = printed_random(78);
  for (int round = 0; round < 50; ++round) {
    auto const c = random_case(random, 3);
    auto const together = window_merge<TypeParam>(c);
    merge_case turned{c.window, {}, {}, {}, c.options, {}, c.dim};
    std::vector<merged_segment> turned_expected;
    auto begin = c.features.begin();
    for (std::size_t s = 0; s < c.grids.size(); ++s) {
      merge_case alone{c.window, {c.grids[s]}, {begin, begin + c.grids[s].tokens() * c.dim}, {}, c.options, {}, c.dim};
      begin += c.grids[s].tokens() * c.dim;
      if (!c.similarity.empty()) {
        alone.similarity = {c.similarity[s]}, turned.similarity.insert(turned.similarity.begin(), c.similarity[s]);
      }
      if (!c.requested.empty()) { alone.requested = {c.requested[s]}, turned.requested.insert(turned.requested.begin(), c.requested[s]); }
      EXPECT_TRUE(same_segments(window_merge<TypeParam>(alone), {together[s]})) << "round " << round << ", segment " << s;
      turned.grids.insert(turned.grids.begin(), c.grids[s]);
      turned.features.insert(turned.features.begin(), alone.features.begin(), alone.features.end());
      turned_expected.insert(turned_expected.begin(), together[s]);
    }
    EXPECT_TRUE(same_segments(window_merge<TypeParam>(turned), turned_expected)) << "round " << round << ", last segment first";
  }
}

// --- with other words

// One layer merges windows of 2×2, a later one windows of 1×2 of what is left, on the counts of the first, which never left the backend.
TYPED_TEST(WindowMerge, CountsOfOneCallAreTheSegmentsOfTheNext) {
  TypeParam const backend{};
  floats const features{9, 1, 3, -4, -2, 3, 1, -2, -4, /**/ 8, 2, 2, 5, 7, 2, 2, 7, 5};  // CLS and 2×4 patches, twice
  std::vector<md::token_grid> const grids{{2, 4, 1, 1, 0}, {2, 4, 1, 1, 0}}, smaller{{1, 2, 1, 1, 0}, {1, 2, 1, 1, 0}};
  ints const offsets{0, 9, 18};
  md::segments const before{2, offsets.data(), nullptr, 9};
  floats rows(18, quiet_nan), sizes(18, quiet_nan), later(18, guard), later_sizes(18, guard), similarity(2, quiet_nan);
  ints source(18, -7), indices(18, -7), counts(2, -7), later_source(18, -7), later_indices(18, -7), later_counts(2, -7);
  aligned_memory scratch(std::max({md::window_merge_workspace_size(backend, {2, 2}, 18, 1, 0, before),
                                   md::window_similarity_workspace_size(backend, {1, 2}, 18, 1, before),
                                   md::window_merge_workspace_size(backend, {1, 2}, 18, 1, 1, before)}));
  ASSERT_EQ(md::window_merge(backend, exactly(2), {2, 2}, md::view(features.data(), 18, 1), before, md::view(grids.data(), 2), {}, {},
                             md::view(rows.data(), 18, 1), md::view(sizes.data(), 18), md::view(source.data(), 18),
                             md::keep_lists<std::int32_t>{md::view(indices.data(), 2, 9), md::view(counts.data(), 2)}, scratch.lend()),
            status::ok);
  EXPECT_EQ(counts, (ints{3, 3}));

  md::segments const after{2, offsets.data(), counts.data(), 9};
  ASSERT_EQ(md::window_similarity(backend, {1, 2}, md::view(rows.data(), 18, 1), after, md::view(smaller.data(), 2),
                                  md::view(similarity.data(), 2, 1), scratch.lend()),
            status::ok);
  ASSERT_EQ(md::window_merge(
                backend, {}, {1, 2}, md::view(rows.data(), 18, 1), after, md::view(smaller.data(), 2), md::view(similarity.data(), 2, 1),
                {}, md::view(later.data(), 18, 1), md::view(later_sizes.data(), 18), md::view(later_source.data(), 18),
                md::keep_lists<std::int32_t>{md::view(later_indices.data(), 2, 9), md::view(later_counts.data(), 2)}, scratch.lend()),
            status::ok);
  EXPECT_EQ(later_counts, (ints{3, 2}));  // 2 and −3 stay apart, 2 and 6 merge
  EXPECT_EQ(floats(later.begin(), later.begin() + 4), (floats{9, 2, -3, guard}));
  EXPECT_EQ(floats(later.begin() + 9, later.begin() + 12), (floats{8, 4, guard}));
  EXPECT_EQ(floats(later_sizes.begin() + 9, later_sizes.begin() + 12), (floats{1, 2, guard}));
}

// Each image merges as many windows as an earlier word kept slots of it: the request is that word's counts, where they lie.
TYPED_TEST(WindowMerge, CountsOfAnotherWordAreTheRequests) {
  TypeParam const backend{};
  floats const scores{1, 2, 3, 4}, features = upwards(8);
  ints const offsets{0, 1, 4}, tokens{0, 4, 8}, asked{0, 2};
  std::vector<md::token_grid> const grids{bare(1, 4), bare(1, 4)};
  md::segments const of_scores{2, offsets.data(), nullptr, 3}, of_tokens{2, tokens.data(), nullptr, 4};
  ints selected(6, -7), requested(2, -7), source(8, -7), indices(8, -7), counts(2, -7);
  floats rows(8, guard), sizes(8, guard);
  aligned_memory scratch(
      std::max(md::top_k_workspace_size(backend, 4, of_scores), md::window_merge_workspace_size(backend, {1, 2}, 8, 1, 0, of_tokens)));
  ASSERT_EQ(md::top_k(backend, {}, md::view(scores.data(), 4), of_scores, md::view(asked.data(), 2),
                      md::keep_lists<std::int32_t>{md::view(selected.data(), 2, 3), md::view(requested.data(), 2)}, scratch.lend()),
            status::ok);
  ASSERT_EQ(
      md::window_merge(backend, {}, {1, 2}, md::view(features.data(), 8, 1), of_tokens, md::view(grids.data(), 2), {},
                       md::view(requested.data(), 2), md::view(rows.data(), 8, 1), md::view(sizes.data(), 8), md::view(source.data(), 8),
                       md::keep_lists<std::int32_t>{md::view(indices.data(), 2, 4), md::view(counts.data(), 2)}, scratch.lend()),
      status::ok);
  EXPECT_EQ(rows, (floats{0, 1, 2, 3, 4.5f, 6.5f, guard, guard}));
  EXPECT_EQ(counts, (ints{4, 2}));
}

// Outer strides are free: features by every other row, last row first; results into rows that run backwards.
TYPED_TEST(WindowMerge, RowsMayHaveAnyStride) {
  TypeParam const backend{};
  floats const stored{7, 8, 0, 0, 3, 4, 0, 0, 1, 2};  // rows {1, 2}, {3, 4}, {7, 8}
  floats rows(9, guard), sizes(3, guard);
  ints source(3, -7), indices(3, -7), counts(1, -7);
  md::token_grid const grid = bare(1, 3);
  aligned_memory scratch(md::window_merge_workspace_size(backend, {1, 2}, 3, 2, 0, {}));
  ASSERT_EQ(md::window_merge(backend, exactly(1), {1, 2}, md::tensor_view<float const, 2>{stored.data() + 8, {3, 2}, {-4, 1}}, {},
                             md::view(&grid, 1), {}, {}, md::tensor_view<float, 2>{rows.data() + 6, {3, 2}, {-3, 1}},
                             md::view(sizes.data(), 3), md::view(source.data(), 3),
                             md::keep_lists<std::int32_t>{md::view(indices.data(), 1, 3), md::view(counts.data(), 1)}, scratch.lend()),
            status::ok);
  EXPECT_EQ(rows, (floats{guard, guard, guard, 7, 8, guard, 2, 3, guard}));
}

// Memory that ends with the last feature: a sanitizer sees a read or a write past the end of a row.
TYPED_TEST(WindowMerge, NothingIsTouchedPastTheLastRow) {
  TypeParam const backend{};
  for (md::index_t const dim : dims) {
    auto const features = upwards(static_cast<std::size_t>(4 * dim));
    std::vector<md::half> halves;
    for (float const feature : features) { halves.push_back(md::narrow<md::half>(feature / 8)); }
    floats rows(features.size(), guard), sizes(4, guard);
    std::vector<md::half> half_rows(features.size(), md::narrow<md::half>(guard));
    ints source(4, -7), indices(4, -7), counts(1, -7);
    md::token_grid const grid{1, 2, 1, 1, 1};
    aligned_memory scratch(md::window_merge_workspace_size(backend, {1, 2}, 4, dim, 0, {}));
    md::keep_lists<std::int32_t> const keep{md::view(indices.data(), 1, 4), md::view(counts.data(), 1)};
    for (md::index_t const r : {0, 1}) {
      ASSERT_EQ(
          md::window_merge(backend, exactly(r), {1, 2}, md::view(features.data(), 4, dim), {}, md::view(&grid, 1), {}, {},
                           md::view(rows.data(), 4, dim), md::view(sizes.data(), 4), md::view(source.data(), 4), keep, scratch.lend()),
          status::ok);
      ASSERT_EQ(
          md::window_merge(backend, exactly(r), {1, 2}, md::view(halves.data(), 4, dim), {}, md::view(&grid, 1), {}, {},
                           md::view(half_rows.data(), 4, dim), md::view(sizes.data(), 4), md::view(source.data(), 4), keep, scratch.lend()),
          status::ok);
      EXPECT_EQ(rows[rows.size() - 1], features.back());  // r = 0 wrote the last row, r = 1 leaves it
      EXPECT_EQ(half_rows.back().bits, halves.back().bits);
      EXPECT_EQ(rows[static_cast<std::size_t>(dim)], r == 0 ? static_cast<float>(dim) : 1.5f * static_cast<float>(dim));
    }
  }
}

TEST(WindowMergeCount, IsKnownWithoutData) {
  constexpr md::token_grid picture{24, 24, 1, 1, 0}, ragged{4, 5, 2, 2, 1};
  static_assert(retained_count(exactly(48), {3, 3}, picture) == 193);
  static_assert(retained_count(exactly(56), {3, 3}, picture) == 129);
  static_assert(retained_count(exactly(64), {3, 3}, picture) == 65);
  static_assert(retained_count(exactly(99), {3, 3}, picture) == 65);
  static_assert(retained_count(exactly(0), {3, 3}, picture) == 577);
  static_assert(retained_count(md::merge_options{}, {3, 3}, picture) == 577);  // at the most
  static_assert(retained_count(exactly(3), {2, 2}, ragged) == 43 - 3 * 3);
  static_assert(retained_count(exactly(99), {2, 2, 2}, ragged) == 43 - 4 * 7);
  static_assert(retained_count(exactly(9), {5, 5}, ragged) == 43);
}

TEST(WindowMergeWorkspace, IsAClosedFormAndNothingForTheReference) {
  static_assert(md::window_merge_workspace_size(md::reference::backend{}, {3, 3}, 577, 1024, 64, md::segments{}) == 0);
}

// --- what is refused

/// A call that is right, with a member for each thing that can be wrong.
template <class Backend>
struct merge_call {
  floats memory = floats(24, 1.0f), similar = floats(8, 1.0f), row_memory = floats(24, guard), size_memory = floats(12, guard);
  ints offsets{0, 5, 9}, requested_memory{1, 1, 1, 1}, source_memory = ints(12, -7), indices = ints(24, -7), counts = ints(4, -7);
  std::vector<md::token_grid> grid_memory{{2, 2, 1, 1, 0}, {2, 2, 1, 0, 0}, {2, 2, 1, 0, 0}};

  md::merge_options options;
  md::window_shape window{2, 2};
  md::tensor_view<float, 2> features = md::view(memory.data(), 9, 2), rows = md::view(row_memory.data(), 9, 2);
  md::tensor_view<float const, 2> similarity = md::view(similar.data(), 2, 2);
  md::segments segments{2, offsets.data(), nullptr, 5};
  md::tensor_view<md::token_grid const, 1> grids = md::view(grid_memory.data(), 2);
  md::tensor_view<std::int32_t const, 1> requested;
  md::tensor_view<float, 1> sizes = md::view(size_memory.data(), 9);
  md::tensor_view<std::int32_t, 1> source = md::view(source_memory.data(), 9);
  md::keep_lists<std::int32_t> keep{md::view(indices.data(), 2, 5), md::view(counts.data(), 2)};
  std::size_t needed = md::window_merge_workspace_size(Backend{}, window, 9, 2, 2, segments);
  aligned_memory room{needed + 64};
  md::workspace scratch = room.lend();

  md::status run() {
    return md::window_merge(Backend{}, options, window, features, segments, grids, similarity, requested, rows, sizes, source, keep,
                            scratch);
  }
};

/// What a right call answers after one change; unless it is ok, nothing may have been written.
template <class Backend, class Change>
md::status after(Change const& change) {
  merge_call<Backend> call;
  change(call);
  md::status const got = call.run();
  if (got != status::ok) {
    EXPECT_EQ(call.row_memory, floats(24, guard));
    EXPECT_EQ(call.size_memory, floats(12, guard));
    EXPECT_EQ(call.source_memory, ints(12, -7));
    EXPECT_EQ(call.indices, ints(24, -7));
    EXPECT_EQ(call.counts, ints(4, -7));
  }
  return got;
}

TYPED_TEST(WindowMerge, WrongShapesAreRefused) {
  EXPECT_EQ(after<TypeParam>([](auto&) {}), status::ok);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.requested = md::view(c.requested_memory.data(), 2); }), status::ok);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.features.sizes[0] = 8; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.features.sizes[0] = -9, c.rows.sizes[0] = -9; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.features.sizes[1] = -2, c.rows.sizes[1] = -2; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.features.data = nullptr; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.segments = {2, nullptr, nullptr, 5}; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.segments.count = -1; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.segments.longest = -1; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.segments.longest = 0; }), status::bad_shape);  // a segment could have all 9 tokens
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.grids = md::view(c.grid_memory.data(), 1); }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.grids = md::view(c.grid_memory.data(), 3); }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.grids.data = nullptr; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.similarity.sizes[0] = 1; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.similarity.sizes[0] = 3; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.similarity.sizes[1] = -1; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.requested = md::view(c.requested_memory.data(), 3); }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.requested = md::view(c.requested_memory.data(), 1); }), status::bad_shape);
}

TYPED_TEST(WindowMerge, WrongShapesOfResultsAreRefused) {
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.rows.sizes[0] = 8; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.rows.sizes[1] = 1; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.rows.data = nullptr; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.sizes.sizes[0] = 8; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.sizes.data = nullptr; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.source.sizes[0] = 8; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.source.data = nullptr; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.keep.indices.sizes[1] = 4; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.keep.indices.sizes[0] = 1; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.keep.indices.data = nullptr; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.keep.counts.sizes[0] = 1; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.keep.counts.data = nullptr; }), status::bad_shape);
}

TYPED_TEST(WindowMerge, AThresholdNeedsSimilaritiesAndAnExactCountDoesNot) {
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.similarity = {}; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.similarity = {}, c.options.count = 0; }), status::ok);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.similarity = {}, c.requested = md::view(c.requested_memory.data(), 2); }), status::ok);
}

TYPED_TEST(WindowMerge, StridesOtherThanOneAreRefused) {
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.features.strides[1] = 2; }), status::bad_stride);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.grids.strides[0] = 2; }), status::bad_stride);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.similarity.strides[1] = 2; }), status::bad_stride);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.requested = md::view(c.requested_memory.data(), 2), c.requested.strides[0] = 2; }),
            status::bad_stride);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.rows.strides[1] = 2; }), status::bad_stride);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.sizes.strides[0] = 2; }), status::bad_stride);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.source.strides[0] = 2; }), status::bad_stride);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.keep.indices.strides[1] = 2; }), status::bad_stride);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.keep.counts.strides[0] = 2; }), status::bad_stride);
}

TYPED_TEST(WindowMerge, WrongOptionsAreRefused) {
  for (auto const& window : {md::window_shape{1, 1}, {1, 1, 1}, {0, 2}, {2, 0}, {2, 2, 0}, {-1, -2}, {2, 2, -1}, {1 << 21, 1 << 21}}) {
    EXPECT_EQ(after<TypeParam>([&](auto& c) { c.window = window; }), status::bad_argument)
        << window.rows << "x" << window.cols << "x" << window.frames;
  }
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.options.count = -2; }), status::bad_argument);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.options.threshold = quiet_nan; }), status::bad_argument);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.options.threshold = -inf; }), status::ok);
}

TYPED_TEST(WindowMerge, TooLittleOrMisalignedWorkspaceIsRefused) {
  std::size_t const needed = merge_call<TypeParam>{}.needed;
  expect_wrong_workspaces_refused(needed, [](md::workspace scratch) { return after<TypeParam>([&](auto& c) { c.scratch = scratch; }); });
}

}  // namespace
