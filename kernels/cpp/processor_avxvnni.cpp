// Kernels for x86-64 with AVX2 and AVX-VNNI, which is VNNI without AVX-512: Intel's since 2021.
#define KIKU_AVX2
#define KIKU_AVXVNNI
#define KIKU_PROCESSOR avxvnni
#include "vectors.hpp"

#include <cpuid.h>

#include "elu.inl"
#include "processor.hpp"
#include "product.inl"

namespace kiku {

namespace {
bool is_here() {
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("f16c")) return false;
  // Compilers of before 2023 have no name for it: leaf 7, of its second part bit 4 of eax.
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) || eax < 1) return false;
  return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax & (1u << 4)) != 0;
}
}  // namespace

extern const Processor kAvxVnni;
const Processor kAvxVnni = {"avxvnni", is_here, avxvnni::kProduct, {}, avxvnni::kElu, {}};

}  // namespace kiku
