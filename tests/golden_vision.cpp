// SPDX-License-Identifier: Apache-2.0

// window_merge, cls_topk, fastervlm, key_count.

#include <cmath>

#include "golden_merge.hpp"

namespace golden {
namespace {

/// The merged rows of one sample as the case has them: [prefix, windows in some order, tokens that stay alone].
struct released_layout {
  integers windows, unmerged, row_of;  // row_of: where our row stands there
};

template <class Row>
released_layout layout_of(merge_setting const& s, merged_sample<Row> const& sample) {
  released_layout out;
  index_t const r = sample.merged_windows(s);
  for (index_t row = s.grid.prefix; row < sample.kept(); ++row) {
    index_t const token = sample.keep[at(row)];
    if (row < s.grid.prefix + r) {
      out.windows.push_back(md::window_of(s.grid, s.window, token));
    } else {
      out.unmerged.push_back(token - s.grid.prefix);
    }
  }
  out.row_of = counting(sample.kept());
  return out;
}

/// Half arithmetic gives the same windows in an order of its own: our merged rows are then looked for in that order.
void follow(released_layout& layout, index_t prefix, integers const& windows) {
  for (std::size_t i = 0; i < layout.windows.size(); ++i) {
    auto const place = std::find(windows.begin(), windows.end(), layout.windows[i]);
    layout.row_of[at(prefix) + i] = prefix + (place - windows.begin());
  }
  layout.windows = windows;
}

/// The patch rows of a layout, sorted by their smallest (or largest) member.
integers by_member(merge_setting const& s, integers const& source, index_t kept, bool smallest) {
  integers member(at(kept), -1);
  for (index_t token = s.tokens(); token-- > 0;) {
    index_t& m = member[at(source[at(token)])];
    m = smallest || m < 0 ? token : m;
  }
  integers rows = counting(kept - s.grid.prefix);
  auto const of = [&](index_t row) { return member[at(row + s.grid.prefix)]; };
  std::sort(rows.begin(), rows.end(), [&](index_t a, index_t b) { return of(a) < of(b); });
  return rows;
}

template <class T>
void append(std::vector<T>& all, std::vector<T> const& more) {
  all.insert(all.end(), more.begin(), more.end());
}

constexpr char const* layout_tensors[] = {"windows_official",    "windows_ascending", "unmerged", "y", "size", "prov",
                                          "raster_anchor_first", "raster_anchor_last"};

/// Compares samples that merged equally many windows with the tensors `prefix`*, whose first axes are `leading`.
template <class Row>
void compare_layout(trial& t, std::string const& prefix, merge_setting const& s, std::vector<merged_sample<Row>> const& samples,
                    integers const& leading, tolerance allowed, bool order_is_ours) {
  index_t const r = samples[0].merged_windows(s), kept = samples[0].kept();
  auto const shape = [&](std::initializer_list<index_t> rest) {
    integers all = leading;
    append(all, integers(rest));
    return all;
  };
  std::vector<released_layout> layouts;
  integers windows, ascending, unmerged, source, first, last;
  for (auto const& sample : samples) {
    layouts.push_back(layout_of(s, sample));
    append(windows, layouts.back().windows), append(ascending, sorted_unique(layouts.back().windows));
    append(unmerged, layouts.back().unmerged);
  }
  if (order_is_ours) {
    t.equal(prefix + "windows_official", windows, shape({r}));
  } else {
    t.equal_sets(prefix + "windows_official", ascending, shape({r}));
    if (t.has(prefix + "windows_official") && !t.parameters().informative()) {
      integers const theirs = t.indices(prefix + "windows_official", shape({r}), s.windows());
      for (index_t b = 0; b < length(layouts); ++b) { follow(layouts[at(b)], s.grid.prefix, part(theirs, b * r, (b + 1) * r)); }
    }
  }
  t.equal(prefix + "windows_ascending", ascending, shape({r}));
  t.equal(prefix + "unmerged", unmerged, shape({s.grid.patches() - r * s.window.tokens()}));

  auto rows = array_of<float>(length(samples) * kept * s.dim), sizes = array_of<float>(length(samples) * kept);
  for (index_t b = 0; b < length(samples); ++b) {
    integers const& row_of = layouts[at(b)].row_of;
    for (index_t row = 0; row < kept; ++row) {
      index_t const to = b * kept + row_of[at(row)];
      sizes[at(to)] = samples[at(b)].sizes[at(row)];
      for (index_t d = 0; d < s.dim; ++d) { rows[at(to * s.dim + d)] = md::widen(samples[at(b)].rows[at(row * s.dim + d)]); }
    }
    integers sample_source;
    for (index_t const row : samples[at(b)].source) { sample_source.push_back(row_of[at(row)]); }
    append(source, sample_source);
    append(first, by_member(s, sample_source, kept, true)), append(last, by_member(s, sample_source, kept, false));
  }
  t.close(prefix + "y", rows, shape({kept, s.dim}), allowed);
  t.close(prefix + "size", sizes, shape({kept, 1}), {0, 0});
  t.equal(prefix + "prov", source, shape({s.tokens()}));
  t.equal(prefix + "raster_anchor_first", first, shape({kept - s.grid.prefix}));
  t.equal(prefix + "raster_anchor_last", last, shape({kept - s.grid.prefix}));
}

/// Our default order, derived from the provenance of the released one: rows by the middle member of their window.
template <class Row>
void require_anchor_order(merge_setting const& s, merged_sample<Row> const& released, merged_sample<Row> const& ours) {
  std::vector<integers> members(at(released.kept()));
  for (index_t token = 0; token < s.tokens(); ++token) { members[at(released.source[at(token)])].push_back(token); }
  integers anchors;
  for (integers const& row : members) {
    bool const merged = length(row) == s.window.tokens();
    trial::require(merged || row.size() == 1, "window_merge: source gives a row a number of tokens that is neither 1 nor a window's");
    anchors.push_back(row[at(merged ? (s.window.rows - 1) / 2 * s.window.cols + (s.window.cols - 1) / 2 : 0)]);
  }
  integers const ordered = sorted_unique(anchors);
  merged_sample<Row> wanted{array_of<Row>(length(released.rows)), array_of<float>(released.kept()), released.source, ordered};
  integers rank;
  for (index_t const anchor : anchors) { rank.push_back(std::lower_bound(ordered.begin(), ordered.end(), anchor) - ordered.begin()); }
  for (index_t row = 0; row < released.kept(); ++row) {
    index_t const to = rank[at(row)];
    wanted.sizes[at(to)] = released.sizes[at(row)];
    for (index_t d = 0; d < s.dim; ++d) { wanted.rows[at(to * s.dim + d)] = released.rows[at(row * s.dim + d)]; }
  }
  for (index_t& row : wanted.source) { row = rank[at(row)]; }
  require_same_merge("window_merge in order of position", ours, wanted);
}

template <class Backend, class T>
void compare_merge(Backend backend, trial& t, merge_setting const& s, std::vector<T> const& x) {
  constexpr bool whole = std::is_same_v<T, float>;
  golden_case const& c = t.parameters();
  std::vector<float> const similarity = similarity_of(backend, s, x, 0, s.batch);
  for (index_t b = 0; b < s.batch; ++b) {
    trial::require_same("window_similarity: a sample alone and in a batch differ", similarity_of(backend, s, x, b, 1),
                        part(similarity, b * s.windows(), (b + 1) * s.windows()));
  }
  integers const by_window = {s.batch, s.windows()};
  t.close("scores", similarity, by_window, tolerance_of<T>);
  t.close("scores_f64", similarity, by_window, f32_tolerance);
  t.close("f32acc_scores", similarity, by_window, f32_tolerance);

  bool const fixed = c.says("fixed_r");
  float const threshold = fixed ? 0.0f : static_cast<float>(c.real("threshold"));
  std::vector<std::int32_t> own(at(s.batch),
                                static_cast<std::int32_t>(fixed ? std::min(c.whole("fixed_r", 0, md::most_tokens), s.windows()) : 0));
  if (!fixed) { own = counts_by_threshold(backend, threshold, s, x, similarity); }
  std::vector<std::int32_t> const shared(at(s.batch), *std::min_element(own.begin(), own.end()));

  // Where half arithmetic counts other windows than exact arithmetic, only the f32acc_ tensors can be asked for.
  bool const theirs_differs = !whole && c.says("r_half_differs") && c.text("r_half_differs") == "1";
  if (theirs_differs) {
    t.unrequired("r_batch"), t.unrequired("r_sample");
  } else {
    t.equal("r_batch", {shared[0]}, {1});
    t.equal("r_sample", cast<index_t>(own), {s.batch});
  }
  t.equal("r_f32acc", {shared[0]}, {1});

  auto const released = merge_counts<T>(backend, md::output_order::score, s, x, similarity, shared);
  auto const exact = merge_counts<float>(backend, md::output_order::score, s, x, similarity, shared);
  auto const by_place = merge_counts<float>(backend, md::output_order::position, s, x, similarity, shared);
  for (std::size_t b = 0; b < exact.size(); ++b) { require_anchor_order(s, exact[b], by_place[b]); }
  compare_layout(t, "f32acc_", s, exact, {s.batch}, f32_tolerance, true);
  if (!theirs_differs) { compare_layout(t, "", s, released, {s.batch}, tolerance_of<T>, whole); }

  for (index_t b = 0; b < s.batch; ++b) {  // each sample with its own threshold's count
    md::merge_options options;
    options.threshold = threshold, options.order = md::output_order::score;
    options.count = fixed ? own[at(b)] : -1;
    std::string const prefix = "s" + std::to_string(b) + "_";
    if (theirs_differs) {
      for (char const* name : layout_tensors) { t.unrequired(name), t.unrequired(prefix + name); }
    } else {
      compare_layout(t, prefix, s, merge<T>(backend, options, s, x, similarity, b, 1, {}), {}, tolerance_of<T>, whole);
    }
  }
}

struct window_merge_case {
  template <class Backend>
  void operator()(Backend backend, trial& t) const {
    t.needs({"x", "scores", "r_batch"});
    merge_setting const s = setting_of(t, "x");
    with_real(t, "x", [&](auto real) { compare_merge(backend, t, s, t.input<decltype(real)>("x", {s.batch, s.tokens(), s.dim})); });
  }
};

/// Keep lists of a batch, each of `capacity` indices, all of which must be used.
struct batch_lists {
  index_t batch, capacity;
  std::vector<std::int64_t> indices;
  std::vector<std::int32_t> counts;

  batch_lists(index_t batch_size, index_t list) : batch(batch_size), capacity(list), indices(at(batch * list + 1)), counts(at(batch)) {}
  md::keep_lists<std::int64_t> lists() { return {md::view(indices.data(), batch, capacity), md::view(counts.data(), batch)}; }
  integers full() const {
    for (std::int32_t const count : counts) { trial::require(count == capacity, "a keep list is shorter than what was asked for"); }
    return part(indices, 0, batch * capacity);
  }
};

std::vector<std::int32_t> offsets_of(index_t count, index_t step, index_t last) {
  std::vector<std::int32_t> offsets;
  for (index_t b = 0; b < count; ++b) { offsets.push_back(static_cast<std::int32_t>(b * step)); }
  offsets.push_back(static_cast<std::int32_t>(last));
  return offsets;
}

/// The mean over heads by attention_scores (a map of one row for each image), then top_k.
template <class Backend, class T>
std::vector<float> head_means(Backend backend, std::vector<T> const& map, index_t batch, index_t heads, index_t patches) {
  auto const rows = offsets_of(batch, 1, batch), keys = offsets_of(batch, patches, batch * patches);
  md::segments const row_segments{batch, rows.data(), nullptr, 1}, key_segments{batch, keys.data(), nullptr, patches};
  auto sum = array_of<float>(batch * patches), max = array_of<float>(batch * patches);
  md::tensor_view<T const, 3> const view{map.data(), {heads, batch, patches}, {patches, heads * patches, 1}};
  aligned_memory scratch(md::attention_scores_workspace_size(backend, {heads, batch, batch * patches, 0, 0}, row_segments, key_segments));
  must_be_ok(
      md::attention_scores(backend, md::attention_options{}, view, row_segments, key_segments, md::tensor_view<std::int32_t const, 1>{},
                           md::tensor_view<md::key_span const, 1>{}, md::view(sum.data(), batch * patches),
                           md::view(max.data(), batch * patches), md::tensor_view<float, 2>{}, scratch.lend()),
      "attention_scores");
  trial::require_same("attention_scores: sum and max of a single row differ", sum, max);
  return sum;
}

template <class Backend>
integers best(Backend backend, md::output_order order, std::vector<float> const& scores, index_t batch, index_t patches, index_t k) {
  auto const offsets = offsets_of(batch, patches, batch * patches);
  md::segments const segments{batch, offsets.data(), nullptr, patches};
  batch_lists keep(batch, k);
  aligned_memory scratch(md::top_k_workspace_size(backend, batch * patches, segments));
  must_be_ok(md::top_k(backend, md::top_k_options{order}, md::view(scores.data(), batch * patches), segments,
                       md::tensor_view<std::int32_t const, 1>{}, keep.lists(), scratch.lend()),
             "top_k");
  return keep.full();
}

/// The key set by cls_topk itself, from [batch, heads, patches] as it lies. `percent` 0: k is requested.
template <class Backend, class T>
integers key_set(Backend backend, md::output_order order, std::vector<T> const& map, index_t batch, index_t heads, index_t patches,
                 index_t k, index_t percent) {
  index_t const tokens = (batch - 1) * heads * patches + patches;
  auto const offsets = offsets_of(batch, heads * patches, tokens);
  std::vector<std::int32_t> const counts(at(batch), static_cast<std::int32_t>(patches)), requested(at(batch), static_cast<std::int32_t>(k));
  md::segments const segments{batch, offsets.data(), counts.data(), patches};
  md::tensor_view<T const, 2> const view{map.data(), {heads, tokens}, {patches, 1}};
  md::cls_topk_options options;
  options.percent = percent, options.prefix = 0, options.order = order;
  batch_lists keep(batch, k);
  aligned_memory scratch(md::cls_topk_workspace_size(backend, heads, tokens, segments));
  must_be_ok(md::cls_topk(backend, options, view, segments,
                          percent == 0 ? md::view(requested.data(), batch) : md::tensor_view<std::int32_t const, 1>{}, keep.lists(),
                          scratch.lend()),
             "cls_topk");
  return keep.full();
}

/// A share that is a whole number of percent; 0: it is none.
index_t whole_percent(double share) {
  double const percent = std::round(share * 100);
  return std::fabs(share * 100 - percent) < 1e-9 && percent >= 1 && percent <= 100 ? static_cast<index_t>(percent) : 0;
}

template <class Backend, class T>
void compare_key_set(Backend backend, trial& t, std::vector<T> const& map, integers const& shape) {
  golden_case const& c = t.parameters();
  index_t const batch = shape[0], heads = shape[1], patches = shape[2], k = c.whole("k", 0, patches);
  std::vector<float> const scores = head_means(backend, map, batch, heads, patches);
  t.close("scores", scores, {batch, patches}, weights(tolerance_of<T>));

  integers const ascending = key_set(backend, md::output_order::position, map, batch, heads, patches, k, 0);
  integers const ordered = key_set(backend, md::output_order::score, map, batch, heads, patches, k, 0);
  trial::require_same("top_k of head means gives another key set than cls_topk", ascending,
                      best(backend, md::output_order::position, scores, batch, patches, k));
  trial::require_same("top_k of head means gives another order than cls_topk", ordered,
                      best(backend, md::output_order::score, scores, batch, patches, k));
  if (index_t const percent = c.says("keep_rate") ? whole_percent(c.real("keep_rate")) : 0; percent > 0) {
    trial::require(md::key_set_size(patches, percent) == k, "key_set_size is " + std::to_string(md::key_set_size(patches, percent)));
    trial::require_same("cls_topk by percent and by request differ", ascending,
                        key_set(backend, md::output_order::position, map, batch, heads, patches, k, percent));
  }

  t.equal("expected_ascending", ascending, {batch, k});
  if (std::is_same_v<T, float>) {
    t.equal("expected_order_official", ordered, {batch, k});
  } else {  // half arithmetic has ties and an order of its own
    t.equal_sets("expected_order_official", ascending, {batch, k});
    t.equal_sets("expected_order_official_half", ascending, {batch, k});
  }
}

/// The merge in front of the key set, where a case has it.
template <class Backend>
void compare_merged(Backend backend, trial& t, index_t patches) {
  merge_setting const s = setting_of(t, "x_layer0");
  with_real(t, "x_layer0", [&](auto real) {
    using T = decltype(real);
    auto const x = t.input<T>("x_layer0", {s.batch, s.tokens(), s.dim});
    auto const samples =
        merge_as_released<T>(backend, static_cast<float>(t.parameters().real("threshold")), s, x, similarity_of(backend, s, x, 0, s.batch));
    std::vector<float> rows;
    for (auto const& sample : samples) { append(rows, widened(sample.rows)); }
    trial::require(samples[0].kept() == s.grid.prefix + patches, "merged: another number of tokens than cls_attn has");
    t.close("merged", rows, {s.batch, s.grid.prefix + patches, s.dim}, tolerance_of<T>);
  });
}

struct cls_topk_case {
  template <class Backend>
  void operator()(Backend backend, trial& t) const {
    t.needs({"cls_attn", "expected_ascending"});
    integers const shape = t.shape("cls_attn", 3);
    t.parameters().agrees("batch", shape[0]), t.parameters().agrees("heads", shape[1]), t.parameters().agrees("n_patches", shape[2]);
    trial::require(shape[0] > 0 && shape[1] > 0, "cls_attn: no image or no head");
    with_real(t, "cls_attn", [&](auto real) { compare_key_set(backend, t, t.input<decltype(real)>("cls_attn", shape), shape); });
    if (t.has("x_layer0")) { compare_merged(backend, t, shape[2]); }
  }
};

struct key_count_case {
  template <class Backend>
  void operator()(Backend, trial& t) const {
    t.needs({"n", "k"});
    golden_case const& c = t.parameters();
    index_t const percent = c.says("keep_rate") ? whole_percent(c.real("keep_rate")) : 8;
    trial::require(percent > 0, "metadata keep_rate is no whole percentage");
    integers counts;
    integers const shape = t.shape("n", 1);
    for (index_t const n : t.indices("n", shape, md::most_tokens + 1)) { counts.push_back(md::key_set_size(n, percent)); }
    t.equal("k", counts, shape);
  }
};

}  // namespace

std::vector<op> vision_ops() {
  auto const key_set_op = [](golden_case const& c) { return on_every_backend(c, cls_topk_case{}); };
  return {{"window_merge", [](golden_case const& c) { return on_every_backend(c, window_merge_case{}); }},
          {"cls_topk", key_set_op},
          {"fastervlm", key_set_op},
          {"key_count", [](golden_case const& c) { return on_every_backend(c, key_count_case{}); }}};
}

}  // namespace golden
