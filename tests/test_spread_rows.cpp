// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
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

/// One row for each token; what is not written is `guard`.
template <class Backend, class T, class Index>
std::vector<T> spread(std::vector<T> const& merged, std::size_t dim, std::vector<Index> const& source, md::segments const& segments,
                      T guard, Offsets const& merged_offsets = {}) {
  std::vector<T> out(source.size() * dim, guard);
  auto const got =
      md::spread_rows(Backend{}, md::view(merged.data(), merged.size() / dim, dim), md::view(source.data(), source.size()), segments,
                      md::view(merged_offsets.data(), merged_offsets.size()), md::view(out.data(), source.size(), dim));
  EXPECT_EQ(got, md::status::ok) << message(got);
  return out;
}

template <class T>
bool same_bytes(std::vector<T> const& a, std::vector<T> const& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

template <class Backend>
struct SpreadRows : testing::Test {};
TYPED_TEST_SUITE(SpreadRows, Backends);

TYPED_TEST(SpreadRows, EveryTokenGetsTheRowThatItWentInto) {
  EXPECT_EQ((spread<TypeParam>(std::vector{1, 2, 3, 4}, 2, std::vector{0, 1, 0}, {}, -1)), (std::vector{1, 2, 3, 4, 1, 2}));
}

TYPED_TEST(SpreadRows, RowsAreCountedFromTheSegmentsBegin) {
  Offsets const offsets{0, 2, 2, 5};
  EXPECT_EQ((spread<TypeParam>(std::vector{10, -5, 20, 21, -5}, 1, std::vector{0, 0, 1, 0, 1}, cut(offsets), -1)),
            (std::vector{10, 10, 21, 20, 21}));
}

TYPED_TEST(SpreadRows, PackedRowsBeginAtTheOffsetsThatPackMakes) {
  Offsets const offsets{0, 2, 2, 5}, counts{1, 0, 2};
  Offsets packed(4);
  ASSERT_EQ(md::pack(md::view(counts.data(), 3), md::view(packed.data(), 4)), md::status::ok);
  EXPECT_EQ((spread<TypeParam>(std::vector{10, 20, 21}, 1, std::vector{0, 0, 1, 0, 1}, cut(offsets), -1, packed)),
            (std::vector{10, 10, 21, 20, 21}));
}

TYPED_TEST(SpreadRows, TokensPastTheCountAreNotWritten) {
  Offsets const offsets{0, 3, 5}, counts{2, 1};
  EXPECT_EQ((spread<TypeParam>(std::vector{1, 2, -5, 4, -5}, 1, std::vector{1, 0, 99, 0, 99}, {2, offsets.data(), counts.data(), 0}, -1)),
            (std::vector{2, 1, -1, 4, -1}));
}

TYPED_TEST(SpreadRows, OwnRowsAreACopyAndOneRowGoesToAll) {
  EXPECT_EQ((spread<TypeParam>(std::vector{1, 2, 3}, 1, std::vector{0, 1, 2}, {}, -1)), (std::vector{1, 2, 3}));
  EXPECT_EQ((spread<TypeParam>(std::vector{7}, 1, std::vector{0, 0, 0}, {}, -1)), (std::vector{7, 7, 7}));
  EXPECT_EQ((spread<TypeParam>(std::vector{7}, 1, std::vector{0}, {}, -1)), (std::vector{7}));
}

TYPED_TEST(SpreadRows, NoTokensNoSegmentsAndNoFeaturesAreFine) {
  Offsets const empty{0};
  EXPECT_TRUE((spread<TypeParam>(std::vector{1, 2}, 1, std::vector<int>{}, {}, -1)).empty());
  EXPECT_TRUE((spread<TypeParam>(std::vector<int>{}, 1, std::vector<int>{}, cut(empty), -1)).empty());
  auto const nothing = md::view(static_cast<float*>(nullptr), 2, 0);
  std::int32_t const source[] = {1, 0};
  EXPECT_EQ(md::spread_rows(TypeParam{}, nothing, md::view(source, 2), {}, {}, nothing), md::status::ok);
}

TYPED_TEST(SpreadRows, NanPayloadsSignedZerosAndInfinitiesKeepTheirBits) {
  std::vector<float> const merged{md::float_from_bits(0x7fc12345u), -0.f, inf, -inf};
  EXPECT_TRUE(same_bytes(spread<TypeParam>(merged, 2, std::vector{1, 0}, {}, 7.f), std::vector<float>{inf, -inf, merged[0], -0.f}));
}

template <class Backend, class T, class Index>
void expect_each_token_gets_its_row(std::mt19937& random) {
  for (md::index_t const dim : dims) {
    auto const size = static_cast<std::size_t>(dim);
    Offsets offsets{0};
    std::vector<Index> source;
    std::vector<T> merged, want;
    for (int s = 0; s < 4; ++s) {
      auto const tokens = static_cast<std::size_t>(random() % 8), first = merged.size();
      offsets.push_back(offsets.back() + static_cast<std::int32_t>(tokens));
      merged.resize(first + tokens * size);
      for (std::size_t at = first; at < merged.size(); ++at) {
        auto const bits = random();
        std::memcpy(&merged[at], &bits, sizeof(T));
      }
      for (std::size_t t = 0; t < tokens; ++t) {
        source.push_back(static_cast<Index>(random() % tokens));
        auto const row = merged.begin() + static_cast<std::ptrdiff_t>(first + static_cast<std::size_t>(source.back()) * size);
        want.insert(want.end(), row, row + dim);
      }
    }
    auto const got = spread<Backend>(merged, size, source, cut(offsets), T{});
    EXPECT_TRUE(same_bytes(got, want)) << sizeof(T) << " bytes, dim " << dim;
    EXPECT_TRUE(same_bytes(got, spread<md::reference::backend>(merged, size, source, cut(offsets), T{})));
  }
}

TYPED_TEST(SpreadRows, ElementsOfAnySizeAreCopied) {
  auto random = printed_random(51);
  for (int round = 0; round < 10; ++round) {
    expect_each_token_gets_its_row<TypeParam, std::uint8_t, std::int32_t>(random);
    expect_each_token_gets_its_row<TypeParam, rgb, std::int64_t>(random);
    expect_each_token_gets_its_row<TypeParam, md::bfloat16, std::int32_t>(random);
    expect_each_token_gets_its_row<TypeParam, std::uint64_t, std::int64_t>(random);
  }
}

TYPED_TEST(SpreadRows, PaddedAndMisalignedRowsAreReadAndWrittenAndNothingElse) {
  for (md::index_t const dim : dims) {
    padded_tensor<std::uint8_t, 2> merged(1, 1, 5, 2, dim), out(9, 3, 2, 3, dim), want(9, 3, 2, 3, dim);
    std::int64_t const source[] = {1, 0, 1};
    for (md::index_t d = 0; d < dim; ++d) {
      merged.view()(0, d) = static_cast<std::uint8_t>(10 + d % 50), merged.view()(1, d) = static_cast<std::uint8_t>(100 + d % 50);
      for (md::index_t t = 0; t < 3; ++t) { want.view()(t, d) = merged.view()(source[t], d); }
    }
    ASSERT_EQ(md::spread_rows(TypeParam{}, merged.view(), md::view(source, 3), {}, {}, out.view()), md::status::ok);
    EXPECT_EQ(out.memory(), want.memory()) << "dim " << dim;
  }
}

/// A merge of random tokens: rows of small integers, groups of 1, 2 or 4, so that every mean is exact.
struct random_merge {
  explicit random_merge(std::mt19937& random) {
    for (int row = 0; row < 6; ++row) { source.insert(source.end(), std::size_t{1} << random() % 3, row); }
    std::shuffle(source.begin(), source.end(), random);
    for (std::size_t i = 0; i < 3 * source.size(); ++i) { rows.push_back(static_cast<float>(random() % 64)); }
  }
  std::vector<std::int32_t> source;
  std::vector<float> rows;  // [tokens, 3]
};

/// merge_rows in place of capacity.
template <class Backend>
std::vector<float> merged(std::vector<float> const& rows, std::vector<std::int32_t> const& source) {
  std::vector<float> out(rows.size(), -7);
  auto const got = md::merge_rows(Backend{}, md::view(rows.data(), source.size(), 3), {}, md::view(source.data(), source.size()), {},
                                  md::view(out.data(), source.size(), 3), {}, {});
  EXPECT_EQ(got, md::status::ok) << message(got);
  return out;
}

TYPED_TEST(SpreadRows, AfterAMergeEveryTokenHasTheMeanOfThoseItWasMergedWith) {
  auto random = printed_random(52);
  for (int round = 0; round < 50; ++round) {
    random_merge const merge(random);
    auto const back = spread<TypeParam>(merged<TypeParam>(merge.rows, merge.source), 3, merge.source, {}, -1.f);
    for (std::size_t t = 0; t < merge.source.size(); ++t) {
      float sum[3] = {}, members = 0;
      for (std::size_t other = 0; other < merge.source.size(); ++other) {
        if (merge.source[other] != merge.source[t]) { continue; }
        ++members;
        for (std::size_t d = 0; d < 3; ++d) { sum[d] += merge.rows[3 * other + d]; }
      }
      for (std::size_t d = 0; d < 3; ++d) { EXPECT_EQ(back[3 * t + d], sum[d] / members); }
    }
  }
}

TYPED_TEST(SpreadRows, MergingWhatWasSpreadGivesTheRowsBack) {
  auto random = printed_random(53);
  for (int round = 0; round < 50; ++round) {
    random_merge const merge(random);
    auto const rows = merged<TypeParam>(merge.rows, merge.source);
    EXPECT_EQ(merged<TypeParam>(spread<TypeParam>(rows, 3, merge.source, {}, -1.f), merge.source), rows);
  }
}

TYPED_TEST(SpreadRows, ProvenanceTheOtherWayRoundNamesTheTokensOfEachRow) {
  auto random = printed_random(54);
  for (int round = 0; round < 50; ++round) {
    random_merge const merge(random);
    auto const tokens = static_cast<md::index_t>(merge.source.size());
    std::vector<int> numbers(merge.source.size()), got;
    for (std::size_t r = 0; r < numbers.size(); ++r) { numbers[r] = 100 + static_cast<int>(r); }
    got = spread<TypeParam>(numbers, 1, merge.source, {}, -1);
    Offsets member_offsets(7);
    std::vector<std::int32_t> members(merge.source.size());
    ASSERT_EQ(md::invert(md::view(merge.source.data(), tokens), md::view(member_offsets.data(), 7), md::view(members.data(), tokens)),
              md::status::ok);
    std::vector<int> want(merge.source.size(), -1);
    for (int row = 0; row < 6; ++row) {
      auto const r = static_cast<std::size_t>(row);
      for (std::int32_t m = member_offsets[r]; m < member_offsets[r + 1]; ++m) {
        want[static_cast<std::size_t>(members[static_cast<std::size_t>(m)])] = 100 + row;
      }
    }
    EXPECT_EQ(got, want);
  }
}

/// A call that is right, to be made wrong in one place at a time.
struct spread_arguments {
  float memory[8] = {1, 2, 3, 4, 5, 6, 7, 8}, written[8] = {-7, -7, -7, -7, -7, -7, -7, -7};
  std::int32_t offset[3] = {0, 2, 4}, row[8] = {}, packed[6] = {0, 1, 2, 2, 2, 2};
  md::tensor_view<float, 2> merged = md::view(memory, 4, 2), out = md::view(written, 4, 2);
  md::tensor_view<std::int32_t, 1> source = md::view(row, 4);
  md::tensor_view<std::int32_t const, 1> merged_offsets{};
  md::segments segments{2, offset, nullptr, 0};
};

template <class Backend, class Change>
md::status answer(Change const& change) {
  spread_arguments a;
  change(a);
  auto const got = md::spread_rows(Backend{}, a.merged, a.source, a.segments, a.merged_offsets, a.out);
  for (float const value : a.written) { EXPECT_TRUE(got == md::status::ok || value == -7); }
  return got;
}

TYPED_TEST(SpreadRows, BadShapesAreRefusedAndNothingWritten) {
  using arguments = spread_arguments;
  EXPECT_EQ(answer<TypeParam>([](arguments&) {}), md::status::ok);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.segments.count = -1; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.segments.offsets = nullptr; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.segments.longest = -1; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.merged.data = nullptr; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.merged.sizes[0] = -1; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.merged.sizes[1] = 1; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.out.sizes[0] = 3; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.out.data = nullptr; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.source.sizes[0] = 3; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.source.data = nullptr; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.merged_offsets = {a.packed, {2}, {1}}; }), md::status::bad_shape);
}

TYPED_TEST(SpreadRows, BadStridesAreRefusedAndNothingWritten) {
  using arguments = spread_arguments;
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.merged.strides[1] = 2; }), md::status::bad_stride);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.out.strides[1] = 2; }), md::status::bad_stride);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.source.strides[0] = 2; }), md::status::bad_stride);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.merged_offsets = {a.packed, {3}, {2}}; }), md::status::bad_stride);
}

}  // namespace
