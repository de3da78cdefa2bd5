// SPDX-License-Identifier: Apache-2.0

// Prints one hash of everything that each word wrote, over many widths and types. The output must be the same text whatever compiler,
// standard, optimisation level and instruction set this file was built with: gates/same_bits.sh compares.

#include <cinttypes>
#include <cstdio>
#include <map>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "link/every_word.hpp"

namespace {

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

template <class T>
using array = std::vector<T>;

/// Zeros, at least one of them, so that there is an address.
template <class T>
array<T> zeros(md::index_t n) {
  return array<T>(static_cast<std::size_t>(n) + 1);
}

template <class Real, class Number>
array<Real> reals(md::index_t n, Number const& number) {
  array<Real> all = zeros<Real>(n);
  for (Real& x : all) { x = md::narrow<Real>(number()); }
  return all;
}

template <class Real, class Out, class Index>
void run(md::index_t dim, bool special, hashes const& wrote) {
  generator random(static_cast<std::uint64_t>(2 * dim + special));
  auto const number = [&] { return special ? random.any_number() : random.number(); };
  auto const share = [&] { return md::fma(random.number(), 0.25f, 0.25f); };  // in [0, 0.5)

  auto const features = reals<Real>(tokens * dim + most_dims, number), query = reals<Real>(heads * query_rows * dim, number);
  auto keys = reals<Real>(kv_heads * tokens * dim, number);
  auto const map = reals<Real>(heads * query_rows * longest, share);
  auto const lse = reals<float>(heads * query_rows, number), weights = reals<float>(tokens, share), inv_freq = reals<float>(dim / 2, share);
  auto limits = zeros<std::int32_t>(query_rows), wanted = zeros<std::int32_t>(images);
  for (auto& limit : limits) { limit = random.below(longest + 1); }
  for (auto& count : wanted) { count = random.below(9); }
  auto old_positions = zeros<Index>(3 * tokens);
  for (auto& position : old_positions) { position = random.below(4000); }
  auto kinds = zeros<md::slot_kind>(tokens);
  for (auto& kind : kinds) { kind = static_cast<md::slot_kind>(random.below(4)); }

  auto similarity = zeros<float>(images * windows), sizes = zeros<float>(tokens), sum = zeros<float>(tokens), max = zeros<float>(tokens);
  auto head_sum = zeros<float>(query_rows * longest);
  auto rows = zeros<Out>(tokens * dim);
  auto source = zeros<Index>(tokens), kept = zeros<Index>(images * list_length), key_set = zeros<Index>(images * list_length);
  auto kept_counts = zeros<std::int32_t>(images), key_counts = zeros<std::int32_t>(images), packed = zeros<std::int32_t>(images + 1);
  auto new_positions = zeros<Index>(3 * tokens), delta = zeros<Index>(images);
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
  call_every_word(memory, wrote);
}

/// The functions that the words are made of, on any bits.
void run_numerics(hashes const& wrote) {
  generator random(1);
  for (int i = 0; i < 200000; ++i) {
    float const x = md::float_from_bits(static_cast<std::uint32_t>(random.bits())), y = 90 * random.number(),
                angle = 0x1p21f * random.number();
    md::sine_cosine const turn = md::sin_cos(angle), small_turn = md::sin_cos(y);
    float const results[] = {md::exp(x),
                             md::exp(y),
                             md::tanh(x),
                             md::tanh(y / 16),
                             turn.sine,
                             turn.cosine,
                             small_turn.sine,
                             small_turn.cosine,
                             md::square_root(x),
                             md::divide(x, y),
                             md::widen(md::half{static_cast<std::uint16_t>(i)})};
    wrote("numerics", results, sizeof results / sizeof *results);
    md::half const halves[] = {md::narrow<md::half>(x), md::narrow<md::half>(y)};
    md::bfloat16 const bfloats[] = {md::narrow<md::bfloat16>(x), md::narrow<md::bfloat16>(y)};
    wrote("numerics", halves, 2);
    wrote("numerics", bfloats, 2);
    std::uint64_t const key = md::score_key(x, i);
    wrote("numerics", &key, 1);
  }
}

}  // namespace

int main() {
  hashes wrote;
  for (md::index_t dim = 0; dim <= most_dims; ++dim) {
    for (bool const special : {false, true}) {
      run<float, float, std::int32_t>(dim, special, wrote);
      run<md::half, float, std::int64_t>(dim, special, wrote);
      run<md::bfloat16, md::bfloat16, std::int32_t>(dim, special, wrote);
    }
  }
  run_numerics(wrote);
  wrote.print();
  if (wrote.refused()) { std::puts("a word refused its arguments"); }
  return wrote.refused() ? 1 : 0;
}
