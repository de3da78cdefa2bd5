// SPDX-License-Identifier: Apache-2.0
#pragma once

// JSON files that others wrote: every key is asked for with its type and its range, and what is wrong is said in one line with file and key.

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "error.hpp"

namespace llava {

/// The bytes of a regular file of at most `most` bytes.
std::vector<unsigned char> read_file(std::string const& path, std::size_t most);
bool is_file(std::string const& path);

/// A JSON object. nlohmann's parser keeps its own stack, but what walks the result recurses: nesting beyond 64 is refused.
nlohmann::json parse_json(void const* bytes, std::size_t size, std::string const& name);
nlohmann::json read_json(std::string const& path);

/// One object of a file. A key whose value is null counts as absent, as Hugging Face has it.
class section {
 public:
  /// `place` is what messages begin with: the file, and the keys that lead here.
  section(nlohmann::json const& object, std::string place) : object_(object), place_(std::move(place)) {}

  bool has(char const* key) const { return find(key) != nullptr; }
  int whole(char const* key, int otherwise, int least, int most) const;
  float real(char const* key, float otherwise, float least, float most) const;
  bool truth(char const* key, bool otherwise) const;
  std::string word(char const* key, char const* otherwise) const;
  /// A whole number, or a list of 1 to `longest` of them.
  std::vector<int> wholes(char const* key, std::vector<int> const& otherwise, std::size_t longest, int least, int most) const;
  std::vector<float> reals(char const* key, std::vector<float> const& otherwise, float least, float most) const;
  /// The object under a key; nothing if absent.
  std::optional<section> inner(char const* key) const;
  nlohmann::json const* find(char const* key) const;

  [[noreturn]] void refuse(std::string const& key, std::string const& why) const;

 private:
  int whole_number(nlohmann::json const& value, std::string const& key, int least, int most) const;
  float real_number(nlohmann::json const& value, std::string const& key, float least, float most) const;

  nlohmann::json const& object_;
  std::string place_;
};

}  // namespace llava
