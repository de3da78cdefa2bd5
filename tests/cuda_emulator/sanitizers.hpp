// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the emulator tells the sanitizers. Its own code is compiled without them, so that only what kernels do is judged; whether the
// program has one is seen from its functions being there.

#include <cstddef>

// NOLINTBEGIN(readability-identifier-naming): their names
extern "C" {
[[gnu::weak]] void __sanitizer_start_switch_fiber(void** fake_stack, void const* bottom, std::size_t size);
[[gnu::weak]] void __sanitizer_finish_switch_fiber(void* fake_stack, void const** bottom, std::size_t* size);
[[gnu::weak]] void __asan_poison_memory_region(void const volatile* begin, std::size_t size);
[[gnu::weak]] void __asan_unpoison_memory_region(void const volatile* begin, std::size_t size);
[[gnu::weak]] void* __tsan_get_current_fiber();
[[gnu::weak]] void* __tsan_create_fiber(unsigned flags);
[[gnu::weak]] void __tsan_destroy_fiber(void* fiber);
[[gnu::weak]] void __tsan_switch_to_fiber(void* fiber, unsigned flags);
[[gnu::weak]] void __tsan_set_fiber_name(void* fiber, char const* name);
[[gnu::weak]] void __tsan_acquire(void* token);
[[gnu::weak]] void __tsan_release(void* token);
[[gnu::weak]] void __sanitizer_set_death_callback(void (*callback)());
}
// NOLINTEND(readability-identifier-naming)

namespace cuda_emulator {

inline bool watched_by_asan() noexcept { return __asan_poison_memory_region != nullptr; }
inline bool watched_by_tsan() noexcept { return __tsan_create_fiber != nullptr; }

/// When a sanitizer ends the program, it is said which thread of which block ran.
void speak_before_death() noexcept;

inline void poison(void* begin, std::size_t size) noexcept {
  if (watched_by_asan()) { __asan_poison_memory_region(begin, size); }
}
inline void unpoison(void* begin, std::size_t size) noexcept {
  if (watched_by_asan()) { __asan_unpoison_memory_region(begin, size); }
}

/// TSan knows an order between two threads where the one released the token before the other acquired it, and nowhere else: the switch
/// itself orders nothing.
constexpr unsigned tsan_switch_orders_nothing = 1;
inline void tsan_go_to(void* fiber) noexcept {
  if (watched_by_tsan()) { __tsan_switch_to_fiber(fiber, tsan_switch_orders_nothing); }
}
inline void tsan_acquire(void* token) noexcept {
  if (watched_by_tsan()) { __tsan_acquire(token); }
}
inline void tsan_release(void* token) noexcept {
  if (watched_by_tsan()) { __tsan_release(token); }
}

}  // namespace cuda_emulator
