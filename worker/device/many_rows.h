// Who multiplies many rows on a GPU in the loose mode.
#pragma once

#include <cstdint>

namespace dsm::device {

// kAuto: the fastest that can: of weights in BF16 pairs of thread blocks or the kernel for many
// rows (kernels/cuda/product_wide.h), and a library where these run on no such GPU, or by the
// number of rows. To compare them: kKernel without pairs, and kLibrary without either.
enum class ManyRows : std::uint8_t { kAuto, kKernel, kLibrary };

}  // namespace dsm::device
