// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include <mustdrop/plan.hpp>

#include "backends.hpp"
#include "memory.hpp"
#include "ragged.hpp"

namespace {

using Numbers = std::vector<int>;
using md::position_policy;

constexpr int untouched = -77;
constexpr position_policy policies[] = {position_policy::kept, position_policy::renumbered, position_policy::closed};

struct placed {
  Lists axes;  // one list an axis
  Numbers delta;
};
bool operator==(placed const& a, placed const& b) { return a.axes == b.axes && a.delta == b.delta; }

/// As much room as there are old positions; what is not written is `untouched`.
template <class Backend, class P = std::int32_t, class Index = std::int32_t>
placed place(position_policy policy, Lists const& old, md::segments const& segments, Lists const& keep, Offsets const& out_offsets = {}) {
  std::size_t const tokens = old.empty() ? 0 : old[0].size();
  std::vector<P> from, out(old.size() * tokens, untouched), delta(keep.size(), untouched);
  for (Numbers const& axis : old) { from.insert(from.end(), axis.begin(), axis.end()); }
  kept_tokens<Index> kept(keep);
  auto const got = md::positions(Backend{}, policy, md::view(from.data(), old.size(), tokens), segments, kept.lists(),
                                 md::view(out.data(), old.size(), tokens), md::view(delta.data(), delta.size()),
                                 md::view(out_offsets.data(), out_offsets.size()));
  EXPECT_EQ(got, md::status::ok) << message(got);
  placed result;
  for (auto at = out.begin(); at != out.end(); at += static_cast<std::ptrdiff_t>(tokens)) {
    result.axes.emplace_back(at, at + static_cast<std::ptrdiff_t>(tokens));
  }
  result.delta.assign(delta.begin(), delta.end());
  return result;
}

/// One segment: only what was written.
template <class Backend>
placed place_all(position_policy policy, Lists const& old, Numbers const& keep) {
  auto result = place<Backend>(policy, old, {}, {keep});
  for (Numbers& axis : result.axes) {
    EXPECT_TRUE(std::all_of(axis.begin() + static_cast<std::ptrdiff_t>(keep.size()), axis.end(), [](int p) { return p == untouched; }));
    axis.resize(keep.size());
  }
  return result;
}

template <class Backend>
struct Positions : testing::Test {};
TYPED_TEST_SUITE(Positions, Backends);

TYPED_TEST(Positions, KeptOnesStayAndNothingBehindMoves) {
  EXPECT_EQ(place_all<TypeParam>(position_policy::kept, {{5, 6, 7, 8, 9}}, {0, 2, 3}), (placed{{{5, 7, 8}}, {0}}));
}

TYPED_TEST(Positions, RenumberedOnesFollowEachOtherAndWhatIsBehindClosesUp) {
  EXPECT_EQ(place_all<TypeParam>(position_policy::renumbered, {{5, 6, 7, 8, 9}}, {1, 3, 4}), (placed{{{5, 6, 7}}, {-2}}));
  EXPECT_EQ(place_all<TypeParam>(position_policy::renumbered, {{5, 6, 7, 8, 9}}, {0, 1, 2, 3, 4}), (placed{{{5, 6, 7, 8, 9}}, {0}}));
}

TYPED_TEST(Positions, ClosedOnesStayAndWhatIsBehindFollowsTheLargest) {
  EXPECT_EQ(place_all<TypeParam>(position_policy::closed, {{5, 6, 7, 8, 9}}, {0, 2}), (placed{{{5, 7}}, {-2}}));
  EXPECT_EQ(place_all<TypeParam>(position_policy::closed, {{5, 6, 7, 8, 9}}, {1, 4}), (placed{{{6, 9}}, {0}}));
}

TYPED_TEST(Positions, WhenNothingIsKeptWhatIsBehindTakesThePlaceOfTheFirst) {
  EXPECT_EQ(place_all<TypeParam>(position_policy::kept, {{5, 6, 7}}, {}), (placed{{{}}, {0}}));
  EXPECT_EQ(place_all<TypeParam>(position_policy::renumbered, {{5, 6, 7}}, {}), (placed{{{}}, {-3}}));
  EXPECT_EQ(place_all<TypeParam>(position_policy::closed, {{5, 6, 7}}, {}), (placed{{{}}, {-3}}));
  EXPECT_EQ(place_all<TypeParam>(position_policy::closed, {{0}}, {}), (placed{{{}}, {-1}}));
}

TYPED_TEST(Positions, OneTokenStaysWhereItIs) {
  for (auto const policy : policies) { EXPECT_EQ(place_all<TypeParam>(policy, {{41}}, {0}), (placed{{{41}}, {0}})); }
}

TYPED_TEST(Positions, NoTokensNoSegmentsAndNoAxesAreFine) {
  Offsets const empty{0};
  for (auto const policy : policies) {
    EXPECT_EQ(place_all<TypeParam>(policy, {{}}, {}).delta, Numbers{0});
    EXPECT_TRUE(place<TypeParam>(policy, {{}}, cut(empty), {}).delta.empty());
    EXPECT_EQ(place<TypeParam>(policy, {}, {}, {{}}).delta, Numbers{0});
  }
}

TYPED_TEST(Positions, EmptySegmentsMoveNothing) {
  Offsets const offsets{0, 2, 2, 4};
  for (auto const policy : policies) {
    EXPECT_EQ(place<TypeParam>(policy, {{0, 1, 2, 3}}, cut(offsets), {{0, 1}, {}, {0, 1}}), (placed{{{0, 1, 2, 3}}, {0, 0, 0}}));
  }
}

TYPED_TEST(Positions, SegmentsBeginWhereTheyBeganAndNeedNotBeginAtZero) {
  Offsets const offsets{2, 5, 8};  // two tokens of text before
  Lists const old{{0, 1, 2, 3, 4, 10, 11, 12}}, keep{{0, 2}, {1}};
  EXPECT_EQ(place<TypeParam>(position_policy::kept, old, cut(offsets), keep),
            (placed{{{untouched, untouched, 2, 4, untouched, 11, untouched, untouched}}, {0, 0}}));
  EXPECT_EQ(place<TypeParam>(position_policy::renumbered, old, cut(offsets), keep),
            (placed{{{untouched, untouched, 2, 3, untouched, 10, untouched, untouched}}, {-1, -2}}));
  EXPECT_EQ(place<TypeParam>(position_policy::closed, old, cut(offsets), keep),
            (placed{{{untouched, untouched, 2, 4, untouched, 11, untouched, untouched}}, {0, -1}}));
}

TYPED_TEST(Positions, PackedPositionsBeginAtTheOffsetsThatPackMakes) {
  Offsets const offsets{0, 3, 6};
  Lists const keep{{1}, {0, 1}};
  kept_tokens<std::int32_t> kept(keep);
  Offsets packed(3);
  ASSERT_EQ(md::pack(md::view(kept.counts.data(), 2), md::view(packed.data(), 3)), md::status::ok);
  EXPECT_EQ(place<TypeParam>(position_policy::closed, {{0, 1, 2, 7, 8, 9}, {5, 5, 6, 7, 7, 8}}, cut(offsets), keep, packed),
            (placed{{{1, 7, 8, untouched, untouched, untouched}, {5, 7, 7, untouched, untouched, untouched}}, {-1, -1}}));
}

TYPED_TEST(Positions, TokensPastTheCountAreNotRead) {
  Offsets const offsets{0, 3, 6}, counts{2, 1};
  md::segments const shrunk{2, offsets.data(), counts.data(), 0};
  EXPECT_EQ(place<TypeParam>(position_policy::closed, {{0, 1, 99, 3, 99, 99}}, shrunk, {{0}, {0}}).delta, (Numbers{-1, 0}));
  EXPECT_EQ(place<TypeParam>(position_policy::renumbered, {{0, 1, 99, 3, 99, 99}}, shrunk, {{1}, {}}).delta, (Numbers{-1, -1}));
}

TYPED_TEST(Positions, TwoStagesInPlaceOfCapacityAreTheirComposition) {
  Offsets const offsets{0, 4, 7};
  Lists const old{{0, 1, 2, 3, 10, 11, 12}}, first{{0, 2, 3}, {1, 2}};
  kept_tokens<std::int32_t> kept(first);
  auto const middle = place<TypeParam>(position_policy::kept, old, cut(offsets), first);
  auto const twice = place<TypeParam>(position_policy::kept, middle.axes, {2, offsets.data(), kept.counts.data(), 0}, {{1, 2}, {0}});
  auto const once = place<TypeParam>(position_policy::kept, old, cut(offsets), {{2, 3}, {1}});
  EXPECT_EQ(twice, once);
}

TYPED_TEST(Positions, DeltaNeedNotBeAskedForAndOneAxisNeedsNoAxis) {
  std::vector<std::int32_t> const old{5, 6, 7, 8};
  std::vector<std::int32_t> out(4, untouched);
  kept_tokens<std::int32_t> kept(Lists{{1, 3}});
  ASSERT_EQ(
      md::positions(TypeParam{}, position_policy::renumbered, md::view(old.data(), 4), {}, kept.lists(), md::view(out.data(), 4), {}, {}),
      md::status::ok);
  EXPECT_EQ(out, (std::vector<std::int32_t>{5, 6, untouched, untouched}));
}

TYPED_TEST(Positions, OneSegmentNeedsRoomForItsListOnly) {
  std::vector<std::int64_t> const old{5, 6, 7, 8};
  std::vector<std::int64_t> out(2, untouched);
  kept_tokens<std::int64_t> kept(Lists{{1, 3}});
  ASSERT_EQ(md::positions(TypeParam{}, position_policy::kept, md::view(old.data(), 4), {}, kept.lists(), md::view(out.data(), 2), {}, {}),
            md::status::ok);
  EXPECT_EQ(out, (std::vector<std::int64_t>{6, 8}));
}

TYPED_TEST(Positions, Int64PositionsReachBeyondInt32) {
  std::int64_t const far = std::int64_t{1} << 40;
  std::vector<std::int64_t> const old{far, far + 1, far + 2};
  std::vector<std::int64_t> out(3, untouched), delta(1);
  kept_tokens<std::int32_t> kept(Lists{{1}});
  for (auto const policy : policies) {
    ASSERT_EQ(md::positions(TypeParam{}, policy, md::view(old.data(), 3), {}, kept.lists(), md::view(out.data(), 3),
                            md::view(delta.data(), 1), {}),
              md::status::ok);
    EXPECT_EQ(out[0], policy == position_policy::renumbered ? far : far + 1);
    EXPECT_EQ(delta[0], policy == position_policy::kept ? 0 : policy == position_policy::closed ? -1 : -2);
  }
}

// Qwen2-VL: three tokens of text at 0, 1, 2; an image of 1×2×3 tokens, whose (t, h, w) all begin at 3; text goes on at 1 + the largest, 6.
Lists const image{{3, 3, 3, 3, 3, 3}, {3, 3, 3, 4, 4, 4}, {3, 4, 5, 3, 4, 5}};

TYPED_TEST(Positions, MropeKeepsTimeHeightAndWidth) {
  EXPECT_EQ(place_all<TypeParam>(position_policy::kept, image, {0, 2, 4}), (placed{{{3, 3, 3}, {3, 3, 4}, {3, 5, 4}}, {0}}));
}

TYPED_TEST(Positions, MropeClosedLetsTheTextFollowTheLargestOfAllAxes) {
  EXPECT_EQ(place_all<TypeParam>(position_policy::closed, image, {0, 2, 4}).delta, Numbers{0});  // w = 5 stays: text at 6
  EXPECT_EQ(place_all<TypeParam>(position_policy::closed, image, {0, 3}), (placed{{{3, 3}, {3, 4}, {3, 3}}, {-1}}));  // h = 4: text at 5
  EXPECT_EQ(place_all<TypeParam>(position_policy::closed, image, {0}).delta, Numbers{-2});                            // text at 4
  EXPECT_EQ(place_all<TypeParam>(position_policy::closed, image, {}).delta, Numbers{-3});                             // text at 3
}

TYPED_TEST(Positions, MropeRenumberedCountsOnAllAxes) {
  EXPECT_EQ(place_all<TypeParam>(position_policy::renumbered, image, {0, 3}), (placed{{{3, 4}, {3, 4}, {3, 4}}, {-1}}));
  EXPECT_EQ(place_all<TypeParam>(position_policy::renumbered, image, {0, 2, 4}), (placed{{{3, 4, 5}, {3, 4, 5}, {3, 4, 5}}, {0}}));
  // Six tokens need six positions where the grid needed three: the text moves away.
  EXPECT_EQ(place_all<TypeParam>(position_policy::renumbered, image, {0, 1, 2, 3, 4, 5}).delta, Numbers{3});
}

TYPED_TEST(Positions, MropeOfAVideoHasTimeToo) {
  // 2×2×2 at 3: text would go on at 5.
  Lists const video{{3, 3, 3, 3, 4, 4, 4, 4}, {3, 3, 4, 4, 3, 3, 4, 4}, {3, 4, 3, 4, 3, 4, 3, 4}};
  EXPECT_EQ(place_all<TypeParam>(position_policy::closed, video, {0, 4}), (placed{{{3, 4}, {3, 3}, {3, 3}}, {0}}));
  EXPECT_EQ(place_all<TypeParam>(position_policy::closed, video, {0}).delta, Numbers{-1});
}

TYPED_TEST(Positions, MropeOfAWholeRequestMovesItsTextWithTheImage) {
  // Text 0 1 2, the image, text 6 7, as one segment: only kept and renumbered make sense of it, closed looks at the last text.
  Lists old(3);
  for (std::size_t a = 0; a < 3; ++a) {
    old[a] = {0, 1, 2};
    old[a].insert(old[a].end(), image[a].begin(), image[a].end());
    old[a].insert(old[a].end(), {6, 7});
  }
  Numbers const keep{0, 1, 2, 3, 6, 9, 10};
  EXPECT_EQ(place_all<TypeParam>(position_policy::kept, old, keep),
            (placed{{{0, 1, 2, 3, 3, 6, 7}, {0, 1, 2, 3, 4, 6, 7}, {0, 1, 2, 3, 3, 6, 7}}, {0}}));
  EXPECT_EQ(place_all<TypeParam>(position_policy::renumbered, old, keep),
            (placed{{{0, 1, 2, 3, 4, 5, 6}, {0, 1, 2, 3, 4, 5, 6}, {0, 1, 2, 3, 4, 5, 6}}, {-1}}));
  EXPECT_EQ(place_all<TypeParam>(position_policy::closed, old, keep).delta, Numbers{0});
}

TYPED_TEST(Positions, MropeOfTheRestOfAnImageEndsBehindTheAxisThatBeginsHighest) {
  Lists const second_row{{3, 3, 3}, {4, 4, 4}, {3, 4, 5}};
  EXPECT_EQ(place_all<TypeParam>(position_policy::renumbered, second_row, {0, 2}), (placed{{{3, 4}, {4, 5}, {3, 4}}, {0}}));
  EXPECT_EQ(place_all<TypeParam>(position_policy::closed, second_row, {0, 1}), (placed{{{3, 3}, {4, 4}, {3, 4}}, {-1}}));
}

TYPED_TEST(Positions, MropeOfSeveralImagesIsOfEachAlone) {
  Offsets const offsets{1, 7, 13};
  Lists old(3);
  for (std::size_t a = 0; a < 3; ++a) {
    old[a] = {2};
    for (int const begin : {0, 10}) {
      for (int const p : image[a]) { old[a].push_back(p + begin); }
    }
  }
  auto const both = place<TypeParam>(position_policy::closed, old, cut(offsets), {{0, 3}, {1, 5}});
  EXPECT_EQ(both.delta, (Numbers{-1, 0}));
  for (std::size_t a = 0; a < 3; ++a) {
    Numbers want(13, untouched);
    want[1] = image[a][0], want[2] = image[a][3], want[7] = image[a][1] + 10, want[8] = image[a][5] + 10;
    EXPECT_EQ(both.axes[a], want);
  }
}

/// The definition once more, over one segment's own lists.
placed defined(position_policy policy, Lists const& old, Numbers const& keep) {
  placed result{Lists(old.size()), {0}};
  int last_old = old[0].empty() ? 0 : old[0][0], last_new = last_old - 1;
  bool first = true;
  for (std::size_t a = 0; a < old.size(); ++a) {
    for (int const p : old[a]) { last_old = std::max(last_old, p); }
    for (std::size_t i = 0; i < keep.size(); ++i) {
      int const p = policy == position_policy::renumbered ? old[a][0] + static_cast<int>(i) : old[a][static_cast<std::size_t>(keep[i])];
      last_new = first ? p : std::max(last_new, p), first = false;
      result.axes[a].push_back(p);
    }
  }
  if (policy != position_policy::kept && !old[0].empty()) { result.delta[0] = last_new - last_old; }
  return result;
}

TYPED_TEST(Positions, EachSegmentOfARandomBatchIsAsIfItWereAlone) {
  auto random = printed_random(81);
  for (int round = 0; round < 100; ++round) {
    std::size_t const axes = round % 2 == 0 ? 1 : 3;
    Offsets offsets{static_cast<std::int32_t>(random() % 3)};
    Lists keep;
    for (int s = 0; s < 4; ++s) {
      auto const size = static_cast<int>(random() % 40);
      auto const chance = random() % 5;
      offsets.push_back(offsets.back() + size);
      keep.emplace_back();
      for (int t = 0; t < size; ++t) {
        if (random() % 4 < chance) { keep.back().push_back(t); }
      }
    }
    Lists old(axes);
    for (Numbers& axis : old) {
      for (std::int32_t t = 0; t < offsets.back(); ++t) { axis.push_back(static_cast<int>(random() % 1000)); }
    }
    for (auto const policy : policies) {
      auto const got = place<TypeParam>(policy, old, cut(offsets), keep);
      EXPECT_EQ((place<TypeParam, std::int64_t, std::int64_t>(policy, old, cut(offsets), keep)), got);
      EXPECT_EQ((place<md::reference::backend>(policy, old, cut(offsets), keep)), got);
      placed want{Lists(axes, Numbers(old[0].size(), untouched)), {}};
      for (std::size_t s = 0; s < 4; ++s) {
        Lists own;
        for (Numbers const& axis : old) { own.emplace_back(axis.begin() + offsets[s], axis.begin() + offsets[s + 1]); }
        auto const alone = defined(policy, own, keep[s]);
        for (std::size_t a = 0; a < axes; ++a) { std::copy(alone.axes[a].begin(), alone.axes[a].end(), want.axes[a].begin() + offsets[s]); }
        want.delta.push_back(alone.delta[0]);
      }
      EXPECT_EQ(got, want);
    }
  }
}

TYPED_TEST(Positions, RenumberedTextBehindContinuesWithoutAGap) {
  auto random = printed_random(82);
  for (int round = 0; round < 50; ++round) {
    int const begin = static_cast<int>(random() % 100), size = 1 + static_cast<int>(random() % 30);
    Numbers old, keep;
    for (int t = 0; t < size; ++t) {
      old.push_back(begin + t);
      if (random() % 2 == 0) { keep.push_back(t); }
    }
    auto const got = place_all<TypeParam>(position_policy::renumbered, {old}, keep);
    EXPECT_EQ(begin + size + got.delta[0], begin + static_cast<int>(keep.size()));  // the first token of text behind
  }
}

TYPED_TEST(Positions, PaddedAxesAreReadAndWrittenAndNothingElse) {
  for (md::index_t const tokens : {1, 3, 17, 31, 32, 33, 64, 1024}) {
    padded_tensor<std::int32_t, 2> old(1 << 29, 1, 3, 3, tokens), out(untouched, 3, 5, 3, tokens), want(untouched, 3, 5, 3, tokens);
    Numbers keep;
    for (md::index_t t = 0; t < tokens; ++t) {
      for (md::index_t a = 0; a < 3; ++a) { old.view()(a, t) = static_cast<std::int32_t>(100 * a + 2 * t); }
      if (t % 3 != 1) {
        for (md::index_t a = 0; a < 3; ++a) { want.view()(a, keep.size()) = old.view()(a, t); }
        keep.push_back(static_cast<int>(t));
      }
    }
    kept_tokens<std::int32_t> kept(Lists{keep});
    std::int32_t delta = untouched;
    ASSERT_EQ(md::positions(TypeParam{}, position_policy::closed, old.view(), {}, kept.lists(), out.view(), md::view(&delta, 1), {}),
              md::status::ok);
    EXPECT_EQ(out.memory(), want.memory()) << tokens << " tokens";
    EXPECT_EQ(delta, tokens % 3 == 2 ? -2 : 0);  // 2 mod 3: the last token is the one that goes
  }
}

/// A call that is right, to be made wrong in one place at a time.
struct position_arguments {
  std::int32_t before[12] = {0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3}, after[12], moved[3];
  std::int32_t offset[3] = {0, 2, 4}, packed[3] = {0, 1, 2}, index[4] = {0, 1, 0, 1}, count[2] = {1, 1};
  md::tensor_view<std::int32_t, 2> old = md::view(before, 3, 4), out = md::view(after, 3, 4);
  md::tensor_view<std::int32_t, 1> delta = md::view(moved, 2);
  md::tensor_view<std::int32_t const, 1> out_offsets{};
  md::segments segments{2, offset, nullptr, 0};
  md::keep_lists<std::int32_t> keep{md::view(index, 2, 2), md::view(count, 2)};
};

template <class Backend, class Change>
md::status answer(Change const& change) {
  position_arguments a;
  std::fill(std::begin(a.after), std::end(a.after), untouched), std::fill(std::begin(a.moved), std::end(a.moved), untouched);
  change(a);
  auto const got = md::positions(Backend{}, position_policy::closed, a.old, a.segments, a.keep, a.out, a.delta, a.out_offsets);
  for (std::int32_t const p : a.after) { EXPECT_TRUE(got == md::status::ok || p == untouched); }
  for (std::int32_t const p : a.moved) { EXPECT_TRUE(got == md::status::ok || p == untouched); }
  return got;
}

TYPED_TEST(Positions, BadShapesAreRefusedAndNothingWritten) {
  using arguments = position_arguments;
  EXPECT_EQ(answer<TypeParam>([](arguments&) {}), md::status::ok);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.segments.count = 1; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.segments.count = -1; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.segments.offsets = nullptr; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.keep.counts.sizes[0] = 1; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.keep.indices.data = nullptr; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.old.sizes[1] = -1; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.old.data = nullptr; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.old.sizes[0] = 1; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.out.sizes[0] = 1; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.out.sizes[1] = 3; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.delta.sizes[0] = 1; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.delta.sizes[0] = 3; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.out_offsets = {a.packed, {2}, {1}}; }), md::status::bad_shape);
}

TYPED_TEST(Positions, BadStridesAreRefusedAndNothingWritten) {
  using arguments = position_arguments;
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.old.strides[1] = 2; }), md::status::bad_stride);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.out.strides[1] = 2; }), md::status::bad_stride);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.delta.strides[0] = 2; }), md::status::bad_stride);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.keep.indices.strides[1] = 2; }), md::status::bad_stride);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.keep.counts.strides[0] = 2; }), md::status::bad_stride);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.out_offsets = {a.packed, {3}, {2}}; }), md::status::bad_stride);
}

TYPED_TEST(Positions, OneSegmentIsRefusedRoomBelowTheCapacityOfItsList) {
  std::int32_t const old[4] = {0, 1, 2, 3};
  std::int32_t out[2] = {untouched, untouched};
  kept_tokens<std::int32_t> kept(Lists{{1}}, 3);
  EXPECT_EQ(md::positions(TypeParam{}, position_policy::kept, md::view(old, 4), {}, kept.lists(), md::view(out, 2), {}, {}),
            md::status::bad_shape);
  EXPECT_EQ(out[0], untouched);
}

}  // namespace
