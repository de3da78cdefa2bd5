// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the machine can do at this moment, in this process: the speed of reading and of copying memory, and the fma peak of one core.
// A word is measured against these numbers, so they are taken on its own memory and just before it.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstring>
#include <ctime>
#include <vector>

#include <mustdrop/cpu/lanes.hpp>

#include "step.hpp"

/// Processor time, as Google Benchmark counts it: what other programs take is not ours.
inline double seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

/// The median of work(i) a second over samples of 100 µs and more, i = 0, 1, 2, …; work(i) returns how much it did.
template <class F>
double median_rate(F const& work) {
  std::vector<double> rates;
  double const begin = seconds();
  for (std::size_t i = 0; seconds() - begin < 0.01 || rates.size() < 3;) {
    double const start = seconds();
    double done = 0, took = 0;
    for (int batch = 1; took < 1e-4; batch *= 2, took = seconds() - start) {
      for (int times = batch; times > 0; --times) { done += work(i++); }
    }
    rates.push_back(done / took);
  }
  auto const middle = rates.begin() + static_cast<std::ptrdiff_t>(rates.size() / 2);
  std::nth_element(rates.begin(), middle, rates.end());
  return *middle;
}

/// Loads n bytes, whole registers of them.
template <class Arch>
MUSTDROP_FLATTEN void read_through(char const* from, std::size_t n) {
  using register_of_ints = md::cpu::ints<Arch>;
  constexpr int at_once = 8;
  constexpr std::size_t step = sizeof(std::int32_t) * register_of_ints::size;
  register_of_ints seen[at_once];
  md::cpu::unroll<at_once>([&](auto i) { seen[i] = register_of_ints(0); });
  for (char const* const end = from + n; from + at_once * step <= end; from += at_once * step) {
    md::cpu::unroll<at_once>(
        [&](auto i) { seen[i] = seen[i] | register_of_ints::load_unaligned(reinterpret_cast<std::int32_t const*>(from + i * step)); });
  }
  for (int i = 1; i < at_once; ++i) { seen[0] = seen[0] | seen[i]; }
  std::int32_t kept[register_of_ints::size];
  seen[0].store_unaligned(kept);
  benchmark::DoNotOptimize(kept);
}

/// Complements n bytes, whole registers of them.
template <class Arch>
MUSTDROP_FLATTEN void update_through(char* at, std::size_t n) {
  using register_of_ints = md::cpu::ints<Arch>;
  for (char* const end = at + n; at + sizeof(register_of_ints) <= end; at += sizeof(register_of_ints)) {
    auto* const lane = reinterpret_cast<std::int32_t*>(at);
    (register_of_ints::load_unaligned(lane) ^ register_of_ints(-1)).store_unaligned(lane);
  }
  benchmark::ClobberMemory();
}

/// Multiplies and adds, in chains enough to hide the latency of one and few enough for the registers; returns how many operations that was.
template <class Arch>
MUSTDROP_FLATTEN double multiply_and_add(float one) {
  using floats = md::cpu::floats<Arch>;
  constexpr int chains = 12, steps = 256;
  floats const x(one), y(one - 1);
  floats sum[chains];
  md::cpu::unroll<chains>([&](auto i) { sum[i] = floats(one + static_cast<float>(i)); });  // no two alike, or they would be one
  for (int n = 0; n < steps; ++n) {
    md::cpu::unroll<chains>([&](auto i) { sum[i] = md::cpu::fused<Arch>(sum[i], x, y); });
  }
  md::cpu::unroll<chains>([&](auto i) { sum[0] = sum[0] + sum[i]; });
  float kept[floats::size];
  sum[0].store_unaligned(kept);
  benchmark::DoNotOptimize(kept);
  return 2.0 * chains * steps * static_cast<double>(floats::size);
}

/// Bytes or operations a second, on as much of each block as moves `bytes`: a copy goes from one half of it to the other and counts both,
/// an update counts each byte twice.
template <class Arch>
double measured(roof limit, block_memory const& memory, std::size_t bytes) {
  std::size_t const touched = std::min(bytes, memory.stride) / 2 * 2;
  switch (limit) {
    case roof::none: return 0;
    case roof::fma: {
      float volatile const one = 1;
      return median_rate([&](std::size_t) { return multiply_and_add<Arch>(one); });
    }
    case roof::read:
      return median_rate([&](std::size_t i) {
        read_through<Arch>(memory.block(i), touched);
        return static_cast<double>(touched);
      });
    case roof::copy:
      return median_rate([&](std::size_t i) {
        std::memcpy(memory.block(i) + touched / 2, memory.block(i), touched / 2);
        benchmark::ClobberMemory();
        return static_cast<double>(touched);
      });
    case roof::update:
      return median_rate([&](std::size_t i) {
        update_through<Arch>(memory.block(i), touched / 2);
        return static_cast<double>(touched);
      });
  }
  return 0;
}
