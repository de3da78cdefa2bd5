// SPDX-License-Identifier: Apache-2.0
#pragma once

// An executor on oneTBB: the threads of one arena, the caller among them. The arena says how many at most; how many there are is for
// tbb::global_control, by default as many as processors.

#include <oneapi/tbb/parallel_for.h>
#include <oneapi/tbb/task_arena.h>

#include <mustdrop/view.hpp>

namespace executors {

// [docs/cpu.md]
struct onetbb {
  tbb::task_arena* arena;

  template <class F>
  void operator()(mustdrop::index_t n, F const& f) const noexcept {
    if (n == 1) { return f(0); }
    arena->execute([&] { tbb::parallel_for(mustdrop::index_t{0}, n, f, tbb::simple_partitioner{}); });
  }
  mustdrop::index_t width() const noexcept { return arena->max_concurrency(); }
};
// [end]

}  // namespace executors
