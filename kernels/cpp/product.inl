// Product for one processor; see product.hpp.
//
// What differs between processors are the two classes `Word8` and `Word4`: a word is 4 bytes of the
// weights of each of Floats::kWidth columns, which are multiplied by the 4 or 8 numbers of x at those k.
#include "product.hpp"

namespace kiku::KIKU_PROCESSOR {
namespace {

constexpr size_t kWordBytes = 4 * kGroup;  // of one word of all columns of a tile

inline int32_t load_32(const uint8_t *p) {
  int32_t x;
  std::memcpy(&x, p, sizeof x);
  return x;
}

inline int64_t load_64(const uint8_t *p) {
  int64_t x;
  std::memcpy(&x, p, sizeof x);
  return x;
}

// ---- what a processor has: sums of whole numbers -----------------------------------------------
//
// A Word has
//   kNumbers     numbers along K of a column
//   kRowBytes    bytes of the numbers of x that belong to it
//   kZero        what was not yet taken from the weights: a sum begins with -kZero times the sum of x
//   kFold        words that may be added between two calls of fold()
//   kRows        rows that are worked on at once
//   kSums        sums that are worked on at once: as many as there are registers for
//   Weights      those of Floats::kWidth columns
//   Sums         of one row and as many columns
//   arrange()    the numbers of a block of x as the words want them

#if defined(KIKU_AVX512)

constexpr size_t kTileRows = 6, kTileSums = 24;

struct Whole {
  __m512i v;
  static Whole zero() { return {_mm512_setzero_si512()}; }
  static Whole load(const uint8_t *p) { return {_mm512_loadu_si512(p)}; }
  static Whole all(int32_t x) { return {_mm512_set1_epi32(x)}; }
  Whole low() const { return {_mm512_and_si512(v, _mm512_set1_epi8(15))}; }
  Whole high() const { return {_mm512_and_si512(_mm512_srli_epi16(v, 4), _mm512_set1_epi8(15))}; }
  void add_products(Whole unsigned_bytes, Whole signed_bytes) {
    v = _mm512_dpbusd_epi32(v, unsigned_bytes.v, signed_bytes.v);
  }
  Floats plus(int32_t start) const { return {_mm512_cvtepi32_ps(_mm512_add_epi32(v, _mm512_set1_epi32(start)))}; }
};

#elif defined(KIKU_AVX2)

constexpr size_t kTileRows = 4, kTileSums = 8;

struct Whole {
  __m256i v;
  static Whole zero() { return {_mm256_setzero_si256()}; }
  static Whole load(const uint8_t *p) { return {_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p))}; }
  static Whole all(int32_t x) { return {_mm256_set1_epi32(x)}; }
  Whole low() const { return {_mm256_and_si256(v, _mm256_set1_epi8(15))}; }
  Whole high() const { return {_mm256_and_si256(_mm256_srli_epi16(v, 4), _mm256_set1_epi8(15))}; }
#if defined(KIKU_AVXVNNI)
  void add_products(Whole unsigned_bytes, Whole signed_bytes) {
    v = _mm256_dpbusd_avx_epi32(v, unsigned_bytes.v, signed_bytes.v);
  }
#endif
  Floats plus(int32_t start) const { return {_mm256_cvtepi32_ps(_mm256_add_epi32(v, _mm256_set1_epi32(start)))}; }
};

#elif defined(KIKU_NEON)

constexpr size_t kTileRows = 4, kTileSums = 16;

struct Whole {
  int32x4_t v;
  static Whole zero() { return {vdupq_n_s32(0)}; }
  static Whole load(const uint8_t *p) { return {vreinterpretq_s32_u8(vld1q_u8(p))}; }
  static Whole all(int32_t x) { return {vdupq_n_s32(x)}; }
  Whole low() const { return {vreinterpretq_s32_u8(vandq_u8(vreinterpretq_u8_s32(v), vdupq_n_u8(15)))}; }
  Whole high() const { return {vreinterpretq_s32_u8(vshrq_n_u8(vreinterpretq_u8_s32(v), 4))}; }
  Whole less_128() const { return {vreinterpretq_s32_u8(veorq_u8(vreinterpretq_u8_s32(v), vdupq_n_u8(128)))}; }
  void add_products(Whole bytes, Whole others) {
    v = vdotq_s32(v, vreinterpretq_s8_s32(bytes.v), vreinterpretq_s8_s32(others.v));
  }
  Floats plus(int32_t start) const { return {vcvtq_f32_s32(vaddq_s32(v, vdupq_n_s32(start)))}; }
};

#endif

// Numbers of x in pairs of four: those with even k of eight, then those with odd k.
inline void arrange_halves(const int8_t *numbers, size_t count, uint8_t *out) {
#if defined(KIKU_NEON)
  const uint8_t places[16] = {0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15};
  uint8x16_t order = vld1q_u8(places);
  for (size_t i = 0; i < count; i += 16)
    vst1q_u8(out + i, vqtbl1q_u8(vreinterpretq_u8_s8(vld1q_s8(numbers + i)), order));
#else
  __m128i order = _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
  for (size_t i = 0; i < count; i += 16) {
    __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i *>(numbers + i));
    _mm_storeu_si128(reinterpret_cast<__m128i *>(out + i), _mm_shuffle_epi8(x, order));
  }
#endif
}

#if defined(KIKU_AVX2) && !defined(KIKU_AVXVNNI)

// There is no instruction that multiplies unsigned 8 bits by signed ones without running over at 16
// bits. So both are widened to 16 bits: of x when it is rounded, of the weights once for several rows.
struct Word8 {
  static constexpr size_t kNumbers = 4, kRowBytes = 8, kFold = 1, kRows = kTileRows, kSums = kTileSums / 2;
  static constexpr int32_t kZero = 128;
  struct Weights {
    __m256i low, high;  // columns 0, 1, 4, 5 and 2, 3, 6, 7
    static Weights load(const uint8_t *p) {
      __m256i bytes = Whole::load(p).v, none = _mm256_setzero_si256();
      return {_mm256_unpacklo_epi8(bytes, none), _mm256_unpackhi_epi8(bytes, none)};
    }
  };
  struct Sums {
    __m256i low, high;  // two sums for each column
    static Sums zero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
    void add(const Weights &weights, const uint8_t *x) {
      __m256i numbers = _mm256_set1_epi64x(load_64(x));
      low = _mm256_add_epi32(low, _mm256_madd_epi16(weights.low, numbers));
      high = _mm256_add_epi32(high, _mm256_madd_epi16(weights.high, numbers));
    }
    void fold() {}
    Floats plus(int32_t start) const { return Whole{_mm256_hadd_epi32(low, high)}.plus(start); }
  };
  static void arrange(const int8_t *numbers, size_t count, uint8_t *out) {
    for (size_t i = 0; i < count; i += 16) {
      __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i *>(numbers + i));
      _mm256_storeu_si256(reinterpret_cast<__m256i *>(out + 2 * i), _mm256_cvtepi8_epi16(x));
    }
  }
};

// With one row or two, memory decides: here a sum takes one register for 8 columns, so that all 64 are
// worked on at once, and memory is read in its order. (Two rows that read it 64 bytes here and 64 there
// take longer than four.) The sign goes from the weights, now -128 .. 127, to x, and two products of at
// most 128 * 127 fit 16 bits.
struct Word8Few {
  static constexpr size_t kNumbers = 4, kRowBytes = 4, kFold = 1, kRows = 2, kSums = 16;
  static constexpr int32_t kZero = 0;
  struct Weights {
    __m256i numbers, sizes;
    static Weights load(const uint8_t *p) {
      __m256i numbers = _mm256_xor_si256(Whole::load(p).v, _mm256_set1_epi8(-128));
      return {numbers, _mm256_abs_epi8(numbers)};
    }
  };
  struct Sums {
    Whole sums;
    static Sums zero() { return {Whole::zero()}; }
    void add(const Weights &weights, const uint8_t *x) {
      __m256i signed_x = _mm256_sign_epi8(_mm256_set1_epi32(load_32(x)), weights.numbers);
      __m256i pairs = _mm256_maddubs_epi16(weights.sizes, signed_x);
      sums.v = _mm256_add_epi32(sums.v, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
    void fold() {}
    Floats plus(int32_t start) const { return sums.plus(start); }
  };
  static void arrange(const int8_t *numbers, size_t count, uint8_t *out) { std::memcpy(out, numbers, count); }
};

// Of 4 bits the products fit: 2 of them are at most 15 * 127 * 2 = 3810, and 8 such sums fit 16 bits.
struct Word4 {
  static constexpr size_t kNumbers = 8, kRowBytes = 8, kFold = 4, kRows = kTileRows, kSums = kTileSums / 2;
  static constexpr int32_t kZero = 8;
  struct Weights {
    Whole low, high;
    static Weights load(const uint8_t *p) {
      Whole bytes = Whole::load(p);
      return {bytes.low(), bytes.high()};
    }
  };
  struct Sums {
    __m256i folded, short_sums;  // 8 of 32 bits, 16 of 16 bits
    static Sums zero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
    void add(const Weights &weights, const uint8_t *x) {
      __m256i even = _mm256_set1_epi32(load_32(x)), odd = _mm256_set1_epi32(load_32(x + 4));
      short_sums = _mm256_add_epi16(short_sums, _mm256_maddubs_epi16(weights.low.v, even));
      short_sums = _mm256_add_epi16(short_sums, _mm256_maddubs_epi16(weights.high.v, odd));
    }
    void fold() {
      folded = _mm256_add_epi32(folded, _mm256_madd_epi16(short_sums, _mm256_set1_epi16(1)));
      short_sums = _mm256_setzero_si256();
    }
    Floats plus(int32_t start) const { return Whole{folded}.plus(start); }
  };
  static void arrange(const int8_t *numbers, size_t count, uint8_t *out) { arrange_halves(numbers, count, out); }
};

#else

struct Word8 {
  static constexpr size_t kNumbers = 4, kRowBytes = 4, kFold = 1, kRows = kTileRows, kSums = kTileSums;
#if defined(KIKU_NEON)
  static constexpr int32_t kZero = 0;  // its products are of signed numbers only
#else
  static constexpr int32_t kZero = 128;
#endif
  struct Weights {
    Whole bytes;
    static Weights load(const uint8_t *p) {
#if defined(KIKU_NEON)
      return {Whole::load(p).less_128()};
#else
      return {Whole::load(p)};
#endif
    }
  };
  struct Sums {
    Whole sums;
    static Sums zero() { return {Whole::zero()}; }
    void add(const Weights &weights, const uint8_t *x) { sums.add_products(weights.bytes, Whole::all(load_32(x))); }
    void fold() {}
    Floats plus(int32_t start) const { return sums.plus(start); }
  };
  static void arrange(const int8_t *numbers, size_t count, uint8_t *out) { std::memcpy(out, numbers, count); }
};

struct Word4 {
  static constexpr size_t kNumbers = 8, kRowBytes = 8, kFold = 1, kRows = kTileRows, kSums = kTileSums;
  static constexpr int32_t kZero = 8;
  struct Weights {
    Whole low, high;
    static Weights load(const uint8_t *p) {
      Whole bytes = Whole::load(p);
      return {bytes.low(), bytes.high()};
    }
  };
  struct Sums {
    Whole sums;
    static Sums zero() { return {Whole::zero()}; }
    void add(const Weights &weights, const uint8_t *x) {
      sums.add_products(weights.low, Whole::all(load_32(x)));
      sums.add_products(weights.high, Whole::all(load_32(x + 4)));
    }
    void fold() {}
    Floats plus(int32_t start) const { return sums.plus(start); }
  };
  static void arrange(const int8_t *numbers, size_t count, uint8_t *out) { arrange_halves(numbers, count, out); }
};

using Word8Few = Word8;

#endif

// ---- the same for all --------------------------------------------------------------------------

template <class Word, size_t kBlock>
constexpr size_t kBytesOfBlock = kBlock / Word::kNumbers * Word::kRowBytes;

// Of one tile, `kStrips` times Floats::kWidth columns for `kRows` rows, added to y [., kGroup]. With
// kAhead, as many bytes at `ahead` are fetched to the first cache only, past the larger ones.
template <class Word, size_t kBlock, size_t kRows, size_t kStrips, bool kAhead>
inline void add_strips(const uint8_t *weights, uintptr_t ahead, const uint8_t *numbers, const float *weight_scales,
                       const float *x_scales, const int32_t *starts, float *y) {
  constexpr size_t kWords = kBlock / Word::kNumbers, kRow = kBytesOfBlock<Word, kBlock>;
  typename Word::Sums sums[kRows][kStrips];
#pragma GCC unroll 16
  for (size_t r = 0; r < kRows; r++)
#pragma GCC unroll 16
    for (size_t s = 0; s < kStrips; s++) sums[r][s] = Word::Sums::zero();
#pragma GCC unroll 1
  for (size_t word = 0; word < kWords; word += Word::kFold) {
#pragma GCC unroll 4
    for (size_t i = word; i < word + Word::kFold; i++) {
      const uint8_t *line = weights + i * kWordBytes;
      if constexpr (kAhead)
        for (size_t at = 0; at < kStrips * Floats::kWidth * 4; at += 64)
          __builtin_prefetch(reinterpret_cast<const void *>(ahead + i * kStrips * Floats::kWidth * 4 + at), 0, 0);
#pragma GCC unroll 16
      for (size_t s = 0; s < kStrips; s++) {
        typename Word::Weights some = Word::Weights::load(line + s * Floats::kWidth * 4);
#pragma GCC unroll 16
        for (size_t r = 0; r < kRows; r++) sums[r][s].add(some, numbers + r * kRow + i * Word::kRowBytes);
      }
    }
#pragma GCC unroll 16
    for (size_t r = 0; r < kRows; r++)
#pragma GCC unroll 16
      for (size_t s = 0; s < kStrips; s++) sums[r][s].fold();
  }
#pragma GCC unroll 16
  for (size_t r = 0; r < kRows; r++)
#pragma GCC unroll 16
    for (size_t s = 0; s < kStrips; s++) {
      float *to = y + r * kGroup + s * Floats::kWidth;
      Floats scale = Floats::load(weight_scales + s * Floats::kWidth) * Floats::all(x_scales[r]);
      multiply_add(sums[r][s].plus(starts[r]), scale, Floats::load(to)).store(to);
    }
}

// How many times Floats::kWidth columns are worked on at once: few rows leave registers for more
// columns, and walk memory in longer pieces.
constexpr size_t strips_of(size_t num_rows, size_t num_sums) {
  size_t strips = kGroup / Floats::kWidth;
  while (strips > 1 && strips * num_rows > num_sums) strips /= 2;
  return strips;
}

// One tile for `kRows` rows, the first of which is `row`.
template <class Word, size_t kBlock, size_t kRows, bool kAhead>
inline void add_tile(const RoundedRows &rows, size_t block, size_t row, const uint8_t *tile,
                     const float *weight_scales, float *y) {
  constexpr size_t kAll = kGroup / Floats::kWidth, kStrips = strips_of(kRows, Word::kSums);
  constexpr size_t kWords = kBlock / Word::kNumbers;
  size_t at = block * rows.num_rows + row;
  // The next tile, whose lines are fetched in their order in memory; past the last one nothing is read.
  uintptr_t ahead = reinterpret_cast<uintptr_t>(tile) + kWords * kWordBytes;
  for (size_t s = 0; s < kAll; s += kStrips) {
    size_t column = s * Floats::kWidth;
    add_strips<Word, kBlock, kRows, kStrips, kAhead>(
        tile + column * 4, ahead + column * 4 * kWords, rows.numbers + at * kBytesOfBlock<Word, kBlock>, weight_scales + column, rows.scales + at,
        rows.starts + at, y + column);
  }
}

template <class Word, size_t kBlock, bool kAhead>
inline void add_rows(size_t kept, const RoundedRows &rows, size_t block, size_t row, const uint8_t *tile,
                     const float *scales, float *y) {
  static_assert(Word::kRows <= 6);
  switch (kept) {
    case 1: return add_tile<Word, kBlock, 1, kAhead>(rows, block, row, tile, scales, y);
    case 2: if constexpr (Word::kRows >= 2) return add_tile<Word, kBlock, 2, kAhead>(rows, block, row, tile, scales, y); break;
    case 3: if constexpr (Word::kRows >= 3) return add_tile<Word, kBlock, 3, kAhead>(rows, block, row, tile, scales, y); break;
    case 4: if constexpr (Word::kRows >= 4) return add_tile<Word, kBlock, 4, kAhead>(rows, block, row, tile, scales, y); break;
    case 5: if constexpr (Word::kRows >= 5) return add_tile<Word, kBlock, 5, kAhead>(rows, block, row, tile, scales, y); break;
    case 6: if constexpr (Word::kRows >= 6) return add_tile<Word, kBlock, 6, kAhead>(rows, block, row, tile, scales, y); break;
  }
}

template <class Word, size_t kBlock>
void run_group(const RoundedRows &rows, size_t first, size_t count, const ProductGroup &group) {
  alignas(64) float y[kMostRows * kGroup];
  std::memset(y, 0, count * kGroup * sizeof(float));
  constexpr size_t kTileBytes = kBlock / Word::kNumbers * kWordBytes;
  const bool once = rows.num_rows <= kMostRows;  // else the next rows find the weights in the second cache
  for (size_t block = 0; block < rows.num_blocks; block++) {
    const uint8_t *tile = group.tiles + block * kTileBytes;
    const float *scales = group.scales + block * kGroup;
    for (size_t row = 0; row < count; row += Word::kRows) {
      size_t kept = count - row < Word::kRows ? count - row : Word::kRows;
      float *to = y + row * kGroup;
      if (row == 0 && once)
        add_rows<Word, kBlock, true>(kept, rows, block, first + row, tile, scales, to);
      else
        add_rows<Word, kBlock, false>(kept, rows, block, first + row, tile, scales, to);
    }
  }
  for (size_t row = 0; row < count; row++)
    std::memcpy(group.y + (first + row) * group.stride, y + row * kGroup, group.columns * sizeof(float));
}

// One block of x to whole numbers in -127 .. 127; gives their scale. A block in which all is less than
// 2^-119 counts as zeros: 127 over it may be more than a float32 holds. One with a number that is none,
// or infinite, has no scale, and makes its row so.
template <size_t kBlock>
inline float round_block(const float *x, int8_t *numbers) {
  Floats most = Floats::zero(), none = Floats::zero();
  for (size_t i = 0; i < kBlock; i += Floats::kWidth) {
    Floats some = Floats::load(x + i);
    most = maximum(absolute(some), most);
    none = multiply_add(some, Floats::zero(), none);
  }
  float peak = greatest_of(most), lost = sum_of(none);
  std::memset(numbers, 0, kBlock);
  if (lost != 0.0f) return lost;
  if (peak < 0x1p-119f) return 0.0f;
  Floats steps = Floats::all(127.0f / peak);
  for (size_t i = 0; i < kBlock; i += Floats::kWidth) (Floats::load(x + i) * steps).store_bytes(numbers + i);
  return peak / 127.0f;
}

template <class Word, size_t kBlock>
void round_row(const float *x, size_t width, size_t row, const RoundedRows &rows) {
  alignas(64) int8_t numbers[kBlock];
  alignas(64) float last[kBlock];
  for (size_t block = 0; block < rows.num_blocks; block++) {
    const float *from = x + block * kBlock;
    size_t left = width - block * kBlock, at = block * rows.num_rows + row;
    if (left < kBlock) {
      std::memset(last, 0, sizeof last);
      std::memcpy(last, from, left * sizeof(float));
      from = last;
    }
    rows.scales[at] = round_block<kBlock>(from, numbers);
    int32_t sum = 0;
    for (size_t i = 0; i < kBlock; i++) sum += numbers[i];
    rows.starts[at] = -Word::kZero * sum;
    Word::arrange(numbers, kBlock, rows.numbers + at * kBytesOfBlock<Word, kBlock>);
  }
}

// ---- which of them a matrix needs --------------------------------------------------------------

// Of 8 bits, as much as the word that needs most of it.
size_t bytes_of_block(BlockForm form) {
  return form.bits == 8 ? form.size / Word8::kNumbers * Word8::kRowBytes : form.size / Word4::kNumbers * Word4::kRowBytes;
}

inline bool is_few(const RoundedRows &rows) { return rows.num_rows <= Word8Few::kRows; }

template <size_t kBlock>
void round_in(const float *x, size_t width, size_t row, const RoundedRows &rows) {
  if (rows.form.bits == 4) return round_row<Word4, kBlock>(x, width, row, rows);
  if (is_few(rows)) return round_row<Word8Few, kBlock>(x, width, row, rows);
  round_row<Word8, kBlock>(x, width, row, rows);
}

template <size_t kBlock>
void group_in(const RoundedRows &rows, size_t first, size_t count, const ProductGroup &group) {
  if (rows.form.bits == 4) return run_group<Word4, kBlock>(rows, first, count, group);
  if (is_few(rows)) return run_group<Word8Few, kBlock>(rows, first, count, group);
  run_group<Word8, kBlock>(rows, first, count, group);
}

void round_any(const float *x, size_t width, size_t row, const RoundedRows &rows) {
  rows.form.size == 128 ? round_in<128>(x, width, row, rows) : round_in<32>(x, width, row, rows);
}

void group_any(const RoundedRows &rows, size_t first, size_t count, const ProductGroup &group) {
  rows.form.size == 128 ? group_in<128>(rows, first, count, group) : group_in<32>(rows, first, count, group);
}

constexpr ProductKernels kProduct = {bytes_of_block, round_any, group_any};

}  // namespace
}  // namespace kiku::KIKU_PROCESSOR
