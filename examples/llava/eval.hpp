// SPDX-License-Identifier: Apache-2.0
#pragma once

// Questions with known answers, asked with several methods and numbers of tokens. The model is somebody else's: a callable that answers.

#include <fstream>
#include <functional>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "result.hpp"
#include "run.hpp"

namespace llava {

struct question {
  std::string image;  // where it is
  std::string text, answer, kind;
  std::string place;  // "scenes.jsonl:12", for messages
};

/// A file of lines {"image", "question", "answer", "kind"}, images relative to the file. Blank lines are skipped. Throws input_error, with the
/// line's number, for a line that is something else or names an image that is not there.
std::vector<question> read_questions(std::string const& path);

/// The first COUNT of each kind, in their order.
std::vector<question> first_of_each_kind(std::vector<question> const& questions, int count);

/// One method with one number of tokens (0: what thresholds leave; `none` always has 0).
struct trial {
  llava::method method = method::none;
  int tokens = 0;
};

/// Each method with each number, in order; `none` and repetitions once.
std::vector<trial> trials_of(std::vector<method> const& methods, std::vector<int> const& tokens);

/// What is kept of a run.
struct outcome {
  std::string answer;
  int patches = 0;
  double average_tokens = 0, ttft_ms = 0;
};

/// A file to which each finished question is added as a line, so that an interrupted evaluation goes on where it was.
class eval_state {
 public:
  using settings = std::vector<std::pair<std::string, std::string>>;

  /// Opens or creates PATH. Throws input_error if it was made with other settings, or is another file. A line cut short by an interruption is cut off.
  eval_state(std::string const& path, settings const& made_with);

  outcome const* find(trial const& trial, question const& question) const;
  void add(trial const& trial, question const& question, outcome const& outcome);

 private:
  using key = std::tuple<std::string, int, std::string, std::string>;  // method, tokens, image, question

  static key key_of(trial const& trial, question const& question);
  void read(std::string const& text, std::string const& path, settings const& made_with);

  std::map<key, outcome> done_;
  std::ofstream file_;
  std::string path_;
};

/// Called from several threads at once if there are several jobs.
using answerer = std::function<run_result(question const&, method, int tokens)>;

/// outcomes[trial][question], the same for every number of jobs (times aside). The first question, in order, that the answerer threw for is named in
/// the input_error thrown on. `state` may be null; `progress(done, total)` may be empty.
std::vector<std::vector<outcome>> evaluate(std::vector<question> const& questions, std::vector<trial> const& trials, answerer const& answer,
                                           int jobs, eval_state* state, std::function<void(long, long)> const& progress);

/// One row a kind, in order of appearance, then one for "all".
struct eval_row {
  std::string method;
  int tokens = 0;  // `none`: all patches
  std::string kind;
  int correct = 0, total = 0;
  double accuracy = 0, low = 0, high = 0;  // Wilson's interval, 95 %
  double average_tokens = 0;               // mean over the questions
  double ttft_ms = 0;                      // median
};

std::vector<eval_row> rows_of(std::vector<question> const& questions, std::vector<trial> const& trials,
                              std::vector<std::vector<outcome>> const& outcomes);

std::string rows_as_json(std::vector<eval_row> const& rows);
std::string rows_as_csv(std::vector<eval_row> const& rows);
/// For a terminal: a line a trial, a column a kind.
std::string rows_as_table(std::vector<eval_row> const& rows);

struct interval {
  double low = 0, high = 0;
};

/// Wilson's score interval, 95 %.
interval wilson(int correct, int total);

}  // namespace llava
