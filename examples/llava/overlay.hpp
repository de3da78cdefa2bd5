// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "result.hpp"

namespace llava {

/// The picture with one panel a stage, side by side (a row a picture): merged windows outlined, dropped patches dimmed, key set marked,
/// survivors bright, a caption with the count under each.
picture draw_overlay(run_result const& result);

/// One self-contained HTML page: answer, panels, table of tokens, times and bytes, per-layer trace.
void write_report(std::string const& path, run_result const& result);

/// The object that `llava --json` prints.
std::string to_json(run_result const& result);

}  // namespace llava
