// SPDX-License-Identifier: Apache-2.0
#pragma once

// Registers steps as benchmarks  word/type/BATCHxTOKENS/hot or cold/backend  and runs them.

#include "step.hpp"

/// Memory that outlives the benchmarks, so that none pays for its page faults.
inline char* lasting_memory(std::size_t bytes) {
  static std::vector<char> memory;
  if (memory.size() < bytes + 64) { std::vector<char>(bytes + 64).swap(memory); }
  return memory.data() + (64 - reinterpret_cast<std::uintptr_t>(memory.data()) % 64) % 64;
}

inline bool& any_failed() {
  static bool failed = false;
  return failed;
}
inline void fail(benchmark::State& state, char const* why) {
  any_failed() = true;
  state.SkipWithError(why);
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

template <class T>
constexpr char const* type_name = std::is_same_v<T, float>      ? "f32"
                                  : std::is_same_v<T, md::half> ? "f16"
                                                                : "bf16";

/// One type, shape and temperature: reference (hot only: it is limited by its arithmetic) and cpu.
template <class Step>
void add_one(std::string const& word, char const* type, shape const& s) {
  std::string const name =
      word + '/' + type + '/' + std::to_string(s.batch) + 'x' + std::to_string(s.tokens) + (s.cold ? "/cold/" : "/hot/");
  auto const checked = std::make_shared<bool>(false);
  auto const add = [&](char const* backend, void (*run)(benchmark::State&, shape const&, bool&)) {
    benchmark::RegisterBenchmark((name + backend).c_str(), [=](benchmark::State& state) {
      run(state, s, *checked);
    })->Unit(benchmark::kMicrosecond);
  };
  if (!s.cold) { add("reference", &measure<Step, md::reference::backend>); }
  add("cpu", &measure<Step, md::cpu::backend<>>);
}

template <template <class> class Step, class... T>
void add(std::string const& word, std::vector<index_t> const& batches = {1, 8}) {
  for (index_t const batch : batches) {
    for (index_t const tokens : {576, 2880}) {
      for (bool const cold : {false, true}) { (add_one<Step<T>>(word, type_name<T>, {batch, tokens, cold}), ...); }
    }
  }
}
template <template <class> class Step>
void add_of_every_type(std::string const& word, std::vector<index_t> const& batches = {1, 8}) {
  add<Step, float, md::half, md::bfloat16>(word, batches);
}

inline int run_all(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) { return 1; }
  benchmark::AddCustomContext("instruction_set", xsimd::default_arch::name());
  benchmark::AddCustomContext("cold_bytes", std::to_string(cold_bytes()));
  bool const ran = benchmark::RunSpecifiedBenchmarks() > 0;
  benchmark::Shutdown();
  return ran && !any_failed() ? 0 : 1;
}
