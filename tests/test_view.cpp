// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <type_traits>
#include <vector>

#include "memory.hpp"

namespace {

using md::index_t, md::status;
using ints = std::vector<std::int32_t>;

constexpr index_t most = md::most_tokens;
constexpr std::int32_t int_min = std::numeric_limits<std::int32_t>::min(), int_max = std::numeric_limits<std::int32_t>::max();
constexpr index_t index_min = std::numeric_limits<index_t>::min(), index_max = std::numeric_limits<index_t>::max();

// --- tensor_view ---

TEST(View, OfContiguousMemoryHasItsLastAxisFastest) {
  std::vector<int> memory(24);
  std::iota(memory.begin(), memory.end(), 0);
  auto const v = md::view(memory.data(), 2, 3, 4);
  EXPECT_EQ((std::vector<index_t>(v.strides, v.strides + 3)), (std::vector<index_t>{12, 4, 1}));
  int next = 0;
  for (int i = 0; i < 2; ++i) {
    for (int j = 0; j < 3; ++j) {
      for (int k = 0; k < 4; ++k) { EXPECT_EQ(v(i, j, k), next++); }
    }
  }
  EXPECT_EQ(v.size(0), 2);
  EXPECT_EQ(v.size(1), 3);
  EXPECT_EQ(v.size(2), 4);
}

TEST(View, SizesMayBeOfAnyIntegerType) {
  float x = 0;
  auto const v = md::view(&x, std::size_t{1}, std::int16_t{1}, index_t{1}, 1u);
  EXPECT_TRUE((std::is_same_v<decltype(v), md::tensor_view<float, 4> const>));
  EXPECT_TRUE(well_formed(v));
}

TEST(View, WritesWhereItsStridesSay) {
  std::vector<int> memory(20, 0);
  md::tensor_view<int, 2> const transposed{memory.data() + 1, {3, 4}, {1, 5}};
  transposed(2, 3) = 7;
  EXPECT_EQ(memory[1 + 2 + 3 * 5], 7);
  md::tensor_view<int, 1> const backwards{memory.data() + 19, {20}, {-1}};
  backwards(19) = 8;
  EXPECT_EQ(memory[0], 8);
  md::tensor_view<int, 1> const repeated{memory.data() + 4, {100}, {0}};
  repeated(99) = 9;
  EXPECT_EQ(memory[4], 9);
}

// The offset is an int64 product: 3 · 2^31 elements do not fit an int32.
TEST(View, OffsetsDoNotOverflowThirtyTwoBits) {
  md::tensor_view<char, 2> v{nullptr, {4, most}, {index_t{1} << 31, 1}};
  std::array<char, 1> memory{5};
  v.data = memory.data(), v.strides[0] = 0;
  EXPECT_EQ(v(3, 0), 5);
  auto const wide = md::view(static_cast<char*>(nullptr), 2, most, 2);
  EXPECT_EQ(wide.strides[0], 2 * most);
}

TEST(View, NarrowIsAPartOfOneAxis) {
  std::vector<int> memory(24);
  std::iota(memory.begin(), memory.end(), 0);
  auto const v = md::view(memory.data(), 2, 3, 4);
  auto const part = v.narrow(1, 1, 2).narrow(2, 3, 1);
  EXPECT_EQ((std::vector<index_t>(part.sizes, part.sizes + 3)), (std::vector<index_t>{2, 2, 1}));
  EXPECT_TRUE(std::equal(v.strides, v.strides + 3, part.strides));
  for (int i = 0; i < 2; ++i) {
    for (int j = 0; j < 2; ++j) { EXPECT_EQ(&part(i, j, 0), &v(i, j + 1, 3)); }
  }
  EXPECT_EQ(v.narrow(0, 2, 0).size(0), 0);  // nothing, at the end
  EXPECT_EQ(v.size(1), 3) << "the whole is as it was";
}

TEST(View, WhatMayBeWrittenMayBeRead) {
  using writable = md::tensor_view<float, 3>;
  using readable = md::tensor_view<float const, 3>;
  EXPECT_TRUE((std::is_convertible_v<writable, readable>));
  EXPECT_FALSE((std::is_convertible_v<readable, writable>)) << "const must not be lost";
  EXPECT_FALSE((std::is_convertible_v<writable, md::tensor_view<double const, 3>>));
  EXPECT_FALSE((std::is_convertible_v<writable, md::tensor_view<float const, 2>>));
  std::vector<float> memory(30);
  writable const from{memory.data() + 1, {2, 3, 2}, {13, 4, 1}};
  readable const to = from;
  EXPECT_EQ(to.data, from.data);
  EXPECT_TRUE(std::equal(from.sizes, from.sizes + 3, to.sizes));
  EXPECT_TRUE(std::equal(from.strides, from.strides + 3, to.strides));
}

TEST(View, NothingGivenIsAbsentAndWellFormed) {
  md::tensor_view<float, 2> const none;
  EXPECT_TRUE(none.absent());
  EXPECT_TRUE(well_formed(none));
  EXPECT_TRUE(unit_stride(none));
  float x = 0;
  EXPECT_FALSE(md::view(&x, 1, 1).absent());
}

/// The words of std::mdspan, with extents and strides of another type than ours.
template <class T, std::size_t Rank>
struct mdspan_like {
  T* pointer;
  std::array<unsigned, Rank> extents, steps;

  static constexpr std::size_t rank() noexcept { return Rank; }
  constexpr T* data_handle() const noexcept { return pointer; }
  constexpr unsigned extent(std::size_t axis) const noexcept { return extents[axis]; }
  constexpr unsigned stride(std::size_t axis) const noexcept { return steps[axis]; }
};

TEST(View, IsMadeOfAnythingThatSpeaksTheWordsOfMdspan) {
  std::vector<double> memory(40);
  auto const v = md::view(mdspan_like<double, 3>{memory.data() + 2, {{2, 3, 4}}, {{1, 2, 7}}});
  EXPECT_TRUE((std::is_same_v<decltype(v), md::tensor_view<double, 3> const>));
  EXPECT_EQ(&v(1, 2, 3), memory.data() + 2 + 1 + 4 + 21);
  EXPECT_EQ((std::vector<index_t>(v.sizes, v.sizes + 3)), (std::vector<index_t>{2, 3, 4}));
  auto const read_only = md::view(mdspan_like<double const, 1>{memory.data(), {{5}}, {{1}}});
  EXPECT_TRUE((std::is_same_v<decltype(read_only), md::tensor_view<double const, 1> const>));
  EXPECT_EQ(read_only.size(0), 5);
}

TEST(View, WorksInConstantExpressions) {
  static constexpr std::array<int, 6> memory{0, 1, 2, 3, 4, 5};
  constexpr auto v = md::view(memory.data(), 2, 3);
  static_assert(v(1, 1) == 4 && v.narrow(0, 1, 1)(0, 2) == 5 && unit_stride(v));
}

TEST(View, IsWellFormedUnlessASizeOrTheMemoryIsWrong) {
  float x = 0;
  using vector_view = md::tensor_view<float, 1>;
  EXPECT_TRUE(well_formed(vector_view{&x, {1}, {1}}));
  EXPECT_TRUE(well_formed(vector_view{&x, {most}, {1}}));
  EXPECT_TRUE(well_formed(vector_view{nullptr, {0}, {1}})) << "nothing needs no memory";
  EXPECT_FALSE(well_formed(vector_view{nullptr, {1}, {1}}));
  EXPECT_FALSE(well_formed(vector_view{&x, {-1}, {1}}));
  EXPECT_FALSE(well_formed(vector_view{&x, {index_min}, {1}}));
  EXPECT_FALSE(well_formed(vector_view{&x, {most + 1}, {1}}));
  EXPECT_FALSE(well_formed(vector_view{&x, {index_max}, {1}}));
  using matrix_view = md::tensor_view<float, 2>;
  EXPECT_TRUE(well_formed(matrix_view{nullptr, {0, 5}, {5, 1}}));
  EXPECT_TRUE(well_formed(matrix_view{nullptr, {5, 0}, {0, 1}}));
  EXPECT_FALSE(well_formed(matrix_view{nullptr, {5, 1}, {1, 1}}));
  EXPECT_FALSE(well_formed(matrix_view{&x, {0, -5}, {1, 1}})) << "an empty axis does not excuse another one";
  EXPECT_FALSE(well_formed(matrix_view{nullptr, {-5, 0}, {1, 1}}));
  EXPECT_TRUE(well_formed(matrix_view{&x, {most, most}, {0, 0}})) << "strides are the caller's";
}

TEST(View, OnlyTheLastStrideCountsAndOnlyWhereThereAreTwoElements) {
  float x = 0;
  using matrix_view = md::tensor_view<float, 2>;
  EXPECT_TRUE(unit_stride(matrix_view{&x, {3, 4}, {77, 1}}));
  EXPECT_TRUE(unit_stride(matrix_view{&x, {3, 4}, {-4, 1}}));
  EXPECT_FALSE(unit_stride(matrix_view{&x, {3, 4}, {1, 3}}));
  EXPECT_FALSE(unit_stride(matrix_view{&x, {3, 2}, {2, 0}}));
  EXPECT_FALSE(unit_stride(matrix_view{&x, {3, 2}, {2, -1}}));
  EXPECT_TRUE(unit_stride(matrix_view{&x, {3, 1}, {5, 9}}));
  EXPECT_TRUE(unit_stride(matrix_view{&x, {3, 0}, {5, 9}}));
}

// --- segments ---

TEST(Segments, WithoutOffsetsOneSegmentIsEverything) {
  md::segments const all;
  EXPECT_TRUE(all.valid());
  EXPECT_EQ(all.count, 1);
  EXPECT_EQ(all.begin(0), 0);
  EXPECT_EQ(all.size(0, 577), 577);
  EXPECT_EQ(all.bound(577), 577);
  std::int32_t const left = 300;
  md::segments const shrunk{1, nullptr, &left, 0};
  EXPECT_EQ(shrunk.size(0, 577), 300);
}

TEST(Segments, LieBetweenOffsetsAndAreAsLongAsTheirCounts) {
  ints const offsets{2, 5, 5, 9}, counts{1, 0, 4};
  md::segments const whole{3, offsets.data(), nullptr, 0}, shrunk{3, offsets.data(), counts.data(), 0};
  index_t const begins[] = {2, 5, 5}, sizes[] = {3, 0, 4};
  for (int s = 0; s < 3; ++s) {
    EXPECT_EQ(whole.begin(s), begins[s]);
    EXPECT_EQ(shrunk.begin(s), begins[s]);
    EXPECT_EQ(whole.size(s, 9), sizes[s]);
    EXPECT_EQ(shrunk.size(s, 9), counts[static_cast<std::size_t>(s)]);
  }
}

TEST(Segments, TheBoundIsWhatTheHostKnows) {
  md::segments some;
  EXPECT_EQ(some.bound(10), 10);
  some.longest = 4;
  EXPECT_EQ(some.bound(10), 4);
  EXPECT_EQ(some.bound(3), 3) << "never more than there are";
  EXPECT_EQ(some.bound(0), 0);
}

TEST(Segments, AreValidOnlyWithOffsetsUnlessThereIsOne) {
  ints const offsets{0, 1, 2};
  EXPECT_TRUE((md::segments{2, offsets.data(), nullptr, 0}.valid()));
  EXPECT_TRUE((md::segments{0, offsets.data(), nullptr, 0}.valid()));
  EXPECT_FALSE((md::segments{2, nullptr, nullptr, 0}.valid()));
  EXPECT_FALSE((md::segments{0, nullptr, nullptr, 0}.valid()));
  EXPECT_FALSE((md::segments{-1, offsets.data(), nullptr, 0}.valid()));
  EXPECT_FALSE((md::segments{1, nullptr, nullptr, -1}.valid()));
  EXPECT_FALSE((md::segments{2, offsets.data(), nullptr, index_min}.valid()));
}

TEST(CheckSegments, RefusesShapes) {
  ints const offsets{0, 1, 2};
  EXPECT_EQ(check(md::segments{2, offsets.data(), nullptr, 0}, 2), status::ok);
  EXPECT_EQ(check(md::segments{0, offsets.data(), nullptr, 0}, 2), status::ok);
  EXPECT_EQ(check(md::segments{}, 0), status::ok);
  EXPECT_EQ(check(md::segments{}, most), status::ok);
  EXPECT_EQ(check(md::segments{2, nullptr, nullptr, 0}, 2), status::bad_shape);
  EXPECT_EQ(check(md::segments{-1, offsets.data(), nullptr, 0}, 2), status::bad_shape);
  EXPECT_EQ(check(md::segments{2, offsets.data(), nullptr, -1}, 2), status::bad_shape);
  EXPECT_EQ(check(md::segments{}, -1), status::bad_shape);
  EXPECT_EQ(check(md::segments{}, most + 1), status::bad_shape);
  EXPECT_EQ(check(md::segments{}, index_max), status::bad_shape);
}

TEST(CheckSegments, RefusesHostileContents) {
  auto const answer = [](ints offsets, ints const& counts, index_t longest, index_t tokens) {
    return check(md::segments{static_cast<index_t>(offsets.size()) - 1, offsets.data(), counts.empty() ? nullptr : counts.data(), longest},
                 tokens);
  };
  EXPECT_EQ(answer({0, 3, 7}, {}, 0, 7), status::ok);
  EXPECT_EQ(answer({2, 3, 5}, {}, 0, 7), status::ok) << "text may lie around";
  EXPECT_EQ(answer({0, 3, 7}, {3, 4}, 0, 7), status::ok);
  EXPECT_EQ(answer({0, 3, 7}, {0, 0}, 0, 7), status::ok);
  EXPECT_EQ(answer({0, int_max}, {}, 0, most), status::ok);

  EXPECT_EQ(answer({-1, 3, 7}, {}, 0, 7), status::bad_argument);
  EXPECT_EQ(answer({int_min, 3, 7}, {}, 0, 7), status::bad_argument);
  EXPECT_EQ(answer({0, 3, 2}, {}, 0, 7), status::bad_argument);
  EXPECT_EQ(answer({3, 2, 7}, {}, 0, 7), status::bad_argument);
  EXPECT_EQ(answer({0, 3, int_min}, {}, 0, 7), status::bad_argument) << "the difference does not fit an int32";
  EXPECT_EQ(answer({0, int_max, 7}, {}, 0, 7), status::bad_argument);
  EXPECT_EQ(answer({0, 3, 8}, {}, 0, 7), status::bad_argument);
  EXPECT_EQ(answer({0, 3, int_max}, {}, 0, 7), status::bad_argument);
  EXPECT_EQ(answer({0, 1}, {}, 0, 0), status::bad_argument);
  EXPECT_EQ(answer({0, 3, 7}, {4, 4}, 0, 7), status::bad_argument) << "reaches into the next segment";
  EXPECT_EQ(answer({0, 3, 7}, {3, 5}, 0, 7), status::bad_argument);
  EXPECT_EQ(answer({0, 3, 7}, {3, int_max}, 0, 7), status::bad_argument);
  EXPECT_EQ(answer({0, 3, 7}, {-1, 4}, 0, 7), status::bad_argument);
  EXPECT_EQ(answer({0, 3, 7}, {3, int_min}, 0, 7), status::bad_argument);

  EXPECT_EQ(answer({0, 3, 7}, {}, 4, 7), status::ok);
  EXPECT_EQ(answer({0, 3, 7}, {}, 3, 7), status::bad_argument);
  EXPECT_EQ(answer({0, 3, 7}, {3, 3}, 3, 7), status::ok) << "what counts is the size";
  EXPECT_EQ(answer({0, 3, 7}, {3, 4}, 3, 7), status::bad_argument);
}

TEST(CheckSegments, WithoutOffsetsCountsAndLongestAreCheckedAgainstAllTokens) {
  std::int32_t count = 5;
  EXPECT_EQ(check(md::segments{1, nullptr, &count, 0}, 5), status::ok);
  EXPECT_EQ(check(md::segments{1, nullptr, &count, 0}, 4), status::bad_argument);
  EXPECT_EQ(check(md::segments{1, nullptr, &count, 4}, 5), status::bad_argument);
  EXPECT_EQ(check(md::segments{1, nullptr, nullptr, 4}, 5), status::bad_argument);
  EXPECT_EQ(check(md::segments{1, nullptr, nullptr, 5}, 5), status::ok);
  count = -1;
  EXPECT_EQ(check(md::segments{1, nullptr, &count, 0}, 5), status::bad_argument);
}

// Every pair of segments over four tokens, wrong ones included, against the sentence "offsets ascend within the tokens, counts fit".
TEST(CheckSegments, AgreesWithItsSentenceOnAllSmallBatches) {
  constexpr index_t tokens = 4;
  int accepted = 0;
  for (std::int32_t code = 0; code < 7 * 7 * 7 * 7 * 7 * 5; ++code) {
    auto const digit = [code](std::int32_t weight) { return code / weight % 7 - 1; };  // −1 … 5
    ints const offsets{digit(1), digit(7), digit(49)}, counts{digit(343), digit(2401)};
    index_t const longest = code / 16807;
    bool fits = std::is_sorted(offsets.begin(), offsets.end()) && offsets.front() >= 0 && offsets.back() <= tokens;
    for (std::size_t s = 0; s < 2; ++s) {
      fits = fits && counts[s] >= 0 && offsets[s] + counts[s] <= offsets[s + 1] && (longest == 0 || counts[s] <= longest);
    }
    EXPECT_EQ(check(md::segments{2, offsets.data(), counts.data(), longest}, tokens) == status::ok, fits)
        << testing::PrintToString(offsets) << testing::PrintToString(counts) << longest;
    accepted += fits;
  }
  EXPECT_GT(accepted, 100);
}

// --- keep lists ---

template <class Index>
struct KeepLists : testing::Test {};
using indices = testing::Types<std::int32_t, std::int64_t>;
TYPED_TEST_SUITE(KeepLists, indices);

/// Two lists of at most three, of segments of four and three tokens.
template <class Index>
struct two_lists {
  std::vector<Index> indices{0, 1, 3, /**/ 2, -7, -7};
  ints counts{3, 1}, offsets{0, 4, 7};
  md::segments segments{2, offsets.data(), nullptr, 0};
  md::keep_lists<Index> keep{md::view(indices.data(), 2, 3), md::view(counts.data(), 2)};
  index_t tokens = 7;
};

template <class Index, class Change>
status shape_after(Change const& change) {
  two_lists<Index> c;
  change(c);
  return c.keep.shape(c.segments);
}
template <class Index, class Change>
status check_after(Change const& change) {
  two_lists<Index> c;
  change(c);
  EXPECT_EQ(check(md::keep_lists<Index const>(c.keep), c.segments, c.tokens), check(c.keep, c.segments, c.tokens));
  return check(c.keep, c.segments, c.tokens);
}

TYPED_TEST(KeepLists, AreDeducedAndBecomeReadOnly) {
  using writable = md::keep_lists<TypeParam>;
  using readable = md::keep_lists<TypeParam const>;
  two_lists<TypeParam> c;
  md::keep_lists const deduced{md::view(c.indices.data(), 2, 3), md::view(c.counts.data(), 2)};
  EXPECT_TRUE((std::is_same_v<decltype(deduced), writable const>));
  EXPECT_TRUE((std::is_convertible_v<writable, readable>));
  EXPECT_FALSE((std::is_convertible_v<readable, writable>));
  EXPECT_TRUE((std::is_same_v<decltype(readable::counts), md::tensor_view<std::int32_t const, 1>>));
  readable const read_only = c.keep;
  EXPECT_EQ(read_only.indices.data, c.indices.data());
  EXPECT_EQ(read_only.counts.data, c.counts.data());
  EXPECT_EQ(read_only.capacity(), 3);
  EXPECT_FALSE(read_only.absent());
  EXPECT_TRUE(readable{}.absent());
  EXPECT_TRUE(md::is_index_v<TypeParam>);
}

TEST(KeepListsOf, TwoTypesOfIndexOnly) {
  EXPECT_FALSE(md::is_index_v<std::uint32_t>);
  EXPECT_FALSE(md::is_index_v<std::int16_t>);
  EXPECT_FALSE(md::is_index_v<float>);
}

TYPED_TEST(KeepLists, OfWrongShapesAreRefused) {
  EXPECT_EQ(shape_after<TypeParam>([](auto&) {}), status::ok);
  EXPECT_EQ(shape_after<TypeParam>([](auto& c) { c.segments.count = 1; }), status::bad_shape);
  EXPECT_EQ(shape_after<TypeParam>([](auto& c) { c.segments.count = -2; }), status::bad_shape);
  EXPECT_EQ(shape_after<TypeParam>([](auto& c) { c.segments.offsets = nullptr; }), status::bad_shape);
  EXPECT_EQ(shape_after<TypeParam>([](auto& c) { c.segments.longest = -1; }), status::bad_shape);
  EXPECT_EQ(shape_after<TypeParam>([](auto& c) { c.keep.indices.sizes[0] = 1; }), status::bad_shape);
  EXPECT_EQ(shape_after<TypeParam>([](auto& c) { c.keep.indices.sizes[1] = -3; }), status::bad_shape);
  EXPECT_EQ(shape_after<TypeParam>([](auto& c) { c.keep.indices.sizes[1] = most + 1; }), status::bad_shape);
  EXPECT_EQ(shape_after<TypeParam>([](auto& c) { c.keep.indices.data = nullptr; }), status::bad_shape);
  EXPECT_EQ(shape_after<TypeParam>([](auto& c) { c.keep.counts.sizes[0] = 3; }), status::bad_shape);
  EXPECT_EQ(shape_after<TypeParam>([](auto& c) { c.keep.counts.data = nullptr; }), status::bad_shape);
  EXPECT_EQ(shape_after<TypeParam>([](auto& c) { c.keep = {}; }), status::bad_shape);
}

TYPED_TEST(KeepLists, WithStridesOtherThanOneAreRefused) {
  EXPECT_EQ(shape_after<TypeParam>([](auto& c) { c.keep.indices.strides[0] = 1000; }), status::ok);
  EXPECT_EQ(shape_after<TypeParam>([](auto& c) { c.keep.indices.strides[1] = 2; }), status::bad_stride);
  EXPECT_EQ(shape_after<TypeParam>([](auto& c) { c.keep.counts.strides[0] = 2; }), status::bad_stride);
}

TYPED_TEST(KeepLists, OfNoSegmentsOrNoCapacityNeedNoMemory) {
  two_lists<TypeParam> c;
  md::keep_lists<TypeParam> const none{md::tensor_view<TypeParam, 2>{nullptr, {0, 3}, {3, 1}}, {}};
  EXPECT_EQ(none.shape(md::segments{0, c.offsets.data(), nullptr, 0}), status::ok);
  c.keep.indices = {nullptr, {2, 0}, {0, 1}};
  EXPECT_EQ(c.keep.shape(c.segments), status::ok);
  c.counts = {0, 0};
  EXPECT_EQ(check(c.keep, c.segments, c.tokens), status::ok);
  c.counts = {0, 1};
  EXPECT_EQ(check(c.keep, c.segments, c.tokens), status::bad_argument);
}

TYPED_TEST(KeepLists, CheckGivesTheStatusOfTheShapeFirst) {
  EXPECT_EQ(check_after<TypeParam>([](auto&) {}), status::ok);
  EXPECT_EQ(check_after<TypeParam>([](auto& c) { c.keep.indices.sizes[0] = 1; }), status::bad_shape);
  EXPECT_EQ(check_after<TypeParam>([](auto& c) { c.tokens = -1; }), status::bad_shape);
  EXPECT_EQ(check_after<TypeParam>([](auto& c) { c.tokens = most + 1; }), status::bad_shape);
  EXPECT_EQ(check_after<TypeParam>([](auto& c) { c.keep.indices.strides[1] = 0; }), status::bad_stride);
}

TYPED_TEST(KeepLists, CheckRefusesHostileContents) {
  using limits = std::numeric_limits<TypeParam>;
  EXPECT_EQ(check_after<TypeParam>([](auto& c) { c.offsets[2] = 8; }), status::bad_argument);  // the segments' own contents
  EXPECT_EQ(check_after<TypeParam>([](auto& c) { c.counts[0] = 4; }), status::bad_argument);   // more than the capacity
  EXPECT_EQ(check_after<TypeParam>([](auto& c) { c.counts[1] = int_max; }), status::bad_argument);
  EXPECT_EQ(check_after<TypeParam>([](auto& c) { c.counts[0] = -1; }), status::bad_argument);
  EXPECT_EQ(check_after<TypeParam>([](auto& c) { c.counts[1] = int_min; }), status::bad_argument);
  EXPECT_EQ(check_after<TypeParam>([](auto& c) { c.counts[1] = 2; }), status::bad_argument);   // the guard is read
  EXPECT_EQ(check_after<TypeParam>([](auto& c) { c.indices[1] = 0; }), status::bad_argument);  // twice the same
  EXPECT_EQ(check_after<TypeParam>([](auto& c) { c.indices[0] = 2; }), status::bad_argument);
  EXPECT_EQ(check_after<TypeParam>([](auto& c) { c.indices[0] = -1; }), status::bad_argument);
  EXPECT_EQ(check_after<TypeParam>([](auto& c) { c.indices[0] = limits::min(); }), status::bad_argument);
  EXPECT_EQ(check_after<TypeParam>([](auto& c) { c.indices[2] = 4; }), status::bad_argument);  // the next segment's token
  EXPECT_EQ(check_after<TypeParam>([](auto& c) { c.indices[2] = limits::max(); }), status::bad_argument);
  EXPECT_EQ(check_after<TypeParam>([](auto& c) { c.indices[3] = 3; }), status::bad_argument);  // counted from the segment's begin
  EXPECT_EQ(check_after<TypeParam>([](auto& c) {
              c.counts = {0, 0}, c.indices[0] = limits::max();
            }),
            status::ok)
      << "past the count: not read";
}

TYPED_TEST(KeepLists, CheckHoldsListsAgainstTheCountsOfTheirSegments) {
  ints const left{4, 2};
  EXPECT_EQ(check_after<TypeParam>([&](auto& c) { c.segments.counts = left.data(); }), status::bad_argument);  // token 2 is gone
  EXPECT_EQ(check_after<TypeParam>([&](auto& c) { c.segments.counts = left.data(), c.indices[3] = 1; }), status::ok);
}

// A value of 2^32 + 1 looks like 1 to whoever reads 32 bits of it.
TEST(KeepListsOf, Int64AreComparedWhole) {
  EXPECT_EQ(check_after<std::int64_t>([](auto& c) { c.indices[1] = (std::int64_t{1} << 32) + 1; }), status::bad_argument);
}

// --- grids and windows ---

TEST(TokenGrid, CountsPrefixPatchesAndSuffix) {
  constexpr md::token_grid clip{24, 24}, video{2, 3, 4, 0, 5};
  static_assert(clip.patches() == 576 && clip.tokens() == 577 && video.patches() == 24 && video.tokens() == 29);
  EXPECT_EQ(md::token_grid{}.tokens(), 1);
}

TEST(WindowShape, CountsWholeWindowsOnly) {
  md::window_shape const square, wide{2, 4}, deep{1, 2, 3};
  EXPECT_EQ(square.tokens(), 9);
  EXPECT_EQ(deep.tokens(), 6);
  EXPECT_EQ(square.windows({24, 24}), 64);
  EXPECT_EQ(square.windows({26, 25}), 64) << "what is left at the far edges belongs to none";
  EXPECT_EQ(square.windows({2, 24}), 0);
  EXPECT_EQ(wide.windows({9, 9, 3}), 4 * 2 * 3);
  EXPECT_EQ(deep.windows({3, 5, 7, 9, 9}), 3 * 2 * 2);
  EXPECT_EQ(square.windows({0, 0}), 0);
}

TEST(WindowShape, OfOneTokenOrNoneOrTooManyIsInvalid) {
  constexpr auto valid = [](index_t rows, index_t cols, index_t frames) { return md::window_shape{rows, cols, frames}.valid(); };
  EXPECT_TRUE(md::window_shape{}.valid());
  EXPECT_TRUE(valid(1, 2, 1));
  EXPECT_TRUE(valid(2, 1, 1));
  EXPECT_TRUE(valid(1, 1, 2));
  EXPECT_FALSE(valid(1, 1, 1));
  EXPECT_FALSE(valid(0, 3, 1));
  EXPECT_FALSE(valid(3, 0, 1));
  EXPECT_FALSE(valid(3, 3, 0));
  EXPECT_FALSE(valid(-1, -3, 1)) << "the product alone would do";
  EXPECT_FALSE(valid(3, 3, index_min));
  EXPECT_TRUE(valid(1 << 15, 1 << 15, 1));
  EXPECT_FALSE(valid(1 << 16, 1 << 15, 1)) << "2^31 tokens";
  EXPECT_FALSE(valid(index_t{1} << 32, index_t{1} << 32, 1)) << "2^64 is 0 in 64 bits";
  EXPECT_FALSE(valid(index_t{1} << 21, 1, 1));
  EXPECT_FALSE(valid(index_max, index_max, index_max));
}

status check_grid(md::token_grid const& grid, index_t size, index_t windows = most, md::window_shape window = {}) {
  return check(md::view(&grid, 1), window, md::segments{}, size, windows);
}

TEST(CheckGrids, RefusesShapes) {
  md::token_grid const grids[] = {{3, 3}, {3, 6}};
  ints const offsets{0, 10, 29};
  md::segments const two{2, offsets.data(), nullptr, 0};
  EXPECT_EQ(check(md::view(grids, 2), {}, two, 29, 2), status::ok);
  EXPECT_EQ(check(md::view(grids, 1), {}, two, 29, 2), status::bad_shape);
  EXPECT_EQ(check(md::tensor_view<md::token_grid const, 1>{grids, {-2}, {1}}, {}, two, 29, 2), status::bad_shape);
  EXPECT_EQ(check(md::tensor_view<md::token_grid const, 1>{nullptr, {2}, {1}}, {}, two, 29, 2), status::bad_shape);
  EXPECT_EQ(check(md::view(grids, 2), {1, 1}, two, 29, 2), status::bad_shape);
  EXPECT_EQ(check(md::view(grids, 2), {0, 3}, two, 29, 2), status::bad_shape);
  EXPECT_EQ(check(md::view(grids, 2), {}, {2, nullptr, nullptr, 0}, 29, 2), status::bad_shape);
  EXPECT_EQ(check(md::view(grids, 2), {}, two, -1, 2), status::bad_shape);
  EXPECT_EQ(check(md::view(grids, 2), {}, two, 28, 2), status::bad_argument);
  EXPECT_EQ(check(md::view(grids, 2), {}, two, 29, 1), status::bad_argument) << "the second grid has two windows";
}

TEST(CheckGrids, HoldsGridsAgainstTheCountsOfTheirSegments) {
  md::token_grid const grid{3, 3};
  std::int32_t count = 10;
  EXPECT_EQ(check(md::view(&grid, 1), {}, md::segments{1, nullptr, &count, 0}, 50, 1), status::ok);
  count = 11;
  EXPECT_EQ(check(md::view(&grid, 1), {}, md::segments{1, nullptr, &count, 0}, 50, 1), status::bad_argument);
}

TEST(CheckGrids, RefusesHostileContents) {
  EXPECT_EQ(check_grid({24, 24}, 577), status::ok);
  EXPECT_EQ(check_grid({24, 24}, 576), status::bad_argument);
  EXPECT_EQ(check_grid({24, 24}, 578), status::bad_argument);
  EXPECT_EQ(check_grid({-24, -24}, 577), status::bad_argument) << "the product alone would do";
  EXPECT_EQ(check_grid({24, 24, 1, -1, 2}, 577), status::bad_argument);
  EXPECT_EQ(check_grid({24, 24, 1, 2, -1}, 577), status::bad_argument);
  EXPECT_EQ(check_grid({index_max, index_max, index_max, index_max, index_max}, 577), status::bad_argument);
  EXPECT_EQ(check_grid({index_min, index_min, index_min, index_min, index_min}, 577), status::bad_argument);
  EXPECT_EQ(check_grid({index_t{1} << 32, index_t{1} << 32, 1, 577, 0}, 577), status::bad_argument) << "2^64 is 0 in 64 bits";
  EXPECT_EQ(check_grid({1 << 30, 1 << 4, 1 << 30, 577, 0}, 577, most, {1, 17}), status::bad_argument) << "2^64 again, in small parts";
  EXPECT_EQ(check_grid({most, most, most, 0, 0}, most), status::bad_argument);
  EXPECT_EQ(check_grid({1, 1, 1, index_max, index_max}, 0), status::bad_argument);
  EXPECT_EQ(check_grid({1, most, 1, 0, 0}, most), status::ok);
  EXPECT_EQ(check_grid({0, 0, 1, most, 0}, most), status::ok);
  EXPECT_EQ(check_grid({3, 3}, 10, 1), status::ok);
  EXPECT_EQ(check_grid({3, 3}, 10, 0), status::bad_argument);
  EXPECT_EQ(check_grid({2, 2}, 5, -1), status::bad_argument);
}

// A segment of nothing, an image without patches, a clip without frames: as many tokens as it should have, hence right.
TEST(CheckGrids, AcceptsGridsOfNoPatches) {
  EXPECT_EQ(check_grid({0, 0, 1, 0, 0}, 0), status::ok);
  EXPECT_EQ(check_grid({0, 0}, 1), status::ok);
  EXPECT_EQ(check_grid({0, 24}, 1), status::ok);
  EXPECT_EQ(check_grid({24, 24, 0, 0, 0}, 0), status::ok);
  EXPECT_EQ(check_grid({24, 24, 0, 1, 2}, 3), status::ok);
}

TEST(CheckGrids, AgreesWithItsSentenceOnAllSmallGrids) {
  int accepted = 0;
  for (index_t code = 0; code < 5 * 5 * 5 * 5 * 5 * 8 * 3; ++code) {
    auto const digit = [code](index_t weight) { return code / weight % 5 - 1; };  // −1 … 3
    md::token_grid const grid{digit(1), digit(5), digit(25), digit(125), digit(625)};
    index_t const size = code / 3125 % 8, windows = code / 25000;
    bool const natural = std::min({grid.rows, grid.cols, grid.frames, grid.prefix, grid.suffix}) >= 0;
    bool const right = natural && grid.prefix + grid.frames * grid.rows * grid.cols + grid.suffix == size &&
                       grid.rows / 1 * (grid.cols / 2) * grid.frames <= windows;
    EXPECT_EQ(check_grid(grid, size, windows, {1, 2}) == status::ok, right) << "code " << code;
    accepted += right;
  }
  EXPECT_GT(accepted, 100);
}

// --- workspace ---

TEST(Workspace, HoldsOnlyWhatIsLargeEnoughAndAligned) {
  aligned_memory memory(256);
  md::workspace const lent = memory.lend();
  ASSERT_EQ(lent.bytes, 256u);
  EXPECT_TRUE(lent.holds(0));
  EXPECT_TRUE(lent.holds(1));
  EXPECT_TRUE(lent.holds(256));
  EXPECT_FALSE(lent.holds(257));
  EXPECT_FALSE(lent.holds(std::numeric_limits<std::size_t>::max()));
  for (std::size_t shift = 1; shift <= 64; ++shift) {
    md::workspace const moved{static_cast<char*>(lent.data) + shift, 128};
    EXPECT_EQ(moved.holds(128), shift == 64) << shift;
    EXPECT_TRUE(moved.holds(0)) << "whoever needs nothing takes anything";
  }
}

TEST(Workspace, ThatIsNullHoldsNothingOnly) {
  md::workspace const none, lie{nullptr, 1024};
  EXPECT_TRUE(none.holds(0));
  EXPECT_FALSE(none.holds(1));
  EXPECT_TRUE(lie.holds(0));
  EXPECT_FALSE(lie.holds(1));
}

}  // namespace
