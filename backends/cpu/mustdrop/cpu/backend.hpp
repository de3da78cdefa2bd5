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
/// four heads each; and a `bytes_a_part()`, about how many bytes f(i) should read or write to be worth sharing, 131072 if it has none.
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

template <class Executor, class = void>
struct has_bytes_a_part : std::false_type {};
template <class Executor>
struct has_bytes_a_part<Executor, std::void_t<decltype(std::declval<Executor const&>().bytes_a_part())>> : std::true_type {};

/// How many things of `bytes` bytes make a part of the work: below 128 KB a second thread costs more than it saves.
template <class Arch, class Executor>
constexpr index_t many_a_part([[maybe_unused]] backend<Arch, Executor> const& on, index_t bytes) noexcept {
  index_t part = 1 << 17;
  if constexpr (has_bytes_a_part<Executor>::value) { part = on.execute.bytes_a_part(); }
  return bytes <= 0 ? part > 1 ? part : 1 : bytes < part ? part / bytes : 1;
}

/// Calls f(0) … f(n − 1), `many` neighbours in a part.
template <class Arch, class Executor, class F>
void in_parts(backend<Arch, Executor> const& on, index_t n, index_t many, F const& f) noexcept {
  on.execute(n / many + (n % many != 0), [=, &f](index_t part) {
    index_t const first = part * many, last = n - first < many ? n : first + many;
    for (index_t i = first; i < last; ++i) { f(i); }
  });
}

/// Calls f(segment, first, last) for pieces [first, last) of `bound` rows of each segment, none longer than `many`. Short segments share a
/// part.
template <class Arch, class Executor, class F>
void for_each_part(backend<Arch, Executor> const& on, index_t segments, index_t bound, index_t many, F const& f) noexcept {
  if (bound == 0) { return; }
  index_t const pieces = bound / many + (bound % many != 0);
  in_parts(on, segments * pieces, pieces > 1 ? 1 : many / bound, [=, &f](index_t i) {
    index_t const first = i % pieces * many;
    f(i / pieces, first, bound - first < many ? bound : first + many);
  });
}

}  // namespace cpu
MUSTDROP_NAMESPACE_END
