// SPDX-License-Identifier: Apache-2.0
#pragma once

// Contract: mustdrop/compact.hpp. A block owns a piece of a head of one request of one cache and moves its slots forward, a tile at a time:
// every thread loads, the block meets, every thread stores. A slot never moves backwards, so what a tile overwrites was loaded by it or by
// an earlier one, and what later tiles load lies beyond it: one barrier a tile is enough.

#include <mustdrop/compact.hpp>
#include <mustdrop/cuda/rows.cuh>

MUSTDROP_NAMESPACE_BEGIN
namespace cuda {

/// A cache, the bytes that everything in it is aligned to, and how many blocks move it.
struct aligned_cache {
  kv_cache cache = {};
  int width = 1;
  index_t blocks = 0;

  static constexpr index_t most_blocks = 0x7fffffff;

  /// At most most_blocks + 1.
  static constexpr index_t times(index_t a, index_t b) noexcept { return b > 0 && a > most_blocks / b ? most_blocks + 1 : a * b; }

  static aligned_cache of(kv_cache const& cache) noexcept {
    std::uint64_t bits = address_bits(cache.data) | static_cast<std::uint64_t>(cache.slot_bytes / cache.pieces);
    for (index_t const stride : {cache.request_stride, cache.head_stride, cache.slot_stride, cache.piece_stride, cache.pages.page_stride}) {
      bits |= static_cast<std::uint64_t>(stride);
    }
    return {cache, word_bytes(bits), cache.slot_bytes == 0 ? 0 : times(times(cache.requests, cache.heads), cache.pieces)};
  }
};

/// As many caches as the parameters of a kernel have room for: 4 KB in all.
struct cache_batch {
  static constexpr int most = 22;
  aligned_cache caches[most];
  int count = 0;
};

constexpr int compact_threads = 256, words_in_flight = 4;

/// How many slots stay where they are: those before the first that moves. keep(i) − i never shrinks.
template <class Index>
__device__ index_t unmoved(Index const* keep, index_t kept) {
  index_t first = 0, last = kept;
  while (first < last) {
    index_t const middle = first + (last - first) / 2;
    bool const stays = keep[middle] == static_cast<Index>(middle);
    first = stays ? middle + 1 : first, last = stays ? last : middle;
  }
  return first;
}

/// A word of a slot; words follow each other slot by slot.
struct slot_word {
  index_t slot, word;

  /// The word that lies as far behind this one as `step` lies behind slot 0's first.
  __device__ slot_word behind(slot_word step, index_t words) const {
    bool const wraps = word + step.word >= words;
    return {slot + step.slot + wraps, word + step.word - (wraps ? words : 0)};
  }
};

/// Moves piece p of head h of request q, in words.
template <class Word, class Index>
__device__ void move_slots(kv_cache const& cache, index_t q, index_t h, index_t p, index_t begin, Index const* keep, index_t kept) {
  constexpr auto width = static_cast<index_t>(sizeof(Word));
  index_t const words = cache.slot_bytes / cache.pieces / width, first = unmoved(keep, kept), total = (kept - first) * words;
  slot_word const step{compact_threads / words, compact_threads % words};
  slot_word at{first + threadIdx.x / words, threadIdx.x % words};
  for (index_t base = 0; base < total; base += compact_threads * words_in_flight) {
    Word moving[words_in_flight];
    slot_word next = at;
    for (int i = 0; i < words_in_flight; ++i) {
      if (next.slot < kept) { moving[i] = reinterpret_cast<Word const*>(cache.at(q, h, begin + keep[next.slot], p))[next.word]; }
      next = next.behind(step, words);
    }
    __syncthreads();
    for (int i = 0; i < words_in_flight; ++i) {
      if (at.slot < kept) { reinterpret_cast<Word*>(cache.at(q, h, begin + at.slot, p))[at.word] = moving[i]; }
      at = at.behind(step, words);
    }
  }
}

template <class Tag, class Index>
__global__ void __launch_bounds__(compact_threads)
    compact_kernel(unsigned, cache_batch const batch, segments const cut, keep_lists<Index const> const keep) {
  index_t block = blockIdx.x;
  int c = 0;
  while (block >= batch.caches[c].blocks) { block -= batch.caches[c++].blocks; }
  kv_cache const& cache = batch.caches[c].cache;
  index_t const p = block % cache.pieces, h = block / cache.pieces % cache.heads, q = block / cache.pieces / cache.heads;
  index_t const s = cache.list(q, h), kept = keep.counts(s), begin = cut.begin(s);
  Index const* const list = keep.indices.data + s * keep.indices.strides[0];
  switch (__popc(static_cast<unsigned>(batch.caches[c].width) - 1)) {  // its logarithm
    case 4: return move_slots<uint4>(cache, q, h, p, begin, list, kept);
    case 3: return move_slots<uint2>(cache, q, h, p, begin, list, kept);
    case 2: return move_slots<std::uint32_t>(cache, q, h, p, begin, list, kept);
    case 1: return move_slots<std::uint16_t>(cache, q, h, p, begin, list, kept);
    default: return move_slots<std::uint8_t>(cache, q, h, p, begin, list, kept);
  }
}

template <class Tag, class Index>
status compact_impl(backend<Tag> const& on, tensor_view<kv_cache const, 1> caches, segments const& segments,
                    keep_lists<Index const> keep) noexcept {
  constexpr index_t most_blocks = aligned_cache::most_blocks;
  for (index_t c = 0; c < caches.size(0); ++c) {
    if (aligned_cache::of(caches(c)).blocks > most_blocks) { return status::unsupported; }
  }
  for (index_t c = 0; c < caches.size(0);) {
    cache_batch batch;
    index_t blocks = 0;
    for (; c < caches.size(0) && batch.count < cache_batch::most; ++c) {
      aligned_cache const next = aligned_cache::of(caches(c));
      if (next.blocks == 0) { continue; }
      if (blocks + next.blocks > most_blocks) { break; }
      blocks += next.blocks, batch.caches[batch.count++] = next;
    }
    status const s = launch_parts(on, {1, blocks}, compact_threads, compact_kernel<Tag, Index>, batch, segments, keep);
    if (s != status::ok) { return s; }
  }
  return status::ok;
}

}  // namespace cuda
MUSTDROP_NAMESPACE_END
