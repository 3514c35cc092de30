// What an x86-64 processor can do, and the system lets it do. Asked of the processor itself: what
// compilers offer for it needs a start-up of their own runtime, which is not always linked.
#pragma once

#include <cpuid.h>

#include <cstdint>

namespace kiku {
namespace {  // each file its own: the linker must not keep one that needs what it asks for

struct Instructions {
  bool avx2 = false;         // with FMA and F16C
  bool avx_vnni = false;     // 8-bit dot products on 256 bits
  bool avx512_vnni = false;  // with F, BW, VL and DQ
};

inline Instructions instructions() {
  Instructions found;
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return found;
  const bool fma = c >> 12 & 1, osxsave = c >> 27 & 1, avx = c >> 28 & 1, f16c = c >> 29 & 1;
  if (!osxsave || !avx) return found;
  uint32_t low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  const bool ymm = (low & 0x06) == 0x06;  // the system keeps these registers for each thread
  const bool zmm = (low & 0xe6) == 0xe6;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return found;
  const unsigned leaves = a;
  found.avx2 = ymm && fma && f16c && (b >> 5 & 1);
  const bool f = b >> 16 & 1, dq = b >> 17 & 1, bw = b >> 30 & 1, vl = b >> 31 & 1, vnni = c >> 11 & 1;
  found.avx512_vnni = found.avx2 && zmm && f && dq && bw && vl && vnni;
  if (leaves >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) found.avx_vnni = found.avx2 && (a >> 4 & 1);
  return found;
}

}  // namespace
}  // namespace kiku
