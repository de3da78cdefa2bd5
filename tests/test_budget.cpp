// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <mustdrop/budget.hpp>
#include <mustdrop/cls_topk.hpp>
#include <mustdrop/dual_mask.hpp>
#include <mustdrop/top_k.hpp>
#include <mustdrop/window_merge.hpp>

#include "memory.hpp"

namespace {

using md::budget_options, md::budget_reading, md::index_t, md::status;
using ints = std::vector<std::int32_t>;
using reals = std::vector<double>;

constexpr index_t most = md::most_tokens;
constexpr index_t index_min = std::numeric_limits<index_t>::min(), index_max = std::numeric_limits<index_t>::max();
constexpr budget_reading readings[] = {budget_reading::ran_on, budget_reading::after_pruning, budget_reading::at_end};

md::tensor_view<std::int32_t const, 1> seen(ints const& v) { return md::view(v.data(), v.size()); }

/// A run through the layers, as the header tells it: what each layer was given, and what it left.
template <class Number>
std::pair<std::vector<Number>, std::vector<Number>> run_through(Number tokens, index_t layers, ints const& prune_after,
                                                                std::vector<Number> const& counts) {
  std::vector<Number> given, left;
  Number now = tokens;
  auto const prune = [&](index_t layer) {
    auto const stage = std::find(prune_after.begin(), prune_after.end(), layer);
    if (stage != prune_after.end()) { now = counts[static_cast<std::size_t>(stage - prune_after.begin())]; }
  };
  prune(-1);
  for (index_t layer = 0; layer < layers; ++layer) {
    given.push_back(now);
    prune(layer);
    left.push_back(now);
  }
  return {given, left};
}

/// What a reading adds up to: over the layers, or at the end.
template <class Number>
Number spent(budget_options const& o, ints const& prune_after, std::vector<Number> const& counts) {
  auto const [given, left] = run_through(static_cast<Number>(o.tokens), o.layers, prune_after, counts);
  if (o.reading == budget_reading::at_end) { return left.back(); }
  auto const& trace = o.reading == budget_reading::ran_on ? given : left;
  Number sum = 0;
  for (Number const layer : trace) { sum += layer; }
  return sum;
}

// --- key sets and windows ---

TEST(KeySetSize, IsTheShareRoundedUp) {
  for (index_t percent = 0; percent <= 100; ++percent) {
    for (index_t tokens = 0; tokens <= 600; ++tokens) {
      index_t const k = md::key_set_size(tokens, percent);
      EXPECT_GE(100 * k, percent * tokens);
      EXPECT_LT(100 * (k - 1), percent * tokens) << "one fewer would do";
    }
  }
  static_assert(md::key_set_size(576) == 47 && md::key_set_size(25) == 2 && md::key_set_size(26) == 3 && md::key_set_size(0) == 0);
  EXPECT_EQ(md::key_set_size(most, 100), most);
}

TEST(WindowMergeCount, IsTheFewestThatLeaveNoMoreThanTheTarget) {
  int impossible = 0;
  for (md::window_shape const window : {md::window_shape{3, 3}, {2, 2}, {1, 2}, {2, 3, 2}, {1, 1}}) {
    for (index_t code = 0; code < 8 * 8 * 3; ++code) {
      md::token_grid const grid{code % 8, code / 8 % 8, code / 64};
      for (index_t target = -1; target <= grid.patches() + 1; ++target) {
        index_t expected = -1;
        for (index_t r = window.windows(grid); r >= 0; --r) {
          if (grid.patches() - r * (window.tokens() - 1) <= target) { expected = r; }
        }
        index_t const got = md::window_merge_count(grid, window, target);
        EXPECT_EQ(got, expected) << grid.rows << "×" << grid.cols << "×" << grid.frames << " to " << target;
        impossible += got < 0;
        if (got >= 0) { EXPECT_LE(retained_count(md::merge_options{0.8f, got}, window, grid), grid.prefix + target + grid.suffix); }
      }
    }
  }
  EXPECT_GT(impossible, 100);
  static_assert(md::window_merge_count({24, 24}, {}, 192) == 48 && md::window_merge_count({24, 24}, {}, 63) == -1);
}

// --- traces ---

TEST(CheckStages, AcceptsStagesThatAscendWithinTheLayers) {
  EXPECT_EQ(md::check_stages(32, seen({2, 6, 10, 14})), status::ok);
  EXPECT_EQ(md::check_stages(1, seen({-1, 0})), status::ok) << "-1 is in front of the first layer";
  EXPECT_EQ(md::check_stages(1, {}), status::ok);
  EXPECT_EQ(md::check_stages(most, seen({static_cast<std::int32_t>(most - 1)})), status::ok);
}

/// Views and stages that a function of layers and stages must refuse; `ask` gets both.
template <class Ask>
void expect_stages_refused(Ask const& ask) {
  ints const good{2, 6};
  EXPECT_EQ(ask(8, seen(good)), status::ok);
  for (index_t const layers : {index_t{0}, index_t{-1}, index_min, most + 1, index_max}) {
    EXPECT_EQ(ask(layers, seen(good)), status::bad_shape) << layers;
  }
  using view = md::tensor_view<std::int32_t const, 1>;
  EXPECT_EQ(ask(8, view{nullptr, {2}, {1}}), status::bad_shape);
  EXPECT_EQ(ask(8, view{good.data(), {-2}, {1}}), status::bad_shape);
  EXPECT_EQ(ask(8, view{good.data(), {most + 1}, {1}}), status::bad_shape);
  EXPECT_EQ(ask(8, view{good.data(), {2}, {0}}), status::bad_stride);
  for (ints const& stages : {ints{6, 2}, ints{2, 2}, ints{2, 8}, ints{-2, 2}, ints{8, 9}, ints{-1, -1},
                             ints{2, std::numeric_limits<std::int32_t>::max()}, ints{std::numeric_limits<std::int32_t>::min(), 2}}) {
    EXPECT_EQ(ask(8, seen(stages)), status::bad_argument) << testing::PrintToString(stages);
  }
}

TEST(CheckStages, RefusesTheOthers) {
  expect_stages_refused([](index_t layers, auto stages) { return md::check_stages(layers, stages); });
}

std::pair<status, ints> traced(index_t tokens, index_t layers, ints const& prune_after, ints const& counts, budget_reading reading) {
  padded_tensor<std::int32_t, 1> trace(-7, 2, 2, layers);
  status const got = md::layer_trace(tokens, layers, seen(prune_after), seen(counts), reading, trace.view());
  auto const& memory = trace.memory();
  if (got != status::ok) {
    EXPECT_EQ(memory, ints(memory.size(), -7));
    return {got, {}};
  }
  EXPECT_TRUE(memory[0] == -7 && memory[1] == -7 && memory[static_cast<std::size_t>(layers) + 2] == -7);
  return {got, {memory.begin() + 2, memory.begin() + 2 + layers}};
}

TEST(LayerTrace, TellsWhatEachLayerRanOnOrWasLeftWith) {
  auto const good = [](ints const& trace) { return std::pair(status::ok, trace); };
  EXPECT_EQ(traced(9, 5, {1, 3}, {6, 2}, budget_reading::ran_on), good({9, 9, 6, 6, 2}));
  EXPECT_EQ(traced(9, 5, {1, 3}, {6, 2}, budget_reading::after_pruning), good({9, 6, 6, 2, 2}));
  EXPECT_EQ(traced(9, 3, {-1}, {4}, budget_reading::ran_on), good({4, 4, 4}));
  EXPECT_EQ(traced(9, 3, {-1}, {4}, budget_reading::after_pruning), good({4, 4, 4}));
  EXPECT_EQ(traced(9, 3, {-1, 0}, {4, 3}, budget_reading::ran_on), good({4, 3, 3}));
  EXPECT_EQ(traced(9, 3, {-1, 0}, {4, 3}, budget_reading::after_pruning), good({3, 3, 3}));
  EXPECT_EQ(traced(9, 3, {2}, {0}, budget_reading::ran_on), good({9, 9, 9})) << "what the last layer prunes, none runs on";
  EXPECT_EQ(traced(9, 3, {2}, {0}, budget_reading::after_pruning), good({9, 9, 0}));
  EXPECT_EQ(traced(9, 2, {}, {}, budget_reading::ran_on), good({9, 9}));
  EXPECT_EQ(traced(0, 2, {0}, {0}, budget_reading::ran_on), good({0, 0}));
  EXPECT_EQ(traced(most, 1, {}, {}, budget_reading::ran_on), good({static_cast<std::int32_t>(most)}));
}

/// A budget, with what its stages leave.
struct settings {
  index_t tokens, layers;
  ints prune_after, counts;
};

TEST(LayerTrace, IsARunThroughTheLayers) {
  std::mt19937 random = printed_random(51);
  for (int round = 0; round < 500; ++round) {
    settings c{static_cast<index_t>(random() % 600), 1 + static_cast<index_t>(random() % 40), {}, {}};
    auto now = static_cast<std::int32_t>(c.tokens);
    for (std::int32_t layer = -1; layer < c.layers; ++layer) {
      if (random() % 4 == 0) {
        now = static_cast<std::int32_t>(random() % (static_cast<unsigned>(now) + 1));
        c.prune_after.push_back(layer), c.counts.push_back(now);
      }
    }
    auto const [given, left] = run_through(static_cast<std::int32_t>(c.tokens), c.layers, c.prune_after, c.counts);
    EXPECT_EQ(traced(c.tokens, c.layers, c.prune_after, c.counts, budget_reading::ran_on).second, given) << "round " << round;
    EXPECT_EQ(traced(c.tokens, c.layers, c.prune_after, c.counts, budget_reading::after_pruning).second, left) << "round " << round;
  }
}

TEST(LayerTrace, RefusesWhatIsWrong) {
  auto const answer = [](index_t tokens, ints const& counts, budget_reading reading = budget_reading::ran_on) {
    return traced(tokens, 8, {2, 6}, counts, reading).first;
  };
  EXPECT_EQ(answer(9, {6, 2}), status::ok);
  EXPECT_EQ(answer(9, {9, 9}), status::ok);
  EXPECT_EQ(answer(9, {6}), status::bad_shape);
  EXPECT_EQ(answer(9, {6, 2, 1}), status::bad_shape);
  EXPECT_EQ(answer(-1, {6, 2}), status::bad_argument);
  EXPECT_EQ(answer(most + 1, {6, 2}), status::bad_argument);
  EXPECT_EQ(answer(9, {10, 2}), status::bad_argument) << "a count grows";
  EXPECT_EQ(answer(9, {6, 7}), status::bad_argument);
  EXPECT_EQ(answer(9, {6, -1}), status::bad_argument);
  EXPECT_EQ(answer(9, {std::numeric_limits<std::int32_t>::min(), 2}), status::bad_argument);
  EXPECT_EQ(answer(9, {6, 2}, budget_reading::at_end), status::bad_argument) << "no trace";

  ints const counts{6, 2};
  ints trace(16, -7);
  expect_stages_refused([&](index_t layers, auto stages) {
    std::fill(trace.begin(), trace.end(), -7);
    status const got = md::layer_trace(9, layers, stages, seen(counts), budget_reading::ran_on, md::view(trace.data(), 8));
    if (got != status::ok) { EXPECT_EQ(trace, ints(16, -7)); }
    return got;
  });
  std::fill(trace.begin(), trace.end(), -7);
  ints const after{2, 6};
  using in = md::tensor_view<std::int32_t const, 1>;
  using out = md::tensor_view<std::int32_t, 1>;
  auto const views = [&](in counted, out to) { return md::layer_trace(9, 8, seen(after), counted, budget_reading::ran_on, to); };
  EXPECT_EQ(views(seen(counts), md::view(trace.data(), 7)), status::bad_shape);
  EXPECT_EQ(views(seen(counts), md::view(trace.data(), 9)), status::bad_shape);
  EXPECT_EQ(views(seen(counts), out{nullptr, {8}, {1}}), status::bad_shape);
  EXPECT_EQ(views(in{nullptr, {2}, {1}}, md::view(trace.data(), 8)), status::bad_shape);
  EXPECT_EQ(views(in{counts.data(), {-2}, {1}}, md::view(trace.data(), 8)), status::bad_shape);
  EXPECT_EQ(views(seen(counts), out{trace.data(), {8}, {2}}), status::bad_stride);
  EXPECT_EQ(views(in{counts.data(), {2}, {2}}, md::view(trace.data(), 8)), status::bad_stride);
  EXPECT_EQ(trace, ints(16, -7));
}

TEST(Average, IsTheMean) {
  EXPECT_EQ(md::average({}), 0);
  EXPECT_EQ(md::average(seen({7})), 7);
  EXPECT_EQ(md::average(seen({1, 2})), 1.5);
  ints const large(4, static_cast<std::int32_t>(most));  // the sum is no int32
  EXPECT_EQ(md::average(seen(large)), static_cast<double>(most));
}

// --- what was published ---

/// SparseVLM's table for a name, and what its run on a stub of 32 layers and 576 tokens printed and measured, to one digit.
struct published {
  int name;
  index_t kept[3];
  double counted, ran;
};

// SparseVLM puts a few merged tokens behind what it keeps: of n dropped, int(0.3·n) + 1 are clustered, into int(m / 10) + 1 clusters.
ints with_clusters(published const& row) {
  ints counts;
  index_t before = 576;
  for (index_t const kept : row.kept) {
    index_t const recycled = 3 * (before - kept) / 10 + 1, clusters = recycled / 10 + 1;
    before = kept + clusters;
    counts.push_back(static_cast<std::int32_t>(before));
  }
  return counts;
}

TEST(BudgetReadings, AreThoseOfTheRunsOfReleasedCode) {
  EXPECT_EQ(with_clusters({64, {66, 30, 17}, 0, 0}), (ints{82, 32, 18}));  // 576×3, 82×4, 32×9, 18×16
  for (published const& row : {published{64, {66, 30, 17}, 64.8, 82.2}, published{96, {238, 48, 26}, 96.9, 114.1},
                               published{128, {303, 110, 36}, 128.6, 145.4}, published{192, {300, 200, 110}, 192.0, 206.5}}) {
    auto const counts = with_clusters(row);
    auto const mean = [&](budget_reading reading) {
      auto const [got, trace] = traced(576, 32, {2, 6, 15}, counts, reading);
      EXPECT_EQ(got, status::ok);
      return md::average(seen(trace));
    };
    EXPECT_NEAR(mean(budget_reading::after_pruning), row.counted, 0.0501) << row.name;  // half of the last printed digit
    EXPECT_NEAR(mean(budget_reading::ran_on), row.ran, 0.0501) << row.name;
  }
}

TEST(BudgetReadings, OfTheRunCalledSixtyFourAreEightyTwoAndSixtyFive) {
  ints const counts{82, 32, 18};
  auto const [given, left] = run_through(576, 32, {2, 6, 15}, counts);
  auto const many = [](ints const& trace, int tokens) { return std::count(trace.begin(), trace.end(), tokens); };
  auto const [ok, ran_on] = traced(576, 32, {2, 6, 15}, counts, budget_reading::ran_on);
  ASSERT_EQ(ok, status::ok);
  EXPECT_TRUE(many(ran_on, 576) == 3 && many(ran_on, 82) == 4 && many(ran_on, 32) == 9 && many(ran_on, 18) == 16);
  EXPECT_EQ(md::average(seen(ran_on)), 2632.0 / 32);                                                                     // 82.25
  EXPECT_EQ(md::average(seen(traced(576, 32, {2, 6, 15}, counts, budget_reading::after_pruning).second)), 2074.0 / 32);  // 64.8
}

// --- counts ---

std::pair<status, ints> counted(budget_options const& options, ints const& prune_after) {
  ints counts(prune_after.size() + 1, -7);
  status const got = md::stage_counts(options, seen(prune_after), md::view(counts.data(), prune_after.size()));
  EXPECT_EQ(counts.back(), -7);
  if (got != status::ok) {
    EXPECT_EQ(counts, ints(counts.size(), -7));
    return {got, {}};
  }
  counts.pop_back();
  return {got, counts};
}

std::string text(budget_options const& o, ints const& prune_after, ints const& counts) {
  return std::to_string(o.tokens) + " tokens, " + std::to_string(o.layers) + " layers, target " + std::to_string(o.target) + ", at least " +
         std::to_string(o.at_least) + ", reading " + std::to_string(static_cast<int>(o.reading)) + ", stages " +
         testing::PrintToString(prune_after) + ": " + testing::PrintToString(counts);
}

/// Every promise of the header, from a run through the layers. Returns whether the budget was feasible.
bool keeps_its_promises(budget_options const& o, ints const& prune_after) {
  auto const [got, counts] = counted(o, prune_after);
  auto const where = text(o, prune_after, counts);
  index_t const least = std::min(o.at_least, o.tokens);  // no stage can leave more than there is
  auto const add_up = [&](ints const& c) { return spent(o, prune_after, std::vector<index_t>(c.begin(), c.end())); };
  bool const mean = o.reading != budget_reading::at_end;
  index_t const allowed = mean ? o.target * o.layers : o.target;

  bool const feasible = add_up(ints(prune_after.size(), static_cast<std::int32_t>(least))) <= allowed;
  EXPECT_EQ(got, feasible ? status::ok : status::bad_argument) << where;
  if (!feasible || got != status::ok) { return false; }

  index_t const sum = add_up(counts);
  EXPECT_LE(sum, allowed) << "the target is exceeded: " << where;
  bool any_can_grow = false;
  for (std::size_t k = 0; k < counts.size(); ++k) {
    index_t const before = k == 0 ? o.tokens : counts[k - 1];
    EXPECT_LE(counts[k], before) << "a count grows: " << where;
    EXPECT_GE(counts[k], least) << where;
    auto more = counts;
    ++more[k];
    bool const matters = add_up(more) > sum, has_room = counts[k] < before;
    if (matters && has_room) {
      EXPECT_GT(add_up(more), allowed) << "stage " << k << " could take one more: " << where;
      any_can_grow = true;
    }
  }
  if (any_can_grow) {  // then less than one token is left in each layer
    EXPECT_GT(sum, allowed - (mean ? o.layers : 1)) << "the target is not met: " << where;
  }
  return true;
}

TEST(StageCounts, KeepAllPromisesForEverySmallBudget) {
  int feasible = 0, infeasible = 0;
  for (index_t layers = 1; layers <= 4; ++layers) {
    for (unsigned stages = 0; stages < 1u << (layers + 1); ++stages) {
      ints prune_after;
      for (std::int32_t layer = -1; layer < layers; ++layer) {
        if (stages >> (layer + 1) & 1u) { prune_after.push_back(layer); }
      }
      for (index_t code = 0; code < 8 * 9 * 4 * 3; ++code) {
        budget_options o;
        o.tokens = code % 8, o.layers = layers, o.target = code / 8 % 9, o.at_least = code / 72 % 4, o.reading = readings[code / 288];
        ++(keeps_its_promises(o, prune_after) ? feasible : infeasible);
      }
    }
  }
  EXPECT_GT(feasible, 1000);
  EXPECT_GT(infeasible, 1000);
}

TEST(StageCounts, KeepAllPromisesForBudgetsOfModels) {
  ints const schedules[] = {{2, 6, 10, 14}, {2, 6, 15}, {1}, {-1}, {-1, 2, 6}, {0, 1, 2}, {31}, {7, 15, 23, 31}};
  int feasible = 0;
  for (index_t const tokens : {1, 47, 576, 577, 2880, 100000}) {
    for (auto const& prune_after : schedules) {
      for (index_t const target : {0, 1, 47, 54, 64, 82, 128, 192, 576, 3000}) {
        for (auto const reading : readings) {
          for (index_t const at_least : {index_t{0}, index_t{1}, md::key_set_size(tokens), tokens}) {
            budget_options o;
            o.tokens = tokens, o.layers = 32, o.target = target, o.at_least = at_least, o.reading = reading;
            feasible += keeps_its_promises(o, prune_after);
          }
        }
      }
    }
  }
  EXPECT_GT(feasible, 1000);
}

TEST(StageCounts, TheEndIsExactlyTheTarget) {
  for (index_t target = 0; target <= 600; ++target) {
    budget_options o;
    o.tokens = 576, o.layers = 32, o.target = target, o.reading = budget_reading::at_end;
    auto const [got, counts] = counted(o, {2, 6, 10, 14});
    ASSERT_EQ(got, status::ok);
    EXPECT_EQ(counts.back(), std::min<index_t>(target, 576));
  }
}

TEST(StageCounts, WithoutStagesAllTokensMustFit) {
  for (auto const reading : readings) {
    budget_options o;
    o.tokens = 64, o.layers = 4, o.target = 64, o.reading = reading;
    EXPECT_EQ(counted(o, {}).first, status::ok);
    o.target = 63;
    EXPECT_EQ(counted(o, {}).first, status::bad_argument);
  }
}

TEST(StageCounts, ABudgetAboveAllTokensDropsNothing) {
  for (auto const reading : readings) {
    budget_options o;
    o.tokens = 576, o.layers = 32, o.target = 576, o.reading = reading;
    EXPECT_EQ(counted(o, {2, 6}).second, (ints{576, 576}));
    o.target = most;
    EXPECT_EQ(counted(o, {2, 6}).second, (ints{576, 576}));
  }
}

// Three of 32 layers run on all of the 576 tokens whatever is dropped later: 54 on average.
TEST(StageCounts, WhatTheFirstLayersCostCannotBeSaved) {
  budget_options o;
  o.tokens = 576, o.layers = 32, o.target = 54;
  EXPECT_EQ(counted(o, {2, 6}), (std::pair(status::ok, ints{0, 0})));
  o.target = 53;
  EXPECT_EQ(counted(o, {2, 6}).first, status::bad_argument);
  o.target = 54, o.at_least = 1;
  EXPECT_EQ(counted(o, {2, 6}).first, status::bad_argument);
  o.reading = budget_reading::after_pruning;  // here only two layers do
  EXPECT_EQ(counted(o, {2, 6}).first, status::ok);
}

/// Counts of a share that is the same at every stage and meets the target exactly, in fractions of tokens.
reals in_fractions(budget_options const& o, ints const& prune_after) {
  double low = 0, high = 1;
  reals counts(prune_after.size());
  for (int halving = 0; halving < 100; ++halving) {
    double const share = (low + high) / 2;
    for (std::size_t k = 0; k < counts.size(); ++k) {
      counts[k] = static_cast<double>(o.tokens) * std::pow(share, static_cast<double>(k + 1));
    }
    double const mean = spent(o, prune_after, counts) / (o.reading == budget_reading::at_end ? 1.0 : static_cast<double>(o.layers));
    (mean <= static_cast<double>(o.target) ? low : high) = share;
  }
  return counts;
}

// At the end T is rounded from at most T + 1/2, so the share is off by at most that, and every count by its own part of it; then it is rounded.
// In a mean, rounding moves each layer by at most 1/2 and a step of one count is at most one token in every layer; a stage that counts in w of L
// layers is moved by at most 1.5·L / w by this, by 1/2 when it is rounded, and by L / w if it takes what is left.
TEST(StageCounts, EveryStageLeavesTheSameShare) {
  ints const prune_after{2, 6, 10, 14};
  for (auto const reading : readings) {
    for (index_t const target : {64, 96, 128, 192, 288}) {
      budget_options o;
      o.tokens = 576, o.layers = 32, o.target = target, o.reading = reading;
      auto const counts = counted(o, prune_after).second;
      auto const fractions = in_fractions(o, prune_after);
      ASSERT_EQ(counts.size(), 4u);
      for (std::size_t k = 0; k < 4; ++k) {
        int const weight = k < 3 ? 4 : reading == budget_reading::ran_on ? 17 : 18;
        double const allowed =
            reading == budget_reading::at_end ? 0.5 + fractions[k] / (2 * static_cast<double>(target)) : 0.5 + 2.5 * 32 / weight;
        EXPECT_NEAR(counts[k], fractions[k], allowed + 1e-6) << text(o, prune_after, counts);
      }
    }
  }
}

// Two layers on 64 tokens, two on 32, four on 16: with a share of one half there is nothing to round.
TEST(StageCounts, AreThePowersOfTheShareWhereTheseAreWhole) {
  budget_options o;
  o.tokens = 64, o.layers = 8, o.target = (64 * 2 + 32 * 2 + 16 * 4) / 8;
  EXPECT_EQ(counted(o, {1, 3}).second, (ints{32, 16}));
  o.reading = budget_reading::at_end, o.target = 8;
  auto const halves = counted(o, {1, 3, 5}).second;
  ASSERT_EQ(halves.size(), 3u);
  EXPECT_EQ(halves.back(), 8);
  EXPECT_NEAR(halves[0], 32, 1);  // a share with which 8.5 would be left rounds to 8 too, and makes this 32.7
  EXPECT_NEAR(halves[1], 16, 1);
}

TEST(StageCounts, WhatRoundingLeavesGoesToTheEarliestStageThatCanTakeIt) {
  budget_options o;
  // 20 to spend: 10 in layer 0, then x in layer 1 and y in layers 2 and 3, x + 2y ≤ 10. A share of one half leaves 5 and 2.5, and 2.5 would
  // round to 3, which is one too many: 5 and 2 it is, and one is left.
  o.tokens = 10, o.layers = 4, o.target = 5;
  EXPECT_EQ(counted(o, {0, 1}), (std::pair(status::ok, ints{6, 2})));
}

TEST(StageCounts, TheLargestNumbersDoNotOverflow) {
  budget_options o;
  o.tokens = most, o.layers = most;
  for (index_t const target : {index_t{1}, index_t{2}, index_t{12345}, most / 2, most}) {
    o.target = target;
    auto const [got, counts] = counted(o, {0});
    ASSERT_EQ(got, status::ok);
    // One layer runs on everything, most − 1 of them on what is left.
    index_t const allowed = target * most, one = counts[0];
    EXPECT_LE(most + one * (most - 1), allowed);
    if (one < most) { EXPECT_GT(most + (one + 1) * (most - 1), allowed); }
  }
  o.target = 0;
  EXPECT_EQ(counted(o, {0}).first, status::bad_argument);
  o.target = most, o.reading = budget_reading::at_end;
  EXPECT_EQ(counted(o, {0}).second, (ints{static_cast<std::int32_t>(most)}));
}

TEST(StageCounts, RefuseNumbersOutsideTheirRange) {
  auto const answer = [](auto const& change) {
    budget_options o;
    o.tokens = 64, o.layers = 8, o.target = 48;
    change(o);
    return counted(o, {2, 6}).first;
  };
  EXPECT_EQ(answer([](auto&) {}), status::ok);
  EXPECT_EQ(answer([](auto& o) { o.tokens = -1; }), status::bad_argument);
  EXPECT_EQ(answer([](auto& o) { o.target = -1; }), status::bad_argument);
  EXPECT_EQ(answer([](auto& o) { o.at_least = -1; }), status::bad_argument);
  EXPECT_EQ(answer([](auto& o) { o.tokens = most + 1; }), status::bad_argument);
  EXPECT_EQ(answer([](auto& o) { o.target = most + 1; }), status::bad_argument);
  EXPECT_EQ(answer([](auto& o) { o.at_least = most + 1; }), status::bad_argument);
  EXPECT_EQ(answer([](auto& o) { o.tokens = index_max; }), status::bad_argument);
  EXPECT_EQ(answer([](auto& o) { o.target = index_max; }), status::bad_argument);
  EXPECT_EQ(answer([](auto& o) { o.at_least = index_min; }), status::bad_argument);
  EXPECT_EQ(answer([](auto& o) { o.at_least = most, o.target = 64; }), status::ok) << "then nothing is dropped";
  EXPECT_EQ(answer([](auto& o) { o.tokens = 0; }), status::ok);
}

TEST(StageCounts, RefuseWrongViews) {
  budget_options o;
  o.tokens = 64, o.target = 48;
  ints counts(8, -7);
  expect_stages_refused([&](index_t layers, auto stages) {
    std::fill(counts.begin(), counts.end(), -7);
    o.layers = layers;
    status const got = md::stage_counts(o, stages, md::view(counts.data(), 2));
    if (got != status::ok) { EXPECT_EQ(counts, ints(8, -7)); }
    return got;
  });
  std::fill(counts.begin(), counts.end(), -7);
  o.layers = 8;
  ints const after{2, 6};
  using out = md::tensor_view<std::int32_t, 1>;
  EXPECT_EQ(md::stage_counts(o, seen(after), md::view(counts.data(), 1)), status::bad_shape);
  EXPECT_EQ(md::stage_counts(o, seen(after), md::view(counts.data(), 3)), status::bad_shape);
  EXPECT_EQ(md::stage_counts(o, seen(after), out{}), status::bad_shape);
  EXPECT_EQ(md::stage_counts(o, seen(after), out{nullptr, {2}, {1}}), status::bad_shape);
  EXPECT_EQ(md::stage_counts(o, seen(after), out{counts.data(), {-2}, {1}}), status::bad_shape);
  EXPECT_EQ(md::stage_counts(o, seen(after), out{counts.data(), {2}, {3}}), status::bad_stride);
  EXPECT_EQ(counts, ints(8, -7));
}

// --- counts that words tell in advance ---

TEST(RetainedCount, OfTopKIsTheRequestAsFarAsThereAreTokens) {
  static_assert(retained_count(md::top_k_options{}, 576, 64) == 64);
  EXPECT_EQ(retained_count(md::top_k_options{}, 576, 577), 576);
  EXPECT_EQ(retained_count(md::top_k_options{}, 576, 0), 0);
  EXPECT_EQ(retained_count(md::top_k_options{}, 576, -1), 0);
  EXPECT_EQ(retained_count(md::top_k_options{}, 0, 64), 0);
}

TEST(RetainedCount, OfClsTopkIsTheKeySetOfThePatches) {
  static_assert(retained_count(md::cls_topk_options{}, 577) == 47);
  for (index_t tokens = 0; tokens < 700; ++tokens) {
    EXPECT_EQ(retained_count(md::cls_topk_options{8, 1, 4}, tokens), md::key_set_size(std::max<index_t>(tokens - 5, 0)));
  }
  EXPECT_EQ(retained_count(md::cls_topk_options{100, 1, 0}, 577), 576);
}

TEST(RetainedCount, OfWindowMergeIsWhatTheMergedWindowsLeave) {
  constexpr md::token_grid clip{24, 24};
  static_assert(retained_count(md::merge_options{0.8f, -1}, {}, clip) == 577 &&
                retained_count(md::merge_options{0.8f, 64}, {}, clip) == 65);
  EXPECT_EQ(retained_count(md::merge_options{0.8f, 0}, {}, clip), 577);
  EXPECT_EQ(retained_count(md::merge_options{0.8f, 10}, {}, clip), 577 - 80);
  EXPECT_EQ(retained_count(md::merge_options{0.8f, 1000}, {}, clip), 65);
  EXPECT_EQ(retained_count(md::merge_options{0.8f, 1000}, {}, md::token_grid{25, 26, 1, 0, 2}), 25 * 26 + 2 - 64 * 8);
}

// What a budget promises to reserve is what the stages leave.
TEST(RetainedCount, OfEveryStageOfABudgetIsItsCount) {
  budget_options o;
  o.tokens = 576, o.layers = 32, o.target = 128, o.at_least = md::key_set_size(576);
  auto const [got, counts] = counted(o, {2, 6, 10, 14});
  ASSERT_EQ(got, status::ok);
  index_t before = o.tokens;
  for (index_t const count : counts) {
    EXPECT_EQ(retained_count(md::dual_mask_options{0.001f, 0.001f, count}, before, o.at_least), count);
    EXPECT_EQ(retained_count(md::top_k_options{}, before, count), count);
    before = count;
  }
}

}  // namespace
