// Who multiplies many rows on a GPU in the loose mode.
#pragma once

#include <cstdint>

namespace dsm::device {

// kAuto: by their number, the kernel for many rows (kernels/cuda/product_wide.h) or a library.
// kKernel and kLibrary: what the one does not take at all, the other does, to compare them. kPairs:
// as kKernel, with its pairs of thread blocks (product_paired.cu), which no GPU has run yet.
enum class ManyRows : std::uint8_t { kAuto, kKernel, kLibrary, kPairs };

}  // namespace dsm::device
