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

constexpr md::index_t dims[] = {1, 3, 17, 31, 32, 33, 64, 1024};

struct cls_case {
  std::vector<floats> attention;  // of each head to each token
  md::cls_topk_options options{};
  ints requested{};           // {}: options.percent, or the capacity if that is 0
  md::index_t capacity = -1;  // -1: as many as there are tokens
  ints offsets{};             // {}: one segment
  ints counts{};              // {}: segments reach up to the next
};

md::index_t tokens_of(cls_case const& c) { return static_cast<md::index_t>(c.attention[0].size()); }
md::index_t capacity_of(cls_case const& c) { return c.capacity < 0 ? tokens_of(c) : c.capacity; }

md::segments segments_of(cls_case const& c) {
  if (c.offsets.empty()) { return {}; }
  return {static_cast<md::index_t>(c.offsets.size()) - 1, c.offsets.data(), c.counts.empty() ? nullptr : c.counts.data(), 0};
}

/// Runs the word on heads that begin at odd addresses, and looks that nothing beside the lists and their counts was written.
template <class Backend, class T = float, class Index = std::int32_t>
lists cls_topk(cls_case const& c) {
  constexpr Index guard = -7;
  Backend const backend{};
  auto const heads = static_cast<md::index_t>(c.attention.size()), tokens = tokens_of(c), capacity = capacity_of(c);
  auto const segments = segments_of(c);
  padded_tensor<T, 2> attention(md::narrow<T>(inf), 1, 3, heads, tokens);  // infinities between heads: whoever reads one keeps it
  for (md::index_t h = 0; h < heads; ++h) {
    for (md::index_t t = 0; t < tokens; ++t) {
      attention.view()(h, t) = md::narrow<T>(c.attention[static_cast<std::size_t>(h)][static_cast<std::size_t>(t)]);
    }
  }
  padded_tensor<Index, 2> indices(guard, 1, 3, segments.count, capacity);
  padded_tensor<std::int32_t, 1> counts(-7, 1, 2, segments.count), asked(99, 3, 2, segments.count);
  std::copy(c.requested.begin(), c.requested.end(), asked.view().data);
  md::tensor_view<std::int32_t const, 1> requested;
  if (!c.requested.empty()) { requested = asked.view(); }

  EXPECT_EQ(md::check(segments, tokens), status::ok);
  aligned_memory scratch(md::cls_topk_workspace_size(backend, heads, tokens, segments));
  auto const got = md::cls_topk(backend, c.options, attention.view(), segments, requested,
                                md::keep_lists<Index>{indices.view(), counts.view()}, scratch.lend());
  EXPECT_EQ(got, status::ok) << message(got);

  lists keep;
  auto untouched = static_cast<md::index_t>(indices.memory().size());
  for (md::index_t s = 0; s < segments.count; ++s) {
    md::index_t const count = counts.view()(s);
    EXPECT_TRUE(0 <= count && count <= capacity) << count << " entries in list " << s;
    keep.emplace_back();
    for (md::index_t i = 0; i < std::min(count, capacity); ++i) { keep.back().push_back(indices.view()(s, i)); }
    untouched -= static_cast<md::index_t>(keep.back().size());
  }
  EXPECT_EQ(std::count(indices.memory().begin(), indices.memory().end(), guard), untouched) << "entries past the lists";
  EXPECT_EQ(std::count(counts.memory().begin(), counts.memory().end(), -7),
            static_cast<md::index_t>(counts.memory().size()) - segments.count);
  return keep;
}

/// The k best of a map without CLS's own column.
cls_case best(md::index_t k, std::vector<floats> attention, md::output_order order = md::output_order::position) {
  return {std::move(attention), {0, 0, 0, order}, {}, k};
}

template <class Backend>
struct ClsTopk : testing::Test {};
TYPED_TEST_SUITE(ClsTopk, Backends);

TYPED_TEST(ClsTopk, KeepsWhatClsAttendsToMostOverAllHeads) {
  // Means ¼, ⅜, ⅜, ⅛; the first head alone would say 0 and 1.
  EXPECT_EQ(cls_topk<TypeParam>(best(2, {{0.5f, 0.25f, 0, 0.25f}, {0, 0.5f, 0.75f, 0}})), (lists{{1, 2}}));
}

TYPED_TEST(ClsTopk, BestFirstWhereReleasedCodeWantsIt) {
  EXPECT_EQ(cls_topk<TypeParam>(best(3, {{0.25f, 0.5f, 0.125f, 1}}, best_first)), (lists{{3, 1, 0}}));
}

// Without a request, 8 % of the patches, CLS not counted, rounded up.
TYPED_TEST(ClsTopk, ThePaperKeepsEightPercentRoundedUp) {
  for (std::size_t const patches : {1u, 12u, 13u, 25u, 26u, 100u, 101u}) {
    cls_case c{{floats(patches + 1)}};
    for (std::size_t t = 0; t <= patches; ++t) { c.attention[0][t] = t == 0 ? 9.0f : static_cast<float>(t) / 128; }
    std::vector<std::int64_t> last((8 * patches + 99) / 100);
    std::iota(last.begin(), last.end(), static_cast<std::int64_t>(patches - last.size()));
    EXPECT_EQ(cls_topk<TypeParam>(c), lists{last}) << patches << " patches";
  }
}

TYPED_TEST(ClsTopk, APercentageIsOfThePatchesAndRoundedUp) {
  cls_case c{{{9, 1, 2, 3, 4, 5, 9}}, {20, 1, 1}};
  EXPECT_EQ(cls_topk<TypeParam>(c), (lists{{4}}));
  c.options.percent = 21;
  EXPECT_EQ(cls_topk<TypeParam>(c), (lists{{3, 4}}));
  c.options.percent = 100;
  EXPECT_EQ(cls_topk<TypeParam>(c), (lists{{0, 1, 2, 3, 4}}));
  c.options.percent = 1;
  EXPECT_EQ(cls_topk<TypeParam>(c), (lists{{4}}));
}

TYPED_TEST(ClsTopk, APercentageOfZeroAsksForTheCapacity) {
  cls_case c{{{9, 1, 2, 3}}, {0, 1, 0}, {}, 2};
  EXPECT_EQ(cls_topk<TypeParam>(c), (lists{{1, 2}}));
  c.capacity = 7;
  EXPECT_EQ(cls_topk<TypeParam>(c), (lists{{0, 1, 2}}));
  c.capacity = 0;
  EXPECT_EQ(cls_topk<TypeParam>(c), (lists{{}}));
}

TYPED_TEST(ClsTopk, ARequestCountsBeforeThePercentage) {
  cls_case c{{{9, 1, 2, 3, 9, 3, 2, 1}}, {100, 1, 0}, {1, 2}, 3, {0, 4, 8}};
  EXPECT_EQ(cls_topk<TypeParam>(c), (lists{{2}, {0, 1}}));
  c.requested = {0, 99};
  EXPECT_EQ(cls_topk<TypeParam>(c), (lists{{}, {0, 1, 2}}));
  c.capacity = 1, c.requested = {3, 3};  // with a request a short list is a bound, not an error
  EXPECT_EQ(cls_topk<TypeParam>(c), (lists{{2}, {0}}));
  c.options.percent = 0, c.capacity = 3, c.requested = {2, 1};
  EXPECT_EQ(cls_topk<TypeParam>(c), (lists{{1, 2}, {0}}));
}

TYPED_TEST(ClsTopk, SmallerIndexWinsATie) {
  EXPECT_EQ(cls_topk<TypeParam>(best(2, {{1, 1, 1, 1}})), (lists{{0, 1}}));
  EXPECT_EQ(cls_topk<TypeParam>(best(2, {{0, 0.5f, 0.25f}, {0.5f, 0, 0.25f}})), (lists{{0, 1}}));  // the same mean in different ways
  EXPECT_EQ(cls_topk<TypeParam>(best(3, {{-0.0f, 0, -0.0f, 1}}, best_first)), (lists{{3, 0, 1}}));
  EXPECT_EQ(cls_topk<TypeParam>(best(1, {{-0x1p-149f, 0}, {0, 0}, {0, 0}})), (lists{{0}}));  // a third of it is −0
}

TYPED_TEST(ClsTopk, NanInOneHeadMakesItsTokenRankLast) {
  EXPECT_EQ(cls_topk<TypeParam>(best(2, {{quiet_nan, 0, 0.5f}, {1, 0, 0.5f}})), (lists{{1, 2}}));
  EXPECT_EQ(cls_topk<TypeParam>(best(3, {{1, 0, 0.5f}, {quiet_nan, 0, -inf}}, best_first)), (lists{{1, 2, 0}}));
  EXPECT_EQ(cls_topk<TypeParam>(best(1, {{quiet_nan, quiet_nan}})), (lists{{0}}));
}

TYPED_TEST(ClsTopk, InfinitiesAreScoresAndTheirDifferenceIsNan) {
  constexpr float largest = std::numeric_limits<float>::max();
  EXPECT_EQ(cls_topk<TypeParam>(best(4, {{-inf, inf, inf, largest}, {0, -inf, 0, largest}}, best_first)), (lists{{2, 3, 0, 1}}));
}

// One head after the other: 2^24 + 1 + 1 is 2^24 there, and 2^24 + 2 where the small ones come first.
TYPED_TEST(ClsTopk, HeadsAddUpInOrder) {
  std::vector<floats> const attention{{0x1p24f, 1, 1}, {1, 0x1p24f, 1}, {1, 1, 0x1p24f}};
  EXPECT_EQ(cls_topk<TypeParam>(best(3, attention, best_first)), (lists{{2, 0, 1}}));
}

// A score is a mean and rounded as one: two different sums may have the same third.
TYPED_TEST(ClsTopk, DifferentSumsWithOneMeanTie) {
  float sum = 1.5f;
  while (sum / 3 != std::nextafter(sum, 2.0f) / 3) { sum = std::nextafter(sum, 2.0f); }
  ASSERT_LT(sum, 2.0f);
  EXPECT_EQ(cls_topk<TypeParam>(best(1, {{sum, std::nextafter(sum, 2.0f)}, {0, 0}, {0, 0}})), (lists{{0}}));
}

TYPED_TEST(ClsTopk, IndicesCountPatchesAndTokensAroundThemAreNotRead) {
  cls_case c{{{inf, quiet_nan, 1, 3, 2, inf, inf, inf}}, {50, 2, 3}};
  EXPECT_EQ(cls_topk<TypeParam>(c), (lists{{1, 2}}));
  c.options = {50, 0, 5};  // CLS and more behind the patches
  EXPECT_EQ(cls_topk<TypeParam>(c), (lists{{0, 2}}));
}

TYPED_TEST(ClsTopk, ASegmentWithoutPatchesKeepsNothing) {
  cls_case c{{{5, 5, 5}}, {100, 2, 1}};
  EXPECT_EQ(cls_topk<TypeParam>(c), (lists{{}}));
  c.options = {100, 2, 2};  // fewer tokens than stand around patches
  EXPECT_EQ(cls_topk<TypeParam>(c), (lists{{}}));
  c.options.percent = 0, c.requested = {3};
  EXPECT_EQ(cls_topk<TypeParam>(c), (lists{{}}));
  c = {{{9, 1, 9, 9, 2}}, {100, 1, 0}, {}, -1, {0, 2, 2, 3, 5}};
  EXPECT_EQ(cls_topk<TypeParam>(c), (lists{{0}, {}, {}, {0}}));
}

TYPED_TEST(ClsTopk, EmptyInputKeepsNothing) {
  EXPECT_EQ(cls_topk<TypeParam>({{{}, {}}}), (lists{{}}));
  EXPECT_EQ(cls_topk<TypeParam>({{{}}, {0, 0, 0}, {4}, 3}), (lists{{}}));
  EXPECT_EQ(cls_topk<TypeParam>({{{}}, {}, {}, 3, {0}}), (lists{}));
}

TYPED_TEST(ClsTopk, OnePatchIsItsKeySet) {
  EXPECT_EQ(cls_topk<TypeParam>({{{1, quiet_nan}}}), (lists{{0}}));
  EXPECT_EQ(cls_topk<TypeParam>(best(1, {{0}})), (lists{{0}}));
}

TYPED_TEST(ClsTopk, EachSegmentHasItsOwnPercentage) {
  cls_case c{{{9, 1, 2, 3, 4, /**/ 9, 1, /**/ 9, /**/ 9, 4, 3, 2, 1, 0}}, {50, 1, 0}, {}, 14, {0, 5, 7, 8, 14}};
  EXPECT_EQ(cls_topk<TypeParam>(c), (lists{{2, 3}, {0}, {}, {0, 1, 2}}));
  c.counts = {4, 1, 1, 3};  // each without its last tokens
  EXPECT_EQ(cls_topk<TypeParam>(c), (lists{{1, 2}, {}, {}, {0}}));
}

// A float16 sum of 2048 and 1 is 2048, a bfloat16 sum of 256 and 1 is 256; as floats they are more.
TYPED_TEST(ClsTopk, HalvesAreWidenedAndAveragedAsFloats) {
  EXPECT_EQ((cls_topk<TypeParam, md::half>(best(1, {{2048, 2048}, {0, 1}}))), (lists{{1}}));
  EXPECT_EQ((cls_topk<TypeParam, md::bfloat16>(best(1, {{256, 256}, {0, 1}}))), (lists{{1}}));
  EXPECT_EQ((cls_topk<TypeParam, md::half>(best(2, {{0, 0x1p-24f, 0x1p-23f}, {0, 0, 0}}))), (lists{{1, 2}}));  // subnormal halves
  EXPECT_EQ((cls_topk<TypeParam, md::half>(best(2, {{quiet_nan, -inf, -65504, quiet_nan}}))), (lists{{1, 2}}));
  EXPECT_EQ((cls_topk<TypeParam, md::bfloat16>(best(2, {{quiet_nan, -inf, -65504, quiet_nan}}))), (lists{{1, 2}}));
}

// [batch, heads, tokens]: image b begins b·heads·tokens along the token axis, and a head further is `tokens` on.
TYPED_TEST(ClsTopk, ABatchOfMapsIsSegmentsOnAViewWhoseHeadsAreCloserThanItsTokensAreMany) {
  TypeParam const backend{};
  constexpr std::int32_t heads = 2, tokens = 4, axis = heads * tokens + tokens;
  floats const attention{9, 1, 0, 2, /**/ 9, 0, 4, 2, /**/ 9, 3, 0, 0, /**/ 9, 3, 4, 5};  // means ½, 2, 2; 3, 2, 2½
  ints const offsets{0, heads * tokens, axis}, sizes{tokens, tokens};
  md::segments const images{2, offsets.data(), sizes.data(), tokens};
  ints indices(4, -7), counts(2, -7);
  aligned_memory scratch(md::cls_topk_workspace_size(backend, heads, axis, images));
  ASSERT_EQ(md::cls_topk(backend, {60, 1, 0}, md::tensor_view<float const, 2>{attention.data(), {heads, axis}, {tokens, 1}}, images, {},
                         md::keep_lists<std::int32_t>{md::view(indices.data(), 2, 2), md::view(counts.data(), 2)}, scratch.lend()),
            status::ok);
  EXPECT_EQ(indices, (ints{1, 2, 0, 2}));
  EXPECT_EQ(counts, (ints{2, 2}));
}

// Heads may run backwards, lists too; all heads may be one.
TYPED_TEST(ClsTopk, HeadsMayHaveAnyStride) {
  TypeParam const backend{};
  floats const attention{1, 1, 0x1p24f, inf, 1, 0x1p24f, 1, inf, 0x1p24f, 1, 1};
  ints indices(3, -7), counts(1, -7);
  aligned_memory scratch(md::cls_topk_workspace_size(backend, 3, 3, {}));
  md::keep_lists<std::int32_t> const keep{md::view(indices.data(), 1, 3), md::view(counts.data(), 1)};
  md::cls_topk_options const options{0, 0, 0, best_first};
  ASSERT_EQ(
      md::cls_topk(backend, options, md::tensor_view<float const, 2>{attention.data() + 8, {3, 3}, {-4, 1}}, {}, {}, keep, scratch.lend()),
      status::ok);
  EXPECT_EQ(indices, (ints{2, 0, 1}));  // as in HeadsAddUpInOrder
  ASSERT_EQ(md::cls_topk(backend, options, md::tensor_view<float const, 2>{attention.data(), {3, 3}, {0, 1}}, {}, {}, keep, scratch.lend()),
            status::ok);
  EXPECT_EQ(indices, (ints{2, 0, 1}));
}

TEST(ClsTopkCount, IsKnownWithoutData) {
  static_assert(retained_count(md::cls_topk_options{}, 577) == 47);  // 46.08
  static_assert(retained_count(md::cls_topk_options{}, 193) == 16);  // 15.36
  static_assert(retained_count(md::cls_topk_options{}, 65) == 6);    // 5.12
  static_assert(retained_count(md::cls_topk_options{}, 101) == 8);   // exactly
  static_assert(retained_count(md::cls_topk_options{}, 1) == 0);
  static_assert(retained_count(md::cls_topk_options{}, 0) == 0);
  static_assert(retained_count(md::cls_topk_options{0, 1, 4}, 581) == 576);
  static_assert(retained_count(md::cls_topk_options{100, 0, 1}, 577) == 576);
  static_assert(retained_count(md::cls_topk_options{100, 3, 3}, 5) == 0);
}

TEST(ClsTopkWorkspace, IsAClosedFormAndAFloatForEachTokenInTheReference) {
  static_assert(md::cls_topk_workspace_size(md::reference::backend{}, 16, 577, md::segments{}) == 577 * 4);
  static_assert(md::cls_topk_workspace_size(md::reference::backend{}, 16, 0, md::segments{}) == 0);
}

// --- against the definition

/// The header's sentences once more, by a stable sort of means.
template <class T>
lists by_sorting(cls_case const& c) {
  lists keep;
  ints const ends = c.offsets.empty() ? ints{0, static_cast<std::int32_t>(tokens_of(c))} : c.offsets;
  for (std::size_t s = 0; s + 1 < ends.size(); ++s) {
    md::index_t const size = c.counts.empty() ? ends[s + 1] - ends[s] : c.counts[s];
    md::index_t const patches = std::max<md::index_t>(0, size - c.options.prefix - c.options.suffix);
    floats score(static_cast<std::size_t>(patches), 0.0f);
    for (auto const& head : c.attention) {
      for (std::size_t t = 0; t < score.size(); ++t) {
        score[t] += md::widen(md::narrow<T>(head[t + static_cast<std::size_t>(ends[s] + c.options.prefix)]));
      }
    }
    for (float& sum : score) { sum /= static_cast<float>(c.attention.size()); }
    std::vector<std::int64_t> order(score.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&score](std::int64_t a, std::int64_t b) {
      float const left = score[static_cast<std::size_t>(a)], right = score[static_cast<std::size_t>(b)];
      return md::is_nan(right) ? !md::is_nan(left) : left > right;
    });
    md::index_t k = capacity_of(c);
    if (!c.requested.empty()) {
      k = std::min<md::index_t>(k, c.requested[s]);
    } else if (c.options.percent > 0) {
      k = std::min(k, patches * c.options.percent / 100 + (patches * c.options.percent % 100 != 0));
    }
    order.resize(std::min(order.size(), static_cast<std::size_t>(k)));
    if (c.options.order == md::output_order::position) { std::sort(order.begin(), order.end()); }
    keep.push_back(order);
  }
  return keep;
}

/// Weights of all bits or eighths with many ties; NaN and infinities now and then.
std::vector<floats> any_attention(std::mt19937& random, std::size_t heads, std::size_t tokens) {
  constexpr float special[] = {quiet_nan, inf, -inf, -0.0f};
  std::uniform_real_distribution<float> weight(0, 1);
  std::vector<floats> attention(heads, floats(tokens));
  bool const ties = random() % 2 == 0;
  for (auto& head : attention) {
    for (float& x : head) { x = random() % 32 == 0 ? special[random() % 4] : ties ? static_cast<float>(random() % 4) / 8 : weight(random); }
  }
  return attention;
}

cls_case random_case(std::mt19937& random) {
  constexpr std::size_t heads[] = {1, 2, 3, 12, 16};
  cls_case c;
  c.offsets = {static_cast<std::int32_t>(random() % 3)};
  for (int s = 0; s < 4; ++s) { c.offsets.push_back(c.offsets.back() + static_cast<std::int32_t>(random() % 71)); }
  c.attention = any_attention(random, heads[random() % 5], static_cast<std::size_t>(c.offsets.back()) + random() % 3);
  c.options = {static_cast<md::index_t>(random() % 101), static_cast<md::index_t>(random() % 3), static_cast<md::index_t>(random() % 3)};
  for (std::size_t s = 0; s < 4; ++s) {
    c.requested.push_back(static_cast<std::int32_t>(random() % 80));
    c.counts.push_back(static_cast<std::int32_t>(random() % static_cast<std::uint32_t>(c.offsets[s + 1] - c.offsets[s] + 1)));
  }
  if (random() % 2 == 0) { c.requested.clear(); }
  if (random() % 2 == 0) { c.counts.clear(); }
  if (random() % 2 == 0) { c.options.order = best_first; }
  if (!c.requested.empty() || random() % 4 == 0) {
    c.capacity = static_cast<md::index_t>(random() % 80);
    if (c.requested.empty()) { c.options.percent = 0; }
  }
  return c;
}

TYPED_TEST(ClsTopk, AgreesWithSortingAndWithTheReferenceOnRandomBatches) {
  std::mt19937 random = printed_random(81);
  for (int round = 0; round < 150; ++round) {
    SCOPED_TRACE(testing::Message() << "round " << round);
    auto const c = random_case(random);
    EXPECT_EQ(cls_topk<TypeParam>(c), by_sorting<float>(c));
    EXPECT_EQ((cls_topk<TypeParam, md::half>(c)), by_sorting<md::half>(c));
    EXPECT_EQ((cls_topk<TypeParam, md::bfloat16>(c)), by_sorting<md::bfloat16>(c));
    EXPECT_EQ(cls_topk<TypeParam>(c), cls_topk<md::reference::backend>(c));
    EXPECT_EQ((cls_topk<TypeParam, md::half>(c)), (cls_topk<md::reference::backend, md::half>(c)));
    EXPECT_EQ((cls_topk<TypeParam, float, std::int64_t>(c)), cls_topk<TypeParam>(c)) << "int64";
  }
}

TYPED_TEST(ClsTopk, AgreesWithSortingForEverySizeAroundTheVectorWidths) {
  std::mt19937 random = printed_random(82);
  for (std::size_t n = 0; n <= 70; ++n) {
    for (md::index_t const percent : {8, 50, 100}) {
      cls_case const c{any_attention(random, 1 + n % 5, n), {percent, static_cast<md::index_t>(n % 2), 0}};
      EXPECT_EQ(cls_topk<TypeParam>(c), by_sorting<float>(c)) << n << " tokens";
      EXPECT_EQ((cls_topk<TypeParam, md::half>(c)), by_sorting<md::half>(c)) << n << " tokens of half";
    }
  }
}

// The sizes of real maps: 16 heads of 577 tokens; 64 heads.
TYPED_TEST(ClsTopk, AWholeMapAgreesWithSorting) {
  std::mt19937 random = printed_random(83);
  for (std::size_t const heads : {16u, 64u}) {
    cls_case const c{any_attention(random, heads, 577)};
    auto const got = cls_topk<TypeParam, md::half>(c);
    EXPECT_EQ(got[0].size(), 47u);
    EXPECT_EQ(got, by_sorting<md::half>(c));
  }
}

TYPED_TEST(ClsTopk, ASegmentDoesNotDependOnItsNeighbours) {
  std::mt19937 random = printed_random(84);
  for (int round = 0; round < 50; ++round) {
    auto c = random_case(random);
    c.counts.clear(), c.capacity = capacity_of(c);
    auto const together = cls_topk<TypeParam>(c);
    for (std::size_t s = 0; s < together.size(); ++s) {
      cls_case alone{{}, c.options, {}, c.capacity};
      for (auto const& head : c.attention) { alone.attention.emplace_back(head.begin() + c.offsets[s], head.begin() + c.offsets[s + 1]); }
      if (!c.requested.empty()) { alone.requested = {c.requested[s]}; }
      EXPECT_EQ(cls_topk<TypeParam>(alone), lists{together[s]}) << "round " << round << ", segment " << s;
    }
  }
}

// Memory that ends with the last weight: a sanitizer sees a read past the end of a head.
TYPED_TEST(ClsTopk, NothingIsReadPastTheLastHead) {
  std::mt19937 random = printed_random(85);
  TypeParam const backend{};
  for (md::index_t const tokens : dims) {
    cls_case const c = best(tokens / 2, any_attention(random, 2, static_cast<std::size_t>(tokens)));
    floats tight(c.attention[0]);
    tight.insert(tight.end(), c.attention[1].begin(), c.attention[1].end());
    std::vector<md::half> halves;
    for (float const weight : tight) { halves.push_back(md::narrow<md::half>(weight)); }
    std::vector<std::int64_t> indices(static_cast<std::size_t>(tokens / 2));
    ints counts(1);
    md::keep_lists<std::int64_t> const keep{md::view(indices.data(), 1, tokens / 2), md::view(counts.data(), 1)};
    aligned_memory scratch(md::cls_topk_workspace_size(backend, 2, tokens, {}));
    ASSERT_EQ(md::cls_topk(backend, c.options, md::view(tight.data(), 2, tokens), {}, {}, keep, scratch.lend()), status::ok);
    EXPECT_EQ(lists{indices}, by_sorting<float>(c)) << tokens << " tokens";
    ASSERT_EQ(md::cls_topk(backend, c.options, md::view(halves.data(), 2, tokens), {}, {}, keep, scratch.lend()), status::ok);
    EXPECT_EQ(lists{indices}, by_sorting<md::half>(c)) << tokens << " tokens of half";
  }
}

// --- with other words

// "That is this word": the map through attention_scores as one row, and top_k of the sums.
TYPED_TEST(ClsTopk, IsTopKOfAttentionScoresOfOneRow) {
  std::mt19937 random = printed_random(86);
  TypeParam const backend{};
  for (int round = 0; round < 20; ++round) {
    cls_case const c = best(9, any_attention(random, 1 + random() % 6, 40));
    floats map, sum(40, 0.0f), max(40, 0.0f);
    for (auto const& head : c.attention) { map.insert(map.end(), head.begin(), head.end()); }
    auto const heads = static_cast<md::index_t>(c.attention.size());
    aligned_memory scratch(
        std::max(md::attention_scores_workspace_size(backend, {heads, 1, 40, 0, 0}, {}, {}), md::top_k_workspace_size(backend, 40, {})));
    ASSERT_EQ(md::attention_scores(backend, {}, md::view(map.data(), heads, 1, 40), {}, {}, {}, {}, md::view(sum.data(), 40),
                                   md::view(max.data(), 40), {}, scratch.lend()),
              status::ok);
    std::vector<std::int64_t> indices(9);
    ints counts(1);
    ASSERT_EQ(md::top_k(backend, {}, md::view(sum.data(), 40), {}, {},
                        md::keep_lists<std::int64_t>{md::view(indices.data(), 1, 9), md::view(counts.data(), 1)}, scratch.lend()),
              status::ok);
    EXPECT_EQ(cls_topk<TypeParam>(c), lists{indices}) << "round " << round;
  }
}

// The key set after the merge: window_merge's counts say how many tokens of each image are left in place of capacity.
TYPED_TEST(ClsTopk, CountsOfAMergeAreTheSegmentsOfTheKeySet) {
  TypeParam const backend{};
  floats const features(10, 1.0f), similarity{1, 0, 1, 1};
  std::vector<md::token_grid> const grids{{1, 4, 1, 1, 0}, {1, 4, 1, 1, 0}};
  ints const offsets{0, 5, 10};
  md::segments const before{2, offsets.data(), nullptr, 5};
  floats rows(10), sizes(10);
  ints source(10), indices(10), left(2), key_set(8, -7), counts(2, -7);
  aligned_memory scratch(
      std::max(md::window_merge_workspace_size(backend, {1, 2}, 10, 1, 2, before), md::cls_topk_workspace_size(backend, 1, 10, before)));
  ASSERT_EQ(md::window_merge(backend, {}, {1, 2}, md::view(features.data(), 10, 1), before, md::view(grids.data(), 2),
                             md::view(similarity.data(), 2, 2), {}, md::view(rows.data(), 10, 1), md::view(sizes.data(), 10),
                             md::view(source.data(), 10),
                             md::keep_lists<std::int32_t>{md::view(indices.data(), 2, 5), md::view(left.data(), 2)}, scratch.lend()),
            status::ok);
  EXPECT_EQ(left, (ints{4, 3}));  // CLS, a merged row and two patches; CLS and two merged rows

  floats const attention{9, 1, 3, 2, inf, /**/ 9, 1, 2, inf, inf};  // where nothing is left, something that would be kept
  md::segments const after{2, offsets.data(), left.data(), 5};
  ASSERT_EQ(md::cls_topk(backend, {50, 1, 0}, md::view(attention.data(), 1, 10), after, {},
                         md::keep_lists<std::int32_t>{md::view(key_set.data(), 2, 4), md::view(counts.data(), 2)}, scratch.lend()),
            status::ok);
  EXPECT_EQ(counts, (ints{2, 1}));
  EXPECT_EQ(key_set, (ints{1, 2, -7, -7, 1, -7, -7, -7}));
}

// --- what is refused

/// A call that is right, with a member for each thing that can be wrong.
template <class Backend>
struct cls_call {
  floats memory = floats(24, 1.0f);
  ints offsets{0, 5, 9}, requested_memory{1, 1, 1, 1}, indices = ints(16, -7), counts = ints(4, -7);

  md::cls_topk_options options{50, 1, 0};
  md::tensor_view<float, 2> attention = md::view(memory.data(), 2, 9);
  md::segments segments{2, offsets.data(), nullptr, 5};
  md::tensor_view<std::int32_t const, 1> requested;
  md::keep_lists<std::int32_t> keep{md::view(indices.data(), 2, 2), md::view(counts.data(), 2)};  // half of four patches
  std::size_t needed = md::cls_topk_workspace_size(Backend{}, 2, 9, segments);
  aligned_memory room{needed + 64};
  md::workspace scratch = room.lend();

  md::status run() { return md::cls_topk(Backend{}, options, attention, segments, requested, keep, scratch); }
};

/// What a right call answers after one change; unless it is ok, nothing may have been written.
template <class Backend, class Change>
md::status after(Change const& change) {
  cls_call<Backend> call;
  change(call);
  md::status const got = call.run();
  if (got != status::ok) {
    EXPECT_EQ(call.indices, ints(16, -7));
    EXPECT_EQ(call.counts, ints(4, -7));
  }
  return got;
}

TYPED_TEST(ClsTopk, WrongShapesAreRefused) {
  EXPECT_EQ(after<TypeParam>([](auto&) {}), status::ok);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.requested = md::view(c.requested_memory.data(), 2); }), status::ok);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.attention.sizes[0] = 0; }), status::bad_shape);  // no head, no mean
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.attention.sizes[0] = -2; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.attention.sizes[1] = -9; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.attention.data = nullptr; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.segments = {2, nullptr, nullptr, 5}; }), status::bad_shape);
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

TYPED_TEST(ClsTopk, AListTooShortForThePercentageIsRefusedAndForARequestItIsABound) {
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.options.percent = 51; }), status::bad_shape);  // 3 of 4 patches, and room for 2
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.keep.indices.sizes[1] = 1; }), status::bad_shape);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.segments.longest = 0; }), status::bad_shape);  // a segment could have all 9 tokens
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.options.percent = 0; }), status::ok);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.options.percent = 100, c.requested = md::view(c.requested_memory.data(), 2); }), status::ok);
}

TYPED_TEST(ClsTopk, StridesOtherThanOneAreRefused) {
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.attention.strides[1] = 2; }), status::bad_stride);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.keep.indices.strides[1] = 2; }), status::bad_stride);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.keep.counts.strides[0] = 2; }), status::bad_stride);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.requested = md::view(c.requested_memory.data(), 2), c.requested.strides[0] = 2; }),
            status::bad_stride);
}

TYPED_TEST(ClsTopk, WrongOptionsAreRefused) {
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.options.percent = -1; }), status::bad_argument);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.options.percent = 101; }), status::bad_argument);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.options.prefix = -1; }), status::bad_argument);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.options.suffix = -1; }), status::bad_argument);
  EXPECT_EQ(after<TypeParam>([](auto& c) { c.options.prefix = 9; }), status::ok);  // no patch is left
}

TYPED_TEST(ClsTopk, TooLittleOrMisalignedWorkspaceIsRefused) {
  std::size_t const needed = cls_call<TypeParam>{}.needed;
  expect_wrong_workspaces_refused(needed, [](md::workspace scratch) { return after<TypeParam>([&](auto& c) { c.scratch = scratch; }); });
}

}  // namespace
