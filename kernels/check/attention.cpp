// Attention against double arithmetic; and rows alone against rows together, bit for bit.
#include <algorithm>

#include "check.hpp"

namespace check {
namespace {

double from_half(uint16_t half) {
  int exponent = half >> 10 & 31, fraction = half & 1023;
  double size = exponent == 0    ? std::ldexp(fraction, -24)
                : exponent == 31 ? (fraction == 0 ? HUGE_VAL : static_cast<double>(__builtin_nanf("")))
                                 : std::ldexp(1024 + fraction, exponent - 25);
  return half >> 15 != 0 ? -size : size;
}

// Number d of a ring's row.
double number(const float *row, size_t d, size_t) { return row[d]; }
double number(const uint16_t *row, size_t d, size_t) { return from_half(row[d]); }
double number(const int8_t *row, size_t d, size_t head_dim) {
  float scale;
  std::memcpy(&scale, row + head_dim, sizeof scale);
  return static_cast<double>(row[d]) * scale;
}

void fill(float *row, size_t head_dim, Chance &chance) {
  for (size_t d = 0; d < head_dim; d++) row[d] = chance.normal();
}
void fill(uint16_t *row, size_t head_dim, Chance &chance) {
  for (size_t d = 0; d < head_dim; d++) row[d] = static_cast<uint16_t>((chance.bits() & 0x83ff) | 0x3800);  // 0.5 .. 1
}
void fill(int8_t *row, size_t head_dim, Chance &chance) {
  float scale = 0.01f + 0.01f * static_cast<float>(chance.even());
  for (size_t d = 0; d < head_dim; d++) row[d] = static_cast<int8_t>(static_cast<int>(chance.below(255)) - 127);
  std::memcpy(row + head_dim, &scale, sizeof scale);
}

struct Setting {
  size_t head_dim, window, most_rows;
  int64_t start;  // the position of the first row
};

// The rows of a whole stream: query, key and value of each, and its rotation.
struct Sound {
  size_t num_rows, row_stride, part;
  Guarded<float> rows, cos, sin;

  Sound(const Setting &setting, size_t num_rows, size_t gap, uint64_t seed)
      : num_rows(num_rows), row_stride(3 * (setting.head_dim + gap)), part(setting.head_dim + gap),
        rows(num_rows * row_stride - gap), cos(num_rows * setting.head_dim / 2), sin(cos.size()) {
    Chance chance(seed);
    for (float &one : rows) one = 2 * chance.normal();
    for (size_t i = 0; i < cos.size(); i++) {
      double angle = chance.even() * 3.0;
      cos[i] = static_cast<float>(std::lround(std::cos(angle) * 4096)) / 4096;  // no matter whose cos it is
      sin[i] = static_cast<float>(std::lround(std::sin(angle) * 4096)) / 4096;
    }
  }
  float *row(size_t t, size_t which) { return rows.data() + t * row_stride + which * part; }
};

// One slot and head: its ring, and calls of the kernels.
template <class Number>
struct Slot {
  const kiku::AttentionKernels &kernels;
  Setting setting;
  size_t capacity;
  Guarded<Number> keys, values;

  Slot(const kiku::AttentionKernels &kernels, const Setting &setting, size_t more)
      : kernels(kernels), setting(setting), capacity(setting.window - 1 + setting.most_rows + more),
        keys(capacity * row_length()), values(keys.size()) {
    // What was there before the start, at its place in the ring; anything elsewhere.
    for (size_t back = 1; back <= capacity; back++) {
      Chance chance(back);
      int64_t position = setting.start + static_cast<int64_t>(capacity - back);
      fill(&keys[place(position)], setting.head_dim, chance);
      fill(&values[place(position)], setting.head_dim, chance);
    }
  }
  size_t row_length() const { return kiku::row_length<Number>(setting.head_dim); }
  size_t place(int64_t position) const {
    return static_cast<size_t>(position % static_cast<int64_t>(capacity)) * row_length();
  }
  double key(int64_t position, size_t d) { return number(&keys[place(position)], d, setting.head_dim); }
  double value(int64_t position, size_t d) { return number(&values[place(position)], d, setting.head_dim); }

  void run(Sound &sound, size_t first, size_t count, float *out, size_t out_stride) {
    int64_t position = setting.start + static_cast<int64_t>(first);
    size_t seen = std::min(setting.window - 1 + count, static_cast<size_t>(position) + count);
    Guarded<float> scratch(kernels.scratch_floats(count, seen, setting.head_dim));
    size_t half = setting.head_dim / 2;
    kiku::AttentionTask task{sound.row(first, 0), sound.row_stride, sound.part, count, position,
                             sound.cos.data() + first * half, sound.sin.data() + first * half, keys.data(), values.data(),
                             capacity, setting.window, setting.head_dim, out, out_stride, scratch.data()};
    (sizeof(Number) == 1 ? kernels.run_bytes : sizeof(Number) == 2 ? kernels.run_half : kernels.run)(task);
  }
};

// What of `x` [head_dim] comes out of the rotation.
std::vector<double> rotated(const float *x, const float *cos, const float *sin, size_t head_dim) {
  std::vector<double> y(head_dim);
  for (size_t i = 0; i < head_dim / 2; i++) {
    double even = x[2 * i], odd = x[2 * i + 1];
    y[2 * i] = even * cos[i] - odd * sin[i];
    y[2 * i + 1] = even * sin[i] + odd * cos[i];
  }
  return y;
}

bool near(double seen, double wanted, double relative, double absolute) {
  if (std::isnan(wanted) || std::isinf(wanted)) return std::isnan(wanted) ? std::isnan(seen) : seen == wanted;
  return std::fabs(seen - wanted) <= relative * std::fabs(wanted) + absolute;
}

// What a ring should hold of a row, as exactly as it can; gives how far from it int8 may be: half a step.
template <class Number>
double kept(std::vector<double> &row) {
  double greatest = 0;
  bool is_none = false;
  for (double &one : row) {
    if (std::isnan(one)) is_none = true;
    else if (sizeof(Number) < 4) one = std::max(-65504.0, std::min(65504.0, one));
    if (std::fabs(one) > greatest) greatest = std::fabs(one);
  }
  if (sizeof(Number) > 1) return 0;
  for (double &one : row) one = is_none ? static_cast<double>(__builtin_nanf("")) : one;
  return greatest / 254 * (1 + 1e-5);
}

// The ring's newest row: a key that was turned, and a value that was not.
template <class Number>
void compare_ring(Outcome &outcome, Slot<Number> &slot, Sound &sound, size_t t) {
  size_t dim = slot.setting.head_dim;
  int64_t position = slot.setting.start + static_cast<int64_t>(t);
  std::vector<double> key = rotated(sound.row(t, 1), &sound.cos[t * dim / 2], &sound.sin[t * dim / 2], dim);
  std::vector<double> value(sound.row(t, 2), sound.row(t, 2) + dim);
  double least_key = kept<Number>(key), least_value = kept<Number>(value);
  double relative = sizeof(Number) == 2 ? 0x1.01p-11 : sizeof(Number) == 1 ? 0 : 1e-6;
  for (size_t d = 0; d < dim; d++) {
    double seen = slot.key(position, d), seen_value = slot.value(position, d);
    outcome.expect(near(seen, key[d], relative, 2e-6 + least_key), "width %zu, key %zu: %g, wanted %g", dim, t, seen, key[d]);
    outcome.expect(near(seen_value, value[d], sizeof(Number) == 2 ? relative : 0, 0x1p-25 + least_value),
                   "width %zu, value %zu: %g, wanted %g", dim, t, seen_value, value[d]);
  }
}

// Row t over what the ring holds.
template <class Number>
std::vector<double> reference(Slot<Number> &slot, Sound &sound, size_t t) {
  size_t dim = slot.setting.head_dim;
  int64_t newest = slot.setting.start + static_cast<int64_t>(t);
  int64_t oldest = std::max<int64_t>(0, newest + 1 - static_cast<int64_t>(slot.setting.window));
  std::vector<double> query = rotated(sound.row(t, 0), &sound.cos[t * dim / 2], &sound.sin[t * dim / 2], dim);
  std::vector<double> scores, mix(dim);
  double greatest = -HUGE_VAL, total = 0;
  for (int64_t p = oldest; p <= newest; p++) {
    double score = 0;
    for (size_t d = 0; d < dim; d++) score += query[d] * slot.key(p, d);
    scores.push_back(score / std::sqrt(static_cast<double>(dim)));
    greatest = std::max(greatest, scores.back());
  }
  for (int64_t p = oldest; p <= newest; p++) {
    double weight = std::exp(scores[static_cast<size_t>(p - oldest)] - greatest);
    total += weight;
    for (size_t d = 0; d < dim; d++) mix[d] += weight * slot.value(p, d);
  }
  for (double &one : mix) one /= total;
  return mix;
}

// A stream in calls of several rows, in another ring row by row; both against double arithmetic.
template <class Number>
void compare(Outcome &outcome, const kiku::AttentionKernels &kernels, const Setting &setting, Sound &sound, uint64_t seed) {
  Slot<Number> together(kernels, setting, 0), alone(kernels, setting, 3);
  for (size_t back = 1; back < setting.window && static_cast<int64_t>(back) <= setting.start; back++)
    for (size_t d = 0; d < together.row_length(); d++) {  // the same past in both rings
      int64_t p = setting.start - static_cast<int64_t>(back);
      alone.keys[alone.place(p) + d] = together.keys[together.place(p) + d];
      alone.values[alone.place(p) + d] = together.values[together.place(p) + d];
    }
  Chance chance(seed);
  for (size_t first = 0; first < sound.num_rows;) {
    size_t count = std::min(1 + chance.below(setting.most_rows), sound.num_rows - first), stride = setting.head_dim + 3;
    Guarded<float> many((count - 1) * stride + setting.head_dim), one(setting.head_dim);
    together.run(sound, first, count, many.data(), stride);
    for (size_t i = 0; i < count; i++) {
      size_t t = first + i;
      alone.run(sound, t, 1, one.data(), 0);
      compare_ring(outcome, together, sound, t);
      compare_ring(outcome, alone, sound, t);
      std::vector<double> wanted = reference(alone, sound, t);
      outcome.digest(one.data(), one.size());
      for (size_t d = 0; d < setting.head_dim; d++) {
        float seen = many[i * stride + d];
        outcome.expect(near(seen, wanted[d], 2e-5, 2e-5), "width %zu, window %zu, position %lld, number %zu: %g, wanted %g",
                       setting.head_dim, setting.window, static_cast<long long>(setting.start) + static_cast<long long>(t), d,
                       static_cast<double>(seen), wanted[d]);
        outcome.expect(same(seen, one[d]), "width %zu, window %zu, row %zu in %zu from %zu: %a, alone %a", setting.head_dim,
                       setting.window, t, count, first, static_cast<double>(seen), static_cast<double>(one[d]));
      }
    }
    first += count;
  }
}

template <class Number>
void all_settings(Outcome &outcome, const kiku::AttentionKernels &kernels) {
  uint64_t seed = 0;
  for (size_t head_dim : {2, 4, 6, 8, 10, 16, 18, 24, 32, 34, 64, 80, 128, 256})
    for (size_t window : {1, 2, 3, 15, 16, 17, 33, 70}) {
      bool is_long = ++seed % 4 == 0;
      Setting setting{head_dim, window, 1 + seed % 9, is_long ? (int64_t{1} << 40) + 5 : 0};
      Sound sound(setting, std::min<size_t>(2 * window + 11, 60), seed % 3, seed);
      compare<Number>(outcome, kernels, setting, sound, seed);
    }
}

// Numbers that are none, and infinities, stay with the rows that see them.
template <class Number>
void no_numbers(Outcome &outcome, const kiku::AttentionKernels &kernels) {
  for (size_t which = 0; which < 3; which++)
    for (size_t head_dim : {16, 20, 64})
      for (size_t bad = 0; bad < 12; bad += 3) {
        Setting setting{head_dim, 5, 6, 0};
        Sound sound(setting, 25, 0, 99 + bad);
        sound.row(bad, which)[bad % head_dim] = bad % 2 == 0 || which < 2 ? __builtin_nanf("") : __builtin_inff();
        sound.row(bad + 7, 2)[1] = 1e-40f;
        sound.row(bad + 8, 2)[2] = -1e30f;
        compare<Number>(outcome, kernels, setting, sound, bad);
      }
}

}  // namespace

bool attention(const kiku::Processor &processor) {
  if (processor.attention.run == nullptr) return true;
  Outcome whole(processor.name, "attention"), half(processor.name, "attention-half"), bytes(processor.name, "attention-bytes");
  all_settings<float>(whole, processor.attention);
  no_numbers<float>(whole, processor.attention);
  all_settings<uint16_t>(half, processor.attention);
  no_numbers<uint16_t>(half, processor.attention);
  all_settings<int8_t>(bytes, processor.attention);
  no_numbers<int8_t>(bytes, processor.attention);
  return static_cast<int>(whole.finish()) + static_cast<int>(half.finish()) + static_cast<int>(bytes.finish()) == 3;
}

}  // namespace check
