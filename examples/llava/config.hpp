// SPDX-License-Identifier: Apache-2.0
#pragma once

// config.json, preprocessor_config.json and generation_config.json as Hugging Face writes them; what they leave out is the library default.

#include <string>
#include <vector>

namespace llava {

enum class activation { quick_gelu, gelu, silu };  // x·σ(1.702 x) · exact (erf) · x·σ(x)

struct vision_config {
  int hidden = 1024, intermediate = 4096, layers = 24, heads = 16, channels = 3, image_size = 336, patch_size = 14;
  float layer_norm_eps = 1e-5f;
  activation act = activation::quick_gelu;

  int side() const { return image_size / patch_size; }
  int patches() const { return side() * side(); }
  int head_dim() const { return hidden / heads; }
};

struct text_config {
  int hidden = 4096, intermediate = 11008, layers = 32, heads = 32, kv_heads = 32, head_dim = 128, vocab = 32000, max_positions = 2048;
  float rms_norm_eps = 1e-6f, rope_theta = 10000;
  bool tied = false;  // lm_head is embed_tokens
};

struct config {
  vision_config vision;
  text_config text;
  std::vector<int> feature_layers = {
      -2};                // indices into the hidden states (0: embeddings, i: output of layer i − 1, negative: from the end)
  bool keep_cls = false;  // vision_feature_select_strategy "full"
  activation projector_act = activation::gelu;
  bool projector_bias = true;
  int image_token = 32000, bos = 1, eos = 2, max_new_tokens = 64;
  std::vector<int> ends = {2};  // every id that ends an answer; eos is the first
};

/// What CLIPImageProcessor does.
struct preprocessing {
  int shortest_edge = 336, crop_height = 336, crop_width = 336;
  bool resize = true, crop = true, rescale = true, normalize = true;
  float rescale_factor = 1.0f / 255;
  float mean[3] = {0.48145466f, 0.4578275f, 0.40821073f}, deviation[3] = {0.26862954f, 0.26130258f, 0.27577711f};
};

/// Reads and checks FOLDER/config.json and FOLDER/generation_config.json (optional): every number in a sane range, sizes that divide each other.
config read_config(std::string const& folder);

/// Reads and checks FOLDER/preprocessor_config.json; its crop must be the vision tower's image size.
preprocessing read_preprocessing(std::string const& folder, vision_config const& vision);

}  // namespace llava
