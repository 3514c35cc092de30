// Search for one processor; see search.hpp.
#include "search.hpp"

namespace kiku::KIKU_PROCESSOR {
namespace {

constexpr size_t kSums = 16;  // partial sums of a dot product, on all processors: so it is the same on all
constexpr size_t kVectors = kSums / Floats::kWidth;
constexpr float kAlittleMore = 1.0001f;  // than the rounding of a sum's float32 can take away

#if defined(KIKU_NEON)
inline float root(float x) { return vget_lane_f32(vsqrt_f32(vdup_n_f32(x)), 0); }
#else
inline float root(float x) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))); }
#endif

struct Sums {
  Floats v[kVectors];
  void clear() {
    for (size_t k = 0; k < kVectors; k++) v[k] = Floats::zero();
  }
  void add(const float *a, const float *b) {
    for (size_t k = 0; k < kVectors; k++) {
      size_t at = k * Floats::kWidth;
      v[k] = multiply_add(Floats::load(a + at), Floats::load(b + at), v[k]);
    }
  }
  float total() const {
    float s[kSums];
    for (size_t k = 0; k < kVectors; k++) v[k].store(s + k * Floats::kWidth);
    for (size_t half = kSums / 2; half > 0; half /= 2)
      for (size_t i = 0; i < half; i++) s[i] += s[i + half];
    return s[0];
  }
};

// `x` may be read up to the next multiple of 16, with zeros there; `code` may not.
float dot(const float *x, const float *code, size_t dim) {
  Sums sums;
  sums.clear();
  size_t i = 0;
  for (; i + kSums <= dim; i += kSums) sums.add(x + i, code + i);
  if (i < dim) {
    float end[kSums] = {};
    std::memcpy(end, code + i, (dim - i) * sizeof(float));
    sums.add(x + i, end);
  }
  return sums.total();
}

void round_row(SearchRow &row, size_t width) {
  Floats most = Floats::zero();
  Sums squares;
  squares.clear();
  for (size_t i = 0; i < width; i += Floats::kWidth) most = maximum(absolute(Floats::load(row.x + i)), most);
  for (size_t i = 0; i < width; i += kSums) squares.add(row.x + i, row.x + i);
  float square = squares.total();
  // Outside, squares would be lost or overflow; no number is in no range.
  row.is_exact = !(square > 1e-30f && square < 1e30f);
  if (row.is_exact) return;
  row.length = root(square) * kAlittleMore;
  row.scale = greatest_of(most) / 127.0f;
  Floats inverse = Floats::all(1.0f / row.scale), scale = Floats::all(-row.scale);
  Sums rests;
  rests.clear();
  row.sum = 0;
  for (size_t i = 0; i < width; i += kSums) {
    float steps[kSums], rest[kSums];
    for (size_t k = 0; k < kSums; k += Floats::kWidth) {
      Floats x = Floats::load(row.x + i + k);
      Floats step = minimum(maximum(nearest(x * inverse), Floats::all(-127.0f)), Floats::all(127.0f));
      step.store(steps + k);
      multiply_add(step, scale, x).store(rest + k);
    }
    rests.add(rest, rest);
    for (size_t k = 0; k < kSums; k++) {
      row.rounded[i + k] = static_cast<int8_t>(static_cast<int32_t>(steps[k]));
      row.sum += static_cast<int32_t>(steps[k]);
    }
  }
  row.rest = root(rests.total()) * kAlittleMore;
}

// Products of whole numbers: those of a row with four codes, one after the other `width` apart.
#if defined(KIKU_AVX512)

void four_dots(const SearchRow &row, const int8_t *codes, size_t width, int32_t *out) {
  __m512i sums[4];
  for (__m512i &sum : sums) sum = _mm512_setzero_si512();
  const __m512i shift = _mm512_set1_epi8(-128);
  for (size_t i = 0; i < width; i += 64) {
    __m512i x = _mm512_loadu_si512(row.rounded + i);
    for (size_t k = 0; k < 4; k++) {  // the instruction wants one side without a sign: 128 more
      __m512i code = _mm512_xor_si512(_mm512_loadu_si512(codes + k * width + i), shift);
      sums[k] = _mm512_dpbusd_epi32(sums[k], code, x);
    }
  }
  for (size_t k = 0; k < 4; k++) out[k] = _mm512_reduce_add_epi32(sums[k]) - 128 * row.sum;
}

#elif defined(KIKU_AVX2)

void four_dots(const SearchRow &row, const int8_t *codes, size_t width, int32_t *out) {
  __m256i sums[4];
  for (__m256i &sum : sums) sum = _mm256_setzero_si256();
  const __m256i ones = _mm256_set1_epi16(1);
  for (size_t i = 0; i < width; i += 32) {
    __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(row.rounded + i));
    __m256i size = _mm256_abs_epi8(x);
    for (size_t k = 0; k < 4; k++) {
      __m256i code = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(codes + k * width + i));
      // Two products are 2 * 127 * 127 at most, which 16 bits hold.
      __m256i pairs = _mm256_maddubs_epi16(size, _mm256_sign_epi8(code, x));
      sums[k] = _mm256_add_epi32(sums[k], _mm256_madd_epi16(pairs, ones));
    }
  }
  __m256i all = _mm256_hadd_epi32(_mm256_hadd_epi32(sums[0], sums[1]), _mm256_hadd_epi32(sums[2], sums[3]));
  __m128i four = _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i *>(out), four);
}

#elif defined(KIKU_NEON)

void four_dots(const SearchRow &row, const int8_t *codes, size_t width, int32_t *out) {
  int32x4_t sums[4];
  for (int32x4_t &sum : sums) sum = vdupq_n_s32(0);
  for (size_t i = 0; i < width; i += 16) {
    int8x16_t x = vld1q_s8(row.rounded + i);
    for (size_t k = 0; k < 4; k++) sums[k] = vdotq_s32(sums[k], vld1q_s8(codes + k * width + i), x);
  }
  for (size_t k = 0; k < 4; k++) out[k] = vaddvq_s32(sums[k]);
}

#endif

void coarse(const SearchRow *rows, size_t num_rows, const SearchBook &book, size_t first, size_t last, float *least,
            size_t stride) {
  constexpr float kLowest = -__builtin_inff();
  for (size_t r = 0; r < num_rows; r++) least[r * stride] = kLowest;
  for (size_t code = first; code < last; code += kCodesAtOnce) {
    for (size_t r = 0; r < num_rows; r++) {
      const SearchRow &row = rows[r];
      if (row.is_exact) continue;
      int32_t dots[kCodesAtOnce];
      float whole[kCodesAtOnce];
      for (size_t k = 0; k < kCodesAtOnce; k += 4) four_dots(row, book.coarse + (code + k) * book.width, book.width, dots + k);
      for (size_t k = 0; k < kCodesAtOnce; k++) whole[k] = static_cast<float>(dots[k]);
      Floats best = Floats::all(least[r * stride]);
      for (size_t k = 0; k < kCodesAtOnce; k += Floats::kWidth) {
        auto column = [&](SearchColumn which) { return Floats::load(book.table + which * book.num_filled + code + k); };
        Floats score = multiply_add(Floats::load(whole + k), column(kScale) * Floats::all(row.scale),
                                    Floats::zero() - column(kHalfNorm));
        Floats error = multiply_add(column(kOfLength), Floats::all(row.length), column(kAlways));
        error = multiply_add(column(kOfRest), Floats::all(row.rest), error);
        (score + error).store(row.highest + code + k);
        best = maximum(score - error, best);  // `best`, where it is no number
      }
      least[r * stride] = greatest_of(best);
    }
  }
}

size_t best_code(const SearchRow &row, const SearchBook &book, float least) {
  const float *half_norms = book.table + kHalfNorm * book.num_filled;
  size_t best = 0;
  float greatest = -__builtin_inff();
  for (size_t code = 0; code < book.num_codes; code++) {
    if (!row.is_exact && row.highest[code] < least) continue;  // what is no number is looked at
    float score = dot(row.x, book.codes + code * book.dim, book.dim) - half_norms[code];
    if (score > greatest) {
      greatest = score;
      best = code;
    }
  }
  return best;
}

void subtract(float *x, const float *code, size_t dim) {
  for (size_t i = 0; i < dim; i++) x[i] -= code[i];
}

constexpr SearchKernels kSearch = {round_row, coarse, best_code, subtract};

}  // namespace
}  // namespace kiku::KIKU_PROCESSOR
