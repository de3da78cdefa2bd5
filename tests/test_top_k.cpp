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

namespace {

using floats = std::vector<float>;
using ints = std::vector<std::int32_t>;
using lists = std::vector<std::vector<std::int64_t>>;
using md::status;
constexpr auto best_first = md::output_order::score;

struct top_k_case {
  floats scores;
  md::index_t capacity;
  ints requested{};  // {}: the capacity is the request
  ints offsets{};    // {}: one segment
  ints counts{};     // {}: segments reach up to the next
  md::output_order order = md::output_order::position;
};

md::segments segments_of(top_k_case const& c) {
  if (c.offsets.empty()) { return {}; }
  return {static_cast<md::index_t>(c.offsets.size()) - 1, c.offsets.data(), c.counts.empty() ? nullptr : c.counts.data(), 0};
}

/// Runs the word on memory that begins at odd addresses, and looks that nothing beside the lists and their counts was written.
template <class Backend, class Index = std::int32_t>
lists top_k(top_k_case const& c) {
  constexpr Index guard = -7;
  Backend const backend{};
  auto const tokens = static_cast<md::index_t>(c.scores.size());
  auto const segments = segments_of(c);
  padded_tensor<float, 1> scores(inf, 1, 2, tokens);  // infinities around the scores: whoever reads one keeps it
  std::copy(c.scores.begin(), c.scores.end(), scores.view().data);
  padded_tensor<Index, 2> indices(guard, 1, 3, segments.count, c.capacity);
  padded_tensor<std::int32_t, 1> counts(-7, 1, 2, segments.count), asked(99, 3, 2, segments.count);
  std::copy(c.requested.begin(), c.requested.end(), asked.view().data);
  md::tensor_view<std::int32_t const, 1> requested;
  if (!c.requested.empty()) { requested = asked.view(); }

  EXPECT_EQ(md::check(segments, tokens), status::ok);
  aligned_memory scratch(md::top_k_workspace_size(backend, tokens, segments));
  auto const got = md::top_k(backend, {c.order}, scores.view(), segments, requested, md::keep_lists<Index>{indices.view(), counts.view()},
                             scratch.lend());
  EXPECT_EQ(got, status::ok) << message(got);

  lists keep;
  auto untouched = static_cast<md::index_t>(indices.memory().size());
  for (md::index_t s = 0; s < segments.count; ++s) {
    md::index_t const count = counts.view()(s);
    EXPECT_TRUE(0 <= count && count <= c.capacity) << count << " entries in list " << s;
    keep.emplace_back();
    for (md::index_t i = 0; i < std::min(count, c.capacity); ++i) { keep.back().push_back(indices.view()(s, i)); }
    untouched -= static_cast<md::index_t>(keep.back().size());
  }
  EXPECT_EQ(std::count(indices.memory().begin(), indices.memory().end(), guard), untouched) << "entries past the lists";
  EXPECT_EQ(std::count(counts.memory().begin(), counts.memory().end(), -7),
            static_cast<md::index_t>(counts.memory().size()) - segments.count);
  return keep;
}

template <class Backend>
struct TopK : testing::Test {};
TYPED_TEST_SUITE(TopK, Backends);

TYPED_TEST(TopK, KeepsTheHighestInIncreasingOrder) { EXPECT_EQ(top_k<TypeParam>({{0.5f, 2, -1, 4}, 2}), (lists{{1, 3}})); }

TYPED_TEST(TopK, BestFirstWhereReleasedCodeWantsIt) {
  EXPECT_EQ(top_k<TypeParam>({{0.5f, 2, -1, 4}, 3, {}, {}, {}, best_first}), (lists{{3, 1, 0}}));
  EXPECT_EQ(top_k<TypeParam>({{1, quiet_nan, 2, 1, quiet_nan}, 5, {}, {}, {}, best_first}), (lists{{2, 0, 3, 1, 4}}));
}

TYPED_TEST(TopK, SmallerIndexWinsATie) {
  EXPECT_EQ(top_k<TypeParam>({{1, 1, 1, 1}, 2}), (lists{{0, 1}}));
  EXPECT_EQ(top_k<TypeParam>({{1, 2, 1, 2, 1}, 3}), (lists{{0, 1, 3}}));
  EXPECT_EQ(top_k<TypeParam>({{1, 2, 1, 2, 1}, 4, {}, {}, {}, best_first}), (lists{{1, 3, 0, 2}}));
}

TYPED_TEST(TopK, MinusZeroTiesWithZero) {
  EXPECT_EQ(top_k<TypeParam>({{-0.0f, 0}, 1}), (lists{{0}}));
  EXPECT_EQ(top_k<TypeParam>({{0, -0.0f}, 1}), (lists{{0}}));
  EXPECT_EQ(top_k<TypeParam>({{-1, 0, -0.0f, 0, 1}, 4, {}, {}, {}, best_first}), (lists{{4, 1, 2, 3}}));
}

TYPED_TEST(TopK, NanRanksBelowMinusInfinity) {
  EXPECT_EQ(top_k<TypeParam>({{quiet_nan, -inf, quiet_nan, inf}, 2}), (lists{{1, 3}}));
  EXPECT_EQ(top_k<TypeParam>({{quiet_nan, -inf, quiet_nan, inf}, 3}), (lists{{0, 1, 3}}));
}

// The sign and the payload of a NaN are not an order.
TYPED_TEST(TopK, EveryNanTiesWithEveryOther) {
  float const negative = md::float_from_bits(0xffffffffu), signaling = md::float_from_bits(0x7f800001u),
              largest = md::float_from_bits(0x7fffffffu), small_negative = md::float_from_bits(0xff800001u);
  EXPECT_EQ(top_k<TypeParam>({{negative, signaling, largest, small_negative, quiet_nan, -inf}, 6, {}, {}, {}, best_first}),
            (lists{{5, 0, 1, 2, 3, 4}}));
  EXPECT_EQ(top_k<TypeParam>({{quiet_nan, quiet_nan, quiet_nan}, 2}), (lists{{0, 1}}));
}

// From the lowest to the highest, subnormals and neighbours in the last bit included.
TYPED_TEST(TopK, EveryStepUpwardsIsSeen) {
  constexpr float tiny = std::numeric_limits<float>::denorm_min(), normal = std::numeric_limits<float>::min(),
                  largest = std::numeric_limits<float>::max();
  floats const ladder{quiet_nan, -inf,     -largest, -1, std::nextafter(-1.0f, 0.0f), -normal, -2 * tiny, -tiny, 0,
                      tiny,      2 * tiny, normal,   1,  std::nextafter(1.0f, 2.0f),  2,       largest,   inf};
  for (std::size_t i = 1; i < ladder.size(); ++i) {
    EXPECT_EQ(top_k<TypeParam>({{ladder[i], ladder[i - 1]}, 1}), (lists{{0}})) << ladder[i] << " above " << ladder[i - 1];
    EXPECT_EQ(top_k<TypeParam>({{ladder[i - 1], ladder[i]}, 1}), (lists{{1}})) << ladder[i - 1] << " below " << ladder[i];
  }
}

TYPED_TEST(TopK, NothingAskedNothingKept) {
  EXPECT_EQ(top_k<TypeParam>({{1, 2}, 0}), (lists{{}}));
  EXPECT_EQ(top_k<TypeParam>({{1, 2}, 2, {0}}), (lists{{}}));
}

TYPED_TEST(TopK, EmptyInputKeepsNothing) {
  EXPECT_EQ(top_k<TypeParam>({{}, 3}), (lists{{}}));
  EXPECT_EQ(top_k<TypeParam>({{}, 3, {2}}), (lists{{}}));
  EXPECT_EQ(top_k<TypeParam>({{}, 3, {}, {0}}), (lists{}));
  EXPECT_EQ(top_k<TypeParam>({{1, 2}, 3, {}, {1}}), (lists{}));  // no segment, whatever the tokens
}

TYPED_TEST(TopK, OneTokenAllTokensAndMoreThanThereAre) {
  EXPECT_EQ(top_k<TypeParam>({{quiet_nan}, 1}), (lists{{0}}));
  EXPECT_EQ(top_k<TypeParam>({{3, 1, 2}, 3}), (lists{{0, 1, 2}}));
  EXPECT_EQ(top_k<TypeParam>({{3, 1, 2}, 9}), (lists{{0, 1, 2}}));
  EXPECT_EQ(top_k<TypeParam>({{3, 1, 2}, 9, {2147483647}}), (lists{{0, 1, 2}}));
}

TYPED_TEST(TopK, TheListsCapacityIsARequestAndABound) {
  EXPECT_EQ(top_k<TypeParam>({{3, 1, 2}, 2}), (lists{{0, 2}}));
  EXPECT_EQ(top_k<TypeParam>({{3, 1, 2}, 2, {1}}), (lists{{0}}));
  EXPECT_EQ(top_k<TypeParam>({{3, 1, 2}, 2, {3}}), (lists{{0, 2}}));
  EXPECT_EQ(top_k<TypeParam>({{1, 2, 3}, 2, {3}, {}, {}, best_first}), (lists{{2, 1}}));
}

TYPED_TEST(TopK, AShortSegmentKeepsAll) { EXPECT_EQ(top_k<TypeParam>({{3, 1, 2}, 2, {}, {0, 1, 1, 3}}), (lists{{0}, {}, {0, 1}})); }

TYPED_TEST(TopK, EachSegmentHasItsOwnRequest) {
  top_k_case c{{1, 2, 3, 9, 1, 2, 3}, 3, {2, 0, 5, 1}, {0, 3, 4, 4, 7}};
  EXPECT_EQ(top_k<TypeParam>(c), (lists{{1, 2}, {}, {}, {2}}));
  c.requested.clear(), c.capacity = 1;
  EXPECT_EQ(top_k<TypeParam>(c), (lists{{2}, {0}, {}, {2}}));
}

// Images among text: segments begin anywhere, and what lies between them is not read.
TYPED_TEST(TopK, TokensPastTheCountAreNotRead) {
  EXPECT_EQ(top_k<TypeParam>({{inf, 1, 2, inf, 4, 3, inf, inf}, 1, {}, {1, 4, 8}, {2, 2}}), (lists{{1}, {0}}));
  EXPECT_EQ(top_k<TypeParam>({{5, 6, 7, 8}, 2, {}, {0, 2, 4}, {0, 0}}), (lists{{}, {}}));
}

TYPED_TEST(TopK, ListsMayStandInAnyOrderAndListsOfOneHaveNoInnerStride) {
  floats const scores{1, 3, 2, 6, 5, 4};
  ints const offsets{0, 3, 6};
  md::segments const segments{2, offsets.data(), nullptr, 3};
  ints backwards(7, -7), counts(2, -7), single(2, -7);
  TypeParam const backend{};
  aligned_memory scratch(md::top_k_workspace_size(backend, 6, segments));
  md::keep_lists<std::int32_t> keep{{backwards.data() + 4, {2, 2}, {-3, 1}}, md::view(counts.data(), 2)};
  ASSERT_EQ(md::top_k(backend, {}, md::view(scores.data(), 6), segments, {}, keep, scratch.lend()), status::ok);
  EXPECT_EQ(backwards, (ints{-7, 0, 1, -7, 1, 2, -7}));
  keep.indices = {single.data(), {2, 1}, {1, 99}};
  ASSERT_EQ(md::top_k(backend, {}, md::view(scores.data(), 6), segments, {}, keep, scratch.lend()), status::ok);
  EXPECT_EQ(single, (ints{1, 0}));
}

TEST(TopKCount, IsKnownWithoutData) {
  static_assert(retained_count(md::top_k_options{}, 576, 64) == 64);
  static_assert(retained_count(md::top_k_options{}, 576, 576) == 576);
  static_assert(retained_count(md::top_k_options{}, 576, 600) == 576);
  static_assert(retained_count(md::top_k_options{}, 0, 64) == 0);
  static_assert(retained_count(md::top_k_options{}, 576, 0) == 0);
  EXPECT_EQ(retained_count(md::top_k_options{}, 576, -1), 0);
}

TEST(TopKWorkspace, IsAClosedFormAndNothingForTheReference) {
  static_assert(md::top_k_workspace_size(md::reference::backend{}, 1024, md::segments{}) == 0);
  static_assert(md::top_k_workspace_size(md::reference::backend{}, 0, md::segments{}) == 0);
}

// The header's sentence once more, by a stable sort.
lists by_sorting(top_k_case const& c) {
  lists keep;
  ints const ends = c.offsets.empty() ? ints{0, static_cast<std::int32_t>(c.scores.size())} : c.offsets;
  for (std::size_t s = 0; s + 1 < ends.size(); ++s) {
    float const* const score = c.scores.data() + ends[s];
    std::vector<std::int64_t> order(static_cast<std::size_t>(c.counts.empty() ? ends[s + 1] - ends[s] : c.counts[s]));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [score](std::int64_t a, std::int64_t b) {
      return md::is_nan(score[b]) ? !md::is_nan(score[a]) : score[a] > score[b];
    });
    md::index_t const k = std::min(c.capacity, c.requested.empty() ? c.capacity : md::index_t{c.requested[s]});
    order.resize(std::min(order.size(), static_cast<std::size_t>(k)));
    if (c.order == md::output_order::position) { std::sort(order.begin(), order.end()); }
    keep.push_back(order);
  }
  return keep;
}

/// Many ties, and now and then something special or any 32 bits.
float any_score(std::mt19937& random) {
  constexpr float special[] = {quiet_nan, inf, -inf, 0, -0.0f, 0x1p-149f, -0x1p-149f, 0x1p-126f};
  std::uint32_t const kind = random() % 16;
  if (kind < 3) { return special[random() % 8]; }
  return kind < 5 ? md::float_from_bits(static_cast<std::uint32_t>(random())) : static_cast<float>(random() % 32) / 8 - 2;
}

floats any_scores(std::mt19937& random, std::size_t count) {
  floats scores(count);
  for (float& score : scores) { score = any_score(random); }
  return scores;
}

top_k_case random_case(std::mt19937& random) {
  top_k_case c{{}, static_cast<md::index_t>(random() % 80)};
  c.offsets = {static_cast<std::int32_t>(random() % 3)};
  for (int s = 0; s < 5; ++s) { c.offsets.push_back(c.offsets.back() + static_cast<std::int32_t>(random() % 71)); }
  c.scores = any_scores(random, static_cast<std::size_t>(c.offsets.back()) + random() % 3);
  for (std::size_t s = 0; s < 5; ++s) {
    c.requested.push_back(static_cast<std::int32_t>(random() % 80));
    c.counts.push_back(static_cast<std::int32_t>(random() % static_cast<std::uint32_t>(c.offsets[s + 1] - c.offsets[s] + 1)));
  }
  if (random() % 2 == 0) { c.requested.clear(); }
  if (random() % 2 == 0) { c.counts.clear(); }
  if (random() % 2 == 0) { c.order = best_first; }
  return c;
}

TYPED_TEST(TopK, AgreesWithSortingForEverySizeAroundTheVectorWidths) {
  std::mt19937 random = printed_random(31);
  for (std::size_t n = 0; n <= 70; ++n) {
    auto const all = static_cast<md::index_t>(n);
    for (md::index_t const k : {md::index_t{0}, md::index_t{1}, all / 2, std::max<md::index_t>(all - 1, 0), all, all + 1}) {
      for (auto const order : {md::output_order::position, best_first}) {
        top_k_case const c{any_scores(random, n), k, {}, {}, {}, order};
        EXPECT_EQ(top_k<TypeParam>(c), by_sorting(c)) << k << " of " << n;
      }
    }
  }
}

TYPED_TEST(TopK, AgreesWithSortingAndWithTheReferenceOnRandomBatches) {
  std::mt19937 random = printed_random(32);
  for (int round = 0; round < 200; ++round) {
    auto const c = random_case(random);
    EXPECT_EQ(top_k<TypeParam>(c), by_sorting(c)) << "round " << round;
    EXPECT_EQ(top_k<TypeParam>(c), top_k<md::reference::backend>(c)) << "round " << round;
    EXPECT_EQ((top_k<TypeParam, std::int64_t>(c)), top_k<TypeParam>(c)) << "int64, round " << round;
  }
}

TYPED_TEST(TopK, TwoThousandTokensAgreeWithSorting) {
  std::mt19937 random = printed_random(33);
  for (md::index_t const k : {1, 164, 2047}) {
    top_k_case c{any_scores(random, 2048), k};
    EXPECT_EQ(top_k<TypeParam>(c), by_sorting(c)) << k;
    std::fill(c.scores.begin(), c.scores.end(), 0.25f);  // nothing but ties
    EXPECT_EQ(top_k<TypeParam>(c), by_sorting(c)) << k << " of equals";
    for (float& score : c.scores) { score = md::float_from_bits(0x3f800000u + static_cast<std::uint32_t>(random() % 4096)); }
    EXPECT_EQ(top_k<TypeParam>(c), by_sorting(c)) << k << " that differ in the lowest bits only";
  }
}

TYPED_TEST(TopK, OneMoreAskedIsOneMoreKept) {
  std::mt19937 random = printed_random(34);
  top_k_case c{any_scores(random, 67), 0};
  for (auto last = top_k<TypeParam>(c)[0]; c.capacity < 67; ++c.capacity) {
    EXPECT_EQ(static_cast<md::index_t>(last.size()), c.capacity);
    auto wider = c;
    ++wider.capacity;
    auto const next = top_k<TypeParam>(wider)[0];
    EXPECT_TRUE(std::includes(next.begin(), next.end(), last.begin(), last.end())) << c.capacity;
    last = next;
  }
}

TYPED_TEST(TopK, ASegmentDoesNotDependOnItsNeighbours) {
  std::mt19937 random = printed_random(35);
  for (int round = 0; round < 50; ++round) {
    auto c = random_case(random);
    c.counts.clear();
    auto const together = top_k<TypeParam>(c);
    for (std::size_t s = 0; s < together.size(); ++s) {
      top_k_case alone{{c.scores.begin() + c.offsets[s], c.scores.begin() + c.offsets[s + 1]}, c.capacity, {}, {}, {}, c.order};
      if (!c.requested.empty()) { alone.requested = {c.requested[s]}; }
      EXPECT_EQ(top_k<TypeParam>(alone), lists{together[s]}) << "round " << round << ", segment " << s;
    }
  }
}

// What one call kept in place of capacity is the next call's input, whose counts never left the backend.
TYPED_TEST(TopK, CountsOfOneCallAreTheSegmentsOfTheNext) {
  TypeParam const backend{};
  floats const scores{4, 1, 3, 2, /**/ 1, 5, 6, 0, 2, 4};
  ints const offsets{0, 4, 10}, first{3, 4}, second{2, 1};
  md::segments const before{2, offsets.data(), nullptr, 6};
  ints indices(12, -7), counts(2, -7), later(12, -7), later_counts(2, -7);
  floats left(10, inf);  // where nothing was written, something that would be kept
  aligned_memory scratch(md::top_k_workspace_size(backend, 10, before));
  md::keep_lists<std::int32_t> const keep{md::view(indices.data(), 2, 6), md::view(counts.data(), 2)};
  md::keep_lists<std::int32_t> const keep_later{md::view(later.data(), 2, 6), md::view(later_counts.data(), 2)};

  ASSERT_EQ(md::top_k(backend, {}, md::view(scores.data(), 10), before, md::view(first.data(), 2), keep, scratch.lend()), status::ok);
  EXPECT_EQ(counts, (ints{3, 4}));
  ASSERT_EQ(md::gather(backend, md::view(scores.data(), 10), before, keep, md::view(left.data(), 10), {}), status::ok);

  md::segments const after{2, offsets.data(), counts.data(), 6};
  ASSERT_EQ(md::top_k(backend, {}, md::view(left.data(), 10), after, md::view(second.data(), 2), keep_later, scratch.lend()), status::ok);
  EXPECT_EQ(later_counts, (ints{2, 1}));
  EXPECT_EQ(ints(later.begin(), later.begin() + 2), (ints{0, 1}));  // 4 and 3 of 4, 3, 2
  EXPECT_EQ(later[6], 1);                                           // 6 of 5, 6, 2, 4
}

// Keep of one score as many as two thresholds kept of another: the request is the earlier call's counts, where they lie.
TYPED_TEST(TopK, CountsOfOneCallAreTheRequestsOfTheNext) {
  TypeParam const backend{};
  floats const attention{4, 0, 0, 4, /**/ 1, 1, 6}, largest(7, 0.0f), scores{1, 2, 3, 4, /**/ 3, 2, 1};
  ints const offsets{0, 4, 7};
  md::segments const images{2, offsets.data(), nullptr, 4};
  ints indices(8, -7), requested(2, -7), counts(2, -7);
  aligned_memory scratch(std::max(md::dual_mask_workspace_size(backend, 7, images), md::top_k_workspace_size(backend, 7, images)));
  ASSERT_EQ(md::dual_mask(backend, {0.25f, 1, -1}, md::view(attention.data(), 7), md::view(largest.data(), 7), images, {}, {},
                          md::keep_lists<std::int32_t>{md::view(indices.data(), 2, 4), md::view(requested.data(), 2)}, scratch.lend()),
            status::ok);
  EXPECT_EQ(requested, (ints{2, 1}));
  ASSERT_EQ(md::top_k(backend, {}, md::view(scores.data(), 7), images, md::view(requested.data(), 2),
                      md::keep_lists<std::int32_t>{md::view(indices.data(), 2, 4), md::view(counts.data(), 2)}, scratch.lend()),
            status::ok);
  EXPECT_EQ(counts, requested);
  EXPECT_EQ(ints(indices.begin(), indices.begin() + 2), (ints{2, 3}));
  EXPECT_EQ(indices[4], 0);
}

/// A call that is right, with a member for each thing that can be wrong.
template <class Backend>
struct top_k_call {
  floats memory = floats(8, 1.0f);
  ints offsets{0, 3, 4}, requested_memory{1, 1, 1, 1}, indices = ints(16, -7), counts = ints(4, -7);

  md::tensor_view<float const, 1> scores = md::view(memory.data(), 4);
  md::segments segments{2, offsets.data(), nullptr, 3};
  md::tensor_view<std::int32_t const, 1> requested;
  md::keep_lists<std::int32_t> keep{md::view(indices.data(), 2, 2), md::view(counts.data(), 2)};
  std::size_t needed = md::top_k_workspace_size(Backend{}, 4, segments);
  aligned_memory room{needed + 64};
  md::workspace scratch = room.lend();

  md::status run() { return md::top_k(Backend{}, {}, scores, segments, requested, keep, scratch); }
};

/// What a right call answers after one change; unless it is ok, nothing may have been written.
template <class Backend, class Change>
md::status after(Change const& change) {
  top_k_call<Backend> call;
  change(call);
  md::status const got = call.run();
  if (got != status::ok) {
    EXPECT_EQ(call.indices, ints(16, -7));
    EXPECT_EQ(call.counts, ints(4, -7));
  }
  return got;
}

TYPED_TEST(TopK, WrongShapesAreRefused) {
  EXPECT_EQ(after<TypeParam>([](auto&) {}), status::ok);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.requested = md::view(c.requested_memory.data(), 2); }), status::ok);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.segments.longest = 0; }), status::ok);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.keep.indices = {nullptr, {2, 0}, {0, 1}}; }), status::ok);  // lists of nothing
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.scores.sizes[0] = -4; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.scores.sizes[0] = md::most_tokens + 1; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.scores.data = nullptr; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.segments = {2, nullptr, nullptr, 0}; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.segments.count = -1; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.segments.longest = -1; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.keep.indices.sizes[0] = 1; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.keep.indices.sizes[1] = -1; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.keep.indices.data = nullptr; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.keep.counts.sizes[0] = 1; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.keep.counts.data = nullptr; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.requested = md::view(c.requested_memory.data(), 3); }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.requested = md::view(c.requested_memory.data(), 1); }), status::bad_shape);
}

TYPED_TEST(TopK, StridesOtherThanOneAreRefused) {
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.scores.strides[0] = 2; }), status::bad_stride);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.scores.strides[0] = -1; }), status::bad_stride);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.keep.indices.strides[1] = 2; }), status::bad_stride);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.keep.counts.strides[0] = 2; }), status::bad_stride);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.requested = md::view(c.requested_memory.data(), 2), c.requested.strides[0] = 2; }),
            status::bad_stride);
}

TYPED_TEST(TopK, TooLittleOrMisalignedWorkspaceIsRefused) {
  std::size_t const needed = top_k_call<TypeParam>{}.needed;
  expect_wrong_workspaces_refused(needed, [](md::workspace scratch) { return after<TypeParam>([&](auto& c) { c.scratch = scratch; }); });
}

}  // namespace
