// SPDX-License-Identifier: Apache-2.0

// What the emulator is trusted for: each planted bug is found, in a process of its own, by the tool and with the words that the table
// says; its right twin passes in silence. The emulator itself is in every build, ASan with UBSan in one and TSan in another.

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "sanitizers.hpp"
#include "twins_barriers.hpp"
#include "twins_memory.hpp"
#include "twins_streams.hpp"

namespace {

using twins::made;

constexpr char const *nothing = nullptr, *wrong_values = "wrong values";

struct planted_bug {
  char const* name;
  bool (*run)(made);
  // What is said of it, as regular expressions.
  char const* by_emulator;
  char const* by_asan = nothing;  // nothing: what the emulator says
  char const* by_tsan = nothing;
};

planted_bug const planted_bugs[] = {
    // Barriers
    {"missing_barrier", twins::missing_barrier, wrong_values, nothing, "data race.*reverse"},
    {"wrong_buffer", twins::wrong_buffer, wrong_values, nothing, "data race.*rotate"},
    {"missing_warp_barrier", twins::missing_warp_barrier, nothing, nothing, "data race.*swap_neighbours"},
    {"message_without_barrier", twins::message_without_barrier, nothing, nothing, "data race.*tell_one"},
    {"barrier_of_other_lanes", twins::barrier_of_other_lanes, nothing, nothing, "data race.*reverse_halves"},
    {"scan_storage_in_use", twins::scan_storage_in_use, nothing, nothing, "data race.*BlockScan.*scan_twice"},
    {"reduce_storage_in_use", twins::reduce_storage_in_use, nothing, nothing, "data race.*BlockReduce.*reduce_twice"},
    {"divergent_barrier", twins::divergent_barrier, "divergent barrier: .* waits at twins_barriers.hpp:[0-9]+, others at"},
    {"barrier_after_return", twins::barrier_after_return, "barrier after threads have returned: 40 wait at .*, 24 have returned"},
    {"unequal_rounds", twins::unequal_rounds, "barrier after threads have returned: 36 wait at .*, 28 have returned"},
    // Warps
    {"unequal_votes", twins::unequal_votes, "a mask names a lane that has returned"},
    {"mask_of_returned_lanes", twins::mask_of_returned_lanes, "a mask names a lane that has returned"},
    {"shuffle_beyond_mask", twins::shuffle_beyond_mask, "a shuffle reads a lane that its mask does not name"},
    {"mask_without_caller", twins::mask_without_caller, "a mask does not name the lane that calls"},
    {"mask_beyond_block", twins::mask_beyond_block, "a mask names a lane that the block does not have"},
    {"divergent_warp", twins::divergent_warp, "divergent warp operation: .* waits at twins_barriers.hpp:[0-9]+"},
    // Blocks
    {"blocks_write_one_place", twins::blocks_write_one_place, nothing, nothing, "data race.*one_each"},
    {"block_reads_other", twins::block_reads_other, nothing, nothing, "data race.*pass_on"},
    {"blocks_overlap", twins::blocks_overlap, nothing, nothing, "data race.*move_down"},
    {"counter_is_not_atomic", twins::counter_is_not_atomic, nothing, nothing, "data race.*count_threads"},
    // Memory
    {"shared_overflow", twins::shared_overflow, nothing, "use-after-poison.*shift_in_shared"},
    {"dynamic_shared_overflow", twins::dynamic_shared_overflow, nothing, "use-after-poison.*mark_in_dynamic_shared"},
    {"array_overflow", twins::array_overflow, nothing, "stack-buffer-overflow|insufficient space for an object"},
    {"grid_too_large", twins::grid_too_large, nothing, "heap-buffer-overflow.*fill"},
    {"unguarded_tail", twins::unguarded_tail, nothing, "heap-buffer-overflow.*double_all"},
    {"misaligned_load", twins::misaligned_load, nothing, "misaligned address .*int4"},
    {"misaligned_shared_load", twins::misaligned_shared_load, nothing, "misaligned address .*int4"},
    {"shared_never_written", twins::shared_never_written, wrong_values},
    {"too_much_shared", twins::too_much_shared, "the block's shared memory is more than 49152 bytes: 49153"},
    // Streams
    {"wrong_order", twins::wrong_order, wrong_values},
    {"null_stream", twins::null_stream, wrong_values},
    {"wrong_stream", twins::wrong_stream, "wrong stream"},
    {"read_before_done", twins::read_before_done, wrong_values},
    {"freed_before_done", twins::freed_before_done, nothing, "heap-use-after-free.*add_one"},
};

void PrintTo(planted_bug const& bug, std::ostream* out) { *out << bug.name; }  // NOLINT(readability-identifier-naming): GoogleTest's

struct finding {
  char const* words;
  int exit_code;
};

/// What this build says of the bug, nothing if it does not see it.
finding finding_here(planted_bug const& bug) {
  constexpr int of_emulator = 3, of_asan = 1, of_tsan = 66;
  if (cuda_emulator::watched_by_asan() && bug.by_asan != nothing) { return {bug.by_asan, of_asan}; }
  if (cuda_emulator::watched_by_tsan() && bug.by_tsan != nothing) { return {bug.by_tsan, of_tsan}; }
  return {bug.by_emulator, of_emulator};
}

std::vector<planted_bug> found_here() {
  std::vector<planted_bug> found;
  for (planted_bug const& bug : planted_bugs) {
    if (finding_here(bug).words != nothing) { found.push_back(bug); }
  }
  return found;
}

std::string name_of(testing::TestParamInfo<planted_bug> const& bug) { return bug.param.name; }

struct PlantedBug : testing::TestWithParam<planted_bug> {};
INSTANTIATE_TEST_SUITE_P(Each, PlantedBug, testing::ValuesIn(found_here()), name_of);

[[noreturn]] void run_wrong_twin(planted_bug const& bug, std::uint64_t seed) {
  cuda_emulator::set_seed(seed);
  if (bug.run(made::wrong)) { std::exit(0); }
  std::fprintf(stderr, "%s\n", wrong_values);
  std::exit(3);
}

TEST_P(PlantedBug, IsFoundInAnyOrder) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");  // a new process, not a copy of this one
  finding const expected = finding_here(GetParam());
  for (unsigned const seed : {1u, 2u, 3u}) {
    EXPECT_EXIT(run_wrong_twin(GetParam(), seed), testing::ExitedWithCode(expected.exit_code), expected.words) << "seed " << seed;
  }
}

struct RightTwin : testing::TestWithParam<planted_bug> {};
INSTANTIATE_TEST_SUITE_P(Each, RightTwin, testing::ValuesIn(planted_bugs), name_of);

/// TSan says what it finds here in the program's exit code.
TEST_P(RightTwin, IsRightInAnyOrder) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    cuda_emulator::set_seed(seed);
    EXPECT_TRUE(GetParam().run(made::right)) << "seed " << seed;
  }
  EXPECT_EQ(cuda_emulator::last_report(), "");
}

TEST(PlantedBugs, EachIsFoundBySomeBuild) {
  for (planted_bug const& bug : planted_bugs) {
    EXPECT_TRUE(bug.by_emulator != nothing || bug.by_asan != nothing || bug.by_tsan != nothing) << bug.name;
  }
}

}  // namespace
