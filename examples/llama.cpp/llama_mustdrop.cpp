// SPDX-License-Identifier: Apache-2.0
// llama_mustdrop: a question about a picture to a model in llama.cpp, with fewer image tokens; or many questions, and how often they are answered.
//   llama_mustdrop --model tiny.gguf --vision examples/llava/tiny/model --image scene.png --prompt "what is at the top right?" --method mustdrop --tokens 64
//   llama_mustdrop --model model.gguf --mmproj mmproj.gguf --image photo.jpg --prompt "What is this?" --method before --tokens 192

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <map>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "error.hpp"
#include "eval.hpp"
#include "options.hpp"
#include "session.hpp"

namespace {

using namespace mustdrop_llama;
using llava::input_error;
using json = nlohmann::ordered_json;

struct arguments {
  std::string model, vision, mmproj, image, prompt, method = "mustdrop", cache = "f16", positions = "kept", json_file;
  std::vector<std::string> questions, methods = {"none", "before", "after", "mustdrop"};
  std::vector<int> tokens = {64};
  int left = 0, kv_budget = 0, max_new_tokens = 64, limit = 0;
  bool holes = false, flash_off = false, compare = false;
  setup how;
};

/// Which part of the reduction a method is: rows in the batch (0: all), and rows left after the prefill (0: all of these).
struct counts {
  int before = 0, after = 0;
};

counts counts_of(std::string const& method, int tokens, int left) {
  if (method == "before") { return {tokens, 0}; }
  if (method == "after") { return {0, tokens}; }
  if (method == "mustdrop") { return {tokens, left > 0 ? std::min(left, tokens) : std::max(1, tokens / 2)}; }
  return {};
}

struct outcome {
  prompt ask;
  answer got;
  std::string text;
};

outcome run(session& on, front& who, arguments const& given, std::string const& image, std::string const& question,
            std::string const& method, int tokens) {
  counts const n = counts_of(method, tokens, given.left);
  outcome out;
  out.ask = who.ask(image, question, n.before);
  dropping how;
  how.after_prefill = std::min(n.after, static_cast<int>(out.ask.image.at.size()));
  how.kv_budget = method == "none" ? 0 : given.kv_budget;
  how.compact = !given.holes, how.positions = given.positions == "renumber" ? position_rule::renumber
                                              : given.positions == "moved"  ? position_rule::moved
                                                                            : position_rule::kept;
  out.got = on.run(out.ask, how, &who, given.max_new_tokens);
  out.text = who.text(out.got.ids);
  return out;
}

char const* name(position_rule rule) { return rule == position_rule::kept ? "kept" : rule == position_rule::moved ? "moved" : "renumber"; }

json as_json(outcome const& o, std::string const& method) {
  answer const& a = o.got;
  picture const& p = o.ask.image;
  return {{"answer", o.text},
          {"method", method},
          {"image_tokens", {{"total", p.places}, {"prefill", p.at.size()}, {"decode", a.image.size()}}},
          {"positions", name(a.positions)},
          {"prompt_tokens", a.cells_before},
          {"new_tokens", a.ids.size()},
          {"ttft_ms", p.encode_ms + p.reduction_ms + a.prefill_ms},
          {"ms",
           {{"encode", p.encode_ms},
            {"reduction_before", p.reduction_ms},
            {"prefill", a.prefill_ms},
            {"observer", a.reduction_ms},
            {"drop", a.drop_ms},
            {"decode_per_token", a.decode_ms_per_token}}},
          {"kv_cells",
           {{"before", a.cells_before},
            {"after", a.cells_after},
            {"attended_before", a.attended_before > 0 ? json(a.attended_before) : json()},  // only an observer knows
            {"attended_after", a.attended_after > 0 ? json(a.attended_after) : json()}}}};
}

void print(outcome const& o, std::string const& method) {
  answer const& a = o.got;
  picture const& p = o.ask.image;
  std::printf("answer        %s\n", llava::one_line(o.text).c_str());
  std::printf("image tokens  %d, %zu in the batch, %zu in decode (%s, positions %s)\n", p.places, p.at.size(), a.image.size(),
              method.c_str(), name(a.positions));
  std::printf("first token   %.1f ms: encoder %.1f, reduction %.2f, prefill %.1f (of which observing %.2f)\n",
              p.encode_ms + p.reduction_ms + a.prefill_ms, p.encode_ms, p.reduction_ms, a.prefill_ms, a.reduction_ms);
  std::printf("next tokens   %.2f ms each, after %.2f ms of dropping\n", a.decode_ms_per_token, a.drop_ms);
  std::printf("KV cells      %d used before, %d after", a.cells_before, a.cells_after);
  if (a.attended_before > 0) { std::printf("; attention over %d before, %d after", a.attended_before, a.attended_after); }
  std::printf("\n");
}

std::optional<int> read(arguments& into, int argc, char const* const* argv) {
  CLI::App app("Asks a model in llama.cpp about pictures, with fewer image tokens.", "llama_mustdrop");
  app.add_option("--model", into.model, "the language model, a GGUF")->required()->check(CLI::ExistingFile);
  CLI::Option* const vision =
      app.add_option("--vision", into.vision, "folder of the Hugging Face checkpoint whose vision tower and tokenizer to use")
          ->check(CLI::ExistingDirectory);
  app.add_option("--mmproj", into.mmproj, "or a vision encoder for libmtmd, a GGUF")->check(CLI::ExistingFile)->excludes(vision);
  app.add_option("--image", into.image, "a picture")->check(CLI::ExistingFile);
  app.add_option("--prompt", into.prompt, "a question");
  app.add_option("--questions", into.questions, "instead: a file of lines {image, question, answer, kind}; repeatable")
      ->check(CLI::ExistingFile);
  app.add_option("--limit", into.limit, "of --questions: only the first so many of each kind")->check(CLI::Range(0, 1 << 30));
  app.add_option("--methods", into.methods, "of --questions")
      ->delimiter(',')
      ->check(CLI::IsMember({"none", "before", "after", "mustdrop"}));
  app.add_option("--method", into.method, "where image tokens leave: none, before the batch, after the prefill, or both (mustdrop)")
      ->check(CLI::IsMember({"none", "before", "after", "mustdrop"}))
      ->capture_default_str();
  app.add_option("--tokens", into.tokens, "image tokens: in the batch, or with `after` those left after it")
      ->delimiter(',')
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--left", into.left, "of mustdrop: image tokens left after the prefill (default: half of --tokens)")
      ->check(CLI::Range(1, 1 << 20));
  app.add_option("--kv-budget", into.kv_budget,
                 "tokens that decode keeps in the cache, by what the answer attends to; text, key set, the first 4 and the latest 32 stay "
                 "in any case")
      ->check(CLI::Range(1, 1 << 20));
  app.add_option("--positions", into.positions, "kept where the model can, moved after the batch, or renumber")
      ->check(CLI::IsMember({"kept", "moved", "renumber"}))
      ->capture_default_str();
  app.add_option("--cache", into.cache, "type of the cached keys")->check(CLI::IsMember({"f32", "f16", "q8_0"}))->capture_default_str();
  app.add_option("--prune-after", into.how.prune_after, "layers whose attention decides (default: as fits the depth)")
      ->delimiter(',')
      ->check(CLI::Range(0, 1 << 16));
  app.add_flag("--holes", into.holes, "leave dropped tokens' cells where they are, unused");
  app.add_flag("--flash-attention-off", into.flash_off, "llama.cpp makes a map, and scores are read off it");
  app.add_option("--threads", into.how.threads, "for llama.cpp, the encoder and the library")
      ->check(CLI::Range(1, GGML_MAX_N_THREADS))
      ->capture_default_str();
  app.add_option("--context", into.how.context, "cells of the cache, rounded up to a multiple of 256")
      ->check(CLI::Range(16, 1 << 20))
      ->capture_default_str();
  app.add_option("--ubatch", into.how.ubatch, "tokens that llama.cpp runs at once")->check(CLI::Range(1, 1 << 20))->capture_default_str();
  app.add_option("--max-new-tokens", into.max_new_tokens, "longest answer")->check(CLI::Range(1, 1 << 16))->capture_default_str();
  app.add_option("--json", into.json_file, "where to write the result as JSON");
  app.add_flag("--compare", into.compare, "of --questions and --vision: how many answers of `none` equal examples/llava's")->needs(vision);
  auto const done = llava::parse(app, argc, argv);
  if (done) { return done; }
  into.how.flash_attention = !into.flash_off;
  into.how.cache = into.cache == "f32" ? GGML_TYPE_F32 : into.cache == "q8_0" ? GGML_TYPE_Q8_0 : GGML_TYPE_F16;
  if (into.vision.empty() && into.mmproj.empty()) { throw input_error("--vision or --mmproj is needed"); }
  if (into.questions.empty() == (into.image.empty() || into.prompt.empty())) { throw input_error("--image and --prompt, or --questions"); }
  if (into.questions.empty() && into.tokens.size() > 1) { throw input_error("--tokens takes several numbers with --questions only"); }
  return std::nullopt;
}

/// Percent of right answers, a line a method and number of tokens.
json evaluate(arguments const& given, session& on, front& who) {
  std::vector<llava::question> questions;
  for (auto const& path : given.questions) {
    auto const more = llava::read_questions(path);
    questions.insert(questions.end(), more.begin(), more.end());
  }
  if (given.limit > 0) { questions = llava::first_of_each_kind(questions, given.limit); }
  std::optional<llava::model> model;
  if (given.compare) { model.emplace(given.vision); }
  json rows = json::array();
  for (auto const& method : given.methods) {
    for (int const tokens : method == "none" ? std::vector<int>{0} : given.tokens) {
      std::map<std::string, std::pair<int, int>> kinds;  // right, asked
      int same = 0;
      for (auto const& q : questions) {
        outcome const o = run(on, who, given, q.image, q.text, method, tokens);
        kinds[q.kind].first += o.text == q.answer, ++kinds[q.kind].second;
        kinds["all"].first += o.text == q.answer, ++kinds["all"].second;
        if (model && method == "none") {
          llava::request ask;
          ask.images = {q.image}, ask.prompt = q.text, ask.threads = given.how.threads;
          same += llava::run(*model, ask).answer == o.text;
        }
      }
      json row{{"method", method}, {"tokens", tokens}};
      for (auto const& [kind, n] : kinds) { row[kind] = {n.first, n.second}; }
      double mean = 0;
      for (auto const* const kind : {"what-at", "is-there", "how-many", "where"}) {
        if (kinds.count(kind) > 0) { mean += 25.0 * kinds[kind].first / kinds[kind].second; }
      }
      row["mean_of_4"] = mean;
      std::printf("%-9s %4d  mean of 4 %5.1f  all %5.1f", method.c_str(), tokens, mean, 100.0 * kinds["all"].first / kinds["all"].second);
      if (model && method == "none") {
        row["same_as_llava"] = {same, questions.size()}, std::printf("  same as examples/llava %d of %zu", same, questions.size());
      }
      std::printf("\n");
      std::fflush(stdout);
      rows.push_back(row);
    }
  }
  return rows;
}

void run(arguments const& given) {
  model_pointer const model = load_model(given.model);
  setup how = given.how;
  how.observe = !given.questions.empty() || given.method != "none";
  session on(model.get(), how);
  auto const who = given.vision.empty() ? mtmd_front(model.get(), given.mmproj, how.threads) : checkpoint_front(given.vision, how.threads);
  json result;
  if (!given.questions.empty()) {
    result = evaluate(given, on, *who);
  } else {
    outcome const o = run(on, *who, given, given.image, given.prompt, given.method, given.tokens[0]);
    print(o, given.method);
    result = as_json(o, given.method);
  }
  if (!given.json_file.empty() && !(std::ofstream(given.json_file) << result.dump(1) << '\n' << std::flush)) {
    throw input_error(given.json_file + ": cannot be written");
  }
}

}  // namespace

int main(int argc, char** argv) {
  return llava::exit_code("llama_mustdrop", [&] {
    arguments given;
    if (auto const done = read(given, argc, argv)) { return *done; }
    run(given);
    return 0;
  });
}
