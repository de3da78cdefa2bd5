// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstring>

#include <mustdrop/compact.hpp>
#include <mustdrop/reference/backend.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace reference {

template <class Index>
status compact_impl(backend, tensor_view<kv_cache const, 1> caches, segments const& segments, keep_lists<Index const> keep) noexcept {
  for (index_t c = 0; c < caches.size(0); ++c) {
    kv_cache const& cache = caches(c);
    auto const piece_bytes = static_cast<std::size_t>(cache.slot_bytes / cache.pieces);
    for (index_t q = 0; q < cache.requests; ++q) {
      for (index_t h = 0; h < cache.heads && piece_bytes > 0; ++h) {
        index_t const s = cache.list(q, h), begin = segments.begin(s);
        for (index_t i = 0; i < keep.counts(s); ++i) {
          index_t const from = begin + keep.indices(s, i), to = begin + i;
          if (from == to) { continue; }
          for (index_t p = 0; p < cache.pieces; ++p) { std::memcpy(cache.at(q, h, to, p), cache.at(q, h, from, p), piece_bytes); }
        }
      }
    }
  }
  return status::ok;
}

}  // namespace reference
MUSTDROP_NAMESPACE_END
