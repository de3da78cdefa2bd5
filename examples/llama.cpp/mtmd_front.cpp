// SPDX-License-Identifier: Apache-2.0
// Pictures and words as libmtmd prepares them, for any model of the kind of LLaVA-1.5: one square grid of rows a picture, numbered one by one.
#include <gguf.h>
#include <mtmd.h>

#include <algorithm>
#include <chrono>

#include <mustdrop/budget.hpp>
#include <mustdrop/cpu/window_merge.hpp>
#include <mustdrop/cpu/window_similarity.hpp>
#include <mustdrop/method/mustdrop.hpp>

#include "buffers.hpp"
#include "error.hpp"
#include "image.hpp"
#include "picture.hpp"
#include "tensor.hpp"

namespace mustdrop_llama {

using llava::input_error;

void merge_windows(picture& p, md::index_t side, md::index_t width, md::index_t tokens, int threads) {
  llava::stopwatch const time(p.reduction_ms);
  llava::computer on(threads);
  md::token_grid const grid{side, side, 1, 0, 0};
  md::window_shape window;
  window.rows = std::min(window.rows, side), window.cols = window.rows;
  while (md::window_merge_count(grid, window, tokens) < 0 && window.rows < side) { ++window.rows, ++window.cols; }
  md::index_t const n = grid.patches(), windows = window.windows(grid);
  md::merge_options options;
  options.count = md::window_merge_count(grid, window, tokens);
  std::vector<float> similarity(static_cast<std::size_t>(windows)), merged(p.rows.size()), sizes(static_cast<std::size_t>(n));
  std::vector<std::int32_t> source(sizes.size());
  llava::keep_memory keep(1, n);
  // [docs/llama_cpp.md 1]
  llava::aligned_buffer scratch(md::method::merge_similar_workspace_size(on.words, window, n, width, windows, {}));
  llava::check(md::method::merge_similar(on.words, options, window, md::view(p.rows.data(), n, width), {}, md::view(&grid, 1), {},
                                         md::view(similarity.data(), 1, windows), md::view(merged.data(), n, width),
                                         md::view(sizes.data(), n), md::view(source.data(), n), keep.lists(), scratch.lend()),
               "merge_similar");
  p.at = keep.list(0);  // a merged row stands where its window's middle did
  merged.resize(p.at.size() * static_cast<std::size_t>(width));
  p.rows.swap(merged);
  // [end]
}

namespace {

/// Side of the grid of an encoder of LLaVA-1.5's kind, whose rows are those of one square, line by line; libmtmd does not tell it.
md::index_t side_of(std::string const& mmproj) {
  std::unique_ptr<gguf_context, deleter<gguf_context, gguf_free>> const file(gguf_init_from_file(mmproj.c_str(), {true, nullptr}));
  auto const key = [&](char const* name, gguf_type type) {
    std::int64_t const at = file ? gguf_find_key(file.get(), name) : -1;
    return at >= 0 && gguf_get_kv_type(file.get(), at) == type ? at : -1;
  };
  std::int64_t const kind = key("clip.projector_type", GGUF_TYPE_STRING), picture = key("clip.vision.image_size", GGUF_TYPE_UINT32),
                     patch = key("clip.vision.patch_size", GGUF_TYPE_UINT32);
  bool const llava = kind >= 0 && picture >= 0 && patch >= 0 && std::string(gguf_get_val_str(file.get(), kind)) == "mlp" &&
                     gguf_get_val_u32(file.get(), patch) > 0;
  if (!llava) { throw input_error(mmproj + ": no vision encoder of LLaVA-1.5's kind (a projector \"mlp\", image and patch size)"); }
  return gguf_get_val_u32(file.get(), picture) / gguf_get_val_u32(file.get(), patch);
}

class mtmd_reader final : public front {
 public:
  mtmd_reader(llama_model const* model, std::string const& mmproj, int threads)
      : model_(model), vocabulary_(llama_model_get_vocab(model)), threads_(threads), side_(side_of(mmproj)) {
    mtmd_log_set(errors_only, nullptr);
    if (llama_vocab_type(vocabulary_) == LLAMA_VOCAB_TYPE_NONE) { throw input_error("the language model's file has no tokenizer"); }
    mtmd_context_params params = mtmd_context_params_default();
    params.use_gpu = false, params.print_timings = false, params.warmup = false, params.n_threads = threads;
    context_.reset(mtmd_init_from_file(mmproj.c_str(), model, params));
    if (!context_ || !mtmd_support_vision(context_.get())) {
      throw input_error(mmproj + ": no vision encoder that libmtmd loads for this model");
    }
    if (mtmd_decode_use_mrope(context_.get()) || mtmd_decode_use_non_causal(context_.get(), nullptr)) {
      throw input_error(mmproj + ": a model whose pictures have positions of two axes, or see themselves whole, is not of LLaVA's kind");
    }
  }

  prompt ask(std::string const& image, std::string const& question, int tokens) override {
    llava::picture const seen = llava::read_picture(image);  // libmtmd's own reader starts ffprobe for what it does not know
    std::unique_ptr<mtmd_bitmap, deleter<mtmd_bitmap, mtmd_bitmap_free>> const bitmap(
        mtmd_bitmap_init(static_cast<std::uint32_t>(seen.width), static_cast<std::uint32_t>(seen.height), seen.rgb.data()));
    if (!bitmap) { throw input_error(image + ": libmtmd does not take it"); }
    std::unique_ptr<mtmd_input_chunks, deleter<mtmd_input_chunks, mtmd_input_chunks_free>> const chunks(mtmd_input_chunks_init());
    if (question.find(mtmd_default_marker()) != std::string::npos) {
      throw input_error("the question has libmtmd's mark of a picture in it");
    }
    std::string const text = "USER: " + std::string(mtmd_default_marker()) + "\n" + question + " ASSISTANT:";
    mtmd_input_text const input{text.c_str(), text.size(), true, true};
    mtmd_bitmap const* const pictures[] = {bitmap.get()};
    if (mtmd_tokenize(context_.get(), chunks.get(), &input, pictures, 1) != 0) { throw input_error(image + ": libmtmd does not take it"); }
    prompt out;
    for (std::size_t i = 0; i < mtmd_input_chunks_size(chunks.get()); ++i) { add(mtmd_input_chunks_get(chunks.get(), i), out); }
    auto const n = static_cast<md::index_t>(out.image.at.size());
    if (side_ * side_ != n) { throw input_error(image + ": " + std::to_string(n) + " rows are not the encoder's grid"); }
    if (tokens > 0 && tokens < n) { merge_windows(out.image, side_, llama_model_n_embd_inp(model_), tokens, threads_); }
    return out;
  }

  std::string text(std::vector<llama_token> const& answer) const override {
    std::string out;
    for (auto const token : answer) {
      char piece[256];
      int const bytes = llama_token_to_piece(vocabulary_, token, piece, sizeof piece, 0, false);
      out.append(piece, static_cast<std::size_t>(std::max(0, bytes)));
    }
    return out.substr(std::min(out.size(), out.find_first_not_of(' ')));
  }
  bool ends(llama_token token) const override { return llama_vocab_is_eog(vocabulary_, token); }

 private:
  /// Text goes in front of the picture or behind it; a second picture has no place.
  void add(mtmd_input_chunk const* chunk, prompt& to) {
    if (mtmd_input_chunk_get_type(chunk) == MTMD_INPUT_CHUNK_TYPE_TEXT) {
      std::size_t count = 0;
      llama_token const* const ids = mtmd_input_chunk_get_tokens_text(chunk, &count);
      auto& side = to.image.at.empty() ? to.before : to.after;
      side.insert(side.end(), ids, ids + count);
      return;
    }
    if (mtmd_input_chunk_get_type(chunk) != MTMD_INPUT_CHUNK_TYPE_IMAGE || !to.image.at.empty()) {
      throw input_error("one picture in one piece is asked for");
    }
    llava::stopwatch const time(to.image.encode_ms);
    if (mtmd_encode_chunk(context_.get(), chunk) != 0) { throw input_error("libmtmd could not encode the picture"); }
    std::size_t const n = mtmd_input_chunk_get_n_tokens(chunk), width = static_cast<std::size_t>(llama_model_n_embd_inp(model_));
    float const* const rows = mtmd_get_output_embd(context_.get());
    to.image.rows.assign(rows, rows + n * width);
    to.image.places = static_cast<std::int32_t>(n);
    for (std::size_t r = 0; r < n; ++r) { to.image.at.push_back(static_cast<std::int32_t>(r)); }
  }

  llama_model const* model_;
  llama_vocab const* vocabulary_;
  int threads_;
  md::index_t side_;
  std::unique_ptr<mtmd_context, deleter<mtmd_context, mtmd_free>> context_;
};

}  // namespace

std::unique_ptr<front> mtmd_front(llama_model const* model, std::string const& mmproj, int threads) {
  return std::make_unique<mtmd_reader>(model, mmproj, threads);
}

}  // namespace mustdrop_llama
