// SPDX-License-Identifier: Apache-2.0

// kv_evict, kv_rerotate, streaming, tova, h2o.

#include <cstring>
#include <deque>

#include <mustdrop/plan.hpp>

#include "golden_ops.hpp"

namespace golden {
namespace {

using bytes = std::vector<unsigned char>;

/// K or V of one layer: [heads, slots, dim] of opaque elements.
struct layer_cache {
  std::string name;
  index_t heads, slots, dim, element, list;
  bytes content;

  index_t slot_bytes() const { return dim * element; }
};

/// A way to lay a cache out in memory.
struct cache_layout {
  char const* name;
  md::kv_cache (*strides)(layer_cache const&);  // without memory
  bool paged;
};

constexpr index_t page_slots = 4;
index_t pages_of(layer_cache const& c) { return (c.slots + page_slots - 1) / page_slots; }

md::kv_cache head_major(layer_cache const& c) {
  md::kv_cache cache;
  cache.heads = c.heads, cache.slot_bytes = c.slot_bytes(), cache.first_list = c.list;
  cache.head_stride = c.slots * c.slot_bytes(), cache.slot_stride = c.slot_bytes();
  return cache;
}
md::kv_cache token_major(layer_cache const& c) {
  md::kv_cache cache = head_major(c);
  cache.head_stride = c.slot_bytes(), cache.slot_stride = c.heads * c.slot_bytes();
  return cache;
}
/// [heads, dim, slots]: tokens are contiguous, a slot lies in dim pieces.
md::kv_cache transposed(layer_cache const& c) {
  md::kv_cache cache = head_major(c);
  cache.slot_stride = c.element, cache.pieces = c.dim, cache.piece_stride = c.slots * c.element;
  return cache;
}
/// Pages of [heads, page_slots, dim] in an order of their own.
md::kv_cache paged(layer_cache const& c) {
  md::kv_cache cache = head_major(c);
  cache.head_stride = page_slots * c.slot_bytes();
  cache.pages.page_slots = page_slots, cache.pages.page_stride = c.heads * cache.head_stride;
  return cache;
}
constexpr cache_layout layouts[] = {
    {"heads first", head_major, false}, {"tokens first", token_major, false}, {"transposed", transposed, false}, {"paged", paged, true}};

/// The caches of all layers in one layout, with the memory that they point to.
struct laid_out {
  std::vector<md::kv_cache> caches;
  std::deque<bytes> memory;
  std::deque<std::vector<std::int32_t>> tables32;
  std::deque<std::vector<std::int64_t>> tables64;

  void add(cache_layout const& layout, layer_cache const& from) {
    md::kv_cache cache = layout.strides(from);
    index_t const pages = layout.paged ? pages_of(from) : 0;
    if (layout.paged) {  // reversed, with holes between; alternately in both types of table
      bool const wide = caches.size() % 2 == 1;
      tables32.push_back(array_of<std::int32_t>(pages)), tables64.push_back(array_of<std::int64_t>(pages));
      for (index_t p = 0; p < pages; ++p) {
        tables64.back()[at(p)] = 2 * (pages - p) - 1;
        tables32.back()[at(p)] = static_cast<std::int32_t>(2 * (pages - p) - 1);
      }
      cache.pages.pages32 = wide ? nullptr : tables32.back().data();
      cache.pages.pages64 = wide ? tables64.back().data() : nullptr;
    }
    memory.push_back(array_of<unsigned char>(layout.paged ? 2 * pages * cache.pages.page_stride : length(from.content)));
    cache.data = memory.back().data();
    each_piece(cache, from, from.slots, [&](char* in_cache, index_t in_content, index_t size) {
      std::memcpy(in_cache, from.content.data() + in_content, at(size));
    });
    caches.push_back(cache);
  }

  static bytes read(md::kv_cache const& cache, layer_cache of, index_t slots) {
    of.slots = slots;
    bytes content = array_of<unsigned char>(of.heads * slots * of.slot_bytes());
    each_piece(cache, of, slots, [&](char const* in_cache, index_t in_content, index_t size) {
      std::memcpy(content.data() + in_content, in_cache, at(size));
    });
    return content;
  }

  template <class Visit>
  static void each_piece(md::kv_cache const& cache, layer_cache const& of, index_t slots, Visit const& visit) {
    index_t const size = of.slot_bytes() / cache.pieces;
    for (index_t h = 0; h < of.heads; ++h) {
      for (index_t i = 0; i < slots; ++i) {
        for (index_t p = 0; p < cache.pieces; ++p) { visit(cache.at(0, h, i, p), ((h * of.slots) + i) * of.slot_bytes() + p * size, size); }
      }
    }
  }
};

/// The survivors of all layers, one list each.
struct layer_lists {
  std::vector<std::int64_t> indices;
  std::vector<std::int32_t> counts;
  index_t capacity = 0;

  explicit layer_lists(std::vector<integers> const& of) {
    for (integers const& list : of) {
      capacity = std::max(capacity, length(list)), counts.push_back(static_cast<std::int32_t>(list.size()));
    }
    indices = array_of<std::int64_t>(length(of) * capacity);
    for (std::size_t l = 0; l < of.size(); ++l) {
      std::copy(of[l].begin(), of[l].end(), indices.begin() + static_cast<index_t>(l) * capacity);
    }
  }
  index_t size() const { return length(counts); }
  md::keep_lists<std::int64_t const> lists() const {
    return {md::view(indices.data(), size(), capacity), md::view(counts.data(), counts.size())};
  }
};

struct kv_evict_case {
  template <class Backend>
  void operator()(Backend backend, trial& t) const {
    t.needs({"ids_final"});
    golden_case const& c = t.parameters();
    integers const layers = sorted_unique(c.list("layers"));
    index_t const first_pruned = c.whole_or("first_pruned", 2, 0, 1 << 16);
    trial::require(!layers.empty(), "metadata layers is empty");
    std::vector<layer_cache> caches;
    std::vector<integers> kept;
    for (index_t const l : layers) {
      std::string const number = std::to_string(l);
      for (char const* side : {"K_l", "V_l"}) { caches.push_back(read_cache(t, side + number, length(kept))); }
      index_t const slots = caches.back().slots;
      trial::require(caches[caches.size() - 2].slots == slots, "K_l" + number + " and V_l" + number + ": lengths differ");
      kept.push_back(t.indices("index_l" + number, {-1}, slots));
      must_be_ok(md::check(md::view(kept.back().data(), length(kept.back())), slots), "check of an index list");
      trial::require(l >= first_pruned || length(kept.back()) == slots, "index_l" + number + ": a layer before the first pruned one drops");
      compare_ids(backend, t, number, kept.back(), slots, l >= first_pruned);
    }
    layer_lists const lists(kept);
    for (cache_layout const& layout : layouts) { compare_compact(backend, t, layout, caches, lists); }
  }

  static layer_cache read_cache(trial& t, std::string const& name, index_t list) {
    golden_case const& c = t.parameters();
    integers const shape = t.shape(name, 3);
    c.agrees("kv_heads", shape[0]), c.agrees("head_dim", shape[2]);
    auto const element = static_cast<index_t>(safetensors::bytes_of(t.type(name)));
    safetensors::tensor const& stored = c.file().tensors.at(name);
    auto const* const begin = c.file().memory.data() + stored.begin;
    trial::require(shape[2] > 0, name + ": no elements in a slot");
    return {name.substr(0, 1) + "_out" + name.substr(1), shape[0], shape[1], shape[2], element, list, bytes(begin, begin + stored.bytes)};
  }

  /// Which tokens the slots hold and where they sit, carried along.
  template <class Backend>
  void compare_ids(Backend backend, trial& t, std::string const& layer, integers const& kept, index_t slots, bool evicted) const {
    std::vector<std::int32_t> const count(1, static_cast<std::int32_t>(kept.size()));
    md::keep_lists<std::int64_t const> const list{md::view(kept.data(), 1, kept.size()), md::view(count.data(), 1)};
    md::tensor_view<std::int32_t const, 1> const in_place{};
    if (t.has("ids_l" + layer)) {
      integers const ids = t.indices("ids_l" + layer, {slots}, md::most_tokens);
      integers out = array_of<index_t>(length(kept));
      must_be_ok(md::gather(backend, md::view(ids.data(), slots), md::segments{}, list, md::view(out.data(), length(out)), in_place),
                 "gather");
      if (evicted) {
        t.equal("ids_final", out, {length(kept)});
      } else {
        t.equal("ids_l" + layer, out, {slots});
        trial::require_same("ids_l" + layer + ": a layer that keeps everything has not the whole sequence", ids, counting(slots));
      }
    }
    if (t.has("kpos_l" + layer)) {
      integers const old = t.indices("kpos_l" + layer, {slots}, md::most_tokens);
      integers out = array_of<index_t>(length(kept));
      must_be_ok(md::positions(backend, md::position_policy::kept, md::view(old.data(), slots), md::segments{}, list,
                               md::view(out.data(), length(out)), md::tensor_view<index_t, 1>{}, in_place),
                 "positions");
      t.equal("kpos_out_l" + layer, out, {length(kept)});
    }
  }

  template <class Backend>
  void compare_compact(Backend backend, trial& t, cache_layout const& layout, std::vector<layer_cache> const& caches,
                       layer_lists const& lists) const {
    laid_out memory;
    for (layer_cache const& cache : caches) { memory.add(layout, cache); }
    md::segments const segments{lists.size(), nullptr, nullptr, 0};
    must_be_ok(
        md::compact(backend, md::view(static_cast<md::kv_cache const*>(memory.caches.data()), caches.size()), segments, lists.lists()),
        "compact");
    for (std::size_t i = 0; i < caches.size(); ++i) {
      layer_cache const& cache = caches[i];
      index_t const slots = lists.counts[at(cache.list)];
      try {
        t.same_bytes(cache.name, laid_out::read(memory.caches[i], cache, slots), {cache.heads, slots, cache.dim});
      } catch (failure const& f) { throw failure(std::string(f.what()) + " (" + layout.name + ")"); }
    }
  }
};

struct kv_rerotate_case {
  template <class Backend>
  void operator()(Backend backend, trial& t) const {
    t.needs({"K", "indices", "inv_freq", "K_out"});
    with_real(t, "K", [&](auto real) { compare<decltype(real)>(backend, t); });
  }

  /// The kept keys of each head, packed, then turned from where they were to 0, 1, 2, … of their head.
  template <class T, class Backend>
  void compare(Backend backend, trial& t) const {
    golden_case const& c = t.parameters();
    integers const shape = t.shape("K", 3), list = t.shape("indices", 2);
    index_t const heads = shape[0], slots = shape[1], dim = shape[2], kept = list[1], rows = heads * kept;
    c.agrees("heads", heads), c.agrees("length", slots), c.agrees("head_dim", dim);
    auto const keys = t.input<T>("K", shape);
    integers const indices = t.indices("indices", {heads, kept}, slots);
    std::vector<float> const inv_freq = t.floats("inv_freq", {-1});

    std::vector<std::int32_t> offsets, packed, counts(at(heads), static_cast<std::int32_t>(kept));
    for (index_t h = 0; h <= heads; ++h) {
      offsets.push_back(static_cast<std::int32_t>(h * slots)), packed.push_back(static_cast<std::int32_t>(h * kept));
    }
    md::segments const segments{heads, offsets.data(), nullptr, slots};
    md::keep_lists<std::int64_t const> const keep{md::view(indices.data(), heads, kept), md::view(counts.data(), heads)};
    must_be_ok(md::check(keep, segments, heads * slots), "check of indices");
    auto const room = md::view(static_cast<std::int32_t const*>(packed.data()), heads + 1);

    auto out = array_of<T>(rows * dim);
    must_be_ok(md::gather(backend, md::view(keys.data(), heads * slots, dim), segments, keep, md::view(out.data(), rows, dim), room),
               "gather");
    integers old = array_of<index_t>(rows), updated = array_of<index_t>(rows), place;
    for (index_t h = 0; h < heads; ++h) {
      for (index_t i = 0; i < slots; ++i) { place.push_back(i); }
    }
    auto const move = [&](md::position_policy policy, integers& to) {
      must_be_ok(md::positions(backend, policy, md::view(place.data(), heads * slots), segments, keep, md::view(to.data(), rows),
                               md::tensor_view<index_t, 1>{}, room),
                 "positions");
    };
    move(md::position_policy::kept, old), move(md::position_policy::renumbered, updated);
    bool const interleaved = c.says("rope_layout") && c.text("rope_layout").find("interleaved") == 0;
    must_be_ok(md::rerotate(backend, interleaved ? md::rope_pairs::interleaved : md::rope_pairs::half_split,
                            md::view(out.data(), 1, rows, dim), md::segments{}, md::view(old.data(), rows),
                            md::tensor_view<index_t const, 1>(md::view(updated.data(), rows)), md::view(inv_freq.data(), inv_freq.size())),
               "rerotate");
    t.close("K_out", widened(out), {heads, kept, dim}, tolerance_of<T>);
  }
};

/// kv_evict on slots that are all visual: one list for each segment of `slots` slots.
template <class Backend>
std::vector<integers> evict(Backend backend, md::evict_options options, std::vector<float> const& scores, index_t lists, index_t slots) {
  options.policy = md::evict_policy::output_aware;
  std::vector<std::int32_t> offsets;
  for (index_t s = 0; s <= lists; ++s) { offsets.push_back(static_cast<std::int32_t>(s * slots)); }
  md::segments const segments{lists, offsets.data(), nullptr, slots};
  std::vector<md::slot_kind> const kind(at(lists * slots + 1), md::slot_kind::visual);
  auto keep = array_of<std::int64_t>(lists * slots);
  auto counts = array_of<std::int32_t>(lists);
  aligned_memory scratch(md::kv_evict_workspace_size(backend, lists * slots, segments));
  must_be_ok(
      md::kv_evict(backend, options, scores.empty() ? md::tensor_view<float const, 1>{} : md::view(scores.data(), lists * slots),
                   md::view(kind.data(), lists * slots), segments, md::tensor_view<std::int32_t const, 1>{},
                   md::keep_lists<std::int64_t>{md::view(keep.data(), lists, slots), md::view(counts.data(), lists)}, scratch.lend()),
      "kv_evict");
  std::vector<integers> out;
  for (index_t s = 0; s < lists; ++s) { out.push_back(part(keep, s * slots, s * slots + counts[at(s)])); }
  return out;
}

/// Rows of a map of one head for each of `lists` segments: sum is added to. `map` is [lists, rows, slots].
template <class Backend, class T>
void add_columns(Backend backend, std::vector<T> const& map, index_t lists, index_t rows, index_t slots, std::vector<float>& sum) {
  std::vector<std::int32_t> row_offsets, key_offsets;
  for (index_t s = 0; s <= lists; ++s) {
    row_offsets.push_back(static_cast<std::int32_t>(s * rows)), key_offsets.push_back(static_cast<std::int32_t>(s * slots));
  }
  md::segments const row_segments{lists, row_offsets.data(), nullptr, rows}, key_segments{lists, key_offsets.data(), nullptr, slots};
  auto max = array_of<float>(lists * slots);
  aligned_memory scratch(md::attention_scores_workspace_size(backend, {1, lists * rows, lists * slots, 0, 0}, row_segments, key_segments));
  must_be_ok(md::attention_scores(backend, md::attention_options{}, md::view(map.data(), 1, lists * rows, slots), row_segments,
                                  key_segments, md::tensor_view<std::int32_t const, 1>{}, md::tensor_view<md::key_span const, 1>{},
                                  md::view(sum.data(), lists * slots), md::view(max.data(), lists * slots), md::tensor_view<float, 2>{},
                                  scratch.lend()),
             "attention_scores");
}

struct streaming_case {
  template <class Backend>
  void operator()(Backend backend, trial& t) const {
    t.needs({"expected_ascending"});
    golden_case const& c = t.parameters();
    constexpr index_t most = 1 << 17;
    index_t const slots = c.whole("seq_len", 0, most), coming = c.whole_or("num_coming", 0, 0, most);
    md::evict_options options;
    options.sinks = c.whole("start", 0, most);
    options.recent = std::max(c.whole("recent", 0, most) - coming, index_t{0});  // room for what comes is taken from the recent ones
    options.budget = options.sinks + options.recent;
    integers const keep = evict(backend, options, {}, 1, slots)[0];
    t.equal("expected_ascending", keep, {length(keep)});
  }
};

struct tova_case {
  template <class Backend>
  void operator()(Backend backend, trial& t) const {
    t.needs({"attn_last_row", "expected_ascending"});
    golden_case const& c = t.parameters();
    integers const shape = t.shape("attn_last_row", 2);
    index_t const heads = shape[0], slots = shape[1];
    c.agrees("heads", heads), c.agrees("length", slots);
    md::evict_options options;
    options.budget = c.whole("cache_size", 0, md::most_tokens), options.sinks = 0, options.recent = 0;
    auto sum = array_of<float>(slots), max = array_of<float>(slots);
    with_real(t, "attn_last_row", [&](auto real) {
      auto const map = t.input<decltype(real)>("attn_last_row", shape);
      aligned_memory scratch(md::attention_scores_workspace_size(backend, {heads, 1, slots, 0, 0}, md::segments{}, md::segments{}));
      must_be_ok(
          md::attention_scores(backend, md::attention_options{}, md::view(map.data(), heads, 1, slots), md::segments{}, md::segments{},
                               md::tensor_view<std::int32_t const, 1>{}, md::tensor_view<md::key_span const, 1>{},
                               md::view(sum.data(), slots), md::view(max.data(), slots), md::tensor_view<float, 2>{}, scratch.lend()),
          "attention_scores");
    });
    integers const keep = evict(backend, options, sum, 1, slots)[0];
    t.equal("expected_ascending", keep, {length(keep)});
  }
};

/// Heads keep sets of their own; scores and ids go with the slots.
struct h2o_case {
  template <class Backend>
  void operator()(Backend backend, trial& t) const {
    t.needs({"attn_0"});
    golden_case const& c = t.parameters();
    index_t const heads = t.shape("attn_0", 3)[0], steps = c.whole("steps", 1, 1 << 16);
    c.agrees("heads", heads), c.agrees("prompt", t.shape("attn_0", 3)[2]);
    trial::require(heads > 0, "attn_0: no head");
    md::evict_options options;
    options.sinks = 0, options.recent = c.whole("recent_size", 0, 1 << 24);
    options.budget = options.recent + c.whole("hh_size", 0, 1 << 24);

    std::vector<float> scores;
    integers ids;
    index_t cached = 0, next_id = 0;
    for (index_t s = 0; s < steps; ++s) {
      std::string const step = std::to_string(s);
      integers const shape = t.shape("attn_" + step, 3);
      index_t const rows = shape[1], slots = cached + rows;
      trial::require(shape[0] == heads && shape[2] == slots, "attn_" + step + ": not a map of what is cached and new");
      scores = with_new(scores, heads, cached, rows, [](index_t) { return 0.0f; });
      ids = with_new(ids, heads, cached, rows, [&](index_t i) { return next_id + i; });
      next_id += rows;
      with_real(t, "attn_" + step, [&](auto real) {
        add_columns(backend, t.input<decltype(real)>("attn_" + step, {heads, rows, slots}), heads, rows, slots, scores);
      });
      std::vector<integers> const keep = evict(backend, options, scores, heads, slots);
      cached = length(keep[0]);
      compare_step(backend, t, step, keep, slots, scores, ids);
    }
  }

  template <class T, class New>
  static std::vector<T> with_new(std::vector<T> const& old, index_t heads, index_t cached, index_t rows, New const& of) {
    std::vector<T> out;
    for (index_t h = 0; h < heads; ++h) {
      out.insert(out.end(), old.begin() + h * cached, old.begin() + (h + 1) * cached);
      for (index_t i = 0; i < rows; ++i) { out.push_back(of(i)); }
    }
    return out;
  }

  template <class Backend>
  void compare_step(Backend backend, trial& t, std::string const& step, std::vector<integers> const& keep, index_t slots,
                    std::vector<float>& scores, integers& ids) const {
    index_t const heads = length(keep), kept = length(keep[0]);
    integers lists;
    std::vector<std::int32_t> offsets, packed, counts;
    for (index_t h = 0; h < heads; ++h) {
      trial::require(length(keep[at(h)]) == kept, "kv_evict: heads keep different numbers of slots");
      lists.insert(lists.end(), keep[at(h)].begin(), keep[at(h)].end()), counts.push_back(static_cast<std::int32_t>(kept));
    }
    for (index_t h = 0; h <= heads; ++h) {
      offsets.push_back(static_cast<std::int32_t>(h * slots)), packed.push_back(static_cast<std::int32_t>(h * kept));
    }
    if (kept < slots) {
      t.equal("keep_" + step, lists, {heads, kept});
    } else {
      trial::require(!t.has("keep_" + step) || t.parameters().informative(), "keep_" + step + ": the case evicts, kv_evict does not");
    }
    md::segments const segments{heads, offsets.data(), nullptr, slots};
    md::keep_lists<std::int64_t const> const stay{md::view(lists.data(), heads, kept), md::view(counts.data(), heads)};
    auto const room = md::view(static_cast<std::int32_t const*>(packed.data()), heads + 1);
    auto left_scores = array_of<float>(heads * kept);
    integers left_ids = array_of<index_t>(heads * kept);
    must_be_ok(
        md::gather(backend, md::view(scores.data(), heads * slots), segments, stay, md::view(left_scores.data(), heads * kept), room),
        "gather");
    must_be_ok(md::gather(backend, md::view(ids.data(), heads * slots), segments, stay, md::view(left_ids.data(), heads * kept), room),
               "gather");
    scores = left_scores, ids = left_ids;
    t.equal("ids_" + step, ids, {heads, kept});
    safetensors::dtype const map = t.type("attn_" + step);
    t.close("score_" + step, scores, {heads, kept},
            weights(map == safetensors::dtype::f32   ? f32_tolerance
                    : map == safetensors::dtype::f16 ? f16_tolerance
                                                     : bf16_tolerance));
  }
};

}  // namespace

std::vector<op> cache_ops() {
  return {{"kv_evict", [](golden_case const& c) { return on_every_backend(c, kv_evict_case{}); }},
          {"kv_rerotate", [](golden_case const& c) { return on_every_backend(c, kv_rerotate_case{}); }},
          {"streaming", [](golden_case const& c) { return on_every_backend(c, streaming_case{}); }},
          {"tova", [](golden_case const& c) { return on_every_backend(c, tova_case{}); }},
          {"h2o", [](golden_case const& c) { return on_every_backend(c, h2o_case{}); }}};
}

}  // namespace golden
