// SPDX-License-Identifier: Apache-2.0
#include "eval.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <iterator>
#include <mutex>
#include <sstream>
#include <thread>

#include <nlohmann/json.hpp>

#include "error.hpp"
#include "options.hpp"

namespace llava {
namespace {

namespace fs = std::filesystem;
using json = nlohmann::ordered_json;

constexpr std::size_t longest_line = 1 << 20;

std::string dumped(json const& value) { return value.dump(-1, ' ', false, json::error_handler_t::replace); }

std::string read_all(std::string const& path) {
  std::error_code error;
  std::ifstream file(path, std::ios::binary);
  if (!file || fs::is_directory(path, error)) { throw input_error(one_line(path) + ": cannot be read"); }
  return {std::istreambuf_iterator<char>(file), {}};
}

json object_of(std::string const& line, std::string const& place) {
  if (line.size() > longest_line) { throw input_error(place + ": longer than a line of questions can be"); }
  json out = json::parse(line, nullptr, false);
  if (out.is_discarded()) { throw input_error(place + ": not JSON"); }
  if (!out.is_object()) { throw input_error(place + ": not a JSON object"); }
  return out;
}

std::string text_at(json const& object, char const* key, std::string const& place) {
  auto const found = object.find(key);
  if (found == object.end()) { throw input_error(place + ": no \"" + key + "\""); }
  if (!found->is_string()) { throw input_error(place + ": \"" + key + "\" is not a text"); }
  std::string out = found->get<std::string>();
  if (out.empty()) { throw input_error(place + ": \"" + key + "\" is empty"); }
  if (out.find('\0') != std::string::npos) { throw input_error(place + ": \"" + key + "\" has a zero byte"); }
  return out;
}

question question_of_line(std::string const& line, fs::path const& folder, std::string const& place) {
  json const object = object_of(line, place);
  question out;
  out.text = text_at(object, "question", place);
  out.answer = text_at(object, "answer", place);
  out.kind = text_at(object, "kind", place);
  out.image = (folder / text_at(object, "image", place)).string();
  out.place = place;
  if (out.text.find("<image>") != std::string::npos) { throw input_error(place + ": \"question\" must not have <image> in it"); }
  if (out.kind == "all") { throw input_error(place + ": \"kind\" must not be all, which stands for every kind"); }
  std::error_code error;
  if (!fs::is_regular_file(out.image, error)) { throw input_error(place + ": " + one_line(out.image) + " is not a file"); }
  return out;
}

}  // namespace

std::vector<question> read_questions(std::string const& path) {
  std::string const text = read_all(path);
  std::vector<question> out;
  std::istringstream lines(text);
  std::string line;
  for (int number = 1; std::getline(lines, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) { continue; }
    out.push_back(question_of_line(line, fs::path(path).parent_path(), one_line(path) + ":" + std::to_string(number)));
  }
  if (out.empty()) { throw input_error(one_line(path) + ": no questions"); }
  return out;
}

std::vector<question> first_of_each_kind(std::vector<question> const& questions, int count) {
  std::map<std::string, int> taken;
  std::vector<question> out;
  for (question const& question : questions) {
    if (taken[question.kind]++ < count) { out.push_back(question); }
  }
  return out;
}

std::vector<trial> trials_of(std::vector<method> const& methods, std::vector<int> const& tokens) {
  std::vector<trial> out;
  auto const add = [&](method method, int count) {
    bool const there = std::any_of(out.begin(), out.end(), [&](trial const& t) { return t.method == method && t.tokens == count; });
    if (!there) { out.push_back({method, count}); }
  };
  for (method const method : methods) {
    if (method == method::none) {
      add(method, 0);
    } else {
      for (int const count : tokens) { add(method, count); }
    }
  }
  return out;
}

// State -------------------------------------------------------------------------------------------------------------------------------

eval_state::key eval_state::key_of(trial const& trial, question const& question) {
  return {name_of(trial.method), trial.tokens, fs::weakly_canonical(question.image).string(), question.text};
}

void eval_state::read(std::string const& text, std::string const& path, settings const& made_with) {
  std::istringstream lines(text);
  std::string line;
  for (int number = 1; std::getline(lines, line); ++number) {
    std::string const place = one_line(path) + ":" + std::to_string(number);
    json const object = object_of(line, place);
    try {
      if (number > 1) {
        done_[{object.at("method"), object.at("tokens"), object.at("image"), object.at("question")}] = {
            object.at("answer"), object.at("patches"), object.at("average_tokens"), object.at("ttft_ms")};
        continue;
      }
      json const& before = object.at("llava_eval");
      for (auto const& [name, value] : made_with) {
        std::string const old = before.at(name);
        if (old == value) { continue; }
        throw input_error(one_line(path) + ": was begun with " + name + " " + one_line(old) + ", not " + one_line(value) +
                          "; name another file or remove it");
      }
    } catch (json::exception const&) { throw input_error(place + ": not a line of llava_eval"); }
  }
}

eval_state::eval_state(std::string const& path, settings const& made_with) : path_(one_line(path)) {
  bool const begun = fs::exists(path) && (!fs::is_regular_file(path) || fs::file_size(path) > 0);
  if (begun) {
    std::string text = read_all(path);
    std::size_t const whole = text.rfind('\n') == std::string::npos ? 0 : text.rfind('\n') + 1;
    if (whole == 0) { throw input_error(path_ + ":1: not a line of llava_eval"); }
    read(text.substr(0, whole), path, made_with);
    if (whole < text.size()) { fs::resize_file(path, whole); }
  }
  file_.open(path, std::ios::app | std::ios::binary);
  if (!begun) {
    json options;
    for (auto const& [name, value] : made_with) { options[name] = value; }
    file_ << dumped({{"llava_eval", options}}) << '\n' << std::flush;
  }
  if (!file_) { throw input_error(path_ + ": cannot be written"); }
}

outcome const* eval_state::find(trial const& trial, question const& question) const {
  auto const found = done_.find(key_of(trial, question));
  return found == done_.end() ? nullptr : &found->second;
}

void eval_state::add(trial const& trial, question const& question, outcome const& outcome) {
  auto const [method, tokens, image, text] = key_of(trial, question);
  file_ << dumped({{"method", method},
                   {"tokens", tokens},
                   {"image", image},
                   {"question", text},
                   {"answer", outcome.answer},
                   {"patches", outcome.patches},
                   {"average_tokens", outcome.average_tokens},
                   {"ttft_ms", outcome.ttft_ms}}) +
               '\n'
        << std::flush;
  if (!file_) { throw input_error(path_ + ": cannot be written"); }
}

// The loop ----------------------------------------------------------------------------------------------------------------------------

std::vector<std::vector<outcome>> evaluate(std::vector<question> const& questions, std::vector<trial> const& trials, answerer const& answer,
                                           int jobs, eval_state* state, std::function<void(long, long)> const& progress) {
  std::vector<std::vector<outcome>> out(trials.size(), std::vector<outcome>(questions.size()));
  std::vector<std::pair<std::size_t, std::size_t>> open;  // trial, question
  for (std::size_t t = 0; t < trials.size(); ++t) {
    for (std::size_t q = 0; q < questions.size(); ++q) {
      outcome const* const known = state == nullptr ? nullptr : state->find(trials[t], questions[q]);
      if (known == nullptr) {
        open.emplace_back(t, q);
      } else {
        out[t][q] = *known;
      }
    }
  }

  std::mutex writing;
  std::atomic<std::size_t> next{0};
  auto const total = static_cast<long>(trials.size() * questions.size());
  long done = total - static_cast<long>(open.size());
  std::size_t failed = open.size();  // the first in order that did
  std::string failure;
  auto const work = [&] {
    for (std::size_t i; (i = next++) < open.size();) {
      auto const [t, q] = open[i];
      try {
        run_result const run = answer(questions[q], trials[t].method, trials[t].tokens);
        std::lock_guard const lock(writing);
        out[t][q] = {run.answer, run.image_tokens.total, run.image_tokens.average, run.ttft_ms};
        if (state != nullptr) { state->add(trials[t], questions[q], out[t][q]); }
        if (progress) { progress(++done, total); }
      } catch (std::exception const& error) {
        next = open.size();  // those begun before it still end
        std::lock_guard const lock(writing);
        if (i < failed) { failed = i, failure = questions[q].place + ": " + error.what(); }
      }
    }
  };
  std::vector<std::thread> others;
  for (int job = 1; job < std::min<long>(jobs, static_cast<long>(open.size())); ++job) { others.emplace_back(work); }
  work();
  for (std::thread& other : others) { other.join(); }
  if (failed < open.size()) { throw input_error(failure); }
  return out;
}

// Rows --------------------------------------------------------------------------------------------------------------------------------

interval wilson(int correct, int total) {
  if (total <= 0) { return {0, 1}; }
  constexpr double z = 1.959963984540054;  // the normal distribution's 97.5 % quantile
  double const n = total, p = correct / n, shrink = 1 + z * z / n;
  double const centre = (p + z * z / (2 * n)) / shrink, half = z / shrink * std::sqrt(p * (1 - p) / n + z * z / (4 * n * n));
  return {correct == 0 ? 0 : std::max(0.0, centre - half), correct == total ? 1 : std::min(1.0, centre + half)};
}

namespace {

double median(std::vector<double> values) {
  if (values.empty()) { return 0; }
  std::sort(values.begin(), values.end());
  std::size_t const middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

eval_row row_of(std::vector<question> const& questions, trial const& trial, std::vector<outcome> const& outcomes, std::string const& kind) {
  eval_row out;
  out.method = name_of(trial.method);
  out.tokens = trial.tokens;
  out.kind = kind;
  std::vector<double> times;
  for (std::size_t q = 0; q < questions.size(); ++q) {
    if (trial.method == method::none) { out.tokens = std::max(out.tokens, outcomes[q].patches); }
    if (kind != "all" && kind != questions[q].kind) { continue; }
    out.correct += outcomes[q].answer == questions[q].answer ? 1 : 0;
    ++out.total;
    out.average_tokens += outcomes[q].average_tokens;
    times.push_back(outcomes[q].ttft_ms);
  }
  out.accuracy = out.total > 0 ? static_cast<double>(out.correct) / out.total : 0;
  out.average_tokens = out.total > 0 ? out.average_tokens / out.total : 0;
  out.ttft_ms = median(std::move(times));
  interval const between = wilson(out.correct, out.total);
  out.low = between.low, out.high = between.high;
  return out;
}

json as_json(eval_row const& row) {
  return {{"method", row.method},   {"tokens", row.tokens}, {"kind", row.kind},
          {"correct", row.correct}, {"total", row.total},   {"accuracy", row.accuracy},
          {"low", row.low},         {"high", row.high},     {"average_tokens", row.average_tokens},
          {"ttft_ms", row.ttft_ms}};
}

std::string printed(char const* format, double value) {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

std::string padded(std::string const& text, std::size_t width, bool left) {
  std::size_t seen = 0;  // characters, not bytes
  for (char const c : text) { seen += (static_cast<unsigned char>(c) & 0xC0) != 0x80 ? 1 : 0; }
  std::string const space(width > seen ? width - seen : 0, ' ');
  return left ? text + space : space + text;
}

std::size_t width_of(std::string const& text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

}  // namespace

std::vector<eval_row> rows_of(std::vector<question> const& questions, std::vector<trial> const& trials,
                              std::vector<std::vector<outcome>> const& outcomes) {
  std::vector<std::string> kinds;
  for (question const& question : questions) {
    if (std::find(kinds.begin(), kinds.end(), question.kind) == kinds.end()) { kinds.push_back(question.kind); }
  }
  kinds.emplace_back("all");
  std::vector<eval_row> out;
  for (std::size_t t = 0; t < trials.size(); ++t) {
    for (std::string const& kind : kinds) { out.push_back(row_of(questions, trials[t], outcomes[t], kind)); }
  }
  return out;
}

std::string rows_as_json(std::vector<eval_row> const& rows) {
  std::string out = "[";
  for (eval_row const& row : rows) { out += (out.size() == 1 ? "\n" : ",\n") + dumped(as_json(row)); }
  return out + "\n]\n";
}

std::string rows_as_csv(std::vector<eval_row> const& rows) {
  std::string out = "method,tokens,kind,correct,total,accuracy,low,high,average_tokens,ttft_ms\n";
  for (eval_row const& row : rows) {
    std::string line;
    for (json const& value : as_json(row)) {
      std::string cell = value.is_string() ? value.get<std::string>() : dumped(value);
      if (cell.find_first_of(",\"\r\n") != std::string::npos) {
        for (std::size_t at = 0; (at = cell.find('"', at)) != std::string::npos; at += 2) { cell.insert(at, 1, '"'); }
        cell.insert(0, 1, '"').push_back('"');
      }
      line += (line.empty() ? "" : ",") + cell;
    }
    out += line + '\n';
  }
  return out;
}

std::string rows_as_table(std::vector<eval_row> const& rows) {
  std::vector<std::vector<std::string>> lines;
  std::vector<std::string> head = {"method", "tokens"};
  static char const* const scene_kinds[] = {"what-at", "is-there", "how-many", "where"};
  for (std::size_t i = 0; i < rows.size();) {
    std::vector<std::string> line = {rows[i].method, rows[i].tokens > 0 ? std::to_string(rows[i].tokens) : "–"};
    std::map<std::string, double> accuracy;
    for (; rows[i].kind != "all"; ++i) {
      if (lines.empty()) { head.push_back(one_line(rows[i].kind)); }
      line.push_back(printed("%.1f", 100 * rows[i].accuracy));
      accuracy[rows[i].kind] = rows[i].accuracy;
    }
    bool const scenes =
        std::all_of(std::begin(scene_kinds), std::end(scene_kinds), [&](char const* kind) { return accuracy.count(kind) != 0; });
    if (scenes) {
      double sum = 0;
      for (char const* kind : scene_kinds) { sum += accuracy[kind]; }
      line.push_back(printed("%.1f", 100 * sum / 4));
      if (lines.empty()) { head.emplace_back("mean of 4"); }
    }
    eval_row const& all = rows[i++];
    if (lines.empty()) { head.insert(head.end(), {"all", "95 %", "a layer", "ttft ms"}); }
    line.insert(line.end(), {printed("%.1f", 100 * all.accuracy), printed("%.1f", 100 * all.low) + "–" + printed("%.1f", 100 * all.high),
                             printed("%.1f", all.average_tokens), printed("%.1f", all.ttft_ms)});
    lines.push_back(std::move(line));
  }
  lines.insert(lines.begin(), head);
  std::vector<std::size_t> widths(head.size());
  for (auto const& line : lines) {
    for (std::size_t c = 0; c < line.size(); ++c) { widths[c] = std::max(widths[c], width_of(line[c])); }
  }
  std::string out;
  for (auto const& line : lines) {
    for (std::size_t c = 0; c < line.size(); ++c) { out += (c == 0 ? "" : "  ") + padded(line[c], widths[c], c == 0); }
    out += '\n';
  }
  return out;
}

}  // namespace llava
