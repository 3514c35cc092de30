// Elu for one processor; see elu.hpp.
#include "elu.hpp"

namespace kiku::KIKU_PROCESSOR {
namespace {

inline Floats elu(Floats x) {
  Floats low = expm1_of(minimum(Floats::all(0.0f), x));
  return where_positive(x, x, low);
}

void run_elu(const float *x, float *y, size_t count) {
  size_t i = 0;
  for (; i + Floats::kWidth <= count; i += Floats::kWidth) elu(Floats::load(x + i)).store(y + i);
  if (i == count) return;
  float rest[Floats::kWidth] = {};
  std::memcpy(rest, x + i, (count - i) * sizeof(float));
  elu(Floats::load(rest)).store(rest);
  std::memcpy(y + i, rest, (count - i) * sizeof(float));
}

constexpr EluKernels kElu = {run_elu};

}  // namespace
}  // namespace kiku::KIKU_PROCESSOR
