// Taps against sums in their order, bit for bit, and ELU against double arithmetic.
#include "check.hpp"

namespace check {
namespace {

struct Shape {
  size_t taps, dilation, channels, length;
  bool beside;
};

void fill(Guarded<float> &values, uint64_t seed, bool at_edges) {
  Chance chance(seed);
  for (size_t i = 0; i < values.size(); i++) values[i] = at_edges ? kEdges[chance.below(kNumEdges)] : 4 * chance.normal();
}

// What tap `i` adds to output `row`: a product of `behind` rows before, or what was remembered.
float added(const Shape &shape, const Guarded<float> &products, const Guarded<float> &past, size_t i, size_t row, size_t c) {
  size_t behind = (shape.taps - 1 - i) * shape.dilation, before = 0;
  if (row >= behind) return products[((row - behind) * shape.taps + i) * shape.channels + c];
  for (size_t k = 0; k < i; k++) before += (shape.taps - 1 - k) * shape.dilation;
  return past[(before + row) * shape.channels + c];
}

void compare(Outcome &outcome, const kiku::TapsKernels &kernels, const Shape &shape, bool at_edges) {
  size_t count = shape.length * shape.channels, rows = shape.taps * (shape.taps - 1) / 2 * shape.dilation;
  Guarded<float> products(count * shape.taps), bias(shape.channels), past(rows * shape.channels), beside(count);
  Guarded<float> sums(count), activated(count), alone(count);
  fill(products, count + shape.taps, at_edges), fill(bias, 2, at_edges), fill(past, 3, at_edges), fill(beside, 4, at_edges);
  kiku::TapsTask task = {products.data(), bias.data(), past.data(), shape.beside ? beside.data() : nullptr,
                         sums.data(), activated.data(), shape.taps, shape.dilation, shape.channels};
  kernels.run(task, 0, shape.length);
  task.sums = nullptr, task.activated = alone.data();
  for (size_t row = 0; row < shape.length; row++) kernels.run(task, row, row + 1);
  outcome.digest(sums.data(), count), outcome.digest(activated.data(), count);
  for (size_t i = 0; i < count; i++) {
    size_t row = i / shape.channels, c = i % shape.channels;
    float wanted = products[(row * shape.taps + shape.taps - 1) * shape.channels + c] + bias[c];
    for (size_t tap = 0; tap + 1 < shape.taps; tap++) wanted += added(shape, products, past, tap, row, c);
    if (shape.beside) wanted += beside[i];
    outcome.expect(same(sums[i], wanted), "%zu taps of %zu channels, number %zu: %a, wanted %a", shape.taps, shape.channels,
                   i, static_cast<double>(sums[i]), static_cast<double>(wanted));
    double exact = wanted > 0 ? wanted : std::expm1(static_cast<double>(wanted)), off = std::fabs(activated[i] - exact);
    bool near = std::isnan(wanted) ? std::isnan(activated[i]) : activated[i] == exact || off <= 3e-7 * std::fabs(exact) + 1e-45;
    outcome.expect(near, "ELU of %a: %a, wanted %a", static_cast<double>(wanted), static_cast<double>(activated[i]), exact);
    outcome.expect(same(activated[i], alone[i]), "ELU of %a: %a, alone %a", static_cast<double>(wanted),
                   static_cast<double>(activated[i]), static_cast<double>(alone[i]));
  }
}

}  // namespace

bool taps(const kiku::Processor &processor) {
  Outcome outcome(processor.name, "taps");
  for (size_t num_taps : {1, 2, 3, 4, 7})
    for (size_t dilation : {1, 2, 5})
      for (size_t channels : {1, 7, 8, 16, 17, 33})
        for (size_t length : {0, 1, 2, 9})
          for (bool at_edges : {false, true})
            compare(outcome, processor.taps, {num_taps, dilation, channels, length, (channels + length) % 2 == 0}, at_edges);
  // ELU of much that is below zero.
  Guarded<float> x(4001), none(1), y(4001);
  for (size_t i = 0; i < x.size(); i++) x[i] = 1.0f - static_cast<float>(i) * 0x1.7p-6f;  // 1 .. -89
  none[0] = 0;
  processor.taps.run({x.data(), none.data(), nullptr, nullptr, nullptr, y.data(), 1, 1, 1}, 0, x.size());
  outcome.digest(y.data(), y.size());
  for (size_t i = 0; i < x.size(); i++) {
    double exact = x[i] > 0 ? x[i] : std::expm1(static_cast<double>(x[i]));
    outcome.expect(std::fabs(y[i] - exact) <= 3e-7 * std::fabs(exact), "ELU of %a", static_cast<double>(x[i]));
  }
  return outcome.finish();
}

}  // namespace check
