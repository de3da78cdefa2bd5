// SPDX-License-Identifier: Apache-2.0

#include "tokenizer.hpp"

#include <sentencepiece_processor.h>

#include <exception>
#include <string_view>

#include "error.hpp"
#include "json_file.hpp"
#include "safetensors.hpp"
#include "sentencepiece_check.hpp"

namespace llava {
namespace {

constexpr std::string_view image_mark = "<image>";

}  // namespace

struct tokenizer::model {
  sentencepiece::SentencePieceProcessor pieces;
  int image_token = 0, bos = 0;

  bool holds(int id) const { return id >= 0 && id < pieces.GetPieceSize(); }
};

tokenizer::tokenizer(std::string const& folder, config const& config) {
  std::string const path = folder + "/tokenizer.model";
  constexpr std::size_t most = 100'000'000;
  std::vector<unsigned char> const bytes = read_file(path, most);
  *this = tokenizer(bytes.data(), bytes.size(), path, config);
}

tokenizer::tokenizer(void const* bytes, std::size_t size, std::string const& name, config const& config) : model_(new model) {
  check_sentencepiece(static_cast<unsigned char const*>(bytes), size, static_cast<std::size_t>(config.text.vocab), name);
  std::string why;
  try {
    auto const loaded = model_->pieces.LoadFromSerializedProto({static_cast<char const*>(bytes), size});
    why = loaded.ok() ? "" : loaded.ToString();
  } catch (std::exception const& thrown) { why = thrown.what(); }
  if (!why.empty()) { throw input_error(name + ": not a SentencePiece model: " + safetensors::printable(why)); }
  model_->image_token = config.image_token;
  model_->bos = config.bos;
}

tokenizer::~tokenizer() = default;
tokenizer::tokenizer(tokenizer&&) noexcept = default;
tokenizer& tokenizer::operator=(tokenizer&&) noexcept = default;

std::vector<int> tokenizer::encode(std::string const& prompt, bool begin) const {
  std::vector<int> ids;
  if (begin) { ids.push_back(model_->bos); }
  std::string_view rest = prompt;
  while (true) {
    std::size_t const mark = rest.find(image_mark);
    std::vector<int> part;
    if (!model_->pieces.Encode(rest.substr(0, mark), &part).ok()) { throw input_error("prompt: cannot be encoded"); }
    ids.insert(ids.end(), part.begin(), part.end());
    if (mark == std::string_view::npos) { return ids; }
    ids.push_back(model_->image_token);
    rest.remove_prefix(mark + image_mark.size());
  }
}

std::string tokenizer::decode(std::vector<int> const& ids) const {
  std::vector<int> text;
  for (int const id : ids) {
    if (id != model_->image_token && model_->holds(id) && !model_->pieces.IsControl(id)) { text.push_back(id); }
  }
  std::string decoded;
  if (!model_->pieces.Decode(text, &decoded).ok()) { throw input_error("ids: cannot be decoded"); }
  return decoded;
}

std::string tokenizer::piece(int id) const {
  if (id == model_->image_token) { return std::string(image_mark); }
  return model_->holds(id) ? model_->pieces.IdToPiece(id) : "<" + std::to_string(id) + ">";
}

std::string in_template(std::string const& question, int images) {
  std::string prompt = "USER: ";
  for (int i = 0; i < images; ++i) { prompt += std::string(image_mark) + "\n"; }
  return prompt + question + " ASSISTANT:";
}

}  // namespace llava
