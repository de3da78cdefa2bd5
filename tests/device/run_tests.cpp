// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

int run_tests(int count, char** arguments) {
  testing::InitGoogleTest(&count, arguments);
  return RUN_ALL_TESTS();
}
