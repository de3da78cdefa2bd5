// SPDX-License-Identifier: Apache-2.0
// Stages 2 and 3: between the layers of the language model, and in their caches.
#include "reduction.hpp"

#include <algorithm>
#include <cmath>

#include <mustdrop/cpu/attention_scores.hpp>
#include <mustdrop/cpu/compact.hpp>
#include <mustdrop/cpu/dual_mask.hpp>
#include <mustdrop/cpu/gather.hpp>
#include <mustdrop/cpu/kv_evict.hpp>
#include <mustdrop/cpu/positions.hpp>
#include <mustdrop/method/mustdrop.hpp>
#include <mustdrop/plan.hpp>

#include "buffers.hpp"

namespace llava {

namespace {

using indices = std::vector<std::int32_t>;

md::tensor_view<std::int32_t const, 1> as_list(indices const& list) { return md::view(list.data(), list.size()); }

/// Where each picture's tokens are in the sequence now: they stay neighbours, in order.
std::vector<image_span> spans_now(std::vector<image_span> const& spans, std::vector<image_rows> const& images, sequence const& s) {
  std::vector<image_span> now;
  for (std::size_t i = 0; i < spans.size(); ++i) {
    auto const first = std::lower_bound(s.ids.begin(), s.ids.end(), spans[i].begin);
    now.push_back({static_cast<std::int32_t>(first - s.ids.begin()), static_cast<std::int32_t>(images[i].now.size())});
  }
  return now;
}

/// The dual mask of all pictures in one call: each is a segment of the layer's keys, scored by the rows of the text behind the last one.
keep_memory mask_by_question(computer& on, text_config const& t, reduction const& how, layer_queries const& queries,
                             layer_cache const& cache, std::vector<image_span> const& now, std::vector<image_rows> const& images) {
  md::index_t const length = cache.size(), pictures = static_cast<md::index_t>(now.size());
  indices offsets, counts, key_counts, requested;
  md::index_t longest = 1;
  for (std::size_t i = 0; i < now.size(); ++i) {
    offsets.push_back(now[i].begin), counts.push_back(now[i].rows),
        key_counts.push_back(static_cast<std::int32_t>(images[i].key_now.size()));
    longest = std::max(longest, md::index_t{now[i].rows});
    std::size_t const stage = images[i].plan.stages.size();
    if (stage < images[i].counts.size()) { requested.push_back(images[i].counts[stage]); }
  }
  md::key_span const span{now.front().begin, now.back().begin + now.back().rows};
  offsets.push_back(static_cast<std::int32_t>(length));
  md::segments const segments{pictures, offsets.data(), counts.data(), longest};

  keep_memory protect(pictures, longest), keep(pictures, longest);
  protect.counts = key_counts;
  for (std::size_t i = 0; i < now.size(); ++i) {
    std::copy(images[i].key_now.begin(), images[i].key_now.end(), protect.indices.begin() + static_cast<std::ptrdiff_t>(i) * longest);
  }
  md::index_t const first = span.end, rows = length - first;
  indices limits;
  for (md::index_t r = first; r < length; ++r) { limits.push_back(static_cast<std::int32_t>(r + 1)); }

  std::vector<float> sum(static_cast<std::size_t>(length)), max(sum.size());
  md::attention_options attention;
  attention.scale = 1 / std::sqrt(static_cast<float>(t.head_dim));
  md::dual_mask_options const mask{how.global_threshold, how.individual_threshold, -1};
  md::attention_shape const shape{t.heads, rows, length, t.kv_heads, t.head_dim};
  aligned_buffer scratch(md::method::mask_by_text_workspace_size(on.words, shape, {}, {}, segments));
  check(md::method::mask_by_text(on.words, attention, mask, by_head(queries.q, t.heads).narrow(1, first, rows), cache.keys(), {}, {},
                                 as_list(limits), md::view(&span, 1), segments, protect.lists(), as_list(requested),
                                 md::view(sum.data(), length), md::view(max.data(), length), keep.lists(), scratch.lend()),
        "mask_by_text");
  return keep;
}

/// What a plan file says of this layer, as indices into what is left; a picture that it does not name keeps all.
keep_memory mask_by_plan(int layer, std::vector<image_rows> const& images) {
  md::index_t longest = 1;
  for (auto const& image : images) { longest = std::max(longest, static_cast<md::index_t>(image.now.size())); }
  keep_memory keep(static_cast<md::index_t>(images.size()), longest);
  for (std::size_t i = 0; i < images.size(); ++i) {
    indices const* wanted = &images[i].now;
    for (auto const& stage : images[i].plan.stages) {
      if (stage.layer == layer) { wanted = &stage.keep; }
    }
    md::index_t count = 0;
    auto const row = md::view(keep.indices.data() + static_cast<std::ptrdiff_t>(i) * longest, longest);
    check(md::rebase(as_list(*wanted), as_list(images[i].now), row, count), "rebase");
    keep.counts[i] = static_cast<std::int32_t>(count);
  }
  return keep;
}

/// A picture after a stage: which rows are left, and where its key set is among them.
void shrink(image_rows& image, indices const& keep) {
  indices now(keep.size()), key(image.key_now.size());
  md::index_t rows = 0, keys = 0;
  check(md::compose(as_list(image.now), as_list(keep), md::view(now.data(), now.size()), rows), "compose");
  check(md::rebase(as_list(image.key_now), as_list(keep), md::view(key.data(), key.size()), keys), "rebase");
  key.resize(static_cast<std::size_t>(keys));
  image.now = std::move(now), image.key_now = std::move(key);
}

/// hidden, positions and ids of the rows that stay.
void apply(computer& on, reduction const& how, indices const& keep, sequence& s) {
  auto const count = static_cast<std::int32_t>(keep.size());
  md::keep_lists<std::int32_t const> const lists{md::view(keep.data(), 1, keep.size()), md::view(&count, 1)};
  sequence next{matrix(count, s.hidden.cols()), indices(keep.size()), indices(keep.size())};
  check(md::gather(on.words, md::view(s.hidden.data(), s.hidden.rows(), s.hidden.cols()), {}, lists,
                   md::view(next.hidden.data(), count, s.hidden.cols()), {}),
        "gather");
  auto const policy = how.positions == position_rule::kept ? md::position_policy::kept : md::position_policy::renumbered;
  check(md::positions(on.words, policy, as_list(s.positions), {}, lists, md::view(next.positions.data(), count), {}, {}), "positions");
  check(md::gather(on.words, as_list(s.ids), {}, lists, md::view(next.ids.data(), count), {}), "gather");
  s = std::move(next);
}

/// K and V of several layers follow keep lists 0, 1, …; one call, in place.
void compact_caches(computer& on, std::vector<layer_cache*> const& caches, keep_memory& keep) {
  std::vector<md::kv_cache> entries(2 * caches.size());
  for (std::size_t l = 0; l < caches.size(); ++l) { caches[l]->describe(static_cast<md::index_t>(l), entries[2 * l], entries[2 * l + 1]); }
  md::segments segments;
  segments.count = static_cast<md::index_t>(caches.size());
  check(md::compact(on.words, md::view(entries.data(), entries.size()), segments, keep.lists()), "compact");
  for (std::size_t l = 0; l < caches.size(); ++l) { caches[l]->resize(keep.counts[l]); }
}

template <class T>
std::vector<T> those(std::vector<T> const& from, indices const& keep) {
  std::vector<T> out;
  for (auto const i : keep) { out.push_back(from[static_cast<std::size_t>(i)]); }
  return out;
}

/// What the slots of one layer hold: image tokens that did not survive the prefill are dropped.
std::vector<md::slot_kind> kinds_of(indices const& ids, std::vector<image_span> const& spans, std::vector<image_rows> const& images) {
  std::vector<md::slot_kind> kinds(ids.size(), md::slot_kind::text);
  for (std::size_t slot = 0; slot < ids.size(); ++slot) {
    for (std::size_t i = 0; i < spans.size(); ++i) {
      std::int32_t const row = ids[slot] - spans[i].begin;
      if (row < 0 || row >= spans[i].rows) { continue; }
      auto const& now = images[i].now;
      auto const at = std::lower_bound(now.begin(), now.end(), row);
      bool const stays = at != now.end() && *at == row;
      bool const key =
          stays && std::binary_search(images[i].key_now.begin(), images[i].key_now.end(), static_cast<std::int32_t>(at - now.begin()));
      kinds[slot] = !stays ? md::slot_kind::dropped : key ? md::slot_kind::key_set : md::slot_kind::visual;
    }
  }
  return kinds;
}

}  // namespace

void drop_after_layer(computer& on, text_config const& t, reduction const& how, int layer, bool given, layer_queries const& queries,
                      layer_cache const& cache, std::vector<image_span> const& spans, std::vector<image_rows>& images, sequence& s) {
  stopwatch const time(on.reduction_ms);
  auto const now = spans_now(spans, images, s);
  keep_memory const keep = given ? mask_by_plan(layer, images) : mask_by_question(on, t, how, queries, cache, now, images);
  indices rows;
  std::int32_t begin = 0;
  auto const text_until = [&](std::int32_t end) {
    for (; begin < end; ++begin) { rows.push_back(begin); }
  };
  for (std::size_t i = 0; i < images.size(); ++i) {
    text_until(now[i].begin);
    indices const list = keep.list(i);
    for (auto const row : list) { rows.push_back(begin + row); }
    begin += now[i].rows;
    shrink(images[i], list);
    if (!given) { images[i].plan.stages.push_back({layer, images[i].now}); }
  }
  text_until(static_cast<std::int32_t>(s.ids.size()));
  apply(on, how, rows, s);
}

std::vector<std::vector<md::slot_kind>> evict_after_prefill(computer& on, reduction const& how, std::vector<image_span> const& spans,
                                                            std::vector<image_rows> const& images, std::vector<layer_cache>& caches,
                                                            std::vector<std::vector<std::int32_t>>& ids) {
  stopwatch const time(on.reduction_ms);
  std::vector<std::vector<md::slot_kind>> kinds;
  kinds.reserve(ids.size());
  for (auto const& layer : ids) { kinds.push_back(kinds_of(layer, spans, images)); }
  std::vector<layer_cache*> pruned;
  std::vector<md::slot_kind> all;
  indices offsets{0};
  md::index_t longest = 0;
  auto const first = static_cast<std::size_t>(how.kv_first_layer);
  for (std::size_t l = first; l < caches.size(); ++l) {
    pruned.push_back(&caches[l]);
    all.insert(all.end(), kinds[l].begin(), kinds[l].end());
    offsets.push_back(static_cast<std::int32_t>(all.size()));
    longest = std::max(longest, caches[l].size());
  }
  if (pruned.empty()) { return kinds; }
  md::evict_options options;  // what output_aware evicts, it evicts in decode
  if (how.kv_policy == md::evict_policy::key_set_only) { options.policy = md::evict_policy::key_set_only; }
  md::segments const layers{static_cast<md::index_t>(pruned.size()), offsets.data(), nullptr, longest};
  keep_memory keep(layers.count, longest);
  auto const slots = static_cast<md::index_t>(all.size());
  aligned_buffer scratch(md::kv_evict_workspace_size(on.words, slots, layers));
  check(md::kv_evict(on.words, options, {}, md::view(all.data(), slots), layers, {}, keep.lists(), scratch.lend()), "kv_evict");
  compact_caches(on, pruned, keep);
  for (std::size_t l = first; l < caches.size(); ++l) {
    ids[l] = those(ids[l], keep.list(l - first)), kinds[l] = those(kinds[l], keep.list(l - first));
  }
  return kinds;
}

void evict_in_decode(computer& on, text_config const& t, reduction const& how, layer_queries const& queries, layer_cache& cache,
                     std::vector<md::slot_kind>& kinds, std::vector<float>& scores) {
  stopwatch const time(on.reduction_ms);
  md::index_t const slots = cache.size(), rows = queries.q.rows();
  kinds.resize(static_cast<std::size_t>(slots), md::slot_kind::text), scores.resize(kinds.size());
  std::vector<float> max(kinds.size());
  indices limits;
  for (md::index_t r = 0; r < rows; ++r) { limits.push_back(static_cast<std::int32_t>(slots - rows + r + 1)); }
  md::attention_options attention;
  attention.scale = 1 / std::sqrt(static_cast<float>(t.head_dim));
  aligned_buffer scratch(md::attention_scores_workspace_size(on.words, {t.heads, rows, slots, t.kv_heads, t.head_dim}, {}, {}));
  check(md::attention_scores(on.words, attention, by_head(queries.q, t.heads), cache.keys(), {}, {}, as_list(limits), {}, {},
                             md::view(scores.data(), slots), md::view(max.data(), slots), {}, scratch.lend()),
        "attention_scores");
  if (slots <= how.kv_budget) { return; }
  md::evict_options options;
  options.policy = md::evict_policy::output_aware;
  options.budget = how.kv_budget, options.sinks = how.kv_sinks, options.recent = how.kv_recent;
  keep_memory keep(1, slots);
  scratch.grow(md::kv_evict_workspace_size(on.words, slots, {}));
  check(
      md::kv_evict(on.words, options, md::view(scores.data(), slots), md::view(kinds.data(), slots), {}, {}, keep.lists(), scratch.lend()),
      "kv_evict");
  compact_caches(on, {&cache}, keep);
  kinds = those(kinds, keep.list(0)), scores = those(scores, keep.list(0));
}

}  // namespace llava
