// SPDX-License-Identifier: Apache-2.0
#include "run.hpp"

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <numeric>

#include <mustdrop/budget.hpp>

#include "buffers.hpp"
#include "error.hpp"

namespace llava {

namespace {

using clock = std::chrono::steady_clock;
double since(clock::time_point begin) { return std::chrono::duration<double, std::milli>(clock::now() - begin).count(); }

/// Options that go together and fit the model.
reduction checked(reduction how, text_config const& t) {
  check(how);
  if (how.prune_after.empty()) { how.prune_after = default_prune_after(t.layers); }
  if (md::check_stages(t.layers, md::view(how.prune_after.data(), how.prune_after.size())) != md::status::ok) {
    throw input_error("--prune-after: layers must ascend and be the language model's");
  }
  if (how.kv_first_layer < 0 || how.kv_first_layer > t.layers) { throw input_error("--kv-first-layer: there is no such layer"); }
  return how;
}

long peak_rss() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss * 1024;
}

std::vector<int> patches_where(std::vector<std::int32_t> const& source, std::vector<bool> const& row_is) {
  std::vector<int> patches;
  for (std::size_t p = 0; p < source.size(); ++p) {
    if (row_is[static_cast<std::size_t>(source[p])]) { patches.push_back(static_cast<int>(p)); }
  }
  return patches;
}

token_trace trace_of(image_rows const& image, int patches, int layers) {
  std::vector<std::int32_t> after, counts, per_layer(static_cast<std::size_t>(layers));
  for (auto const& stage : image.plan.stages) {
    after.push_back(stage.layer), counts.push_back(static_cast<std::int32_t>(stage.keep.size()));
  }
  auto const trace = [&](md::budget_reading reading) {
    check(md::layer_trace(static_cast<md::index_t>(image.anchor.size()), layers, md::view(after.data(), after.size()),
                          md::view(counts.data(), counts.size()), reading, md::view(per_layer.data(), per_layer.size())),
          "layer_trace");
    return md::average(md::view(per_layer.data(), per_layer.size()));
  };
  token_trace t;
  t.total = patches, t.final = static_cast<int>(image.now.size());
  t.average_papers = trace(md::budget_reading::after_pruning);
  t.average = trace(md::budget_reading::ran_on);
  t.per_layer.assign(per_layer.begin(), per_layer.end());
  return t;
}

}  // namespace

model::model(std::string const& path, void (*progress)(long done, long total))
    : folder(path),
      settings(read_config(path)),
      prepare(read_preprocessing(path, settings.vision)),
      weights(path, settings, progress),
      words(path, settings) {
  if (settings.keep_cls) {
    throw input_error(path + "/config.json: vision_feature_select_strategy full, CLS as an image token, is not supported");
  }
}

conversation::conversation(model const& model, request const& request)
    : model_(model),
      request_(request),
      on_(std::max(1, request.threads)),
      how_(checked(request.reduce, model.settings.text)),
      max_new_tokens_(request.max_new_tokens > 0 ? request.max_new_tokens : model.settings.max_new_tokens) {
  auto const begin = clock::now();
  plan_file given;
  if (!how_.plan.empty()) {
    given = read_plan(how_.plan, how_.merge_at.value_or(merge_place::layer0));
    if (given.images.size() != request.images.size()) { throw input_error(how_.plan + ": not as many images as in the prompt"); }
    how_.merge_at = given.merge_at;
  }
  bool const question = request.prompt.find("<image>") == std::string::npos;
  result_.prompt = question ? in_template(request.prompt, static_cast<int>(request.images.size())) : request.prompt;
  std::vector<int> const prompt = model_.words.encode(result_.prompt);
  auto const places = std::count(prompt.begin(), prompt.end(), model.settings.image_token);
  if (places != static_cast<long>(request.images.size())) {
    throw input_error("<image> in the prompt: " + std::to_string(places) + ", pictures: " + std::to_string(request.images.size()));
  }
  if (how_.method == method::mustdrop && prompt.back() == model.settings.image_token) {
    throw input_error("--method mustdrop reads the text behind the last <image>, and there is none");
  }
  see_pictures(given);
  lay_out(prompt);
  auto const prefilling = clock::now();
  double const reduced = on_.reduction_ms;
  prefill(!how_.plan.empty());
  result_.logits = logits_of_last(on_, model.settings.text, model.weights.text, sequence_.hidden);
  result_.prefill_ms = since(prefilling) - (on_.reduction_ms - reduced);
  result_.flops_spent = on_.flops;
  result_.ttft_ms = since(begin);

  // The answer's first token is known; what follows needs the caches, of which the survivors stay.
  if (how_.method != method::none || how_.kv_policy != md::evict_policy::survivors) {
    kinds_ = evict_after_prefill(on_, how_, spans_, images_, caches_, slots_);
  }
  for (auto& cache : caches_) { result_.kv_bytes_after += cache.bytes(); }
  plan_file used;
  used.merge_at = merges_early(how_) ? merge_place::layer0 : merge_place::features;
  for (auto const& image : images_) { used.images.push_back(image.plan); }
  if (!request.save_plan.empty()) { write_plan(request.save_plan, used); }
  tell(used);
  result_.answer = answer(result_.logits);
  result_.reduction_ms = on_.reduction_ms;
  result_.peak_rss_bytes = peak_rss();
}

void conversation::see_pictures(plan_file const& given) {
  config const& settings = model_.settings;
  md::token_grid const grid{settings.vision.side(), settings.vision.side(), 1, 0, 0};
  for (auto const& plan : given.images) { check_plan(plan, grid, settings.text.layers, how_.plan); }
  for (std::size_t i = 0; i < request_.images.size(); ++i) {
    result_.pictures.push_back(frame(read_picture(request_.images[i]), model_.prepare, request_.frame));
    images_.push_back(prepare_picture(on_, settings, model_.weights, pixel_values(result_.pictures.back(), model_.prepare), how_,
                                      static_cast<int>(i), given.images.empty() ? nullptr : &given.images[i], result_.vision_ms,
                                      result_.projector_ms));
  }
}

/// Text and pictures on one axis. A row of a picture stands where its anchor's patch would: what is dropped leaves a gap.
void conversation::lay_out(std::vector<int> const& prompt) {
  config const& settings = model_.settings;
  std::vector<int> words = prompt;  // an <image> has no embedding, and perhaps no row in the table of them
  std::replace(words.begin(), words.end(), settings.image_token, settings.bos);
  matrix const text = embed_tokens(model_.weights.text, words);
  long rows = static_cast<long>(prompt.size() - images_.size());
  for (auto const& image : images_) { rows += image.rows.rows(); }
  sequence_.hidden.resize(rows, settings.text.hidden);
  std::int32_t id = 0, position = 0;
  long row = 0;
  for (std::size_t w = 0; w < prompt.size(); ++w) {
    if (prompt[w] != settings.image_token) {
      sequence_.hidden.row(row++) = text.row(static_cast<long>(w));
      sequence_.ids.push_back(id++), sequence_.positions.push_back(position++);
      ++result_.text_tokens;
      continue;
    }
    image_rows& image = images_[spans_.size()];
    spans_.push_back({id, static_cast<std::int32_t>(image.anchor.size())});
    sequence_.hidden.middleRows(row, image.rows.rows()) = image.rows;
    row += image.rows.rows();
    for (auto const r : image.now) {
      sequence_.ids.push_back(id + r), sequence_.positions.push_back(position + image.anchor[static_cast<std::size_t>(r)]);
    }
    id += spans_.back().rows, position += settings.vision.patches();
    image.rows.resize(0, 0);
  }
  next_position_ = position;
  if (position + max_new_tokens_ > settings.text.max_positions) {
    throw input_error("the prompt is too long: " + std::to_string(position) + " positions and " + std::to_string(max_new_tokens_) +
                      " new tokens, the model has " + std::to_string(settings.text.max_positions));
  }
  if (how_.positions == position_rule::renumber) { std::iota(sequence_.positions.begin(), sequence_.positions.end(), 0); }
}

void conversation::prefill(bool given) {
  text_config const& t = model_.settings.text;
  for (int l = 0; l < t.layers; ++l) {
    auto const& layer = model_.weights.text.layers[static_cast<std::size_t>(l)];
    layer_cache& cache = caches_.emplace_back(t.kv_heads, t.head_dim);
    cache.reserve(static_cast<md::index_t>(sequence_.ids.size()) + max_new_tokens_);
    slots_.push_back(sequence_.ids);
    layer_queries queries;
    run_layer(on_, t, layer, sequence_.hidden, sequence_.positions, cache, queries);
    bool stage = how_.method == method::mustdrop && !given && std::count(how_.prune_after.begin(), how_.prune_after.end(), l) > 0;
    for (auto const& image : images_) {
      for (auto const& planned : image.plan.stages) { stage = stage || (given && planned.layer == l); }
    }
    if (stage && !images_.empty()) { drop_after_layer(on_, t, how_, l, given, queries, cache, spans_, images_, sequence_); }
  }
}

std::string conversation::answer(std::vector<float> logits) {
  std::vector<int> said;
  auto const begin = clock::now();
  for (int n = 0; n < max_new_tokens_; ++n) {
    last_token_ = static_cast<int>(std::max_element(logits.begin(), logits.end()) - logits.begin());
    said.push_back(last_token_);
    auto const& ends = model_.settings.ends;
    if (std::find(ends.begin(), ends.end(), last_token_) != ends.end() || n + 1 == max_new_tokens_) { break; }
    logits = append({last_token_});
  }
  if (said.size() > 1) { result_.decode_ms_per_token = since(begin) / static_cast<double>(said.size() - 1); }
  result_.answer_ids = said;
  return model_.words.decode(said);
}

/// New tokens behind everything, through all layers. The released code's renumbering takes each cache's length for the position.
std::vector<float> conversation::append(std::vector<int> const& tokens) {
  text_config const& t = model_.settings.text;
  sequence_.hidden = embed_tokens(model_.weights.text, tokens);
  std::vector<std::int32_t> positions(tokens.size());
  scores_.resize(caches_.size());
  for (std::size_t l = 0; l < caches_.size(); ++l) {
    bool const renumber = how_.positions == position_rule::renumber;
    std::iota(positions.begin(), positions.end(), renumber ? static_cast<std::int32_t>(caches_[l].size()) : next_position_);
    layer_queries queries;
    run_layer(on_, t, model_.weights.text.layers[l], sequence_.hidden, positions, caches_[l], queries);
    if (how_.kv_policy == md::evict_policy::output_aware) { evict_in_decode(on_, t, how_, queries, caches_[l], kinds_[l], scores_[l]); }
  }
  next_position_ += static_cast<std::int32_t>(tokens.size());
  return logits_of_last(on_, t, model_.weights.text, sequence_.hidden);
}

std::string conversation::ask(std::string const& question) {
  if (question.find("<image>") != std::string::npos) { throw input_error("further questions are text: <image> has no picture"); }
  std::vector<int> tokens{last_token_};
  if (last_token_ != model_.settings.eos) { tokens.push_back(model_.settings.eos); }
  for (int const id : model_.words.encode(in_template(question, 0), false)) { tokens.push_back(id); }
  if (next_position_ + static_cast<std::int32_t>(tokens.size()) + max_new_tokens_ > model_.settings.text.max_positions) {
    throw input_error("the conversation is as long as the model's positions reach");
  }
  return result_.answer = answer(append(tokens));
}

/// What the run came to, before anything is decoded.
void conversation::tell(plan_file const& plan) {
  config const& settings = model_.settings;
  int const layers = settings.text.layers, patches = settings.vision.patches();
  result_.method = name_of(how_.method);
  result_.model = model_.folder;
  result_.side = settings.vision.side();
  result_.image_tokens.per_layer.assign(static_cast<std::size_t>(layers), 0);
  for (std::size_t i = 0; i < images_.size(); ++i) {
    auto const& one = result_.per_image.emplace_back(trace_of(images_[i], patches, layers));
    auto& all = result_.image_tokens;
    all.total += one.total, all.average += one.average, all.average_papers += one.average_papers, all.final += one.final;
    for (std::size_t l = 0; l < one.per_layer.size(); ++l) { all.per_layer[l] += one.per_layer[l]; }
    result_.window_rows = static_cast<int>(plan.images[i].window.rows), result_.window_cols = static_cast<int>(plan.images[i].window.cols);
    draw_panels(i);
  }
  auto const pictures = static_cast<long>(images_.size());
  long const slot = 2L * settings.text.kv_heads * settings.text.head_dim * static_cast<long>(sizeof(float));
  long const dense = result_.text_tokens + pictures * patches;
  result_.kv_bytes_before = dense * slot * layers;
  std::vector<long> const tower(static_cast<std::size_t>(layers_to_run(settings)), patches + 1);
  result_.flops_dense = static_cast<double>(pictures) * vision_flops(settings, tower) +
                        language_flops(settings.text, std::vector<long>(static_cast<std::size_t>(layers), dense));
}

/// One panel for the merge (or for a picture left alone), one for each stage.
void conversation::draw_panels(std::size_t i) {
  image_rows const& image = images_[i];
  std::vector<int> members(image.anchor.size());
  for (auto const row : image.source) { ++members[static_cast<std::size_t>(row)]; }
  auto const add = [&](std::string const& name, std::vector<std::int32_t> const* keep) {
    std::vector<bool> alone(members.size()), merged(members.size()), key(members.size()), gone(members.size(), keep != nullptr);
    if (keep != nullptr) {
      for (auto const row : *keep) { gone[static_cast<std::size_t>(row)] = false; }
    }
    for (std::size_t row = 0; row < members.size(); ++row) {
      alone[row] = !gone[row] && members[row] == 1, merged[row] = !gone[row] && members[row] > 1;
    }
    for (auto const row : image.plan.key_set) { key[static_cast<std::size_t>(row)] = !gone[static_cast<std::size_t>(row)]; }
    result_.panels.push_back({static_cast<int>(i), name, patches_where(image.source, alone), patches_where(image.source, merged),
                              patches_where(image.source, key), patches_where(image.source, gone)});
  };
  if (how_.method != method::random) { add(how_.method == method::none ? "all" : "merge", nullptr); }
  for (auto const& stage : image.plan.stages) { add(stage.layer < 0 ? "before" : "layer " + std::to_string(stage.layer), &stage.keep); }
}

run_result run(model const& model, request const& request) { return conversation(model, request).result(); }

}  // namespace llava
