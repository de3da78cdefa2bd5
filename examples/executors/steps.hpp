// SPDX-License-Identifier: Apache-2.0
#pragma once

// Two steps of a vision-language model on made-up numbers, on any backend: windows of two pictures merge; the question's rows look at
// what the language model holds of them, and what they look away from goes.

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include <mustdrop/cpu/attention_scores.hpp>
#include <mustdrop/cpu/dual_mask.hpp>
#include <mustdrop/cpu/window_merge.hpp>
#include <mustdrop/cpu/window_similarity.hpp>
#include <mustdrop/reference/attention_scores.hpp>
#include <mustdrop/reference/dual_mask.hpp>
#include <mustdrop/reference/window_merge.hpp>
#include <mustdrop/reference/window_similarity.hpp>

namespace md = mustdrop;

namespace steps {

using floats = std::vector<float>;
using integers = std::vector<std::int32_t>;

constexpr md::index_t pictures = 2, tokens = 577, all = pictures * tokens, windows = 64, dim = 1024;
constexpr md::index_t heads = 8, text = 20, head_dim = 64;

/// What both steps read.
struct picture_data {
  std::mt19937 random{7};
  floats features = numbers(all * dim), query = numbers(heads * pictures * text * head_dim), keys = numbers(heads * all * head_dim);
  md::token_grid grids[pictures] = {{24, 24}, {24, 24}};
  std::int32_t offsets[pictures + 1] = {0, tokens, all}, row_offsets[pictures + 1] = {0, text, pictures*text};
  md::segments cut{pictures, offsets, nullptr, tokens}, rows{pictures, row_offsets, nullptr, text};

  floats numbers(md::index_t n) {
    floats made(static_cast<std::size_t>(n));
    for (float& x : made) { x = static_cast<float>(static_cast<int>(random() % 8192) - 4096) / 4096; }
    return made;
  }
};

/// What they write.
struct results {
  floats similarity = floats(pictures * windows), merged = floats(all * dim), sizes = floats(all), sum = floats(all), max = floats(all);
  integers source = integers(all), anchors = integers(all), merged_counts = integers(pictures);
  integers survivors = integers(all), survivor_counts = integers(pictures);

  friend bool operator==(results const& a, results const& b) {
    return a.similarity == b.similarity && a.merged == b.merged && a.sizes == b.sizes && a.sum == b.sum && a.max == b.max &&
           a.source == b.source && a.anchors == b.anchors && a.merged_counts == b.merged_counts && a.survivors == b.survivors &&
           a.survivor_counts == b.survivor_counts;
  }
};

/// The engine's scratch memory.
class scratch_memory {
 public:
  md::workspace lend(std::size_t bytes) {
    if (lines_.size() * sizeof(line) < bytes) { lines_.resize(bytes / sizeof(line) + 1); }
    return {lines_.data(), bytes};
  }

 private:
  struct alignas(64) line {
    char bytes[64];
  };
  std::vector<line> lines_;
};

template <class Backend>
md::status merge_alike(Backend const& on, picture_data const& in, results& out, scratch_memory& scratch) {
  md::window_shape const window{3, 3};
  auto const features = md::view(in.features.data(), all, dim);
  auto const grids = md::view(in.grids, pictures);
  auto const similarity = md::view(out.similarity.data(), pictures, windows);
  std::size_t const bytes = std::max(md::window_similarity_workspace_size(on, window, all, dim, in.cut),
                                     md::window_merge_workspace_size(on, window, all, dim, windows, in.cut));
  md::status const scored = md::window_similarity(on, window, features, in.cut, grids, similarity, scratch.lend(bytes));
  if (scored != md::status::ok) { return scored; }
  md::merge_options options;
  options.count = 33;
  md::keep_lists const keep{md::view(out.anchors.data(), pictures, tokens), md::view(out.merged_counts.data(), pictures)};
  return md::window_merge(on, options, window, features, in.cut, grids, similarity, {}, md::view(out.merged.data(), all, dim),
                          md::view(out.sizes.data(), all), md::view(out.source.data(), all), keep, scratch.lend(bytes));
}

template <class Backend>
md::status drop_unseen(Backend const& on, picture_data const& in, results& out, scratch_memory& scratch) {
  constexpr md::index_t query_rows = pictures * text;
  auto const query = md::view(in.query.data(), heads, query_rows, head_dim), keys = md::view(in.keys.data(), heads, all, head_dim);
  auto const sum = md::view(out.sum.data(), all), max = md::view(out.max.data(), all);
  std::fill(out.sum.begin(), out.sum.end(), 0.0f), std::fill(out.max.begin(), out.max.end(), 0.0f);  // the word adds to them
  md::attention_options attention;
  attention.scale = 0.125f;
  std::size_t const bytes = std::max(md::attention_scores_workspace_size(on, {heads, query_rows, all, heads, head_dim}, in.rows, in.cut),
                                     md::dual_mask_workspace_size(on, all, in.cut));
  md::status const scored =
      md::attention_scores(on, attention, query, keys, in.rows, in.cut, {}, {}, {}, sum, max, {}, scratch.lend(bytes));
  if (scored != md::status::ok) { return scored; }
  md::dual_mask_options options;
  options.count = 192;
  md::keep_lists const keep{md::view(out.survivors.data(), pictures, tokens), md::view(out.survivor_counts.data(), pictures)};
  return md::dual_mask(on, options, sum, max, in.cut, {}, {}, keep, scratch.lend(bytes));
}

}  // namespace steps
