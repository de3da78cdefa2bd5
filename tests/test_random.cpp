// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include <mustdrop/method/random.hpp>

#include "backends.hpp"
#include "memory.hpp"
#include "refused_workspaces.hpp"

namespace {

using floats = std::vector<float>;
using ints = std::vector<std::int32_t>;
using lists = std::vector<std::vector<std::int64_t>>;
using md::status;

struct draw {
  lists keep;
  floats scores;
};

/// Draws from segments that `offsets` cut; lists as long as `capacity`, entries past the count keep their guard.
template <class Backend, class Index = std::int32_t>
draw random_tokens(md::method::random_options options, ints const& offsets, md::index_t capacity, ints const& requested = {}) {
  constexpr Index guard = -7;
  Backend const backend{};
  auto const tokens = static_cast<md::index_t>(offsets.back());
  md::segments const segments{static_cast<md::index_t>(offsets.size()) - 1, offsets.data(), nullptr, 0};
  padded_tensor<float, 1> scores(-7.0f, 1, 2, tokens);
  padded_tensor<Index, 2> indices(guard, 1, 3, segments.count, capacity);
  padded_tensor<std::int32_t, 1> counts(-7, 1, 2, segments.count);
  md::tensor_view<std::int32_t const, 1> asked;
  if (!requested.empty()) { asked = md::view(requested.data(), requested.size()); }
  aligned_memory scratch(md::top_k_workspace_size(backend, tokens, segments));
  status const got = md::method::random(backend, options, segments, asked, scores.view(),
                                        md::keep_lists<Index>{indices.view(), counts.view()}, scratch.lend());
  EXPECT_EQ(got, status::ok) << message(got);
  draw out;
  for (md::index_t t = 0; t < tokens; ++t) { out.scores.push_back(scores.view()(t)); }
  for (md::index_t s = 0; s < segments.count; ++s) {
    out.keep.emplace_back();
    for (md::index_t i = 0; i < capacity; ++i) {
      if (i < counts.view()(s)) {
        out.keep.back().push_back(indices.view()(s, i));
      } else {
        EXPECT_EQ(indices.view()(s, i), guard);
      }
    }
  }
  return out;
}

template <class Backend>
struct Random : testing::Test {};
TYPED_TEST_SUITE(Random, Backends);

// The first outputs of SplitMix64 with state 0 (0xe220a8397b1dcdaf, 0x6e789e6aa1b965f4, 0x06c45d188009454f, 0xf88bb8a8724c81ec, as published with
// it) and the first with state 1234567 (0x599ed017fb08fc85), cut to 24 bits.
TEST(RandomScore, IsSplitMix64) {
  EXPECT_EQ(md::method::random_score(0, 0), 0xe220a8p-24f);
  EXPECT_EQ(md::method::random_score(0, 1), 0x6e789ep-24f);
  EXPECT_EQ(md::method::random_score(0, 2), 0x06c45dp-24f);
  EXPECT_EQ(md::method::random_score(0, 3), 0xf88bb8p-24f);
  EXPECT_EQ(md::method::random_score(1234567, 0), 0x599ed0p-24f);
}

TYPED_TEST(Random, ASeedKeepsTheSameTokensForEver) {
  auto const got = random_tokens<TypeParam>({}, {0, 4}, 2);
  EXPECT_EQ(got.keep, (lists{{0, 3}}));
  EXPECT_EQ(got.scores, (floats{0xe220a8p-24f, 0x6e789ep-24f, 0x06c45dp-24f, 0xf88bb8p-24f}));
}

TYPED_TEST(Random, BestScoreFirstIfAsked) {
  EXPECT_EQ(random_tokens<TypeParam>({0, md::output_order::score}, {0, 4}, 3).keep, (lists{{3, 0, 1}}));
}

TYPED_TEST(Random, AnotherSeedKeepsOtherTokens) {
  std::set<lists> seen;
  for (std::uint64_t seed = 0; seed < 20; ++seed) { seen.insert(random_tokens<TypeParam>({seed}, {0, 576}, 64).keep); }
  EXPECT_EQ(seen.size(), 20u);
}

TYPED_TEST(Random, EachSegmentGetsItsRequest) {
  auto const got = random_tokens<TypeParam>({5}, {0, 10, 10, 13, 20}, 7, {3, 2, 0, 9});
  ASSERT_EQ(got.keep.size(), 4u);
  EXPECT_EQ(got.keep[0].size(), 3u);
  EXPECT_EQ(got.keep[1].size(), 0u);
  EXPECT_EQ(got.keep[2].size(), 0u);
  EXPECT_EQ(got.keep[3].size(), 7u);
}

TYPED_TEST(Random, NothingAllAndEmpty) {
  EXPECT_EQ(random_tokens<TypeParam>({}, {0, 5}, 0).keep, (lists{{}}));
  EXPECT_EQ(random_tokens<TypeParam>({}, {0, 5}, 9).keep, (lists{{0, 1, 2, 3, 4}}));
  EXPECT_EQ(random_tokens<TypeParam>({}, {0, 0}, 3).keep, (lists{{}}));
  EXPECT_EQ(random_tokens<TypeParam>({}, {0}, 3).keep, (lists{}));
}

TYPED_TEST(Random, ASegmentDoesNotDependOnItsNeighbours) {
  auto const together = random_tokens<TypeParam>({9}, {0, 17, 50, 114}, 20);
  EXPECT_EQ(random_tokens<TypeParam>({9}, {0, 17}, 20).keep, (lists{together.keep[0]}));
  EXPECT_EQ(random_tokens<TypeParam>({9}, {0, 33}, 20).keep, (lists{together.keep[1]}));
  EXPECT_EQ(random_tokens<TypeParam>({9}, {0, 64}, 20).keep, (lists{together.keep[2]}));
}

TYPED_TEST(Random, IsTopKOfTheScoresAndTheSameOnTheReference) {
  std::mt19937 random = printed_random(51);
  for (int round = 0; round < 100; ++round) {
    auto const n = static_cast<std::int32_t>(random() % 200);
    std::size_t const k = random() % 200;
    std::uint64_t const seed = random();
    auto const got = random_tokens<TypeParam>({seed}, {0, n}, static_cast<md::index_t>(k));
    std::vector<std::pair<float, std::int64_t>> order;
    for (std::int64_t t = 0; t < n; ++t) { order.emplace_back(-md::method::random_score(seed, t), t); }
    std::sort(order.begin(), order.end());
    std::set<std::int64_t> best;
    for (std::size_t i = 0; i < std::min(k, order.size()); ++i) { best.insert(order[i].second); }
    EXPECT_EQ(got.keep, (lists{{best.begin(), best.end()}})) << "seed " << seed;
    EXPECT_EQ(got.keep, random_tokens<md::reference::backend>({seed}, {0, n}, static_cast<md::index_t>(k)).keep);
    EXPECT_EQ(got.keep, (random_tokens<TypeParam, std::int64_t>({seed}, {0, n}, static_cast<md::index_t>(k)).keep));
  }
}

TYPED_TEST(Random, ScoresLieBelowOne) {
  for (std::uint64_t const seed : {std::uint64_t{0}, std::uint64_t{1}, ~std::uint64_t{0}}) {
    auto const drawn = random_tokens<TypeParam>({seed}, {0, 2048}, 1);
    for (float const score : drawn.scores) {
      EXPECT_GE(score, 0.0f);
      EXPECT_LT(score, 1.0f);
    }
  }
}

// Each of 64 places is kept with probability 16/64 in 4096 draws: 1024 times on average, with a standard deviation of sqrt(4096·¼·¾) = 27.7.
// Six of them is a bound that a fair draw passes with a probability of more than 1 − 1e-6; and the seeds are fixed, so it passes always or never.
TYPED_TEST(Random, EveryPlaceIsKeptAboutEquallyOften) {
  std::vector<int> kept(64, 0);
  for (std::uint64_t seed = 0; seed < 4096; ++seed) {
    auto const drawn = random_tokens<TypeParam>({seed}, {0, 64}, 16);
    for (std::int64_t const t : drawn.keep[0]) { ++kept[static_cast<std::size_t>(t)]; }
  }
  for (std::size_t t = 0; t < kept.size(); ++t) { EXPECT_NEAR(kept[t], 1024, 166) << "place " << t; }
}

/// A call that is right, with a member for each thing that can be wrong.
template <class Backend>
struct random_call {
  floats score_memory = floats(8, -7.0f);
  ints offsets{0, 3, 4}, requested_memory{1, 1, 1, 1}, indices = ints(16, -7), counts = ints(4, -7);
  aligned_memory memory{4 * 64};

  md::segments segments{2, offsets.data(), nullptr, 3};
  md::tensor_view<std::int32_t const, 1> requested = md::view(requested_memory.data(), 2);
  md::tensor_view<float, 1> scores = md::view(score_memory.data(), 4);
  md::keep_lists<std::int32_t> keep{md::view(indices.data(), 2, 3), md::view(counts.data(), 2)};
  md::workspace scratch = memory.lend();

  status run() { return md::method::random(Backend{}, {}, segments, requested, scores, keep, scratch); }
};

/// What a right call answers after one change; unless it is ok, nothing may have been written, scores included.
template <class Backend, class Change>
status after(Change const& change) {
  random_call<Backend> call;
  change(call);
  status const got = call.run();
  if (got != status::ok) {
    EXPECT_EQ(call.score_memory, floats(8, -7.0f));
    EXPECT_EQ(call.indices, ints(16, -7));
    EXPECT_EQ(call.counts, ints(4, -7));
  }
  return got;
}

TYPED_TEST(Random, WrongShapesAndStridesAreRefused) {
  EXPECT_EQ(after<TypeParam>([](auto&) {}), status::ok);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.scores.sizes[0] = -1; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.scores.data = nullptr; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.segments.offsets = nullptr; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.requested.sizes[0] = 3; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.keep.indices.sizes[0] = 1; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.keep.counts.sizes[0] = 1; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.scores.strides[0] = 2; }), status::bad_stride);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.requested.strides[0] = 2; }), status::bad_stride);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.keep.indices.strides[1] = 2; }), status::bad_stride);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.keep.counts.strides[0] = 2; }), status::bad_stride);
}

TYPED_TEST(Random, TooLittleOrMisalignedWorkspaceIsRefused) {
  std::size_t const needed = md::top_k_workspace_size(TypeParam{}, 4, random_call<TypeParam>{}.segments);
  expect_wrong_workspaces_refused(needed, [](md::workspace scratch) { return after<TypeParam>([&](auto& c) { c.scratch = scratch; }); });
}

}  // namespace
