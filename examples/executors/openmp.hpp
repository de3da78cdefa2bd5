// SPDX-License-Identifier: Apache-2.0
#pragma once

// An executor on OpenMP's threads (-fopenmp). The team is the same for each step, because some run-time libraries end the threads that a
// smaller one leaves over. All of it meets at a step's end: where a processor is taken away, every step waits for the thread that was on
// it, which a pool does not. Inside another parallel region a step runs on one thread, unless nested regions are allowed.

#if !defined(_OPENMP)
#error "compile with -fopenmp"
#endif
#include <omp.h>

#include <mustdrop/view.hpp>

namespace executors {

// [docs/cpu.md]
struct openmp {
  int threads = omp_get_max_threads();

  template <class F>
  void operator()(mustdrop::index_t n, F const& f) const noexcept {
#pragma omp parallel for num_threads(threads) schedule(dynamic) if (n > 1)
    for (mustdrop::index_t i = 0; i < n; ++i) { f(i); }
  }
  mustdrop::index_t width() const noexcept { return threads; }
};
// [end]

}  // namespace executors
