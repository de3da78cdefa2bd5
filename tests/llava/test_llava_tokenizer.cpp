// SPDX-License-Identifier: Apache-2.0

// The tokenizer against what Hugging Face's made of the same prompts (golden/), and files that are no tokenizers.

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "config.hpp"
#include "folder.hpp"
#include "safetensors.hpp"
#include "tokenizer.hpp"

namespace {

using namespace llava_test;
using llava::tokenizer;

/// A prompt's ids with each image token as often as the picture has patches.
std::vector<int> expanded(std::vector<int> const& ids, llava::config const& c) {
  std::vector<int> all;
  for (int const id : ids) { all.insert(all.end(), id == c.image_token ? static_cast<std::size_t>(c.vision.patches()) : 1, id); }
  return all;
}

class Tokenizer : public folder_test {
 protected:
  llava::config const config_ = llava::read_config(LLAVA_TINY);
  tokenizer const tiny_{LLAVA_TINY, config_};
  std::string const bytes_ = bytes_of(fs::path(LLAVA_TINY) / "tokenizer.model");
};

TEST_F(Tokenizer, IdsAndAnswersAreHuggingFaces) {
  int cases = 0;
  for (auto const& file : fs::directory_iterator(fs::path(LLAVA_DATA) / "golden")) {
    if (file.path().extension() != ".safetensors") { continue; }
    SCOPED_TRACE(file.path().filename().string());
    safetensors::file const golden = safetensors::read(file.path());
    auto const whole = [&](char const* name) {
      std::vector<std::int64_t> const wide = safetensors::elements<std::int64_t>(golden, golden.tensors.at(name));
      return std::vector<int>(wide.begin(), wide.end());
    };
    EXPECT_EQ(expanded(tiny_.encode(golden.metadata.at("prompt")), config_), whole("input_ids"));
    EXPECT_EQ(tiny_.decode(whole("answer_ids")), golden.metadata.at("answer"));
    ++cases;
  }
  EXPECT_EQ(cases, 15);  // as many as cases.json has
}

TEST_F(Tokenizer, BeginIsLeftOutWhereAskedFor) {
  std::vector<int> const with = tiny_.encode("what is this?"), without = tiny_.encode("what is this?", false);
  ASSERT_EQ(with.size(), without.size() + 1);
  EXPECT_EQ(with.front(), config_.bos);
  EXPECT_TRUE(std::equal(without.begin(), without.end(), with.begin() + 1));
  EXPECT_EQ(tiny_.encode(""), std::vector<int>{config_.bos});
  EXPECT_TRUE(tiny_.encode("", false).empty());
}

TEST_F(Tokenizer, ImageMarksNeedNoSpace) {
  EXPECT_EQ(tiny_.encode("<image><image>", false), (std::vector<int>{config_.image_token, config_.image_token}));
  EXPECT_EQ(tiny_.encode("what<image>is", false), tiny_.encode("what <image> is", false));
  std::vector<int> const broken = tiny_.encode("<imag e>", false);
  EXPECT_EQ(std::count(broken.begin(), broken.end(), config_.image_token), 0);
}

TEST_F(Tokenizer, TextThatIsNotUtf8IsEncodedSomehow) {
  for (std::string const& text :
       {std::string("\xff\xfe\xc3"), std::string("a\0b", 3), std::string(10000, '\xe2'), std::string(5000, ' ')}) {
    for (int const id : tiny_.encode(text)) { EXPECT_TRUE(id >= 0 && id < config_.text.vocab); }
  }
}

TEST_F(Tokenizer, IdsOutsideTheVocabularyAreNoText) {
  std::vector<int> const hat = tiny_.encode("hat", false);
  ASSERT_EQ(hat.size(), 1U);
  EXPECT_EQ(tiny_.decode({-1, 1 << 30, config_.bos, hat[0], config_.image_token, config_.eos, 99}), "hat");
  EXPECT_EQ(tiny_.decode({}), "");
  EXPECT_EQ(tiny_.piece(config_.image_token), "<image>");
  EXPECT_EQ(tiny_.piece(hat[0]), "\u2581hat");
  EXPECT_EQ(tiny_.piece(32000), "<32000>");
  EXPECT_EQ(tiny_.piece(-1), "<-1>");
}

/// The real model's image token is not in its tokenizer.model.
TEST_F(Tokenizer, ImageTokenMayLieOutsideThePieces) {
  llava::config c = config_;
  c.image_token = 32000;
  tokenizer const other(LLAVA_TINY, c);
  EXPECT_EQ(other.encode("<image>", false), std::vector<int>{32000});
  EXPECT_EQ(other.piece(32000), "<image>");
}

TEST_F(Tokenizer, TemplateHasALineForEachPicture) {
  EXPECT_EQ(llava::in_template("what is this?", 1), "USER: <image>\nwhat is this? ASSISTANT:");
  EXPECT_EQ(llava::in_template("what is this?", 2), "USER: <image>\n<image>\nwhat is this? ASSISTANT:");
  EXPECT_EQ(llava::in_template("what is this?", 0), "USER: what is this? ASSISTANT:");
}

TEST_F(Tokenizer, FileThatIsMissingIsNamed) {
  expect_refused([&] { tokenizer(folder(), config_); }, {path("tokenizer.model") + ": no such file"});
  fs::create_directory(path("tokenizer.model"));
  expect_refused([&] { tokenizer(folder(), config_); }, {path("tokenizer.model") + ": not a file"});
}

TEST_F(Tokenizer, DamagedFileIsRefusedOrWorks) {
  write("tokenizer.model", "");
  expect_refused([&] { tokenizer(folder(), config_); }, {"tokenizer.model: not a SentencePiece model: no pieces"});
  for (std::size_t size = 1; size < bytes_.size(); size += size < 4000 ? 37 : 9973) {
    write("tokenizer.model", bytes_.substr(0, size));
    try {
      tokenizer const loaded(folder(), config_);  // where a field ends, a shorter model remains
      EXPECT_FALSE(loaded.encode("USER: <image>\nwhat is this? ASSISTANT:").empty());
    } catch (llava::input_error const& why) {
      EXPECT_NE(std::string(why.what()).find("tokenizer.model: not a SentencePiece model: "), std::string::npos) << why.what();
    }
  }
}

TEST_F(Tokenizer, MorePiecesThanTheModelHasRowsAreRefused) {
  llava::config c = config_;
  c.text.vocab = 98;
  expect_refused([&] { tokenizer(LLAVA_TINY, c); }, {"tokenizer.model", "more pieces than the 98 of vocab_size"});
}

std::string varint(std::size_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) { bytes.push_back(static_cast<char>(value | 0x80)); }
  bytes.push_back(static_cast<char>(value));
  return bytes;
}
std::string text_field(int id, std::string const& bytes) {
  return varint(static_cast<std::size_t>(id) << 3 | 2) + varint(bytes.size()) + bytes;
}
std::string piece(std::string const& text, int type, std::string const& score = std::string(4, '\0')) {
  return text_field(1, text_field(1, text) + "\x15" + score + "\x18" + varint(static_cast<std::size_t>(type)));
}
std::string u32(std::size_t value) {
  std::string bytes;
  for (int i = 0; i < 4; ++i) { bytes.push_back(static_cast<char>(value >> (8 * i))); }
  return bytes;
}
enum : int { normal = 1, unknown = 2, control = 3, user_defined = 4, byte = 6 };
std::string const pieces = piece("<unk>", unknown) + piece("a", normal);
std::string normaliser(std::string const& charsmap) { return text_field(3, text_field(2, charsmap)); }

class Pieces : public Tokenizer {
 protected:
  void refuse(std::string const& model, std::string const& why) const {
    expect_refused([&] { tokenizer(model.data(), model.size(), "t.model", config_); }, {"t.model: not a SentencePiece model: ", why});
  }
  void accept(std::string const& model) const {
    tokenizer const loaded(model.data(), model.size(), "t.model", config_);
    EXPECT_NO_THROW(loaded.decode(loaded.encode("a b <image> \xc3\xa4")));
  }
};

TEST_F(Pieces, SmallestModelWorks) { accept(pieces); }
TEST_F(Pieces, SharedTextAndBrokenPiecesAreRefused) {
  refuse(piece("", normal), "piece 0 is no text");
  refuse(pieces + piece(std::string("b\0", 2), normal), "piece 2 is no text");
  refuse(pieces + piece(std::string(5000, 'b'), normal), "piece 2 is no text");
  refuse(pieces + piece("b", normal, u32(0x7fc00000)), "piece 2 has a score that is no number");
  refuse(pieces + piece("a", normal), "a is already defined");
  refuse(piece("a", normal), "unk is not defined");
  refuse(pieces + piece("<0x00>", byte), "byte");
}
TEST_F(Pieces, MessagesThatDoNotEndAreRefused) {
  refuse("\x0a", "a field that ends behind the file");
  refuse("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "a field that ends behind the file");
  refuse("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "a number that does not end");
  refuse("\x0b", "a field of a type that is not known");
  refuse(std::string(1, '\0'), "a field without a number");
  refuse("\x08\x01", "a field of a wrong type");
}
TEST_F(Pieces, LongChainsOfOwnPiecesAreRefused) {
  std::string chain = pieces;
  for (int i = 1; i <= 64; ++i) { chain += piece(std::string(static_cast<std::size_t>(i), 'x'), user_defined); }
  accept(chain);
  refuse(chain + piece(std::string(65, 'x'), user_defined), "more than 64 pieces that begin one another");
}

/// A double array of one block: from the root's state 1, 'a' leads to `state`; state 0x80 is the end of a text whose replacement is at `at`.
std::string table(std::size_t at, std::string const& texts, std::size_t state = 0x80) {
  std::vector<std::size_t> units(256, 0x800000ff);  // labels that are no byte's
  constexpr std::size_t root = 1, child = root ^ 'a';
  units[0] = root << 10;
  units[child] = (child ^ state) << 10 | 1 << 8 | 'a';
  units[0x80] = 0x80000000 | at;
  std::string bytes = u32(4 * units.size());
  for (std::size_t const unit : units) { bytes += u32(unit); }
  return bytes + texts;
}
TEST_F(Pieces, NormalisationTableIsUsed) {
  std::string const model = pieces + piece("\u2581b", normal) + normaliser(table(2, std::string("x\0b\0", 4)));
  tokenizer const loaded(model.data(), model.size(), "t.model", config_);
  EXPECT_EQ(loaded.encode("a", false), std::vector<int>{2});  // a is read as b
}
TEST_F(Pieces, DamagedNormalisationTablesAreRefused) {
  std::string const texts("b\0", 2);
  accept(pieces + normaliser(table(0, texts)));
  refuse(pieces + normaliser(table(2, texts)), "leads out of its texts");
  refuse(pieces + normaliser(table(0x7fffffff, texts)), "leads out of its texts");
  refuse(pieces + normaliser(table(0, std::string(2000, 'b') + texts)), "leads out of its texts");
  refuse(pieces + normaliser(table(0, "b")), "texts do not end");
  refuse(pieces + normaliser(table(0, "")), "texts do not end");
  refuse(pieces + normaliser(table(0, texts, 0x12345)), "leads out of itself");
  refuse(pieces + normaliser(table(0, texts, 1)), "leads out of itself");  // 'a' again, for ever
  refuse(pieces + normaliser("ab"), "without a size");
  refuse(pieces + normaliser(u32(1024) + texts), "of a wrong size");
  refuse(pieces + normaliser(u32(0) + texts), "of a wrong size");
  refuse(pieces + normaliser(u32(0xfffffffc) + std::string(2000, '\0')), "of a wrong size");
  refuse(pieces + text_field(5, text_field(2, "ab")), "without a size");  // what decoding uses
}

}  // namespace
