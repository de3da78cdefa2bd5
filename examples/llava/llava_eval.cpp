// SPDX-License-Identifier: Apache-2.0
// llava_eval: how often a model's answers are right, with each method and each number of image tokens.
//   llava_eval --model DIR --questions FILE.jsonl --methods none,mustdrop,random --tokens 192,128,64 --resume state.jsonl

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "error.hpp"
#include "eval.hpp"
#include "options.hpp"
#include "progress.hpp"
#include "run.hpp"

namespace {

namespace fs = std::filesystem;

struct arguments {
  std::string model, json, csv, resume;
  std::vector<std::string> questions, methods = {"none", "mustdrop"};
  std::vector<int> tokens = {192, 128, 64};
  llava::reduction reduce;
  int jobs = 1, limit = 0, max_new_tokens = 0;
};

std::optional<int> read(arguments& into, int argc, char const* const* argv) {
  CLI::App app("Asks a model questions with known answers, with each method and each number of image tokens.", "llava_eval");
  app.add_option("--model", into.model, "folder of a Hugging Face LLaVA checkpoint")->required()->check(CLI::ExistingDirectory);
  app.add_option("--questions", into.questions, "file of lines {image, question, answer, kind}; repeatable")
      ->required()
      ->check(CLI::ExistingFile);
  app.add_option("--methods", into.methods, "how image tokens are reduced")
      ->delimiter(',')
      ->check(CLI::IsMember(llava::method_names()))
      ->capture_default_str();
  CLI::Option* const tokens = app.add_option("--tokens", into.tokens, "image tokens of each image, counted as --tokens-as says")
                                  ->delimiter(',')
                                  ->check(CLI::Range(1, 1 << 20))
                                  ->capture_default_str();
  llava::add_stage_options(app, into.reduce);
  CLI::Option* const thresholds = app.get_option("--thresholds")->excludes(tokens);
  app.add_option("--max-new-tokens", into.max_new_tokens, "longest answer (0: as the model says)")->check(CLI::Range(0, 1 << 20));
  app.add_option("--limit", into.limit, "only the first so many questions of each kind (0: all)")->check(CLI::Range(0, 1 << 30));
  app.add_option("--jobs", into.jobs, "questions at once; changes times, not answers")->check(CLI::Range(1, 1024))->capture_default_str();
  app.add_option("--json", into.json, "where to write the rows as a JSON list");
  app.add_option("--csv", into.csv, "where to write the rows as CSV");
  app.add_option("--resume", into.resume, "file of finished questions: goes on with what is there, and adds to it");
  auto const done = llava::parse(app, argc, argv);
  if (!done && thresholds->count() > 0) { into.tokens = {0}; }
  return done;
}

/// Finds out before the work, not after it, whether results can be written.
void check_outputs(arguments const& given) {
  std::set<std::string> seen;
  for (std::string const& path : {given.json, given.csv, given.resume}) {
    if (path.empty()) { continue; }
    if (!seen.insert(fs::weakly_canonical(path).string()).second) {
      throw llava::input_error(llava::one_line(path) + ": named for two outputs");
    }
    if (!std::ofstream(path, std::ios::app)) { throw llava::input_error(llava::one_line(path) + ": cannot be written"); }
  }
}

void write(std::string const& path, std::string const& text) {
  if (path.empty()) { return; }
  std::ofstream file(path, std::ios::binary);
  if (!(file << text << std::flush)) { throw llava::input_error(llava::one_line(path) + ": cannot be written"); }
}

/// Everything that an answer depends on, apart from the question, the method and the tokens.
llava::eval_state::settings settings_of(arguments const& given) {
  fs::path const folder = fs::canonical(given.model);
  std::uintmax_t bytes = 0;
  long long newest = 0;
  for (fs::directory_entry const& entry : fs::directory_iterator(folder)) {
    if (!entry.is_regular_file()) { continue; }
    bytes += entry.file_size();
    newest = std::max<long long>(newest, entry.last_write_time().time_since_epoch().count());
  }
  llava::eval_state::settings out = {{"model", folder.string()},
                                     {"model files", std::to_string(bytes) + " bytes, changed " + std::to_string(newest)},
                                     {"max-new-tokens", std::to_string(given.max_new_tokens)}};
  for (auto const& setting : llava::describe(given.reduce)) { out.push_back(setting); }
  return out;
}

void run(arguments const& given) {
  std::vector<llava::question> questions;
  for (std::string const& path : given.questions) {
    std::vector<llava::question> const more = llava::read_questions(path);
    questions.insert(questions.end(), more.begin(), more.end());
  }
  if (given.limit > 0) { questions = llava::first_of_each_kind(questions, given.limit); }
  std::vector<llava::method> methods;
  for (std::string const& name : given.methods) { methods.push_back(llava::method_named(name)); }
  std::vector<llava::trial> const trials = llava::trials_of(methods, given.tokens);
  llava::reduction reduce = given.reduce;
  for (llava::trial const& trial : trials) {
    reduce.method = trial.method, reduce.tokens = trial.tokens;
    llava::check(reduce);
  }
  check_outputs(given);
  std::optional<llava::eval_state> state;
  if (!given.resume.empty()) { state.emplace(given.resume, settings_of(given)); }

  llava::model const model(given.model, llava::show_loading);
  auto const answer = [&](llava::question const& question, llava::method method, int tokens) {
    llava::request ask;
    ask.images = {question.image};
    ask.prompt = question.text;
    ask.reduce = given.reduce;
    ask.reduce.method = method, ask.reduce.tokens = tokens;
    ask.max_new_tokens = given.max_new_tokens;
    return llava::run(model, ask);
  };
  llava::progress_bar bar("asking");
  auto const outcomes = llava::evaluate(questions, trials, answer, given.jobs, state ? &*state : nullptr,
                                        [&](long done, long total) { bar.show(done, total); });
  std::vector<llava::eval_row> const rows = llava::rows_of(questions, trials, outcomes);
  write(given.json, llava::rows_as_json(rows));
  write(given.csv, llava::rows_as_csv(rows));
  std::cout << llava::rows_as_table(rows) << std::flush;
}

}  // namespace

int main(int argc, char** argv) {
  return llava::exit_code("llava_eval", [&] {
    arguments given;
    if (auto const done = read(given, argc, argv)) { return *done; }
    run(given);
    return 0;
  });
}
