// Taps for one processor; see taps.hpp.
#include "taps.hpp"

namespace kiku::KIKU_PROCESSOR {
namespace {

inline Floats elu(Floats x) {
  Floats low = expm1_of(minimum(Floats::all(0.0f), x));
  return where_positive(x, x, low);
}

// `count` numbers, zeros behind: fewer than a vector holds.
inline Floats load_some(const float *p, size_t count) {
  float some[Floats::kWidth] = {};
  std::memcpy(some, p, count * sizeof(float));
  return Floats::load(some);
}

inline void store_some(Floats x, float *p, size_t count) {
  float some[Floats::kWidth];
  x.store(some);
  std::memcpy(p, some, count * sizeof(float));
}

// Where what tap i adds to output `row` stands.
inline const float *added_by(const TapsTask &task, size_t i, size_t row) {
  size_t behind = rows_behind(task.taps, task.dilation, i);
  if (row >= behind) return task.products + ((row - behind) * task.taps + i) * task.channels;
  size_t before = past_rows(task.taps, task.dilation) - past_rows(task.taps - i, task.dilation);
  return task.past + (before + row) * task.channels;
}

// One output. kTaps is 0 where their number is not known when this is built.
template <size_t kTaps>
inline void run_row(const TapsTask &task, size_t row) {
  const size_t taps = kTaps == 0 ? task.taps : kTaps, channels = task.channels;
  const float *last = task.products + (row * taps + taps - 1) * channels, *others[kTaps == 0 ? kMostTaps : kTaps];
  for (size_t i = 0; i + 1 < taps; i++) others[i] = added_by(task, i, row);
  const float *beside = task.beside == nullptr ? nullptr : task.beside + row * channels;
  float *sums = task.sums == nullptr ? nullptr : task.sums + row * channels;
  float *activated = task.activated == nullptr ? nullptr : task.activated + row * channels;
  size_t c = 0;
  for (; c + Floats::kWidth <= channels; c += Floats::kWidth) {
    Floats sum = Floats::load(last + c) + Floats::load(task.bias + c);
    for (size_t i = 0; i + 1 < taps; i++) sum = sum + Floats::load(others[i] + c);
    if (beside != nullptr) sum = sum + Floats::load(beside + c);
    if (sums != nullptr) sum.store(sums + c);
    if (activated != nullptr) elu(sum).store(activated + c);
  }
  const size_t rest = channels - c;
  if (rest == 0) return;
  Floats sum = load_some(last + c, rest) + load_some(task.bias + c, rest);
  for (size_t i = 0; i + 1 < taps; i++) sum = sum + load_some(others[i] + c, rest);
  if (beside != nullptr) sum = sum + load_some(beside + c, rest);
  if (sums != nullptr) store_some(sum, sums + c, rest);
  if (activated != nullptr) store_some(elu(sum), activated + c, rest);
}

template <size_t kTaps>
inline void run_rows(const TapsTask &task, size_t first, size_t end) {
  for (size_t row = first; row < end; row++) run_row<kTaps>(task, row);
}

void run_taps(const TapsTask &task, size_t first, size_t end) {
  switch (task.taps) {
    case 1: return run_rows<1>(task, first, end);
    case 2: return run_rows<2>(task, first, end);
    case 3: return run_rows<3>(task, first, end);
    default: return run_rows<0>(task, first, end);
  }
}

constexpr TapsKernels kTaps = {run_taps};

}  // namespace
}  // namespace kiku::KIKU_PROCESSOR
