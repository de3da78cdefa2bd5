// SPDX-License-Identifier: Apache-2.0

// chain: the whole pipeline. Merge, key set, a prefill that prunes after some layers, eviction, one decode step.

#include <mustdrop/method/mustdrop.hpp>

#include "golden_llama.hpp"
#include "golden_merge.hpp"
#include "golden_plan.hpp"

namespace golden {
namespace {

/// What the prefill is given: the sequence, and where in it the image lies.
struct prompt {
  doubles rows;  // [tokens, hidden]
  md::run image;
  integers key_set, prune_after;
  index_t hidden = 0, tokens = 0;
};

/// How positions go on after a stage: the two variants of a case.
struct variant {
  md::position_policy policy;
  char const* suffix;
};
constexpr variant variants[] = {{md::position_policy::renumbered, "_renumbered"}, {md::position_policy::kept, "_kept"}};

/// What the prefill leaves.
struct prefilled {
  doubles rows;  // [survivors, hidden]
  integers ids, image_counts;
  std::vector<integers> sequence_keeps;  // one for each stage, in its own coordinates
  std::vector<layer_cache_f32> caches;   // one for each layer, as long as the layer's input
};

template <class Backend>
class chain {
 public:
  chain(Backend backend, trial& t) : backend_(backend), t_(t), hidden_(t.shape("sys_emb", 2)[1]), model_(t, hidden_) {}

  void compare() {
    prompt const p = compare_vision();
    for (variant const& v : variants) { compare_variant(p, v); }
    doubles const last_row = unpruned(p);
    t_.close("logits_unpruned_last_f64", model_.logits(last_row), {model_.vocabulary}, f32_tolerance);
  }

 private:
  static void insert(doubles& rows, std::vector<float> const& more) { rows.insert(rows.end(), more.begin(), more.end()); }

  /// Merge and key set, then the sequence: system, image, text.
  prompt compare_vision() {
    golden_case const& c = t_.parameters();
    prompt p;
    p.hidden = hidden_;
    std::vector<float> const system = t_.floats("sys_emb", {-1, hidden_}), text = t_.floats("text_emb", {-1, hidden_});
    insert(p.rows, system);
    p.image = {length(system) / hidden_, compare_merged(p)};
    insert(p.rows, text);
    p.tokens = length(p.rows) / hidden_;
    c.agrees("v_start", p.image.begin), c.agrees("img_seq", p.image.length), c.agrees("text_len", length(text) / hidden_);
    p.prune_after = c.list("pruning_layers");
    trial::require(!p.prune_after.empty() && p.prune_after.back() < model_.layers(), "metadata pruning_layers: not within the layers");
    p.key_set = compare_key_set(p.image.length);
    return p;
  }

  index_t compare_merged(prompt& p) {
    merge_setting const s = setting_of(t_, "vision_x0");
    trial::require(s.batch == 1 && s.dim == hidden_, "vision_x0: not one image of the model's width");
    index_t patches = 0;
    with_real(t_, "vision_x0", [&](auto real) {
      using T = decltype(real);
      auto const x = t_.input<T>("vision_x0", {1, s.tokens(), s.dim});
      std::vector<float> const rows = merged_rows(s, x);
      patches = length(rows) / s.dim - s.grid.prefix;
      t_.close("merged", rows, {s.grid.prefix + patches, s.dim}, f32_tolerance);
      insert(p.rows, part(rows, s.grid.prefix * s.dim, length(rows)));
    });
    return patches;
  }

  /// By the method's own composition of the two words; merge_as_released gives the same in steps.
  template <class T>
  std::vector<float> merged_rows(merge_setting const& s, std::vector<T> const& x) {
    md::merge_options options;
    options.threshold = static_cast<float>(t_.parameters().real("threshold")), options.order = md::output_order::score;
    auto similarity = array_of<float>(s.windows()), rows = array_of<float>(s.tokens() * s.dim), sizes = array_of<float>(s.tokens());
    auto source = array_of<std::int32_t>(s.tokens()), keep = array_of<std::int32_t>(s.tokens());
    std::int32_t kept = 0;
    md::token_grid const grid = s.grid;
    aligned_memory scratch(md::method::merge_similar_workspace_size(backend_, s.window, s.tokens(), s.dim, s.windows(), md::segments{}));
    must_be_ok(md::method::merge_similar(
                   backend_, options, s.window, md::view(x.data(), s.tokens(), s.dim), md::segments{}, md::view(&grid, 1),
                   md::tensor_view<std::int32_t const, 1>{}, md::view(similarity.data(), 1, s.windows()),
                   md::view(rows.data(), s.tokens(), s.dim), md::view(sizes.data(), s.tokens()), md::view(source.data(), s.tokens()),
                   md::keep_lists<std::int32_t>{md::view(keep.data(), 1, s.tokens()), md::view(&kept, 1)}, scratch.lend()),
               "merge_similar");
    rows = part(rows, 0, kept * s.dim);
    trial::require_same("merge_similar and its words differ", rows,
                        merge_as_released<float>(backend_, options.threshold, s, x, similarity_of(backend_, s, x, 0, 1))[0].rows);
    return rows;
  }

  integers compare_key_set(index_t patches) {
    golden_case const& c = t_.parameters();
    integers ordered;
    with_real(t_, "cls_attn", [&](auto real) {
      index_t const heads = t_.shape("cls_attn", 2)[0], k = c.whole("k_key", 0, patches);
      auto const map = t_.input<decltype(real)>("cls_attn", {heads, patches});
      auto keep = array_of<std::int64_t>(k);
      std::int32_t count = 0;
      md::cls_topk_options options;
      options.percent = 0, options.prefix = 0, options.order = md::output_order::score;
      aligned_memory scratch(md::cls_topk_workspace_size(backend_, heads, patches, md::segments{}));
      must_be_ok(
          md::cls_topk(backend_, options, md::view(map.data(), heads, patches), md::segments{}, md::tensor_view<std::int32_t const, 1>{},
                       md::keep_lists<std::int64_t>{md::view(keep.data(), 1, k), md::view(&count, 1)}, scratch.lend()),
          "cls_topk");
      ordered = part(keep, 0, count);
      t_.equal("key_set_official_order", ordered, {k});
    });
    return sorted_unique(ordered);
  }

  void compare_variant(prompt const& p, variant const& v) {
    prefilled const left = prefill(p, v);
    std::string const suffix = v.suffix;
    index_t const kept = length(left.ids);
    t_.equal("final_ids" + suffix, left.ids, {kept});
    t_.equal("image_tokens_per_layer" + suffix, tokens_by_layer(p.image.length, model_.layers(), p.prune_after, left.image_counts),
             {model_.layers()});
    std::vector<float> const logits = model_.logits(left.rows);
    t_.close("logits" + suffix + "_official", logits, {kept, model_.vocabulary}, f32_tolerance);
    t_.close("logits" + suffix + "_f64", logits, {kept, model_.vocabulary}, f32_tolerance);

    std::vector<layer_cache_f32> const caches = compare_eviction(p, left, suffix);
    if (v.policy == md::position_policy::kept) {
      t_.close("decode_logits_kept_f64", decode(caches, [&](index_t) { return p.tokens; }), {model_.vocabulary}, f32_tolerance);
      return;
    }
    for (index_t l = 0; l < model_.layers(); ++l) {
      layer_cache_f32 const& cache = caches[at(l)];
      integers const shape = {model_.kv_heads, cache.slots, model_.dim};
      t_.close("K_evicted_l" + std::to_string(l), cache.k, shape, f32_tolerance);
      t_.close("V_evicted_l" + std::to_string(l), cache.v, shape, f32_tolerance);
    }
    // The released code: each layer takes the length of its own cache for the position of the new token.
    std::vector<float> const decoded = decode(caches, [&](index_t l) { return caches[at(l)].slots; });
    t_.close("decode_logits_official", decoded, {model_.vocabulary}, f32_tolerance);
    t_.close("decode_logits_official_f64", decoded, {model_.vocabulary}, f32_tolerance);
  }

  prefilled prefill(prompt const& p, variant const& v) {
    prefilled out;
    out.rows = p.rows, out.ids = counting(p.tokens);
    integers positions = counting(p.tokens), key_set = p.key_set;
    md::run image = p.image;
    for (index_t l = 0; l < model_.layers(); ++l) {
      out.caches.emplace_back();
      std::vector<float> queries;
      model_.run(l, out.rows, positions, out.caches.back(), queries);
      index_t const s = length(out.sequence_keeps);
      if (s == length(p.prune_after) || p.prune_after[at(s)] != l) { continue; }

      index_t const tokens = length(positions);
      integers const keep = mask_image(queries, out.caches.back(), image, key_set), all = whole_sequence(keep, image, tokens);
      key_set = rebased(key_set, keep), image.length = length(keep), out.ids = composed(out.ids, all);
      std::string const name = std::to_string(s) + v.suffix;
      t_.equal("keep_s" + name, keep, {length(keep)});
      t_.equal("key_set_out_s" + name, key_set, {length(key_set)});
      out.rows = gathered(out.rows, tokens, p.hidden, all);
      positions = moved(positions, v.policy, all);
      out.image_counts.push_back(image.length), out.sequence_keeps.push_back(all);
    }
    trial::require(out.sequence_keeps.size() == p.prune_after.size(), "metadata pruning_layers does not ascend");
    return out;
  }

  /// The stage itself: the rows behind the image look at it.
  integers mask_image(std::vector<float> const& queries, layer_cache_f32 const& cache, md::run image, integers const& key_set) {
    index_t const tokens = cache.slots, first = image.begin + image.length, rows = tokens - first, dim = model_.dim;
    std::vector<std::int32_t> limits;
    for (index_t t = first; t < tokens; ++t) { limits.push_back(static_cast<std::int32_t>(t + 1)); }
    md::key_span const span{static_cast<std::int32_t>(image.begin), static_cast<std::int32_t>(first)};
    std::int32_t const offsets[] = {span.begin, span.end};
    md::segments const images{1, offsets, nullptr, 0};
    attended scores(tokens);
    auto keep = array_of<std::int64_t>(tokens);
    std::int32_t kept = 0;
    auto const shielded = static_cast<std::int32_t>(key_set.size());
    md::keep_lists<std::int64_t const> const always{md::view(key_set.data(), 1, key_set.size()), md::view(&shielded, 1)};
    md::attention_options options;
    options.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(dim)));

    aligned_memory scratch(md::method::mask_by_text_workspace_size(backend_, {model_.q_heads, rows, tokens, model_.kv_heads, dim},
                                                                   md::segments{}, md::segments{}, images));
    must_be_ok(md::method::mask_by_text(backend_, options, thresholds_of(t_.parameters()),
                                        md::view(queries.data(), model_.q_heads, tokens, dim).narrow(1, first, rows),
                                        md::view(cache.k.data(), model_.kv_heads, tokens, dim), md::segments{}, md::segments{},
                                        md::view(limits.data(), rows), md::tensor_view<md::key_span const, 1>(md::view(&span, 1)), images,
                                        always, md::tensor_view<std::int32_t const, 1>{}, md::view(scores.sum.data(), tokens),
                                        md::view(scores.max.data(), tokens),
                                        md::keep_lists<std::int64_t>{md::view(keep.data(), 1, tokens), md::view(&kept, 1)}, scratch.lend()),
               "mask_by_text");
    return part(keep, 0, kept);
  }

  doubles gathered(doubles const& rows, index_t tokens, index_t width, integers const& keep) {
    auto const count = static_cast<std::int32_t>(keep.size());
    doubles out = array_of<double>(count * width);
    must_be_ok(md::gather(backend_, md::view(rows.data(), tokens, width), md::segments{},
                          md::keep_lists<std::int64_t const>{md::view(keep.data(), 1, count), md::view(&count, 1)},
                          md::view(out.data(), count, width), md::tensor_view<std::int32_t const, 1>{}),
               "gather");
    return out;
  }

  integers moved(integers const& old, md::position_policy policy, integers const& keep) {
    auto const count = static_cast<std::int32_t>(keep.size());
    integers out = array_of<index_t>(count);
    must_be_ok(md::positions(backend_, policy, md::view(old.data(), old.size()), md::segments{},
                             md::keep_lists<std::int64_t const>{md::view(keep.data(), 1, count), md::view(&count, 1)},
                             md::view(out.data(), count), md::tensor_view<index_t, 1>{}, md::tensor_view<std::int32_t const, 1>{}),
               "positions");
    return out;
  }

  /// The list that each layer's cache keeps: layers up to a stage need every plan from that stage on. Two ways that must agree:
  /// composed plans, and kv_evict on slots that are marked as dropped.
  std::vector<layer_cache_f32> compare_eviction(prompt const& p, prefilled const& left, std::string const& suffix) {
    std::vector<integers> to_final = left.sequence_keeps;
    for (std::size_t s = to_final.size() - 1; s-- > 0;) { to_final[s] = composed(to_final[s], to_final[s + 1]); }
    std::vector<layer_cache_f32> caches = left.caches;
    std::size_t stage = 0;
    for (index_t l = p.prune_after[0]; l <= p.prune_after.back(); ++l) {
      if (l > p.prune_after[stage]) { ++stage; }
      integers const& keep = to_final[stage];
      t_.equal("kv_index_l" + std::to_string(l) + suffix, keep, {length(keep)});
      trial::require_same("kv_evict keeps other slots than the composed plans", survivors(caches[at(l)].slots, keep), keep);
    }
    compact(p, caches, to_final);
    return caches;
  }

  integers survivors(index_t slots, integers const& alive) {
    std::vector<md::slot_kind> kind(at(slots), md::slot_kind::dropped);
    for (index_t const slot : alive) { kind[at(slot)] = slot % 2 == 0 ? md::slot_kind::visual : md::slot_kind::text; }
    auto keep = array_of<std::int64_t>(slots);
    std::int32_t kept = 0;
    aligned_memory scratch(md::kv_evict_workspace_size(backend_, slots, md::segments{}));
    must_be_ok(md::kv_evict(backend_, md::evict_options{}, md::tensor_view<float const, 1>{},
                            md::tensor_view<md::slot_kind const, 1>(md::view(kind.data(), slots)), md::segments{},
                            md::tensor_view<std::int32_t const, 1>{},
                            md::keep_lists<std::int64_t>{md::view(keep.data(), 1, slots), md::view(&kept, 1)}, scratch.lend()),
               "kv_evict");
    return part(keep, 0, kept);
  }

  /// Every pruned layer in one call: layers of the same stage share a list. Layers in front of the first stage are not passed.
  void compact(prompt const& p, std::vector<layer_cache_f32>& caches, std::vector<integers> const& lists) {
    index_t const kept = length(lists[0]), row = model_.dim * static_cast<index_t>(sizeof(float));
    std::vector<std::int64_t> indices;
    for (integers const& list : lists) { indices.insert(indices.end(), list.begin(), list.end()); }
    std::vector<std::int32_t> const counts(lists.size(), static_cast<std::int32_t>(kept));
    std::vector<md::kv_cache> entries;
    index_t stage = 0;
    for (index_t l = p.prune_after[0]; l <= p.prune_after.back(); ++l) {
      if (l > p.prune_after[at(stage)]) { ++stage; }
      layer_cache_f32& cache = caches[at(l)];
      md::kv_cache entry;
      entry.heads = model_.kv_heads, entry.head_stride = cache.slots * row, entry.slot_stride = row, entry.slot_bytes = row;
      entry.first_list = stage;
      for (float* data : {cache.k.data(), cache.v.data()}) { entry.data = data, entries.push_back(entry); }
    }
    must_be_ok(
        md::compact(backend_, md::view(static_cast<md::kv_cache const*>(entries.data()), entries.size()),
                    md::segments{length(lists), nullptr, nullptr, 0},
                    md::keep_lists<std::int64_t const>{md::view(static_cast<std::int64_t const*>(indices.data()), lists.size(), kept),
                                                       md::view(counts.data(), counts.size())}),
        "compact");
    for (index_t l = p.prune_after[0]; l <= p.prune_after.back(); ++l) {
      layer_cache_f32& cache = caches[at(l)];
      cache.k = shortened(cache.k, cache.slots, kept), cache.v = shortened(cache.v, cache.slots, kept), cache.slots = kept;
    }
  }

  std::vector<float> shortened(std::vector<float> const& cache, index_t slots, index_t kept) const {
    std::vector<float> out;
    for (index_t h = 0; h < model_.kv_heads; ++h) {
      auto const first = cache.begin() + h * slots * model_.dim;
      out.insert(out.end(), first, first + kept * model_.dim);
    }
    return out;
  }

  /// One new token; `position_of` says where it sits in each layer.
  template <class PositionOf>
  std::vector<float> decode(std::vector<layer_cache_f32> caches, PositionOf const& position_of) {
    doubles row;
    insert(row, t_.floats("decode_emb", {hidden_}));
    std::vector<float> queries;
    for (index_t l = 0; l < model_.layers(); ++l) { model_.run(l, row, integers{position_of(l)}, caches[at(l)], queries); }
    return model_.logits(row);
  }

  doubles unpruned(prompt const& p) {
    doubles rows = p.rows;
    std::vector<float> queries;
    for (index_t l = 0; l < model_.layers(); ++l) {
      layer_cache_f32 cache;
      model_.run(l, rows, counting(p.tokens), cache, queries);
    }
    return {rows.end() - p.hidden, rows.end()};
  }

  Backend backend_;
  trial& t_;
  index_t hidden_;
  llama model_;
};

struct chain_case {
  template <class Backend>
  void operator()(Backend backend, trial& t) const {
    t.needs({"vision_x0", "cls_attn", "sys_emb", "text_emb", "decode_emb"});
    trial::require(t.shape("sys_emb", 2)[1] > 0, "sys_emb: no hidden dimension");
    chain<Backend>(backend, t).compare();
  }
};

}  // namespace

std::vector<op> chain_ops() {
  return {{"chain", [](golden_case const& c) { return on_every_backend(c, chain_case{}); }}};
}

}  // namespace golden
