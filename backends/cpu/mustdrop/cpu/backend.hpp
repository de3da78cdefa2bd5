// SPDX-License-Identifier: Apache-2.0
#pragma once

// cpu::backend<Arch, Executor>: every word on vector instructions, the same bits as the reference.
//
// Arch is one of xsimd's instruction sets: fma3<avx2>, avx512f and above, neon64. Sets without a fused multiply-add (sse2 to avx2 alone)
// give the same bits through std::fma, slowly. Compile a file that names an Arch with that Arch's flags and no more: whatever those
// flags change is a template on Arch, so files compiled differently share no kernel. examples/dispatch chooses at run time.

#include <type_traits>
#include <utility>

#include <mustdrop/backend.hpp>
#include <mustdrop/view.hpp>
#include <xsimd/xsimd.hpp>

MUSTDROP_NAMESPACE_BEGIN
namespace cpu {

/// Runs f(0) … f(n − 1) here, in order. An executor of yours may run them on any threads, in any order, and returns when all are done;
/// results do not depend on it. It may have a `width()` too, a bound of how many f run at once: attention_scores keeps scratch for
/// four heads each.
struct serial {
  template <class F>
  void operator()(index_t n, F const& f) const noexcept {
    for (index_t i = 0; i < n; ++i) { f(i); }
  }
  static constexpr index_t width() noexcept { return 1; }
};

template <class Arch = xsimd::default_arch, class Executor = serial>
struct backend {
  using is_mustdrop_backend = void;
  Executor execute{};
};

template <class Executor, class = void>
struct has_width : std::false_type {};
template <class Executor>
struct has_width<Executor, std::void_t<decltype(std::declval<Executor const&>().width())>> : std::true_type {};

/// How many parts of a step it pays to have scratch for.
template <class Arch, class Executor>
constexpr index_t parts_at_once(backend<Arch, Executor> const& on) noexcept {
  if constexpr (has_width<Executor>::value) {
    return on.execute.width() < 1 ? 1 : on.execute.width();
  } else {
    return 8;
  }
}

/// Below this many bytes a second thread costs more than it saves.
constexpr index_t bytes_a_part = 1 << 17;

/// How many rows of `row_bytes` bytes make a part of the work.
constexpr index_t rows_a_part(index_t row_bytes) noexcept {
  return row_bytes <= 0 ? bytes_a_part : row_bytes < bytes_a_part ? bytes_a_part / row_bytes : 1;
}

/// Calls f(segment, first, last) for pieces [first, last) of `bound` rows of each segment, none longer than `part`.
template <class Arch, class Executor, class F>
void for_each_part(backend<Arch, Executor> const& on, index_t segments, index_t bound, index_t part, F const& f) noexcept {
  index_t const parts = bound / part + (bound % part != 0);
  on.execute(segments * parts, [=, &f](index_t i) {
    index_t const first = i % parts * part;
    f(i / parts, first, bound - first < part ? bound : first + part);
  });
}

}  // namespace cpu
MUSTDROP_NAMESPACE_END
