// Search against a look at every code in double and in float32, and the bounds of its first pass.
#include "check.hpp"

namespace check {
namespace {

constexpr size_t kSums = 16;

// As search.hpp wants them: 8 bits, and how wrong a score is that is computed from them.
struct Book {
  Book(size_t num_codes, size_t dim, uint64_t seed, float size)
      : num_codes(num_codes), dim(dim), filled((num_codes + 15) / 16 * 16), width((dim + 63) / 64 * 64),
        codes(num_codes * dim), coarse(filled * width), table(kiku::kSearchColumns * filled) {
    Chance chance(seed);
    for (float &one : codes) one = size * chance.normal();
    for (size_t d = 0; d < dim; d++) codes[(num_codes / 2) * dim + d] = codes[d];  // two that are equal
    std::memset(coarse.data(), 0, coarse.size());
    for (size_t i = 0; i < table.size(); i++) table[i] = 0;
    for (size_t code = 0; code < filled; code++) column(kiku::kHalfNorm, code) = __builtin_inff();
    for (size_t code = 0; code < num_codes; code++) round(code);
  }

  float &column(kiku::SearchColumn which, size_t code) { return table[which * filled + code]; }

  void round(size_t code) {
    const float *c = codes.data() + code * dim;
    double most = 0, square = 0, error = 0, rounded = 0;
    for (size_t d = 0; d < dim; d++) most = std::fmax(most, std::fabs(c[d])), square += double{c[d]} * c[d];
    float scale = static_cast<float>(most / 127);
    for (size_t d = 0; d < dim; d++) {
      double step = scale > 0 ? std::fmax(-127, std::fmin(127, std::nearbyint(c[d] / scale))) : 0, stands_for = step * scale;
      coarse[code * width + d] = static_cast<int8_t>(step);
      error += (c[d] - stands_for) * (c[d] - stands_for), rounded += stands_for * stands_for;
    }
    double inexact = static_cast<double>(dim + 32) * 0x1p-24, longer = std::sqrt(std::fmax(square, rounded));
    column(kiku::kScale, code) = scale, column(kiku::kHalfNorm, code) = static_cast<float>(square / 2);
    column(kiku::kOfLength, code) = static_cast<float>(1.001 * (std::sqrt(error) + inexact * longer));
    column(kiku::kOfRest, code) = static_cast<float>(1.001 * longer);
    column(kiku::kAlways, code) = static_cast<float>(1.001 * (inexact * square / 2 + 1e-34));
  }

  size_t num_codes, dim, filled, width;
  Guarded<float> codes;
  Guarded<int8_t> coarse;
  Guarded<float> table;
};

// In float32 as it is said: number d goes into sum d mod 16, and these are added half upon half.
float score_of(const float *x, const float *code, size_t dim, float half_norm) {
  float sums[kSums] = {};
  for (size_t d = 0; d < dim; d++) sums[d % kSums] = std::fmaf(x[d], code[d], sums[d % kSums]);
  for (size_t half = kSums / 2; half > 0; half /= 2)
    for (size_t i = 0; i < half; i++) sums[i] += sums[i + half];
  return sums[0] - half_norm;
}

void compare(Outcome &outcome, const kiku::SearchKernels &kernels, Book &book, uint64_t seed, float size) {
  constexpr size_t kRows = 3;
  Guarded<float> x(kRows * book.width), highest(kRows * book.filled), least(kRows);
  Guarded<int8_t> rounded(kRows * book.width);
  kiku::SearchRow rows[kRows];
  Chance chance(seed);
  for (float &one : x) one = 0;
  for (size_t r = 0; r < kRows; r++) {
    for (size_t d = 0; d < book.dim; d++) x[r * book.width + d] = size * chance.normal();
    if (r == 1) std::memcpy(&x[r * book.width], book.codes.data(), book.dim * sizeof(float));  // upon a code
    rows[r] = {&x[r * book.width], &rounded[r * book.width], &highest[r * book.filled], 0, 0, 0, 0, false};
    kernels.round(rows[r], book.width);
  }
  kiku::SearchBook given = {book.codes.data(), book.coarse.data(), book.table.data(), book.num_codes, book.filled, book.dim, book.width};
  kernels.coarse(rows, kRows, given, 0, book.filled, least.data(), 1);
  for (size_t r = 0; r < kRows; r++) {
    const float *row = &x[r * book.width];
    size_t best = 0;
    float greatest = -__builtin_inff();
    double top = -__builtin_inf();
    for (size_t code = 0; code < book.num_codes; code++) {
      const float *c = book.codes.data() + code * book.dim;
      double exact = -double{book.column(kiku::kHalfNorm, code)};
      for (size_t d = 0; d < book.dim; d++) exact += double{row[d]} * c[d];
      top = std::fmax(top, exact);
      if (!rows[r].is_exact)
        outcome.expect(highest[r * book.filled + code] >= exact, "code %zu of %zu: %a at most, is %a", code, book.num_codes,
                       static_cast<double>(highest[r * book.filled + code]), exact);
      float score = score_of(row, c, book.dim, book.column(kiku::kHalfNorm, code));
      if (score > greatest) greatest = score, best = code;
    }
    if (!rows[r].is_exact) {
      outcome.expect(least[r] <= top, "the best has %a at least, is %a", static_cast<double>(least[r]), top);
      outcome.digest(&highest[r * book.filled], book.filled), outcome.digest(&least[r], 1);
      int32_t sum = 0;
      for (size_t d = 0; d < book.width; d++) sum += rounded[r * book.width + d];
      outcome.expect(rows[r].sum == sum, "a sum of %d, is %d", rows[r].sum, sum);
    }
    size_t found = kernels.best(rows[r], given, least[r]);
    outcome.digest(static_cast<uint32_t>(found));
    outcome.expect(found == best, "code %zu of %zu, wanted %zu", found, book.num_codes, best);
  }
}

}  // namespace

bool search(const kiku::Processor &processor) {
  Outcome outcome(processor.name, "search");
  for (size_t num_codes : {2, 15, 16, 17, 100})
    for (size_t dim : {1, 7, 16, 63, 64, 65, 128, 200})
      for (float size : {1e-3f, 1.0f, 300.0f}) {
        Book book(num_codes, dim, num_codes * 1009 + dim, size);
        for (uint64_t seed = 0; seed < 8; seed++) compare(outcome, processor.search, book, seed + 1, size);
        compare(outcome, processor.search, book, 99, 1e-20f), compare(outcome, processor.search, book, 98, 1e20f);
      }
  return outcome.finish();
}

}  // namespace check
