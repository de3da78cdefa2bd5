// SPDX-License-Identifier: Apache-2.0
#pragma once

// A question to a model in llama.cpp, with tokens dropped where llama.cpp lets them: before the image's batch (that is done when the prompt
// arrives here), after the prefill by what the question attends to, and in decode by what the answer attends to.

#include <memory>
#include <string>
#include <vector>

#include <llama.h>

#include <mustdrop/cpu/backend.hpp>
#include <mustdrop/kv_evict.hpp>

#include "mustdrop_llama.hpp"
#include "picture.hpp"

namespace mustdrop_llama {

using threadpool_pointer = std::unique_ptr<ggml_threadpool, deleter<ggml_threadpool, ggml_threadpool_free>>;
using model_pointer = std::unique_ptr<llama_model, deleter<llama_model, llama_model_free>>;

/// `repack`: quantised weights in the order that the processor's instructions want, as llama.cpp does by itself; not the default here, as some virtual
/// machines offer AMX and stop at its instructions. Throws llava::input_error for a file that llama.cpp does not load. A GGUF is read by llama.cpp,
/// which checks it.
model_pointer load_model(std::string const& path, bool repack = false);

struct setup {
  int threads = 1, context = 1024, ubatch = 1024;
  ggml_type cache = GGML_TYPE_F16;  // of keys; values are f16
  bool flash_attention = true;
  bool observe = true;           // false: plain llama.cpp, no callback
  std::vector<int> prune_after;  // layers whose scores the mask reads; empty: the paper's, scaled, or layer 0 of models of fewer than 16
};

/// Where rows stand that were left in front of a batch, and the text behind them.
enum class position_rule {
  kept,      // where they were, if the model takes gaps (M-RoPE); else moved
  moved,     // without gaps in the batch; then their keys are rotated to where they were, for the text behind them to see
  renumber,  // without gaps
};

/// What leaves after the batch; what leaves before it is said to the front.
struct dropping {
  int after_prefill = 0;  // image tokens that are left, by the dual mask; 0: all
  int kv_budget = 0;      // tokens that decode keeps in the cache, by what the answer attends to; 0: all
  bool compact = true;    // survivors move together where attention gets shorter by it
  position_rule positions = position_rule::kept;
};

struct answer {
  std::vector<llama_token> ids;
  std::vector<float> logits;                      // of the last token of the prompt
  std::vector<float> last_logits;                 // of the last token that was run
  std::vector<std::int32_t> image;                // rows of the picture that are in the cache when decode begins
  position_rule positions = position_rule::kept;  // what became of how.positions
  int cells_before = 0, cells_after = 0;          // in the cache: after the prefill; at the end
  int attended_before = 0, attended_after = 0;    // cells that attention runs over: of the prefill; of the last token
  double prefill_ms = 0, decode_ms_per_token = 0;
  double reduction_ms = 0;  // the observer's part of prefill_ms
  double drop_ms = 0;       // between the first token and the second: mask, seq_rm, compaction
};

class session {
 public:
  using backend = md::cpu::backend<xsimd::default_arch, ggml_threads>;

  session(llama_model* model, setup const& how);
  session& operator=(session&&) = delete;  // llama.cpp holds its address

  /// Greedy, until the front says that an answer ends, or `most` tokens. Throws llava::input_error if the prompt does not fit.
  answer run(prompt const& ask, dropping const& how, front const* who, int most);

  bool keeps_positions() const;  // whether gaps between positions are possible (M-RoPE)
  llama_context* context() const { return context_.get(); }
  observer<backend> const& watcher() const { return *watcher_; }  // only if setup::observe

 private:
  static bool on_node(ggml_tensor* node, bool ask, void* self);
  void decode(std::vector<llama_token> const* tokens, float const* rows, std::vector<llama_pos> const& positions);
  std::vector<float> last_logits() const;
  void check_fits(prompt const& ask, dropping const& how, int most) const;
  void prefill(prompt const& ask, dropping const& how, answer& out);
  void answer_on(prompt const& ask, dropping const& how, front const* who, int most, answer& out);
  void mask_by_question(prompt const& ask, dropping const& how, answer& out);
  void evict(dropping const& how, std::vector<md::slot_kind>& kinds);
  void keep(std::vector<std::int32_t> const& tokens, bool compact);

  llama_model* model_;
  setup how_;
  threadpool_pointer pool_;  // llama.cpp's threads, and between its graphs ours
  backend on_;
  std::unique_ptr<observer<backend>> watcher_;
  llama_context_params inner_{};  // the observer's callback, which ours calls and times
  std::unique_ptr<llama_context, deleter<llama_context, llama_free>> context_;
  llama_pos next_ = 0;  // position of the next token of the answer
  double reduction_ms_ = 0;
};

}  // namespace mustdrop_llama
