// SPDX-License-Identifier: Apache-2.0

// Configurations as Hugging Face writes them, what they leave out, and values that no model has.

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "config.hpp"
#include "folder.hpp"
#include "small_checkpoint.hpp"

namespace {

using namespace llava_test;
using llava::activation;
using llava::config;
using llava::preprocessing;
using llava::read_config;
using llava::read_preprocessing;

class Config : public folder_test {
 protected:
  config read(std::string const& text) const {
    write("config.json", text);
    return read_config(folder());
  }
  void refuse(std::string const& text, std::initializer_list<std::string> why) const {
    write("config.json", text);
    SCOPED_TRACE(text.substr(0, 500));
    expect_refused([&] { read_config(folder()); }, {path("config.json") + ": "});
    for (std::string const& part : why) {
      expect_refused([&] { read_config(folder()); }, {part});
    }
  }
  /// The small configuration with one key of one section set.
  static std::string with(std::string const& section, std::string const& key, std::string const& value) {
    nlohmann::json c = nlohmann::json::parse(small_config);
    nlohmann::json& at = section.empty() ? c : c[section];
    std::string text = (at[key] = "\1", c.dump());
    return replaced(text, "\"\\u0001\"", value);
  }
  config read_with(std::string const& section, std::string const& key, std::string const& value) const {
    return read(with(section, key, value));
  }
  void refuse_with(std::string const& section, std::string const& key, std::string const& value, std::string const& why) const {
    refuse(with(section, key, value), {section.empty() ? key + " " : section + ": " + key + " ", why});
  }
};

TEST_F(Config, TinyModelsIsRead) {
  config const c = read_config(LLAVA_TINY);
  EXPECT_EQ(c.vision.hidden, 96);
  EXPECT_EQ(c.vision.layers, 5);
  EXPECT_EQ(c.vision.patches(), 576);
  EXPECT_EQ(c.vision.head_dim(), 32);
  EXPECT_TRUE(c.vision.act == activation::quick_gelu);
  EXPECT_EQ(c.text.hidden, 128);
  EXPECT_EQ(c.text.kv_heads, 2);
  EXPECT_EQ(c.text.head_dim, 32);
  EXPECT_EQ(c.text.rms_norm_eps, 1e-5f);
  EXPECT_EQ(c.image_token, 4);
  EXPECT_EQ(c.feature_layers, std::vector<int>{-2});
  EXPECT_EQ(c.bos, 1);
  EXPECT_EQ(c.eos, 2);
  EXPECT_EQ(c.max_new_tokens, 24);
  EXPECT_FALSE(c.text.tied || c.keep_cls);
  preprocessing const p = read_preprocessing(LLAVA_TINY, c.vision);
  EXPECT_EQ(p.shortest_edge, 96);
  EXPECT_EQ(p.crop_width, 96);
  EXPECT_EQ(p.mean[2], 0.5f);
  EXPECT_EQ(p.deviation[0], 0.5f);
}

/// llava-1.5-7b-hf's file, which leaves most of the language model to the library's defaults.
TEST_F(Config, WhatIsLeftOutIsTheLibrarysDefault) {
  config const c = read(R"({
    "architectures": ["LlavaForConditionalGeneration"], "ignore_index": -100, "image_token_index": 32000, "model_type": "llava",
    "pad_token_id": 32001, "projector_hidden_act": "gelu", "tie_word_embeddings": false, "torch_dtype": "float16",
    "text_config": {"_name_or_path": "lmsys/vicuna-7b-v1.5", "architectures": ["LlamaForCausalLM"], "max_position_embeddings": 4096,
                    "model_type": "llama", "rms_norm_eps": 1e-05, "torch_dtype": "float16", "vocab_size": 32064},
    "vision_config": {"hidden_size": 1024, "image_size": 336, "intermediate_size": 4096, "model_type": "clip_vision_model",
                      "num_attention_heads": 16, "num_hidden_layers": 24, "patch_size": 14, "projection_dim": 768, "vocab_size": 32000},
    "transformers_version": "4.36.0.dev0", "vision_feature_layer": -2, "vision_feature_select_strategy": "default", "vocab_size": 32064})");
  EXPECT_EQ(c.text.hidden, 4096);
  EXPECT_EQ(c.text.intermediate, 11008);
  EXPECT_EQ(c.text.layers, 32);
  EXPECT_EQ(c.text.heads, 32);
  EXPECT_EQ(c.text.kv_heads, 32);
  EXPECT_EQ(c.text.head_dim, 128);
  EXPECT_EQ(c.text.vocab, 32064);
  EXPECT_EQ(c.text.rms_norm_eps, 1e-5f);
  EXPECT_EQ(c.text.rope_theta, 10000);
  EXPECT_EQ(c.vision.channels, 3);
  EXPECT_EQ(c.vision.layer_norm_eps, 1e-5f);
  EXPECT_TRUE(c.vision.act == activation::quick_gelu);
  EXPECT_EQ(c.vision.patches(), 576);
  EXPECT_TRUE(c.projector_bias && c.projector_act == activation::gelu);
  EXPECT_EQ(c.image_token, 32000);
  EXPECT_EQ(c.bos, 1);
  EXPECT_EQ(c.ends, std::vector<int>{2});

  config const empty = read(R"({"model_type": "llava"})");  // LlavaConfig(): CLIP ViT-L/14 at 336, and LlamaConfig()
  EXPECT_EQ(empty.vision.layers, 24);
  EXPECT_EQ(empty.vision.patches(), 576);
  EXPECT_EQ(empty.text.rms_norm_eps, 1e-6f);
  EXPECT_EQ(empty.text.vocab, 32000);
  EXPECT_EQ(empty.feature_layers, std::vector<int>{-2});

  config const clip =
      read(R"({"model_type": "llava", "vision_config": {}, "text_config": {"num_key_value_heads": null, "head_dim": null}})");
  EXPECT_EQ(clip.vision.hidden, 768);  // CLIPVisionConfig(): ViT-B/32 at 224
  EXPECT_EQ(clip.vision.patches(), 49);
  EXPECT_EQ(clip.text.kv_heads, 32);
}

TEST_F(Config, KeysThatChangedTheirNamesAreRead) {
  EXPECT_EQ(read(replaced(small_config, "image_token_index", "image_token_id")).image_token, 5);
  EXPECT_EQ(read_with("", "image_token_id", "5").image_token, 5);
  refuse_with("", "image_token_id", "4", "is not image_token_index");
  EXPECT_EQ(read_with("text_config", "rope_theta", "5e5").text.rope_theta, 5e5f);
  EXPECT_EQ(read_with("text_config", "rope_parameters", R"({"rope_theta": 20000, "rope_type": "default"})").text.rope_theta, 20000);
  EXPECT_EQ(read_with("", "dtype", "\"bfloat16\"").text.layers, 1);
  EXPECT_EQ(read_with("", "vision_feature_layer", "[-2, 0, 1]").feature_layers, (std::vector<int>{-2, 0, 1}));
  EXPECT_TRUE(read_with("", "vision_feature_select_strategy", "\"full\"").keep_cls);
  EXPECT_TRUE(read_with("", "tie_word_embeddings", "true").text.tied);
  EXPECT_TRUE(read_with("text_config", "tie_word_embeddings", "true").text.tied);
  EXPECT_TRUE(read_with("vision_config", "hidden_act", "\"gelu\"").vision.act == activation::gelu);
  EXPECT_EQ(read_with("text_config", "head_dim", "8").text.head_dim, 8);
}

TEST_F(Config, GenerationSpeaksLast) {
  write("config.json", with("text_config", "eos_token_id", "3"));
  EXPECT_EQ(read_config(folder()).eos, 3);
  write("generation_config.json", R"({"bos_token_id": 0, "eos_token_id": [4, 2], "max_new_tokens": 7, "pad_token_id": null})");
  config const c = read_config(folder());
  EXPECT_EQ(c.bos, 0);
  EXPECT_EQ(c.eos, 4);
  EXPECT_EQ(c.ends, (std::vector<int>{4, 2}));
  EXPECT_EQ(c.max_new_tokens, 7);
  auto const refuse_generation = [&](std::string const& text, std::string const& why) {
    write("generation_config.json", text);
    expect_refused([&] { read_config(folder()); }, {path("generation_config.json") + ": ", why});
  };
  refuse_generation(R"({"eos_token_id": []})", "eos_token_id is not a list of 1 to 64 numbers");
  refuse_generation(R"({"eos_token_id": [2, "3"]})", "eos_token_id is not a whole number");
  refuse_generation(R"({"eos_token_id": -1})", "eos_token_id is -1");
  refuse_generation(R"({"max_new_tokens": 0})", "max_new_tokens is 0");
  refuse_generation(R"({"bos_token_id": 6})", "bos_token_id is not below vocab_size");
  refuse_generation("3", "not a JSON object");
}

TEST_F(Config, OtherModelsAreRefused) {
  refuse_with("", "model_type", "\"llava_next\"", "is llava_next, not llava");
  refuse_with("vision_config", "model_type", "\"siglip_vision_model\"", "is siglip_vision_model, not clip_vision_model");
  refuse_with("text_config", "model_type", "\"mistral\"", "is mistral, not llama");
  refuse_with("text_config", "hidden_act", "\"gelu\"", "is not silu");
  refuse_with("text_config", "hidden_act", "\"relu\"", "is relu");
  refuse_with("text_config", "attention_bias", "true", "is true");
  refuse_with("text_config", "mlp_bias", "true", "is true");
  refuse_with("", "quantization_config", "{}", "quantised");
  refuse(with("text_config", "rope_scaling", R"({"type": "linear", "factor": 2})"),
         {"text_config: rope_scaling: type is linear, not default"});
  refuse(with("text_config", "rope_parameters", R"({"rope_type": "llama3"})"), {"rope_parameters: rope_type is llama3, not default"});
  refuse_with("", "vision_feature_select_strategy", "\"cls\"", "neither default nor full");
  refuse_with("vision_config", "num_channels", "1", "is 1, not from 3 to 3");
}

TEST_F(Config, SizesThatNoModelHasAreRefused) {
  for (char const* key : {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"}) {
    for (char const* section : {"vision_config", "text_config"}) {
      for (char const* value :
           {"0", "-1", "2147483647", "2147483648", "9223372036854775807", "18446744073709551615", "-9223372036854775808"}) {
        refuse_with(section, key, value, std::string("is ") + value + ", not from 1 to ");
      }
      for (char const* value : {"1.5", "\"4\"", "true", "[4]", "{}", "1e400", "18446744073709551616"}) {
        refuse(with(section, key, value), {});
      }
    }
  }
  for (char const* key : {"image_size", "patch_size"}) { refuse_with("vision_config", key, "0", "is 0"); }
  refuse_with("vision_config", "image_size", "1000000", "is 1000000");
  refuse_with("text_config", "num_key_value_heads", "0", "is 0");
  refuse_with("text_config", "vocab_size", "-6", "is -6");
  refuse_with("text_config", "rms_norm_eps", "-1", "is -1");
  refuse_with("text_config", "rms_norm_eps", "\"small\"", "is not a number");
  refuse_with("text_config", "rope_theta", "0", "is 0");
  refuse_with("", "image_token_index", "-1", "is -1");
  refuse_with("", "vision_feature_layer", "2", "is 2, not from -2 to 1");
  refuse_with("", "vision_feature_layer", "[0, -3]", "is -3");
  refuse_with("", "vision_feature_layer", "[]", "is not a list");
}

TEST_F(Config, SizesMustDivide) {
  refuse(with("vision_config", "num_attention_heads", "3"), {"hidden_size is not a multiple of num_attention_heads"});
  refuse(with("vision_config", "patch_size", "3"), {"image_size is not a multiple of patch_size"});
  refuse(with("text_config", "num_attention_heads", "3"), {"hidden_size is not a multiple of num_attention_heads"});
  refuse(with("text_config", "num_key_value_heads", "4"), {"num_attention_heads is not a multiple of num_key_value_heads"});
  refuse(with("text_config", "head_dim", "3"), {"head_dim is odd"});
}

TEST_F(Config, WhatIsNoConfigurationIsRefused) {
  for (std::string const& text :
       {std::string(), std::string("{"), std::string("[]"), std::string("null"), std::string("{\"model_type\": \"llava\",}"),
        std::string("\0\0\0", 3), std::string("{\"a\": \"\xff\"}"), std::string(small_config) + "x"}) {
    refuse(text, {"not a JSON object"});
  }
  refuse("{\"a\": " + std::string(100000, '['), {"nested too deep"});
  refuse("{\"text_config\": " + std::string(100000, '[') + std::string(100000, ']') + "}", {"nested too deep"});
  refuse(R"({"model_type": 3})", {"model_type is not text"});
  refuse(R"({"model_type": "a\nb"})", {"model_type is a?b"});
  refuse(R"({"text_config": 3})", {"text_config is not an object"});
  fs::remove(path("config.json"));
  expect_refused([&] { read_config(folder()); }, {path("config.json") + ": no such file"});
  fs::create_directory(path("config.json"));
  expect_refused([&] { read_config(folder()); }, {path("config.json") + ": not a file that can be read"});
}

class Preprocessing : public Config {
 protected:
  preprocessing read_text(std::string const& text, char const* name = "preprocessor_config.json") const {
    write(name, text);
    return read_preprocessing(folder(), vision_);
  }
  void refuse_text(std::string const& text, std::string const& why) const {
    write("preprocessor_config.json", text);
    expect_refused([&] { read_preprocessing(folder(), vision_); }, {path("preprocessor_config.json") + ": ", why});
  }
  llava::vision_config vision_ = [] {
    llava::vision_config v;
    v.image_size = 224;
    return v;
  }();
};

TEST_F(Preprocessing, WhatIsLeftOutIsTheLibrarysDefault) {
  preprocessing const p = read_text("{}");
  EXPECT_EQ(p.shortest_edge, 224);
  EXPECT_EQ(p.crop_height, 224);
  EXPECT_TRUE(p.resize && p.crop && p.rescale && p.normalize);
  EXPECT_EQ(p.mean[0], 0.48145466f);
  EXPECT_EQ(p.deviation[2], 0.27577711f);
  EXPECT_EQ(p.rescale_factor, 1.0f / 255);
}
TEST_F(Preprocessing, OldAndNewFilesAreRead) {
  EXPECT_EQ(read_text(R"({"size": 300, "crop_size": 224, "feature_extractor_type": "CLIPFeatureExtractor"})").shortest_edge, 300);
  EXPECT_FALSE(read_text(R"({"do_normalize": false})").normalize);
  EXPECT_EQ(read_text(R"({"image_mean": [0, 1, 0.5]})").mean[1], 1);
  fs::remove(path("preprocessor_config.json"));
  EXPECT_EQ(read_text(R"({"image_processor": {"size": {"shortest_edge": 250}}})", "processor_config.json").shortest_edge, 250);
  write("processor_config.json", "{}");
  expect_refused([&] { read_preprocessing(folder(), vision_); }, {path("processor_config.json") + ": image_processor is missing"});
  fs::remove(path("processor_config.json"));
  expect_refused([&] { read_preprocessing(folder(), vision_); }, {path("preprocessor_config.json") + ": no such file"});
}
TEST_F(Preprocessing, OtherProcessorsAndValuesAreRefused) {
  refuse_text(R"({"image_processor_type": "SiglipImageProcessor"})", "image_processor_type is SiglipImageProcessor");
  refuse_text(R"({"resample": 2})", "resample is 2");
  refuse_text(R"({"size": {"height": 224, "width": 224}})", "size: shortest_edge is missing");
  refuse_text(R"({"size": {"shortest_edge": 0}})", "size: shortest_edge is 0");
  refuse_text(R"({"size": "224"})", "size is not a whole number");
  refuse_text(R"({"crop_size": {"height": 224, "width": 223}})", "crop_size is not the 224 of the vision tower's image_size");
  refuse_text(R"({"image_mean": [0, 1]})", "image_mean is not a list of 3 numbers");
  refuse_text(R"({"image_std": [1, 1, 0]})", "image_std is 0");
  refuse_text(R"({"image_std": [1, 1, "1"]})", "image_std is not a number");
  refuse_text(R"({"rescale_factor": -1})", "rescale_factor is -1");
  refuse_text(R"({"do_resize": 1})", "do_resize is neither true nor false");
}

}  // namespace
