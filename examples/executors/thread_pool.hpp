// SPDX-License-Identifier: Apache-2.0
#pragma once

// An executor on threads of its own, made once. They sleep where nothing has been to do for 0.1 ms.

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "shared_parts.hpp"

namespace executors {

/// `threads` in all: the caller of run() is one of them.
class thread_pool {
 public:
  explicit thread_pool(int threads) {
    for (int i = 1; i < threads; ++i) {
      workers_.emplace_back([this] { work(); });
    }
  }
  thread_pool(thread_pool const&) = delete;
  thread_pool& operator=(thread_pool const&) = delete;
  ~thread_pool() {
    stop_.store(true);
    announce();
    for (std::thread& worker : workers_) { worker.join(); }
  }

  int width() const noexcept { return static_cast<int>(workers_.size()) + 1; }

  /// f(0) … f(n − 1), each once, on the workers and here; returns when all are done. A single part wakes nobody. One caller at a time, n
  /// below 2^32.
  template <class F>
  void run(index_t n, F const& f) noexcept {
    if (n > 1 && !workers_.empty()) {
      return parts_.run(n, f, [this] { announce(); });
    }
    for (index_t i = 0; i < n; ++i) { f(i); }
  }

 private:
  void announce() noexcept {
    {
      std::lock_guard<std::mutex> const lock(mutex_);  // so that a worker about to sleep does not miss it
      round_.fetch_add(1);
    }
    wake_.notify_all();
  }

  void work() {
    for (unsigned seen = 0; !stop_.load();) {
      for (int spin = 0; spin < spins && round_.load(std::memory_order_acquire) == seen; ++spin) { pause(); }
      if (round_.load(std::memory_order_acquire) == seen) {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return round_.load() != seen; });
      }
      seen = round_.load(std::memory_order_acquire);
      parts_.take();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<unsigned> round_{0};
  std::atomic<bool> stop_{false};
  shared_parts parts_;
  std::vector<std::thread> workers_;  // last: they read the rest
};

/// What cpu::backend holds: no pool is one thread, here.
struct pooled {
  thread_pool* pool = nullptr;

  template <class F>
  void operator()(index_t n, F const& f) const noexcept {
    if (pool != nullptr) { return pool->run(n, f); }
    for (index_t i = 0; i < n; ++i) { f(i); }
  }
  index_t width() const noexcept { return pool != nullptr ? pool->width() : 1; }
};

}  // namespace executors
