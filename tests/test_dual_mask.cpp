// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <set>
#include <utility>
#include <vector>

#include "backends.hpp"
#include "memory.hpp"
#include "refused_workspaces.hpp"

namespace {

using floats = std::vector<float>;
using ints = std::vector<std::int32_t>;
using lists = std::vector<std::vector<std::int64_t>>;

struct mask_case {
  floats sum, max;
  md::dual_mask_options options;
  lists always_kept;  // {}: nothing is protected
  ints offsets;       // {}: one segment
  ints counts;        // {}: segments reach up to the next
  ints requested;     // {}: options.count decides
};

md::segments segments_of(mask_case const& c) {
  if (c.offsets.empty()) { return {}; }
  return {static_cast<md::index_t>(c.offsets.size()) - 1, c.offsets.data(), c.counts.empty() ? nullptr : c.counts.data(), 0};
}

template <class Index>
void write_lists(lists const& from, padded_tensor<Index, 2>& indices, padded_tensor<std::int32_t, 1>& counts) {
  for (std::size_t s = 0; s < from.size(); ++s) {
    counts.view()(s) = static_cast<std::int32_t>(from[s].size());
    for (std::size_t i = 0; i < from[s].size(); ++i) { indices.view()(s, i) = static_cast<Index>(from[s][i]); }
  }
}

/// Runs the word on memory that begins at odd addresses, and looks that list entries past the count keep their guard.
template <class Backend, class Index = std::int32_t>
lists dual_mask(mask_case const& c) {
  constexpr Index guard = -7;
  Backend const backend{};
  auto const tokens = static_cast<md::index_t>(c.sum.size());
  auto const segments = segments_of(c);
  padded_tensor<float, 1> sum(quiet_nan, 1, 2, tokens), max(quiet_nan, 3, 2, tokens);
  for (md::index_t t = 0; t < tokens; ++t) {
    sum.view()(t) = c.sum[static_cast<std::size_t>(t)], max.view()(t) = c.max[static_cast<std::size_t>(t)];
  }
  padded_tensor<Index, 2> indices(guard, 1, 3, segments.count, tokens), shielded(guard, 2, 1, segments.count, tokens);
  padded_tensor<std::int32_t, 1> counts(-7, 1, 2, segments.count), shielded_counts(-7, 1, 2, segments.count);
  write_lists(c.always_kept, shielded, shielded_counts);
  md::keep_lists<Index const> protect;
  if (!c.always_kept.empty()) { protect = md::keep_lists<Index>{shielded.view(), shielded_counts.view()}; }
  md::tensor_view<std::int32_t const, 1> requested;
  if (!c.requested.empty()) { requested = md::view(c.requested.data(), c.requested.size()); }

  aligned_memory scratch(md::dual_mask_workspace_size(backend, tokens, segments));
  auto const got = md::dual_mask(backend, c.options, sum.view(), max.view(), segments, protect, requested,
                                 md::keep_lists<Index>{indices.view(), counts.view()}, scratch.lend());
  EXPECT_EQ(got, md::status::ok) << message(got);

  lists keep;
  for (md::index_t s = 0; s < segments.count; ++s) {
    keep.emplace_back();
    for (md::index_t i = 0; i < tokens; ++i) {
      if (i < counts.view()(s)) {
        keep.back().push_back(indices.view()(s, i));
      } else {
        EXPECT_EQ(indices.view()(s, i), guard) << "entry " << i << " of list " << s;
      }
    }
  }
  return keep;
}

template <class Backend>
struct DualMask : testing::Test {};
TYPED_TEST_SUITE(DualMask, Backends);

// Σ sum = 4, so that a quarter of it is 1.
mask_case quarter_and_half() { return {{2, 0.5f, 0.5f, 1}, {0.25f, 0.5f, 0.25f, 0.25f}, {0.25f, 0.5f, -1}, {}, {}, {}, {}}; }

mask_case by_count(floats sum, floats max, md::index_t count) {
  return {std::move(sum), std::move(max), {0.25f, 0.5f, count}, {}, {}, {}, {}};
}

TYPED_TEST(DualMask, DropsOnlyWhatFailsBothTests) { EXPECT_EQ(dual_mask<TypeParam>(quarter_and_half()), (lists{{0, 1, 3}})); }

TYPED_TEST(DualMask, ATokenOnTheGlobalThresholdStaysAndOneBelowGoes) {
  auto c = quarter_and_half();
  c.max = {0, 0, 0, 0};
  EXPECT_EQ(dual_mask<TypeParam>(c), (lists{{0, 3}}));
  c.options.global = std::nextafter(0.25f, 1.0f);
  EXPECT_EQ(dual_mask<TypeParam>(c), (lists{{0}}));
}

TYPED_TEST(DualMask, ATokenOnTheIndividualThresholdStaysAndOneBelowGoes) {
  auto c = quarter_and_half();
  c.sum = {0, 0, 0, 8}, c.max = {0.5f, std::nextafter(0.5f, 0.0f), std::nextafter(0.5f, 1.0f), 0};
  EXPECT_EQ(dual_mask<TypeParam>(c), (lists{{0, 2, 3}}));
}

TYPED_TEST(DualMask, AThresholdOfZeroKeepsAll) {
  mask_case c{{0, 1, 3}, {0, 0.25f, 0}, {0, 1, -1}, {}, {}, {}, {}};
  EXPECT_EQ(dual_mask<TypeParam>(c), (lists{{0, 1, 2}}));
  c.options = {1, 0, -1};
  EXPECT_EQ(dual_mask<TypeParam>(c), (lists{{0, 1, 2}}));
}

TYPED_TEST(DualMask, ThresholdsOfOneKeepTheKeySetAndWhatTakesAllTheAttention) {
  mask_case c{{0, 2, 0}, {0, 0.5f, 0}, {1, 1, -1}, {{2}}, {}, {}, {}};
  EXPECT_EQ(dual_mask<TypeParam>(c), (lists{{1, 2}}));
  c.sum = {0.25f, 2, 0};
  EXPECT_EQ(dual_mask<TypeParam>(c), (lists{{2}}));
  c.max = {0, 1, 0};  // all the attention of one row
  EXPECT_EQ(dual_mask<TypeParam>(c), (lists{{1, 2}}));
}

TYPED_TEST(DualMask, ProtectedTokensAlwaysStay) {
  auto c = quarter_and_half();
  c.sum = {0, 0, 0, 8}, c.max = {0, 0, 0, 0};
  EXPECT_EQ(dual_mask<TypeParam>(c), (lists{{3}}));
  c.always_kept = {{}};
  EXPECT_EQ(dual_mask<TypeParam>(c), (lists{{3}}));
  c.always_kept = {{0, 3}};
  EXPECT_EQ(dual_mask<TypeParam>(c), (lists{{0, 3}}));
  c.always_kept = {{0, 1, 2, 3}};
  EXPECT_EQ(dual_mask<TypeParam>(c), (lists{{0, 1, 2, 3}}));
}

TYPED_TEST(DualMask, NothingIsBelowNoAttentionAtAll) {
  EXPECT_EQ(dual_mask<TypeParam>({{0, -0.0f, 0}, {0, 0, 0}, {0.5f, 0.5f, -1}, {}, {}, {}, {}}), (lists{{0, 1, 2}}));
}

TYPED_TEST(DualMask, NanCountsAsZeroInTheSumAndInBothTests) {
  auto c = quarter_and_half();
  c.sum = {quiet_nan, quiet_nan, 3, 1}, c.max = {0.25f, 0.5f, quiet_nan, quiet_nan};  // Σ = 4
  EXPECT_EQ(dual_mask<TypeParam>(c), (lists{{1, 2, 3}}));
  c.sum = {quiet_nan, quiet_nan, quiet_nan, quiet_nan}, c.max = c.sum;  // Σ = 0
  EXPECT_EQ(dual_mask<TypeParam>(c), (lists{{0, 1, 2, 3}}));
}

TYPED_TEST(DualMask, AnInfiniteSumIsNotBelowItsShareAndEverythingElseIs) {
  auto c = quarter_and_half();
  c.sum = {1, inf, 2, 3}, c.max = {0, 0, inf, 0};
  EXPECT_EQ(dual_mask<TypeParam>(c), (lists{{1, 2}}));
}

// Σ is 2^24 + 62 over 32 lanes, 2^24 or 2^24 + 2 one after the other, more than 2^24 + 63 exactly; three different survivors.
TYPED_TEST(DualMask, TheSumIsTheReductionOverLanes) {
  mask_case c{floats(64, 1.0f), floats(64, 0.0f), {0x1p-24f, 1, -1}, {}, {}, {}, {}};
  c.sum[0] = 0x1p24f, c.sum[20] = 1 + 31 * 0x1p-23f, c.sum[40] = 1 + 30 * 0x1p-23f;
  EXPECT_EQ(dual_mask<TypeParam>(c), (lists{{0, 20}}));
}

TYPED_TEST(DualMask, AnExactCountTakesTheBetterOfBothRatios) {
  // share = 0.25·8 = 2: first ratios 1, 0.5, 0.25, 2.25; second ratios 0, 1.5, 2, 0.
  floats const sum{2, 1, 0.5f, 4.5f}, max{0, 0.75f, 1, 0};
  EXPECT_EQ(dual_mask<TypeParam>(by_count(sum, max, 0)), (lists{{}}));
  EXPECT_EQ(dual_mask<TypeParam>(by_count(sum, max, 1)), (lists{{3}}));
  EXPECT_EQ(dual_mask<TypeParam>(by_count(sum, max, 2)), (lists{{2, 3}}));
  EXPECT_EQ(dual_mask<TypeParam>(by_count(sum, max, 3)), (lists{{1, 2, 3}}));
  EXPECT_EQ(dual_mask<TypeParam>(by_count(sum, max, 4)), (lists{{0, 1, 2, 3}}));
  EXPECT_EQ(dual_mask<TypeParam>(by_count(sum, max, 99)), (lists{{0, 1, 2, 3}}));
}

TYPED_TEST(DualMask, AnExactCountIncludesTheProtectedAndNeverCutsThem) {
  auto c = by_count({8, 4, 2, 0}, {0, 0, 0, 0}, 2);
  c.always_kept = {{3}};
  EXPECT_EQ(dual_mask<TypeParam>(c), (lists{{0, 3}}));
  c.always_kept = {{2, 3}};
  EXPECT_EQ(dual_mask<TypeParam>(c), (lists{{2, 3}}));
  c.always_kept = {{1, 2, 3}};
  EXPECT_EQ(dual_mask<TypeParam>(c), (lists{{1, 2, 3}}));
  c.options.count = 0;
  EXPECT_EQ(dual_mask<TypeParam>(c), (lists{{1, 2, 3}}));
}

TYPED_TEST(DualMask, SmallerIndexWinsATie) {
  EXPECT_EQ(dual_mask<TypeParam>(by_count({1, 1, 1, 1}, {0, 0, 0, 0}, 2)), (lists{{0, 1}}));
  // share = 2: 4/2 ties with 1/0.5
  EXPECT_EQ(dual_mask<TypeParam>(by_count({0, 4, 4}, {1, 0, 0}, 2)), (lists{{0, 1}}));
}

TYPED_TEST(DualMask, WithoutAttentionTheLargestSingleRowRanks) {
  EXPECT_EQ(dual_mask<TypeParam>(by_count({0, 0, 0}, {0.25f, 0.75f, 0.5f}, 2)), (lists{{1, 2}}));
  EXPECT_EQ(dual_mask<TypeParam>(by_count({-8, 1, 2}, {0.75f, 0.5f, 0.25f}, 1)), (lists{{0}}));  // Σ < 0 does not turn the order round
  EXPECT_EQ(dual_mask<TypeParam>(by_count({quiet_nan, quiet_nan, quiet_nan}, {quiet_nan, 0, 0.25f}, 1)), (lists{{2}}));
  // The first term is 0 for every token, so that a NaN maximum ties with a maximum of 0.
  EXPECT_EQ(dual_mask<TypeParam>(by_count({0, 0, 0}, {quiet_nan, 0, 0.25f}, 2)), (lists{{0, 2}}));
}

TYPED_TEST(DualMask, NanRanksLast) {
  EXPECT_EQ(dual_mask<TypeParam>(by_count({quiet_nan, 4, 0, quiet_nan}, {quiet_nan, quiet_nan, 0, 0.25f}, 3)), (lists{{1, 2, 3}}));
  EXPECT_EQ(dual_mask<TypeParam>(by_count({quiet_nan, 4, 0, quiet_nan}, {quiet_nan, quiet_nan, 0, 0.25f}, 2)), (lists{{1, 3}}));
  EXPECT_EQ(dual_mask<TypeParam>(by_count({quiet_nan, quiet_nan}, {quiet_nan, quiet_nan}, 1)), (lists{{0}}));
}

TYPED_TEST(DualMask, AnInfiniteSumRanksFirst) {
  EXPECT_EQ(dual_mask<TypeParam>(by_count({1, inf}, {0, 0}, 1)), (lists{{1}}));
  EXPECT_EQ(dual_mask<TypeParam>(by_count({1, 2, 3}, {0, inf, 0}, 1)), (lists{{1}}));
}

TYPED_TEST(DualMask, EmptyInputKeepsNothing) {
  EXPECT_EQ(dual_mask<TypeParam>({{}, {}, {}, {}, {}, {}, {}}), (lists{{}}));
  EXPECT_EQ(dual_mask<TypeParam>({{}, {}, {}, {}, {0}, {}, {}}), (lists{}));
}

TYPED_TEST(DualMask, OneTokenHasAllTheAttention) {
  EXPECT_EQ(dual_mask<TypeParam>({{0.25f}, {0}, {1, 1, -1}, {}, {}, {}, {}}), (lists{{0}}));
  EXPECT_EQ(dual_mask<TypeParam>(by_count({0.25f}, {0}, 0)), (lists{{}}));
}

TYPED_TEST(DualMask, EachSegmentHasItsOwnRequest) {
  auto c = by_count({1, 2, 3, 9, 1, 2, 3}, {0, 0, 0, 0, 0, 0, 0}, 1);
  c.offsets = {0, 3, 4, 4, 7}, c.requested = {2, 0, 5, 1};
  EXPECT_EQ(dual_mask<TypeParam>(c), (lists{{1, 2}, {}, {}, {2}}));
  c.requested.clear();
  EXPECT_EQ(dual_mask<TypeParam>(c), (lists{{2}, {0}, {}, {2}}));
  c.options.count = -1, c.requested = {0, 1, 0, 2};
  EXPECT_EQ(dual_mask<TypeParam>(c), (lists{{}, {0}, {}, {1, 2}}));
}

// Images in front of the prompt, within it and at its end: segments begin anywhere, text lies between them and is not read.
TYPED_TEST(DualMask, ImagesMayLieAnywhereAmongTheText) {
  mask_case c{{4, 0, inf, 0, 4, quiet_nan, 0, 0, 4}, floats(9, 0.0f), {0.5f, 0.5f, -1}, {}, {0, 3, 6, 9}, {2, 2, 3}, {}};
  EXPECT_EQ(dual_mask<TypeParam>(c), (lists{{0}, {1}, {2}}));
  c.always_kept = {{1}, {}, {0}};
  EXPECT_EQ(dual_mask<TypeParam>(c), (lists{{0, 1}, {1}, {0, 2}}));
}

TEST(DualMaskCount, IsKnownWithoutData) {
  EXPECT_EQ(retained_count(md::dual_mask_options{0.5f, 0.5f, -1}, 576, 47), 576);
  EXPECT_EQ(retained_count(md::dual_mask_options{0.5f, 0.5f, 64}, 576, 47), 64);
  EXPECT_EQ(retained_count(md::dual_mask_options{0.5f, 0.5f, 40}, 576, 47), 47);
  EXPECT_EQ(retained_count(md::dual_mask_options{0.5f, 0.5f, 600}, 576, 47), 576);
  static_assert(retained_count(md::dual_mask_options{0.5f, 0.5f, 0}, 576, 0) == 0);
}

// The header's sentences once more, with sets and sorting in double. Sums and maxima are multiples of 1/8 below 4 and thresholds powers of
// two, so Σ and its share are exact in float, and two different ratios are at least 2^-18 apart: rounding cannot make or break a tie.
lists with_sets(mask_case const& c) {
  lists keep;
  auto const number = [](float x) { return md::is_nan(x) ? 0.0 : static_cast<double>(x); };
  auto const ratio = [](float x, double threshold) { return md::is_nan(x) ? -HUGE_VAL : static_cast<double>(x) / threshold; };
  for (std::size_t s = 0; s + 1 < c.offsets.size(); ++s) {
    auto const begin = static_cast<std::size_t>(c.offsets[s]), n = static_cast<std::size_t>(c.offsets[s + 1]) - begin;
    std::set<std::int64_t> stay;
    if (!c.always_kept.empty()) { stay.insert(c.always_kept[s].begin(), c.always_kept[s].end()); }
    double whole = 0;
    for (std::size_t j = 0; j < n; ++j) { whole += number(c.sum[begin + j]); }
    double const share = static_cast<double>(c.options.global) * whole, individual = static_cast<double>(c.options.individual);
    std::int64_t const count = c.requested.empty() ? c.options.count : c.requested[s];
    std::vector<std::pair<double, std::int64_t>> ranked;
    for (std::size_t j = 0; j < n; ++j) {
      float const sum = c.sum[begin + j], max = c.max[begin + j];
      double const rank = std::max(share > 0 ? ratio(sum, share) : 0.0, ratio(max, individual));
      bool const passes = number(sum) >= share || number(max) >= individual;
      if (count < 0 && passes) { stay.insert(static_cast<std::int64_t>(j)); }
      if (stay.count(static_cast<std::int64_t>(j)) == 0) { ranked.emplace_back(-rank, static_cast<std::int64_t>(j)); }
    }
    std::sort(ranked.begin(), ranked.end());
    for (auto const& next : ranked) {
      if (static_cast<std::int64_t>(stay.size()) < count) { stay.insert(next.second); }
    }
    keep.emplace_back(stay.begin(), stay.end());
  }
  return keep;
}

float eighth_or_nan(std::mt19937& random) { return random() % 16 == 0 ? quiet_nan : static_cast<float>(random() % 32) / 8; }
float power_of_two(std::mt19937& random) { return 1.0f / static_cast<float>(1u << random() % 9); }

std::vector<std::int64_t> random_subset(std::mt19937& random, std::int64_t n) {
  std::vector<std::int64_t> members;
  for (std::int64_t j = 0; j < n; ++j) {
    if (random() % 8 == 0) { members.push_back(j); }
  }
  return members;
}

mask_case random_case(std::mt19937& random) {
  constexpr std::int32_t sizes[] = {0, 1, 3, 17, 31, 32, 33, 64, 100};
  mask_case c;
  c.offsets = {0};
  for (int s = 0; s < 4; ++s) { c.offsets.push_back(c.offsets.back() + sizes[random() % std::size(sizes)]); }
  for (std::int32_t t = 0; t < c.offsets.back(); ++t) { c.sum.push_back(eighth_or_nan(random)), c.max.push_back(eighth_or_nan(random)); }
  c.options = {power_of_two(random), power_of_two(random) * 4, static_cast<md::index_t>(random() % 40) - 8};
  if (c.options.count < -1) { c.options.count = -1; }
  if (random() % 2 == 0) {
    for (std::size_t s = 0; s < 4; ++s) { c.always_kept.push_back(random_subset(random, c.offsets[s + 1] - c.offsets[s])); }
  }
  if (random() % 4 == 0) {
    for (int s = 0; s < 4; ++s) { c.requested.push_back(static_cast<std::int32_t>(random() % 40)); }
  }
  return c;
}

TYPED_TEST(DualMask, AgreesWithSetsAndWithTheReferenceOnRandomBatches) {
  std::mt19937 random = printed_random(21);
  for (int round = 0; round < 300; ++round) {
    auto const c = random_case(random);
    EXPECT_EQ(dual_mask<TypeParam>(c), with_sets(c)) << "round " << round;
    EXPECT_EQ(dual_mask<TypeParam>(c), dual_mask<md::reference::backend>(c)) << "round " << round;
    EXPECT_EQ((dual_mask<TypeParam, std::int64_t>(c)), dual_mask<TypeParam>(c)) << "int64, round " << round;
  }
}

TYPED_TEST(DualMask, AThousandTokensAgreeWithSets) {
  std::mt19937 random = printed_random(22);
  mask_case c{{}, {}, {0x1p-10f, 2, -1}, {random_subset(random, 1024)}, {0, 1024}, {}, {}};
  for (int t = 0; t < 1024; ++t) { c.sum.push_back(eighth_or_nan(random)), c.max.push_back(eighth_or_nan(random)); }
  EXPECT_EQ(dual_mask<TypeParam>(c), with_sets(c));
  c.options.count = 700;
  EXPECT_EQ(dual_mask<TypeParam>(c), with_sets(c));
}

TYPED_TEST(DualMask, AtTheReleasedCountExactModeKeepsTheReleasedSet) {
  std::mt19937 random = printed_random(23);
  std::uniform_real_distribution<float> weight(0, 1);
  for (int round = 0; round < 300; ++round) {
    auto c = random_case(random);
    c.requested.clear();
    for (std::size_t t = 0; t < c.sum.size(); ++t) {  // weights of all bits, zeros, NaN and now and then an infinity
      std::uint32_t const kind = random() % 32;
      c.sum[t] = kind < 2 ? quiet_nan : kind < 4 ? 0.0f : kind == 4 && round % 4 == 0 ? inf : weight(random);
      c.max[t] = random() % 16 == 0 ? quiet_nan : c.sum[t] * weight(random) / 4;
    }
    c.options = {weight(random) / 16 + 0x1p-20f, weight(random) / 4 + 0x1p-20f, -1};
    auto const released = dual_mask<TypeParam>(c);
    for (auto const& list : released) { c.requested.push_back(static_cast<std::int32_t>(list.size())); }
    EXPECT_EQ(dual_mask<TypeParam>(c), released) << "round " << round;
  }
}

TYPED_TEST(DualMask, ASegmentDoesNotDependOnItsNeighbours) {
  std::mt19937 random = printed_random(24);
  for (int round = 0; round < 50; ++round) {
    auto const c = random_case(random);
    auto const together = dual_mask<TypeParam>(c);
    for (std::size_t s = 0; s < together.size(); ++s) {
      auto const begin = c.offsets[s], end = c.offsets[s + 1];
      mask_case alone{
          {c.sum.begin() + begin, c.sum.begin() + end}, {c.max.begin() + begin, c.max.begin() + end}, c.options, {}, {}, {}, {}};
      if (!c.always_kept.empty()) { alone.always_kept = {c.always_kept[s]}; }
      if (!c.requested.empty()) { alone.requested = {c.requested[s]}; }
      EXPECT_EQ(dual_mask<TypeParam>(alone), lists{together[s]}) << "round " << round << ", segment " << s;
    }
  }
}

// What one call shrank in place of capacity is the next call's input: the second stage sees survivors, whose counts never left the backend.
TYPED_TEST(DualMask, CountsOfOneCallAreTheSegmentsOfTheNext) {
  TypeParam const backend{};
  floats const sum{4, 1, 1, 2, /**/ 1, 1, 6, 0, 0, 0}, max(10, 0.0f);
  ints const offsets{0, 4, 10};
  md::segments const before{2, offsets.data(), nullptr, 6};
  ints indices(12, -7), counts(2, -7), later(12, -7), later_counts(2, -7);
  floats left(10, quiet_nan), left_max(10, quiet_nan);  // NaN where nothing was written: whoever reads it is found out
  aligned_memory scratch(md::dual_mask_workspace_size(backend, 10, before));
  md::keep_lists<std::int32_t> const keep{md::view(indices.data(), 2, 6), md::view(counts.data(), 2)};
  md::keep_lists<std::int32_t> const keep_later{md::view(later.data(), 2, 6), md::view(later_counts.data(), 2)};

  ASSERT_EQ(
      md::dual_mask(backend, {0.125f, 1, -1}, md::view(sum.data(), 10), md::view(max.data(), 10), before, {}, {}, keep, scratch.lend()),
      md::status::ok);
  EXPECT_EQ(counts, (ints{4, 3}));
  ASSERT_EQ(md::gather(backend, md::view(sum.data(), 10), before, keep, md::view(left.data(), 10), {}), md::status::ok);
  ASSERT_EQ(md::gather(backend, md::view(max.data(), 10), before, keep, md::view(left_max.data(), 10), {}), md::status::ok);

  md::segments const after{2, offsets.data(), counts.data(), 6};
  ASSERT_EQ(md::dual_mask(backend, {0.25f, 1, -1}, md::view(left.data(), 10), md::view(left_max.data(), 10), after, {}, {}, keep_later,
                          scratch.lend()),
            md::status::ok);
  EXPECT_EQ(later_counts, (ints{2, 1}));
  EXPECT_EQ(ints(later.begin(), later.begin() + 2), (ints{0, 3}));
  EXPECT_EQ(later[6], 2);
}

/// A call that is right, with a member for each thing that can be wrong.
template <class Backend>
struct mask_call {
  floats sum_memory = floats(8, 1.0f), max_memory = floats(8, 1.0f);
  ints offsets{0, 3, 4}, requested_memory{1, 1, 1, 1}, kept_memory = ints(16, 0), kept_counts{0, 0}, indices = ints(16, -7),
                                                       counts = ints(4, -7);
  aligned_memory memory{4 * 64};

  md::dual_mask_options options;
  md::tensor_view<float const, 1> sum = md::view(sum_memory.data(), 4), max = md::view(max_memory.data(), 4);
  md::segments segments{2, offsets.data(), nullptr, 3};
  md::keep_lists<std::int32_t const> always_kept =
      md::keep_lists<std::int32_t>{md::view(kept_memory.data(), 2, 3), md::view(kept_counts.data(), 2)};
  md::tensor_view<std::int32_t const, 1> requested;
  md::keep_lists<std::int32_t> keep{md::view(indices.data(), 2, 3), md::view(counts.data(), 2)};
  md::workspace scratch = memory.lend();

  md::status run() { return md::dual_mask(Backend{}, options, sum, max, segments, always_kept, requested, keep, scratch); }
};

/// What a right call answers after one change; unless it is ok, nothing may have been written.
template <class Backend, class Change>
md::status after(Change const& change) {
  mask_call<Backend> call;
  change(call);
  md::status const got = call.run();
  if (got != md::status::ok) {
    EXPECT_EQ(call.indices, ints(16, -7));
    EXPECT_EQ(call.counts, ints(4, -7));
  }
  return got;
}

TYPED_TEST(DualMask, WrongShapesAreRefused) {
  using md::status;
  EXPECT_EQ(after<TypeParam>([](auto&) {}), status::ok);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.requested = md::view(c.requested_memory.data(), 2); }), status::ok);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.max.sizes[0] = 3; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.sum.sizes[0] = -4, c.max.sizes[0] = -4; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.sum.data = nullptr; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.segments = {2, nullptr, nullptr, 0}; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.segments.count = -1; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.segments.longest = 0; }), status::bad_shape);  // a segment could have all 4 tokens
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.keep.indices.sizes[1] = 2; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.keep.indices.sizes[0] = 1; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.keep.counts.sizes[0] = 1; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.always_kept.counts.sizes[0] = 1; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.always_kept.indices.sizes[0] = 3; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.requested = md::view(c.requested_memory.data(), 3); }), status::bad_shape);
}

TYPED_TEST(DualMask, StridesOtherThanOneAreRefused) {
  using md::status;
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.sum.strides[0] = 2; }), status::bad_stride);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.max.strides[0] = 2; }), status::bad_stride);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.keep.indices.strides[1] = 2; }), status::bad_stride);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.keep.counts.strides[0] = 2; }), status::bad_stride);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.always_kept.indices.strides[1] = 2; }), status::bad_stride);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.always_kept.counts.strides[0] = 2; }), status::bad_stride);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.requested = md::view(c.requested_memory.data(), 2), c.requested.strides[0] = 2; }),
            status::bad_stride);
}

TYPED_TEST(DualMask, WrongOptionsAreRefused) {
  using md::status;
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.options.count = -2; }), status::bad_argument);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.options.global = quiet_nan; }), status::bad_argument);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.options.individual = quiet_nan; }), status::bad_argument);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.options = {0, 0, -1}; }), status::ok);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.options = {0, 1, 2}; }), status::bad_argument);  // a rank needs thresholds above 0
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.options = {1, 0, 2}; }), status::bad_argument);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.options = {-1, 1, 2}; }), status::bad_argument);
  EXPECT_EQ(after<TypeParam>([](auto& c) {
              c.options = {0, 1, -1}, c.requested = md::view(c.requested_memory.data(), 2);
            }),
            status::bad_argument);
}

TYPED_TEST(DualMask, TooLittleOrMisalignedWorkspaceIsRefused) {
  std::size_t const needed = md::dual_mask_workspace_size(TypeParam{}, 4, mask_call<TypeParam>{}.segments);
  expect_wrong_workspaces_refused(needed, [](md::workspace scratch) { return after<TypeParam>([&](auto& c) { c.scratch = scratch; }); });
}

}  // namespace
