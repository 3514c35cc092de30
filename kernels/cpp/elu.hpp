// Elu: x where x > 0, else exp(x) - 1.
#pragma once

#include <cstddef>

namespace kiku {

struct EluKernels {
  void (*run)(const float *x, float *y, size_t count);
};

}  // namespace kiku
