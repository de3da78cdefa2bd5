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

/// from[begin + i] for each i of the list.
template <class T>
std::vector<T> those(std::vector<T> const& from, indices const& list, md::index_t begin = 0) {
  std::vector<T> out;
  for (auto const i : list) { out.push_back(from[static_cast<std::size_t>(begin + i)]); }
  return out;
}

void allowed(md::status s, char const* what) {
  if (s != md::status::ok) { throw input_error(std::string("llama.cpp does not let ") + what + ": " + md::message(s)); }
}

/// Attention runs over so many cells, if n are in use.
int rounded(int n) { return (n + 255) / 256 * 256; }

threadpool_pointer threads_of(setup const& how) {
  ggml_threadpool_params params = ggml_threadpool_params_default(how.threads);
  return threadpool_pointer(ggml_threadpool_new(&params));
}

llama_token best(std::vector<float> const& logits) {
  return static_cast<llama_token>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

}  // namespace

void errors_only(ggml_log_level level, char const* text, void*) {
  if (level == GGML_LOG_LEVEL_ERROR) { std::fputs(text, stderr); }
}

model_pointer load_model(std::string const& path, bool repack) {
  static bool const once = [] {
    llama_log_set(errors_only, nullptr);
    return llama_backend_init(), true;
  }();
  static_cast<void>(once);
  llama_model_params params = llama_model_default_params();
  params.n_gpu_layers = 0;
  params.use_extra_bufts = repack;
  model_pointer model(llama_model_load_from_file(path.c_str(), params));
  if (!model) { throw input_error(path + ": not a model that llama.cpp loads"); }
  return model;
}

session::session(llama_model* model, setup const& how) : model_(model), how_(how), pool_(threads_of(how)), on_{{how.threads, pool_.get()}} {
  int const layers = llama_model_n_layer(model);
  if (how_.prune_after.empty()) { how_.prune_after = llava::default_prune_after(layers); }
  if (md::check_stages(layers, md::view(how_.prune_after.data(), how_.prune_after.size())) != md::status::ok || how_.prune_after[0] < 0) {
    throw input_error("layers whose scores are wanted must ascend and be the model's");
  }
  if (how_.observe && llama_model_n_swa(model) > 0) { throw input_error("a model of sliding windows cannot be observed"); }
  llama_context_params params = llama_context_default_params();
  params.n_ctx = static_cast<std::uint32_t>(rounded(how_.context));  // llama.cpp rounds it too, but n_batch is cut to what was asked for
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
  context_.reset(llama_init_from_model(model, params));
  if (!context_) { throw input_error("llama.cpp makes no context of this model with these options"); }
  llama_attach_threadpool(context_.get(), pool_.get(), pool_.get());
}

bool session::keeps_positions() const {
  llama_rope_type const rope = llama_model_rope_type(model_);
  return rope == LLAMA_ROPE_TYPE_MROPE || rope == LLAMA_ROPE_TYPE_IMROPE;
}

bool session::on_node(ggml_tensor* node, bool ask, void* self) {
  auto& s = *static_cast<session*>(self);
  stopwatch const time(s.reduction_ms_);
  return s.inner_.cb_eval(node, ask, s.inner_.cb_eval_user_data);
}

std::vector<float> session::last_logits() const {
  float const* const logits = llama_get_logits_ith(context_.get(), -1);
  return {logits, logits + llama_vocab_n_tokens(llama_model_get_vocab(model_))};
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
  if (int const failed = llama_decode(context_.get(), batch); failed != 0) { throw input_error("llama_decode: " + std::to_string(failed)); }
  if (watcher_ && watcher_->status() != md::status::ok) {
    throw input_error(std::string("what runs in llama.cpp is not as expected: ") + md::message(watcher_->status()));
  }
}

/// What would not go well in there.
void session::check_fits(prompt const& ask, dropping const& how, int most) const {
  std::size_t const rows = ask.image.at.size();
  int const vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(model_));
  auto const refuse = [](bool wrong, char const* why) {
    if (wrong) { throw input_error(why); }
  };
  auto const strange = [vocabulary](llama_token id) { return id < 0 || id >= vocabulary; };
  refuse(ask.image.rows.size() != rows * static_cast<std::size_t>(llama_model_n_embd_inp(model_)),
         "the picture's rows are not as wide as the language model's");
  refuse(std::any_of(ask.before.begin(), ask.before.end(), strange) || std::any_of(ask.after.begin(), ask.after.end(), strange),
         "the tokenizer and the language model have different vocabularies");
  refuse(ask.after.empty(), "there is no text behind the picture");
  std::size_t const longest = ask.before.size() + rows + ask.after.size() + static_cast<std::size_t>(most);
  std::string const too_long = "the prompt and the longest answer are " + std::to_string(longest) + " tokens, more than the context's " +
                               std::to_string(llama_n_ctx(context_.get()));
  refuse(most < 1 || longest > llama_n_ctx(context_.get()), too_long.c_str());
  refuse(md::check(as_list(ask.image.at), ask.image.places) != md::status::ok ||
             md::check(as_list(ask.image.key_set), as_list(ask.image.at).size(0)) != md::status::ok,
         "the picture's rows, or its key set, do not ascend within what there is");
  refuse(!watcher_ && (how.after_prefill > 0 || how.kv_budget > 0), "a session that does not observe cannot drop");
  refuse(!watcher_ && !keeps_positions() && how.positions != position_rule::renumber && as_list(ask.image.at).size(0) < ask.image.places,
         "a session that does not observe cannot move what is left of a picture: let it be numbered anew");
}

/// Text, picture, question. The logits of the last token are the first token of the answer.
void session::prefill(prompt const& ask, dropping const& how, answer& out) {
  stopwatch const time(out.prefill_ms);
  // [docs/llama_cpp.md 2]
  picture const& image = ask.image;
  auto const rows = static_cast<llama_pos>(image.at.size()), begin = static_cast<llama_pos>(ask.before.size());
  bool const gaps = how.positions == position_rule::kept && keeps_positions();  // M-RoPE: positions may jump
  bool const move = !gaps && how.positions != position_rule::renumber && rows < image.places && watcher_;
  std::vector<llama_pos> head(ask.before.size()), middle(image.at.size()), tail(ask.after.size()), places(image.at.begin(), image.at.end());
  for (auto& place : places) {
    place += move ? begin + image.places - 1 - image.at.back() : begin;
  }  // text may only follow on the last row
  std::iota(head.begin(), head.end(), 0);
  std::iota(middle.begin(), middle.end(), begin);
  std::iota(tail.begin(), tail.end(), begin + (gaps || move ? image.places : rows));
  decode(&ask.before, nullptr, head);
  decode(nullptr, image.rows.data(), gaps ? places : middle);
  if (move) {
    allowed(watcher_->move(context_.get(), places), "keys of M-RoPE, or quantised ones, be moved (let positions be kept or renumber)");
  }
  if (how.after_prefill > 0) { watcher_->watch(begin + rows); }  // rows of the question are observed
  decode(&ask.after, nullptr, tail);
  // [end]
  out.positions = gaps || rows == image.places ? position_rule::kept : move ? position_rule::moved : position_rule::renumber;
  next_ = tail.back() + 1;
}

answer session::run(prompt const& ask, dropping const& how, front const* who, int most) {
  check_fits(ask, how, most);
  llama_memory_clear(llama_get_memory(context_.get()), false);
  if (watcher_) { watcher_->forget(); }
  reduction_ms_ = 0;
  answer out;
  prefill(ask, how, out);
  if (watcher_) { watcher_->rest(); }
  out.reduction_ms = reduction_ms_;
  out.logits = last_logits();
  out.ids = {best(out.logits)};
  out.cells_before = static_cast<int>(ask.before.size() + ask.image.at.size() + ask.after.size());
  if (watcher_) { out.attended_before = static_cast<int>(watcher_->cells_attended()); }

  // The answer's first token is known; what leaves now makes the next ones cheaper.
  out.image.resize(ask.image.at.size());
  std::iota(out.image.begin(), out.image.end(), 0);
  if (how.after_prefill > 0) {
    stopwatch const time(out.drop_ms);
    mask_by_question(ask, how, out);
  }
  answer_on(ask, how, who, most, out);
  if (watcher_) { watcher_->rest(), out.attended_after = static_cast<int>(watcher_->cells_attended()); }
  return out;
}

void session::answer_on(prompt const& ask, dropping const& how, front const* who, int most, answer& out) {
  std::vector<md::slot_kind> kinds(ask.before.size() + out.image.size() + ask.after.size(), md::slot_kind::text);
  for (std::size_t i = 0; i < out.image.size(); ++i) {
    bool const key = std::binary_search(ask.image.key_set.begin(), ask.image.key_set.end(), out.image[i]);
    kinds[ask.before.size() + i] = key ? md::slot_kind::key_set : md::slot_kind::visual;
  }
  if (how.kv_budget > 0) { watcher_->watch(0); }
  double decode_ms = 0;
  while (static_cast<int>(out.ids.size()) < most && (who == nullptr || !who->ends(out.ids.back()))) {
    stopwatch const time(decode_ms);
    std::vector<llama_token> const last{out.ids.back()};
    decode(&last, nullptr, {next_++});
    out.ids.push_back(best(last_logits()));
    kinds.push_back(md::slot_kind::text);
    if (how.kv_budget > 0 && static_cast<int>(kinds.size()) > how.kv_budget) { evict(how, kinds); }
  }
  if (out.ids.size() > 1) { out.decode_ms_per_token = decode_ms / static_cast<double>(out.ids.size() - 1); }
  out.last_logits = last_logits();
  out.cells_after = static_cast<int>(kinds.size());
}

/// The dual mask of each layer that was watched, one after the other, on what the one before left.
void session::mask_by_question(prompt const& ask, dropping const& how, answer& out) {
  indices key = ask.image.key_set, counts(how_.prune_after.size());
  md::run const span{static_cast<md::index_t>(ask.before.size()), static_cast<md::index_t>(ask.image.at.size())};
  md::budget_options budget;
  budget.tokens = span.length, budget.layers = llama_model_n_layer(model_), budget.at_least = static_cast<md::index_t>(key.size());
  budget.target = how.after_prefill, budget.reading = md::budget_reading::at_end;
  if (md::stage_counts(budget, as_list(how_.prune_after), md::view(counts.data(), counts.size())) != md::status::ok) {
    throw input_error(std::to_string(how.after_prefill) + " image tokens cannot be left after the prefill: there are " +
                      std::to_string(span.length) + ", and the key set is " + std::to_string(key.size()));
  }
  for (std::size_t stage = 0; stage < counts.size(); ++stage) {
    layer_scores const& all = watcher_->scores()[stage];
    if (all.sum.size() != watcher_->cells().size()) { throw input_error("no scores came from layer " + std::to_string(all.layer)); }
    // [docs/llama_cpp.md 4]
    std::vector<float> const sum = those(all.sum, out.image, span.begin), max = those(all.max, out.image, span.begin);
    auto const n = static_cast<md::index_t>(sum.size());
    auto const keys = static_cast<std::int32_t>(key.size());
    md::keep_lists<std::int32_t const> const key_set{md::view(std::as_const(key).data(), 1, keys), md::view(&keys, 1)};
    keep_memory stays(1, n);
    aligned_buffer scratch(md::dual_mask_workspace_size(on_, n, {}));
    check(md::dual_mask(on_, {0.001f, 0.001f, counts[stage]}, md::view(sum.data(), n), md::view(max.data(), n), {}, key_set, {},
                        stays.lists(), scratch.lend()),
          "dual_mask");
    out.image = those(out.image, stays.list(0));
    // [end]
    md::index_t moved = 0;
    check(md::rebase(as_list(key), as_list(stays.list(0)), md::view(key.data(), key.size()), moved), "rebase");
  }
  indices tokens(watcher_->cells().size());
  md::index_t count = 0;
  auto const all = md::view(tokens.data(), tokens.size());
  check(md::in_sequence(as_list(out.image), span, all.size(0), all, count), "in_sequence");
  tokens.resize(static_cast<std::size_t>(count));
  keep(tokens, how.compact);
}

/// In decode: slots beyond the budget go, those that the answer attends to least.
void session::evict(dropping const& how, std::vector<md::slot_kind>& kinds) {
  stopwatch const time(reduction_ms_);
  // [docs/llama_cpp.md 6]
  layer_scores const& scores = watcher_->scores().back();  // of every token that the answer has so far
  auto const slots = static_cast<md::index_t>(kinds.size());
  md::evict_options options;
  options.policy = md::evict_policy::output_aware, options.budget = how.kv_budget;
  keep_memory stays(1, slots);
  aligned_buffer scratch(md::kv_evict_workspace_size(on_, slots, {}));
  check(md::kv_evict(on_, options, md::view(scores.sum.data(), scores.sum.size()), md::view(std::as_const(kinds).data(), slots), {}, {},
                     stays.lists(), scratch.lend()),
        "kv_evict");
  keep(stays.list(0), how.compact);  // where one leaves, the next one comes: its hole costs nothing
  // [end]
  kinds = those(kinds, stays.list(0));
}

void session::keep(indices const& tokens, bool compact) {
  allowed(watcher_->keep(context_.get(), as_list(tokens)), "tokens leave its cache");
  auto const& cells = watcher_->cells();
  if (!compact || cells.empty()) { return; }
  // A copy of the cache that leaves attention as long as it is would save nothing.
  auto const last = *std::max_element(cells.begin(), cells.end());
  if (rounded(static_cast<int>(cells.size())) < rounded(last + 1)) { allowed(watcher_->compact(context_.get()), "its cache be compacted"); }
}

}  // namespace mustdrop_llama
