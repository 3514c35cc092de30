// Kernels for x86-64 with AVX2 and AVX-VNNI, which is VNNI without AVX-512: Intel's since 2021.
#define KIKU_AVX2
#define KIKU_AVXVNNI
#define KIKU_PROCESSOR avxvnni
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
  return instructions().avx_vnni;
}
}  // namespace

extern const Processor kAvxVnni;
const Processor kAvxVnni = {
    .name = "avxvnni",
    .is_here = is_here,
    .product = avxvnni::kProduct,
    .attention = avxvnni::kAttention,
    .search = avxvnni::kSearch,
    .embed = avxvnni::kEmbed,
    .taps = avxvnni::kTaps,
};

}  // namespace kiku
