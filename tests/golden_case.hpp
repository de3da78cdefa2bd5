// SPDX-License-Identifier: Apache-2.0
#pragma once

// What every golden case is checked with: its parameters, its tensors, and the comparisons that say which tensor differs where.

#include <cstddef>
#include <filesystem>
#include <initializer_list>
#include <set>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <mustdrop/numerics.hpp>
#include <mustdrop/status.hpp>
#include <mustdrop/view.hpp>

#include "memory.hpp"
#include "safetensors.hpp"

namespace golden {

using md::index_t;
using integers = std::vector<index_t>;

/// A file that is not a case, or a result that is not the case's: one line.
struct failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

template <class T>
index_t length(std::vector<T> const& values) {
  return static_cast<index_t>(values.size());
}
inline std::size_t at(index_t i) { return static_cast<std::size_t>(i); }

/// n elements, at an address of their own even if n is 0.
template <class T>
std::vector<T> array_of(index_t n, T value = T{}) {
  std::vector<T> values;
  values.reserve(at(n) + 1);
  values.resize(at(n), value);
  return values;
}

/// Elements [begin, end) as a vector of their own.
template <class T>
std::vector<T> part(std::vector<T> const& values, index_t begin, index_t end) {
  std::vector<T> out = array_of<T>(end - begin);
  for (index_t i = begin; i < end; ++i) { out[at(i - begin)] = values[at(i)]; }
  return out;
}

template <class To, class From>
std::vector<To> cast(std::vector<From> const& values) {
  std::vector<To> out = array_of<To>(length(values));
  for (std::size_t i = 0; i < values.size(); ++i) { out[i] = static_cast<To>(values[i]); }
  return out;
}

template <class T>
std::vector<float> widened(std::vector<T> const& values) {
  std::vector<float> out = array_of<float>(length(values));
  for (std::size_t i = 0; i < values.size(); ++i) { out[i] = md::widen(values[i]); }
  return out;
}

inline integers counting(index_t n) {
  integers out = array_of<index_t>(n);
  for (index_t i = 0; i < n; ++i) { out[at(i)] = i; }
  return out;
}

integers sorted_unique(integers values);

/// An error |actual − expected| ≤ absolute + relative·|expected| is rounding.
struct tolerance {
  double relative, absolute;
  bool of_largest = false;  // `absolute` is a share of the tensor's largest value
};
/// Official f32 results differ from float64 by 2e-7 to 9e-6 (window scores, cached keys); half arithmetic by 6e-4, bfloat16 by 4e-3.
constexpr tolerance f32_tolerance{1e-4, 1e-5}, f16_tolerance{2e-3, 2e-3}, bf16_tolerance{2e-2, 2e-2};
/// Attention weights may all be far below 1, where 1e-5 or 2e-3 would forgive anything.
constexpr tolerance weights(tolerance t) { return {t.relative, t.absolute, true}; }
template <class T>
constexpr tolerance tolerance_of = std::is_same_v<T, float>      ? f32_tolerance
                                   : std::is_same_v<T, md::half> ? f16_tolerance
                                                                 : bf16_tolerance;

/// A case file. Throws safetensors::error if it is none.
class golden_case {
 public:
  explicit golden_case(std::filesystem::path const& path);

  safetensors::file const& file() const { return file_; }
  std::string const& op() const { return text("op"); }
  bool informative() const { return says("informative") && text("informative") == "1"; }

  bool says(char const* key) const { return file_.metadata.count(key) > 0; }
  std::string const& text(char const* key) const;
  index_t whole(char const* key, index_t least, index_t most) const;
  index_t whole_or(char const* key, index_t otherwise, index_t least, index_t most) const;
  double real(char const* key) const;
  integers list(char const* key) const;
  /// A size that a tensor tells too must be the same in the metadata, if it is there.
  void agrees(char const* key, index_t size) const;

 private:
  safetensors::file file_;
};

/// One case on one backend: knows which tensors were read and what the words gave.
class trial {
 public:
  explicit trial(golden_case const& tested) : case_(tested) {}

  golden_case const& parameters() const { return case_; }
  bool has(std::string const& name) const { return case_.file().tensors.count(name) > 0; }

  /// What no case of an op goes without.
  void needs(std::initializer_list<char const*> names) const {
    for (char const* name : names) { require(has(name), std::string(name) + ": the tensor is missing"); }
  }

  // Inputs. Every size is checked against `shape`; −1 there takes any size.
  integers shape(std::string const& name, std::size_t rank);
  safetensors::dtype type(std::string const& name) { return find(name).type; }
  template <class T>
  std::vector<T> input(std::string const& name, integers const& shape);
  std::vector<float> floats(std::string const& name, integers const& shape);      // of any real type
  integers indices(std::string const& name, integers const& shape, index_t end);  // each in [0, end)

  // Comparisons with a tensor of that name, if the case has it; what is compared is kept for the other backends.
  void equal(std::string const& name, integers const& actual, integers const& shape);
  /// As sets: each row of the tensor is sorted first; the rows of `actual` ascend.
  void equal_sets(std::string const& name, integers const& actual, integers const& shape);
  void close(std::string const& name, std::vector<float> const& actual, integers const& shape, tolerance allowed);
  void same_bytes(std::string const& name, std::vector<unsigned char> const& actual, integers const& shape);
  /// A tensor that this case has for readers: nothing of it is required.
  void unrequired(std::string const& name) { used_.insert(name); }

  /// What must hold of our own results whatever the case says.
  static void require(bool holds, std::string const& what) {
    if (!holds) { throw failure(what); }
  }
  template <class T>
  static void require_same(std::string const& what, std::vector<T> const& a, std::vector<T> const& b);

  /// Every tensor was read or compared, and something was compared.
  void finish() const;
  /// Throws unless this backend gave the same bits as another one.
  void compare_bits(trial const& other) const;

 private:
  struct record {
    std::string name;
    std::vector<unsigned char> bytes;
  };

  safetensors::tensor const& find(std::string const& name);
  safetensors::tensor const& find(std::string const& name, integers const& shape);
  template <class T>
  void keep(std::string const& name, std::vector<T> const& values);
  /// The tensor to compare with; null if there is none or nothing is required of it.
  safetensors::tensor const* expected(std::string const& name, integers const& shape, index_t actual);
  integers whole_numbers(std::string const& name, safetensors::tensor const& t) const;
  std::vector<double> reals(std::string const& name, safetensors::tensor const& t) const;

  golden_case const& case_;
  std::set<std::string> used_;
  std::vector<record> records_;
  int compared_ = 0;
};

template <class T>
constexpr safetensors::dtype dtype_of = std::is_same_v<T, float>      ? safetensors::dtype::f32
                                        : std::is_same_v<T, md::half> ? safetensors::dtype::f16
                                                                      : safetensors::dtype::bf16;

template <class T>
std::vector<T> trial::input(std::string const& name, integers const& shape) {
  static_assert(md::is_real_v<T>);
  safetensors::tensor const& t = find(name, shape);
  require(t.type == dtype_of<T>, name + ": is of type " + safetensors::name_of(t.type));
  return safetensors::elements<T>(case_.file(), t);
}

template <class T>
void trial::require_same(std::string const& what, std::vector<T> const& a, std::vector<T> const& b) {
  bool equal = a.size() == b.size();
  for (std::size_t i = 0; equal && i < a.size(); ++i) {
    if constexpr (md::is_real_v<T>) {
      equal = same(md::widen(a[i]), md::widen(b[i]));
    } else {
      equal = a[i] == b[i];
    }
  }
  require(equal, what);
}

/// Calls visit with a value of the type that an input tensor has.
template <class Visit>
void with_real(trial& t, std::string const& name, Visit const& visit) {
  switch (t.type(name)) {
    case safetensors::dtype::f32: return visit(float{});
    case safetensors::dtype::f16: return visit(md::half{});
    case safetensors::dtype::bf16: return visit(md::bfloat16{});
    default: throw failure(name + ": is of type " + safetensors::name_of(t.type(name)));
  }
}

inline void must_be_ok(md::status s, char const* word) {
  if (s != md::status::ok) { throw failure(std::string(word) + " returned " + md::message(s)); }
}

}  // namespace golden
