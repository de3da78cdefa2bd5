// SPDX-License-Identifier: Apache-2.0

// Checkpoints of every layout and type against the formula that their values come from, and files that are damaged in one place each.

#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include <mustdrop/numerics.hpp>

#include "checkpoint.hpp"
#include "config.hpp"
#include "folder.hpp"
#include "safetensors.hpp"
#include "small_checkpoint.hpp"

namespace {

using namespace llava_test;
using llava::checkpoint;
using llava::weight;
using llava::weight_type;

float element(weight const& w, long i) {
  auto const* const at = static_cast<unsigned char const*>(w.data) + i * (w.type == weight_type::f32 ? 4 : 2);
  if (w.type == weight_type::f32) {
    float value;
    std::memcpy(&value, at, sizeof value);
    return value;
  }
  std::uint16_t bits;
  std::memcpy(&bits, at, sizeof bits);
  return w.type == weight_type::f16 ? mustdrop::widen(mustdrop::half{bits}) : mustdrop::widen(mustdrop::bfloat16{bits});
}

/// Every weight with its name in the old layout.
void each(checkpoint const& c, std::function<void(std::string const&, weight const&)> const& see) {
  auto const affine = [&](std::string const& name, weight const& w, weight const& bias) {
    see(name + ".weight", w), see(name + ".bias", bias);
  };
  std::string const vision = "vision_tower.vision_model.", text = "language_model.model.";
  see(vision + "embeddings.class_embedding", c.vision.class_embedding);
  see(vision + "embeddings.patch_embedding.weight", c.vision.patch_embedding);
  see(vision + "embeddings.position_embedding.weight", c.vision.position_embedding);
  affine(vision + "pre_layrnorm", c.vision.pre_norm, c.vision.pre_norm_bias);
  for (std::size_t i = 0; i < c.vision.layers.size(); ++i) {
    llava::vision_layer const& l = c.vision.layers[i];
    std::string const at = vision + "encoder.layers." + std::to_string(i) + ".";
    affine(at + "layer_norm1", l.norm1, l.norm1_bias), affine(at + "layer_norm2", l.norm2, l.norm2_bias);
    affine(at + "self_attn.q_proj", l.q, l.q_bias), affine(at + "self_attn.k_proj", l.k, l.k_bias);
    affine(at + "self_attn.v_proj", l.v, l.v_bias), affine(at + "self_attn.out_proj", l.out, l.out_bias);
    affine(at + "mlp.fc1", l.fc1, l.fc1_bias), affine(at + "mlp.fc2", l.fc2, l.fc2_bias);
  }
  affine("multi_modal_projector.linear_1", c.projector.linear1, c.projector.linear1_bias);
  affine("multi_modal_projector.linear_2", c.projector.linear2, c.projector.linear2_bias);
  see(text + "embed_tokens.weight", c.text.embed_tokens);
  for (std::size_t i = 0; i < c.text.layers.size(); ++i) {
    llava::text_layer const& l = c.text.layers[i];
    std::string const at = text + "layers." + std::to_string(i) + ".";
    see(at + "input_layernorm.weight", l.input_norm), see(at + "post_attention_layernorm.weight", l.post_attention_norm);
    see(at + "self_attn.q_proj.weight", l.q), see(at + "self_attn.k_proj.weight", l.k);
    see(at + "self_attn.v_proj.weight", l.v), see(at + "self_attn.o_proj.weight", l.o);
    see(at + "mlp.gate_proj.weight", l.gate), see(at + "mlp.up_proj.weight", l.up), see(at + "mlp.down_proj.weight", l.down);
  }
  see(text + "norm.weight", c.text.norm), see("language_model.lm_head.weight", c.text.lm_head);
}

/// make_checkpoint.py's formula.
float made_value(std::string const& name, long i) {
  std::uint32_t h = 2166136261U;
  for (char const c : name) { h = (h ^ static_cast<unsigned char>(c)) * 16777619U; }
  int const k = static_cast<int>((h + static_cast<std::uint32_t>(i) * 2654435761U) >> 16) % 129 - 64;
  bool const norm = name.find("norm") != std::string::npos && name.substr(name.size() - 7) == ".weight";
  int const quarter = k >= 0 ? k / 4 : -((3 - k) / 4);  // rounded down
  return norm ? static_cast<float>(48 + quarter) / 64 : static_cast<float>(k) / 512;
}

class Checkpoint : public folder_test {
 protected:
  void make(std::string const& arguments) const {
    std::string const command = std::string("python3 '") + LLAVA_SCRIPTS + "/make_checkpoint.py' '" + folder() + "' " + arguments;
    ASSERT_EQ(std::system(command.c_str()), 0) << command;
  }
  checkpoint load() const { return checkpoint(folder(), llava::read_config(folder())); }
};

struct layout_and_type {
  char const *layout, *type;
  weight_type expected;
  int shards;
};
class Layouts : public Checkpoint, public testing::WithParamInterface<layout_and_type> {};

TEST_P(Layouts, EveryWeightIsThereWithItsValues) {
  make(std::string("--layout ") + GetParam().layout + " --type " + GetParam().type + " --shards " + std::to_string(GetParam().shards));
  checkpoint const c = load();
  EXPECT_EQ(c.vision.layers.size(), 24U);
  EXPECT_EQ(c.text.layers.size(), 32U);
  int tensors = 0;
  long parameters = 0;
  each(c, [&](std::string const& name, weight const& w) {
    SCOPED_TRACE(name);
    ASSERT_FALSE(w.absent());
    ASSERT_TRUE(w.type == GetParam().expected);
    for (long i = 0; i < w.rows * w.cols; ++i) { ASSERT_EQ(element(w, i), made_value(name, i)) << "element " << i; }
    ++tensors, parameters += w.rows * w.cols;
  });
  EXPECT_EQ(tensors, 684);  // of 686: post_layernorm's two are not used
  EXPECT_EQ(parameters, c.parameters);
  EXPECT_EQ(c.vision.position_embedding.rows, 577);
  EXPECT_EQ(c.vision.patch_embedding.cols, 3 * 14 * 14);
  EXPECT_EQ(c.text.layers[0].down.rows, 32);
  EXPECT_EQ(c.text.layers[0].down.cols, 64);
}

layout_and_type const all_layouts[] = {{"old", "f16", weight_type::f16, 3}, {"old", "bf16", weight_type::bf16, 3},
                                       {"new", "f16", weight_type::f16, 3}, {"new", "bf16", weight_type::bf16, 3},
                                       {"v5", "f16", weight_type::f16, 3},  {"v5", "bf16", weight_type::bf16, 3},
                                       {"v5", "f32", weight_type::f32, 1}};
INSTANTIATE_TEST_SUITE_P(Made, Layouts, testing::ValuesIn(all_layouts),
                         [](auto const& of) { return std::string(of.param.layout) + "_" + of.param.type; });

TEST(TinyModel, LoadsInLessThan50Milliseconds) {
  llava::config const config = llava::read_config(LLAVA_TINY);
  double best = std::numeric_limits<double>::infinity();  // of several: others use this machine too
  long parameters = 0;
  for (int i = 0; i < 5; ++i) {
    auto const begin = std::chrono::steady_clock::now();
    checkpoint const c(LLAVA_TINY, config);
    best = std::min(best, std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count());
    parameters = c.parameters;
  }
  std::printf("%ld parameters in %.1f ms\n", parameters, best);
#ifdef NDEBUG
  EXPECT_LT(best, 50);
#endif
  long stored = 0;
  safetensors::file const file = safetensors::read(fs::path(LLAVA_TINY) / "model.safetensors");
  for (auto const& [name, t] : file.tensors) { stored += static_cast<long>(t.elements()); }
  EXPECT_EQ(parameters, stored - 2 * 96);  // all of the file's but post_layernorm
}

TEST(TinyModel, MovesWithItsFiles) {
  checkpoint a(LLAVA_TINY, llava::read_config(LLAVA_TINY));
  float const before = element(a.text.norm, 3);
  checkpoint b = std::move(a);
  EXPECT_EQ(element(b.text.norm, 3), before);
}

TEST(TinyModel, ProgressEndsAtItsTotal) {
  static long last_done = 0, last_total = -1;
  checkpoint const c(LLAVA_TINY, llava::read_config(LLAVA_TINY), [](long done, long total) {
    EXPECT_GE(done, last_done);
    last_done = done, last_total = total;
  });
  EXPECT_EQ(last_done, last_total);
}

/// The smallest checkpoint, damaged in one place.
class Damaged : public Checkpoint {
 protected:
  void SetUp() override {
    Checkpoint::SetUp();
    write("config.json", small_config);
  }
  stored_tensor& tensor(std::string const& name) {
    for (stored_tensor& t : tensors_) {
      if (t.name.size() >= name.size() && t.name.substr(t.name.size() - name.size()) == name) { return t; }
    }
    throw std::logic_error(name);
  }
  void save() const { write("model.safetensors", safetensors_bytes(tensors_)); }
  void refuse(std::string const& what, std::string const& why) const {
    expect_refused([&] { load(); }, {path("model.safetensors") + ": ", what, why});
  }
  void save_and_refuse(std::string const& what, std::string const& why) const {
    save();
    refuse(what, why);
  }
  std::vector<stored_tensor> tensors_ = small_tensors();
};

TEST_F(Damaged, UndamagedOneLoads) {
  save();
  checkpoint const c = load();
  each(c, [](std::string const& name, weight const& w) { EXPECT_FALSE(w.absent()) << name; });
}
TEST_F(Damaged, EveryPrefixIsRefused) {
  std::string const whole = safetensors_bytes(tensors_);
  for (std::size_t size = 0; size < whole.size(); size += 11) {
    write("model.safetensors", whole.substr(0, size));
    refuse("", "");
  }
  write("model.safetensors", "");
  refuse("", "the file is empty");
}
TEST_F(Damaged, EachTensorThatIsMissingIsNamed) {
  std::vector<stored_tensor> const all = tensors_;
  for (std::size_t i = 0; i < all.size(); ++i) {
    tensors_ = all;
    tensors_.erase(tensors_.begin() + static_cast<std::ptrdiff_t>(i));
    save_and_refuse("tensor " + all[i].name, " is missing");
  }
}
TEST_F(Damaged, EachTensorOfAnotherShapeIsNamed) {
  std::vector<stored_tensor> const all = tensors_;
  for (std::size_t i = 0; i < all.size(); ++i) {
    tensors_ = all;
    tensors_[i] = zeros(all[i].name, {7});
    save_and_refuse("tensor " + all[i].name + " has shape [7]", "config.json says " + std::string(all[i].shape.substr(0, 2)));
  }
}
TEST_F(Damaged, TransposedMatrixIsRefused) {
  tensor("fc1.weight").shape = "[2,3]";
  save_and_refuse("fc1.weight has shape [2, 3]", "config.json says [3, 2]");
}
TEST_F(Damaged, EachWeightThatIsNotFiniteIsNamed) {
  std::vector<stored_tensor> const all = tensors_;
  float const nan = std::numeric_limits<float>::quiet_NaN(), infinite = -std::numeric_limits<float>::infinity();
  for (std::size_t i = 0; i < all.size(); ++i) {
    tensors_ = all;
    std::size_t const last = all[i].data.size() / 4 - 1;
    std::memcpy(tensors_[i].data.data() + 4 * last, i % 2 == 0 ? &nan : &infinite, 4);
    save_and_refuse("tensor " + all[i].name, "holds NaN or infinity: its element " + std::to_string(last));
  }
}
TEST_F(Damaged, HalvesThatAreNotFiniteAreFound) {
  for (auto const& [type, bits] :
       {std::pair{"F16", 0xfc00}, std::pair{"F16", 0x7e01}, std::pair{"BF16", 0x7f80}, std::pair{"BF16", 0xffc0}}) {
    tensors_ = small_tensors();
    stored_tensor& t = tensor("embed_tokens.weight");
    t.dtype = type, t.data = std::string(2 * 24, '\0');
    t.data[2 * 17] = static_cast<char>(bits & 0xff), t.data[2 * 17 + 1] = static_cast<char>(bits >> 8);
    save_and_refuse("embed_tokens.weight", "its element 17");
  }
  for (auto const& [type, bits] : {std::pair{"F16", 0x7bff}, std::pair{"BF16", 0xff7f}}) {  // the largest, and the most negative
    tensors_ = small_tensors();
    stored_tensor& t = tensor("embed_tokens.weight");
    t.dtype = type, t.data = std::string(2 * 24, '\0');
    t.data[2 * 17] = static_cast<char>(bits & 0xff), t.data[2 * 17 + 1] = static_cast<char>(bits >> 8);
    save();
    EXPECT_TRUE(std::isfinite(element(load().text.embed_tokens, 17)));
  }
}
TEST_F(Damaged, OtherTypesAreRefused) {
  tensor("lm_head.weight").dtype = "I32";
  save_and_refuse("lm_head.weight is of type I32", "F32, F16 and BF16 can be used");
  tensor("lm_head.weight").dtype = "F8_E4M3";
  save_and_refuse("lm_head.weight", "dtype that is not known");
}
TEST_F(Damaged, WhatConfigJsonHasNoPlaceForIsRefused) {
  std::vector<stored_tensor> const all = tensors_;
  auto const with = [&](std::string const& name) {
    tensors_ = all;
    tensors_.push_back(zeros(name, {1}));
  };
  with("language_model.model.layers.1.input_layernorm.weight");
  save_and_refuse("layers.1.input_layernorm.weight", "of no layer that config.json knows: it says 1");
  with("language_model.model.layers.99999999999.input_layernorm.weight");
  save_and_refuse("layers.99999999999.", "of no layer");
  with("vision_tower.encoder.layers.1.mlp.fc1.bias");
  save_and_refuse("vision_tower.encoder.layers.1.mlp.fc1.bias", "of no layer");
  with("language_model.model.layers.0.self_attn.q_proj.bias");
  save_and_refuse("q_proj.bias", "is a bias");
  with("model.language_model.norm.weight");
  save_and_refuse("tensor model.language_model.norm.weight", "is a second language_model.model.norm.weight");
  with("vision_tower.vision_model.embeddings.position_ids");
  save();
  EXPECT_NO_THROW(load());
}
TEST_F(Damaged, TiedHeadIsTheEmbedding) {
  tensors_.pop_back();
  save_and_refuse("language_model.lm_head.weight", "is missing");
  write("config.json", replaced(small_config, "\"model_type\": \"llava\"", "\"model_type\": \"llava\", \"tie_word_embeddings\": true"));
  checkpoint const c = load();
  EXPECT_EQ(c.text.lm_head.data, c.text.embed_tokens.data);
}
TEST_F(Damaged, ProjectorWithoutBiasHasNone) {
  write("config.json",
        replaced(small_config, "\"model_type\": \"llava\"", "\"model_type\": \"llava\", \"multimodal_projector_bias\": false"));
  save_and_refuse("linear_1.bias", "which config.json excludes");
  for (char const* name : {"linear_1.bias", "linear_2.bias"}) { tensor(name).name = "unused." + std::string(name); }
  save();
  EXPECT_TRUE(load().projector.linear1_bias.absent());
}
TEST_F(Damaged, ListOfFeatureLayersWidensTheProjector) {
  write("config.json", replaced(small_config, "\"vision_feature_layer\": -1", "\"vision_feature_layer\": [0, -1]"));
  save_and_refuse("linear_1.weight has shape [4, 2]", "config.json says [4, 4]");
  tensor("linear_1.weight") = zeros(tensor("linear_1.weight").name, {4, 4});
  save();
  EXPECT_EQ(load().projector.linear1.cols, 4);
}

std::string entry(std::string const& name, std::string const& shape, std::string const& offsets, std::string const& dtype = "F32") {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}";
}
TEST_F(Damaged, HeadersThatLieAreRefused) {
  auto const header = [&](std::string const& text, std::string const& why, std::string const& data = std::string(16, '\0')) {
    write("model.safetensors", safetensors_bytes(text, data));
    refuse("", why);
  };
  header("{" + entry("a", "[4]", "[0,16]") + "," + entry("b", "[2]", "[8,16]") + "}", "two tensors overlap: a and b");
  header("{" + entry("a", "[1]", "[0,4]") + "," + entry("b", "[2]", "[8,16]") + "}", "gap between tensors, before b");
  header("{" + entry("a", "[2]", "[0,8]") + "}", "bytes behind the last tensor");
  header("{" + entry("a", "[5]", "[0,20]") + "}", "tensor a: its end is too large");
  header("{" + entry("a", "[4]", "[16,0]") + "}", "tensor a: shape and data_offsets disagree");
  header("{" + entry("a", "[-4]", "[0,16]") + "}", "tensor a: an axis is not a whole number");
  header("{" + entry("a", "[4.0]", "[0,16]") + "}", "tensor a: an axis is not a whole number");
  header("{" + entry("a", "[4294967296,4294967296]", "[0,16]") + "}", "tensor a: an axis is too large");
  header("{" + entry("a", "[64,64,64,64,64,64,64,64]", "[0,0]") + "}", "tensor a is larger than the file");
  header("{" + entry("a", "[4]", "[0,18446744073709551615]") + "}", "tensor a: its end is too large");
  header("{" + entry("a", "[4]", "[0,18446744073709551616]") + "}", "tensor a: its end is not a whole number");
  header("{" + entry("a", "[4]", "[0]") + "}", "tensor a has no two data_offsets");
  header("{" + entry("a", "[2]", "[0,8]") + "," + entry("a", "[2]", "[8,16]") + "}", "names a tensor twice");
  header("{\"a\\nb\":3}", "tensor a?b has no dtype");
  header("[]", "the header is not a JSON object");
  header("{" + entry("a", "[4]", "[0,16]"), "the header is not a JSON object");
  header("{\"a\":" + std::string(100000, '['), "nested too deep");
  std::string lies = safetensors_bytes("{}", "");
  lies[7] = '\x7f';
  write("model.safetensors", lies);
  refuse("", "the header is longer than the file");
}
TEST_F(Damaged, WhatIsNoFileIsRefused) {
  refuse("", "cannot be opened");
  fs::create_directory(path("model.safetensors"));
  expect_refused([&] { load(); }, {"model.safetensors: "});
}

/// Two files and their index.
class Sharded : public Damaged {
 protected:
  void SetUp() override {
    Damaged::SetUp();
    auto const middle = tensors_.begin() + static_cast<std::ptrdiff_t>(tensors_.size() / 2);
    write("a.safetensors", safetensors_bytes({tensors_.begin(), middle}));
    write("b.safetensors", safetensors_bytes({middle, tensors_.end()}));
    index_ = "{\"metadata\":{\"total_size\":1},\"weight_map\":{";
    for (auto t = tensors_.begin(); t != tensors_.end(); ++t) {
      index_ += (t == tensors_.begin() ? "\"" : ",\"") + t->name + "\":\"" + (t < middle ? "a" : "b") + ".safetensors\"";
    }
    index_ += "}}";
    write_index(index_);
  }
  void write_index(std::string const& text) const { write("model.safetensors.index.json", text); }
  void refuse_index(std::string const& text, std::vector<std::string> const& why) const {
    write_index(text);
    for (std::string const& part : why) {
      expect_refused([&] { load(); }, {part});
    }
  }
  std::string index_;
};

TEST_F(Sharded, BothFilesAreRead) { EXPECT_EQ(load().text.embed_tokens.rows, 6); }
TEST_F(Sharded, FilesOutsideTheFolderAreRefused) {
  std::string const first = "\"vision_tower.vision_model.embeddings.class_embedding\":\"";
  for (char const* name :
       {"../a.safetensors", "/etc/passwd", "x/a.safetensors", "x\\\\a.safetensors", "..", ".", "", "a.safetensors\\u0000"}) {
    refuse_index(replaced(index_, first + "a.safetensors", first + name),
                 {path("model.safetensors.index.json") + ": ", "tensor vision_tower.vision_model.embeddings.class_embedding",
                  "which is no name of a file in the folder"});
  }
}
TEST_F(Sharded, IndexAndFilesMustAgree) {
  std::string const head = "\"language_model.lm_head.weight\":\"";
  refuse_index(replaced(index_, head + "b", head + "a"), {path("a.safetensors") + ": ", "tensor language_model.lm_head.weight is missing"});
  refuse_index(replaced(index_, head + "b", head + "c"), {"tensor language_model.lm_head.weight is in c.safetensors, which is missing"});
  fs::copy(path("b.safetensors"), path("c.safetensors"));
  refuse_index(replaced(index_, head + "b", head + "c"), {path("c.safetensors") + ": tensor ", " is a second "});
}
TEST_F(Sharded, IndexThatIsNoneIsRefused) {
  std::string const name = path("model.safetensors.index.json") + ": ";
  refuse_index("", {name + "not a JSON object"});
  refuse_index("[]", {name + "not a JSON object"});
  refuse_index(index_.substr(0, index_.size() - 1), {name + "not a JSON object"});
  refuse_index("{}", {name + "weight_map is missing"});
  refuse_index("{\"weight_map\":3}", {name + "weight_map is not an object"});
  refuse_index("{\"weight_map\":{}}", {name + "weight_map names no file"});
  refuse_index("{\"weight_map\":{\"a\":[]}}", {name + "tensor a has no file name"});
  refuse_index(std::string(100000, '[') + "}", {name + "nested too deep"});
}
TEST_F(Sharded, DamageIsReportedOfItsFile) {
  write("b.safetensors", "");
  expect_refused([&] { load(); }, {path("b.safetensors") + ": the file is empty"});
  write("b.safetensors", "12345678");
  expect_refused([&] { load(); }, {path("b.safetensors") + ": the header is longer than the file"});
}

TEST_F(Checkpoint, WrittenTensorsAreReadBack) {
  std::vector<float> const values = {1, -2.5f, std::numeric_limits<float>::denorm_min(), 4, 5, 6};
  safetensors::write(path("out.safetensors"), {{"logits", {2, 3}, values}, {"nothing", {0}, {}}}, {{"who", "\"test\"\n"}});
  safetensors::file const f = safetensors::read(path("out.safetensors"));
  ASSERT_EQ(f.tensors.size(), 2U);
  EXPECT_EQ(safetensors::elements<float>(f, f.tensors.at("logits")), values);
  EXPECT_EQ(f.tensors.at("logits").shape, (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(f.tensors.at("logits").begin % 4, 0U);
  EXPECT_EQ(f.metadata.at("who"), "\"test\"\n");
  EXPECT_THROW(safetensors::write(path("no/out.safetensors"), {}), safetensors::error);
}

}  // namespace
