// SPDX-License-Identifier: Apache-2.0
#pragma once

// Registers steps as benchmarks  word/type/BATCHxTOKENS/hot or cold/backend  and runs them.

#include <benchmark/benchmark.h>

#include "step.hpp"
#include "words.hpp"

inline bool& any_failed() {
  static bool failed = false;
  return failed;
}
inline void fail(benchmark::State& state, char const* why) {
  any_failed() = true;
  state.SkipWithError(why);
}

#if defined(MUSTDROP_BENCH_CUDA)
#include "device.hpp"
#else
#include "host.hpp"
#endif

template <class T>
constexpr char const* type_name = std::is_same_v<T, float>      ? "f32"
                                  : std::is_same_v<T, md::half> ? "f16"
                                                                : "bf16";

/// One type, shape and temperature, on each backend.
template <class Step>
void add_one(std::string const& word, char const* type, shape const& s) {
  std::string const name =
      word + '/' + type + '/' + std::to_string(s.batch) + 'x' + std::to_string(s.tokens) + (s.cold ? "/cold/" : "/hot/");
  auto const checked = std::make_shared<bool>(false);
  add_backends<Step>(s.cold, [&](char const* backend, void (*run)(benchmark::State&, shape const&, bool&)) {
    auto* const added = benchmark::RegisterBenchmark((name + backend).c_str(), [=](benchmark::State& state) { run(state, s, *checked); });
    added->Unit(benchmark::kMicrosecond);
    if (times_are_given) { added->UseManualTime(); }
  });
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
  if (int const status = status_without_machine(); status != 0) { return status; }
  add_context();
  bool const ran = benchmark::RunSpecifiedBenchmarks() > 0;
  benchmark::Shutdown();
  return ran && !any_failed() ? 0 : 1;
}
