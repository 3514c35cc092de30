// Embed: sums of rows of a table of bytes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kiku {

struct EmbedKernels {
  // out[d] = sum over i of scales[ids[i]] * (table[ids[i] * width + d] - 128), in the order of the ids
  void (*sum)(const int64_t *ids, size_t count, const uint8_t *table, const float *scales, size_t width, float *out);
};

}  // namespace kiku
