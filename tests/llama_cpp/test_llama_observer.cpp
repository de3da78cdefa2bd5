// SPDX-License-Identifier: Apache-2.0
// The glue without a model: graphs' nodes are made by hand, around queries and keys that llama.cpp had (record_attention.cpp).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <tuple>

#include <mustdrop/cpu/attention_scores.hpp>
#include <mustdrop/cpu/dual_mask.hpp>
#include <mustdrop/reference/attention_scores.hpp>
#include <mustdrop/reference/dual_mask.hpp>

#include "mustdrop_llama.hpp"
#include "safetensors.hpp"

namespace {

namespace md = mustdrop;
using namespace mustdrop_llama;
using indices = std::vector<std::int32_t>;

/// What a scheduler would call: nodes as llama.cpp builds them.
struct recorded {
  int heads = 0, rows = 0, dim = 0, kv_heads = 2, tokens = 0, image_begin = 0, image_tokens = 0;
  ggml_type type = GGML_TYPE_F16;
  std::vector<float> q;  // [heads, rows, dim]
  std::vector<char> k;   // [tokens, cell_bytes]
  std::size_t cell_bytes = 0;

  explicit recorded(std::string const& name) {
    safetensors::file const file = safetensors::read(LLAMA_DATA "/recorded_" + name + ".safetensors");
    auto const &queries = file.tensors.at("q"), &keys = file.tensors.at("k"), &image = file.tensors.at("image");
    heads = static_cast<int>(queries.shape.at(0)), rows = static_cast<int>(queries.shape.at(1)),
    dim = static_cast<int>(queries.shape.at(2));
    tokens = static_cast<int>(keys.shape.at(0)), cell_bytes = static_cast<std::size_t>(keys.shape.at(1));
    type = name == "f16" ? GGML_TYPE_F16 : GGML_TYPE_Q8_0;
    q.resize(queries.elements()), k.resize(keys.bytes);
    std::memcpy(q.data(), file.memory.data() + queries.begin, queries.bytes);
    std::memcpy(k.data(), file.memory.data() + keys.begin, keys.bytes);
    std::int32_t span[2];
    std::memcpy(span, file.memory.data() + image.begin, sizeof span);
    image_begin = span[0], image_tokens = span[1];
  }
  int first_row() const { return tokens - rows; }
};

/// How a run of llama.cpp would show the recording: in which ubatches, in which cells.
struct showing {
  std::vector<int> ubatches;  // their sizes; together all tokens
  indices cells;              // of each token; empty: one after the other
  int n_kv = 768;
};

class graph {
 public:
  graph() : context_(ggml_init({64U << 20, nullptr, false}), ggml_free) {}
  ggml_tensor* tensor(ggml_type type, std::vector<int64_t> sizes) {
    return ggml_new_tensor(context_.get(), type, static_cast<int>(sizes.size()), sizes.data());
  }
  ggml_context* get() const { return context_.get(); }

 private:
  std::unique_ptr<ggml_context, void (*)(ggml_context*)> context_;
};

bool call(llama_context_params const& params, ggml_tensor* node) {
  bool const wanted = params.cb_eval(node, true, params.cb_eval_user_data);
  return wanted && params.cb_eval(node, false, params.cb_eval_user_data);
}

/// Mask [n_kv, rows]: row r of tokens from `first` on sees what is not after it.
ggml_tensor* mask_of(graph& g, indices const& cells, int first, int rows, int n_kv, ggml_type type) {
  ggml_tensor* const mask = g.tensor(type, {n_kv, rows});
  for (int r = 0; r < rows; ++r) {
    std::vector<float> row(static_cast<std::size_t>(n_kv), -INFINITY);
    for (int t = 0; t <= first + r; ++t) { row[static_cast<std::size_t>(cells[static_cast<std::size_t>(t)])] = 0; }
    for (int c = 0; c < n_kv; ++c) {
      if (type == GGML_TYPE_F32) { static_cast<float*>(mask->data)[r * n_kv + c] = row[static_cast<std::size_t>(c)]; }
      if (type == GGML_TYPE_F16) {
        static_cast<ggml_fp16_t*>(mask->data)[r * n_kv + c] = ggml_fp32_to_fp16(row[static_cast<std::size_t>(c)]);
      }
    }
  }
  return mask;
}

indices cells_of(recorded const& from, showing const& how) {
  indices cells = how.cells;
  if (cells.empty()) { cells.resize(static_cast<std::size_t>(from.tokens)), std::iota(cells.begin(), cells.end(), 0); }
  return cells;
}

/// Shows every ubatch of the recording, as nodes RoPE, SET_ROWS and FLASH_ATTN_EXT of layer 0; queries of tokens that were not recorded are NaN.
void show(recorded const& from, showing const& how, llama_context_params const& params) {
  indices const cells = cells_of(from, how);
  graph g;
  int64_t const width = int64_t{from.kv_heads} * from.dim;
  ggml_tensor* const cache = g.tensor(from.type, {width, how.n_kv});
  ggml_set_name(cache, "cache_k_l0");
  ASSERT_EQ(cache->nb[1], from.cell_bytes);
  std::memset(cache->data, 0x7f, ggml_nbytes(cache));  // what is in cells of nobody
  for (int t = 0; t < from.tokens; ++t) {
    std::memcpy(static_cast<char*>(cache->data) + static_cast<std::size_t>(cells[static_cast<std::size_t>(t)]) * cache->nb[1],
                from.k.data() + static_cast<std::size_t>(t) * from.cell_bytes, from.cell_bytes);
  }
  int first = 0;
  for (int const n : how.ubatches) {
    ggml_tensor* const positions = g.tensor(GGML_TYPE_I32, {n});
    ggml_tensor* const places = g.tensor(GGML_TYPE_I64, {n});
    for (int i = 0; i < n; ++i) {
      static_cast<std::int32_t*>(positions->data)[i] = first + i;
      static_cast<std::int64_t*>(places->data)[i] = cells[static_cast<std::size_t>(first + i)];
    }
    ggml_tensor* const new_keys = g.tensor(GGML_TYPE_F32, {from.dim, from.kv_heads, n});
    EXPECT_FALSE(call(params, ggml_rope(g.get(), new_keys, positions, from.dim, 0)));
    EXPECT_FALSE(call(params, ggml_set_rows(g.get(), cache, ggml_reshape_2d(g.get(), new_keys, width, n), places)));
    ggml_tensor* const queries = g.tensor(GGML_TYPE_F32, {from.dim, from.heads, n});  // token-major, as llama.cpp has it
    for (int r = 0; r < n; ++r) {
      for (int h = 0; h < from.heads; ++h) {
        int const row = first + r - from.first_row();
        for (int d = 0; d < from.dim; ++d) {
          static_cast<float*>(queries->data)[(r * from.heads + h) * from.dim + d] =
              row < 0 ? NAN : from.q[static_cast<std::size_t>((h * from.rows + row) * from.dim + d)];
        }
      }
    }
    ggml_tensor* const keys = ggml_view_4d(g.get(), cache, from.dim, from.kv_heads, how.n_kv, 1, ggml_row_size(from.type, from.dim),
                                           cache->nb[1], ggml_nbytes(cache), 0);
    ggml_tensor* const node =
        ggml_flash_attn_ext(g.get(), ggml_permute(g.get(), queries, 0, 2, 1, 3), ggml_permute(g.get(), keys, 0, 2, 1, 3),
                            ggml_permute(g.get(), keys, 0, 2, 1, 3), mask_of(g, cells, first, n, how.n_kv, GGML_TYPE_F16),
                            1 / std::sqrt(static_cast<float>(from.dim)), 0, 0);
    first += n;
    EXPECT_EQ(call(params, node), first > from.first_row()) << "only ubatches with rows that count are asked for";
  }
  ASSERT_EQ(first, from.tokens);
}

struct result {
  layer_scores scores;
  indices plan;  // image tokens that stay, 64 of them
};

template <class Backend>
result plan_of(Backend const& on, recorded const& from, showing const& how) {
  observer<Backend> watcher(on, {0});
  llama_context_params params{};
  watcher.attach(params);
  watcher.watch(from.first_row());
  show(from, how, params);
  EXPECT_EQ(watcher.status(), md::status::ok) << md::message(watcher.status());
  EXPECT_EQ(watcher.cells(), cells_of(from, how));
  EXPECT_EQ(watcher.cells_attended(), how.n_kv);
  result out{watcher.scores()[0], indices(static_cast<std::size_t>(from.image_tokens))};
  auto const n = static_cast<md::index_t>(from.image_tokens);
  std::int32_t count = 0;
  auto const image = [&](std::vector<float>& values) { return md::view(values.data() + from.image_begin, n); };
  std::vector<unsigned char> memory(md::dual_mask_workspace_size(md::reference::backend{}, n, {}) + 64);
  void* at = memory.data();
  std::size_t room = memory.size();
  std::align(64, 1, at, room);
  EXPECT_EQ(md::dual_mask(md::reference::backend{}, {0.001f, 0.001f, 64}, image(out.scores.sum), image(out.scores.max), {},
                          md::keep_lists<std::int32_t const>{}, {},
                          md::keep_lists<std::int32_t>{md::view(out.plan.data(), 1, n), md::view(&count, 1)}, {at, room}),
            md::status::ok);
  out.plan.resize(static_cast<std::size_t>(count));
  return out;
}

bool same_bits(std::vector<float> const& a, std::vector<float> const& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

void expect_same(result const& a, result const& b) {
  EXPECT_TRUE(same_bits(a.scores.sum, b.scores.sum));
  EXPECT_TRUE(same_bits(a.scores.max, b.scores.max));
  EXPECT_EQ(a.plan, b.plan);
}

/// Sums of softmax weights in double precision, over keys that ggml widened: the definition once more.
std::vector<double> plain_sums(recorded const& from) {
  std::vector<double> sum(static_cast<std::size_t>(from.tokens));
  std::vector<float> k(static_cast<std::size_t>(from.tokens) * static_cast<std::size_t>(from.kv_heads * from.dim));
  for (int t = 0; t < from.tokens; ++t) {
    ggml_get_type_traits(from.type)->to_float(from.k.data() + static_cast<std::size_t>(t) * from.cell_bytes,
                                              k.data() + static_cast<std::size_t>(t * from.kv_heads * from.dim),
                                              int64_t{from.kv_heads} * from.dim);
  }
  for (int r = 0; r < from.rows; ++r) {
    for (int h = 0; h < from.heads; ++h) {
      std::vector<double> weight(static_cast<std::size_t>(from.first_row() + r + 1));
      double total = 0;
      for (std::size_t t = 0; t < weight.size(); ++t) {
        double dot = 0;
        for (int d = 0; d < from.dim; ++d) {
          dot += double{from.q[static_cast<std::size_t>((h * from.rows + r) * from.dim + d)]} *
                 double{k[t * static_cast<std::size_t>(from.kv_heads * from.dim) +
                          static_cast<std::size_t>(h / (from.heads / from.kv_heads) * from.dim + d)]};
        }
        weight[t] = std::exp(dot / std::sqrt(from.dim)), total += weight[t];
      }
      for (std::size_t t = 0; t < weight.size(); ++t) { sum[t] += weight[t] / total / from.heads; }
    }
  }
  return sum;
}

class LlamaObserver : public testing::TestWithParam<char const*> {
 public:
  recorded const from{GetParam()};
  showing whole() const { return {{from.image_begin, from.image_tokens, from.rows}, {}}; }
  showing split(int size) const {
    showing how;
    for (int left = from.tokens; left > 0; left -= size) { how.ubatches.push_back(std::min(left, size)); }
    return how;
  }
};

INSTANTIATE_TEST_SUITE_P(Keys, LlamaObserver, testing::Values("f16", "q8_0"), [](auto const& keys) { return std::string(keys.param); });

TEST_P(LlamaObserver, ScoresAreTheSoftmaxWeightsOfTheQuestionsRows) {
  result const got = plan_of(md::reference::backend{}, from, whole());
  std::vector<double> const expected = plain_sums(from);
  ASSERT_EQ(got.scores.sum.size(), expected.size());
  double total = 0;
  for (std::size_t t = 0; t < expected.size(); ++t) {
    EXPECT_NEAR(got.scores.sum[t], expected[t], 1e-5 * expected[t] + 1e-7) << t;  // a chain of 32 products in f32: some 32 · 6e-8
    total += static_cast<double>(got.scores.sum[t]);
  }
  EXPECT_NEAR(total, from.rows, 1e-4) << "each row's weights add up to 1";
  EXPECT_EQ(got.plan.size(), 64U);
}

TEST_P(LlamaObserver, PlansAreTheSameForAnyNumberOfThreads) {
  result const expected = plan_of(md::reference::backend{}, from, whole());
  using backend = md::cpu::backend<xsimd::default_arch, ggml_threads>;
  for (int const threads : {1, 2, 3, 5, 8}) {
    SCOPED_TRACE(threads);
    expect_same(plan_of(backend{{threads, nullptr}}, from, whole()), expected);
  }
  ggml_threadpool_params pool_params = ggml_threadpool_params_default(3);
  ggml_threadpool* const pool = ggml_threadpool_new(&pool_params);
  expect_same(plan_of(backend{{3, pool}}, from, whole()), expected);
  ggml_threadpool_free(pool);
}

TEST_P(LlamaObserver, PlansAreTheSameForAnySplitIntoUbatches) {
  result const expected = plan_of(md::reference::backend{}, from, whole());
  for (int const size : {1, 5, 7, 64, 512, 1024}) {
    SCOPED_TRACE(size);
    expect_same(plan_of(md::cpu::backend<>{}, from, split(size)), expected);
  }
}

TEST_P(LlamaObserver, PlansAreTheSameWhereverTheCellsAre) {
  result const expected = plan_of(md::reference::backend{}, from, whole());
  std::mt19937 random(7);
  showing scattered = whole();
  scattered.cells.resize(1024), scattered.n_kv = 1024;
  std::iota(scattered.cells.begin(), scattered.cells.end(), 0);
  std::shuffle(scattered.cells.begin(), scattered.cells.end(), random);
  scattered.cells.resize(static_cast<std::size_t>(from.tokens));
  expect_same(plan_of(md::cpu::backend<>{}, from, scattered), expected);
  showing later = whole();
  later.cells.resize(static_cast<std::size_t>(from.tokens));
  std::iota(later.cells.begin(), later.cells.end(), 100);
  expect_same(plan_of(md::cpu::backend<>{}, from, later), expected);
}

/// A ubatch of one token, with what a test changes in its nodes.
struct one_token {
  graph g;
  ggml_tensor *positions, *places, *cache, *mask, *rope, *rows, *attention;

  explicit one_token(float max_bias = 0, ggml_type cache_type = GGML_TYPE_F16) {
    positions = g.tensor(GGML_TYPE_I32, {1}), places = g.tensor(GGML_TYPE_I64, {1}), cache = g.tensor(cache_type, {64, 256});
    static_cast<std::int32_t*>(positions->data)[0] = 0, static_cast<std::int64_t*>(places->data)[0] = 5;
    std::memset(cache->data, 0, ggml_nbytes(cache));
    ggml_set_name(cache, "cache_k_l0");
    mask = mask_of(g, {5}, 0, 1, 256, GGML_TYPE_F16);
    ggml_tensor* const keys = g.tensor(GGML_TYPE_F32, {32, 2, 1});
    rope = ggml_rope(g.get(), keys, positions, 32, 0);
    rows = ggml_set_rows(g.get(), cache, ggml_reshape_2d(g.get(), keys, 64, 1), places);
    ggml_tensor* const q = g.tensor(GGML_TYPE_F32, {32, 4, 1});
    std::fill_n(static_cast<float*>(q->data), 128, 1.0f);
    ggml_tensor* k = ggml_permute(
        g.get(), ggml_view_4d(g.get(), cache, 32, 2, 256, 1, ggml_row_size(cache_type, 32), cache->nb[1], ggml_nbytes(cache), 0), 0, 2, 1,
        3);
    if (cache_type == GGML_TYPE_F32) {
      k = ggml_cast(g.get(), k, GGML_TYPE_F16);
      std::memset(k->data, 0, ggml_nbytes(k));
    }
    attention = ggml_flash_attn_ext(g.get(), ggml_permute(g.get(), q, 0, 2, 1, 3), k, k, mask, 1, max_bias, 0);
  }

  md::status seen() {
    observer<md::reference::backend> watcher({}, {0});
    llama_context_params params{};
    watcher.attach(params);
    watcher.watch(0);
    call(params, rope), call(params, rows), call(params, attention);
    if (watcher.status() == md::status::ok) { EXPECT_EQ(watcher.scores()[0].sum, std::vector<float>{1}); }
    return watcher.status();
  }
};

TEST(LlamaObserverRefuses, WhatItDoesNotUnderstand) {
  EXPECT_EQ(one_token().seen(), md::status::ok);
  EXPECT_EQ(one_token(0, GGML_TYPE_F32).seen(), md::status::ok) << "an f32 cache is cast for flash attention, and found behind the cast";
  EXPECT_EQ(one_token(8).seen(), md::status::unsupported) << "ALiBi";
  {
    one_token t;
    ggml_flash_attn_ext_add_sinks(t.attention, t.g.tensor(GGML_TYPE_F32, {4}));
    EXPECT_EQ(t.seen(), md::status::unsupported) << "sinks";
  }
  {
    one_token t;
    static_cast<std::int64_t*>(t.places->data)[0] = 6;
    EXPECT_EQ(t.seen(), md::status::bad_argument) << "the mask says another cell than the cache's index";
  }
  {
    one_token t;
    static_cast<ggml_fp16_t*>(t.mask->data)[9] = ggml_fp32_to_fp16(0);
    EXPECT_EQ(t.seen(), md::status::bad_argument) << "the row sees a cell that is not ours";
  }
  {
    one_token t;
    static_cast<std::int64_t*>(t.places->data)[0] = 400;
    EXPECT_EQ(t.seen(), md::status::bad_argument) << "a cell behind the last";
  }
}

TEST(LlamaObserverRefuses, MasksThatAreNotCausalInAnyRowThatCounts) {
  graph g;
  indices const cells{4, 0, 2, 1};  // two old tokens, two new rows
  for (auto const type : {GGML_TYPE_F16, GGML_TYPE_F32}) {
    ggml_tensor* const mask = mask_of(g, cells, 2, 2, 6, type);
    auto const set = [&](int row, int cell, float value) {
      int const i = row * 6 + cell;
      if (type == GGML_TYPE_F16) { static_cast<ggml_fp16_t*>(mask->data)[i] = ggml_fp32_to_fp16(value); }
      if (type == GGML_TYPE_F32) { static_cast<float*>(mask->data)[i] = value; }
    };
    auto const causal = [&](md::index_t skipped) { return is_causal(mask, static_cast<char const*>(mask->data), cells, 2, skipped); };
    EXPECT_TRUE(causal(0));
    EXPECT_FALSE(is_causal(mask, nullptr, cells, 2, 0));
    EXPECT_FALSE(is_causal(mask, static_cast<char const*>(mask->data), cells, 3, 0)) << "more rows than there are";
    EXPECT_FALSE(is_causal(mask, static_cast<char const*>(mask->data), {4, 0, 4, 1}, 2, 0)) << "two tokens in a cell";
    EXPECT_FALSE(is_causal(mask, static_cast<char const*>(mask->data), {4, 0, 2, 6}, 2, 0));
    EXPECT_FALSE(is_causal(mask, static_cast<char const*>(mask->data), {4, 0, 2, -1}, 2, 0));
    set(0, 1, 0);
    EXPECT_FALSE(causal(0)) << "the first row sees the second: not causal, though the last row is as it should be";
    EXPECT_TRUE(causal(1)) << "but that row does not count";
    set(0, 1, -INFINITY), set(0, 4, -INFINITY);
    EXPECT_FALSE(causal(0)) << "a window that slid past the first token";
    set(0, 4, -0.5f);
    EXPECT_FALSE(causal(0)) << "a bias by distance";
  }
}

TEST(LlamaObserverRefuses, EverythingAfterAStatusUntilItForgets) {
  one_token t;
  static_cast<ggml_fp16_t*>(t.mask->data)[9] = ggml_fp32_to_fp16(0);
  observer<md::reference::backend> watcher({}, {0});
  llama_context_params params{};
  watcher.attach(params), watcher.watch(0);
  call(params, t.rope), call(params, t.rows), call(params, t.attention);
  indices const first{0};
  EXPECT_EQ(watcher.keep(nullptr, md::view(first.data(), 1)), md::status::bad_argument);
  EXPECT_EQ(watcher.move(nullptr, {7}), md::status::bad_argument);
  EXPECT_EQ(watcher.compact(nullptr), md::status::bad_argument);
  EXPECT_EQ(watcher.cells(), indices{5});
  watcher.forget();
  EXPECT_EQ(watcher.status(), md::status::ok);
}

TEST(LlamaObserverRefuses, KeysOfNobody) {
  graph g;
  ggml_tensor* const k = g.tensor(GGML_TYPE_F16, {32, 4, 2});
  std::vector<float> rows;
  auto const never = [](auto) { return ADD_FAILURE(), md::status::ok; };
  EXPECT_EQ(with_keys(k, static_cast<char const*>(k->data), {}, rows, never), md::status::bad_argument);
  EXPECT_EQ(with_keys(k, nullptr, {0}, rows, never), md::status::bad_argument);
  EXPECT_EQ(with_keys(k, static_cast<char const*>(k->data), {4}, rows, never), md::status::bad_argument);
}

TEST(LlamaObserver, TakesLayersInAnyOrder) {
  observer<md::reference::backend> const watcher({}, {3, 0, 3});
  ASSERT_EQ(watcher.scores().size(), 2U);
  EXPECT_EQ(watcher.scores()[0].layer, 0);
  EXPECT_EQ(watcher.scores()[1].layer, 3);
}

TEST(LlamaObserver, AsksForChosenLayersOnlyAndOnlyWhileWatching) {
  one_token t;
  observer<md::reference::backend> other({}, {3}), resting({}, {0});
  llama_context_params params{};
  other.attach(params), other.watch(0);
  EXPECT_FALSE(params.cb_eval(t.attention, true, params.cb_eval_user_data));
  resting.attach(params);
  EXPECT_FALSE(params.cb_eval(t.rows, true, params.cb_eval_user_data));
  EXPECT_FALSE(params.cb_eval(t.attention, true, params.cb_eval_user_data));
  resting.forget(), resting.watch(0);
  params.cb_eval(t.rope, true, params.cb_eval_user_data), params.cb_eval(t.rows, true, params.cb_eval_user_data);
  EXPECT_TRUE(params.cb_eval(t.attention, true, params.cb_eval_user_data));
  resting.rest();
  EXPECT_FALSE(params.cb_eval(t.attention, true, params.cb_eval_user_data));
}

TEST(LlamaObserver, TheMapGivesWhatItsColumnsSay) {
  // Two heads, two rows, tokens in cells 2 and 0; weights are dyadic, so sums are exact.
  graph g;
  ggml_tensor *const positions = g.tensor(GGML_TYPE_I32, {2}), *const places = g.tensor(GGML_TYPE_I64, {2}),
                     *const cache = g.tensor(GGML_TYPE_F32, {64, 4});
  for (int i = 0; i < 2; ++i) {
    static_cast<std::int32_t*>(positions->data)[i] = i, static_cast<std::int64_t*>(places->data)[i] = i == 0 ? 2 : 0;
  }
  ggml_set_name(cache, "cache_k_l0");
  ggml_tensor* const keys = g.tensor(GGML_TYPE_F32, {32, 2, 2});
  ggml_tensor* const map = ggml_soft_max_ext(g.get(), g.tensor(GGML_TYPE_F32, {4, 2, 2}), mask_of(g, {2, 0}, 0, 2, 4, GGML_TYPE_F32), 1, 0);
  ggml_set_name(map, "kq_soft_max-0");
  std::vector<float> const weights{0, 0, 1, 0, 0.5f, 0, 0.5f, 0, 0, 0, 1, 0, 0.25f, 0, 0.75f, 0};  // [heads, rows, cells]
  std::memcpy(map->data, weights.data(), weights.size() * sizeof(float));
  observer<md::reference::backend> watcher({}, {0});
  llama_context_params params{};
  watcher.attach(params), watcher.watch(0);
  call(params, ggml_rope(g.get(), keys, positions, 32, 0)),
      call(params, ggml_set_rows(g.get(), cache, ggml_reshape_2d(g.get(), keys, 64, 2), places));
  ASSERT_TRUE(call(params, map));
  ASSERT_EQ(watcher.status(), md::status::ok);
  EXPECT_EQ(watcher.scores()[0].sum, (std::vector<float>{1 + 0.625f, 0.375f}));
  EXPECT_EQ(watcher.scores()[0].max, (std::vector<float>{1, 0.375f}));
}

TEST(LlamaRanges, AreTheGapsOfThePlanInPositions) {
  std::vector<llama_pos> const positions{0, 1, 2, 10, 11, 12, 20};
  std::vector<position_range> ranges;
  auto const removed = [&](indices const& keep) {
    EXPECT_EQ(ranges_to_remove(md::view(keep.data(), keep.size()), positions, ranges), md::status::ok);
    return ranges;
  };
  using pairs = std::vector<position_range>;
  EXPECT_EQ(removed({0, 1, 2, 3, 4, 5, 6}), pairs{});
  EXPECT_EQ(removed({}), (pairs{{0, 21}}));
  EXPECT_EQ(removed({0, 4, 6}), (pairs{{1, 11}, {12, 13}}));  // tokens 1 to 3 are positions 1, 2 and 10
  indices const outside{7}, twice{1, 1};
  EXPECT_EQ(ranges_to_remove(md::view(outside.data(), 1), positions, ranges), md::status::bad_argument);
  EXPECT_EQ(ranges_to_remove(md::view(twice.data(), 2), positions, ranges), md::status::bad_argument);
  indices const first{0};
  EXPECT_EQ(ranges_to_remove(md::view(first.data(), 1), {3, 3, 3}, ranges), md::status::unsupported) << "one image's tokens under M-RoPE";
}

}  // namespace
