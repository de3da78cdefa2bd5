// SPDX-License-Identifier: Apache-2.0
#pragma once

// A conversation about pictures: prepare, see, reduce, prefill, decode.

#include <string>
#include <vector>

#include "checkpoint.hpp"
#include "config.hpp"
#include "image.hpp"
#include "language.hpp"
#include "reduction.hpp"
#include "result.hpp"
#include "tokenizer.hpp"

namespace llava {

/// What a folder in Hugging Face's format holds. Read once, used by any number of conversations at a time.
struct model {
  std::string folder;
  config settings;
  preprocessing prepare;
  checkpoint weights;
  tokenizer words;

  explicit model(std::string const& path, void (*progress)(long done, long total) = nullptr);
};

struct request {
  std::vector<std::string> images;
  std::string prompt;  // without "<image>": a question, put into the template
  reduction reduce;
  framing frame = framing::crop;
  int max_new_tokens = 0;  // 0: as the model says
  int threads = 1;
  std::string save_plan;  // where to write the plan that was used; empty: nowhere
};

class conversation {
 public:
  /// Sees the pictures and answers the first question. input_error: whatever is wrong with the request.
  conversation(model const& model, request const& request);
  run_result const& result() const { return result_; }

  /// A further question, on what is left of the pictures and what was said. Text only.
  std::string ask(std::string const& question);

 private:
  using ids = std::vector<std::int32_t>;

  void see_pictures(plan_file const& given);
  void lay_out(std::vector<int> const& prompt);
  void prefill(bool given);
  std::string answer(std::vector<float> logits);
  std::vector<float> append(std::vector<int> const& tokens);
  void tell(plan_file const& plan);
  void draw_panels(std::size_t image);

  model const& model_;
  request const request_;
  computer on_;
  reduction how_;
  run_result result_;
  int max_new_tokens_;

  std::vector<image_rows> images_;
  std::vector<image_span> spans_;
  sequence sequence_;
  std::int32_t next_position_ = 0;
  std::vector<layer_cache> caches_;
  std::vector<ids> slots_;                         // which tokens the cache of each layer held at the end of the prefill
  std::vector<std::vector<md::slot_kind>> kinds_;  // what the slots hold
  std::vector<std::vector<float>> scores_;         // what decode attended to; output_aware only
  int last_token_ = -1;                            // generated, not yet in the caches
};

/// One question, one answer.
run_result run(model const& model, request const& request);

}  // namespace llava
