// SPDX-License-Identifier: Apache-2.0
#pragma once

// An executor on the threads that run a ggml graph. They all call an operator, with (ith, nth), and meet after it; none can be started or
// woken from inside. A word cannot be called by each of them: between its steps is code for one thread. So the first thread that comes
// runs the words, as it would alone, and the others stay in the operator and take parts of its steps until it is done. No thread is made,
// and one that comes late, or not before the end, is not waited for by the words, only by the operator, as by ggml itself.

#include <atomic>

#include "shared_parts.hpp"

namespace executors {

/// What cpu::backend holds; made by ggml_team for words that run inside it.
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

/// One for an operator, in its userdata. It stays for all graphs, with any number of threads, and belongs to one graph at a time.
class ggml_team {
 public:
  /// Called by each of nth threads, once: words(ggml_threads) on the first that comes; returns on all of them when it has returned there
  /// and what was written can be read everywhere. A number of tasks below GGML_N_TASKS_MAX may make nth smaller, and nth = 1 is right too.
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
