// SPDX-License-Identifier: Apache-2.0
#pragma once

// An executor on the threads that run a ggml graph. They all call a custom operator, with (ith, nth), and meet after it; there are no
// others, and none can be sent anywhere. A word cannot be called by each of them: it has several steps, and what it does between them is
// for one thread. So the first that comes runs the words, as it would alone, and the others stay in the operator and take parts of the
// steps until the words are done. Parts are not dealt out by i mod nth, so the words wait for nobody who comes late.

#include <atomic>

#include "shared_parts.hpp"

namespace executors {

/// What cpu::backend holds, made by ggml_team for words that run inside it. A workspace that is sized before is sized with
/// `ggml_threads{nullptr, n}`, n the most threads that a graph will have.
struct ggml_threads {
  shared_parts* parts;
  int threads;

  template <class F>
  void operator()(index_t n, F const& f) const noexcept {
    if (n > 1 && threads > 1) {
      return parts->run(n, f, [] {});
    }
    for (index_t i = 0; i < n; ++i) { f(i); }
  }
  index_t width() const noexcept { return threads; }
};

/// One for an operator, in its userdata: for all graphs, one at a time, with any number of threads.
class ggml_team {
 public:
  /// Each of the nth threads calls it; the first that comes calls words(ggml_threads). Returns when that has and all have come, so what the
  /// words wrote can be read on each of them. The operator's number of tasks changes nothing but how many threads a graph is given.
  template <class Words>
  void run(int nth, Words const& words) noexcept {
    unsigned const round = round_.load(std::memory_order_acquire);
    if (came_.fetch_add(1, std::memory_order_acq_rel) == 0) {
      words(ggml_threads{&parts_, nth});
      done_.store(true, std::memory_order_release);
    } else {
      wait_for([&] {
        parts_.take();
        return done_.load(std::memory_order_acquire);
      });
    }
    if (left_.fetch_add(1, std::memory_order_acq_rel) + 1 < nth) {
      return wait_for([&] { return round_.load(std::memory_order_acquire) != round; });
    }
    came_.store(0, std::memory_order_relaxed), left_.store(0, std::memory_order_relaxed), done_.store(false, std::memory_order_relaxed);
    round_.store(round + 1, std::memory_order_release);  // only now does anybody leave, so the next round finds all this as it was
  }

 private:
  shared_parts parts_;
  std::atomic<int> came_{0}, left_{0};
  std::atomic<bool> done_{false};
  std::atomic<unsigned> round_{0};
};

}  // namespace executors
