// Kernels for x86-64 with AVX2, FMA and F16C: since 2013 (Intel) and 2015 (AMD).
#define KIKU_AVX2
#define KIKU_PROCESSOR avx2
#include "vectors.hpp"

#include "attention.inl"
#include "embed.inl"
#include "instructions_x86.hpp"
#include "processor.hpp"
#include "product.inl"
#include "search.inl"
#include "taps.inl"

namespace kiku {

namespace {
bool is_here() {
  return instructions().avx2;
}
}  // namespace

extern const Processor kAvx2;
const Processor kAvx2 = {
    .name = "avx2",
    .is_here = is_here,
    .product = avx2::kProduct,
    .attention = avx2::kAttention,
    .search = avx2::kSearch,
    .embed = avx2::kEmbed,
    .taps = avx2::kTaps,
};

}  // namespace kiku
