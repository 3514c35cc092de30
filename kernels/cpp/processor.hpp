// Which processor this is, and the kernels that were built for it.
//
// Every processor has one source file, `processor_NAME.cpp`, which includes the same kernels with
// that processor's vectors and is built with its instructions. It fills one table.
#pragma once

#include "attention.hpp"
#include "embed.hpp"
#include "product.hpp"
#include "search.hpp"
#include "taps.hpp"

namespace kiku {

struct Processor {
  const char *name;
  bool (*is_here)();  // whether this machine has the instructions
  ProductKernels product;
  AttentionKernels attention;
  SearchKernels search;
  EmbedKernels embed;
  TapsKernels taps;
};

// The best that this machine has; null where it has none. The environment's KIKU_KERNELS names another.
const Processor *processor();

}  // namespace kiku
