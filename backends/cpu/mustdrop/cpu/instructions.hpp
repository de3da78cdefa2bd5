// SPDX-License-Identifier: Apache-2.0
#pragma once

// The only intrinsics: what xsimd (8.1 to today's) does not have, or not exactly.
//   - 16-bit floats: xsimd has none, and no lanes that widen from 16 to 32 bits or back.
//   - one rounding of a·b + c on AVX-512: 8.1 multiplies and adds. Division and square root of neon64: 8.1 has approximations.
//   - rows turned into columns: 8.1 has no transpose, and its zip crosses the halves of a register at twice the cost.
//   - prefetch, and stores past the caches.
// An instruction set that is not named here takes the plain loop.

#include <mustdrop/cpu/lanes.hpp>
#include <mustdrop/numerics.hpp>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

MUSTDROP_NAMESPACE_BEGIN
namespace cpu {

// Every processor with AVX2 has F16C; a file compiled for the one without the other converts by arithmetic, to the same bits.
#if defined(__F16C__)
template <class Arch>
constexpr bool converts_halves = extends<Arch, xsimd::avx2> || extends<Arch, xsimd::avx512f> || extends<Arch, xsimd::neon64>;
#else
template <class Arch>
constexpr bool converts_halves = extends<Arch, xsimd::avx512f> || extends<Arch, xsimd::neon64>;
#endif

template <class Arch>
void prefetch(void const* p) noexcept {
#if defined(__GNUC__)
  __builtin_prefetch(p);
#else
  static_cast<void>(p);
#endif
}

/// Copies a line of 64 bytes, aligned at `to`, past the caches; only where the instruction set `streams`.
#if defined(__SSE2__)
template <class Arch>
constexpr bool streams = true;
#else
template <class Arch>
constexpr bool streams = false;
#endif
template <class Arch>
void stream_line([[maybe_unused]] char* to, [[maybe_unused]] char const* from) noexcept {
#if defined(__AVX512F__)
  if constexpr (extends<Arch, xsimd::avx512f>) { return _mm512_stream_si512(reinterpret_cast<__m512i*>(to), _mm512_loadu_si512(from)); }
#endif
#if defined(__SSE2__)
  auto const load = [from](int i) noexcept { return _mm_loadu_si128(reinterpret_cast<__m128i const*>(from) + i); };
  __m128i const a = load(0), b = load(1), c = load(2), d = load(3);  // all before the first store: `to` may be close before `from`
  auto const store = [to](int i, __m128i x) noexcept { _mm_stream_si128(reinterpret_cast<__m128i*>(to) + i, x); };
  store(0, a), store(1, b), store(2, c), store(3, d);
#endif
}
/// What was streamed is seen by others before what this thread stores from now on.
template <class Arch>
void end_streaming() noexcept {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

/// Whether xsimd's fma rounds once.
template <class Arch>
constexpr bool fuses = extends<Arch, xsimd::neon64>;
template <class Base>
inline constexpr bool fuses<xsimd::fma3<Base>> = true;
template <>
inline constexpr bool fuses<xsimd::fma4> = true;

/// a·b + c, rounded once; through std::fma, slowly, where there is no instruction.
template <class Arch>
floats<Arch> fused(floats<Arch> a, floats<Arch> b, floats<Arch> c) noexcept {
#if defined(__AVX512F__)
  if constexpr (extends<Arch, xsimd::avx512f>) { return _mm512_fmadd_ps(a, b, c); }
#endif
  if constexpr (fuses<Arch>) { return xsimd::fma(a, b, c); }
  float x[lanes<Arch>], y[lanes<Arch>], z[lanes<Arch>];
  a.store_unaligned(x), b.store_unaligned(y), c.store_unaligned(z);
  for (index_t i = 0; i < lanes<Arch>; ++i) { z[i] = std::fma(x[i], y[i], z[i]); }
  return floats<Arch>::load_unaligned(z);
}

template <class Arch>
floats<Arch> divide(floats<Arch> a, floats<Arch> b) noexcept {
#if defined(__aarch64__)
  if constexpr (extends<Arch, xsimd::neon64>) { return vdivq_f32(a, b); }
#endif
  return a / b;
}

template <class Arch>
floats<Arch> square_root(floats<Arch> x) noexcept {
#if defined(__aarch64__)
  if constexpr (extends<Arch, xsimd::neon64>) { return vsqrtq_f32(x); }
#endif
  return xsimd::sqrt(x);
}

/// As many 16-bit numbers as there are lanes, each widened with zeros.
template <class Arch>
ints<Arch> load_words(void const* p) noexcept {
#if defined(__AVX512F__)
  if constexpr (extends<Arch, xsimd::avx512f>) { return _mm512_cvtepu16_epi32(_mm256_loadu_si256(static_cast<__m256i const*>(p))); }
#endif
#if defined(__AVX2__)
  if constexpr (extends<Arch, xsimd::avx2>) { return _mm256_cvtepu16_epi32(_mm_loadu_si128(static_cast<__m128i const*>(p))); }
#endif
#if defined(__SSE2__)
  if constexpr (extends<Arch, xsimd::sse2>) {
    return _mm_unpacklo_epi16(_mm_loadl_epi64(static_cast<__m128i const*>(p)), _mm_setzero_si128());
  }
#endif
#if defined(__aarch64__)
  if constexpr (extends<Arch, xsimd::neon64>) {
    return vreinterpretq_s32_u32(vmovl_u16(vreinterpret_u16_u8(vld1_u8(static_cast<std::uint8_t const*>(p)))));
  }
#endif
  std::uint16_t words[lanes<Arch>];
  std::int32_t wide[lanes<Arch>];
  std::memcpy(words, p, sizeof words);
  for (index_t i = 0; i < lanes<Arch>; ++i) { wide[i] = words[i]; }
  return ints<Arch>::load_unaligned(wide);
}

/// The low half of each lane.
template <class Arch>
void store_words(ints<Arch> x, void* p) noexcept {
#if defined(__AVX512F__)
  if constexpr (extends<Arch, xsimd::avx512f>) { return _mm256_storeu_si256(static_cast<__m256i*>(p), _mm512_cvtepi32_epi16(x)); }
#endif
#if defined(__AVX2__)
  if constexpr (extends<Arch, xsimd::avx2>) {
    __m256i const low = _mm256_and_si256(x, _mm256_set1_epi32(0xffff)), packed = _mm256_packus_epi32(low, low);  // within each half
    return _mm_storeu_si128(static_cast<__m128i*>(p), _mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08)));
  }
#endif
#if defined(__SSE2__)
  if constexpr (extends<Arch, xsimd::sse2>) {
    __m128i const extended = _mm_srai_epi32(_mm_slli_epi32(x, 16), 16);  // SSE2 packs signed numbers only
    return _mm_storel_epi64(static_cast<__m128i*>(p), _mm_packs_epi32(extended, extended));
  }
#endif
#if defined(__aarch64__)
  if constexpr (extends<Arch, xsimd::neon64>) {
    return vst1_u8(static_cast<std::uint8_t*>(p), vreinterpret_u8_u16(vmovn_u32(vreinterpretq_u32_s32(x))));
  }
#endif
  std::int32_t wide[lanes<Arch>];
  std::uint16_t words[lanes<Arch>];
  x.store_unaligned(wide);
  for (index_t i = 0; i < lanes<Arch>; ++i) { words[i] = static_cast<std::uint16_t>(wide[i]); }
  std::memcpy(p, words, sizeof words);
}

/// binary16 to float and back; only where the instruction set converts_halves.
template <class Arch>
floats<Arch> load_halves([[maybe_unused]] void const* p) noexcept {
#if defined(__AVX512F__)
  if constexpr (extends<Arch, xsimd::avx512f>) { return _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<__m256i const*>(p))); }
#endif
#if defined(__F16C__)
  if constexpr (extends<Arch, xsimd::avx2>) { return _mm256_cvtph_ps(_mm_loadu_si128(static_cast<__m128i const*>(p))); }
#endif
#if defined(__aarch64__)
  if constexpr (extends<Arch, xsimd::neon64>) { return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(static_cast<std::uint8_t const*>(p)))); }
#endif
}
template <class Arch>
void store_halves([[maybe_unused]] floats<Arch> x, [[maybe_unused]] void* p) noexcept {
#if defined(__AVX512F__)
  if constexpr (extends<Arch, xsimd::avx512f>) {
    _mm256_storeu_si256(static_cast<__m256i*>(p), _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
#endif
#if defined(__F16C__)
  if constexpr (extends<Arch, xsimd::avx2>) {
    _mm_storeu_si128(static_cast<__m128i*>(p), _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
#endif
#if defined(__aarch64__)
  if constexpr (extends<Arch, xsimd::neon64>) { vst1_u8(static_cast<std::uint8_t*>(p), vreinterpret_u8_f16(vcvt_f16_f32(x))); }
#endif
}

// How many rows turn at once: one in each quarter, or half, of a register; and whether that is written here.
template <class Arch>
constexpr int turned_rows = lanes<Arch> >= 16  ? 16
                            : lanes<Arch> >= 8 ? 8
                                               : 4;
#if defined(__SSE2__)
template <class Arch>
constexpr bool turns = true;
#else
template <class Arch>
constexpr bool turns = extends<Arch, xsimd::neon64>;
#endif

/// Four numbers of each of turned_rows rows become four columns: columns[i·stride + r] = rows[r][at + i].
template <class Arch>
void turn_quads(float const* const* rows, index_t at, float* columns, index_t stride) noexcept {
#if defined(__AVX512F__)
  if constexpr (turned_rows<Arch> == 16) {
    auto const load = [=](int r) noexcept {
      __m512 x = _mm512_castps128_ps512(_mm_loadu_ps(rows[r] + at));
      x = _mm512_insertf32x4(x, _mm_loadu_ps(rows[r + 4] + at), 1);
      x = _mm512_insertf32x4(x, _mm_loadu_ps(rows[r + 8] + at), 2);
      return _mm512_insertf32x4(x, _mm_loadu_ps(rows[r + 12] + at), 3);
    };
    __m512 const a = load(0), b = load(1), c = load(2), d = load(3), ac = _mm512_unpacklo_ps(a, c), bd = _mm512_unpacklo_ps(b, d);
    __m512 const ac_high = _mm512_unpackhi_ps(a, c), bd_high = _mm512_unpackhi_ps(b, d);
    _mm512_storeu_ps(columns, _mm512_unpacklo_ps(ac, bd));
    _mm512_storeu_ps(columns + stride, _mm512_unpackhi_ps(ac, bd));
    _mm512_storeu_ps(columns + 2 * stride, _mm512_unpacklo_ps(ac_high, bd_high));
    _mm512_storeu_ps(columns + 3 * stride, _mm512_unpackhi_ps(ac_high, bd_high));
    return;
  }
#endif
#if defined(__AVX__)
  if constexpr (turned_rows<Arch> == 8) {
    auto const load = [=](int r) noexcept {
      return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(rows[r] + at)), _mm_loadu_ps(rows[r + 4] + at), 1);
    };
    __m256 const a = load(0), b = load(1), c = load(2), d = load(3), ac = _mm256_unpacklo_ps(a, c), bd = _mm256_unpacklo_ps(b, d);
    __m256 const ac_high = _mm256_unpackhi_ps(a, c), bd_high = _mm256_unpackhi_ps(b, d);
    _mm256_storeu_ps(columns, _mm256_unpacklo_ps(ac, bd));
    _mm256_storeu_ps(columns + stride, _mm256_unpackhi_ps(ac, bd));
    _mm256_storeu_ps(columns + 2 * stride, _mm256_unpacklo_ps(ac_high, bd_high));
    _mm256_storeu_ps(columns + 3 * stride, _mm256_unpackhi_ps(ac_high, bd_high));
    return;
  }
#endif
#if defined(__SSE2__)
  auto const load = [=](int r) noexcept { return _mm_loadu_ps(rows[r] + at); };
  __m128 const a = load(0), b = load(1), c = load(2), d = load(3), ac = _mm_unpacklo_ps(a, c), bd = _mm_unpacklo_ps(b, d);
  __m128 const ac_high = _mm_unpackhi_ps(a, c), bd_high = _mm_unpackhi_ps(b, d);
  _mm_storeu_ps(columns, _mm_unpacklo_ps(ac, bd));
  _mm_storeu_ps(columns + stride, _mm_unpackhi_ps(ac, bd));
  _mm_storeu_ps(columns + 2 * stride, _mm_unpacklo_ps(ac_high, bd_high));
  _mm_storeu_ps(columns + 3 * stride, _mm_unpackhi_ps(ac_high, bd_high));
#elif defined(__aarch64__)
  auto const load = [=](int r) noexcept { return vld1q_f32(rows[r] + at); };
  float32x4_t const a = load(0), b = load(1), c = load(2), d = load(3), ac = vzip1q_f32(a, c), bd = vzip1q_f32(b, d);
  float32x4_t const ac_high = vzip2q_f32(a, c), bd_high = vzip2q_f32(b, d);
  vst1q_f32(columns, vzip1q_f32(ac, bd));
  vst1q_f32(columns + stride, vzip2q_f32(ac, bd));
  vst1q_f32(columns + 2 * stride, vzip1q_f32(ac_high, bd_high));
  vst1q_f32(columns + 3 * stride, vzip2q_f32(ac_high, bd_high));
#else
  static_cast<void>(rows), static_cast<void>(at), static_cast<void>(columns), static_cast<void>(stride);
#endif
}

}  // namespace cpu
MUSTDROP_NAMESPACE_END
