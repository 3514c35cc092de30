// Elu against double arithmetic.
#include "check.hpp"

namespace check {
namespace {

void compare(Outcome &outcome, const kiku::EluKernels &kernels, const Guarded<float> &x) {
  Guarded<float> y(x.size()), alone(1), one(1);
  kernels.run(x.data(), y.data(), x.size());
  outcome.digest(y.data(), y.size());
  for (size_t i = 0; i < x.size(); i++) {
    double wanted = x[i] > 0 ? x[i] : std::expm1(static_cast<double>(x[i]));
    double off = std::fabs(y[i] - wanted);
    bool near = std::isnan(x[i]) ? std::isnan(y[i]) : y[i] == wanted || off <= 3e-7 * std::fabs(wanted) + 1e-45;
    outcome.expect(near, "of %a (%zu of %zu): %a, wanted %a", x[i], i, x.size(), y[i], wanted);
    one[0] = x[i];
    kernels.run(one.data(), alone.data(), 1);
    outcome.expect(same(y[i], alone[0]), "of %a (%zu of %zu): %a, alone %a", x[i], i, x.size(), y[i], alone[0]);
  }
}

}  // namespace

bool elu(const kiku::Processor &processor) {
  Outcome outcome(processor.name, "elu");
  for (size_t count = 0; count <= 70; count++) {
    Chance chance(count);
    Guarded<float> x(count);
    for (float &one : x) one = 4 * chance.normal();
    compare(outcome, processor.elu, x);
  }
  for (size_t shift = 0; shift < 17; shift++) {
    Guarded<float> x(shift + kNumEdges);
    for (size_t i = 0; i < x.size(); i++) x[i] = kEdges[(i + shift) % kNumEdges];
    compare(outcome, processor.elu, x);
  }
  Guarded<float> all(4001);
  for (size_t i = 0; i < all.size(); i++) all[i] = 1.0f - static_cast<float>(i) * 0x1.7p-6f;  // 1 .. -89
  compare(outcome, processor.elu, all);
  return outcome.finish();
}

}  // namespace check
