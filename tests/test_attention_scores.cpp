// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "backends.hpp"
#include "memory.hpp"
#include "ragged.hpp"
#include "refused_workspaces.hpp"

namespace {

using floats = std::vector<float>;
using ints = std::vector<std::int32_t>;
using md::status;

constexpr float guard = -7;

/// A call as data, so that the same call can be run on any backend, cut into parts, or written out in double.
struct attention_case {
  md::index_t heads = 1, kv_heads = 1, rows = 1, keys = 1, dim = 1;
  floats query, key;  // [heads, rows, dim], [kv_heads, keys, dim]
  floats map;         // [heads, rows, longest]; not empty: used instead of query and key
  md::attention_options options{};
  ints row_offsets{}, key_offsets{}, row_limits{};  // {}: one segment, no limits
  floats lse{};                                     // [heads, rows] or {}
  std::vector<md::key_span> spans{};

  md::segments row_segments() const { return cut_to_longest(row_offsets); }
  md::segments key_segments() const { return cut_to_longest(key_offsets); }
  md::index_t longest() const { return key_segments().bound(keys); }
};

struct attention_result {
  floats sum, max;  // [keys], in and out
  floats head_sum;  // [rows, longest]; `guard` where nothing is written
};

attention_result zeros(attention_case const& c) {
  auto const keys = static_cast<std::size_t>(c.keys);
  return {floats(keys, 0.0f), floats(keys, 0.0f), floats(static_cast<std::size_t>(c.rows * c.longest()), guard)};
}

template <class T>
md::tensor_view<T const, 1> optional_view(std::vector<T> const& values) {
  return values.empty() ? md::tensor_view<T const, 1>{} : md::view(values.data(), values.size());
}

template <class Backend>
attention_result attend(attention_case const& c, attention_result into) {
  Backend const backend{};
  auto const row_segments = c.row_segments(), key_segments = c.key_segments();
  md::attention_shape const shape{c.heads, c.rows, c.keys, c.map.empty() ? c.kv_heads : 0, c.map.empty() ? c.dim : 0};
  aligned_memory memory(md::attention_scores_workspace_size(backend, shape, row_segments, key_segments));
  auto const limits = optional_view(c.row_limits);
  auto const spans = optional_view(c.spans);
  auto const lse = c.lse.empty() ? md::tensor_view<float const, 2>{} : md::view(c.lse.data(), c.heads, c.rows);
  auto const sum = md::view(into.sum.data(), c.keys), max = md::view(into.max.data(), c.keys);
  auto const head_sum = md::view(into.head_sum.data(), c.rows, c.longest());
  status const got = c.map.empty() ? md::attention_scores(backend, c.options, md::view(c.query.data(), c.heads, c.rows, c.dim),
                                                          md::view(c.key.data(), c.kv_heads, c.keys, c.dim), row_segments, key_segments,
                                                          limits, lse, spans, sum, max, head_sum, memory.lend())
                                   : md::attention_scores(backend, c.options, md::view(c.map.data(), c.heads, c.rows, c.longest()),
                                                          row_segments, key_segments, limits, spans, sum, max, head_sum, memory.lend());
  EXPECT_EQ(got, status::ok) << message(got);
  return into;
}

template <class Backend>
attention_result attend(attention_case const& c) {
  return attend<Backend>(c, zeros(c));
}

/// The same bits, any NaN like any other.
testing::AssertionResult all_same(floats const& got, floats const& expected) {
  if (got.size() != expected.size()) { return testing::AssertionFailure() << got.size() << " numbers, not " << expected.size(); }
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (!same(got[i], expected[i])) { return testing::AssertionFailure() << "[" << i << "] is " << got[i] << ", not " << expected[i]; }
  }
  return testing::AssertionSuccess();
}

testing::AssertionResult all_same(attention_result const& got, attention_result const& expected) {
  if (auto const sum = all_same(got.sum, expected.sum); !sum) { return testing::AssertionFailure() << "sum" << sum.message(); }
  if (auto const max = all_same(got.max, expected.max); !max) { return testing::AssertionFailure() << "max" << max.message(); }
  if (auto const map = all_same(got.head_sum, expected.head_sum); !map) {
    return testing::AssertionFailure() << "head_sum" << map.message();
  }
  return testing::AssertionSuccess();
}

/// One head, features of size 1: the logits are query[t]·key[j].
attention_case one_head(floats query, floats key) {
  attention_case c;
  c.rows = static_cast<md::index_t>(query.size()), c.keys = static_cast<md::index_t>(key.size());
  c.query = std::move(query), c.key = std::move(key);
  return c;
}

attention_case from_map(md::index_t heads, md::index_t rows, md::index_t keys, floats map) {
  attention_case c;
  c.heads = heads, c.rows = rows, c.keys = keys, c.map = std::move(map);
  return c;
}

template <class Backend>
struct AttentionScores : testing::Test {};
TYPED_TEST_SUITE(AttentionScores, Backends);

// Equal logits give 1 / n, and a logit 128 below the highest gives +0: softmaxes that one can write down exactly.

TYPED_TEST(AttentionScores, EqualLogitsShareEvenly) {
  auto const got = attend<TypeParam>(one_head({0, 1}, {1, 1, 1, 1}));
  EXPECT_TRUE(all_same(got, {{0.5f, 0.5f, 0.5f, 0.5f}, {0.25f, 0.25f, 0.25f, 0.25f}, floats(8, 0.25f)}));
}

TYPED_TEST(AttentionScores, AKeyFarAboveTheOthersTakesAll) {
  auto const got = attend<TypeParam>(one_head({1, -1}, {0, 128, -128, 0}));
  EXPECT_TRUE(all_same(got, {{0, 1, 1, 0}, {0, 1, 1, 0}, {0, 1, 0, 0, 0, 0, 1, 0}}));
}

TYPED_TEST(AttentionScores, OnlyDifferencesBetweenLogitsCount) {
  EXPECT_TRUE(all_same(attend<TypeParam>(one_head({1}, {-200, -200, -328})).sum, {0.5f, 0.5f, 0}));
  EXPECT_TRUE(all_same(attend<TypeParam>(one_head({1}, {0x1p100f, 0x1p100f, 0})).sum, {0.5f, 0.5f, 0}));
}

// The bits of a weight: our exp of what the logit is below the highest, over their sum by 32 lanes, in one division.
TYPED_TEST(AttentionScores, AWeightIsAnExponentialOverTheirSumByLanes) {
  for (std::size_t const n : {2u, 3u, 31u, 32u, 33u, 64u, 100u}) {
    floats below(n), weights(n);
    md::lane_sum whole;
    for (std::size_t j = 0; j < n; ++j) {
      below[j] = -static_cast<float>(j * 5 % 23) / 8, weights[j] = md::exp(below[j]);
      whole.add(static_cast<md::index_t>(j), weights[j]);
    }
    for (float& weight : weights) { weight /= whole.total(); }
    EXPECT_TRUE(all_same(attend<TypeParam>(one_head({1}, below)).sum, weights)) << n << " keys";
  }
}

TYPED_TEST(AttentionScores, ZeroVectorsAttendToAllAlike) {
  attention_case c;
  c.rows = 1, c.keys = 2, c.dim = 3, c.query = {0, 0, 0}, c.key = {1, 2, 3, 0, 0, 0};
  EXPECT_TRUE(all_same(attend<TypeParam>(c), {{0.5f, 0.5f}, {0.5f, 0.5f}, {0.5f, 0.5f}}));
}

TYPED_TEST(AttentionScores, OneKeyTakesAllAndNoKeyNothing) {
  EXPECT_TRUE(all_same(attend<TypeParam>(one_head({3}, {-5})), {{1}, {1}, {1}}));
  EXPECT_TRUE(all_same(attend<TypeParam>(one_head({3}, {})), {{}, {}, {}}));
}

TYPED_TEST(AttentionScores, NoRowsLeaveTheScoresDecayed) {
  auto c = one_head({}, {1, 2});
  EXPECT_TRUE(all_same(attend<TypeParam>(c, {{1, 2}, {3, quiet_nan}, {}}), {{1, 2}, {3, quiet_nan}, {}}));
  c.options.decay = 0.5f;
  EXPECT_TRUE(all_same(attend<TypeParam>(c, {{1, 2}, {3, quiet_nan}, {}}), {{0.5f, 1}, {1.5f, quiet_nan}, {}}));
}

TYPED_TEST(AttentionScores, SumAddsRowsAndMaxTakesTheLargest) {
  auto const got = attend<TypeParam>(from_map(1, 3, 2, {0.25f, 0.5f, 0.75f, 0, 0.5f, 0.25f}));
  EXPECT_TRUE(all_same(got.sum, {1.5f, 0.75f}));
  EXPECT_TRUE(all_same(got.max, {0.75f, 0.5f}));
}

TYPED_TEST(AttentionScores, ScoresContinueFromWhatTheyWere) {
  auto const c = from_map(1, 1, 3, {0.5f, 0.25f, 0});
  auto const got = attend<TypeParam>(c, {{1, 2, 3}, {0.25f, 0.5f, 0.125f}, {0, 0, 0}});
  EXPECT_TRUE(all_same(got.sum, {1.5f, 2.25f, 3}));
  EXPECT_TRUE(all_same(got.max, {0.5f, 0.5f, 0.125f}));
}

TYPED_TEST(AttentionScores, DecayMultipliesOnceACallBeforeItsRows) {
  auto c = from_map(1, 2, 2, {0.5f, 0, 0.5f, 0.25f});
  c.options.decay = 0.5f;
  auto const got = attend<TypeParam>(c, {{4, 8}, {0.75f, 1}, floats(4, guard)});
  EXPECT_TRUE(all_same(got.sum, {3, 4.25f}));
  EXPECT_TRUE(all_same(got.max, {0.5f, 0.5f}));
  c.options.decay = 0;
  EXPECT_TRUE(all_same(attend<TypeParam>(c, {{4, 8}, {0.75f, 1}, floats(4, guard)}).sum, {1, 0.25f}));
}

TYPED_TEST(AttentionScores, WeightsAreTheMeanOverHeads) {
  auto c = from_map(4, 1, 2, {1, 0, 0.5f, 0.5f, 0.25f, 0.75f, 0.25f, 0.75f});
  EXPECT_TRUE(all_same(attend<TypeParam>(c), {{0.5f, 0.5f}, {0.5f, 0.5f}, {2, 2}}));
  c.options.heads_total = 16;  // of which this rank has 4
  EXPECT_TRUE(all_same(attend<TypeParam>(c), {{0.125f, 0.125f}, {0.125f, 0.125f}, {2, 2}}));
}

// GQA: with 4 heads on 2 key heads, heads 0 and 1 read key head 0. Key head 0 favours key 0, key head 1 favours key 1.
TYPED_TEST(AttentionScores, ConsecutiveQueryHeadsShareAKeyHead) {
  attention_case c;
  c.heads = 4, c.kv_heads = 2, c.keys = 2, c.query = {1, 1, 0, 1}, c.key = {128, 0, 0, 128};
  EXPECT_TRUE(all_same(attend<TypeParam>(c).head_sum, {2.5f, 1.5f}));  // 1 + 1 + ½ + 0, 0 + 0 + ½ + 1
}

TYPED_TEST(AttentionScores, ANegativeScaleTurnsTheOrderRound) {
  auto c = one_head({1}, {0, 64, -64});
  c.options.scale = 2;
  EXPECT_TRUE(all_same(attend<TypeParam>(c).sum, {0, 1, 0}));
  c.options.scale = -2;
  EXPECT_TRUE(all_same(attend<TypeParam>(c).sum, {0, 0, 1}));
  c.options.scale = 0;
  c.key = {0, 64, -64, 1}, c.keys = 4;
  EXPECT_TRUE(all_same(attend<TypeParam>(c).sum, floats(4, 0.25f)));
}

TYPED_TEST(AttentionScores, ARowSeesTheKeysBelowItsLimit) {
  auto c = one_head({0, 0, 0, 0, 0, 0}, {1, 1, 1, 1});
  c.row_limits = {-3, 0, 1, 2, 4, 99};
  auto const got = attend<TypeParam>(c);
  EXPECT_TRUE(all_same(got.sum, {2, 1, 0.5f, 0.5f}));
  EXPECT_TRUE(all_same(got.max, {1, 0.5f, 0.25f, 0.25f}));
  EXPECT_TRUE(all_same(got.head_sum, {0,         0,    0, 0, /**/ 0,     0,     0,     0,     /**/ 1,     0,     0,     0,
                                      /**/ 0.5f, 0.5f, 0, 0, /**/ 0.25f, 0.25f, 0.25f, 0.25f, /**/ 0.25f, 0.25f, 0.25f, 0.25f}));
}

TYPED_TEST(AttentionScores, LimitsCutAMapToo) {
  auto c = from_map(1, 3, 2, {0.5f, quiet_nan, 0.25f, 0.75f, quiet_nan, quiet_nan});  // what a row does not see is not read
  c.row_limits = {1, 2, 0};
  EXPECT_TRUE(all_same(attend<TypeParam>(c), {{0.75f, 0.75f}, {0.5f, 0.75f}, {0.5f, 0, 0.25f, 0.75f, 0, 0}}));
}

TYPED_TEST(AttentionScores, OnlySpansAreWrittenAndTheSoftmaxRunsOverEverything) {
  auto c = one_head({0, 0}, {1, 1, 1, 1});
  c.spans = {{1, 3}}, c.options.decay = 0.5f;
  auto const got = attend<TypeParam>(c, {floats(4, 2.0f), floats(4, 0.25f), floats(8, guard)});
  EXPECT_TRUE(all_same(got, {{2, 1.5f, 1.5f, 2}, {0.25f, 0.25f, 0.25f, 0.25f}, {guard, 0.25f, 0.25f, guard, guard, 0.25f, 0.25f, guard}}));
  c.row_limits = {2, 0};
  EXPECT_TRUE(all_same(attend<TypeParam>(c).head_sum, {guard, 0.5f, 0, guard, guard, 0, 0, guard}));
  c.spans = {{2, 2}};
  EXPECT_TRUE(all_same(attend<TypeParam>(c), zeros(c)));
}

TYPED_TEST(AttentionScores, RowsOfASegmentSeeItsKeysOnly) {
  attention_case c = one_head({0, 0, 0, 0}, {1, 1, 1, 1, 1, 1, 1});
  // Segments: 1 row on 4 keys, no row on 1 key, 1 row on no key, 2 rows on 2 keys.
  c.row_offsets = {0, 1, 1, 2, 4}, c.key_offsets = {0, 4, 5, 5, 7}, c.row_limits = {9, 9, 1, 2};
  auto const got = attend<TypeParam>(c);
  EXPECT_TRUE(all_same(got.sum, {0.25f, 0.25f, 0.25f, 0.25f, 0, 1.5f, 0.5f}));
  EXPECT_TRUE(all_same(got.max, {0.25f, 0.25f, 0.25f, 0.25f, 0, 1, 0.5f}));
  EXPECT_TRUE(all_same(
      got.head_sum, {0.25f, 0.25f, 0.25f, 0.25f, /**/ guard, guard, guard, guard, /**/ 1, 0, guard, guard, /**/ 0.5f, 0.5f, guard, guard}));
}

TYPED_TEST(AttentionScores, AMapsColumnsCountFromTheSegmentsBegin) {
  auto c = from_map(1, 2, 3, {0.5f, quiet_nan, 0.75f, 0.25f});  // segments of 1 and 2 keys, rows padded to 2 columns
  c.row_offsets = {0, 1, 2}, c.key_offsets = {0, 1, 3};
  EXPECT_TRUE(all_same(attend<TypeParam>(c), {{0.5f, 0.75f, 0.25f}, {0.5f, 0.75f, 0.25f}, {0.5f, guard, 0.75f, 0.25f}}));
}

// Eager attention of several requests padded to a length: more columns than any segment has.
TYPED_TEST(AttentionScores, AMapMayBePaddedBeyondTheSegments) {
  floats const map{0.5f, 0.25f, quiet_nan, quiet_nan, 0.75f, 0, quiet_nan, quiet_nan};
  floats sum(2, 0.0f), max(2, 0.0f);
  TypeParam const backend{};
  aligned_memory memory(md::attention_scores_workspace_size(backend, {1, 2, 2, 0, 0}, {}, {}));
  ASSERT_EQ(md::attention_scores(backend, {}, md::view(map.data(), 1, 2, 4), {}, {}, {}, {}, md::view(sum.data(), 2),
                                 md::view(max.data(), 2), {}, memory.lend()),
            status::ok);
  EXPECT_TRUE(all_same(sum, {1.25f, 0.25f}));
  EXPECT_TRUE(all_same(max, {0.75f, 0.25f}));
}

TYPED_TEST(AttentionScores, AMapMayHaveAnyStrides) {
  std::mt19937 random = printed_random(40);
  constexpr md::index_t heads = 3, rows = 4, keys = 5;
  auto c = from_map(heads, rows, keys, floats(heads * rows * keys));
  for (float& weight : c.map) { weight = static_cast<float>(random() % 64) / 64; }
  auto const plain = attend<TypeParam>(c);

  TypeParam const backend{};
  aligned_memory memory(md::attention_scores_workspace_size(backend, {heads, rows, keys, 0, 0}, {}, {}));
  // Heads innermost and rows backwards; rows innermost; every other element; heads innermost and every other element.
  for (auto const& strides : {std::vector<md::index_t>{1, -15, 3}, {4, 1, 12}, {40, 10, 2}, {2, 6, 24}}) {
    md::index_t const first = strides[1] < 0 ? -strides[1] * (rows - 1) : 0;
    floats stored(200, quiet_nan);
    md::tensor_view<float, 3> const map{stored.data() + first, {heads, rows, keys}, {strides[0], strides[1], strides[2]}};
    for (md::index_t h = 0; h < heads; ++h) {
      for (md::index_t t = 0; t < rows; ++t) {
        for (md::index_t j = 0; j < keys; ++j) { map(h, t, j) = md::view(c.map.data(), heads, rows, keys)(h, t, j); }
      }
    }
    auto got = zeros(c);
    ASSERT_EQ(md::attention_scores(backend, {}, map, {}, {}, {}, {}, md::view(got.sum.data(), keys), md::view(got.max.data(), keys),
                                   md::view(got.head_sum.data(), rows, keys), memory.lend()),
              status::ok);
    EXPECT_TRUE(all_same(got, plain)) << "strides " << strides[0] << ", " << strides[1] << ", " << strides[2];
  }
}

TYPED_TEST(AttentionScores, HeadSumAloneIsEnough) {
  auto const c = one_head({1, 0}, {128, 0});
  auto const whole = attend<TypeParam>(c);
  TypeParam const backend{};
  aligned_memory memory(md::attention_scores_workspace_size(backend, {1, 2, 2, 1, 1}, {}, {}));
  floats head_sum(4, guard);
  ASSERT_EQ(md::attention_scores(backend, {}, md::view(c.query.data(), 1, 2, 1), md::view(c.key.data(), 1, 2, 1), {}, {}, {}, {}, {}, {},
                                 {}, md::view(head_sum.data(), 2, 2), memory.lend()),
            status::ok);
  EXPECT_TRUE(all_same(head_sum, whole.head_sum));
  floats from_whole(4, guard);
  ASSERT_EQ(md::attention_scores(backend, {}, md::view(head_sum.data(), 1, 2, 2), {}, {}, {}, {}, {}, {}, md::view(from_whole.data(), 2, 2),
                                 memory.lend()),
            status::ok);
  EXPECT_TRUE(all_same(from_whole, head_sum));
}

TYPED_TEST(AttentionScores, SumAndMaxWithoutHeadSumAreTheSame) {
  auto const c = one_head({1, 0, -1}, {2, 0, -1});
  auto const whole = attend<TypeParam>(c);
  TypeParam const backend{};
  aligned_memory memory(md::attention_scores_workspace_size(backend, {1, 3, 3, 1, 1}, {}, {}));
  floats sum(3, 0.0f), max(3, 0.0f);
  ASSERT_EQ(md::attention_scores(backend, {}, md::view(c.query.data(), 1, 3, 1), md::view(c.key.data(), 1, 3, 1), {}, {}, {}, {}, {},
                                 md::view(sum.data(), 3), md::view(max.data(), 3), {}, memory.lend()),
            status::ok);
  EXPECT_TRUE(all_same(sum, whole.sum));
  EXPECT_TRUE(all_same(max, whole.max));
}

// --- NaN and infinities

TYPED_TEST(AttentionScores, NanInTheQueryPoisonsItsRowAlone) {
  auto c = one_head({0, quiet_nan}, {1, 1});
  c.row_limits = {2, 1};
  EXPECT_TRUE(all_same(attend<TypeParam>(c), {{quiet_nan, 0.5f}, {quiet_nan, 0.5f}, {0.5f, 0.5f, quiet_nan, 0}}));
}

TYPED_TEST(AttentionScores, NanInAKeyPoisonsTheRowsThatSeeIt) {
  auto c = one_head({0, 0}, {1, 1, quiet_nan, 1});
  c.row_limits = {2, 4};
  EXPECT_TRUE(all_same(attend<TypeParam>(c).head_sum, {0.5f, 0.5f, 0, 0, quiet_nan, quiet_nan, quiet_nan, quiet_nan}));
  c.row_limits = {2, 1};
  EXPECT_TRUE(all_same(attend<TypeParam>(c), {{1.5f, 0.5f, 0, 0}, {1, 0.5f, 0, 0}, {0.5f, 0.5f, 0, 0, 1, 0, 0, 0}}));
}

TYPED_TEST(AttentionScores, NanInOneHeadMakesTheMeanNan) {
  auto c = one_head({0}, {1, 1});
  c.heads = 2, c.query = {0, quiet_nan};
  EXPECT_TRUE(all_same(attend<TypeParam>(c), {{quiet_nan, quiet_nan}, {quiet_nan, quiet_nan}, {quiet_nan, quiet_nan}}));
}

TYPED_TEST(AttentionScores, NanInAMapPoisonsItsKeyAlone) {
  auto const c = from_map(2, 2, 3, {0.5f, quiet_nan, 0, /**/ 0.5f, 0.5f, 0, /**/ 0.25f, 0, 0, /**/ 0.25f, 0, 0});
  EXPECT_TRUE(all_same(attend<TypeParam>(c).sum, {0.75f, quiet_nan, 0}));
  EXPECT_TRUE(all_same(attend<TypeParam>(c).max, {0.375f, quiet_nan, 0}));  // a NaN of an early row stays
}

TYPED_TEST(AttentionScores, NanInTheScoresStays) {
  auto const got = attend<TypeParam>(from_map(1, 1, 2, {0.5f, 0.5f}), {{quiet_nan, 0}, {0, quiet_nan}, {0, 0}});
  EXPECT_TRUE(all_same(got.sum, {quiet_nan, 0.5f}));
  EXPECT_TRUE(all_same(got.max, {0.5f, quiet_nan}));
}

TYPED_TEST(AttentionScores, NanInALogSumExpPoisonsItsRowAlone) {
  auto c = one_head({0, 0}, {1, 1});
  c.lse = {quiet_nan, 0}, c.row_limits = {1, 2};
  EXPECT_TRUE(all_same(attend<TypeParam>(c), {{quiet_nan, 1}, {quiet_nan, 1}, {quiet_nan, 0, 1, 1}}));
}

TYPED_TEST(AttentionScores, InfiniteLogitsAreNotASoftmax) {
  EXPECT_TRUE(all_same(attend<TypeParam>(one_head({1}, {-inf, -inf})).sum, {quiet_nan, quiet_nan}));
  EXPECT_TRUE(all_same(attend<TypeParam>(one_head({1}, {inf, 0})).sum, {quiet_nan, quiet_nan}));
  EXPECT_TRUE(all_same(attend<TypeParam>(one_head({-1}, {inf, inf})).sum, {quiet_nan, quiet_nan}));
  EXPECT_TRUE(all_same(attend<TypeParam>(one_head({inf}, {0, 1})).sum, {quiet_nan, quiet_nan}));  // ∞·0
}

TYPED_TEST(AttentionScores, AKeyMaskedWithMinusInfinityGetsNothing) {
  EXPECT_TRUE(all_same(attend<TypeParam>(one_head({1}, {3, -inf, 3})).sum, {0.5f, 0, 0.5f}));
}

TYPED_TEST(AttentionScores, SoftcapTamesAnInfiniteLogit) {
  auto c = one_head({1}, {inf, inf, -inf});
  c.options.softcap = 64;  // logits 64, 64, −64
  EXPECT_TRUE(all_same(attend<TypeParam>(c).sum, {0.5f, 0.5f, 0}));
}

// --- the given log-sum-exp

TYPED_TEST(AttentionScores, WithALogSumExpWeightsAreItsExponentials) {
  auto c = one_head({1, 1}, {3, 3, -200});
  c.lse = {3, 300};
  EXPECT_TRUE(all_same(attend<TypeParam>(c), {{1, 1, 0}, {1, 1, 0}, {1, 1, 0, 0, 0, 0}}));
}

TYPED_TEST(AttentionScores, ABase2LogSumExpIsTimesLn2) {
  auto base_e = one_head({1}, {0.5f, 1, -2});
  auto base_2 = base_e;
  base_2.lse = {2.5f}, base_2.options.lse_base = md::log_base::two;
  base_e.lse = {2.5f * 0.693147181f};  // rounded once
  EXPECT_TRUE(all_same(attend<TypeParam>(base_2), attend<TypeParam>(base_e)));
}

TYPED_TEST(AttentionScores, ALogSumExpMayHaveAnyStrides) {
  attention_case c;
  c.heads = 2, c.kv_heads = 1, c.rows = 3, c.keys = 2;
  c.query = {0, 1, 2, 3, -1, -2}, c.key = {1, 2}, c.lse = {1, 2, 3, 4, 5, 6};
  auto const plain = attend<TypeParam>(c);
  floats const transposed{1, 4, 2, 5, 3, 6};
  md::tensor_view<float const, 2> const lse{transposed.data(), {2, 3}, {1, 2}};
  TypeParam const backend{};
  aligned_memory memory(md::attention_scores_workspace_size(backend, {2, 3, 2, 1, 1}, {}, {}));
  auto got = zeros(c);
  ASSERT_EQ(
      md::attention_scores(backend, {}, md::view(c.query.data(), 2, 3, 1), md::view(c.key.data(), 1, 2, 1), {}, {}, {}, lse, {},
                           md::view(got.sum.data(), 2), md::view(got.max.data(), 2), md::view(got.head_sum.data(), 3, 2), memory.lend()),
      status::ok);
  EXPECT_TRUE(all_same(got, plain));
}

// --- against double

struct double_result {
  std::vector<double> sum, max, head_sum;
};

/// The weights of one row and head over the keys it sees, as the header's formula says.
std::vector<double> row_in_double(attention_case const& c, md::index_t h, md::index_t t, md::index_t begin, md::index_t seen) {
  auto const query = md::view(c.query.data(), c.heads, c.rows, c.dim);
  auto const keys = md::view(c.key.data(), c.kv_heads, c.keys, c.dim);
  std::vector<double> logits, weights;
  double whole = 0;
  for (md::index_t j = 0; j < seen; ++j) {
    double dot = 0;
    for (md::index_t d = 0; d < c.dim; ++d) {
      dot += static_cast<double>(query(h, t, d)) * static_cast<double>(keys(h * c.kv_heads / c.heads, begin + j, d));
    }
    double const logit = dot * static_cast<double>(c.options.scale), cap = static_cast<double>(c.options.softcap);
    logits.push_back(cap > 0 ? cap * std::tanh(logit / cap) : logit);
    EXPECT_LE(std::fabs(logits.back()), 16) << "the tolerance of this test is argued for smaller logits";
    whole += std::exp(logits.back());
  }
  double const ln2 = std::log(2.0);
  double const given = c.lse.empty() ? 0 : static_cast<double>(md::view(c.lse.data(), c.heads, c.rows)(h, t));
  double const lse = c.lse.empty() ? std::log(whole) : c.options.lse_base == md::log_base::two ? given * ln2 : given;
  for (double const logit : logits) { weights.push_back(std::exp(logit - lse)); }
  return weights;
}

double_result in_double(attention_case const& c) {
  auto const plain = zeros(c);
  double_result out{
      {plain.sum.begin(), plain.sum.end()}, {plain.max.begin(), plain.max.end()}, {plain.head_sum.begin(), plain.head_sum.end()}};
  auto const total = static_cast<double>(c.options.heads_total > 0 ? c.options.heads_total : c.heads);
  for (std::size_t s = 0; s + 1 < c.key_offsets.size(); ++s) {
    md::index_t const begin = c.key_offsets[s], size = c.key_offsets[s + 1] - begin;
    for (md::index_t t = c.row_offsets[s]; t < c.row_offsets[s + 1]; ++t) {
      md::index_t const limit = c.row_limits.empty() ? size : c.row_limits[static_cast<std::size_t>(t)];
      std::vector<double> over_heads(static_cast<std::size_t>(size), 0.0);
      for (md::index_t h = 0; h < c.heads; ++h) {
        auto const weights = row_in_double(c, h, t, begin, std::clamp<md::index_t>(limit, 0, size));
        for (std::size_t j = 0; j < weights.size(); ++j) { over_heads[j] += weights[j]; }
      }
      for (std::size_t j = 0; j < over_heads.size(); ++j) {
        auto const key = static_cast<std::size_t>(begin) + j;
        out.sum[key] += over_heads[j] / total, out.max[key] = std::max(out.max[key], over_heads[j] / total);
        out.head_sum[static_cast<std::size_t>(t * c.longest()) + j] = over_heads[j];
      }
    }
  }
  return out;
}

// Relative, as every weight is positive and nothing cancels. In units of 2^-24, with logits within ±16, at most 100 keys, 8 heads and 9 rows:
// dots are exact (multiples of 1/64 below 2^10); logit − lse is one rounding of a number below 32, and lse itself is rounded twice more: 3·32;
// softcap·tanh is off by 8·1e-7 through tanh and 3 roundings of its argument, for a logit and for the softmax's denominator: 2·8·4;
// exp 2, denominator 4 + 5 additions, division 1, heads 8, division 1, rows 9. Together below 200·2^-24 < 2^-16. No weight underflows: a
// logit is at most 32 below another.
constexpr double tolerance = 0x1p-16;

testing::AssertionResult all_near(floats const& got, std::vector<double> const& expected) {
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (!(std::fabs(static_cast<double>(got[i]) - expected[i]) <= tolerance * std::fabs(expected[i]))) {
      return testing::AssertionFailure() << "[" << i << "] is " << got[i] << ", not " << expected[i];
    }
  }
  return testing::AssertionSuccess();
}

testing::AssertionResult all_near(attention_result const& got, double_result const& expected) {
  if (auto const sum = all_near(got.sum, expected.sum); !sum) { return testing::AssertionFailure() << "sum" << sum.message(); }
  if (auto const max = all_near(got.max, expected.max); !max) { return testing::AssertionFailure() << "max" << max.message(); }
  if (auto const map = all_near(got.head_sum, expected.head_sum); !map) {
    return testing::AssertionFailure() << "head_sum" << map.message();
  }
  return testing::AssertionSuccess();
}

floats eighths(std::mt19937& random, md::index_t n) {
  floats values(static_cast<std::size_t>(n));
  for (float& value : values) { value = static_cast<float>(random() % 17) / 8 - 1; }
  return values;
}

/// Three segments of rows and keys, some of them empty; heads, groups and limits at random.
attention_case random_case(std::mt19937& random, md::index_t dim) {
  constexpr md::index_t key_counts[] = {0, 1, 3, 17, 31, 32, 33, 64, 100};
  auto const below = [&](std::uint32_t n) { return static_cast<md::index_t>(random() % n); };
  attention_case c;
  c.dim = dim, c.kv_heads = 1 + below(3), c.heads = c.kv_heads * (1 + below(2));
  c.row_offsets = {0}, c.key_offsets = {0};
  for (int s = 0; s < 3; ++s) {
    c.row_offsets.push_back(c.row_offsets.back() + static_cast<std::int32_t>(below(4)));
    c.key_offsets.push_back(c.key_offsets.back() + static_cast<std::int32_t>(key_counts[below(9)]));
  }
  c.rows = c.row_offsets.back(), c.keys = c.key_offsets.back();
  c.query = eighths(random, c.heads * c.rows * dim), c.key = eighths(random, c.kv_heads * c.keys * dim);
  c.options.scale = 1 / std::sqrt(static_cast<float>(dim));
  if (below(2) == 0) {
    for (md::index_t t = 0; t < c.rows; ++t) { c.row_limits.push_back(static_cast<std::int32_t>(below(120)) - 5); }
  }
  if (below(3) == 0) { c.options.heads_total = c.heads * 2; }
  if (below(3) == 0) { c.options.softcap = 1 + static_cast<float>(below(7)); }
  return c;
}

constexpr md::index_t dims[] = {1, 3, 17, 31, 32, 33, 64, 1024};

TYPED_TEST(AttentionScores, AgreesWithDoubleAndWithTheReference) {
  std::mt19937 random = printed_random(41);
  for (md::index_t const dim : dims) {
    for (int round = 0; round < 8; ++round) {
      auto const c = random_case(random, dim);
      auto const got = attend<TypeParam>(c);
      EXPECT_TRUE(all_near(got, in_double(c))) << "dim " << dim << ", round " << round;
      EXPECT_TRUE(all_same(got, attend<md::reference::backend>(c))) << "dim " << dim << ", round " << round;
    }
  }
}

TYPED_TEST(AttentionScores, WithALogSumExpAgreesWithDoubleAndWithTheReference) {
  std::mt19937 random = printed_random(42);
  for (md::index_t const dim : dims) {
    for (int round = 0; round < 8; ++round) {
      auto c = random_case(random, dim);
      c.options.lse_base = round % 2 == 0 ? md::log_base::e : md::log_base::two;
      for (md::index_t i = 0; i < c.heads * c.rows; ++i) {
        c.lse.push_back(static_cast<float>(random() % 64) / 8 + 1);
      }  // any number will do
      auto const got = attend<TypeParam>(c);
      EXPECT_TRUE(all_near(got, in_double(c))) << "dim " << dim << ", round " << round;
      EXPECT_TRUE(all_same(got, attend<md::reference::backend>(c))) << "dim " << dim << ", round " << round;
    }
  }
}

TYPED_TEST(AttentionScores, TheMapFormReadsThePlainSums) {
  std::mt19937 random = printed_random(43);
  for (int round = 0; round < 50; ++round) {
    auto c = random_case(random, 1);
    while (c.rows * c.longest() == 0) { c = random_case(random, 1); }  // an empty map is no map
    c.map.resize(static_cast<std::size_t>(c.heads * c.rows * c.longest()));
    for (float& weight : c.map) { weight = static_cast<float>(random() % 64) / 64; }
    auto const map = md::view(c.map.data(), c.heads, c.rows, c.longest());
    auto expected = zeros(c);  // multiples of 1/64: sums over heads are exact, then one division, then rows in order
    auto const total = static_cast<float>(c.options.heads_total > 0 ? c.options.heads_total : c.heads);
    for (std::size_t s = 0; s < 3; ++s) {
      for (md::index_t t = c.row_offsets[s]; t < c.row_offsets[s + 1]; ++t) {
        for (md::index_t j = 0; j < c.key_offsets[s + 1] - c.key_offsets[s]; ++j) {
          float over_heads = 0;
          bool const seen = c.row_limits.empty() || j < c.row_limits[static_cast<std::size_t>(t)];
          for (md::index_t h = 0; seen && h < c.heads; ++h) { over_heads += map(h, t, j); }
          auto const key = static_cast<std::size_t>(c.key_offsets[s] + j);
          expected.sum[key] += over_heads / total, expected.max[key] = std::max(expected.max[key], over_heads / total);
          md::view(expected.head_sum.data(), c.rows, c.longest())(t, j) = over_heads;
        }
      }
    }
    EXPECT_TRUE(all_same(attend<TypeParam>(c), expected)) << "round " << round;
  }
}

// --- cutting a call into parts

/// Rows [begin, end) of a case, as a case of its own.
attention_case rows_of(attention_case const& c, md::index_t begin, md::index_t end) {
  auto part = c;
  part.rows = end - begin, part.query.clear(), part.lse.clear(), part.row_limits.clear();
  for (md::index_t h = 0; h < c.heads; ++h) {
    auto const first = c.query.begin() + (h * c.rows + begin) * c.dim;
    part.query.insert(part.query.end(), first, first + part.rows * c.dim);
    if (!c.lse.empty()) { part.lse.insert(part.lse.end(), c.lse.begin() + h * c.rows + begin, c.lse.begin() + h * c.rows + end); }
  }
  if (!c.row_limits.empty()) { part.row_limits.assign(c.row_limits.begin() + begin, c.row_limits.begin() + end); }
  for (std::int32_t& offset : part.row_offsets) { offset = static_cast<std::int32_t>(std::clamp<md::index_t>(offset, begin, end) - begin); }
  return part;
}

/// Runs a case in calls that end before row t for each bit t - 1 of `cuts`.
template <class Backend>
attention_result in_parts(attention_case const& c, unsigned cuts) {
  auto whole = zeros(c);
  floats head_sum;
  for (md::index_t begin = 0, end = 1; end <= c.rows; ++end) {
    if (end < c.rows && (cuts >> (end - 1) & 1u) == 0) { continue; }
    auto const part = rows_of(c, begin, end);
    auto into = zeros(part);
    into.sum = whole.sum, into.max = whole.max;
    whole = attend<Backend>(part, into);
    head_sum.insert(head_sum.end(), whole.head_sum.begin(), whole.head_sum.end());
    begin = end;
  }
  whole.head_sum = head_sum;
  return whole;
}

TYPED_TEST(AttentionScores, RowsSplitOverCallsGiveTheSameBits) {
  std::mt19937 random = printed_random(44);
  for (int round = 0; round < 12; ++round) {
    auto c = random_case(random, 17);
    if (round % 3 == 0) { c.lse.assign(static_cast<std::size_t>(c.heads * c.rows), 2.5f); }
    auto const at_once = attend<TypeParam>(c);
    for (unsigned cuts = 0; c.rows > 0 && cuts < 1u << (c.rows - 1); ++cuts) {  // every way to split at most 9 rows
      EXPECT_TRUE(all_same(in_parts<TypeParam>(c, cuts), at_once)) << "round " << round << ", cuts " << cuts;
    }
  }
}

/// Segment s of a case, as a case of its own.
attention_case segment_of(attention_case const& c, std::size_t s) {
  auto part = rows_of(c, c.row_offsets[s], c.row_offsets[s + 1]);
  md::index_t const begin = c.key_offsets[s], end = c.key_offsets[s + 1];
  part.keys = end - begin, part.row_offsets = {}, part.key_offsets = {}, part.key.clear();
  for (md::index_t h = 0; h < c.kv_heads; ++h) {
    part.key.insert(part.key.end(), c.key.begin() + (h * c.keys + begin) * c.dim, c.key.begin() + (h * c.keys + end) * c.dim);
  }
  return part;
}

TYPED_TEST(AttentionScores, ASegmentDoesNotDependOnItsNeighbours) {
  std::mt19937 random = printed_random(45);
  for (int round = 0; round < 30; ++round) {
    auto const c = random_case(random, 3);
    auto const together = attend<TypeParam>(c);
    for (std::size_t s = 0; s < 3; ++s) {
      auto const alone = attend<TypeParam>(segment_of(c, s));
      auto const begin = c.key_offsets[s], end = c.key_offsets[s + 1];
      EXPECT_TRUE(all_same(alone.sum, floats(together.sum.begin() + begin, together.sum.begin() + end))) << "round " << round;
      EXPECT_TRUE(all_same(alone.max, floats(together.max.begin() + begin, together.max.begin() + end))) << "round " << round;
    }
  }
}

TYPED_TEST(AttentionScores, NanInOneSegmentStaysInIt) {
  auto c = one_head({quiet_nan, 0}, {quiet_nan, 1, 1, 1});
  c.row_offsets = {0, 1, 2}, c.key_offsets = {0, 2, 4};
  EXPECT_TRUE(all_same(attend<TypeParam>(c).sum, {quiet_nan, quiet_nan, 0.5f, 0.5f}));
}

TYPED_TEST(AttentionScores, EveryRowOfASegmentMayBeTheOnlyOneAsInDecoding) {
  std::mt19937 random = printed_random(46);
  auto c = random_case(random, 31);
  c.row_offsets = {0, 1, 2, 3}, c.rows = 3, c.row_limits = {}, c.query = eighths(random, c.heads * 3 * c.dim);
  EXPECT_TRUE(all_near(attend<TypeParam>(c), in_double(c)));
}

// --- tensor parallel

/// Key heads [begin, end) of a case and the query heads on them, as a rank has them.
attention_case heads_of(attention_case const& c, md::index_t begin, md::index_t end) {
  auto part = c;
  md::index_t const group = c.heads / c.kv_heads;
  part.kv_heads = end - begin, part.heads = part.kv_heads * group;
  part.query.assign(c.query.begin() + begin * group * c.rows * c.dim, c.query.begin() + end * group * c.rows * c.dim);
  part.key.assign(c.key.begin() + begin * c.keys * c.dim, c.key.begin() + end * c.keys * c.dim);
  return part;
}

// Each rank's head_sum, added in rank order, goes through the map form with one head and heads_total = all heads.
TYPED_TEST(AttentionScores, HeadsSplitOverRanksAddUpToAllHeads) {
  std::mt19937 random = printed_random(47);
  for (int round = 0; round < 20; ++round) {
    attention_case c;
    c.heads = 8, c.kv_heads = 4, c.rows = 5, c.keys = 33, c.dim = 32, c.options.scale = 0.25f;
    c.query = eighths(random, 8 * 5 * 32), c.key = eighths(random, 4 * 33 * 32);
    c.row_offsets = {0, 3, 5}, c.key_offsets = {0, 20, 33};
    for (int t = 0; t < 5; ++t) { c.row_limits.push_back(static_cast<std::int32_t>(random() % 22)); }

    auto all = from_map(1, c.rows, c.keys, attend<TypeParam>(heads_of(c, 0, 2)).head_sum);
    auto const second = attend<TypeParam>(heads_of(c, 2, 4)).head_sum;
    for (std::size_t i = 0; i < second.size(); ++i) { all.map[i] += second[i]; }
    all.options.heads_total = 8, all.row_offsets = c.row_offsets, all.key_offsets = c.key_offsets, all.row_limits = c.row_limits;
    auto const ranks = attend<TypeParam>(all);

    // The plain sums of what the ranks sent, in row order.
    auto expected = zeros(c);
    for (std::size_t s = 0; s < 2; ++s) {
      for (md::index_t t = c.row_offsets[s]; t < c.row_offsets[s + 1]; ++t) {
        for (md::index_t j = 0; j < c.key_offsets[s + 1] - c.key_offsets[s]; ++j) {
          float const weight = md::view(all.map.data(), c.rows, c.longest())(t, j) / 8;
          auto const key = static_cast<std::size_t>(c.key_offsets[s] + j);
          expected.sum[key] += weight, expected.max[key] = std::max(expected.max[key], weight);
        }
      }
    }
    EXPECT_TRUE(all_same(ranks.sum, expected.sum)) << "round " << round;
    EXPECT_TRUE(all_same(ranks.max, expected.max)) << "round " << round;

    // One rank adds the same eight positive weights in another order: each order is off by at most 7 roundings, then the same 6 follow.
    auto const single = attend<TypeParam>(c);
    for (std::size_t j = 0; j < single.sum.size(); ++j) {
      EXPECT_NEAR(ranks.sum[j], single.sum[j], 0x1p-19 * static_cast<double>(single.sum[j]));
      EXPECT_NEAR(ranks.max[j], single.max[j], 0x1p-19 * static_cast<double>(single.max[j]));
    }
  }
}

// --- layouts and types

template <class T>
T narrow_exactly(float value) {
  T const narrow = md::narrow<T>(value);
  EXPECT_EQ(md::widen(narrow), value);
  return narrow;
}

/// Copies [outer, rows, dim] to rows with padding that begin at an odd address, as T.
template <class T>
void copy_padded(floats const& from, md::tensor_view<T, 3> to) {
  for (md::index_t h = 0; h < to.size(0); ++h) {
    for (md::index_t t = 0; t < to.size(1); ++t) {
      for (md::index_t d = 0; d < to.size(2); ++d) {
        to(h, t, d) = narrow_exactly<T>(md::view(from.data(), to.size(0), to.size(1), to.size(2))(h, t, d));
      }
    }
  }
}

/// The case with query and keys of other types, token-major [tokens, heads, dim] with padding, and outputs between guards.
template <class Backend, class Q, class K>
attention_result attend_stored(attention_case const& c) {
  padded_tensor<Q, 3> query(md::narrow<Q>(quiet_nan), 1, 3, c.rows, c.heads, c.dim);
  padded_tensor<K, 3> keys(md::narrow<K>(quiet_nan), 3, 5, c.keys, c.kv_heads, c.dim);
  auto const head_major = [](auto view) {
    std::swap(view.sizes[0], view.sizes[1]), std::swap(view.strides[0], view.strides[1]);
    return view;
  };
  copy_padded<Q>(c.query, head_major(query.view()));
  copy_padded<K>(c.key, head_major(keys.view()));
  padded_tensor<float, 1> sum(guard, 1, 2, c.keys), max(guard, 3, 2, c.keys);
  padded_tensor<float, 2> head_sum(guard, 1, 3, c.rows, c.longest());
  for (md::index_t j = 0; j < c.keys; ++j) { sum.view()(j) = 0, max.view()(j) = 0; }

  Backend const backend{};
  md::attention_shape const shape{c.heads, c.rows, c.keys, c.kv_heads, c.dim};
  aligned_memory memory(md::attention_scores_workspace_size(backend, shape, c.row_segments(), c.key_segments()));
  auto const lse = c.lse.empty() ? md::tensor_view<float const, 2>{} : md::view(c.lse.data(), c.heads, c.rows);
  EXPECT_EQ(md::attention_scores(backend, c.options, head_major(query.view()), head_major(keys.view()), c.row_segments(), c.key_segments(),
                                 optional_view(c.row_limits), lse, optional_view(c.spans), sum.view(), max.view(), head_sum.view(),
                                 memory.lend()),
            status::ok);
  auto out = zeros(c);
  for (md::index_t j = 0; j < c.keys; ++j) {
    auto const key = static_cast<std::size_t>(j);
    out.sum[key] = sum.view()(j), out.max[key] = max.view()(j);
  }
  for (md::index_t t = 0; t < c.rows; ++t) {
    for (md::index_t j = 0; j < c.longest(); ++j) { md::view(out.head_sum.data(), c.rows, c.longest())(t, j) = head_sum.view()(t, j); }
  }
  // Nothing was written in front of a row or behind it.
  auto const guards = [](floats const& memory_of) { return std::count(memory_of.begin(), memory_of.end(), guard); };
  EXPECT_EQ(guards(sum.memory()), static_cast<md::index_t>(sum.memory().size()) - c.keys);
  EXPECT_EQ(guards(max.memory()), static_cast<md::index_t>(max.memory().size()) - c.keys);
  EXPECT_EQ(guards(head_sum.memory()), guards(out.head_sum) + static_cast<md::index_t>(head_sum.memory().size()) - c.rows * c.longest());
  return out;
}

// Eighths up to 1 are exact in every type, so all of them give the bits of float.
TYPED_TEST(AttentionScores, TokenMajorPaddedRowsOfEveryTypeGiveTheSameBits) {
  std::mt19937 random = printed_random(48);
  for (md::index_t const dim : dims) {
    auto const c = random_case(random, dim);
    auto const plain = attend<TypeParam>(c);
    EXPECT_TRUE(all_same(attend_stored<TypeParam, float, float>(c), plain)) << "dim " << dim;
    EXPECT_TRUE(all_same(attend_stored<TypeParam, md::half, md::half>(c), plain)) << "dim " << dim;
    EXPECT_TRUE(all_same(attend_stored<TypeParam, md::bfloat16, md::half>(c), plain)) << "dim " << dim;
    EXPECT_TRUE(all_same(attend_stored<TypeParam, float, md::bfloat16>(c), plain)) << "dim " << dim;
    EXPECT_TRUE(all_same(attend_stored<TypeParam, md::half, float>(c), plain)) << "dim " << dim;
  }
}

template <class Backend, class T>
floats sum_of_map(std::vector<T> const& map) {
  floats sum(2, 0.0f), max(2, 0.0f);
  aligned_memory memory(md::attention_scores_workspace_size(Backend{}, {1, 2, 2, 0, 0}, {}, {}));
  EXPECT_EQ(md::attention_scores(Backend{}, {}, md::view(map.data(), 1, 2, 2), {}, {}, {}, {}, md::view(sum.data(), 2),
                                 md::view(max.data(), 2), {}, memory.lend()),
            status::ok);
  return sum;
}

TYPED_TEST(AttentionScores, AMapMayBeHalfOrBfloat16) {
  std::vector<md::half> halves;
  std::vector<md::bfloat16> bfloats;
  for (float const weight : {0.25f, 0.75f, 0.5f, 0.125f}) {
    halves.push_back(narrow_exactly<md::half>(weight)), bfloats.push_back(narrow_exactly<md::bfloat16>(weight));
  }
  EXPECT_TRUE(all_same((sum_of_map<TypeParam>(halves)), {0.75f, 0.875f}));
  EXPECT_TRUE(all_same((sum_of_map<TypeParam>(bfloats)), {0.75f, 0.875f}));
}

// dual_mask shrinks keys in place of capacity; its counts cut the next layer's keys without leaving the backend.
TYPED_TEST(AttentionScores, CountsOfASelectionCutTheKeysOfTheNextLayer) {
  TypeParam const backend{};
  floats const score{0, 4, 4, /**/ 4, 0, 4, 4, 0}, zero(8, 0.0f);
  floats const rows{9, 1, 2, /**/ 3, 9, 4, 5, 9}, query{0, 0};
  ints const key_offsets{0, 3, 8}, row_offsets{0, 1, 2};
  md::segments const before{2, key_offsets.data(), nullptr, 5}, row_segments{2, row_offsets.data(), nullptr, 1};
  ints indices(10, -7), counts(2, -7);
  floats keys(8, quiet_nan), sum(8, 0.0f), max(8, 0.0f);  // NaN where nothing was gathered: whoever reads it is found out
  md::keep_lists<std::int32_t> const keep{md::view(indices.data(), 2, 5), md::view(counts.data(), 2)};
  aligned_memory memory(std::max(md::dual_mask_workspace_size(backend, 8, before),
                                 md::attention_scores_workspace_size(backend, {1, 2, 8, 1, 1}, row_segments, before)));

  ASSERT_EQ(
      md::dual_mask(backend, {0.25f, 1, -1}, md::view(score.data(), 8), md::view(zero.data(), 8), before, {}, {}, keep, memory.lend()),
      status::ok);
  ASSERT_EQ(counts, (ints{2, 3}));
  ASSERT_EQ(md::gather(backend, md::view(rows.data(), 8, 1), before, keep, md::view(keys.data(), 8, 1), {}), status::ok);
  md::segments const after{2, key_offsets.data(), counts.data(), 5};
  ASSERT_EQ(md::attention_scores(backend, {}, md::view(query.data(), 1, 2, 1), md::view(keys.data(), 1, 8, 1), row_segments, after, {}, {},
                                 {}, md::view(sum.data(), 8), md::view(max.data(), 8), {}, memory.lend()),
            status::ok);
  float const third = 1.0f / 3.0f;
  EXPECT_TRUE(all_same(sum, {0.5f, 0.5f, 0, third, third, third, 0, 0}));
}

// --- errors

/// A call that is right, with a member for each thing that can be wrong. 4 query heads on 2 key heads, 3 rows, 5 keys in segments of 2 and 3.
template <class Backend>
struct scores_call {
  floats query_memory = floats(64, 1.0f), key_memory = floats(64, 1.0f), map_memory = floats(64, 0.5f), lse_memory = floats(32, 1.0f);
  ints row_offsets{0, 1, 3}, key_offsets{0, 2, 5}, limit_memory = ints(8, 2);
  std::vector<md::key_span> span_memory = std::vector<md::key_span>(4, {0, 1});
  floats sum_memory = floats(16, guard), max_memory = floats(16, guard), head_sum_memory = floats(32, guard);
  aligned_memory memory{1 << 16};  // enough for any backend

  md::attention_options options;
  md::tensor_view<float const, 3> query = md::view(query_memory.data(), 4, 3, 2), keys = md::view(key_memory.data(), 2, 5, 2);
  md::tensor_view<float const, 3> map = md::view(map_memory.data(), 4, 3, 3);
  md::segments row_segments{2, row_offsets.data(), nullptr, 2}, key_segments{2, key_offsets.data(), nullptr, 3};
  md::tensor_view<std::int32_t const, 1> row_limits = md::view(limit_memory.data(), 3);
  md::tensor_view<float const, 2> lse = md::view(lse_memory.data(), 4, 3);
  md::tensor_view<md::key_span const, 1> spans = md::view(span_memory.data(), 2);
  md::tensor_view<float, 1> sum = md::view(sum_memory.data(), 5), max = md::view(max_memory.data(), 5);
  md::tensor_view<float, 2> head_sum = md::view(head_sum_memory.data(), 3, 3);
  md::workspace scratch = memory.lend();

  status from_keys() {
    return md::attention_scores(Backend{}, options, query, keys, row_segments, key_segments, row_limits, lse, spans, sum, max, head_sum,
                                scratch);
  }
  status from_map() {
    return md::attention_scores(Backend{}, options, map, row_segments, key_segments, row_limits, spans, sum, max, head_sum, scratch);
  }
  void expect_untouched() const {
    EXPECT_EQ(sum_memory, floats(16, guard));
    EXPECT_EQ(max_memory, floats(16, guard));
    EXPECT_EQ(head_sum_memory, floats(32, guard));
  }
};

/// What a right call from query and keys answers after one change; unless it is ok, nothing may have been written.
template <class Backend, class Change>
status keys_after(Change const& change) {
  scores_call<Backend> call;
  change(call);
  status const got = call.from_keys();
  if (got != status::ok) { call.expect_untouched(); }
  return got;
}

template <class Backend, class Change>
status map_after(Change const& change) {
  scores_call<Backend> call;
  change(call);
  status const got = call.from_map();
  if (got != status::ok) { call.expect_untouched(); }
  return got;
}

/// What both forms answer; they must agree.
template <class Backend, class Change>
status both_after(Change const& change) {
  status const got = keys_after<Backend>(change);
  EXPECT_EQ(map_after<Backend>(change), got);
  return got;
}

TYPED_TEST(AttentionScores, WrongShapesAreRefused) {
  EXPECT_EQ(both_after<TypeParam>([](auto&) {}), status::ok);
  EXPECT_EQ(keys_after<TypeParam>([](auto& c) { c.query.sizes[2] = 1; }), status::bad_shape);
  EXPECT_EQ(keys_after<TypeParam>([](auto& c) { c.query.sizes[0] = 3; }), status::bad_shape);  // 3 heads on 2
  EXPECT_EQ(keys_after<TypeParam>([](auto& c) { c.query.sizes[0] = 0, c.lse.sizes[0] = 0; }), status::bad_shape);
  EXPECT_EQ(keys_after<TypeParam>([](auto& c) { c.keys.sizes[0] = 0; }), status::bad_shape);
  EXPECT_EQ(keys_after<TypeParam>([](auto& c) { c.keys.sizes[1] = 4; }), status::bad_shape);
  EXPECT_EQ(keys_after<TypeParam>([](auto& c) { c.query.data = nullptr; }), status::bad_shape);
  EXPECT_EQ(keys_after<TypeParam>([](auto& c) { c.keys.sizes[2] = -2, c.query.sizes[2] = -2; }), status::bad_shape);
  EXPECT_EQ(keys_after<TypeParam>([](auto& c) { c.lse.sizes[0] = 2; }), status::bad_shape);
  EXPECT_EQ(keys_after<TypeParam>([](auto& c) { c.lse.sizes[1] = 2; }), status::bad_shape);
  EXPECT_EQ(map_after<TypeParam>([](auto& c) { c.map.sizes[0] = 0; }), status::bad_shape);
  EXPECT_EQ(map_after<TypeParam>([](auto& c) { c.map.sizes[1] = 2; }), status::bad_shape);
  EXPECT_EQ(map_after<TypeParam>([](auto& c) { c.map.sizes[2] = 2; }), status::bad_shape);
  EXPECT_EQ(map_after<TypeParam>([](auto& c) { c.map.data = nullptr; }), status::bad_shape);
  EXPECT_EQ(both_after<TypeParam>([](auto& c) { c.row_limits.sizes[0] = 2; }), status::bad_shape);
  EXPECT_EQ(both_after<TypeParam>([](auto& c) { c.spans.sizes[0] = 1; }), status::bad_shape);
  EXPECT_EQ(both_after<TypeParam>([](auto& c) { c.sum.sizes[0] = 4; }), status::bad_shape);
  EXPECT_EQ(both_after<TypeParam>([](auto& c) { c.max.sizes[0] = 4; }), status::bad_shape);
  EXPECT_EQ(both_after<TypeParam>([](auto& c) { c.max = {}; }), status::bad_shape);
  EXPECT_EQ(keys_after<TypeParam>([](auto& c) { c.sum = {}; }), status::bad_shape);
  EXPECT_EQ(both_after<TypeParam>([](auto& c) { c.sum = {}, c.max = {}; }), status::ok);
  EXPECT_EQ(both_after<TypeParam>([](auto& c) { c.head_sum = {}; }), status::ok);
  EXPECT_EQ(both_after<TypeParam>([](auto& c) { c.sum = {}, c.max = {}, c.head_sum = {}; }), status::bad_shape);
  EXPECT_EQ(both_after<TypeParam>([](auto& c) { c.head_sum.sizes[0] = 2; }), status::bad_shape);
  EXPECT_EQ(both_after<TypeParam>([](auto& c) { c.head_sum.sizes[1] = 2; }), status::bad_shape);
  EXPECT_EQ(both_after<TypeParam>([](auto& c) { c.row_segments.count = 1; }), status::bad_shape);
  EXPECT_EQ(both_after<TypeParam>([](auto& c) { c.row_segments.offsets = nullptr; }), status::bad_shape);
  EXPECT_EQ(both_after<TypeParam>([](auto& c) { c.key_segments.offsets = nullptr; }), status::bad_shape);
  EXPECT_EQ(both_after<TypeParam>([](auto& c) { c.key_segments.longest = -1; }), status::bad_shape);
}

TYPED_TEST(AttentionScores, StridesOtherThanOneAreRefused) {
  EXPECT_EQ(keys_after<TypeParam>([](auto& c) { c.query.strides[2] = 2; }), status::bad_stride);
  EXPECT_EQ(keys_after<TypeParam>([](auto& c) { c.keys.strides[2] = 2; }), status::bad_stride);
  EXPECT_EQ(both_after<TypeParam>([](auto& c) { c.row_limits.strides[0] = 2; }), status::bad_stride);
  EXPECT_EQ(both_after<TypeParam>([](auto& c) { c.spans.strides[0] = 2; }), status::bad_stride);
  EXPECT_EQ(both_after<TypeParam>([](auto& c) { c.sum.strides[0] = 2; }), status::bad_stride);
  EXPECT_EQ(both_after<TypeParam>([](auto& c) { c.max.strides[0] = 2; }), status::bad_stride);
  EXPECT_EQ(both_after<TypeParam>([](auto& c) { c.head_sum.strides[1] = 2; }), status::bad_stride);
}

TYPED_TEST(AttentionScores, WrongOptionsAreRefused) {
  for (float const number : {quiet_nan, inf, -inf}) {
    EXPECT_EQ(both_after<TypeParam>([&](auto& c) { c.options.scale = number; }), status::bad_argument) << number;
    EXPECT_EQ(both_after<TypeParam>([&](auto& c) { c.options.softcap = number; }), status::bad_argument) << number;
    EXPECT_EQ(both_after<TypeParam>([&](auto& c) { c.options.decay = number; }), status::bad_argument) << number;
  }
  EXPECT_EQ(both_after<TypeParam>([](auto& c) { c.options.softcap = -1; }), status::bad_argument);
  EXPECT_EQ(both_after<TypeParam>([](auto& c) { c.options.decay = -1; }), status::bad_argument);
  EXPECT_EQ(both_after<TypeParam>([](auto& c) { c.options.heads_total = 3; }), status::bad_argument);
  EXPECT_EQ(both_after<TypeParam>([](auto& c) { c.options.heads_total = -1; }), status::bad_argument);
  EXPECT_EQ(both_after<TypeParam>([](auto& c) { c.options.heads_total = 4; }), status::ok);
}

TYPED_TEST(AttentionScores, TooLittleOrMisalignedWorkspaceIsRefused) {
  scores_call<TypeParam> const call;
  for (md::attention_shape const shape : {md::attention_shape{4, 3, 5, 2, 2}, md::attention_shape{4, 3, 5, 0, 0}}) {
    std::size_t const needed = md::attention_scores_workspace_size(TypeParam{}, shape, call.row_segments, call.key_segments);
    auto const answer = [&](md::workspace const& scratch) {
      auto const lend = [&](auto& c) { c.scratch = scratch; };
      return shape.dim > 0 ? keys_after<TypeParam>(lend) : map_after<TypeParam>(lend);
    };
    expect_wrong_workspaces_refused(needed, answer);
  }
}

}  // namespace
