// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "backends.hpp"
#include "memory.hpp"

namespace {

using Floats = std::vector<float>;
using Numbers = std::vector<int>;
using Axes = std::vector<Numbers>;  // one list of positions an axis
using md::rope_pairs;

constexpr rope_pairs both_pairs[] = {rope_pairs::half_split, rope_pairs::interleaved};

/// A rotation by a float angle is this far off at the most, times |(x, y)|: what the header promises.
constexpr double promised = 3e-7;

/// Keys [heads, slots, dim], and what a call needs to know of them.
template <class T>
struct key_cache {
  std::size_t heads, slots, dim;
  std::vector<T> data;

  md::tensor_view<T, 3> view() { return md::view(data.data(), heads, slots, dim); }
  T& at(std::size_t h, std::size_t i, std::size_t d) { return data[(h * slots + i) * dim + d]; }
};

template <class T>
key_cache<T> random_keys(std::mt19937& random, std::size_t heads, std::size_t slots, std::size_t dim) {
  std::normal_distribution<float> normal;
  key_cache<T> keys{heads, slots, dim, std::vector<T>(heads * slots * dim)};
  for (T& key : keys.data) { key = md::narrow<T>(normal(random)); }
  return keys;
}

/// base^(−2f / rotary), as models make it.
Floats frequencies(double base, std::size_t rotary) {
  Floats inv_freq;
  for (std::size_t f = 0; f < rotary / 2; ++f) {
    inv_freq.push_back(static_cast<float>(std::pow(base, -2.0 * static_cast<double>(f) / static_cast<double>(rotary))));
  }
  return inv_freq;
}

template <class Backend, class P = std::int32_t, class T>
void rerotate(rope_pairs pairs, key_cache<T>& keys, Axes const& old, Axes const& updated, Floats const& inv_freq,
              std::vector<std::int32_t> const& axis_of = {}, md::segments const& segments = {}) {
  std::vector<P> from, to;
  for (Numbers const& axis : old) { from.insert(from.end(), axis.begin(), axis.end()); }
  for (Numbers const& axis : updated) { to.insert(to.end(), axis.begin(), axis.end()); }
  auto const got = md::rerotate(Backend{}, pairs, keys.view(), segments, md::view(from.data(), old.size(), keys.slots),
                                md::view(to.data(), updated.size(), keys.slots), md::view(inv_freq.data(), inv_freq.size()),
                                md::view(axis_of.data(), axis_of.size()));
  EXPECT_EQ(got, md::status::ok) << message(got);
}

/// The two dims of frequency f.
std::pair<std::size_t, std::size_t> dims_of(rope_pairs pairs, std::size_t f, std::size_t count) {
  return pairs == rope_pairs::half_split ? std::make_pair(f, f + count) : std::make_pair(2 * f, 2 * f + 1);
}

struct point {
  double x, y;
};
point turned(point p, double angle) {
  return {p.x * std::cos(angle) - p.y * std::sin(angle), p.x * std::sin(angle) + p.y * std::cos(angle)};
}

template <class T>
bool same_bytes(std::vector<T> const& a, std::vector<T> const& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

/// Half a unit in the last place of a number below 1: how far rounding to T takes it, times the number.
template <class T>
constexpr double rounding = std::is_same_v<T, float>      ? 0x1p-24
                            : std::is_same_v<T, md::half> ? 0x1p-11
                                                          : 0x1p-8;

template <class Backend>
struct Rerotate : testing::Test {};
TYPED_TEST_SUITE(Rerotate, Backends);

TYPED_TEST(Rerotate, HalfSplitTurnsADimWithTheOneHalfTheRotaryDimsOn) {
  // A quarter turn by frequency 0 (π/2 a position), none by frequency 1: (x, y) → (−y, x) to within the promise.
  key_cache<float> keys{1, 1, 5, {1, 2, 3, 4, 5}};
  rerotate<TypeParam>(rope_pairs::half_split, keys, {{7}}, {{8}}, {1.57079637f, 0.f});
  EXPECT_NEAR(keys.data[0], -3, promised * 4);
  EXPECT_NEAR(keys.data[2], 1, promised * 4);
  EXPECT_EQ(keys.data[1], 2);
  EXPECT_EQ(keys.data[3], 4);
  EXPECT_EQ(keys.data[4], 5);  // not rotary
}

TYPED_TEST(Rerotate, InterleavedTurnsNeighbours) {
  key_cache<float> keys{1, 1, 5, {1, 2, 3, 4, 5}};
  rerotate<TypeParam>(rope_pairs::interleaved, keys, {{7}}, {{6}}, {1.57079637f, 0.f});  // backwards: (x, y) → (y, −x)
  EXPECT_NEAR(keys.data[0], 2, promised * 3);
  EXPECT_NEAR(keys.data[1], -1, promised * 3);
  EXPECT_EQ(keys.data[2], 3);
  EXPECT_EQ(keys.data[3], 4);
  EXPECT_EQ(keys.data[4], 5);
}

TYPED_TEST(Rerotate, EqualPositionsLeaveEveryByte) {
  auto const minus_zero = -0.f;
  key_cache<float> keys{1, 2, 4, {minus_zero, inf, -inf, md::float_from_bits(0x7fc12345u), minus_zero, minus_zero, 0, quiet_nan}};
  auto const before = keys.data;
  for (auto const pairs : both_pairs) {
    rerotate<TypeParam>(pairs, keys, {{3, 100}}, {{3, 100}}, frequencies(10000, 4));
    EXPECT_TRUE(same_bytes(keys.data, before));
  }
}

TYPED_TEST(Rerotate, OnlySlotsThatMoveAreWritten) {
  auto random = printed_random(91);
  for (auto const pairs : both_pairs) {
    auto keys = random_keys<float>(random, 2, 3, 8);
    keys.at(0, 0, 0) = -0.f, keys.at(1, 2, 3) = quiet_nan;
    auto const before = keys;
    rerotate<TypeParam>(pairs, keys, {{4, 5, 6}}, {{4, 3, 6}}, frequencies(10000, 8));
    for (std::size_t h = 0; h < 2; ++h) {
      for (std::size_t i = 0; i < 3; ++i) {
        bool const untouched = std::memcmp(&keys.at(h, i, 0), &before.data[(h * 3 + i) * 8], 8 * sizeof(float)) == 0;
        EXPECT_EQ(untouched, i != 1) << h << ' ' << i;
      }
    }
  }
}

TYPED_TEST(Rerotate, NothingToTurnIsFine) {
  auto random = printed_random(92);
  auto keys = random_keys<float>(random, 2, 3, 5);
  auto const before = keys.data;
  rerotate<TypeParam>(rope_pairs::half_split, keys, {{0, 1, 2}}, {{5, 6, 7}}, {});  // no frequencies
  EXPECT_TRUE(same_bytes(keys.data, before));
  key_cache<float> no_slots{2, 0, 8, {}}, no_heads{0, 3, 8, {}};
  rerotate<TypeParam>(rope_pairs::half_split, no_slots, {{}}, {{}}, frequencies(10000, 8));
  rerotate<TypeParam>(rope_pairs::half_split, no_heads, {{0, 1, 2}}, {{5, 6, 7}}, frequencies(10000, 8));
  std::int32_t const none[] = {0};
  rerotate<TypeParam>(rope_pairs::half_split, keys, {{0, 1, 2}}, {{5, 6, 7}}, frequencies(10000, 4), {}, {0, none, nullptr, 0});
  EXPECT_TRUE(same_bytes(keys.data, before));
}

TYPED_TEST(Rerotate, SlotsOutsideTheCountsAreNotTouched) {
  auto random = printed_random(93);
  auto keys = random_keys<float>(random, 2, 7, 4);
  auto const before = keys;
  std::int32_t const offsets[] = {1, 4, 6}, counts[] = {2, 0};  // slots 1 and 2 only
  rerotate<TypeParam>(rope_pairs::half_split, keys, {{0, 0, 0, 0, 0, 0, 0}}, {{9, 9, 9, 9, 9, 9, 9}}, frequencies(10000, 4), {},
                      {2, offsets, counts, 0});
  for (std::size_t h = 0; h < 2; ++h) {
    for (std::size_t i = 0; i < 7; ++i) {
      bool const untouched = std::memcmp(&keys.at(h, i, 0), &before.data[(h * 7 + i) * 4], 4 * sizeof(float)) == 0;
      EXPECT_EQ(untouched, i != 1 && i != 2) << h << ' ' << i;
    }
  }
}

TYPED_TEST(Rerotate, NanStaysInItsPairAndInfinityToo) {
  key_cache<float> keys{1, 1, 6, {quiet_nan, inf, 1, 1, 1, 1}};
  rerotate<TypeParam>(rope_pairs::half_split, keys, {{0}}, {{1}}, {1, 1, 1});
  EXPECT_TRUE(std::isnan(keys.data[0]) && std::isnan(keys.data[3]));
  EXPECT_EQ(keys.data[1], inf);
  EXPECT_EQ(keys.data[4], inf);  // cos 1 and sin 1 are positive
  EXPECT_TRUE(std::isfinite(keys.data[2]) && std::isfinite(keys.data[5]));
}

TYPED_TEST(Rerotate, ANanFrequencySpoilsItsOwnDimsOfSlotsThatMove) {
  key_cache<float> keys{1, 2, 4, {1, 1, 1, 1, 2, 2, 2, 2}};
  rerotate<TypeParam>(rope_pairs::interleaved, keys, {{0, 5}}, {{1, 5}}, {quiet_nan, 0});
  EXPECT_TRUE(std::isnan(keys.data[0]) && std::isnan(keys.data[1]));
  EXPECT_EQ((Floats{keys.data.begin() + 2, keys.data.end()}), (Floats{1, 1, 2, 2, 2, 2}));
}

/// Turns keys of T and compares with the rotation by the same float angle in double.
template <class Backend, class T>
void expect_rotation(std::mt19937& random, rope_pairs pairs, std::size_t dim, std::size_t rotary, double base, int farthest) {
  std::size_t const heads = 2, slots = 5, count = rotary / 2;
  auto keys = random_keys<T>(random, heads, slots, dim);
  auto const before = keys;
  auto const inv_freq = frequencies(base, rotary);
  Axes old(1), updated(1);
  for (std::size_t i = 0; i < slots; ++i) {
    old[0].push_back(static_cast<int>(random() % static_cast<unsigned>(farthest + 1)));
    updated[0].push_back(static_cast<int>(random() % static_cast<unsigned>(farthest + 1)));
  }
  old[0][0] = 0, updated[0][0] = farthest;
  rerotate<Backend>(pairs, keys, old, updated, inv_freq);
  auto again = before;
  rerotate<md::reference::backend, std::int64_t>(pairs, again, old, updated, inv_freq);
  EXPECT_TRUE(same_bytes(again.data, keys.data));

  for (std::size_t h = 0; h < heads; ++h) {
    for (std::size_t i = 0; i < slots; ++i) {
      for (std::size_t f = 0; f < count; ++f) {
        auto const [first, second] = dims_of(pairs, f, count);
        float const angle = static_cast<float>(updated[0][i] - old[0][i]) * inv_freq[f];
        T const* const row = &before.data[(h * slots + i) * dim];
        point const p{md::widen(row[first]), md::widen(row[second])}, want = turned(p, angle);
        // What the header promises of the float result, then the rounding to T (and the smallest step of a half near 0).
        double const radius = std::hypot(p.x, p.y), tolerance = (promised + (sizeof(T) == 2 ? rounding<T> : 0)) * radius + 0x1p-25;
        EXPECT_NEAR(md::widen(keys.at(h, i, first)), want.x, tolerance) << "angle " << angle;
        EXPECT_NEAR(md::widen(keys.at(h, i, second)), want.y, tolerance) << "angle " << angle;
      }
      EXPECT_EQ(std::memcmp(&keys.at(h, i, 0) + 2 * count, &before.data[(h * slots + i) * dim] + 2 * count, (dim - 2 * count) * sizeof(T)),
                0);
    }
  }
}

TYPED_TEST(Rerotate, KeysTurnByTheAngleWithinThePromiseForEveryDimAndPartOfIt) {
  auto random = printed_random(94);
  for (std::size_t const dim : {1u, 3u, 17u, 31u, 32u, 33u, 64u, 1024u}) {
    for (std::size_t const rotary : {dim / 2 * 2, dim / 4 * 2}) {
      for (auto const pairs : both_pairs) {
        expect_rotation<TypeParam, float>(random, pairs, dim, rotary, 10000, 4096);
        expect_rotation<TypeParam, md::half>(random, pairs, dim, rotary, 10000, 4096);
        expect_rotation<TypeParam, md::bfloat16>(random, pairs, dim, rotary, 10000, 4096);
      }
    }
  }
}

TYPED_TEST(Rerotate, AnyBaseAndPositionsUpTo2To20) {
  auto random = printed_random(95);
  for (double const base : {1.0, 500.0, 10000.0, 500000.0, 1e6, 5e6}) {
    for (auto const pairs : both_pairs) { expect_rotation<TypeParam, float>(random, pairs, 64, 64, base, 1 << 20); }
  }
}

TYPED_TEST(Rerotate, ThereAndBackIsWhereItWas) {
  // Two turns, each within the promise; the angles are the same float with opposite signs.
  auto random = printed_random(96);
  auto const inv_freq = frequencies(10000, 64);
  for (auto const pairs : both_pairs) {
    auto keys = random_keys<float>(random, 2, 4, 64);
    auto const before = keys;
    Axes const here{{0, 7, 100, 5000}}, there{{3, 2, 1000, 60000}};
    rerotate<TypeParam>(pairs, keys, here, there, inv_freq);
    EXPECT_FALSE(same_bytes(keys.data, before.data));
    rerotate<TypeParam>(pairs, keys, there, here, inv_freq);
    for (std::size_t row = 0; row < 8; ++row) {
      for (std::size_t f = 0; f < 32; ++f) {
        auto const [first, second] = dims_of(pairs, f, 32);
        float const x = before.data[row * 64 + first], y = before.data[row * 64 + second];
        double const tolerance = 2.001 * promised * std::hypot(double{x}, double{y});
        EXPECT_NEAR(keys.data[row * 64 + first], x, tolerance);
        EXPECT_NEAR(keys.data[row * 64 + second], y, tolerance);
      }
    }
  }
}

/// A key as a fresh prefill caches it: turned by position · inv_freq in double, rounded to T.
template <class T>
key_cache<T> freshly_rotated(key_cache<float> const& raw, rope_pairs pairs, Numbers const& positions, Floats const& inv_freq) {
  key_cache<T> keys{raw.heads, raw.slots, raw.dim, std::vector<T>(raw.data.size())};
  for (std::size_t at = 0; at < raw.data.size(); ++at) { keys.data[at] = md::narrow<T>(raw.data[at]); }
  for (std::size_t h = 0; h < raw.heads; ++h) {
    for (std::size_t i = 0; i < raw.slots; ++i) {
      for (std::size_t f = 0; f < inv_freq.size(); ++f) {
        auto const [first, second] = dims_of(pairs, f, inv_freq.size());
        float const* const row = &raw.data[(h * raw.slots + i) * raw.dim];
        point const p = turned({row[first], row[second]}, double{inv_freq[f]} * positions[i]);
        keys.at(h, i, first) = md::narrow<T>(static_cast<float>(p.x)), keys.at(h, i, second) = md::narrow<T>(static_cast<float>(p.y));
      }
    }
  }
  return keys;
}

/// Pairs of a and b are close: both were rounded to T once, and the angle, at most `angle`, is a product rounded to float.
template <class T>
void expect_close(key_cache<T>& a, key_cache<T>& b, rope_pairs pairs, std::size_t count, std::size_t slots, double angle) {
  for (std::size_t h = 0; h < a.heads; ++h) {
    for (std::size_t i = 0; i < slots; ++i) {
      for (std::size_t f = 0; f < count; ++f) {
        auto const [first, second] = dims_of(pairs, f, count);
        double const x = md::widen(b.at(h, i, first)), y = md::widen(b.at(h, i, second));
        // Stored before (both dims off by a rounding: √2 times), turned, stored after, and the fresh one's own rounding.
        double const tolerance = 1.01 * (promised + angle * 0x1p-24 + (1.415 + 1 + 1) * rounding<T>)*std::hypot(x, y) + 0x1p-23;
        EXPECT_NEAR(md::widen(a.at(h, i, first)), x, tolerance);
        EXPECT_NEAR(md::widen(a.at(h, i, second)), y, tolerance);
      }
    }
  }
}

template <class Backend, class T>
void expect_as_fresh(std::mt19937& random) {
  auto const inv_freq = frequencies(10000, 64);
  Numbers const old{0, 1, 5, 600, 2047}, updated{0, 9, 2, 3, 1000};
  for (auto const pairs : both_pairs) {
    auto const raw = random_keys<float>(random, 2, 5, 64);
    auto moved = freshly_rotated<T>(raw, pairs, old, inv_freq), fresh = freshly_rotated<T>(raw, pairs, updated, inv_freq);
    rerotate<Backend>(pairs, moved, {old}, {updated}, inv_freq);
    expect_close(moved, fresh, pairs, 32, 5, 1047);
  }
}

TYPED_TEST(Rerotate, MovedKeysAreThoseOfAFreshPrefillAtTheNewPosition) {
  auto random = printed_random(97);
  expect_as_fresh<TypeParam, float>(random);
  expect_as_fresh<TypeParam, md::half>(random);
  expect_as_fresh<TypeParam, md::bfloat16>(random);
}

TYPED_TEST(Rerotate, AfterCompactAndPositionsTheCacheIsThatOfTheSurvivorsAlone) {
  auto random = printed_random(98);
  auto const inv_freq = frequencies(10000, 16);
  Numbers const old{10, 11, 12, 13, 14, 15, 16, 17};
  std::vector<std::int32_t> indices{0, 3, 4, 7}, count{4}, positions(old.begin(), old.end()), original(8), renumbered(8);
  md::keep_lists<std::int32_t> const keep{md::view(indices.data(), 1, 4), md::view(count.data(), 1)};
  auto const raw = random_keys<float>(random, 2, 8, 16);
  auto keys = freshly_rotated<float>(raw, rope_pairs::half_split, old, inv_freq);

  TypeParam const on{};
  md::kv_cache cache;
  cache.data = keys.data.data(), cache.heads = 2, cache.head_stride = 8 * 16 * 4, cache.slot_stride = cache.slot_bytes = 16 * 4;
  ASSERT_EQ(md::compact(on, md::view(static_cast<md::kv_cache const*>(&cache), 1), {}, keep), md::status::ok);
  ASSERT_EQ(md::gather(on, md::view(positions.data(), 8), {}, keep, md::view(original.data(), 8), {}), md::status::ok);
  ASSERT_EQ(
      md::positions(on, md::position_policy::renumbered, md::view(positions.data(), 8), {}, keep, md::view(renumbered.data(), 8), {}, {}),
      md::status::ok);
  EXPECT_EQ((Numbers{renumbered.begin(), renumbered.begin() + 4}), (Numbers{10, 11, 12, 13}));
  std::int32_t const offsets[] = {0, 8};
  ASSERT_EQ(md::rerotate(on, rope_pairs::half_split, keys.view(), {1, offsets, count.data(), 0}, md::view(original.data(), 8),
                         md::view(renumbered.data(), 8), md::view(inv_freq.data(), 8)),
            md::status::ok);

  key_cache<float> survivors{2, 8, 16, Floats(raw.data.size())};
  for (std::size_t h = 0; h < 2; ++h) {
    for (std::size_t i = 0; i < 4; ++i) {
      auto const from = raw.data.begin() + static_cast<std::ptrdiff_t>((h * 8 + static_cast<std::size_t>(indices[i])) * 16);
      std::copy(from, from + 16, &survivors.at(h, i, 0));
    }
  }
  auto fresh = freshly_rotated<float>(survivors, rope_pairs::half_split, old, inv_freq);  // positions 10, 11, 12, 13, …
  expect_close(keys, fresh, rope_pairs::half_split, 8, 4, 4);
}

/// Each frequency turned on its own by the axis that the test names: what a call with axis_of must give, bit for bit.
template <class Backend>
key_cache<float> turned_one_by_one(key_cache<float> keys, rope_pairs pairs, Axes const& old, Axes const& updated, Floats const& inv_freq,
                                   std::vector<std::int32_t> const& axis_of) {
  auto const before = keys;
  for (std::size_t axis = 0; axis < old.size(); ++axis) {
    auto all = before;
    rerotate<Backend>(pairs, all, {old[axis]}, {updated[axis]}, inv_freq);
    for (std::size_t row = 0; row < keys.heads * keys.slots; ++row) {
      for (std::size_t f = 0; f < inv_freq.size(); ++f) {
        if (axis_of[f] != static_cast<std::int32_t>(axis)) { continue; }
        auto const [first, second] = dims_of(pairs, f, inv_freq.size());
        for (std::size_t const d : {first, second}) { keys.data[row * keys.dim + d] = all.data[row * keys.dim + d]; }
      }
    }
  }
  return keys;
}

TYPED_TEST(Rerotate, MropeTurnsEachSectionByItsAxis) {
  auto random = printed_random(99);
  std::vector<std::int32_t> blocks, interleaved;
  for (int f = 0; f < 64; ++f) {
    blocks.push_back(f < 16 ? 0 : f < 40 ? 1 : 2);           // Qwen2-VL: sections 16, 24, 24
    interleaved.push_back(f % 3 > 0 && f < 60 ? f % 3 : 0);  // Qwen3-VL: t h w t h w …, the last ones t
  }
  auto const inv_freq = frequencies(1e6, 128);
  Axes const old{{3, 3, 3, 9}, {3, 4, 5, 9}, {5, 6, 7, 9}}, updated{{3, 3, 2, 9}, {3, 5, 5, 9}, {4, 6, 900, 9}};
  for (auto const& axis_of : {blocks, interleaved}) {
    for (auto const pairs : both_pairs) {
      auto keys = random_keys<float>(random, 2, 4, 128);
      auto const before = keys;
      rerotate<TypeParam>(pairs, keys, old, updated, inv_freq, axis_of);
      EXPECT_TRUE(same_bytes(keys.data, turned_one_by_one<TypeParam>(before, pairs, old, updated, inv_freq, axis_of).data));
      // Slot 1 moves on h only: what t and w turn keeps its bytes.
      for (std::size_t f = 0; f < 64; ++f) {
        for (std::size_t const d : {dims_of(pairs, f, 64).first, dims_of(pairs, f, 64).second}) {
          EXPECT_EQ(keys.data[128 + d] == before.data[128 + d], axis_of[f] != 1) << "frequency " << f;
        }
      }
    }
  }
}

TYPED_TEST(Rerotate, MropeOfOneAxisForAllIsPlainRope) {
  auto random = printed_random(100);
  auto const inv_freq = frequencies(10000, 8);
  auto plain = random_keys<float>(random, 1, 2, 8), on_axis_two = plain, without = plain;
  rerotate<TypeParam>(rope_pairs::half_split, plain, {{4, 5}}, {{7, 1}}, inv_freq);
  rerotate<TypeParam>(rope_pairs::half_split, on_axis_two, {{0, 0}, {0, 0}, {4, 5}}, {{9, 9}, {9, 9}, {7, 1}}, inv_freq, {2, 2, 2, 2});
  rerotate<TypeParam>(rope_pairs::half_split, without, {{4, 5}, {0, 0}, {0, 0}}, {{7, 1}, {9, 9}, {9, 9}}, inv_freq);  // axis 0
  EXPECT_TRUE(same_bytes(on_axis_two.data, plain.data));
  EXPECT_TRUE(same_bytes(without.data, plain.data));
}

TYPED_TEST(Rerotate, Int64PositionsSayTheSameAndMayBeFarFromZero) {
  auto random = printed_random(101);
  auto const inv_freq = frequencies(10000, 8);
  auto near = random_keys<float>(random, 1, 1, 8), far = near;
  rerotate<TypeParam>(rope_pairs::half_split, near, {{4}}, {{7}}, inv_freq);
  std::int64_t const old = (std::int64_t{1} << 40) + 4, updated = (std::int64_t{1} << 40) + 7;
  ASSERT_EQ(md::rerotate(TypeParam{}, rope_pairs::half_split, far.view(), {}, md::view(&old, 1), md::view(&updated, 1),
                         md::view(inv_freq.data(), 4)),
            md::status::ok);
  EXPECT_TRUE(same_bytes(near.data, far.data));
}

TYPED_TEST(Rerotate, HeadsAndSlotsMayLieInAnyOrderWithPaddingAtAnyAddress) {
  auto random = printed_random(102);
  for (std::size_t const dim : {3u, 17u, 32u, 33u, 64u}) {
    auto const inv_freq = frequencies(10000, dim / 2 * 2);
    auto dense = random_keys<md::half>(random, 2, 3, dim);
    std::size_t const row = dim + 3;
    std::vector<md::half> memory(1 + 6 * row, md::half{0x7e00}), want;  // [slot][head][dim + 3], NaN between
    md::tensor_view<md::half, 3> const keys{
        memory.data() + 1, {2, 3, static_cast<md::index_t>(dim)}, {static_cast<md::index_t>(row), static_cast<md::index_t>(2 * row), 1}};
    auto const copy_rows = [&](std::vector<md::half>& to) {
      for (std::size_t h = 0; h < 2; ++h) {
        for (std::size_t i = 0; i < 3; ++i) { std::copy_n(&dense.at(h, i, 0), dim, to.data() + 1 + (2 * i + h) * row); }
      }
    };
    want = memory;
    copy_rows(memory);
    std::vector<std::int32_t> const old{1, 2, 3}, updated{1, 20, 300};
    ASSERT_EQ(md::rerotate(TypeParam{}, rope_pairs::interleaved, keys, {}, md::view(old.data(), 3), md::view(updated.data(), 3),
                           md::view(inv_freq.data(), inv_freq.size())),
              md::status::ok);
    rerotate<TypeParam>(rope_pairs::interleaved, dense, {{1, 2, 3}}, {{1, 20, 300}}, inv_freq);
    copy_rows(want);
    EXPECT_TRUE(same_bytes(memory, want)) << "dim " << dim;
  }
}

/// A call that is right, to be made wrong in one place at a time.
struct rotation_arguments {
  float memory[24], angles[4] = {1, 1, 1, 1};
  std::int32_t before[9] = {0, 1, 2, 0, 1, 2, 0, 1, 2}, after[9] = {5, 6, 7, 5, 6, 7, 5, 6, 7}, axis[4] = {}, offset[2] = {0, 3};
  md::tensor_view<float, 3> keys = md::view(memory, 2, 3, 4);
  md::tensor_view<std::int32_t, 2> old = md::view(before, 3, 3), updated = md::view(after, 3, 3);
  md::tensor_view<float, 1> inv_freq = md::view(angles, 2);
  md::tensor_view<std::int32_t const, 1> axis_of = md::view(static_cast<std::int32_t const*>(axis), 2);
  md::segments segments{1, offset, nullptr, 0};
};

template <class Backend, class Change>
md::status answer(Change const& change) {
  rotation_arguments a;
  std::fill(std::begin(a.memory), std::end(a.memory), 1.f);
  change(a);
  auto const got = md::rerotate(Backend{}, rope_pairs::half_split, a.keys, a.segments, a.old, a.updated, a.inv_freq, a.axis_of);
  for (float const key : a.memory) { EXPECT_TRUE(got == md::status::ok || key == 1); }
  return got;
}

TYPED_TEST(Rerotate, BadShapesAreRefusedAndNothingWritten) {
  using arguments = rotation_arguments;
  EXPECT_EQ(answer<TypeParam>([](arguments&) {}), md::status::ok);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.axis_of = {}; }), md::status::ok);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.segments.count = -1; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.segments = {2, nullptr, nullptr, 0}; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.keys.sizes[0] = -1; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.keys.data = nullptr; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.inv_freq.sizes[0] = 3, a.axis_of.sizes[0] = 3; }), md::status::bad_shape);  // 6 > dim
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.inv_freq.data = nullptr; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.old.sizes[1] = 2; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.updated.sizes[1] = 2; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.updated.sizes[0] = 2; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.old.sizes[0] = 0, a.updated.sizes[0] = 0; }), md::status::bad_shape);  // no axis
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.old.data = nullptr; }), md::status::bad_shape);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.axis_of.sizes[0] = 1; }), md::status::bad_shape);
}

TYPED_TEST(Rerotate, BadStridesAreRefusedAndNothingWritten) {
  using arguments = rotation_arguments;
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.keys.strides[2] = 2; }), md::status::bad_stride);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.old.strides[1] = 2; }), md::status::bad_stride);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.updated.strides[1] = 2; }), md::status::bad_stride);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.inv_freq.strides[0] = 2; }), md::status::bad_stride);
  EXPECT_EQ(answer<TypeParam>([](arguments& a) { a.axis_of.strides[0] = 2; }), md::status::bad_stride);
}

}  // namespace
