// SPDX-License-Identifier: Apache-2.0
#pragma once

// A reader of safetensors files that believes nothing: every length, offset and size is checked before it is used. And a small writer.
//
//   8 bytes    length n of the header, little endian
//   n bytes    JSON: {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, …, "__metadata__": {"key": "text", …}}
//   the rest   the tensors, row-major and little endian, with neither gaps nor overlaps

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

namespace safetensors {

/// Why a file is none: one line.
struct error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

enum class dtype { f64, f32, f16, bf16, i64, i32, i16, i8, u8, boolean };

struct dtype_name {
  char const* name;
  dtype type;
  std::size_t bytes;
};
constexpr dtype_name dtype_names[] = {{"F64", dtype::f64, 8}, {"F32", dtype::f32, 4},     {"F16", dtype::f16, 2}, {"BF16", dtype::bf16, 2},
                                      {"I64", dtype::i64, 8}, {"I32", dtype::i32, 4},     {"I16", dtype::i16, 2}, {"I8", dtype::i8, 1},
                                      {"U8", dtype::u8, 1},   {"BOOL", dtype::boolean, 1}};

inline char const* name_of(dtype type) { return dtype_names[static_cast<std::size_t>(type)].name; }
inline std::size_t bytes_of(dtype type) { return dtype_names[static_cast<std::size_t>(type)].bytes; }

struct tensor {
  dtype type = dtype::f32;
  std::vector<std::int64_t> shape;
  std::size_t begin = 0, bytes = 0;  // from the start of the file

  std::size_t elements() const { return bytes / bytes_of(type); }
};

/// What the header says.
struct contents {
  std::map<std::string, std::string> metadata;
  std::map<std::string, tensor> tensors;
};

/// A file in memory of its own.
struct file : contents {
  std::vector<unsigned char> memory;
};

/// Text from a file as it may be shown: one short line.
inline std::string printable(std::string text) {
  constexpr std::size_t most = 80;
  if (text.size() > most) { text = text.substr(0, most) + "..."; }
  std::replace_if(
      text.begin(), text.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }, '?');
  return text;
}

namespace detail {

inline std::vector<unsigned char> load(std::filesystem::path const& path) {
  constexpr std::uintmax_t most = std::uintmax_t{1} << 30;
  std::error_code failed;
  if (!std::filesystem::is_regular_file(path, failed)) { throw error("not a file that can be read"); }
  std::uintmax_t const size = std::filesystem::file_size(path, failed);
  if (failed) { throw error("its size cannot be read"); }
  if (size > most) { throw error("larger than 1 GiB"); }
  std::vector<unsigned char> memory(static_cast<std::size_t>(size));
  std::ifstream in(path, std::ios::binary);
  in.read(reinterpret_cast<char*>(memory.data()), static_cast<std::streamsize>(memory.size()));
  if (!in) { throw error("cannot be read"); }
  return memory;
}

/// The header, whose tensors each have one name. JSON itself would let the last of two win.
inline nlohmann::json parse(char const* begin, char const* end) {
  std::set<std::string> names;
  bool repeated = false;
  constexpr int deepest = 8;  // a tensor's offsets are at 3
  auto const watch = [&](int depth, nlohmann::json::parse_event_t event, nlohmann::json& parsed) {
    if (depth > deepest) { throw error("the header is nested too deep"); }
    if (depth == 1 && event == nlohmann::json::parse_event_t::key) {
      repeated = !names.insert(parsed.get<std::string>()).second || repeated;
    }
    return true;
  };
  nlohmann::json header = nlohmann::json::parse(begin, end, watch, false);
  if (header.is_discarded() || !header.is_object()) { throw error("the header is not a JSON object"); }
  if (repeated) { throw error("the header names a tensor twice"); }
  return header;
}

/// A whole number from 0 to `most`; anything else in its place is an error.
inline std::uint64_t whole(nlohmann::json const& number, std::uint64_t most, std::string const& what) {
  if (!number.is_number_unsigned()) { throw error(what + " is not a whole number"); }
  auto const value = number.get<std::uint64_t>();
  if (value > most) { throw error(what + " is too large"); }
  return value;
}

/// `data` bytes follow the header, `room` is the size of the file.
inline tensor read_tensor(std::string const& name, nlohmann::json const& entry, std::size_t data, std::size_t room) {
  std::string const shown = "tensor " + printable(name);
  auto const field = [&](char const* key) -> nlohmann::json const& {
    if (!entry.is_object() || !entry.contains(key)) { throw error(shown + " has no " + key); }
    return entry[key];
  };
  tensor t;
  nlohmann::json const &type = field("dtype"), &shape = field("shape"), &offsets = field("data_offsets");
  auto const known = std::find_if(std::begin(dtype_names), std::end(dtype_names), [&](dtype_name const& d) { return type == d.name; });
  if (known == std::end(dtype_names)) { throw error(shown + " has a dtype that is not known"); }
  t.type = known->type;

  if (!shape.is_array() || shape.size() > 8) { throw error(shown + " has no shape of up to 8 axes"); }
  std::uint64_t extent = known->bytes;  // with axes of 0 counted as 1: what a tensor without elements may ask for is bounded, too
  bool empty = false;
  for (nlohmann::json const& axis : shape) {
    std::uint64_t const size = whole(axis, room, shown + ": an axis");
    if (size != 0 && extent > room / size) { throw error(shown + " is larger than the file"); }
    extent *= size != 0 ? size : 1, empty = empty || size == 0;
    t.shape.push_back(static_cast<std::int64_t>(size));
  }
  std::uint64_t const bytes = empty ? 0 : extent;
  if (!offsets.is_array() || offsets.size() != 2) { throw error(shown + " has no two data_offsets"); }
  std::uint64_t const begin = whole(offsets[0], data, shown + ": its begin"), end = whole(offsets[1], data, shown + ": its end");
  if (begin > end || end - begin != bytes) { throw error(shown + ": shape and data_offsets disagree"); }
  t.begin = static_cast<std::size_t>(begin), t.bytes = static_cast<std::size_t>(bytes);
  return t;
}

inline void check_cover(std::map<std::string, tensor> const& tensors, std::size_t data) {
  std::vector<std::pair<tensor, std::string>> parts;
  for (auto const& [name, t] : tensors) {
    if (t.bytes > 0) { parts.emplace_back(t, printable(name)); }
  }
  std::sort(parts.begin(), parts.end(), [](auto const& a, auto const& b) { return a.first.begin < b.first.begin; });
  std::size_t end = 0;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    auto const& [t, name] = parts[i];
    if (t.begin < end) { throw error("two tensors overlap: " + parts[i - 1].second + " and " + name); }
    if (t.begin > end) { throw error("there is a gap between tensors, before " + name); }
    end = t.begin + t.bytes;
  }
  if (end != data) { throw error("there are bytes behind the last tensor"); }
}

}  // namespace detail

/// What the header of a file says whose `size` bytes lie at `bytes`. Only the header is read.
inline contents parse(unsigned char const* bytes, std::size_t size) {
  constexpr std::size_t prefix = 8, most = 100'000'000;  // the limit of the format's own library
  if (size < prefix) { throw error("shorter than the length of its header"); }
  std::uint64_t length = 0;
  for (std::size_t i = prefix; i-- > 0;) { length = length << 8 | bytes[i]; }
  if (length > size - prefix) { throw error("the header is longer than the file"); }
  if (length > most) { throw error("the header is longer than 100 MB"); }

  auto const* const begin = reinterpret_cast<char const*>(bytes) + prefix;
  nlohmann::json const header = detail::parse(begin, begin + length);
  std::size_t const first = prefix + static_cast<std::size_t>(length), data = size - first;
  contents c;
  for (auto const& [name, entry] : header.items()) {
    if (name != "__metadata__") {
      c.tensors[name] = detail::read_tensor(name, entry, data, size);
      continue;
    }
    if (!entry.is_object()) { throw error("the metadata is not an object"); }
    for (auto const& [key, text] : entry.items()) {
      if (!text.is_string()) { throw error("metadata " + printable(key) + " is not text"); }
      c.metadata[key] = text.get<std::string>();
    }
  }
  detail::check_cover(c.tensors, data);
  for (auto& [name, t] : c.tensors) { t.begin += first; }
  return c;
}

inline file read(std::filesystem::path const& path) {
  file f;
  f.memory = detail::load(path);
  static_cast<contents&>(f) = parse(f.memory.data(), f.memory.size());
  return f;
}

/// The elements of a tensor, which must be of a type as wide as T. The file's bytes are not aligned: this is a copy.
template <class T>
std::vector<T> elements(file const& f, tensor const& t) {
  if (sizeof(T) != bytes_of(t.type)) { throw error("a tensor read as elements of another width"); }
  std::vector<T> out;
  out.reserve(t.elements() + 1);  // memory even where there is no element: words take views with an address
  out.resize(t.elements());
  if (t.bytes > 0) { std::memcpy(out.data(), f.memory.data() + t.begin, t.bytes); }
  return out;
}

/// A tensor to be written: F32, row-major. `values` has as many elements as the shape says.
struct named_values {
  std::string name;
  std::vector<std::int64_t> shape;
  std::vector<float> values;
};

inline void write(std::filesystem::path const& path, std::vector<named_values> const& tensors,
                  std::map<std::string, std::string> const& metadata = {}) {
  nlohmann::json header = nlohmann::json::object();
  if (!metadata.empty()) { header["__metadata__"] = metadata; }
  std::size_t end = 0;
  for (named_values const& t : tensors) {
    std::size_t const begin = end;
    end += t.values.size() * sizeof(float);
    header[t.name] = {{"dtype", "F32"}, {"shape", t.shape}, {"data_offsets", {begin, end}}};
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // the data begin at a multiple of 8
  std::string length;
  for (int i = 0; i < 8; ++i) { length.push_back(static_cast<char>(std::uint64_t{text.size()} >> (8 * i) & 0xff)); }
  std::ofstream out(path, std::ios::binary);
  out << length << text;
  for (named_values const& t : tensors) {
    out.write(reinterpret_cast<char const*>(t.values.data()), static_cast<std::streamsize>(t.values.size() * sizeof(float)));
  }
  out.close();
  if (!out) { throw error("cannot be written"); }
}

}  // namespace safetensors
