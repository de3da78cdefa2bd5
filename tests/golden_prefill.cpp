// SPDX-License-Identifier: Apache-2.0

// dual_mask, stage_compose, text_scores.

#include <cmath>

#include "golden_plan.hpp"

namespace golden {
namespace {

/// The text rows' map [heads, rows, image]: read at once, and row by row, which must give the same bits.
template <class Backend, class T>
attended read_map(Backend backend, std::vector<T> const& map, integers const& shape) {
  index_t const heads = shape[0], rows = shape[1], keys = shape[2];
  auto const view = md::view(map.data(), heads, rows, keys);
  auto const add = [&](md::tensor_view<T const, 3> part_of_rows, attended& scores) {
    aligned_memory scratch(
        md::attention_scores_workspace_size(backend, {heads, part_of_rows.size(1), keys, 0, 0}, md::segments{}, md::segments{}));
    must_be_ok(md::attention_scores(backend, md::attention_options{}, part_of_rows, md::segments{}, md::segments{},
                                    md::tensor_view<std::int32_t const, 1>{}, md::tensor_view<md::key_span const, 1>{},
                                    md::view(scores.sum.data(), keys), md::view(scores.max.data(), keys), md::tensor_view<float, 2>{},
                                    scratch.lend()),
               "attention_scores");
  };
  attended whole(keys), row_by_row(keys);
  add(view, whole);
  for (index_t t = 0; t < rows; ++t) { add(view.narrow(1, t, 1), row_by_row); }
  trial::require_same("attention_scores: sum of all rows and row by row differ", whole.sum, row_by_row.sum);
  trial::require_same("attention_scores: max of all rows and row by row differ", whole.max, row_by_row.max);
  return whole;
}

struct dual_mask_case {
  template <class Backend>
  void operator()(Backend backend, trial& t) const {
    t.needs({"attn_text", "key_set", "keep"});
    golden_case const& c = t.parameters();
    integers const shape = t.shape("attn_text", 3);
    c.agrees("heads", shape[0]), c.agrees("text_rows", shape[1]), c.agrees("img_len", shape[2]);
    with_real(t, "attn_text", [&](auto real) {
      using T = decltype(real);
      compare(backend, t, read_map(backend, t.input<T>("attn_text", shape), shape), weights(tolerance_of<T>));
    });
  }

  template <class Backend>
  void compare(Backend backend, trial& t, attended const& scores, tolerance allowed) const {
    index_t const tokens = length(scores.sum);
    t.close("S", scores.sum, {tokens}, allowed);
    t.close("M", scores.max, {tokens}, allowed);
    t.close("S_f64", scores.sum, {tokens}, weights(f32_tolerance));
    t.close("M_f64", scores.max, {tokens}, weights(f32_tolerance));

    md::dual_mask_options const options = thresholds_of(t.parameters());
    integers const key_set = sorted_unique(t.indices("key_set", {-1}, tokens));
    integers const filtered = mask_both_ways(backend, options, scores, {}), keep = mask_both_ways(backend, options, scores, key_set);
    t.equal("keep_filter", filtered, {length(filtered)});
    t.equal("keep", keep, {length(keep)});
    integers const key_set_after = rebased(key_set, keep);
    t.equal("key_set_rebased", key_set_after, {length(key_set_after)});
  }
};

/// Stages of a prefill without the model: maps and key set are given, what is composed of their plans is compared.
struct stage_compose_case {
  template <class Backend>
  void operator()(Backend backend, trial& t) const {
    t.needs({"key_set", "attn_text_s0", "final_ids"});
    golden_case const& c = t.parameters();
    integers const first = t.shape("attn_text_s0", 3), prune_after = c.list("pruning_layers");
    index_t const stages = c.whole_or("stages", length(prune_after), 1, 4096), tokens = c.whole_or("img_seq", first[2], 0, md::most_tokens);
    index_t const before = c.whole("v_start", 0, 1 << 20), sequence = before + tokens + c.whole_or("text_len", first[1], 0, 1 << 20);
    trial::require(stages == length(prune_after), "metadata stages is not the number of pruning_layers");
    trial::require(tokens == first[2], "attn_text_s0: another number of image tokens than img_seq");

    std::vector<integers> sequence_keeps;
    integers image_ids = counting(tokens), sequence_ids = counting(sequence), left;
    integers key_set = sorted_unique(t.indices("key_set", {-1}, tokens));
    for (index_t s = 0; s < stages; ++s) {
      auto const named = [s](char const* name) { return name + std::to_string(s); };
      auto const equal = [&](char const* name, integers const& list) { t.equal(named(name), list, {length(list)}); };
      if (t.has(named("key_set_in_s"))) {  // the first one is as unsorted as key_set
        integers const given = sorted_unique(t.indices(named("key_set_in_s"), {-1}, length(image_ids)));
        trial::require_same(named("key_set_in_s") + ": is not the key set that the stage before left", given, key_set);
      }
      integers const keep = stage(backend, t, named("attn_text_s"), length(image_ids), key_set);
      md::run const image{before, length(image_ids)};
      sequence_keeps.push_back(whole_sequence(keep, image, length(sequence_ids)));
      image_ids = composed(image_ids, keep), sequence_ids = composed(sequence_ids, sequence_keeps.back());
      key_set = rebased(key_set, keep), left.push_back(length(keep));
      equal("keep_s", keep), equal("seq_keep_s", sequence_keeps.back()), equal("key_set_out_s", key_set);
      equal("seq_ids_s", sequence_ids), equal("survivors_s", image_ids);
    }

    integers to_final = sequence_keeps.back();
    for (index_t s = stages; s-- > 0;) {
      if (s < stages - 1) { to_final = composed(sequence_keeps[at(s)], to_final); }
      t.equal("final_index_s" + std::to_string(s), to_final, {length(to_final)});
    }
    trial::require_same("compose: from the front and from the back differ", to_final, sequence_ids);
    t.equal("final_ids", sequence_ids, {length(sequence_ids)});
    compare_layers(t, tokens, sequence, length(sequence_ids), prune_after, left);
  }

  template <class Backend>
  integers stage(Backend backend, trial& t, std::string const& name, index_t tokens, integers const& key_set) const {
    integers const shape = t.shape(name, 3);
    t.parameters().agrees("heads", shape[0]);
    trial::require(shape[2] == tokens,
                   name + ": has " + std::to_string(shape[2]) + " image tokens, " + std::to_string(tokens) + " are left");
    integers keep;
    with_real(t, name, [&](auto real) {
      keep =
          mask_both_ways(backend, thresholds_of(t.parameters()), read_map(backend, t.input<decltype(real)>(name, shape), shape), key_set);
    });
    return keep;
  }

  static void compare_layers(trial& t, index_t tokens, index_t sequence, index_t last, integers const& prune_after, integers const& left) {
    golden_case const& c = t.parameters();
    index_t const layers = c.whole_or("n_layers", 32, 1, 1 << 16), full = c.whole_or("first_pruned", prune_after[0], 0, layers);
    integers lengths;  // layers in front of the first stage are not evicted
    for (index_t l = 0; l < layers; ++l) { lengths.push_back(l < full ? sequence : last); }
    t.equal("kv_len", lengths, {layers});
    integers const trace = tokens_by_layer(tokens, layers, prune_after, left);
    t.equal("image_tokens_per_layer", trace, {layers});
    if (c.says("average_image_tokens") && !c.informative()) {
      auto const counted = cast<std::int32_t>(trace);
      trial::require(std::fabs(md::average(md::view(counted.data(), layers)) - c.real("average_image_tokens")) < 1e-9,
                     "metadata average_image_tokens is not the average of the layers");
    }
  }
};

struct text_scores_case {
  template <class Backend>
  void operator()(Backend backend, trial& t) const {
    t.needs({"q_text", "k", "S", "M"});
    with_real(t, "q_text", [&](auto q) { with_real(t, "k", [&](auto k) { compare<decltype(q), decltype(k)>(backend, t); }); });
  }

  template <class Q, class K, class Backend>
  void compare(Backend backend, trial& t) const {
    golden_case const& c = t.parameters();
    integers const q = t.shape("q_text", 3), k = t.shape("k", 3);
    c.agrees("q_heads", q[0]), c.agrees("text_rows", q[1]), c.agrees("head_dim", q[2]), c.agrees("kv_heads", k[0]),
        c.agrees("length", k[1]);
    index_t const rows = q[1], keys = k[1];
    index_t const begin = c.whole("v_start", 0, keys), image = c.whole("img_len", 0, keys - begin);
    bool const causal = c.whole_or("causal", 1, 0, 1) == 1;
    trial::require(rows <= keys, "q_text: more rows than keys");
    auto const queries = t.input<Q>("q_text", q);
    auto const cached = t.input<K>("k", k);

    text_rows<Q, K> form{md::view(queries.data(), q[0], rows, q[2]), md::view(cached.data(), k[0], keys, k[2]), {}, {}, {}};
    form.options.scale = static_cast<float>(c.real("scale"));
    for (index_t row = 0; causal && row < rows; ++row) { form.limits.push_back(static_cast<std::int32_t>(keys - rows + row + 1)); }
    compare_form(backend, t, form, begin, image, "");
    if (!t.has("lse")) { return; }
    form.lse = t.floats("lse", {q[0], rows});
    compare_form(backend, t, form, begin, image, "with lse");
    for (float& value : form.lse) { value = static_cast<float>(static_cast<double>(value) * 1.4426950408889634); }
    form.options.lse_base = md::log_base::two;
    compare_form(backend, t, form, begin, image, "with lse of base 2");
  }

  template <class Q, class K>
  struct text_rows {
    md::tensor_view<Q const, 3> queries;
    md::tensor_view<K const, 3> keys;
    md::attention_options options;
    std::vector<std::int32_t> limits;  // {}: every row sees all
    std::vector<float> lse;            // {}: a softmax

    /// Rows [first, first + count); only `span` of the keys if it is not empty.
    template <class Backend>
    void add(Backend backend, attended& scores, index_t first, index_t count, md::key_span span) const {
      index_t const n = keys.size(1);
      auto const limited = limits.empty() ? md::tensor_view<std::int32_t const, 1>{} : md::view(limits.data() + first, count);
      auto logs = md::tensor_view<float const, 2>{};
      if (!lse.empty()) { logs = md::view(lse.data(), queries.size(0), queries.size(1)).narrow(1, first, count); }
      auto const spans = span.end > 0 ? md::view(&span, 1) : md::tensor_view<md::key_span, 1>{};
      aligned_memory scratch(md::attention_scores_workspace_size(backend, {queries.size(0), count, n, keys.size(0), queries.size(2)},
                                                                 md::segments{}, md::segments{}));
      must_be_ok(md::attention_scores(backend, options, queries.narrow(1, first, count), keys, md::segments{}, md::segments{}, limited,
                                      logs, spans, md::view(scores.sum.data(), n), md::view(scores.max.data(), n),
                                      md::tensor_view<float, 2>{}, scratch.lend()),
                 "attention_scores");
    }
  };

  template <class Backend, class Q, class K>
  void compare_form(Backend backend, trial& t, text_rows<Q, K> const& form, index_t begin, index_t image, std::string const& what) const {
    index_t const rows = form.queries.size(1), keys = form.keys.size(1), end = begin + image;
    attended whole(keys), chunks(keys), spanned(keys);
    form.add(backend, whole, 0, rows, {});
    for (index_t row = 0, chunk = 1; row < rows; row += chunk, chunk = std::min(chunk + 1, rows - row)) {  // 1, 2, 3, … rows
      form.add(backend, chunks, row, chunk, {});
    }
    trial::require_same("attention_scores " + what + ": sum of all rows and of chunks differ", whole.sum, chunks.sum);
    trial::require_same("attention_scores " + what + ": max of all rows and of chunks differ", whole.max, chunks.max);
    attended const inside = cut(whole, begin, end);
    if (image > 0) {
      form.add(backend, spanned, 0, rows, {static_cast<std::int32_t>(begin), static_cast<std::int32_t>(end)});
      trial::require_same("attention_scores " + what + ": sum with and without a span differ", inside.sum, cut(spanned, begin, end).sum);
      trial::require_same("attention_scores " + what + ": max with and without a span differ", inside.max, cut(spanned, begin, end).max);
    }
    // Logits of half inputs are exact products of them: the softmax is as good as that of f32 inputs, the official one is not.
    tolerance const allowed = std::is_same_v<Q, float> && std::is_same_v<K, float> ? f32_tolerance : tolerance_of<Q>;
    t.close("S", inside.sum, {image}, weights(allowed));
    t.close("M", inside.max, {image}, weights(allowed));
    t.close("S_f64", inside.sum, {image}, weights(f32_tolerance));
    t.close("M_f64", inside.max, {image}, weights(f32_tolerance));
  }

  static attended cut(attended const& scores, index_t begin, index_t end) {
    attended out(0);
    out.sum = part(scores.sum, begin, end), out.max = part(scores.max, begin, end);
    return out;
  }
};

}  // namespace

std::vector<op> prefill_ops() {
  return {{"dual_mask", [](golden_case const& c) { return on_every_backend(c, dual_mask_case{}); }},
          {"stage_compose", [](golden_case const& c) { return on_every_backend(c, stage_compose_case{}); }},
          {"text_scores", [](golden_case const& c) { return on_every_backend(c, text_scores_case{}); }}};
}

}  // namespace golden
