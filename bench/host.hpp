// SPDX-License-Identifier: Apache-2.0
#pragma once

// How a step is measured on this machine's processor: the reference, hot only, since its arithmetic limits it, and the CPU backend.

#include <unistd.h>

#include "../tests/cpu_backends.hpp"
#include "roof.hpp"

inline std::size_t cache_bytes(int level, std::size_t otherwise) {
  std::size_t bytes = 0;
  for (auto const& cache : benchmark::CPUInfo::Get().caches) {
    if (cache.level == level || (level == 0 && cache.type != "Instruction")) {
      bytes = std::max(bytes, static_cast<std::size_t>(cache.size));
    }
  }
  return bytes > 0 ? bytes : otherwise;
}

/// Twice the last-level cache, but no more than a quarter of the memory.
inline std::size_t cold_bytes() {
  std::size_t const memory = static_cast<std::size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<std::size_t>(sysconf(_SC_PAGE_SIZE));
  return std::min(2 * cache_bytes(0, std::size_t{32} << 20), memory / 4);
}

/// Memory that outlives the benchmarks, so that none pays for its page faults.
inline char* lasting_memory(std::size_t bytes) {
  static std::vector<char> memory;
  if (memory.size() < bytes + 64) { std::vector<char>(bytes + 64).swap(memory); }
  return memory.data() + (64 - reinterpret_cast<std::uintptr_t>(memory.data()) % 64) % 64;
}

template <class Step>
block_memory blocks_of(Step const& step, bool cold, std::size_t& distinct) {
  std::size_t const stride = step.block_bytes() + 64;  // not the same lines of a cache again
  distinct = std::clamp<std::size_t>(cache_bytes(2, std::size_t{1} << 19) / 2 / stride, 1, 64);
  std::size_t const count = cold ? std::max<std::size_t>(2, cold_bytes() / stride + 1) : distinct;
  return {lasting_memory(stride * count), stride, count};
}

/// Whether the reference and the CPU backend write the same bytes.
template <class Step>
char const* difference(Step& step, char* block) {
  step.fill(block, 1);
  if (md::status const s = step.run(md::reference::backend{}); s != md::status::ok) { return md::message(s); }
  std::vector<char> const expected(block, block + step.block_bytes());
  step.fill(block, 1);
  if (md::status const s = step.run(md::cpu::backend<>{}); s != md::status::ok) { return md::message(s); }
  return std::memcmp(block, expected.data(), expected.size()) == 0 ? nullptr : "reference and cpu differ";
}

template <class Step, class Backend>
void measure(benchmark::State& state, shape const& s, bool& checked) {
  Step step(s);
  std::size_t distinct = 0;
  block_memory const memory = blocks_of(step, s.cold, distinct);
  if (!checked) {
    if (char const* const why = difference(step, memory.block(0)); why != nullptr) { return fail(state, why); }
    checked = true;
  }
  double const limit = measured<xsimd::default_arch>(Step::limit, memory, static_cast<std::size_t>(step.bytes));
  for (std::size_t i = 0; i < memory.count; ++i) {
    if (i < distinct) {
      step.fill(memory.block(i), static_cast<unsigned>(i) + 1);
    } else {
      std::memcpy(memory.block(i), memory.block(i % distinct), step.block_bytes());
    }
  }
  Backend const on{};
  std::size_t round = 0;
  double const begin = seconds();
  for (auto _ : state) {
    step.use(memory.block(round++));
    if (step.run(on) != md::status::ok) { return fail(state, "not ok"); }
    benchmark::ClobberMemory();
  }
  double const took = seconds() - begin;
  auto const times = static_cast<double>(state.iterations());
  state.counters["bytes"] = benchmark::Counter(step.bytes * times, benchmark::Counter::kIsRate);
  if (step.flops > 0) { state.counters["flops"] = benchmark::Counter(step.flops * times, benchmark::Counter::kIsRate); }
  if (limit > 0) {
    double const needed = Step::limit == roof::fma ? step.flops : step.bytes;
    state.counters["roof"] = needed * times / took / limit;
  }
}

constexpr bool times_are_given = false;

template <class Step, class Add>
void add_backends(bool cold, Add const& add) {
  if (!cold) { add("reference", &measure<Step, md::reference::backend>); }
  add("cpu", &measure<Step, md::cpu::backend<>>);
}

inline int status_without_machine() { return 0; }
inline void add_context() {
  benchmark::AddCustomContext("instruction_set", xsimd::default_arch::name());
  benchmark::AddCustomContext("cold_bytes", std::to_string(cold_bytes()));
}
