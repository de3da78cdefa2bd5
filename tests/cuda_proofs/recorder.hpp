// SPDX-License-Identifier: Apache-2.0
#pragma once

// Which launches a call makes, without a device: recorder.cpp stands where the CUDA runtime would, and writes down each launch instead.
// Device memory is an address that nothing here reads or writes.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <type_traits>
#include <vector>

#include <mustdrop/view.hpp>

namespace recorder {

namespace md = mustdrop;

/// Opens a case: the launches that follow are its launches.
void begin(std::string const& title);

/// Addresses are this far apart.
constexpr std::uint64_t region = 0x1'0000'0000;
void* address();
/// What lies at an address, and does not change, in the launches of kernels whose names contain `kernel`.
void know(void const* at, void const* bytes, std::size_t size, std::string const& kernel);

/// Memory of contents that are not known.
template <class T>
T* memory() {
  return static_cast<T*>(address());
}
/// Memory of known contents.
template <class T>
T* memory(std::vector<T> const& contents, std::string const& kernel = "") {
  T* const at = memory<T>();
  know(at, contents.data(), contents.size() * sizeof(T), kernel);
  return at;
}

/// Segments, and what a host knows of them.
struct batch {
  md::segments cut;
  std::vector<std::int32_t> begin, size;
  md::index_t tokens;
};
/// One segment.
inline batch whole(int tokens) { return {{}, {0}, {tokens}, tokens}; }
/// Segments of these sizes, one behind another, each with `spare` tokens of room behind it.
inline batch ragged(std::vector<std::int32_t> const& sizes, int spare = 0) {
  batch b{{static_cast<md::index_t>(sizes.size())}, {}, sizes, 0};
  std::vector<std::int32_t> offsets{0};
  for (std::int32_t const size : sizes) { b.begin.push_back(offsets.back()), offsets.push_back(offsets.back() + size + spare); }
  b.tokens = offsets.back(), b.cut.offsets = memory(offsets);
  if (spare > 0) { b.cut.counts = memory(sizes); }
  return b;
}

/// Keep lists whose counts are known, and their indices too if `index_of(segment, i)` says them.
template <class Index, class F>
md::keep_lists<Index const> kept(std::vector<std::int32_t> const& counts, md::index_t capacity, F const& index_of) {
  auto const segments = static_cast<md::index_t>(counts.size());
  std::vector<Index> indices;
  for (md::index_t s = 0; s < segments; ++s) {
    for (md::index_t i = 0; i < capacity; ++i) { indices.push_back(static_cast<Index>(index_of(s, i))); }
  }
  return {md::view<Index const>(memory(indices), segments, capacity), md::view<std::int32_t const>(memory(counts), segments)};
}
template <class Index>
md::keep_lists<Index const> kept(std::vector<std::int32_t> const& counts, md::index_t capacity) {
  auto const segments = static_cast<md::index_t>(counts.size());
  return {md::view<Index const>(memory<Index>(), segments, capacity), md::view<std::int32_t const>(memory(counts), segments)};
}
/// Keep lists to be written.
template <class Index>
md::keep_lists<Index> lists(md::index_t segments, md::index_t capacity) {
  return {md::view(memory<Index>(), segments, capacity), md::view(memory<std::int32_t>(), segments)};
}

/// Counts for each segment, known; absent if none are given.
inline md::tensor_view<std::int32_t const, 1> counts(std::vector<std::int32_t> const& of_segments) {
  if (of_segments.empty()) { return {}; }
  return md::view<std::int32_t const>(memory(of_segments), of_segments.size());
}

constexpr std::size_t room = std::size_t{1} << 30;  // of a scratch

inline void check(md::status s) {
  if (s != md::status::ok) {
    std::fprintf(stderr, "a call returned status %d\n", static_cast<int>(s));
    std::exit(1);
  }
}

}  // namespace recorder
