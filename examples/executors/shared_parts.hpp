// SPDX-License-Identifier: Apache-2.0
#pragma once

// The parts of a call, for several threads to take. Whoever is awake takes the next one; nobody waits for a thread that has none, so a
// thread that the system stops, or that comes late, costs no more than the part it holds.

#include <atomic>
#include <cstdint>
#include <thread>

#include <mustdrop/view.hpp>

namespace executors {

using mustdrop::index_t;

constexpr int spins = 2000;  // up to 0.1 ms: the calls of a step follow each other faster than a thread wakes

inline void pause() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

/// Returns when `happened()` is true: awake at first, later only when no other thread wants the processor.
template <class Event>
void wait_for(Event const& happened) noexcept {
  for (int spin = 0; !happened();) {
    if (spin < spins) {
      pause(), ++spin;
    } else {
      std::this_thread::yield();
    }
  }
}

class shared_parts {
 public:
  /// f(0) … f(n − 1), each once, here and in take(); `announce()` calls others to take some. Returns when all are done. One caller at a
  /// time, n below 2^32.
  template <class F, class Announce>
  void run(index_t n, F const& f, Announce const& announce) noexcept {
    auto const parts = static_cast<std::uint64_t>(n);
    call_.store([](void const* job, index_t i) { (*static_cast<F const*>(job))(i); }, std::memory_order_relaxed);
    job_.store(&f, std::memory_order_relaxed);
    done_.store(0, std::memory_order_relaxed);
    parts_.store(parts << 32, std::memory_order_release);
    announce();
    take();
    wait_for([&] { return done_.load(std::memory_order_acquire) == parts; });
  }

  /// Runs parts as long as there are some that nobody has taken.
  ///
  /// Whoever moves the low half on by one has part `low` of the call that is under way now, which cannot end before that part is done:
  /// so what is read after that belongs to the same call, however long ago this thread woke.
  void take() noexcept {
    for (std::uint64_t seen = parts_.load(std::memory_order_acquire); (seen & low) < seen >> 32;) {
      if (!parts_.compare_exchange_weak(seen, seen + 1, std::memory_order_acq_rel, std::memory_order_acquire)) { continue; }
      call_.load(std::memory_order_relaxed)(job_.load(std::memory_order_relaxed), static_cast<index_t>(seen & low));
      done_.fetch_add(1, std::memory_order_acq_rel);
      seen = parts_.load(std::memory_order_acquire);
    }
  }

 private:
  static constexpr std::uint64_t low = 0xffffffff;

  std::atomic<std::uint64_t> parts_{0};  // how many in the high half, the next one in the low half
  std::atomic<std::uint64_t> done_{0};
  std::atomic<void (*)(void const*, index_t)> call_{nullptr};
  std::atomic<void const*> job_{nullptr};
};

}  // namespace executors
