// Attention for one processor; see attention.hpp.
//
// A row's numbers are the same whatever rows come with it, wherever its window begins in the ring,
// and on every processor: a dot product is 16 sums, number d going into sum d mod 16, added in one
// fixed tree; the total of a softmax likewise over its positions from the oldest; each number of the
// mix is one sum over the positions from the oldest.
//
// Keys and values are taken in blocks of some positions, which stay in the nearest cache while all
// rows use them. Heads whose width is no multiple of 16, and float16 and int8 for several rows, are
// first widened into float32 rows with zeros behind. The scales of int8 are not multiplied into them,
// but into the scores of keys, and into the weights of values.
#include "attention.hpp"

namespace kiku::KIKU_PROCESSOR {
namespace {
namespace attention {

constexpr size_t kSums = 16;   // of a dot product
constexpr size_t kDots = 8;    // dot products that are computed side by side
constexpr size_t kBlock = 32;  // positions of a block
constexpr size_t kAheadBytes = 8192;
constexpr float kGreatestHalf = 65504.0f;
constexpr float kLeastBytes = 1e-30f;  // 127 divided by less might be infinite

inline Floats load(const float *p) { return Floats::load(p); }
inline Floats load(const uint16_t *p) { return Floats::load_half(p); }
inline Floats load(const int8_t *p) { return Floats::load_bytes(p); }
constexpr size_t padded(size_t n) { return (n + kSums - 1) / kSums * kSums; }
template <class T>
inline T least(T a, T b) { return a < b ? a : b; }
template <class T>
inline T most(T a, T b) { return a < b ? b : a; }

// Asks for memory that is wanted soon; it may lie behind the ring's end, where nothing happens.
template <class Number>
inline void ask_behind(const Number *p) {
  __builtin_prefetch(reinterpret_cast<const void *>(reinterpret_cast<uintptr_t>(p) + kAheadBytes));
}
// Whether the d-th number of a row begins a line of the cache, if the row does: one in so many is asked for.
template <class Number>
constexpr bool begins_line(size_t d) { return d * sizeof(Number) % 64 == 0; }

// -- eight dot products -------------------------------------------------------------------------

// 8 sums: of the 16 of a dot product, each added to the eighth after it.
#if defined(KIKU_NEON)

struct Eight {
  float32x4_t low, high;
  void store_low(float *p) const { vst1q_f32(p, low); }
  void store_high(float *p) const { vst1q_f32(p + 4, high); }
};
inline Eight eight(const Floats (&a)[2], const Floats (&b)[2]) {
  return {vaddq_f32(a[0].v, b[0].v), vaddq_f32(a[1].v, b[1].v)};
}
inline float32x4_t four_totals(const Eight *s) {
  float32x4_t x[4], pair[2];
  for (size_t i = 0; i < 4; i++) x[i] = vaddq_f32(s[i].low, s[i].high);
  for (size_t i = 0; i < 2; i++) {
    float32x4_t a = x[2 * i], b = x[2 * i + 1];
    pair[i] = vaddq_f32(vcombine_f32(vget_low_f32(a), vget_low_f32(b)), vcombine_f32(vget_high_f32(a), vget_high_f32(b)));
  }
  return vpaddq_f32(pair[0], pair[1]);
}
inline Eight totals(const Eight (&s)[kDots], float scale) {
  return {vmulq_n_f32(four_totals(s), scale), vmulq_n_f32(four_totals(s + 4), scale)};
}

#else

struct Eight {
  __m256 v;
  void store_low(float *p) const { _mm_storeu_ps(p, _mm256_castps256_ps128(v)); }
  void store_high(float *p) const { _mm_storeu_ps(p + 4, _mm256_extractf128_ps(v, 1)); }
};
// Of two vectors: the sum of the halves of each.
inline __m256 halves(__m256 a, __m256 b) {
  return _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
}
// Of two vectors of two quarters each: numbers 0 + 2 and 1 + 3 of every quarter.
inline __m256 quarters(__m256 a, __m256 b) {
  __m256d x = _mm256_castps_pd(a), y = _mm256_castps_pd(b);
  return _mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(x, y)), _mm256_castpd_ps(_mm256_unpackhi_pd(x, y)));
}
inline Eight totals(const Eight (&s)[kDots], float scale) {
  __m256 a = quarters(halves(s[0].v, s[4].v), halves(s[1].v, s[5].v));
  __m256 b = quarters(halves(s[2].v, s[6].v), halves(s[3].v, s[7].v));
  __m256 all = _mm256_add_ps(_mm256_shuffle_ps(a, b, 0x88), _mm256_shuffle_ps(a, b, 0xdd));
  return {_mm256_mul_ps(all, _mm256_set1_ps(scale))};
}
#if defined(KIKU_AVX2)
inline Eight eight(const Floats (&a)[1], const Floats (&b)[1]) { return {_mm256_add_ps(a[0].v, b[0].v)}; }
#endif

#endif

// The sums of kRows queries times 8 / kRows keys: those of the first query first.
#if defined(KIKU_AVX512)

template <size_t kRows, bool kAhead, class Number>
inline void sums_of(Eight (&sums)[kDots], const float *queries, const Number *const (&keys)[kDots / kRows], size_t width) {
  constexpr size_t kKeys = kDots / kRows;
  Floats sum[kDots];
  for (Floats &one : sum) one = Floats::zero();
  for (size_t d = 0; d < width; d += kSums) {
    Floats query[kRows];
    for (size_t r = 0; r < kRows; r++) query[r] = load(queries + r * width + d);
    for (size_t k = 0; k < kKeys; k++) {
      Floats key = load(keys[k] + d);
      if (kAhead && begins_line<Number>(d)) ask_behind(keys[k] + d);
      for (size_t r = 0; r < kRows; r++) sum[r * kKeys + k] = multiply_add(query[r], key, sum[r * kKeys + k]);
    }
  }
  for (size_t i = 0; i < kDots; i++) {
    // With a mask, though all is wanted: without, and in a cast, GCC 12 warns of its own header.
    __m512d both = _mm512_castps_pd(sum[i].v);
    __m256d low = _mm512_maskz_extractf64x4_pd(0xff, both, 0), high = _mm512_maskz_extractf64x4_pd(0xff, both, 1);
    sums[i] = {_mm256_add_ps(_mm256_castpd_ps(low), _mm256_castpd_ps(high))};
  }
}

#else

// There are registers for 8 of the 16 sums at once: twice over the keys, which are in the nearest cache then.
template <size_t kRows, bool kAhead, class Number>
inline void half_of(Floats (&sum)[kDots][8 / Floats::kWidth], const float *queries, const Number *const (&keys)[kDots / kRows], size_t width) {
  constexpr size_t kKeys = kDots / kRows;
  for (auto &one : sum)
    for (Floats &part : one) part = Floats::zero();
  for (size_t d = 0; d < width; d += kSums)
    for (size_t part = 0; part < 8 / Floats::kWidth; part++) {
      size_t at = d + part * Floats::kWidth;
      Floats query[kRows];
      for (size_t r = 0; r < kRows; r++) query[r] = load(queries + r * width + at);
      for (size_t k = 0; k < kKeys; k++) {
        Floats key = load(keys[k] + at);
        if (kAhead && begins_line<Number>(at)) ask_behind(keys[k] + at);
        for (size_t r = 0; r < kRows; r++) {
          Floats &one = sum[r * kKeys + k][part];
          one = multiply_add(query[r], key, one);
        }
      }
    }
}

template <size_t kRows, bool kAhead, class Number>
inline void sums_of(Eight (&sums)[kDots], const float *queries, const Number *const (&keys)[kDots / kRows], size_t width) {
  Floats low[kDots][8 / Floats::kWidth], high[kDots][8 / Floats::kWidth];
  half_of<kRows, kAhead>(low, queries, keys, width);
  const Number *behind[kDots / kRows];
  for (size_t k = 0; k < kDots / kRows; k++) behind[k] = keys[k] + 8;
  half_of<kRows, false>(high, queries + 8, behind, width);
  for (size_t i = 0; i < kDots; i++) sums[i] = eight(low[i], high[i]);
}

#endif

// Scores of kRows rows (1 or 2) for `count` keys. Writes up to 7 more behind them.
template <size_t kRows, bool kAhead, class Number>
void score(const float *queries, const Number *keys, size_t width, size_t count, float scale, float *scores, size_t stride) {
  constexpr size_t kKeys = kDots / kRows;
  for (size_t p = 0; p < count; p += kKeys) {
    const Number *some[kKeys];
    for (size_t k = 0; k < kKeys; k++) some[k] = keys + least(p + k, count - 1) * row_length<Number>(width);
    Eight sums[kDots];
    sums_of<kRows, kAhead>(sums, queries, some, width);
    Eight all = totals(sums, scale);
    all.store_low(scores + p);
    all.store_high(kRows == 1 ? scores + p : scores + stride + p - 4);
  }
}

// -- softmax ------------------------------------------------------------------------------------

inline float total_of(const float (&sums)[kSums]) {
  float s[kSums];
  std::memcpy(s, sums, sizeof s);
  for (size_t n = kSums / 2; n > 0; n /= 2)
    for (size_t i = 0; i < n; i++) s[i] += s[i + n];
  return s[0];
}

// Makes weights of `count` scores, in place; gives 1 / their total.
inline float weigh(float *scores, size_t count) {
  constexpr size_t kParts = kSums / Floats::kWidth;
  size_t whole = count / kSums * kSums;
  float rest[kSums];
  for (float &one : rest) one = scores[count - 1];
  std::memcpy(rest, scores + whole, (count - whole) * sizeof(float));
  Floats top[kParts], sum[kParts];
  for (size_t i = 0; i < kParts; i++) top[i] = load(rest + i * Floats::kWidth), sum[i] = Floats::zero();
  for (size_t p = 0; p < whole; p += kSums)
    for (size_t i = 0; i < kParts; i++) top[i] = maximum(top[i], load(scores + p + i * Floats::kWidth));
  for (size_t i = 1; i < kParts; i++) top[0] = maximum(top[0], top[i]);
  Floats greatest = Floats::all(greatest_of(top[0]));
  for (size_t p = 0; p < whole; p += kSums)
    for (size_t i = 0; i < kParts; i++) {
      Floats weight = exp_of(load(scores + p + i * Floats::kWidth) - greatest);
      weight.store(scores + p + i * Floats::kWidth);
      sum[i] = sum[i] + weight;
    }
  for (size_t i = 0; i < kParts; i++) exp_of(load(rest + i * Floats::kWidth) - greatest).store(rest + i * Floats::kWidth);
  for (size_t i = count - whole; i < kSums; i++) rest[i] = 0;
  std::memcpy(scores + whole, rest, (count - whole) * sizeof(float));
  float sums[kSums];
  for (size_t i = 0; i < kParts; i++) (sum[i] + load(rest + i * Floats::kWidth)).store(sums + i * Floats::kWidth);
  return 1.0f / total_of(sums);
}

// -- the mix of the values ----------------------------------------------------------------------

// Rows, how many, of which width each; a row's weights follow its neighbour's by `stride`.
template <class Number>
struct Mix {
  const float *weights;
  size_t stride;
  const Number *values;
  size_t count;
  size_t width;
  float *out;
};

template <size_t kRows, size_t kVectors, bool kAhead, class Number>
inline void mix_strip(const Mix<Number> &mix, size_t at) {
  Floats sum[kRows][kVectors];
  for (size_t r = 0; r < kRows; r++)
    for (size_t i = 0; i < kVectors; i++) sum[r][i] = load(mix.out + r * mix.width + at + i * Floats::kWidth);
  const Number *values = mix.values + at;
  for (size_t p = 0; p < mix.count; p++, values += row_length<Number>(mix.width)) {
    Floats value[kVectors];
    for (size_t i = 0; i < kVectors; i++) {
      value[i] = load(values + i * Floats::kWidth);
      if (kAhead && begins_line<Number>(i * Floats::kWidth)) ask_behind(values + i * Floats::kWidth);
    }
    for (size_t r = 0; r < kRows; r++) {
      Floats weight = Floats::all(mix.weights[r * mix.stride + p]);
      for (size_t i = 0; i < kVectors; i++) sum[r][i] = multiply_add(weight, value[i], sum[r][i]);
    }
  }
  for (size_t r = 0; r < kRows; r++)
    for (size_t i = 0; i < kVectors; i++) sum[r][i].store(mix.out + r * mix.width + at + i * Floats::kWidth);
}

template <size_t kRows, bool kAhead, size_t kVectors, class Number>
inline void mix_strips(const Mix<Number> &mix, size_t at) {
  for (; at + kVectors * Floats::kWidth <= mix.width; at += kVectors * Floats::kWidth)
    mix_strip<kRows, kVectors, kAhead>(mix, at);
  if constexpr (kVectors > 1) mix_strips<kRows, kAhead, kVectors / 2>(mix, at);
}

// Adds the values, each times its weight, to what kRows rows (1, 2 or 4) have so far.
template <size_t kRows, bool kAhead, class Number>
void mix_rows(const Mix<Number> &mix) {
  constexpr size_t kVectors = (Floats::kWidth == 4 ? 16 : 8) / kRows;
  mix_strips<kRows, kAhead, kVectors>(mix, 0);
}

// -- rows in and out ----------------------------------------------------------------------------

inline void rotate(const float *x, const float *cos, const float *sin, size_t head_dim, float *y) {
  for (size_t i = 0; i < head_dim / 2; i++) {
    float even = x[2 * i], odd = x[2 * i + 1];
    y[2 * i] = __builtin_fmaf(even, cos[i], -(odd * sin[i]));
    y[2 * i + 1] = __builtin_fmaf(even, sin[i], odd * cos[i]);
  }
}

inline void keep(const float *x, size_t head_dim, float *to) { std::memcpy(to, x, head_dim * sizeof(float)); }

// An infinity would stay in the window: float16 ends at its greatest number.
inline void keep(const float *x, size_t head_dim, uint16_t *to) {
  Floats top = Floats::all(kGreatestHalf), bottom = Floats::all(-kGreatestHalf);
  for (size_t d = 0; d < head_dim; d += Floats::kWidth) {
    size_t count = least(Floats::kWidth, head_dim - d);
    float some[Floats::kWidth] = {};
    uint16_t halves[Floats::kWidth];
    std::memcpy(some, x + d, count * sizeof(float));
    maximum(bottom, minimum(top, load(some))).store_half(halves);
    std::memcpy(to + d, halves, count * sizeof(uint16_t));
  }
}

// As whole numbers of a scale. All are 0 if they are too small to be divided by, or none is a number:
// then the scale is none either.
inline void keep(const float *x, size_t head_dim, int8_t *to) {
  Floats top = Floats::all(kGreatestHalf), bottom = Floats::all(-kGreatestHalf), size = Floats::zero(), nothing = Floats::zero();
  float some[padded(kWidestHead)] = {};
  std::memcpy(some, x, head_dim * sizeof(float));
  for (size_t d = 0; d < head_dim; d += Floats::kWidth) {
    Floats numbers = maximum(bottom, minimum(top, load(some + d)));
    numbers.store(some + d);
    size = maximum(absolute(numbers), size);
    nothing = multiply_add(numbers, Floats::zero(), nothing);
  }
  float greatest = greatest_of(size), scale = greatest / 127.0f + sum_of(nothing);
  Floats steps = Floats::all(greatest < kLeastBytes ? 0.0f : 127.0f / greatest);
  if (!(greatest >= kLeastBytes) || scale != scale) std::memset(some, 0, sizeof some);
  int8_t whole[padded(kWidestHead)];
  for (size_t d = 0; d < head_dim; d += Floats::kWidth) (load(some + d) * steps).store_bytes(whole + d);
  std::memcpy(to, whole, head_dim);
  std::memcpy(to + head_dim, &scale, sizeof scale);
}

// `count` rows of a ring as float32 rows of `width`, zeros behind.
template <class Number>
void widen(const Number *rows, size_t count, size_t head_dim, float *to, size_t width) {
  for (size_t p = 0; p < count; p++, rows += row_length<Number>(head_dim), to += width) {
    size_t d = 0;
    for (; d + Floats::kWidth <= head_dim; d += Floats::kWidth) load(rows + d).store(to + d);
    for (; d < width; d += Floats::kWidth) {
      Number rest[Floats::kWidth] = {};
      if (d < head_dim) std::memcpy(rest, rows + d, (head_dim - d) * sizeof(Number));
      load(rest).store(to + d);
    }
  }
}

// -- one slot and head --------------------------------------------------------------------------

// The parts of the scratch memory.
struct Parts {
  Parts(size_t num_rows, size_t num_seen, size_t head_dim)
      : width(padded(head_dim)), stride(padded(num_seen + kDots)), rows(num_rows) {}

  size_t floats() const { return rows * (2 * width + stride + 1) + kBlock * (width + 1); }
  void lie_in(float *memory) {
    queries = memory;
    mixed = queries + rows * width;
    block = mixed + rows * width;
    scales = block + kBlock * width;
    scores = scales + kBlock;
    shares = scores + rows * stride;
  }

  size_t width, stride, rows;
  float *queries = nullptr;  // [rows, width]
  float *mixed = nullptr;    // [rows, width]
  float *block = nullptr;    // [kBlock, width]
  float *scales = nullptr;   // [kBlock]
  float *scores = nullptr;   // [rows, stride]: from the first row's oldest position on
  float *shares = nullptr;   // [rows]: 1 / the total of a row's weights
};

template <class Number>
void append(const AttentionTask &task, const Parts &parts) {
  size_t half = task.head_dim / 2;
  for (size_t t = 0; t < task.num_rows; t++) {
    const float *row = task.query + t * task.row_stride, *cos = task.cos + t * half, *sin = task.sin + t * half;
    size_t place = (static_cast<uint64_t>(task.position) + t) % task.capacity * row_length<Number>(task.head_dim);
    float key[kWidestHead];
    rotate(row + task.part, cos, sin, task.head_dim, key);
    keep(key, task.head_dim, static_cast<Number *>(task.keys) + place);
    keep(row + 2 * task.part, task.head_dim, static_cast<Number *>(task.values) + place);
    float *query = parts.queries + t * parts.width;
    rotate(row, cos, sin, task.head_dim, query);
    for (size_t d = task.head_dim; d < parts.width; d++) query[d] = 0;
  }
}

// Calls use(rows, first, end) for all positions that are seen, a block of neighbours in the ring at a
// time: `rows` are those of first .. end - 1, float32 in the scratch where `wide`.
template <class Number, class Use>
void in_blocks(const AttentionTask &task, const Parts &parts, const void *ring, bool wide, const Use &use) {
  const Number *numbers = static_cast<const Number *>(ring);
  int64_t end = end_seen(task, task.num_rows - 1);
  for (int64_t p = first_seen(task, 0); p < end;) {
    size_t place = static_cast<size_t>(static_cast<uint64_t>(p) % task.capacity);
    size_t count = least(least(kBlock, task.capacity - place), static_cast<size_t>(end - p));
    const Number *rows = numbers + place * row_length<Number>(task.head_dim);
    if constexpr (sizeof(Number) == 1)
      for (size_t i = 0; i < count; i++)
        std::memcpy(parts.scales + i, rows + i * row_length<Number>(task.head_dim) + task.head_dim, sizeof(float));
    if (wide) {
      widen(rows, count, task.head_dim, parts.block, parts.width);
      use(static_cast<const float *>(parts.block), p, p + static_cast<int64_t>(count));
    } else {
      use(rows, p, p + static_cast<int64_t>(count));
    }
    p += static_cast<int64_t>(count);
  }
}

template <size_t kRows, bool kAhead, class Number>
void score_block(const AttentionTask &task, const Parts &parts, size_t t, const Number *keys, int64_t first, int64_t end) {
  int64_t from = most(first, first_seen(task, t)), to = least(end, end_seen(task, t + kRows - 1));
  if (from >= to) return;
  float scale = 1.0f / __builtin_sqrtf(static_cast<float>(task.head_dim));
  float *scores = parts.scores + t * parts.stride + (from - first_seen(task, 0));
  score<kRows, kAhead>(parts.queries + t * parts.width, keys + static_cast<size_t>(from - first) * row_length<Number>(parts.width), parts.width,
                       static_cast<size_t>(to - from), scale, scores, parts.stride);
}

// All rows, for a block.
template <class Number>
void score_rows(const AttentionTask &task, const Parts &parts, const Number *keys, int64_t first, int64_t end) {
  size_t t = 2;
  if (task.num_rows == 1) return score_block<1, true>(task, parts, 0, keys, first, end);
  score_block<2, true>(task, parts, 0, keys, first, end);
  for (; t + 2 <= task.num_rows; t += 2) score_block<2, false>(task, parts, t, keys, first, end);
  if (t < task.num_rows) score_block<1, false>(task, parts, t, keys, first, end);
}

// The scores of all rows for the keys of a block, or their weights for its values, times their scales.
inline void scale_block(const AttentionTask &task, const Parts &parts, int64_t first, int64_t end) {
  for (size_t t = 0; t < task.num_rows; t++) {
    int64_t from = most(first, first_seen(task, t)), to = least(end, end_seen(task, t));
    if (from >= to) continue;
    float *scores = parts.scores + t * parts.stride + (from - first_seen(task, 0));
    const float *scales = parts.scales + (from - first);
    for (int64_t i = 0; i < to - from; i++) scores[i] *= scales[i];
  }
}

// A row alone, for the positions from .. to of the block that it sees.
template <bool kAhead, class Number>
void mix_one(const AttentionTask &task, const Parts &parts, size_t t, const Number *values, int64_t first, int64_t from, int64_t to) {
  from = most(from, first_seen(task, t)), to = least(to, end_seen(task, t));
  if (from >= to) return;
  mix_rows<1, kAhead>(Mix<Number>{parts.scores + t * parts.stride + (from - first_seen(task, 0)), parts.stride,
                                  values + static_cast<size_t>(from - first) * row_length<Number>(parts.width), static_cast<size_t>(to - from),
                                  parts.width, parts.mixed + t * parts.width});
}

// Rows together where all of them see; alone before and behind: 0 times what a row does not see would
// be no number where that is none.
template <size_t kRows, bool kAhead, class Number>
void mix_block(const AttentionTask &task, const Parts &parts, size_t t, const Number *values, int64_t first, int64_t end) {
  int64_t from = most(first, first_seen(task, t + kRows - 1)), to = least(end, end_seen(task, t));
  if (from >= to) from = to = end;
  for (size_t r = t; r < t + kRows; r++) mix_one<false>(task, parts, r, values, first, first, from);
  if (from < to)
    mix_rows<kRows, kAhead>(Mix<Number>{parts.scores + t * parts.stride + (from - first_seen(task, 0)), parts.stride,
                                        values + static_cast<size_t>(from - first) * row_length<Number>(parts.width), static_cast<size_t>(to - from),
                                        parts.width, parts.mixed + t * parts.width});
  for (size_t r = t; r < t + kRows; r++) mix_one<false>(task, parts, r, values, first, to, end);
}

template <class Number>
void run(const AttentionTask &task) {
  size_t num_rows = task.num_rows;
  Parts parts(num_rows, num_seen(task), task.head_dim);
  parts.lie_in(task.scratch);
  bool wide = parts.width != task.head_dim || (sizeof(Number) < 4 && num_rows > 1);
  append<Number>(task, parts);
  in_blocks<Number>(task, parts, task.keys, wide, [&](auto *keys, int64_t first, int64_t end) {
    score_rows(task, parts, keys, first, end);
    if constexpr (sizeof(Number) == 1) scale_block(task, parts, first, end);
  });
  for (size_t t = 0; t < num_rows; t++) {
    int64_t first = first_seen(task, t);
    parts.shares[t] = weigh(parts.scores + t * parts.stride + (first - first_seen(task, 0)), static_cast<size_t>(end_seen(task, t) - first));
  }
  std::memset(parts.mixed, 0, num_rows * parts.width * sizeof(float));
  in_blocks<Number>(task, parts, task.values, wide, [&](auto *values, int64_t first, int64_t end) {
    size_t t = 0;
    if constexpr (sizeof(Number) == 1) scale_block(task, parts, first, end);
    if (num_rows == 1) return mix_one<true>(task, parts, 0, values, first, first, end);
    if (num_rows >= 4) mix_block<4, true>(task, parts, 0, values, first, end), t = 4;
    for (; t + 4 <= num_rows; t += 4) mix_block<4, false>(task, parts, t, values, first, end);
    if (t + 2 <= num_rows) mix_block<2, false>(task, parts, t, values, first, end), t += 2;
    if (t < num_rows) mix_one<false>(task, parts, t, values, first, first, end);
  });
  for (size_t t = 0; t < num_rows; t++)
    for (size_t d = 0; d < task.head_dim; d++)
      task.out[t * task.out_stride + d] = parts.mixed[t * parts.width + d] * parts.shares[t];
}

size_t scratch_floats(size_t num_rows, size_t num_seen, size_t head_dim) {
  return padded(Parts(num_rows, num_seen, head_dim).floats());
}

}  // namespace attention

constexpr AttentionKernels kAttention = {attention::scratch_floats, attention::run<float>, attention::run<uint16_t>,
                                        attention::run<int8_t>};

}  // namespace
}  // namespace kiku::KIKU_PROCESSOR
