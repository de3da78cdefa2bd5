// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cstdint>
#include <iterator>
#include <limits>
#include <set>
#include <string>
#include <type_traits>

#include <mustdrop/status.hpp>

namespace md = mustdrop;

namespace {

#define MUSTDROP_TEST_PASTE_AS_IS(a, b, c, d) a##b##c##d
#define MUSTDROP_TEST_PASTE(a, b, c, d) MUSTDROP_TEST_PASTE_AS_IS(a, b, c, d)

// Two versions can live in one program only if the version is part of every symbol: the numbers and the namespace must agree.
TEST(Version, TheNamespaceIsOfTheVersion) {
  using named = md::MUSTDROP_TEST_PASTE(v, MUSTDROP_VERSION_MAJOR, _, MUSTDROP_VERSION_MINOR)::status;
  EXPECT_TRUE((std::is_same_v<named, md::status>));
  EXPECT_GE(MUSTDROP_VERSION_PATCH, 0);
}

constexpr md::status named[] = {md::status::ok,           md::status::bad_shape,           md::status::bad_stride,
                                md::status::bad_argument, md::status::workspace_too_small, md::status::unsupported};

TEST(Status, IsAnInt32ThatIsZeroWhenAllIsWell) {
  EXPECT_TRUE((std::is_same_v<std::underlying_type_t<md::status>, std::int32_t>));
  EXPECT_FALSE((std::is_convertible_v<md::status, bool>)) << "if (call(…)) would read an error as success";
  EXPECT_EQ(static_cast<std::int32_t>(md::status::ok), 0);
  EXPECT_EQ(md::status{}, md::status::ok);
}

TEST(Status, EveryMessageIsDistinct) {
  std::set<std::string> messages;
  for (md::status const s : named) { messages.insert(message(s)); }
  messages.insert(message(md::device_status(1)));
  messages.insert(message(static_cast<md::status>(999)));  // a number that means nothing
  EXPECT_EQ(messages.size(), std::size(named) + 2);
  EXPECT_EQ(messages.count(""), 0u);
  EXPECT_STREQ(message(md::status::ok), "ok");
}

TEST(Status, MessageOfANumberThatIsNoneIsStillAText) {
  for (std::int32_t const number : {-1, 6, 999, 1000, std::numeric_limits<std::int32_t>::min()}) {
    EXPECT_STREQ(message(static_cast<md::status>(number)), "unknown status") << number;
  }
}

TEST(Status, NamedStatusesAreNoDeviceCodes) {
  for (md::status const s : named) {
    EXPECT_FALSE(is_device_status(s)) << message(s);
    EXPECT_EQ(device_code(s), 0) << message(s);
  }
}

TEST(Status, DeviceCodesComeBackAsTheyWent) {
  EXPECT_EQ(md::device_status(0), md::status::ok);
  std::set<md::status> seen(std::begin(named), std::end(named));
  auto const survives = [](std::int32_t code) {
    md::status const s = md::device_status(code);
    return is_device_status(s) && device_code(s) == code && s != md::status::ok;
  };
  for (std::int32_t code = 1; code <= 11000; ++code) {  // cudaErrorApiFailureBase is 10000
    EXPECT_TRUE(survives(code)) << code;
    EXPECT_TRUE(seen.insert(md::device_status(code)).second) << code;
  }
  EXPECT_TRUE(survives(0x78000001));  // as large as Level Zero's
  EXPECT_TRUE(survives(std::numeric_limits<std::int32_t>::max() - 1000));
  static_assert(device_code(md::device_status(719)) == 719 && static_cast<std::int32_t>(md::device_status(719)) == 1719);
}

}  // namespace
