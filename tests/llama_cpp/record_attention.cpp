// SPDX-License-Identifier: Apache-2.0
// record_attention MODEL.gguf CHECKPOINT IMAGE QUESTION f16|q8_0 OUT.safetensors: what llama.cpp's first layer has in its hands when it runs the
// text behind a picture. Made recorded_f16.safetensors and recorded_q8_0.safetensors, which test_llama_observer reads:
//   q      [heads, rows, dim]   f32, rows of the question
//   k      [cells, bytes]       the cache's own bytes, kv_heads rows of `dim` a cell
//   image  [2]                  first token and number of tokens of the picture

#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "error.hpp"
#include "session.hpp"

namespace {

using namespace mustdrop_llama;

struct recording {
  std::size_t rows = 0, cells = 0;  // of the ubatch that is wanted
  std::vector<char> q, k;
  nlohmann::ordered_json header;
};

bool on_node(ggml_tensor* node, bool ask, void* data) {
  auto& to = *static_cast<recording*>(data);
  bool const wanted = node->op == GGML_OP_FLASH_ATTN_EXT && node->src[1]->view_src != nullptr &&
                      std::strcmp(node->src[1]->view_src->name, "cache_k_l0") == 0 &&
                      static_cast<std::size_t>(node->src[0]->ne[1]) == to.rows;
  if (ask || !wanted) { return wanted; }
  ggml_tensor const *q = node->src[0], *k = node->src[1];
  to.q.clear();  // the last ubatch of that size is the wanted one
  for (int64_t h = 0; h < q->ne[2]; ++h) {
    for (int64_t r = 0; r < q->ne[1]; ++r) {
      char const* const row = static_cast<char const*>(q->data) + h * static_cast<int64_t>(q->nb[2]) + r * static_cast<int64_t>(q->nb[1]);
      to.q.insert(to.q.end(), row, row + q->ne[0] * 4);
    }
  }
  std::size_t const bytes = k->nb[1];  // heads of a cell lie one behind the other
  to.k.assign(static_cast<char const*>(k->data), static_cast<char const*>(k->data) + to.cells * bytes);
  to.header["q"] = {{"dtype", "F32"}, {"shape", {q->ne[2], q->ne[1], q->ne[0]}}, {"data_offsets", {0, to.q.size()}}};
  to.header["k"] = {{"dtype", "U8"}, {"shape", {to.cells, bytes}}, {"data_offsets", {to.q.size(), to.q.size() + to.k.size()}}};
  return true;
}

void decode(llama_context* context, std::vector<llama_token> ids, std::vector<float> rows, int first) {
  std::size_t const n = ids.empty() ? rows.size() / static_cast<std::size_t>(llama_model_n_embd(llama_get_model(context))) : ids.size();
  llama_batch batch = llama_batch_init(static_cast<int>(n), 0, 1);
  batch.n_tokens = static_cast<int>(n);
  batch.token = ids.empty() ? nullptr : ids.data(), batch.embd = ids.empty() ? rows.data() : nullptr;
  for (std::size_t i = 0; i < n; ++i) {
    batch.pos[i] = first + static_cast<int>(i), batch.n_seq_id[i] = 1, batch.seq_id[i][0] = 0, batch.logits[i] = i + 1 == n;
  }
  int const failed = llama_decode(context, batch);
  batch.token = nullptr, batch.embd = nullptr;
  llama_batch_free(batch);
  if (failed != 0) { throw llava::input_error("llama_decode: " + std::to_string(failed)); }
}

void record(char const* const* argument) {
  model_pointer const model = load_model(argument[1]);
  prompt const ask = checkpoint_front(argument[2], 1)->ask(argument[3], argument[4], 0);
  recording to;
  to.rows = ask.after.size(), to.cells = ask.before.size() + ask.image.at.size() + ask.after.size();
  llama_context_params params = llama_context_default_params();
  params.n_ctx = params.n_batch = params.n_ubatch = 1024, params.n_threads = params.n_threads_batch = 1;
  params.type_k = std::string(argument[5]) == "q8_0" ? GGML_TYPE_Q8_0 : GGML_TYPE_F16;
  params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
  params.cb_eval = on_node, params.cb_eval_user_data = &to;
  std::unique_ptr<llama_context, void (*)(llama_context*)> const context(llama_init_from_model(model.get(), params), llama_free);
  if (!context) { throw llava::input_error("no context"); }
  decode(context.get(), ask.before, {}, 0);
  decode(context.get(), {}, ask.image.rows, static_cast<int>(ask.before.size()));
  decode(context.get(), ask.after, {}, static_cast<int>(ask.before.size() + ask.image.at.size()));
  if (to.q.empty()) { throw llava::input_error("layer 0 was not seen"); }

  std::int32_t const image[] = {static_cast<std::int32_t>(ask.before.size()), static_cast<std::int32_t>(ask.image.at.size())};
  std::size_t const end = to.q.size() + to.k.size();
  to.header["image"] = {{"dtype", "I32"}, {"shape", {2}}, {"data_offsets", {end, end + sizeof image}}};
  std::string header = to.header.dump();
  header.resize((header.size() + 7) / 8 * 8, ' ');
  std::uint64_t const length = header.size();
  std::ofstream out(argument[6], std::ios::binary);
  out.write(reinterpret_cast<char const*>(&length), sizeof length) << header;
  out.write(to.q.data(), static_cast<std::streamsize>(to.q.size())).write(to.k.data(), static_cast<std::streamsize>(to.k.size()));
  if (!out.write(reinterpret_cast<char const*>(image), sizeof image).flush()) {
    throw llava::input_error(std::string(argument[6]) + ": cannot be written");
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 7) { return std::puts("record_attention MODEL.gguf CHECKPOINT IMAGE QUESTION f16|q8_0 OUT.safetensors"), 2; }
  try {
    record(argv);
  } catch (std::exception const& error) {
    std::cerr << "record_attention: " << error.what() << '\n';
    return 2;
  }
  return 0;
}
