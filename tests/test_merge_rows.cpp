// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include <mustdrop/plan.hpp>

#include "backends.hpp"
#include "memory.hpp"
#include "ragged.hpp"

namespace {

using Floats = std::vector<float>;
using Source = std::vector<std::int32_t>;
constexpr md::index_t dims[] = {1, 3, 17, 31, 32, 33, 64, 1024};
constexpr float untouched = -77;

struct merged_rows {
  Floats rows, sizes;
};

/// As many rows of room as there are tokens; `sizes` may be empty. What is not written is `untouched`.
template <class Backend, class Index = std::int32_t>
merged_rows merge(Floats const& rows, std::size_t dim, Floats const& sizes, Source const& source, md::segments const& segments = {},
                  Offsets const& out_offsets = {}) {
  std::size_t const tokens = source.size();
  std::vector<Index> const numbers(source.begin(), source.end());
  merged_rows out{Floats(rows.size(), untouched), Floats(tokens, untouched)};
  auto const got = md::merge_rows(Backend{}, md::view(rows.data(), tokens, dim), md::view(sizes.data(), sizes.size()),
                                  md::view(numbers.data(), tokens), segments, md::view(out.rows.data(), tokens, dim),
                                  md::view(out.sizes.data(), tokens), md::view(out_offsets.data(), out_offsets.size()));
  EXPECT_EQ(got, md::status::ok) << message(got);
  return out;
}

/// NaN equals NaN, and −0 is not 0.
void expect_same(Floats const& got, Floats const& want) {
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t i = 0; i < want.size(); ++i) { EXPECT_TRUE(same(got[i], want[i])) << i << ": " << got[i] << " for " << want[i]; }
}

Floats small_integers(std::mt19937& random, std::size_t count) {
  Floats values(count);
  for (float& value : values) { value = static_cast<float>(random() % 128) - 64; }
  return values;
}

template <class Backend>
struct MergeRows : testing::Test {};
TYPED_TEST_SUITE(MergeRows, Backends);

TYPED_TEST(MergeRows, ARowIsTheMeanOfThoseThatGoToIt) {
  auto const got = merge<TypeParam>({1, 2, 10, 20, 3, 6}, 2, {}, {0, 1, 0});
  EXPECT_EQ(got.rows, (Floats{2, 4, 10, 20, untouched, untouched}));
  EXPECT_EQ(got.sizes, (Floats{2, 1, untouched}));
}

TYPED_TEST(MergeRows, SizesAreTheWeights) {
  auto const got = merge<TypeParam>({1, 5, 7}, 1, {3, 1, 0.5f}, {0, 0, 1});
  EXPECT_EQ(got.rows, (Floats{2, 7, untouched}));
  EXPECT_EQ(got.sizes, (Floats{4, 0.5f, untouched}));
}

TYPED_TEST(MergeRows, RowsThatNothingGoesToAreNotWritten) {
  auto const got = merge<TypeParam>({1, 2, 3, 4}, 1, {}, {3, 1, 3, 3});
  EXPECT_EQ(got.rows, (Floats{untouched, 2, untouched, 8.f / 3}));
  EXPECT_EQ(got.sizes, (Floats{untouched, 1, untouched, 3}));
}

TYPED_TEST(MergeRows, WeightsThatAddUpToZeroGiveZeros) {
  auto const got = merge<TypeParam>({5, inf, quiet_nan, 3, 4, 5}, 1, {0, 0, 0, 0, 2, 0}, {0, 0, 1, 2, 2, 3});
  expect_same(got.rows, {0, 0, 4, 0, untouched, untouched});
  expect_same(got.sizes, {0, 0, 2, 0, untouched, untouched});
}

TYPED_TEST(MergeRows, OneTokenAllTokensAndEachForItself) {
  EXPECT_EQ(merge<TypeParam>({5, 6}, 2, {}, {0}).rows, (Floats{5, 6}));
  EXPECT_EQ(merge<TypeParam>({1, 2, 3, 6}, 1, {}, {0, 0, 0, 0}).rows, (Floats{3, untouched, untouched, untouched}));
  EXPECT_EQ(merge<TypeParam>({1, 2, 3, 6}, 1, {}, {2, 0, 3, 1}).rows, (Floats{2, 6, 1, 3}));
}

TYPED_TEST(MergeRows, NoTokensNoSegmentsAndNoFeaturesAreFine) {
  Offsets const empty{0};
  EXPECT_TRUE(merge<TypeParam>({}, 3, {}, {}).rows.empty());
  EXPECT_TRUE(merge<TypeParam>({}, 3, {}, {}, cut(empty)).rows.empty());
  EXPECT_EQ(merge<TypeParam>({}, 0, {}, {0, 0}).sizes, (Floats{2, untouched}));
}

TYPED_TEST(MergeRows, SizesOfTheResultNeedNotBeAskedFor) {
  Floats const rows{1, 3};
  Source const source{0, 0};
  Floats out{untouched, untouched};
  ASSERT_EQ(
      md::merge_rows(TypeParam{}, md::view(rows.data(), 2, 1), {}, md::view(source.data(), 2), {}, md::view(out.data(), 2, 1), {}, {}),
      md::status::ok);
  EXPECT_EQ(out, (Floats{2, untouched}));
}

TYPED_TEST(MergeRows, SourcesAreCountedFromTheSegmentsBegin) {
  Offsets const offsets{0, 2, 2, 5};
  auto const got = merge<TypeParam>({1, 3, 10, 20, 30}, 1, {}, {0, 0, 1, 0, 1}, cut(offsets));
  EXPECT_EQ(got.rows, (Floats{2, untouched, 20, 20, untouched}));
  EXPECT_EQ(got.sizes, (Floats{2, untouched, 1, 2, untouched}));
}

TYPED_TEST(MergeRows, TokensPastTheCountAreNotRead) {
  Offsets const offsets{0, 3, 5}, counts{2, 1};
  auto const got = merge<TypeParam>({1, 3, quiet_nan, 10, quiet_nan}, 1, {1, 1, quiet_nan, 1, quiet_nan}, {0, 0, 0, 0, 0},
                                    {2, offsets.data(), counts.data(), 0});
  EXPECT_EQ(got.rows, (Floats{2, untouched, untouched, 10, untouched}));
}

TYPED_TEST(MergeRows, PackedRowsAndSizesBeginAtTheOffsetsThatPackMakes) {
  Offsets const offsets{0, 2, 2, 5}, counts{1, 0, 2};
  Offsets packed(4);
  ASSERT_EQ(md::pack(md::view(counts.data(), 3), md::view(packed.data(), 4)), md::status::ok);
  auto const got = merge<TypeParam>({1, 3, 10, 20, 30}, 1, {}, {0, 0, 1, 0, 1}, cut(offsets), packed);
  EXPECT_EQ(got.rows, (Floats{2, 20, 20, untouched, untouched}));
  EXPECT_EQ(got.sizes, (Floats{2, 1, 2, untouched, untouched}));
}

TYPED_TEST(MergeRows, PackedOutputNeedsOnlyItsOwnRoom) {
  Floats const rows{1, 3, 10, 20};
  Source const source{0, 0, 0, 0};
  Offsets const offsets{0, 2, 4}, packed{0, 1, 2};
  Floats out(2, untouched), sizes(2, untouched);
  ASSERT_EQ(md::merge_rows(TypeParam{}, md::view(rows.data(), 4, 1), {}, md::view(source.data(), 4), cut(offsets),
                           md::view(out.data(), 2, 1), md::view(sizes.data(), 2), md::view(packed.data(), 3)),
            md::status::ok);
  EXPECT_EQ(out, (Floats{2, 15}));
  EXPECT_EQ(sizes, (Floats{2, 2}));
}

TYPED_TEST(MergeRows, NanAndInfinityStayInTheirRowAndColumn) {
  auto const got = merge<TypeParam>({quiet_nan, 1, 2, 3, inf, 5, 6, -inf, -inf, 8}, 2, {}, {0, 0, 1, 1, 1});
  expect_same({got.rows.begin(), got.rows.begin() + 4}, {quiet_nan, 2, quiet_nan, -inf});  // column 0 of row 1: ∞ and −∞ with 6 between
}

TYPED_TEST(MergeRows, ANanSizeMakesItsRowNanAndNoOther) {
  auto const got = merge<TypeParam>({1, 2, 3, 4}, 1, {1, quiet_nan, 1, 1}, {0, 0, 1, 1});
  expect_same(got.rows, {quiet_nan, 3.5f, untouched, untouched});
  expect_same(got.sizes, {quiet_nan, 2, untouched, untouched});
}

TYPED_TEST(MergeRows, Int64SourcesSayTheSame) {
  EXPECT_EQ((merge<TypeParam, std::int64_t>({1, 2, 10, 20, 3, 6}, 2, {}, {1, 0, 1}).rows), (Floats{10, 20, 2, 4, untouched, untouched}));
}

TYPED_TEST(MergeRows, HalvesAreAddedAsFloatsAndRoundedOnce) {
  // 2048 + 1 + 1 in half arithmetic stays 2048; their mean 683.33… is 683.5 in half and 684 in bfloat16 (steps of 1/2 and 4).
  std::vector<md::half> const rows{md::narrow<md::half>(2048.f), md::narrow<md::half>(1.f), md::narrow<md::half>(1.f)};
  std::vector<md::half> out(3);
  std::vector<md::bfloat16> brief(3);
  Floats wide(3);
  Source const source{0, 0, 0};
  auto const from = md::view(rows.data(), 3, 1);
  auto const to = md::view(source.data(), 3);
  ASSERT_EQ(md::merge_rows(TypeParam{}, from, {}, to, {}, md::view(out.data(), 3, 1), {}, {}), md::status::ok);
  ASSERT_EQ(md::merge_rows(TypeParam{}, from, {}, to, {}, md::view(brief.data(), 3, 1), {}, {}), md::status::ok);
  ASSERT_EQ(md::merge_rows(TypeParam{}, from, {}, to, {}, md::view(wide.data(), 3, 1), {}, {}), md::status::ok);
  EXPECT_EQ(md::widen(out[0]), 683.5f);
  EXPECT_EQ(md::widen(brief[0]), 684.f);
  EXPECT_EQ(wide[0], 2050.f / 3);
}

TYPED_TEST(MergeRows, Bfloat16RowsGiveHalves) {
  std::vector<md::bfloat16> const rows{md::narrow<md::bfloat16>(1.f), md::narrow<md::bfloat16>(1.0078125f)};  // 1 and the next
  std::vector<md::half> out(2);
  Source const source{0, 0};
  ASSERT_EQ(
      md::merge_rows(TypeParam{}, md::view(rows.data(), 2, 1), {}, md::view(source.data(), 2), {}, md::view(out.data(), 2, 1), {}, {}),
      md::status::ok);
  EXPECT_EQ(md::widen(out[0]), 1.00390625f);
}

TYPED_TEST(MergeRows, PaddedAndMisalignedRowsAreReadAndWrittenAndNothingElse) {
  for (md::index_t const dim : dims) {
    padded_tensor<md::half, 2> rows({0x7e00}, 1, 3, 3, dim);  // NaN around the rows: whoever reads it shows it
    padded_tensor<float, 2> out(9, 3, 5, 3, dim), want(9, 3, 5, 3, dim);
    for (md::index_t d = 0; d < dim; ++d) {
      for (md::index_t t = 0; t < 3; ++t) { rows.view()(t, d) = md::narrow<md::half>(static_cast<float>(t * 4 + d % 8)); }
      want.view()(1, d) = static_cast<float>(4 + d % 8);  // the mean of t = 0 and t = 2
      want.view()(2, d) = static_cast<float>(4 + d % 8);
    }
    Source const source{1, 2, 1};
    ASSERT_EQ(md::merge_rows(TypeParam{}, rows.view(), {}, md::view(source.data(), 3), {}, out.view(), {}, {}), md::status::ok);
    EXPECT_EQ(out.memory(), want.memory()) << "dim " << dim;
  }
}

TYPED_TEST(MergeRows, MeansOfRandomRaggedGroupsAreThoseOfDouble) {
  // Sums of small integers are exact, so there is one rounding, that of the division; done in double and rounded to float it gives
  // the same bits (53 ≥ 2·24 + 2).
  auto random = printed_random(61);
  for (int round = 0; round < 50; ++round) {
    auto const dim = static_cast<std::size_t>(dims[static_cast<std::size_t>(round) % 8]);
    Offsets offsets{0};
    Source source;
    for (int s = 0; s < 4; ++s) {
      auto const tokens = static_cast<std::int32_t>(random() % 12);
      offsets.push_back(offsets.back() + tokens);
      for (std::int32_t t = 0; t < tokens; ++t) { source.push_back(static_cast<std::int32_t>(random() % 4096) % tokens); }
    }
    Floats const rows = small_integers(random, source.size() * dim);
    Floats sizes(source.size());
    for (float& size : sizes) { size = static_cast<float>(random() % 5); }

    merged_rows want{Floats(rows.size(), untouched), Floats(source.size(), untouched)};
    for (std::size_t s = 0; s < 4; ++s) {
      auto const begin = static_cast<std::size_t>(offsets[s]), end = static_cast<std::size_t>(offsets[s + 1]);
      std::vector<double> sum((end - begin) * dim), total(end - begin);
      std::vector<int> members(end - begin);
      for (std::size_t t = begin; t < end; ++t) {
        auto const r = static_cast<std::size_t>(source[t]);
        ++members[r], total[r] += double{sizes[t]};
        for (std::size_t d = 0; d < dim; ++d) { sum[r * dim + d] += double{rows[t * dim + d]} * double{sizes[t]}; }
      }
      for (std::size_t r = 0; r < end - begin; ++r) {
        if (members[r] == 0) { continue; }
        want.sizes[begin + r] = static_cast<float>(total[r]);
        for (std::size_t d = 0; d < dim; ++d) {
          want.rows[(begin + r) * dim + d] = total[r] == 0 ? 0.f : static_cast<float>(sum[r * dim + d] / total[r]);
        }
      }
    }
    auto const got = merge<TypeParam>(rows, dim, sizes, source, cut(offsets));
    EXPECT_EQ(got.rows, want.rows);
    EXPECT_EQ(got.sizes, want.sizes);
  }
}

TYPED_TEST(MergeRows, TheSumIsOneFmaChainInTheOrderOfTheTokensAsInTheReference) {
  auto random = printed_random(62);
  std::normal_distribution<float> normal;
  for (int round = 0; round < 50; ++round) {
    Floats rows(40), sizes(20);
    for (float& value : rows) { value = normal(random); }
    for (float& size : sizes) { size = std::fabs(normal(random)); }
    Source source(20);
    for (std::int32_t& row : source) { row = static_cast<std::int32_t>(random() % 3); }
    auto const got = merge<TypeParam>(rows, 2, sizes, source), oracle = merge<md::reference::backend>(rows, 2, sizes, source);
    expect_same(got.rows, oracle.rows);
    expect_same(got.sizes, oracle.sizes);
    for (std::size_t r = 0; r < 3; ++r) {
      float sum = 0, total = 0;
      for (std::size_t t = 0; t < 20; ++t) {
        if (source[t] != static_cast<std::int32_t>(r)) { continue; }
        sum = std::fma(rows[2 * t], sizes[t], sum), total += sizes[t];
      }
      if (total > 0) { EXPECT_EQ(got.rows[2 * r], sum / total); }
    }
  }
}

TYPED_TEST(MergeRows, MergingTwiceWithTheSizesCarriedIsMergingAtOnce) {
  // Sixteen rows become five of sizes 1, 1, 2, 4 and 8, each mean exact; then those become two.
  auto random = printed_random(63);
  for (int round = 0; round < 50; ++round) {
    Source first{0, 1, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4, 4};
    std::shuffle(first.begin(), first.end(), random);
    Source second{0, 0, 0, 0, 1};
    for (std::size_t r = 1; r < 4; ++r) { second[r] = static_cast<std::int32_t>(random() % 2); }
    Floats const rows = small_integers(random, 32);
    Source at_once(16);
    for (std::size_t t = 0; t < 16; ++t) { at_once[t] = second[static_cast<std::size_t>(first[t])]; }

    auto halfway = merge<TypeParam>(rows, 2, {}, first);
    halfway.rows.resize(10), halfway.sizes.resize(5);
    auto const twice = merge<TypeParam>(halfway.rows, 2, halfway.sizes, second), once = merge<TypeParam>(rows, 2, {}, at_once);
    EXPECT_EQ((Floats{twice.rows.begin(), twice.rows.begin() + 4}), (Floats{once.rows.begin(), once.rows.begin() + 4}));
    EXPECT_EQ((Floats{twice.sizes.begin(), twice.sizes.begin() + 2}), (Floats{once.sizes.begin(), once.sizes.begin() + 2}));
  }
}

TYPED_TEST(MergeRows, WhatGatherShrankIsMergedInPlaceOfCapacity) {
  Floats const rows{1, 2, 3, 4, 10, 20, 30};
  Offsets const offsets{0, 4, 7};
  std::vector<std::int32_t> indices{0, 2, 3, 1, 2, 99}, counts{3, 2};
  Floats middle(7, quiet_nan);
  ASSERT_EQ(md::gather(TypeParam{}, md::view(rows.data(), 7, 1), cut(offsets),
                       md::keep_lists<std::int32_t>{md::view(indices.data(), 2, 3), md::view(counts.data(), 2)},
                       md::view(middle.data(), 7, 1), {}),
            md::status::ok);
  auto const got = merge<TypeParam>(middle, 1, {}, {0, 1, 1, 99, 0, 0, 99}, {2, offsets.data(), counts.data(), 0});
  EXPECT_EQ(got.rows, (Floats{1, 3.5f, untouched, untouched, 25, untouched, untouched}));
}

/// What window_merge makes of a 6×5 grid with a prefix and a suffix, in two segments, with random features.
struct windows {
  template <class Backend>
  windows(Backend const& backend, std::mt19937& random, md::index_t dim, md::output_order order)
      : features(64 * static_cast<std::size_t>(dim)), rows(features.size(), untouched), sizes(64, untouched), source(64) {
    std::uniform_real_distribution<float> uniform(0.5f, 1.5f);  // no −0: a copied row keeps it, a sum does not
    for (float& feature : features) { feature = uniform(random); }
    md::token_grid const grids[2] = {{6, 5, 1, 1, 1}, {6, 5, 1, 2, 0}};
    std::vector<float> similarity(12);
    for (float& value : similarity) { value = uniform(random); }
    std::vector<std::int32_t> indices(2 * 64), counts(2);
    aligned_memory scratch(md::window_merge_workspace_size(backend, {2, 2}, 64, dim, 6, cut(offsets)));
    auto const got = md::window_merge(
        backend, {1.f, -1, order}, {2, 2}, md::view(features.data(), 64, dim), cut(offsets), md::view(grids, 2),
        md::view(similarity.data(), 2, 6), {}, md::view(rows.data(), 64, dim), md::view(sizes.data(), 64), md::view(source.data(), 64),
        md::keep_lists<std::int32_t>{md::view(indices.data(), 2, 64), md::view(counts.data(), 2)}, scratch.lend());
    EXPECT_EQ(got, md::status::ok) << message(got);
  }
  Offsets offsets{0, 32, 64};
  Floats features, rows, sizes;
  Source source;
};

TYPED_TEST(MergeRows, GivesTheRowsAndSizesOfWindowMergeBitForBit) {
  auto random = printed_random(64);
  for (md::index_t const dim : {1, 3, 33}) {
    for (auto const order : {md::output_order::position, md::output_order::score}) {
      windows const merged(TypeParam{}, random, dim, order);
      auto const got = merge<TypeParam>(merged.features, static_cast<std::size_t>(dim), {}, merged.source, cut(merged.offsets));
      expect_same(got.rows, merged.rows);
      expect_same(got.sizes, merged.sizes);
    }
  }
}

/// A call that is right, to be made wrong in one place at a time.
struct merge_arguments {
  float memory[8] = {1, 2, 3, 4, 5, 6, 7, 8}, weights[4] = {1, 1, 1, 1};
  float written[8] = {-7, -7, -7, -7, -7, -7, -7, -7}, totals[4] = {-7, -7, -7, -7};
  std::int32_t offset[3] = {0, 2, 4}, packed[3] = {0, 1, 2}, row[4] = {};
  md::tensor_view<float, 2> rows = md::view(memory, 4, 2), out = md::view(written, 4, 2);
  md::tensor_view<float, 1> sizes = md::view(weights, 4), out_sizes = md::view(totals, 4);
  md::tensor_view<std::int32_t, 1> source = md::view(row, 4);
  md::tensor_view<std::int32_t const, 1> out_offsets{};
  md::segments segments{2, offset, nullptr, 0};
};

template <class Backend, class Change>
md::status answer(Change const& change) {
  merge_arguments a;
  change(a);
  auto const got = md::merge_rows(Backend{}, a.rows, a.sizes, a.source, a.segments, a.out, a.out_sizes, a.out_offsets);
  for (float const value : a.written) { EXPECT_TRUE(got == md::status::ok || value == -7); }
  for (float const value : a.totals) { EXPECT_TRUE(got == md::status::ok || value == -7); }
  return got;
}

TYPED_TEST(MergeRows, BadShapesAreRefusedAndNothingWritten) {
  using arguments = merge_arguments;
  EXPECT_EQ(answer<TypeParam>([](arguments&) {}), md::status::ok);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.segments.count = -1; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.segments.offsets = nullptr; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.segments.longest = -1; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.rows.sizes[0] = -1; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.rows.sizes[1] = 1; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.rows.data = nullptr; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.sizes.sizes[0] = 3; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.sizes.data = nullptr; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.source.sizes[0] = 3; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.out_sizes.sizes[0] = 3; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.out.sizes[0] = 3, a.out_sizes.sizes[0] = 3; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.out_offsets = {a.packed, {2}, {1}}; }), md::status::bad_shape);
}

TYPED_TEST(MergeRows, BadStridesAreRefusedAndNothingWritten) {
  using arguments = merge_arguments;
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.rows.strides[1] = 2; }), md::status::bad_stride);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.sizes.strides[0] = 2; }), md::status::bad_stride);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.source.strides[0] = 2; }), md::status::bad_stride);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.out.strides[1] = 2; }), md::status::bad_stride);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.out_sizes.strides[0] = 2; }), md::status::bad_stride);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.out_offsets = {a.packed, {3}, {2}}; }), md::status::bad_stride);
}

}  // namespace
