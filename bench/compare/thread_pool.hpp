// SPDX-License-Identifier: Apache-2.0
#pragma once

// An executor for cpu::backend on std::thread. Whoever is awake takes the next part of the call; nobody waits for a thread that has none.

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include <mustdrop/view.hpp>

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

  /// f(0) … f(n − 1), each once, on the workers and here; returns when all are done. One caller at a time, n below 2^32.
  template <class F>
  void run(mustdrop::index_t n, F const& f) noexcept {
    if (n <= 1 || workers_.empty()) {
      for (mustdrop::index_t i = 0; i < n; ++i) { f(i); }
      return;
    }
    auto const parts = static_cast<std::uint64_t>(n);
    call_.store([](void const* job, mustdrop::index_t i) { (*static_cast<F const*>(job))(i); }, std::memory_order_relaxed);
    job_.store(&f, std::memory_order_relaxed);
    done_.store(0, std::memory_order_relaxed);
    parts_.store(parts << 32, std::memory_order_release);
    announce();
    take_all();
    for (int spin = 0; done_.load(std::memory_order_acquire) != parts; ++spin) { spin < spins ? pause() : std::this_thread::yield(); }
  }

 private:
  static constexpr int spins = 2000;  // up to 0.1 ms: the calls of a step follow each other faster than a thread wakes

  static void pause() noexcept {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    std::this_thread::yield();
#endif
  }

  void announce() noexcept {
    {
      std::lock_guard<std::mutex> const lock(mutex_);  // so that a worker about to sleep does not miss it
      round_.fetch_add(1);
    }
    wake_.notify_all();
  }

  /// Whoever moves the low half on by one has part `low` of the call that is under way now, which cannot end before that part is done:
  /// so what is read after that belongs to the same call, however long ago this thread woke.
  void take_all() noexcept {
    for (std::uint64_t seen = parts_.load(std::memory_order_acquire); (seen & low) < seen >> 32;) {
      if (!parts_.compare_exchange_weak(seen, seen + 1, std::memory_order_acq_rel, std::memory_order_acquire)) { continue; }
      call_.load(std::memory_order_relaxed)(job_.load(std::memory_order_relaxed), static_cast<mustdrop::index_t>(seen & low));
      done_.fetch_add(1, std::memory_order_acq_rel);
      seen = parts_.load(std::memory_order_acquire);
    }
  }

  void work() {
    for (unsigned seen = 0; !stop_.load();) {
      for (int spin = 0; spin < spins && round_.load(std::memory_order_acquire) == seen; ++spin) { pause(); }
      if (round_.load(std::memory_order_acquire) == seen) {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return round_.load() != seen; });
      }
      seen = round_.load(std::memory_order_acquire);
      take_all();
    }
  }

  static constexpr std::uint64_t low = 0xffffffff;

  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<unsigned> round_{0};
  std::atomic<bool> stop_{false};
  std::atomic<std::uint64_t> parts_{0};  // how many in the high half, the next one in the low half
  std::atomic<std::uint64_t> done_{0};
  std::atomic<void (*)(void const*, mustdrop::index_t)> call_{nullptr};
  std::atomic<void const*> job_{nullptr};
  std::vector<std::thread> workers_;  // last: they read the rest
};

/// What cpu::backend holds: no pool is one thread, here.
struct pooled {
  thread_pool* pool = nullptr;

  template <class F>
  void operator()(mustdrop::index_t n, F const& f) const noexcept {
    if (pool != nullptr) { return pool->run(n, f); }
    for (mustdrop::index_t i = 0; i < n; ++i) { f(i); }
  }
  mustdrop::index_t width() const noexcept { return pool != nullptr ? pool->width() : 1; }
};
