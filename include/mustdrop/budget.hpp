// SPDX-License-Identifier: Apache-2.0
#pragma once

// no backend: a handful of constexpr functions.
//
// budget: from "192 tokens" to a count for each stage, and back to what each layer saw.
//
// Layer l prunes at its end: it runs on what it was given and layers l + 1, … run on what stayed. "T tokens" has three readings:
//   ran_on         the mean over the layers of the tokens that each layer ran on (the honest cost)
//   after_pruning  the mean counted after pruning at a layer, though the layer ran on more (what the papers' code prints as 64)
//   at_end         the tokens that are left after the last stage
// Example: 576 tokens, 32 layers, stages after layers 2, 6 and 15 that leave 82, 32 and 18: 82.25 a layer on average were run on, 64.8 are
// counted after pruning, 18 are left at the end.

#include <initializer_list>

#include <mustdrop/status.hpp>
#include <mustdrop/view.hpp>

MUSTDROP_NAMESPACE_BEGIN

enum class budget_reading { ran_on, after_pruning, at_end };

/// How tokens shrink from stage to stage. geometric: each stage leaves the same share of what it gets, up to rounding.
enum class budget_schedule { geometric };

struct budget_options {
  index_t tokens = 0;  // before the first stage
  index_t layers = 0;
  index_t target = 0;    // T
  index_t at_least = 0;  // no stage leaves fewer (the key set stays whatever happens)
  budget_reading reading = budget_reading::ran_on;
  budget_schedule schedule = budget_schedule::geometric;
};

/// ceil(percent·tokens / 100) in integers: MustDrop's key set is 8 % of what the merge left.
MUSTDROP_HD constexpr index_t key_set_size(index_t tokens, index_t percent = 8) noexcept { return (percent * tokens + 99) / 100; }

/// The fewest windows to merge so that no more than `target` patches are left; -1 if even merging all leaves more, or `window` is not valid().
MUSTDROP_HD constexpr index_t window_merge_count(token_grid const& grid, window_shape window, index_t target) noexcept {
  index_t const saved = window.tokens() - 1, excess = grid.patches() - target;
  if (excess <= 0) { return 0; }
  if (!window.valid()) { return -1; }
  index_t const count = (excess + saved - 1) / saved;
  return count <= window.windows(grid) ? count : -1;
}

/// Whether stages ascend within the layers. -1 is a stage in front of layer 0.
constexpr status check_stages(index_t layers, tensor_view<std::int32_t const, 1> prune_after) noexcept {
  if (!well_formed(prune_after) || layers < 1 || layers > most_tokens) { return status::bad_shape; }
  if (!unit_stride(prune_after)) { return status::bad_stride; }
  for (index_t k = 0; k < prune_after.size(0); ++k) {
    if (prune_after(k) < -1 || prune_after(k) >= layers || (k > 0 && prune_after(k) <= prune_after(k - 1))) { return status::bad_argument; }
  }
  return status::ok;
}

/// What each layer ran on, or was left with: trace [layers]. `reading` is ran_on or after_pruning.
/// bad_shape, bad_stride: views · bad_argument: stages do not ascend within the layers, a count grows or is negative, at_end (no trace).
constexpr status layer_trace(index_t tokens, index_t layers, tensor_view<std::int32_t const, 1> prune_after,
                             tensor_view<std::int32_t const, 1> counts, budget_reading reading,
                             tensor_view<std::int32_t, 1> trace) noexcept {
  if (status const s = check_stages(layers, prune_after); s != status::ok) { return s; }
  if (!well_formed(counts) || !well_formed(trace) || counts.size(0) != prune_after.size(0) || trace.size(0) != layers) {
    return status::bad_shape;
  }
  if (!unit_stride(counts) || !unit_stride(trace)) { return status::bad_stride; }
  if (tokens < 0 || tokens > most_tokens || reading == budget_reading::at_end) { return status::bad_argument; }
  for (index_t k = 0; k < counts.size(0); ++k) {
    if (counts(k) < 0 || counts(k) > (k == 0 ? tokens : counts(k - 1))) { return status::bad_argument; }
  }
  index_t stage = 0, now = tokens;
  for (index_t l = 0; l < layers; ++l) {
    index_t const last = reading == budget_reading::ran_on ? l - 1 : l;  // stages after layers up to here have happened
    while (stage < counts.size(0) && prune_after(stage) <= last) { now = counts(stage++); }
    trace(l) = static_cast<std::int32_t>(now);
  }
  return status::ok;
}

/// The mean of a trace: in the reading that the trace was made with. 0 without layers.
constexpr double average(tensor_view<std::int32_t const, 1> trace) noexcept {
  index_t total = 0;
  for (index_t l = 0; l < trace.size(0); ++l) { total += trace(l); }
  return trace.size(0) > 0 ? static_cast<double>(total) / static_cast<double>(trace.size(0)) : 0;
}

namespace budget_detail {

/// Layers that count with what stage k leaves: from the layer after it (or itself) to the next stage's.
constexpr index_t layers_of_stage(budget_options const& options, tensor_view<std::int32_t const, 1> prune_after, index_t k) noexcept {
  index_t const shift = options.reading == budget_reading::after_pruning ? 0 : 1;
  index_t const first = prune_after(k) + shift, next = k + 1 < prune_after.size(0) ? prune_after(k + 1) + shift : options.layers;
  return (next > options.layers ? options.layers : next) - (first < 0 ? 0 : first);
}

/// What stage k leaves if every stage leaves `share` of what it gets.
constexpr index_t shrunk(budget_options const& options, double share, index_t k) noexcept {
  double left = static_cast<double>(options.tokens);
  for (index_t i = 0; i <= k; ++i) { left *= share; }
  auto const rounded = static_cast<index_t>(left + 0.5);
  index_t const least = options.at_least < options.tokens ? options.at_least : options.tokens;
  return rounded > least ? rounded : least;
}

/// The sum of the trace, or for at_end the last count.
constexpr index_t spent(budget_options const& options, tensor_view<std::int32_t const, 1> prune_after, double share) noexcept {
  index_t const stages = prune_after.size(0);
  if (options.reading == budget_reading::at_end) { return shrunk(options, share, stages - 1); }
  index_t total = options.tokens * options.layers;
  for (index_t k = 0; k < stages; ++k) { total -= (options.tokens - shrunk(options, share, k)) * layers_of_stage(options, prune_after, k); }
  return total;
}

}  // namespace budget_detail

/// How many tokens each stage leaves so that the target is met and not exceeded: counts [stages], never growing.
/// What rounding leaves of the budget goes to the earliest stage that can take it.
/// Shapes        prune_after [stages], ascending layers · counts [stages]
/// bad_shape     sizes disagree · bad_stride  a view is not dense
/// bad_argument  stages do not ascend within the layers; a number is negative or above 2^31 − 1; infeasible: with every stage at `at_least`
///               the reading is still above the target
constexpr status stage_counts(budget_options const& options, tensor_view<std::int32_t const, 1> prune_after,
                              tensor_view<std::int32_t, 1> counts) noexcept {
  using budget_detail::layers_of_stage, budget_detail::shrunk, budget_detail::spent;
  if (status const s = check_stages(options.layers, prune_after); s != status::ok) { return s; }
  index_t const stages = prune_after.size(0);
  if (!well_formed(counts) || counts.size(0) != stages) { return status::bad_shape; }
  if (!unit_stride(counts)) { return status::bad_stride; }
  for (index_t const number : {options.tokens, options.target, options.at_least}) {
    if (number < 0 || number > most_tokens) { return status::bad_argument; }
  }
  bool const mean = options.reading != budget_reading::at_end;
  index_t const allowed = mean ? options.target * options.layers : options.target;
  if (stages == 0) { return options.tokens <= options.target ? status::ok : status::bad_argument; }
  if (spent(options, prune_after, 0) > allowed) { return status::bad_argument; }

  double low = 0, high = 1;  // `low` fits, always
  if (spent(options, prune_after, 1) <= allowed) { low = 1; }
  for (int halving = 0; halving < 60 && low < 1; ++halving) {
    double const middle = (low + high) / 2;
    (spent(options, prune_after, middle) <= allowed ? low : high) = middle;
  }
  index_t left = allowed - spent(options, prune_after, low);
  for (index_t k = 0; k < stages; ++k) {
    index_t const most = k == 0 ? options.tokens : counts(k - 1), weight = mean ? layers_of_stage(options, prune_after, k) : 1;
    index_t count = shrunk(options, low, k);
    if (mean || k == stages - 1) {
      index_t const affordable = weight > 0 ? left / weight : 0, room = most - count;
      index_t const more = affordable < room ? affordable : room;
      count += more, left -= more * weight;
    }
    counts(k) = static_cast<std::int32_t>(count);
  }
  return status::ok;
}

MUSTDROP_NAMESPACE_END
