// SPDX-License-Identifier: Apache-2.0

// The examples of the pages in docs/: what lies between `// [docs/<page>.md]` and `// [end]` is a code block of that page, to the letter
// (scripts/check_docs.py compares). What a page says that comes out is asserted behind it.

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <numeric>
#include <thread>
#include <vector>

#include <mustdrop/budget.hpp>
#include <mustdrop/method/mustdrop.hpp>
#include <mustdrop/method/pooling.hpp>
#include <mustdrop/plan.hpp>

#include "backends.hpp"

namespace {

using ints = std::vector<std::int32_t>;
using floats = std::vector<float>;

/// The first `count` entries of list s.
template <class Index>
std::vector<Index> entries(md::keep_lists<Index> keep, md::index_t s = 0) {
  return {&keep.indices(s, 0), &keep.indices(s, 0) + keep.counts(s)};
}

#if defined(MUSTDROP_TEST_CPU)
// [docs/cpu.md]
struct two_threads {  // or a pool of the engine, OpenMP, TBB
  template <class F>
  void operator()(md::index_t n, F const& part) const noexcept {
    std::thread other([&] {
      for (md::index_t i = 1; i < n; i += 2) { part(i); }
    });
    for (md::index_t i = 0; i < n; i += 2) { part(i); }
    other.join();
  }
  static md::index_t width() noexcept { return 2; }
};
// [end]

TEST(CpuPage, AnExecutorRunsTheParts) {
  // [docs/cpu.md]
  md::cpu::backend<xsimd::default_arch, two_threads> const on;
  std::vector<float> const scores = {0.25f, 0.5f, 0.125f, 0.75f};
  std::vector<std::int32_t> indices(2), count(1);
  md::keep_lists const keep{md::view(indices.data(), 1, 2), md::view(count.data(), 1)};

  struct alignas(64) cache_line {
    char bytes[64];
  };
  std::size_t const bytes = md::top_k_workspace_size(on, 4, {});
  std::vector<cache_line> scratch(bytes / 64 + 1);
  md::status const done = md::top_k(on, {}, md::view(scores.data(), 4), {}, {}, keep, {scratch.data(), bytes});
  // indices: 1 3
  // [end]
  ASSERT_EQ(done, md::status::ok);
  EXPECT_EQ(indices, (ints{1, 3}));
}
#endif

TEST(WindowSimilarityPage, AWindowOfOneDirectionIsAlike) {
  // [docs/window_similarity.md]
  md::reference::backend const on;
  std::vector<float> const features = {
      9, 9,                    // CLS
      1, 0, 2, 0, 1, 0, 0, 1,  // a grid of 2 x 4 patches of two features: the upper row
      3, 0, 4, 0, 0, 5, 6, 0,  // and the lower one
  };
  md::token_grid grid;
  grid.rows = 2, grid.cols = 4;  // one prefix token is the default
  md::window_shape window;
  window.rows = 2, window.cols = 2;

  constexpr int tokens = 9, dim = 2, windows = 2;
  std::vector<float> similarity(windows);
  struct alignas(64) cache_line {
    char bytes[64];
  };
  std::size_t const bytes = md::window_similarity_workspace_size(on, window, tokens, dim, {});
  std::vector<cache_line> scratch(bytes / 64 + 1);
  md::status const done = md::window_similarity(on, window, md::view(features.data(), tokens, dim), {}, md::view(&grid, 1),
                                                md::view(similarity.data(), 1, windows), {scratch.data(), bytes});
  // similarity: 1 (one direction, lengths do not matter), 1/3 (two pairs of six agree)
  // [end]
  ASSERT_EQ(done, md::status::ok);
  EXPECT_FLOAT_EQ(similarity[0], 1);
  EXPECT_FLOAT_EQ(similarity[1], 1.0f / 3);
}

double logit(md::tensor_view<float, 3> query, md::tensor_view<float, 3> keys, int h, int t, int j) {
  return 0.5 * (double{query(h, t, 0)} * keys(h / 2, j, 0) + double{query(h, t, 1)} * keys(h / 2, j, 1));
}

/// What the examples of attention_scores.md compute: the definition, in double.
void attend(float* q, float* k, double (&sum)[7], double (&max)[7]) {
  auto const query = md::view(q, 4, 2, 2), keys = md::view(k, 2, 7, 2);
  for (int t = 0; t < 2; ++t) {
    double mean[7] = {};
    for (int h = 0; h < 4; ++h) {
      double whole = 0;
      for (int j = 0; j < 6 + t; ++j) { whole += std::exp(logit(query, keys, h, t, j)); }
      for (int j = 0; j < 6 + t; ++j) { mean[j] += std::exp(logit(query, keys, h, t, j)) / whole / 4; }
    }
    for (int j = 0; j < 7; ++j) { sum[j] += mean[j], max[j] = std::fmax(max[j], mean[j]); }
  }
}

TEST(AttentionScoresPage, UbatchesRanksAndALogSumExpAgree) {
  // [docs/attention_scores.md]
  md::reference::backend const on;
  // 7 slots: one of the system prompt, 4 of the image, 2 of the question. 4 query heads share 2 KV heads.
  constexpr int heads = 4, kv_heads = 2, rows = 2, slots = 7, dim = 2;
  std::vector<float> q(heads * rows * dim, 1.0f), k(kv_heads * slots * dim);  // after RoPE, as the engine has them
  auto const query = md::view(q.data(), heads, rows, dim);
  auto const keys = md::view(k.data(), kv_heads, slots, dim);
  keys(0, 2, 0) = 4, keys(1, 2, 1) = 3, keys(1, 4, 0) = 2;  // the question looks at slots 2 and 4

  struct alignas(64) cache_line {
    char bytes[64];
  };
  std::size_t const bytes = md::attention_scores_workspace_size(on, {heads, rows, slots, kv_heads, dim}, {}, {});
  std::vector<cache_line> memory(bytes / 64 + 1);
  md::workspace const scratch{memory.data(), bytes};

  md::attention_options options;
  options.scale = 0.5f;
  std::vector<std::int32_t> const limits = {6, 7};  // causal: the first row of the question sees slots 0 … 5
  md::key_span const image = {1, 5};
  std::vector<float> sum(slots), max(slots);  // zero before the first row
  md::status done = md::status::ok;
  for (int t = 0; t < rows && done == md::status::ok; ++t) {  // rows in two ubatches; given at once they make the same bits
    done = md::attention_scores(on, options, query.narrow(1, t, 1), keys, {}, {}, md::view(limits.data(), rows).narrow(0, t, 1), {},
                                md::view(&image, 1), md::view(sum.data(), slots), md::view(max.data(), slots), {}, scratch);
  }
  // sum: 0, then 0.16 0.96 0.16 0.31 for the image, then 0 0
  // [end]
  ASSERT_EQ(done, md::status::ok);
  double expected_sum[7] = {}, expected_max[7] = {};
  attend(q.data(), k.data(), expected_sum, expected_max);
  double const rounded[] = {0, 0.16, 0.96, 0.16, 0.31, 0, 0};
  for (std::size_t j = 0; j < slots; ++j) {  // weights are below 2 and a few float operations away from double
    bool const inside = j >= 1 && j < 5;
    EXPECT_NEAR(sum[j], inside ? expected_sum[j] : 0, 1e-6) << j;
    EXPECT_NEAR(max[j], inside ? expected_max[j] : 0, 1e-6) << j;
    EXPECT_NEAR(sum[j], rounded[j], 0.005) << j;
  }
  floats sum_at_once(slots), max_at_once(slots);
  ASSERT_EQ(md::attention_scores(on, options, query, keys, {}, {}, md::view(limits.data(), rows), {}, md::view(&image, 1),
                                 md::view(sum_at_once.data(), slots), md::view(max_at_once.data(), slots), {}, scratch),
            md::status::ok);
  EXPECT_EQ(sum, sum_at_once);
  EXPECT_EQ(max, max_at_once);

  // [docs/attention_scores.md]
  // Tensor parallel: each rank has half of the heads. It takes head_sum and leaves sum and max alone.
  std::vector<float> head_sum(rows * slots);
  for (int rank = 0; rank < 2 && done == md::status::ok; ++rank) {
    std::vector<float> part(rows * slots);
    done = md::attention_scores(on, options, query.narrow(0, 2 * rank, 2), keys.narrow(0, rank, 1), {}, {}, md::view(limits.data(), rows),
                                {}, md::view(&image, 1), {}, {}, md::view(part.data(), rows, slots), scratch);
    for (std::size_t i = 0; i < part.size(); ++i) { head_sum[i] += part[i]; }  // the engine's all-reduce
  }
  // Then every rank reads the sum as a map of one head; heads_total makes it a mean over all of them.
  md::attention_options all_ranks;
  all_ranks.heads_total = heads;
  std::vector<float> sum_of_ranks(slots), max_of_ranks(slots);
  if (done == md::status::ok) {
    done =
        md::attention_scores(on, all_ranks, md::view(head_sum.data(), 1, rows, slots), {}, {}, md::view(limits.data(), rows),
                             md::view(&image, 1), md::view(sum_of_ranks.data(), slots), md::view(max_of_ranks.data(), slots), {}, scratch);
  }
  // [end]
  ASSERT_EQ(done, md::status::ok);
  for (std::size_t j = 0; j < slots; ++j) {
    EXPECT_NEAR(sum_of_ranks[j], sum[j], 1e-6) << j;
    EXPECT_NEAR(max_of_ranks[j], max[j], 1e-6) << j;
  }

  floats lse(rows * heads);
  for (int t = 0; t < rows; ++t) {
    for (int h = 0; h < heads; ++h) {
      double whole = 0;
      for (int j = 0; j < 6 + t; ++j) { whole += std::exp(logit(query, keys, h, t, j)); }
      md::view(lse.data(), rows, heads)(t, h) = static_cast<float>(std::log2(whole));
    }
  }
  // [docs/attention_scores.md]
  // With the attention kernel's log-sum-exp only the keys in question are read: the image's four.
  md::attention_options with_lse = options;
  with_lse.lse_base = md::log_base::two;                                                 // FlashInfer; FlashAttention: log_base::e
  md::tensor_view<float const, 2> const row_lse{lse.data(), {heads, rows}, {1, heads}};  // stored [rows, heads]
  std::vector<float> image_sum(4), image_max(4);
  if (done == md::status::ok) {
    done = md::attention_scores(on, with_lse, query, keys.narrow(1, image.begin, 4), {}, {}, {}, row_lse, {}, md::view(image_sum.data(), 4),
                                md::view(image_max.data(), 4), {}, scratch);
  }
  // [end]
  ASSERT_EQ(done, md::status::ok);
  for (std::size_t j = 0; j < 4; ++j) {
    EXPECT_NEAR(image_sum[j], sum[j + 1], 1e-6) << j;
    EXPECT_NEAR(image_max[j], max[j + 1], 1e-6) << j;
  }
}

TEST(TopKPage, EachImageKeepsItsOwnNumber) {
  // [docs/top_k.md]
  md::reference::backend const on;
  std::vector<float> const scores = {0.5f, 0.25f, 0.5f, 0.125f, 3, 1, 2};  // image 0 has four tokens, image 1 has three
  std::vector<std::int32_t> const offsets = {0, 4, 7}, wanted = {1, 2};
  md::segments const images{2, offsets.data()};

  constexpr int capacity = 2;
  std::vector<std::int32_t> indices(2 * capacity), counts(2);
  md::keep_lists<std::int32_t> const keep{md::view(indices.data(), 2, capacity), md::view(counts.data(), 2)};
  struct alignas(64) cache_line {
    char bytes[64];
  };
  std::size_t const bytes = md::top_k_workspace_size(on, 7, images);
  std::vector<cache_line> scratch(bytes / 64 + 1);
  md::status const done = md::top_k(on, {}, md::view(scores.data(), 7), images, md::view(wanted.data(), 2), keep, {scratch.data(), bytes});
  // image 0: 0 (ties with 2, and is the smaller index) · image 1: 0 2 (counted from its begin)
  // [end]
  ASSERT_EQ(done, md::status::ok);
  EXPECT_EQ(entries(keep, 0), (ints{0}));
  EXPECT_EQ(entries(keep, 1), (ints{0, 2}));
}

TEST(WindowMergePage, TheCountIsKnownBeforeTheData) {
  // [docs/window_merge.md]
  md::reference::backend const on;
  md::token_grid grid;
  grid.rows = 2, grid.cols = 4;  // and CLS in front
  md::window_shape window;
  window.rows = 2, window.cols = 2;
  md::merge_options options;
  options.count = 1;  // exactly one window merges, whichever it is: placeholders can be reserved now
  constexpr int tokens = 9, dim = 1, windows = 2;
  md::index_t const reserved = md::retained_count(options, window, grid);  // 6

  std::vector<float> const features = {0, 1, 2, 5, 6, 3, 4, 7, 8}, similarity = {0.25f, 0.875f};
  std::vector<float> rows(tokens * dim), sizes(tokens);
  std::vector<std::int32_t> source(tokens), indices(tokens), counts(1);
  md::keep_lists<std::int32_t> const keep{md::view(indices.data(), 1, tokens), md::view(counts.data(), 1)};
  struct alignas(64) cache_line {
    char bytes[64];
  };
  std::size_t const bytes = md::window_merge_workspace_size(on, window, tokens, dim, windows, {});
  std::vector<cache_line> scratch(bytes / 64 + 1);
  md::status const done = md::window_merge(on, options, window, md::view(features.data(), tokens, dim), {}, md::view(&grid, 1),
                                           md::view(similarity.data(), 1, windows), {}, md::view(rows.data(), tokens, dim),
                                           md::view(sizes.data(), tokens), md::view(source.data(), tokens), keep, {scratch.data(), bytes});
  // keep:    0 1 2 3 5 6         token 3 stands for its window
  // rows:    0 1 2 6.5 3 4       6.5 is the mean of 5, 6, 7 and 8
  // sizes:   1 1 1 4 1 1
  // source:  0 1 2 3 3 4 5 3 3   where each token went
  // [end]
  ASSERT_EQ(done, md::status::ok);
  EXPECT_EQ(reserved, 6);
  ASSERT_EQ(counts[0], reserved);
  EXPECT_EQ(entries(keep), (ints{0, 1, 2, 3, 5, 6}));
  EXPECT_EQ(floats(rows.begin(), rows.begin() + 6), (floats{0, 1, 2, 6.5f, 3, 4}));
  EXPECT_EQ(floats(sizes.begin(), sizes.begin() + 6), (floats{1, 1, 1, 4, 1, 1}));
  EXPECT_EQ(source, (ints{0, 1, 2, 3, 3, 4, 5, 3, 3}));
}

TEST(ClsTopKPage, ABatchOfHeadsByTokensIsSegments) {
  // [docs/cls_topk.md]
  md::reference::backend const on;
  constexpr int batch = 2, heads = 2, tokens = 6;  // [batch, heads, tokens]: CLS's own column, then five patches
  std::vector<float> const attention = {
      0.50f, 0.00f, 0.25f, 0.00f, 0.25f, 0.00f,  // image 0, head 0
      0.25f, 0.25f, 0.25f, 0.00f, 0.25f, 0.00f,  // image 0, head 1
      0.00f, 0.50f, 0.00f, 0.00f, 0.00f, 0.50f,  // image 1, head 0
      0.00f, 0.00f, 0.00f, 0.75f, 0.00f, 0.25f,  // image 1, head 1
  };
  // Image b begins at b·heads·tokens on the token axis; a step of one head is a step of `tokens`.
  std::vector<std::int32_t> const offsets = {0, heads * tokens, heads * tokens + tokens}, sizes = {tokens, tokens};
  md::segments const images{batch, offsets.data(), sizes.data(), tokens};
  constexpr int axis = (batch - 1) * heads * tokens + tokens;
  md::tensor_view<float const, 2> const map{attention.data(), {heads, axis}, {tokens, 1}};

  md::cls_topk_options options;
  options.percent = 40;  // of five patches: two. The default is the paper's 8.
  constexpr int capacity = 2;
  std::vector<std::int32_t> indices(batch * capacity), counts(batch);
  md::keep_lists<std::int32_t> const key_set{md::view(indices.data(), batch, capacity), md::view(counts.data(), batch)};
  struct alignas(64) cache_line {
    char bytes[64];
  };
  std::size_t const bytes = md::cls_topk_workspace_size(on, heads, axis, images);
  std::vector<cache_line> scratch(bytes / 64 + 1);
  md::status const done = md::cls_topk(on, options, map, images, {}, key_set, {scratch.data(), bytes});
  // image 0: 1 3 · image 1: 2 4 (patches, CLS not counted)
  // [end]
  ASSERT_EQ(done, md::status::ok);
  EXPECT_EQ(entries(key_set, 0), (ints{1, 3}));
  EXPECT_EQ(entries(key_set, 1), (ints{2, 4}));
}

TEST(DualMaskPage, TheKeySetFollowsFromStageToStage) {
  // [docs/dual_mask.md]
  md::reference::backend const on;
  struct alignas(64) cache_line {
    char bytes[64];
  };
  std::vector<cache_line> memory(md::dual_mask_workspace_size(on, 8, {}) / 64 + 1);
  md::workspace const scratch{memory.data(), memory.size() * sizeof(cache_line)};
  std::vector<std::int32_t> key_indices = {1, 6}, key_count = {2}, indices(8), count(1);
  auto const lists = [](std::vector<std::int32_t>& entries, std::vector<std::int32_t>& counts) {
    return md::keep_lists<std::int32_t>{md::view(entries.data(), 1, entries.size()), md::view(counts.data(), 1)};
  };

  // After layer 2: attention_scores of the question's rows over eight image tokens. Σ sum is 1, so the share to reach is 1/8.
  std::vector<float> const sum2 = {0.5f, 0.015625f, 0.015625f, 0.25f, 0.015625f, 0.125f, 0.015625f, 0.0625f};
  std::vector<float> const max2 = {0.25f, 0.015625f, 0.015625f, 0.125f, 0.0625f, 0.015625f, 0.015625f, 0.015625f};
  md::dual_mask_options options;
  options.global = 0.125f, options.individual = 0.03125f;
  md::status done = md::dual_mask(on, options, md::view(sum2.data(), 8), md::view(max2.data(), 8), {}, lists(key_indices, key_count), {},
                                  lists(indices, count), scratch);
  // 0 1 3 4 5 6: token 4 is saved by one row, 5 is on the threshold, 1 and 6 are protected

  // The next stage counts its tokens anew: where is the key set now?
  std::vector<std::int32_t> survivors(indices.begin(), indices.begin() + count[0]), next_keys(2), next_key_count(1);
  md::index_t n = 0;
  if (done == md::status::ok) {
    done = md::rebase(md::view(key_indices.data(), 2), md::view(survivors.data(), survivors.size()), md::view(next_keys.data(), 2), n);
    next_key_count[0] = static_cast<std::int32_t>(n);  // 1 5
  }

  // After layer 6: exactly four tokens are to stay, the two protected ones among them.
  std::vector<float> const sum6 = {0.5f, 0.03125f, 0.25f, 0.0625f, 0.125f, 0.03125f}, max6 = sum6;
  options.count = 4;
  if (done == md::status::ok) {
    done = md::dual_mask(on, options, md::view(sum6.data(), 6), md::view(max6.data(), 6), {}, lists(next_keys, next_key_count), {},
                         lists(indices, count), scratch);  // 0 1 2 5 of the six
  }
  std::vector<std::int32_t> original(4);
  if (done == md::status::ok) {
    done = md::compose(md::view(survivors.data(), survivors.size()), md::view(indices.data(), count[0]), md::view(original.data(), 4), n);
  }
  // original: 0 1 3 6
  // [end]
  ASSERT_EQ(done, md::status::ok);
  EXPECT_EQ(survivors, (ints{0, 1, 3, 4, 5, 6}));
  EXPECT_EQ(next_keys, (ints{1, 5}));
  EXPECT_EQ(ints(indices.begin(), indices.begin() + count[0]), (ints{0, 1, 2, 5}));
  EXPECT_EQ(original, (ints{0, 1, 3, 6}));
}

TEST(KvEvictPage, ProtectedSlotsStayAndVisualOnesCompete) {
  // [docs/kv_evict.md]
  md::reference::backend const on;
  using kind = md::slot_kind;
  std::vector<kind> const kinds = {kind::text,   kind::visual, kind::key_set, kind::visual, kind::dropped,
                                   kind::visual, kind::visual, kind::text,    kind::text};
  std::vector<float> const scores = {9, 0.5f, 0, 0.25f, 9, 1, 0.5f, 0, 0};  // what the answer's rows attended to so far

  md::evict_options options;
  options.policy = md::evict_policy::output_aware;
  options.budget = 6, options.sinks = 1, options.recent = 1;
  constexpr int slots = 9;
  std::vector<std::int32_t> indices(slots), counts(1);
  md::keep_lists<std::int32_t> const keep{md::view(indices.data(), 1, slots), md::view(counts.data(), 1)};
  struct alignas(64) cache_line {
    char bytes[64];
  };
  std::size_t const bytes = md::kv_evict_workspace_size(on, slots, {});
  std::vector<cache_line> scratch(bytes / 64 + 1);
  md::status const done =
      md::kv_evict(on, options, md::view(scores.data(), slots), md::view(kinds.data(), slots), {}, {}, keep, {scratch.data(), bytes});
  // 0 1 2 5 7 8: text and key set (0 2 7 8), then the two best of the visual slots (5, and 1 before 6)
  // [end]
  ASSERT_EQ(done, md::status::ok);
  EXPECT_EQ(entries(keep), (ints{0, 1, 2, 5, 7, 8}));
}

TEST(GatherPage, RowsIdsAndNormsFollowOnePlan) {
  // [docs/gather.md]
  md::reference::backend const on;
  std::vector<std::int32_t> const offsets = {0, 3, 6};  // two images of three tokens
  md::segments const images{2, offsets.data()};
  std::vector<std::int32_t> indices = {0, 2, 1, 0}, counts = {2, 1};
  md::keep_lists<std::int32_t> const keep{md::view(indices.data(), 2, 2), md::view(counts.data(), 2)};

  // Hidden states, packed: what stays of both images lies together.
  constexpr int tokens = 6, dim = 2;
  std::vector<float> const hidden = {1, 1, 2, 2, 3, 4, 5, 5, 6, 8, 7, 7};
  std::vector<std::int32_t> packed(3);
  md::status done = md::pack(keep.counts, md::view(packed.data(), 3));  // 0 2 3
  std::vector<float> out(3 * dim), normed(3 * dim);
  if (done == md::status::ok) {
    done = md::gather(on, md::view(hidden.data(), tokens, dim), images, keep, md::view(out.data(), 3, dim), md::view(packed.data(), 3));
  }
  // out: 1 1 · 3 4 · 6 8

  // Ids, in place of capacity: each image begins where it began. `images` with counts is the next word's input.
  std::vector<std::int64_t> const ids = {100, 101, 102, 200, 201, 202};
  std::vector<std::int64_t> kept_ids(tokens, -1);
  if (done == md::status::ok) { done = md::gather(on, md::view(ids.data(), tokens), images, keep, md::view(kept_ids.data(), tokens), {}); }
  md::segments const shrunk{2, offsets.data(), counts.data()};
  // kept_ids: 100 102 -1 · 201 -1 -1

  // The first thing that the next layer does with a row is to norm it: do both at once.
  std::vector<float> const weight = {1, 2};
  md::rms_norm const norm{md::view(weight.data(), dim), 1e-6f};
  if (done == md::status::ok) {
    done = md::gather(on, norm, md::view(hidden.data(), tokens, dim), images, keep, md::view(normed.data(), 3, dim),
                      md::view(packed.data(), 3));
  }
  // normed: 1 2 · 0.849 2.263 · 0.849 2.263
  // [end]
  ASSERT_EQ(done, md::status::ok);
  EXPECT_EQ(packed, (ints{0, 2, 3}));
  EXPECT_EQ(out, (floats{1, 1, 3, 4, 6, 8}));
  EXPECT_EQ(kept_ids, (std::vector<std::int64_t>{100, 102, -1, 201, -1, -1}));
  EXPECT_EQ(md::check(shrunk, tokens), md::status::ok);
  float const expected[] = {1, 2, 0.849f, 2.263f, 0.849f, 2.263f};
  for (std::size_t i = 0; i < 6; ++i) { EXPECT_NEAR(normed[i], expected[i], 5e-4) << i; }  // as the page rounds them
}

TEST(MergeRowsPage, ARowWeighsAsManyTokensAsItStandsFor) {
  // [docs/merge_rows.md]
  md::reference::backend const on;
  constexpr int tokens = 4, dim = 1;
  std::vector<float> const rows = {2, 6, 1, 5}, sizes = {3, 1, 1, 1};  // row 0 is a mean of three tokens already
  std::vector<std::int32_t> const source = {0, 0, 1, 1};
  std::vector<float> out(tokens * dim), out_sizes(tokens);
  md::status const done =
      md::merge_rows(on, md::view(rows.data(), tokens, dim), md::view(sizes.data(), tokens), md::view(source.data(), tokens), {},
                     md::view(out.data(), tokens, dim), md::view(out_sizes.data(), tokens), {});
  // out: 3 3 (as 2·3 + 6 over 4, and 1 + 5 over 2), then two rows that were not written · out_sizes: 4 2
  // [end]
  ASSERT_EQ(done, md::status::ok);
  EXPECT_EQ(out, (floats{3, 3, 0, 0}));
  EXPECT_EQ(out_sizes, (floats{4, 2, 0, 0}));
}

TEST(SpreadRowsPage, EveryTokenGetsItsRowBack) {
  // [docs/spread_rows.md]
  md::reference::backend const on;
  constexpr int tokens = 6, rows = 3, dim = 2;
  std::vector<float> const merged = {1, 1, 2, 2, 3, 3};         // what a head behind the encoder made of three rows
  std::vector<std::int32_t> const source = {0, 1, 1, 1, 1, 2};  // from window_merge
  std::vector<float> out(tokens * dim);
  md::status const done =
      md::spread_rows(on, md::view(merged.data(), rows, dim), md::view(source.data(), tokens), {}, {}, md::view(out.data(), tokens, dim));
  // out: 1 1 · 2 2 · 2 2 · 2 2 · 2 2 · 3 3
  // [end]
  ASSERT_EQ(done, md::status::ok);
  EXPECT_EQ(out, (floats{1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3}));
}

// [docs/compact.md]
/// [slots, heads, dim]: llama.cpp's K, and its V with FlashAttention. Quantised slots are bytes too: a q8_0 head takes dim / 32 · 34.
md::kv_cache token_major(void* data, md::index_t heads, md::index_t head_bytes) {
  md::kv_cache cache;
  cache.data = data, cache.heads = heads, cache.slot_bytes = head_bytes;
  cache.head_stride = head_bytes, cache.slot_stride = heads * head_bytes;
  return cache;
}

/// [requests, heads, capacity, dim]: LibTorch, ONNX Runtime. Request q follows keep list q.
md::kv_cache with_capacity(void* data, md::index_t requests, md::index_t heads, md::index_t capacity, md::index_t head_bytes) {
  md::kv_cache cache;
  cache.data = data, cache.requests = requests, cache.heads = heads, cache.slot_bytes = head_bytes;
  cache.request_stride = heads * capacity * head_bytes, cache.head_stride = capacity * head_bytes, cache.slot_stride = head_bytes;
  return cache;
}

/// [heads, dim, capacity]: llama.cpp's V without FlashAttention. A slot lies in dim pieces.
md::kv_cache transposed(void* data, md::index_t heads, md::index_t dim, md::index_t capacity, md::index_t element_bytes) {
  md::kv_cache cache;
  cache.data = data, cache.heads = heads, cache.slot_bytes = dim * element_bytes, cache.slot_stride = element_bytes;
  cache.pieces = dim, cache.piece_stride = capacity * element_bytes, cache.head_stride = dim * cache.piece_stride;
  return cache;
}

/// [pages, 2, page_slots, heads, dim]: vLLM; K begins at the pool, V half a page behind it. FlashInfer's HND only swaps two strides.
md::kv_cache paged(void* first, md::index_t requests, md::index_t heads, md::index_t head_bytes, md::index_t page_slots,
                   std::int32_t const* block_table, md::index_t table_row) {
  md::kv_cache cache = token_major(first, heads, head_bytes);
  cache.requests = requests;
  cache.pages.pages32 = block_table, cache.pages.request_stride = table_row;
  cache.pages.page_slots = page_slots, cache.pages.page_stride = 2 * page_slots * cache.slot_stride;
  return cache;
}
// [end]

TEST(CompactPage, KAndVOfOneLayerMoveInOneCall) {
  // [docs/compact.md]
  constexpr int heads = 2, dim = 2, capacity = 4;
  std::vector<float> k = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3};  // [slots, heads, dim]
  std::vector<float> v = {0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3};  // [heads, dim, slots]
  std::vector<md::kv_cache> caches = {token_major(k.data(), heads, dim * sizeof(float)),
                                      transposed(v.data(), heads, dim, capacity, sizeof(float))};
  std::vector<std::int32_t> indices = {0, 2, 3}, counts = {3};
  md::keep_lists<std::int32_t> const keep{md::view(indices.data(), 1, 3), md::view(counts.data(), 1)};
  md::status const done = md::compact(md::reference::backend{}, md::view(caches.data(), caches.size()), {}, keep);
  // slots 0, 2 and 3 are slots 0, 1 and 2 now, in K and in V; the cache's length is 3 from here on
  // [end]
  ASSERT_EQ(done, md::status::ok);
  EXPECT_EQ(k, (floats{0, 0, 0, 0, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3}));
  EXPECT_EQ(v, (floats{0, 2, 3, 3, 0, 2, 3, 3, 0, 2, 3, 3, 0, 2, 3, 3}));
}

TEST(CompactPage, CachesOfRequestsAndPagesFollowListsOfTheirOwn) {
  constexpr int requests = 2, heads = 2, dim = 1, capacity = 4;
  auto const value = [](int q, int h, int i) { return static_cast<float>(100 * q + 10 * h + i); };
  floats dense(requests * heads * capacity * dim), pool(std::size_t{6} * 2 * 2 * heads * dim, -1.0f);
  ints const table = {5, 1, 0, 3};                           // two pages of two slots for each request, of a pool of six
  auto const pages = md::view(pool.data(), 6, 2, 2, heads);  // [pages, K and V, page_slots, heads]
  for (int q = 0; q < requests; ++q) {
    for (int h = 0; h < heads; ++h) {
      for (int i = 0; i < capacity; ++i) {
        md::view(dense.data(), requests, heads, capacity)(q, h, i) = value(q, h, i);
        for (int kv = 0; kv < 2; ++kv) { pages(md::view(table.data(), 2, 2)(q, i / 2), kv, i % 2, h) = value(q, h, i); }
      }
    }
  }
  std::vector<md::kv_cache> const caches = {with_capacity(dense.data(), requests, heads, capacity, sizeof(float)),
                                            paged(pool.data(), requests, heads, sizeof(float), 2, table.data(), 2),
                                            paged(&pages(0, 1, 0, 0), requests, heads, sizeof(float), 2, table.data(), 2)};
  ints indices = {1, 3, 0, 2}, counts = {2, 2};
  md::keep_lists<std::int32_t> const keep{md::view(indices.data(), 2, 2), md::view(counts.data(), 2)};
  ASSERT_EQ(md::compact(md::reference::backend{}, md::view(caches.data(), caches.size()), {requests}, keep), md::status::ok);
  for (int q = 0; q < requests; ++q) {
    for (int h = 0; h < heads; ++h) {
      for (int i = 0; i < 2; ++i) {
        float const expected = value(q, h, keep.indices(q, i));
        EXPECT_EQ(md::view(dense.data(), requests, heads, capacity)(q, h, i), expected);
        for (int kv = 0; kv < 2; ++kv) { EXPECT_EQ(pages(md::view(table.data(), 2, 2)(q, 0), kv, i, h), expected); }
      }
    }
  }
}

TEST(PositionsPage, TextBehindTheImageMovesByDelta) {
  // [docs/positions.md]
  md::reference::backend const on;
  // 1-D RoPE, in an engine whose positions must be consecutive. The image sits at 4 … 9, the question begins at 10.
  std::vector<std::int32_t> const old = {4, 5, 6, 7, 8, 9};
  std::vector<std::int32_t> indices = {0, 2, 5}, counts = {3};
  md::keep_lists<std::int32_t> const keep{md::view(indices.data(), 1, 3), md::view(counts.data(), 1)};
  std::vector<std::int32_t> flat(3), delta(1);
  md::status done = md::positions(on, md::position_policy::renumbered, md::view(old.data(), 6), {}, keep, md::view(flat.data(), 3),
                                  md::view(delta.data(), 1), {});
  // flat: 4 5 6 · delta: -3, so the question begins at 7

  // M-RoPE (t, h, w): an image of 2 x 3 patches at 4. Text behind an image goes on from its largest position.
  std::vector<std::int32_t> const old3 = {
      4, 4, 4, 4, 4, 4,  // t
      4, 4, 4, 5, 5, 5,  // h
      4, 5, 6, 4, 5, 6,  // w
  };
  indices = {0, 1, 4};
  std::vector<std::int32_t> grid(3 * 3), grid_delta(1);
  if (done == md::status::ok) {
    done = md::positions(on, md::position_policy::closed, md::view(old3.data(), 3, 6), {}, keep, md::view(grid.data(), 3, 3),
                         md::view(grid_delta.data(), 1), {});
  }
  // grid: t 4 4 4 · h 4 4 5 · w 4 5 5 · delta: -1 (the largest was 6 and is 5)
  // [end]
  ASSERT_EQ(done, md::status::ok);
  EXPECT_EQ(flat, (ints{4, 5, 6}));
  EXPECT_EQ(delta, (ints{-3}));
  EXPECT_EQ(grid, (ints{4, 4, 4, 4, 4, 5, 4, 5, 5}));
  EXPECT_EQ(grid_delta, (ints{-1}));
}

TEST(RerotatePage, AKeyTurnsToWhereItWouldHaveBeen) {
  // [docs/rerotate.md]
  md::reference::backend const on;
  constexpr int heads = 1, capacity = 4, dim = 4;
  std::vector<float> const inv_freq = {1, 0.01f};             // base^(-2f/dim) with base 10000
  std::vector<std::int32_t> const old = {4, 6, 9, 0};         // as cached, after compact has closed the gaps
  std::vector<std::int32_t> const renumbered = {4, 5, 6, 0};  // from positions; slot 3 is not in use
  std::vector<float> k(heads * capacity * dim);               // [heads, capacity, dim], Llama's half-split pairs
  auto const keys = md::view(k.data(), heads, capacity, dim);
  for (int i = 0; i < 3; ++i) {  // here: the key (1, 1, 0, 0) of every slot, turned to its old position
    for (int f = 0; f < 2; ++f) {
      float const angle = static_cast<float>(md::view(old.data(), capacity)(i)) * md::view(inv_freq.data(), 2)(f);
      keys(0, i, f) = std::cos(angle), keys(0, i, f + 2) = std::sin(angle);
    }
  }
  std::vector<std::int32_t> const offsets = {0, capacity}, length = {3};
  md::status const done = md::rerotate(on, md::rope_pairs::half_split, keys, {1, offsets.data(), length.data()},
                                       md::view(old.data(), capacity), md::view(renumbered.data(), capacity), md::view(inv_freq.data(), 2));
  // keys(0, i, …) are now as if slot i had been cached at position 4 + i
  // [end]
  ASSERT_EQ(done, md::status::ok);
  for (int i = 0; i < 3; ++i) {
    for (int f = 0; f < 2; ++f) {
      double const angle = (4.0 + i) * (f == 0 ? 1.0 : 0.01);
      // 3e-7 from the turn, as much from the float angle and libm's rounding in the key that came in.
      EXPECT_NEAR(keys(0, i, f), std::cos(angle), 1e-6) << i << ' ' << f;
      EXPECT_NEAR(keys(0, i, f + 2), std::sin(angle), 1e-6) << i << ' ' << f;
    }
  }
  for (int d = 0; d < dim; ++d) { EXPECT_EQ(keys(0, 3, d), 0); }
}

TEST(PlanPage, TwoStagesBecomeOneListRunsMovesAndAMask) {
  // [docs/plan.md]
  // 4 system tokens, 6 image tokens, 2 of the question. Stage 1 kept four image tokens, stage 2 two of those.
  std::vector<std::int32_t> const first = {0, 2, 3, 5}, second = {1, 3};
  std::vector<std::int32_t> image(2), sequence(12);
  std::vector<md::run> runs(12);
  std::vector<md::move> moves(12);
  std::vector<std::uint8_t> mask(12);
  md::index_t n = 0, run_count = 0, move_count = 0;

  md::status done = md::compose(md::view(first.data(), 4), md::view(second.data(), 2), md::view(image.data(), 2), n);  // 2 5
  if (done == md::status::ok) {
    done = md::in_sequence(md::view(image.data(), n), {4, 6}, 12, md::view(sequence.data(), 12), n);  // 0 1 2 3 6 9 10 11
  }
  auto const keep = md::view(sequence.data(), n);
  if (done == md::status::ok) { done = md::to_runs(keep, md::view(runs.data(), 12), run_count); }     // 0+4  6+1  9+3
  if (done == md::status::ok) { done = md::to_moves(keep, md::view(moves.data(), 12), move_count); }  // 0→0 x4  6→4 x1  9→5 x3
  if (done == md::status::ok) { done = md::to_mask(keep, md::view(mask.data(), 12)); }                // 1 1 1 1 0 0 1 0 0 1 1 1
  // [end]
  ASSERT_EQ(done, md::status::ok);
  EXPECT_EQ(image, (ints{2, 5}));
  ASSERT_EQ(n, 8);
  EXPECT_EQ(ints(sequence.begin(), sequence.begin() + 8), (ints{0, 1, 2, 3, 6, 9, 10, 11}));
  md::run const expected_runs[] = {{0, 4}, {6, 1}, {9, 3}};
  md::move const expected_moves[] = {{0, 0, 4}, {6, 4, 1}, {9, 5, 3}};
  ASSERT_EQ(run_count, 3);
  ASSERT_EQ(move_count, 3);
  for (std::size_t r = 0; r < 3; ++r) {
    EXPECT_EQ(runs[r].begin, expected_runs[r].begin);
    EXPECT_EQ(runs[r].length, expected_runs[r].length);
    EXPECT_EQ(moves[r].source, expected_moves[r].source);
    EXPECT_EQ(moves[r].destination, expected_moves[r].destination);
    EXPECT_EQ(moves[r].length, expected_moves[r].length);
  }
  EXPECT_EQ(mask, (std::vector<std::uint8_t>{1, 1, 1, 1, 0, 0, 1, 0, 0, 1, 1, 1}));
}

TEST(BudgetPage, AMeanBecomesACountForEachStage) {
  // [docs/budget.md]
  constexpr int layers = 32, stages = 4;
  std::vector<std::int32_t> const prune_after = {2, 6, 10, 14};
  md::budget_options options;
  options.tokens = 576, options.layers = layers, options.target = 192;  // a mean of 192 tokens that layers run on
  options.at_least = md::key_set_size(576);                             // 47: the key set stays whatever happens

  std::vector<std::int32_t> counts(stages), trace(layers);
  auto const after = md::view(prune_after.data(), stages);
  md::status done = md::stage_counts(options, after, md::view(counts.data(), stages));  // 363 226 141 88
  if (done == md::status::ok) {
    done = md::layer_trace(576, layers, after, md::view(counts.data(), stages), md::budget_reading::ran_on, md::view(trace.data(), layers));
  }
  double const ran_on = md::average(md::view(trace.data(), layers));  // 192
  if (done == md::status::ok) {
    done = md::layer_trace(576, layers, after, md::view(counts.data(), stages), md::budget_reading::after_pruning,
                           md::view(trace.data(), layers));
  }
  double const as_papers_print_it = md::average(md::view(trace.data(), layers));  // 176.75
  // [end]
  ASSERT_EQ(done, md::status::ok);
  EXPECT_EQ(counts, (ints{363, 226, 141, 88}));
  EXPECT_NEAR(ran_on, 192, 0.005);
  EXPECT_NEAR(as_papers_print_it, 176.75, 0.005);
}

TEST(NumericsPage, AnEngineCanRepeatTheBits) {
  // [docs/numerics.md]
  md::half const h{0x3c00};                                            // the 16 bits of a __half or ggml_fp16_t
  float const one = md::widen(h);                                      // 1, exactly
  md::bfloat16 const even = md::narrow<md::bfloat16>(1.0f + 0x1p-8f);  // half way between two: 0x3f80, the even one

  std::vector<float> const shares(100, 0.125f);
  md::lane_sum sum;  // the sum that dual_mask compares with: 32 lanes, folded by halves
  md::index_t i = 0;
  for (float const share : shares) { sum.add(i++, share); }
  float const total = sum.total();  // 12.5

  bool const smaller_index_wins = md::score_key(0.5f, 3) > md::score_key(0.5f, 7);
  bool const nan_is_last = md::score_order(std::nanf("")) < md::score_order(-INFINITY);
  // [end]
  EXPECT_EQ(one, 1);
  EXPECT_EQ(even.bits, 0x3f80);
  EXPECT_EQ(total, 12.5f);
  EXPECT_TRUE(smaller_index_wins);
  EXPECT_TRUE(nan_is_last);
}

TEST(ViewPage, OneCacheIsSeenInTwoOrders) {
  // [docs/view.md]
  // A K cache [kv_heads, capacity, head_dim] of which 3 slots are in use …
  constexpr int kv_heads = 2, capacity = 8, head_dim = 4;
  std::vector<float> k(kv_heads * capacity * head_dim);
  auto const keys = md::view(k.data(), kv_heads, capacity, head_dim).narrow(1, 0, 3);
  // … and one that is stored [slots, heads, dim], as words want it: [heads, slots, dim]. Only the last stride must be 1.
  std::vector<float> other(3 * kv_heads * head_dim);
  md::tensor_view<float, 3> const token_major{other.data(), {kv_heads, 3, head_dim}, {head_dim, kv_heads * head_dim, 1}};
  keys(1, 2, 3) = 7, token_major(1, 2, 3) = 7;
  // [end]
  EXPECT_EQ(k[(1 * 8 + 2) * 4 + 3], 7);
  EXPECT_EQ(other[(2 * 2 + 1) * 4 + 3], 7);
  EXPECT_EQ(keys.size(1), 3);
  EXPECT_EQ(std::accumulate(k.begin(), k.end(), 0.0f) + std::accumulate(other.begin(), other.end(), 0.0f), 14);
}

TEST(ViewPage, ListsAndOffsetsFromOutsideAreChecked) {
  // [docs/view.md]
  // Two images of 4 and 5 tokens. An earlier word has shrunk them in place to 3 and 2.
  std::vector<std::int32_t> const offsets = {0, 4, 9}, left = {3, 2};
  md::segments images{2, offsets.data(), left.data()};
  images.longest = 4;  // known on the host; lists need no more capacity than that

  std::vector<std::int64_t> indices = {0, 2, 0, 0, 1, 0, 0, 0};
  std::vector<std::int32_t> counts = {2, 1};
  md::keep_lists<std::int64_t> const keep{md::view(indices.data(), 2, 4), md::view(counts.data(), 2)};
  md::status const good = md::check(keep, images, 9);  // ok
  indices[1] = 3;                                      // image 0 has tokens 0, 1 and 2 only
  md::status const bad = md::check(keep, images, 9);   // bad_argument
  // [end]
  EXPECT_EQ(good, md::status::ok);
  EXPECT_EQ(bad, md::status::bad_argument);

  // [docs/view.md]
  // Memory for a workspace: aligned to 64 bytes, at least as long as the word says. One for all calls will do: take the largest.
  struct alignas(64) cache_line {
    char bytes[64];
  };
  std::size_t const needed = md::cls_topk_workspace_size(md::reference::backend{}, 16, 577, {});
  std::vector<cache_line> memory((needed + 63) / 64);
  md::workspace const scratch{memory.data(), memory.size() * sizeof(cache_line)};
  // [end]
  EXPECT_TRUE(scratch.holds(needed));
  EXPECT_FALSE(scratch.holds(scratch.bytes + 1));
}

TEST(MethodsPage, ThreeMethodsReduceOneImage) {
  // [docs/methods.md]
  md::reference::backend const on;
  md::token_grid grid;
  grid.rows = 2, grid.cols = 4;
  md::window_shape window;
  window.rows = 2, window.cols = 2;
  constexpr int tokens = 9, dim = 2, windows = 2;
  std::vector<float> const features = {
      9, 9,                    // CLS
      1, 0, 2, 0, 1, 0, 0, 1,  // two windows of 2 x 2 patches: all of one direction …
      3, 0, 6, 0, 0, 5, 6, 0,  // … and of two
  };
  std::vector<float> similarity(windows), rows(tokens * dim), sizes(tokens), scores(tokens);
  std::vector<std::int32_t> source(tokens), indices(tokens), counts(1);
  md::keep_lists<std::int32_t> const keep{md::view(indices.data(), 1, tokens), md::view(counts.data(), 1)};
  struct alignas(64) cache_line {
    char bytes[64];
  };
  std::size_t const bytes = md::method::merge_similar_workspace_size(on, window, tokens, dim, windows, {});
  std::vector<cache_line> memory(bytes / 64 + 1);
  md::workspace const scratch{memory.data(), bytes};

  // MustDrop's stage 1: the first window is above 0.8 and becomes one token.
  md::status done = md::method::merge_similar(on, {}, window, md::view(features.data(), tokens, dim), {}, md::view(&grid, 1), {},
                                              md::view(similarity.data(), 1, windows), md::view(rows.data(), tokens, dim),
                                              md::view(sizes.data(), tokens), md::view(source.data(), tokens), keep, scratch);
  std::vector<std::int32_t> const merged(indices.begin(), indices.begin() + counts[0]);  // 0 1 3 4 7 8

  // Pooling merges every window, whatever is in it.
  if (done == md::status::ok) {
    done = md::method::pooling(on, window, md::view(features.data(), tokens, dim), {}, md::view(&grid, 1), {},
                               md::view(rows.data(), tokens, dim), md::view(sizes.data(), tokens), md::view(source.data(), tokens), keep,
                               scratch);
  }
  std::vector<std::int32_t> const pooled(indices.begin(), indices.begin() + counts[0]);  // 0 1 3

  // Random keeps as many as are asked for; a seed keeps the same ones everywhere.
  std::vector<std::int32_t> const wanted = {3};
  if (done == md::status::ok) {
    done = md::method::random(on, {42}, {}, md::view(wanted.data(), 1), md::view(scores.data(), tokens), keep, scratch);
  }
  std::vector<std::int32_t> const drawn(indices.begin(), indices.begin() + counts[0]);  // 0 5 7
  // [end]
  ASSERT_EQ(done, md::status::ok);
  EXPECT_EQ(merged, (ints{0, 1, 3, 4, 7, 8}));
  EXPECT_EQ(pooled, (ints{0, 1, 3}));
  EXPECT_EQ(drawn, (ints{0, 5, 7}));
}

}  // namespace
