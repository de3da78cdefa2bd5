// SPDX-License-Identifier: Apache-2.0
#pragma once

// What words are given: views of the caller's memory, and what lies on the token axis (segments, grids, keep lists).

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <type_traits>
#include <utility>

#include <mustdrop/status.hpp>

MUSTDROP_NAMESPACE_BEGIN

using index_t = std::int64_t;

/// Indices are int32 where they are stored: no axis of tokens is longer.
constexpr index_t most_tokens = std::numeric_limits<std::int32_t>::max();

/// Somebody else's tensor: a pointer, sizes, and strides in elements. Copying a view copies no data.
template <class T, int Rank>
struct tensor_view {
  T* data = nullptr;
  index_t sizes[Rank] = {};
  index_t strides[Rank] = {};

  MUSTDROP_HD constexpr index_t size(int axis) const noexcept { return sizes[axis]; }
  MUSTDROP_HD constexpr bool absent() const noexcept { return data == nullptr; }  // how `{}` says "not given"

  template <class... I>
  MUSTDROP_HD constexpr T& operator()(I... i) const noexcept {
    static_assert(sizeof...(I) == Rank, "one index for each axis");
    index_t const at[Rank] = {static_cast<index_t>(i)...};
    index_t offset = 0;
    for (int axis = 0; axis < Rank; ++axis) { offset += at[axis] * strides[axis]; }
    return data[offset];
  }

  /// The part [begin, begin + size) of one axis.
  MUSTDROP_HD constexpr tensor_view narrow(int axis, index_t begin, index_t size) const noexcept {
    tensor_view part = *this;
    part.data += begin * strides[axis];
    part.sizes[axis] = size;
    return part;
  }

  /// A view of what may be written is one of what may be read.
  template <class U, std::enable_if_t<std::is_same_v<U, T const> && !std::is_const_v<T>, int> = 0>
  MUSTDROP_HD constexpr operator tensor_view<U, Rank>() const noexcept {
    tensor_view<U, Rank> view;
    view.data = data;
    for (int axis = 0; axis < Rank; ++axis) { view.sizes[axis] = sizes[axis], view.strides[axis] = strides[axis]; }
    return view;
  }
};

/// A view of contiguous memory, last axis fastest: `view(scores, heads, tokens)`.
template <class T, class... Size>
MUSTDROP_HD constexpr tensor_view<T, sizeof...(Size)> view(T* data, Size... size) noexcept {
  constexpr int rank = sizeof...(Size);
  tensor_view<T, rank> v{data, {static_cast<index_t>(size)...}, {}};
  index_t stride = 1;
  for (int axis = rank - 1; axis >= 0; --axis) { v.strides[axis] = stride, stride *= v.sizes[axis]; }
  return v;
}

/// A view of anything that speaks std::mdspan's words: data_handle(), extent(axis), stride(axis), rank().
template <class M>
constexpr auto view(M const& m) noexcept -> tensor_view<std::remove_pointer_t<decltype(m.data_handle())>, static_cast<int>(M::rank())> {
  constexpr int rank = static_cast<int>(M::rank());
  tensor_view<std::remove_pointer_t<decltype(m.data_handle())>, rank> v{m.data_handle(), {}, {}};
  for (int axis = 0; axis < rank; ++axis) {
    auto const at = static_cast<std::size_t>(axis);
    v.sizes[axis] = static_cast<index_t>(m.extent(at)), v.strides[axis] = static_cast<index_t>(m.stride(at));
  }
  return v;
}

/// No size is negative or above 2^31 − 1, and there is memory where there are elements.
template <class T, int Rank>
constexpr bool well_formed(tensor_view<T, Rank> const& v) noexcept {
  bool empty = false;
  for (int axis = 0; axis < Rank; ++axis) {
    if (v.sizes[axis] < 0 || v.sizes[axis] > most_tokens) { return false; }
    empty = empty || v.sizes[axis] == 0;
  }
  return empty || v.data != nullptr;
}

/// Whether the last axis is dense. An axis of at most one element has no stride to speak of.
template <class T, int Rank>
constexpr bool unit_stride(tensor_view<T, Rank> const& v) noexcept {
  return v.strides[Rank - 1] == 1 || v.sizes[Rank - 1] <= 1;
}

/// Segments (images, crops, frames, requests) lie one after another on the token axis, as in cu_seqlens. Segment s starts at
/// offsets[s] and has counts[s] tokens, or all up to offsets[s + 1]: what an earlier call shrank in place is the next one's
/// input. Without offsets, one segment is everything. The arrays lie in the backend's memory.
struct segments {
  index_t count = 1;
  std::int32_t const* offsets = nullptr;  // [count + 1], never decreasing, within the tokens
  std::int32_t const* counts = nullptr;   // [count], optional; counts[s] <= offsets[s + 1] - offsets[s]
  index_t longest = 0;                    // no segment is larger (a bound known on the host); 0: all tokens

  constexpr bool valid() const noexcept { return count >= 0 && longest >= 0 && (offsets != nullptr || count == 1); }
  MUSTDROP_HD constexpr index_t begin(index_t s) const noexcept { return offsets ? offsets[s] : 0; }
  MUSTDROP_HD constexpr index_t size(index_t s, index_t tokens) const noexcept {
    return counts ? counts[s] : offsets ? index_t{offsets[s + 1]} - offsets[s] : tokens;
  }
  /// No segment has more tokens than this.
  MUSTDROP_HD constexpr index_t bound(index_t tokens) const noexcept { return longest > 0 && longest < tokens ? longest : tokens; }
};

/// For each segment, the indices of the tokens that stay: increasing, counted from the segment's begin.
template <class Index>
struct keep_lists {
  using count_t = std::conditional_t<std::is_const_v<Index>, std::int32_t const, std::int32_t>;

  tensor_view<Index, 2> indices;   // [segments, capacity], int32 or int64; entries past the count are not written
  tensor_view<count_t, 1> counts;  // [segments]

  MUSTDROP_HD constexpr bool absent() const noexcept { return counts.data == nullptr; }
  MUSTDROP_HD constexpr index_t capacity() const noexcept { return indices.sizes[1]; }

  template <class U, std::enable_if_t<std::is_same_v<U, Index const> && !std::is_const_v<Index>, int> = 0>
  MUSTDROP_HD constexpr operator keep_lists<U>() const noexcept {
    return {indices, counts};
  }

  /// Whether the two views fit each other and the segments. Says nothing of contents.
  constexpr status shape(segments const& of) const noexcept {
    if (!of.valid() || !well_formed(indices) || !well_formed(counts)) { return status::bad_shape; }
    if (indices.sizes[0] != of.count || counts.sizes[0] != of.count) { return status::bad_shape; }
    return unit_stride(indices) && unit_stride(counts) ? status::ok : status::bad_stride;
  }
};
template <class Index, class Count>
keep_lists(tensor_view<Index, 2>, tensor_view<Count, 1>) -> keep_lists<Index>;

template <class Index>
constexpr bool is_index_v = std::is_same_v<Index, std::int32_t> || std::is_same_v<Index, std::int64_t>;

/// In which order a selecting word writes what it keeps: by place (the default), or best score first, as released code does.
enum class output_order { position, score };

/// The patches of one segment: prefix tokens (CLS, registers), then frames × rows × cols patches in raster order, then suffix
/// tokens. Raster order: cols fastest, then rows, then frames.
struct token_grid {
  index_t rows = 0, cols = 0, frames = 1, prefix = 1, suffix = 0;

  MUSTDROP_HD constexpr index_t patches() const noexcept { return frames * rows * cols; }
  MUSTDROP_HD constexpr index_t tokens() const noexcept { return prefix + patches() + suffix; }
};

/// A window of the grid. Windows do not overlap; what is left at the far edges belongs to none.
struct window_shape {
  index_t rows = 3, cols = 3, frames = 1;

  MUSTDROP_HD constexpr index_t tokens() const noexcept { return frames * rows * cols; }
  MUSTDROP_HD constexpr index_t windows(token_grid const& grid) const noexcept {
    return (grid.frames / frames) * (grid.rows / rows) * (grid.cols / cols);
  }
  /// A window of one token has nothing to compare.
  MUSTDROP_HD constexpr bool valid() const noexcept {
    constexpr index_t most = 1 << 20;  // keeps the product far from overflow
    return rows >= 1 && cols >= 1 && frames >= 1 && rows <= most && cols <= most && frames <= most && tokens() >= 2 &&
           tokens() <= most_tokens;
  }
};

/// Memory that the caller lends to one call; aligned to 64 bytes.
struct workspace {
  void* data = nullptr;
  std::size_t bytes = 0;

  bool holds(std::size_t needed) const noexcept {
    return needed == 0 || (data != nullptr && bytes >= needed && reinterpret_cast<std::uintptr_t>(data) % 64 == 0);
  }
};

// Contents of arrays are preconditions of every word, because they may lie in device memory. On the host, whoever reads them
// from somewhere untrusted asks here first; `bad_argument` is the answer for contents that no word may be given.

/// Offsets ascend within [0, tokens], counts fit between them, nothing is longer than `longest`.
inline status check(segments const& segments, index_t tokens) noexcept {
  if (!segments.valid() || tokens < 0 || tokens > most_tokens) { return status::bad_shape; }
  for (index_t s = 0; s < segments.count; ++s) {
    index_t const begin = segments.begin(s), end = segments.offsets ? segments.offsets[s + 1] : tokens, size = segments.size(s, tokens);
    if (begin < 0 || end < begin || end > tokens || size < 0 || size > end - begin) { return status::bad_argument; }
    if (segments.longest > 0 && size > segments.longest) { return status::bad_argument; }
  }
  return status::ok;
}

/// Each grid has as many tokens as its segment, and at most `windows` windows.
inline status check(tensor_view<token_grid const, 1> grids, window_shape window, segments const& segments, index_t tokens,
                    index_t windows) noexcept {
  if (!well_formed(grids) || grids.size(0) != segments.count || !window.valid()) { return status::bad_shape; }
  if (status const s = check(segments, tokens); s != status::ok) { return s; }
  for (index_t s = 0; s < segments.count; ++s) {
    token_grid const& grid = grids(s);
    for (index_t const part : {grid.prefix, grid.suffix, grid.rows, grid.cols, grid.frames}) {
      if (part < 0 || part > most_tokens) { return status::bad_argument; }
    }
    if (grid.frames * grid.rows > most_tokens) { return status::bad_argument; }  // … and now no product of three overflows
    if (grid.tokens() != segments.size(s, tokens) || window.windows(grid) > windows) { return status::bad_argument; }
  }
  return status::ok;
}

/// Every list ascends within its segment.
template <class Index>
status check(keep_lists<Index> keep, segments const& segments, index_t tokens) noexcept {
  if (status const s = keep.shape(segments); s != status::ok) { return s; }
  if (status const s = check(segments, tokens); s != status::ok) { return s; }
  for (index_t s = 0; s < segments.count; ++s) {
    if (keep.counts(s) < 0 || keep.counts(s) > keep.capacity()) { return status::bad_argument; }
    index_t last = -1;
    for (index_t i = 0; i < keep.counts(s); ++i) {
      index_t const token = keep.indices(s, i);
      if (token <= last || token >= segments.size(s, tokens)) { return status::bad_argument; }
      last = token;
    }
  }
  return status::ok;
}

static_assert(std::is_trivially_copyable_v<tensor_view<float, 3>> && std::is_standard_layout_v<tensor_view<float, 3>>);

MUSTDROP_NAMESPACE_END
