// The operator Elu: float32 of any shape -> the same shape.
#pragma once

#include "ort.hpp"
#include "processor.hpp"

namespace kiku {

struct EluOp {
  static constexpr const char *kName = "Elu";
  static constexpr ort::Type kInputs[] = {ort::Type::kFloat};
  static constexpr ort::Type kOutputs[] = {ort::Type::kFloat};
  static constexpr size_t kPart = 16384;  // numbers of one piece of work: some microseconds

  explicit EluOp(ort::Node &) {}

  void run(ort::Call &call) const {
    ort::Tensor x = call.input(0);
    ort::Tensor y = call.output(0, x.axes, x.num_axes);
    if (call.failed()) return;
    const float *from = x.data<float>();
    float *to = y.data<float>();
    size_t count = static_cast<size_t>(x.count());
    const EluKernels &kernels = processor()->elu;
    call.parallel((count + kPart - 1) / kPart, [=, &kernels](size_t i) {
      size_t first = i * kPart;
      kernels.run(from + first, to + first, count - first < kPart ? count - first : kPart);
    });
  }
};

}  // namespace kiku
