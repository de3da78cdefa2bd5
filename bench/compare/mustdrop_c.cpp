// SPDX-License-Identifier: Apache-2.0

// The words of the CPU backend as C functions, for bench/compare (ctypes). Tensors are contiguous; dtype is 0 float, 1 half, 2 bfloat16;
// a result is a status. The scratch, the threads and the tables of a batch belong to this file: one caller at a time.

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include <mustdrop/cpu/attention_scores.hpp>
#include <mustdrop/cpu/cls_topk.hpp>
#include <mustdrop/cpu/compact.hpp>
#include <mustdrop/cpu/dual_mask.hpp>
#include <mustdrop/cpu/gather.hpp>
#include <mustdrop/cpu/kv_evict.hpp>
#include <mustdrop/cpu/rerotate.hpp>
#include <mustdrop/cpu/window_merge.hpp>
#include <mustdrop/cpu/window_similarity.hpp>

#include <executors/thread_pool.hpp>

#include "roofs.hpp"

namespace md = mustdrop;
using i64 = md::index_t;
using i32 = std::int32_t;

namespace {

std::vector<std::unique_ptr<executors::thread_pool>> pools;  // [threads]; each stays once it was wanted, asleep while another one is in use
executors::thread_pool* in_use = nullptr;

using arch = xsimd::default_arch;

md::cpu::backend<arch, executors::pooled> backend() { return {{in_use}}; }

struct freed {
  void operator()(void* p) const { std::free(p); }
};

/// Grows and stays: what an engine does with its workspace.
md::workspace scratch(std::size_t bytes) {
  static std::unique_ptr<void, freed> memory;
  static std::size_t held = 0;
  if (bytes > held) {
    held = (bytes + 63) / 64 * 64;
    memory.reset(std::aligned_alloc(64, held));
    std::memset(memory.get(), 0, held);  // its pages are there before anybody takes the time
  }
  return {memory.get(), bytes};
}

/// Samples of one batch, one after another, `stride` tokens apart, `tokens` in use.
md::segments samples(i64 batch, i64 stride, i64 tokens) {
  static std::vector<i32> offsets, counts;
  if (batch == 1 && stride == tokens) { return {}; }
  offsets.resize(static_cast<std::size_t>(batch) + 1), counts.assign(static_cast<std::size_t>(batch), static_cast<i32>(tokens));
  for (std::size_t s = 0; s < offsets.size(); ++s) { offsets[s] = static_cast<i32>(static_cast<i64>(s) * stride); }
  offsets.back() = static_cast<i32>((batch - 1) * stride + tokens);
  return {batch, offsets.data(), counts.data(), tokens};
}

md::tensor_view<md::token_grid const, 1> grids(i64 batch, i64 rows, i64 cols) {
  static std::vector<md::token_grid> table;
  table.assign(static_cast<std::size_t>(batch), md::token_grid{rows, cols});
  return md::view(static_cast<md::token_grid const*>(table.data()), batch);
}

/// f(element) with an element of the dtype.
template <class F>
int typed(int dtype, F const& f) {
  md::status const s = dtype == 0 ? f(float{}) : dtype == 1 ? f(md::half{}) : dtype == 2 ? f(md::bfloat16{}) : md::status::unsupported;
  return static_cast<int>(s);
}

template <class T, class... Size>
auto in(void const* data, Size... size) {
  return md::view(static_cast<T const*>(data), size...);
}
template <class T, class... Size>
auto out(void* data, Size... size) {
  return md::view(static_cast<T*>(data), size...);
}

md::keep_lists<i64> lists(i64* indices, i32* counts, i64 segments, i64 capacity) {
  return {md::view(indices, segments, capacity), md::view(counts, segments)};
}

}  // namespace

extern "C" {

char const* mustdrop_arch() { return arch::name(); }

/// Threads of every later call.
void mustdrop_use_threads(int threads) {
  auto const wanted = static_cast<std::size_t>(std::max(threads, 1));
  if (wanted >= pools.size()) { pools.resize(wanted + 1); }
  if (wanted > 1 && pools[wanted] == nullptr) { pools[wanted] = std::make_unique<executors::thread_pool>(threads); }
  in_use = pools[wanted].get();
}

/// features [batch, 1 + rows·cols, dim], CLS first; windows of 3×3. similarity [batch, windows].
int mustdrop_window_similarity(int dtype, i64 batch, i64 rows, i64 cols, i64 dim, void const* features, float* similarity) {
  i64 const tokens = 1 + rows * cols, all = batch * tokens;
  auto const on = backend();
  auto const cut = samples(batch, tokens, tokens);
  md::window_shape const window;
  md::workspace const lent = scratch(md::window_similarity_workspace_size(on, window, all, dim, cut));
  return typed(dtype, [&](auto element) {
    auto const from = in<decltype(element)>(features, all, dim);
    return md::window_similarity(on, window, from, cut, grids(batch, rows, cols), md::view(similarity, batch, rows / 3 * (cols / 3)), lent);
  });
}

/// by_score: the released order of rows. Rows of sample s begin at s·tokens, counts [batch] says how many; keep [batch, tokens].
int mustdrop_window_merge(int dtype, i64 batch, i64 rows, i64 cols, i64 dim, float threshold, int by_score, void const* features,
                          float const* similarity, void* merged, float* sizes, i64* source, i64* keep, i32* counts) {
  i64 const tokens = 1 + rows * cols, all = batch * tokens, windows = rows / 3 * (cols / 3);
  auto const on = backend();
  auto const cut = samples(batch, tokens, tokens);
  md::window_shape const window;
  md::merge_options const options{threshold, -1, by_score != 0 ? md::output_order::score : md::output_order::position};
  md::workspace const lent = scratch(md::window_merge_workspace_size(on, window, all, dim, windows, cut));
  return typed(dtype, [&](auto element) {
    using real = decltype(element);
    return md::window_merge(on, options, window, in<real>(features, all, dim), cut, grids(batch, rows, cols),
                            md::view(similarity, batch, windows), {}, out<real>(merged, all, dim), md::view(sizes, all),
                            md::view(source, all), lists(keep, counts, batch, tokens), lent);
  });
}

/// attention [batch, heads, patches], CLS's own column left out; keep [batch, k].
int mustdrop_cls_topk(int dtype, i64 batch, i64 heads, i64 patches, i64 k, void const* attention, i64* keep, i32* counts) {
  auto const on = backend();
  auto const cut = samples(batch, heads * patches, patches);
  i64 const axis = (batch - 1) * heads * patches + patches;
  md::cls_topk_options options;
  options.percent = 0, options.prefix = 0;
  md::workspace const lent = scratch(md::cls_topk_workspace_size(on, heads, axis, cut));
  return typed(dtype, [&](auto element) {
    using real = decltype(element) const;
    md::tensor_view<real, 2> const map{static_cast<real*>(attention), {heads, axis}, {patches, 1}};
    return md::cls_topk(on, options, map, cut, {}, lists(keep, counts, batch, k), lent);
  });
}

/// map [heads, rows, keys]; sum and max [keys] begin at 0, or with `further` go on from what they hold.
int mustdrop_map_scores(int dtype, i64 heads, i64 rows, i64 keys, int further, void const* map, float* sum, float* max) {
  auto const on = backend();
  md::attention_options const options;
  if (further == 0) { std::fill_n(sum, keys, 0.0f), std::fill_n(max, keys, 0.0f); }
  md::workspace const lent = scratch(md::attention_scores_workspace_size(on, {heads, rows, keys, 0, 0}, {}, {}));
  return typed(dtype, [&](auto element) {
    auto const weights = in<decltype(element)>(map, heads, rows, keys);
    return md::attention_scores(on, options, weights, {}, {}, {}, {}, md::view(sum, keys), md::view(max, keys), {}, lent);
  });
}

/// query [heads, rows, dim], keys [kv_heads, slots, dim] of which `seen` are in use; the last row sees them all, each row before one less.
int mustdrop_attention_scores(int dtype, i64 heads, i64 kv_heads, i64 rows, i64 slots, i64 seen, i64 dim, int further, void const* query,
                              void const* keys, float* sum, float* max) {
  static std::vector<i32> limits;
  auto const on = backend();
  md::attention_options options;
  options.scale = md::divide(1.0f, md::square_root(static_cast<float>(dim)));
  if (further == 0) { std::fill_n(sum, seen, 0.0f), std::fill_n(max, seen, 0.0f); }
  limits.resize(static_cast<std::size_t>(rows));
  for (i64 row = 0; row < rows; ++row) {
    limits[static_cast<std::size_t>(row)] = static_cast<i32>(std::max<i64>(seen - rows + row + 1, 0));
  }
  md::workspace const lent = scratch(md::attention_scores_workspace_size(on, {heads, rows, seen, kv_heads, dim}, {}, {}));
  return typed(dtype, [&](auto element) {
    using real = decltype(element);
    return md::attention_scores(on, options, in<real>(query, heads, rows, dim), in<real>(keys, kv_heads, slots, dim).narrow(1, 0, seen), {},
                                {}, md::view(static_cast<i32 const*>(limits.data()), rows), {}, {}, md::view(sum, seen),
                                md::view(max, seen), {}, lent);
  });
}

/// always_kept [kept] ascends; keep [tokens].
int mustdrop_dual_mask(i64 tokens, float global, float individual, float const* sum, float const* max, i64 const* always_kept, i64 kept,
                       i64* keep, i32* count) {
  auto const on = backend();
  i32 const n = static_cast<i32>(kept);
  md::keep_lists<i64 const> const shielded{md::view(always_kept, 1, kept), md::view(&n, 1)};
  md::workspace const lent = scratch(md::dual_mask_workspace_size(on, tokens, {}));
  return static_cast<int>(md::dual_mask(on, {global, individual, -1}, md::view(sum, tokens), md::view(max, tokens), {}, shielded, {},
                                        lists(keep, count, 1, tokens), lent));
}

/// rows [tokens, dim], keep [kept] → out [kept, dim].
int mustdrop_gather(int dtype, i64 tokens, i64 dim, i64 kept, void const* rows, i64* keep, void* to) {
  i32 n = static_cast<i32>(kept);
  return typed(dtype, [&](auto element) {
    using real = decltype(element);
    return md::gather(backend(), in<real>(rows, tokens, dim), {}, lists(keep, &n, 1, kept), out<real>(to, kept, dim), {});
  });
}
int mustdrop_gather_rms_norm(int dtype, i64 tokens, i64 dim, i64 kept, float epsilon, void const* rows, i64* keep, void const* weight,
                             void* to) {
  i32 n = static_cast<i32>(kept);
  return typed(dtype, [&](auto element) {
    using real = decltype(element);
    md::rms_norm<real> const norm{in<real>(weight, dim), epsilon};
    return md::gather(backend(), norm, in<real>(rows, tokens, dim), {}, lists(keep, &n, 1, kept), out<real>(to, kept, dim), {});
  });
}

/// caches: `count` arrays [heads, slots, slot_bytes], all with the same keep list.
int mustdrop_compact(i64 count, void* const* caches, i64 heads, i64 slots, i64 slot_bytes, i64* keep, i64 kept) {
  static std::vector<md::kv_cache> table;
  table.resize(static_cast<std::size_t>(count));
  for (std::size_t c = 0; c < table.size(); ++c) {
    table[c].data = caches[c], table[c].heads = heads, table[c].head_stride = slots * slot_bytes;
    table[c].slot_stride = slot_bytes, table[c].slot_bytes = slot_bytes;
  }
  i32 n = static_cast<i32>(kept);
  auto const list = md::view(static_cast<md::kv_cache const*>(table.data()), count);
  return static_cast<int>(md::compact(backend(), list, {}, lists(keep, &n, 1, kept)));
}

/// scores [sets, slots]: each set keeps its last `recent` slots and the best of the others, `budget` in all; keep [sets, slots].
int mustdrop_kv_evict(i64 sets, i64 slots, i64 budget, i64 recent, float const* scores, std::uint8_t const* kind, i64* keep, i32* counts) {
  auto const on = backend();
  auto const cut = samples(sets, slots, slots);
  md::evict_options const options{md::evict_policy::output_aware, budget, 0, recent, 1};
  md::workspace const lent = scratch(md::kv_evict_workspace_size(on, sets * slots, cut));
  auto const kinds = md::view(reinterpret_cast<md::slot_kind const*>(kind), sets * slots);
  return static_cast<int>(
      md::kv_evict(on, options, md::view(scores, sets * slots), kinds, cut, {}, lists(keep, counts, sets, slots), lent));
}

/// keys [heads, slots, dim] in place; rotary over the whole dim, pairs as Llama's.
int mustdrop_rerotate(int dtype, i64 heads, i64 slots, i64 dim, void* keys, i64 const* old, i64 const* updated, float const* inv_freq) {
  return typed(dtype, [&](auto element) {
    return md::rerotate(backend(), md::rope_pairs::half_split, out<decltype(element)>(keys, heads, slots, dim), {}, md::view(old, slots),
                        md::view(updated, slots), md::view(inv_freq, dim / 2));
  });
}

// Roofs, on the same threads (roofs.cpp).
void mustdrop_roof_bytes(char const* read, i64 read_size, char const* from, char* to, i64 copy_size) {
  read_bytes(backend().execute, read, read_size);
  copy_bytes(backend().execute, from, to, copy_size);
}
void mustdrop_roof_update(char* at, i64 size) { update_bytes(backend().execute, at, size); }
void mustdrop_roof_flops(double flops) { multiply(backend().execute, flops); }
}  // extern "C"
