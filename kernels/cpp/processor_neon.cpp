// Kernels for 64-bit ARM with its dot products of 8 bits: since 2018, and all of Apple's.
#define KIKU_NEON
#define KIKU_PROCESSOR neon
#include "vectors.hpp"

#include "attention.inl"
#include "embed.inl"
#include "processor.hpp"
#include "product.inl"
#include "search.inl"
#include "taps.inl"

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
const Processor kNeon = {
    .name = "neon",
    .is_here = is_here,
    .product = neon::kProduct,
    .attention = neon::kAttention,
    .search = neon::kSearch,
    .embed = neon::kEmbed,
    .taps = neon::kTaps,
};

}  // namespace kiku
