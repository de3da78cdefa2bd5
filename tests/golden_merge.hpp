// SPDX-License-Identifier: Apache-2.0
#pragma once

// window_similarity and window_merge on a batch of samples: one by one, and as one ragged batch, which must give the same bits.

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "golden_ops.hpp"

namespace golden {

struct merge_setting {
  md::token_grid grid;
  md::window_shape window;
  index_t batch = 1, dim = 0;

  index_t tokens() const { return grid.tokens(); }
  index_t windows() const { return window.windows(grid); }
};

/// The grid and window of a case whose tensor `name` is [batch, tokens, dim].
inline merge_setting setting_of(trial& t, std::string const& name) {
  golden_case const& c = t.parameters();
  integers const shape = t.shape(name, 3);
  constexpr index_t most = 1 << 15;  // rows × cols stays far from overflow
  merge_setting s;
  s.batch = shape[0], s.dim = shape[2];
  s.grid.rows = c.whole("grid_h", 0, most), s.grid.cols = c.whole("grid_w", 0, most);
  s.window.rows = c.whole("win_h", 1, most), s.window.cols = c.whole("win_w", 1, most);
  s.grid.prefix = c.whole_or("has_cls", shape[1] - s.grid.patches(), 0, 1);  // not told: what the patches leave
  trial::require(s.tokens() == shape[1] && s.batch > 0, name + ": its shape is not that of the grid");
  must_be_ok(md::check(md::tensor_view<md::token_grid const, 1>(md::view(&s.grid, 1)), s.window, md::segments{}, shape[1], s.windows()),
             "check of the grid");  // contents of grids are preconditions of the words
  c.agrees("channels", s.dim), c.agrees("batch", s.batch);
  return s;
}

/// What window_merge says of one sample.
template <class Row>
struct merged_sample {
  std::vector<Row> rows;  // [kept, dim]
  std::vector<float> sizes;
  integers source, keep;

  index_t kept() const { return length(keep); }
  index_t merged_windows(merge_setting const& s) const { return (s.tokens() - kept()) / (s.window.tokens() - 1); }
};

/// A few consecutive samples as one ragged batch; a single sample as the one segment that needs no offsets.
struct sample_batch {
  index_t first, count;
  std::vector<std::int32_t> offsets;
  std::vector<md::token_grid> grids;

  sample_batch(merge_setting const& s, index_t first_sample, index_t samples)
      : first(first_sample), count(samples), offsets(at(samples + 1)), grids(at(samples), s.grid) {
    for (index_t b = 0; b <= count; ++b) { offsets[at(b)] = static_cast<std::int32_t>(b * s.tokens()); }
  }
  md::segments segments(merge_setting const& s) const {
    return count == 1 ? md::segments{} : md::segments{count, offsets.data(), nullptr, s.tokens()};
  }
  template <class T>
  md::tensor_view<T const, 2> features(merge_setting const& s, std::vector<T> const& x) const {
    return md::view(x.data(), s.batch * s.tokens(), s.dim).narrow(0, first * s.tokens(), count * s.tokens());
  }
};

template <class Backend, class T>
std::vector<float> similarity_of(Backend backend, merge_setting const& s, std::vector<T> const& x, index_t first, index_t count) {
  sample_batch const samples(s, first, count);
  md::segments const segments = samples.segments(s);
  std::vector<float> similarity = array_of<float>(count * s.windows());
  aligned_memory scratch(md::window_similarity_workspace_size(backend, s.window, count * s.tokens(), s.dim, segments));
  must_be_ok(md::window_similarity(backend, s.window, samples.features(s, x), segments, md::view(samples.grids.data(), count),
                                   md::view(similarity.data(), count, s.windows()), scratch.lend()),
             "window_similarity");
  return similarity;
}

/// `requested` is empty, or one count for each of the samples.
template <class Row, class Backend, class T>
std::vector<merged_sample<Row>> merge(Backend backend, md::merge_options options, merge_setting const& s, std::vector<T> const& x,
                                      std::vector<float> const& similarity, index_t first, index_t count,
                                      std::vector<std::int32_t> const& requested) {
  sample_batch const samples(s, first, count);
  md::segments const segments = samples.segments(s);
  index_t const tokens = count * s.tokens();
  auto rows = array_of<Row>(tokens * s.dim);
  auto sizes = array_of<float>(tokens);
  auto source = array_of<std::int32_t>(tokens), keep = array_of<std::int32_t>(tokens), counts = array_of<std::int32_t>(count);
  md::keep_lists const lists{md::view(keep.data(), count, s.tokens()), md::view(counts.data(), count)};
  auto const scores = md::view(similarity.data(), s.batch, s.windows()).narrow(0, first, count);
  auto const asked = requested.empty() ? md::tensor_view<std::int32_t const, 1>{} : md::view(requested.data(), count);

  aligned_memory scratch(md::window_merge_workspace_size(backend, s.window, tokens, s.dim, s.windows(), segments));
  must_be_ok(md::window_merge(backend, options, s.window, samples.features(s, x), segments, md::view(samples.grids.data(), count), scores,
                              asked, md::view(rows.data(), tokens, s.dim), md::view(sizes.data(), tokens), md::view(source.data(), tokens),
                              lists, scratch.lend()),
             "window_merge");

  std::vector<merged_sample<Row>> out;
  for (index_t b = 0; b < count; ++b) {
    index_t const begin = b * s.tokens(), kept = counts[at(b)];
    trial::require(kept >= 0 && kept <= s.tokens(), "window_merge kept more tokens than there are");
    out.push_back({part(rows, begin * s.dim, (begin + kept) * s.dim), part(sizes, begin, begin + kept),
                   cast<index_t>(part(source, begin, begin + s.tokens())), cast<index_t>(part(keep, begin, begin + kept))});
  }
  return out;
}

template <class Row>
void require_same_merge(std::string const& what, merged_sample<Row> const& a, merged_sample<Row> const& b) {
  trial::require_same(what + ": rows differ", a.rows, b.rows);
  trial::require_same(what + ": sizes differ", a.sizes, b.sizes);
  trial::require_same(what + ": source differs", a.source, b.source);
  trial::require_same(what + ": keep differs", a.keep, b.keep);
}

/// The whole batch, each sample with its own count: ragged in one call, and again sample by sample.
template <class Row, class Backend, class T>
std::vector<merged_sample<Row>> merge_counts(Backend backend, md::output_order order, merge_setting const& s, std::vector<T> const& x,
                                             std::vector<float> const& similarity, std::vector<std::int32_t> const& counts) {
  md::merge_options options;
  options.order = order;
  auto const together = merge<Row>(backend, options, s, x, similarity, 0, s.batch, counts);
  for (index_t b = 0; b < s.batch; ++b) {
    options.count = counts[at(b)];
    auto const alone = merge<Row>(backend, options, s, x, similarity, b, 1, {});
    require_same_merge("window_merge: a sample alone and in a batch", alone[0], together[at(b)]);
  }
  return together;
}

/// How many windows of each sample reach the threshold, told by the word itself.
template <class Backend, class T>
std::vector<std::int32_t> counts_by_threshold(Backend backend, float threshold, merge_setting const& s, std::vector<T> const& x,
                                              std::vector<float> const& similarity) {
  md::merge_options options;
  options.threshold = threshold;
  std::vector<std::int32_t> counts;
  for (auto const& sample : merge<T>(backend, options, s, x, similarity, 0, s.batch, {})) {
    counts.push_back(static_cast<std::int32_t>(sample.merged_windows(s)));
  }
  return counts;
}

/// The released code: the smallest count of the batch for all of it, merged rows first.
template <class Row, class Backend, class T>
std::vector<merged_sample<Row>> merge_as_released(Backend backend, float threshold, merge_setting const& s, std::vector<T> const& x,
                                                  std::vector<float> const& similarity) {
  std::vector<std::int32_t> counts = counts_by_threshold(backend, threshold, s, x, similarity);
  std::fill(counts.begin(), counts.end(), *std::min_element(counts.begin(), counts.end()));
  return merge_counts<Row>(backend, md::output_order::score, s, x, similarity, counts);
}

}  // namespace golden
