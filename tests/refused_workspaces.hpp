// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include "memory.hpp"

/// A backend that needs no workspace takes none; any other refuses one byte too few and memory that is not aligned to 64. `answer` is what
/// a right call says with a workspace.
template <class Answer>
void expect_wrong_workspaces_refused(std::size_t needed, Answer const& answer) {
  aligned_memory memory(needed + 64);
  char* const begin = static_cast<char*>(memory.lend().data);
  md::status const expected = needed == 0 ? md::status::ok : md::status::workspace_too_small;
  EXPECT_EQ(answer(md::workspace{begin, needed}), md::status::ok);
  EXPECT_EQ(answer(md::workspace{begin, needed == 0 ? 0 : needed - 1}), expected);
  EXPECT_EQ(answer(md::workspace{}), expected);
  EXPECT_EQ(answer(md::workspace{begin + 8, needed}), expected);
}
