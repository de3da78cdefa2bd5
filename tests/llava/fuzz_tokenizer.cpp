// SPDX-License-Identifier: Apache-2.0

// The input is a tokenizer.model; what can be loaded encodes text of every kind and decodes what comes out.

#include <string>
#include <vector>

#include "fuzz.hpp"
#include "tokenizer.hpp"

void llava_fuzz::use(std::uint8_t const* data, std::size_t size) {
  llava::config config;
  config.text.vocab = 512, config.image_token = 4;
  std::vector<std::uint8_t> const copy(data, data + size);
  llava::tokenizer const words(copy.data(), copy.size(), "tokenizer.model", config);
  std::string every;
  for (int byte = 0; byte < 256; ++byte) { every.push_back(static_cast<char>(byte)); }
  std::string const repeated(300, 'x');
  for (std::string const& text :
       {std::string("USER: <image>\nWhat is THIS? ASSISTANT:"), every, repeated, std::string("\u00e4\u2581\uff21\u0301 \u4e00")}) {
    std::vector<int> const ids = words.encode(text);
    std::string const decoded = words.decode(ids);
    touch(decoded.data(), decoded.size());
    for (int const id : ids) { static_cast<void>(words.piece(id)); }
  }
  std::vector<int> all;
  for (int id = -2; id < 600; ++id) { all.push_back(id); }
  static_cast<void>(words.decode(all));
}
