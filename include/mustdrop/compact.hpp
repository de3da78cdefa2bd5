// SPDX-License-Identifier: Apache-2.0
#pragma once

// compact: the slots of a KV cache that stay move to its front, in place, for a list of layers in one call.
//
//   slot[i] = slot[keep(i)],  i = 0, 1, 2, …      keep ascends, so a slot never moves onto one that is still needed
//
// Shapes      caches  [n]                            host memory on every backend, read during the call; one entry for each K, V or side
//                                                    array (quantisation scales) of each layer
//             keep    [segments, capacity] lists     int32 or int64; which list an entry's request and head follow: kv_cache::list
//             segments                               only where the slots of a list begin on the slot axis: {count} (no offsets): at 0, as in
//                                                    caches with a request stride; offsets: requests packed one after another
//             Slots are opaque bytes, of any type: f32, f16, fp8, q8_0 blocks. Strides are in bytes and free: token-major, head-major,
//             K and V unrelated, length ≠ capacity. A slot may lie in several pieces (transposed V). Paged caches: kv_cache::pages.
// Edges       Slots past the new length keep their old bytes. Rotary positions stay what they were: see positions and rerotate.
// Errors      bad_shape     a size is negative; a list number outside the segments; slot_bytes is not a multiple of pieces; no data
//             bad_stride    keep is not dense along its last axis
//             bad_argument  both tables of pages are given, or page_slots < 1 with a table; a stride of 0 between slots, or between several
//                           heads or pieces
// Precondition  check(keep, …) against the slots in use; check(pages, …) is ok; distinct slots do not overlap; nobody reads the cache now.
// Cost        reads and writes what moves, once; no second buffer. Slots that stay where they are cost nothing.
// Source      MustDrop §3.3. The released code gathers every layer into new tensors and leaves layers 0 and 1 full: do not pass those.
// See         docs/compact.md; plan.hpp's to_moves and to_runs for engines that move slots themselves; reference/compact.hpp.

#include <initializer_list>

#include <mustdrop/backend.hpp>
#include <mustdrop/status.hpp>
#include <mustdrop/view.hpp>

MUSTDROP_NAMESPACE_BEGIN

/// Slot i of request q lies in slot i mod page_slots of page pages[q·request_stride + i / page_slots]; int32 or int64, one of the two.
struct page_table {
  std::int32_t const* pages32 = nullptr;  // [requests, pages of a request], in the backend's memory
  std::int64_t const* pages64 = nullptr;
  index_t request_stride = 0;  // entries from one request's first to the next one's
  index_t page_slots = 0;      // slots in a page
  index_t page_stride = 0;     // bytes from one page to the next

  MUSTDROP_HD constexpr bool absent() const noexcept { return pages32 == nullptr && pages64 == nullptr; }
  MUSTDROP_HD constexpr index_t page(index_t request, index_t i) const noexcept {
    index_t const at = request * request_stride + i / page_slots;
    return pages32 != nullptr ? pages32[at] : pages64[at];
  }
};

/// One K, V or side array of one layer. All strides in bytes.
struct kv_cache {
  void* data = nullptr;  // slot 0 of head 0 of request 0 (paged: of page 0)
  index_t requests = 1, heads = 1;
  index_t request_stride = 0, head_stride = 0, slot_stride = 0;     // paged: slot_stride is within a page and request_stride is not used
  index_t slot_bytes = 0;                                           // what one slot of one head holds
  index_t pieces = 1, piece_stride = 0;                             // a slot is `pieces` runs of slot_bytes / pieces bytes, this far apart
  index_t first_list = 0, list_per_request = 1, list_per_head = 0;  // 0: shared by the requests, by the heads
  page_table pages = {};

  /// The keep list that head h of request q follows.
  MUSTDROP_HD constexpr index_t list(index_t q, index_t h) const noexcept { return first_list + q * list_per_request + h * list_per_head; }

  /// Where piece p of slot i of head h of request q begins.
  MUSTDROP_HD char* at(index_t q, index_t h, index_t i, index_t p) const noexcept {
    index_t const place =
        pages.absent() ? q * request_stride + i * slot_stride : pages.page(q, i) * pages.page_stride + i % pages.page_slots * slot_stride;
    return static_cast<char*>(data) + place + h * head_stride + p * piece_stride;
  }
};

/// On the host: every page that the first `slots` slots of each request use lies in a pool of `pool` pages.
inline status check(page_table const& pages, index_t requests, index_t slots, index_t pool) noexcept {
  if (requests < 0 || requests > most_tokens || slots < 0 || slots > most_tokens || pool < 0) { return status::bad_shape; }
  if (pages.absent() || (pages.pages32 != nullptr && pages.pages64 != nullptr) || pages.page_slots < 1) { return status::bad_argument; }
  for (index_t q = 0; q < requests; ++q) {
    for (index_t i = 0; i < slots; i += pages.page_slots) {
      index_t const page = pages.page(q, i);
      if (page < 0 || page >= pool) { return status::bad_argument; }
    }
  }
  return status::ok;
}

/// What compact asks of each entry.
inline status check(kv_cache const& cache, index_t lists) noexcept {
  if (cache.requests < 0 || cache.heads < 0 || cache.slot_bytes < 0 || cache.pieces < 1) { return status::bad_shape; }
  if (cache.slot_bytes % cache.pieces != 0) { return status::bad_shape; }
  if (!cache.pages.absent()) {
    bool const both = cache.pages.pages32 != nullptr && cache.pages.pages64 != nullptr;
    if (both || cache.pages.page_slots < 1) { return status::bad_argument; }
  }
  if (cache.requests == 0 || cache.heads == 0 || cache.slot_bytes == 0) { return status::ok; }  // nothing to move
  if (cache.data == nullptr || cache.requests > most_tokens || cache.heads > most_tokens) { return status::bad_shape; }
  for (index_t const number : {cache.first_list, cache.list_per_request, cache.list_per_head}) {
    if (number < 0 || number > most_tokens) { return status::bad_shape; }
  }
  index_t const per_request = (cache.requests - 1) * cache.list_per_request, per_head = (cache.heads - 1) * cache.list_per_head;
  if (cache.first_list + per_request >= lists - per_head) { return status::bad_shape; }
  bool const said =
      cache.slot_stride != 0 && (cache.heads == 1 || cache.head_stride != 0) && (cache.pieces == 1 || cache.piece_stride != 0);
  return said ? status::ok : status::bad_argument;  // else a head or piece would be moved twice, over itself
}

template <class Backend, class Index, require_backend<Backend> = 0>
status compact(Backend const& backend, tensor_view<kv_cache const, 1> caches, segments const& segments, keep_lists<Index> keep) noexcept {
  static_assert(is_index_v<std::remove_const_t<Index>>, "keep lists hold int32 or int64");
  if (!well_formed(caches) || !well_formed(keep.indices) || !well_formed(keep.counts) || segments.count < 0) { return status::bad_shape; }
  if (keep.indices.size(0) != segments.count || keep.counts.size(0) != segments.count) { return status::bad_shape; }
  if (!unit_stride(keep.indices) || !unit_stride(keep.counts)) { return status::bad_stride; }
  for (index_t c = 0; c < caches.size(0); ++c) {
    if (status const s = check(caches(c), segments.count); s != status::ok) { return s; }
  }
  return compact_impl(backend, caches, segments, keep_lists<Index const>(keep));
}

MUSTDROP_NAMESPACE_END
