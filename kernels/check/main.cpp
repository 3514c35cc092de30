// Checks the kernels of every processor that this machine is.
//
//     check [--anyway] [NAME ...]
//
// prints a line for each kernel of each processor (or of those named): its digest, how much was
// compared and how much was wrong. It ends with 0 where nothing was wrong, and anything was compared.
// With --anyway the machine is not asked for its instructions: for builds in which other ones stand in
// for those that it has not.

#include "check.hpp"

// Those that were not linked in have no address.
namespace kiku {
extern const Processor kAvx512 __attribute__((weak));
extern const Processor kAvxVnni __attribute__((weak));
extern const Processor kAvx2 __attribute__((weak));
extern const Processor kNeon __attribute__((weak));
}  // namespace kiku

namespace {

bool is_named(const char *name, int count, char **names) {
  for (int i = 0; i < count; i++)
    if (std::strcmp(names[i], name) == 0) return true;
  return count == 0;
}

bool check_all(const kiku::Processor &processor) {
  bool good = true;
  for (auto kernel : {check::taps, check::embed, check::product, check::attention, check::search}) good = kernel(processor) && good;
  return good;
}

}  // namespace

int main(int count, char **names) {
  const kiku::Processor *const processors[] = {&kiku::kAvx512, &kiku::kAvxVnni, &kiku::kAvx2, &kiku::kNeon};
  bool anyway = count > 1 && std::strcmp(names[1], "--anyway") == 0;
  int first = anyway ? 2 : 1, checked = 0, wrong = 0;
  for (const kiku::Processor *one : processors) {
    if (one == nullptr || !is_named(one->name, count - first, names + first)) continue;
    if (!anyway && !one->is_here()) {
      std::printf("%s is not this machine\n", one->name);
      continue;
    }
    checked++;
    if (!check_all(*one)) wrong++;
  }
  std::printf("%d checked, %d wrong\n", checked, wrong);
  return checked > 0 && wrong == 0 ? 0 : 1;
}
