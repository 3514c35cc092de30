// Product: float32 rows times a matrix of 8- or 4-bit numbers in blocks.
//
// The matrix [N, K] lies in tiles: its N columns of the result in groups of 64, of each group one block
// along K after the other (that is a tile), of each tile 4 bytes of every column in turn, first those
// with the least k. A byte is one number of 8 bits, 128 for zero, or two of 4 bits, 8 for zero, of
// which the lower half of the byte has the lower k.
//
// A row of x is rounded to 8 bits, block by block, so that a block's product is a sum of whole numbers:
// exact, in any order. What rounds is float32, in one order for all: so a row's result is the same on
// every processor, whatever the other rows are, and however many threads there are.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kiku {

constexpr size_t kGroup = 64;      // columns of a group
constexpr size_t kMostRows = 32;   // rows that `group` takes at once: they and a tile fit the first cache

// How a matrix is kept.
struct BlockForm {
  size_t size;  // numbers of a block: 128 or 32
  int bits;     // of a number: 8 or 4
};

// Rows that were rounded to 8 bits, as the kernels of one processor read them.
struct RoundedRows {
  BlockForm form;
  size_t num_rows;
  size_t num_blocks;
  uint8_t *numbers;  // [num_blocks, num_rows, bytes_of_block]
  float *scales;     // [num_blocks, num_rows]
  int32_t *starts;   // [num_blocks, num_rows]: what a block's sum begins with, for the zero of the weights
};

// A group of columns, and where its results go.
struct ProductGroup {
  const uint8_t *tiles;  // [num_blocks, bytes of a block / 4, 64, 4]
  const float *scales;   // [num_blocks, 64]
  float *y;              // row i of all, column j of the group: y[i * stride + j]
  size_t stride;
  size_t columns;        // that are written: 64 at most
};

struct ProductKernels {
  // Bytes of one block of one rounded row.
  size_t (*bytes_of_block)(BlockForm form);
  // Rounds x [width], which may end inside the last block, to row `row` of `rows`.
  void (*round)(const float *x, size_t width, size_t row, const RoundedRows &rows);
  // Rows `first` and the `count` - 1 next ones (kMostRows at most) times one group.
  void (*group)(const RoundedRows &rows, size_t first, size_t count, const ProductGroup &group);
};

}  // namespace kiku
