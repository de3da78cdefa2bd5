// SPDX-License-Identifier: Apache-2.0
// llama_scale: what fewer image tokens save in llama.cpp, in time to the first token, time of a further token and KV cache, at a model's real size.
// Weights and pictures may be random (random_gguf.py): times depend on shapes. No vision encoder runs; what chooses its rows does.
//   llama_scale --model llava_7b_shape.gguf --case 576:192,128,64 --case 2880:320 --runs 5 --threads 2 --json scale.json

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <mustdrop/budget.hpp>
#include <mustdrop/cpu/cls_topk.hpp>
#include <mustdrop/cpu/top_k.hpp>
#include <mustdrop/cpu/window_merge.hpp>
#include <mustdrop/cpu/window_similarity.hpp>
#include <mustdrop/method/mustdrop.hpp>
#include <nlohmann/json.hpp>

#include "buffers.hpp"
#include "error.hpp"
#include "options.hpp"
#include "session.hpp"

namespace {

using namespace mustdrop_llama;
using llava::input_error;
using json = nlohmann::ordered_json;

constexpr md::index_t crop = 576, side = 24, vision_width = 1024, vision_heads = 16;  // of CLIP-L at 336 pixels

struct arguments {
  std::string model, json_file;
  std::vector<std::string> cases = {"576:192,128,64", "2880:320"};
  int runs = 5, text = 55, new_tokens = 9;
  bool repack = false;
  setup how;
};

struct picture_case {
  int total = 0;
  std::vector<int> tokens;
};

picture_case parsed(std::string const& text) {
  picture_case out;
  char* at = nullptr;
  out.total = static_cast<int>(std::strtol(text.c_str(), &at, 10));
  while (*at == ':' || *at == ',') { out.tokens.push_back(static_cast<int>(std::strtol(at + 1, &at, 10))); }
  bool const good =
      *at == '\0' && out.total > 0 && out.total <= 1 << 16 && out.total % crop == 0 && !out.tokens.empty() &&
      std::all_of(out.tokens.begin(), out.tokens.end(), [&](int n) { return n > 0 && n < out.total && n % (out.total / crop) == 0; });
  if (!good) { throw input_error("--case " + text + ": image tokens (a multiple of 576), a colon, budgets that the crops share evenly"); }
  return out;
}

std::vector<float> noise(std::size_t count, float spread, unsigned seed) {
  std::mt19937 bits(seed);
  std::normal_distribution<float> draw(0, spread);
  std::vector<float> out(count);
  for (auto& x : out) { x = draw(bits); }
  return out;
}

/// What a vision encoder would tell of a picture of crops.
struct encoded {
  int crops;
  std::vector<float> features, attention;  // [crops · 576, 1024]; of CLS [16, crops · 576]

  explicit encoded(int total)
      : crops(total / static_cast<int>(crop)),
        features(noise(static_cast<std::size_t>(total) * static_cast<std::size_t>(vision_width), 1, 2)),
        attention(noise(static_cast<std::size_t>(total) * static_cast<std::size_t>(vision_heads), 1, 3)) {
    for (auto& a : attention) { a = std::abs(a) / 576; }
  }
};

/// Stage 1 on all crops at once: a quarter of the windows merge, then the rows of each crop that CLS attends to most, and the key set of them. Which
/// rows they are is nobody's business here.
void choose(llava::computer& on, encoded const& from, int tokens) {
  md::index_t const n = from.crops * crop, windows = 64;
  std::vector<std::int32_t> offsets, counts(static_cast<std::size_t>(from.crops)), source(static_cast<std::size_t>(n));
  for (int c = 0; c <= from.crops; ++c) { offsets.push_back(c * static_cast<std::int32_t>(crop)); }
  md::segments const segments{from.crops, offsets.data(), nullptr, crop};
  std::vector<md::token_grid> const grids(static_cast<std::size_t>(from.crops), {side, side, 1, 0, 0});
  md::merge_options merge;
  merge.count = std::min(windows / 4, (crop - tokens / from.crops) / 8);
  std::vector<float> similarity(static_cast<std::size_t>(from.crops * windows)), rows(from.features.size()), sizes(source.size()),
      mean(source.size());
  llava::keep_memory anchors(from.crops, crop), keep(from.crops, tokens / from.crops),
      key(from.crops, md::key_set_size(tokens / from.crops));
  llava::aligned_buffer scratch(md::method::merge_similar_workspace_size(on.words, {}, n, vision_width, windows, segments));
  llava::check(md::method::merge_similar(on.words, merge, {}, md::view(from.features.data(), n, vision_width), segments,
                                         md::view(grids.data(), grids.size()), {}, md::view(similarity.data(), from.crops, windows),
                                         md::view(rows.data(), n, vision_width), md::view(sizes.data(), n), md::view(source.data(), n),
                                         anchors.lists(), scratch.lend()),
               "merge_similar");
  for (md::index_t h = 0; h < vision_heads; ++h) {
    for (md::index_t t = 0; t < n; ++t) {
      mean[static_cast<std::size_t>(t)] += from.attention[static_cast<std::size_t>(h * n + t)] / vision_heads;
    }
  }
  scratch.grow(md::top_k_workspace_size(on.words, n, segments));
  for (auto* const list : {&keep, &key}) {
    llava::check(md::top_k(on.words, {}, md::view(std::as_const(mean).data(), n), segments, {}, list->lists(), scratch.lend()), "top_k");
  }
}

/// Rows of a picture that had `places`, evenly.
prompt with(int places, int rows, int text, int width, int vocabulary) {
  prompt out;
  std::mt19937 bits(5);
  for (int i = 0; i < text; ++i) {
    (i < 5 ? out.before : out.after).push_back(static_cast<llama_token>(bits() % static_cast<unsigned>(vocabulary)));
  }
  out.image.rows = noise(static_cast<std::size_t>(rows) * static_cast<std::size_t>(width), 0.02f, 4), out.image.places = places;
  for (int r = 0; r < rows; ++r) { out.image.at.push_back(static_cast<std::int32_t>(std::int64_t{r} * places / rows)); }
  for (int r = 0; r < static_cast<int>(md::key_set_size(rows)); ++r) { out.image.key_set.push_back(r); }
  return out;
}

/// One way to answer about a picture: plain llama.cpp; the observer with nothing dropped, or with what is dropped after the batch; a budget before it.
struct arm {
  int tokens;  // in the batch
  int left;    // of them after the prefill; 0: llama.cpp alone
  std::vector<double> first = {}, next = {}, ours = {}, drop = {};
  answer last = {};
};

void measure(arguments const& given, llama_model* model, encoded const& picture, arm& a, bool counts) {
  int const total = picture.crops * static_cast<int>(crop);
  setup how = given.how;
  how.context = total + given.text + given.new_tokens, how.ubatch = std::min(how.ubatch, how.context);
  how.observe = a.left > 0;
  session s(model, how);
  bool const fewer = a.tokens < total;
  prompt const ask = with(total, a.tokens, given.text, llama_model_n_embd_inp(model), llama_vocab_n_tokens(llama_model_get_vocab(model)));
  double chosen = 0;
  if (fewer) {
    llava::computer on(how.threads);
    llava::stopwatch const time(chosen);
    choose(on, picture, a.tokens);
  }
  dropping drop;
  drop.after_prefill = a.left;
  a.last = s.run(ask, drop, nullptr, given.new_tokens);
  std::printf("%d of %d, then %d: first token %.1f ms, of which ours %.3f; then %.2f ms of dropping; next %.2f ms each%s\n", a.tokens,
              total, how.observe ? a.left : total, chosen + a.last.prefill_ms, chosen + a.last.reduction_ms, a.last.drop_ms,
              a.last.decode_ms_per_token, counts ? "" : " (warming up)");
  std::fflush(stdout);
  if (!counts) { return; }
  a.first.push_back(chosen + a.last.prefill_ms), a.next.push_back(a.last.decode_ms_per_token);
  a.ours.push_back(chosen + a.last.reduction_ms), a.drop.push_back(a.last.drop_ms);
}

/// What a case's arms took so far.
json rows_of(llama_model* model, int total, std::vector<arm> const& arms) {
  auto const head = llama_model_n_embd(model) / llama_model_n_head(model);
  double const cell_bytes = 2.0 * 2 * llama_model_n_layer(model) * llama_model_n_head_kv(model) * head;  // K and V, f16
  json rows = json::array();
  for (auto const& a : arms) {
    rows.push_back({{"image_tokens", total},
                    {"tokens", a.tokens},
                    {"left", a.left > 0 ? json(a.left) : json()},
                    {"first_token_ms", a.first},
                    {"next_token_ms", a.next},
                    {"ours_ms", a.ours},
                    {"drop_ms", a.drop},
                    {"cells_attended_prefill", a.left > 0 ? json(a.last.attended_before) : json()},  // only the observer knows
                    {"cells_attended_end", a.left > 0 ? json(a.last.attended_after) : json()},
                    {"kv_bytes_prefill", cell_bytes * a.last.cells_before},
                    {"kv_bytes_end", cell_bytes * a.last.cells_after}});
  }
  return rows;
}

void write(arguments const& given, llama_model* model, json const& rows) {
  if (given.json_file.empty()) { return; }
  json const result{{"model_bytes", llama_model_size(model)},
                    {"threads", given.how.threads},
                    {"ubatch", given.how.ubatch},
                    {"text_tokens", given.text},
                    {"new_tokens", given.new_tokens},
                    {"repacked", given.repack},
                    {"llama_cpp", {{"ggml", ggml_version()}, {"commit", ggml_commit()}, {"system", llama_print_system_info()}}},
                    {"rows", rows}};
  if (!(std::ofstream(given.json_file) << result.dump(1) << '\n' << std::flush)) {
    throw input_error(given.json_file + ": cannot be written");
  }
}

int run(int argc, char const* const* argv) {
  arguments given;
  given.how.ubatch = 512;  // llama.cpp's own
  CLI::App app("Times of a language model in llama.cpp with all image tokens and with fewer.", "llama_scale");
  app.add_option("--model", given.model, "the language model, a GGUF")->required()->check(CLI::ExistingFile);
  app.add_option("--case", given.cases, "image tokens and budgets, TOTAL:N,N,…; repeatable")->capture_default_str();
  app.add_option("--runs", given.runs, "rounds, each of all ways in turn")->check(CLI::Range(1, 1000))->capture_default_str();
  app.add_option("--text", given.text, "text tokens around the picture")->check(CLI::Range(7, 4096))->capture_default_str();
  app.add_option("--new-tokens", given.new_tokens, "length of the answer")->check(CLI::Range(2, 4096))->capture_default_str();
  app.add_option("--threads", given.how.threads, "for everything")->check(CLI::Range(1, GGML_MAX_N_THREADS))->capture_default_str();
  app.add_option("--ubatch", given.how.ubatch, "tokens that llama.cpp runs at once")->check(CLI::Range(1, 1 << 20))->capture_default_str();
  app.add_flag("--repack", given.repack,
               "weights in the order that the processor wants, as llama.cpp does by itself; stops on some virtual machines");
  app.add_option("--json", given.json_file, "where to write the rows, after each round");
  if (auto const done = llava::parse(app, argc, argv)) { return *done; }
  std::vector<picture_case> cases;
  for (auto const& text : given.cases) { cases.push_back(parsed(text)); }
  model_pointer const model = load_model(given.model, given.repack);
  json done = json::array(), so_far;
  for (auto const& c : cases) {
    std::vector<arm> arms{{c.total, 0}, {c.total, c.total}, {c.total, c.tokens.back()}};
    for (int const n : c.tokens) { arms.push_back({n, std::max(1, n / 2)}); }
    encoded const picture(c.total);
    measure(given, model.get(), picture, arms.back(), false);  // weights come from the disk, pages from the kernel
    for (int run = 0; run < given.runs; ++run) {
      for (std::size_t i = 0; i < arms.size(); ++i) {
        measure(given, model.get(), picture, arms[(i + static_cast<std::size_t>(run)) % arms.size()], true);  // each comes first once
      }
      so_far = done;
      for (auto& row : rows_of(model.get(), c.total, arms)) { so_far.push_back(row); }
      write(given, model.get(), so_far);  // after each round: they are long
    }
    done = so_far;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return llava::exit_code("llama_scale", [&] { return run(argc, argv); });
}
