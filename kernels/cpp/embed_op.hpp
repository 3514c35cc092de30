// The operator Embed: sums of rows of a table, whose numbers are bytes with a scale for each row.
//
// Inputs: ids int64 [R, n], rows of the table; table uint8 [rows, D] with 128 for zero; scales float32
// [rows, 1]. Output: float32 [R, D], the sum of the n rows, added up in their order.
#pragma once

#include "embed.hpp"
#include "ort.hpp"
#include "processor.hpp"

namespace kiku {

struct EmbedOp {
  static constexpr const char *kName = "Embed";
  static constexpr ort::Type kInputs[] = {ort::Type::kInt64, ort::Type::kUint8, ort::Type::kFloat};
  static constexpr ort::Type kOutputs[] = {ort::Type::kFloat};

  explicit EmbedOp(ort::Node &) {}

  void run(ort::Call &call) const {
    ort::Tensor ids = call.input(0), table = call.input(1), scales = call.input(2);
    if (call.failed()) return;
    if (!call.require(ids.num_axes == 2 && table.num_axes == 2, "ids and the table have two axes each")) return;
    if (!call.require(scales.count() == table.axes[0], "there is one scale for each row of the table")) return;
    const int64_t num_rows = ids.axes[0], each = ids.axes[1], width = table.axes[1];
    const int64_t *id = ids.data<int64_t>();
    bool inside = true;
    for (int64_t i = 0; i < num_rows * each; i++) inside &= id[i] >= 0 && id[i] < table.axes[0];
    if (!call.require(inside, "an id is no row of the table")) return;
    const int64_t axes[] = {num_rows, width};
    ort::Tensor y = call.output(0, axes, 2);
    if (call.failed()) return;
    const uint8_t *numbers = table.data<uint8_t>();
    const float *scale = scales.data<float>();
    float *out = y.data<float>();
    const EmbedKernels &kernels = processor()->embed;
    // Some ten microseconds of work are worth handing out.
    const int64_t per_task = each * width >= kTask ? 1 : kTask / (each * width + 1) + 1;
    const int64_t tasks = (num_rows + per_task - 1) / per_task;
    call.parallel(static_cast<size_t>(tasks), [=, &kernels](size_t task) {
      const int64_t first = static_cast<int64_t>(task) * per_task;
      const int64_t last = first + per_task < num_rows ? first + per_task : num_rows;
      for (int64_t row = first; row < last; row++)
        kernels.sum(id + row * each, static_cast<size_t>(each), numbers, scale, static_cast<size_t>(width), out + row * width);
    });
  }

 private:
  static constexpr int64_t kTask = 100'000;  // numbers of the table
};

}  // namespace kiku
