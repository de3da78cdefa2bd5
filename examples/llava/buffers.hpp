// SPDX-License-Identifier: Apache-2.0
#pragma once

// How this program calls the library: its memory, and its way to stop on a status that says no.

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include <mustdrop/view.hpp>

namespace llava {

namespace md = mustdrop;

/// A status other than ok from a call whose arguments are all this program's own is a mistake in it, not in its input.
inline void check(md::status s, char const* what) {
  if (s != md::status::ok) { throw std::logic_error(std::string(what) + ": " + md::message(s)); }
}

/// Workspace: aligned to 64 bytes.
class aligned_buffer {
 public:
  explicit aligned_buffer(std::size_t bytes = 0) { grow(bytes); }
  void grow(std::size_t bytes) {
    if (bytes > lines_.size() * sizeof(line)) { lines_.resize((bytes + sizeof(line) - 1) / sizeof(line)); }
  }
  md::workspace lend() { return {lines_.data(), lines_.size() * sizeof(line)}; }

 private:
  struct alignas(64) line {
    unsigned char bytes[64];
  };
  std::vector<line> lines_;
};

/// Keep lists of equal capacity and the memory they live in.
struct keep_memory {
  std::vector<std::int32_t> indices, counts;

  keep_memory(md::index_t lists, md::index_t capacity)
      : indices(static_cast<std::size_t>(lists * capacity)), counts(static_cast<std::size_t>(lists)), capacity_(capacity) {}

  md::keep_lists<std::int32_t> lists() {
    return {md::view(indices.data(), static_cast<md::index_t>(counts.size()), capacity_), md::view(counts.data(), counts.size())};
  }
  /// List s, as long as it is.
  std::vector<std::int32_t> list(std::size_t s) const {
    auto const first = indices.begin() + static_cast<std::ptrdiff_t>(s) * capacity_;
    return {first, first + counts[s]};
  }

 private:
  md::index_t capacity_;
};

}  // namespace llava
