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

/// A cache of `heads` heads, each of so many slots.
md::kv_cache cache(md::index_t heads, md::index_t slots, md::index_t bytes) {
  md::kv_cache c;
  c.data = memory<char>(), c.heads = heads, c.slot_bytes = bytes, c.slot_stride = bytes, c.head_stride = slots * bytes;
  return c;
}

}  // namespace

void calls() {
  for (int const n : {0, 1, 65, 66, 67, 130, 131}) {  // behind 2 that stay, tiles of 64 slots
    one<std::int32_t>(std::to_string(n) + " of 300 slots of 256 bytes stay", {cache(1, 300, 256)}, whole(300), {n});
  }
  one<std::int32_t>("all of 20 slots stay", {cache(1, 20, 256)}, whole(20), {20}, 20);
}

}  // namespace recorder
