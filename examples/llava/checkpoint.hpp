// SPDX-License-Identifier: Apache-2.0
#pragma once

// The tensors of a Hugging Face LLaVA checkpoint: model.safetensors, or shards with model.safetensors.index.json, memory-mapped.
// Three layouts of names are known (before and after transformers 4.52, and transformers 5); here everything has the names below.

#include <memory>
#include <string>
#include <vector>

#include "config.hpp"

namespace llava {

enum class weight_type { f32, f16, bf16 };

/// A matrix [rows, cols] (a vector: rows = 1) in the file's own type, where the file is mapped. The address may have any alignment.
struct weight {
  void const* data = nullptr;
  weight_type type = weight_type::f32;
  long rows = 0, cols = 0;

  bool absent() const { return data == nullptr; }
};

struct vision_layer {
  weight norm1, norm1_bias, norm2, norm2_bias;            // [1, hidden]
  weight q, k, v, out, q_bias, k_bias, v_bias, out_bias;  // [hidden, hidden], [1, hidden]
  weight fc1, fc1_bias, fc2, fc2_bias;                    // [intermediate, hidden], [hidden, intermediate]
};

struct vision_weights {
  weight class_embedding;     // [1, hidden]
  weight patch_embedding;     // [hidden, channels·patch·patch]
  weight position_embedding;  // [1 + patches, hidden]
  weight pre_norm, pre_norm_bias;
  std::vector<vision_layer> layers;  // post_layernorm may be in the file and is not used
};

struct projector_weights {
  weight linear1, linear1_bias, linear2,
      linear2_bias;  // [text hidden, vision hidden · feature layers], [text hidden, text hidden]; biases may be absent
};

struct text_layer {
  weight input_norm, post_attention_norm;  // [1, hidden]
  weight q, k, v, o;                       // [heads·head_dim, hidden], [kv_heads·head_dim, hidden] twice, [hidden, heads·head_dim]
  weight gate, up, down;                   // [intermediate, hidden] twice, [hidden, intermediate]
};

struct text_weights {
  weight embed_tokens;  // [vocab, hidden]
  std::vector<text_layer> layers;
  weight norm;
  weight lm_head;  // [vocab, hidden]; embed_tokens if tied
};

class checkpoint {
 public:
  /// Maps the files of FOLDER and looks up every tensor that the configuration asks for; shapes and types are checked, NaN and infinity refused.
  /// `progress(done, total)`, if given, is called while weights are looked through.
  checkpoint(std::string const& folder, config const& config, void (*progress)(long done, long total) = nullptr);
  ~checkpoint();
  checkpoint(checkpoint&&) noexcept;
  checkpoint& operator=(checkpoint&&) noexcept;

  vision_weights vision;
  projector_weights projector;
  text_weights text;
  long parameters = 0;  // of the tensors above

 private:
  struct files;
  std::unique_ptr<files> files_;
};

}  // namespace llava
