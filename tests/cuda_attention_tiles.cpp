// SPDX-License-Identifier: Apache-2.0

// attention_scores of the CUDA backend where its tiles end: a row, a key or a feature less than one, as many, and one more; in every type, as
// it comes and by single numbers; with the bits of the reference. Numbers have all the digits of their type, so that each order of a sum
// is another.

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "backends.hpp"
#include "memory.hpp"
#include "ragged.hpp"

namespace {

using md::status;
using floats = std::vector<float>;
using ints = std::vector<std::int32_t>;

enum class form { softmax, capped, lse };

struct tile_case {
  md::index_t heads, kv_heads, rows, keys, dim;
  form as = form::softmax;
  ints row_offsets{}, key_offsets{}, limits{};  // {}: one segment, no limits
};

template <class T>
std::vector<T> any_numbers(std::mt19937& random, md::index_t n) {
  std::vector<T> numbers;
  for (md::index_t i = 0; i < n; ++i) { numbers.push_back(md::narrow<T>(static_cast<float>(random()) * 0x1p-30f - 2)); }
  return numbers;
}

/// sum, max and head_sum.
template <class Q, class K, class Backend>
floats scores(Backend const& on, tile_case const& c, md::tensor_view<Q const, 3> query, md::tensor_view<K const, 3> keys) {
  floats const lse(static_cast<std::size_t>(c.heads * c.rows), 1.7f);
  floats out(static_cast<std::size_t>(2 * c.keys + c.rows * c.keys), 0.1f);
  aligned_memory scratch(md::attention_scores_workspace_size(on, {c.heads, c.rows, c.keys, c.kv_heads, c.dim},
                                                             cut_to_longest(c.row_offsets), cut_to_longest(c.key_offsets)));
  md::attention_options options;
  options.scale = 1 / std::sqrt(static_cast<float>(c.dim)), options.softcap = c.as == form::capped ? 3.0f : 0.0f, options.decay = 0.7f;
  EXPECT_EQ(md::attention_scores(on, options, query, keys, cut_to_longest(c.row_offsets), cut_to_longest(c.key_offsets),
                                 c.limits.empty() ? md::tensor_view<std::int32_t const, 1>{} : md::view(c.limits.data(), c.rows),
                                 c.as == form::lse ? md::view(lse.data(), c.heads, c.rows) : md::tensor_view<float const, 2>{}, {},
                                 md::view(out.data(), c.keys), md::view(out.data() + c.keys, c.keys),
                                 md::view(out.data() + 2 * c.keys, c.rows, c.keys), scratch.lend()),
            status::ok);
  return out;
}

/// The query and the keys of a case, `shift` elements behind an address that is aligned to 16 bytes.
template <class Q, class K>
void expect_same(std::mt19937& random, tile_case const& c, md::index_t shift = 0) {
  auto const queries = any_numbers<Q>(random, shift + c.heads * c.rows * c.dim);
  auto const cached = any_numbers<K>(random, shift + c.kv_heads * c.keys * c.dim);
  md::tensor_view<Q const, 3> const query = md::view(queries.data() + shift, c.heads, c.rows, c.dim);
  md::tensor_view<K const, 3> const keys = md::view(cached.data() + shift, c.kv_heads, c.keys, c.dim);
  auto const got = scores(cuda_backend{}, c, query, keys), expected = scores(md::reference::backend{}, c, query, keys);
  for (std::size_t i = 0; i < expected.size(); ++i) {
    ASSERT_TRUE(same(got[i], expected[i])) << c.heads << " heads on " << c.kv_heads << ", " << c.rows << " rows, " << c.keys
                                           << " keys, dim " << c.dim << ", shift " << shift << ": " << got[i] << " at " << i << ", not "
                                           << expected[i];
  }
}

// Tiles are of 8 rows × 128 keys, or of 32 × 64 where there are more rows.
TEST(AttentionTiles, RowsAndKeysAroundATile) {
  std::mt19937 random = printed_random(71);
  for (md::index_t const rows : {1, 7, 8, 9, 31, 32, 33, 65}) {
    for (md::index_t const keys : {1, 3, 4, 5, 63, 64, 65, 127, 128, 129, 257}) {
      expect_same<md::half, md::half>(random, {1, 1, rows, keys, 8});
    }
  }
}

TEST(AttentionTiles, GroupedHeadsShareATile) {
  std::mt19937 random = printed_random(72);
  for (auto const& [heads, kv_heads, rows] : {std::array{4, 1, 2}, {3, 1, 3}, {8, 2, 8}, {8, 2, 9}, {7, 7, 1}, {28, 4, 5}}) {
    expect_same<md::bfloat16, md::bfloat16>(random, {heads, kv_heads, rows, 70, 16});
  }
}

// 32 features at a time: 8 or 4 by 16 bytes, or one by one where their number or their place is odd.
TEST(AttentionTiles, FeaturesAroundATileInEveryType) {
  std::mt19937 random = printed_random(73);
  for (md::index_t const dim : {1, 4, 8, 24, 31, 32, 33, 40, 64, 72, 128}) {
    tile_case const few{2, 1, 3, 66, dim}, many{2, 1, 20, 66, dim};
    for (auto const& c : {few, many}) {
      for (md::index_t const shift : {0, 1}) {
        expect_same<float, float>(random, c, shift), expect_same<md::half, md::half>(random, c, shift);
        expect_same<md::bfloat16, md::bfloat16>(random, c, shift), expect_same<float, md::half>(random, c, shift);
        expect_same<md::bfloat16, float>(random, c, shift), expect_same<md::half, md::bfloat16>(random, c, shift);
      }
    }
  }
}

// Exponentials are tiles of 2048 keys, added by one warp while the next are computed.
TEST(AttentionTiles, LongRowsInEveryForm) {
  std::mt19937 random = printed_random(74);
  for (md::index_t const keys : {1023, 1024, 1025, 2047, 2048, 2049, 4096, 4097, 6145}) {
    for (form const as : {form::softmax, form::capped, form::lse}) { expect_same<float, float>(random, {2, 2, 2, keys, 4, as}); }
  }
}

TEST(AttentionTiles, LimitsAndSegmentsEndWithinTilesAndBetweenThem) {
  std::mt19937 random = printed_random(75);
  tile_case c{2, 1, 50, 700, 16};
  c.row_offsets = {0, 1, 1, 35, 50}, c.key_offsets = {0, 64, 65, 321, 700};
  for (int round = 0; round < 6; ++round) {
    c.limits.clear();
    for (md::index_t t = 0; t < c.rows; ++t) {
      c.limits.push_back(round == 0 ? static_cast<std::int32_t>(8 * t) : static_cast<std::int32_t>(random() % 400) - 8);
    }
    c.as = static_cast<form>(round % 3);
    expect_same<md::half, md::half>(random, c);
  }
}

// The cache ends where memory does: what lies behind the last key that any row sees is not read, though the view goes on.
TEST(AttentionTiles, KeysThatNoRowSeesAreNotRead) {
  std::mt19937 random = printed_random(76);
  auto const page = static_cast<md::index_t>(sysconf(_SC_PAGESIZE));
  auto* const memory =
      static_cast<char*>(mmap(nullptr, static_cast<std::size_t>(2 * page), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(memory, MAP_FAILED);
  ASSERT_EQ(mprotect(memory + page, static_cast<std::size_t>(page), PROT_NONE), 0);
  constexpr md::index_t dim = 8, there = 70, said = 200;
  auto const cached = any_numbers<md::half>(random, there * dim);
  auto* const begin = reinterpret_cast<md::half*>(memory + page) - there * dim;
  std::copy(cached.begin(), cached.end(), begin);
  md::tensor_view<md::half const, 3> const keys = md::view(begin, 1, said, dim);
  for (int const rows : {2, 40}) {
    auto const queries = any_numbers<md::half>(random, rows * dim);
    md::tensor_view<md::half const, 3> const query = md::view(queries.data(), 1, rows, dim);
    tile_case c{1, 1, rows, said, dim};
    for (int t = 0; t < rows; ++t) { c.limits.push_back(static_cast<std::int32_t>(there) - t % 3); }
    EXPECT_EQ(scores(cuda_backend{}, c, query, keys), scores(md::reference::backend{}, c, query, keys)) << rows << " rows";
  }
  munmap(memory, static_cast<std::size_t>(2 * page));
}

}  // namespace
