// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <numeric>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "backends.hpp"
#include "memory.hpp"
#include "refused_workspaces.hpp"

namespace {

using floats = std::vector<float>;
using ints = std::vector<std::int32_t>;
using lists = std::vector<std::vector<std::int64_t>>;
using md::evict_policy;
using md::slot_kind;
using md::status;

struct evict_case {
  std::string kinds;  // a letter for each slot: t(ext), k(ey set), v(isual), d(ropped)
  md::evict_options options;
  floats scores;   // {}: none
  ints offsets;    // {}: one segment
  ints counts;     // {}: segments reach up to the next
  ints requested;  // {}: options.budget
};

slot_kind kind_of(char letter) {
  return letter == 't' ? slot_kind::text : letter == 'k' ? slot_kind::key_set : letter == 'v' ? slot_kind::visual : slot_kind::dropped;
}

md::segments segments_of(evict_case const& c) {
  if (c.offsets.empty()) { return {}; }
  return {static_cast<md::index_t>(c.offsets.size()) - 1, c.offsets.data(), c.counts.empty() ? nullptr : c.counts.data(), 0};
}

/// Runs the word on memory that begins at odd addresses, and looks that list entries past the count keep their guard.
template <class Backend, class Index = std::int32_t>
lists kv_evict(evict_case const& c) {
  constexpr Index guard = -7;
  Backend const backend{};
  auto const slots = static_cast<md::index_t>(c.kinds.size());
  auto const segments = segments_of(c);
  padded_tensor<slot_kind, 1> kind(slot_kind::dropped, 3, 2, slots);
  padded_tensor<float, 1> scores(quiet_nan, 1, 2, slots);
  for (md::index_t i = 0; i < slots; ++i) {
    kind.view()(i) = kind_of(c.kinds[static_cast<std::size_t>(i)]);
    if (!c.scores.empty()) { scores.view()(i) = c.scores[static_cast<std::size_t>(i)]; }
  }
  padded_tensor<Index, 2> indices(guard, 1, 3, segments.count, slots);
  padded_tensor<std::int32_t, 1> counts(-7, 1, 2, segments.count);
  md::tensor_view<float const, 1> given;
  md::tensor_view<std::int32_t const, 1> requested;
  if (!c.scores.empty()) { given = scores.view(); }
  if (!c.requested.empty()) { requested = md::view(c.requested.data(), c.requested.size()); }

  aligned_memory scratch(md::kv_evict_workspace_size(backend, slots, segments));
  auto const got = md::kv_evict(backend, c.options, given, kind.view(), segments, requested,
                                md::keep_lists<Index>{indices.view(), counts.view()}, scratch.lend());
  EXPECT_EQ(got, status::ok) << message(got);

  lists keep;
  for (md::index_t s = 0; s < segments.count; ++s) {
    keep.emplace_back();
    for (md::index_t i = 0; i < slots; ++i) {
      if (i < counts.view()(s)) {
        keep.back().push_back(indices.view()(s, i));
      } else {
        EXPECT_EQ(indices.view()(s, i), guard) << "entry " << i << " of list " << s;
      }
    }
  }
  return keep;
}

md::evict_options survivors(md::index_t block = 1) { return {evict_policy::survivors, -1, 4, 32, block}; }
md::evict_options key_set_only(md::index_t block = 1) { return {evict_policy::key_set_only, -1, 4, 32, block}; }
md::evict_options within(md::index_t budget, md::index_t sinks = 0, md::index_t recent = 0, md::index_t block = 1) {
  return {evict_policy::output_aware, budget, sinks, recent, block};
}

template <class Backend>
struct KvEvict : testing::Test {};
TYPED_TEST_SUITE(KvEvict, Backends);

TYPED_TEST(KvEvict, SurvivorsKeepsAllButTheDropped) {
  EXPECT_EQ(kv_evict<TypeParam>({"tkvdvdt", survivors(), {}, {}, {}, {}}), (lists{{0, 1, 2, 4, 6}}));
  EXPECT_EQ(kv_evict<TypeParam>({"ddd", survivors(), {}, {}, {}, {}}), (lists{{}}));
}

TYPED_TEST(KvEvict, KeySetOnlyKeepsTextAndKeySet) {
  EXPECT_EQ(kv_evict<TypeParam>({"tkvdvkt", key_set_only(), {}, {}, {}, {}}), (lists{{0, 1, 5, 6}}));
  EXPECT_EQ(kv_evict<TypeParam>({"vvv", key_set_only(), {}, {}, {}, {}}), (lists{{}}));
}

TYPED_TEST(KvEvict, OnlyOutputAwareReadsScoresBudgetSinksAndRecent) {
  evict_case c{"tkvdvdt", {evict_policy::survivors, 1, 3, 3, 1}, {1, 2, quiet_nan, 9, inf, 9, 0}, {}, {}, {1}};
  EXPECT_EQ(kv_evict<TypeParam>(c), (lists{{0, 1, 2, 4, 6}}));
  c.options.policy = evict_policy::key_set_only;
  EXPECT_EQ(kv_evict<TypeParam>(c), (lists{{0, 1, 6}}));
}

TYPED_TEST(KvEvict, OutputAwareFillsTheBudgetWithTheBestVisualSlots) {
  evict_case c{"tvvkvv", within(4), {9, 1, 3, 0, 2, 4}, {}, {}, {}};
  EXPECT_EQ(kv_evict<TypeParam>(c), (lists{{0, 2, 3, 5}}));
  c.options.budget = 5;
  EXPECT_EQ(kv_evict<TypeParam>(c), (lists{{0, 2, 3, 4, 5}}));
  c.options.budget = 6;
  EXPECT_EQ(kv_evict<TypeParam>(c), (lists{{0, 1, 2, 3, 4, 5}}));
  c.options.budget = 1000;
  EXPECT_EQ(kv_evict<TypeParam>(c), (lists{{0, 1, 2, 3, 4, 5}}));
}

TYPED_TEST(KvEvict, ProtectedSlotsStayEvenAboveTheBudget) {
  evict_case c{"tvvkvt", within(2), {0, 9, 9, 0, 9, 0}, {}, {}, {}};
  EXPECT_EQ(kv_evict<TypeParam>(c), (lists{{0, 3, 5}}));
  c.options.budget = 0;
  EXPECT_EQ(kv_evict<TypeParam>(c), (lists{{0, 3, 5}}));
  c.options = within(0, 2, 2);
  EXPECT_EQ(kv_evict<TypeParam>(c), (lists{{0, 1, 3, 4, 5}}));
}

TYPED_TEST(KvEvict, SinksAndRecentCountAgainstTheBudget) {
  evict_case c{"vvvvvv", within(3, 1, 1), {0, 1, 4, 2, 3, 0}, {}, {}, {}};
  EXPECT_EQ(kv_evict<TypeParam>(c), (lists{{0, 2, 5}}));
  c.options.budget = 4;
  EXPECT_EQ(kv_evict<TypeParam>(c), (lists{{0, 2, 4, 5}}));
}

TYPED_TEST(KvEvict, SinksAndRecentMayOverlapOrBeLongerThanTheSegment) {
  EXPECT_EQ(kv_evict<TypeParam>({"vvv", within(0, 2, 2), {}, {}, {}, {}}), (lists{{0, 1, 2}}));
  EXPECT_EQ(kv_evict<TypeParam>({"vvv", within(0, 9, 0), {}, {}, {}, {}}), (lists{{0, 1, 2}}));
  EXPECT_EQ(kv_evict<TypeParam>({"vvv", within(0, 0, 9), {}, {}, {}, {}}), (lists{{0, 1, 2}}));
  EXPECT_EQ(kv_evict<TypeParam>({"vvv", within(0, md::most_tokens, md::most_tokens), {}, {}, {}, {}}), (lists{{0, 1, 2}}));
}

TYPED_TEST(KvEvict, DroppedSlotsNeverStay) {
  EXPECT_EQ(kv_evict<TypeParam>({"dvdvd", within(5, 1, 1), {9, 1, 9, 1, inf}, {}, {}, {}}), (lists{{1, 3}}));
  EXPECT_EQ(kv_evict<TypeParam>({"dvdvd", within(1, 2, 0), {9, 0, 9, 1, 9}, {}, {}, {}}), (lists{{1}}));
  EXPECT_EQ(kv_evict<TypeParam>({"ddd", within(3, 3, 3), {1, 2, 3}, {}, {}, {}}), (lists{{}}));
}

TYPED_TEST(KvEvict, SmallerIndexWinsATie) {
  EXPECT_EQ(kv_evict<TypeParam>({"vvvv", within(2), {1, 1, 1, 1}, {}, {}, {}}), (lists{{0, 1}}));
  EXPECT_EQ(kv_evict<TypeParam>({"vvvv", within(1), {-0.0f, 0, 0, 0}, {}, {}, {}}), (lists{{0}}));
}

TYPED_TEST(KvEvict, WithoutScoresAllVisualSlotsTie) {
  EXPECT_EQ(kv_evict<TypeParam>({"vvtvv", within(3), {}, {}, {}, {}}), (lists{{0, 1, 2}}));
}

TYPED_TEST(KvEvict, NanRanksBelowEveryNumberAndStillBeforeNothing) {
  evict_case c{"vvvv", within(2), {quiet_nan, -inf, quiet_nan, inf}, {}, {}, {}};
  EXPECT_EQ(kv_evict<TypeParam>(c), (lists{{1, 3}}));
  c.options.budget = 3;
  EXPECT_EQ(kv_evict<TypeParam>(c), (lists{{0, 1, 3}}));
  c.kinds = "tvkd", c.scores = {quiet_nan, quiet_nan, quiet_nan, quiet_nan}, c.options.budget = 3;
  EXPECT_EQ(kv_evict<TypeParam>(c), (lists{{0, 1, 2}}));
}

TYPED_TEST(KvEvict, EmptyInputKeepsNothing) {
  EXPECT_EQ(kv_evict<TypeParam>({"", within(3), {}, {}, {}, {}}), (lists{{}}));
  EXPECT_EQ(kv_evict<TypeParam>({"", survivors(), {}, {0}, {}, {}}), (lists{}));
}

TYPED_TEST(KvEvict, OneSlot) {
  EXPECT_EQ(kv_evict<TypeParam>({"v", within(1), {quiet_nan}, {}, {}, {}}), (lists{{0}}));
  EXPECT_EQ(kv_evict<TypeParam>({"v", within(0), {1}, {}, {}, {}}), (lists{{}}));
}

TYPED_TEST(KvEvict, BlocksStayWholeAndRankByTheirBestVisualSlot) {
  // Blocks of 4, the last one of 2; best scores 3, 7, 5.
  evict_case c{"vvvvvvvvvv", within(4, 0, 0, 4), {3, 0, 0, 0, 1, 1, 7, 1, 5, 5}, {}, {}, {}};
  EXPECT_EQ(kv_evict<TypeParam>(c), (lists{{4, 5, 6, 7}}));
  c.options.budget = 8;  // the partial block counts as a block
  EXPECT_EQ(kv_evict<TypeParam>(c), (lists{{4, 5, 6, 7, 8, 9}}));
  c.options.budget = 12;
  EXPECT_EQ(kv_evict<TypeParam>(c), (lists{{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}}));
}

TYPED_TEST(KvEvict, TheBudgetIsRoundedDownToBlocks) {
  evict_case c{"vvvvvvvv", within(3, 0, 0, 4), {1, 1, 1, 1, 2, 2, 2, 2}, {}, {}, {}};
  EXPECT_EQ(kv_evict<TypeParam>(c), (lists{{}}));
  c.options.budget = 7;
  EXPECT_EQ(kv_evict<TypeParam>(c), (lists{{4, 5, 6, 7}}));
}

TYPED_TEST(KvEvict, TextDoesNotLendItsScoreToItsBlockNorDoDroppedSlots) {
  // The second block's only visual slot scores 1; its dropped slot's 9 does not count.
  EXPECT_EQ(kv_evict<TypeParam>({"vvvd", within(2, 0, 0, 2), {2, 0, 1, 9}, {}, {}, {}}), (lists{{0, 1}}));
  // A block with text stays whatever it scores, and takes its place in the budget.
  EXPECT_EQ(kv_evict<TypeParam>({"vvtvvv", within(4, 0, 0, 2), {1, 1, 0, 0, 2, 2}, {}, {}, {}}), (lists{{2, 3, 4, 5}}));
}

TYPED_TEST(KvEvict, ABlockThatMustStayStaysWholeDroppedSlotsIncluded) {
  EXPECT_EQ(kv_evict<TypeParam>({"ddtdvvdd", survivors(4), {}, {}, {}, {}}), (lists{{0, 1, 2, 3, 4, 5, 6, 7}}));
  EXPECT_EQ(kv_evict<TypeParam>({"ddtdvvdd", key_set_only(4), {}, {}, {}, {}}), (lists{{0, 1, 2, 3}}));
  EXPECT_EQ(kv_evict<TypeParam>({"ddtdvvdd", within(0, 0, 0, 4), {}, {}, {}, {}}), (lists{{0, 1, 2, 3}}));
}

TYPED_TEST(KvEvict, ABlockOfDroppedSlotsNeverStays) {
  EXPECT_EQ(kv_evict<TypeParam>({"ddddvvdd", survivors(4), {}, {}, {}, {}}), (lists{{4, 5, 6, 7}}));
  EXPECT_EQ(kv_evict<TypeParam>({"ddddvvdd", within(8, 4, 0, 4), {9, 9, 9, 9, 0, 0, 0, 0}, {}, {}, {}}), (lists{{4, 5, 6, 7}}));
}

TYPED_TEST(KvEvict, NanInABlockHidesBehindItsOtherSlots) {
  EXPECT_EQ(kv_evict<TypeParam>({"vvvv", within(2, 0, 0, 2), {quiet_nan, 0, -1, -1}, {}, {}, {}}), (lists{{0, 1}}));
  EXPECT_EQ(kv_evict<TypeParam>({"vvvv", within(2, 0, 0, 2), {quiet_nan, quiet_nan, -inf, quiet_nan}, {}, {}, {}}), (lists{{2, 3}}));
}

TYPED_TEST(KvEvict, ABlockLongerThanTheSegmentIsOnePartialBlock) {
  EXPECT_EQ(kv_evict<TypeParam>({"vdv", within(7, 0, 0, 8), {}, {}, {}, {}}), (lists{{}}));
  EXPECT_EQ(kv_evict<TypeParam>({"vdv", within(8, 0, 0, 8), {}, {}, {}, {}}), (lists{{0, 1, 2}}));
}

TYPED_TEST(KvEvict, BlocksCountFromTheSegmentsBegin) {
  evict_case c{"vvvvvvv", within(2, 0, 0, 2), {0, 1, 0, 5, 0, 0, 7}, {0, 3, 7}, {}, {}};
  EXPECT_EQ(kv_evict<TypeParam>(c), (lists{{0, 1}, {2, 3}}));
  c.scores = {0, 0, 1, 5, 0, 0, 0};
  EXPECT_EQ(kv_evict<TypeParam>(c), (lists{{2}, {0, 1}}));
}

TYPED_TEST(KvEvict, EachSegmentHasItsOwnRequest) {
  evict_case c{"vvvtvvv", within(1), {1, 2, 3, 0, 3, 2, 1}, {0, 3, 4, 4, 7}, {}, {2, 0, 5, 1}};
  EXPECT_EQ(kv_evict<TypeParam>(c), (lists{{1, 2}, {0}, {}, {0}}));
  c.options.budget = -1;  // the request alone will do
  EXPECT_EQ(kv_evict<TypeParam>(c), (lists{{1, 2}, {0}, {}, {0}}));
  c.requested.clear(), c.options.budget = 1;
  EXPECT_EQ(kv_evict<TypeParam>(c), (lists{{2}, {0}, {}, {0}}));
}

// Granularity is said by segments: the same four slots as one set, or once for each of two KV heads or layers with scores of their own.
TYPED_TEST(KvEvict, LayersAndKvHeadsAreSegments) {
  EXPECT_EQ(kv_evict<TypeParam>({"tvvv", within(2), {0, 3, 1, 2}, {}, {}, {}}), (lists{{0, 1}}));
  EXPECT_EQ(kv_evict<TypeParam>({"tvvvtvvv", within(2), {0, 3, 1, 2, 0, 1, 2, 3}, {0, 4, 8}, {}, {}}), (lists{{0, 1}, {0, 3}}));
}

TYPED_TEST(KvEvict, CountsCutSegmentsShortInPlaceOfCapacity) {
  evict_case c{"vvvvvvvv", within(2, 0, 1), {1, 3, 2, 9, 5, 9, 9, 9}, {0, 4, 8}, {3, 1}, {}};
  EXPECT_EQ(kv_evict<TypeParam>(c), (lists{{1, 2}, {0}}));  // the last slot of the first segment is slot 2
}

std::vector<std::int64_t> ascending(std::set<std::int64_t> const& set) { return {set.begin(), set.end()}; }

floats random_scores(std::mt19937& random, std::size_t n) {
  floats scores(n);
  for (float& score : scores) { score = random() % 16 == 0 ? quiet_nan : static_cast<float>(random() % 32) / 8 - 1; }  // many ties
  return scores;
}

// Indices of [begin, end), best score first; a tie goes to the smaller index.
std::vector<std::int64_t> by_score(floats const& scores, std::size_t begin, std::size_t end) {
  std::vector<std::int64_t> order(end - begin);
  std::iota(order.begin(), order.end(), static_cast<std::int64_t>(begin));
  auto const lowest_if_nan = [&](std::int64_t i) {
    return md::is_nan(scores[static_cast<std::size_t>(i)]) ? -inf : scores[static_cast<std::size_t>(i)];
  };
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) { return lowest_if_nan(a) > lowest_if_nan(b); });
  return order;
}

// StreamingLLM: the first 4 and the last tokens of the cache.
TYPED_TEST(KvEvict, StreamingLlmIsSinksAndRecentWithoutScores) {
  for (std::size_t n = 0; n < 60; ++n) {
    std::set<std::int64_t> stay;
    for (std::size_t i = 0; i < n; ++i) {
      if (i < 4 || i + 16 >= n) { stay.insert(static_cast<std::int64_t>(i)); }
    }
    EXPECT_EQ(kv_evict<TypeParam>({std::string(n, 'v'), within(20, 4, 16), {}, {}, {}, {}}), (lists{ascending(stay)})) << n << " slots";
  }
}

// H2O: of everything but the recent window, the heavy hitters by accumulated attention; and the recent window.
TYPED_TEST(KvEvict, H2oIsHeavyHittersOutsideTheRecentWindow) {
  std::mt19937 random = printed_random(31);
  constexpr std::size_t heavy = 5, recent = 7;
  for (std::size_t n = 0; n < 60; ++n) {
    auto const scores = random_scores(random, n);
    std::size_t const old = n > recent ? n - recent : 0;
    auto const best = by_score(scores, 0, old);
    std::set<std::int64_t> stay(best.begin(), best.begin() + static_cast<std::ptrdiff_t>(std::min(heavy, old)));
    for (std::size_t i = old; i < n; ++i) { stay.insert(static_cast<std::int64_t>(i)); }
    evict_case const c{std::string(n, 'v'), within(heavy + recent, 0, recent), scores, {}, {}, {}};
    EXPECT_EQ(kv_evict<TypeParam>(c), (lists{ascending(stay)})) << n << " slots";
  }
}

// TOVA: the best of all by the last row's attention.
TYPED_TEST(KvEvict, TovaIsTheBestOfAll) {
  std::mt19937 random = printed_random(32);
  constexpr std::size_t size = 12;
  for (std::size_t n = 0; n < 60; ++n) {
    auto const scores = random_scores(random, n);
    auto const best = by_score(scores, 0, n);
    std::set<std::int64_t> const stay(best.begin(), best.begin() + static_cast<std::ptrdiff_t>(std::min(size, n)));
    EXPECT_EQ(kv_evict<TypeParam>({std::string(n, 'v'), within(size), scores, {}, {}, {}}), (lists{ascending(stay)})) << n << " slots";
  }
}

/// What one block holds, for the definition below.
struct block_content {
  bool must_stay = false, has_visual = false;
  double best = -HUGE_VAL;  // of its visual slots; scores of random cases are finite, so a block of NaN alone is below them
};

// The header's sentences once more: blocks as values, sets of blocks, one sort.
std::vector<std::int64_t> with_sets(std::string const& kinds, md::evict_options const& options, floats const& scores, std::int64_t budget) {
  auto const n = static_cast<std::int64_t>(kinds.size());
  std::vector<block_content> blocks(static_cast<std::size_t>((n + options.block - 1) / options.block));
  for (std::int64_t i = 0; i < n; ++i) {
    char const kind = kinds[static_cast<std::size_t>(i)];
    auto& block = blocks[static_cast<std::size_t>(i / options.block)];
    bool const aware = options.policy == evict_policy::output_aware, text_or_key = kind == 't' || kind == 'k';
    bool const window = aware && kind == 'v' && (i < options.sinks || i >= n - options.recent);
    block.must_stay |= text_or_key || window || (options.policy == evict_policy::survivors && kind == 'v');
    block.has_visual |= aware && kind == 'v';
    float const score = scores.empty() ? 0.0f : scores[static_cast<std::size_t>(i)];
    if (kind == 'v' && !md::is_nan(score)) { block.best = std::max(block.best, static_cast<double>(score)); }
  }
  std::set<std::size_t> stay;
  std::vector<std::pair<double, std::size_t>> competing;
  for (std::size_t b = 0; b < blocks.size(); ++b) {
    if (blocks[b].must_stay) { stay.insert(b); }
    if (!blocks[b].must_stay && blocks[b].has_visual) { competing.emplace_back(-blocks[b].best, b); }
  }
  std::sort(competing.begin(), competing.end());
  for (auto const& next : competing) {
    if (static_cast<std::int64_t>(stay.size() + 1) * options.block <= budget) { stay.insert(next.second); }
  }
  std::vector<std::int64_t> keep;
  for (std::int64_t i = 0; i < n; ++i) {
    if (stay.count(static_cast<std::size_t>(i / options.block)) > 0) { keep.push_back(i); }
  }
  return keep;
}

/// One segment of a case, as a case.
evict_case alone(evict_case const& c, std::size_t s) {
  auto const begin = c.offsets[s], end = c.offsets[s + 1];
  evict_case one{c.kinds.substr(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin)), c.options, {}, {}, {}, {}};
  if (!c.scores.empty()) { one.scores.assign(c.scores.begin() + begin, c.scores.begin() + end); }
  if (!c.requested.empty()) { one.requested = {c.requested[s]}; }
  return one;
}

evict_case random_case(std::mt19937& random) {
  constexpr std::int32_t sizes[] = {0, 1, 3, 17, 31, 32, 33, 64, 100};
  constexpr evict_policy policies[] = {evict_policy::survivors, evict_policy::key_set_only, evict_policy::output_aware,
                                       evict_policy::output_aware};
  constexpr md::index_t blocks[] = {1, 1, 2, 4, 5, 16};
  auto const pick = [&](std::uint32_t below) { return static_cast<md::index_t>(random() % below); };
  evict_case c;
  c.offsets = {0};
  for (int s = 0; s < 4; ++s) { c.offsets.push_back(c.offsets.back() + sizes[pick(std::size(sizes))]); }
  for (std::int32_t i = 0; i < c.offsets.back(); ++i) { c.kinds += "tkddvvvvvvvvvvvv"[pick(16)]; }
  c.options = {policies[pick(4)], pick(80), pick(6), pick(10), blocks[pick(6)]};
  if (pick(4) != 0) { c.scores = random_scores(random, c.kinds.size()); }
  for (int s = 0; s < 4 && random() % 2 == 0; ++s) { c.requested.push_back(static_cast<std::int32_t>(pick(80))); }
  if (c.requested.size() != 4) { c.requested.clear(); }
  return c;
}

TYPED_TEST(KvEvict, AgreesWithSetsAndWithTheReferenceOnRandomBatches) {
  std::mt19937 random = printed_random(33);
  for (int round = 0; round < 500; ++round) {
    auto const c = random_case(random);
    auto const keep = kv_evict<TypeParam>(c);
    for (std::size_t s = 0; s < keep.size(); ++s) {
      auto const one = alone(c, s);
      auto const budget = one.requested.empty() ? one.options.budget : one.requested[0];
      EXPECT_EQ(keep[s], with_sets(one.kinds, one.options, one.scores, budget)) << "round " << round << ", segment " << s;
      EXPECT_EQ(kv_evict<TypeParam>(one), lists{keep[s]}) << "neighbours matter: round " << round << ", segment " << s;
    }
    EXPECT_EQ(keep, kv_evict<md::reference::backend>(c)) << "round " << round;
    EXPECT_EQ(keep, (kv_evict<TypeParam, std::int64_t>(c))) << "int64, round " << round;
  }
}

TYPED_TEST(KvEvict, AThousandSlotsAgreeWithSets) {
  std::mt19937 random = printed_random(34);
  std::string kinds;
  for (int i = 0; i < 1024; ++i) { kinds += "tkdvvvvvvvvvvvvv"[random() % 16]; }
  for (md::index_t const block : {1, 16, 32}) {
    evict_case const c{kinds, within(600, 4, 32, block), random_scores(random, 1024), {}, {}, {}};
    EXPECT_EQ(kv_evict<TypeParam>(c), (lists{with_sets(kinds, c.options, c.scores, 600)})) << "blocks of " << block;
  }
}

TYPED_TEST(KvEvict, RetainedCountBoundsWhatStays) {
  std::mt19937 random = printed_random(35);
  for (int round = 0; round < 500; ++round) {
    auto c = random_case(random);
    c.requested.clear();
    auto const keep = kv_evict<TypeParam>(c);
    for (std::size_t s = 0; s < keep.size(); ++s) {
      auto const kinds = alone(c, s).kinds;
      auto const n = static_cast<md::index_t>(kinds.size());
      md::index_t shielded = 0;
      for (md::index_t i = 0; i < n; ++i) {
        char const kind = kinds[static_cast<std::size_t>(i)];
        shielded += kind != 'd' && (kind != 'v' || i < c.options.sinks || n - i <= c.options.recent);
      }
      auto const kept = static_cast<md::index_t>(keep[s].size()), bound = retained_count(c.options, n, shielded);
      EXPECT_LE(kept, bound) << "round " << round;
      bool const exact = c.options.policy == evict_policy::output_aware && c.options.block == 1 && kinds.find('d') == std::string::npos;
      if (exact) { EXPECT_EQ(kept, bound) << "round " << round; }
    }
  }
}

TEST(KvEvictCount, IsKnownWithoutData) {
  static_assert(retained_count(md::evict_options{evict_policy::output_aware, 64, 4, 32, 1}, 576, 36) == 64);
  EXPECT_EQ(retained_count(within(64), 32, 0), 32);
  EXPECT_EQ(retained_count(within(64), 576, 100), 100);
  EXPECT_EQ(retained_count(within(70, 0, 0, 16), 576, 0), 64);
  EXPECT_EQ(retained_count(within(70, 0, 0, 16), 576, 5), 80);
  EXPECT_EQ(retained_count(survivors(), 576, 5), 576);
  EXPECT_EQ(retained_count(key_set_only(), 576, 5), 576);
  EXPECT_EQ(retained_count(within(-1), 576, 5), 576);
}

// What an earlier call kept is this call's request and this call's input, in place of capacity, without a look at the numbers.
TYPED_TEST(KvEvict, CountsOfOneCallAreTheSegmentsAndRequestsOfTheNext) {
  TypeParam const backend{};
  std::vector<slot_kind> const kind{slot_kind::text,   slot_kind::visual, slot_kind::visual, slot_kind::dropped,
                                    slot_kind::visual, slot_kind::visual, slot_kind::visual};
  floats const scores{0, 1, 2, 9, 3, 1, 2};
  ints const offsets{0, 4, 7};
  md::segments const before{2, offsets.data(), nullptr, 4};
  ints indices(8, -7), counts(2, -7), later(8, -7), later_counts(2, -7);
  std::vector<slot_kind> left(7, slot_kind::text);
  floats left_scores(7, quiet_nan);
  aligned_memory scratch(md::kv_evict_workspace_size(backend, 7, before));
  md::keep_lists<std::int32_t> const keep{md::view(indices.data(), 2, 4), md::view(counts.data(), 2)};
  md::keep_lists<std::int32_t> const keep_later{md::view(later.data(), 2, 4), md::view(later_counts.data(), 2)};

  ASSERT_EQ(md::kv_evict(backend, within(2), md::view(scores.data(), 7), md::view(kind.data(), 7), before, {}, keep, scratch.lend()),
            status::ok);
  EXPECT_EQ(counts, (ints{2, 2}));
  ASSERT_EQ(md::gather(backend, md::view(kind.data(), 7), before, keep, md::view(left.data(), 7), {}), status::ok);
  ASSERT_EQ(md::gather(backend, md::view(scores.data(), 7), before, keep, md::view(left_scores.data(), 7), {}), status::ok);

  md::segments const after{2, offsets.data(), counts.data(), 4};
  ASSERT_EQ(
      md::kv_evict(backend, within(1), md::view(left_scores.data(), 7), md::view(left.data(), 7), after, {}, keep_later, scratch.lend()),
      status::ok);
  EXPECT_EQ(later_counts, (ints{1, 1}));
  EXPECT_EQ(later[0], 0);  // the text slot
  EXPECT_EQ(later[4], 0);  // slot 4 of the cache, score 3

  ASSERT_EQ(md::kv_evict(backend, within(-1), md::view(scores.data(), 7), md::view(kind.data(), 7), before,
                         md::view(later_counts.data(), 2), keep, scratch.lend()),
            status::ok);
  EXPECT_EQ(counts, (ints{1, 1}));
  EXPECT_EQ(indices[0], 0);
  EXPECT_EQ(indices[4], 0);
}

/// A call that is right, with a member for each thing that can be wrong.
template <class Backend>
struct evict_call {
  floats score_memory = floats(8, 1.0f);
  std::vector<slot_kind> kind_memory = std::vector<slot_kind>(8, slot_kind::visual);
  ints offsets{0, 3, 4}, requested_memory{1, 1, 1, 1}, indices = ints(16, -7), counts = ints(4, -7);
  aligned_memory memory{4 * 64};

  md::evict_options options = within(2);
  md::tensor_view<float const, 1> scores = md::view(score_memory.data(), 4);
  md::tensor_view<slot_kind const, 1> kind = md::view(kind_memory.data(), 4);
  md::segments segments{2, offsets.data(), nullptr, 3};
  md::tensor_view<std::int32_t const, 1> requested;
  md::keep_lists<std::int32_t> keep{md::view(indices.data(), 2, 3), md::view(counts.data(), 2)};
  md::workspace scratch = memory.lend();

  status run() { return md::kv_evict(Backend{}, options, scores, kind, segments, requested, keep, scratch); }
};

/// What a right call answers after one change; unless it is ok, nothing may have been written.
template <class Backend, class Change>
status after(Change const& change) {
  evict_call<Backend> call;
  change(call);
  status const got = call.run();
  if (got != status::ok) {
    EXPECT_EQ(call.indices, ints(16, -7));
    EXPECT_EQ(call.counts, ints(4, -7));
  }
  return got;
}

TYPED_TEST(KvEvict, WrongShapesAreRefused) {
  EXPECT_EQ(after<TypeParam>([](auto&) {}), status::ok);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.scores = {}; }), status::ok);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.scores.sizes[0] = 3; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.kind.sizes[0] = 3; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.kind.sizes[0] = -4, c.scores.sizes[0] = -4; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.kind.data = nullptr; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.segments = {2, nullptr, nullptr, 0}; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.segments.count = -1; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.segments.longest = 0; }), status::bad_shape);  // a segment could have all 4 slots
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.keep.indices.sizes[1] = 2; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.keep.indices.sizes[0] = 1; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.keep.counts.sizes[0] = 1; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.requested = md::view(c.requested_memory.data(), 3); }), status::bad_shape);
}

TYPED_TEST(KvEvict, StridesOtherThanOneAreRefused) {
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.scores.strides[0] = 2; }), status::bad_stride);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.kind.strides[0] = 2; }), status::bad_stride);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.keep.indices.strides[1] = 2; }), status::bad_stride);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.keep.counts.strides[0] = 2; }), status::bad_stride);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.requested = md::view(c.requested_memory.data(), 2), c.requested.strides[0] = 2; }),
            status::bad_stride);
}

TYPED_TEST(KvEvict, WrongOptionsAreRefused) {
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.options.sinks = -1; }), status::bad_argument);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.options.recent = -1; }), status::bad_argument);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.options.block = 0; }), status::bad_argument);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.options.budget = -2; }), status::bad_argument);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.options.budget = -1; }), status::bad_argument);  // output_aware without a budget
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.options.budget = -1, c.requested = md::view(c.requested_memory.data(), 2); }), status::ok);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.options = survivors(), c.options.recent = -1; }), status::bad_argument);
}

TYPED_TEST(KvEvict, TooLittleOrMisalignedWorkspaceIsRefused) {
  std::size_t const needed = md::kv_evict_workspace_size(TypeParam{}, 4, evict_call<TypeParam>{}.segments);
  expect_wrong_workspaces_refused(needed, [](md::workspace scratch) { return after<TypeParam>([&](auto& c) { c.scratch = scratch; }); });
}

}  // namespace
