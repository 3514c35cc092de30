// The operators Attention, AttentionHalf and AttentionBytes: packed rows over rings of keys and values,
// float32, float16 and int8. The README says what they take and give.
#pragma once

#include <atomic>
#include <cstring>

#include "ort.hpp"
#include "processor.hpp"

namespace kiku {

// What one call is given.
struct AttentionInputs {
  AttentionInputs(ort::Call &call, size_t behind)
      : fused(call.input(0)), keys(call.input(1)), values(call.input(2)), counts(call.input(3)), firsts(call.input(4)),
        positions(call.input(5)), cos(call.input(6)), sin(call.input(7)),
        behind(static_cast<int64_t>(behind)) {}

  int64_t num_rows() const { return fused.axes[0]; }
  int64_t num_slots() const { return keys.axes[0]; }
  int64_t capacity() const { return keys.axes[2]; }
  int64_t head_dim() const { return keys.axes[3] - behind; }
  int64_t count_of(int64_t slot) const { return counts.data<int32_t>()[slot]; }
  int64_t first_of(int64_t slot) const { return firsts.data<int32_t>()[slot]; }
  int64_t position_of(int64_t slot) const { return positions.data<int64_t>()[slot]; }

  ort::Tensor fused, keys, values, counts, firsts, positions, cos, sin;
  int64_t behind;  // of a row of a ring: how long what stands behind its numbers is
};

// `Number` is float, uint16_t (the bits of a float16) or int8_t.
template <class Number>
struct AttentionOp {
  static constexpr ort::Type kFloat = ort::Type::kFloat;
  static constexpr ort::Type kStored =
      sizeof(Number) == 1 ? ort::Type::kInt8 : sizeof(Number) == 2 ? ort::Type::kHalf : ort::Type::kFloat;

  static constexpr const char *kName =
      sizeof(Number) == 1 ? "AttentionBytes" : sizeof(Number) == 2 ? "AttentionHalf" : "Attention";
  static constexpr ort::Type kInputs[] = {kFloat,           kStored,          kStored, ort::Type::kInt32,
                                          ort::Type::kInt32, ort::Type::kInt64, kFloat, kFloat};
  static constexpr ort::Type kOutputs[] = {kFloat, kStored, kStored};

  static constexpr int64_t kMost = int64_t{1} << 30;  // of heads and of positions in a window
  static constexpr size_t kMostPieces = 64;           // a bit each
  static constexpr uint64_t kPieceNanoseconds = 20000;

  explicit AttentionOp(ort::Node &node) : num_heads(node.integer("num_heads")), window(node.integer("window")) {
    if (node.status() != nullptr) return;
    node.require(num_heads >= 1 && num_heads <= kMost, kName, "num_heads must be 1 or more");
    node.require(window >= 1 && window <= kMost, kName, "window must be 1 or more");
  }

  void run(ort::Call &call) const {
    AttentionInputs in(call, row_length<Number>(0));
    if (call.failed() || !shapes_fit(call, in) || !rows_fit(call, in)) return;
    ort::Tensor y, rings[2];
    const int64_t axes[] = {in.fused.axes[0], num_heads * in.head_dim()};
    y = call.output(0, axes, 2);
    rings[0] = call.output(1, in.keys.axes, in.keys.num_axes);
    rings[1] = call.output(2, in.values.axes, in.values.num_axes);
    if (call.failed()) return;
    size_t bytes = static_cast<size_t>(in.keys.count()) * sizeof(Number);
    if (bytes > 0 && rings[0].memory != in.keys.memory) std::memcpy(rings[0].memory, in.keys.memory, bytes);
    if (bytes > 0 && rings[1].memory != in.values.memory) std::memcpy(rings[1].memory, in.values.memory, bytes);
    if (axes[0] > 0) run_rows(call, in, y.data<float>(), rings[0].data<char>(), rings[1].data<char>());
  }

 private:
  static bool is(const ort::Tensor &tensor, ort::Type type, int64_t length) {
    return tensor.type == type && tensor.num_axes == 1 && tensor.axes[0] == length;
  }
  static bool is(const ort::Tensor &tensor, int64_t rows, int64_t columns) {
    return tensor.type == kFloat && tensor.num_axes == 2 && tensor.axes[0] == rows && tensor.axes[1] == columns;
  }

  bool shapes_fit(ort::Call &call, const AttentionInputs &in) const {
    if (!call.require(in.keys.type == kStored && in.keys.num_axes == 4 && in.keys.axes[1] == num_heads,
                      sizeof(Number) == 1 ? "keys must be [slots, num_heads, capacity, head_dim + 4]"
                                          : "keys must be [slots, num_heads, capacity, head_dim]"))
      return false;
    if (!call.require(in.head_dim() >= 2 && in.head_dim() % 2 == 0 && in.head_dim() <= static_cast<int64_t>(kWidestHead),
                      "the width of a head must be even, from 2 to 256"))
      return false;
    bool equal = in.values.type == kStored && in.values.num_axes == 4;
    for (size_t i = 0; i < 4; i++) equal = equal && in.values.axes[i] == in.keys.axes[i];
    return call.require(equal, "values must have the shape of the keys") &&
           call.require(is(in.fused, in.fused.axes[0], 3 * num_heads * in.head_dim()),
                        "the rows must be [rows, 3 * num_heads * head_dim]: query, key and value of each") &&
           call.require(is(in.counts, ort::Type::kInt32, in.num_slots()), "counts must be int32, one for each slot") &&
           call.require(is(in.firsts, ort::Type::kInt32, in.num_slots()), "firsts must be int32, one for each slot") &&
           call.require(is(in.positions, ort::Type::kInt64, in.num_slots()), "positions must be int64, one for each slot") &&
           call.require(is(in.cos, in.num_rows(), in.head_dim() / 2), "cosines must be [rows, head_dim / 2]") &&
           call.require(is(in.sin, in.num_rows(), in.head_dim() / 2), "sines must be [rows, head_dim / 2]");
  }

  // Every row belongs to one slot, and the rings have room. Of slots without rows nothing is looked at.
  bool rows_fit(ort::Call &call, const AttentionInputs &in) const {
    ort::Scratch scratch(static_cast<size_t>(in.num_rows()));
    char *taken = static_cast<char *>(scratch.data());
    if (!call.require(taken != nullptr, "no memory")) return false;
    std::memset(taken, 0, static_cast<size_t>(in.num_rows()));
    int64_t total = 0;
    for (int64_t slot = 0; slot < in.num_slots(); slot++) {
      int64_t count = in.count_of(slot), first = in.first_of(slot), position = in.position_of(slot);
      if (count == 0) continue;
      if (!call.require(count > 0, "a slot's count of rows is negative") ||
          !call.require(first >= 0 && first + count <= in.num_rows(), "a slot's rows lie outside of the rows given") ||
          !call.require(position >= 0 && position < INT64_MAX / 2, "a slot's position is negative or far too great") ||
          !call.require(in.capacity() >= window - 1 + count,
                        "the rings are too small: they need window - 1 places and one for each row of a slot"))
        return false;
      for (int64_t row = first; row < first + count; row++) {
        if (!call.require(taken[row] == 0, "two slots have the same row")) return false;
        taken[row] = 1;
      }
      total += count;
    }
    return call.require(total == in.num_rows(), "the counts must add up to the number of rows");
  }

  // The work of one slot and head, but for its scratch memory.
  AttentionTask task_of(const AttentionInputs &in, int64_t slot, int64_t head, float *y, char *keys, char *values) const {
    size_t dim = static_cast<size_t>(in.head_dim()), part = static_cast<size_t>(num_heads) * dim;
    size_t first = static_cast<size_t>(in.first_of(slot)), at = static_cast<size_t>(head) * dim;
    size_t ring = static_cast<size_t>(slot * num_heads + head) * static_cast<size_t>(in.capacity()) * row_length<Number>(dim) * sizeof(Number);
    AttentionTask task;
    task.query = in.fused.data<float>() + first * 3 * part + at;
    task.row_stride = 3 * part;
    task.part = part;
    task.num_rows = static_cast<size_t>(in.count_of(slot));
    task.position = in.position_of(slot);
    task.cos = in.cos.data<float>() + first * (dim / 2);
    task.sin = in.sin.data<float>() + first * (dim / 2);
    task.keys = keys + ring;
    task.values = values + ring;
    task.capacity = static_cast<size_t>(in.capacity());
    task.window = static_cast<size_t>(window);
    task.head_dim = dim;
    task.out = y + first * part + at;
    task.out_stride = part;
    task.scratch = nullptr;
    return task;
  }

  // About how long one core works: reading a number takes about 1/8 ns, using it for a row 1/32.
  static uint64_t nanoseconds(const AttentionTask &task) {
    return num_seen(task) * task.head_dim * 2 * (4 + task.num_rows) / 32;
  }

  void run_rows(ort::Call &call, const AttentionInputs &in, float *y, char *keys, char *values) const {
    const AttentionKernels &kernels = processor()->attention;
    size_t floats = 0;
    uint64_t cost = 0;
    for (int64_t slot = 0; slot < in.num_slots(); slot++) {
      if (in.count_of(slot) == 0) continue;
      AttentionTask task = task_of(in, slot, 0, y, keys, values);
      size_t wanted = kernels.scratch_floats(task.num_rows, num_seen(task), task.head_dim);
      floats = wanted > floats ? wanted : floats;
      cost += nanoseconds(task) * static_cast<uint64_t>(num_heads);
    }
    int64_t items = num_heads * in.num_slots();  // head by head, so that the pieces are alike where the slots are not
    size_t pieces = static_cast<size_t>(cost / kPieceNanoseconds);
    if (pieces > kMostPieces) pieces = kMostPieces;
    if (pieces > static_cast<size_t>(items)) pieces = static_cast<size_t>(items);
    if (pieces == 0) pieces = 1;
    ort::Scratch scratch(pieces * floats * sizeof(float));
    float *memory = static_cast<float *>(scratch.data());
    if (!call.require(memory != nullptr, "no memory")) return;
    std::atomic<uint64_t> used{0};  // parts of the scratch memory: the first that is free, as it is warm
    call.parallel(pieces, [&](size_t piece) {
      size_t part = take(used);
      int64_t end = items * static_cast<int64_t>(piece + 1) / static_cast<int64_t>(pieces);
      for (int64_t i = items * static_cast<int64_t>(piece) / static_cast<int64_t>(pieces); i < end; i++) {
        int64_t slot = i % in.num_slots();
        if (in.count_of(slot) == 0) continue;
        AttentionTask task = task_of(in, slot, i / in.num_slots(), y, keys, values);
        task.scratch = memory + part * floats;
        (sizeof(Number) == 1 ? kernels.run_bytes : sizeof(Number) == 2 ? kernels.run_half : kernels.run)(task);
      }
      used.fetch_and(~(uint64_t{1} << part), std::memory_order_release);
    });
  }

  // The least bit that is not set, and sets it. There is one, as there are no more pieces than bits.
  static size_t take(std::atomic<uint64_t> &used) {
    uint64_t seen = used.load(std::memory_order_relaxed);
    for (;;) {
      uint64_t bit = ~seen & (seen + 1);
      if (used.compare_exchange_weak(seen, seen | bit, std::memory_order_acquire, std::memory_order_relaxed))
        return static_cast<size_t>(__builtin_ctzll(bit));
    }
  }

  int64_t num_heads;
  int64_t window;
};

}  // namespace kiku
