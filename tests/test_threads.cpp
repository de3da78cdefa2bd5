// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

// Who runs the parts of a step changes nothing: the same bits from the reference, from one thread and from several. Gates build this with
// ThreadSanitizer.

#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include "backends.hpp"
#include "memory.hpp"
#include "word_runs.hpp"

namespace {

using floats = std::vector<float>;
using integers = std::vector<std::int32_t>;
using status = md::status;

/// Part i on thread i mod Threads.
template <int Threads>
struct threads {
  template <class F>
  void operator()(md::index_t n, F const& f) const noexcept {
    if (n < 2) { return md::cpu::serial{}(n, f); }
    std::vector<std::thread> all;
    for (int t = 0; t < Threads; ++t) {
      all.emplace_back([=, &f] {
        for (md::index_t i = t; i < n; i += Threads) { f(i); }
      });
    }
    for (std::thread& thread : all) { thread.join(); }
  }
  static constexpr md::index_t width() noexcept { return Threads; }
};

template <class Backend, class Executor>
struct with_executor;
template <class Arch, class Old, class Executor>
struct with_executor<md::cpu::backend<Arch, Old>, Executor> {
  using type = md::cpu::backend<Arch, Executor>;
};
template <int Threads>
using threaded = typename with_executor<cpu_backend, threads<Threads>>::type;

floats numbers(md::index_t n, unsigned seed) {
  std::mt19937 random(seed);
  floats all(static_cast<std::size_t>(n));
  for (float& x : all) { x = static_cast<float>(static_cast<int>(random() % 8192) - 4096) / 4096; }
  return all;
}

template <class T>
md::tensor_view<T const, 1> seen(std::vector<T> const& all) {
  return md::view(all.data(), all.size());
}

/// Steps that are long enough to be split: everything that they write, one after another.
template <class Backend>
class long_steps {
 public:
  floats run() {
    windows();
    attention();
    rows();
    cache();
    return std::move(written_);
  }

 private:
  static constexpr md::index_t images = 2, tokens = 577, all = images * tokens, dim = 260;

  void took(status s) { EXPECT_EQ(s, status::ok); }
  template <class T>
  void keep(std::vector<T> const& values) {
    for (T const value : values) { written_.push_back(static_cast<float>(value)); }
  }

  void windows() {
    md::window_shape const window{3, 3};
    md::token_grid const grids[images] = {{24, 24}, {24, 24}};
    floats similarity(images * 64), rows(all * dim), sizes(all);
    integers source(all), kept(all), counts(images);
    aligned_memory scratch(std::max(md::window_similarity_workspace_size(on_, window, all, dim, cut_),
                                    md::window_merge_workspace_size(on_, window, all, dim, 64, cut_)));
    took(md::window_similarity(on_, window, features(), cut_, md::view(grids, images), md::view(similarity.data(), images, 64),
                               scratch.lend()));
    keep(similarity);
    md::merge_options options;
    options.count = 20;
    md::tensor_view<float const, 2> const scores = md::view(similarity.data(), images, 64);
    took(md::window_merge(on_, options, window, features(), cut_, md::view(grids, images), scores, {}, md::view(rows.data(), all, dim),
                          md::view(sizes.data(), all), md::view(source.data(), all),
                          md::keep_lists<std::int32_t>{md::view(kept.data(), images, tokens), md::view(counts.data(), images)},
                          scratch.lend()));
    keep(rows), keep(sizes), keep(source), keep(kept), keep(counts);
  }

  void attention() {
    constexpr md::index_t heads = 8, kv_heads = 4, query_rows = 110, width = 36;
    floats const query = numbers(heads * query_rows * width, 2), keys = numbers(kv_heads * all * width, 3);
    floats const map = numbers(heads * query_rows * tokens, 4);
    integers const row_offsets{0, 50, 110};
    md::segments const rows{images, row_offsets.data(), nullptr, 60};
    aligned_memory scratch(md::attention_scores_workspace_size(on_, {heads, query_rows, all, kv_heads, width}, rows, cut_));
    md::attention_options options;
    options.scale = 0.25f;
    floats sum(all), max(all), head_sum(query_rows * tokens);
    auto const sums = md::view(sum.data(), all), maxima = md::view(max.data(), all);
    auto const over_heads = md::view(head_sum.data(), query_rows, tokens);
    took(md::attention_scores(on_, options, md::view(query.data(), heads, query_rows, width), md::view(keys.data(), kv_heads, all, width),
                              rows, cut_, {}, {}, {}, sums, maxima, over_heads, scratch.lend()));
    keep(sum), keep(max), keep(head_sum);
    took(md::attention_scores(on_, options, md::view(map.data(), heads, query_rows, tokens), rows, cut_, {}, {}, sums, maxima, over_heads,
                              scratch.lend()));
    keep(sum), keep(max), keep(head_sum);
  }

  void rows() {
    integers kept, source(all), counts(images, 200);
    for (md::index_t i = 0; i < images * 200; ++i) { kept.push_back(static_cast<std::int32_t>(i % 200 * 2 + i % 3 / 2)); }
    for (md::index_t i = 0; i < all; ++i) { source[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(i % tokens * 7 % 150); }
    md::keep_lists<std::int32_t> const lists{md::view(kept.data(), images, 200), md::view(counts.data(), images)};
    floats out(all * dim), sizes(all);
    auto const to = md::view(out.data(), all, dim);
    took(md::gather(on_, features(), cut_, lists, to, {}));
    keep(out);
    floats const weight = numbers(dim, 5);
    took(md::gather(on_, md::rms_norm<float>{seen(weight), 1e-5f}, features(), cut_, lists, to, {}));
    keep(out);
    took(md::merge_rows(on_, features(), {}, seen(source), cut_, to, md::view(sizes.data(), all), {}));
    keep(out), keep(sizes);
    took(md::spread_rows(on_, features(), seen(source), cut_, {}, to));
    keep(out);
  }

  void cache() {
    constexpr md::index_t heads = 6, width = 64;
    floats keys = numbers(heads * all * width, 6), inv_freq(width / 2, 0.01f);
    integers before(all), after(all), kept(300), counts{300};
    std::iota(before.begin(), before.end(), 0);
    for (md::index_t i = 0; i < all; ++i) { after[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(i - i / 5); }
    for (md::index_t i = 0; i < 300; ++i) { kept[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(i * 3 / 2); }
    for (auto const pairs : {md::rope_pairs::half_split, md::rope_pairs::interleaved}) {
      took(md::rerotate(on_, pairs, md::view(keys.data(), heads, all, width), {}, seen(before), seen(after), seen(inv_freq)));
      keep(keys);
    }
    md::kv_cache layer;
    layer.data = keys.data(), layer.heads = heads, layer.slot_bytes = layer.slot_stride = width * 4, layer.head_stride = all * width * 4;
    md::keep_lists<std::int32_t> const list{md::view(kept.data(), 1, 300), md::view(counts.data(), 1)};
    took(md::compact(on_, md::view(static_cast<md::kv_cache const*>(&layer), 1), {}, list));
    keep(keys);
  }

  md::tensor_view<float const, 2> features() const { return md::view(features_.data(), all, dim); }

  Backend on_{};
  floats features_ = numbers(all * dim, 1), written_;
  integers offsets_{0, tokens, all};
  md::segments cut_{images, offsets_.data(), nullptr, tokens};
};

template <class Backend>
std::map<std::string, std::uint64_t> every_word() {
  words::hashes wrote;
  for (md::index_t const dim : {1, 33, 70}) {
    words::run<Backend, words::heap_memory, float, float, std::int32_t>(dim, false, wrote);
    words::run<Backend, words::heap_memory, md::half, md::bfloat16, std::int64_t>(dim, true, wrote);
  }
  return wrote.all();
}

TEST(Threads, EveryWordWritesTheSameBits) {
  auto const want = every_word<md::reference::backend>();
  EXPECT_EQ(every_word<cpu_backend>(), want);
  EXPECT_EQ(every_word<threaded<1>>(), want);
  EXPECT_EQ(every_word<threaded<2>>(), want);
  EXPECT_EQ(every_word<threaded<3>>(), want);
  EXPECT_EQ(every_word<threaded<7>>(), want);
}

TEST(Threads, StepsOfManyPartsWriteTheSameBits) {
  auto const want = long_steps<md::reference::backend>().run();
  EXPECT_EQ(long_steps<cpu_backend>().run(), want);
  EXPECT_EQ(long_steps<threaded<1>>().run(), want);
  EXPECT_EQ(long_steps<threaded<2>>().run(), want);
  EXPECT_EQ(long_steps<threaded<3>>().run(), want);
  EXPECT_EQ(long_steps<threaded<7>>().run(), want);
}

}  // namespace
