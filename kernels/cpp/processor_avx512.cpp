// Kernels for x86-64 with AVX-512 and its VNNI: since 2019 (Intel) and 2022 (AMD).
#define KIKU_AVX512
#define KIKU_PROCESSOR avx512
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
  return instructions().avx512_vnni;
}
}  // namespace

extern const Processor kAvx512;
const Processor kAvx512 = {
    .name = "avx512",
    .is_here = is_here,
    .product = avx512::kProduct,
    .attention = avx512::kAttention,
    .search = avx512::kSearch,
    .embed = avx512::kEmbed,
    .taps = avx512::kTaps,
};

}  // namespace kiku
