// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <mutex>
#include <set>
#include <string>
#include <thread>

#include <nlohmann/json.hpp>

#include "error.hpp"
#include "eval.hpp"
#include "options.hpp"

namespace {

namespace fs = std::filesystem;
using json = nlohmann::json;
using llava::method;
using llava::question;
using llava::trial;

/// A folder of a test's own with a picture (whose contents nobody reads) in it.
struct folder {
  fs::path path = fs::temp_directory_path() / ("llava_eval_" + std::string(testing::UnitTest::GetInstance()->current_test_info()->name()));

  folder() {
    fs::remove_all(path);
    fs::create_directories(path / "images");
    write("images/a.png", "picture");
    write("images/b.png", "picture");
  }
  ~folder() { fs::remove_all(path); }
  folder(folder const&) = delete;
  folder& operator=(folder const&) = delete;

  std::string write(std::string const& name, std::string const& text) const {
    std::ofstream(path / name, std::ios::binary) << text;
    return (path / name).string();
  }
  std::string read(std::string const& name) const {
    std::ifstream file(path / name, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
};

template <class Call>
std::string refusal(Call&& call) {
  try {
    call();
  } catch (llava::input_error const& error) { return error.what(); }
  return "nothing was refused";
}

std::string line(std::string const& image, std::string const& text, std::string const& answer, std::string const& kind) {
  return json{{"image", image}, {"question", text}, {"answer", answer}, {"kind", kind}}.dump() + "\n";
}

/// 30 questions of three kinds; the answer to number i is i.
std::vector<question> numbered() {
  std::vector<question> out;
  for (int i = 0; i < 30; ++i) {
    out.push_back({i % 2 == 0 ? "a.png" : "b.png", "number " + std::to_string(i), std::to_string(i), "kind " + std::to_string(i % 3),
                   "q.jsonl:" + std::to_string(i + 1)});
  }
  return out;
}

/// Knows what `none` is asked; others err where the number is a multiple of their tokens.
llava::run_result reply(question const& asked, method how, int tokens) {
  llava::run_result out;
  int const number = std::stoi(asked.answer);
  out.answer = how != method::none && number % tokens == 0 ? "wrong" : asked.answer;
  out.image_tokens.total = 576;
  out.image_tokens.average = how == method::none ? 576 : tokens - 0.1 * number;
  out.ttft_ms = 10 + number;
  return out;
}

std::vector<trial> const trials = {{method::none, 0}, {method::mustdrop, 7}, {method::random, 3}};

// Wilson ------------------------------------------------------------------------------------------------------------------------------

TEST(wilson, has_the_values_of_its_closed_forms) {
  // z² = 3.8414588. None right: [0, (z²/n) / (1 + z²/n)]. Half right: ½ ± z/2 / √(n + z²), as p(1 − p)/n + z²/4n² = (n + z²)/4n².
  double const z2 = 1.959963984540054 * 1.959963984540054;
  for (int const n : {1, 4, 10, 100, 448}) {
    EXPECT_EQ(llava::wilson(0, n).low, 0);
    EXPECT_NEAR(llava::wilson(0, n).high, z2 / (n + z2), 1e-15) << "a few roundings of numbers below 1";
    EXPECT_EQ(llava::wilson(n, n).high, 1);
    EXPECT_NEAR(llava::wilson(n, n).low, n / (n + z2), 1e-15);
  }
  for (int const n : {2, 10, 100, 448}) {
    double const half = std::sqrt(z2 / (n + z2)) / 2;
    EXPECT_NEAR(llava::wilson(n / 2, n).low, 0.5 - half, 1e-15);
    EXPECT_NEAR(llava::wilson(n / 2, n).high, 0.5 + half, 1e-15);
  }
}

TEST(wilson, solves_the_equation_that_defines_it) {
  // Its ends are the p with |k/n − p| = z √(p (1 − p) / n).
  double const z = 1.959963984540054;
  for (int k = 1; k < 40; ++k) {
    llava::interval const got = llava::wilson(k, 40);
    for (double const p : {got.low, got.high}) { EXPECT_NEAR(std::fabs(k / 40.0 - p), z * std::sqrt(p * (1 - p) / 40), 1e-14) << k; }
    EXPECT_LT(got.low, k / 40.0);
    EXPECT_GT(got.high, k / 40.0);
  }
}

TEST(wilson, of_nothing_is_everything) {
  EXPECT_EQ(llava::wilson(0, 0).low, 0);
  EXPECT_EQ(llava::wilson(0, 0).high, 1);
}

// Questions ---------------------------------------------------------------------------------------------------------------------------

TEST(questions, are_read_with_images_beside_the_file) {
  folder const here;
  std::string const file = here.write(
      "q.jsonl", line("images/a.png", "is it \"é\"?", "yes", "is-there") + "\r\n\n" + line("images/b.png", "where?", "top", "where"));
  std::vector<question> const got = llava::read_questions(file);
  ASSERT_EQ(got.size(), 2u);
  EXPECT_EQ(got[0].image, (here.path / "images/a.png").string());
  EXPECT_EQ(got[0].text, "is it \"é\"?");
  EXPECT_EQ(got[0].answer, "yes");
  EXPECT_EQ(got[1].kind, "where");
  EXPECT_EQ(got[1].place, file + ":4") << "blank lines count";
}

TEST(questions, bad_lines_are_refused_with_their_number) {
  folder const here;
  std::string const good = line("images/a.png", "q", "a", "k"), file = (here.path / "q.jsonl").string();
  std::pair<std::string, std::string> const cases[] = {
      {"{", "not JSON"},
      {"{\"image\": \"images/a.png\"} x", "not JSON"},
      {"{\"question\": \"\xFF\"}", "not JSON"},
      {"[]", "not a JSON object"},
      {"7", "not a JSON object"},
      {std::string(100000, '['), "not JSON"},
      {"{\"image\": \"images/a.png\", \"answer\": \"a\", \"kind\": \"k\"}", "no \"question\""},
      {"{\"image\": \"images/a.png\", \"question\": \"q\", \"kind\": \"k\"}", "no \"answer\""},
      {"{\"question\": \"q\", \"answer\": \"a\", \"kind\": \"k\"}", "no \"image\""},
      {"{\"image\": \"images/a.png\", \"question\": \"q\", \"answer\": \"a\"}", "no \"kind\""},
      {"{\"image\": \"images/a.png\", \"question\": \"q\", \"answer\": 3, \"kind\": \"k\"}", "\"answer\" is not a text"},
      {"{\"image\": null, \"question\": \"q\", \"answer\": \"a\", \"kind\": \"k\"}", "\"image\" is not a text"},
      {line("images/a.png", "", "a", "k"), "\"question\" is empty"},
      {line("images/a.png", "<image> q", "a", "k"), "\"question\" must not have <image> in it"},
      {line("images/a.png", "q", "a", "all"), "\"kind\" must not be all, which stands for every kind"},
      {line(std::string("images/a.png\0", 13), "q", "a", "k"), "\"image\" has a zero byte"},
      {line("images/c.png", "q", "a", "k"), (here.path / "images/c.png").string() + " is not a file"},
      {line("images", "q", "a", "k"), (here.path / "images").string() + " is not a file"},
      {line("no\n\x1b[31mfile", "q", "a", "k"), here.path.string() + "/no??[31mfile is not a file"},
      {"{\"question\": \"" + std::string(1 << 20, 'x') + "\"}", "longer than a line of questions can be"},
  };
  for (auto const& [text, message] : cases) {
    here.write("q.jsonl", good + text);
    EXPECT_EQ(refusal([&] { llava::read_questions(file); }), file + ":2: " + message);
  }
}

TEST(questions, a_file_without_any_or_that_is_not_there_is_refused) {
  folder const here;
  std::string const empty = here.write("q.jsonl", "\n\n"), none = (here.path / "none.jsonl").string();
  EXPECT_EQ(refusal([&] { llava::read_questions(empty); }), empty + ": no questions");
  EXPECT_EQ(refusal([&] { llava::read_questions(none); }), none + ": cannot be read");
  EXPECT_EQ(refusal([&] { llava::read_questions(here.path.string()); }), here.path.string() + ": cannot be read");
}

TEST(questions, a_limit_takes_the_first_of_each_kind) {
  std::vector<question> const got = llava::first_of_each_kind(numbered(), 2);
  ASSERT_EQ(got.size(), 6u);
  for (std::size_t i = 0; i < got.size(); ++i) { EXPECT_EQ(got[i].answer, std::to_string(i)); }
}

TEST(trials, none_comes_once_and_repetitions_do_not) {
  auto const got = llava::trials_of({method::mustdrop, method::none, method::random, method::none, method::mustdrop}, {64, 32, 64});
  std::vector<std::pair<method, int>> pairs;
  for (trial const& t : got) { pairs.emplace_back(t.method, t.tokens); }
  EXPECT_EQ(pairs, (std::vector<std::pair<method, int>>{
                       {method::mustdrop, 64}, {method::mustdrop, 32}, {method::none, 0}, {method::random, 64}, {method::random, 32}}));
}

// The loop ----------------------------------------------------------------------------------------------------------------------------

TEST(evaluate, rows_have_counts_means_and_medians_of_each_kind) {
  std::vector<question> const questions = numbered();
  auto const rows = llava::rows_of(questions, trials, llava::evaluate(questions, trials, reply, 1, nullptr, {}));
  ASSERT_EQ(rows.size(), 12u);
  EXPECT_EQ(rows[0].method, "none");
  EXPECT_EQ(rows[0].tokens, 576) << "all patches";
  EXPECT_EQ(rows[3].kind, "all");
  EXPECT_EQ(rows[3].accuracy, 1);

  // mustdrop with 7 errs at 0, 7, 14, 21, 28: of kind 0 (0, 3, …, 27) at 0 and 21.
  llava::eval_row const& some = rows[4];
  EXPECT_EQ(some.kind, "kind 0");
  EXPECT_EQ(some.tokens, 7);
  EXPECT_EQ(some.correct, 8);
  EXPECT_EQ(some.total, 10);
  EXPECT_EQ(some.accuracy, 0.8);
  EXPECT_EQ(some.low, llava::wilson(8, 10).low);
  EXPECT_EQ(some.high, llava::wilson(8, 10).high);
  EXPECT_NEAR(some.average_tokens, 7 - 0.1 * 13.5, 1e-12) << "the mean of ten sums below 8";
  EXPECT_EQ(some.ttft_ms, 10 + (12 + 15) / 2.0);
  EXPECT_EQ(rows[7].correct, 25);
  EXPECT_EQ(rows[7].total, 30);

  // random with 3 errs at every multiple of 3: all of kind 0, none of the others.
  EXPECT_EQ(rows[8].correct, 0);
  EXPECT_EQ(rows[9].correct, 10);
}

TEST(evaluate, answers_must_be_equal_exactly) {
  std::vector<question> const questions(4, {"a.png", "q", "two", "k", "q:1"});
  int call = 0;
  auto const answer = [&](question const&, method, int) {
    llava::run_result out;
    out.answer = std::vector<std::string>{"two", "Two", "two ", ""}[static_cast<std::size_t>(call++)];
    return out;
  };
  EXPECT_EQ(llava::rows_of(questions, {{}}, llava::evaluate(questions, {{}}, answer, 1, nullptr, {})).back().correct, 1);
}

TEST(evaluate, results_do_not_depend_on_the_number_of_jobs) {
  std::vector<question> const questions = numbered();
  auto const late = [](question const& asked, method how, int tokens) {  // later questions end first
    std::this_thread::sleep_for(std::chrono::microseconds(100 * (30 - std::stoi(asked.answer))));
    return reply(asked, how, tokens);
  };
  std::string const one = llava::rows_as_json(llava::rows_of(questions, trials, llava::evaluate(questions, trials, reply, 1, nullptr, {})));
  for (int const jobs : {2, 3, 8, 200}) {
    EXPECT_EQ(llava::rows_as_json(llava::rows_of(questions, trials, llava::evaluate(questions, trials, late, jobs, nullptr, {}))), one)
        << jobs;
  }
}

TEST(evaluate, asks_as_many_at_once_as_there_are_jobs) {
  std::mutex lock;
  std::set<std::thread::id> threads;
  std::atomic<int> waiting{0};
  auto const answer = [&](question const& asked, method how, int tokens) {
    {
      std::lock_guard const hold(lock);
      threads.insert(std::this_thread::get_id());
    }
    ++waiting;
    for (int i = 0; i < 5000 && waiting < 3; ++i) { std::this_thread::sleep_for(std::chrono::milliseconds(1)); }  // until three are here
    return reply(asked, how, tokens);
  };
  llava::evaluate(numbered(), trials, answer, 3, nullptr, {});
  EXPECT_EQ(threads.size(), 3u);
}

TEST(evaluate, progress_goes_from_one_to_all) {
  std::vector<long> seen;
  llava::evaluate(numbered(), trials, reply, 4, nullptr, [&](long done, long total) {
    EXPECT_EQ(total, 90);
    seen.push_back(done);
  });
  ASSERT_EQ(seen.size(), 90u);
  for (std::size_t i = 0; i < seen.size(); ++i) { EXPECT_EQ(seen[i], static_cast<long>(i) + 1); }
}

TEST(evaluate, what_the_answerer_throws_names_the_first_question_that_failed) {
  auto const answer = [](question const& asked, method how, int tokens) {
    if (std::stoi(asked.answer) >= 7) { throw llava::input_error("cut short"); }
    return reply(asked, how, tokens);
  };
  for (int const jobs : {1, 4}) {
    EXPECT_EQ(refusal([&] { llava::evaluate(numbered(), trials, answer, jobs, nullptr, {}); }), "q.jsonl:8: cut short") << jobs;
  }
}

// Going on ----------------------------------------------------------------------------------------------------------------------------

llava::eval_state::settings const settings = {{"model", "tiny"}, {"positions", "kept"}};

TEST(resume, an_interrupted_evaluation_goes_on_and_ends_with_the_same_rows) {
  folder const here;
  std::string const path = (here.path / "state.jsonl").string();
  std::vector<question> const questions = numbered();
  std::string const want =
      llava::rows_as_json(llava::rows_of(questions, trials, llava::evaluate(questions, trials, reply, 1, nullptr, {})));
  std::atomic<int> asked{0};
  auto const breaks = [&](question const& q, method how, int tokens) {
    if (++asked > 40) { throw llava::input_error("no power"); }
    return reply(q, how, tokens);
  };
  {
    llava::eval_state state(path, settings);
    EXPECT_EQ(refusal([&] { llava::evaluate(questions, trials, breaks, 1, &state, {}); }), "q.jsonl:11: no power");
  }
  asked = 0;
  auto const counts = [&](question const& q, method how, int tokens) { return ++asked, reply(q, how, tokens); };
  long first_seen = 0;
  llava::eval_state state(path, settings);
  auto const outcomes =
      llava::evaluate(questions, trials, counts, 3, &state, [&](long done, long) { first_seen = first_seen == 0 ? done : first_seen; });
  EXPECT_EQ(asked, 50);
  EXPECT_EQ(first_seen, 41);
  EXPECT_EQ(llava::rows_as_json(llava::rows_of(questions, trials, outcomes)), want);
}

TEST(resume, more_methods_and_other_questions_use_what_is_there) {
  folder const here;
  std::string const path = (here.path / "state.jsonl").string();
  std::vector<question> const questions = numbered(), few = llava::first_of_each_kind(questions, 2);
  {
    llava::eval_state state(path, settings);
    llava::evaluate(few, {trials[1]}, reply, 1, &state, {});
  }
  int asked = 0;
  auto const counts = [&](question const& q, method how, int tokens) { return ++asked, reply(q, how, tokens); };
  llava::eval_state state(path, settings);
  llava::evaluate(questions, trials, counts, 1, &state, {});
  EXPECT_EQ(asked, 90 - 6);
}

TEST(resume, a_line_cut_short_is_asked_again_and_the_file_stays_whole) {
  folder const here;
  std::string const path = (here.path / "state.jsonl").string();
  std::vector<question> const questions = numbered();
  {
    llava::eval_state state(path, settings);
    llava::evaluate(questions, {trials[1]}, reply, 1, &state, {});
  }
  fs::resize_file(path, fs::file_size(path) - 5);
  int asked = 0;
  auto const counts = [&](question const& q, method how, int tokens) { return ++asked, reply(q, how, tokens); };
  for (int const want : {1, 0}) {
    asked = 0;
    llava::eval_state state(path, settings);
    llava::evaluate(questions, {trials[1]}, counts, 1, &state, {});
    EXPECT_EQ(asked, want);
  }
}

TEST(resume, other_settings_and_other_files_are_refused_and_left_alone) {
  folder const here;
  std::string const path = (here.path / "state.jsonl").string();
  { llava::eval_state const state(path, settings); }
  auto const open = [&](llava::eval_state::settings const& with) { return refusal([&] { llava::eval_state const state(path, with); }); };
  EXPECT_EQ(open(settings), "nothing was refused");
  EXPECT_EQ(open({{"model", "tiny"}, {"positions", "renumber"}}),
            path + ": was begun with positions kept, not renumber; name another file or remove it");
  EXPECT_EQ(open({{"model", "tiny"}, {"seed", "1"}}), path + ":1: not a line of llava_eval");
  std::string const head = here.read("state.jsonl");
  std::pair<std::string, std::string> const cases[] = {{"a letter to nobody", ":1: not a line of llava_eval"},
                                                       {"a letter\nto nobody\n", ":1: not JSON"},
                                                       {"{\"other\": 1}\n", ":1: not a line of llava_eval"},
                                                       {"{\"llava_eval\": 1}\n", ":1: not a line of llava_eval"},
                                                       {head + "{\"method\": \"none\"}\n", ":2: not a line of llava_eval"},
                                                       {head + "[]\n", ":2: not a JSON object"}};
  for (auto const& [text, message] : cases) {
    here.write("state.jsonl", text);
    EXPECT_EQ(open(settings), path + message);
    EXPECT_EQ(here.read("state.jsonl"), text);
  }
  EXPECT_EQ(refusal([&] { llava::eval_state const state((here.path / "no/state").string(), settings); }),
            (here.path / "no/state").string() + ": cannot be written");
}

// Output ------------------------------------------------------------------------------------------------------------------------------

std::vector<llava::eval_row> sample_rows() {
  return {{"mustdrop", 64, "what, \"at\"", 3, 4, 0.75, 0.25, 0.875, 61.5, 12.5},
          {"mustdrop", 64, "all", 3, 4, 0.75, 0.25, 0.875, 61.5, 12.5}};
}

TEST(output, json_is_a_list_of_rows_with_the_documented_keys) {
  json const got = json::parse(llava::rows_as_json(sample_rows()));
  ASSERT_EQ(got.size(), 2u);
  EXPECT_EQ(got[0], (json{{"method", "mustdrop"},
                          {"tokens", 64},
                          {"kind", "what, \"at\""},
                          {"correct", 3},
                          {"total", 4},
                          {"accuracy", 0.75},
                          {"low", 0.25},
                          {"high", 0.875},
                          {"average_tokens", 61.5},
                          {"ttft_ms", 12.5}}));
  EXPECT_EQ(json::parse(llava::rows_as_json({})), json::array());
}

TEST(output, csv_quotes_what_needs_it) {
  EXPECT_EQ(llava::rows_as_csv(sample_rows()),
            "method,tokens,kind,correct,total,accuracy,low,high,average_tokens,ttft_ms\n"
            "mustdrop,64,\"what, \"\"at\"\"\",3,4,0.75,0.25,0.875,61.5,12.5\n"
            "mustdrop,64,all,3,4,0.75,0.25,0.875,61.5,12.5\n");
}

TEST(output, the_table_has_a_line_a_trial_and_the_mean_of_the_four_kinds_of_scenes) {
  std::vector<llava::eval_row> rows;
  for (char const* kind : {"what-at", "is-there", "how-many", "where", "describe", "all"}) {
    rows.push_back({"random", 128, kind, 1, 2, 0.5, 0.1, 0.9, 100, 7});
  }
  rows[0].accuracy = 1, rows[1].accuracy = 0.9;
  EXPECT_EQ(llava::rows_as_table(rows),
            "method  tokens  what-at  is-there  how-many  where  describe  mean of 4   all       95 %  a layer  ttft ms\n"
            "random     128    100.0      90.0      50.0   50.0      50.0       72.5  50.0  10.0–90.0    100.0      7.0\n");
  rows.erase(rows.begin());
  EXPECT_EQ(llava::rows_as_table(rows).find("mean of 4"), std::string::npos);
}

// Options -----------------------------------------------------------------------------------------------------------------------------

/// What is wrong with a command line, or "" and what it sets.
std::string parsed(std::vector<char const*> words, llava::reduction& into) {
  CLI::App app("", "llava");
  llava::add_reduction_options(app, into);
  words.insert(words.begin(), "llava");
  testing::internal::CaptureStderr();
  auto const done = llava::parse(app, static_cast<int>(words.size()), words.data());
  std::string const said = testing::internal::GetCapturedStderr();
  EXPECT_EQ(done.value_or(0), said.empty() ? 0 : 2);
  return said;
}

TEST(options, without_any_the_papers_defaults_hold) {
  llava::reduction got;
  EXPECT_EQ(parsed({}, got), "");
  EXPECT_EQ(llava::describe(got), llava::describe({}));
  EXPECT_EQ(got.method, method::none);
  EXPECT_EQ(got.tokens, 0);
}

TEST(options, each_sets_its_value) {
  llava::reduction got;
  EXPECT_EQ(parsed({"--method", "mustdrop", "--tokens", "64", "--tokens-as", "end", "--merge-threshold=-0.5", "--merge-at", "features",
                    "--prune-after", "2,6,10", "--positions", "renumber", "--kv-first-layer", "2", "--seed", "18446744073709551615"},
                   got),
            "");
  EXPECT_EQ(got.method, method::mustdrop);
  EXPECT_EQ(got.tokens, 64);
  EXPECT_EQ(got.reading, llava::token_reading::end);
  EXPECT_EQ(got.merge_threshold, -0.5f);
  EXPECT_EQ(got.merge_at, llava::merge_place::features);
  EXPECT_EQ(got.prune_after, (std::vector<int>{2, 6, 10}));
  EXPECT_EQ(got.positions, llava::position_rule::renumber);
  EXPECT_EQ(got.kv_first_layer, 2);
  EXPECT_EQ(got.seed, 18446744073709551615ul);
  EXPECT_EQ(parsed({"--thresholds", "0.25,0.5", "--prune-after=0"}, got), "");
  EXPECT_EQ(got.global_threshold, 0.25f);
  EXPECT_EQ(got.individual_threshold, 0.5f);
  EXPECT_EQ(got.prune_after, std::vector<int>{0});
}

TEST(options, that_ask_for_fewer_tokens_ask_for_mustdrop_unless_a_method_is_named) {
  std::vector<char const*> const asking[] = {{"--tokens", "64"}, {"--thresholds", "0.1,0.1"}};
  for (auto words : asking) {
    llava::reduction got;
    EXPECT_EQ(parsed(words, got), "");
    EXPECT_EQ(got.method, method::mustdrop);
    words.insert(words.end(), {"--method", "none"});
    llava::reduction named;
    EXPECT_EQ(parsed(words, named), "");
    EXPECT_EQ(named.method, method::none);
  }
  llava::reduction plain;
  EXPECT_EQ(parsed({}, plain), "");
  EXPECT_EQ(plain.method, method::none);
}

TEST(options, values_out_of_range_are_refused_in_one_line) {
  std::vector<char const*> const cases[] = {{"--method", "fast"},
                                            {"--method", "0"},
                                            {"--tokens", "0"},
                                            {"--tokens", "-3"},
                                            {"--tokens", "99999999999999999999"},
                                            {"--tokens", "six\nteen"},
                                            {"--tokens-as", "mean"},
                                            {"--merge-threshold", "nan"},
                                            {"--merge-threshold", "inf"},
                                            {"--merge-threshold", "2.5"},
                                            {"--merge-threshold", ""},
                                            {"--prune-after", "2,2"},
                                            {"--prune-after", "6,2"},
                                            {"--prune-after", "-1"},
                                            {"--prune-after", "a"},
                                            {"--prune-after", "2000"},
                                            {"--thresholds", "0.1"},
                                            {"--thresholds", "0.1,0.2,0.3"},
                                            {"--thresholds", "nan,0.1"},
                                            {"--thresholds", "0.1,0.1", "--tokens", "64"},
                                            {"--positions", "other"},
                                            {"--kv-first-layer", "-1"},
                                            {"--seed", "-1"},
                                            {"--seed", "18446744073709551616"},
                                            {"--plan", "/nonexistent/plan.json"},
                                            {"--unknown"},
                                            {"stray"},
                                            {"--method"}};
  for (auto const& words : cases) {
    llava::reduction got;
    std::string const said = parsed(words, got);
    EXPECT_EQ(said.rfind("llava: ", 0), 0u) << words[0] << ' ' << (words.size() > 1 ? words[1] : "");
    EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
  }
}

TEST(options, that_do_not_go_together_are_refused) {
  llava::reduction got;
  for (method const how : {method::random, method::pooling, method::before}) {
    got.method = how;
    EXPECT_EQ(refusal([&] { llava::check(got); }), "--method " + std::string(llava::name_of(how)) + " needs --tokens");
  }
  got.tokens = 64;
  EXPECT_NO_THROW(llava::check(got));
  got.plan = "plan.json";
  EXPECT_EQ(refusal([&] { llava::check(got); }), "--plan needs --method mustdrop");
  got.method = method::mustdrop;
  EXPECT_NO_THROW(llava::check(got));
  EXPECT_EQ(refusal([&] { llava::method_named("fa\nst"); }), "fa?st is not a method");
}

TEST(options, a_description_differs_where_an_option_does) {
  std::set<std::vector<std::pair<std::string, std::string>>> seen;
  std::vector<std::vector<char const*>> const each = {{},
                                                      {"--tokens-as", "end"},
                                                      {"--merge-threshold", "0.7"},
                                                      {"--merge-threshold", "0.70000005"},
                                                      {"--merge-at", "features"},
                                                      {"--prune-after", "0"},
                                                      {"--prune-after", "0,1"},
                                                      {"--thresholds", "0.1,0.001"},
                                                      {"--thresholds", "0.001,0.1"},
                                                      {"--positions", "renumber"},
                                                      {"--kv-first-layer", "2"},
                                                      {"--seed", "1"}};
  for (auto const& words : each) {
    llava::reduction got;
    EXPECT_EQ(parsed(words, got), "");
    EXPECT_TRUE(seen.insert(llava::describe(got)).second) << (words.empty() ? "" : words[0]);
  }
}

}  // namespace
