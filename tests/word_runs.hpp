// SPDX-License-Identifier: Apache-2.0
#pragma once

// Every word called on made-up numbers, and a hash of what each writes: same_bits prints them, word_memory compares them.

#include <cinttypes>
#include <cstdio>
#include <map>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "link/every_word.hpp"

namespace words {

/// SplitMix64: integers only, so that inputs are the same everywhere.
class generator {
 public:
  explicit generator(std::uint64_t seed) : state_(seed) {}

  std::uint64_t bits() {
    std::uint64_t x = state_ += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
  }
  std::int32_t below(std::int32_t n) { return static_cast<std::int32_t>(bits() >> 33) % n; }
  /// Multiples of 2^-23 in [-1, 1).
  float number() { return static_cast<float>(static_cast<std::int32_t>(bits() >> 40) - (1 << 23)) * 0x1p-23f; }
  /// One in sixteen is special.
  float any_number() {
    constexpr std::uint32_t special[] = {0x7fc00000u, 0x7f800000u, 0xff800000u, 0x80000000u, 0x00000001u, 0x7f7fffffu, 0x3effffffu, 0u};
    return below(16) == 0 ? md::float_from_bits(special[below(8)]) : number();
  }

 private:
  std::uint64_t state_;
};

/// FNV-1a of what was written under each name. All NaN are one: which payload an operation passes on is the compiler's choice.
class hashes {
 public:
  template <class T>
  void operator()(char const* name, T const* data, md::index_t n) const {
    std::uint64_t& hash = of_.try_emplace(name, 0xcbf29ce484222325u).first->second;
    for (md::index_t i = 0; i < n; ++i) { add(hash, data[i]); }
    if constexpr (std::is_same_v<T, md::status>) { refused_ = refused_ || (*data != md::status::ok && name != infeasible); }
  }
  /// Whether a word refused its arguments, so that its hash says nothing. Of the budgets asked for, some are infeasible.
  bool refused() const { return refused_; }
  std::map<std::string, std::uint64_t> const& all() const { return of_; }
  void print() const {
    for (auto const& [name, hash] : of_) { std::printf("%016" PRIx64 " %s\n", hash, name.c_str()); }
  }

 private:
  template <class T>
  static void add(std::uint64_t& hash, T value) {
    std::uint64_t bits = 0;
    if constexpr (md::is_real_v<T>) {
      float const wide = md::widen(value);
      bits = md::is_nan(wide) ? 0x7fc00000u : md::bits_of(wide);
    } else {
      bits = static_cast<std::uint64_t>(value);
    }
    for (int byte = 0; byte < 8; ++byte) { hash = (hash ^ (bits >> 8 * byte & 0xffu)) * 0x100000001b3u; }
  }

  static constexpr std::string_view infeasible = "stage_counts";
  mutable std::map<std::string, std::uint64_t> of_;
  mutable bool refused_ = false;
};

/// Where arrays lie: none is without an address.
struct heap_memory {
  template <class T>
  using array = std::vector<T>;

  template <class T>
  static array<T> zeros(md::index_t n) {
    array<T> all;
    all.reserve(static_cast<std::size_t>(n) + 1);
    all.resize(static_cast<std::size_t>(n));
    return all;
  }
};

template <class Memory, class Real, class Number>
auto reals(md::index_t n, Number const& number) {
  auto all = Memory::template zeros<Real>(n);
  for (Real& x : all) { x = md::narrow<Real>(number()); }
  return all;
}

/// Every word on one backend, on numbers that depend on dim and special alone.
template <class Backend, class Memory, class Real, class Out, class Index>
void run(md::index_t dim, bool special, hashes const& wrote) {
  generator random(static_cast<std::uint64_t>(2 * dim + special));
  auto const number = [&] { return special ? random.any_number() : random.number(); };
  auto const share = [&] { return md::fma(random.number(), 0.25f, 0.25f); };  // in [0, 0.5)

  auto const features = reals<Memory, Real>(tokens * dim, number), query = reals<Memory, Real>(heads * query_rows * dim, number);
  auto keys = reals<Memory, Real>(kv_heads * tokens * dim, number);
  auto const map = reals<Memory, Real>(heads * query_rows * longest, share);
  auto const lse = reals<Memory, float>(heads * query_rows, number), weights = reals<Memory, float>(tokens, share),
             inv_freq = reals<Memory, float>(dim / 2, share);
  auto limits = Memory::template zeros<std::int32_t>(query_rows), wanted = Memory::template zeros<std::int32_t>(images);
  for (auto& limit : limits) { limit = random.below(longest + 1); }
  for (auto& count : wanted) { count = random.below(9); }
  auto old_positions = Memory::template zeros<Index>(3 * tokens);
  for (auto& position : old_positions) { position = random.below(4000); }
  auto kinds = Memory::template zeros<md::slot_kind>(tokens);
  for (auto& kind : kinds) { kind = static_cast<md::slot_kind>(random.below(4)); }

  auto similarity = Memory::template zeros<float>(images * windows), sizes = Memory::template zeros<float>(tokens),
       sum = Memory::template zeros<float>(tokens), max = Memory::template zeros<float>(tokens);
  auto head_sum = Memory::template zeros<float>(query_rows * longest);
  auto rows = Memory::template zeros<Out>(tokens * dim);
  auto source = Memory::template zeros<Index>(tokens), kept = Memory::template zeros<Index>(images * list_length),
       key_set = Memory::template zeros<Index>(images * list_length);
  auto kept_counts = Memory::template zeros<std::int32_t>(images), key_counts = Memory::template zeros<std::int32_t>(images),
       packed = Memory::template zeros<std::int32_t>(images + 1);
  auto new_positions = Memory::template zeros<Index>(3 * tokens), delta = Memory::template zeros<Index>(images);
  alignas(64) unsigned char scratch[workspace_bytes] = {};

  word_memory<Real, Out, Index> const memory{dim,
                                             features.data(),
                                             query.data(),
                                             keys.data(),
                                             map.data(),
                                             lse.data(),
                                             weights.data(),
                                             inv_freq.data(),
                                             limits.data(),
                                             wanted.data(),
                                             old_positions.data(),
                                             kinds.data(),
                                             similarity.data(),
                                             sizes.data(),
                                             sum.data(),
                                             max.data(),
                                             head_sum.data(),
                                             rows.data(),
                                             source.data(),
                                             kept.data(),
                                             key_set.data(),
                                             kept_counts.data(),
                                             key_counts.data(),
                                             packed.data(),
                                             new_positions.data(),
                                             delta.data(),
                                             {scratch, workspace_bytes}};
  call_every_word<Backend>(memory, wrote);
}

}  // namespace words
