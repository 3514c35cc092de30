// Kernels for x86-64 with AVX2, FMA and F16C: since 2013 (Intel) and 2015 (AMD).
#define KIKU_AVX2
#define KIKU_PROCESSOR avx2
#include "vectors.hpp"

#include "elu.inl"
#include "processor.hpp"
#include "search.inl"

namespace kiku {

namespace {
bool is_here() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}
}  // namespace

extern const Processor kAvx2;
const Processor kAvx2 = {"avx2", is_here, {}, {}, avx2::kElu, avx2::kSearch};

}  // namespace kiku
