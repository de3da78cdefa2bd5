// SPDX-License-Identifier: Apache-2.0
#pragma once

// Command lines: options that `llava` and `llava_eval` share, and how every program reads them and ends.

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>

#include "run.hpp"

namespace llava {

/// Throws input_error for a name that is no method's.
method method_named(std::string const& name);
std::vector<std::string> const& method_names();

/// How to reduce, whatever the method and the budget: --tokens-as, --merge-threshold, --merge-at, --prune-after, --thresholds, --positions,
/// --kv-… and --seed.
void add_stage_options(CLI::App& app, reduction& into);

/// Those, --method, --tokens and --plan.
void add_reduction_options(CLI::App& app, reduction& into);

/// What add_stage_options can set, as name and value: runs with the same text reduce alike.
std::vector<std::pair<std::string, std::string>> describe(reduction const& options);

/// Parses the command line. A value is the exit code of a program that is done: 0 after --help, 2 after one line on stderr.
std::optional<int> parse(CLI::App& app, int argc, char const* const* argv);

/// What `run` returns; 2 after one line on stderr, that names the program, for what it throws.
int exit_code(std::string const& program, std::function<int()> const& run);

/// TEXT in one line: control characters (line feeds, terminal codes) and what is not UTF-8 become '?'.
std::string one_line(std::string const& text);

}  // namespace llava
