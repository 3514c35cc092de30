// Embed against sums of its fused multiply-adds in the order of the ids: bit for bit.
#include "check.hpp"

namespace check {
namespace {

void compare(Outcome &outcome, const kiku::EmbedKernels &kernels, size_t count, size_t width, size_t num_rows,
             bool at_edges) {
  Chance chance(count * 1009 + width);
  Guarded<uint8_t> table(num_rows * width);
  Guarded<float> scales(num_rows), sums(width);
  Guarded<int64_t> ids(count);
  for (uint8_t &one : table) one = static_cast<uint8_t>(chance.below(256));
  for (size_t i = 0; i < num_rows; i++) scales[i] = at_edges ? kEdges[i % kNumEdges] : chance.normal();
  for (size_t i = 0; i < count; i++) ids[i] = static_cast<int64_t>(chance.below(num_rows));
  if (count > 0) ids[count - 1] = static_cast<int64_t>(num_rows) - 1;  // ends with the table
  kernels.sum(ids.data(), count, table.data(), scales.data(), width, sums.data());
  outcome.digest(sums.data(), width);
  for (size_t d = 0; d < width; d++) {
    float wanted = 0;
    for (size_t i = 0; i < count; i++) {
      size_t row = static_cast<size_t>(ids[i]);
      wanted = std::fmaf(static_cast<float>(table[row * width + d] - 128), scales[row], wanted);
    }
    outcome.expect(same(sums[d], wanted), "%zu rows of %zu, number %zu: %a, wanted %a", count, width, d,
                   static_cast<double>(sums[d]), static_cast<double>(wanted));
  }
}

}  // namespace

bool embed(const kiku::Processor &processor) {
  if (processor.embed.sum == nullptr) return true;
  Outcome outcome(processor.name, "embed");
  for (size_t width = 1; width <= 200; width += width < 70 ? 1 : 13)
    for (size_t count : {0, 1, 2, 33}) {
      compare(outcome, processor.embed, count, width, 40, false);
      compare(outcome, processor.embed, count, width, kNumEdges, true);
    }
  return outcome.finish();
}

}  // namespace check
