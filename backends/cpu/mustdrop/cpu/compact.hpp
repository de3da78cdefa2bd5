// SPDX-License-Identifier: Apache-2.0
#pragma once

// Contract: mustdrop/compact.hpp. A head of one request of one cache is a part of the work; in it, neighbours that stay move as one piece.

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

/// One head of one request.
template <class Arch, class Index>
void compact_head(kv_cache const& cache, index_t q, index_t h, index_t begin, index_t kept, Index const* keep) noexcept {
  index_t const bytes = cache.slot_bytes / cache.pieces, page = cache.pages.absent() ? 0 : cache.pages.page_slots;
  for (index_t p = 0; p < cache.pieces; ++p) {
    for (index_t i = 0; i < kept;) {
      index_t const from = begin + keep[i], to = begin + i;
      index_t most = kept - i;  // slots in a row: up to the end of either page
      if (page > 0 && page - from % page < most) { most = page - from % page; }
      if (page > 0 && page - to % page < most) { most = page - to % page; }
      index_t const run = run_length<Arch>(most, [keep, i](index_t j) { return index_t{keep[i + j]}; });
      if (from != to) { move_slots<Arch>(cache.at(q, h, to, p), cache.at(q, h, from, p), cache.slot_stride, run, bytes); }
      i += run;
    }
  }
}

template <class Arch, class Executor, class Index>
status compact_impl(backend<Arch, Executor> const& on, tensor_view<kv_cache const, 1> caches, segments const& segments,
                    keep_lists<Index const> keep) noexcept {
  index_t parts = 0;
  for (index_t c = 0; c < caches.size(0); ++c) {
    kv_cache const cache = joined_heads<Arch>(caches(c));
    parts += cache.requests * cache.heads;
  }
  on.execute(parts, [&](index_t part) {
    index_t c = 0;
    kv_cache cache = joined_heads<Arch>(caches(c));
    while (part >= cache.requests * cache.heads) {
      part -= cache.requests * cache.heads;
      cache = joined_heads<Arch>(caches(++c));
    }
    index_t const q = part / cache.heads, h = part % cache.heads, s = cache.list(q, h), kept = keep.counts(s);
    if (kept > 0) { compact_head<Arch>(cache, q, h, segments.begin(s), kept, &keep.indices(s, 0)); }
  });
  return status::ok;
}

}  // namespace cpu
MUSTDROP_NAMESPACE_END
