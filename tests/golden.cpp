// SPDX-License-Identifier: Apache-2.0

// golden DIR…: runs every case file (*.safetensors) of the folders on every backend built and compares with what it holds.
// The last line is "N passed, N failed, N skipped"; the exit status is 0 if nothing failed. tests/golden/README.md has the format.

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "golden_ops.hpp"

namespace {

namespace fs = std::filesystem;

/// Ops that the format knows and whose words this library does not have yet.
constexpr char const* later_ops[] = {
    "tome",     "tome_prop_attn", "tome_r_schedule", "visionzip",        "divprune",           "dpp_greedy",
    "cdpruner", "fastv",          "pdrop",           "sparsevlm_select", "sparsevlm_recycle",  "sparsevlm_rank",
    "evs",      "vidcom2",        "snapkv",          "snapkv_gqa",       "observed_attention", "dart"};

std::vector<golden::op> all_ops() {
  std::vector<golden::op> all;
  for (auto const& group : {golden::vision_ops(), golden::prefill_ops(), golden::cache_ops(), golden::chain_ops()}) {
    all.insert(all.end(), group.begin(), group.end());
  }
  return all;
}

struct tally {
  int passed = 0, failed = 0, skipped = 0;
  std::map<std::string, std::vector<std::string>> skipped_files;  // by op

  void fail(std::string const& file, std::vector<std::string> const& why) {
    ++failed;
    for (std::string const& line : why) { std::printf("FAIL %s %s\n", safetensors::printable(file).c_str(), line.c_str()); }
  }
};

void run_file(fs::path const& path, std::vector<golden::op> const& ops, tally& t) {
  std::string const name = path.filename().string();
  try {
    golden::golden_case const tested(path);
    auto const known = std::find_if(ops.begin(), ops.end(), [&](golden::op const& o) { return tested.op() == o.name; });
    if (known != ops.end()) {
      golden::failures const found = known->run(tested);
      found.empty() ? void(++t.passed) : t.fail(name, found);
    } else if (std::find(std::begin(later_ops), std::end(later_ops), tested.op()) != std::end(later_ops)) {
      ++t.skipped, t.skipped_files[tested.op()].push_back(name);
    } else {
      t.fail(name, {"op " + safetensors::printable(tested.op()) + " is unknown"});
    }
  } catch (std::exception const& e) { t.fail(name, {e.what()}); }
}

void run_folder(fs::path const& folder, std::vector<golden::op> const& ops, tally& t) {
  std::error_code failed;
  std::vector<fs::path> files;
  for (fs::directory_iterator entry(folder, failed), end; !failed && entry != end; entry.increment(failed)) {
    if (entry->path().extension() == ".safetensors") { files.push_back(entry->path()); }
  }
  if (failed) { return t.fail(folder.string(), {"cannot be read as a folder"}); }
  if (files.empty()) { return t.fail(folder.string(), {"holds no case file"}); }
  std::sort(files.begin(), files.end());
  for (fs::path const& file : files) { run_file(file, ops, t); }
}

}  // namespace

int main(int count, char** arguments) {
  tally t;
  std::vector<golden::op> const ops = all_ops();
  if (count < 2) { t.fail("golden", {"needs a folder of case files: golden DIR..."}); }
  for (int i = 1; i < count; ++i) { run_folder(arguments[i], ops, t); }
  for (auto const& [op, files] : t.skipped_files) {
    std::printf("SKIP %s: belongs to words not built yet:", op.c_str());
    for (std::string const& file : files) { std::printf(" %s", safetensors::printable(file).c_str()); }
    std::printf("\n");
  }
  std::printf("%d passed, %d failed, %d skipped\n", t.passed, t.failed, t.skipped);
  return t.failed == 0 ? 0 : 1;
}
