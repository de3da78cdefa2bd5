// SPDX-License-Identifier: Apache-2.0
#pragma once

// What all benchmarks share: shapes, memory, the check that comes before the timing, counters, names.
//
// A step is a class with a constructor that lays out one block of memory (inputs with their contents, outputs), a `run(backend)`, the
// bytes and operations it needs, and the roof that limits it. It is measured on
//   hot   as many blocks as half of L2 holds, at least one and at most 64: more than one, so that no branch is learnt by heart
//   cold  blocks that together are twice the last-level cache, one after another
// Everything that a word reads or writes, its workspace aside, lies in the block: equal blocks are equal results.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <list>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include <mustdrop/numerics.hpp>
#include <mustdrop/view.hpp>

namespace md = mustdrop;
using md::index_t;

#if defined(MUSTDROP_BENCH_CUDA)
#include "device_memory.hpp"
#else
/// Where small arrays and scratch lie, so that every backend can read them.
template <class T>
using lasting = std::vector<T>;
#endif

/// Which of the machine's limits a word runs into. An update reads and writes in place.
enum class roof { none, read, copy, update, fma };

/// Blocks of memory that are walked through in turn.
struct block_memory {
  char* data = nullptr;
  std::size_t stride = 0, count = 0;

  char* block(std::size_t i) const { return data + i % count * stride; }
};

struct shape {
  index_t batch, tokens;  // requests in one call, image tokens of each
  bool cold;

  index_t crops() const { return batch * (tokens / 576); }  // 2880 tokens are five crops of 24 × 24 patches
  index_t prompt() const { return tokens + 75; }            // LLaVA's: 35 tokens before the image, 40 behind it
};

template <class T>
std::vector<T> table_of_numbers(bool positive) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<T> table((1 << 18) - 5);
  for (T& x : table) { x = md::narrow<T>(positive ? std::exp(2 * normal(random)) / 4096 : normal(random)); }
  return table;
}
/// Standard normal numbers, or positive ones as softmax weights are; made once: a generator would take longer than what is measured.
template <class T>
std::vector<T> const& numbers(bool positive) {
  static std::vector<T> const any_sign = table_of_numbers<T>(false), weights = table_of_numbers<T>(true);
  return positive ? weights : any_sign;
}

template <class Backend>
void set_zeros(Backend const&, float* data, index_t n) {
  std::fill_n(data, n, 0.0f);
}

/// Where an array lies in its block.
template <class T>
struct array {
  std::size_t at = 0;
  index_t n = 0;
};
struct lists {
  array<std::int32_t> indices, counts;
};

class step {
 public:
  double bytes = 0, flops = 0;  // what one run has to move and to compute

  step() = default;
  step(step const&) = delete;
  step& operator=(step const&) = delete;

  std::size_t block_bytes() const { return block_bytes_; }
  void use(char* block) { block_ = block; }
  void fill(char* block, unsigned seed) {
    std::mt19937 random(seed);
    use(block);
    for (auto const& contents : contents_) { contents(random); }
  }

 protected:
  template <class T>
  array<T> output(index_t n) {
    return input<T>(n,
                    [n](T* data, std::mt19937&) { std::memset(static_cast<void*>(data), 0xff, static_cast<std::size_t>(n) * sizeof(T)); });
  }
  /// make(data, random) writes the n elements.
  template <class T, class F>
  array<T> input(index_t n, F const& make) {
    array<T> const a{block_bytes_, n};
    block_bytes_ += (static_cast<std::size_t>(n) * sizeof(T) + 63) / 64 * 64;
    contents_.push_back([this, a, make](std::mt19937& random) { make(at(a), random); });
    return a;
  }
  template <class T>
  array<T> input(index_t n, bool positive = false) {
    return input<T>(n, [n, positive](T* data, std::mt19937& random) {
      auto const& table = numbers<T>(positive);
      std::size_t from = random() % table.size();
      for (std::size_t left = static_cast<std::size_t>(n); left > 0; from = 0) {
        std::size_t const some = std::min(left, table.size() - from);
        std::memcpy(data, table.data() + from, some * sizeof(T));
        data += some, left -= some;
      }
    });
  }
  /// For each of `count` segments k of n tokens, drawn anew in each block.
  lists keep_input(index_t count, index_t n, index_t k) {
    return {input<std::int32_t>(count * k,
                                [=](std::int32_t* data, std::mt19937& random) {
                                  std::vector<std::int32_t> all(static_cast<std::size_t>(n));
                                  std::iota(all.begin(), all.end(), 0);
                                  for (index_t s = 0; s < count; ++s) {
                                    std::sample(all.begin(), all.end(), data + s * k, static_cast<std::size_t>(k), random);  // ascending
                                  }
                                }),
            input<std::int32_t>(count, [=](std::int32_t* data, std::mt19937&) { std::fill_n(data, count, static_cast<std::int32_t>(k)); })};
  }
  lists keep_output(index_t count, index_t capacity) { return {output<std::int32_t>(count * capacity), output<std::int32_t>(count)}; }

  template <class T>
  T* at(array<T> a) const {
    return reinterpret_cast<T*>(block_ + a.at);
  }
  template <class T, class... Size>
  auto view(array<T> a, Size... size) const {
    return md::view(at(a), size...);
  }
  md::keep_lists<std::int32_t> keep(lists const& l) const {
    return {md::view(at(l.indices), l.counts.n, l.indices.n / l.counts.n), md::view(at(l.counts), l.counts.n)};
  }
  /// `count` segments of `each` tokens.
  md::segments even(index_t count, index_t each) {
    offsets_.emplace_back();
    for (index_t s = 0; s <= count; ++s) { offsets_.back().push_back(static_cast<std::int32_t>(s * each)); }
    return {count, offsets_.back().data(), nullptr, each};
  }
  /// Zeros, for a run that adds to them.
  template <class Backend>
  void clear(Backend const& on, array<float> a) const {
    set_zeros(on, at(a), a.n);
  }
  md::workspace lend(std::size_t needed) {
    if (needed + 64 > scratch_.size()) { scratch_.resize(needed + 64); }
    auto const address = reinterpret_cast<std::uintptr_t>(scratch_.data());
    return {scratch_.data() + (64 - address % 64) % 64, needed};
  }

 private:
  std::size_t block_bytes_ = 0;
  char* block_ = nullptr;
  std::vector<std::function<void(std::mt19937&)>> contents_;
  std::list<lasting<std::int32_t>> offsets_;
  lasting<char> scratch_;
};
