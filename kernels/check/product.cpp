// Product against the same sums of whole numbers in 64 bits: bit for bit.
#include <algorithm>

#include "check.hpp"

namespace check {
namespace {

using kiku::BlockForm, kiku::kGroup, kiku::kMostRows;

constexpr size_t kMore = 5;  // columns between the rows of y

// A matrix of one group: whole numbers [64, blocks * size], and as the kernels take it.
struct Matrix {
  BlockForm form;
  size_t num_blocks;
  std::vector<int> numbers;
  Guarded<uint8_t> tiles;
  Guarded<float> scales;  // [blocks, 64]

  Matrix(BlockForm form, size_t width, Chance &chance)
      : form(form), num_blocks((width + form.size - 1) / form.size), numbers(kGroup * num_blocks * form.size),
        tiles(numbers.size() * static_cast<size_t>(form.bits) / 8), scales(num_blocks * kGroup) {
    int reach = form.bits == 8 ? 128 : 8;
    for (int &number : numbers)
      number = chance.below(16) == 0 ? (chance.below(2) == 0 ? -reach : reach - 1)
                                     : static_cast<int>(chance.below(static_cast<size_t>(2 * reach))) - reach;
    for (float &scale : scales) scale = chance.normal() * 0.01f;
    arrange();
  }

  int &at(size_t column, size_t k) { return numbers[column * num_blocks * form.size + k]; }

  // Puts `numbers` where the header says: tiles of a block, in which 4 bytes of each column follow one another.
  void arrange() {
    size_t per_byte = form.bits == 8 ? 1 : 2, tile = kGroup * form.size / per_byte;
    for (size_t column = 0; column < kGroup; column++)
      for (size_t k = 0; k < num_blocks * form.size; k++) {
        size_t byte = k % form.size / per_byte;
        uint8_t &place = tiles[k / form.size * tile + byte / 4 * 4 * kGroup + column * 4 + byte % 4];
        int number = at(column, k);
        if (form.bits == 8)
          place = static_cast<uint8_t>(number + 128);
        else if (k % 2 == 0)
          place = static_cast<uint8_t>((place & 0xf0) | (number + 8));
        else
          place = static_cast<uint8_t>((place & 0x0f) | (number + 8) << 4);
      }
  }
};

// One block of a row in whole numbers; gives their scale.
float rounded(const float *x, size_t count, int *numbers) {
  float peak = 0;
  std::fill(numbers, numbers + 128, 0);
  for (size_t i = 0; i < count; i++) {
    if (!std::isfinite(x[i])) return __builtin_nanf("");
    peak = std::max(peak, std::fabs(x[i]));
  }
  if (peak < 0x1p-119f) return 0;
  volatile float steps = 127.0f / peak;  // volatile: rounded to float32 here, whatever the compiler
  for (size_t i = 0; i < count; i++) {
    volatile float step = x[i] * steps;
    numbers[i] = static_cast<int>(std::nearbyint(step));
  }
  return peak / 127.0f;
}

// Row x [width] times all columns.
void reference(Matrix &matrix, const float *x, size_t width, float *y) {
  std::fill(y, y + kGroup, 0.0f);
  for (size_t block = 0; block < matrix.num_blocks; block++) {
    size_t first = block * matrix.form.size;
    int numbers[128];
    float x_scale = rounded(x + first, std::min(width - first, matrix.form.size), numbers);
    for (size_t column = 0; column < kGroup; column++) {
      int64_t sum = 0;
      for (size_t i = 0; i < matrix.form.size; i++) sum += int64_t{numbers[i]} * matrix.at(column, first + i);
      volatile float scale = matrix.scales[block * kGroup + column] * x_scale;
      y[column] = std::fmaf(static_cast<float>(sum), scale, y[column]);
    }
  }
}

void compare(Outcome &outcome, const kiku::ProductKernels &kernels, Matrix &matrix, const Guarded<float> &x,
             size_t num_rows, size_t width, size_t columns) {
  size_t num_scales = num_rows * matrix.num_blocks;
  Guarded<uint8_t> numbers(num_scales * kernels.bytes_of_block(matrix.form));
  Guarded<float> scales(num_scales);
  Guarded<int32_t> starts(num_scales);
  kiku::RoundedRows rows{matrix.form, num_rows, matrix.num_blocks, numbers.data(), scales.data(), starts.data()};
  for (size_t row = 0; row < num_rows; row++) kernels.round(x.data() + row * width, width, row, rows);

  size_t stride = columns + kMore;
  Guarded<float> y(num_rows == 0 ? 0 : (num_rows - 1) * stride + columns);  // ends with the last result
  std::fill(y.begin(), y.end(), -12345.0f);
  kiku::ProductGroup group{matrix.tiles.data(), matrix.scales.data(), y.data(), stride, columns};
  for (size_t row = 0; row < num_rows; row += kMostRows)
    kernels.group(rows, row, std::min(kMostRows, num_rows - row), group);

  for (size_t row = 0; row < num_rows; row++) {
    float wanted[kGroup];
    reference(matrix, x.data() + row * width, width, wanted);
    const float *seen = y.data() + row * stride;
    outcome.digest(seen, columns);
    for (size_t column = 0; column < columns; column++)
      outcome.expect(same(seen[column], wanted[column]), "%d bits in %zu, x [%zu, %zu], row %zu, column %zu: %a, wanted %a",
                     matrix.form.bits, matrix.form.size, num_rows, width, row, column, seen[column], wanted[column]);
    for (size_t i = columns; i < stride && row + 1 < num_rows; i++)
      outcome.expect(seen[i] == -12345.0f, "x [%zu, %zu], row %zu: wrote behind its %zu columns", num_rows, width, row, columns);
  }
}

// Rows of numbers by chance, each with its own size.
void by_chance(Outcome &outcome, const kiku::ProductKernels &kernels, BlockForm form, size_t num_rows, size_t width,
               size_t columns) {
  Chance chance(num_rows * 1000003 + width * 1009 + columns);
  Matrix matrix(form, width, chance);
  Guarded<float> x(num_rows * width);
  for (size_t row = 0; row < num_rows; row++) {
    float size = std::ldexp(1.0f, static_cast<int>(chance.below(40)) - 20);
    for (size_t i = 0; i < width; i++) x[row * width + i] = chance.normal() * size;
  }
  compare(outcome, kernels, matrix, x, num_rows, width, columns);
}

// Rows at the edges among plain ones: the greatest sums, halves between two numbers, and those of kEdges.
void at_edges(Outcome &outcome, const kiku::ProductKernels &kernels, BlockForm form) {
  constexpr size_t kWidth = 200, kRows = 12 + kNumEdges;
  Chance chance(7);
  Matrix matrix(form, kWidth, chance);
  int low = form.bits == 8 ? -128 : -8, high = -low - 1;
  for (size_t k = 0; k < matrix.num_blocks * form.size; k++) {
    matrix.at(0, k) = low;
    matrix.at(1, k) = high;
    matrix.at(2, k) = k % 2 == 0 ? low : high;
    matrix.at(3, k) = 0;
  }
  matrix.arrange();
  matrix.scales[4] = 0x1p-130f;
  matrix.scales[5] = 3e38f;
  Guarded<float> x(kRows * kWidth);
  for (size_t row = 0; row < kRows; row++)
    for (size_t i = 0; i < kWidth; i++) {
      float plain = chance.normal(), sign = i % 2 == 0 ? 1.0f : -1.0f;
      float half = (static_cast<float>(chance.below(253)) - 126.5f) / 127.0f;
      const float rows[12] = {1, -1, sign, -sign, i % 50 == 0 ? 1.0f : half, 0, -0.0f,
                              plain * 1e-38f, plain * 0x1p-119f, plain * 0x1p-121f, plain * 1e38f, plain};
      x[row * kWidth + i] = row < 12 ? rows[row] : i == (row * 17) % kWidth ? kEdges[row - 12] : plain;
    }
  compare(outcome, kernels, matrix, x, kRows, kWidth, kGroup);
}

}  // namespace

bool product(const kiku::Processor &processor) {
  if (processor.product.group == nullptr) return true;
  Outcome outcome(processor.name, "product");
  for (int bits : {8, 4})
    for (size_t size : {size_t{128}, size_t{32}}) {
      BlockForm form{size, bits};
      for (size_t num_rows : {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 17, 31, 32, 33, 65})
        for (size_t width : {32, 128, 129, 300}) by_chance(outcome, processor.product, form, num_rows, width, kGroup);
      for (size_t width = 1; width <= 260; width += width < 40 ? 1 : 13)
        by_chance(outcome, processor.product, form, 2, width, 1 + width % kGroup);
      for (size_t columns = 1; columns <= kGroup; columns++) by_chance(outcome, processor.product, form, 3, 64, columns);
      at_edges(outcome, processor.product, form);
    }
  return outcome.finish();
}

}  // namespace check
