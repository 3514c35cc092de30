// Attention: packed rows of several slots over rings of keys and values.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kiku {

// The rows of one slot and one head: T new positions, one after the other.
struct AttentionTask {
  const float *query;  // row t's at query + t * row_stride; its key behind by `part`, its value by 2 * part
  size_t row_stride;
  size_t part;
  size_t num_rows;      // T
  int64_t position;     // of the first row
  const float *cos;     // [T, head_dim / 2] of these rows
  const float *sin;
  void *keys;           // [capacity, head_dim] float32 or float16: position p lies at p mod capacity
  void *values;
  size_t capacity;
  size_t window;        // positions that a row sees at most, itself among them
  size_t head_dim;
  float *out;           // row t's at out + t * out_stride
  size_t out_stride;
  float *scratch;       // `scratch_floats` of it
};

struct AttentionKernels {
  size_t (*scratch_floats)(size_t num_rows, size_t window, size_t head_dim);
  void (*run)(const AttentionTask &task);       // keys and values float32
  void (*run_half)(const AttentionTask &task);  // float16
};

}  // namespace kiku
