// SPDX-License-Identifier: Apache-2.0
#pragma once

// Contract: mustdrop/compact.hpp. A head of one request of one cache is a part of the work; in it, neighbours that stay move as one piece.
// A call that moves much, all layers at the end of a prefill, stores past the caches: whoever reads a slot next has read others before, and
// a line that is written whole need not be fetched first.

#include <mustdrop/compact.hpp>
#include <mustdrop/cpu/rows.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace cpu {

/// Heads that follow one list and lie side by side in a slot are one wide head. A cache of nothing has none: the lists that it names may not
/// exist.
template <class Arch>
kv_cache joined_heads(kv_cache cache) noexcept {
  if (cache.list_per_head == 0 && cache.pieces == 1 && cache.heads > 1 && cache.head_stride == cache.slot_bytes) {
    cache.slot_bytes *= cache.heads, cache.heads = 1;
  }
  if (cache.slot_bytes == 0) { cache.heads = 0; }
  return cache;
}

/// `count` slots of `bytes` bytes, `stride` apart, each onto one before it.
template <class Arch>
void move_slots(char* to, char const* from, index_t stride, index_t count, index_t bytes) noexcept {
  auto const size = static_cast<std::size_t>(bytes);
  if (stride == bytes) {
    std::memmove(to, from, size * static_cast<std::size_t>(count));
  } else if (bytes == 2) {  // transposed values: the call would cost more than the copy
    for (index_t i = 0; i < count; ++i) { std::memcpy(to + i * stride, from + i * stride, 2); }
  } else {
    for (index_t i = 0; i < count; ++i) { std::memmove(to + i * stride, from + i * stride, size); }
  }
}

/// The same past the caches. Everything in whole lines.
template <class Arch>
void stream_slots(char* to, char const* from, index_t stride, index_t count, index_t bytes) noexcept {
  for (index_t i = 0; i < count; ++i, to += stride, from += stride) {
    for (index_t b = 0; b < bytes; b += 64) { stream_line<Arch>(to + b, from + b); }
  }
}

/// Where moved slots are likely to be read from.
enum class destination { cache, memory };

/// One head of one request.
template <class Arch, class Index>
void compact_head(kv_cache const& cache, destination where, index_t q, index_t h, index_t begin, index_t kept, Index const* keep) noexcept {
  index_t const bytes = cache.slot_bytes / cache.pieces, page = cache.pages.absent() ? 0 : cache.pages.page_slots;
  constexpr index_t ahead = 16;                       // slots: the memory's answer takes that long, and the next slot's place is no pattern
  index_t const fetched = bytes < 256 ? bytes : 256;  // the processor sees where the rest of a slot is
  bool const sparse = keep[kept - 1] >= 2 * kept;     // else a slot moves onto one that was read just before
  bool const lines = streams<Arch> && where == destination::memory && sparse && bytes % 64 == 0 && cache.slot_stride % 64 == 0;
  for (index_t p = 0; p < cache.pieces; ++p) {
    for (index_t i = 0; i < kept;) {
      index_t const from = begin + keep[i], to = begin + i;
      index_t most = kept - i;  // slots in a row: up to the end of either page
      if (page > 0 && page - from % page < most) { most = page - from % page; }
      if (page > 0 && page - to % page < most) { most = page - to % page; }
      index_t const run = run_length<Arch>(most, [keep, i](index_t j) { return index_t{keep[i + j]}; });
      if (lines && page == 0) {
        for (index_t next = i + ahead; next < i + ahead + (run < ahead ? run : ahead) && next < kept; ++next) {
          for (index_t b = 0; b < fetched; b += 64) { prefetch<Arch>(cache.at(q, h, begin + keep[next], p) + b); }
        }
      }
      char* const target = cache.at(q, h, to, p);
      if (lines && from != to && reinterpret_cast<std::uintptr_t>(target) % 64 == 0) {
        stream_slots<Arch>(target, cache.at(q, h, from, p), cache.slot_stride, run, bytes);
      } else if (from != to) {
        move_slots<Arch>(target, cache.at(q, h, from, p), cache.slot_stride, run, bytes);
      }
      i += run;
    }
  }
}

/// How many heads there are, of all requests and caches, and the bytes of the slots that stay.
struct compact_size {
  index_t heads, bytes;

  template <class Arch, class Index>
  static compact_size of(tensor_view<kv_cache const, 1> caches, keep_lists<Index const> keep) noexcept {
    compact_size all{};
    for (index_t c = 0; c < caches.size(0); ++c) {
      kv_cache const cache = joined_heads<Arch>(caches(c));
      all.heads += cache.requests * cache.heads;
      for (index_t q = 0; q < cache.requests; ++q) {
        for (index_t h = 0; h < cache.heads; ++h) { all.bytes += cache.slot_bytes * keep.counts(cache.list(q, h)); }
      }
    }
    return all;
  }
};

template <class Arch, class Executor, class Index>
status compact_impl(backend<Arch, Executor> const& on, tensor_view<kv_cache const, 1> caches, segments const& segments,
                    keep_lists<Index const> keep) noexcept {
  constexpr index_t near = 16 << 20;  // no cache near a core holds more
  auto const size = compact_size::of<Arch>(caches, keep);
  if (size.heads == 0) { return status::ok; }
  destination const where = size.bytes > near ? destination::memory : destination::cache;
  in_parts(on, size.heads, many_a_part(on, 2 * size.bytes / size.heads), [&](index_t i) {
    index_t c = 0;
    kv_cache cache = joined_heads<Arch>(caches(c));
    while (i >= cache.requests * cache.heads) {
      i -= cache.requests * cache.heads;
      cache = joined_heads<Arch>(caches(++c));
    }
    index_t const q = i / cache.heads, h = i % cache.heads, s = cache.list(q, h), kept = keep.counts(s);
    if (kept > 0) { compact_head<Arch>(cache, where, q, h, segments.begin(s), kept, &keep.indices(s, 0)); }
    if (where == destination::memory) { end_streaming<Arch>(); }
  });
  return status::ok;
}

}  // namespace cpu
MUSTDROP_NAMESPACE_END
