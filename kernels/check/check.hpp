// What the checks of all kernels share: numbers by chance that are the same everywhere, memory that
// ends where a page ends, a digest of results, and the count of what was wrong.
//
// This program knows nothing of ONNX Runtime, and every kernel's reference in it is written anew from
// what the kernel's header says. So it runs wherever a processor, or something that plays one, does.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <bit>
#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "../cpp/processor.hpp"

namespace check {

// Numbers by chance (splitmix64), without the C library, whose functions differ between systems.
class Chance {
 public:
  explicit Chance(uint64_t seed) : state_(seed) {}
  uint64_t bits() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  size_t below(size_t n) { return static_cast<size_t>(bits() % n); }
  // In -1 .. 1.
  float even() { return static_cast<float>(static_cast<int64_t>(bits() >> 40) - (int64_t{1} << 23)) * 0x1p-23f; }
  // Bell-shaped, about 1 wide.
  float normal() {
    float sum = even() + even();
    sum += even();
    return sum;
  }

 private:
  uint64_t state_;
};

// An array that ends where a page ends that nobody may touch: reading or writing behind it ends the
// program. Before it lies a margin that must stay as it was.
template <class T>
class Guarded {
 public:
  explicit Guarded(size_t count) : count_(count) {
    size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    size_t bytes = count * sizeof(T);
    size_t pages = (bytes + kMargin + page - 1) / page;
    whole_ = (pages + 1) * page;
    void *block = mmap(nullptr, whole_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (block == MAP_FAILED) std::abort();
    block_ = static_cast<uint8_t *>(block);
    if (mprotect(block_ + pages * page, page, PROT_NONE) != 0) std::abort();
    first_ = block_ + pages * page - bytes;
    std::memset(block_, kFill, pages * page);
  }
  ~Guarded() {
    for (const uint8_t *p = first_ - kMargin; p < first_; p++)
      if (*p != kFill) {
        std::fprintf(stderr, "memory before an array was written to\n");
        std::abort();
      }
    munmap(block_, whole_);
  }
  Guarded(const Guarded &) = delete;
  Guarded &operator=(const Guarded &) = delete;

  T *data() { return reinterpret_cast<T *>(first_); }
  const T *data() const { return reinterpret_cast<const T *>(first_); }
  size_t size() const { return count_; }
  T &operator[](size_t i) { return data()[i]; }
  const T &operator[](size_t i) const { return data()[i]; }
  T *begin() { return data(); }
  T *end() { return data() + count_; }

 private:
  static constexpr size_t kMargin = 256;
  static constexpr uint8_t kFill = 0xa5;
  size_t count_, whole_;
  uint8_t *block_, *first_;
};

// Float32 numbers that are at some edge.
constexpr float kEdges[] = {
    0.0f, -0.0f, 1e-45f, -1e-45f, 1e-40f, -1e-40f, 0x1p-126f, -0x1p-126f, 1e-20f, -1e-20f, -1e-7f, 0.5f, -0.5f,
    1.0f, -1.0f, -86.9f, -87.0f, -87.5f, -88.0f, -1000.0f, 65504.0f, 65520.0f, 3e38f, -3e38f,
    __builtin_inff(), -__builtin_inff(), __builtin_nanf(""),
};
constexpr size_t kNumEdges = sizeof kEdges / sizeof kEdges[0];

// Bit for bit the same. What no number is has many bits, which processors choose differently.
inline bool same(float a, float b) {
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b) || (std::isnan(a) && std::isnan(b));
}

// Of one kernel of one processor: what was compared, what was wrong, and a digest of all its results
// (FNV-1a): processors with the same digest give the same results bit for bit.
class Outcome {
 public:
  Outcome(const char *processor, const char *kernel) : processor_(processor), kernel_(kernel) {}

  void digest(const float *values, size_t count) {
    for (size_t i = 0; i < count; i++) digest(std::isnan(values[i]) ? 0x7fc00000u : std::bit_cast<uint32_t>(values[i]));
  }
  void digest(uint32_t value) {
    for (int shift = 0; shift < 32; shift += 8) digest_ = (digest_ ^ ((value >> shift) & 255)) * 0x100000001b3u;
  }

  // Counts one comparison; says what was wrong, of the first few faults.
  __attribute__((format(printf, 3, 4))) void expect(bool holds, const char *format, ...) {
    num_compared_++;
    if (holds || ++num_faults_ > 5) return;
    std::printf("%s %s: ", processor_, kernel_);
    va_list arguments;
    va_start(arguments, format);
    std::vprintf(format, arguments);
    va_end(arguments);
    std::printf("\n");
  }

  // Prints the digest; false where anything was wrong.
  bool finish() const {
    std::printf("%s %s %016llx %zu compared, %zu wrong\n", processor_, kernel_,
                static_cast<unsigned long long>(digest_), num_compared_, num_faults_);
    std::fflush(stdout);
    return num_faults_ == 0 && num_compared_ > 0;
  }

 private:
  const char *processor_, *kernel_;
  uint64_t digest_ = 0xcbf29ce484222325u;
  size_t num_compared_ = 0, num_faults_ = 0;
};

// Each calls the kernels, compares, and prints its line; false where anything was wrong.
bool taps(const kiku::Processor &processor);
bool product(const kiku::Processor &processor);
bool attention(const kiku::Processor &processor);
bool embed(const kiku::Processor &processor);
bool search(const kiku::Processor &processor);

}  // namespace check
