// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

// Who runs the parts of a step changes nothing: the same bits from the reference, from one thread and from several. Gates build this with
// ThreadSanitizer.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "backends.hpp"
#include "executors.hpp"
#include "memory.hpp"
#include "word_runs.hpp"

namespace {

using floats = std::vector<float>;
using integers = std::vector<std::int32_t>;
using status = md::status;

template <class Backend, class Executor>
struct with_executor;
template <class Arch, class Old, class Executor>
struct with_executor<md::cpu::backend<Arch, Old>, Executor> {
  using type = md::cpu::backend<Arch, Executor>;
};
using threaded = typename with_executor<cpu_backend, chosen_executor>::type;

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

/// Steps on two images are long enough to be split: everything that they write, one after another.
template <class Backend, int Images = 2, int Dim = 260>
class steps_on_images {
 public:
  floats run() {
    windows();
    attention();
    rows();
    cache();
    return std::move(written_);
  }
  void run_those_on_rows() {
    windows();
    rows();
  }

 private:
  static constexpr md::index_t images = Images, tokens = 577, all = images * tokens, dim = Dim;

  void took(status s) { EXPECT_EQ(s, status::ok); }
  template <class T>
  void keep(std::vector<T> const& values) {
    for (T const value : values) { written_.push_back(static_cast<float>(value)); }
  }

  void windows() {
    md::window_shape const window{3, 3};
    std::vector<md::token_grid> const grids(images, {24, 24});
    floats similarity(images * 64), rows(all * dim), sizes(all);
    integers source(all), kept(all), counts(images);
    aligned_memory scratch(std::max(md::window_similarity_workspace_size(on_, window, all, dim, cut_),
                                    md::window_merge_workspace_size(on_, window, all, dim, 64, cut_)));
    took(md::window_similarity(on_, window, features(), cut_, md::view(grids.data(), images), md::view(similarity.data(), images, 64),
                               scratch.lend()));
    keep(similarity);
    md::merge_options options;
    options.count = 20;
    md::tensor_view<float const, 2> const scores = md::view(similarity.data(), images, 64);
    took(md::window_merge(on_, options, window, features(), cut_, md::view(grids.data(), images), scores, {},
                          md::view(rows.data(), all, dim), md::view(sizes.data(), all), md::view(source.data(), all),
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

/// Each adapter with each number of threads.
class Threads : public testing::TestWithParam<std::tuple<adapter, int>> {
 protected:
  static int threads() { return std::get<1>(GetParam()); }
  static void with_them(std::function<void()> const& body) { std::get<0>(GetParam()).with(threads(), body); }
};

std::string name_of_adapter(testing::TestParamInfo<Threads::ParamType> const& info) {
  return std::get<0>(info.param).name + ("_" + std::to_string(std::get<1>(info.param)));
}
INSTANTIATE_TEST_SUITE_P(Adapters, Threads, testing::Combine(testing::ValuesIn(adapters), testing::Values(1, 2, 3, 7)), name_of_adapter);

TEST_P(Threads, EveryWordWritesTheSameBits) {
  static auto const want = every_word<md::reference::backend>();
  decltype(every_word<threaded>()) got;
  with_them([&] { got = every_word<threaded>(); });
  EXPECT_EQ(got, want);
}

TEST_P(Threads, StepsOfManyPartsWriteTheSameBits) {
  static auto const want = steps_on_images<md::reference::backend>().run();
  floats got;
  with_them([&] { got = steps_on_images<threaded>().run(); });
  EXPECT_EQ(got, want);
}

TEST_P(Threads, EachPartRunsOnce) {
  with_them([] {
    for (int const n : {0, 1, 2, 3, 8, 1000, 2}) {  // one step after another, as words have them
      std::vector<int> runs(static_cast<std::size_t>(n));
      chosen_executor{}(n, [&](md::index_t i) { ++runs[static_cast<std::size_t>(i)]; });
      EXPECT_EQ(runs, std::vector<int>(static_cast<std::size_t>(n), 1));
    }
  });
}

TEST_P(Threads, OnePartRunsWhereItWasCalled) {
  with_them([] {
    std::thread::id ran;
    chosen_executor{}(1, [&](md::index_t) { ran = std::this_thread::get_id(); });
    EXPECT_EQ(ran, std::this_thread::get_id());
  });
}

/// A part waits until two run at once, for a minute at the most: a step is really shared, and not with more threads than were promised.
TEST_P(Threads, OthersTakePartsAsManyAsTheWidthSays) {
  std::atomic<int> now{0}, most{0};
  int const wanted = std::min(threads(), 2);
  auto const late = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  with_them([&] {
    chosen_executor{}(50, [&](md::index_t) {
      int const running = ++now;
      for (int seen = most; seen < running && !most.compare_exchange_weak(seen, running);) {}
      while (most < wanted && std::chrono::steady_clock::now() < late) { std::this_thread::yield(); }
      --now;
    });
    EXPECT_EQ(chosen_executor::width(), threads());
  });
  EXPECT_GE(most, wanted);
  EXPECT_LE(most, threads());
}

/// The most parts that a step was ever in.
struct counting {
  static inline md::index_t most = 0;

  template <class F>
  void operator()(md::index_t n, F const& f) const noexcept {
    most = std::max(most, n);
    md::cpu::serial{}(n, f);
  }
  static constexpr md::index_t width() noexcept { return 7; }
};

/// Below 128 KB a second thread costs more than it saves: cases of a few tokens are one part to every word, however many their segments
/// and heads are, and so is an image whose features take 37 KB to every step on rows.
TEST(Parts, OfASmallStepThereIsOne) {
  using counted = typename with_executor<cpu_backend, counting>::type;
  every_word<counted>();
  steps_on_images<counted, 1, 16>().run_those_on_rows();
  EXPECT_EQ(counting::most, 1);
  steps_on_images<counted>().run_those_on_rows();
  EXPECT_GE(counting::most, 8);  // 1.2 MB
}

TEST(Serial, WritesTheSameBits) {
  EXPECT_EQ(every_word<cpu_backend>(), every_word<md::reference::backend>());
  EXPECT_EQ(steps_on_images<cpu_backend>().run(), steps_on_images<md::reference::backend>().run());
}

/// Graphs of one node after another, in two steps each; a part of a step reads what another thread may have written in the step before.
TEST(Ggml, NodesFollowEachOtherOnTheThreadsThereAre) {
  constexpr int threads = 3, nodes = 900, parts = 20;
  executors::ggml_team team;
  std::vector<int> from(parts), to(parts);
  std::atomic<int> entered{0}, strangers{0};
  std::thread::id ids[threads];
  on_each(threads, [&](int ith) {
    ids[ith] = std::this_thread::get_id();
    for (++entered; entered < threads;) { std::this_thread::yield(); }
    for (int node = 0; node < nodes; ++node) {
      if ((node + ith) % 100 == 0) { std::this_thread::sleep_for(std::chrono::milliseconds(1)); }  // somebody is late
      team.run(threads, [&](executors::ggml_threads execute) {
        for (int step = 0; step < 2; ++step) {
          execute(parts, [&](md::index_t i) {
            to[static_cast<std::size_t>(i)] = from[static_cast<std::size_t>((i + 7) % parts)] + 1;
            strangers += std::find(ids, ids + threads, std::this_thread::get_id()) == ids + threads;
          });
          std::swap(from, to);  // between two steps only one thread is at work
        }
      });
    }
  });
  EXPECT_EQ(from, std::vector<int>(parts, 2 * nodes));
  EXPECT_EQ(strangers, 0);
}

TEST(Ggml, OneThreadNeedsNoOther) {
  executors::ggml_team team;
  for (int const nth : {1, 1, 2, 1, 3}) {  // ggml takes as many threads as a graph is given
    std::atomic<int> runs{0};
    on_each(nth, [&](int) { team.run(nth, [&](executors::ggml_threads execute) { execute(10, [&](md::index_t) { ++runs; }); }); });
    EXPECT_EQ(runs, 10);
  }
}

}  // namespace
