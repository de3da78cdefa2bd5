// SPDX-License-Identifier: Apache-2.0
// Stage 1: what happens to a picture before the language model sees it.
#include <algorithm>
#include <numeric>
#include <string>
#include <utility>

#include <mustdrop/budget.hpp>
#include <mustdrop/cpu/cls_topk.hpp>
#include <mustdrop/cpu/gather.hpp>
#include <mustdrop/cpu/merge_rows.hpp>
#include <mustdrop/cpu/random.hpp>
#include <mustdrop/cpu/top_k.hpp>
#include <mustdrop/cpu/window_merge.hpp>
#include <mustdrop/cpu/window_similarity.hpp>
#include <mustdrop/method/mustdrop.hpp>
#include <mustdrop/method/pooling.hpp>
#include <mustdrop/method/random.hpp>
#include <mustdrop/plan.hpp>

#include "buffers.hpp"
#include "error.hpp"
#include "reduction.hpp"

namespace llava {

namespace {

using indices = std::vector<std::int32_t>;

md::tensor_view<float, 2> rows_of(matrix& x) { return md::view(x.data(), x.rows(), x.cols()); }

indices all_of(md::index_t n) {
  indices list(static_cast<std::size_t>(n));
  std::iota(list.begin(), list.end(), 0);
  return list;
}

/// How many tokens each stage between layers leaves; false where no schedule meets the budget (the key set stays whatever happens).
bool schedule(reduction const& how, int layers, md::index_t tokens, indices& counts) {
  std::vector<int> const after = how.prune_after.empty() ? default_prune_after(layers) : how.prune_after;
  md::budget_options budget;
  budget.tokens = tokens, budget.layers = layers, budget.target = how.tokens, budget.at_least = md::key_set_size(tokens);
  budget.reading = how.reading == token_reading::ran_on   ? md::budget_reading::ran_on
                   : how.reading == token_reading::papers ? md::budget_reading::after_pruning
                                                          : md::budget_reading::at_end;
  counts.assign(after.size(), 0);
  auto const stages = md::view(counts.data(), counts.size());
  return md::stage_counts(budget, md::view(after.data(), after.size()), stages) == md::status::ok;
}

/// The threshold's count, and where a budget needs more or fewer: the nearest count that it allows. Most similar windows go first.
md::index_t windows_to_merge(reduction const& how, int layers, md::token_grid const& grid, md::window_shape window,
                             std::vector<float> const& similarity, indices& counts) {
  auto const windows = static_cast<md::index_t>(similarity.size()), saved = window.tokens() - 1;
  md::index_t count = std::count_if(similarity.begin(), similarity.end(), [&](float s) { return s >= how.merge_threshold; });
  if (how.tokens == 0) { return count; }
  if (how.method == method::before) { return std::clamp((grid.patches() - how.tokens) / saved, md::index_t{0}, count); }
  while (count <= windows && !schedule(how, layers, grid.patches() - count * saved, counts)) { ++count; }
  if (count <= windows) { return count; }
  throw input_error("--tokens " + std::to_string(how.tokens) +
                    " cannot be met: too many are left with every window merged (--prune-after earlier?)");
}

/// Pooling to at most `tokens`: the smallest window that can, the squarest of them, and as many of these windows as it takes.
md::window_shape pooling_window(md::token_grid const& grid, int tokens) {
  md::window_shape best{grid.rows, grid.cols, 1};
  for (md::index_t rows = 1; rows <= grid.rows; ++rows) {
    for (md::index_t cols = 1; cols <= grid.cols; ++cols) {
      md::window_shape const window{rows, cols, 1};
      if (!window.valid() || md::window_merge_count(grid, window, tokens) < 0) { continue; }
      bool const squarer = std::max(rows, cols) < std::max(best.rows, best.cols);
      if (window.tokens() < best.tokens() || (window.tokens() == best.tokens() && squarer)) { best = window; }
    }
  }
  return best;
}

/// Similar windows of the grid become one row each. Fills anchor, source, plan.merge and counts.
class window_merging {
 public:
  window_merging(computer& on, config const& settings, reduction const& how, image_plan const* given, image_rows& image)
      : on_(on), how_(how), given_(given), image_(image), layers_(settings.text.layers), side_(settings.vision.side()) {}

  /// x: `prefix` rows, then the patches; left with fewer rows.
  void operator()(matrix& x, md::index_t prefix) {
    md::token_grid const grid{side_, side_, 1, prefix, 0};
    bool const pooling = how_.method == method::pooling && given_ == nullptr;
    if (pooling) { image_.plan.window = pooling_window(grid, how_.tokens); }
    md::window_shape const window = image_.plan.window;
    std::vector<float> similarity(static_cast<std::size_t>(window.windows(grid)));
    md::merge_options options;
    if (given_ != nullptr) {
      std::fill(similarity.begin(), similarity.end(), -1.0f);
      for (auto const w : given_->merge) { similarity[static_cast<std::size_t>(w)] = 1; }
      options.threshold = 0;
    } else if (pooling) {
      options.count = md::window_merge_count(grid, window, how_.tokens);
    } else {
      measure(x, grid, window, similarity);
      options.count = windows_to_merge(how_, layers_, grid, window, similarity, image_.counts);
    }
    merge(x, grid, window, similarity, options);
  }

 private:
  void measure(matrix& x, md::token_grid const& grid, md::window_shape window, std::vector<float>& similarity) {
    scratch_.grow(md::window_similarity_workspace_size(on_.words, window, x.rows(), x.cols(), {}));
    check(md::window_similarity(on_.words, window, rows_of(x), {}, md::view(&grid, 1), md::view(similarity.data(), 1, similarity.size()),
                                scratch_.lend()),
          "window_similarity");
  }

  void merge(matrix& x, md::token_grid const& grid, md::window_shape window, std::vector<float> const& similarity,
             md::merge_options options) {
    md::index_t const tokens = x.rows();
    matrix rows(tokens, x.cols());
    std::vector<float> sizes(static_cast<std::size_t>(tokens));
    indices source(sizes.size());
    keep_memory keep(1, tokens);
    scratch_.grow(md::window_merge_workspace_size(on_.words, window, tokens, x.cols(), window.windows(grid), {}));
    check(md::window_merge(on_.words, options, window, rows_of(x), {}, md::view(&grid, 1),
                           md::view(similarity.data(), 1, similarity.size()), {}, rows_of(rows), md::view(sizes.data(), sizes.size()),
                           md::view(source.data(), source.size()), keep.lists(), scratch_.lend()),
          "window_merge");
    x = rows.topRows(keep.counts[0]);
    image_.anchor.clear(), image_.source.clear(), image_.plan.merge.clear();
    for (auto const token : keep.list(0)) {
      if (token >= grid.prefix) { image_.anchor.push_back(static_cast<std::int32_t>(token - grid.prefix)); }
    }
    for (md::index_t p = 0; p < grid.patches(); ++p) {
      image_.source.push_back(static_cast<std::int32_t>(source[static_cast<std::size_t>(grid.prefix + p)] - grid.prefix));
    }
    for (md::index_t w = 0; w < window.windows(grid); ++w) {
      md::index_t const token = md::window_member(grid, window, w, 0);
      if (sizes[static_cast<std::size_t>(source[static_cast<std::size_t>(token)])] > 1) {
        image_.plan.merge.push_back(static_cast<std::int32_t>(w));
      }
    }
  }

  computer& on_;
  reduction const& how_;
  image_plan const* given_;
  image_rows& image_;
  int layers_;
  md::index_t side_;
  aligned_buffer scratch_;
};

/// The mean over the members of each row: CLS looked at the patches, before they were merged.
std::vector<float> on_merged_rows(computer& on, std::vector<float> const& attention, image_rows const& image) {
  auto const patches = static_cast<md::index_t>(attention.size());
  std::vector<float> merged(attention.size());
  check(md::merge_rows(on.words, md::view(attention.data(), patches, 1), {}, md::view(image.source.data(), patches), {},
                       md::view(merged.data(), patches, 1), {}, {}),
        "merge_rows");
  merged.resize(image.anchor.size());
  return merged;
}

indices key_set_of(computer& on, std::vector<float> const& cls_attention) {
  auto const rows = static_cast<md::index_t>(cls_attention.size());
  md::cls_topk_options options;
  options.prefix = 0;
  keep_memory keep(1, md::retained_count(options, rows));
  aligned_buffer scratch(md::cls_topk_workspace_size(on.words, 1, rows, {}));
  check(md::cls_topk(on.words, options, md::view(cls_attention.data(), 1, rows), {}, {}, keep.lists(), scratch.lend()), "cls_topk");
  return keep.list(0);
}

indices best_rows(computer& on, std::vector<float> const& scores, md::index_t count) {
  auto const rows = static_cast<md::index_t>(scores.size());
  keep_memory keep(1, std::min(count, rows));
  aligned_buffer scratch(md::top_k_workspace_size(on.words, rows, {}));
  check(md::top_k(on.words, {}, md::view(scores.data(), rows), {}, {}, keep.lists(), scratch.lend()), "top_k");
  return keep.list(0);
}

indices random_rows(computer& on, md::index_t rows, md::index_t count, std::uint64_t seed) {
  std::vector<float> scores(static_cast<std::size_t>(rows));
  keep_memory keep(1, std::min(count, rows));
  aligned_buffer scratch(md::top_k_workspace_size(on.words, rows, {}));
  md::method::random_options options;
  options.seed = seed;
  check(md::method::random(on.words, options, {}, {}, md::view(scores.data(), rows), keep.lists(), scratch.lend()), "random");
  return keep.list(0);
}

matrix gathered(computer& on, matrix& x, indices const& keep) {
  matrix out(static_cast<long>(keep.size()), x.cols());
  auto const count = static_cast<std::int32_t>(keep.size());
  md::keep_lists<std::int32_t const> const lists{md::view(keep.data(), 1, keep.size()), md::view(&count, 1)};
  check(md::gather(on.words, rows_of(x), {}, lists, rows_of(out), {}), "gather");
  return out;
}

}  // namespace

char const* name_of(method method) {
  switch (method) {
    case method::none: return "none";
    case method::mustdrop: return "mustdrop";
    case method::random: return "random";
    case method::pooling: return "pooling";
    case method::before: return "before";
  }
  return "?";
}

void check(reduction const& how) {
  auto const refuse = [](bool wrong, std::string const& why) {
    if (wrong) { throw input_error(why); }
  };
  bool const counted = how.method == method::random || how.method == method::pooling || how.method == method::before;
  refuse(how.tokens < 0, "--tokens is negative");
  refuse(how.plan.empty() && how.tokens == 0 && counted, std::string("--method ") + name_of(how.method) + " needs --tokens");
  refuse(how.tokens > 0 && how.method == method::mustdrop && !(how.global_threshold > 0 && how.individual_threshold > 0),
         "--thresholds must be above 0 where --tokens ranks by them");
  refuse(!how.plan.empty() && how.method != method::mustdrop, "--plan needs --method mustdrop");
  refuse(how.kv_policy == md::evict_policy::output_aware && how.kv_budget < 1, "--kv-policy output-aware needs --kv-budget");
  refuse(how.kv_policy != md::evict_policy::output_aware && how.kv_budget > 0, "--kv-budget needs --kv-policy output-aware");
}

std::vector<int> default_prune_after(int layers) {
  if (layers < 16) { return {0}; }
  std::vector<int> scaled;
  for (auto const layer : md::method::mustdrop_prune_after) { scaled.push_back((layer * layers + 16) / 32); }
  return scaled;
}

bool merges_early(reduction const& how) {
  return how.method == method::mustdrop && how.merge_at.value_or(merge_place::features) == merge_place::layer0;
}

image_rows prepare_picture(computer& on, config const& settings, checkpoint const& weights, std::vector<float> const& pixels,
                           reduction const& how, int number, image_plan const* given, double& vision_ms, double& projector_ms) {
  image_rows image;
  image.source = image.anchor = all_of(settings.vision.patches());
  if (given != nullptr) { image.plan = *given; }
  window_merging merge(on, settings, how, given, image);
  bool const scored = given == nullptr && (how.method == method::mustdrop || how.method == method::before);
  bool const merging = scored || given != nullptr || how.method == method::pooling;
  bool const early = merging && merges_early(how);
  sight_options look;
  look.cls_attention = scored;
  if (early) {
    look.after_first_layer = [&](matrix& hidden) {
      stopwatch const time(on.reduction_ms);
      merge(hidden, 1);
    };
  }
  sight seen;
  double const reduced = on.reduction_ms;
  {
    stopwatch const time(vision_ms);
    seen = see(on, settings, weights.vision, pixels, look);
  }
  vision_ms -= on.reduction_ms - reduced;
  {
    stopwatch const time(on.reduction_ms);
    if (merging && !early) {
      merge(seen.features, 0);
      if (scored) { seen.cls_attention = on_merged_rows(on, seen.cls_attention, image); }
    }
    auto const rows = static_cast<md::index_t>(image.anchor.size());
    if (given == nullptr && how.method == method::mustdrop) { image.plan.key_set = key_set_of(on, seen.cls_attention); }
    if (given == nullptr && how.method == method::before) {
      image.plan.stages.push_back({-1, best_rows(on, seen.cls_attention, how.tokens)});
    }
    if (given == nullptr && how.method == method::random) {
      image.plan.stages.push_back({-1, random_rows(on, rows, how.tokens, how.seed + static_cast<std::uint64_t>(number))});
    }
    image.cls_attention = std::move(seen.cls_attention);
    image.now = all_of(rows), image.key_now = image.plan.key_set;
    if (!image.plan.stages.empty() && image.plan.stages[0].layer == -1) {
      image.now = image.plan.stages[0].keep;
      seen.features = gathered(on, seen.features, image.now);
      indices const& key = image.plan.key_set;
      image.key_now.resize(key.size());
      md::index_t count = 0;
      check(md::rebase(md::view(key.data(), key.size()), md::view(image.now.data(), image.now.size()),
                       md::view(image.key_now.data(), image.key_now.size()), count),
            "rebase");
      image.key_now.resize(static_cast<std::size_t>(count));
    }
  }
  stopwatch const time(projector_ms);
  image.rows = project(on, settings, weights.projector, seen.features);
  return image;
}

}  // namespace llava
