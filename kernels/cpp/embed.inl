// Embed for one processor; see embed.hpp.
#include "embed.hpp"

namespace kiku::KIKU_PROCESSOR {
namespace {

void sum_embeddings(const int64_t *ids, size_t count, const uint8_t *table, const float *scales, size_t width, float *out) {
  constexpr size_t kStep = 4 * Floats::kWidth;
  const Floats middle = Floats::all(128.0f);
  size_t d = 0;
  for (; d + kStep <= width; d += kStep) {
    Floats sums[4] = {Floats::zero(), Floats::zero(), Floats::zero(), Floats::zero()};
    for (size_t i = 0; i < count; i++) {
      const uint8_t *row = table + static_cast<size_t>(ids[i]) * width + d;
      const Floats scale = Floats::all(scales[ids[i]]);
      for (size_t j = 0; j < 4; j++)
        sums[j] = multiply_add(Floats::load_bytes(row + j * Floats::kWidth) - middle, scale, sums[j]);
    }
    for (size_t j = 0; j < 4; j++) sums[j].store(out + d + j * Floats::kWidth);
  }
  for (; d < width; d++) {
    float sum = 0.0f;
    for (size_t i = 0; i < count; i++) {
      const float number = static_cast<float>(table[static_cast<size_t>(ids[i]) * width + d]) - 128.0f;
      sum = __builtin_fmaf(number, scales[ids[i]], sum);
    }
    out[d] = sum;
  }
}

constexpr EmbedKernels kEmbed = {sum_embeddings};

}  // namespace
}  // namespace kiku::KIKU_PROCESSOR
