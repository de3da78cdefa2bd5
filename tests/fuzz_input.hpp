// SPDX-License-Identifier: Apache-2.0
#pragma once

// The bytes of a fuzzer as numbers: choices, lengths, and values of every kind that arithmetic treats in its own way.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <type_traits>
#include <vector>

#include <mustdrop/numerics.hpp>
#include <mustdrop/view.hpp>

namespace md = mustdrop;

namespace fuzz {

/// Reads an input byte by byte. Behind its end come numbers made from all of it, so that a few bytes make large tensors.
class input {
 public:
  input(std::uint8_t const* data, std::size_t size) : data_(data), left_(size) {
    for (std::size_t i = 0; i < size; ++i) { state_ = (state_ ^ data[i]) * 0x100000001b3u; }  // FNV-1a
  }

  std::uint64_t bits(std::size_t bytes) {
    std::uint64_t value = 0;
    if (bytes <= left_) {
      for (std::size_t i = 0; i < bytes; ++i) { value |= std::uint64_t{data_[i]} << 8 * i; }
      data_ += bytes, left_ -= bytes;
      return value;
    }
    left_ = 0;
    value = state_ += 0x9e3779b97f4a7c15u;  // SplitMix64
    value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9u;
    value = (value ^ value >> 27) * 0x94d049bb133111ebu;
    value ^= value >> 31;
    return bytes < 8 ? value >> (64 - 8 * bytes) : value;
  }

  /// A whole number in [0, most].
  md::index_t upto(md::index_t most) {
    constexpr md::index_t one_byte = 256;
    return static_cast<md::index_t>(bits(most < one_byte ? 1 : 4) % static_cast<std::uint64_t>(most + 1));
  }
  /// A zero byte says no.
  bool one_in(md::index_t n) { return upto(n - 1) == n - 1; }

  template <class T>
  T pick(std::initializer_list<T> of) {
    return of.begin()[upto(static_cast<md::index_t>(of.size()) - 1)];
  }

  /// A length in [0, most]: half of them next to a power of two, where vectors end.
  md::index_t length(md::index_t most) {
    auto const byte = static_cast<md::index_t>(bits(1));
    md::index_t const near = (md::index_t{1} << byte % 8) + byte / 8 % 4 - 1;
    return byte < 128 || near > most ? byte % (most + 1) : near;
  }

 private:
  std::uint8_t const* data_;
  std::size_t left_;
  std::uint64_t state_ = 0xcbf29ce484222325u;
};

/// Numbers of one kind, which the input chooses: a tensor full of ties, of subnormals or of NaN reaches other code than a mixture does.
class reals {
 public:
  explicit reals(input& in) : in_(&in), kind_(any_kind(in)), one_(any<float>()) {}
  reals(input& in, float one) : in_(&in), kind_(kind::equal), one_(one) {}

  template <class T>
  T next() {
    switch (kind_) {
      case kind::uniform: return md::narrow<T>(unit());
      case kind::shares: return md::narrow<T>(unit() * 0.25f + 0.25f);
      case kind::dyadic: return md::narrow<T>(static_cast<float>(in_->upto(16) - 8) * 0.25f);
      case kind::special: return in_->one_in(8) ? any_special<T>() : md::narrow<T>(unit());
      case kind::patterns: return any<T>();
      case kind::equal: return md::narrow<T>(one_);
      case kind::tiny: return md::narrow<T>(unit() * (std::is_same_v<T, md::half> ? 0x1p-14f : 0x1p-126f));
      case kind::any_size: return md::narrow<T>(unit() * md::float_from_bits(static_cast<std::uint32_t>(1 + in_->upto(253)) << 23));
      case kind::zero_runs: break;
    }
    if (run_ == 0) { run_ = 1 + in_->upto(64), zeros_ = !zeros_; }
    return --run_, md::narrow<T>(zeros_ ? 0.0f : unit());
  }

 private:
  enum class kind : std::uint8_t { uniform, shares, dyadic, special, patterns, equal, tiny, any_size, zero_runs };
  static kind any_kind(input& in) {
    constexpr md::index_t kinds = 9, extra = 3;  // ordinary numbers more often: only these show an error in the last bit
    md::index_t const which = in.upto(kinds + extra - 1);
    return which < kinds ? static_cast<kind>(which) : kind::uniform;
  }

  /// A multiple of 2^-15 in [-1, 1): sums and products of these are rounded.
  float unit() { return static_cast<float>(static_cast<std::int16_t>(in_->bits(2))) * 0x1p-15f; }

  template <class T>
  T any() {
    T value;
    std::uint64_t const bits = in_->bits(sizeof value);
    if constexpr (std::is_same_v<T, float>) {
      value = md::float_from_bits(static_cast<std::uint32_t>(bits));
    } else {
      value.bits = static_cast<std::uint16_t>(bits);
    }
    return value;
  }

  /// NaN, infinities, −0, the smallest and the largest numbers of both 16-bit types and of float.
  template <class T>
  T any_special() {
    constexpr std::uint32_t of[] = {0x7fc00000u, 0x7f800000u, 0xff800000u, 0x80000000u, 0x00000001u, 0x7f7fffffu, 0x3effffffu, 0xffc12345u,
                                    0x33800000u, 0x477fe000u, 0x387fc000u, 0x00800000u, 0x0000ffffu, 0xff7fffffu, 0x3f800000u, 0x00000000u};
    return md::narrow<T>(md::float_from_bits(of[in_->upto(15)]));
  }

  input* in_;
  kind kind_;
  float one_;
  md::index_t run_ = 0;
  bool zeros_ = false;
};

/// Up to `most_count` segments of any lengths, or of one grid's.
inline std::vector<md::index_t> any_sizes(input& in, md::index_t most_count, md::index_t longest) {
  bool const many = in.one_in(2);
  std::vector<md::index_t> sizes(static_cast<std::size_t>(many ? in.upto(most_count) : 1));
  for (md::index_t& size : sizes) { size = in.length(many ? longest / 2 : longest); }
  return sizes;
}

/// Some of the tokens [0, tokens), ascending: few, half, nearly all, none or all, or in runs.
inline std::vector<md::index_t> any_subset(input& in, md::index_t tokens) {
  std::vector<md::index_t> all;
  md::index_t const eighths = in.upto(8);
  bool const runs = in.one_in(2);
  bool stays = eighths > 3;
  for (md::index_t t = 0; t < tokens; ++t) {
    if (!runs || in.one_in(6)) { stays = in.upto(7) < eighths; }
    if (stays) { all.push_back(t); }
  }
  return all;
}

}  // namespace fuzz
