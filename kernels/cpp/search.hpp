// Search: the nearest code of each codebook, one book after the other.
//
// The nearest code c to x is the one with the greatest score x . c - |c|^2 / 2. A first pass computes
// all scores of a book in 8 bits, and how wrong each can be at most:
//
//   |x . c - x' . c'| <= |x| |c - c'| + |x - x'| |c'|      x', c': what the 8 bits stand for
//
// A second one computes in float32 the scores of the codes that can still be the best: a handful.
// So the result is that of float32 over the whole book, and a quarter of it is read.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kiku {

constexpr size_t kCodesAtOnce = 16;  // a book's codes are filled up to a multiple
constexpr size_t kSearchWidth = 64;  // and the numbers of its codes in 8 bits to one of this

// The columns of a book's table, each with a number for every code. The scores differ from those in
// float32 by `of_length` |x| + `of_rest` |x - x'| + `always` at most.
enum SearchColumn { kScale, kHalfNorm, kOfLength, kOfRest, kAlways, kSearchColumns };

// One codebook of `num_codes` codes, filled up to `num_filled`.
struct SearchBook {
  const float *codes;    // [num_codes, dim]
  const int8_t *coarse;  // [num_filled, width]: -127 .. 127
  const float *table;    // [kSearchColumns, num_filled]
  size_t num_codes, num_filled, dim, width;
};

// One row while it is searched for.
struct SearchRow {
  float *x;         // [dim]: what is left of it, followed by zeros up to `width`
  int8_t *rounded;  // [width]: x / scale
  float *highest;   // [num_filled]: what each code's score is at most
  float scale;
  int32_t sum;      // of `rounded`
  float length;     // of x, or a little more
  float rest;       // of what the rounding took away, or a little more
  bool is_exact;    // its numbers are no good for 8 bits: all codes go through the second pass
};

struct SearchKernels {
  void (*round)(SearchRow &row, size_t width);
  // The first pass over codes `first` up to `last`, multiples of kCodesAtOnce. Writes `highest` of each
  // row, and into least[row * stride] what the best of these codes has at least.
  void (*coarse)(const SearchRow *rows, size_t num_rows, const SearchBook &book, size_t first, size_t last,
                 float *least, size_t stride);
  // The second pass over all codes that may have `least`: the best, the first of equals.
  size_t (*best)(const SearchRow &row, const SearchBook &book, float least);
  void (*subtract)(float *x, const float *code, size_t dim);
};

}  // namespace kiku
