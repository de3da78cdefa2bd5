// SPDX-License-Identifier: Apache-2.0
#pragma once

// dual_mask and the plan functions on one list at a time, as cases have them.

#include <string>
#include <vector>

#include <mustdrop/budget.hpp>
#include <mustdrop/plan.hpp>

#include "golden_ops.hpp"

namespace golden {

/// What attention_scores leaves of some rows: for each key the sum and the maximum of their weights.
struct attended {
  std::vector<float> sum, max;

  explicit attended(index_t keys) : sum(array_of<float>(keys)), max(array_of<float>(keys)) {}
};

template <class Backend>
integers mask(Backend backend, md::dual_mask_options options, attended const& scores, integers const& key_set) {
  index_t const tokens = length(scores.sum), shielded = length(key_set);
  auto keep = array_of<std::int64_t>(tokens);
  std::int32_t kept = 0;
  auto const key_count = static_cast<std::int32_t>(shielded);
  md::keep_lists<std::int64_t> const lists{md::view(keep.data(), 1, tokens), md::view(&kept, 1)};
  md::keep_lists<std::int64_t const> always;
  if (shielded > 0) { always = {md::view(key_set.data(), 1, shielded), md::view(&key_count, 1)}; }
  must_be_ok(md::check(always.absent() ? md::keep_lists<std::int64_t const>(lists) : always, md::segments{}, tokens),
             "check of the key set");

  aligned_memory scratch(md::dual_mask_workspace_size(backend, tokens, md::segments{}));
  must_be_ok(md::dual_mask(backend, options, md::view(scores.sum.data(), tokens), md::view(scores.max.data(), tokens), md::segments{},
                           always, md::tensor_view<std::int32_t const, 1>{}, lists, scratch.lend()),
             "dual_mask");
  return part(keep, 0, kept);
}

/// Thresholds, and the exact count that they give: the same set.
template <class Backend>
integers mask_both_ways(Backend backend, md::dual_mask_options options, attended const& scores, integers const& key_set) {
  integers keep = mask(backend, options, scores, key_set);
  if (options.global > 0 && options.individual > 0) {  // ranks are ratios to the thresholds
    options.count = length(keep);
    trial::require_same("dual_mask by thresholds and at the count that they give differ", mask(backend, options, scores, key_set), keep);
  }
  return keep;
}

inline md::tensor_view<index_t const, 1> view_of(integers const& list) { return md::view(list.data(), length(list)); }

inline integers composed(integers const& first, integers const& second) {
  integers out = array_of<index_t>(length(second));
  index_t count = 0;
  must_be_ok(md::compose(view_of(first), view_of(second), md::view(out.data(), length(out)), count), "compose");
  return part(out, 0, count);
}

inline integers rebased(integers const& set, integers const& keep) {
  integers out = array_of<index_t>(length(set));
  index_t count = 0;
  must_be_ok(md::rebase(view_of(set), view_of(keep), md::view(out.data(), length(out)), count), "rebase");
  return part(out, 0, count);
}

/// A plan for the image as a plan for the sequence around it.
inline integers whole_sequence(integers const& keep, md::run image, index_t sequence) {
  integers out = array_of<index_t>(sequence);
  index_t count = 0;
  must_be_ok(md::in_sequence(view_of(keep), image, sequence, md::view(out.data(), length(out)), count), "in_sequence");
  return part(out, 0, count);
}

/// Image tokens counted after pruning at each layer, as the papers' code does.
inline integers tokens_by_layer(index_t tokens, index_t layers, integers const& prune_after, integers const& counts) {
  auto const stages = cast<std::int32_t>(prune_after), left = cast<std::int32_t>(counts);
  auto trace = array_of<std::int32_t>(layers);
  must_be_ok(md::layer_trace(tokens, layers, md::view(stages.data(), stages.size()), md::view(left.data(), left.size()),
                             md::budget_reading::after_pruning, md::view(trace.data(), layers)),
             "layer_trace");
  return cast<index_t>(trace);
}

inline md::dual_mask_options thresholds_of(golden_case const& c) {
  return {static_cast<float>(c.real("global_thr")), static_cast<float>(c.real("individual_thr")), -1};
}

}  // namespace golden
