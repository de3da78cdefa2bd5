// SPDX-License-Identifier: Apache-2.0
#pragma once

// Rows that are copied, in words as wide as everything is aligned: 16 bytes where it can be. A Job says which rows: count(s) of them, from
// row from(s, i) to row to(s, i).

#include <mustdrop/cuda/backend.cuh>

MUSTDROP_NAMESPACE_BEGIN
namespace cuda {

/// Where the rows of segment s begin in an output that is packed, or laid out in place of capacity.
__device__ inline index_t out_begin(segments const& segments, tensor_view<std::int32_t const, 1> const& out_offsets, index_t s) {
  return out_offsets.absent() ? segments.begin(s) : out_offsets(s);
}

/// What moves as one: 1, 2, 4, 8 or 16 bytes, whatever they mean.
template <int Bytes>
struct word {};
template <>
struct word<1> {
  using type = std::uint8_t;
};
template <>
struct word<2> {
  using type = std::uint16_t;
};
template <>
struct word<4> {
  using type = std::uint32_t;
};
template <>
struct word<8> {
  using type = uint2;
};
template <>
struct word<16> {
  using type = uint4;
};

/// The widest word that divides all of these, or'ed: addresses, strides and sizes in bytes.
constexpr int word_bytes(std::uint64_t bits) noexcept {
  int bytes = 16;
  while (bits % static_cast<unsigned>(bytes) != 0) { bytes /= 2; }
  return bytes;
}
inline std::uint64_t address_bits(void const* p) noexcept { return reinterpret_cast<std::uintptr_t>(p); }

/// Calls f(word<Bytes>{}) for a width that is known when the program runs.
template <class F>
status with_word(int bytes, F const& f) noexcept {
  switch (bytes) {
    case 16: return f(word<16>{});
    case 8: return f(word<8>{});
    case 4: return f(word<4>{});
    case 2: return f(word<2>{});
    default: return f(word<1>{});
  }
}

/// Rows of `pieces` pieces of `size` words; strides in words, or before that in bytes.
struct row_layout {
  void const* from;
  void* to;
  index_t from_stride, from_piece_stride, to_stride, to_piece_stride, pieces, size;

  int width() const noexcept {
    std::uint64_t bits = address_bits(from) | address_bits(to);
    for (index_t const bytes : {from_stride, from_piece_stride, to_stride, to_piece_stride, size}) {
      bits |= static_cast<std::uint64_t>(bytes);
    }
    return word_bytes(bits);
  }
  row_layout in_words(index_t bytes) const noexcept {
    return {from, to, from_stride / bytes, from_piece_stride / bytes, to_stride / bytes, to_piece_stride / bytes, pieces, size / bytes};
  }
};

constexpr unsigned row_threads = 256;

/// A block of row_threads threads, as many of them side by side in a row as the row has words for.
inline dim3 block_for(index_t words) noexcept {
  unsigned across = 1;
  while (across < row_threads && across < words) { across *= 2; }
  return dim3(across, row_threads / across);
}

template <class Tag, class Word, class Job>
__global__ void __launch_bounds__(row_threads) copy_rows_kernel(unsigned parts, Job const job, row_layout const rows) {
  auto const [s, part] = block_place(parts);
  index_t const i = part * blockDim.y + threadIdx.y;
  if (i >= job.count(s)) { return; }
  auto const* const from = static_cast<Word const*>(rows.from) + job.from(s, i) * rows.from_stride;
  auto* const to = static_cast<Word*>(rows.to) + job.to(s, i) * rows.to_stride;
  for (index_t p = 0; p < rows.pieces; ++p) {
    for (index_t w = threadIdx.x; w < rows.size; w += blockDim.x) {
      to[p * rows.to_piece_stride + w] = from[p * rows.from_piece_stride + w];
    }
  }
}

/// Copies at most `bound` rows of each segment. Strides and size in bytes.
template <class Tag, class Job>
status copy_rows(backend<Tag> const& on, Job const& job, index_t segments, index_t bound, row_layout const& rows) noexcept {
  if (rows.pieces == 0 || rows.size == 0) { return status::ok; }
  int const width = rows.width();
  row_layout const words = rows.in_words(width);
  dim3 const block = block_for(words.size);
  segment_grid const grid{segments, parts_of(bound, block.y)};
  return with_word(width, [&](auto wide) {
    return launch_parts(on, grid, block, copy_rows_kernel<Tag, typename decltype(wide)::type, Job>, job, words);
  });
}

}  // namespace cuda
MUSTDROP_NAMESPACE_END
