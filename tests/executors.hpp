// SPDX-License-Identifier: Apache-2.0
#pragma once

// Everybody who can run the parts of a step, with any number of threads: the adapters of examples/executors, and a thread for each.

#include <cstddef>
#include <functional>
#include <thread>
#include <vector>

#include <executors/ggml.hpp>
#include <executors/thread_pool.hpp>
#if defined(MUSTDROP_HAS_OPENMP)
#include <executors/openmp.hpp>
#endif
#if defined(MUSTDROP_HAS_ONETBB)
#include <oneapi/tbb/global_control.h>
#include <executors/onetbb.hpp>
#endif

#include <mustdrop/cpu/backend.hpp>

namespace md = mustdrop;

/// Who runs the parts is chosen while the test runs, so that every word is compiled once for all of them.
struct chosen_executor {
  using parts = std::function<void(md::index_t)>;
  static inline std::function<void(md::index_t, parts const&)> run;
  static inline md::index_t threads = 1;

  template <class F>
  void operator()(md::index_t n, F const& f) const noexcept {
    run(n, [&f](md::index_t i) {
      if (i < 16) { std::this_thread::yield(); }  // or the first thread takes all parts before another one wakes
      f(i);
    });
  }
  static md::index_t width() noexcept { return threads; }
  static constexpr md::index_t bytes_a_part() noexcept { return 1024; }  // small cases have many parts too
};

/// Calls body() with `executor` chosen.
template <class Executor, class Body>
void choose(Executor const& executor, Body const& body) {
  chosen_executor::run = [&](md::index_t n, chosen_executor::parts const& f) { executor(n, f); };
  chosen_executor::threads = static_cast<md::index_t>(executor.width());
  body();
  chosen_executor::run = {};
}

/// f(0) … f(threads − 1), each on a thread of its own, 0 here.
template <class F>
void on_each(int threads, F const& f) {
  std::vector<std::thread> others;
  for (int t = 1; t < threads; ++t) { others.emplace_back(f, t); }
  f(0);
  for (std::thread& other : others) { other.join(); }
}

/// Part i on thread i mod threads, made for this step.
struct fresh_threads {
  int threads;

  template <class F>
  void operator()(md::index_t n, F const& f) const noexcept {
    if (n < 2) { return md::cpu::serial{}(n, f); }
    on_each(threads, [&](int t) {
      for (md::index_t i = t; i < n; i += threads) { f(i); }
    });
  }
  md::index_t width() const noexcept { return threads; }
};

struct adapter {
  char const* name;
  void (*with)(int threads, std::function<void()> const& body);  // body() may be called on any thread
};

inline void with_fresh_threads(int threads, std::function<void()> const& body) { choose(fresh_threads{threads}, body); }

inline void with_pool(int threads, std::function<void()> const& body) {
  executors::thread_pool pool(threads);
  choose(executors::pooled{&pool}, body);
}

/// As in a graph whose threads all come to one node.
inline void with_ggml(int threads, std::function<void()> const& body) {
  executors::ggml_team team;
  on_each(threads, [&](int /*ith*/) { team.run(threads, [&](executors::ggml_threads executor) { choose(executor, body); }); });
}

#if defined(MUSTDROP_HAS_ONETBB)
inline void with_onetbb(int threads, std::function<void()> const& body) {
  auto const as_many = static_cast<std::size_t>(threads);  // however few processors there are
  tbb::global_control const control(tbb::global_control::max_allowed_parallelism, as_many);
  tbb::task_arena arena(threads);
  choose(executors::onetbb{&arena}, body);
}
#endif

#if defined(MUSTDROP_HAS_OPENMP)
inline void with_openmp(int threads, std::function<void()> const& body) { choose(executors::openmp{threads}, body); }
#endif

constexpr adapter adapters[] = {
    {"fresh_threads", with_fresh_threads},
    {"thread_pool", with_pool},
    {"ggml", with_ggml},
#if defined(MUSTDROP_HAS_ONETBB)
    {"onetbb", with_onetbb},
#endif
#if defined(MUSTDROP_HAS_OPENMP)
    {"openmp", with_openmp},
#endif
};
