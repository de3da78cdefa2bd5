// SPDX-License-Identifier: Apache-2.0
#pragma once

// What tests of files need: a folder of their own, and small files to put there.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "error.hpp"

namespace llava_test {

namespace fs = std::filesystem;

inline std::string bytes_of(fs::path const& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// `text` with its only `from` replaced.
inline std::string replaced(std::string text, std::string const& from, std::string const& to) {
  std::size_t const place = text.find(from);
  EXPECT_NE(place, std::string::npos) << from;
  EXPECT_EQ(text.find(from, place + 1), std::string::npos) << from;
  return place == std::string::npos ? text : text.replace(place, from.size(), to);
}

/// A folder that is there for one test.
class folder_test : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "llava_XXXXXX";
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { fs::remove_all(folder_); }

  void write(std::string const& name, std::string const& bytes) const {
    std::ofstream out(folder_ / name, std::ios::binary);
    out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    out.close();
    ASSERT_TRUE(out.good()) << name;
  }
  std::string path(std::string const& name) const { return (folder_ / name).string(); }
  std::string folder() const { return folder_.string(); }

  fs::path folder_;
};

/// `action` refuses its input in one line that has every one of `parts`.
template <class Action>
void expect_refused(Action&& action, std::initializer_list<std::string> parts) {
  try {
    action();
    ADD_FAILURE() << "accepted";
  } catch (llava::input_error const& why) {
    std::string const line = why.what();
    for (std::string const& part : parts) { EXPECT_NE(line.find(part), std::string::npos) << "expected: " << part << "\nline: " << line; }
    EXPECT_EQ(std::count(line.begin(), line.end(), '\n'), 0) << line;
  }
}

}  // namespace llava_test
