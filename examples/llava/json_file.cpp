// SPDX-License-Identifier: Apache-2.0

#include "json_file.hpp"

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <system_error>

#include "safetensors.hpp"

namespace llava {

using safetensors::printable;

bool is_file(std::string const& path) {
  std::error_code failed;
  return std::filesystem::is_regular_file(path, failed);
}

std::vector<unsigned char> read_file(std::string const& path, std::size_t most) {
  std::error_code failed;
  if (!std::filesystem::exists(path, failed)) { throw input_error(path + ": no such file"); }
  if (!is_file(path)) { throw input_error(path + ": not a file that can be read"); }
  std::uintmax_t const size = std::filesystem::file_size(path, failed);
  if (failed) { throw input_error(path + ": its size cannot be read"); }
  if (size > most) { throw input_error(path + ": larger than " + std::to_string(most) + " bytes"); }
  std::vector<unsigned char> bytes(static_cast<std::size_t>(size));
  std::ifstream in(path, std::ios::binary);
  in.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  if (!in) { throw input_error(path + ": cannot be read"); }
  return bytes;
}

nlohmann::json parse_json(void const* bytes, std::size_t size, std::string const& name) {
  constexpr int deepest = 64;
  auto const watch = [&](int depth, nlohmann::json::parse_event_t, nlohmann::json&) {
    if (depth > deepest) { throw input_error(name + ": nested too deep"); }
    return true;
  };
  auto const* const text = static_cast<char const*>(bytes);
  nlohmann::json parsed = nlohmann::json::parse(text, text + size, watch, false);
  if (parsed.is_discarded() || !parsed.is_object()) { throw input_error(name + ": not a JSON object"); }
  return parsed;
}

nlohmann::json read_json(std::string const& path) {
  std::vector<unsigned char> const bytes = read_file(path, 100'000'000);
  return parse_json(bytes.data(), bytes.size(), path);
}

void section::refuse(std::string const& key, std::string const& why) const { throw input_error(place_ + ": " + key + " " + why); }

nlohmann::json const* section::find(char const* key) const {
  auto const found = object_.find(key);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

int section::whole_number(nlohmann::json const& value, std::string const& key, int least, int most) const {
  if (!value.is_number_integer()) { refuse(key, "is not a whole number"); }
  // An unsigned number above the largest signed one would turn negative.
  bool const fits = value.is_number_unsigned() ? value.get<std::uint64_t>() <= static_cast<std::uint64_t>(INT32_MAX)
                                               : value.get<std::int64_t>() >= INT32_MIN;
  auto const number = value.get<std::int64_t>();
  if (!fits || number < least || number > most) {
    refuse(key, "is " + printable(value.dump()) + ", not from " + std::to_string(least) + " to " + std::to_string(most));
  }
  return static_cast<int>(number);
}

float section::real_number(nlohmann::json const& value, std::string const& key, float least, float most) const {
  if (!value.is_number()) { refuse(key, "is not a number"); }
  auto const number = value.get<double>();
  if (!(number >= static_cast<double>(least) && number <= static_cast<double>(most))) {
    nlohmann::json const from = static_cast<double>(least), to = static_cast<double>(most);
    refuse(key, "is " + printable(value.dump()) + ", not from " + from.dump() + " to " + to.dump());
  }
  return static_cast<float>(number);
}

int section::whole(char const* key, int otherwise, int least, int most) const {
  nlohmann::json const* const value = find(key);
  return value == nullptr ? otherwise : whole_number(*value, key, least, most);
}

float section::real(char const* key, float otherwise, float least, float most) const {
  nlohmann::json const* const value = find(key);
  return value == nullptr ? otherwise : real_number(*value, key, least, most);
}

bool section::truth(char const* key, bool otherwise) const {
  nlohmann::json const* const value = find(key);
  if (value == nullptr) { return otherwise; }
  if (!value->is_boolean()) { refuse(key, "is neither true nor false"); }
  return value->get<bool>();
}

std::string section::word(char const* key, char const* otherwise) const {
  nlohmann::json const* const value = find(key);
  if (value == nullptr) { return otherwise; }
  if (!value->is_string()) { refuse(key, "is not text"); }
  return value->get<std::string>();
}

std::vector<int> section::wholes(char const* key, std::vector<int> const& otherwise, std::size_t longest, int least, int most) const {
  nlohmann::json const* const value = find(key);
  if (value == nullptr) { return otherwise; }
  if (!value->is_array()) { return {whole_number(*value, key, least, most)}; }
  if (value->empty() || value->size() > longest) { refuse(key, "is not a list of 1 to " + std::to_string(longest) + " numbers"); }
  std::vector<int> numbers;
  for (nlohmann::json const& one : *value) { numbers.push_back(whole_number(one, key, least, most)); }
  return numbers;
}

std::vector<float> section::reals(char const* key, std::vector<float> const& otherwise, float least, float most) const {
  nlohmann::json const* const value = find(key);
  if (value == nullptr) { return otherwise; }
  if (!value->is_array() || value->size() != otherwise.size()) {
    refuse(key, "is not a list of " + std::to_string(otherwise.size()) + " numbers");
  }
  std::vector<float> numbers;
  for (nlohmann::json const& one : *value) { numbers.push_back(real_number(one, key, least, most)); }
  return numbers;
}

std::optional<section> section::inner(char const* key) const {
  nlohmann::json const* const value = find(key);
  if (value == nullptr) { return std::nullopt; }
  if (!value->is_object()) { refuse(key, "is not an object"); }
  return section(*value, place_ + ": " + key);
}

}  // namespace llava
