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
  return simde_mm512_insertf32x8(simde_mm512_castps256_ps512(_mm256_cvtph_ps(_mm256_castsi256_si128(halves))),
                                 _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1)), 1);
}
inline __m256i float16_of(simde__m512 x) {
  __m128i low = _mm256_cvtps_ph(simde_mm512_extractf32x8_ps(x, 0), _MM_FROUND_TO_NEAREST_INT);
  __m128i high = _mm256_cvtps_ph(simde_mm512_extractf32x8_ps(x, 1), _MM_FROUND_TO_NEAREST_INT);
  return _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
}
#define _mm512_cvtph_ps float32_of
#define _mm512_cvtps_ph(x, rounding) float16_of(x)
