// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace llava {

/// A few threads that wait for work. run(n, f) calls f(0) … f(n − 1), each once, in any order, and returns when all are done.
/// Results do not depend on the number of threads: tasks are the same whoever runs them.
class workers {
 public:
  explicit workers(int threads) {
    for (int t = 1; t < threads; ++t) {
      threads_.emplace_back([this] { wait_for_work(); });
    }
  }
  ~workers() {
    {
      std::lock_guard const lock(mutex_);
      ending_ = true;
    }
    begin_.notify_all();
    for (auto& thread : threads_) { thread.join(); }
  }
  workers(workers const&) = delete;
  workers& operator=(workers const&) = delete;

  long count() const { return static_cast<long>(threads_.size()) + 1; }

  void run(long n, std::function<void(long)> const& f) {
    if (threads_.empty() || n < 2) {
      for (long i = 0; i < n; ++i) { f(i); }
      return;
    }
    {
      std::lock_guard const lock(mutex_);
      task_ = &f, tasks_ = n, next_ = 0, busy_ = static_cast<int>(threads_.size()), ++round_;
    }
    begin_.notify_all();
    take_tasks();
    std::unique_lock lock(mutex_);
    end_.wait(lock, [this] { return busy_ == 0; });
  }

 private:
  void take_tasks() {
    for (long i = next_++; i < tasks_; i = next_++) { (*task_)(i); }
  }
  void wait_for_work() {
    for (long seen = 0;;) {
      {
        std::unique_lock lock(mutex_);
        begin_.wait(lock, [&] { return ending_ || round_ != seen; });
        if (ending_) { return; }
        seen = round_;
      }
      take_tasks();
      std::lock_guard const lock(mutex_);
      if (--busy_ == 0) { end_.notify_one(); }
    }
  }

  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable begin_, end_;
  std::function<void(long)> const* task_ = nullptr;
  std::atomic<long> next_{0};
  long tasks_ = 0, round_ = 0;
  int busy_ = 0;
  bool ending_ = false;
};

}  // namespace llava
