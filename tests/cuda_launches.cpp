// SPDX-License-Identifier: Apache-2.0

// What the tables of cases do not see of the CUDA backend: streams, memory that the host may not touch, grids that are too large, and
// inputs that take several passes. On the emulator, which runs the work of a created stream when that is waited for.

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include "backends.hpp"
#include "memory.hpp"

namespace {

using md::status;
using floats = std::vector<float>;
using ints = std::vector<std::int32_t>;

/// Memory that can be taken from the host. Two of one layout hold the same arrays at the same places.
class device_memory {
 public:
  static constexpr std::size_t bytes = std::size_t{1} << 18;

  device_memory() : base_(static_cast<char*>(mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))) {
    if (base_ == MAP_FAILED) { std::abort(); }
  }
  ~device_memory() { munmap(base_, bytes); }
  device_memory(device_memory const&) = delete;
  device_memory& operator=(device_memory const&) = delete;

  template <class T>
  T* put(std::vector<T> const& values) {
    T* const place = room<T>(static_cast<md::index_t>(values.size()));
    std::copy(values.begin(), values.end(), place);
    return place;
  }
  template <class T>
  T* room(md::index_t n) {
    auto* const place = reinterpret_cast<T*>(base_ + used_);
    used_ += (static_cast<std::size_t>(n) * sizeof(T) + 63) / 64 * 64;
    EXPECT_LE(used_, bytes);
    return place;
  }
  void host_may(int access) { ASSERT_EQ(mprotect(base_, bytes, access), 0); }
  char const* data() const { return base_; }

 private:
  char* base_;
  std::size_t used_ = 0;
};

/// Two images of a prefix token and 3 × 3 patches, and everything that all words read and write of them.
struct image_pair {
  static constexpr md::index_t images = 2, each = 10, tokens = images * each, dim = 8, heads = 2, query_rows = 3, windows = 1;
  static constexpr std::size_t scratch_bytes = 1 << 16;

  device_memory memory;
  std::int32_t* offsets = memory.put(ints{0, each, tokens});
  std::int32_t* row_offsets = memory.put(ints{0, 1, query_rows});
  std::int32_t* requested = memory.put(ints{3, 4});
  std::int32_t* limits = memory.put(ints{10, 7, 9});
  std::int32_t* old_positions = memory.put(sequence<std::int32_t>(tokens, [](int i) { return 5 + i; }));
  md::token_grid* grids = memory.put(std::vector<md::token_grid>(images, md::token_grid{3, 3}));
  md::key_span* spans = memory.put(std::vector<md::key_span>{{1, 10}, {0, 8}});
  md::slot_kind* kinds = memory.put(sequence<md::slot_kind>(tokens, [](int i) { return static_cast<md::slot_kind>(i % 4); }));
  float* features = memory.put(sequence<float>(tokens * dim, [](int i) { return static_cast<float>(i * 37 % 64) / 8 - 3; }));
  float* keys = memory.put(sequence<float>(tokens * dim, [](int i) { return static_cast<float>(i * 29 % 32) / 16 - 1; }));
  float* inv_freq = memory.put(floats{1, 0.5f, 0.25f, 0.125f});
  float *similarity = memory.room<float>(images * windows), *sum = memory.room<float>(tokens), *max = memory.room<float>(tokens),
        *sizes = memory.room<float>(tokens), *rows = memory.room<float>(tokens * dim), *scores = memory.room<float>(tokens),
        *merged = memory.room<float>(tokens * dim), *norms = memory.room<float>(tokens * dim), *spread = memory.room<float>(tokens * dim);
  std::int32_t *source = memory.room<std::int32_t>(tokens), *positions = memory.room<std::int32_t>(tokens),
               *delta = memory.room<std::int32_t>(images);
  std::int32_t *kept[5], *counts[5];
  char* scratch = memory.room<char>(scratch_bytes);

  image_pair() {
    for (int i = 0; i < 5; ++i) { kept[i] = memory.room<std::int32_t>(images * each), counts[i] = memory.room<std::int32_t>(images); }
  }

  template <class T, class F>
  static std::vector<T> sequence(md::index_t n, F const& value) {
    std::vector<T> values;
    for (int i = 0; i < n; ++i) { values.push_back(value(i)); }
    return values;
  }
  md::keep_lists<std::int32_t> keep(int i) const { return {md::view(kept[i], images, each), md::view(counts[i], images)}; }
  static auto tokens_of(float* p) { return md::view(p, tokens); }
  static auto rows_of(float* p) { return md::view(p, tokens, dim); }

  /// Every word once, most of them on what those before it wrote. Reads nothing.
  std::vector<status> run(cuda_backend const& on) const {
    md::segments const cut{images, offsets, nullptr, each}, row_cut{images, row_offsets, nullptr, 2};
    md::workspace const lent{scratch, scratch_bytes};
    auto const asked = md::view(static_cast<std::int32_t const*>(requested), images);
    auto const grid = md::view(static_cast<md::token_grid const*>(grids), images);
    auto const query = md::view(features, heads, query_rows, dim), cached = md::view(keys, 1, tokens, dim);
    auto const alike = md::view(similarity, images, windows);
    md::kv_cache cache;
    cache.data = keys, cache.requests = images, cache.request_stride = each * dim * 4, cache.slot_stride = cache.slot_bytes = dim * 4;
    return {
        md::window_similarity(on, {}, rows_of(features), cut, grid, alike, lent),
        md::window_merge(on, {0.1f, -1}, {}, rows_of(features), cut, grid, alike, {}, rows_of(rows), tokens_of(sizes),
                         md::view(source, tokens), keep(0), lent),
        md::attention_scores(on, md::attention_options{0.5f}, query, cached, row_cut, cut, md::view(limits, query_rows), {},
                             md::view(static_cast<md::key_span const*>(spans), images), tokens_of(sum), tokens_of(max), {}, lent),
        md::top_k(on, {md::output_order::score}, tokens_of(sum), cut, asked, keep(1), lent),
        md::cls_topk(on, {}, md::view(sum, 1, tokens), cut, asked, keep(2), lent),
        md::dual_mask(on, {0.05f, 0.05f, -1}, tokens_of(sum), tokens_of(max), cut, keep(2), {}, keep(3), lent),
        md::method::random(on, {7}, cut, asked, tokens_of(scores), keep(1), lent),
        md::kv_evict(on, {md::evict_policy::output_aware, -1, 1, 1}, tokens_of(sum), md::view(kinds, tokens), cut, asked, keep(4), lent),
        md::gather(on, tokens_of(sum), cut, keep(3), tokens_of(scores), {}),
        md::gather(on, md::rms_norm<float>{md::view(features, dim), 1e-6f}, rows_of(features), cut, keep(3), rows_of(norms), {}),
        md::merge_rows(on, rows_of(features), {}, md::view(source, tokens), cut, rows_of(merged), {}, {}),
        md::spread_rows(on, rows_of(merged), md::view(source, tokens), cut, {}, rows_of(spread)),
        md::positions(on, md::position_policy::renumbered, md::view(old_positions, tokens), cut, keep(4), md::view(positions, tokens),
                      md::view(delta, images), {}),
        md::compact(on, md::view(&cache, 1), {images, nullptr, nullptr, 0}, keep(4)),
        md::rerotate(on, md::rope_pairs::half_split, cached, {images, offsets, counts[4], each}, md::view(old_positions, tokens),
                     md::view(static_cast<std::int32_t const*>(positions), tokens), md::view(inv_freq, 4)),
    };
  }
};

class Stream : public testing::Test {
 protected:
  Stream() { EXPECT_EQ(cudaStreamCreate(&stream_), cudaSuccess); }
  ~Stream() override { EXPECT_EQ(cudaStreamDestroy(stream_), cudaSuccess); }
  cudaStream_t stream_ = nullptr;
};

TEST_F(Stream, EveryWordIsQueuedThereAndReadsNothingOnTheHost) {
  image_pair at_once, later;
  std::vector<char> const before(at_once.memory.data(), at_once.memory.data() + device_memory::bytes);
  EXPECT_EQ(at_once.run(cuda_backend{}), std::vector<status>(15, status::ok));
  EXPECT_NE(std::memcmp(at_once.memory.data(), before.data(), before.size()), 0);

  later.memory.host_may(PROT_NONE);
  auto const queued = later.run(cuda_backend{stream_});
  later.memory.host_may(PROT_READ | PROT_WRITE);
  EXPECT_EQ(queued, std::vector<status>(15, status::ok));
  EXPECT_EQ(std::memcmp(later.memory.data(), before.data(), before.size()), 0) << "ran before anybody waited for it";
  ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
  EXPECT_EQ(std::memcmp(later.memory.data(), at_once.memory.data(), before.size()), 0);
}

TEST(Launch, ItsErrorIsCarriedLosslessly) {
  cudaStream_t gone = nullptr;
  ASSERT_EQ(cudaStreamCreate(&gone), cudaSuccess);
  ASSERT_EQ(cudaStreamDestroy(gone), cudaSuccess);
  image_pair images;
  for (status const s : images.run(cuda_backend{gone})) { EXPECT_EQ(md::device_code(s), cudaErrorInvalidResourceHandle) << message(s); }
}

// 2^31 segments times parts are more blocks than a grid has. Nothing is read, so nothing need be there.
TEST(Launch, MoreBlocksThanAGridHasAreUnsupported) {
  constexpr md::index_t many = md::index_t{1} << 22, tokens = md::index_t{1} << 30;
  auto* const nothing = reinterpret_cast<char*>(std::uintptr_t{1} << 40);
  auto* const ints_there = reinterpret_cast<std::int32_t*>(nothing);
  auto* const floats_there = reinterpret_cast<float*>(nothing);
  md::segments const cut{many, ints_there, nullptr, 0};
  md::workspace const lent{nothing, std::size_t{1} << 40};
  md::keep_lists<std::int32_t> const keep{md::view(ints_there, many, tokens), md::view(ints_there, many)};
  auto const values = md::view(floats_there, tokens);
  auto const rows = md::view(floats_there, tokens, 8);
  auto const grids = md::view(reinterpret_cast<md::token_grid const*>(nothing), many);
  auto const places = md::view(ints_there, tokens);
  cuda_backend const on;
  EXPECT_EQ(md::top_k(on, {}, values, cut, {}, keep, lent), status::unsupported);
  EXPECT_EQ(md::cls_topk(on, {}, md::view(floats_there, 1, tokens), cut, {}, keep, lent), status::unsupported);
  EXPECT_EQ(md::dual_mask(on, {}, values, values, cut, {}, {}, keep, lent), status::unsupported);
  EXPECT_EQ(md::kv_evict(on, {}, values, md::view(reinterpret_cast<md::slot_kind const*>(nothing), tokens), cut, {}, keep, lent),
            status::unsupported);
  EXPECT_EQ(md::method::random(on, {}, cut, {}, values, keep, lent), status::unsupported);
  EXPECT_EQ(md::gather(on, rows, cut, keep, rows, {}), status::unsupported);
  EXPECT_EQ(md::gather(on, md::rms_norm<float>{md::view(floats_there, 8)}, rows, cut, keep, rows, {}), status::unsupported);
  EXPECT_EQ(md::positions(on, md::position_policy::kept, places, cut, keep, places, {}, {}), status::unsupported);
  EXPECT_EQ(md::merge_rows(on, rows, {}, places, cut, rows, {}, {}), status::unsupported);
  EXPECT_EQ(md::spread_rows(on, rows, places, cut, {}, rows), status::unsupported);
  EXPECT_EQ(md::rerotate(on, {}, md::view(floats_there, 1, tokens, 8), cut, places, places, md::view(floats_there, 4)),
            status::unsupported);
  EXPECT_EQ(md::window_similarity(on, {}, rows, cut, grids, md::view(floats_there, many, 4096), lent), status::unsupported);
  EXPECT_EQ(md::window_merge(on, {}, {}, rows, cut, grids, md::view(floats_there, many, 4096), {}, rows, values, places, keep, lent),
            status::unsupported);
  EXPECT_EQ(md::attention_scores(on, {}, md::view(floats_there, 1, 8, 8), md::view(floats_there, 1, tokens, 8), cut, cut, {}, {}, {},
                                 values, values, {}, lent),
            status::unsupported);
  EXPECT_EQ(md::attention_scores(on, {}, md::view(floats_there, 1, 8, tokens), cut, cut, {}, {}, values, values, {}, lent),
            status::unsupported);
  md::kv_cache cache;
  cache.data = nothing, cache.requests = many, cache.heads = 1024, cache.slot_bytes = cache.slot_stride = cache.head_stride = 2;
  EXPECT_EQ(md::compact(on, md::view(&cache, 1), cut, keep), status::unsupported);
}

/// The reference and the kernels on one large input.
template <class Call>
void expect_same(Call const& call) {
  auto const expected = call(md::reference::backend{}), got = call(cuda_backend{});
  ASSERT_EQ(got.size(), expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) { ASSERT_TRUE(same(got[i], expected[i])) << i; }
}

floats any_numbers(std::mt19937& random, md::index_t n) {
  floats numbers;
  for (md::index_t i = 0; i < n; ++i) { numbers.push_back(static_cast<float>(random() % 4096) / 2048 - 1); }
  return numbers;
}

// A pass has scratch of 2^22 floats: 64 heads · (1024 keys + 1) + 1024 keys leave room for 62 rows, so 70 rows pass by halves.
TEST(Attention, RowsThatTakeTwoPassesHaveTheReferencesBits) {
  std::mt19937 random = printed_random(61);
  constexpr md::index_t heads = 64, rows = 70, keys = 1024, dim = 3;
  floats const query = any_numbers(random, heads * rows * dim), cached = any_numbers(random, heads * keys * dim);
  ints limits;
  for (md::index_t t = 0; t < rows; ++t) { limits.push_back(static_cast<std::int32_t>(keys - rows + t)); }
  static_assert(md::cuda::attention_plan::of({heads, rows, keys, heads, dim}, md::segments{}).rows == 35);
  expect_same([&](auto backend) {
    floats sums(2 * keys, 1.0f);
    aligned_memory scratch(md::attention_scores_workspace_size(backend, {heads, rows, keys, heads, dim}, {}, {}));
    md::attention_options options;
    options.decay = 0.5f;
    EXPECT_EQ(md::attention_scores(backend, options, md::view(query.data(), heads, rows, dim), md::view(cached.data(), heads, keys, dim),
                                   {}, {}, md::view(limits.data(), rows), {}, {}, md::view(sums.data(), keys),
                                   md::view(sums.data() + keys, keys), {}, scratch.lend()),
              status::ok);
    return sums;
  });
}

TEST(Attention, AMapOfTwoPassesHasTheReferencesBits) {
  std::mt19937 random = printed_random(62);
  constexpr md::index_t rows = 70, keys = 1 << 16;
  floats const map = any_numbers(random, rows * keys);
  static_assert(md::cuda::attention_plan::of({1, rows, keys, 0, 0}, md::segments{}).rows == 35);
  expect_same([&](auto backend) {
    floats sums(2 * keys, 1.0f);
    aligned_memory scratch(md::attention_scores_workspace_size(backend, {1, rows, keys, 0, 0}, {}, {}));
    EXPECT_EQ(md::attention_scores(backend, {}, md::view(map.data(), 1, rows, keys), {}, {}, {}, {}, md::view(sums.data(), keys),
                                   md::view(sums.data() + keys, keys), {}, scratch.lend()),
              status::ok);
    return sums;
  });
}

// More scores than a block has threads, by far, most of them ties; the reference would take hours.
TEST(Selection, FortyThousandScoresAgreeWithSorting) {
  std::mt19937 random = printed_random(63);
  constexpr md::index_t tokens = 40000;
  floats scores = any_numbers(random, tokens);
  for (md::index_t const k : {1, 777, 39999}) {
    ints order(tokens);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](auto a, auto b) { return scores[static_cast<std::size_t>(a)] > scores[static_cast<std::size_t>(b)]; });
    order.resize(static_cast<std::size_t>(k));
    std::sort(order.begin(), order.end());
    ints kept(static_cast<std::size_t>(k)), count(1);
    aligned_memory scratch(md::top_k_workspace_size(cuda_backend{}, tokens, {}));
    ASSERT_EQ(md::top_k(cuda_backend{}, {}, md::view(scores.data(), tokens), {}, {},
                        md::keep_lists<std::int32_t>{md::view(kept.data(), 1, k), md::view(count.data(), 1)}, scratch.lend()),
              status::ok);
    EXPECT_EQ(count[0], k);
    EXPECT_EQ(kept, order) << k;
  }
}

}  // namespace
