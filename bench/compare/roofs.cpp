// SPDX-License-Identifier: Apache-2.0

// What the machine can do at the most, for bench/compare: reading, copying and multiplying with nothing else to do, on the threads that
// the words use; and a way to push memory out of the caches.

#include <cstring>

#include <xsimd/xsimd.hpp>

#include "roofs.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

using i64 = mustdrop::index_t;

namespace {

using floats = xsimd::batch<float, xsimd::default_arch>;
constexpr i64 lanes = floats::size;
constexpr i64 part_bytes = 1 << 17;

/// A sum of everything, in as many registers as hide the latency of an addition.
float read_part(char const* from, i64 bytes) {
  floats sum[8];
  for (floats& s : sum) { s = floats(0.0f); }
  auto const* const data = reinterpret_cast<float const*>(from);
  i64 const n = bytes / 4 / (8 * lanes) * (8 * lanes);
  for (i64 i = 0; i < n; i += 8 * lanes) {
#pragma GCC unroll 8
    for (i64 j = 0; j < 8; ++j) { sum[j] += floats::load_unaligned(data + i + j * lanes); }
  }
  for (floats const& s : sum) { sum[0] += s; }
  return sum[0].get(0);
}

/// Loads and stores everything where it is.
void update_part(char* at, i64 bytes) {
  auto* const data = reinterpret_cast<float*>(at);
  floats const zero(0.0f);
  for (i64 i = 0; i + 4 * lanes <= bytes / 4; i += 4 * lanes) {
#pragma GCC unroll 4
    for (i64 j = 0; j < 4; ++j) { (floats::load_unaligned(data + i + j * lanes) + zero).store_unaligned(data + i + j * lanes); }
  }
}

/// 12 chains of fused products: four cycles of latency and two units on common processors are full with 8. They and the parts all begin
/// differently, or a compiler does one of them.
float multiply_part(i64 part, i64 rounds) {
  floats sum[12];
  for (int i = 0; i < 12; ++i) { sum[i] = floats(static_cast<float>(12 * part + i)); }
  floats const a(0.999f), b(0.001f);
  for (i64 i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (floats& s : sum) { s = xsimd::fma(s, a, b); }
  }
  for (floats const& s : sum) { sum[0] += s; }
  return sum[0].get(0);
}

volatile float sink;  // so that nothing above is left out

template <class F>
void in_parts(executors::pooled const& execute, i64 bytes, F const& f) {
  execute((bytes + part_bytes - 1) / part_bytes, [&](i64 part) {
    i64 const begin = part * part_bytes, left = bytes - begin;
    f(begin, left < part_bytes ? left : part_bytes);
  });
}

}  // namespace

void read_bytes(executors::pooled const& execute, char const* from, i64 bytes) {
  in_parts(execute, bytes, [&](i64 begin, i64 size) { sink = read_part(from + begin, size); });
}

void copy_bytes(executors::pooled const& execute, char const* from, char* to, i64 bytes) {
  in_parts(execute, bytes, [&](i64 begin, i64 size) { std::memcpy(to + begin, from + begin, static_cast<std::size_t>(size)); });
}

void update_bytes(executors::pooled const& execute, char* at, i64 bytes) {
  in_parts(execute, bytes, [&](i64 begin, i64 size) { update_part(at + begin, size); });
}

void multiply(executors::pooled const& execute, double flops) {
  constexpr i64 parts = 8;
  i64 const rounds = static_cast<i64>(flops / (2.0 * 12 * lanes * parts)) + 1;
  execute(parts, [&](i64 part) { sink = multiply_part(part, rounds); });
}

extern "C" void mustdrop_flush(void const* data, i64 bytes) {
  auto const* const line = static_cast<char const*>(data);
#if defined(__x86_64__)
  for (i64 i = 0; i < bytes; i += 64) { _mm_clflush(line + i); }
  _mm_mfence();
#else
  (void)line, (void)bytes;
#endif
}

extern "C" int mustdrop_can_flush() {
#if defined(__x86_64__)
  return 1;
#else
  return 0;
#endif
}
