// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <limits>
#include <numeric>
#include <type_traits>
#include <vector>

#include "memory.hpp"

namespace {

using floats = std::vector<float>;

constexpr float largest = std::numeric_limits<float>::max(), tiniest = std::numeric_limits<float>::denorm_min();

/// Calls visit(x) for every stride-th of all 2^32 floats, NaN and infinities among them. A prime stride meets every exponent.
template <class Visit>
void for_floats(std::uint32_t stride, Visit const& visit) {
  for (std::uint64_t bits = 0; bits < std::uint64_t{1} << 32; bits += stride) {
    visit(md::float_from_bits(static_cast<std::uint32_t>(bits)));
  }
}

float next(float x) { return std::nextafter(x, inf); }
float previous(float x) { return std::nextafter(x, -inf); }

// --- half and bfloat16 ---

/// An IEEE 754 interchange format as its definition says, in double, which holds every value of it exactly.
struct binary_format {
  int exponent_bits, fraction_bits;

  int bias() const { return (1 << (exponent_bits - 1)) - 1; }
  double value(unsigned bits) const {
    int const exponent = static_cast<int>(bits >> fraction_bits) & ((1 << exponent_bits) - 1);
    int const fraction = static_cast<int>(bits) & ((1 << fraction_bits) - 1);
    double const sign = bits >> (exponent_bits + fraction_bits) ? -1 : 1;
    if (exponent == (1 << exponent_bits) - 1) { return fraction == 0 ? sign * HUGE_VAL : std::nan(""); }
    if (exponent == 0) { return sign * std::ldexp(fraction, 1 - bias() - fraction_bits); }
    return sign * std::ldexp((1 << fraction_bits) + fraction, exponent - bias() - fraction_bits);
  }
  /// The nearest value, ties to even: a whole number of the spacing that values have there.
  double nearest(double x) const {
    if (x == 0 || !std::isfinite(x)) { return x; }
    int const exponent = std::max(std::ilogb(x), 1 - bias());
    double const spacing = std::ldexp(1, exponent - fraction_bits), rounded = std::nearbyint(x / spacing) * spacing;
    return std::fabs(rounded) >= std::ldexp(1, bias() + 1) ? std::copysign(HUGE_VAL, x) : rounded;
  }
};

template <class T>
struct format_of;
template <>
struct format_of<md::half> {
  static constexpr binary_format format{5, 10};
};
template <>
struct format_of<md::bfloat16> {
  static constexpr binary_format format{8, 7};
};

template <class T>
struct Storage : testing::Test {
  static constexpr binary_format format = format_of<T>::format;
  static T of(unsigned bits) { return {static_cast<std::uint16_t>(bits)}; }
  static unsigned infinity() { return ((1u << format.exponent_bits) - 1) << format.fraction_bits; }
};
using storage_types = testing::Types<md::half, md::bfloat16>;
TYPED_TEST_SUITE(Storage, storage_types);

TYPED_TEST(Storage, IsTwoBytes) {
  EXPECT_EQ(sizeof(TypeParam), 2u);
  EXPECT_EQ(alignof(TypeParam), 2u);
  EXPECT_TRUE(std::is_trivially_copyable_v<TypeParam>);
  EXPECT_TRUE(md::is_real_v<TypeParam>);
  EXPECT_FALSE(md::is_real_v<double>);
}

TYPED_TEST(Storage, WidensEachOfAllValuesExactly) {
  int nans = 0;
  for (unsigned bits = 0; bits < 0x10000; ++bits) {
    float const wide = md::widen(TestFixture::of(bits));
    double const value = TestFixture::format.value(bits);
    if (std::isnan(value)) {
      EXPECT_TRUE(md::is_nan(wide)) << bits;
      ++nans;
    } else {
      EXPECT_EQ(static_cast<double>(wide), value) << bits;
    }
    EXPECT_EQ(std::signbit(wide), bits >> 15 != 0) << bits;
  }
  EXPECT_EQ(nans, 2 * ((1 << TestFixture::format.fraction_bits) - 1));
}

TYPED_TEST(Storage, NarrowsWhatItWidenedToTheSameBits) {
  for (unsigned bits = 0; bits < 0x10000; ++bits) {
    bool const nan = (bits & 0x7fffu) > TestFixture::infinity();
    unsigned const quiet = nan ? 1u << (TestFixture::format.fraction_bits - 1) : 0u;  // a NaN comes back quiet, payload and all
    EXPECT_EQ(md::narrow<TypeParam>(md::widen(TestFixture::of(bits))).bits, bits | quiet) << bits;
  }
}

// Both signs, subnormals, the step from the largest finite value to infinity.
TYPED_TEST(Storage, RoundsEveryMidpointToEvenAndItsNeighboursToTheNearest) {
  for (unsigned bits = 0; bits < TestFixture::infinity(); ++bits) {
    double const above = bits + 1 < TestFixture::infinity() ? TestFixture::format.value(bits + 1)
                                                            : std::ldexp(1, TestFixture::format.bias() + 1);  // were there one more
    auto const middle = static_cast<float>((TestFixture::format.value(bits) + above) / 2);
    unsigned const even = bits % 2 == 0 ? bits : bits + 1;
    EXPECT_EQ(md::narrow<TypeParam>(middle).bits, even) << bits;
    EXPECT_EQ(md::narrow<TypeParam>(previous(middle)).bits, bits) << bits;
    EXPECT_EQ(md::narrow<TypeParam>(next(middle)).bits, bits + 1) << bits;
    EXPECT_EQ(md::narrow<TypeParam>(-middle).bits, even | 0x8000u) << bits;
    EXPECT_EQ(md::narrow<TypeParam>(-previous(middle)).bits, bits | 0x8000u) << bits;
    EXPECT_EQ(md::narrow<TypeParam>(-next(middle)).bits, (bits + 1) | 0x8000u) << bits;
  }
}

TYPED_TEST(Storage, RoundsAFloatOfAnyKindOnce) {
  for_floats(4099, [](float x) {
    TypeParam const narrow = md::narrow<TypeParam>(x);
    double const value = TestFixture::format.value(narrow.bits), nearest = TestFixture::format.nearest(static_cast<double>(x));
    EXPECT_TRUE(value == nearest || (std::isnan(value) && std::isnan(nearest))) << x << " became " << value;
    EXPECT_EQ(narrow.bits >> 15 != 0, std::signbit(x)) << x;
  });
}

TYPED_TEST(Storage, LimitsAreWhereTheyShouldBe) {
  auto const narrow = [](float x) { return unsigned{md::narrow<TypeParam>(x).bits}; };
  unsigned const infinity = TestFixture::infinity();
  EXPECT_EQ(narrow(inf), infinity);
  EXPECT_EQ(narrow(-inf), infinity | 0x8000u);
  EXPECT_EQ(narrow(largest), infinity);
  EXPECT_EQ(narrow(-largest), infinity | 0x8000u);
  EXPECT_EQ(narrow(0.0f), 0u);
  EXPECT_EQ(narrow(-0.0f), 0x8000u);
  EXPECT_EQ(narrow(tiniest), 0u);
  EXPECT_EQ(narrow(-tiniest), 0x8000u);
  for (std::uint32_t const bits : {0x7f800001u, 0x7fc00000u, 0x7fffffffu, 0xff800001u, 0xffffffffu}) {  // all payloads are NaN still
    EXPECT_TRUE(md::is_nan(md::widen(md::narrow<TypeParam>(md::float_from_bits(bits))))) << bits;
  }
}

TEST(Half, HasItsWellKnownNumbers) {
  EXPECT_EQ(md::narrow<md::half>(1).bits, 0x3c00);
  EXPECT_EQ(md::narrow<md::half>(-2).bits, 0xc000);
  EXPECT_EQ(md::widen(md::half{0x7bff}), 65504);
  EXPECT_EQ(md::narrow<md::half>(65519.996f).bits, 0x7bff);
  EXPECT_EQ(md::narrow<md::half>(65520).bits, 0x7c00);
  EXPECT_EQ(md::widen(md::half{0x0001}), 0x1p-24f);
}

TEST(Bfloat16, IsTheUpperHalfOfAFloat) {
  EXPECT_EQ(md::narrow<md::bfloat16>(1).bits, 0x3f80);
  EXPECT_EQ(md::bits_of(md::widen(md::bfloat16{0x1234})), 0x12340000u);
}

TEST(Float, IsNotRoundedAtAll) {
  for_floats(65537, [](float x) { EXPECT_EQ(md::bits_of(md::narrow<float>(md::widen(x))), md::bits_of(x)); });
}

// --- fma, divide, square_root ---

/// a·b + c rounded once, without an fma: the product is exact in double; the sum is rounded to odd there (its error is known exactly, Knuth),
/// which a second rounding to at most 51 bits cannot spoil (Boldo and Melquiond).
float fma_in_double(float a, float b, float c) {
  double const p = static_cast<double>(a) * static_cast<double>(b), z = static_cast<double>(c);
  double sum = p + z;
  double const part = sum - p, error = (p - (sum - part)) + (z - part);
  std::uint64_t bits;
  std::memcpy(&bits, &sum, sizeof bits);
  if (error != 0 && bits % 2 == 0) { sum = std::nextafter(sum, error > 0 ? HUGE_VAL : -HUGE_VAL); }
  return static_cast<float>(sum);
}

TEST(Fma, RoundsOnce) {
  EXPECT_EQ(md::fma(1 + 0x1p-12f, 1 + 0x1p-12f, -1 - 0x1p-11f), 0x1p-24f);  // 0 if the product were rounded
  EXPECT_EQ(md::fma(largest, 2, -largest), largest) << "no infinity on the way";
  EXPECT_TRUE(md::is_nan(md::fma(inf, 0, 1)));
  std::mt19937 random = printed_random(31);
  std::uniform_real_distribution<float> mantissa(1, 2);
  int twice_differs = 0;
  for (int round = 0; round < 200000; ++round) {
    auto const number = [&] {
      return std::ldexp(random() % 2 ? mantissa(random) : -mantissa(random), static_cast<int>(random() % 40) - 20);
    };
    float const a = number(), b = number(), c = number(), once = md::fma(a, b, c);
    EXPECT_EQ(md::bits_of(once), md::bits_of(fma_in_double(a, b, c))) << a << "·" << b << " + " << c;
    float const product = static_cast<float>(static_cast<double>(a) * static_cast<double>(b));
    twice_differs += product + c != once;
  }
  EXPECT_GT(twice_differs, 1000) << "the inputs must tell one rounding from two";
}

// A quotient or root of floats, rounded to double first, rounds to the same float: 53 ≥ 2·24 + 2 (Figueroa). Holds where the result is normal.
TEST(DivideAndSquareRoot, AreCorrectlyRounded) {
  std::mt19937 random = printed_random(32);
  for_floats(9973, [&](float x) {
    EXPECT_TRUE(same(md::square_root(x), static_cast<float>(std::sqrt(static_cast<double>(x))))) << x;
    float const y = md::float_from_bits(static_cast<std::uint32_t>(random()));
    auto const quotient = static_cast<float>(static_cast<double>(x) / static_cast<double>(y));
    if (std::isnormal(quotient)) { EXPECT_EQ(md::divide(x, y), quotient) << x << " / " << y; }
  });
  EXPECT_EQ(md::divide(1, 0), inf);
  EXPECT_EQ(md::divide(-1, 0), -inf);
  EXPECT_TRUE(md::is_nan(md::divide(0, 0)));
  EXPECT_EQ(md::divide(1, inf), 0);
  EXPECT_TRUE(md::is_nan(md::square_root(-1)));
  EXPECT_TRUE(same(md::square_root(-0.0f), -0.0f));
  EXPECT_EQ(md::square_root(inf), inf);
}

// --- the sum over 32 lanes ---

/// What lane j holds after folds down to 16, 8, … `width` lanes: its definition, read as a recursion.
float folded(std::vector<float> const& lanes, std::size_t j, std::size_t width) {
  return width == 32 ? lanes[j] : folded(lanes, j, 2 * width) + folded(lanes, j + width, 2 * width);
}

/// Lane by lane, not element by element: lane j sums elements j, j + 32, j + 64, …
template <class Add>
float by_lanes(std::size_t n, Add const& add) {
  std::vector<float> lanes(32, 0.0f);
  for (std::size_t j = 0; j < 32; ++j) {
    for (std::size_t i = j; i < n; i += 32) { lanes[j] = add(lanes[j], i); }
  }
  return folded(lanes, 0, 1);
}

floats random_floats(std::mt19937& random, std::size_t n) {
  std::uniform_real_distribution<float> value(-1, 1);
  floats x(n);
  for (float& one : x) { one = std::ldexp(value(random), static_cast<int>(random() % 24)); }  // so that the order of additions shows
  return x;
}

float sum_of(floats const& x) {
  md::lane_sum sum;
  for (std::size_t i = 0; i < x.size(); ++i) { sum.add(static_cast<md::index_t>(i), x[i]); }
  return sum.total();
}

TEST(LaneSum, IsItsDefinitionForEverySize) {
  std::mt19937 random = printed_random(33);
  int order_shows = 0;
  for (int round = 0; round < 20; ++round) {
    for (std::size_t n = 0; n <= 130; ++n) {
      floats const a = random_floats(random, n), b = random_floats(random, n);
      float const sum = sum_of(a);
      EXPECT_EQ(md::bits_of(sum), md::bits_of(by_lanes(n, [&](float lane, std::size_t i) { return lane + a[i]; }))) << n;
      order_shows += sum != std::accumulate(a.begin(), a.end(), 0.0f);

      md::lane_sum products;
      for (std::size_t i = 0; i < n; ++i) { products.add_product(static_cast<md::index_t>(i), a[i], b[i]); }
      EXPECT_EQ(md::bits_of(products.total()),
                md::bits_of(by_lanes(n, [&](float lane, std::size_t i) { return fma_in_double(a[i], b[i], lane); })))
          << n;
    }
  }
  EXPECT_GT(order_shows, 1000) << "the inputs must tell lanes from one sum";
}

// 2^24 swallows a 1 that is added to it and keeps a 2.
TEST(LaneSum, ElementsOfOneLaneMeetFirstThenLanesSixteenApart) {
  floats x(64, 0.0f);
  x[0] = 0x1p24f, x[32] = 1, x[1] = 1;  // the lane loses its 1, then loses lane 1 as well
  EXPECT_EQ(sum_of(x), 0x1p24f);
  x[32] = 0, x[17] = 1;  // lanes 1 and 17 meet before lane 0 sees them
  EXPECT_EQ(sum_of(x), 0x1p24f + 2);
  x[17] = 0, x[2] = 1;  // lane 2 reaches lane 0 with the second last fold, lane 1 with the last
  EXPECT_EQ(sum_of(x), 0x1p24f);
  x[2] = 0, x[33] = 1;
  EXPECT_EQ(sum_of(x), 0x1p24f + 2);
}

TEST(LaneSum, OfNothingIsZeroAndOfOneIsThat) {
  EXPECT_TRUE(same(sum_of({}), 0.0f));
  EXPECT_EQ(sum_of({-3}), -3);
  EXPECT_TRUE(md::is_nan(sum_of({1, quiet_nan, 2})));
  EXPECT_TRUE(md::is_nan(sum_of({inf, 1, -inf})));
  EXPECT_EQ(sum_of({1, inf}), inf);
}

TEST(LaneSum, IndicesBeyondThirtyTwoBitsHaveLanesToo) {
  md::lane_sum sum;
  sum.add((md::index_t{1} << 40) + 5, 1);
  sum.add_product((md::index_t{1} << 40) + 6, 2, 3);
  EXPECT_EQ(sum.lane[5], 1);
  EXPECT_EQ(sum.lane[6], 6);
  EXPECT_EQ(sum.total(), 7);
}

TEST(LaneSum, TotalLeavesTheLanesAlone) {
  md::lane_sum sum;
  for (md::index_t i = 0; i < 40; ++i) { sum.add(i, static_cast<float>(i)); }
  EXPECT_EQ(sum.total(), 780);
  EXPECT_EQ(sum.total(), 780);
  sum.add(40, 20);
  EXPECT_EQ(sum.total(), 800);
}

// --- chains ---

TEST(ChainDot, IsOneChainInOrder) {
  std::mt19937 random = printed_random(34);
  int lanes_differ = 0;
  for (std::size_t n = 0; n <= 130; ++n) {
    floats const a = random_floats(random, n), b = random_floats(random, n);
    float chain = 0;
    md::lane_sum lanes;
    for (std::size_t i = 0; i < n; ++i) {
      chain = fma_in_double(a[i], b[i], chain);
      lanes.add_product(static_cast<md::index_t>(i), a[i], b[i]);
    }
    float const dot = md::chain_dot(a.data(), b.data(), static_cast<md::index_t>(n));
    EXPECT_EQ(md::bits_of(dot), md::bits_of(chain)) << n;
    lanes_differ += lanes.total() != chain;
  }
  EXPECT_GT(lanes_differ, 50);
}

TEST(ChainDot, TakesAnyPairOfTypes) {
  // Quarters below 16: exact in every type, and so is every sum.
  std::mt19937 random = printed_random(35);
  std::vector<md::half> a;
  std::vector<md::bfloat16> b;
  floats wide;
  float exact = 0, squares = 0;
  for (int i = 0; i < 50; ++i) {
    float const x = static_cast<float>(random() % 64) / 4, y = static_cast<float>(random() % 64) / 4;
    a.push_back(md::narrow<md::half>(x)), b.push_back(md::narrow<md::bfloat16>(y)), wide.push_back(x);
    exact += x * y, squares += x * x;
  }
  EXPECT_EQ(md::chain_dot(a.data(), b.data(), 50), exact);
  EXPECT_EQ(md::chain_dot(b.data(), wide.data(), 50), exact);
  EXPECT_EQ(md::chain_dot(a.data(), wide.data(), 50), squares);
  EXPECT_EQ(md::chain_dot(a.data(), a.data(), 0), 0);
}

// --- exp and tanh ---

/// How many spacings of floats at the exact result lie between it and what was computed.
double ulps(float computed, double exact) {
  int const exponent = std::max(std::ilogb(exact), -126);
  return std::fabs(static_cast<double>(computed) - exact) / std::ldexp(1, exponent - 23);
}

TEST(Exp, IsWithinOneUlp) {
  double worst = 0;
  float at = 0;
  auto const look = [&](float x) {
    double const off = ulps(md::exp(x), std::exp(static_cast<double>(x)));
    if (!(off <= worst)) { worst = off, at = x; }
  };
  auto const inside = [](float x) { return x >= -87.33f && x <= 88.7f; };
  for_floats(4099, [&](float x) {  // dense near zero …
    if (inside(x)) { look(x); }
  });
  constexpr int steps = 1000000;  // … and evenly over the range
  for (int i = 0; i <= steps; ++i) { look(-87.33f + static_cast<float>(i) * ((88.7f + 87.33f) / steps)); }
  for (int n = -252; n <= 255; ++n) {  // where the polynomial's ends meet: odd multiples of ln 2 / 2
    float x = static_cast<float>(n * 0.34657359027997264);
    for (int i = 0; i < 8; ++i) { x = previous(x); }
    for (int i = 0; i < 16; ++i, x = next(x)) {
      if (inside(x)) { look(x); }
    }
  }
  EXPECT_LE(worst, 1) << "at " << at;
  EXPECT_GT(worst, 0.5) << "nothing was measured";
}

TEST(Exp, EndsAsItSays) {
  EXPECT_EQ(md::exp(0), 1);
  EXPECT_EQ(md::exp(-0.0f), 1);
  EXPECT_EQ(md::exp(tiniest), 1);
  EXPECT_TRUE(std::isnormal(md::exp(-87.33f)));
  for (float const x : {previous(-87.33f), -88.0f, -103.0f, -1000.0f, -largest, -inf}) { EXPECT_TRUE(same(md::exp(x), 0.0f)) << x; }
  for (float const x : {88.73f, next(88.73f), 89.0f, 1000.0f, largest, inf}) { EXPECT_EQ(md::exp(x), inf) << x; }
  EXPECT_TRUE(md::is_nan(md::exp(quiet_nan)));
  EXPECT_TRUE(md::is_nan(md::exp(-quiet_nan)));
}

TEST(Exp, GrowsIntoInfinity) {
  float last = md::exp(88.7f);
  int finite = 0;
  for (float x = 88.7f; x < 88.75f; x = next(x)) {  // some 6,500 floats
    float const y = md::exp(x);
    EXPECT_GE(y, last) << x;
    if (std::isfinite(y)) {
      EXPECT_LE(ulps(y, std::exp(static_cast<double>(x))), 1) << x;
      ++finite;
    } else {
      EXPECT_GT(std::exp(static_cast<double>(x)), 0x1.fffffcp127) << x << " is infinite too early";
    }
    last = y;
  }
  EXPECT_EQ(last, inf);
  EXPECT_GT(finite, 1000);
}

TEST(Tanh, IsWithinItsStatedError) {
  double worst = 0;
  float at = 0;
  auto const look = [&](float x) {
    double const off = std::fabs(static_cast<double>(md::tanh(x)) - std::tanh(static_cast<double>(x)));
    if (!(off <= worst)) { worst = off, at = x; }
  };
  for_floats(8191, [&](float x) {
    if (!md::is_nan(x)) { look(x); }
  });
  for (int i = -500000; i <= 500000; ++i) { look(static_cast<float>(i) * 4e-5f); }
  EXPECT_LE(worst, 1e-7) << "at " << at;
  EXPECT_GT(worst, 1e-9) << "nothing was measured";
}

TEST(Tanh, IsOddAndBounded) {
  for_floats(65537, [](float x) {
    EXPECT_TRUE(same(md::tanh(-x), -md::tanh(x))) << x;
    EXPECT_TRUE(md::is_nan(x) || std::fabs(md::tanh(x)) <= 1) << x;
  });
  EXPECT_TRUE(same(md::tanh(0), 0.0f));
  EXPECT_TRUE(same(md::tanh(-0.0f), -0.0f));
  EXPECT_EQ(md::tanh(inf), 1);
  EXPECT_EQ(md::tanh(-inf), -1);
  EXPECT_TRUE(md::is_nan(md::tanh(quiet_nan)));
}

// --- sine and cosine ---

/// The larger of both errors.
double off_circle(float angle) {
  auto const got = md::sin_cos(angle);
  auto const exact = static_cast<double>(angle);
  return std::max(std::fabs(static_cast<double>(got.sine) - std::sin(exact)), std::fabs(static_cast<double>(got.cosine) - std::cos(exact)));
}

struct worst_angle {
  float from, to;  // of |angle|
  double off = 0;
  float at = 0;

  void look(float angle) {
    if (!(std::fabs(angle) >= from && std::fabs(angle) <= to)) { return; }
    double const here = off_circle(angle);
    if (!(here <= off)) { off = here, at = angle; }
  }
  void look_all_over() {
    for_floats(4099, [&](float x) { look(x); });
    for (int i = 0; i <= 500000; ++i) { look(from + (to - from) * (static_cast<float>(i) / 500000)); }
    int const first = static_cast<int>(static_cast<double>(from) / 0.785398163397448),
              last = static_cast<int>(static_cast<double>(to) / 0.785398163397448);
    for (int n = first; n <= last; n += 1 + (last - first) / 400000) {  // beside multiples of π/4: zeros, extremes, changes of quadrant
      auto const x = static_cast<float>(n * 0.785398163397448);
      look(previous(x)), look(x), look(next(x));
    }
  }
};

TEST(SinCos, AreWithinTheirStatedErrorUpToTwoToTheTwenty) {
  worst_angle worst{0, 0x1p20f};
  worst.look_all_over();
  EXPECT_LE(worst.off, 1.3e-7) << "at " << worst.at;
  EXPECT_GT(worst.off, 1e-8) << "nothing was measured";
}

TEST(SinCos, AreWithinTheirStatedErrorUpToTwoToTheTwentyTwo) {
  worst_angle worst{0x1p20f, 0x1p22f};
  worst.look_all_over();
  EXPECT_LE(worst.off, 4e-6) << "at " << worst.at;
}

TEST(SinCos, OfZeroAreExact) {
  EXPECT_EQ(md::sin_cos(0).sine, 0);
  EXPECT_EQ(md::sin_cos(0).cosine, 1);
  EXPECT_EQ(md::sin_cos(tiniest).sine, tiniest);
}

TEST(SinCos, AreOddAndEven) {
  for (int i = 0; i < 100000; ++i) {
    float const angle = static_cast<float>(i) * 0.37f;
    EXPECT_EQ(md::sin_cos(-angle).sine, -md::sin_cos(angle).sine) << angle;
    EXPECT_EQ(md::sin_cos(-angle).cosine, md::sin_cos(angle).cosine) << angle;
  }
}

TEST(SinCos, BeyondTheirRangeAreNan) {
  for (float const sign : {1.0f, -1.0f}) {
    EXPECT_FALSE(md::is_nan(md::sin_cos(sign * 0x1p22f).sine));
    EXPECT_FALSE(md::is_nan(md::sin_cos(sign * 0x1p22f).cosine));
    for (float const angle : {next(0x1p22f), 1e30f, largest, inf, quiet_nan}) {
      EXPECT_TRUE(md::is_nan(md::sin_cos(sign * angle).sine)) << angle;
      EXPECT_TRUE(md::is_nan(md::sin_cos(sign * angle).cosine)) << angle;
    }
  }
}

// --- the order of scores ---

/// The sentence: NaN below every number, −0 = +0, otherwise as numbers are.
bool ranks_below(float a, float b) { return md::is_nan(a) ? !md::is_nan(b) : a < b; }

TEST(ScoreOrder, IsTheOrderOfNumbersWithNanBelow) {
  floats some{-inf,
              -largest,
              -1,
              -tiniest,
              -0.0f,
              0.0f,
              tiniest,
              1,
              largest,
              inf,
              quiet_nan,
              -quiet_nan,
              md::float_from_bits(0x7f800001u),
              md::float_from_bits(0xffffffffu),
              next(1),
              previous(1),
              next(-1),
              previous(-1)};
  std::mt19937 random = printed_random(36);
  for (int i = 0; i < 400; ++i) { some.push_back(md::float_from_bits(static_cast<std::uint32_t>(random()))); }
  for (float const a : some) {
    for (float const b : some) { EXPECT_EQ(md::score_order(a) < md::score_order(b), ranks_below(a, b)) << a << ", " << b; }
  }
}

TEST(ScoreOrder, GrowsFromEachFloatToTheNext) {
  std::uint32_t last = md::score_order(quiet_nan);
  EXPECT_EQ(last, 0u);
  auto const grows = [&last](float x) {
    std::uint32_t const order = md::score_order(x);
    EXPECT_GT(order, last) << x;
    last = order;
  };
  grows(-inf);
  for (std::uint32_t bits = 0x7f7fffff; bits > 0x1000; bits -= 997) { grows(-md::float_from_bits(bits)); }
  grows(-tiniest);
  grows(-0.0f);
  EXPECT_EQ(md::score_order(0.0f), last);
  for (std::uint32_t bits = 1; bits < 0x7f800000; bits += 997) { grows(md::float_from_bits(bits)); }
  grows(inf);
}

TEST(ScoreKey, SortsAsTheSentenceSays) {
  std::mt19937 random = printed_random(37);
  constexpr float few[] = {quiet_nan, -quiet_nan, -inf, -1, -0.0f, 0.0f, tiniest, 1, inf};  // many ties
  floats scores;
  for (int i = 0; i < 2000; ++i) {
    scores.push_back(random() % 2 ? few[random() % std::size(few)] : md::float_from_bits(static_cast<std::uint32_t>(random())));
  }
  std::vector<md::index_t> by_sentence(scores.size());
  std::iota(by_sentence.begin(), by_sentence.end(), 0);
  auto by_key = by_sentence;
  auto const score = [&](md::index_t i) { return scores[static_cast<std::size_t>(i)]; };
  // Best first, and what is equal stays in order of its index.
  std::stable_sort(by_sentence.begin(), by_sentence.end(), [&](auto a, auto b) { return ranks_below(score(b), score(a)); });
  std::shuffle(by_key.begin(), by_key.end(), random);
  std::sort(by_key.begin(), by_key.end(), [&](auto a, auto b) { return md::score_key(score(a), a) > md::score_key(score(b), b); });
  EXPECT_EQ(by_key, by_sentence);
}

TEST(ScoreKey, TellsAnyTwoTokensApart) {
  constexpr md::index_t last = md::most_tokens;
  EXPECT_GT(md::score_key(1, 0), md::score_key(1, 1));
  EXPECT_GT(md::score_key(1, 0), md::score_key(1, last));
  EXPECT_GT(md::score_key(1, last - 1), md::score_key(1, last));
  EXPECT_GT(md::score_key(next(1), last), md::score_key(1, 0)) << "the score comes before the index";
  EXPECT_GT(md::score_key(-0.0f, 3), md::score_key(0.0f, 4));
  EXPECT_GT(md::score_key(0.0f, 3), md::score_key(-0.0f, 4));
  EXPECT_GT(md::score_key(-inf, last), md::score_key(quiet_nan, 0));
  EXPECT_GT(md::score_key(quiet_nan, 0), md::score_key(-quiet_nan, 1)) << "payload and sign of a NaN rank nothing";
  EXPECT_GT(md::score_key(quiet_nan, last), 0u) << "0 is free to stand for no token";
}

}  // namespace
