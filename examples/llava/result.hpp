// SPDX-License-Identifier: Apache-2.0
#pragma once

// What one run of the model tells: plain numbers, for the command line, the JSON, the picture and the report.

#include <string>
#include <vector>

#include "image.hpp"

namespace llava {

/// One stage of one picture as it is drawn. Original patch indices (raster order), ascending. `kept`, `merged` and `dropped` have each patch once:
/// alone and there, in a window that became one row and there, gone. `key` are the patches of the key set, from kept and merged.
struct panel {
  int image = 0;      // which picture of the prompt, from 0
  std::string stage;  // "all", "merge", "before", "layer 0", …
  std::vector<int> kept, merged, key, dropped;
};

/// Image tokens of one picture, or of all.
struct token_trace {
  int total = 0;               // patches
  double average = 0;          // mean over the layers of the image tokens that each layer ran on
  double average_papers = 0;   // the same counted after pruning at a layer, as the papers' code prints
  int final = 0;               // left after the last stage
  std::vector<int> per_layer;  // what each layer ran on
};

struct run_result {
  std::string prompt;  // as it went into the tokenizer
  std::string answer;
  std::string method;  // none, mustdrop, random, pooling, before
  std::string model;   // its folder
  std::vector<int> answer_ids;
  token_trace image_tokens;              // all pictures together
  std::vector<token_trace> per_image;    // each picture
  std::vector<panel> panels;             // in order of stages, then pictures
  std::vector<picture> pictures;         // what the vision tower saw (framed), one a picture
  int side = 0;                          // patches of a row of a picture; a patch is picture.width / side pixels
  int window_rows = 3, window_cols = 3;  // of merged windows, in patches
  int text_tokens = 0;                   // of the prompt, without image tokens

  double ttft_ms = 0;  // from the picture's file to the first token, loading of the model aside
  double vision_ms = 0, projector_ms = 0, prefill_ms = 0, decode_ms_per_token = 0, reduction_ms = 0;
  long kv_bytes_before = 0, kv_bytes_after = 0;  // of all layers at the end of prefill: if nothing had been dropped, and in fact
  double flops_dense = 0, flops_spent = 0;       // vision, projector and prefill: with all tokens, and in fact
  long peak_rss_bytes = 0;
  std::vector<float> logits;  // of the last prompt token
};

}  // namespace llava
