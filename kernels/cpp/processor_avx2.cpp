// Kernels for x86-64 with AVX2, FMA and F16C: since 2013 (Intel) and 2015 (AMD).
#define KIKU_AVX2
#define KIKU_PROCESSOR avx2
#include "vectors.hpp"

#include "elu.inl"
#include "embed.inl"
#include "instructions_x86.hpp"
#include "processor.hpp"
#include "product.inl"

namespace kiku {

namespace {
bool is_here() {
  return instructions().avx2;
}
}  // namespace

extern const Processor kAvx2;
const Processor kAvx2 = {"avx2", is_here, avx2::kProduct, {}, avx2::kElu, {}, avx2::kEmbed};

}  // namespace kiku
