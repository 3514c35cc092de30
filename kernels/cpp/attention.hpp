// Attention: packed rows of several slots over rings of keys and values.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kiku {

constexpr size_t kWidestHead = 256;

// A row of a ring has the numbers of one position: float32, float16 (as its bits), or int8, which have
// their scale, a float32, behind them.
template <class Number>
constexpr size_t row_length(size_t head_dim) { return head_dim + (sizeof(Number) == 1 ? sizeof(float) : 0); }

// The rows of one slot and one head: new positions, one after the other.
struct AttentionTask {
  const float *query;  // row t's at query + t * row_stride; its key behind by `part`, its value by 2 * part
  size_t row_stride;
  size_t part;
  size_t num_rows;   // at least 1
  int64_t position;  // of the first row
  const float *cos;  // [num_rows, head_dim / 2] of these rows
  const float *sin;
  void *keys;  // [capacity, row]: position p lies at p mod capacity
  void *values;
  size_t capacity;  // at least window - 1 + num_rows
  size_t window;    // positions that a row sees at most, itself among them
  size_t head_dim;  // even, `kWidestHead` at most
  float *out;       // row t's at out + t * out_stride
  size_t out_stride;
  float *scratch;  // `scratch_floats` of it
};

// Not members: each source file has its own copies, built with its processor's instructions.
// The oldest position that row t sees, and the one after its newest.
static inline int64_t first_seen(const AttentionTask &task, size_t t) {
  int64_t first = task.position + static_cast<int64_t>(t) - static_cast<int64_t>(task.window) + 1;
  return first < 0 ? 0 : first;
}
static inline int64_t end_seen(const AttentionTask &task, size_t t) { return task.position + static_cast<int64_t>(t) + 1; }

// How many positions any of the rows sees.
static inline size_t num_seen(const AttentionTask &task) {
  return static_cast<size_t>(end_seen(task, task.num_rows - 1) - first_seen(task, 0));
}

struct AttentionKernels {
  size_t (*scratch_floats)(size_t num_rows, size_t num_seen, size_t head_dim);
  void (*run)(const AttentionTask &task);        // keys and values float32
  void (*run_half)(const AttentionTask &task);   // float16
  void (*run_bytes)(const AttentionTask &task);  // int8
};

}  // namespace kiku
