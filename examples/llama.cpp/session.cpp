// SPDX-License-Identifier: Apache-2.0
#include "session.hpp"

#include <algorithm>
#include <chrono>
#include <numeric>

#include <mustdrop/budget.hpp>
#include <mustdrop/cpu/attention_scores.hpp>
#include <mustdrop/cpu/dual_mask.hpp>
#include <mustdrop/cpu/kv_evict.hpp>
#include <mustdrop/method/mustdrop.hpp>

#include "buffers.hpp"
#include "error.hpp"
#include "reduction.hpp"

namespace mustdrop_llama {

namespace {

using llava::aligned_buffer;
using llava::check;
using llava::input_error;
using llava::keep_memory;
using llava::stopwatch;
using indices = std::vector<std::int32_t>;

md::tensor_view<std::int32_t const, 1> as_list(indices const& list) { return md::view(list.data(), list.size()); }

template <class T>
std::vector<T> those(std::vector<T> const& from, indices const& keep) {
  std::vector<T> out;
  for (auto const i : keep) { out.push_back(from[static_cast<std::size_t>(i)]); }
  return out;
}

llama_token best(float const* logits, int vocabulary) {
  return static_cast<llama_token>(std::max_element(logits, logits + vocabulary) - logits);
}

}  // namespace

model_pointer load_model(std::string const& path) {
  static bool const once = [] {
    llama_log_set(
        [](ggml_log_level level, char const* text, void*) { level == GGML_LOG_LEVEL_ERROR ? void(std::fputs(text, stderr)) : void(); },
        nullptr);
    return llama_backend_init(), true;
  }();
  static_cast<void>(once);
  llama_model_params params = llama_model_default_params();
  params.n_gpu_layers = 0;
  params.use_extra_bufts = false;  // some virtual machines offer AMX and stop at its instructions
  model_pointer model(llama_model_load_from_file(path.c_str(), params));
  if (!model) { throw input_error(path + ": not a model that llama.cpp loads"); }
  return model;
}

session::session(llama_model* model, setup const& how) : model_(model), how_(how), on_{{how.threads, nullptr}} {
  int const layers = llama_model_n_layer(model);
  if (how_.prune_after.empty()) { how_.prune_after = llava::default_prune_after(layers); }
  if (md::check_stages(layers, md::view(how_.prune_after.data(), how_.prune_after.size())) != md::status::ok || how_.prune_after[0] < 0) {
    throw input_error("layers whose scores are wanted must ascend and be the model's");
  }
  llama_context_params params = llama_context_default_params();
  params.n_ctx = static_cast<std::uint32_t>(how_.context);
  params.n_batch = params.n_ctx, params.n_ubatch = static_cast<std::uint32_t>(std::min(how_.ubatch, how_.context));
  params.n_threads = params.n_threads_batch = how_.threads;
  params.type_k = how_.cache;
  params.flash_attn_type = how_.flash_attention ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
  if (how_.observe) {
    watcher_ = std::make_unique<observer<backend>>(on_, how_.prune_after);
    watcher_->attach(params);
    inner_ = params;
    params.cb_eval = &session::on_node, params.cb_eval_user_data = this;
  }
  context_ = llama_init_from_model(model, params);
  if (context_ == nullptr) { throw input_error("llama.cpp makes no context of this model with these options"); }
}

session::~session() { llama_free(context_); }

bool session::keeps_positions() const {
  llama_rope_type const rope = llama_model_rope_type(model_);
  return rope == LLAMA_ROPE_TYPE_MROPE || rope == LLAMA_ROPE_TYPE_IMROPE;
}

bool session::on_node(ggml_tensor* node, bool ask, void* self) {
  auto& s = *static_cast<session*>(self);
  stopwatch const time(s.reduction_ms_);
  return s.inner_.cb_eval(node, ask, s.inner_.cb_eval_user_data);
}

/// Ids, or rows of embeddings, at these positions; logits of the last one. M-RoPE takes the positions of rows three times over.
void session::decode(std::vector<llama_token> const* tokens, float const* rows, std::vector<llama_pos> const& positions) {
  std::size_t const n = positions.size();
  if (n == 0) { return; }
  std::vector<llama_token> ids = tokens != nullptr ? *tokens : std::vector<llama_token>();
  std::vector<llama_pos> planes = positions;
  if (tokens == nullptr && keeps_positions()) {
    for (int plane = 1; plane < 3; ++plane) { planes.insert(planes.end(), positions.begin(), positions.end()); }
    planes.resize(4 * n);
  }
  std::vector<std::int32_t> sequences(n, 1);
  llama_seq_id sequence = 0;
  std::vector<llama_seq_id*> of_token(n, &sequence);
  std::vector<std::int8_t> wanted(n);
  wanted.back() = 1;
  llama_batch const batch{static_cast<std::int32_t>(n),
                          tokens != nullptr ? ids.data() : nullptr,
                          const_cast<float*>(rows),
                          planes.data(),
                          sequences.data(),
                          of_token.data(),
                          wanted.data()};
  if (int const failed = llama_decode(context_, batch); failed != 0) { throw input_error("llama_decode: " + std::to_string(failed)); }
  if (watcher_ && watcher_->status() != md::status::ok) {
    throw input_error(std::string("what runs in llama.cpp is not as expected: ") + md::message(watcher_->status()));
  }
}

answer session::run(prompt const& ask, dropping const& how, front const* who, int most) {
  picture const& image = ask.image;
  std::size_t const width = static_cast<std::size_t>(llama_model_n_embd_inp(model_)), before = ask.before.size(), rows = image.at.size();
  int const vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(model_));
  bool const drops = how.after_prefill > 0 || how.kv_budget > 0;
  auto const ids_fit = [&](std::vector<llama_token> const& ids) {
    return std::all_of(ids.begin(), ids.end(), [&](llama_token id) { return id >= 0 && id < vocabulary; });
  };
  if (image.rows.size() != rows * width) { throw input_error("the picture's rows are not as wide as the language model's"); }
  if (!ids_fit(ask.before) || !ids_fit(ask.after)) {
    throw input_error("the tokenizer and the language model have different vocabularies");
  }
  if (ask.after.empty()) { throw input_error("there is no text behind the picture"); }
  if (before + rows + ask.after.size() + static_cast<std::size_t>(most) > llama_n_ctx(context_)) {
    throw input_error("the prompt is longer than the context");
  }
  if (drops && !watcher_) { throw input_error("a session that does not observe cannot drop"); }

  // Positions: a row's own place if the model takes gaps, else its number.
  bool const gaps = keeps_positions() && !how.renumber;
  std::vector<llama_pos> head(before), middle, tail(ask.after.size());
  std::iota(head.begin(), head.end(), 0);
  for (std::size_t r = 0; r < rows; ++r) {
    middle.push_back(static_cast<llama_pos>(before) + (gaps ? image.at[r] : static_cast<llama_pos>(r)));
  }
  std::iota(tail.begin(), tail.end(), static_cast<llama_pos>(before) + (gaps ? image.places : static_cast<llama_pos>(rows)));

  answer out;
  out.prompt_tokens = static_cast<int>(before + rows + ask.after.size());
  llama_memory_clear(llama_get_memory(context_), false);
  if (watcher_) { watcher_->forget(); }
  reduction_ms_ = 0;
  {
    stopwatch const time(out.prefill_ms);
    decode(&ask.before, nullptr, head);
    decode(nullptr, image.rows.data(), middle);
    if (how.after_prefill > 0) { watcher_->watch(static_cast<md::index_t>(before + rows)); }
    decode(&ask.after, nullptr, tail);
  }
  float const* logits = llama_get_logits_ith(context_, -1);
  out.logits.assign(logits, logits + vocabulary);
  out.reduction_ms = reduction_ms_;

  // The answer's first token is known; what leaves now makes the next ones cheaper.
  out.image.resize(rows);
  std::iota(out.image.begin(), out.image.end(), 0);
  out.cells_before = out.prompt_tokens;
  if (watcher_) { out.attended_before = static_cast<int>(watcher_->cells_attended()); }
  {
    stopwatch const time(out.drop_ms);
    if (how.after_prefill > 0) { mask_by_question(ask, how, out); }
  }
  std::vector<md::slot_kind> kinds(before + out.image.size() + ask.after.size(), md::slot_kind::text);
  for (std::size_t i = 0; i < out.image.size(); ++i) {
    bool const key = std::binary_search(image.key_set.begin(), image.key_set.end(), out.image[i]);
    kinds[before + i] = key ? md::slot_kind::key_set : md::slot_kind::visual;
  }
  if (watcher_ && how.kv_budget > 0) { watcher_->watch(0); }

  std::vector<llama_pos> next{tail.back() + 1};
  out.ids = {best(logits, vocabulary)};
  double decode_ms = 0;
  {
    stopwatch const time(decode_ms);
    while (static_cast<int>(out.ids.size()) < most && (who == nullptr || !who->ends(out.ids.back()))) {
      std::vector<llama_token> const last{out.ids.back()};
      decode(&last, nullptr, next);
      ++next[0];
      kinds.push_back(md::slot_kind::text);
      out.ids.push_back(best(llama_get_logits_ith(context_, -1), vocabulary));
      if (how.kv_budget > 0 && static_cast<int>(kinds.size()) > how.kv_budget) { evict(how, kinds); }
    }
  }
  if (out.ids.size() > 1) { out.decode_ms_per_token = decode_ms / static_cast<double>(out.ids.size() - 1); }
  logits = llama_get_logits_ith(context_, -1);
  out.last_logits.assign(logits, logits + vocabulary);
  out.cells_after = static_cast<int>(kinds.size());
  if (watcher_) { watcher_->rest(), out.attended_after = static_cast<int>(watcher_->cells_attended()); }
  return out;
}

/// The dual mask of each layer that was watched, one after the other, on what the one before left.
void session::mask_by_question(prompt const& ask, dropping const& how, answer& out) {
  auto const rows = static_cast<md::index_t>(ask.image.at.size());
  indices key = ask.image.key_set, counts(how_.prune_after.size());
  md::budget_options budget;
  budget.tokens = rows, budget.layers = llama_model_n_layer(model_), budget.target = how.after_prefill,
  budget.reading = md::budget_reading::at_end;
  budget.at_least = static_cast<md::index_t>(key.size());
  if (md::stage_counts(budget, as_list(how_.prune_after), md::view(counts.data(), counts.size())) != md::status::ok) {
    throw input_error("what shall be left after the prefill is more than there is, or less than the key set");
  }
  for (std::size_t stage = 0; stage < counts.size(); ++stage) {
    layer_scores const& all = watcher_->scores()[stage];
    indices tokens = out.image;
    for (auto& t : tokens) { t += static_cast<std::int32_t>(ask.before.size()); }
    if (all.sum.size() != watcher_->cells().size()) { throw input_error("no scores came from layer " + std::to_string(all.layer)); }
    std::vector<float> const sum = those(all.sum, tokens), max = those(all.max, tokens);
    auto const n = static_cast<md::index_t>(tokens.size());
    keep_memory keep(1, n);
    auto const keys = static_cast<std::int32_t>(key.size());
    md::keep_lists<std::int32_t const> const protect{md::view(static_cast<std::int32_t const*>(key.data()), 1, key.size()),
                                                     md::view(&keys, 1)};
    aligned_buffer scratch(md::dual_mask_workspace_size(on_, n, {}));
    check(md::dual_mask(on_, {0.001f, 0.001f, counts[stage]}, md::view(sum.data(), n), md::view(max.data(), n), {}, protect, {},
                        keep.lists(), scratch.lend()),
          "dual_mask");
    md::index_t moved = 0;
    check(md::rebase(as_list(key), as_list(keep.list(0)), md::view(key.data(), key.size()), moved), "rebase");
    out.image = those(out.image, keep.list(0));
  }
  indices all(static_cast<std::size_t>(out.prompt_tokens));
  md::index_t kept = 0;
  check(md::in_sequence(as_list(out.image), {static_cast<md::index_t>(ask.before.size()), rows}, out.prompt_tokens,
                        md::view(all.data(), all.size()), kept),
        "in_sequence");
  all.resize(static_cast<std::size_t>(kept));
  keep(all, how.compact);
}

/// In decode: slots beyond the budget go, those that the answer attends to least.
void session::evict(dropping const& how, std::vector<md::slot_kind>& kinds) {
  stopwatch const time(reduction_ms_);
  auto const slots = static_cast<md::index_t>(kinds.size());
  layer_scores const& scores = watcher_->scores().back();
  md::evict_options options;
  options.policy = md::evict_policy::output_aware, options.budget = how.kv_budget;
  keep_memory list(1, slots);
  aligned_buffer scratch(md::kv_evict_workspace_size(on_, slots, {}));
  check(md::kv_evict(on_, options, md::view(scores.sum.data(), scores.sum.size()), md::view(std::as_const(kinds).data(), slots), {}, {},
                     list.lists(), scratch.lend()),
        "kv_evict");
  bool const many = slots - list.counts[0] > 1;  // one leaves where one came: its cell is the next one's
  keep(list.list(0), how.compact && many);
  kinds = those(kinds, list.list(0));
}

void session::keep(indices const& tokens, bool compact) {
  md::status s = watcher_->keep(context_, as_list(tokens));
  if (s == md::status::ok && compact) { s = watcher_->compact(context_); }
  if (s != md::status::ok) { throw input_error(std::string("the cache does not let go of these tokens: ") + md::message(s)); }
}

}  // namespace mustdrop_llama
