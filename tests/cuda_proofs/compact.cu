// SPDX-License-Identifier: Apache-2.0
#include <mustdrop/compact.hpp>
#include <mustdrop/cuda/compact.cuh>

#include "recorder.hpp"

namespace recorder {
namespace {

/// Of each segment's slots the first `still` stay, then every second, until `stay`.
template <class Index>
void one(std::string const& title, std::vector<md::kv_cache> const& caches, batch const& b, std::vector<std::int32_t> const& stay,
         md::index_t still = 2) {
  begin(title);
  auto const capacity = static_cast<md::index_t>(b.tokens);
  check(md::compact(md::cuda::backend<>{}, md::view<md::kv_cache const>(caches.data(), caches.size()), b.cut,
                    kept<Index>(stay, capacity, [&](md::index_t, md::index_t i) { return i < still ? i : 2 * i - still + 1; })));
}

/// A cache of so many requests and heads, a head's slots one behind another.
md::kv_cache cache(md::index_t requests, md::index_t heads, md::index_t slots, md::index_t bytes) {
  md::kv_cache c;
  c.data = memory<char>(), c.requests = requests, c.heads = heads, c.slot_bytes = bytes, c.slot_stride = bytes;
  c.head_stride = slots * bytes, c.request_stride = heads * c.head_stride;
  return c;
}

/// The same slots in pages of 16, which lie in the pool from the last to the first.
template <class Page>
md::kv_cache paged(md::index_t slots, md::index_t bytes) {
  md::kv_cache c = cache(1, 1, slots, bytes);
  std::vector<Page> table;
  for (md::index_t page = (slots + 15) / 16; page > 0; --page) { table.push_back(static_cast<Page>(page - 1)); }
  Page const* const pages = memory(table);
  if constexpr (sizeof(Page) == 4) {
    c.pages.pages32 = pages;
  } else {
    c.pages.pages64 = pages;
  }
  c.pages.page_slots = 16, c.pages.page_stride = 16 * bytes;
  return c;
}

}  // namespace

void calls() {
  for (int const n : {0, 1, 65, 66, 67, 130, 131}) {  // behind 2 that stay, tiles of 64 slots
    one<std::int32_t>(std::to_string(n) + " of 300 slots of 256 bytes stay", {cache(1, 1, 300, 256)}, whole(300), {n});
  }
  one<std::int32_t>("all of 20 slots stay", {cache(1, 1, 20, 256)}, whole(20), {20}, 20);
  for (int const bytes : {8, 4, 2, 33}) {  // tiles of 1024 words, whatever their width
    int const tile = bytes == 33 ? 31 : 1024;
    for (int const n : {tile, tile + 1, 2 * tile + 2}) {
      one<std::int32_t>(std::to_string(n + 2) + " of 5000 slots of " + std::to_string(bytes) + " bytes stay", {cache(1, 1, 5000, bytes)},
                        whole(5000), {n + 2});
    }
  }
  one<std::int64_t>("7 of 300 slots of 4112 bytes stay, 64-bit", {cache(1, 1, 300, 4112)}, whole(300), {7});
  md::kv_cache pieces = cache(1, 1, 300, 256);
  pieces.pieces = 2, pieces.slot_stride = 128, pieces.piece_stride = 300 * 128;
  one<std::int32_t>("67 of 300 slots of 2 pieces of 128 bytes stay", {pieces}, whole(300), {67});
  one<std::int32_t>("67 of 300 slots of 256 bytes in pages stay", {paged<std::int32_t>(300, 256)}, whole(300), {67});
  one<std::int32_t>("67 of 300 slots of 256 bytes in pages stay, 64-bit pages", {paged<std::int64_t>(300, 256)}, whole(300), {67});

  md::kv_cache own_lists = cache(2, 2, 99, 64);
  own_lists.list_per_request = 2, own_lists.list_per_head = 1;
  one<std::int32_t>("2 requests of 2 heads, each with its list, 64 bytes", {own_lists}, ragged({33, 0, 40, 31}, 2), {12, 0, 20, 16});
  std::vector<md::kv_cache> layers(3, cache(1, 2, 300, 256));
  for (md::kv_cache& layer : layers) { layer.data = memory<char>(); }
  layers[1].slot_bytes = 0, layers[2] = cache(1, 2, 300, 36);
  one<std::int32_t>("3 caches of 2 heads, the second of nothing", layers, whole(300), {67});
}

}  // namespace recorder
