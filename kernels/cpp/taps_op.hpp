// The operator Taps: what is left of the causal convolutions of N slots when their products are there.
//
// Inputs: products float32 [N, L, taps * C], tap after tap; bias [C]; of more than one tap the past
// [N, past_rows, C]; perhaps a sequence beside it [N, L, C], which is added. Outputs, of which any may be
// left out: the sums [N, L, C], the same after ELU, the new past. Attributes: taps, dilation.
#pragma once

#include <cstring>

#include "ort.hpp"
#include "processor.hpp"

namespace kiku {

struct TapsOp {
  static constexpr const char *kName = "Taps";
  static constexpr ort::Type kInputs[] = {ort::Type::kFloat, ort::Type::kFloat, ort::Type::kFloat, ort::Type::kFloat};
  static constexpr ort::Type kOutputs[] = {ort::Type::kFloat, ort::Type::kFloat, ort::Type::kFloat};
  static constexpr size_t kNeededInputs = 2, kNeededOutputs = 0;

  explicit TapsOp(ort::Node &node) {
    int64_t given_taps = node.integer("taps"), given_dilation = node.integer("dilation");
    node.require(given_taps >= 1 && given_taps <= static_cast<int64_t>(kMostTaps), kName, "taps must be 1 to 32");
    node.require(given_dilation >= 1 && given_dilation <= 1 << 20, kName, "dilation must be 1 to 2^20");
    taps = static_cast<size_t>(given_taps), dilation = static_cast<size_t>(given_dilation);
  }

  void run(ort::Call &call) const {
    ort::Tensor products = call.input(0), bias = call.input(1), past = call.input_if_any(2), beside = call.input_if_any(3);
    if (call.failed() || !check(call, products, bias, past, beside)) return;
    const int64_t slots = products.axes[0], length = products.axes[1], channels = bias.axes[0];
    const int64_t of_sums[] = {slots, length, channels}, of_past[] = {slots, kept_rows(), channels};
    ort::Tensor sums = call.output_if_any(0, of_sums, 3), activated = call.output_if_any(1, of_sums, 3);
    ort::Tensor new_past = call.output_if_any(2, of_past, 3);
    if (call.failed() || channels == 0) return;
    const Shape shape = {static_cast<size_t>(slots), static_cast<size_t>(length), static_cast<size_t>(channels)};
    if (!new_past.is_missing()) remember(shape, products.data<float>(), past.data<float>(), new_past.data<float>());
    TapsTask first = {products.data<float>(), bias.data<float>(), past.data<float>(), beside.data<float>(),
                      sums.data<float>(), activated.data<float>(), taps, dilation, shape.channels};
    if (first.sums != nullptr || first.activated != nullptr) add(call, shape, first);
  }

 private:
  struct Shape {
    size_t slots, length, channels;
  };

  int64_t kept_rows() const { return static_cast<int64_t>(past_rows(taps, dilation)); }

  bool check(ort::Call &call, const ort::Tensor &products, const ort::Tensor &bias, const ort::Tensor &past,
             const ort::Tensor &beside) const {
    if (!call.require(bias.type == ort::Type::kFloat && bias.num_axes == 1, "the bias must be float32 [channels]")) return false;
    const int64_t channels = bias.axes[0];
    if (!call.require(products.type == ort::Type::kFloat && products.num_axes == 3 &&
                          products.axes[2] == static_cast<int64_t>(taps) * channels,
                      "the products must be float32 [slots, length, taps * channels]"))
      return false;
    const int64_t of_past[] = {products.axes[0], kept_rows(), channels}, of_sums[] = {products.axes[0], products.axes[1], channels};
    return call.require(taps == 1 || !past.is_missing(), "several taps have a past") &&
           call.require(past.is_missing() || is(past, of_past), "the past must be float32 [slots, rows, channels] for these taps") &&
           call.require(beside.is_missing() || is(beside, of_sums), "what is added must be float32 [slots, length, channels]");
  }

  static bool is(const ort::Tensor &tensor, const int64_t (&axes)[3]) {
    return tensor.type == ort::Type::kFloat && tensor.num_axes == 3 && std::memcmp(tensor.axes, axes, sizeof axes) == 0;
  }

  // For each tap the last rows of its past with its products behind.
  void remember(const Shape &shape, const float *products, const float *past, float *kept) const {
    const size_t bytes = shape.channels * sizeof(float), rows = past_rows(taps, dilation);
    for (size_t slot = 0; slot < shape.slots; slot++) {
      const float *from = past == nullptr ? nullptr : past + slot * rows * shape.channels;
      const float *now = products + slot * shape.length * taps * shape.channels;
      float *to = kept + slot * rows * shape.channels;
      for (size_t i = 0; i + 1 < taps; i++) {
        const size_t behind = rows_behind(taps, dilation, i);
        const size_t old = behind > shape.length ? behind - shape.length : 0;
        if (old > 0) std::memcpy(to, from + (behind - old) * shape.channels, old * bytes);
        for (size_t row = old; row < behind; row++)
          std::memcpy(to + row * shape.channels, now + ((row + shape.length - behind) * taps + i) * shape.channels, bytes);
        from += behind * shape.channels, to += behind * shape.channels;
      }
    }
  }

  // A piece of work is some rows of all slots': some microseconds.
  void add(ort::Call &call, const Shape &shape, const TapsTask &first) const {
    constexpr size_t kNumbersOfPart = 16384;
    const size_t rows = shape.slots * shape.length, of_part = 1 + kNumbersOfPart / shape.channels;
    const TapsKernels &kernels = processor()->taps;
    call.parallel((rows + of_part - 1) / of_part, [&, rows, of_part](size_t part) {
      size_t row = part * of_part;
      const size_t end = rows - row < of_part ? rows : row + of_part;
      while (row < end) {
        const size_t slot = row / shape.length, at = row % shape.length;
        const size_t left = shape.length - at, count = left < end - row ? left : end - row;
        kernels.run(of_slot(first, shape, slot), at, at + count);
        row += count;
      }
    });
  }

  TapsTask of_slot(const TapsTask &first, const Shape &shape, size_t slot) const {
    const size_t numbers = slot * shape.length * shape.channels;
    TapsTask task = first;
    task.products += numbers * taps;
    if (task.past != nullptr) task.past += slot * past_rows(taps, dilation) * shape.channels;
    if (task.beside != nullptr) task.beside += numbers;
    if (task.sums != nullptr) task.sums += numbers;
    if (task.activated != nullptr) task.activated += numbers;
    return task;
  }

  size_t taps, dilation;
};

}  // namespace kiku
