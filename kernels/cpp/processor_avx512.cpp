// Kernels for x86-64 with AVX-512 and its VNNI: since 2019 (Intel) and 2022 (AMD).
#define KIKU_AVX512
#define KIKU_PROCESSOR avx512
#include "vectors.hpp"

#include "elu.inl"
#include "embed.inl"
#include "instructions_x86.hpp"
#include "processor.hpp"
#include "product.inl"

namespace kiku {

namespace {
bool is_here() {
  return instructions().avx512_vnni;
}
}  // namespace

extern const Processor kAvx512;
const Processor kAvx512 = {"avx512", is_here, avx512::kProduct, {}, avx512::kElu, {}, avx512::kEmbed};

}  // namespace kiku
