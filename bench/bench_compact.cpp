// SPDX-License-Identifier: Apache-2.0
// compact: K and V of a 7B model, [requests, 32, 651, 128] → 100 slots. Cold: all 32 layers at one request and 576 tokens, else as many as
// hold the same number of slots. Hot: one layer. A compacted cache is compacted again as it is: which bytes move is up to the list alone.

#include "measure.hpp"

template <class T>
struct compact_step : step {
  static constexpr roof limit = roof::copy;
  static constexpr index_t heads = 32, dim = 128;
  index_t const layers, batch, slots, left;

  lists const kept = keep_input(batch, slots, left);
  array<T> const keys_and_values = input<T>(layers * 2 * batch * heads * slots * dim);
  md::segments const cut;
  std::vector<md::kv_cache> caches;

  explicit compact_step(shape const& s)
      : layers(s.cold ? std::max<index_t>(1, 32 / s.crops()) : 1),
        batch(s.batch),
        slots(s.prompt()),
        left(slots * 100 / 651),
        cut(even(batch, 0)) {  // slots of each request begin at 0
    bytes = 2.0 * static_cast<double>(layers * 2 * batch * heads * left * dim) * sizeof(T);
  }
  template <class Backend>
  md::status run(Backend const& on) {
    constexpr index_t slot = dim * static_cast<index_t>(sizeof(T));
    caches.clear();
    for (index_t c = 0; c < 2 * layers; ++c) {
      md::kv_cache cache;
      cache.data = at(keys_and_values) + c * batch * heads * slots * dim;
      cache.requests = batch, cache.request_stride = heads * slots * slot;
      cache.heads = heads, cache.head_stride = slots * slot, cache.slot_stride = cache.slot_bytes = slot;
      caches.push_back(cache);
    }
    return md::compact(on, md::tensor_view<md::kv_cache const, 1>(md::view(caches.data(), 2 * layers)), cut, keep(kept));
  }
};

int main(int argc, char** argv) {
  add_of_every_type<compact_step>("compact");
  return run_all(argc, argv);
}
