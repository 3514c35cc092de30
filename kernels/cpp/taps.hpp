// Taps: what is left of a causal convolution when its products are there.
//
// A kernel of `taps` taps becomes as many products of the same inputs, which lie side by side. Here each
// is added to the output that it belongs to, `dilation` positions further for every tap before the last,
// with the bias and, where it is wanted, another sequence. What a tap adds to outputs that are still to
// come is remembered: the past, tap after tap, the oldest position first.
//
// Sums run in one order: the last tap, the bias, the other taps from the first, then the other sequence.
#pragma once

#include <cstddef>

namespace kiku {

constexpr size_t kMostTaps = 32;

// The convolution of one slot.
struct TapsTask {
  const float *products;  // [length, taps, channels]
  const float *bias;      // [channels]
  const float *past;      // [past_rows(taps, dilation), channels]
  const float *beside;    // [length, channels], added to the sums; may be null
  float *sums;            // [length, channels]; may be null
  float *activated;       // the same after ELU: x where x > 0, else exp(x) - 1; may be null
  size_t taps;            // kMostTaps at most
  size_t dilation;
  size_t channels;
};

// Not members: each source file has its own copies, built with its processor's instructions.
// How far behind its output tap i hears, and so how many positions of it are remembered.
static inline size_t rows_behind(size_t taps, size_t dilation, size_t i) { return (taps - 1 - i) * dilation; }
static inline size_t past_rows(size_t taps, size_t dilation) { return taps * (taps - 1) / 2 * dilation; }

struct TapsKernels {
  // The outputs `first` .. `end` - 1.
  void (*run)(const TapsTask &task, size_t first, size_t end);
};

}  // namespace kiku
