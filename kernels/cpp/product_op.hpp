// The operator Product: float32 [..., K] times a matrix in tiles -> float32 [..., N].
//
// Inputs: x; the tiles, uint8 [groups, blocks, bytes of a block / 4, 64, 4]; their scales, float32
// [groups, blocks, 64]. Attributes: N, bits (8 or 4), block_size (128 or 32).
#pragma once

#include <cstring>

#include "ort.hpp"
#include "processor.hpp"

namespace kiku {

struct ProductOp {
  static constexpr const char *kName = "Product";
  static constexpr ort::Type kInputs[] = {ort::Type::kFloat, ort::Type::kUint8, ort::Type::kFloat};
  static constexpr ort::Type kOutputs[] = {ort::Type::kFloat};

  explicit ProductOp(ort::Node &node) {
    num_columns = node.integer("N");
    int64_t bits = node.integer("bits"), size = node.integer("block_size");
    node.require(num_columns > 0 && num_columns < (int64_t{1} << 31), kName, "N must be positive and below 2^31");
    node.require(bits == 8 || bits == 4, kName, "bits must be 8 or 4");
    node.require(size == 128 || size == 32, kName, "block_size must be 128 or 32");
    form = {static_cast<size_t>(size), static_cast<int>(bits)};
  }

  void run(ort::Call &call) const {
    ort::Tensor x = call.input(0), tiles = call.input(1), scales = call.input(2);
    if (!check(call, x, tiles, scales)) return;
    int64_t axes[ort::kMostAxes];
    std::memcpy(axes, x.axes, sizeof axes);
    axes[x.num_axes - 1] = num_columns;
    ort::Tensor y = call.output(0, axes, x.num_axes);
    if (call.failed() || y.count() == 0) return;

    Work work;
    work.kernels = &processor()->product;
    work.width = static_cast<size_t>(x.last_axis());
    work.num_groups = static_cast<size_t>(scales.axes[0]);
    work.num_columns = static_cast<size_t>(num_columns);
    work.x = x.data<float>();
    work.tiles = tiles.data<uint8_t>();
    work.scales = scales.data<float>();
    work.y = y.data<float>();
    size_t num_rows = static_cast<size_t>(y.count() / num_columns), num_blocks = static_cast<size_t>(scales.axes[1]);
    size_t cells = num_rows * num_blocks, bytes = cells * work.kernels->bytes_of_block(form);
    ort::Scratch scratch(bytes + cells * (sizeof(float) + sizeof(int32_t)));
    if (!call.require(scratch.data() != nullptr, "no memory for the rounded rows")) return;
    uint8_t *numbers = static_cast<uint8_t *>(scratch.data());
    float *row_scales = reinterpret_cast<float *>(numbers + bytes);
    work.rows = {form, num_rows, num_blocks, numbers, row_scales, reinterpret_cast<int32_t *>(row_scales + cells)};
    round(call, work);
    multiply(call, work);
  }

 private:
  // What one call works on.
  struct Work {
    const ProductKernels *kernels;
    RoundedRows rows;
    size_t width, num_groups, num_columns;
    const float *x;
    const uint8_t *tiles;
    const float *scales;
    float *y;
  };

  bool check(ort::Call &call, const ort::Tensor &x, const ort::Tensor &tiles, const ort::Tensor &scales) const {
    if (!call.require(x.type == ort::Type::kFloat && x.num_axes >= 1, "x must be float32 [..., K]")) return false;
    int64_t size = static_cast<int64_t>(form.size);
    int64_t groups = (num_columns + 63) / 64, blocks = (x.last_axis() + size - 1) / size;
    const int64_t of_tiles[] = {groups, blocks, size * form.bits / 32, 64, 4}, of_scales[] = {groups, blocks, 64};
    return call.require(tiles.type == ort::Type::kUint8 && is(tiles, of_tiles, 5),
                        "the tiles must be uint8 [groups, blocks, bytes of a block / 4, 64, 4] of this K and N") &&
           call.require(scales.type == ort::Type::kFloat && is(scales, of_scales, 3),
                        "the scales must be float32 [groups, blocks, 64] of this K and N");
  }

  static bool is(const ort::Tensor &tensor, const int64_t *axes, size_t num_axes) {
    return tensor.num_axes == num_axes && std::memcmp(tensor.axes, axes, num_axes * sizeof *axes) == 0;
  }

  static size_t parts(size_t count, size_t of) { return (count + of - 1) / of; }
  static size_t least(size_t a, size_t b) { return a < b ? a : b; }

  // Waking the other threads costs some microseconds: as much as rounding 40,000 numbers.
  static constexpr size_t kNumbersOfPart = 65536;

  static void round(ort::Call &call, const Work &work) {
    size_t of_part = 1 + kNumbersOfPart / (work.width + 1);
    call.parallel(parts(work.rows.num_rows, of_part), [&](size_t part) {
      size_t end = least(work.rows.num_rows, (part + 1) * of_part);
      for (size_t row = part * of_part; row < end; row++)
        work.kernels->round(work.x + row * work.width, work.width, row, work.rows);
    });
  }

  // A piece of work is some groups for some rows: large enough to be worth a thread's waking, and
  // small enough that no thread waits long for the last one.
  static void multiply(ort::Call &call, const Work &work) {
    constexpr size_t kRowsOfPart = 4 * kMostRows;
    size_t row_parts = parts(work.rows.num_rows, kRowsOfPart);
    size_t groups = groups_of_part(work, least(work.rows.num_rows, kRowsOfPart), row_parts);
    size_t group_parts = parts(work.num_groups, groups);
    call.parallel(group_parts * row_parts, [&, groups, row_parts](size_t part) {
      size_t row = part % row_parts * kRowsOfPart, row_end = least(work.rows.num_rows, row + kRowsOfPart);
      size_t group = part / row_parts * groups, group_end = least(work.num_groups, group + groups);
      for (; group < group_end; group++) run_group(work, group, row, row_end);
    });
  }

  static size_t groups_of_part(const Work &work, size_t num_rows, size_t row_parts) {
    size_t bytes = work.rows.num_blocks * work.rows.form.size * kGroup * static_cast<size_t>(work.rows.form.bits) / 8;
    // Nanoseconds of a group, roughly: its weights come at 16 bytes in each, and 64 products are made in it.
    size_t reading = bytes / 16, products = num_rows * work.rows.num_blocks * work.rows.form.size * kGroup / 64;
    size_t cost = (reading > products ? reading : products) + 1, all = cost * work.num_groups * row_parts;
    constexpr size_t kWorthThreads = 20000, kLeastPart = 8000, kMostParts = 32;
    if (all < kWorthThreads) return work.num_groups;
    size_t wanted = all / kMostParts > kLeastPart ? all / kMostParts : kLeastPart;
    size_t groups = wanted / cost;
    return groups == 0 ? 1 : least(groups, work.num_groups);
  }

  static void run_group(const Work &work, size_t group, size_t row, size_t end) {
    const RoundedRows &rows = work.rows;
    size_t column = group * kGroup, block_bytes = rows.form.size * static_cast<size_t>(rows.form.bits) / 8;
    ProductGroup one = {
        work.tiles + group * rows.num_blocks * block_bytes * kGroup, work.scales + group * rows.num_blocks * kGroup,
        work.y + column, work.num_columns, least(kGroup, work.num_columns - column)};
    for (; row < end; row += kMostRows) work.kernels->group(rows, row, least(kMostRows, end - row), one);
  }

  int64_t num_columns;
  BlockForm form;
};

}  // namespace kiku
