// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "config.hpp"

namespace llava {

/// SentencePiece's tokenizer.model. The text on each side of `<image>` is encoded separately, which gives Hugging Face's ids.
class tokenizer {
 public:
  tokenizer(std::string const& folder, config const& config);
  tokenizer(void const* bytes, std::size_t size, std::string const& name, config const& config);  // the bytes of a tokenizer.model
  ~tokenizer();
  tokenizer(tokenizer&&) noexcept;
  tokenizer& operator=(tokenizer&&) noexcept;

  /// A prompt as ids: `<s>`, then the text with each `<image>` as one config.image_token (the model expands it). Text only: `begin` false leaves out `<s>`.
  std::vector<int> encode(std::string const& prompt, bool begin = true) const;
  /// Ids as text, without special tokens.
  std::string decode(std::vector<int> const& ids) const;
  /// One id as it is written in the vocabulary (for reports); "<image>" for the image token.
  std::string piece(int id) const;

 private:
  struct model;
  std::unique_ptr<model> model_;
};

/// A question in the template of LLaVA-1.5: `USER: <image>\n…QUESTION ASSISTANT:`, one `<image>` line a picture.
std::string in_template(std::string const& question, int images);

}  // namespace llava
