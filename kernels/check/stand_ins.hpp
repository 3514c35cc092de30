// AVX-512 and AVX-VNNI by functions of other instructions, from SIMD Everywhere (Debian's
// libsimde-dev), for machines that have AVX2 only. Included before all else, on the command line.
#pragma once

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
#include <simde/x86/f16c.h>
#include <simde/x86/fma.h>

#define _mm256_dpbusd_avx_epi32 simde_mm256_dpbusd_epi32

// What is missing there: 16 numbers between float16 and float32, as twice 8.
inline simde__m512 float32_of(__m256i halves) {
  float all[16];
  _mm256_storeu_ps(all, _mm256_cvtph_ps(_mm256_castsi256_si128(halves)));
  _mm256_storeu_ps(all + 8, _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1)));
  return simde_mm512_loadu_ps(all);
}
inline __m256i float16_of(simde__m512 x) {
  float all[16];
  simde_mm512_storeu_ps(all, x);
  __m128i low = _mm256_cvtps_ph(_mm256_loadu_ps(all), _MM_FROUND_TO_NEAREST_INT);
  __m128i high = _mm256_cvtps_ph(_mm256_loadu_ps(all + 8), _MM_FROUND_TO_NEAREST_INT);
  return _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
}
#define _mm512_cvtph_ps float32_of
#define _mm512_cvtps_ph(x, rounding) float16_of(x)

// The same of whole numbers.
inline simde__m512 float32_of_int32(simde__m512i x) {
  int32_t all[16];
  float floats[16];
  simde_mm512_storeu_si512(all, x);
  for (int i = 0; i < 16; i++) floats[i] = static_cast<float>(all[i]);
  return simde_mm512_loadu_ps(floats);
}
inline simde__m512i int32_of_bytes(__m128i x) {
  uint8_t bytes[16];
  int32_t all[16];
  _mm_storeu_si128(reinterpret_cast<__m128i *>(bytes), x);
  for (int i = 0; i < 16; i++) all[i] = bytes[i];
  return simde_mm512_loadu_si512(all);
}
#define _mm512_cvtepi32_ps float32_of_int32
#define _mm512_cvtepu8_epi32 int32_of_bytes
// Rounded to the nearest, as the processor does.
inline simde__m512i int32_of_float32(simde__m512 x) {
  float all[16];
  int32_t whole[16];
  simde_mm512_storeu_ps(all, x);
  for (int i = 0; i < 16; i++) whole[i] = _mm_cvtss_si32(_mm_set_ss(all[i]));
  return simde_mm512_loadu_si512(whole);
}
#define _mm512_cvtps_epi32 int32_of_float32

// Across a vector: halves upon halves, as compilers do it.
template <class Both>
float reduced(simde__m512 x, Both both) {
  float all[16];
  simde_mm512_storeu_ps(all, x);
  for (int half = 8; half > 0; half /= 2)
    for (int i = 0; i < half; i++) all[i] = both(all[i], all[i + half]);
  return all[0];
}
#define _mm512_reduce_add_ps(x) reduced(x, [](float a, float b) { return a + b; })
#define _mm512_reduce_max_ps(x) reduced(x, [](float a, float b) { return a > b ? a : b; })

inline int32_t total_of_int32(simde__m512i x) {
  int32_t all[16], total = 0;
  simde_mm512_storeu_si512(all, x);
  for (int32_t one : all) total += one;
  return total;
}
#define _mm512_reduce_add_epi32 total_of_int32

// The lowest byte of each.
inline __m128i lowest_bytes(simde__m512i x) {
  int32_t all[16];
  uint8_t bytes[16];
  simde_mm512_storeu_si512(all, x);
  for (int i = 0; i < 16; i++) bytes[i] = static_cast<uint8_t>(all[i]);
  return _mm_loadu_si128(reinterpret_cast<const __m128i *>(bytes));
}
#define _mm512_cvtepi32_epi8 lowest_bytes
