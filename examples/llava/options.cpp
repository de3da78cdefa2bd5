// SPDX-License-Identifier: Apache-2.0
#include "options.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <sstream>

#include "error.hpp"
#include "panels.hpp"

namespace llava {
namespace {

template <class Enum>
using names = std::vector<std::pair<std::string, Enum>>;

names<method> named_methods() {
  names<method> all;
  for (auto const each : {method::none, method::mustdrop, method::random, method::pooling, method::before}) {
    all.emplace_back(name_of(each), each);
  }
  return all;
}

names<method> const methods = named_methods();
names<token_reading> const readings = {{"ran-on", token_reading::ran_on}, {"papers", token_reading::papers}, {"end", token_reading::end}};
names<merge_place> const places = {{"layer0", merge_place::layer0}, {"features", merge_place::features}};
names<mustdrop::evict_policy> const policies = {{"survivors", mustdrop::evict_policy::survivors},
                                                {"key-set", mustdrop::evict_policy::key_set_only},
                                                {"output-aware", mustdrop::evict_policy::output_aware}};
names<position_rule> const rules = {{"kept", position_rule::kept}, {"renumber", position_rule::renumber}};

constexpr int most_tokens = 1 << 20, most_layers = 1024;

template <class Enum>
std::vector<std::string> words(names<Enum> const& all) {
  std::vector<std::string> out;
  for (auto const& [name, value] : all) { out.push_back(name); }
  return out;
}

template <class Enum>
std::string word(names<Enum> const& all, Enum value) {
  for (auto const& [name, other] : all) {
    if (other == value) { return name; }
  }
  return "?";
}

/// `into` is an Enum, or an optional one.
template <class Enum, class Into>
CLI::Option* add_choice(CLI::App& app, std::string const& option, Into& into, names<Enum> const& all, std::string const& about) {
  auto const set = [&into, &all](std::string const& text) {
    for (auto const& [name, value] : all) {
      if (name == text) { into = value; }
    }
  };
  return app.add_option_function<std::string>(option, set, about)->check(CLI::IsMember(words(all)));
}

/// CLI::Range lets NaN through.
CLI::Validator number_in(double least, double most) {
  std::ostringstream name;
  name << "FLOAT in [" << least << " - " << most << "]";
  auto const look = [least, most](std::string const& text) {
    char* end = nullptr;
    double const value = std::strtod(text.c_str(), &end);
    bool const good = !text.empty() && *end == '\0' && value >= least && value <= most;
    return good ? std::string() : "not a number in its range";
  };
  return {look, name.str()};
}

std::string ascending(std::vector<int> const& layers) {
  bool const good = std::adjacent_find(layers.begin(), layers.end(), [](int a, int b) { return a >= b; }) == layers.end();
  return good ? "" : "layers must ascend";
}

std::string text_of(float value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", static_cast<double>(value));
  return text;
}

}  // namespace

method method_named(std::string const& name) {
  for (auto const& [known, value] : methods) {
    if (known == name) { return value; }
  }
  throw input_error(one_line(name) + " is not a method");
}

std::vector<std::string> const& method_names() {
  static std::vector<std::string> const all = words(methods);
  return all;
}

void add_stage_options(CLI::App& app, reduction& into) {
  add_choice(app, "--tokens-as", into.reading, readings,
             "what --tokens counts, for each image: the mean over the layers of what each ran on, of what was left after each, or what is "
             "left at the end")
      ->default_str(word(readings, into.reading));
  app.add_option("--merge-threshold", into.merge_threshold,
                 "windows whose patches are alike by at least this much merge; above 1: only those that --tokens forces")
      ->check(number_in(-1, 2))
      ->capture_default_str();
  add_choice(app, "--merge-at", into.merge_at, places,
             "where windows merge: after the first vision layer (the paper), or on the features (default: better answers)");
  auto const layers = [&into](std::vector<int> const& given) {
    if (std::string const wrong = ascending(given); !wrong.empty()) { throw CLI::ValidationError("--prune-after", wrong); }
    into.prune_after = given;
  };
  app.add_option_function<std::vector<int>>("--prune-after", layers,
                                            "language layers after which tokens are dropped (default: as fits the depth)")
      ->delimiter(',')
      ->check(CLI::Range(0, most_layers))
      ->type_name("LAYER,LAYER,...")
      ->allow_extra_args(false);
  auto const thresholds = [&into](std::vector<float> const& given) {
    if (given.size() != 2) { throw CLI::ValidationError("--thresholds", "two numbers are asked for"); }
    into.global_threshold = given[0], into.individual_threshold = given[1];
  };
  app.add_option_function<std::vector<float>>("--thresholds", thresholds,
                                              "global and individual threshold of the dual mask, instead of --tokens")
      ->delimiter(',')
      ->check(number_in(0, 1))
      ->type_name("GLOBAL,INDIVIDUAL")
      ->allow_extra_args(false);
  add_choice(app, "--positions", into.positions, rules,
             "rotary positions after a drop: each token's own, or numbered anew as in the released code")
      ->default_str(word(rules, into.positions));
  app.add_option("--kv-first-layer", into.kv_first_layer, "first layer whose KV cache is compacted")
      ->check(CLI::Range(0, most_layers))
      ->capture_default_str();
  add_choice(app, "--kv-policy", into.kv_policy, policies,
             "what stays in the caches: all survivors of the prefill, the key set alone, or in decode what the answer attends to")
      ->default_str(word(policies, into.kv_policy));
  app.add_option("--kv-budget", into.kv_budget, "slots of a layer that output-aware leaves")->check(CLI::Range(1, most_tokens));
  app.add_option("--kv-sinks", into.kv_sinks, "first slots that output-aware never drops")
      ->check(CLI::Range(0, most_tokens))
      ->capture_default_str();
  app.add_option("--kv-recent", into.kv_recent, "last slots that output-aware never drops")
      ->check(CLI::Range(0, most_tokens))
      ->capture_default_str();
  auto const digits = [](std::string const& text) {  // CLI11 takes −1 for the largest number
    errno = 0;
    bool const good = text.find_first_not_of("0123456789") == std::string::npos && (std::strtoull(text.c_str(), nullptr, 10), errno == 0);
    return good ? std::string() : "not a whole number from 0 to 2^64 − 1";
  };
  app.add_option("--seed", into.seed, "of the method random")->check(CLI::Validator(digits, "UINT"))->type_name("")->capture_default_str();
}

void add_reduction_options(CLI::App& app, reduction& into) {
  add_choice(app, "--method", into.method, methods,
             "how image tokens are reduced (default: none; mustdrop with --tokens, --thresholds or --plan)");
  CLI::Option* const tokens =
      app.add_option("--tokens", into.tokens, "image tokens of each image, counted as --tokens-as says")->check(CLI::Range(1, most_tokens));
  CLI::Option* const plan =
      app.add_option("--plan", into.plan, "what merges and what is kept, from a file instead of scores")->check(CLI::ExistingFile);
  add_stage_options(app, into);
  CLI::Option* const thresholds = app.get_option("--thresholds")->excludes(tokens)->excludes(plan);
  plan->excludes(tokens);
  CLI::Option* const chosen = app.get_option("--method");
  app.parse_complete_callback([&into, chosen, tokens, plan, thresholds] {  // asking for fewer tokens asks for a method that drops some
    if (chosen->count() == 0 && (tokens->count() > 0 || plan->count() > 0 || thresholds->count() > 0)) { into.method = method::mustdrop; }
  });
}

std::vector<std::pair<std::string, std::string>> describe(reduction const& options) {
  std::string layers;
  for (int const layer : options.prune_after) { layers += (layers.empty() ? "" : ",") + std::to_string(layer); }
  return {{"tokens-as", word(readings, options.reading)},
          {"merge-threshold", text_of(options.merge_threshold)},
          {"merge-at", options.merge_at ? word(places, *options.merge_at) : ""},
          {"prune-after", layers},
          {"thresholds", text_of(options.global_threshold) + "," + text_of(options.individual_threshold)},
          {"positions", word(rules, options.positions)},
          {"kv-first-layer", std::to_string(options.kv_first_layer)},
          {"kv-policy", word(policies, options.kv_policy)},
          {"kv-budget", std::to_string(options.kv_budget)},
          {"kv-sinks", std::to_string(options.kv_sinks)},
          {"kv-recent", std::to_string(options.kv_recent)},
          {"seed", std::to_string(options.seed)}};
}

std::optional<int> parse(CLI::App& app, int argc, char const* const* argv) {
  try {
    app.parse(argc, argv);
  } catch (CLI::ParseError const& error) {
    if (error.get_exit_code() == 0) { return app.exit(error); }  // --help, --version
    std::cerr << app.get_name() << ": " << one_line(error.what()) << '\n';
    return 2;
  }
  return std::nullopt;
}

int exit_code(std::string const& program, std::function<int()> const& run) {
  try {
    return run();
  } catch (std::exception const& error) {
    std::cerr << program << ": " << one_line(error.what()) << '\n';
    return 2;
  }
}

std::string one_line(std::string const& text) {
  std::string out;
  std::string const valid = clean(text), unknown = "\xEF\xBF\xBD";
  for (std::size_t i = 0; i < valid.size(); ++i) {
    bool const replaced = valid.compare(i, unknown.size(), unknown) == 0;
    out += replaced || valid[i] == '\n' || valid[i] == '\t' ? '?' : valid[i];
    if (replaced) { i += unknown.size() - 1; }
  }
  return out;
}

}  // namespace llava
