// Product: float32 rows times a matrix of 8- or 4-bit numbers in blocks.
//
// The matrix [N, K] lies in tiles (see `layout` in the README): columns of the result in groups of 64,
// of each group one block along K after the other, of each block 4 bytes of every column in turn.
// A row of x is rounded to 8 bits, block by block, so that a block's product is a sum of whole numbers.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kiku {

constexpr size_t kGroup = 64;  // columns of a group

// Rows that were rounded to 8 bits, as the kernels of one processor read them.
struct RoundedRows {
  size_t num_rows;
  size_t num_blocks;
  const void *numbers;
  const float *scales;    // [num_blocks, num_rows]
  const int32_t *starts;  // [num_blocks, num_rows]: what a block's sum begins with, for the zero of the weights
};

struct ProductKernels {
  // Bytes that `round` writes for one row of so many blocks of `block_size`.
  size_t (*bytes_of_row)(size_t num_blocks, size_t block_size, int bits);
  // Rounds row `row` of x [., width] (width may end inside the last block) into `rows`, whose arrays are writable.
  void (*round)(const float *x, size_t width, size_t block_size, int bits, size_t row, const RoundedRows &rows);
  // All rows times one group: y[row * stride + column] for `columns` (64 at most) of it.
  void (*group)(const RoundedRows &rows, const uint8_t *tiles, const float *scales, size_t block_size, int bits,
                float *y, size_t stride, size_t columns);
};

}  // namespace kiku
