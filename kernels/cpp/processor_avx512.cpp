// Kernels for x86-64 with AVX-512 and its VNNI: since 2019 (Intel) and 2022 (AMD).
#define KIKU_AVX512
#define KIKU_PROCESSOR avx512
#include "vectors.hpp"

#include "elu.inl"
#include "processor.hpp"
#include "search.inl"

namespace kiku {

namespace {
bool is_here() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
}
}  // namespace

extern const Processor kAvx512;
const Processor kAvx512 = {"avx512", is_here, {}, {}, avx512::kElu, avx512::kSearch};

}  // namespace kiku
