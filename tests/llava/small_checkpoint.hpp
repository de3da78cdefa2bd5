// SPDX-License-Identifier: Apache-2.0
#pragma once

// The smallest LLaVA that the reader accepts, as bytes that a test can damage: 8 × 8 pixels in patches of 4, one layer in each tower.

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace llava_test {

struct stored_tensor {
  std::string name, dtype, shape;
  std::string data;
};

inline std::string safetensors_bytes(std::string const& header, std::string const& data) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) { bytes.push_back(static_cast<char>(std::uint64_t{header.size()} >> (8 * i) & 0xff)); }
  return bytes + header + data;
}

inline std::string safetensors_bytes(std::vector<stored_tensor> const& tensors) {
  std::string header = "{", data;
  for (stored_tensor const& t : tensors) {
    std::string const begin = std::to_string(data.size());
    data += t.data;
    header += (header.size() > 1 ? ",\"" : "\"") + t.name + "\":{\"dtype\":\"" + t.dtype + "\",\"shape\":" + t.shape +
              ",\"data_offsets\":[" + begin + "," + std::to_string(data.size()) + "]}";
  }
  return safetensors_bytes(header + "}", data);
}

/// Zeros of a shape, F32.
inline stored_tensor zeros(std::string name, std::vector<std::size_t> const& shape) {
  std::string text;
  std::size_t bytes = 4;
  for (std::size_t const size : shape) {
    text += (text.empty() ? "" : ",") + std::to_string(size);
    bytes *= size;
  }
  return {std::move(name), "F32", "[" + text + "]", std::string(bytes, '\0')};
}

inline std::vector<stored_tensor> small_tensors() {
  std::vector<stored_tensor> all;
  auto const add = [&](std::string const& name, std::vector<std::size_t> const& shape) { all.push_back(zeros(name, shape)); };
  auto const affine = [&](std::string const& name, std::vector<std::size_t> const& shape) {
    add(name + ".weight", shape);
    add(name + ".bias", {shape[0]});
  };
  std::string const vision = "vision_tower.vision_model.", text = "language_model.model.";
  std::string const v = vision + "encoder.layers.0.", t = text + "layers.0.";
  add(vision + "embeddings.class_embedding", {2});
  add(vision + "embeddings.patch_embedding.weight", {2, 3, 4, 4});
  add(vision + "embeddings.position_embedding.weight", {5, 2});
  affine(vision + "pre_layrnorm", {2});
  for (char const* norm : {"layer_norm1", "layer_norm2"}) { affine(v + norm, {2}); }
  for (char const* name : {"q_proj", "k_proj", "v_proj", "out_proj"}) { affine(v + "self_attn." + name, {2, 2}); }
  affine(v + "mlp.fc1", {3, 2});
  affine(v + "mlp.fc2", {2, 3});
  affine("multi_modal_projector.linear_1", {4, 2});
  affine("multi_modal_projector.linear_2", {4, 4});
  add(text + "embed_tokens.weight", {6, 4});
  for (char const* norm : {"input_layernorm", "post_attention_layernorm"}) { add(t + norm + ".weight", {4}); }
  add(t + "self_attn.q_proj.weight", {4, 4});
  add(t + "self_attn.k_proj.weight", {2, 4});
  add(t + "self_attn.v_proj.weight", {2, 4});
  add(t + "self_attn.o_proj.weight", {4, 4});
  add(t + "mlp.gate_proj.weight", {5, 4});
  add(t + "mlp.up_proj.weight", {5, 4});
  add(t + "mlp.down_proj.weight", {4, 5});
  add(text + "norm.weight", {4});
  add("language_model.lm_head.weight", {6, 4});
  return all;
}

inline char const* const small_config = R"({
  "model_type": "llava", "image_token_index": 5, "vision_feature_layer": -1,
  "vision_config": {"model_type": "clip_vision_model", "hidden_size": 2, "intermediate_size": 3, "num_hidden_layers": 1,
                    "num_attention_heads": 1, "image_size": 8, "patch_size": 4},
  "text_config": {"model_type": "llama", "hidden_size": 4, "intermediate_size": 5, "num_hidden_layers": 1, "num_attention_heads": 2,
                  "num_key_value_heads": 1, "vocab_size": 6}
})";

inline char const* const small_preprocessing = R"({
  "image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 8}, "crop_size": {"height": 8, "width": 8}
})";

}  // namespace llava_test
