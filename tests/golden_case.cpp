// SPDX-License-Identifier: Apache-2.0
#include "golden_case.hpp"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>

namespace golden {
namespace {

constexpr float nan_value = std::numeric_limits<float>::quiet_NaN();

std::string shown(integers const& shape) {
  std::string text = "[";
  for (index_t const size : shape) { text += (text.size() > 1 ? ", " : "") + (size < 0 ? std::string("any") : std::to_string(size)); }
  return text + "]";
}

std::string shown(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", value);
  return text;
}

/// Where element i of a tensor of that shape lies: "[0, 3]".
std::string place(integers const& shape, std::size_t i) {
  integers index(shape.size());
  for (std::size_t axis = shape.size(); axis-- > 0;) {
    auto const size = at(shape[axis]);
    index[axis] = static_cast<index_t>(i % size), i /= size;
  }
  return shown(index);
}

bool fits(integers const& actual, integers const& wanted) {
  return actual.size() == wanted.size() &&
         std::equal(actual.begin(), actual.end(), wanted.begin(), [](index_t a, index_t w) { return w < 0 || a == w; });
}

}  // namespace

integers sorted_unique(integers values) {
  std::sort(values.begin(), values.end());
  values.erase(std::unique(values.begin(), values.end()), values.end());
  return values;
}

golden_case::golden_case(std::filesystem::path const& path) : file_(safetensors::read(path)) {
  if (!says("op")) { throw safetensors::error("the metadata names no op"); }
}

std::string const& golden_case::text(char const* key) const {
  auto const found = file_.metadata.find(key);
  if (found == file_.metadata.end()) { throw failure(std::string("metadata ") + key + " is missing"); }
  return found->second;
}

index_t golden_case::whole(char const* key, index_t least, index_t most) const {
  std::string const& number = text(key);
  char* end = nullptr;
  errno = 0;
  long long const value = std::strtoll(number.c_str(), &end, 10);
  bool const parsed = !number.empty() && end == number.c_str() + number.size() && errno == 0;
  if (!parsed || value < least || value > most) {
    throw failure(std::string("metadata ") + key + " is " + safetensors::printable(number) + ", not a whole number from " +
                  std::to_string(least) + " to " + std::to_string(most));
  }
  return value;
}

index_t golden_case::whole_or(char const* key, index_t otherwise, index_t least, index_t most) const {
  return says(key) ? whole(key, least, most) : otherwise;
}

double golden_case::real(char const* key) const {
  std::string const& number = text(key);
  char* end = nullptr;
  double const value = std::strtod(number.c_str(), &end);
  if (number.empty() || end != number.c_str() + number.size() || !std::isfinite(static_cast<float>(value))) {
    throw failure(std::string("metadata ") + key + " is " + safetensors::printable(number) + ", not a number");
  }
  return value;
}

integers golden_case::list(char const* key) const {
  nlohmann::json const parsed = nlohmann::json::parse(text(key), nullptr, false);
  integers values;
  bool valid = parsed.is_array();
  for (std::size_t i = 0; valid && i < parsed.size(); ++i) {
    valid = parsed[i].is_number_unsigned() && parsed[i].get<std::uint64_t>() <= static_cast<std::uint64_t>(md::most_tokens);
    if (valid) { values.push_back(parsed[i].get<index_t>()); }
  }
  if (!valid) { throw failure(std::string("metadata ") + key + " is not a list of whole numbers"); }
  return values;
}

void golden_case::agrees(char const* key, index_t size) const {
  if (says(key) && whole(key, 0, md::most_tokens) != size) {
    throw failure(std::string("metadata ") + key + " is " + text(key) + ", the tensors say " + std::to_string(size));
  }
}

safetensors::tensor const& trial::find(std::string const& name) {
  auto const found = case_.file().tensors.find(name);
  if (found == case_.file().tensors.end()) { throw failure(name + ": the tensor is missing"); }
  used_.insert(name);
  return found->second;
}

safetensors::tensor const& trial::find(std::string const& name, integers const& shape) {
  safetensors::tensor const& t = find(name);
  require(fits(t.shape, shape), name + ": has shape " + shown(t.shape) + ", expected " + shown(shape));
  return t;
}

integers trial::shape(std::string const& name, std::size_t rank) { return find(name, integers(rank, -1)).shape; }

integers trial::whole_numbers(std::string const& name, safetensors::tensor const& t) const {
  safetensors::file const& f = case_.file();
  switch (t.type) {
    case safetensors::dtype::i64: return cast<index_t>(safetensors::elements<std::int64_t>(f, t));
    case safetensors::dtype::i32: return cast<index_t>(safetensors::elements<std::int32_t>(f, t));
    case safetensors::dtype::u8: return cast<index_t>(safetensors::elements<std::uint8_t>(f, t));
    default: throw failure(name + ": is of type " + safetensors::name_of(t.type) + ", not of whole numbers");
  }
}

std::vector<double> trial::reals(std::string const& name, safetensors::tensor const& t) const {
  safetensors::file const& f = case_.file();
  switch (t.type) {
    case safetensors::dtype::f64: return safetensors::elements<double>(f, t);
    case safetensors::dtype::f32: return cast<double>(safetensors::elements<float>(f, t));
    case safetensors::dtype::f16: return cast<double>(widened(safetensors::elements<md::half>(f, t)));
    case safetensors::dtype::bf16: return cast<double>(widened(safetensors::elements<md::bfloat16>(f, t)));
    default: throw failure(name + ": is of type " + safetensors::name_of(t.type) + ", not of numbers");
  }
}

std::vector<float> trial::floats(std::string const& name, integers const& shape) { return cast<float>(reals(name, find(name, shape))); }

integers trial::indices(std::string const& name, integers const& shape, index_t end) {
  integers values = whole_numbers(name, find(name, shape));
  for (index_t const value : values) {
    require(value >= 0 && value < end, name + ": holds " + std::to_string(value) + ", which is not in [0, " + std::to_string(end) + ")");
  }
  return values;
}

template <class T>
void trial::keep(std::string const& name, std::vector<T> const& values) {
  record kept{name, std::vector<unsigned char>(values.size() * sizeof(T))};
  if (!values.empty()) { std::memcpy(kept.bytes.data(), values.data(), kept.bytes.size()); }
  records_.push_back(std::move(kept));
}

safetensors::tensor const* trial::expected(std::string const& name, integers const& shape, index_t actual) {
  index_t elements = 1;
  for (index_t const size : shape) { elements *= size; }
  require(elements == actual, name + ": " + std::to_string(actual) + " results for shape " + shown(shape));
  if (!has(name)) { return nullptr; }
  if (case_.informative()) {
    unrequired(name);
    return nullptr;
  }
  ++compared_;
  return &find(name, shape);
}

void trial::equal(std::string const& name, integers const& actual, integers const& shape) {
  keep(name, actual);
  safetensors::tensor const* const t = expected(name, shape, length(actual));
  if (t == nullptr) { return; }
  integers const wanted = whole_numbers(name, *t);
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    require(actual[i] == wanted[i],
            name + ": " + place(shape, i) + " is " + std::to_string(actual[i]) + ", expected " + std::to_string(wanted[i]));
  }
}

void trial::equal_sets(std::string const& name, integers const& actual, integers const& shape) {
  safetensors::tensor const* const t = expected(name, shape, length(actual));
  keep(name, actual);
  if (t == nullptr || actual.empty()) { return; }
  integers wanted = whole_numbers(name, *t);
  for (auto row = wanted.begin(); row != wanted.end(); row += shape.back()) { std::sort(row, row + shape.back()); }
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    require(actual[i] == wanted[i],
            name + ": as a set, " + place(shape, i) + " is " + std::to_string(actual[i]) + ", expected " + std::to_string(wanted[i]));
  }
}

void trial::close(std::string const& name, std::vector<float> const& actual, integers const& shape, tolerance allowed) {
  std::vector<float> bits = actual;  // one NaN is as good as another
  std::replace_if(
      bits.begin(), bits.end(), [](float x) { return std::isnan(x); }, nan_value);
  keep(name, bits);
  safetensors::tensor const* const t = expected(name, shape, length(actual));
  if (t == nullptr) { return; }
  std::vector<double> const wanted = reals(name, *t);
  double largest = 0;
  for (double const value : wanted) { largest = std::fabs(value) > largest ? std::fabs(value) : largest; }
  double const absolute = allowed.absolute * (allowed.of_largest && largest < 1 ? largest : 1);
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    double const error = std::fabs(static_cast<double>(actual[i]) - wanted[i]);
    bool const both_special = std::isnan(wanted[i]) ? std::isnan(actual[i]) : static_cast<double>(actual[i]) == wanted[i];
    require(both_special || error <= absolute + allowed.relative * std::fabs(wanted[i]),
            name + ": " + place(shape, i) + " is " + shown(static_cast<double>(actual[i])) + ", expected " + shown(wanted[i]));
  }
}

void trial::same_bytes(std::string const& name, std::vector<unsigned char> const& actual, integers const& shape) {
  keep(name, actual);
  if (!has(name)) { return; }
  safetensors::tensor const& t = find(name);
  if (case_.informative()) { return; }
  ++compared_;
  find(name, shape);
  require(t.bytes == actual.size(), name + ": " + std::to_string(actual.size()) + " bytes, expected " + std::to_string(t.bytes));
  unsigned char const* const wanted = case_.file().memory.data() + t.begin;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    require(actual[i] == wanted[i], name + ": " + place(t.shape, i / safetensors::bytes_of(t.type)) + " has other bytes");
  }
}

void trial::finish() const {
  for (auto const& [name, t] : case_.file().tensors) {
    require(used_.count(name) > 0,
            safetensors::printable(name) + ": this tensor is unknown in a case of " + safetensors::printable(case_.op()));
  }
  require(compared_ > 0 || case_.informative(), "the case has no expected result");
}

void trial::compare_bits(trial const& other) const {
  require(records_.size() == other.records_.size(), "another number of results than on the reference");
  for (std::size_t r = 0; r < records_.size(); ++r) {
    require(records_[r].bytes == other.records_[r].bytes, records_[r].name + ": other bits than on the reference");
  }
}

}  // namespace golden
