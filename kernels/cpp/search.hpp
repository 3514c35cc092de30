// Search: the nearest code of each codebook, one after the other.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kiku {

struct SearchKernels {};

}  // namespace kiku
