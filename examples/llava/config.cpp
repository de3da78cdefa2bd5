// SPDX-License-Identifier: Apache-2.0

#include "config.hpp"

#include <algorithm>
#include <optional>

#include "json_file.hpp"
#include "safetensors.hpp"

namespace llava {
namespace {

using safetensors::printable;

constexpr int most_width = 1 << 17, most_layers = 1024, most_heads = 1024, most_ids = 1 << 24, most_side = 4096;

activation read_activation(section const& from, char const* key, char const* otherwise) {
  std::string const name = from.word(key, otherwise);
  if (name == "quick_gelu") { return activation::quick_gelu; }
  if (name == "gelu") { return activation::gelu; }
  if (name == "silu" || name == "swish") { return activation::silu; }
  from.refuse(key, "is " + printable(name) + "; quick_gelu, gelu and silu are known");
}

void expect_type(section const& from, char const* expected) {
  std::string const type = from.word("model_type", expected);
  if (type != expected) { from.refuse("model_type", "is " + printable(type) + ", not " + expected); }
}

/// The config.json keys that would change what is computed must be absent or say what is computed.
void expect_false(section const& from, char const* key) {
  if (from.truth(key, false)) { from.refuse(key, "is true, which this program does not do"); }
}

/// LlavaConfig's own vision tower if the file has none (CLIP ViT-L/14 at 336); else CLIPVisionConfig's defaults for what is left out.
vision_config read_vision(std::optional<section> const& from) {
  vision_config v;
  if (!from) { return v; }
  expect_type(*from, "clip_vision_model");
  v.hidden = from->whole("hidden_size", 768, 1, most_width);
  v.intermediate = from->whole("intermediate_size", 3072, 1, most_width);
  v.layers = from->whole("num_hidden_layers", 12, 1, most_layers);
  v.heads = from->whole("num_attention_heads", 12, 1, most_heads);
  v.channels = from->whole("num_channels", 3, 3, 3);
  v.image_size = from->whole("image_size", 224, 1, most_side);
  v.patch_size = from->whole("patch_size", 32, 1, most_side);
  v.layer_norm_eps = from->real("layer_norm_eps", 1e-5f, 0, 1);
  v.act = read_activation(*from, "hidden_act", "quick_gelu");
  if (v.hidden % v.heads != 0) { from->refuse("hidden_size", "is not a multiple of num_attention_heads"); }
  if (v.image_size % v.patch_size != 0) { from->refuse("image_size", "is not a multiple of patch_size"); }
  return v;
}

/// rope_theta at the top, or in rope_parameters (transformers 5), which then counts. Scaled rotary embeddings are refused.
float read_rope(section const& from) {
  constexpr float least = 1, most = 1e12f;
  float theta = from.real("rope_theta", 10000, least, most);
  for (char const* const key : {"rope_scaling", "rope_parameters"}) {
    std::optional<section> const rope = from.inner(key);
    if (!rope) { continue; }
    for (char const* const type : {"rope_type", "type"}) {
      std::string const name = rope->word(type, "default");
      if (name != "default") { rope->refuse(type, "is " + printable(name) + ", not default"); }
    }
    rope->real("partial_rotary_factor", 1, 1, 1);
    theta = rope->real("rope_theta", theta, least, most);
  }
  return theta;
}

text_config read_text(std::optional<section> const& from) {
  text_config t;
  if (!from) { return t; }
  expect_type(*from, "llama");
  t.hidden = from->whole("hidden_size", 4096, 1, most_width);
  t.intermediate = from->whole("intermediate_size", 11008, 1, most_width);
  t.layers = from->whole("num_hidden_layers", 32, 1, most_layers);
  t.heads = from->whole("num_attention_heads", 32, 1, most_heads);
  t.kv_heads = from->whole("num_key_value_heads", t.heads, 1, most_heads);
  t.vocab = from->whole("vocab_size", 32000, 1, most_ids);
  t.max_positions = from->whole("max_position_embeddings", 2048, 1, most_ids);
  t.rms_norm_eps = from->real("rms_norm_eps", 1e-6f, 0, 1);
  t.rope_theta = read_rope(*from);
  if (!from->has("head_dim") && t.hidden % t.heads != 0) { from->refuse("hidden_size", "is not a multiple of num_attention_heads"); }
  t.head_dim = from->whole("head_dim", t.hidden / t.heads, 1, most_width);
  if (t.head_dim % 2 != 0) { from->refuse("head_dim", "is odd, so that it has no rotary halves"); }
  if (t.heads % t.kv_heads != 0) { from->refuse("num_attention_heads", "is not a multiple of num_key_value_heads"); }
  if (read_activation(*from, "hidden_act", "silu") != activation::silu) { from->refuse("hidden_act", "is not silu"); }
  expect_false(*from, "attention_bias");
  expect_false(*from, "mlp_bias");
  return t;
}

int read_image_token(section const& top) {
  int const index = top.whole("image_token_index", 32000, 0, most_ids);
  int const id = top.whole("image_token_id", index, 0, most_ids);
  if (top.has("image_token_index") && id != index) { top.refuse("image_token_id", "is not image_token_index"); }
  return id;
}

bool read_strategy(section const& top) {
  std::string const strategy = top.word("vision_feature_select_strategy", "default");
  if (strategy != "default" && strategy != "full") {
    top.refuse("vision_feature_select_strategy", "is " + printable(strategy) + ", neither default nor full");
  }
  return strategy == "full";
}

/// generation_config.json speaks before config.json, as in generate().
void read_generation(config& c, std::string const& path, std::optional<section> const& text) {
  std::vector<int> const none;
  auto const ids = [&](section const& from) {
    c.bos = from.whole("bos_token_id", c.bos, 0, most_ids);
    constexpr std::size_t most_ends = 64;
    c.ends = from.wholes("eos_token_id", c.ends, most_ends, 0, most_ids);
  };
  if (text) { ids(*text); }
  if (is_file(path)) {
    nlohmann::json const file = read_json(path);
    section const generation(file, path);
    ids(generation);
    c.max_new_tokens = generation.whole("max_new_tokens", c.max_new_tokens, 1, most_ids);
  }
  c.eos = c.ends.front();
  if (c.bos >= c.text.vocab) { throw input_error(path + ": bos_token_id is not below vocab_size"); }
}

std::string join(std::string const& folder, char const* name) { return folder + "/" + name; }

}  // namespace

config read_config(std::string const& folder) {
  std::string const path = join(folder, "config.json");
  nlohmann::json const file = read_json(path);
  section const top(file, path);
  expect_type(top, "llava");
  if (top.has("quantization_config")) { top.refuse("quantization_config", "is there: quantised weights cannot be used"); }

  config c;
  std::optional<section> const text = top.inner("text_config");
  c.vision = read_vision(top.inner("vision_config"));
  c.text = read_text(text);
  c.text.tied = top.truth("tie_word_embeddings", false);
  if (text) { c.text.tied = text->truth("tie_word_embeddings", c.text.tied); }
  c.feature_layers = top.wholes("vision_feature_layer", {-2}, most_layers, -c.vision.layers - 1, c.vision.layers);
  c.keep_cls = read_strategy(top);
  c.projector_act = read_activation(top, "projector_hidden_act", "gelu");
  c.projector_bias = top.truth("multimodal_projector_bias", true);
  c.image_token = read_image_token(top);
  read_generation(c, join(folder, "generation_config.json"), text);
  return c;
}

namespace {

/// {"shortest_edge": 336}, or 336 alone as older files have it.
int read_edge(section const& from) {
  nlohmann::json const* const size = from.find("size");
  if (size == nullptr || !size->is_object()) { return from.whole("size", 224, 1, most_side); }
  section const inner = *from.inner("size");
  if (!inner.has("shortest_edge")) { inner.refuse("shortest_edge", "is missing: only pictures resized by their shorter edge are known"); }
  return inner.whole("shortest_edge", 224, 1, most_side);
}

void read_crop(preprocessing& p, section const& from) {
  nlohmann::json const* const size = from.find("crop_size");
  if (size == nullptr || !size->is_object()) {
    p.crop_height = p.crop_width = from.whole("crop_size", 224, 1, most_side);
    return;
  }
  section const inner = *from.inner("crop_size");
  p.crop_height = inner.whole("height", 224, 1, most_side);
  p.crop_width = inner.whole("width", 224, 1, most_side);
}

void expect_clip(section const& from) {
  for (char const* const key : {"image_processor_type", "feature_extractor_type"}) {
    std::string const type = from.word(key, "CLIPImageProcessor");
    bool const known = type == "CLIPImageProcessor" || type == "CLIPImageProcessorFast" || type == "CLIPImageProcessorPil" ||
                       type == "CLIPFeatureExtractor";
    if (!known) { from.refuse(key, "is " + printable(type) + ", not CLIPImageProcessor"); }
  }
  constexpr int bicubic = 3;
  from.whole("resample", bicubic, bicubic, bicubic);
}

}  // namespace

preprocessing read_preprocessing(std::string const& folder, vision_config const& vision) {
  // transformers 5 may leave the first file out: the second has the same in an object of its own.
  std::string path = join(folder, "preprocessor_config.json");
  bool const alone = is_file(path) || !is_file(join(folder, "processor_config.json"));
  if (!alone) { path = join(folder, "processor_config.json"); }
  nlohmann::json const file = read_json(path);
  section const top(file, path);
  if (!alone && !top.inner("image_processor")) { top.refuse("image_processor", "is missing"); }
  section const from = alone ? top : *top.inner("image_processor");

  preprocessing p;
  expect_clip(from);
  p.shortest_edge = read_edge(from);
  read_crop(p, from);
  p.resize = from.truth("do_resize", true), p.crop = from.truth("do_center_crop", true);
  p.rescale = from.truth("do_rescale", true), p.normalize = from.truth("do_normalize", true);
  p.rescale_factor = from.real("rescale_factor", p.rescale_factor, 0, 1e6f);
  std::vector<float> const mean = from.reals("image_mean", {std::begin(p.mean), std::end(p.mean)}, -1e6f, 1e6f);
  std::vector<float> const deviation = from.reals("image_std", {std::begin(p.deviation), std::end(p.deviation)}, 1e-6f, 1e6f);
  std::copy(mean.begin(), mean.end(), p.mean);
  std::copy(deviation.begin(), deviation.end(), p.deviation);
  if (p.crop_height != vision.image_size || p.crop_width != vision.image_size) {
    from.refuse("crop_size", "is not the " + std::to_string(vision.image_size) + " of the vision tower's image_size");
  }
  return p;
}

}  // namespace llava
