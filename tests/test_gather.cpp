// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include <mustdrop/plan.hpp>

#include "backends.hpp"
#include "memory.hpp"
#include "ragged.hpp"

namespace {

constexpr md::index_t dims[] = {1, 3, 17, 31, 32, 33, 64, 1024};

struct rgb {
  std::uint8_t channel[3];
};
struct line {
  std::uint8_t byte[64];
};

/// Ragged: some segments are empty.
Offsets random_offsets(std::mt19937& random, int segments) {
  Offsets offsets{0};
  for (int s = 0; s < segments; ++s) { offsets.push_back(offsets.back() + static_cast<std::int32_t>(random() % 10)); }
  return offsets;
}

/// Each token stays with a chance that differs from list to list, 0 and 1 included.
std::vector<int> random_list(std::mt19937& random, std::int32_t tokens) {
  auto const chance = random() % 5;
  std::vector<int> list;
  for (int t = 0; t < tokens; ++t) {
    if (random() % 4 < chance) { list.push_back(t); }
  }
  return list;
}

/// Rows of `dim` elements, gathered into as much room as they came from; what is not written is `guard`.
template <class Backend, class Index = std::int32_t, class T>
std::vector<T> gathered(std::vector<T> const& rows, std::size_t dim, Offsets const& offsets, Lists const& keep, T guard,
                        Offsets const& out_offsets = {}) {
  kept_tokens<Index> kept(keep);
  std::vector<T> out(rows.size(), guard);
  auto const got = md::gather(Backend{}, md::view(rows.data(), rows.size() / dim, dim), cut(offsets), kept.lists(),
                              md::view(out.data(), out.size() / dim, dim), md::view(out_offsets.data(), out_offsets.size()));
  EXPECT_EQ(got, md::status::ok) << message(got);
  return out;
}

/// The same by another road: bytes of rows appended to a list, segment by segment.
template <class T>
std::vector<T> picked(std::vector<T> const& rows, std::size_t dim, Offsets const& offsets, Lists const& keep) {
  std::vector<T> out;
  for (std::size_t s = 0; s < keep.size(); ++s) {
    for (int const t : keep[s]) {
      auto const first = rows.begin() + (offsets[s] + t) * static_cast<std::ptrdiff_t>(dim);
      out.insert(out.end(), first, first + static_cast<std::ptrdiff_t>(dim));
    }
  }
  return out;
}

template <class T>
bool same_bytes(std::vector<T> const& a, std::vector<T> const& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

/// Elements of any type, all bits random: NaN with payloads, −0 and infinities among the floats.
template <class T>
std::vector<T> random_elements(std::mt19937& random, std::size_t count) {
  std::vector<T> elements(count);
  for (T& element : elements) {
    std::uint8_t bytes[sizeof(T)];
    for (std::uint8_t& byte : bytes) { byte = static_cast<std::uint8_t>(random()); }
    std::memcpy(&element, bytes, sizeof(T));
  }
  return elements;
}

/// rms_norm of one row written out: 32 lanes, folded by halves, then the roundings that the header names.
std::vector<float> normalized(std::vector<float> const& row, std::vector<float> const& weight, float epsilon) {
  float lane[32] = {};
  for (std::size_t d = 0; d < row.size(); ++d) { lane[d % 32] = std::fma(row[d], row[d], lane[d % 32]); }
  for (std::size_t half : {16u, 8u, 4u, 2u, 1u}) {
    for (std::size_t i = 0; i < half; ++i) { lane[i] += lane[i + half]; }
  }
  float const mean = lane[0] / static_cast<float>(row.size()), scale = 1.0f / std::sqrt(mean + epsilon);
  std::vector<float> out(row.size());
  for (std::size_t d = 0; d < row.size(); ++d) {
    float const scaled = row[d] * scale;
    out[d] = scaled * weight[d];
  }
  return out;
}

/// One row of T through gather with rms_norm, as Out.
template <class Backend, class Out, class T, class W>
std::vector<Out> rms(std::vector<T> const& row, std::vector<W> const& weight, float epsilon) {
  kept_tokens<std::int32_t> first(Lists{{0}});
  std::vector<Out> out(row.size());
  auto const got = md::gather(Backend{}, md::rms_norm{md::view(weight.data(), weight.size()), epsilon}, md::view(row.data(), 1, row.size()),
                              {}, first.lists(), md::view(out.data(), 1, out.size()), {});
  EXPECT_EQ(got, md::status::ok) << message(got);
  return out;
}

std::vector<float> random_floats(std::mt19937& random, std::size_t count) {
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) { value = normal(random); }
  return values;
}

template <class T>
std::vector<T> narrowed(std::vector<float> const& values) {
  std::vector<T> out;
  for (float const value : values) { out.push_back(md::narrow<T>(value)); }
  return out;
}

template <class T>
std::vector<float> widened(std::vector<T> const& values) {
  std::vector<float> out;
  for (T const value : values) { out.push_back(md::widen(value)); }
  return out;
}

template <class Backend>
struct Gather : testing::Test {};
TYPED_TEST_SUITE(Gather, Backends);

TYPED_TEST(Gather, KeptRowsStandTogetherInTheirOrder) {
  EXPECT_EQ(gathered<TypeParam>(std::vector{1, 2, 3, 4, 5, 6, 7, 8}, 2, {0, 4}, {{0, 2, 3}}, -1), (std::vector{1, 2, 5, 6, 7, 8, -1, -1}));
}

TYPED_TEST(Gather, EachSegmentBeginsWhereItBeganAndTheRestIsNotWritten) {
  EXPECT_EQ(gathered<TypeParam>(std::vector{10, 11, 12, 20, 30, 31}, 1, {0, 3, 3, 4, 6}, {{1, 2}, {}, {0}, {1}}, -1),
            (std::vector{11, 12, -1, 20, 31, -1}));
}

TYPED_TEST(Gather, PackedRowsBeginAtTheOffsetsThatPackMakes) {
  Lists const keep{{1, 2}, {}, {0}, {1}};
  kept_tokens<std::int32_t> kept(keep);
  Offsets packed(5, -1);
  ASSERT_EQ(md::pack(md::view(kept.counts.data(), 4), md::view(packed.data(), 5)), md::status::ok);
  EXPECT_EQ(gathered<TypeParam>(std::vector{10, 11, 12, 20, 30, 31}, 1, {0, 3, 3, 4, 6}, keep, -1, packed),
            (std::vector{11, 12, 20, 31, -1, -1}));
}

TYPED_TEST(Gather, PackedRowsMayGoBehindOthersAndNeedOnlyTheirOwnRoom) {
  std::vector const rows{1, 2, 3, 4};
  std::vector out{-1, -1, -1};
  Offsets const offsets{0, 2, 4}, out_offsets{1, 2, 3};
  kept_tokens<std::int32_t> kept(Lists{{1}, {0}});
  ASSERT_EQ(md::gather(TypeParam{}, md::view(rows.data(), 4), cut(offsets), kept.lists(), md::view(out.data(), 3),
                       md::view(out_offsets.data(), 3)),
            md::status::ok);
  EXPECT_EQ(out, (std::vector{-1, 2, 3}));
}

TYPED_TEST(Gather, NothingKeptWritesNothing) {
  EXPECT_EQ(gathered<TypeParam>(std::vector{1, 2, 3}, 1, {0, 3}, {{}}, -1), (std::vector{-1, -1, -1}));
}

TYPED_TEST(Gather, EverythingKeptIsACopy) {
  EXPECT_EQ(gathered<TypeParam>(std::vector{1, 2, 3, 4}, 2, {0, 1, 2}, {{0}, {0}}, -1), (std::vector{1, 2, 3, 4}));
}

TYPED_TEST(Gather, OneTokenStaysOrGoes) {
  EXPECT_EQ(gathered<TypeParam>(std::vector{5}, 1, {0, 1}, {{0}}, -1), (std::vector{5}));
  EXPECT_EQ(gathered<TypeParam>(std::vector{5}, 1, {0, 1}, {{}}, -1), (std::vector{-1}));
}

TYPED_TEST(Gather, NoTokensNoSegmentsAndNoFeaturesAreFine) {
  kept_tokens<std::int32_t> none(Lists{}), nothing(Lists{{}}), both(Lists{{0, 1}});
  Offsets const empty{0};
  auto const no_rows = md::view(static_cast<float*>(nullptr), 0, 3), no_features = md::view(static_cast<float*>(nullptr), 2, 0);
  EXPECT_EQ(md::gather(TypeParam{}, no_rows, cut(empty), none.lists(), no_rows, {}), md::status::ok);
  EXPECT_EQ(md::gather(TypeParam{}, no_rows, {}, nothing.lists(), no_rows, {}), md::status::ok);
  EXPECT_EQ(md::gather(TypeParam{}, no_features, {}, both.lists(), no_features, {}), md::status::ok);
  float weight = 1;
  EXPECT_EQ(md::gather(TypeParam{}, md::rms_norm{md::view(&weight, 0), 0.f}, no_features, {}, both.lists(), no_features, {}),
            md::status::ok);
}

TYPED_TEST(Gather, ARowOfScalarsMayBeStrided) {
  std::vector const ids{1, 0, 2, 0, 3, 0, 4, 0};
  std::vector out(9, -1);
  kept_tokens<std::int32_t> kept(Lists{{0, 3}});
  md::tensor_view<int const, 1> const every_second{ids.data(), {4}, {2}};
  ASSERT_EQ(md::gather(TypeParam{}, every_second, {}, kept.lists(), md::tensor_view<int, 1>{out.data(), {3}, {3}}, {}), md::status::ok);
  EXPECT_EQ(out, (std::vector{1, -1, -1, 4, -1, -1, -1, -1, -1}));
}

TYPED_TEST(Gather, OuterAxesMayLieInAnyOrder) {
  // Rows are [tokens 2, heads 2, dim 3], kept in memory as [heads, tokens, dim]; what comes out is token-major.
  std::vector const rows{1, 2, 3, 4, 5, 6, -1, -2, -3, -4, -5, -6};
  std::vector out(12, 0);
  kept_tokens<std::int32_t> kept(Lists{{1}}, 2);
  ASSERT_EQ(md::gather(TypeParam{}, md::tensor_view<int const, 3>{rows.data(), {2, 2, 3}, {3, 6, 1}}, {}, kept.lists(),
                       md::view(out.data(), 2, 2, 3), {}),
            md::status::ok);
  EXPECT_EQ(out, (std::vector{4, 5, 6, -4, -5, -6, 0, 0, 0, 0, 0, 0}));
}

TYPED_TEST(Gather, TheOutputMayLieInAnyOrderToo) {
  std::vector const rows{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};  // [tokens 2, heads 2, dim 3]
  std::vector out(12, 0);
  kept_tokens<std::int32_t> kept(Lists{{0, 1}});
  ASSERT_EQ(md::gather(TypeParam{}, md::view(rows.data(), 2, 2, 3), {}, kept.lists(),
                       md::tensor_view<int, 3>{out.data(), {2, 2, 3}, {3, 6, 1}}, {}),
            md::status::ok);
  EXPECT_EQ(out, (std::vector{1, 2, 3, 7, 8, 9, 4, 5, 6, 10, 11, 12}));
}

TYPED_TEST(Gather, OneSegmentNeedsRoomForItsListOnly) {
  std::vector const rows{1, 2, 3, 4, 5};
  std::vector out{-1, -1, -1};
  kept_tokens<std::int32_t> kept(Lists{{0, 4}}, 3);
  ASSERT_EQ(md::gather(TypeParam{}, md::view(rows.data(), 5), {}, kept.lists(), md::view(out.data(), 3), {}), md::status::ok);
  EXPECT_EQ(out, (std::vector{1, 5, -1}));
}

TYPED_TEST(Gather, ListsMayBeLongerThanTheTokens) {
  std::vector const rows{1, 2};
  std::vector out{-1, -1};
  kept_tokens<std::int32_t> kept(Lists{{1}}, 100);
  ASSERT_EQ(md::gather(TypeParam{}, md::view(rows.data(), 2), {}, kept.lists(), md::view(out.data(), 2), {}), md::status::ok);
  EXPECT_EQ(out, (std::vector{2, -1}));
}

TYPED_TEST(Gather, Int64ListsSayTheSame) {
  std::vector const rows{1, 2, 3, 4, 5, 6};
  EXPECT_EQ((gathered<TypeParam, std::int64_t>(rows, 2, {0, 1, 3}, {{0}, {1}}, -1)), (std::vector{1, 2, 5, 6, -1, -1}));
}

TYPED_TEST(Gather, WhatOneCallShrankIsTheNextOnesInput) {
  std::vector const rows{10, 11, 12, 13, 20, 21, 22};
  std::vector middle(7, -1), out(7, -1);
  Offsets const offsets{0, 4, 7};
  kept_tokens<std::int32_t> first(Lists{{0, 2, 3}, {1, 2}}), second(Lists{{1, 2}, {0}});
  ASSERT_EQ(md::gather(TypeParam{}, md::view(rows.data(), 7), cut(offsets), first.lists(), md::view(middle.data(), 7), {}), md::status::ok);
  md::segments const shrunk{2, offsets.data(), first.counts.data(), 0};
  ASSERT_EQ(md::check(second.lists(), shrunk, 7), md::status::ok);
  ASSERT_EQ(md::gather(TypeParam{}, md::view(middle.data(), 7), shrunk, second.lists(), md::view(out.data(), 7), {}), md::status::ok);
  EXPECT_EQ(out, (std::vector{12, 13, -1, -1, 21, -1, -1}));
}

TYPED_TEST(Gather, TwoStagesAreTheirComposition) {
  auto random = printed_random(41);
  for (int round = 0; round < 100; ++round) {
    auto const rows = random_elements<std::uint32_t>(random, random() % 50);
    auto const size = static_cast<std::int32_t>(rows.size());
    Lists const first{random_list(random, size)};
    auto const kept = static_cast<std::int32_t>(first[0].size());
    Lists const second{random_list(random, kept)};
    std::vector<int> both(rows.size());
    md::index_t count = 0;
    ASSERT_EQ(
        md::compose(md::view(first[0].data(), kept), md::view(second[0].data(), second[0].size()), md::view(both.data(), size), count),
        md::status::ok);
    both.resize(static_cast<std::size_t>(count));
    auto middle = gathered<TypeParam>(rows, 1, {0, size}, first, 0u);
    middle.resize(first[0].size());
    auto in_two = gathered<TypeParam>(middle, 1, {0, kept}, second, 0u);
    in_two.resize(both.size());
    EXPECT_EQ(in_two, picked(rows, 1, {0, size}, {both}));
  }
}

TYPED_TEST(Gather, NanPayloadsSignedZerosAndInfinitiesKeepTheirBits) {
  std::vector<float> const rows{md::float_from_bits(0x7fc12345u), -0.f, -inf, inf, 0.f, md::float_from_bits(0xffc00001u)};
  auto const got = gathered<TypeParam>(rows, 2, {0, 3}, {{0, 2}}, 7.f);
  EXPECT_TRUE(same_bytes(got, std::vector<float>{rows[0], rows[1], rows[4], rows[5], 7, 7}));
}

template <class Backend, class T>
void expect_any_element_is_copied(std::mt19937& random) {
  for (md::index_t const dim : dims) {
    auto const size = static_cast<std::size_t>(dim);
    auto const offsets = random_offsets(random, 4);
    Lists keep;
    for (std::size_t s = 0; s < 4; ++s) { keep.push_back(random_list(random, offsets[s + 1] - offsets[s])); }
    auto const rows = random_elements<T>(random, static_cast<std::size_t>(offsets.back()) * size);
    auto const guard = random_elements<T>(random, 1)[0];
    kept_tokens<std::int32_t> kept(keep);
    Offsets packed(5);
    ASSERT_EQ(md::pack(md::view(kept.counts.data(), 4), md::view(packed.data(), 5)), md::status::ok);

    auto want = picked(rows, size, offsets, keep);
    want.resize(rows.size(), guard);
    EXPECT_TRUE(same_bytes(gathered<Backend>(rows, size, offsets, keep, guard, packed), want)) << sizeof(T) << " bytes, dim " << dim;

    auto const in_place = gathered<Backend>(rows, size, offsets, keep, guard);
    EXPECT_TRUE(same_bytes(in_place, gathered<md::reference::backend>(rows, size, offsets, keep, guard)));
    for (std::size_t s = 0; s < keep.size(); ++s) {  // segment by segment the same rows, at the place where it began
      std::vector<T> const segment(in_place.begin() + offsets[s] * dim, in_place.begin() + offsets[s + 1] * dim);
      auto own = picked(rows, size, {offsets[s]}, {keep[s]});
      own.resize(segment.size(), guard);
      EXPECT_TRUE(same_bytes(segment, own)) << sizeof(T) << " bytes, dim " << dim << ", segment " << s;
    }
  }
}

TYPED_TEST(Gather, ElementsOfAnySizeAreCopied) {
  auto random = printed_random(42);
  for (int round = 0; round < 3; ++round) {
    expect_any_element_is_copied<TypeParam, std::uint8_t>(random);
    expect_any_element_is_copied<TypeParam, rgb>(random);
    expect_any_element_is_copied<TypeParam, md::half>(random);
    expect_any_element_is_copied<TypeParam, std::uint32_t>(random);
    expect_any_element_is_copied<TypeParam, double>(random);
    expect_any_element_is_copied<TypeParam, line>(random);
  }
}

TYPED_TEST(Gather, PaddedAndMisalignedRowsAreReadAndWrittenAndNothingElse) {
  for (md::index_t const dim : dims) {
    // Bytes that begin at an odd address: no row is aligned to anything.
    padded_tensor<std::uint8_t, 2> rows(1, 1, 5, 4, dim), out(9, 3, 2, 4, dim), want(9, 3, 2, 4, dim);
    for (md::index_t t = 0; t < 4; ++t) {
      for (md::index_t d = 0; d < dim; ++d) { rows.view()(t, d) = static_cast<std::uint8_t>(10 + t * 50 + d % 50); }
    }
    for (md::index_t d = 0; d < dim; ++d) { want.view()(0, d) = rows.view()(1, d), want.view()(1, d) = rows.view()(3, d); }
    kept_tokens<std::int32_t> kept(Lists{{1, 3}});
    ASSERT_EQ(md::gather(TypeParam{}, rows.view(), {}, kept.lists(), out.view(), {}), md::status::ok);
    EXPECT_EQ(out.memory(), want.memory()) << "dim " << dim;
  }
}

TYPED_TEST(Gather, RmsNormDividesByTheRootOfTheMeanSquare) {
  // Mean squares 4 and 1/4: scales 1/2 and 2, all exact.
  std::vector<float> const rows{2, -2, 2, 2, 9, 9, 9, 9, 0.5f, 0.5f, -0.5f, 0.5f}, weight{1, 2, 3, -4};
  std::vector<float> out(12, 7);
  kept_tokens<std::int32_t> kept(Lists{{0, 2}});
  ASSERT_EQ(md::gather(TypeParam{}, md::rms_norm{md::view(weight.data(), 4), 0.f}, md::view(rows.data(), 3, 4), {}, kept.lists(),
                       md::view(out.data(), 3, 4), {}),
            md::status::ok);
  EXPECT_EQ(out, (std::vector<float>{1, -2, 3, -4, 1, 2, -3, -4, 7, 7, 7, 7}));
}

TYPED_TEST(Gather, RmsNormAddsEpsilonToTheMean) {
  EXPECT_EQ((rms<TypeParam, float>(std::vector{1.f, 1.f}, std::vector{1.f, 1.f}, 3.f)), (std::vector{0.5f, 0.5f}));
  EXPECT_EQ((rms<TypeParam, float>(std::vector{0.f, -0.f}, std::vector{1.f, 1.f}, 1e-6f)), (std::vector{0.f, -0.f}));
}

TYPED_TEST(Gather, RmsNormOfNanIsNanInItsRowAndOfANanWeightInItsColumn) {
  std::vector<float> const rows{quiet_nan, 2, 2, 2, inf, 1, 2, 2}, weight{1, quiet_nan};
  std::vector<float> out(8, 7);
  kept_tokens<std::int32_t> kept(Lists{{0, 1, 2, 3}});
  ASSERT_EQ(md::gather(TypeParam{}, md::rms_norm{md::view(weight.data(), 2), 0.f}, md::view(rows.data(), 4, 2), {}, kept.lists(),
                       md::view(out.data(), 4, 2), {}),
            md::status::ok);
  float const want[] = {quiet_nan, quiet_nan, 1, quiet_nan, quiet_nan, quiet_nan, 1, quiet_nan};  // infinity · 1/√infinity is NaN
  for (std::size_t i = 0; i < 8; ++i) { EXPECT_TRUE(same(out[i], want[i])) << i << ": " << out[i]; }
}

TYPED_TEST(Gather, RmsNormIsTheThirtyTwoLaneSumBitForBit) {
  auto random = printed_random(43);
  for (md::index_t const dim : dims) {
    for (int round = 0; round < 20; ++round) {
      auto const row = random_floats(random, static_cast<std::size_t>(dim)), weight = random_floats(random, static_cast<std::size_t>(dim));
      EXPECT_TRUE(same_bytes(rms<TypeParam, float>(row, weight, 1e-5f), normalized(row, weight, 1e-5f))) << "dim " << dim;
    }
  }
}

TYPED_TEST(Gather, RmsNormIsCloseToDouble) {
  // With u = 2^-24: a sum of n squares in 32 lanes passes each through at most ⌈n/32⌉ fma and 5 folds; the division by n and the sum
  // with epsilon add two roundings, the root halves what came so far; root, reciprocal and two products add one each. To first order.
  auto random = printed_random(44);
  for (md::index_t const dim : dims) {
    double const roundings = (static_cast<double>((dim + 31) / 32) + 5 + 2) / 2 + 4, tolerance = roundings * 0x1p-24;
    for (int round = 0; round < 20; ++round) {
      auto const row = random_floats(random, static_cast<std::size_t>(dim)), weight = random_floats(random, static_cast<std::size_t>(dim));
      double square = 0;
      for (float const x : row) { square += double{x} * double{x}; }
      double const scale = 1 / std::sqrt(square / static_cast<double>(dim) + double{1e-5f});
      auto const got = rms<TypeParam, float>(row, weight, 1e-5f);
      for (std::size_t d = 0; d < row.size(); ++d) {
        double const want = double{row[d]} * scale * double{weight[d]};
        EXPECT_LE(std::fabs(double{got[d]} - want), tolerance * std::fabs(want)) << "dim " << dim;
      }
    }
  }
}

template <class Backend, class T, class W, class Out>
void expect_norm_is_rounded_once(std::mt19937& random) {
  auto const row = narrowed<T>(random_floats(random, 33));
  auto const weight = narrowed<W>(random_floats(random, 33));
  auto const want = narrowed<Out>(normalized(widened(row), widened(weight), 1e-5f));
  EXPECT_TRUE(same_bytes(rms<Backend, Out>(row, weight, 1e-5f), want));
}

template <class Backend, class T>
void expect_norm_from(std::mt19937& random) {
  expect_norm_is_rounded_once<Backend, T, float, float>(random);
  expect_norm_is_rounded_once<Backend, T, md::half, md::half>(random);
  expect_norm_is_rounded_once<Backend, T, md::half, md::bfloat16>(random);
  expect_norm_is_rounded_once<Backend, T, md::bfloat16, md::bfloat16>(random);
  expect_norm_is_rounded_once<Backend, T, md::bfloat16, float>(random);
}

TYPED_TEST(Gather, RmsNormTakesAndGivesFloatHalfAndBfloat16) {
  auto random = printed_random(45);
  expect_norm_from<TypeParam, float>(random);
  expect_norm_from<TypeParam, md::half>(random);
  expect_norm_from<TypeParam, md::bfloat16>(random);
}

/// A caller's own row transform, which kernels may call too.
struct reversed_row {
  MUSTDROP_HD void operator()(float const* row, md::index_t dim, md::half* to) const noexcept {
    for (md::index_t d = 0; d < dim; ++d) { to[d] = md::narrow<md::half>(row[dim - 1 - d]); }
  }
};

TYPED_TEST(Gather, ATransformOfTheCallerIsAppliedToKeptRowsOnly) {
  std::vector<float> const rows{1, 2, 3, 4, 5, 6}, want{2, 1, 6, 5};
  std::vector<md::half> out(6, md::narrow<md::half>(-1.f));
  kept_tokens<std::int64_t> kept(Lists{{0}, {1}});
  Offsets const offsets{0, 1, 3}, packed{0, 1, 2};
  ASSERT_EQ(md::gather(TypeParam{}, reversed_row{}, md::view(rows.data(), 3, 2), cut(offsets), kept.lists(), md::view(out.data(), 3, 2),
                       md::view(packed.data(), 3)),
            md::status::ok);
  EXPECT_EQ(widened(out), (std::vector<float>{2, 1, 6, 5, -1, -1}));
}

TYPED_TEST(Gather, TransformsReadPaddedRowsAndLeaveThePaddingAlone) {
  for (md::index_t const dim : dims) {
    padded_tensor<md::half, 2> rows({0x7e00}, 1, 3, 3, dim);  // NaN around the rows: whoever reads it shows it
    padded_tensor<float, 2> out(7, 1, 5, 2, dim), want(7, 1, 5, 2, dim);
    std::vector<md::bfloat16> weight(static_cast<std::size_t>(dim), md::narrow<md::bfloat16>(2.f));
    for (md::index_t t = 0; t < 3; ++t) {
      for (md::index_t d = 0; d < dim; ++d) { rows.view()(t, d) = md::narrow<md::half>(d % 2 == 0 ? 4.f : -4.f); }
    }
    for (md::index_t t = 0; t < 2; ++t) {
      for (md::index_t d = 0; d < dim; ++d) { want.view()(t, d) = d % 2 == 0 ? 2.f : -2.f; }
    }
    kept_tokens<std::int32_t> kept(Lists{{0, 2}});
    ASSERT_EQ(md::gather(TypeParam{}, md::rms_norm{md::view(weight.data(), dim), 0.f}, rows.view(), {}, kept.lists(), out.view(), {}),
              md::status::ok);
    EXPECT_EQ(out.memory(), want.memory()) << "dim " << dim;
  }
}

/// A call that is right, to be made wrong in one place at a time.
struct gather_arguments {
  int memory[8] = {1, 2, 3, 4, 5, 6, 7, 8}, written[8] = {-7, -7, -7, -7, -7, -7, -7, -7};
  float real[8] = {1, 2, 3, 4, 5, 6, 7, 8}, real_written[8] = {-7, -7, -7, -7, -7, -7, -7, -7}, scale[4] = {1, 1, 1, 1};
  std::int32_t offset[3] = {0, 2, 4}, packed[3] = {0, 1, 2}, index[4] = {0, 1, 0, 1}, count[2] = {1, 1};
  md::tensor_view<int, 2> rows = md::view(memory, 4, 2), out = md::view(written, 4, 2);
  md::tensor_view<float, 2> real_rows = md::view(real, 4, 2), real_out = md::view(real_written, 4, 2);
  md::tensor_view<float, 1> weight = md::view(scale, 2);
  md::segments segments{2, offset, nullptr, 0};
  md::keep_lists<std::int32_t> keep{md::view(index, 2, 2), md::view(count, 2)};
  md::tensor_view<std::int32_t const, 1> out_offsets{};
};

/// What both forms answer; they must agree, and write nothing unless they say ok.
template <class Backend, class Change>
md::status answer(Change const& change) {
  gather_arguments a;
  change(a);
  a.real_rows = {a.real, {a.rows.sizes[0], a.rows.sizes[1]}, {a.rows.strides[0], a.rows.strides[1]}};
  a.real_out = {a.real_written, {a.out.sizes[0], a.out.sizes[1]}, {a.out.strides[0], a.out.strides[1]}};
  a.weight.sizes[0] = a.rows.sizes[1];
  auto const copied = md::gather(Backend{}, a.rows, a.segments, a.keep, a.out, a.out_offsets);
  auto const normed = md::gather(Backend{}, md::rms_norm{a.weight, 1.f}, a.real_rows, a.segments, a.keep, a.real_out, a.out_offsets);
  EXPECT_EQ(copied, normed);
  for (std::size_t i = 0; i < 8 && copied != md::status::ok; ++i) { EXPECT_TRUE(a.written[i] == -7 && a.real_written[i] == -7); }
  return copied;
}

TYPED_TEST(Gather, BadShapesAreRefusedAndNothingWritten) {
  using arguments = gather_arguments;
  EXPECT_EQ(answer<TypeParam>([](arguments&) {}), md::status::ok);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.segments.count = 1; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.segments.count = -1; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.segments.offsets = nullptr; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.segments.longest = -1; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.keep.counts.sizes[0] = 1; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.keep.indices.sizes[0] = 1; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.keep.indices.data = nullptr; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.rows.sizes[0] = -1; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.rows.sizes[0] = md::most_tokens + 1; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.out.sizes[1] = 1; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.out.sizes[0] = 3; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.out_offsets = md::view(static_cast<std::int32_t const*>(a.packed), 2); }),
            md::status::bad_shape);
}

TYPED_TEST(Gather, BadStridesAreRefusedAndNothingWritten) {
  using arguments = gather_arguments;
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.rows.strides[1] = 2; }), md::status::bad_stride);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.out.strides[1] = 2; }), md::status::bad_stride);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.keep.indices.strides[1] = 2; }), md::status::bad_stride);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.keep.counts.strides[0] = 2; }), md::status::bad_stride);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.out_offsets = {a.packed, {3}, {2}}; }), md::status::bad_stride);
}

TYPED_TEST(Gather, WithOffsetsOfItsOwnTheOutputMayBeShort) {
  EXPECT_EQ(answer<TypeParam>([](gather_arguments& a) { a.out.sizes[0] = 2, a.out_offsets = {a.packed, {3}, {1}}; }), md::status::ok);
}

TYPED_TEST(Gather, OneSegmentIsRefusedRoomBelowTheCapacityOfItsList) {
  int const rows[4] = {1, 2, 3, 4};
  int out[2] = {-7, -7};
  kept_tokens<std::int32_t> kept(Lists{{1}}, 3);
  EXPECT_EQ(md::gather(TypeParam{}, md::view(rows, 4), {}, kept.lists(), md::view(out, 2), {}), md::status::bad_shape);
  EXPECT_EQ(out[0], -7);
}

TYPED_TEST(Gather, EveryAxisButTheFirstMustAgree) {
  int const rows[8] = {};
  int out[8] = {-7};
  kept_tokens<std::int32_t> kept(Lists{{1}});
  EXPECT_EQ(md::gather(TypeParam{}, md::view(rows, 2, 2, 2), {}, kept.lists(), md::view(out, 2, 1, 2), {}), md::status::bad_shape);
  EXPECT_EQ(md::gather(TypeParam{}, md::view(rows, 2, 2, 2), {}, kept.lists(), md::view(out, 2, 2, 1), {}), md::status::bad_shape);
  EXPECT_EQ(out[0], -7);
}

TYPED_TEST(Gather, AWeightOfAnotherLengthOrWithGapsIsRefused) {
  gather_arguments a;
  auto const norm = [&a](md::tensor_view<float, 1> weight) {
    return md::gather(TypeParam{}, md::rms_norm{weight, 1.f}, a.real_rows, a.segments, a.keep, a.real_out, {});
  };
  EXPECT_EQ(norm(md::view(a.scale, 3)), md::status::bad_shape);
  EXPECT_EQ(norm({nullptr, {2}, {1}}), md::status::bad_shape);
  EXPECT_EQ(norm({a.scale, {2}, {2}}), md::status::bad_stride);
  EXPECT_EQ(a.real_written[0], -7);
  EXPECT_EQ(norm(md::view(a.scale, 2)), md::status::ok);
}

}  // namespace
