// The operator Search: rows -> their codes in a chain of codebooks, each of which takes the nearest to
// what the ones before it left.
//
// Inputs: x float32 [R, D]; books float32 [n, C, D]; coarse int8 [n, C', W]; table float32 [n, 5, C'],
// as search.hpp says. Output: codes int64 [R, n].
#pragma once

#include <cstring>

#include "ort.hpp"
#include "processor.hpp"

namespace kiku {

struct SearchOp {
  static constexpr const char *kName = "Search";
  static constexpr ort::Type kInputs[] = {ort::Type::kFloat, ort::Type::kFloat, ort::Type::kInt8, ort::Type::kFloat};
  static constexpr ort::Type kOutputs[] = {ort::Type::kInt64};
  // From so many rows on, each thread takes some and reads all books; with fewer, each reads a part of
  // every book.
  static constexpr size_t kMany = 16;
  static constexpr size_t kRowsOfPart = 8;
  static constexpr size_t kCodesOfPart = 512;  // some microseconds

  explicit SearchOp(ort::Node &) {}

  void run(ort::Call &call) const {
    ort::Tensor x = call.input(0), books = call.input(1), coarse = call.input(2), table = call.input(3);
    if (!call.require(x.num_axes == 2 && x.type == ort::Type::kFloat, "x must be float32 [R, D]") ||
        !call.require(books.num_axes == 3 && books.type == ort::Type::kFloat && books.axes[2] == x.axes[1],
                      "the books must be float32 [n, C, D]") ||
        !call.require(0 < x.axes[1] && x.axes[1] <= 2048 && 0 < books.axes[1] && books.axes[1] < 1 << 24,
                      "codes must have 1 to 2048 numbers, and a book at least one code"))
      return;
    Shape s = {static_cast<size_t>(x.axes[0]), static_cast<size_t>(books.axes[0]), static_cast<size_t>(books.axes[1]), static_cast<size_t>(x.axes[1])};
    if (!call.require(coarse.num_axes == 3 && coarse.type == ort::Type::kInt8 && coarse.axes[0] == books.axes[0] &&
                          coarse.axes[1] == static_cast<int64_t>(s.num_filled()) && coarse.axes[2] == static_cast<int64_t>(s.width()),
                      "coarse must be int8 [n, C up to a multiple of 16, D up to one of 64]") ||
        !call.require(table.num_axes == 3 && table.type == ort::Type::kFloat && table.axes[0] == books.axes[0] &&
                          table.axes[1] == kSearchColumns && table.axes[2] == coarse.axes[1],
                      "the table must be float32 [n, 5, C up to a multiple of 16]"))
      return;
    int64_t axes[] = {x.axes[0], books.axes[0]};
    ort::Tensor out = call.output(0, axes, 2);
    if (call.failed() || s.rows == 0) return;
    Chain chain = {s, books.data<float>(), coarse.data<int8_t>(), table.data<float>(), x.data<float>(), out.data<int64_t>()};
    if (s.rows < kMany)
      chain.by_codes(call);
    else
      chain.by_rows(call);
  }

 private:
  struct Shape {
    size_t rows, num_books, num_codes, dim;
    size_t num_filled() const { return (num_codes + kCodesAtOnce - 1) / kCodesAtOnce * kCodesAtOnce; }
    size_t width() const { return (dim + kSearchWidth - 1) / kSearchWidth * kSearchWidth; }
    size_t num_parts() const { return (num_filled() + kCodesOfPart - 1) / kCodesOfPart; }
    // Of one row: what is left of it, its bounds, its numbers in 8 bits, and what each part has at least.
    size_t bytes_of_row() const { return (width() + num_filled() + num_parts()) * sizeof(float) + width(); }
  };

  struct Chain {
    Shape shape;
    const float *books;
    const int8_t *coarse;
    const float *tables;
    const float *x;
    int64_t *out;

    SearchBook book(size_t number) const {
      size_t filled = shape.num_filled(), width = shape.width();
      return {books + number * shape.num_codes * shape.dim, coarse + number * filled * width,
              tables + number * kSearchColumns * filled, shape.num_codes, filled, shape.dim, width};
    }

    // Rows `first` and the following, in memory of bytes_of_row() each.
    void begin(SearchRow *rows, float **least, size_t first, size_t count, void *memory) const {
      size_t width = shape.width();
      float *floats = static_cast<float *>(memory);
      int8_t *numbers = reinterpret_cast<int8_t *>(floats + count * (width + shape.num_filled() + shape.num_parts()));
      for (size_t r = 0; r < count; r++) {
        SearchRow row = {floats, numbers + r * width, floats + width, 0, 0, 0, 0, false};
        std::memcpy(row.x, x + (first + r) * shape.dim, shape.dim * sizeof(float));
        std::memset(row.x + shape.dim, 0, (width - shape.dim) * sizeof(float));
        rows[r] = row;
        floats += width + shape.num_filled();
      }
      *least = floats;
    }

    // The second pass, and what is left for the next book.
    void take(SearchRow &row, const SearchBook &book, float least, size_t number, int64_t *code) const {
      const SearchKernels &kernels = processor()->search;
      size_t best = kernels.best(row, book, least);
      code[number] = static_cast<int64_t>(best);
      if (number + 1 < shape.num_books) kernels.subtract(row.x, book.codes + best * shape.dim, shape.dim);
    }

    void by_codes(ort::Call &call) const {
      const SearchKernels &kernels = processor()->search;
      ort::Scratch memory(shape.rows * shape.bytes_of_row());
      if (!call.require(memory.data() != nullptr, "no memory")) return;
      SearchRow rows[kMany];
      float *least;
      size_t parts = shape.num_parts();
      begin(rows, &least, 0, shape.rows, memory.data());
      for (size_t number = 0; number < shape.num_books && !call.failed(); number++) {
        SearchBook one = book(number);
        for (size_t r = 0; r < shape.rows; r++) kernels.round(rows[r], one.width);
        call.parallel(parts, [&](size_t part) {
          size_t first = part * kCodesOfPart, last = first + kCodesOfPart;
          kernels.coarse(rows, shape.rows, one, first, last < one.num_filled ? last : one.num_filled, least + part, parts);
        });
        for (size_t r = 0; r < shape.rows; r++) {
          float most = least[r * parts];
          for (size_t part = 1; part < parts; part++) most = least[r * parts + part] > most ? least[r * parts + part] : most;
          take(rows[r], one, most, number, out + r * shape.num_books);
        }
      }
    }

    void by_rows(ort::Call &call) const {
      size_t parts = (shape.rows + kRowsOfPart - 1) / kRowsOfPart, bytes = kRowsOfPart * shape.bytes_of_row();
      ort::Scratch memory(parts * bytes);
      if (!call.require(memory.data() != nullptr, "no memory")) return;
      call.parallel(parts, [&](size_t part) {
        const SearchKernels &kernels = processor()->search;
        size_t first = part * kRowsOfPart, count = shape.rows - first < kRowsOfPart ? shape.rows - first : kRowsOfPart;
        SearchRow rows[kRowsOfPart];
        float *least;
        begin(rows, &least, first, count, static_cast<char *>(memory.data()) + part * bytes);
        for (size_t number = 0; number < shape.num_books; number++) {
          SearchBook one = book(number);
          for (size_t r = 0; r < count; r++) kernels.round(rows[r], one.width);
          kernels.coarse(rows, count, one, 0, one.num_filled, least, 1);
          for (size_t r = 0; r < count; r++) take(rows[r], one, least[r], number, out + (first + r) * shape.num_books);
        }
      });
    }
  };
};

}  // namespace kiku
