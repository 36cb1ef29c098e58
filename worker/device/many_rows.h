// Who multiplies many rows on a GPU in the loose mode.
#pragma once

#include <cstdint>

namespace dsm::device {

// kAuto: by their number, the kernel for many rows (kernels/cuda/product_wide.h) or a library.
// kKernel and kLibrary: what the one does not take at all, the other does, to compare them.
enum class ManyRows : std::uint8_t { kAuto, kKernel, kLibrary };

}  // namespace dsm::device
