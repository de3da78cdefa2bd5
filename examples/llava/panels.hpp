// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the overlay and the report draw a stage with.

#include <string>

#include "result.hpp"

namespace llava {

/// Rows of one picture that a stage left, counted as they are drawn.
struct panel_counts {
  int alone = 0;    // patches that are a row each
  int windows = 0;  // rows that are merged windows
  int key = 0;      // rows of the key set, among both
  int dropped = 0;  // patches

  int rows() const { return alone + windows; }
};

panel_counts count_rows(run_result const& result, panel const& panel);

/// The picture, enlarged by a whole number to about 384 pixels across, so that patches are seen.
picture draw_input(run_result const& result, int image);

/// The same with the stage on it: dropped patches dark and hatched, merged windows outlined in blue, the key set in orange.
picture draw_panel(run_result const& result, panel const& panel);

/// A prompt without the template's words around the question.
std::string question_of(std::string const& prompt);

/// TEXT as valid UTF-8: what is not becomes U+FFFD, as do control characters other than tab and line feed.
std::string clean(std::string const& text);

}  // namespace llava
