// SPDX-License-Identifier: Apache-2.0

// The golden program itself: what it makes of files that are no cases, of wrong values, and of folders without cases.
// GOLDEN_PROGRAM and GOLDEN_DATA are the paths of the program and of the shipped cases.

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

struct outcome {
  int status = -1;
  std::string text, last_line;
};

outcome run(std::string const& arguments) {
  std::string const command = std::string("'") + GOLDEN_PROGRAM + "' " + arguments + " 2>&1";
  outcome result;
  std::FILE* const pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) { return result; }
  char buffer[4096];
  for (std::size_t n; (n = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) { result.text.append(buffer, n); }
  int const ended = pclose(pipe);
  result.status = WIFEXITED(ended) ? WEXITSTATUS(ended) : -1;
  std::size_t const end = result.text.find_last_not_of('\n');
  std::size_t const begin = result.text.find_last_of('\n', end);
  if (end != std::string::npos) { result.last_line = result.text.substr(begin == std::string::npos ? 0 : begin + 1, end - begin); }
  return result;
}

/// The bytes of a file: the header's length, the header, the data.
std::string file_of(std::string const& header, std::string const& data) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) { bytes.push_back(static_cast<char>(std::uint64_t{header.size()} >> (8 * i) & 0xff)); }
  return bytes + header + data;
}

template <class T>
std::string bytes_of(std::vector<T> const& values) {
  std::string bytes(values.size() * sizeof(T), '\0');
  if (!values.empty()) { std::memcpy(bytes.data(), values.data(), bytes.size()); }
  return bytes;
}

std::string tensor(std::string const& name, std::string const& type, std::string const& shape, std::size_t begin, std::size_t end) {
  return "\"" + name + "\": {\"dtype\": \"" + type + "\", \"shape\": " + shape + ", \"data_offsets\": [" + std::to_string(begin) + ", " +
         std::to_string(end) + "]}";
}

std::string metadata(std::string const& op, std::string const& more = "") {
  return "\"__metadata__\": {\"op\": \"" + op + "\"" + more + "}";
}

/// A case of key_count, small and right.
std::string const count_tensors = tensor("n", "I64", "[3]", 0, 24) + ", " + tensor("k", "I64", "[3]", 24, 48);
std::string counts(std::vector<std::int64_t> const& n, std::vector<std::int64_t> const& k) { return bytes_of(n) + bytes_of(k); }
std::string good_case() {
  return file_of("{" + metadata("key_count", ", \"keep_rate\": \"0.08\"") + ", " + count_tensors + "}", counts({9, 36, 576}, {1, 3, 47}));
}
std::string key_count_with(std::string const& tensors, std::string const& data) {
  return file_of("{" + metadata("key_count") + ", " + tensors + "}", data);
}
/// Two tensors of three numbers whose data are there, with one of them described as given.
std::string described_as(std::string const& entry) {
  return key_count_with(tensor("n", "I64", "[3]", 0, 24) + ", " + entry, counts({1, 2, 3}, {1, 1, 1}));
}

/// A line for each backend, or one if the file did not reach them, which are alike but for the backend's name; then the summary.
bool says_one_thing(std::string const& text) {
  std::istringstream lines(text);
  std::set<std::string> said, backends;
  std::size_t count = 0;
  for (std::string line; std::getline(lines, line); ++count) {
    std::size_t const open = line.find(" ["), close = line.find("] ", open);
    bool const named = open != std::string::npos && close != std::string::npos;
    backends.insert(named ? line.substr(open, close - open) : "");
    said.insert(named ? line.erase(open, close - open + 1) : line);
  }
  return said.size() == 2 && (count == 2 || count == backends.size());
}

class Golden : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(testing::TempDir()) /
              ("golden_" + std::to_string(getpid()) + "_" + testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  void write(std::string const& name, std::string const& bytes) const {
    std::ofstream out(folder_ / name, std::ios::binary);
    out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    ASSERT_TRUE(out.good());
  }
  outcome run_folder() const { return run("'" + folder_.string() + "'"); }

  /// A single file that must fail, with one line that says why.
  void expect_failure(std::string const& bytes, std::string const& why) const {
    write("bad.safetensors", bytes);
    outcome const result = run_folder();
    EXPECT_EQ(result.status, 1) << result.text;
    EXPECT_EQ(result.last_line, "0 passed, 1 failed, 0 skipped") << result.text;
    EXPECT_NE(result.text.find("FAIL bad.safetensors "), std::string::npos) << result.text;
    EXPECT_NE(result.text.find(why), std::string::npos) << "expected: " << why << "\n" << result.text;
    EXPECT_TRUE(says_one_thing(result.text)) << result.text;
  }

  /// A shipped case, to be damaged.
  static std::string shipped(std::string const& name) {
    std::ifstream in(fs::path(GOLDEN_DATA) / name, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  /// The same length of another text, so that no offset changes.
  static std::string replaced(std::string bytes, std::string const& from, std::string const& to) {
    std::size_t const place = bytes.find(from);
    EXPECT_NE(place, std::string::npos) << from;
    EXPECT_EQ(from.size(), to.size());
    return place == std::string::npos ? bytes : bytes.replace(place, from.size(), to);
  }

  fs::path folder_;
};

TEST_F(Golden, ShippedCasesPass) {
  outcome const result = run(std::string("'") + GOLDEN_DATA + "'");
  int passed = 0, failed = -1, skipped = -1;
  ASSERT_EQ(std::sscanf(result.last_line.c_str(), "%d passed, %d failed, %d skipped", &passed, &failed, &skipped), 3) << result.text;
  auto const files =
      std::count_if(fs::directory_iterator(GOLDEN_DATA), {}, [](auto const& e) { return e.path().extension() == ".safetensors"; });
  EXPECT_GT(files, 0);
  EXPECT_EQ(passed, files) << result.text;
  EXPECT_EQ(failed, 0) << result.text;
  EXPECT_EQ(skipped, 0) << result.text;
  EXPECT_EQ(result.status, 0);
}

TEST_F(Golden, NoFolderFails) {
  outcome const result = run("");
  EXPECT_EQ(result.status, 1);
  EXPECT_EQ(result.last_line, "0 passed, 1 failed, 0 skipped");
}

TEST_F(Golden, EmptyFolderFails) {
  outcome const result = run_folder();
  EXPECT_EQ(result.status, 1);
  EXPECT_NE(result.text.find("holds no case file"), std::string::npos) << result.text;
  EXPECT_EQ(result.last_line, "0 passed, 1 failed, 0 skipped");
}

TEST_F(Golden, EmptyFolderBesideAGoodOneFails) {
  write("good.safetensors", good_case());
  fs::create_directories(folder_ / "empty");
  outcome const result = run("'" + folder_.string() + "' '" + (folder_ / "empty").string() + "'");
  EXPECT_EQ(result.status, 1);
  EXPECT_EQ(result.last_line, "1 passed, 1 failed, 0 skipped") << result.text;
}

TEST_F(Golden, MissingFolderFails) {
  outcome const result = run("'" + (folder_ / "absent").string() + "'");
  EXPECT_EQ(result.status, 1);
  EXPECT_NE(result.text.find("cannot be read as a folder"), std::string::npos) << result.text;
  EXPECT_EQ(result.last_line, "0 passed, 1 failed, 0 skipped");
}

TEST_F(Golden, OtherFilesAreNoCases) {
  write("good.safetensors", good_case());
  write("README.md", "not a case");
  outcome const result = run_folder();
  EXPECT_EQ(result.status, 0) << result.text;
  EXPECT_EQ(result.last_line, "1 passed, 0 failed, 0 skipped");
  fs::remove(folder_ / "good.safetensors");
  EXPECT_EQ(run_folder().last_line, "0 passed, 1 failed, 0 skipped");
}

TEST_F(Golden, FolderNamedLikeACaseFails) {
  fs::create_directories(folder_ / "bad.safetensors");
  outcome const result = run_folder();
  EXPECT_EQ(result.status, 1);
  EXPECT_NE(result.text.find("not a file that can be read"), std::string::npos) << result.text;
}

TEST_F(Golden, LaterOpIsSkippedAndNamed) {
  write("later.safetensors", file_of("{" + metadata("tome") + "}", ""));
  outcome const result = run_folder();
  EXPECT_EQ(result.status, 0) << result.text;
  EXPECT_EQ(result.last_line, "0 passed, 0 failed, 1 skipped");
  EXPECT_NE(result.text.find("SKIP tome: belongs to words not built yet: later.safetensors"), std::string::npos) << result.text;
}

TEST_F(Golden, UnknownOpFails) { expect_failure(file_of("{" + metadata("teleport") + "}", ""), "op teleport is unknown"); }
TEST_F(Golden, NoOpFails) { expect_failure(file_of("{" + count_tensors + "}", counts({1, 2, 3}, {1, 1, 1})), "names no op"); }

TEST_F(Golden, EmptyFileFails) { expect_failure("", "shorter than the length of its header"); }
TEST_F(Golden, ShortFileFails) { expect_failure("1234567", "shorter than the length of its header"); }
TEST_F(Golden, EveryTruncationFails) {
  std::string const whole = good_case();
  for (std::size_t size = 0; size < whole.size(); size += size < 16 ? 1 : 37) {
    write("bad.safetensors", whole.substr(0, size));
    outcome const result = run_folder();
    EXPECT_EQ(result.status, 1) << size;
    EXPECT_EQ(result.last_line, "0 passed, 1 failed, 0 skipped") << size << result.text;
  }
}
TEST_F(Golden, TruncatedShippedCaseFails) {
  std::string const whole = shipped("dm_plain.safetensors");
  ASSERT_GT(whole.size(), 1000u);
  expect_failure(whole.substr(0, whole.size() - 1), "is too large");
}
TEST_F(Golden, BytesBehindTheLastTensorFail) { expect_failure(good_case() + "x", "bytes behind the last tensor"); }

TEST_F(Golden, HeaderBeyondTheFileFails) {
  std::string bytes = good_case();
  for (int i = 0; i < 8; ++i) {
    std::string longer = bytes;
    longer[static_cast<std::size_t>(i)] = '\xff';
    expect_failure(longer, "the header is longer than the file");
  }
}
TEST_F(Golden, HeaderThatIsNotJsonFails) {
  for (char const* header : {"", " ", "{", "[]", "3", "null", "\"text\"", "{\"a\": }", "{\"a\": 1} {}", "\xff\xfe", "{\"\xc3\x28\": 1}"}) {
    SCOPED_TRACE(header);
    expect_failure(file_of(header, ""), "the header is not a JSON object");
  }
  std::string const deep = std::string(100000, '[') + std::string(100000, ']');
  expect_failure(file_of(deep, ""), "the header is nested too deep");
  expect_failure(file_of("{\"a\": " + deep + "}", ""), "the header is nested too deep");
}
TEST_F(Golden, MetadataThatIsNotTextFails) {
  expect_failure(file_of("{\"__metadata__\": 3}", ""), "the metadata is not an object");
  expect_failure(file_of("{\"__metadata__\": {\"op\": 3}}", ""), "metadata op is not text");
}

TEST_F(Golden, TensorWithoutAFieldFails) {
  expect_failure(described_as("\"k\": 3"), "tensor k has no dtype");
  expect_failure(described_as("\"k\": {\"shape\": [3], \"data_offsets\": [24, 48]}"), "tensor k has no dtype");
  expect_failure(described_as("\"k\": {\"dtype\": \"I64\", \"data_offsets\": [24, 48]}"), "tensor k has no shape");
  expect_failure(described_as("\"k\": {\"dtype\": \"I64\", \"shape\": [3]}"), "tensor k has no data_offsets");
}
TEST_F(Golden, TensorOfAnUnknownTypeFails) {
  expect_failure(described_as(tensor("k", "F4", "[3]", 24, 48)), "dtype that is not known");
  expect_failure(described_as("\"k\": {\"dtype\": 8, \"shape\": [3], \"data_offsets\": [24, 48]}"), "dtype that is not known");
}
TEST_F(Golden, TensorOfAnotherSizeFails) {
  expect_failure(described_as(tensor("k", "I32", "[3]", 24, 48)), "shape and data_offsets disagree");
  expect_failure(described_as(tensor("k", "I64", "[2]", 24, 48)), "shape and data_offsets disagree");
  expect_failure(described_as(tensor("k", "I64", "[3]", 48, 24)), "shape and data_offsets disagree");
  expect_failure(described_as(tensor("k", "I64", "[0]", 24, 48)), "shape and data_offsets disagree");
}
TEST_F(Golden, OffsetsBeyondTheEndFail) {
  expect_failure(described_as(tensor("k", "I64", "[3]", 32, 56)), "its end is too large");
  expect_failure(described_as(tensor("k", "I64", "[3]", 1u << 30, (1u << 30) + 24)), "its begin is too large");
  expect_failure(described_as("\"k\": {\"dtype\": \"I64\", \"shape\": [3], \"data_offsets\": [24, 18446744073709551615]}"), "too large");
  expect_failure(described_as("\"k\": {\"dtype\": \"I64\", \"shape\": [3], \"data_offsets\": [24, 28446744073709551615]}"), "whole number");
  expect_failure(described_as("\"k\": {\"dtype\": \"I64\", \"shape\": [3], \"data_offsets\": [-24, 0]}"), "whole number");
  expect_failure(described_as("\"k\": {\"dtype\": \"I64\", \"shape\": [3], \"data_offsets\": [24]}"), "no two data_offsets");
}
TEST_F(Golden, ShapesThatAreNegativeOrOverflowFail) {
  expect_failure(described_as(tensor("k", "I64", "[-3]", 24, 48)), "an axis is not a whole number");
  expect_failure(described_as(tensor("k", "I64", "[3.0]", 24, 48)), "an axis is not a whole number");
  expect_failure(described_as(tensor("k", "I64", "[3, \"1\"]", 24, 48)), "an axis is not a whole number");
  expect_failure(described_as(tensor("k", "I64", "[18446744073709551615]", 24, 48)), "an axis is too large");
  expect_failure(described_as(tensor("k", "I64", "[4294967296, 4294967296]", 24, 48)), "an axis is too large");
  expect_failure(described_as(tensor("k", "I64", "[0, 9223372036854775807]", 24, 24)), "an axis is too large");
  expect_failure(described_as(tensor("k", "I64", "[64, 64, 64, 64, 64, 64, 64, 64]", 24, 48)), "is larger than the file");
  expect_failure(described_as(tensor("k", "I64", "[1, 1, 1, 1, 1, 1, 1, 1, 3]", 24, 48)), "no shape of up to 8 axes");
  expect_failure(described_as(tensor("k", "I64", "3", 24, 48)), "no shape of up to 8 axes");
}
TEST_F(Golden, OverlapsAndGapsFail) {
  expect_failure(described_as(tensor("k", "I64", "[3]", 0, 24) + ", " + tensor("l", "I64", "[3]", 24, 48)), "two tensors overlap: ");
  expect_failure(described_as(tensor("k", "I64", "[3]", 16, 40)), "two tensors overlap: ");
  expect_failure(described_as(tensor("k", "I64", "[2]", 32, 48)), "a gap between tensors");
  expect_failure(described_as(tensor("k", "I64", "[2]", 24, 40)), "bytes behind the last tensor");
}
TEST_F(Golden, NameUsedTwiceFails) { expect_failure(described_as(tensor("n", "I64", "[3]", 24, 48)), "names a tensor twice"); }
TEST_F(Golden, StrangeNamesStayOnOneLine) {
  expect_failure(described_as(tensor("k", "I64", "[2]", 24, 40) + ", " + tensor("a\\nb\\u001b[31m", "I64", "[1]", 40, 48)), "FAIL");
  expect_failure(file_of("{" + metadata("new\\nline") + "}", ""), "op new?line is unknown");
}

TEST_F(Golden, UnknownTensorOfAListedOpFails) {
  expect_failure(key_count_with(count_tensors + ", " + tensor("surprise", "U8", "[1]", 48, 49), counts({9, 36, 576}, {1, 3, 47}) + "x"),
                 "surprise: this tensor is unknown");
}
TEST_F(Golden, MissingTensorOfAListedOpFails) {
  expect_failure(key_count_with(tensor("n", "I64", "[3]", 0, 24), bytes_of<std::int64_t>({1, 2, 3})), "k: the tensor is missing");
}
TEST_F(Golden, TensorOfAnotherTypeOrShapeFails) {
  expect_failure(described_as(tensor("k", "F64", "[3]", 24, 48)), "k: is of type F64, not of whole numbers");
  expect_failure(described_as(tensor("k", "I64", "[3, 1]", 24, 48)), "k: has shape [3, 1], expected [3]");
}
TEST_F(Golden, WrongValueFails) {
  expect_failure(file_of("{" + metadata("key_count") + ", " + count_tensors + "}", counts({9, 36, 576}, {1, 4, 47})),
                 "[reference] k: [1] is 3, expected 4");
}
TEST_F(Golden, InputsThatNoWordMayBeGivenFail) {
  expect_failure(key_count_with(count_tensors, counts({9, -1, 576}, {1, 1, 47})), "n: holds -1");
  expect_failure(replaced(shipped("dm_plain.safetensors"), "\"img_len\":\"96\"", "\"img_len\":\"95\""), "metadata img_len is 95");
  expect_failure(replaced(shipped("dm_plain.safetensors"), "\"global_thr\":\"0.008\"", "\"global_thr\":\"0.0o8\""), "not a number");
  expect_failure(replaced(shipped("wm_f32_d3_b1.safetensors"), "\"grid_h\":\"9\"", "\"grid_h\":\"8\""),
                 "x: its shape is not that of the grid");
  // Without has_cls the prefix is what the patches leave: here less than nothing.
  expect_failure(replaced(replaced(shipped("wm_f32_d3_b1.safetensors"), "\"has_cls\"", "\"has_not\""), "[1,82,3]", "[82,1,3]"),
                 "check of the grid");
  expect_failure(replaced(shipped("wm_f32_d3_b1.safetensors"), "\"win_w\":\"3\"", "\"win_w\":\"0\""), "metadata win_w is 0");
}
TEST_F(Golden, BadCaseBesideAGoodOneIsTheOnlyOneThatFails) {
  write("a.safetensors", "no case");
  write("b.safetensors", good_case());
  outcome const result = run_folder();
  EXPECT_EQ(result.status, 1);
  EXPECT_EQ(result.last_line, "1 passed, 1 failed, 0 skipped") << result.text;
}

/// The last byte of a tensor's data, or of its element `from_end` bytes before.
std::string changed_at(std::string bytes, std::size_t from_end, unsigned char flip) {
  bytes[bytes.size() - from_end] = static_cast<char>(static_cast<unsigned char>(bytes[bytes.size() - from_end]) ^ flip);
  return bytes;
}
// In each of these files a tensor that words give lies last. The byte flipped is the exponent's of its last element.
TEST_F(Golden, WrongNumberInAShippedCaseFails) {
  expect_failure(changed_at(shipped("kv_gqa8_2_all_layers.safetensors"), 1, 0x40), "_out_l");
  expect_failure(changed_at(shipped("h2o_prefill_decode.safetensors"), 1, 0x40), "score_4: [1, 10]");
}

}  // namespace
