// SPDX-License-Identifier: Apache-2.0
// llama_minimal MODEL.gguf: the observer in a program of its own, with nothing but llama.cpp and the library. Token ids stand for a picture.
#include <cstdio>
#include <utility>
#include <vector>

#include <llama-cpp.h>

#include <mustdrop/cpu/attention_scores.hpp>
#include <mustdrop/cpu/dual_mask.hpp>

#include "mustdrop_llama.hpp"

namespace {

namespace md = mustdrop;

bool decode(llama_context* context, std::vector<llama_token> ids) {
  return llama_decode(context, llama_batch_get_one(ids.data(), static_cast<std::int32_t>(ids.size()))) == 0;
}

/// Null if all went well, or what did not.
char const* run(llama_model* model) {
  std::vector<llama_token> const before(5, 1), picture(576, 2), question(50, 3);
  // [docs/llama_cpp.md 0]
  md::cpu::backend<> const on;
  mustdrop_llama::observer<md::cpu::backend<>> watcher(on, {llama_model_n_layer(model) / 2});  // outlives the context
  llama_context_params params = llama_context_default_params();
  params.n_ctx = params.n_batch = 1024, params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
  watcher.attach(params);
  llama_context_ptr const context(llama_init_from_model(model, params));
  if (!context) { return "no context"; }

  // Text, picture, text. Rows of the last text say what they attend to.
  if (!decode(context.get(), before) || !decode(context.get(), picture)) { return "llama_decode"; }
  watcher.watch(static_cast<md::index_t>(before.size() + picture.size()));
  if (!decode(context.get(), question)) { return "llama_decode"; }
  watcher.rest();
  if (watcher.status() != md::status::ok) { return md::message(watcher.status()); }

  // 64 tokens of the picture stay, and all text.
  auto const begin = static_cast<md::index_t>(before.size()), n = static_cast<md::index_t>(picture.size());
  auto const& scores = watcher.scores()[0];  // a sum and a maximum for each token in the cache
  if (scores.sum.size() != watcher.cells().size()) { return "llama.cpp showed no attention at that layer"; }
  std::vector<std::int32_t> stay(picture.size()), keep(watcher.cells().size());
  std::int32_t count = 0;
  std::vector<char> memory;
  md::keep_lists<std::int32_t> const stays{md::view(stay.data(), 1, n), md::view(&count, 1)};
  md::status s = md::dual_mask(on, {0.001f, 0.001f, 64}, md::view(scores.sum.data() + begin, n), md::view(scores.max.data() + begin, n), {},
                               {}, {}, stays, mustdrop_llama::workspace_in(memory, md::dual_mask_workspace_size(on, n, {})));
  if (s != md::status::ok) { return md::message(s); }
  md::index_t tokens = 0;
  s = md::in_sequence(md::view(std::as_const(stay).data(), count), md::run{begin, n}, static_cast<md::index_t>(keep.size()),
                      md::view(keep.data(), keep.size()), tokens);
  if (s == md::status::ok) { s = watcher.keep(context.get(), md::view(std::as_const(keep).data(), tokens)); }
  if (s == md::status::ok) { s = watcher.compact(context.get()); }
  if (s != md::status::ok) { return md::message(s); }
  if (!decode(context.get(), {4})) { return "llama_decode"; }  // and on, over 256 cells where there were 768
  // [end]
  std::printf("%zu tokens in the cache, attention over %d cells\n", watcher.cells().size(), static_cast<int>(watcher.cells_attended()));
  return nullptr;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) { return std::fprintf(stderr, "llama_minimal MODEL.gguf\n"), 2; }
  llama_log_set(
      [](ggml_log_level level, char const* text, void*) { level == GGML_LOG_LEVEL_ERROR ? void(std::fputs(text, stderr)) : void(); },
      nullptr);
  llama_model_params params = llama_model_default_params();
  params.n_gpu_layers = 0, params.use_extra_bufts = false;  // some virtual machines offer AMX and stop at its instructions
  llama_model_ptr const model(llama_model_load_from_file(argv[1], params));
  char const* const wrong = model ? run(model.get()) : "not a model that llama.cpp loads";
  if (wrong != nullptr) { return std::fprintf(stderr, "llama_minimal: %s: %s\n", argv[1], wrong), 1; }
  return 0;
}
