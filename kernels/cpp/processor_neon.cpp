// Kernels for 64-bit ARM with its dot products of 8 bits: since 2018, and all of Apple's.
#define KIKU_NEON
#define KIKU_PROCESSOR neon
#include "vectors.hpp"

#include "elu.inl"
#include "processor.hpp"
#include "search.inl"

#if defined(__linux__)
#include <sys/auxv.h>
#endif

namespace kiku {

namespace {
bool is_here() {
#if defined(__linux__)
  constexpr unsigned long kDotProducts = 1ul << 20;  // HWCAP_ASIMDDP
  return (getauxval(AT_HWCAP) & kDotProducts) != 0;
#else
  return true;  // every Mac of Apple's own processors has them
#endif
}
}  // namespace

extern const Processor kNeon;
const Processor kNeon = {"neon", is_here, {}, {}, neon::kElu, neon::kSearch};

}  // namespace kiku
