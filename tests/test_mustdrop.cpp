// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <set>
#include <vector>

#include <mustdrop/method/mustdrop.hpp>

#include "backends.hpp"
#include "memory.hpp"

namespace {

using floats = std::vector<float>;
using ints = std::vector<std::int32_t>;
using md::status;

floats random_floats(std::mt19937& random, md::index_t n) {
  std::uniform_real_distribution<float> number(-1, 1);
  floats values(static_cast<std::size_t>(n));
  for (float& value : values) { value = number(random); }
  return values;
}

testing::AssertionResult all_same(floats const& a, floats const& b) {
  if (!std::equal(a.begin(), a.end(), b.begin(), b.end(), same)) {
    return testing::AssertionFailure() << testing::PrintToString(a) << " is not " << testing::PrintToString(b);
  }
  return testing::AssertionSuccess();
}

TEST(MustdropParameters, AreThePublishedOnes) {
  EXPECT_EQ(ints(std::begin(md::method::mustdrop_prune_after), std::end(md::method::mustdrop_prune_after)), (ints{2, 6, 10, 14}));
  auto const thresholds = [](md::dual_mask_options mask) { return floats{mask.global, mask.individual, static_cast<float>(mask.count)}; };
  EXPECT_EQ(thresholds(md::method::mustdrop_textvqa_192), (floats{0.001f, 0.001f, -1}));
  EXPECT_EQ(thresholds(md::method::mustdrop_textvqa_128), (floats{0.0012f, 0.001f, -1}));
  EXPECT_EQ(thresholds(md::method::mustdrop_textvqa_64), (floats{0.011f, 0.01f, -1}));
  EXPECT_EQ(thresholds(md::method::mustdrop_vizwiz_64), (floats{0.005f, 0.001f, -1}));
}

TEST(MustdropParameters, TheDefaultsOfItsWordsAreThePapers) {
  EXPECT_EQ(md::merge_options{}.threshold, 0.8f);
  EXPECT_EQ(md::merge_options{}.count, -1);
  EXPECT_EQ(md::window_shape{}.rows, 3);
  EXPECT_EQ(md::window_shape{}.cols, 3);
  EXPECT_EQ(md::window_shape{}.frames, 1);
  EXPECT_EQ(md::cls_topk_options{}.percent, 8);
  EXPECT_EQ(retained_count(md::cls_topk_options{}, 577), 47);  // CLS and 24 × 24 patches
  EXPECT_EQ(md::evict_options{}.policy, md::evict_policy::survivors);
}

/// Stage 1 on an image of 7 × 6 patches with CLS in front and one of 3 × 3 patches with a suffix token behind: 4 windows and 1.
template <class Backend>
struct merge_call {
  static constexpr md::index_t tokens = 43 + 10, dim = 5, windows = 4;
  floats feature_memory = floats(tokens * dim, 1), similarity_memory = floats(2 * windows, -7), row_memory = floats(tokens * dim, -7),
         size_memory = floats(tokens, -7);
  std::vector<md::token_grid> grid_memory{{7, 6, 1, 1, 0}, {3, 3, 1, 0, 1}};
  ints offsets{0, 43, 53}, requested_memory{2, 1}, source_memory = ints(tokens, -7), indices = ints(2 * 43, -7), counts{-7, -7};

  md::merge_options options;
  md::window_shape window;
  md::tensor_view<float, 2> features = md::view(feature_memory.data(), tokens, dim), rows = md::view(row_memory.data(), tokens, dim);
  md::segments segments{2, offsets.data(), nullptr, 43};
  md::tensor_view<md::token_grid const, 1> grids = md::view(grid_memory.data(), 2);
  md::tensor_view<std::int32_t const, 1> requested;
  md::tensor_view<float, 2> similarity = md::view(similarity_memory.data(), 2, windows);
  md::tensor_view<float, 1> sizes = md::view(size_memory.data(), tokens);
  md::tensor_view<std::int32_t, 1> source = md::view(source_memory.data(), tokens);
  md::keep_lists<std::int32_t> keep{md::view(indices.data(), 2, 43), md::view(counts.data(), 2)};
  aligned_memory memory{md::method::merge_similar_workspace_size(Backend{}, window, tokens, dim, windows, segments)};
  md::workspace scratch = memory.lend();

  status method() {
    return md::method::merge_similar(Backend{}, options, window, features, segments, grids, requested, similarity, rows, sizes, source,
                                     keep, scratch);
  }
  status words() {
    status s = md::window_similarity(Backend{}, window, features, segments, grids, similarity, scratch);
    if (s != status::ok) { return s; }
    return md::window_merge(Backend{}, options, window, features, segments, grids, similarity, requested, rows, sizes, source, keep,
                            scratch);
  }
};

template <class Backend>
void expect_equal(merge_call<Backend> const& a, merge_call<Backend> const& b) {
  EXPECT_TRUE(all_same(a.similarity_memory, b.similarity_memory));
  EXPECT_TRUE(all_same(a.row_memory, b.row_memory));
  EXPECT_TRUE(all_same(a.size_memory, b.size_memory));
  EXPECT_EQ(a.source_memory, b.source_memory);
  EXPECT_EQ(a.indices, b.indices);
  EXPECT_EQ(a.counts, b.counts);
}

template <class Backend>
struct Mustdrop : testing::Test {};
TYPED_TEST_SUITE(Mustdrop, Backends);

TYPED_TEST(Mustdrop, MergeSimilarIsItsTwoWords) {
  std::mt19937 random = printed_random(71);
  std::set<std::int32_t> seen;
  for (int round = 0; round < 20; ++round) {
    merge_call<TypeParam> method, words;
    auto features = random_floats(random, method.tokens * method.dim);
    for (float& value : features) { value = value * 0.5f + 0.5f; }  // cosines on both sides of the threshold
    if (round % 5 == 4) { features[100] = quiet_nan; }
    for (auto* call : {&method, &words}) {
      call->feature_memory = features;
      call->features = md::view(call->feature_memory.data(), call->tokens, call->dim);
      if (round % 3 == 1) { call->requested = md::view(call->requested_memory.data(), 2); }
      if (round % 3 == 2) { call->options = {0.8f, 3, md::output_order::score}; }
    }
    ASSERT_EQ(method.method(), status::ok);
    ASSERT_EQ(words.words(), status::ok);
    expect_equal(method, words);
    seen.insert(method.counts[0]);
  }
  EXPECT_GT(seen.size(), 2u) << "the rounds should differ in what merges";
}

// Tokens 0 (CLS), then 7 × 6 patches, all alike but the last window's: 3 of 4 windows merge, and the row below the windows stays.
TYPED_TEST(Mustdrop, AlikePatchesMergeAndTheRestStays) {
  merge_call<TypeParam> call;
  for (md::index_t row = 3; row < 6; ++row) {
    for (md::index_t col = 3; col < 6; ++col) { call.features(1 + row * 6 + col, 0) = (row + col) % 2 == 0 ? 8.0f : -8.0f; }
  }
  ASSERT_EQ(call.method(), status::ok);
  EXPECT_EQ(call.counts, (ints{43 - 3 * 8, 10 - 8}));
  EXPECT_EQ(ints(call.indices.begin(), call.indices.begin() + 4), (ints{0, 1 + 6 + 1, 1 + 6 + 4, 1 + 3 * 6 + 3}));
  EXPECT_EQ(call.size_memory[0], 1);
  EXPECT_EQ(call.size_memory[1], 9);
  EXPECT_EQ(ints(call.indices.begin() + 43, call.indices.begin() + 45), (ints{4, 9}));
}

/// Unless a changed call is ok, nothing may have been written, similarity included.
template <class Backend, class Change>
status merge_after(Change const& change) {
  merge_call<Backend> call, fresh;
  change(call);
  status const got = call.method();
  if (got != status::ok) { expect_equal(call, fresh); }
  return got;
}

TYPED_TEST(Mustdrop, MergeSimilarRefusesWhatEitherWordRefuses) {
  EXPECT_EQ(merge_after<TypeParam>([](auto&) {}), status::ok);
  EXPECT_EQ(merge_after<TypeParam>([](auto& c) { c.keep.indices.sizes[1] = 42; }), status::bad_shape);  // the second word's
  EXPECT_EQ(merge_after<TypeParam>([](auto& c) { c.sizes.sizes[0] = 9; }), status::bad_shape);
  EXPECT_EQ(merge_after<TypeParam>([](auto& c) { c.similarity.sizes[0] = 1; }), status::bad_shape);               // both words'
  EXPECT_EQ(merge_after<TypeParam>([](auto& c) { c.similarity = {}, c.options.count = 1; }), status::bad_shape);  // the first word's
  EXPECT_EQ(merge_after<TypeParam>([](auto& c) { c.rows.strides[1] = 2; }), status::bad_stride);
  EXPECT_EQ(merge_after<TypeParam>([](auto& c) { c.features.strides[1] = 2; }), status::bad_stride);
  EXPECT_EQ(merge_after<TypeParam>([](auto& c) { c.options.threshold = quiet_nan; }), status::bad_argument);
  EXPECT_EQ(merge_after<TypeParam>([](auto& c) { c.options.count = -2; }), status::bad_argument);
  EXPECT_EQ(merge_after<TypeParam>([](auto& c) { c.window = {1, 1, 1}; }), status::bad_argument);
}

/// Stage 2 on two requests of 6 and 5 keys whose images are their keys [1, 5) and [0, 4), with 2 and 1 rows of text behind them.
template <class Backend>
struct mask_call {
  static constexpr md::index_t heads = 4, kv_heads = 2, rows = 3, keys = 11, dim = 5;
  floats query_memory = floats(heads * rows * dim, 0), key_memory = floats(kv_heads * keys * dim, 0), sum_memory = floats(keys, 0),
         max_memory = floats(keys, 0);
  ints row_offsets{0, 2, 3}, key_offsets{0, 6, 11}, image_offsets{1, 6, 11}, image_counts{4, 4}, limit_memory{5, 6, 5},
      requested_memory{1, 3};
  ints set_memory{2, -7, -7, -7, /**/ 0, 3, -7, -7}, set_counts{1, 2}, indices = ints(8, -7), counts{-7, -7};
  std::vector<md::key_span> span_memory{{1, 5}, {0, 4}};

  md::attention_options attention{0.5f};
  md::dual_mask_options mask{0.25f, 0.25f, -1};
  md::tensor_view<float, 3> query = md::view(query_memory.data(), heads, rows, dim), key = md::view(key_memory.data(), kv_heads, keys, dim);
  md::segments row_segments{2, row_offsets.data(), nullptr, 2}, key_segments{2, key_offsets.data(), nullptr, 6};
  md::segments images{2, image_offsets.data(), image_counts.data(), 4};
  md::tensor_view<std::int32_t const, 1> row_limits = md::view(limit_memory.data(), 3), requested;
  md::tensor_view<md::key_span const, 1> spans;
  md::keep_lists<std::int32_t const> key_set;
  md::tensor_view<float, 1> sum = md::view(sum_memory.data(), keys), max = md::view(max_memory.data(), keys);
  md::keep_lists<std::int32_t> keep{md::view(indices.data(), 2, 4), md::view(counts.data(), 2)};
  aligned_memory memory{
      md::method::mask_by_text_workspace_size(Backend{}, {heads, rows, keys, kv_heads, dim}, row_segments, key_segments, images)};
  md::workspace scratch = memory.lend();

  void protect() { key_set = md::keep_lists<std::int32_t>{md::view(set_memory.data(), 2, 4), md::view(set_counts.data(), 2)}; }
  status method() {
    return md::method::mask_by_text(Backend{}, attention, mask, query, key, row_segments, key_segments, row_limits, spans, images, key_set,
                                    requested, sum, max, keep, scratch);
  }
  status words() {
    status s =
        md::attention_scores(Backend{}, attention, query, key, row_segments, key_segments, row_limits, {}, spans, sum, max, {}, scratch);
    if (s != status::ok) { return s; }
    return md::dual_mask(Backend{}, mask, sum, max, images, key_set, requested, keep, scratch);
  }
};

template <class Backend>
void expect_equal(mask_call<Backend> const& a, mask_call<Backend> const& b) {
  EXPECT_TRUE(all_same(a.sum_memory, b.sum_memory));
  EXPECT_TRUE(all_same(a.max_memory, b.max_memory));
  EXPECT_EQ(a.indices, b.indices);
  EXPECT_EQ(a.counts, b.counts);
}

TYPED_TEST(Mustdrop, MaskByTextIsItsTwoWords) {
  std::mt19937 random = printed_random(72);
  for (int round = 0; round < 40; ++round) {
    mask_call<TypeParam> method, words;
    auto const query = random_floats(random, method.heads * method.rows * method.dim);
    auto const key = random_floats(random, method.kv_heads * method.keys * method.dim);
    for (auto* call : {&method, &words}) {
      std::copy(query.begin(), query.end(), call->query_memory.begin());
      std::copy(key.begin(), key.end(), call->key_memory.begin());
      if (round % 4 == 3) { call->key_memory[7] = quiet_nan; }
      if (round % 2 == 1) { call->protect(); }
      if (round % 3 == 1) { call->spans = md::view(call->span_memory.data(), 2); }
      if (round % 3 == 2) { call->requested = md::view(call->requested_memory.data(), 2); }
    }
    ASSERT_EQ(method.method(), status::ok);
    ASSERT_EQ(words.words(), status::ok);
    expect_equal(method, words);
  }
}

// Zero queries share evenly: rows of 5, 6 and 5 visible keys give weights 1/5, 1/6 and 1/5; each image token has a quarter of its image's sum.
TYPED_TEST(Mustdrop, MaskByTextDropsWhatNobodyAttendsTo) {
  mask_call<TypeParam> even;
  ASSERT_EQ(even.method(), status::ok);
  EXPECT_EQ(even.counts, (ints{4, 4}));  // a quarter is not below a quarter

  mask_call<TypeParam> skewed;  // key 3 of the first request, image token 2, draws all rows of all heads
  std::fill(skewed.query_memory.begin(), skewed.query_memory.end(), 8.0f);
  for (md::index_t h = 0; h < 2; ++h) {
    for (md::index_t d = 0; d < 5; ++d) { skewed.key(h, 3, d) = 8; }
  }
  ASSERT_EQ(skewed.method(), status::ok);
  EXPECT_EQ(skewed.counts, (ints{1, 4}));
  EXPECT_EQ(skewed.indices[0], 2);
  EXPECT_EQ(skewed.sum_memory[3], 2.0f);
}

/// Unless a changed call is ok, nothing may have been written, sum and max included.
template <class Backend, class Change>
status mask_after(Change const& change) {
  mask_call<Backend> call, fresh;
  change(call);
  status const got = call.method();
  if (got != status::ok) { expect_equal(call, fresh); }
  return got;
}

TYPED_TEST(Mustdrop, MaskByTextRefusesWhatEitherWordRefuses) {
  EXPECT_EQ(mask_after<TypeParam>([](auto&) {}), status::ok);
  EXPECT_EQ(mask_after<TypeParam>([](auto& c) { c.query.sizes[2] = 4; }), status::bad_shape);         // the first word's
  EXPECT_EQ(mask_after<TypeParam>([](auto& c) { c.keep.indices.sizes[1] = 3; }), status::bad_shape);  // the second word's
  EXPECT_EQ(mask_after<TypeParam>([](auto& c) { c.sum.sizes[0] = 10; }), status::bad_shape);
  EXPECT_EQ(mask_after<TypeParam>([](auto& c) { c.key.strides[2] = 2; }), status::bad_stride);
  EXPECT_EQ(mask_after<TypeParam>([](auto& c) { c.keep.counts.strides[0] = 2; }), status::bad_stride);
  EXPECT_EQ(mask_after<TypeParam>([](auto& c) { c.attention.scale = quiet_nan; }), status::bad_argument);
  EXPECT_EQ(mask_after<TypeParam>([](auto& c) { c.mask.global = quiet_nan; }), status::bad_argument);
  EXPECT_EQ(mask_after<TypeParam>([](auto& c) { c.mask = {0, 0, 4}; }), status::bad_argument);
}

// One workspace serves both words of a stage: as large as the larger, and a byte less is refused by whichever needs it.
TYPED_TEST(Mustdrop, TheWorkspaceIsThatOfTheLargerWord) {
  TypeParam const backend{};
  merge_call<TypeParam> const merge;
  std::size_t const for_merge = md::method::merge_similar_workspace_size(backend, merge.window, 53, 5, 4, merge.segments);
  EXPECT_EQ(for_merge, std::max(md::window_similarity_workspace_size(backend, merge.window, 53, 5, merge.segments),
                                md::window_merge_workspace_size(backend, merge.window, 53, 5, 4, merge.segments)));
  auto const merge_needs = for_merge == 0 ? status::ok : status::workspace_too_small;
  EXPECT_EQ(merge_after<TypeParam>([&](auto& c) { c.scratch.bytes = for_merge == 0 ? 0 : for_merge - 1; }), merge_needs);
  EXPECT_EQ(merge_after<TypeParam>([](auto& c) { c.scratch = {}; }), merge_needs);

  mask_call<TypeParam> const mask;
  md::attention_shape const shape{4, 3, 11, 2, 5};
  std::size_t const for_mask = md::method::mask_by_text_workspace_size(backend, shape, mask.row_segments, mask.key_segments, mask.images);
  EXPECT_EQ(for_mask, std::max(md::attention_scores_workspace_size(backend, shape, mask.row_segments, mask.key_segments),
                               md::dual_mask_workspace_size(backend, 11, mask.images)));
  auto const mask_needs = for_mask == 0 ? status::ok : status::workspace_too_small;
  EXPECT_EQ(mask_after<TypeParam>([&](auto& c) { c.scratch.bytes = for_mask == 0 ? 0 : for_mask - 1; }), mask_needs);
  EXPECT_EQ(mask_after<TypeParam>([](auto& c) { c.scratch = {}; }), mask_needs);
}

}  // namespace
