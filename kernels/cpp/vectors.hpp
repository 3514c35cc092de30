// Vectors of float32 for one processor. Included by the source file of each, which says by a macro
// which one it is: KIKU_AVX2, KIKU_AVX512 or KIKU_NEON; KIKU_PROCESSOR is its namespace.
//
// What several processors compute is the same number for number where it is written with the same
// operations in the same order: all of them round to nearest, and all have a fused multiply-add.
// Only sums across a vector depend on its width.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(KIKU_AVX2) || defined(KIKU_AVX512)
#include <immintrin.h>
#elif defined(KIKU_NEON)
#include <arm_neon.h>
#else
#error "no processor is chosen"
#endif

namespace kiku::KIKU_PROCESSOR {
namespace {

#if defined(KIKU_AVX512)

struct Floats {
  static constexpr size_t kWidth = 16;
  __m512 v;
  static Floats load(const float *p) { return {_mm512_loadu_ps(p)}; }
  static Floats load_half(const uint16_t *p) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)))};
  }
  static Floats load_bytes(const uint8_t *p) {
    return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p))))};
  }
  static Floats load_bytes(const int8_t *p) {
    return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p))))};
  }
  static Floats all(float x) { return {_mm512_set1_ps(x)}; }
  static Floats zero() { return {_mm512_setzero_ps()}; }
  void store(float *p) const { _mm512_storeu_ps(p, v); }
  void store_half(uint16_t *p) const {
    _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }
  // The nearest whole numbers
  void store_bytes(int8_t *p) const {
    _mm_storeu_si128(reinterpret_cast<__m128i *>(p), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v)));
  }
};
inline Floats operator+(Floats a, Floats b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Floats operator-(Floats a, Floats b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Floats operator*(Floats a, Floats b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Floats multiply_add(Floats a, Floats b, Floats c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
// The second where either is no number.
inline Floats maximum(Floats a, Floats b) { return {_mm512_max_ps(a.v, b.v)}; }
inline Floats minimum(Floats a, Floats b) { return {_mm512_min_ps(a.v, b.v)}; }
inline Floats absolute(Floats a) { return {_mm512_abs_ps(a.v)}; }
inline Floats nearest(Floats a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
inline Floats where_positive(Floats x, Floats yes, Floats no) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(x.v, _mm512_setzero_ps(), _CMP_GT_OQ), no.v, yes.v)};
}
// 2 to the power of whole numbers in -126 .. 127
inline Floats power_of_2(Floats n) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n.v), _mm512_set1_epi32(127)), 23))};
}
inline float sum_of(Floats a) { return _mm512_reduce_add_ps(a.v); }
inline float greatest_of(Floats a) { return _mm512_reduce_max_ps(a.v); }

#elif defined(KIKU_AVX2)

struct Floats {
  static constexpr size_t kWidth = 8;
  __m256 v;
  static Floats load(const float *p) { return {_mm256_loadu_ps(p)}; }
  static Floats load_half(const uint16_t *p) {
    return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)))};
  }
  static Floats load_bytes(const uint8_t *p) {
    return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(p))))};
  }
  static Floats load_bytes(const int8_t *p) {
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(p))))};
  }
  static Floats all(float x) { return {_mm256_set1_ps(x)}; }
  static Floats zero() { return {_mm256_setzero_ps()}; }
  void store(float *p) const { _mm256_storeu_ps(p, v); }
  void store_half(uint16_t *p) const {
    _mm_storeu_si128(reinterpret_cast<__m128i *>(p), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }
  // The nearest whole numbers
  void store_bytes(int8_t *p) const {
    __m256i n = _mm256_cvtps_epi32(v);
    __m128i half = _mm_packs_epi32(_mm256_castsi256_si128(n), _mm256_extracti128_si256(n, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i *>(p), _mm_packs_epi16(half, half));
  }
};
inline Floats operator+(Floats a, Floats b) { return {_mm256_add_ps(a.v, b.v)}; }
inline Floats operator-(Floats a, Floats b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline Floats operator*(Floats a, Floats b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline Floats multiply_add(Floats a, Floats b, Floats c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
// The second where either is no number.
inline Floats maximum(Floats a, Floats b) { return {_mm256_max_ps(a.v, b.v)}; }
inline Floats minimum(Floats a, Floats b) { return {_mm256_min_ps(a.v, b.v)}; }
inline Floats absolute(Floats a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)}; }
inline Floats nearest(Floats a) { return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
inline Floats where_positive(Floats x, Floats yes, Floats no) {
  return {_mm256_blendv_ps(no.v, yes.v, _mm256_cmp_ps(x.v, _mm256_setzero_ps(), _CMP_GT_OQ))};
}
// 2 to the power of whole numbers in -126 .. 127
inline Floats power_of_2(Floats n) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n.v), _mm256_set1_epi32(127)), 23))};
}
inline float sum_of(Floats a) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
inline float greatest_of(Floats a) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

#elif defined(KIKU_NEON)

struct Floats {
  static constexpr size_t kWidth = 4;
  float32x4_t v;
  static Floats load(const float *p) { return {vld1q_f32(p)}; }
  static Floats load_half(const uint16_t *p) { return {vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)))}; }
  static Floats load_bytes(const uint8_t *p) {
    uint32_t word;
    std::memcpy(&word, p, sizeof word);
    uint8x8_t bytes = vreinterpret_u8_u32(vdup_n_u32(word));
    return {vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(bytes))))};
  }
  static Floats load_bytes(const int8_t *p) {
    uint32_t word;
    std::memcpy(&word, p, sizeof word);
    int8x8_t bytes = vreinterpret_s8_u32(vdup_n_u32(word));
    return {vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes))))};
  }
  static Floats all(float x) { return {vdupq_n_f32(x)}; }
  static Floats zero() { return {vdupq_n_f32(0.0f)}; }
  void store(float *p) const { vst1q_f32(p, v); }
  void store_half(uint16_t *p) const { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(v))); }
  // The nearest whole numbers
  void store_bytes(int8_t *p) const {
    int16x4_t half = vqmovn_s32(vcvtnq_s32_f32(v));
    int8x8_t bytes = vqmovn_s16(vcombine_s16(half, half));
    int32_t four = vget_lane_s32(vreinterpret_s32_s8(bytes), 0);
    std::memcpy(p, &four, sizeof four);
  }
};
inline Floats operator+(Floats a, Floats b) { return {vaddq_f32(a.v, b.v)}; }
inline Floats operator-(Floats a, Floats b) { return {vsubq_f32(a.v, b.v)}; }
inline Floats operator*(Floats a, Floats b) { return {vmulq_f32(a.v, b.v)}; }
inline Floats multiply_add(Floats a, Floats b, Floats c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
// The second where either is no number, as on the other processors.
inline Floats maximum(Floats a, Floats b) { return {vbslq_f32(vcgtq_f32(a.v, b.v), a.v, b.v)}; }
inline Floats minimum(Floats a, Floats b) { return {vbslq_f32(vcltq_f32(a.v, b.v), a.v, b.v)}; }
inline Floats absolute(Floats a) { return {vabsq_f32(a.v)}; }
inline Floats nearest(Floats a) { return {vrndnq_f32(a.v)}; }
inline Floats where_positive(Floats x, Floats yes, Floats no) {
  return {vbslq_f32(vcgtq_f32(x.v, vdupq_n_f32(0.0f)), yes.v, no.v)};
}
// 2 to the power of whole numbers in -126 .. 127
inline Floats power_of_2(Floats n) {
  return {vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtnq_s32_f32(n.v), vdupq_n_s32(127)), 23))};
}
inline float sum_of(Floats a) { return vaddvq_f32(a.v); }
inline float greatest_of(Floats a) { return vmaxvq_f32(a.v); }

#endif

// exp(x) for x <= 0 is m * s, with s a power of two and m within 1 / sqrt(2) .. sqrt(2): gives r + 1 = m
// and s. Below -87 it is taken for -87, where a float32 ends.
struct Exponential {
  Floats rest;   // exp of it, less 1, is m - 1
  Floats scale;  // s
};

inline Exponential exponential(Floats x) {
  x = maximum(Floats::all(-87.0f), x);
  Floats n = nearest(x * Floats::all(1.44269504f));
  // ln 2 in two parts, so that the rest keeps all its bits
  Floats r = multiply_add(n, Floats::all(-0.693359375f), x);
  r = multiply_add(n, Floats::all(2.12194440e-4f), r);
  // exp(r) - 1 = r + r^2 (1/2 + r/6 + ...), within 1e-7 for |r| <= ln 2 / 2
  Floats p = Floats::all(1.0f / 5040.0f);
  p = multiply_add(p, r, Floats::all(1.0f / 720.0f));
  p = multiply_add(p, r, Floats::all(1.0f / 120.0f));
  p = multiply_add(p, r, Floats::all(1.0f / 24.0f));
  p = multiply_add(p, r, Floats::all(1.0f / 6.0f));
  p = multiply_add(p, r, Floats::all(0.5f));
  return {multiply_add(r * r, p, r), power_of_2(n)};
}

// exp(x) for x <= 0.
inline Floats exp_of(Floats x) {
  Exponential e = exponential(x);
  return multiply_add(e.rest, e.scale, e.scale);
}

// exp(x) - 1 for x <= 0, exact where x is small.
inline Floats expm1_of(Floats x) {
  Exponential e = exponential(x);
  return multiply_add(e.rest, e.scale, e.scale - Floats::all(1.0f));
}

}  // namespace
}  // namespace kiku::KIKU_PROCESSOR
